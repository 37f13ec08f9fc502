"""Plain HTTP as the contract says it: request head → intent, outcome → response head. No socket, no server."""

import base64
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamup import errors
from streamup.errors import (
    BadRequest,
    Gone,
    LengthConflict,
    LengthRequired,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    StreamupError,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.layout import Layout
from streamup.protocols import (
    Append,
    BodyTerms,
    Cancel,
    Create,
    Description,
    Discover,
    Fetch,
    Inspect,
    Limits,
    Look,
    RequestHead,
    ResponseHead,
)
from streamup.protocols.documents import object_document, parts_document, upload_document
from streamup.protocols.plain import Plain
from streamup.stores import Checksum, ObjectMeta, Receipt, StoredObject
from streamup.upload import State, Upload

PLAIN = Plain(Limits(max_upload_bytes=None, expire_seconds=60))
NO_BODY = object()

STATUSES_THAT_RETRY = {408, 429, 500, 502, 503, 504}
"""After these `curl --retry` sends again: on stdin an empty or tail-only body, and reports success."""


def put(*, length=NO_BODY, headers=None, query=None, method="PUT"):
    """A request to /objects/k. `length` None: chunked."""
    return RequestHead(
        method=method,
        key="k",
        headers=headers or {},
        query=query or {},
        content_length=None if length is NO_BODY else length,
        chunked=length is None,
    )


def terms(content_length, *, seals, limit=None, length=None):
    return BodyTerms(content_length=content_length, seals=seals, limit=limit, length=length)


def upload(state=State.OPEN, **fields):
    made = Upload("u", "a/k é", "s", Layout(5), ObjectMeta("t"), created=0.0, state=state)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


STORED = StoredObject("a/k é", 12, '"e"', "t", {"crc64nvme": "AAAA"}, checksum_type="FULL_OBJECT")


# -- methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "intent"),
    [
        ("HEAD", Look(key="k")),
        ("GET", Fetch(key="k")),
        ("DELETE", Cancel(key="k")),
        ("OPTIONS", Discover()),
    ],
)
def test_methods_on_an_object(method, intent):
    assert intent == PLAIN.understand(put(method=method))


@pytest.mark.parametrize(
    ("method", "intent"),
    [
        ("GET", Look(upload_id="u")),
        ("OPTIONS", Discover()),
    ],
)
def test_methods_on_an_upload_that_other_protocols_leave(method, intent):
    assert intent == PLAIN.understand(RequestHead(method=method, upload_id="u"))


@pytest.mark.parametrize(("method", "intent"), [("GET", Look()), ("OPTIONS", Discover())])
def test_methods_on_all_uploads(method, intent):
    assert intent == PLAIN.understand(RequestHead(method=method))


@pytest.mark.parametrize(
    ("head", "allowed"),
    [
        (put(method="PATCH"), "PUT, POST, HEAD, GET, DELETE, OPTIONS"),
        (RequestHead(method="PUT", upload_id="u"), "HEAD, GET, PATCH, POST, DELETE, OPTIONS"),
        (RequestHead(method="DELETE"), "POST, GET, OPTIONS"),
    ],
)
def test_other_methods_are_refused_with_those_that_mean_something(head, allowed):
    with pytest.raises(NotAllowed) as found:
        PLAIN.understand(head)
    assert allowed == found.value.allowed


@pytest.mark.parametrize("head", [put(), put(method="TRACE"), RequestHead(method="GET", upload_id="u")])
def test_whoever_speaks_no_protocol_is_understood(head):
    assert PLAIN.speaks(head)


def test_nothing_is_said_before_the_answer_nor_of_what_it_can():
    assert PLAIN.interim(put(length=None), upload(), created=True) is None
    assert PLAIN.discover() == {}


# -- whole objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("length", [None, 0, 12])
def test_a_body_is_a_new_upload_that_its_end_seals(method, length):
    assert PLAIN.understand(put(method=method, length=length)) == Create(
        key="k", body=terms(length, seals=True), description=Description()
    )


def test_a_body_without_framing_is_refused():
    with pytest.raises(LengthRequired):
        PLAIN.understand(put())


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity"])
def test_another_transfer_coding_is_not_implemented(coding):
    with pytest.raises(NotImplementedHere):
        PLAIN.understand(put(length=None, headers={"Transfer-Encoding": coding}))


def test_chunked_is_known_in_any_case():
    assert PLAIN.understand(put(length=None, headers={"Transfer-Encoding": "Chunked"})).body.content_length is None


@pytest.mark.parametrize(
    ("length", "declared", "refused"),
    [(12, "12", False), (12, "13", True), (12, "11", True), (None, "11", False)],
)
def test_a_declared_length_must_fit_the_body(length, declared, refused):
    headers = {"Upload-Length": declared}
    if refused:
        with pytest.raises(LengthConflict) as found:
            PLAIN.understand(put(length=length, headers=headers))
        assert {"expected-length": int(declared), "provided-length": 12} == found.value.numbers
    else:
        assert PLAIN.understand(put(length=length, headers=headers)).body.length == int(declared)


@pytest.mark.parametrize("value", ["twelve", "7, 7", "5.0", '"5"', ""])
def test_a_length_that_cannot_be_read_guards_nothing_and_is_refused(value):
    with pytest.raises(BadRequest, match="Upload-Length"):
        PLAIN.understand(put(length=12, headers={"Upload-Length": value}))


@pytest.mark.parametrize("where", ["bytes 0-*/*", "bytes 5-16/*", "bytes */17"])
@pytest.mark.parametrize(
    "field", ["Upload-Complete: no", "Upload-Complete: ?0, ?0", "Upload-Length: twelve", "Upload-Incomplete: ?1"]
)
def test_a_range_whose_other_words_cannot_be_read_is_refused(where, field):
    """Not overheard: "this is not all" would become a whole object."""
    name, _, value = field.partition(": ")
    headers = {"Content-Range": where, name: value}
    with pytest.raises(BadRequest, match="Upload-Length" if name == "Upload-Length" else "Upload-Complete"):
        PLAIN.understand(put(length=0 if "*/17" in where else 12, headers=headers))


def test_an_offset_on_the_object_is_refused_with_the_way_on():
    with pytest.raises(BadRequest, match="Content-Range"):
        PLAIN.understand(put(length=12, headers={"Upload-Offset": "3"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"Trailer": "x-amz-checksum-sha256"},
        {"X-Amz-Checksum-Xxhash3": "AA=="},
        {"Upload-Checksum": "sha1 AA=="},
        {"Content-Encoding": "aws-chunked"},
        {"If-Match": '"e"'},
    ],
)
def test_what_would_be_a_false_promise_is_refused(headers):
    with pytest.raises(NotImplementedHere):
        PLAIN.understand(put(length=12, headers=headers))


# -- what is stored beside the bytes ------------------------------------------------------------------------------


def describe(headers=None, query=None):
    return PLAIN.understand(put(length=0, headers=headers or {}, query=query or {})).description


def test_the_description_is_stored_as_given():
    headers = {
        "Content-Type": "video/mp2t",
        "Content-Encoding": "gzip",
        "Content-Disposition": 'attachment; filename="a.ts"',
        "Cache-Control": "no-cache",
        "X-Amz-Meta-Camera": "North 7",
        "X-Amz-Acl": "public-read",
        "If-None-Match": "*",
    }
    assert describe(headers, {"checksum": "sha256"}) == Description(
        content_type="video/mp2t",
        content_encoding="gzip",
        content_disposition='attachment; filename="a.ts"',
        cache_control="no-cache",
        user={"camera": "North 7"},
        checksum=Checksum.SHA256,
        if_none_match=True,
    )


@pytest.mark.parametrize("kind", list(Checksum))
def test_every_kind_of_checksum_can_be_asked_for(kind):
    assert describe(query={"checksum": kind.value}).checksum is kind


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {"checksum": "md5"}),
        ({}, {"checksum": ""}),
        ({}, {"interrupted": "resume"}),
        ({}, {"interrupted": ""}),
        ({"If-None-Match": '"e"'}, {}),
        ({"If-None-Match": ""}, {}),
        ({"Content-Type": "text/plän"}, {}),
        ({"Content-Type": "text/plain\tx"}, {}),
        ({"x-amz-meta-name": "Zoë"}, {}),
        ({"x-amz-meta-": "x"}, {}),
        ({"x-amz-meta-streamup-token": "x"}, {}),
        ({"X-Amz-Meta-Streamup-Other": "x"}, {}),
        ({"x-amz-meta-a": "x" * 2048}, {}),
    ],
)
def test_what_cannot_be_stored_is_refused(headers, query):
    with pytest.raises(BadRequest):
        describe(headers, query)


def test_metadata_may_have_2048_bytes_with_its_names():
    with pytest.raises(BadRequest, match="these are 2049") as found:
        describe({"x-amz-meta-ab": "x" * 1000, "x-amz-meta-cd": "x" * 1045})
    assert found.value.numbers == {"limit": 2048}
    assert describe({"x-amz-meta-ab": "x" * 1000, "x-amz-meta-cd": "x" * 1044}).user.keys() == {"ab", "cd"}


@pytest.mark.parametrize("policy", ["reject", "append", "replace", "new", None])
def test_the_policy_for_an_interrupted_upload(policy):
    query = {"interrupted": policy} if policy else {}
    assert PLAIN.understand(put(length=None, query=query)).policy == policy


@pytest.mark.parametrize(
    ("prefer", "respond_async"),
    [
        ("respond-async", True),
        ("Respond-Async, wait=10", True),
        ("wait=10 , respond-async; x=y", True),
        ("return=minimal", False),
        ("respond-asynchronously", False),
        ("", False),
    ],
)
def test_the_client_may_prefer_not_to_wait(prefer, respond_async):
    headers = {"Prefer": prefer}
    asked = [
        put(length=1, headers=headers),
        put(length=1, headers=headers | {"Content-Range": "bytes 0-0/1"}),
        put(length=0, headers=headers | {"Content-Range": "bytes */3", "Upload-Complete": "?1"}),
    ]
    assert [respond_async] * 3 == [PLAIN.understand(head).respond_async for head in asked]


# -- Content-Range ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_range", "length", "headers", "expected"),
    [
        # N-M/T: completes where M+1 = T
        ("bytes 3-11/12", 9, {}, terms(9, seals=True, limit=12, length=12)),
        ("bytes 3-7/12", 5, {}, terms(5, seals=False, limit=8, length=12)),
        ("bytes 3-7/12", None, {}, terms(None, seals=False, limit=8, length=12)),
        # N-M/*: leaves it open
        ("bytes 3-7/*", 5, {}, terms(5, seals=False, limit=8)),
        ("bytes 3-7/*", None, {}, terms(None, seals=False, limit=8)),
        # N-*/*: a clean end completes (curl -C)
        ("bytes 3-*/*", None, {}, terms(None, seals=True)),
        ("bytes 3-*/*", 9, {}, terms(9, seals=True)),
        ("bytes 3-*/12", None, {}, terms(None, seals=True, length=12)),
        # the client's own word goes before
        ("bytes 3-*/*", None, {"Upload-Complete": "?0"}, terms(None, seals=False)),
        ("bytes 3-7/*", None, {"Upload-Complete": "?1"}, terms(None, seals=True, limit=8)),
        ("bytes 3-11/12", 9, {"Upload-Complete": "?0"}, terms(9, seals=False, limit=12, length=12)),
        # a length from either field
        ("bytes 3-11/*", 9, {"Upload-Length": "12"}, terms(9, seals=True, limit=12, length=12)),
        ("bytes 3-11/12", 9, {"Upload-Length": "12"}, terms(9, seals=True, limit=12, length=12)),
        ("  bytes 3-*/*  ", None, {}, terms(None, seals=True)),
    ],
)
def test_a_range_goes_on_at_its_offset(content_range, length, headers, expected):
    head = put(length=length, headers={"Content-Range": content_range} | headers)
    assert PLAIN.understand(head) == Append(key="k", offset=3, body=expected)


def test_a_range_from_byte_0_may_begin_an_upload():
    head = put(length=4, headers={"Content-Range": "bytes 0-3/8", "Content-Type": "a/b"}, query={"interrupted": "new"})
    body = terms(4, seals=False, limit=4, length=8)
    create = Create(key="k", body=body, description=Description(content_type="a/b"), policy="new")
    assert PLAIN.understand(head) == Append(key="k", offset=0, body=body, create=create)


@pytest.mark.parametrize(
    ("content_range", "length", "headers"),
    [
        ("bytes 7-3/12", 5, {}),  # last < first
        ("bytes 7-3/*", None, {}),
        ("bytes 4-3/*", None, {}),
        ("bytes 4-3/*", 0, {}),
        ("bytes 3-11/12", 8, {}),  # Content-Length ≠ M-N+1
        ("bytes 3-7/*", 4, {}),
        ("bytes 3-7/*", 6, {}),
        ("bytes 3-12/12", 10, {}),  # beyond the total
        ("bytes 3-12/12", None, {}),
        ("bytes 3-*/12", 8, {}),  # a clean end would be short of the total
        ("bytes 3-*/12", 10, {}),
        ("bytes 3-7/12", 5, {"Upload-Complete": "?1"}),
        ("bytes 3-11/12", 9, {"Upload-Length": "13"}),
        ("bytes */12", 0, {"Upload-Length": "13"}),
        ("bytes 3-11", 9, {}),
        ("bytes -3/12", 9, {}),
        ("bytes=3-11/12", 9, {}),
        ("items 3-11/12", 9, {}),
        ("bytes 3-11/12, 14-15/16", 9, {}),
        ("bytes ٣-11/12", 9, {}),
        ("bytes 3-1000000000000000/*", None, {}),
        ("", 9, {}),
    ],
)
def test_a_range_that_contradicts_itself_is_refused(content_range, length, headers):
    with pytest.raises(BadRequest):
        PLAIN.understand(put(length=length, headers={"Content-Range": content_range} | headers))


def test_a_range_needs_framing():
    with pytest.raises(LengthRequired):
        PLAIN.understand(put(headers={"Content-Range": "bytes 3-*/*"}))


@pytest.mark.parametrize(("content_range", "total"), [("bytes */*", None), ("bytes */12", 12)])
@pytest.mark.parametrize("length", [NO_BODY, 0])
@pytest.mark.parametrize("headers", [{}, {"Upload-Complete": "?0"}])
def test_an_empty_body_with_an_open_range_asks_for_the_offset(content_range, total, length, headers):
    head = put(length=length, headers={"Content-Range": content_range} | headers)
    assert PLAIN.understand(head) == Inspect(key="k", total=total)


@pytest.mark.parametrize("length", [None, 1])
def test_a_question_has_no_body(length):
    with pytest.raises(BadRequest):
        PLAIN.understand(put(length=length, headers={"Content-Range": "bytes */*"}))


def test_a_named_end_and_the_word_that_it_was_all_seal():
    head = put(length=0, headers={"Content-Range": "bytes */12", "Upload-Complete": "?1"})
    assert PLAIN.understand(head) == Append(key="k", offset=12, body=terms(0, seals=True, length=12))


def test_a_seal_without_an_offset_is_refused():
    with pytest.raises(BadRequest):
        PLAIN.understand(put(length=0, headers={"Content-Range": "bytes */*", "Upload-Complete": "?1"}))


# -- whatever else -----------------------------------------------------------------------------------------------

header_values = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["bytes 0-4/5", "bytes */*", "bytes 3-*/*", "?1", "?0", "5", "*", "respond-async"]),
)
heads = st.builds(
    RequestHead,
    method=st.sampled_from(["PUT", "POST", "PATCH", "GET", "TRACE"]),
    key=st.sampled_from([None, "k"]),
    upload_id=st.sampled_from([None, "u"]),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "Content-Range",
                "Upload-Offset",
                "Upload-Complete",
                "Upload-Length",
                "If-None-Match",
                "Prefer",
                "Content-Type",
                "x-amz-meta-a",
                "Transfer-Encoding",
                "Content-Encoding",
            ]
        ),
        header_values,
    ),
    query=st.dictionaries(st.sampled_from(["upload-complete", "interrupted", "checksum"]), header_values),
    content_length=st.one_of(st.none(), st.integers(0, 20)),
    chunked=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(heads)
def test_every_request_is_understood_or_refused_by_name(head):
    with suppress(UploadError):
        assert PLAIN.understand(head)


# -- answers ------------------------------------------------------------------------------------------------------

BODY = terms(None, seals=True)
CREATE = Create(key="a/k é", body=BODY, description=Description())
RANGE = Append(key="a/k é", offset=0, body=BODY)
ASK = Inspect(key="a/k é")
OPEN_HEADERS = {"Upload-Offset": "7", "Location": "/uploads/u", "Upload-Complete": "?0", "Cache-Control": "no-store"}


@pytest.mark.parametrize(
    ("intent", "status", "more"),
    [
        (CREATE, 201, {}),
        (RANGE, 308, {"Range": "bytes=0-6"}),
        (ASK, 308, {"Range": "bytes=0-6"}),
    ],
)
def test_an_upload_that_stays_open(intent, status, more):
    head = PLAIN.respond(put(), intent, upload(offset=7, received=9))
    assert (status, OPEN_HEADERS | more, None) == (head.status, head.headers, head.document)


def test_a_declared_length_is_told():
    assert PLAIN.respond(put(), CREATE, upload(offset=7, length=9)).headers["Upload-Length"] == "9"


def test_nothing_received_has_no_range():
    assert "Range" not in PLAIN.respond(put(), ASK, upload()).headers


@pytest.mark.parametrize(("intent", "status"), [(CREATE, 201), (RANGE, 201), (ASK, 200)])
def test_a_complete_upload(intent, status):
    done = upload(State.COMPLETE, size=12, received=12, offset=12, stored_object=STORED)
    done.receipts = {n: Receipt(n, 4, f'"{n}"') for n in (1, 2, 3)}
    head = PLAIN.respond(put(), intent, done)
    assert status == head.status
    assert head.headers == {
        "ETag": '"e"',
        "Upload-Complete": "?1",
        "Upload-Offset": "12",
        "Location": "/objects/a/k%20%C3%A9",
    }
    assert head.document == {
        "key": "a/k é",
        "size": 12,
        "etag": '"e"',
        "checksum": {"crc64nvme": "AAAA"},
        "checksum_type": "FULL_OBJECT",
        "parts": 3,
        "upload": "u",
    }


@pytest.mark.parametrize("state", [State.SEALED, State.COMPLETING])
def test_an_upload_that_the_store_has_not_confirmed_yet(state):
    head = PLAIN.respond(put(), CREATE, upload(state, size=12, received=12, offset=12))
    assert head.status == 202
    assert head.headers == {"Upload-Offset": "12", "Upload-Length": "12", "Location": "/uploads/u"}
    assert head.document == {
        "key": "a/k é",
        "size": 12,
        "etag": None,
        "checksum": None,
        "checksum_type": None,
        "parts": 1,
        "upload": "u",
    }


@pytest.mark.parametrize(("intent", "applied"), [(CREATE, True), (RANGE, True), (ASK, False)])
def test_who_preferred_not_to_wait_is_told_that_it_was_granted(intent, applied):
    if applied:
        intent = replace(intent, respond_async=True)
    head = PLAIN.respond(put(), intent, upload(State.SEALED, size=12))
    assert (head.status, head.headers.get("Preference-Applied")) == (202, "respond-async" if applied else None)


@pytest.mark.parametrize("gone", [None, upload(State.CANCELLED)])
def test_a_cancellation_has_nothing_to_tell(gone):
    assert PLAIN.respond(put(method="DELETE"), Cancel(key="k"), gone) == ResponseHead(204)


def test_an_empty_object_has_no_parts():
    assert object_document(upload(State.COMPLETE, size=0))["parts"] == 0


def test_an_object_whose_description_was_lost_is_still_complete():
    assert PLAIN.respond(put(), CREATE, upload(State.COMPLETE, size=0)).headers["ETag"] == ""


@pytest.mark.parametrize("intent", [CREATE, RANGE, ASK])
@pytest.mark.parametrize("state", list(State))
def test_no_answer_makes_curl_send_again(intent, state):
    status = PLAIN.respond(put(), intent, upload(state, size=12, offset=12)).status
    assert status not in STATUSES_THAT_RETRY


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (OffsetMismatch(7, 3), {"Upload-Offset": "7", "Upload-Complete": "?0"}),
        (WriterStopped("stopped", 7), {"Upload-Offset": "7", "Upload-Complete": "?0"}),
        (UploadExists("ways", "u", 7), {"Upload-Offset": "7", "Upload-Complete": "?0", "Location": "/uploads/u"}),
        (UploadExists("somebody else's"), {}),
        (NotFound("nothing"), {}),
        (Gone("gone"), {}),
    ],
)
def test_a_refusal_carries_the_offset_where_there_is_one(error, headers):
    refusal = ResponseHead(409, {"Allow": "PUT"}, {"title": "no"})
    assert PLAIN.refuse(put(), error, refusal) == ResponseHead(409, {"Allow": "PUT"} | headers, {"title": "no"})


def test_an_upload_as_whoever_looks_sees_it():
    seen = upload(offset=5, received=7, length=12, touched=100.0, created=0.5)
    seen.receipts = {2: Receipt(2, 2, '"2"', None, b"\1" * 32), 1: Receipt(1, 5, '"1"', 1)}
    assert upload_document(seen, writing=False, expire_seconds=60) == {
        "id": "u",
        "key": "a/k é",
        "state": "open",
        "reason": None,
        "held": None,
        "offset": 5,
        "received": 7,
        "stored": 7,
        "length": 12,
        "writer": False,
        "rate": None,
        "created": "1970-01-01T00:00:00.500+00:00",
        "expires": "1970-01-01T00:02:40.000+00:00",
        "ended": None,
        "object": None,
    }
    assert parts_document(seen) == [
        {"number": 1, "size": 5, "etag": '"1"', "crc64nvme": "AAAAAAAAAAE="},
        {"number": 2, "size": 2, "etag": '"2"', "sha256": base64.b64encode(b"\1" * 32).decode()},
    ]


def test_a_complete_upload_as_whoever_looks_sees_it():
    done = upload(State.COMPLETE, size=12, received=12, offset=12, stored_object=STORED, ended=2.0)
    document = upload_document(done, writing=False, expire_seconds=60, rate=1.5)
    assert (
        document["stored"],
        document["length"],
        document["expires"],
        document["ended"],
        document["rate"],
    ) == (12, 12, None, "1970-01-01T00:00:02.000+00:00", 1.5)
    assert object_document(done) == document["object"]


# -- errors -------------------------------------------------------------------------------------------------------


def test_the_tree_of_errors_is_the_one_that_is_printed():
    printed = {}
    stack = []
    for line in errors.__doc__.splitlines():
        if "Error" in line.split("  ")[0] or "──" in line or line.startswith("StreamupError"):
            depth, name = len(line) - len(line.lstrip("│├└─ ")), line.lstrip("│├└─ ").split()[0]
            stack = [entry for entry in stack if entry[0] < depth]
            printed[name] = stack[-1][1] if stack else None
            stack.append((depth, name))
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    real = {name: kind.__base__.__name__ for name, kind in classes.items() if issubclass(kind, StreamupError)}
    assert real | {"StreamupError": None} == {name: base for name, base in printed.items() if name in real}


def test_every_upload_error_has_a_title_of_its_own():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UploadError)]
    assert len({kind.title for kind in kinds}) == len(kinds)


def test_numbers_go_by_the_names_clients_see():
    assert UploadExists("detail", "u", 7).numbers == {"expected-offset": 7}
    assert BadRequest("detail", expected_length=1, limit=2).numbers == {"expected-length": 1, "limit": 2}


def test_a_mismatch_says_where_to_go_on():
    assert OffsetMismatch(7, 3).detail == "Continue at byte 7: that is what has been received."
    assert OffsetMismatch(0, 3, "Begin at byte 0.").detail == "Begin at byte 0."


def test_a_store_error_keeps_the_stores_words():
    error = errors.StoreThrottled("slow", status=503, code="SlowDown")
    assert (str(error), error.status, error.code) == ("slow", 503, "SlowDown")
