"""The IETF draft: its examples both ways, each interop version's own ways, and what clients get wrong."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import (
    DAY,
    LIMITS,
    NOW,
    Created,
    Done,
    Durable,
    Refused,
    answer,
    complete,
    example,
    examples,
    problem,
    request,
    upload,
)

from streamup.digests import Digest
from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    DigestMismatch,
    Forbidden,
    Gone,
    LengthConflict,
    LengthExceeded,
    LengthRequired,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    SpoolFull,
    StoreUnavailable,
    TooLarge,
    UnsupportedMedia,
    UploadBusy,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.protocols import Append, BodyTerms, Cancel, Create, Description, Inspect, Limits, RequestHead
from streamup.protocols.ietf import Ietf
from streamup.stores import Checksum
from streamup.upload import State

IETF = Ietf(LIMITS)
understand = IETF.understand

VERSIONS = [3, 5, 6, 7, 8, 9]
UNKNOWN = [0, 1, 2, 4, 10, 99]
PARTIAL = "Content-Type: application/partial-upload"
HELLO = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
HELLO_DIGEST = Digest("sha256", bytes.fromhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"))
PROBLEM = "https://iana.org/assignments/http-problem-types#"


def ask(line, *fields, version=None):
    """A request head; `version` None: none is named. Version 3 says the inverse, by another name."""
    fields = [line, *fields] if version is None else [line, *fields, f"Upload-Draft-Interop-Version: {version}"]
    if version == 3:
        inverse = {"Upload-Complete: ?0": "Upload-Incomplete: ?1", "Upload-Complete: ?1": "Upload-Incomplete: ?0"}
        fields = [inverse.get(text, text) for text in fields]
    return request("\n".join(fields))


def create(*fields, version=None, line="POST /uploads"):
    return ask(line, *fields, version=version)


def append(*fields, version=None, offset=3, said="?0", method="PATCH"):
    return ask(
        f"{method} /uploads/u1", f"Upload-Offset: {offset}", f"Upload-Complete: {said}", *fields, version=version
    )


def part(**options):
    """An append that nothing is wrong with."""
    return append(PARTIAL, "Content-Length: 5", **options)


def head(version=None):
    return ask("HEAD /uploads/u1", version=version)


def delete(version=None):
    return ask("DELETE /uploads/u1", version=version)


def body(content_length, *, seals, **more):
    return BodyTerms(content_length=content_length, seals=seals, declares=seals, **more)


# -- the draft's examples ----------------------------------------------------------------------------------------------

SIZE = 7_000_000
APPEND = partial(Append, upload_id="u1")

EXAMPLES = {
    "creation-of-all": (
        Create(
            key="film.mp4",
            filename="my film.mp4",
            independent=True,
            body=body(SIZE, seals=True, length=SIZE),
            description=Description(
                content_type="video/mp4",
                content_disposition="inline; filename=\"my film.mp4\"; filename*=UTF-8''my%20film.mp4",
            ),
        ),
        [Created(upload(length=SIZE)), Durable(upload(offset=5_242_880)), Done(complete(SIZE))],
    ),
    "creation-of-a-part": (
        Create(
            key="film.mp4",
            independent=True,
            body=body(2_000_000, seals=False, length=SIZE),
            description=Description(),
        ),
        [Created(upload(length=SIZE)), Done(upload(offset=2_000_000, length=SIZE))],
    ),
    "creation-of-nothing-yet": (
        Create(key="film.mp4", independent=True, body=body(0, seals=False), description=Description()),
        [Done(upload())],
    ),
    "creation-that-the-server-fails": (
        Create(key="film.mp4", body=body(SIZE, seals=True, length=SIZE), description=Description()),
        [Created(upload(length=SIZE)), Refused(SpoolFull("full"), 507)],
    ),
    "creation-that-is-not-allowed": (
        Create(key="film.mp4", body=body(SIZE, seals=True, length=SIZE), description=Description()),
        [Refused(Forbidden("no"), 403)],
    ),
    "creation-that-is-too-large": (
        Create(key=None, independent=True, body=body(0, seals=False, length=7 * 10**12), description=Description()),
        [Refused(TooLarge("too large", limit=10**12), 413)],
    ),
    "creation-by-urlsession": (
        Create(key="film.mp4", body=body(SIZE, seals=True), description=Description(content_type="video/mp4")),
        [Created(upload()), Done(complete(SIZE))],
    ),
    "creation-that-does-not-wait": (
        Create(key="film.mp4", body=body(12, seals=True), description=Description(), respond_async=True),
        [Done(upload(State.SEALED, offset=12, size=12))],
    ),
    "offset-of-an-open-upload": (
        Inspect(upload_id="u1"),
        [Done(upload(offset=2_500_000, length=SIZE, touched=NOW - DAY + 3600))],
    ),
    "offset-of-a-complete-upload": (Inspect(upload_id="u1"), [Done(complete(SIZE))]),
    "offset-while-the-store-has-not-answered": (
        Inspect(upload_id="u1"),
        [Done(upload(State.COMPLETING, offset=SIZE, size=SIZE))],
    ),
    "append-of-a-part": (
        APPEND(offset=2_000_000, body=body(1_000_000, seals=False)),
        [Durable(upload(offset=2_621_440)), Done(upload(offset=3_000_000))],
    ),
    "append-of-a-part-by-tus-js-client": (
        APPEND(offset=2_000_000, body=body(1_000_000, seals=False)),
        [Durable(upload(offset=2_621_440)), Done(upload(offset=3_000_000, length=SIZE))],
    ),
    "append-of-the-rest": (
        APPEND(offset=3_000_000, body=body(4_000_000, seals=True)),
        [Done(complete(SIZE))],
    ),
    "append-of-nothing-that-is-the-end": (APPEND(offset=SIZE, body=body(0, seals=True)), [Done(complete(SIZE))]),
    "append-with-its-digest": (
        APPEND(offset=0, body=body(5, seals=False, digests=(HELLO_DIGEST,))),
        [Refused(DigestMismatch("sha256", "AA==", "AQ==", "Send it again."), 400)],
    ),
    "mismatching-offset": (
        APPEND(offset=4_000_000, body=body(1_000_000, seals=False)),
        [Refused(OffsetMismatch(2_000_000, 4_000_000), 409)],
    ),
    "completed-upload": (
        APPEND(offset=SIZE, body=body(5, seals=False)),
        [Refused(AlreadyComplete("it is an object", SIZE), 409)],
    ),
    "inconsistent-length": (
        APPEND(offset=3_000_000, body=body(None, seals=False)),
        [Refused(LengthExceeded("too many", limit=SIZE), 400)],
    ),
    "cancellation": (Cancel(upload_id="u1"), [Done(None)]),
}


def test_every_example_is_told():
    assert EXAMPLES.keys() == examples("ietf")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_understood_and_answered(name):
    intent, events = EXAMPLES[name]
    told = example("ietf", name)
    assert IETF.speaks(told.request)
    assert understand(told.request) == intent
    assert [answer(told.request, event) for event in events] == told.answers


# -- which requests are its --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fields", "speaks"),
    [
        ("POST /uploads", [], True),
        ("GET /uploads", [], False),
        ("PUT /uploads", ["Upload-Complete: ?1"], False),
        ("OPTIONS /uploads", ["Upload-Complete: ?1"], False),
        *((f"{method} /uploads/u1", [], True) for method in ("HEAD", "PATCH", "POST", "DELETE")),
        *((f"{method} /uploads/u1", [], False) for method in ("GET", "PUT", "OPTIONS", "TRACE")),
        ("PUT /objects/a", ["Upload-Complete: ?1"], True),
        ("POST /objects/a", ["Upload-Complete: ?0"], True),
        ("PUT /objects/a?upload-complete=0", [], True),
        ("PUT /objects/a", [], False),
        ("PUT /objects/a", ["Upload-Complete: 1"], True),
        ("PUT /objects/a", ["Upload-Complete: ?1", "Upload-Complete: ?1"], True),
        ("PUT /objects/a?upload-complete=maybe", [], True),
        ("PUT /objects/a", ["Upload-Complete: ?1", "Content-Range: bytes */12"], False),
        ("GET /objects/a", ["Upload-Complete: ?1"], False),
        ("PUT /objects/a", ["Upload-Incomplete: ?1"], True),
        ("PUT /objects/a", ["Upload-Incomplete: ?1", "Upload-Draft-Interop-Version: 3"], True),
        ("PUT /objects/a", ["Upload-Complete: ?1", "Upload-Draft-Interop-Version: 3"], True),
        ("PUT /objects/a", ["Upload-Draft-Interop-Version: 6"], False),
    ],
)
def test_which_requests_are_of_the_draft(line, fields, speaks):
    assert IETF.speaks(ask(line, *fields)) is speaks


# -- what differs between the interop versions -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*VERSIONS, *UNKNOWN, None])
@pytest.mark.parametrize("all_of_it", [True, False])
def test_every_version_creates_and_appends(version, all_of_it):
    said = f"Upload-Complete: ?{all_of_it:d}"
    assert understand(create(said, "Content-Length: 5", version=version)).body.seals is all_of_it
    appended = understand(part(said=f"?{all_of_it:d}", version=version))
    assert (appended.offset, appended.body.seals) == (3, all_of_it)


def test_interop_3_says_upload_incomplete_and_means_the_inverse():
    named = "Upload-Draft-Interop-Version: 3"
    assert understand(create("Upload-Incomplete: ?1", named)).body.seals is False
    assert understand(create("Upload-Incomplete: ?0", "Content-Length: 0", named)).body.seals is True
    assert understand(create("Upload-Incomplete: ?1", "Upload-Complete: ?1", named)).body.seals is False


@pytest.mark.parametrize("version", [*VERSIONS[1:], *UNKNOWN, None])
def test_from_interop_4_on_upload_complete_replaces_upload_incomplete(version):
    both = ("Upload-Complete: ?0", "Upload-Incomplete: ?0")
    assert understand(create(*both, version=version)).body.seals is False


@pytest.mark.parametrize("version", [*VERSIONS, *UNKNOWN, None])
def test_that_this_is_not_all_is_heard_in_either_field(version):
    """Not overheard: it would make a truncated object whole."""
    for said in ("Upload-Complete: ?0", "Upload-Incomplete: ?1"):
        head = request(f"PUT /objects/a\nContent-Length: 5\n{said}\nUpload-Draft-Interop-Version: {version}")
        assert understand(head).body.seals is False


@pytest.mark.parametrize(
    "said", ["Upload-Complete: 0", "Upload-Complete: ?0\nUpload-Complete: ?0", "Upload-Complete: no"]
)
def test_an_object_whose_completeness_cannot_be_read_is_refused(said):
    with pytest.raises(BadRequest, match="Upload-Complete"):
        understand(request(f"PUT /objects/a\nContent-Length: 5\n{said}"))


def test_an_empty_append_that_only_brings_the_length_is_the_last():
    head = request("PATCH /uploads/u1\nUpload-Offset: 7\nUpload-Length: 7\nContent-Length: 0")
    assert understand(head).body.seals
    with pytest.raises(BadRequest):
        understand(request("PATCH /uploads/u1\nUpload-Offset: 7\nUpload-Length: 8\nContent-Length: 0"))


@pytest.mark.parametrize("event", [Done(upload(offset=3)), Done(complete(3)), Refused(AlreadyComplete("", 3), 409)])
def test_interop_3_is_answered_with_both_fields_and_an_offset(event):
    headers = answer(part(version=3), event).headers
    assert headers["Upload-Complete"] != headers["Upload-Incomplete"]
    assert headers["Upload-Offset"] == "3"


@pytest.mark.parametrize("version", [*VERSIONS, *UNKNOWN, None])
def test_upload_incomplete_is_said_to_interop_3_only(version):
    for event in (Done(upload()), Done(complete(3)), Refused(Gone("gone"), 410)):
        headers = answer(part(version=version), event).headers
        assert "Upload-Complete" in headers
        assert ("Upload-Incomplete" in headers) is (version == 3)


@pytest.mark.parametrize("version", [*VERSIONS, *UNKNOWN, None])
def test_every_version_gets_201_for_a_creation(version):
    head = create("Upload-Complete: ?0", "Content-Length: 5", version=version)
    told = answer(head, Done(upload(offset=5)))
    assert (told.status, told.headers["Location"], told.headers["Upload-Offset"]) == (201, "/uploads/u1", "5")


@pytest.mark.parametrize(
    ("version", "status"), [(3, 201), (5, 201), (6, 201), (7, 204), (8, 204), (9, 204), (4, 204), (None, 204)]
)
def test_up_to_interop_6_an_append_is_answered_201_and_later_204(version, status):
    told = answer(part(version=version), Done(upload(offset=5)))
    assert (told.status, told.headers["Upload-Offset"], told.headers["Upload-Complete"]) == (status, "5", "?0")
    assert "Location" not in told.headers


@pytest.mark.parametrize("version", [*VERSIONS, *UNKNOWN, None])
def test_every_version_gets_204_for_head_and_delete(version):
    told = answer(head(version), Done(upload(offset=5)))
    assert (told.status, told.headers["Upload-Offset"], told.headers["Cache-Control"]) == (204, "5", "no-store")
    assert answer(delete(version), Done(None)).status == 204
    assert answer(delete(version), Done(upload(State.CANCELLED))).status == 204


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_interop_3_and_all_others_get_404_for_what_is_unknown(version):
    assert answer(head(version), Refused(NotFound("nothing"), 404)).status == 404


@pytest.mark.parametrize("version", [*VERSIONS, None])
@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
@pytest.mark.parametrize("field", ["Upload-Offset: 3", "Upload-Complete: ?1", "Upload-Complete: nonsense"])
def test_interop_3_and_all_others_get_400_for_a_question_that_says_the_answer(version, method, field):
    if version == 3:
        field = field.replace("Complete", "Incomplete")
    with pytest.raises(BadRequest, match=method):
        understand(ask(f"{method} /uploads/u1", field, version=version))


@pytest.mark.parametrize("version", VERSIONS)
def test_104_on_creation_echoes_the_number(version):
    told = answer(create("Upload-Complete: ?0", version=version), Created(upload()))
    assert (told.status, told.headers["Upload-Draft-Interop-Version"]) == (104, str(version))
    assert told.headers["Location"] == "/uploads/u1"
    assert "Upload-Offset" not in told.headers


@pytest.mark.parametrize("version", [*UNKNOWN, None])
def test_no_104_for_an_unknown_number_or_none(version):
    assert answer(create("Upload-Complete: ?0", version=version), Created(upload())) is None
    assert answer(part(version=version), Durable(upload(offset=5))) is None
    for told in (answer(part(version=version), Done(upload())), answer(head(version), Done(upload()))):
        assert "Upload-Draft-Interop-Version" not in told.headers


@pytest.mark.parametrize("version", [5, 6, 7, 8, 9])
def test_from_interop_5_on_104_tells_the_offset_and_no_location(version):
    told = answer(part(version=version), Durable(upload(offset=5)))
    assert told.status == 104
    assert told.headers == {"Upload-Offset": "5", "Upload-Draft-Interop-Version": str(version)}


def test_interop_3_gets_no_104_with_an_offset():
    assert answer(part(version=3), Durable(upload(offset=5))) is None


@pytest.mark.parametrize("text", ["6", "06", "6;draft=4", " 6 "])
def test_the_version_is_a_structured_field(text):
    assert answer(part(version=text), Durable(upload())).headers["Upload-Draft-Interop-Version"] == "6"


@pytest.mark.parametrize("text", ["", "six", '"6"', "6.0", "-6", "6, 6", "6 6", "٦", "6;", "0" * 16, "9" * 5000])
def test_a_version_of_another_type_is_none(text):
    for told in (answer(part(version=text), Done(upload())), answer(part(version=text), Refused(Gone("gone"), 410))):
        assert "Upload-Draft-Interop-Version" not in told.headers


@pytest.mark.parametrize("version", [6, 7, 8, 9])
@pytest.mark.parametrize("content_type", [[], ["Content-Type: application/offset+octet-stream"], ["Content-Type: a/b"]])
def test_from_interop_6_on_patch_has_the_content_type_of_the_draft(version, content_type):
    with pytest.raises(UnsupportedMedia, match="application/partial-upload"):
        understand(append("Content-Length: 5", *content_type, version=version))


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("content_type", [[], ["Content-Type: a/b"]])
def test_before_interop_6_patch_has_any_content_type(version, content_type):
    assert understand(append("Content-Length: 5", *content_type, version=version)).offset == 3


@pytest.mark.parametrize("version", [4, 99, None])
def test_without_a_number_patch_has_the_content_type_of_the_draft_or_none(version):
    assert understand(append("Content-Length: 5", version=version)).offset == 3
    with pytest.raises(UnsupportedMedia, match="not text/plain"):
        understand(append("Content-Length: 5", "Content-Type: text/plain", version=version))


@pytest.mark.parametrize("fields", [["Content-Length: 0"], []])
def test_an_append_without_bytes_has_no_content_type(fields):
    assert understand(append(*fields, version=9)).body.content_length == 0


def test_an_append_by_post_is_for_those_who_write_their_requests_by_hand():
    assert understand(append("Content-Length: 5", "Content-Type: a/b", method="POST", version=9)).offset == 3


@pytest.mark.parametrize("text", ["Application/Partial-Upload", "application/partial-upload; charset=x"])
def test_a_media_type_has_any_case_and_parameters(text):
    assert understand(append("Content-Length: 5", f"Content-Type: {text}", version=9)).offset == 3


@pytest.mark.parametrize(
    ("version", "name"),
    [(3, "expires"), (5, "expires"), (6, "expires"), *((n, "max-age") for n in (7, 8, 9, 4, 99, None))],
)
def test_up_to_interop_6_the_limit_is_called_expires_and_later_max_age(version, name):
    limit = f"min-size=0, max-size=1000000000000, {name}=86400"
    assert answer(part(version=version), Done(upload())).headers["Upload-Limit"] == limit
    assert answer(head(version), Done(upload())).headers["Upload-Limit"] == limit
    created = answer(create("Upload-Complete: ?0", version=version), Created(upload()))
    assert created is None or created.headers["Upload-Limit"] == limit


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_the_length_is_taken_and_told(version):
    assert understand(create("Upload-Complete: ?0", "Upload-Length: 9", version=version)).body.length == 9
    assert understand(part(version=version)).body.length is None
    assert answer(head(version), Done(upload(length=9))).headers["Upload-Length"] == "9"
    assert answer(head(version), Done(complete(9))).headers["Upload-Length"] == "9"
    assert "Upload-Length" not in answer(head(version), Done(upload())).headers


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_an_offset_elsewhere_gets_409_and_the_problem_type_of_interop_6(version):
    told = answer(part(version=version), Refused(OffsetMismatch(7, 3), 409))
    assert (told.status, told.headers["Upload-Offset"], told.headers["Upload-Complete"]) == (409, "7", "?0")
    assert told.document["type"] == PROBLEM + "mismatching-upload-offset"
    assert (told.document["expected-offset"], told.document["provided-offset"]) == (7, 3)


@pytest.mark.parametrize(
    ("version", "status", "kind"),
    [
        *((version, 400, PROBLEM + "completed-upload") for version in (6, 7, 8)),
        *((version, 409, "about:blank") for version in (3, 5, 9, None)),
    ],
)
def test_from_interop_6_to_8_a_complete_upload_has_a_problem_type_of_its_own(version, status, kind):
    told = answer(part(version=version), Refused(AlreadyComplete("it is", 7), 409))
    assert (told.status, told.document["status"], told.document["type"]) == (status, status, kind)
    assert (told.headers["Upload-Offset"], told.headers["Upload-Complete"]) == ("7", "?1")


@pytest.mark.parametrize("version", [*VERSIONS, None])
@pytest.mark.parametrize("error", [LengthConflict("two"), LengthExceeded("beyond")])
def test_an_inconsistent_length_gets_400_and_the_problem_type_of_interop_7(version, error):
    told = answer(part(version=version), Refused(error, 400))
    assert (told.status, told.document["type"]) == (400, PROBLEM + "inconsistent-upload-length")


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_an_append_beyond_the_length_is_let_in_to_invalidate_the_upload(version):
    """From interop 7 on; before, nothing is said of it. The number of bytes that come decides, not Content-Length."""
    assert understand(append(PARTIAL, "Content-Length: 5", "Upload-Length: 7", version=version)).body.length == 7


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize("state", [State.SEALED, State.COMPLETING])
def test_up_to_interop_6_clients_never_hear_an_offset_that_they_take_for_success(version, state):
    whole = upload(state, offset=7, size=7)
    for asked in (head(version), part(said="?1", version=version)):
        with pytest.raises(UploadBusy):
            answer(asked, Done(whole))
    told = answer(create("Upload-Complete: ?1", "Content-Length: 7", version=version), Done(whole))
    assert (told.status, told.headers["Location"]) == (202, "/uploads/u1")
    assert "Upload-Offset" not in told.headers


@pytest.mark.parametrize("version", [3, 5, 6])
def test_up_to_interop_6_an_open_upload_with_all_its_bytes_is_no_success_either(version):
    """Its completion was refused, or nobody has said that these were all."""
    whole = upload(offset=7, length=7)
    for asked in (head(version), part(version=version), part(said="?1", version=version)):
        with pytest.raises(UploadBusy):
            answer(asked, Done(whole))
    told = answer(create("Upload-Complete: ?0", "Content-Length: 7", version=version), Done(whole))
    assert (told.status, "Upload-Offset" in told.headers) == (201, False)
    assert answer(part(said="?1", version=version), Durable(whole)) is None


@pytest.mark.parametrize("version", [3, 5, 6])
def test_up_to_interop_6_an_empty_upload_is_no_success_before_its_object_is_there(version):
    """For these clients a creation of 0 bytes that is not refused is the end."""
    with pytest.raises(BadRequest):
        understand(create("Upload-Complete: ?0", "Upload-Length: 0", version=version))
    with pytest.raises(UploadBusy):
        answer(create("Upload-Complete: ?1", "Content-Length: 0", version=version), Done(upload(State.SEALED, size=0)))


@pytest.mark.parametrize("version", [7, 8, 9, None])
@pytest.mark.parametrize("state", [State.SEALED, State.COMPLETING])
def test_from_interop_7_on_clients_know_that_only_upload_complete_says_so(version, state):
    whole = upload(state, offset=7, size=7)
    all_of_it = create("Upload-Complete: ?1", "Content-Length: 7", version=version)
    for asked in (head(version), part(said="?1", version=version), all_of_it):
        told = answer(asked, Done(whole))
        assert (told.status, told.headers["Upload-Offset"], told.headers["Upload-Complete"]) == (202, "7", "?0")
        assert ("Location" in told.headers) is (asked.method != "HEAD")


def test_interop_8_announces_limits_even_where_there_are_none():
    unlimited = Ietf(Limits(max_upload_bytes=None, expire_seconds=60))
    assert unlimited.discover()["Upload-Limit"] == "min-size=0, max-age=60"
    told = unlimited.respond(head(8), Inspect(upload_id="u1"), upload(touched=None))
    assert told.headers["Upload-Limit"] == "min-size=0"


def test_options_announces_the_limits_and_for_those_before_interop_9_accept_patch():
    assert IETF.discover() == {
        "Upload-Limit": "min-size=0, max-size=1000000000000, max-age=86400",
        "Accept-Patch": "application/partial-upload",
    }


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_interop_9_and_all_others_may_create_and_end_an_empty_upload(version):
    empty = create("Upload-Complete: ?1", "Content-Length: 0", version=version)
    assert understand(empty).body == body(0, seals=True)
    assert answer(empty, Done(complete(0))).status == 201
    assert understand(append("Content-Length: 0", said="?1", version=version)).body == body(0, seals=True)


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_the_answer_of_the_creation_can_be_had_again(version):
    created = answer(create("Upload-Complete: ?1", "Content-Length: 7", version=version), Done(complete(7)))
    assert answer(append("Content-Length: 0", offset=7, said="?1", version=version), Done(complete(7))) == created


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_a_complete_upload_says_so_to_head_and_names_no_upload_location(version):
    told = answer(head(version), Done(complete(7)))
    assert (told.status, told.headers["Upload-Complete"], told.headers["Upload-Offset"]) == (200, "?1", "7")
    assert told.headers["Cache-Control"] == "no-store"
    assert "Location" not in told.headers
    assert told.document is None


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "left"), [(0, DAY), (3600, DAY - 3600), (2 * DAY, 0)])
def test_head_tells_how_long_the_upload_will_live(age, left):
    limit = answer(head(), Done(upload(touched=NOW - age))).headers["Upload-Limit"]
    assert limit.endswith(f"max-age={left}")


def test_an_upload_that_was_just_written_to_lives_for_the_whole_time():
    assert answer(part(), Done(upload(touched=NOW + 60))).headers["Upload-Limit"].endswith(f"max-age={DAY}")


def test_who_preferred_not_to_wait_is_told_that_it_was_granted():
    told = answer(append("Content-Length: 0", "Prefer: respond-async", said="?1"), Done(upload(State.SEALED, size=7)))
    assert told.headers["Preference-Applied"] == "respond-async"
    told = answer(append("Content-Length: 0", said="?1"), Done(upload(State.SEALED, size=7)))
    assert "Preference-Applied" not in told.headers


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (WriterStopped("stopped", 7), 409, {"Upload-Offset": "7"}),
        (UploadExists("ways", "u1", 7), 409, {"Upload-Offset": "7", "Location": "/uploads/u1"}),
        (UploadExists("somebody else's"), 409, {}),
        (AlreadyComplete("nobody knows how large"), 409, {}),
        (TooLarge("too large", limit=5, name="max-append-size"), 413, {"Upload-Limit": "max-append-size=5"}),
        (BadRequest("wrong"), 400, {}),
        (StoreUnavailable("it does not answer"), 503, {}),
    ],
)
def test_a_refusal_carries_what_helps(error, status, headers):
    told = answer(part(), Refused(error, status))
    assert (told.status, told.headers) == (status, {"Upload-Complete": "?0"} | headers)
    assert told.document["type"] == "about:blank"


@pytest.mark.parametrize("asked", [head(), delete()])
def test_a_refused_question_says_nothing_of_completeness(asked):
    assert "Upload-Complete" not in answer(asked, Refused(Gone("gone"), 410)).headers


@pytest.mark.parametrize("version", [*VERSIONS, None])
@pytest.mark.parametrize("status", [500, 501, 503, 507])
def test_head_is_never_answered_5xx(version, status):
    told = answer(head(version), Refused(SpoolFull("full"), status))
    assert (told.status, told.document["status"]) == (423, 423)


@pytest.mark.parametrize(("version", "status"), [*((n, 503) for n in VERSIONS), (4, 507), (None, 507)])
def test_no_room_is_503_for_those_who_know_how_to_resume_and_507_for_the_others(version, status):
    for asked in (create("Upload-Complete: ?0", version=version), part(version=version)):
        told = answer(asked, Refused(SpoolFull("full"), 507))
        assert (told.status, told.document["status"]) == (status, status)


def test_a_refusal_keeps_the_fields_it_came_with():
    refusal = replace(problem(Gone("gone"), 410), headers={"Allow": "PUT"})
    assert IETF.refuse(head(), Gone("gone"), refusal).headers == {"Allow": "PUT"}


# -- creation ----------------------------------------------------------------------------------------------------------


def test_a_creation_says_what_is_stored_with_the_object():
    head = create(
        "Upload-Complete: ?1",
        "Content-Length: 0",
        "Content-Type: video/mp4",
        "Content-Encoding: gzip",
        "X-Amz-Meta-Camera: North",
        "If-None-Match: *",
        "Prefer: respond-async",
        line="POST /uploads?key=a/b&checksum=sha256&interrupted=new",
    )
    assert understand(head) == Create(
        key="a/b",
        independent=True,
        body=body(0, seals=True),
        description=Description(
            content_type="video/mp4",
            content_encoding="gzip",
            user={"camera": "North"},
            checksum=Checksum.SHA256,
            if_none_match=True,
        ),
        policy="new",
        respond_async=True,
    )


def test_on_an_object_its_key_is_the_key_and_the_policy_of_its_open_upload_counts():
    head = create("Upload-Complete: ?0", "Content-Length: 5", line="PUT /objects/a/b?key=c&interrupted=replace")
    intent = understand(head)
    assert (intent.key, intent.independent, intent.policy) == ("a/b", False, "replace")


def test_no_framing_is_no_body_but_never_an_object():
    assert understand(create("Upload-Complete: ?0")).body.content_length == 0
    for line in ("PUT /objects/a", "POST /uploads"):
        with pytest.raises(LengthRequired):
            understand(create("Upload-Complete: ?1", line=line))


def test_http_1_0_says_the_length():
    with pytest.raises(LengthRequired):
        understand(replace(append(said="?1"), version=(1, 0)))


def test_a_live_body_comes_in_chunks():
    head = create("Upload-Complete: ?1", "Transfer-Encoding: chunked", line="PUT /objects/a")
    assert understand(head).body == body(None, seals=True)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["Upload-Complete: 1"],
        ["Upload-Complete: true"],
        ["Upload-Complete: ?2"],
        ["Upload-Complete: ?1", "Upload-Complete: ?1"],
        ["Upload-Length: 5"],
    ],
)
def test_a_creation_says_whether_this_is_all(fields):
    with pytest.raises(BadRequest, match="Upload-Complete"):
        understand(create(*fields))


@pytest.mark.parametrize(
    ("offset", "refused"), [("0", False), ("three", False), ('"3"', False), ("3", True), ("-1", True)]
)
def test_a_creation_begins_at_byte_0(offset, refused):
    head = create("Upload-Complete: ?0", f"Upload-Offset: {offset}")
    if refused:
        with pytest.raises(BadRequest):
            understand(head)
    else:
        assert isinstance(understand(head), Create)


@pytest.mark.parametrize(
    ("said", "length", "refused"),
    [("?1", 5, False), ("?1", 6, True), ("?1", 4, True), ("?0", 5, False), ("?0", 6, False), ("?0", 4, True)],
)
def test_the_lengths_of_a_creation_agree(said, length, refused):
    head = create(f"Upload-Complete: {said}", "Content-Length: 5", f"Upload-Length: {length}")
    if refused:
        with pytest.raises(LengthConflict):
            understand(head)
    else:
        assert understand(head).body.length == length


# -- append ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["Upload-Offset: 3"],
        ["Upload-Complete: ?1"],
        ["Upload-Offset: three", "Upload-Complete: ?1"],
        ["Upload-Offset: 3.0", "Upload-Complete: ?1"],
        ["Upload-Offset: 3", "Upload-Offset: 3", "Upload-Complete: ?1"],
        ["Upload-Offset: 3", "Upload-Complete: yes"],
        ["Upload-Offset: 3", "Upload-Complete: ?0", "Upload-Complete: ?1"],
        ["Upload-Offset: -3", "Upload-Complete: ?1"],
        ["Upload-Offset: 9999999999999999", "Upload-Complete: ?1"],
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_an_append_without_its_place_is_refused(method, fields):
    with pytest.raises(BadRequest, match="Upload-Offset"):
        understand(ask(f"{method} /uploads/u1", PARTIAL, "Content-Length: 5", *fields))


@pytest.mark.parametrize(
    ("said", "length", "refused"),
    [("?1", "8", False), ("?1", "9", True), ("?1", "7", True), ("?0", "7", False), ("?0", "20", False)],
)
def test_the_lengths_of_the_last_append_agree(said, length, refused):
    head = append(PARTIAL, "Content-Length: 5", f"Upload-Length: {length}", said=said)
    if refused:
        with pytest.raises(LengthConflict) as found:
            understand(head)
        assert {"expected-length": int(length), "provided-length": 8} == found.value.numbers
    else:
        assert understand(head).body.length == int(length)


@pytest.mark.parametrize("length", ["-1", "1000000000000000"])
@pytest.mark.parametrize("asked", [part, partial(create, "Upload-Complete: ?0")])
def test_a_length_out_of_range_is_refused(asked, length):
    head = asked()
    head.headers["Upload-Length"] = length
    with pytest.raises(BadRequest, match="Upload-Length"):
        understand(head)


@pytest.mark.parametrize("length", ["five", "5.0", '"5"', "?1", "5, 5", "", "٣", "5;A"])
@pytest.mark.parametrize("asked", [part, partial(create, "Upload-Complete: ?0")])
def test_a_length_of_another_type_is_ignored(asked, length):
    head = asked()
    head.headers["Upload-Length"] = length
    assert understand(head).body.length is None


def test_an_append_may_prefer_not_to_wait():
    assert understand(append("Content-Length: 0", "Prefer: respond-async", said="?1")).respond_async


# -- digests and codings -----------------------------------------------------------------------------------------------

BOTH_KINDS = pytest.mark.parametrize(
    "asked", [append, partial(create, "Upload-Complete: ?0", version=None)], ids=["append", "creation"]
)


@BOTH_KINDS
def test_the_digest_of_a_body_is_verified(asked):
    assert understand(asked("Content-Length: 0", f"Content-Digest: {HELLO}")).body.digests == (HELLO_DIGEST,)


@BOTH_KINDS
@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("Content-Digest: md5=:AAAA:", "sha-256 or sha-512"),
        ("Content-Digest: sha-256=AAAA", "between colons"),
        ("Content-Digest: sha-256=:AAAA:", "32 bytes"),
    ],
)
def test_a_digest_that_cannot_be_verified_is_refused(asked, field, reason):
    with pytest.raises(BadRequest, match=reason):
        understand(asked("Content-Length: 0", field))


@BOTH_KINDS
@pytest.mark.parametrize(
    "field",
    [
        "Trailer: Repr-Digest",
        "x-amz-checksum-xxhash3: AA==",
        "Upload-Checksum: sha1 AA==",
        "Content-Encoding: aws-chunked",
        "Transfer-Encoding: gzip, chunked",
    ],
)
def test_what_would_be_a_false_promise_is_refused(asked, field):
    with pytest.raises(NotImplementedHere):
        understand(asked("Content-Length: 0", field))


# -- whatever else -----------------------------------------------------------------------------------------------------

values = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["?1", "?0", "5", "-5", "9" * 20, PARTIAL.split(": ")[1], HELLO, "*", "chunked", "6", "3", "9"]),
)
names = st.sampled_from(
    [
        "Upload-Offset",
        "Upload-Complete",
        "Upload-Incomplete",
        "Upload-Length",
        "Upload-Draft-Interop-Version",
        "Content-Type",
        "Content-Digest",
        "Content-Disposition",
        "Content-Encoding",
        "Transfer-Encoding",
        "If-None-Match",
        "Prefer",
        "x-amz-meta-a",
        "Tus-Resumable",
    ]
)
heads = st.builds(
    RequestHead,
    method=st.sampled_from(["HEAD", "PATCH", "POST", "PUT", "DELETE"]),
    key=st.sampled_from([None, "k"]),
    upload_id=st.sampled_from([None, "u1"]),
    headers=st.dictionaries(names, values),
    query=st.dictionaries(st.sampled_from(["key", "upload-complete", "interrupted", "checksum"]), values),
    content_length=st.none() | st.integers(0, 20),
    chunked=st.booleans(),
)
outcomes = st.sampled_from(
    [upload(), upload(offset=5, length=9), upload(State.SEALED, size=5), upload(State.COMPLETING, size=5), complete(5)]
)


@settings(deadline=None, max_examples=500)
@given(heads, outcomes, st.booleans())
def test_every_request_is_understood_and_answered_or_refused_by_name(head, outcome, created):
    IETF.speaks(head)
    interim = IETF.interim(head, outcome, created=created)
    assert interim is None or interim.status == 104
    told = IETF.refuse(head, OffsetMismatch(1, 2), problem(OffsetMismatch(1, 2), 409))
    assert told.status == 409
    with suppress(UploadError):
        assert IETF.respond(head, understand(head), outcome).status < 300


def test_the_content_type_of_an_append_is_not_the_objects():
    head = create("Upload-Complete: ?0", "Content-Type: application/partial-upload")
    assert understand(head).description.content_type is None
