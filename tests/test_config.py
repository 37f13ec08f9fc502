"""config.py: what people write, and what is refused."""

from base64 import b64encode
from dataclasses import fields, replace
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

import pytest

from streamup.config import (
    OPTIONS,
    Config,
    build,
    check,
    parse_address,
    parse_api_key,
    parse_duration,
    parse_jwt_secret,
    parse_size,
    parse_sse_c_key,
    parse_store,
    parse_token,
    parse_url,
    read_toml,
)
from streamup.errors import ConfigError

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


# --- the table


def test_every_field_is_an_option_but_the_place():
    assert {field.name for field in fields(Config)} - OPTIONS.keys() == {"bucket", "prefix", "prefixes"}


def test_defaults_are_those_that_are_shown():
    config = Config()
    for name, option in OPTIONS.items():
        if option.parse and isinstance(option.default, str):
            assert getattr(config, name) == option.parse(option.default)


@pytest.mark.parametrize(
    ("field", "good", "value", "bad"),
    [
        ("interrupted", "append", "append", "appendd"),
        ("parallel_parts", "4", 4, "four"),
        ("admin_listen", "off", None, "no"),
        ("cors_origins", "https://App.example.com", "https://app.example.com", "https://app.example.com/"),
        ("cors_origins", "http://localhost:3000", "http://localhost:3000", "*"),
        ("allowed_hosts", "Up.Example.com.", "up.example.com", "http://up.example.com"),
        ("allowed_hosts", "[::1]", "::1", "host:80"),
        ("key_template", "in/{id}.bin", "in/{id}.bin", "in/{filename}"),
        ("trusted_proxies", "10.0.0.5", ip_network("10.0.0.5/32"), "proxy.example.com"),
        ("trusted_proxies", " 10.0.0.0/8 ", ip_network("10.0.0.0/8"), "10.0.0.5/8"),
        ("trusted_proxies", "fd00::/8", ip_network("fd00::/8"), "fd00::/129"),
        ("trusted_proxies", "::1", ip_network("::1/128"), ""),
        ("tags", "team=a b", ("team", "a b"), "team"),
        ("tags", "a=b=c", ("a", "b=c"), "=b"),
        ("sse_kms_context", "a=b&c", ("a", "b&c"), "a"),
        ("cache_control", "max-age=60, public", "max-age=60, public", "a\nb"),
    ],
)
def test_values_of_single_options(field, good, value, bad):
    assert OPTIONS[field].parse(good) == value
    with pytest.raises(ConfigError):
        OPTIONS[field].parse(bad)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("key_template", "{filename}", "lacks {id}"),
        ("trusted_proxies", "10.0.0.5/8", r"Write 10\.0\.0\.0/8 for all of the network"),
        ("trusted_proxies", "10.0.0.0/33", r"Write it as 10\.0\.0\.5, 10\.0\.0\.0/8 or fd00::/8"),
    ],
)
def test_a_refused_value_says_why(field, text, message):
    with pytest.raises(ConfigError, match=message):
        OPTIONS[field].parse(text)


def test_the_variable_of_an_option():
    assert OPTIONS["part_bytes"].variable == "STREAMUP_PART_SIZE"


# --- TOML


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "streamup.toml"
    path.write_text(text)
    return path


def test_toml_names_options_as_flags_do(tmp_path):
    path = toml(
        tmp_path, 'store = "s3://b/p"\npart-size = "16MiB"\nexpire = 3600\nlocal = false\ncors-origin = "https://a"\n'
    )
    assert read_toml(path) == {
        "store": "s3://b/p",
        "part_bytes": "16MiB",
        "expire_seconds": 3600,
        "local": False,
        "cors_origins": ["https://a"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('part-sise = "8MiB"', "Did you mean part-size"),
        ('part_size = "8MiB"', "Did you mean part-size"),
        ("zzz = 1", "lists the options"),
        ("part-size = ", "is not TOML"),
        ("part-size = [1, 2]", "takes one value"),
        ("[serve]\n", "no option 'serve'"),
        ("[data]\nx = 1", "takes one value"),
    ],
)
def test_a_toml_file_with_a_mistake_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_toml(toml(tmp_path, text))


SSE_C_KEY = bytes(range(32))

PREFIXES = f"""
storage-class = "STANDARD"
tag = {{ team = "video", "cost centre" = "7" }}

[prefix."recordings/"]
storage-class = "STANDARD_IA"
tag = {{ team = "live" }}
cache-control = "no-store"

[prefix.archive]
storage-class = "none"
tag = "none"
sse = "aws:kms"
sse-bucket-key = true
sse-kms-context = ["a=b"]

[prefix."secret/keys"]
sse-c-key = "{b64encode(SSE_C_KEY).decode()}"
tag = {{}}
"""


def test_toml_says_what_goes_with_objects_below_a_prefix(tmp_path):
    written = read_toml(toml(tmp_path, PREFIXES))
    assert written["tags"] == ["team=video", "cost centre=7"]
    assert written["prefixes"] == {
        "recordings/": {"storage_class": "STANDARD_IA", "tags": (("team", "live"),), "cache_control": "no-store"},
        "archive/": {
            "storage_class": None,
            "tags": (),
            "sse": "aws:kms",
            "sse_bucket_key": True,
            "sse_kms_context": (("a", "b"),),
        },
        "secret/keys/": {"sse_c_key": SSE_C_KEY, "tags": ()},
    }


def test_a_secret_may_be_in_a_file_of_its_own(tmp_path):
    secret = tmp_path / "key"
    secret.write_bytes(b64encode(SSE_C_KEY) + b"\n")
    written = read_toml(toml(tmp_path, f'sse-c-key-file = "{secret}"\n[prefix.a]\nsse-c-key-file = "{secret}"\n'))
    assert written == {"sse_c_key": b64encode(SSE_C_KEY).decode(), "prefixes": {"a/": {"sse_c_key": SSE_C_KEY}}}
    secret.write_text(f"{KEY}\n{KEY}2\n")
    assert read_toml(toml(tmp_path, f'api-key-file = "{secret}"\n')) == {"api_key_sha256": [KEY, KEY + "2"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('prefix = "a"', r'a table, \[prefix."recordings/"\]'),
        ("[prefix]\na = 1", "a table"),
        ("[prefixes.a]\n", "Did you mean prefix"),
        ('[prefix.a]\nstorage-clas = "X"', r'\[prefix."a"\] there is no option .*Did you mean storage-class'),
        ('[prefix.a]\npart-size = "8MiB"', r'\[prefix."a"\] there is no option .*There are sse, .*cache-control'),
        ('[prefix.a]\nstorage-class = ["X"]', "takes one value"),
        ("[prefix.a]\ntag = { team = 1 }", "tag is written as"),
        ('[prefix.a]\ntag = { "te=am" = "1" }', "no = in the names"),
        ('[prefix.a]\ntag = "video"', r'"a"\] tag: .video. is not NAME=VALUE'),
        ('[prefix.a]\ntag = { "a&b" = "c" }', r"tag: A tag has letters"),
        ('[prefix.a]\nsse-bucket-key = "yes"', "true or false, without quotes"),
        ('[prefix.a]\nsse-c-key = "abc"', "sse-c-key: A key for SSE-C is the base64 of 32 bytes"),
        ('[prefix.a]\nsse-c-key = "abc"\nsse-c-key-file = "x"', "Keep one of them"),
        ('[prefix.a]\nsse-c-key-file = "/nowhere/x"', "sse-c-key-file: /nowhere/x cannot be read"),
        ('[prefix.""]\n', "is no prefix of keys"),
        ('[prefix."/a"]\n', "is no prefix of keys. A key has no empty segments"),
        ('[prefix."a/../b"]\n', "is no prefix of keys"),
        ('[prefix.a]\n[prefix."a/"]\n', "there twice"),
    ],
)
def test_a_prefix_with_a_mistake_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_toml(toml(tmp_path, text))


def test_a_refused_sse_c_key_is_not_quoted():
    for text in ("c2VjcmV0", "not base64!", "c2VjcmV0" * 20):
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as refusal:
            parse_sse_c_key(text)
        assert text not in str(refusal.value)


def test_secrets_are_not_shown():
    secret = b"x" * 32
    config = Config(sse_c_key=secret, api_key_sha256=(secret,), prefixes={"a/": {"sse_c_key": secret}})
    assert "xxxx" not in repr(config) + repr(config.objects) + repr(config.objects.each)


def test_what_goes_with_objects_is_the_servers_and_then_the_prefixs():
    config = build("s3://bucket", {"storage_class": "GLACIER", "prefixes": {"a/": {"acl": "private"}}})
    assert (config.objects.of("a/b").acl, config.objects.of("a/b").storage_class) == ("private", "GLACIER")
    assert (config.objects.of("b").acl, config.objects.of("b").storage_class) == (None, "GLACIER")


def test_objections_name_the_prefix_unless_all_objects_have_them():
    with pytest.raises(ConfigError) as refusal:
        build("s3://bucket", {"acl": "open", "prefixes": {"a/": {"sse": "AES"}, "b/": {"acl": "shut"}}})
    first, second, third = str(refusal.value).splitlines()
    assert first.startswith("--acl open")
    assert second.startswith('[prefix."a/"] --sse AES is unknown')
    assert third.startswith('[prefix."b/"] --acl shut')


def test_a_toml_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")


# --- the whole


def test_local_switches_downloads_and_deletes_on():
    config = build(None, {"local": True, "downloads": None, "deletes": False})
    assert (config.local, config.downloads, config.deletes) == (True, True, False)


def test_a_bucket_leaves_them_off():
    config = build("s3://bucket/p", {"local": False})
    assert (config.bucket, config.prefix, config.downloads, config.deletes) == ("bucket", "p/", False, False)


def shares(**values):
    config = build("s3://bucket", values)
    amounts = config.max_open_uploads, config.max_connections, config.spool_bytes
    return *map(config.share, amounts), config.appends_a_second


@pytest.mark.parametrize("values", [{}, {"api_key_sha256": (b"1",)}])
def test_who_can_only_be_alone_may_take_all(values):
    assert shares(**values) == (None,) * 4


@pytest.mark.parametrize(
    "values", [{"api_key_sha256": (b"1", b"2")}, {"jwt_secret": "x" * 40}, {"jwt_keys": Path("k")}]
)
def test_of_several_subjects_none_takes_more_than_half(values):
    assert shares(**values) == (5000, 1000, 5 << 30, 100)
    assert shares(**values, subject_share_percent=10, subject_appends=8, max_connections=3) == (1000, 1, 1 << 30, 8)


@pytest.mark.parametrize(("store", "local"), [(None, False), ("s3://b/p", True)])
def test_exactly_one_place_for_objects(store, local):
    with pytest.raises(ConfigError, match="Say where objects go"):
        build(store, {"local": local})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"listen": ("0.0.0.0", 80), "api_key_sha256": (b"x" * 32,)},
        {"listen": ("0.0.0.0", 80), "jwt_secret": b"x" * 32, "jwt_audience": "up"},
        {"listen": ("0.0.0.0", 80), "jwt_keys": Path("k"), "jwt_issuer": "us"},
        {"listen": ("0.0.0.0", 80), "insecure_no_auth": True},
        {"listen": ("::1", 0), "admin_listen": ("::1", 0)},
        {"admin_listen": None},
        {"admin_listen": ("0.0.0.0", 9464)},
        {"part_bytes": 5 * MIB, "spool_bytes": 40 * MIB},
        {"sse": "aws:kms:dsse", "sse_kms_key_id": "k"},
        {"tls_cert": Path("c"), "tls_key": Path("k")},
        {"max_upload_bytes": 1},
        {"grace_seconds": 0},
        {"key_template": "{id}", "prefix": "x" * 991 + "/"},
    ],
)
def test_what_is_fine(changes):
    check(replace(Config(), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"listen": ("0.0.0.0", 80)}, r"--listen 0.0.0.0:80 is reachable.*--insecure-no-auth"),
        ({"listen": ("", 80)}, r"--listen \(every interface\):80 is reachable"),
        ({"insecure_no_auth": True, "api_key_sha256": (b"x" * 32,)}, "contradicts"),
        ({"insecure_no_auth": True, "jwt_secret": b"x" * 32}, "contradicts"),
        ({"insecure_no_auth": True, "jwt_keys": Path("k")}, "contradicts"),
        ({"jwt_audience": "up"}, "none is taken without"),
        ({"jwt_issuer": "us", "api_key_sha256": (b"x" * 32,)}, "none is taken without"),
        ({"admin_listen": ("127.0.0.1", 8080)}, "Give one another port"),
        ({"tls_cert": Path("c")}, "--tls-cert needs --tls-key"),
        ({"tls_key": Path("c")}, "--tls-key needs --tls-cert"),
        ({"part_bytes": 5 * MIB - 1}, "not legal in S3"),
        ({"part_bytes": 5 * GIB + 1, "spool_bytes": 100 * GIB}, "not legal in S3"),
        ({"part_bytes": 8 * MIB, "spool_bytes": 64 * MIB - 1}, "Set --spool-size to 64MiB"),
        ({"part_bytes": 8 * MIB + 1, "spool_bytes": 64 * MIB}, "Set --spool-size to 65MiB"),
        ({"parallel_parts": 0}, "--parallel-parts 0"),
        ({"max_open_uploads": 0}, "--max-open-uploads 0"),
        ({"max_connections": 0}, "--max-connections 0"),
        ({"subject_appends": 0}, "--subject-appends 0"),
        ({"subject_share_percent": 1, "spool_bytes": 799 * MIB, "jwt_secret": b"x" * 32}, "--subject-share 1% of"),
        ({"head_seconds": 0.0}, "--head-timeout"),
        ({"max_age_seconds": 0.0}, "--max-age"),
        ({"max_upload_bytes": 0}, "--max-upload-size 0"),
        ({"expire_seconds": 0}, "--expire must be longer"),
        ({"idle_seconds": 0}, "--idle must be longer"),
        ({"store_timeout_seconds": 0}, "--store-timeout must be longer"),
        ({"local": True, "s3_endpoint_url": "http://x"}, "--local starts a store of its own"),
        ({"key_template": "{id}", "prefix": "x" * 992 + "/"}, "--key-template '{id}' makes no valid key"),
        ({"key_template": "{filename}"}, "--key-template '{filename}' lacks"),
        ({"sse": "AES"}, "--sse AES is unknown"),
    ],
)
def test_what_is_refused_says_what_to_do(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(replace(Config(), **changes))


def test_all_objections_are_told_at_once():
    with pytest.raises(ConfigError) as refusal:
        check(replace(Config(), parallel_parts=0, expire_seconds=0))
    assert len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("changes", "plainly"),
    [
        ({}, False),
        ({"listen": ("0.0.0.0", 80)}, True),
        ({"listen": ("", 80), "insecure_no_auth": True}, True),
        ({"listen": ("0.0.0.0", 80), "tls_cert": Path("c")}, False),
        ({"listen": ("0.0.0.0", 80), "trusted_proxies": (ip_network("10.0.0.1"),)}, False),
    ],
)
def test_plain_http_beyond_this_machine_is_known(changes, plainly):
    assert replace(Config(), **changes).speaks_plainly == plainly


@pytest.mark.parametrize("text", ["", "x" * 31, "x" * 31 + " ", "x" * 40 + "ö", "two words of more than thirty-two"])
def test_a_secret_that_can_be_guessed_is_refused_and_not_quoted(text):
    with pytest.raises(ConfigError, match="openssl rand -hex 32") as refusal:
        parse_jwt_secret(text)
    assert not text or text not in str(refusal.value)
    assert parse_jwt_secret("x" * 32) == b"x" * 32
