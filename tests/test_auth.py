"""auth.py: who may do what."""

from base64 import b64encode
from dataclasses import replace
from hashlib import sha256

import pytest
from multidict import CIMultiDict

from streamup.auth import ANONYMOUS, Authorizer
from streamup.config import Config
from streamup.errors import ConfigError, Forbidden, Unauthorized
from streamup.grants import Grant
from streamup.protocols import RequestHead

KEY = "a-key-of-twenty-chars"
OTHER = "another-key-of-many-chars"
HASHES = tuple(sha256(key.encode()).digest() for key in (OTHER, KEY))
SUBJECT = "key-" + sha256(KEY.encode()).hexdigest()[:16]


def decide(changes=None, method="PUT", **headers) -> Grant:
    config = replace(Config(), **(changes or {}))
    named = CIMultiDict({"host": "127.0.0.1:8080"} | {name.replace("_", "-"): text for name, text in headers.items()})
    return Authorizer.of(config).authorize(RequestHead(method=method, headers=named))


def basic(text: str | bytes) -> str:
    return "Basic " + b64encode(text.encode() if isinstance(text, str) else text).decode()


# --- who asks


def test_two_credentials_of_one_name_are_refused():
    """Each would own the other's uploads, and revoking one would revoke none."""
    keys = tuple(HASHES[0][:8] + rest * 24 for rest in (b"a", b"b"))
    with pytest.raises(ConfigError, match=f"key-{HASHES[0].hex()[:16]}"):
        Authorizer.of(replace(Config(), api_key_sha256=keys))


def test_without_keys_everybody_is_anonymous():
    assert decide() == ANONYMOUS
    assert decide(authorization="Bearer whatever") == ANONYMOUS


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {KEY}",
        f"bearer  {KEY} ",
        basic(f"any:{KEY}"),
        basic(f":{KEY}"),
        basic(f"any:{KEY}").replace("Basic", "BASIC"),
    ],
)
def test_a_key_is_a_bearer_token_or_a_basic_password(authorization):
    assert decide({"api_key_sha256": HASHES}, authorization=authorization).subject == SUBJECT


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {KEY}x",
        f"Bearer sha256:{HASHES[1].hex()}",
        f"Digest {KEY}",
        KEY,
        "Basic",
        "Basic !!!",
        "Basic é",
        "Bearer \udcff",
        basic(KEY),
        basic(f"{KEY}:"),
        basic(f"{KEY}:wrong"),
        basic(b"any:\xff\xfe"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "OPTIONS", "DELETE"])
def test_anything_else_is_unauthorized(authorization, method):
    headers = {} if authorization is None else {"authorization": authorization}
    with pytest.raises(Unauthorized) as refusal:
        decide({"api_key_sha256": HASHES}, method, **headers)
    assert KEY not in refusal.value.detail


def test_a_wrong_api_key_is_told_what_to_do():
    with pytest.raises(Unauthorized, match=r"does not know that API key. Is it whole, .* ask its operator"):
        decide({"api_key_sha256": HASHES}, "PUT", authorization=f"Bearer {KEY}x")


def test_a_preflight_carries_no_credential():
    changes = {"api_key_sha256": HASHES, "cors_origins": ("https://app.example.com",)}
    preflight = {"access_control_request_method": "PUT"}
    assert decide(changes, "OPTIONS", origin="https://app.example.com", **preflight) == ANONYMOUS
    with pytest.raises(Forbidden):
        decide(changes, "OPTIONS", origin="https://evil.example.com", **preflight)
    with pytest.raises(Unauthorized):
        decide(changes, "PUT", origin="https://app.example.com", **preflight)


# --- foreign pages


HOST = "127.0.0.1:8080"
APP = "https://app.example.com"
FRAME = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:8080"},
        {"origin": f"http://{HOST}.evil.example"},
        {"origin": "http://evil-127.0.0.1:8080"},
        {"origin": f"http://{HOST}@evil.example"},
        {"origin": "http://127.0.0.1.:8080"},
        {"origin": "http://[::1]:8080"},
        {"origin": "http://[::ffff:127.0.0.1]:8080"},
        {"origin": "https://xn--bcher-kva.example"},
        {"origin": "https://b\u00fccher.example"},
        {"origin": f"chrome-extension://{HOST}"},
        {"origin": f"http://{HOST}/"},
        {"origin": f"http://{HOST}, https://elsewhere.example"},  # two fields, joined
        {"origin": f"https://elsewhere.example, http://{HOST}"},
        {"origin": f"http://{HOST} https://elsewhere.example"},
        {"origin": f"{APP}:444"},  # almost the one that is named
        {"origin": APP.replace("https", "http")},
        {"origin": f"{APP}."},
        {"origin": APP.replace("app", "sub.app")},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "Cross-Site"},
        {"sec_fetch_site": "same-origin, cross-site"},
        {"origin": f"http://{HOST}", "sec_fetch_site": "cross-site"},
        {"origin": "http://127.0.0.1:3000", "sec_fetch_site": "same-site"},
        FRAME,
        FRAME | {"sec_fetch_dest": "document", "origin": "null"},  # a form
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [{}, {"api_key_sha256": HASHES}], ids=["open", "keyed"])
def test_foreign_pages_are_forbidden_whatever_the_method(headers, changes):
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        with pytest.raises(Forbidden, match="--cors-origin"):
            decide(changes | {"cors_origins": (APP,)}, method, authorization=f"Bearer {KEY}", **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8080"},
        {"origin": "https://127.0.0.1:8080", "sec_fetch_site": "same-origin"},
        {"origin": "http://localhost", "host": "LOCALHOST:80"},
        {"origin": "https://localhost", "host": "localhost:443"},
        {"origin": "http://[::1]:8080", "host": "[::1]:8080"},
        {"origin": "https://app.example.com", "sec_fetch_site": "cross-site"},
        {"origin": "https://APP.example.com"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_our_own_pages_and_allowed_ones(headers):
    assert decide({"cors_origins": ("https://app.example.com",)}, **headers) == ANONYMOUS


# --- DNS rebinding

LOCAL_NAMES = ["localhost", "localhost:8080", "LocalHost.", "up.localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"]
OPEN = {"listen": ("0.0.0.0", 8080), "insecure_no_auth": True}
KEYED = {"listen": ("0.0.0.0", 8080), "api_key_sha256": HASHES}
LISTED = {"allowed_hosts": ("up.example.com",)}


@pytest.mark.parametrize("changes", [{}, OPEN, KEYED, LISTED, KEYED | LISTED])
@pytest.mark.parametrize("host", LOCAL_NAMES)
def test_loopback_names_are_always_us(changes, host):
    decide(changes, host=host, authorization=f"Bearer {KEY}")


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        (OPEN, "192.168.1.5:8080"),  # an address cannot be rebound
        (OPEN, "[2001:db8::1]:8080"),
        (OPEN | LISTED, "UP.example.com:443"),
        (OPEN | {"listen": ("Up.lan", 8080)}, "up.lan:8080"),
        (KEYED, "whatever.example.com"),  # a page that rebinds a name has no key
        (KEYED | LISTED, "up.example.com"),
    ],
)
def test_hosts_that_are_us(changes, host):
    decide(changes, host=host, authorization=f"Bearer {KEY}")


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        ({}, "evil.example.com:8080"),
        ({}, "127.0.0.1.evil.example.com"),
        ({}, "localhost.evil.example.com"),
        ({}, "evil.example.com@localhost"),
        ({}, "localhost/evil"),
        ({}, ""),
        ({}, "[::1"),
        (OPEN, "evil.example.com:8080"),
        (OPEN, "0.0.0.0.evil.example.com"),
        (LISTED, "sub.up.example.com"),
        (LISTED, "192.168.1.5"),
        (KEYED | LISTED, "whatever.example.com"),
    ],
)
def test_hosts_that_are_not_us(changes, host):
    with pytest.raises(Forbidden, match="--allowed-host"):
        decide(changes, host=host, authorization=f"Bearer {KEY}")


def test_http_1_0_may_leave_the_host_out():
    assert Authorizer.of(Config()).authorize(RequestHead(method="PUT")) == ANONYMOUS
    with pytest.raises(Forbidden):
        Authorizer.of(Config()).authorize(RequestHead(method="PUT", headers=CIMultiDict(Origin="http://")))
