"""tus 1.0.0: its examples both ways, each sentence of the specification, and what clients get wrong."""

import base64
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import (
    DAY,
    LIMITS,
    NOW,
    PROTOCOLS,
    Done,
    Refused,
    answer,
    complete,
    example,
    examples,
    problem,
    protocol_of,
    request,
    understood,
    upload,
)

from streamup.digests import Digest, Running
from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    DigestMismatch,
    Gone,
    LengthConflict,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    SpoolFull,
    TooLarge,
    UnsupportedMedia,
    UnsupportedVersion,
    UploadBusy,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.keys import expand
from streamup.protocols import Append, BodyTerms, Cancel, Create, Description, Inspect, Limits, RequestHead
from streamup.protocols.ietf import Ietf
from streamup.protocols.plain import Plain
from streamup.protocols.tus import EXTENSIONS, Tus
from streamup.stores import Checksum
from streamup.upload import State

TUS = Tus(LIMITS)
understand = TUS.understand

NAMED = "Tus-Resumable: 1.0.0"
OFFSET_STREAM = "Content-Type: application/offset+octet-stream"
HELLO_SHA1 = "qvTGHdzF6KLavt4PO0gs2a6pQ00="


def ask(line, *fields, version=NAMED):
    return request("\n".join(text for text in (line, *fields, version) if text))


def create(*fields, line="POST /uploads", length="Upload-Length: 9", **options):
    return ask(line, *([length] if length else []), *fields, **options)


def append(*fields, content_type=OFFSET_STREAM, offset="Upload-Offset: 3", **options):
    return ask("PATCH /uploads/u1", content_type, offset, *fields, **options)


def head(**options):
    return ask("HEAD /uploads/u1", **options)


def delete(**options):
    return ask("DELETE /uploads/u1", **options)


def body(content_length, **more):
    return BodyTerms(content_length=content_length, seals=False, seals_at_length=True, **more)


def encoded(value):
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def metadata(**values):
    """A creation with these."""
    return create("Upload-Metadata: " + ",".join(f"{name} {encoded(value)}" for name, value in values.items()))


# -- the specification's examples --------------------------------------------------------------------------------------

APPEND = partial(Append, upload_id="u1")
CREATE = partial(Create, key=None, independent=True, description=Description())

EXAMPLES = {
    "core-head": (Inspect(upload_id="u1"), Done(upload(offset=40, length=90))),
    "core-head-of-a-complete-upload": (Inspect(upload_id="u1"), Done(complete(90))),
    "core-patch": (APPEND(offset=40, body=body(50)), Done(complete(90))),
    "core-patch-by-post": (APPEND(offset=40, body=body(10)), Done(upload(offset=50, length=90))),
    "core-patch-elsewhere": (APPEND(offset=45, body=body(50)), Refused(OffsetMismatch(40, 45), 409)),
    "creation": (
        CREATE(
            body=body(0, length=90),
            filename="plans.pdf",
            description=Description(
                content_type="application/pdf",
                user={"filename": "plans.pdf", "draft": ""},
                metadata="filename cGxhbnMucGRm,filetype YXBwbGljYXRpb24vcGRm,draft",
            ),
        ),
        Done(upload(length=90)),
    ),
    "creation-of-an-empty-object": (CREATE(body=body(0, length=0)), Done(complete(0))),
    "creation-with-upload": (CREATE(body=body(6, length=90)), Done(upload(offset=6, length=90))),
    "creation-defer-length": (CREATE(body=body(0)), Done(upload())),
    "creation-defer-length-asked": (
        Inspect(upload_id="u1"),
        Done(upload(offset=40, metadata="filename cGxhbnMucGRm,draft")),
    ),
    "creation-defer-length-told": (
        APPEND(offset=40, body=body(10, length=90)),
        Done(upload(offset=50, length=90)),
    ),
    "creation-of-too-much": (
        CREATE(body=body(0, length=7 * 10**12)),
        Refused(TooLarge("too large", limit=10**12), 413),
    ),
    "expiration": (APPEND(offset=40, body=body(50)), Refused(Gone("it has expired"), 410)),
    "checksum": (
        APPEND(offset=0, body=body(5, digests=(Digest("sha1", base64.b64decode(HELLO_SHA1)),))),
        Done(upload(offset=5)),
    ),
    "checksum-of-other-bytes": (
        APPEND(offset=0, body=body(5, digests=(Digest("sha1", base64.b64decode(HELLO_SHA1)),))),
        Refused(DigestMismatch("sha1", HELLO_SHA1, "AA==", "Send it again."), 400),
    ),
    "termination": (Cancel(upload_id="u1"), Done(None)),
    "another-version": (UnsupportedVersion, Refused(UnsupportedVersion("another"), 412)),
}


def test_every_example_is_told():
    assert EXAMPLES.keys() == examples("tus")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_understood_and_answered(name):
    intent, event = EXAMPLES[name]
    told = example("tus", name)
    assert TUS.speaks(told.request)
    if isinstance(intent, type):
        with pytest.raises(intent):
            understand(told.request)
    else:
        assert understand(told.request) == intent
    assert [answer(told.request, event)] == told.answers


# -- which requests are its --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fields", "protocol"),
    [
        ("POST /uploads", [NAMED], Tus),
        ("POST /objects/a", [NAMED], Tus),
        *((f"{method} /uploads/u1", [NAMED], Tus) for method in ("HEAD", "PATCH", "POST", "DELETE")),
        *((f"{method} /uploads/u1", [NAMED], Plain) for method in ("GET", "OPTIONS", "PUT")),
        ("OPTIONS /uploads", [NAMED], Plain),
        ("PUT /objects/a", [NAMED], Plain),
        ("HEAD /objects/a", [NAMED], Plain),
        # Without Tus-Resumable, what only tus has:
        ("POST /uploads", ["Upload-Length: 9"], Tus),
        ("POST /uploads", ["Upload-Defer-Length: 1"], Tus),
        ("POST /uploads", ["Upload-Metadata: a"], Tus),
        ("POST /uploads", ["Upload-Concat: partial"], Tus),
        ("PATCH /uploads/u1", [OFFSET_STREAM, "Upload-Offset: 3"], Tus),
        ("PATCH /uploads/u1", ["Upload-Checksum: sha1 AA==", "Upload-Offset: 3"], Tus),
        # ... and what may be somebody else's:
        ("POST /uploads", [], Ietf),
        ("POST /uploads", ["Upload-Length: 9", "Upload-Complete: ?0"], Ietf),
        ("POST /uploads", ["Upload-Length: 9", "Upload-Incomplete: ?1"], Ietf),
        ("PATCH /uploads/u1", ["Upload-Offset: 3", "Upload-Length: 9"], Ietf),
        ("HEAD /uploads/u1", [], Ietf),
        ("DELETE /uploads/u1", [], Ietf),
        ("POST /objects/a", ["Upload-Length: 9"], Plain),
        # tus-js-client that speaks the draft sends metadata all the same:
        ("POST /uploads", ["Upload-Complete: ?0", "Upload-Metadata: a", "Upload-Draft-Interop-Version: 6"], Ietf),
        ("POST /uploads", ["Upload-Defer-Length: 1", "Upload-Draft-Interop-Version: 5"], Ietf),
    ],
)
def test_which_requests_are_of_tus(line, fields, protocol):
    assert isinstance(protocol_of(ask(line, *fields, version=None)), protocol)


# -- core --------------------------------------------------------------------------------------------------------------

REQUESTS = [create(), append("Content-Length: 5"), head(), delete()]


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda asked: asked.method)
def test_every_answer_says_tus_resumable(asked):
    for event in (Done(upload()), Done(complete(9)), Refused(NotFound("no"), 404), Refused(SpoolFull("full"), 507)):
        assert answer(asked, event).headers["Tus-Resumable"] == "1.0.0"


@pytest.mark.parametrize("version", ["0.2.2", "1.0.1", "1.0", "2.0.0", "", "1.0.0, 1.0.0"])
@pytest.mark.parametrize("asked", [create, partial(append, "Content-Length: 5"), head, delete])
def test_another_version_gets_412_and_tus_version(asked, version):
    refused_with_versions(asked(version=f"Tus-Resumable: {version}"))


@pytest.mark.parametrize("asked", [create, partial(append, "Content-Length: 5")])
def test_a_missing_version_gets_412_and_tus_version(asked):
    refused_with_versions(asked(version=None))


def refused_with_versions(asked):
    with pytest.raises(UnsupportedVersion) as found:
        understood(asked)
    told = answer(asked, Refused(found.value, 412))
    assert (told.status, told.headers["Tus-Version"]) == (412, "1.0.0")


@pytest.mark.parametrize(
    ("line", "override", "method"),
    [
        ("POST /uploads/u1", "PATCH", "PATCH"),
        ("POST /uploads/u1", "patch", "PATCH"),
        ("POST /uploads/u1", "DELETE", "DELETE"),
        ("POST /uploads/u1", "HEAD", "HEAD"),
        ("HEAD /uploads/u1", "DELETE", "HEAD"),  # nothing on the way asks for that
    ],
)
def test_x_http_method_override_is_honoured_in_a_post(line, override, method):
    assert ask(line, f"X-HTTP-Method-Override: {override}").method == method


def test_a_post_to_an_upload_means_nothing_by_itself():
    with pytest.raises(NotAllowed) as found:
        understand(ask("POST /uploads/u1", OFFSET_STREAM, "Upload-Offset: 3"))
    assert found.value.allowed == "HEAD, GET, PATCH, DELETE, OPTIONS"


@pytest.mark.parametrize("state", [upload(), upload(offset=7), complete(7)])
def test_head_always_tells_the_offset_and_is_never_cached(state):
    told = answer(head(), Done(state))
    assert (told.status, told.headers["Upload-Offset"]) == (200, str(state.offset))
    assert told.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("state", "headers"),
    [
        (upload(length=9), {"Upload-Length": "9"}),
        (complete(9), {"Upload-Length": "9"}),
        (upload(), {"Upload-Defer-Length": "1"}),
    ],
)
def test_head_tells_the_length_or_that_it_is_deferred(state, headers):
    told = answer(head(), Done(state)).headers
    assert headers == {name: told[name] for name in ("Upload-Length", "Upload-Defer-Length") if name in told}


@pytest.mark.parametrize("text", ["filename cGxhbnMucGRm,draft", "a,b", None, ""])
def test_head_tells_the_metadata_as_it_came(text):
    assert answer(head(), Done(upload(metadata=text))).headers.get("Upload-Metadata") == (text or None)


@pytest.mark.parametrize(("error", "status"), [(NotFound("nothing"), 404), (Gone("it has expired"), 410)])
@pytest.mark.parametrize("asked", REQUESTS[1:], ids=lambda asked: asked.method)
def test_what_is_missing_gets_404_or_410_without_an_offset(asked, error, status):
    told = answer(asked, Refused(error, status))
    assert told.status == status
    assert "Upload-Offset" not in told.headers


@pytest.mark.parametrize("content_type", [None, "Content-Type: application/partial-upload", "Content-Type: text/plain"])
@pytest.mark.parametrize("length", ["Content-Length: 5", "Content-Length: 0"])
def test_patch_of_another_content_type_gets_415(content_type, length):
    with pytest.raises(UnsupportedMedia):
        understand(append(length, content_type=content_type))


@pytest.mark.parametrize(
    ("error", "offset"),
    [(OffsetMismatch(7, 3), "7"), (WriterStopped("", 7), "7"), (AlreadyComplete("", 7), "7")],
)
def test_patch_elsewhere_gets_409_with_the_offset(error, offset):
    told = answer(append("Content-Length: 5"), Refused(error, 409))
    assert (told.status, told.headers["Upload-Offset"]) == (409, offset)


@pytest.mark.parametrize("error", [AlreadyComplete("nobody knows how large"), UploadExists("ways", "u2", 7)])
def test_a_conflict_that_is_not_about_this_offset_tells_none(error):
    assert "Upload-Offset" not in answer(append(), Refused(error, 409)).headers


@pytest.mark.parametrize("state", [upload(offset=7, length=9), complete(9)])
def test_patch_that_succeeds_gets_204_with_the_new_offset(state):
    told = answer(append("Content-Length: 5"), Done(state))
    assert (told.status, told.headers["Upload-Offset"], told.document) == (204, str(state.offset), None)


@pytest.mark.parametrize(
    "offset", [None, "Upload-Offset: three", "Upload-Offset: -3", "Upload-Offset: 3.0", "Upload-Offset: 3, 3"]
)
def test_patch_names_its_offset(offset):
    with pytest.raises(BadRequest, match="Upload-Offset"):
        understand(append("Content-Length: 5", offset=offset))


@pytest.mark.parametrize("value", ["-1", "--1", "1.5", "", "five", "5;a", "٣", "1" * 16, "9" * 5000, "5, 5"])
@pytest.mark.parametrize("asked", [create, append])
def test_a_length_that_is_none_is_refused(asked, value):
    head = asked()
    head.headers["Upload-Length"] = value
    with pytest.raises(BadRequest, match="Upload-Length"):
        understand(head)


@pytest.mark.parametrize("length", ["Content-Length: 7", "Content-Length: 0"])
def test_a_body_that_ends_beyond_the_length_is_refused(length):
    with pytest.raises(LengthConflict):
        understand(append(length, "Upload-Length: 2"))
    assert understand(append("Content-Length: 5", "Upload-Length: 8")).body == body(5, length=8)


def test_a_body_in_chunks_has_no_length_of_its_own():
    assert understand(append("Transfer-Encoding: chunked")).body == body(None)


@pytest.mark.parametrize(
    ("limits", "more"),
    [(LIMITS, {"Tus-Max-Size": "1000000000000"}), (Limits(max_upload_bytes=None, expire_seconds=DAY), {})],
)
def test_options_tells_what_there_is(limits, more):
    assert Tus(limits).discover() == more | {
        "Tus-Resumable": "1.0.0",
        "Tus-Version": "1.0.0",
        "Tus-Extension": EXTENSIONS,
        "Tus-Checksum-Algorithm": "sha1,sha256,crc32",
    }


# -- creation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "length"), [(["Upload-Length: 9"], 9), (["Upload-Length: 0"], 0), (["Upload-Defer-Length: 1"], None)]
)
def test_a_creation_says_its_length_or_that_it_is_deferred(fields, length):
    assert understand(create(*fields, length=None)).body == body(0, length=length)


@pytest.mark.parametrize("fields", [[], ["Upload-Length: 9", "Upload-Defer-Length: 1"]])
def test_a_creation_with_both_or_neither_is_refused(fields):
    with pytest.raises(BadRequest, match="either Upload-Length"):
        understand(create(*fields, length=None))


@pytest.mark.parametrize("value", ["0", "2", "", "true", "1, 1"])
def test_a_creation_that_defers_its_length_by_another_value_than_1_is_refused(value):
    with pytest.raises(BadRequest, match="Upload-Defer-Length"):
        understand(create(f"Upload-Defer-Length: {value}", length=None))


@pytest.mark.parametrize("state", [upload(length=9), upload(), complete(0)])
def test_a_creation_gets_201_and_the_location(state):
    told = answer(create(), Done(state))
    assert (told.status, told.headers["Location"], told.headers["Upload-Offset"]) == (201, "/uploads/u1", "0")


def test_a_creation_that_is_too_large_gets_413():
    assert answer(create(), Refused(TooLarge("too large", limit=5), 413)).status == 413


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("a YQ==", {"a": "a"}),
        ("a YQ==,b Yg==", {"a": "a", "b": "b"}),
        (" a YQ== , b", {"a": "a", "b": ""}),
        ("a ,b", {"a": "", "b": ""}),
        ("a  YQ==", {"a": "a"}),
        ("", {}),
        ("  ", {}),
        ("Camera-Name YQ==", {"camera-name": "a"}),
        ("a/b YQ==", {"a%2fb": "a"}),
        ("a:b% YQ==", {"a%3ab%25": "a"}),
    ],
)
def test_metadata_is_pairs_whose_values_may_be_empty(text, user):
    description = understand(create(f"Upload-Metadata: {text}")).description
    assert {name.lower(): value for name, value in description.user.items()} == user
    assert description.metadata == text.strip()


def test_without_metadata_there_is_none():
    assert understand(create()).description == Description()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("plain text!", "plain text!"),
        ("100 %", "100 %25"),
        ("  a  b ", "%20%20a  b%20"),  # a header would lose those at its ends
        (" ", "%20"),
        ("Zoë", "Zo%C3%AB"),
        ("~a\x7f", "~a%7F"),
        ("a\r\nb\0", "a%0D%0Ab%00"),
        (b"\xff\xfe", "%FF%FE"),
        ("\u65e5", "%E6%97%A5"),
    ],
)
def test_metadata_of_any_bytes_is_stored_as_ascii(value, stored):
    assert understand(metadata(a=value)).description.user == {"a": stored}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a YQ", "base64"),
        ("a Y*==", "base64"),
        ("a YQ== YQ==", "base64"),
        ("a Zoë=", "base64"),
        ("a YQ==,a Yg==", "once"),
        ("a,a", "once"),
        ("a YQ==,", "pairs"),
        (",", "pairs"),
        ("ä YQ==", "ASCII"),
        ("streamup-token YQ==", "not for clients"),
        ("a " + encoded("x" * 2048), "2048 bytes"),
        ("a " + encoded("é" * 342), "2048 bytes"),  # as it is stored, 6 bytes each
        ("filetype " + encoded("text/plän"), "filetype"),
        ("filetype " + encoded(b"\xff"), "filetype"),
        ("filetype " + encoded("a\r\nb"), "filetype"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(text, reason):
    with pytest.raises(BadRequest, match=reason):
        understand(create(f"Upload-Metadata: {text}"))


def test_metadata_in_two_fields_is_one_list():
    head = create("Upload-Metadata: a YQ==", "Upload-Metadata: b Yg==")
    assert understand(head).description.user == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("line", "values", "key"),
    [
        ("POST /uploads?key=q/r", {"key": "m"}, "q/r"),
        ("POST /uploads", {"key": "m/\u65e5"}, "m/\u65e5"),
        ("POST /uploads", {}, None),
        ("POST /objects/a/b?key=q", {"key": "m"}, "a/b"),
    ],
)
def test_the_key_is_that_of_the_address_or_of_the_metadata(line, values, key):
    head = metadata(**values)
    intent = understand(ask(line, *(f"{name}: {value}" for name, value in head.headers.items()), version=None))
    assert (intent.key, intent.independent) == (key, line.startswith("POST /uploads"))
    assert "key" not in intent.description.user


@pytest.mark.parametrize(
    ("values", "filename"),
    [
        ({"filename": "a.mp4"}, "a.mp4"),
        ({"name": "b.mp4"}, "b.mp4"),
        ({"filename": "a.mp4", "name": "b.mp4"}, "a.mp4"),
        ({"filename": "", "name": "b.mp4"}, "b.mp4"),
        ({}, None),
    ],
)
def test_the_file_name_is_of_the_metadata(values, filename):
    assert understand(metadata(**values)).filename == filename


def test_a_file_name_of_any_bytes_makes_a_key():
    filename = understand(metadata(filename=b"\xff.mp4")).filename
    assert expand("{filename}", upload_id="u1", filename=filename) == "_.mp4"


def test_a_creation_takes_what_the_address_says_of_it():
    head = create("If-None-Match: *", line="POST /objects/a?checksum=sha256&interrupted=replace")
    intent = understand(head)
    assert (intent.key, intent.policy, intent.independent) == ("a", "replace", False)
    assert intent.description == Description(checksum=Checksum.SHA256, if_none_match=True)


# -- creation-with-upload ----------------------------------------------------------------------------------------------


def test_a_creation_with_bytes_tells_the_offset():
    head = create("Content-Length: 5", OFFSET_STREAM)
    assert understand(head).body == body(5, length=9)
    assert answer(head, Done(upload(offset=5, length=9))).headers["Upload-Offset"] == "5"


@pytest.mark.parametrize("length", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("content_type", [[], ["Content-Type: video/mp4"]])
def test_a_creation_with_bytes_of_another_content_type_gets_415(length, content_type):
    with pytest.raises(UnsupportedMedia):
        understand(create(length, *content_type))


def test_a_creation_without_bytes_has_any_content_type():
    assert understand(create("Content-Length: 0", "Content-Type: application/json")).body == body(0, length=9)


def test_a_creation_with_more_bytes_than_its_length_is_refused():
    with pytest.raises(LengthConflict):
        understand(create("Content-Length: 10", OFFSET_STREAM))


# -- an upload whose object is not there yet ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.SEALED, State.COMPLETING])
@pytest.mark.parametrize("asked", [head, append, create])
def test_an_empty_object_is_not_there_either_before_it_is(state, asked):
    """A plain client has sealed it: its length was never declared."""
    with pytest.raises(UploadBusy):
        answer(asked(), Done(upload(state, offset=0, length=None, size=0)))


@pytest.mark.parametrize("state", [State.SEALED, State.COMPLETING])
def test_nobody_hears_an_offset_that_is_taken_for_success(state):
    whole = upload(state, offset=9, size=9)
    for asked in (head(), append("Content-Length: 0")):
        with pytest.raises(UploadBusy):
            answer(asked, Done(whole))
    told = answer(create(), Done(whole))
    assert (told.status, told.headers["Location"]) == (201, "/uploads/u1")
    assert "Upload-Offset" not in told.headers


# -- expiration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [create(), append(), head()], ids=lambda asked: asked.method)
def test_an_open_upload_tells_when_it_expires(asked):
    told = answer(asked, Done(upload(touched=NOW + 1)))
    assert told.headers["Upload-Expires"] == "Fri, 02 Jan 2026 00:00:01 GMT"


@pytest.mark.parametrize("asked", [create(), append(), head()], ids=lambda asked: asked.method)
@pytest.mark.parametrize("state", [complete(9), upload(touched=None)])
def test_what_does_not_expire_says_nothing(asked, state):
    assert "Upload-Expires" not in answer(asked, Done(state)).headers


# -- checksum ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "size"), [("sha1", 20), ("sha256", 32), ("crc32", 4)])
@pytest.mark.parametrize("asked", [append, create])
def test_a_checksum_is_taken(asked, algorithm, size):
    head = asked(f"Upload-Checksum: {algorithm} {encoded(b'x' * size)}")
    assert understand(head).body.digests == (Digest(algorithm, b"x" * size),)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("md5 AAAA", "sha1, sha256, crc32"),
        ("SHA1 AAAA", "sha1, sha256, crc32"),
        ("", "sha1, sha256, crc32"),
        ("sha1 foobar", "base64"),
        ("sha1 Zoë=", "base64"),
        ("sha1 \udcff", "base64"),
        (f"sha1 {HELLO_SHA1}, sha1 {HELLO_SHA1}", "base64"),
    ],
)
def test_a_checksum_that_cannot_be_verified_is_refused(value, reason):
    with pytest.raises(BadRequest, match=reason):
        understand(append("Content-Length: 5", f"Upload-Checksum: {value}"))


@pytest.mark.parametrize(
    "value",
    [
        "sha1",
        "sha1 AAAA",
        f"sha256 {HELLO_SHA1}",
    ],
)
def test_a_checksum_that_is_none_matches_nothing(value):
    running = Running(understand(append("Content-Length: 5", f"Upload-Checksum: {value}")).body.digests)
    running.update(b"hello")
    with pytest.raises(DigestMismatch):
        running.check()


def test_names_in_the_metadata_that_differ_in_case_only_are_refused():
    with pytest.raises(BadRequest, match="lower case"):
        understand(create("Upload-Metadata: Name YQ==,name YQ=="))


def test_a_mismatch_gets_460():
    told = answer(append(), Refused(DigestMismatch("sha1", "AA==", "AQ==", "Send it again."), 400))
    assert (told.status, told.document["status"]) == (460, 460)
    assert "Upload-Offset" not in told.headers


@pytest.mark.parametrize("trailer", ["Upload-Checksum", "x, upload-checksum"])
def test_a_checksum_in_the_trailer_is_refused(trailer):
    with pytest.raises(NotImplementedHere, match="upload-checksum"):
        understand(append("Transfer-Encoding: chunked", f"Trailer: {trailer}"))
    assert understand(append("Transfer-Encoding: chunked", "Trailer: Server-Timing")).body == body(None)


@pytest.mark.parametrize("asked", [append, create])
def test_the_digest_fields_of_http_are_verified_too(asked):
    body = understand(asked("Upload-Checksum: crc32 AAAAAA==", f"Content-Digest: sha-256=:{'A' * 43}=:")).body
    assert body.digests == (Digest("crc32", bytes(4)), Digest("sha256", bytes(32)))
    body = understand(asked(f"Repr-Digest: sha-256=:{'A' * 43}=:", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==")).body
    assert body.guards == (Digest("sha256", bytes(32)), Digest("md5", bytes(16)))


# -- termination and concatenation -------------------------------------------------------------------------------------


def test_a_termination_gets_204():
    assert understand(delete()) == Cancel(upload_id="u1")
    for outcome in (None, upload(State.CANCELLED)):
        told = answer(delete(), Done(outcome))
        assert (told.status, told.headers) == (204, {"Tus-Resumable": "1.0.0"})


@pytest.mark.parametrize("value", ["partial", "final;/uploads/a /uploads/b"])
def test_concatenation_is_not_offered_and_so_refused(value):
    assert "concatenation" not in EXTENSIONS
    with pytest.raises(BadRequest, match="concatenation"):
        understand(create(f"Upload-Concat: {value}"))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 501, 503, 507])
def test_head_is_never_answered_5xx(status):
    told = answer(head(), Refused(SpoolFull("full"), status))
    assert (told.status, told.document["status"]) == (423, 423)


@pytest.mark.parametrize(
    ("error", "status", "becomes"),
    [
        (SpoolFull("full"), 507, 503),
        (SpoolFull("full"), 503, 503),
        (NotImplementedHere("a digest"), 501, 501),  # it would not help to come again
        (UploadBusy("busy"), 423, 423),
        (BadRequest("wrong"), 400, 400),
    ],
)
@pytest.mark.parametrize("asked", [create(), append(), delete()], ids=lambda asked: asked.method)
def test_no_room_is_503_for_who_knows_how_to_resume(asked, error, status, becomes):
    told = answer(asked, Refused(error, status))
    assert (told.status, told.document["status"]) == (becomes, becomes)


def test_there_is_no_104():
    assert TUS.interim(create(), upload(), created=True) is None
    assert TUS.interim(append(), upload(), created=False) is None


# -- whatever else -----------------------------------------------------------------------------------------------------

values = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["1.0.0", "1", "5", "-5", "9" * 20, "application/offset+octet-stream", f"sha1 {HELLO_SHA1}", "*"]),
    st.binary(max_size=20).map(lambda value: f"filename {encoded(value)},key {encoded(value)}, a"),
)
names = st.sampled_from(
    [
        "Upload-Offset",
        "Upload-Length",
        "Upload-Defer-Length",
        "Upload-Metadata",
        "Upload-Checksum",
        "Content-Type",
        "Transfer-Encoding",
        "If-None-Match",
        "Trailer",
    ]
)
heads = st.builds(
    RequestHead,
    method=st.sampled_from(["HEAD", "PATCH", "POST", "DELETE"]),
    key=st.sampled_from([None, "k"]),
    upload_id=st.sampled_from([None, "u1"]),
    headers=st.dictionaries(names, values).map(lambda headers: {"Tus-Resumable": "1.0.0", **headers})
    | st.dictionaries(names | st.sampled_from(["Tus-Resumable", "Upload-Concat"]), values),
    query=st.dictionaries(st.sampled_from(["key", "interrupted", "checksum"]), values),
    content_length=st.none() | st.integers(0, 20),
    chunked=st.booleans(),
)
outcomes = st.sampled_from([upload(), upload(offset=5, length=9), upload(State.SEALED, size=5), complete(5)])


@settings(deadline=None, max_examples=500)
@given(heads, outcomes)
def test_every_request_is_understood_and_answered_or_refused_by_name(head, outcome):
    assert any(protocol.speaks(head) for protocol in PROTOCOLS)
    assert TUS.refuse(head, OffsetMismatch(1, 2), problem(OffsetMismatch(1, 2), 409)).status == 409
    with suppress(UploadError):
        intent = understand(head)
        assert TUS.respond(head, intent, outcome).status < 300
