"""values.py: what people write, and what is no such value."""

from base64 import b64encode
from hashlib import sha256

import pytest

from streamup.config import OPTIONS
from streamup.errors import ConfigError
from streamup.values import (
    parse_address,
    parse_api_key,
    parse_duration,
    parse_jwt_secret,
    parse_size,
    parse_sse_c_key,
    parse_store,
    parse_token,
    parse_url,
)

MIB = 1 << 20
GIB = 1 << 30
KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", MIB),
        ("8MiB", 8 * MIB),
        ("8 mib", 8 * MIB),
        ("10GiB", 10 * GIB),
        ("5 MB", 5_000_000),
        ("1.5GiB", 3 * GIB // 2),
        ("3KB", 3000),
        ("2TiB", 2 << 40),
        ("12B", 12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8M", "MiB", "-1", "1e6", "8 MiB of it", "٣MiB", "True", "0x10"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="Write it as 8MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400),
        ("30s", 30),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("30", 30),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("2d", 172800),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "1h30", "-3s", "1w", "soon", "1.2.3s"])
def test_what_is_no_duration(text):
    with pytest.raises(ConfigError, match="Write it as 24h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0%", "101%", "1.5%", "half", "-1", "%"])
def test_what_is_no_share(text):
    with pytest.raises(ConfigError, match="Write it as 50%"):
        OPTIONS["subject_share_percent"].parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("up.example.com:443", ("up.example.com", 443)),
        (":8080", ("", 8080)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["8080", "::1:8080", "host:65536", "host:", "http://host:80", "*:80", "[::1]"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="Write it as 127"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://my.bucket-1/live/camera 1", ("my.bucket-1", "live/camera 1/")),
        ("s3://bucket/a/", ("bucket", "a/")),
    ],
)
def test_places_for_objects(text, place):
    assert parse_store(text) == place


@pytest.mark.parametrize(
    "text", ["bucket", "s3:/b", "s3://", "s3://b@d/x", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/\n"]
)
def test_what_is_no_place(text):
    with pytest.raises(ConfigError, match="Write it as s3://bucket"):
        parse_store(text)


def test_api_keys_are_kept_as_their_sha256():
    digest = sha256(KEY.encode()).digest()
    assert parse_api_key(KEY) == digest
    assert parse_api_key(f"sha256:{digest.hex().upper()}") == digest


@pytest.mark.parametrize(
    "text", ["short", KEY[1:], "sha256:abcd", "has a space in it!", "has,commas,in,it,too", "kéy-kéy-kéy-kéy-kéy"]
)
def test_a_refused_api_key_is_not_quoted(text):
    with pytest.raises(ConfigError) as refusal:
        parse_api_key(text)
    assert text not in str(refusal.value)


def test_tokens_are_for_headers():
    assert parse_token("a.b-c") == "a.b-c"
    with pytest.raises(ConfigError):
        parse_token("a\r\nHost: b")


@pytest.mark.parametrize("text", ["minio:9000", "ftp://x", "http://", "/path"])
def test_what_is_no_url(text):
    with pytest.raises(ConfigError, match="not a URL"):
        parse_url(text)


def test_a_refused_sse_c_key_is_not_quoted():
    for text in ("c2VjcmV0", "not base64!", "c2VjcmV0" * 20):
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as refusal:
            parse_sse_c_key(text)
        assert text not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "x" * 31, "x" * 31 + " ", "x" * 40 + "ö", "two words of more than thirty-two"])
def test_a_secret_that_can_be_guessed_is_refused_and_not_quoted(text):
    with pytest.raises(ConfigError, match="openssl rand -hex 32") as refusal:
        parse_jwt_secret(text)
    assert not text or text not in str(refusal.value)
    assert parse_jwt_secret("x" * 32) == b"x" * 32


def test_what_is_written_well_is_kept():
    assert parse_url("http://minio:9000") == "http://minio:9000"
    assert parse_sse_c_key(b64encode(bytes(32)).decode()) == bytes(32)
