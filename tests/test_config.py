"""config.py: the table of options, what follows from them, and what is refused."""

from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from streamup.config import OPTIONS, Config, build, check
from streamup.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30


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
        ("tags", "a=b", ("a", "b"), "aws:a=b"),
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


# --- the whole


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
