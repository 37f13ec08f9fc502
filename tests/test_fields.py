"""Fields that mean the same in every protocol: structured ones, digests, file names, limits."""

import base64
import re
from contextlib import suppress
from hashlib import sha1, sha256, sha512
from time import process_time
from zlib import crc32

import http_sfv
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from messages import LIMITS, NOW, complete, request, upload

from streamup.digests import HASHES, Digest, Running
from streamup.errors import (
    BadRequest,
    DigestMismatch,
    LengthConflict,
    LengthRequired,
    NotImplementedHere,
    TooLarge,
    UnsupportedMedia,
)
from streamup.protocols import BodyTerms, Limits, RequestHead, fields
from streamup.upload import State


def having(**headers):
    return RequestHead(method="PUT", headers={name.replace("_", "-"): value for name, value in headers.items()})


def integer(value):
    return fields.integer(having(Upload_Offset=value), "Upload-Offset")


def boolean(value, **query):
    query = {name.replace("_", "-"): text for name, text in query.items()}
    head = RequestHead(method="PUT", headers={} if value is None else {"Upload-Complete": value}, query=query)
    return fields.boolean(head, "Upload-Complete")


# -- structured fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("12", 12),
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("999999999999999", 10**15 - 1),
        (" 12 ", 12),
        ("12;unit=b", 12),
        ('12;a;b=?0;c=1.5;d="x;\\" y";e=:AA==:; f=to/ken;*g=@5;h=%"a%c3"', 12),
        ("12.0", None),
        ("twelve", None),
        ('"12"', None),
        ("?1", None),
        ("1 2", None),
        ("12, 12", None),
        ("+12", None),
        ("0x12", None),
        ("", None),
        ("-", None),
        ("\u0661\u0662", None),  # digits, but not HTTP's
        ("12\u00a0", None),
        ("12\t", None),
        ("12\n", None),
        ("12;", None),
        ("12 ;a", None),
        ("12;A", None),
        ("12;a=", None),
        ('12;a="', None),
    ],
)
def test_an_integer_of_another_type_is_ignored(value, number):
    assert integer(value) == number


@pytest.mark.parametrize("value", ["-1", "-1;a", "1000000000000000", "-1000000000000000", "9" * 5000])
def test_an_integer_out_of_range_is_refused_with_the_largest(value):
    with pytest.raises(BadRequest, match="Upload-Offset") as found:
        integer(value)
    assert found.value.numbers == {"limit": 10**15 - 1}


@pytest.mark.parametrize(
    ("value", "query", "truth"),
    [
        ("?1", {}, True),
        ("?0", {}, False),
        (" ?0 ", {}, False),
        ("?0;reason=more", {}, False),
        ("1", {}, None),
        ("true", {}, None),
        ("?2", {}, None),
        ("??1", {}, None),
        ("?0, ?0", {}, None),
        ("?1;", {}, None),
        ("", {}, None),
        (None, {}, None),
        (None, {"upload_complete": "0"}, False),
        (None, {"upload_complete": "?0"}, False),
        (None, {"upload_complete": "1"}, True),
        (None, {"upload_complete": "?1"}, True),
        (None, {"upload_complete": "??1"}, None),
        (None, {"upload_complete": "no"}, None),
        (None, {"upload_complete": ""}, None),
        ("?1", {"upload_complete": "0"}, True),  # the header goes before
        ("1", {"upload_complete": "0"}, False),  # ... if it is one
    ],
)
def test_a_boolean_is_a_field_or_a_parameter_of_the_address(value, query, truth):
    assert boolean(value, **query) is truth


def test_absent_fields_say_nothing():
    head = RequestHead(method="PUT")
    assert (fields.integer(head, "Upload-Offset"), fields.boolean(head, "Upload-Complete")) == (None, None)


def parsed(text):
    """What another implementation makes of it, None for nothing."""
    item = http_sfv.Item()
    try:
        item.parse(text.encode())
    except (ValueError, OverflowError):
        return None
    return item.value


PIECES = [
    *"509-?;=a*A :, /_",
    "\t",
    "?1",
    "?0",
    '"',
    '"x"',
    "\\",
    "1.5",
    ";a=1",
    ";b=?0",
    ';c="y"',
    ";d=:AA==:",
    "9" * 15,
]
structured = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=8)


@settings(deadline=None, max_examples=500)
@given(structured)
@example("5;a=1.5")
@example("-000000000000000")
def test_another_parser_agrees_about_every_integer_and_boolean(text):
    # It is laxer than RFC 9651 (4.2) about "1.", zeros before 15 digits and what base64 is, and knows dates by year.
    assume(not re.search(r"[0-9]\.(?![0-9])|0[0-9]{15}|=:|[@%]", text.replace("=:AA==:", "")))
    value = parsed(text)
    assert boolean(text) is (value if isinstance(value, bool) else None)
    try:
        found = integer(text)
    except BadRequest:
        assert value is None or value < 0
        assert re.fullmatch(r" *(-[0-9]+|[0-9]{16,})(;.*)? *", text)
    else:
        assert found == (value if type(value) is int else None)


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_comes_is_a_value_or_nothing_or_refused(value, query):
    assert boolean(value, upload_complete=query) in {True, False, None}
    try:
        assert integer(value) is None or integer(value) >= 0
    except BadRequest:
        assert any(character.isdigit() for character in value)


# -- the body ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], 0),
        (["Content-Length: 5"], 5),
        (["Transfer-Encoding: chunked"], None),
        (["Transfer-Encoding: Chunked"], None),
    ],
)
def test_a_body_has_a_length_or_comes_in_chunks_or_is_none(lines, length):
    head = request("\n".join(["PUT /objects/a", *lines]))
    assert fields.framing(head) == length
    if lines:
        assert fields.framing(head, required=True) == length
    else:
        with pytest.raises(LengthRequired):
            fields.framing(head, required=True)


def test_a_body_is_no_longer_than_the_largest_number_we_keep():
    assert fields.framing(request(f"PUT /objects/a\nContent-Length: {fields.MOST_BYTES}")) == fields.MOST_BYTES
    with pytest.raises(TooLarge):
        fields.framing(request(f"PUT /objects/a\nContent-Length: {fields.MOST_BYTES + 1}"))


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity", "chunked, chunked"])
def test_another_transfer_coding_is_not_implemented(coding):
    with pytest.raises(NotImplementedHere, match=re.escape(coding)):
        fields.framing(having(Transfer_Encoding=coding))


@pytest.mark.parametrize(
    ("content_length", "length", "seals", "refused"),
    [
        (5, 8, True, False),
        (5, 9, True, True),
        (5, 7, True, True),
        (5, 9, False, False),
        (5, 7, False, True),
        (None, 2, True, False),
        (5, None, True, False),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(content_length, length, seals, refused):
    terms = BodyTerms(content_length=content_length, seals=seals, length=length)
    if refused:
        with pytest.raises(LengthConflict):
            fields.check_length(terms, 3)
    else:
        fields.check_length(terms, 3)


# -- digests -----------------------------------------------------------------------------------------------------------

HELLO = b"hello"
SHA256 = base64.b64encode(sha256(HELLO).digest()).decode()
SHA512 = base64.b64encode(sha512(HELLO).digest()).decode()
A = Digest("sha256", sha256(HELLO).digest())
B = Digest("sha512", sha512(HELLO).digest())


@pytest.mark.parametrize(
    ("value", "digests"),
    [
        (f"sha-256=:{SHA256}:", (A,)),
        (f"sha-512=:{SHA512}:", (B,)),
        (f"sha-256=:{SHA256}:, sha-512=:{SHA512}:", (A, B)),
        (f"sha-512=:{SHA512}:,sha-256=:{SHA256}:", (B, A)),
        (f"md5=:AAAA:, sha-256=:{SHA256}:, sha=:AAAA:", (A,)),
        (f" sha-256=:{SHA256}: ", (A,)),
        (f"sha-256=:{SHA256}:;a=b", (A,)),
        (f"sha-256=:{SHA256.rstrip('=')}:", (A,)),  # padding may be left out
        (f"sha-256=:AAAA:, sha-256=:{SHA256}:", (A,)),  # the last one counts
    ],
)
def test_the_digests_of_a_body(value, digests):
    assert fields.content_digests(having(Content_Digest=value)) == digests


def test_without_the_field_there_are_none():
    assert fields.content_digests(having()) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "sha-256 or sha-512"),
        ("md5=:AAAA:", "sha-256 or sha-512"),
        ("sha-256", "between colons"),
        (f"SHA-256=:{SHA256}:", "sha-256 or sha-512"),
        (f"sha-256 =:{SHA256}:", "sha-256 or sha-512"),
        (f"sha-256={SHA256}", "between colons"),
        (f"sha-256= :{SHA256}:", "between colons"),
        (f'sha-256="{SHA256}"', "between colons"),
        ("sha-256=:A-_A:", "between colons"),
        ("sha-256=:A:", "base64"),
        ("sha-256=:AA=A:", "base64"),
        ("sha-256=::", "32 bytes"),
        ("sha-256=:AAAA:", "32 bytes"),
        (f"sha-512=:{SHA256}:", "64 bytes"),
        (f"sha-256=:{SHA256}:, sha-256=:AAAA:", "32 bytes"),
    ],
)
def test_a_digest_that_cannot_be_verified_is_refused(value, reason):
    with pytest.raises(BadRequest, match=reason):
        fields.content_digests(having(Content_Digest=value))


@given(st.text(max_size=60) | st.from_regex(r"sha-256=:[A-Za-z0-9+/=]{0,50}:(, .*)?", fullmatch=True))
def test_whatever_comes_is_a_digest_of_its_size_or_refused(value):
    try:
        digests = fields.content_digests(having(Content_Digest=value))
    except BadRequest:
        return
    assert all(len(digest.value) == len(HASHES[digest.algorithm]().digest()) for digest in digests)
    assert digests


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("crc32", crc32(HELLO).to_bytes(4, "big")),
        ("sha1", sha1(HELLO).digest()),
        ("sha256", sha256(HELLO).digest()),
        ("sha512", sha512(HELLO).digest()),
    ],
)
def test_a_digest_runs_with_its_bytes_and_then_says_whether_it_matches(algorithm, value):
    running = Running([Digest(algorithm, value)])
    running.update(HELLO[:2])
    with pytest.raises(DigestMismatch):
        running.check()
    running.update(HELLO[2:])
    running.check()


def test_every_digest_has_to_match_and_the_one_that_does_not_is_named():
    running = Running([A, Digest("crc32", bytes(4))])
    running.update(HELLO)
    with pytest.raises(DigestMismatch, match="crc32") as found:
        running.check()
    assert found.value.numbers == {"expected-digest": "AAAAAA==", "found-digest": "NhCmhg=="}


def test_no_digests_always_match():
    Running([]).check()


# -- file names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "filename"),
    [
        ('inline; filename="a b.mp4"', "a b.mp4"),
        ("attachment; filename=a.mp4", "a.mp4"),
        ("attachment;filename=a.mp4 ; x=y", "a.mp4"),
        ('attachment; FileName = "a.mp4"', "a.mp4"),
        (r'attachment; filename="a\"b\\c.mp4"', r'a"b\c.mp4'),
        ("inline; filename*=UTF-8''na%C3%AFve%20plan.mp4", "na\u00efve plan.mp4"),
        ("inline; filename*=utf-8'en'a.mp4", "a.mp4"),
        # both: the extended one goes before, in either order
        ("inline; filename=\"naive.mp4\"; filename*=UTF-8''na%C3%AFve.mp4", "na\u00efve.mp4"),
        ("inline; filename*=UTF-8''na%C3%AFve.mp4; filename=naive.mp4", "na\u00efve.mp4"),
        # ... but for charsets that need not be known
        ("inline; filename*=idna''x.mp4; filename=a.mp4", "a.mp4"),
        ("inline; filename*=UTF-16''%00; filename=a.mp4", "a.mp4"),
        ("inline; filename*=x.mp4", None),
        ("inline; filename*0=a; filename*1=b", None),
        ('inline; name="; filename=evil.mp4"; filename=a.mp4', "a.mp4"),
        ('inline; name="; filename=evil.mp4"', None),
        ('inline; filename=""', ""),
        ("filename=a.mp4", None),
        ("inline", None),
        ("", None),
    ],
)
def test_a_file_name_is_in_either_of_its_spellings(value, filename):
    assert fields.filename(having(Content_Disposition=value)) == filename


def test_without_a_disposition_there_is_no_file_name():
    assert fields.filename(having()) is None


@given(st.text(max_size=60) | st.text(";=*'\" \\filenameUTF-8%20ab", max_size=60).map("inline; filename*=".__add__))
def test_whatever_comes_is_a_file_name_or_none(value):
    assert isinstance(fields.filename(having(Content_Disposition=value)), str | None)


# -- what goes with an object ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Type", "video/mp2t"),
        ("Content-Type", 'text/plain;charset=utf-8 ; a="b;\\" c";'),
        ("Content-Type", "application/vnd.api+json"),
        ("Content-Encoding", "gzip"),
        ("Content-Encoding", "gzip, br"),
        ("Content-Disposition", "inline"),
        ("Content-Disposition", "attachment; filename=\"a;b.mp4\"; filename*=UTF-8''%e9"),
        ("Content-Disposition", "attachment; filename=my file.mp4"),  # not HTTP, but frequent and harmless
        ("Cache-Control", 'max-age=3600, private="a, b", no-cache'),
    ],
)
def test_what_is_said_of_an_object_is_kept_as_it_came(name, value):
    described = fields.described(RequestHead(method="PUT", headers={name: value}))
    assert getattr(described, name.lower().replace("-", "_")) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Content-Type", value) for value in ("", "text", "text/", "/html", "text/html, text/plain", "text /html")),
        *(
            ("Content-Type", value)
            for value in (
                "text/html;a",
                'text/html;a="',
                "text/*/x",
                "audio/x;,text/html",
                "text/html; charset=",
                "text/html x",
                "text/h\u00e9",
                "a/b\r\nX: y",
            )
        ),
        *(("Content-Encoding", value) for value in ("", "gz ip", "gzip,", "gzip;q=1", ",")),
        *(("Content-Disposition", value) for value in ("", ";", 'inline; a="', "in line", 'inline "', "a\u2028")),
        *(("Cache-Control", value) for value in ("", "max age", "max-age=", "a=b=c", 'a="', "a;b")),
    ],
)
def test_what_no_browser_would_understand_is_refused(name, value):
    with pytest.raises(BadRequest, match=name):
        fields.described(RequestHead(method="PUT", headers={name: value}))


def test_a_form_is_refused_with_the_way_to_send_a_file():
    with pytest.raises(UnsupportedMedia, match="curl -T"):
        fields.described(having(Content_Type="multipart/form-data; boundary=x"))


def test_the_type_that_curl_invents_is_nobodys_word():
    assert fields.described(having(Content_Type="application/x-www-form-urlencoded")).content_type is None


@pytest.mark.parametrize("name", ["Content-Type", "Content-Encoding", "Content-Disposition", "Cache-Control"])
@pytest.mark.parametrize("piece", [";", "; ", ",", ", a", ';a="', "a=", '\\"', "/a", ' ;a=b;"'])
def test_a_long_value_takes_no_longer_than_its_length(name, piece):
    began = process_time()
    with suppress(BadRequest):
        fields.described(RequestHead(method="PUT", headers={name: "a/a" + piece * 8000 + '"'}))
    assert process_time() - began < 0.5


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "lifetime", "told"),
    [
        (LIMITS, None, "min-size=0, max-size=1000000000000"),
        (LIMITS, 60.9, "min-size=0, max-size=1000000000000, max-age=60"),
        (LIMITS, -5.0, "min-size=0, max-size=1000000000000, max-age=0"),
        (Limits(max_upload_bytes=None, expire_seconds=60), None, "min-size=0"),
    ],
)
def test_limits_are_a_structured_dictionary(limits, lifetime, told):
    assert fields.limit(limits, lifetime) == {"Upload-Limit": told}
    dictionary = http_sfv.Dictionary()
    dictionary.parse(told.encode())
    assert all(type(member.value) is int for member in dictionary.values())


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (upload(), {}),
        (upload(length=0), {"Upload-Length": "0"}),
        (upload(length=9), {"Upload-Length": "9"}),
        (upload(State.SEALED, size=7), {"Upload-Length": "7"}),
        (complete(0), {"Upload-Length": "0"}),
    ],
)
def test_a_length_is_told_once_it_is_known(outcome, told):
    assert fields.length(outcome) == told


@pytest.mark.parametrize(("outcome", "left"), [(upload(), 60), (upload(touched=None), None), (complete(9), None)])
def test_only_an_open_upload_without_a_writer_expires(outcome, left):
    limits = Limits(max_upload_bytes=None, expire_seconds=100)
    assert fields.remaining(outcome, limits, NOW + 40) == left


# -- what an answer may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/json", True),
        (" Application/JSON ; charset=utf-8", True),
        ("application/json, */*;q=0.8", True),
        ("text/html;q=0.9, application/json;q=1.000", True),
        ("application/json, text/plain, */*", False),
        ("application/json;q=0", False),
        ("application/json;q=0.5, text/html", False),
        ("application/json;q=high", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("*/*", False),
        ("", False),
        (",;,q=,", False),
    ],
)
def test_json_is_wanted_by_who_wants_it_more_than_all_else(accept, wanted):
    assert fields.prefers_json(having(Accept=accept)) is wanted
