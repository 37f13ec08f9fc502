"""config_file.py: options in TOML, secrets in files, and mistakes in both."""

from base64 import b64encode
from pathlib import Path

import pytest

from streamup.config_file import read_toml
from streamup.errors import ConfigError

KEY = "0123456789abcdef"


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


def test_a_toml_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
