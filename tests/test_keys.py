"""keys.py: templates that are good, and what becomes of the names that clients send."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamup.errors import BadRequest
from streamup.keys import MOST_KEY_BYTES, MOST_NAME_BYTES, check_template, expand, validate_key

ID = "0123456789abcdef0123456789abcdef"


def named(filename: str | None) -> str:
    return expand("{filename}", upload_id=ID, filename=filename)


# --- keys


@pytest.mark.parametrize(
    "key", ["a", "a/b.ts", "日本/語", "a b", "...", ".a", "a..b", "x" * 1020, "100%", "%41", "%%2", "%2", "%2g"]
)
def test_keys_that_are_safe(key):
    assert validate_key(key, "pre/") == key


def test_a_key_is_not_normalized():
    assert validate_key("e\u0301", "") != validate_key("\u00e9", "")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("..", "empty segments"),
        ("a/../b", "empty segments"),
        ("/a", "empty segments"),
        ("a/", "empty segments"),
        ("a\x00b", "control characters"),
        ("a\x85b", "control characters"),
        ("a\\b", "backslash"),
        ("a\u2028b", "control characters"),
        ("a" + chr(0xDC80) + "b", "UTF-8"),
        ("a%2fb", "percent-encoded once"),
        ("%2e%2E/a", "percent-encoded once"),
        ("a%5Cb", "percent-encoded once"),
        ("x" * 1021, "1024 bytes"),
        ("é" * 511, "1024 bytes"),
    ],
)
def test_keys_that_are_not_safe_are_refused(key, reason):
    with pytest.raises(BadRequest, match=reason):
        validate_key(key, "pre/")


# --- templates


@pytest.mark.parametrize(
    "template", ["{id}/{filename}", "{id}", "in/{filename}-{id}.bin", "{id}.{filename}.", "日本/{id}", "{id}/{id}"]
)
def test_templates_that_are_good(template):
    check_template(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "lacks {id}"),
        ("{filename}", r"video\.mp4 would meet"),
        ("uploads", "lacks {id}"),
        ("{id}/{name}", r"unknown placeholder {name}\. There are {id} and {filename}"),
        ("{id}/{}", "unknown placeholder {}"),
        ("{ID}", "unknown placeholder {ID}"),
        ("{id }", "unknown placeholder"),
        ("{id}/{filename", "brace without its partner"),
        ("{id}}", "brace without its partner"),
        ("{{id}}", "brace without its partner"),
        ("}{id}{", "brace without its partner"),
        ("/{id}", "empty segments"),
        ("{id}/", "empty segments"),
        ("a//{id}", "empty segments"),
        ("../{id}", r"no `\.\.`"),
        ("a\\{id}", "backslash"),
        ("\n{id}", "control characters"),
        ("x" * 993 + "{id}", "1024 bytes"),
        ("{id}" + "{filename}" * 4, "file name of 255 bytes"),
    ],
)
def test_a_bad_template_is_refused_with_its_reason(template, reason):
    with pytest.raises(ValueError, match=reason):
        check_template(template)


def test_a_template_counts_with_its_prefix():
    check_template("x" * 992 + "{id}")
    with pytest.raises(ValueError, match="prefix included"):
        check_template("x" * 992 + "{id}", "/")


# --- file names


@pytest.mark.parametrize(
    ("filename", "segment"),
    [
        ("video.mp4", "video.mp4"),
        ("日本 語.mp4", "日本 語.mp4"),
        ("a/b/video.mp4", "video.mp4"),
        ("C:\\Users\\me\\video.mp4", "video.mp4"),
        ("a\\b/c\\d", "d"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nb\x00.mp4", "a__b_.mp4"),
        ("..%2f..%2Fa%2eb%5c.mp4", ".._2f.._2Fa_2eb_5c.mp4"),
        ("100%.mp4", "100%.mp4"),
        ("a\u2028b\u2029c\x85d" + chr(0xD800), "a_b_c_d_"),
        (" video.mp4 ", "video.mp4"),
        ("...", "..."),
        ("{id}", "{id}"),
        ("{filename}", "{filename}"),
        (None, "unnamed"),
        ("", "unnamed"),
        ("  ", "unnamed"),
        (".", "unnamed"),
        (" .. ", "unnamed"),
        ("a/..", "unnamed"),
        ("a/", "unnamed"),
        ("\\", "unnamed"),
    ],
)
def test_a_file_name_becomes_one_segment(filename, segment):
    assert named(filename) == segment


@pytest.mark.parametrize(
    ("filename", "segment"),
    [
        ("x" * 251 + ".mp4", "x" * 251 + ".mp4"),
        ("x" * 252 + ".mp4", "x" * 251 + ".mp4"),
        ("é" * 200 + ".mp4", "é" * 125 + ".mp4"),  # 254 bytes: half an é is none
        ("x" * 300, "x" * 255),
        ("語" * 100, "語" * 85),
        ("." + "x" * 300, "." + "x" * 254),
        ("x" * 300 + "." + "y" * 31, "x" * 223 + "." + "y" * 31),
        ("x" * 300 + "." + "y" * 32, "x" * 255),
        ("a. " + "x" * 300, "a. " + "x" * 252),
        ("." * 300, "." * 255),
    ],
)
def test_a_long_name_is_cut_and_keeps_its_extension(filename, segment):
    assert named(filename) == segment


def test_placeholders_are_replaced_once():
    assert expand("{id}/{filename}", upload_id=ID, filename="{id}") == f"{ID}/{{id}}"
    assert expand("a/{filename}-{id}/{id}", upload_id=ID, filename=None) == f"a/unnamed-{ID}/{ID}"
    assert expand("%{filename}2e{id}", upload_id=ID, filename="2f%") == f"_2f_2e{ID}"


any_text = st.text(st.characters(categories=None) | st.sampled_from("/\\.{}\x00 \udc80%2eF5c"), max_size=400)
templates = st.sampled_from(["{id}/{filename}", "{id}{filename}", "in/{id}-{filename}.", "{id}", "{filename}/.{id}"])


@settings(deadline=None)
@given(templates, st.none() | any_text)
@example("{id}/{filename}", "é" * 500 + ".mp4")
def test_whatever_the_client_sends_becomes_a_valid_key(template, filename):
    check_template(template)
    key = expand(template, upload_id=ID, filename=filename)
    assert validate_key(key, "") == key
    assert key.count("/") == template.count("/")
    assert len(named(filename).encode()) <= MOST_NAME_BYTES


@settings(deadline=None)
@given(st.text("ab{}id/.filename\\\n", max_size=40) | st.text(max_size=20).map("{id}".__add__), st.none() | any_text)
def test_every_expansion_of_a_template_that_passed_is_a_valid_key(template, filename):
    try:
        check_template(template, "pre/")
    except ValueError:
        return
    key = expand(template, upload_id=ID, filename=filename)
    assert validate_key(key, "pre/") == key
    assert ID in key
    assert len("pre/" + key) <= MOST_KEY_BYTES
