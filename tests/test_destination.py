"""Where files go: every way to write it, and what is refused before a server is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamup.client.destination import Destination, is_url, pair, parse_destination
from streamup.errors import ConfigError

HOST = "http://h:8080"


@pytest.mark.parametrize(
    ("text", "server", "key"),
    [
        ("http://h:8080/objects/a/b.mp4", HOST, "a/b.mp4"),
        ("http://h:8080/objects/a/", HOST, "a/"),
        ("http://h:8080/objects/", HOST, ""),
        ("http://h:8080/objects", HOST, ""),
        ("http://h:8080/", HOST, ""),
        ("http://h:8080", HOST, ""),
        ("https://H/below/it/objects/k", "https://h/below/it", "k"),
        ("https://h/below/", "https://h/below", ""),
        ("http://h:80/objects/k", "http://h", "k"),
        ("https://h:443/objects/k", "https://h", "k"),
        ("https://h:80/objects/k", "https://h:80", "k"),
        ("http://[::1]:8080/objects/k", "http://[::1]:8080", "k"),
        ("http://h:8080/objects/a/objects/b", HOST, "a/objects/b"),
        ("http://h:8080/objects/caf%C3%A9%20%231", HOST, "café #1"),
        ("http://h:8080/objects/café", HOST, "café"),
        ("http://h:8080/objects/a%2520b", HOST, "a%20b"),  # once
        ("http://h:8080/objects/100%", HOST, "100%"),
    ],
)
def test_a_url_names_a_server_and_a_key(text, server, key):
    assert parse_destination(text) == Destination(server, key)


def test_a_password_is_the_token_and_is_never_shown():
    destination = parse_destination("http://any:se%2Fcret@h:8080/objects/k")
    assert (destination.server, destination.token) == (HOST, "se/cret")
    assert "cret" not in f"{destination} {destination!r}"
    assert pair(["a"], destination)[0][1].token == "se/cret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/key", "streamup serve s3://"),
        ("S3://bucket/key", "streamup serve s3://"),
        ("ftp://h/objects/k", "http://127.0.0.1:8080/objects/KEY"),
        ("http:///objects/k", "http://127.0.0.1:8080/objects/KEY"),
        ("http://h/k.mp4", "no /objects/"),
        ("http://h:99999/objects/k", "Port out of range"),
        ("http://h:x/objects/k", "Port could not"),
        ("http://[::1/objects/k", "Invalid IPv6"),
        ("http://h/objects/%ff", "can't decode"),
        ("http://a:%ff@h/objects/k", "can't decode"),
        ("http://h/objects/a b", "Write it as"),
        ("http://h/objects/a\nb", "Write it as"),
        ("http://h/objects/a?b", "%3F"),
        ("http://h/objects/a#b", "%23"),
        ("http://secret@h/objects/a", "any:TOKEN"),
        ("http://any:@h/objects/a", "any:TOKEN"),
    ],
)
def test_what_is_no_destination_is_told_what_is(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_destination(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_urls_are_told_from_files():
    assert [word for word in ("http://h", "s3://b", "C:/x", "http:", "a//b", "-", "://") if is_url(word)] == [
        "http://h",
        "s3://b",
    ]


def keys_of(sources, text="http://h:8080/objects/"):
    return [(source, destination.key) for source, destination in pair(sources, parse_destination(text))]


def test_one_file_has_the_key_of_the_url_and_else_its_name():
    assert keys_of(["dir/a b.mp4"], "http://h/objects/k") == [("dir/a b.mp4", "k")]
    assert keys_of(["dir/a b.mp4"]) == [("dir/a b.mp4", "a b.mp4")]
    assert keys_of(["./a%20b", "/x/café#?"], "http://h/objects/d/") == [
        ("./a%20b", "d/a%20b"),  # the name, and not what it would decode to
        ("/x/café#?", "d/café#?"),
    ]
    [(_, destination)] = pair(["a%20b"], parse_destination("http://h/objects/d/"))
    assert str(destination) == "http://h/objects/d/a%2520b"


@pytest.mark.parametrize(
    ("sources", "text", "said"),
    [
        (["a", "b"], "http://h/objects/k", "End the URL with a /: http://h/objects/k/"),
        (["x/a", "y/a"], "http://h/objects/", "x/a and y/a would both go to 'a'"),
        (["a", "a"], "http://h/objects/", "would both go"),
        (["a\x1b[31m"], "http://h/objects/", "control characters"),
        (["a\udcff"], "http://h/objects/", "UTF-8"),
        (["a%2Fb"], "http://h/objects/", "percent-encoded once"),
        (["a\x7f"], "http://h/objects/", "Give it another one: http://h/objects/KEY"),
        ([".."], "http://h/objects/", ".. is a directory. Push its files: streamup push ../* URL/"),
        (["a"], "http://h/objects//", "no empty segments"),
        (["a"], "http://h/objects/%2e%2e/a", "no `..`"),
        (["a"], "http://h/objects/" + "k" * 1025, "1024 bytes"),
    ],
)
def test_what_makes_no_good_key_is_refused(sources, text, said):
    with pytest.raises(ConfigError) as caught:
        keys_of(sources, text)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(min_size=1).filter(lambda name: "/" not in name))
def test_a_name_is_refused_or_the_key(name):
    try:
        found = keys_of([name])
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - most names make good keys
    else:
        assert found == [(name, name)]
        assert parse_destination(str(pair([name], parse_destination(HOST))[0][1])).key == name
