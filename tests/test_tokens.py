"""tokens.py: what a token allows, and every way in which one can be wrong."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from streamup.errors import Unauthorized
from streamup.grants import Grant
from streamup.token_keys import SigningKey, private_key, public_keys, secret_key
from streamup.tokens import (
    LEEWAY_SECONDS,
    MOST_TOKEN_BYTES,
    Verifier,
    mint,
)

NOW = 1_800_000_000.0
SECRET = b"a secret of thirty-two bytes or more"
MARKER = "marker-of-a-secret"
CLAIMS = {"sub": "alice", "exp": NOW + 60}

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
OTHER_ED25519 = ed25519.Ed25519PrivateKey.generate()


def pem(private) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(private, encryption=None) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def jwk(private, **members) -> dict[str, str]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.OKPAlgorithm
    return {**algorithm.to_jwk(private.public_key(), as_dict=True), **members}


def jwks(*members) -> str:
    return json.dumps({"keys": list(members)})


def sign(claims=None, key=SECRET, algorithm="HS256", **header) -> str:
    return jwt.encode(CLAIMS if claims is None else claims, key, algorithm, headers=header or None)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: str, payload: str, secret: bytes = SECRET) -> str:
    """A token with a good HMAC, whatever is in it."""
    signed = f"{base64url(header.encode())}.{base64url(payload.encode())}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


VERIFIER = Verifier((secret_key(SECRET), *public_keys(pem(RSA) + "\n" + pem(ED25519))))


def grant(token: str, now: float = NOW, verifier: Verifier = VERIFIER) -> Grant:
    return verifier.grant(token, now)


def refused(token: str, because: str | None = None, now: float = NOW, verifier: Verifier = VERIFIER) -> None:
    with pytest.raises(Unauthorized, match=because) as refusal:
        verifier.grant(token, now)
    parts = [part for part in token.split(".") if len(part) > 8]
    assert not any(part in refusal.value.detail for part in [*parts, MARKER])


# --- what a token allows


@pytest.mark.parametrize(("key", "algorithm"), [(SECRET, "HS256"), (RSA, "RS256"), (ED25519, "EdDSA")])
def test_a_token_of_each_algorithm(key, algorithm):
    found = grant(sign(key=key, algorithm=algorithm))
    assert (found.subject, found.expires, found.key, found.prefix) == ("jwt:alice", NOW + 60, None, None)
    assert found.credential in {key.id for key in VERIFIER.keys if key.algorithm == algorithm}


def test_all_claims_become_what_they_say():
    claims = {
        **CLAIMS,
        "nbf": NOW,
        "iat": NOW,
        "jti": "17",
        "prefix": "live/",
        "methods": ["PUT", "HEAD"],
        "max_bytes": 5 << 30,
        "overwrite": False,
        "content_types": ["video/*", "application/vnd.apple.mpegurl"],
        "idle": 300,
        "min_rate": 0,
        "https://example.com/role": MARKER,
    }
    assert grant(sign(claims)) == Grant(
        subject="jwt:alice",
        credential=f"{secret_key(SECRET).id}/17",
        prefix="live/",
        methods=frozenset({"PUT", "HEAD"}),
        max_bytes=5 << 30,
        overwrite=False,
        content_types=("video/*", "application/vnd.apple.mpegurl"),
        expires=NOW + 60,
        idle_seconds=300.0,
        min_rate=0.0,
    )


def test_a_token_for_one_key():
    assert grant(sign({**CLAIMS, "key": "a/b c/ö.mp4"})).key == "a/b c/ö.mp4"


@pytest.mark.parametrize("subject", ["key-0123abcd", "anonymous", "jwt:alice", "", "x" * 256, "a\nb", "\ud800", 7])
def test_no_subject_is_that_of_an_api_key_or_nobodys(subject):
    """The characters that are refused could not be logged, or kept."""
    claims = {"sub": subject, "exp": NOW + 60}
    if subject in ("key-0123abcd", "anonymous", "jwt:alice"):
        assert grant(sign(claims)).subject == f"jwt:{subject}"
    else:
        refused(by_hand('{"alg":"HS256"}', json.dumps(claims)), "`sub`")


# --- time


@pytest.mark.parametrize(
    ("claims", "because"),
    [
        ({"exp": NOW - LEEWAY_SECONDS + 0.5}, None),
        ({"exp": NOW - LEEWAY_SECONDS}, "expired"),
        ({"exp": 0}, "expired"),
        ({"nbf": NOW + LEEWAY_SECONDS}, None),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
    ],
)
def test_time_counts_with_some_leeway(claims, because):
    token = sign({**CLAIMS, **claims})
    if because:
        refused(token, because)
    else:
        grant(token)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["null", '"1800000060"', "true", "NaN", "Infinity", "-1", "1800000060000", "1e400", "9" * 400, "[]", "{}"]
)
def test_a_time_is_a_number_of_seconds(name, value):
    others = {"sub": "a", "exp": NOW + 60}
    others.pop(name, None)
    payload = json.dumps(others)[:-1] + f', "{name}": {value}}}'
    refused(by_hand('{"alg":"HS256"}', payload), f"`{name}` is not a time")


@pytest.mark.parametrize("name", ["sub", "exp"])
def test_subject_and_expiry_are_required(name):
    claims = dict(CLAIMS)
    del claims[name]
    refused(sign(claims), f"`{name}`")


# --- claims of ours


@pytest.mark.parametrize(
    "claims",
    [
        {"key": None},
        {"key": 7},
        {"key": ""},
        {"key": "/a"},
        {"key": "a/../b"},
        {"key": "a\\b"},
        {"key": "a\0"},
        {"key": "x" * 1025},
        {"key": ["a"]},
        {"prefix": ""},
        {"prefix": "../"},
        {"prefix": "a//"},
        {"prefix": None},
        {"key": "a", "prefix": "a/"},
        {"methods": []},
        {"methods": "PUT"},
        {"methods": ["put"]},
        {"methods": ["PUT", 1]},
        {"methods": {"PUT": True}},
        {"methods": ["PUT|GET"]},
        {"methods": None},
        {"max_bytes": "5GiB"},
        {"max_bytes": 1.5},
        {"max_bytes": True},
        {"max_bytes": -1},
        {"max_bytes": 2**63},
        {"max_bytes": None},
        {"overwrite": 0},
        {"overwrite": "false"},
        {"overwrite": None},
        {"content_types": "video/mp4"},
        {"content_types": ["video"]},
        {"content_types": ["*/*"]},
        {"content_types": ["video/mp4; codecs=x"]},
        {"content_types": []},
        {"idle": "5m"},
        {"idle": 0},
        {"idle": -5},
        {"idle": True},
        {"min_rate": -1},
        {"min_rate": "0"},
        {"min_rate": False},
        {"jti": 5},
        {"jti": ""},
        {"jti": "a\nb"},
        {"sub": None},
    ],
    ids=str,
)
def test_a_claim_of_ours_that_is_not_of_its_type_refuses_the_token(claims):
    refused(by_hand('{"alg":"HS256"}', json.dumps({**CLAIMS, **claims})))


@pytest.mark.parametrize(
    "name", ["Key", "keys", "Prefix", "prefixes", "method", "maxBytes", "max-bytes", "max_byte", "contentTypes", "Idle"]
)
def test_a_claim_that_only_looks_like_ours_refuses_the_token(name):
    """Or a limit that somebody meant to set would be none."""
    refused(sign({**CLAIMS, name: MARKER}), "looks like")


@pytest.mark.parametrize("name", ["scope", "roles", "email", "azp", "nonce", "http_methods"])
def test_other_claims_are_ignored(name):
    assert grant(sign({**CLAIMS, name: MARKER})) == grant(sign())


# --- signatures


def test_a_token_without_a_signature_is_refused():
    refused(jwt.encode(CLAIMS, None, "none"), "not signed")
    unsigned = by_hand('{"alg":"none"}', json.dumps(CLAIMS))
    refused(unsigned, "not signed")
    refused(unsigned.rpartition(".")[0] + ".", "not signed")
    refused(sign().rpartition(".")[0] + ".", "not signed")
    for algorithm in ("None", "NONE", "hs256", "", None, 7, ["HS256"], {}):
        refused(by_hand(json.dumps({"alg": algorithm}), json.dumps(CLAIMS)), "not signed")
    refused(by_hand("{}", json.dumps(CLAIMS)), "not signed")


@pytest.mark.parametrize("private", [RSA, ED25519], ids=["RS256", "EdDSA"])
def test_a_public_key_is_no_secret(private):
    """What is public could be taken for the secret of an HMAC, if the header chose the algorithm."""
    public = private.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem(private).encode(), pem(private).strip().encode(), der):
        for algorithm in ("HS256", "RS256", "EdDSA"):
            token = by_hand(json.dumps({"alg": algorithm}), json.dumps(CLAIMS), secret)
            refused(token, "not signed")
            refused(token, "not signed", verifier=Verifier(public_keys(pem(private))))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_hashes_with_the_right_secret_are_refused(algorithm):
    refused(jwt.encode(CLAIMS, SECRET * 2, algorithm), "not signed", verifier=Verifier((secret_key(SECRET * 2),)))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_other_schemes_with_the_right_key_are_refused(algorithm):
    refused(sign(key=RSA, algorithm=algorithm), "not signed")


def test_a_strangers_signature_is_refused():
    refused(sign(key=SECRET[::-1]), "not signed")
    refused(sign(key=OTHER_ED25519, algorithm="EdDSA"), "not signed")
    refused(sign(), "not signed", verifier=Verifier())


def test_what_was_signed_cannot_be_changed():
    header, payload, signature = sign({**CLAIMS, "key": "a"}).split(".")
    other = sign({**CLAIMS, "key": "b"}, key=b"x" * 32).split(".")[1]
    refused(f"{header}.{other}.{signature}", "not signed")
    refused(f"{header}.{payload}.{signature[4:]}", "not signed")


def test_a_signature_is_bound_to_the_key_that_its_header_names():
    verifier = Verifier(public_keys(jwks(jwk(ED25519, kid="new"), jwk(OTHER_ED25519, kid="old"))))
    assert grant(sign(key=ED25519, algorithm="EdDSA", kid="new"), verifier=verifier).credential == verifier.keys[0].id
    assert grant(sign(key=OTHER_ED25519, algorithm="EdDSA"), verifier=verifier).credential == verifier.keys[1].id
    refused(sign(key=ED25519, algorithm="EdDSA", kid="old"), "not signed", verifier=verifier)
    refused(sign(key=ED25519, algorithm="EdDSA", kid="unknown"), "not signed .* no key of that name", verifier=verifier)
    refused(sign(), "not signed .* no key for its algorithm", verifier=verifier)
    refused(by_hand('{"alg":"EdDSA","kid":7}', json.dumps(CLAIMS)), "not a JWT", verifier=verifier)
    # A key without a name goes by its signatures alone.
    grant(sign(kid="unknown"))
    grant(sign(key=ED25519, algorithm="EdDSA", kid="unknown"))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "oct", "k": base64url(b"x" * 32)}},
        {"jku": "https://example.com/keys"},
        {"x5u": "https://example.com/certificate"},
    ],
    ids=str,
)
def test_keys_that_a_token_brings_along_are_not_looked_at(header):
    refused(by_hand(json.dumps({"alg": "HS256", **header}), json.dumps(CLAIMS), b"x" * 32), "not signed")


@pytest.mark.parametrize("header", ['{"alg":"HS256","crit":["b64"],"b64":false}', '{"alg":"HS256","crit":["exp"]}'])
def test_a_header_that_must_be_understood_and_is_not(header):
    refused(by_hand(header, json.dumps(CLAIMS)))


# --- audience and issuer


@pytest.mark.parametrize(
    ("claims", "audience", "issuer", "good"),
    [
        ({}, None, None, True),
        ({"iss": "anybody"}, None, None, True),
        ({"aud": "up"}, None, None, False),  # RFC 7519, 4.1.3
        ({"aud": "up"}, "up", None, True),
        ({"aud": ["other", "up"]}, "up", None, True),
        ({"aud": "other"}, "up", None, False),
        ({"aud": "UP"}, "up", None, False),
        ({"aud": ["up", 7]}, "up", None, False),
        ({"aud": {"up": 1}}, "up", None, False),
        ({}, "up", None, False),
        ({"iss": "us"}, None, "us", True),
        ({"iss": "them"}, None, "us", False),
        ({"iss": "u"}, None, "us", False),
        ({}, None, "us", False),
    ],
)
def test_audience_and_issuer_are_the_operators(claims, audience, issuer, good):
    verifier = Verifier((secret_key(SECRET),), audience, issuer)
    token = sign({**CLAIMS, **claims})
    if good:
        grant(token, verifier=verifier)
    else:
        refused(token, "audience or from another issuer", verifier=verifier)


# --- garbage


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "€.€.€",
        "\udcff.\udcff.\udcff",
        "a" * 500,
        "eyJhbGciOiJIUzI1NiJ9",
        f"{base64url(b'[]')}.{base64url(b'{}')}.",
        f"{base64url(b'{')}.{base64url(b'{}')}.",
        f"{base64url(b'[' * 3000)}.e30.e30",
        f"{base64url(bytes(range(256)))}.e30.e30",
        sign() + "!",
        sign() + ".x",
        " " + sign(),
        sign().replace(".", ". "),
        sign().replace(".", "%2E"),
        f"a.{sign()}",
    ],
    ids=range(19),
)
def test_garbage_is_no_token(token):
    refused(token, "not a JWT|not signed")


@pytest.mark.parametrize("payload", ["[]", "7", '"x"', "null", "{", "", "\x00", "[" * 3000, '{"sub":"\xff"'])
def test_a_signed_payload_that_is_no_set_of_claims(payload):
    refused(by_hand('{"alg":"HS256"}', payload), "not those of a JWT")


def test_a_token_beyond_the_bound_is_not_looked_at(monkeypatch):
    whole = sign({**CLAIMS, "filler": "x" * (MOST_TOKEN_BYTES * 3 // 4 - 200)})
    assert len(whole) < MOST_TOKEN_BYTES
    grant(whole)
    monkeypatch.setattr(jwt, "get_unverified_header", lambda _: pytest.fail("it was parsed"))
    refused("e" * (MOST_TOKEN_BYTES + 1), "longer")


# --- minting


@pytest.mark.parametrize("private", [RSA, ED25519], ids=["RS256", "EdDSA"])
def test_what_is_minted_is_taken(private):
    token = mint({**CLAIMS, "key": "ä/b"}, private_key(private_pem(private)), "name")
    assert jwt.get_unverified_header(token)["kid"] == "name"
    assert grant(token).key == "ä/b"
    assert "kid" not in jwt.get_unverified_header(mint(CLAIMS, SigningKey("HS256", SECRET)))


@pytest.mark.parametrize("claims", [{"key": "a", "prefix": "b"}, {"methods": ["put"]}, {"filler": "x" * 8000}], ids=str)
def test_what_no_server_would_take_is_not_minted(claims):
    with pytest.raises(Unauthorized):
        mint({**CLAIMS, **claims}, SigningKey("HS256", SECRET))


def test_the_end_of_time_is_the_calendars():
    refused(sign({**CLAIMS, "exp": datetime.max.replace(tzinfo=UTC).timestamp() + 1}), "`exp`")
