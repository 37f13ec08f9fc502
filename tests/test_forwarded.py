"""forwarded.py: what a proxy says about the address the client used, and who is believed."""

import re
import time
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from streamup.forwarded import Front, client, front

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("::ffff:192.0.2.0/120"))
PROXY = "10.0.0.1"


def told(*headers: tuple[str, str], peer: str | None = PROXY) -> Front:
    return front(peer, CIMultiDictProxy(CIMultiDict(headers)), PROXIES)


def forwarded(*lines: str) -> Front:
    return told(*(("Forwarded", line) for line in lines))


# --- who is believed

ALL = (("X-Forwarded-Host", "up.example"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/up"))


@pytest.mark.parametrize(
    "peer", [PROXY, "10.255.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00::1%eth0", "::ffff:192.0.2.9"]
)
def test_a_trusted_proxy_is_believed(peer):
    assert told(*ALL, peer=peer) == Front("https", "up.example", "/up")


@pytest.mark.parametrize(
    "peer", [None, "", "@", "11.0.0.1", "127.0.0.1", "::1", "::ffff:11.0.0.1", "proxy", "10.0.0.1:80"]
)
def test_nobody_else_is(peer):
    assert told(*ALL, ("Forwarded", "host=a;proto=https"), peer=peer) == Front()


def test_without_trusted_proxies_nobody_is():
    assert front(PROXY, dict(ALL), ()) == Front()


def test_a_proxy_need_not_say_anything():
    assert told() == Front()


# --- X-Forwarded-*


def test_of_a_list_the_last_element_counts():
    headers = [
        (name, f"{forged}, {value} ") for (name, value), forged in zip(ALL, ("evil", "http", "/evil"), strict=True)
    ]
    assert told(*headers) == Front("https", "up.example", "/up")


def test_of_several_lines_the_last_one_counts():
    assert told(("x-forwarded-host", "evil"), ("X-FORWARDED-HOST", "up.example")).host == "up.example"
    assert forwarded("host=evil", "host=up.example").host == "up.example"
    assert forwarded('host="evil', "host=up.example").host == "up.example"


def test_an_empty_last_element_says_nothing():
    assert told(("X-Forwarded-Host", "evil,"), ("X-Forwarded-Proto", "https, ")) == Front()


def test_names_are_found_in_any_case_without_a_multidict_too():
    assert front(PROXY, {"x-forwarded-host": "up.example"}, PROXIES).host == "up.example"


# --- Forwarded


@pytest.mark.parametrize(
    ("line", "scheme", "host"),
    [
        ("host=up.example;proto=https", "https", "up.example"),
        ('for="[2001:db8::1]:4711";Proto=HTTPS;HOST="up.example:8443"', "https", "up.example:8443"),
        ("for=192.0.2.60; proto=http ; host=up.example:80 ", "http", "up.example:80"),
        ('host="[::1]:80"', None, "[::1]:80"),
        (r'host="up\.exa\mple"', None, "up.example"),
        (r'for="a\";host=evil;\"b";host=up.example', None, "up.example"),
        ('for="a,b;host=evil";host=up.example', None, "up.example"),
        ("host=evil;proto=http, for=192.0.2.60;host=up.example", None, "up.example"),
        ("host=evil, proto=https", "https", None),
        (";;host=up.example;", None, "up.example"),
        ("for=;host=up.example", None, "up.example"),
        (",, host=up.example", None, "up.example"),
        ("host=", None, None),
        ("host=a b", None, None),
        ("host=a;host=b", None, None),
        ("host =a", None, None),
        ("host", None, None),
        ("host=a;=b", None, None),
        ('host="a', None, None),
        ('host="a"b', None, None),
        ('host="a\\', None, None),
        ("host=a/b", None, None),
        ("host=a, for=b", None, None),
        ("host=a,", None, None),
    ],
)
def test_forwarded(line, scheme, host):
    assert forwarded(line) == Front(scheme, host)


def test_forwarded_wins():
    assert told(*ALL, ("Forwarded", "host=a.example")) == Front(None, "a.example", "/up")
    assert told(*ALL, ("Forwarded", "proto=http")) == Front("http", None, "/up")


def test_forwarded_that_says_neither_scheme_nor_host_leaves_the_word_to_the_others():
    assert told(*ALL, ("Forwarded", "for=192.0.2.60")) == Front("https", "up.example", "/up")


def test_where_forwarded_is_malformed_the_others_are_not_believed_either():
    assert told(*ALL, ("Forwarded", 'for="x, host=up.example')) == Front(None, None, "/up")


# --- plausible values


@pytest.mark.parametrize(
    "host",
    ["a", "up.example.", "my_app:8080", "192.0.2.1:80", "[2001:db8::1]", "[::ffff:1.2.3.4]:65535", "xn--n3h.example"],
)
def test_hosts(host):
    assert told(("X-Forwarded-Host", host)).host == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        "a@b",
        "a?b",
        "a#b",
        "a\\b",
        "a..b",
        ".a",
        "-a",
        "a:",
        "a:b",
        "a:65536",
        "a:123456",
        "a:٣",
        "é.example",
        "::1",
        "[::1",
        "[:::]",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "a\n",
        "https://a",
        "x" * 64,
        "x." * 127,
        "unix:/run/x",
    ],
)
def test_what_is_no_host(host):
    assert told(("X-Forwarded-Host", host)).host is None


@pytest.mark.parametrize(
    ("text", "scheme"), [("HTTPS", "https"), ("http", "http"), ("javascript", None), ("wss", None)]
)
def test_schemes(text, scheme):
    assert told(("X-Forwarded-Proto", text)).scheme == scheme


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("/up", "/up"), ("/up/", "/up"), ("/a/b-c.d/~e", "/a/b-c.d/~e"), ("/%C3%A9", "/%C3%A9"), ("/", ""), ("", "")],
)
def test_prefixes(text, prefix):
    assert told(("X-Forwarded-Prefix", text)).prefix == prefix


@pytest.mark.parametrize(
    "text",
    [
        "up",
        "//evil",
        "/a//b",
        "/a/../b",
        "/..",
        "/%2e%2E/b",
        "/.%2e",
        "/a?b",
        "/a#b",
        "/a b",
        "/a\tb",
        "/a\\b",
        "/é",
        "/%zz",
        "https://evil",
    ],
)
def test_what_is_no_prefix(text):
    assert told(("X-Forwarded-Prefix", text)).prefix == ""


# --- locations


@pytest.mark.parametrize(
    ("told_by", "host", "location"),
    [
        (Front(), "up.example", "/uploads/1"),
        (Front(prefix="/up"), "up.example", "/up/uploads/1"),
        (Front("https", "up.example:8443", "/up"), "inside", "https://up.example:8443/up/uploads/1"),
        (Front("https", "up.example"), None, "https://up.example/uploads/1"),
        (Front(host="up.example"), "inside", "http://up.example/uploads/1"),
        (Front("https"), "up.example:81", "https://up.example:81/uploads/1"),
        (Front("https"), None, "/uploads/1"),
        (Front("https", prefix="/up"), "evil/", "/up/uploads/1"),
    ],
)
def test_locations(told_by, host, location):
    assert told_by.location("/uploads/1", host=host) == location


# --- whatever is sent

pieces = st.sampled_from(
    [
        "host",
        "proto",
        "for",
        "=",
        ";",
        ",",
        '"',
        "\\",
        " ",
        "a.example",
        "evil",
        "https",
        "/",
        "..",
        "[::1]",
        ":80",
        "\n",
    ]
)
texts = st.lists(pieces, max_size=20).map("".join) | st.text(max_size=30)


@settings(deadline=None)
@given(texts)
def test_what_a_client_wrote_before_our_proxy_is_never_believed(forgery):
    for ours in ('for="[2001:db8::1]:4711";host="up.example";proto=https', "host=up.example;proto=https"):
        assert forwarded(f"{forgery},{ours}") in {Front(), Front("https", "up.example")}
        assert forwarded(forgery, ours) == Front("https", "up.example")
    headers = [(name, f"{forgery},{value}") for name, value in ALL]
    assert told(*headers) == Front("https", "up.example", "/up")


@settings(deadline=None)
@given(texts, texts, texts, texts, st.none() | texts)
def test_a_location_is_a_path_of_ours_on_a_plausible_host(line, host, proto, prefix, own):
    names = ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix")
    location = told(*zip(names, (line, host, proto, prefix), strict=True)).location("/uploads/1", host=own)
    assert re.fullmatch(r"(https?://[0-9A-Za-z._:\[\]-]+)?(/[!-.0->@-\[\]-~]+)*/uploads/1", location)


@pytest.mark.parametrize(
    "line",
    [
        " \t" * 50_000 + "!",
        'a="' + "\\" * 100_001,
        'a="' + "\\a" * 50_000,
        "a" * 100_000,
        "a=" + "a" * 100_000 + " ",
        "a=b;" * 25_000 + '"',
        "/a" * 50_000 + "?",
        "/%41" * 25_000 + "%",
        "a." * 50_000 + "!",
        "a" * 62 + "-" * 100_000,
        "[" + ":" * 100_000 + "]",
    ],
    ids=range(11),
)
def test_time_is_linear(line):
    start = time.perf_counter()
    told(("Forwarded", line), ("X-Forwarded-Host", line), ("X-Forwarded-Prefix", line))
    assert time.perf_counter() - start < 1


# --- where the client is


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("192.0.2.1", {"X-Forwarded-For": "203.0.113.9"}, "192.0.2.1"),  # no proxy of ours says so
        (None, {"X-Forwarded-For": "203.0.113.9"}, None),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}, "203.0.113.9"),  # the first is an invention
        ("10.0.0.1", {"X-Forwarded-For": "198.51.100.1, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "10.0.0.3, 10.0.0.2"}, "10.0.0.3"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9:4711"}, "203.0.113.9"),
        ("10.0.0.1", {"X-Forwarded-For": "2001:db8::1"}, "2001:db8::1"),
        ("10.0.0.1", {"X-Forwarded-For": "unknown, 10.0.0.2"}, "10.0.0.2"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.999"}, "10.0.0.1"),
        ("10.0.0.1", {"X-Forwarded-For": "203.0.113.9,"}, "203.0.113.9"),
        ("::ffff:10.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("fd00::1", {"Forwarded": 'for="[2001:db8::1]:4711";proto=https'}, "2001:db8::1"),
        ("10.0.0.1", {"Forwarded": "for=198.51.100.1, for=203.0.113.9, proto=http"}, "203.0.113.9"),
        ("10.0.0.1", {"Forwarded": "for=203.0.113.9, for=10.0.0.2"}, "203.0.113.9"),
        ("10.0.0.1", {"Forwarded": "for=_hidden"}, "10.0.0.1"),
        ("10.0.0.1", {"Forwarded": 'for="203.0.113.9'}, "10.0.0.1"),
        # One is the proxy's, the other one perhaps the client's, and nobody knows which.
        ("10.0.0.1", {"Forwarded": "for=198.51.100.1", "X-Forwarded-For": "203.0.113.9"}, "10.0.0.1"),
        ("10.0.0.1", {"Forwarded": "for=203.0.113.9", "X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {"Forwarded": "proto=https", "X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
    ],
)
def test_where_the_client_is(peer, headers, address):
    assert client(peer, headers, PROXIES) == address


def test_several_lines_are_one_list():
    lines = CIMultiDict([("X-Forwarded-For", "198.51.100.1"), ("x-forwarded-for", "203.0.113.9")])
    assert client("10.0.0.1", lines, PROXIES) == "203.0.113.9"
