"""Resumable uploads over real sockets: the IETF draft in all its interop versions, tus 1.0, and both of them mixed.

The clients here are raw ones, so that they may say what no library would say, and break off wherever they like.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import random
import threading
import time
import zlib
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import BODY, PART_BYTES, REST, START, Service, StartService, strict_store
from raw_client import (
    CHUNKED,
    EXPECT,
    LAST_CHUNK,
    OCTETS,
    PARTIAL,
    PATIENCE_SECONDS,
    TUS,
    Answer,
    Client,
    chunk,
    eventually,
    head,
    metadata,
    place,
    refused,
)
from test_laws import Disk, held_checkpoint

from streamup.auth import ANONYMOUS
from streamup.errors import CheckpointError
from streamup.spool import Files
from streamup.upload import State
from streamup.values import parse_api_key

pytestmark = pytest.mark.usefixtures("impatient")

both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

VERSION = "Upload-Draft-Interop-Version"
VERSIONS = (3, 5, 6, 7, 8, 9)
SEVERAL = [pytest.param(v, marks=() if v in {3, 6, 9} else pytest.mark.campaign) for v in VERSIONS]
"""Plain runs have three of them: what tells the versions apart is in test_ietf.py, for each."""

each_version = pytest.mark.parametrize("version", SEVERAL)
each_version_and_none = pytest.mark.parametrize("version", [*SEVERAL, None])

PROBLEMS = "https://iana.org/assignments/http-problem-types#"

DEFERRED = {"Upload-Defer-Length": "1"}

ORIGIN = {"Origin": "https://app.example"}
ALICE = "alice-has-this-key"


def ietf(version: int | None = 9, *, complete: bool, offset: int | None = None, length: int | None = None):
    """What a client of this interop version says of its body; an `offset` makes it an append."""
    headers = {} if version is None else {VERSION: str(version)}
    headers |= {"Upload-Incomplete": f"?{not complete:d}"} if version == 3 else {"Upload-Complete": f"?{complete:d}"}
    if offset is not None:
        headers |= {"Upload-Offset": str(offset), "Content-Type": PARTIAL}
    return headers | ({} if length is None else {"Upload-Length": str(length)})


def tus(offset: int, length: int | None = None) -> dict[str, str]:
    """What a tus client says of an append."""
    return TUS | OCTETS | {"Upload-Offset": str(offset)} | ({} if length is None else {"Upload-Length": str(length)})


def checksum(algorithm: str, data: bytes) -> dict[str, str]:
    digest = zlib.crc32(data).to_bytes(4, "big") if algorithm == "crc32" else hashlib.new(algorithm, data).digest()
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}


def content_digest(data: bytes) -> dict[str, str]:
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


ASKING = {"tus": TUS, "ietf": {VERSION: "9"}}
each_protocol = pytest.mark.parametrize("protocol", ASKING)


def appending(protocol: str, offset: int, *, complete: bool = False, length: int | None = None) -> dict[str, str]:
    """An append; a tus client says at its last one how long the upload is."""
    if protocol == "ietf":
        return ietf(complete=complete, offset=offset)
    return tus(offset, length if complete else None)


async def created(service: Service, protocol: str = "ietf", key: str = "a", length: int | None = None) -> str:
    """The location of a new upload without bytes."""
    if protocol == "ietf":
        headers = ietf(complete=False, length=length)
    else:
        headers = TUS | (DEFERRED if length is None else {"Upload-Length": str(length)})
    answer = await service.ask("POST", f"/uploads?key={key}", b"", headers)
    assert answer.status == 201, answer
    return answer.headers["location"]


async def offset_of(service: Service, location: str) -> int:
    answer = await service.ask("HEAD", location)
    assert answer.status in {200, 204}, answer
    return answer.offset


def only_member(answer: Answer, name: str) -> int:
    """A member of `Upload-Limit`."""
    members = dict(member.split("=") for member in answer.headers["upload-limit"].split(", "))
    return int(members[name])


# -- the draft: creation --------------------------------------------------------------------------------------------

WAYS_TO_CREATE = [("POST", "/uploads?key=a"), ("PUT", "/objects/a"), ("POST", "/objects/a")]
each_way_to_create = pytest.mark.parametrize(("method", "target"), WAYS_TO_CREATE)


@pytest.mark.parametrize("version", [*VERSIONS, None])
@each_way_to_create
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_an_upload_is_created_with_a_part_of_it_and_completed_by_an_append(
    service, method, target, framing, version
):
    body = {"chunks": [START]} if framing == "chunked" else {"body": START}
    answer = await service.ask(method, target, headers=ietf(version, complete=False), **body)
    assert (answer.status, answer.offset) == (201, len(START))
    assert answer.headers["upload-complete"] == "?0"
    assert only_member(answer, "min-size") == 0
    assert answer.headers.get(VERSION.lower()) == (None if version is None else str(version))
    location = answer.headers["location"]
    body = {"chunks": [REST]} if framing == "chunked" else {"body": REST}
    answer = await service.ask("PATCH", location, headers=ietf(version, complete=True, offset=len(START)), **body)
    assert (answer.status, answer.offset, answer.json["size"]) == (201, len(BODY), len(BODY))
    assert answer.headers["upload-complete"] == "?1"
    assert service.data("a") == BODY


@each_version_and_none
@each_way_to_create
async def test_a_request_that_carries_everything_is_answered_like_any_other(service, method, target, version):
    answer = await service.ask(method, target, BODY, ietf(version, complete=True))
    assert answer.status == 201
    assert (answer.json["key"], answer.json["size"]) == ("a", len(BODY))
    assert answer.headers["upload-complete"] == "?1"
    assert answer.headers["etag"] == service.store.objects["a"].etag
    assert service.data("a") == BODY


@each_version_and_none
@each_way_to_create
async def test_an_upload_may_begin_empty(service, method, target, version):
    answer = await service.ask(method, target, b"", ietf(version, complete=False))
    assert (answer.status, answer.offset) == (201, 0)
    location = answer.headers["location"]
    assert await offset_of(service, location) == 0
    answer = await service.ask("PATCH", location, BODY, ietf(version, complete=True, offset=0))
    assert answer.status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("body", [None, b""], ids=["no body", "length 0"])
async def test_a_creation_on_uploads_needs_no_body_at_all(service, body):
    answer = await service.ask("POST", "/uploads?key=a", body, ietf(complete=False))
    assert (answer.status, answer.offset) == (201, 0)


async def test_an_empty_upload_that_is_all_is_an_empty_object(service):
    assert (await service.ask("POST", "/uploads?key=a", b"", ietf(complete=True))).status == 201
    location = await created(service, key="b")
    assert (await service.ask("PATCH", location, b"", ietf(complete=True, offset=0))).status == 201
    assert (service.data("a"), service.data("b")) == (b"", b"")


async def test_what_is_said_of_the_object_at_its_creation_is_stored_with_it(service):
    headers = {"Content-Type": "video/mp4", "X-Amz-Meta-Camera": "2", "Cache-Control": "no-cache"}
    headers |= {"Content-Disposition": 'inline; filename="film.mp4"'}
    answer = await service.ask("POST", "/uploads", START, ietf(complete=False) | headers)
    location = answer.headers["location"]
    answer = await service.ask("PATCH", location, REST, ietf(complete=True, offset=len(START)))
    key = f"{location.rpartition('/')[2]}/film.mp4"
    assert answer.json["key"] == key
    meta = service.store.objects[key].meta
    assert (meta.content_type, meta.cache_control, meta.user) == ("video/mp4", "no-cache", {"camera": "2"})
    assert meta.content_disposition == 'inline; filename="film.mp4"'


@pytest.mark.parametrize("headers", [{}, {VERSION: "9"}, {"Upload-Complete": "1"}, {"Upload-Complete": "yes"}])
async def test_a_creation_that_does_not_say_whether_it_is_all_is_refused(service, headers):
    refused(await service.ask("POST", "/uploads?key=a", b"body", headers), 400)
    assert (await service.ask("GET", "/uploads")).json["uploads"] == []


KEYS_NOT_SAFE = ["", "../a", "a//b", "/a", "a/", "a%00b", "a%0Ab", "a%5Cb", "%FF", "k" * 1025]


@each_protocol
@pytest.mark.parametrize("key", KEYS_NOT_SAFE)
async def test_a_key_in_the_query_that_is_not_safe_is_refused(service, protocol, key):
    headers = ietf(complete=True) if protocol == "ietf" else TUS | OCTETS | {"Upload-Length": "4"}
    answer = await service.ask("POST", f"/uploads?key={key}", b"body", headers)
    assert answer.status == 400, answer
    assert not service.store.objects


@each_protocol
async def test_the_prefix_counts_towards_the_length_of_a_key_in_the_query(start_service, protocol):
    service = await start_service(prefix="prefix/")
    headers = ietf(complete=True) if protocol == "ietf" else TUS | OCTETS | {"Upload-Length": "4"}
    assert (await service.ask("POST", f"/uploads?key={'k' * 1017}", b"body", headers)).status == 201
    refused(await service.ask("POST", f"/uploads?key={'k' * 1018}", b"body", headers), 400)


# -- the draft: 104 -------------------------------------------------------------------------------------------------


@both_loops
@each_version
@each_way_to_create
async def test_104_tells_the_upload_before_the_body_is_asked_for(service, method, target, version):
    client = await service.connect()
    await client.send(head(method, target, CHUNKED | EXPECT | ietf(version, complete=False)))
    told = await client.told()
    assert told.status == 104
    assert told.headers[VERSION.lower()] == str(version)
    assert 86_000 < only_member(told, "expires" if version < 7 else "max-age") <= 86_400
    assert "upload-offset" not in told.headers
    assert await client.interim() == 100
    await client.send(chunk(START) + LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())
    assert answer.headers["location"] == told.headers["location"]
    assert await offset_of(service, told.headers["location"]) == len(START)


@both_loops
@each_version
async def test_104_comes_without_expect_too_and_leads_back_after_an_interruption(service, version):
    client = await service.connect()
    await client.send(head("POST", "/uploads?key=a", {"Content-Length": str(len(BODY))} | ietf(version, complete=True)))
    told = await client.told()
    await client.send(START)
    await service.becomes("a", received=len(START))
    client.reset()
    location = told.headers["location"]
    await service.becomes("a", writer=False)
    assert await offset_of(service, location) == len(START)
    answer = await service.ask("PATCH", location, REST, ietf(version, complete=True, offset=len(START)))
    assert answer.status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("number", [None, "0", "1", "2", "4", "10", "99", "-9", "nine", "?1", "9.0"])
async def test_there_is_no_104_for_a_version_that_is_not_known(service, number):
    headers = ietf(None, complete=False) | ({} if number is None else {VERSION: number})
    client = await service.connect()
    await client.send(head("POST", "/uploads?key=a", CHUNKED | EXPECT | headers))
    assert await client.interim() == 100
    await client.send(chunk(START) + LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())
    assert VERSION.lower() not in answer.headers


@pytest.mark.usefixtures("often")
async def test_there_is_no_104_where_the_operator_does_not_want_one(start_service, tmp_path):
    service, other = await start_service(no_interim=True), await start_service(data=tmp_path / "other")
    answer = await service.ask("POST", "/uploads?key=a", START, ietf(complete=False))
    assert (answer.status, answer.before) == (201, ())
    client = await slow_append(service, answer.headers["location"], len(START), REST)
    await reports_elsewhere(other)
    await client.send(LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())


async def test_there_is_no_104_for_http_1_0(service):
    answer = await service.ask("PUT", "/objects/a", BODY, ietf(complete=True), version="1.0")
    assert (answer.status, answer.before) == (201, ())


async def test_there_is_no_104_for_a_plain_request_whatever_version_it_names(service):
    answer = await service.ask("PUT", "/objects/a", BODY, {VERSION: "9"})
    assert (answer.status, answer.before) == (201, ())


@pytest.mark.parametrize("headers", [ietf(complete=True, length=5), ietf(complete=False) | {"Upload-Offset": "1"}])
async def test_a_creation_that_is_refused_has_no_104(service, headers):
    assert refused(await service.ask("POST", "/uploads?key=a", b"body", headers), 400).before == ()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported as often as anybody could wish."""
    monkeypatch.setattr("streamup.reports.REPORT_SECONDS", 0.02)
    monkeypatch.setattr("streamup.registry.ANNOUNCE_SECONDS", 0.0)


async def slow_append(
    service: Service, location: str, offset: int, data: bytes, version: int | None = 9, *, complete: bool = True
) -> Client:
    """A connected client that has sent `data` and goes on sending nothing."""
    client = await service.connect()
    await client.send(head("PATCH", location, CHUNKED | ietf(version, complete=complete, offset=offset)) + chunk(data))
    upload = service.uploads.live(location.rpartition("/")[2], ANONYMOUS).upload
    await eventually(lambda: upload.received == offset + len(data))
    return client


async def reports_elsewhere(service: Service) -> None:
    """Time for some reports: another client has had them."""
    location = await created(service, key="elsewhere")
    client = await slow_append(service, location, 0, b"x", complete=False)
    for size in range(1, 4):
        assert (await client.told()).offset == size
        await client.send(chunk(b"x"))
    client.close()


@both_loops
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("version", [5, 6, 7, 8, 9])
async def test_104_tells_a_slow_append_what_is_durable(start_service, tmp_path, version):
    disk, store = Disk(), strict_store()
    gate = store.hold("put_part")  # so that the disk alone has the bytes
    service = await start_service(files=disk, store=store)
    location = await created(service)
    upload_id = location.rpartition("/")[2]
    client = await service.connect()
    await client.send(head("PATCH", location, CHUNKED | ietf(version, complete=True, offset=0)))
    told = 0
    for start, end in pairwise([*range(0, len(BODY), 50_000), len(BODY)]):
        await client.send(chunk(BODY[start:end]))
        while told < end:
            report = await client.told()
            assert (report.status, report.headers[VERSION.lower()]) == (104, str(version))
            assert "location" not in report.headers
            assert told < report.offset <= end
            told = report.offset
            assert (await service.checkpoint.find(upload_id)).upload.offset >= told
    left = disk.after_power_cut(service, tmp_path / "cut")
    restarted = await start_service(data=left, store=strict_store(), boot_id="another boot")
    assert await offset_of(restarted, location) == told == len(BODY)
    gate.release()
    await client.send(LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())
    assert (await client.ask("HEAD", location)).before == ()
    assert service.data("a") == BODY


@pytest.mark.usefixtures("often")
async def test_104_tells_the_progress_of_a_creation_too(service):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | ietf(complete=True)) + chunk(START))
    location = (await client.told()).headers["location"]
    assert (await client.told()).offset == len(START)
    await client.send(chunk(REST))
    while (report := await client.told()).offset < len(BODY):
        assert report.offset > len(START)
    assert await received(service, location) == len(BODY)
    await client.send(LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())


async def received(service: Service, location: str) -> int:
    return (await service.ask("GET", location)).json["received"]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("version", [3, None, 4])
async def test_who_does_not_know_progress_is_told_none(service, version):
    location = await created(service)
    client = await slow_append(service, location, 0, START, version)
    await reports_elsewhere(service)
    await client.send(chunk(REST) + LAST_CHUNK)
    answer = await client.answer()
    assert (answer.status, answer.before) == (201, ())


@pytest.mark.usefixtures("often")
async def test_a_report_that_cannot_be_made_is_none(service, monkeypatch, caplog):
    async def failing(*_: object) -> None:
        raise CheckpointError("the disk is full")

    location = await created(service)
    client = await slow_append(service, location, 0, START)
    monkeypatch.setattr(service.checkpoint, "announce", failing)
    await client.send(chunk(REST))
    answer = await client.answer()
    assert answer.status in {423, 503}, answer
    assert all(report.offset <= len(START) for report in answer.before)
    monkeypatch.undo()
    offset = (await eventually(lambda: open_again(service, location))).offset
    answer = await service.ask("PATCH", location, BODY[offset:], ietf(complete=True, offset=offset))
    assert answer.status == 201
    assert service.data("a") == BODY
    caplog.clear()


async def open_again(service: Service, location: str) -> Answer | None:
    answer = await service.ask("HEAD", location)
    assert answer.status in {204, 423}, answer
    return answer if answer.status == 204 else None


# -- the draft: offset ----------------------------------------------------------------------------------------------


@each_version_and_none
@pytest.mark.parametrize("length", [None, len(BODY)])
async def test_head_tells_the_offset_and_the_limits(service, version, length):
    answer = await service.ask("POST", "/uploads?key=a", START, ietf(version, complete=False, length=length))
    answer = await service.ask("HEAD", answer.headers["location"], None, {} if version is None else {VERSION: version})
    assert (answer.status, answer.offset) == (204, len(START))
    assert answer.headers["upload-complete"] == "?0"
    assert answer.headers.get("upload-incomplete") == ("?1" if version == 3 else None)
    assert answer.headers.get("upload-length") == (None if length is None else str(length))
    lifetime = "expires" if version in {3, 5, 6} else "max-age"
    assert 86_000 < only_member(answer, lifetime) <= 86_400
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get(VERSION.lower()) == (None if version is None else str(version))


async def test_get_tells_the_same_and_the_rest_as_json(service):
    location = await created(service, length=len(BODY))
    await service.ask("PATCH", location, START, ietf(complete=False, offset=0))
    answer = await service.ask("GET", location)
    assert (answer.status, answer.offset, answer.json["offset"]) == (200, len(START), len(START))
    assert answer.headers["upload-complete"] == "?0"
    assert answer.headers["upload-length"] == str(len(BODY))
    assert 86_000 < only_member(answer, "max-age") <= 86_400
    assert answer.headers["cache-control"] == "no-store"


async def test_get_of_a_complete_upload_says_so(service):
    location = await created(service)
    await service.ask("PATCH", location, BODY, ietf(complete=True, offset=0))
    answer = await service.ask("GET", location)
    assert (answer.offset, answer.headers["upload-complete"]) == (len(BODY), "?1")


@each_version_and_none
async def test_head_of_a_complete_upload_says_so(service, version):
    location = await created(service)
    await service.ask("PATCH", location, BODY, ietf(version, complete=True, offset=0))
    answer = await service.ask("HEAD", location, None, {} if version is None else {VERSION: version})
    assert (answer.status, answer.offset, answer.headers["upload-complete"]) == (200, len(BODY), "?1")
    assert answer.headers["upload-length"] == str(len(BODY))


async def test_the_length_is_known_where_a_body_that_is_all_has_one(service):
    client = await service.connect()
    await client.send(head("POST", "/uploads?key=a", {"Content-Length": str(len(BODY))} | ietf(complete=True)) + START)
    location = (await client.told()).headers["location"]
    await service.becomes("a", received=len(START))
    client.close()
    await service.becomes("a", writer=False)
    assert (await service.ask("HEAD", location)).headers["upload-length"] == str(len(BODY))


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
@pytest.mark.parametrize("headers", [{"Upload-Offset": "0"}, {"Upload-Complete": "?0"}])
async def test_a_question_that_brings_its_answer_is_refused_and_stops_nobody(service, method, headers):
    _, upload_id = await service.begin()
    assert (await service.ask(method, f"/uploads/{upload_id}", None, headers)).status == 400
    assert await service.document("a", writer=True, state="open")


@pytest.mark.parametrize("limit", [None, 12345])
@pytest.mark.parametrize("target", ["/objects/a", "/uploads", "/uploads/unknown"])
async def test_options_tells_what_there_is(start_service, target, limit):
    service = await start_service(max_upload_bytes=limit)
    answer = await service.ask("OPTIONS", target)
    assert answer.status == 204
    assert only_member(answer, "min-size") == 0
    assert only_member(answer, "max-age") == 86_400
    assert ("max-size" in answer.headers["upload-limit"]) == (limit is not None)
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert {"creation", "expiration", "checksum", "termination"} <= set(answer.headers["tus-extension"].split(","))
    assert answer.headers["tus-checksum-algorithm"].split(",")[0] == "sha1"
    assert answer.headers.get("tus-max-size") == (None if limit is None else str(limit))
    assert answer.headers["accept-patch"] == PARTIAL
    assert not service.store.calls


# -- the draft: append ----------------------------------------------------------------------------------------------


@each_version_and_none
async def test_appends_of_any_size_make_one_object(service, version):
    location = await created(service)
    client = await service.connect()
    for start, end in pairwise([0, 1, 1000, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, len(BODY)]):
        headers = ietf(version, complete=False, offset=start)
        answer = await client.ask("PATCH", location, BODY[start:end], headers)
        assert (answer.status, answer.offset) == (201 if version in {3, 5, 6} else 204, end)
        assert answer.headers["upload-complete"] == "?0"
        assert "location" not in answer.headers
    answer = await client.ask("PATCH", location, b"", ietf(version, complete=True, offset=len(BODY)))
    assert (answer.status, answer.offset, answer.headers["upload-complete"]) == (201, len(BODY), "?1")
    assert service.data("a") == BODY


@each_version_and_none
@pytest.mark.parametrize("media_type", ["application/octet-stream", "text/plain", None])
async def test_the_bytes_of_a_patch_have_the_drafts_content_type(service, version, media_type):
    location = await created(service)
    headers = ietf(version, complete=True, offset=0)
    del headers["Content-Type"]
    answer = await service.ask("PATCH", location, b"x", headers | ({"Content-Type": media_type} if media_type else {}))
    if version in {3, 5} or (version is None and media_type is None):
        assert answer.status == 201
    else:
        refused(answer, 415)
        assert await offset_of(service, location) == 0


async def test_a_content_type_with_parameters_is_the_same_one(service):
    location = await created(service)
    headers = ietf(complete=True, offset=0) | {"Content-Type": f"{PARTIAL.upper()}; a=b"}
    assert (await service.ask("PATCH", location, b"x", headers)).status == 201


@each_version_and_none
@pytest.mark.parametrize("wrong", [0, len(START) - 1, len(START) + 1, 10**15 - 1])
async def test_an_append_at_another_place_is_told_the_right_one(service, version, wrong):
    location = await created(service)
    await service.ask("PATCH", location, START, ietf(version, complete=False, offset=0))
    answer = await service.ask("PATCH", location, b"x", ietf(version, complete=True, offset=wrong))
    refused(answer, 409, expected_offset=len(START), provided_offset=wrong)
    assert answer.json["type"] == PROBLEMS + "mismatching-upload-offset"
    assert (answer.offset, answer.headers["upload-complete"]) == (len(START), "?0")
    answer = await service.ask("PATCH", location, REST, ietf(version, complete=True, offset=len(START)))
    assert answer.status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("headers", [{}, {"Upload-Offset": "0"}, {"Upload-Complete": "?1"}, {"Upload-Offset": "?0"}])
async def test_an_append_that_lacks_a_field_is_refused_and_stops_nobody(service, headers):
    _, upload_id = await service.begin()
    headers |= {VERSION: "9", "Content-Type": PARTIAL}
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", headers), 400)
    assert await service.document("a", writer=True)


@pytest.mark.parametrize("name", ["Upload-Offset", "Upload-Length"])
@pytest.mark.parametrize("value", ["-1", "9" * 16])
async def test_a_number_out_of_range_is_refused_and_stops_nobody(service, name, value):
    _, upload_id = await service.begin()
    headers = ietf(complete=False, offset=len(START)) | {name: value}
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", headers), 400)
    assert await service.document("a", writer=True)


# -- the draft: lengths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("complete", "length"), [(True, len(START) - 1), (True, len(START) + 1), (False, len(START) - 1)]
)
async def test_a_creation_whose_lengths_contradict_each_other_is_refused(service, complete, length):
    answer = await service.ask("POST", "/uploads?key=a", START, ietf(complete=complete, length=length))
    assert refused(answer, 400).json["type"] == PROBLEMS + "inconsistent-upload-length"
    assert await service.document("a") is None


@pytest.mark.parametrize(
    ("complete", "length", "data"),
    [
        (False, len(BODY) - 1, REST[:9]),
        (True, len(BODY) + 1, REST),
        (True, None, REST[:-1]),
        (True, None, REST + b"!"),
        (True, len(BODY), REST[:-1]),
    ],
    ids=["another", "another at the end", "too short", "too long", "too short for itself"],
)
async def test_an_append_whose_lengths_contradict_each_other_is_refused(service, complete, length, data):
    location = await created(service, length=len(BODY))
    await service.ask("PATCH", location, START, ietf(complete=False, offset=0))
    answer = await service.ask("PATCH", location, data, ietf(complete=complete, offset=len(START), length=length))
    assert refused(answer, 400).json["type"] == PROBLEMS + "inconsistent-upload-length"
    assert not service.store.objects
    if length is not None or data == REST[:-1]:
        offset = await offset_of(service, location)
        answer = await service.ask("PATCH", location, BODY[offset:], ietf(complete=True, offset=offset))
        assert answer.status == 201
        assert service.data("a") == BODY


async def test_the_length_may_come_late_and_then_stays(service):
    location = await created(service)
    answer = await service.ask("PATCH", location, START, ietf(complete=False, offset=0, length=len(BODY)))
    assert answer.status == 204
    assert (await service.ask("HEAD", location)).headers["upload-length"] == str(len(BODY))
    answer = await service.ask("PATCH", location, b"x", ietf(complete=False, offset=len(START), length=len(BODY) + 1))
    refused(answer, 400)
    answer = await service.ask("PATCH", location, REST, ietf(complete=True, offset=len(START)))
    assert answer.status == 201


@each_version_and_none
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_bytes_beyond_the_length_are_refused_and_end_the_upload(service, framing, version):
    location = await created(service, length=len(BODY))
    await service.ask("PATCH", location, START, ietf(version, complete=False, offset=0))
    body = {"chunks": [REST, b"!"]} if framing == "chunked" else {"body": REST + b"!"}
    answer = await service.ask("PATCH", location, headers=ietf(version, complete=False, offset=len(START)), **body)
    assert refused(answer, 400).json["type"] == PROBLEMS + "inconsistent-upload-length"
    for method in ("HEAD", "DELETE"):
        assert (await service.ask(method, location)).status == 410
    refused(await service.ask("PATCH", location, b"", ietf(version, complete=True, offset=len(BODY))), 410)
    assert not service.store.objects
    assert not service.spooled()
    await eventually(lambda: not service.store.multiparts)


@each_protocol
async def test_more_than_an_upload_may_have_is_refused_with_the_limit(start_service, protocol):
    service = await start_service(max_upload_bytes=1000)
    creation = ietf(complete=False, length=1001) if protocol == "ietf" else TUS | {"Upload-Length": "1001"}
    answers = [await service.ask("POST", "/uploads?key=a", b"", creation)]
    if protocol == "ietf":
        answers.append(await service.ask("POST", "/uploads?key=a", b"x" * 1001, ietf(complete=False)))
    assert await service.document("a") is None
    location = await created(service, protocol)
    chunks = [b"x" * 600, b"x" * 401]
    answers.append(await service.ask("PATCH", location, headers=appending(protocol, 0), chunks=chunks))
    for answer in answers:
        assert only_member(refused(answer, 413, limit=1000), "max-size") == 1000
    offset = await offset_of(service, location)
    assert offset <= 1000
    rest = b"x" * (1000 - offset)
    answer = await service.ask("PATCH", location, rest, appending(protocol, offset, complete=True, length=1000))
    assert answer.status in {201, 204}
    assert service.data("a") == b"x" * 1000


# -- cancellation, and what is not there ----------------------------------------------------------------------------


@both_loops
@each_protocol
async def test_an_upload_is_cancelled_and_stays_so(service, protocol):
    location = await created(service, protocol)
    client = await service.connect()
    await client.send(head("PATCH", location, CHUNKED | appending(protocol, 0)) + chunk(START))
    await service.becomes("a", received=len(START))
    answer = await service.ask("DELETE", location, None, ASKING[protocol])
    assert (answer.status, answer.body) == (204, b"")
    assert (await client.answer()).status in {409, 410}
    await client.ended()
    for _ in range(2):
        for method in ("HEAD", "DELETE"):
            answer = await service.ask(method, location, None, ASKING[protocol])
            assert (answer.status, answer.headers.get("upload-offset")) == (410, None)
        refused(await service.ask("PATCH", location, REST, appending(protocol, len(START))), 410)
    assert (await service.ask("GET", location)).json["state"] == "cancelled"
    assert not service.spooled()
    await eventually(lambda: not service.store.multiparts)


@each_protocol
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
async def test_what_was_never_created_is_not_found(service, protocol, method):
    headers = appending(protocol, 0) if method == "PATCH" else ASKING[protocol]
    answer = await service.ask(method, "/uploads/unknown", b"x" if method == "PATCH" else None, headers)
    assert (answer.status, answer.headers.get("upload-offset")) == (404, None)


@each_protocol
async def test_what_has_expired_is_gone(start_service, protocol):
    service = await start_service(expire_seconds=0.2)
    location = await created(service, protocol)
    await service.becomes("a", state="expired")
    answer = await service.ask("HEAD", location, None, ASKING[protocol])
    assert (answer.status, answer.headers.get("upload-offset")) == (410, None)
    refused(await service.ask("PATCH", location, b"x", appending(protocol, 0)), 410)


# -- once more, because an answer was lost --------------------------------------------------------------------------


@both_loops
@each_version_and_none
@pytest.mark.parametrize("data", [REST, b""], ids=["with bytes", "empty"])
async def test_the_last_append_may_be_repeated(service, data, version):
    location = await created(service)
    offset = len(BODY) - len(data)
    await service.ask("PATCH", location, BODY[:offset], ietf(version, complete=False, offset=0))
    answers = [
        await service.ask("PATCH", location, data, ietf(version, complete=True, offset=offset)) for _ in range(3)
    ]
    assert [answer.status for answer in answers] == [201] * 3
    assert answers[0].json == answers[1].json == answers[2].json
    assert {answer.headers["upload-complete"] for answer in answers} == {"?1"}
    assert {answer.headers["etag"] for answer in answers} == {service.store.objects["a"].etag}
    assert service.store.calls["complete_multipart"] == 1


@each_version_and_none
@pytest.mark.parametrize(
    ("offset", "data", "complete"),
    [(len(BODY), b"x", False), (len(BODY), b"x", True), (0, b"x", True), (len(START), REST, False), (0, b"", True)],
)
async def test_another_append_to_a_complete_upload_is_refused(service, version, offset, data, complete):
    location = await created(service)
    await service.ask("PATCH", location, BODY, ietf(version, complete=True, offset=0))
    answer = await service.ask("PATCH", location, data, ietf(version, complete=complete, offset=offset))
    refused(answer, 400 if version in {6, 7, 8} else 409)
    assert answer.headers["upload-complete"] == "?1"
    assert (answer.json["type"] == PROBLEMS + "completed-upload") == (version in {6, 7, 8})
    assert service.data("a") == BODY


async def test_an_upload_in_one_request_may_be_finished_again(service):
    client = await service.connect()
    await client.start("POST", "/uploads?key=a", BODY, ietf(complete=True))
    location = (await client.told()).headers["location"]
    first = await client.answer()
    again = await service.ask("PATCH", location, b"", ietf(complete=True, offset=len(BODY)))
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json


async def test_the_last_tus_append_may_be_repeated(service):
    location = await created(service, "tus", length=len(BODY))
    assert (await service.ask("PATCH", location, BODY, tus(0))).status == 204
    for _ in range(2):
        answer = await service.ask("PATCH", location, b"", tus(len(BODY)))
        assert (answer.status, answer.offset) == (204, len(BODY))
    refused(await service.ask("PATCH", location, b"x", tus(len(BODY))), 409)
    refused(await service.ask("PATCH", location, REST, tus(0)), 409)
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.status, answer.offset, answer.headers["upload-length"]) == (200, len(BODY), str(len(BODY)))
    assert service.data("a") == BODY


async def late(start_service: StartService, seconds: float = 0.2):
    """A service whose store completes nothing, and the gate that holds it."""
    service = await start_service(store_timeout_seconds=seconds)
    return service, service.store.hold("complete_multipart")


async def test_tus_hears_of_no_end_before_the_object_is_there(start_service):
    service, gate = await late(start_service)
    location = await created(service, "tus", length=len(BODY))
    answers = [
        await service.ask("PATCH", location, BODY, tus(0)),
        await service.ask("PATCH", location, b"", tus(len(BODY))),
        await service.ask("PATCH", location, b"", tus(0)),
        await service.ask("HEAD", location, None, TUS),
    ]
    for answer in answers:
        assert answer.status == 423
        assert "retry-after" in answer.headers
        assert "upload-offset" not in answer.headers
    gate.release()
    answer = await eventually(lambda: answered(service, location, 200))
    assert answer.offset == len(BODY)
    assert (await service.ask("PATCH", location, b"", tus(len(BODY)))).status == 204
    assert service.data("a") == BODY


@each_protocol
@pytest.mark.parametrize("how", ["ietf", "range"])
async def test_tus_hears_of_no_end_that_nobody_has_sealed(service, protocol, how):
    """Its length was declared, and its last byte came from a client that did not say that this was all."""
    location = await created(service, protocol, length=len(BODY))
    if how == "ietf":
        answer = await service.ask("PATCH", location, BODY, ietf(complete=False, offset=0))
    else:
        answer = await service.ask("PUT", "/objects/a", BODY, place(0, "*", len(BODY) - 1))
    assert answer.status in {201, 204, 308}
    answer = await service.ask("HEAD", location, None, TUS)
    if answer.headers.get("upload-offset") == str(len(BODY)):
        assert service.data("a") == BODY
    else:
        assert answer.status == 423


async def answered(service: Service, location: str, status: int) -> Answer | None:
    answer = await service.ask("HEAD", location, None, TUS)
    assert answer.status in {status, 423}, answer
    return answer if answer.status == status else None


async def test_a_tus_creation_whose_object_is_late_tells_no_offset(start_service):
    service, gate = await late(start_service)
    answer = await service.ask("POST", "/uploads?key=a", BODY, TUS | OCTETS | {"Upload-Length": str(len(BODY))})
    assert (answer.status, answer.headers.get("upload-offset")) == (201, None)
    location = answer.headers["location"]
    assert (await service.ask("HEAD", location, None, TUS)).status == 423
    gate.release()
    assert (await eventually(lambda: answered(service, location, 200))).offset == len(BODY)


@each_version_and_none
async def test_an_end_that_the_store_has_not_confirmed(start_service, version):
    service, gate = await late(start_service)
    location = await created(service)
    asking = {} if version is None else {VERSION: str(version)}
    answers = [
        await service.ask("PATCH", location, BODY, ietf(version, complete=True, offset=0)),
        await service.ask("PATCH", location, b"", ietf(version, complete=True, offset=len(BODY))),
        await service.ask("HEAD", location, None, asking),
    ]
    for answer in answers:
        if version in {3, 5, 6}:
            assert (answer.status, answer.headers.get("upload-offset")) == (423, None)
            assert "retry-after" in answer.headers
        else:
            assert (answer.status, answer.offset, answer.headers["upload-complete"]) == (202, len(BODY), "?0")
    gate.release()
    await service.becomes("a", state="complete")
    answer = await service.ask("HEAD", location, None, asking)
    assert (answer.status, answer.headers["upload-complete"]) == (200, "?1")


@each_version_and_none
async def test_a_creation_that_the_store_has_not_confirmed(start_service, version):
    service, gate = await late(start_service)
    answer = await service.ask("POST", "/uploads?key=a", BODY, ietf(version, complete=True))
    assert (answer.status, answer.headers["upload-complete"]) == (202, "?0")
    assert ("upload-offset" in answer.headers) == (version not in {3, 5, 6})
    assert answer.headers["location"].startswith("/uploads/")
    gate.release()
    await service.becomes("a", state="complete")


@both_loops
@each_protocol
async def test_an_empty_last_append_joins_the_wait_for_the_store(start_service, protocol):
    service, gate = await late(start_service, PATIENCE_SECONDS)
    location = await created(service, protocol)
    last = appending(protocol, 0, complete=True, length=len(BODY))
    first = asyncio.create_task(service.ask("PATCH", location, BODY, last))
    await gate.reached()
    again = appending(protocol, len(BODY), complete=True, length=len(BODY))
    waiting = [first, asyncio.create_task(service.ask("PATCH", location, b"", again))]
    waiting.append(asyncio.create_task(service.ask("HEAD", location, None, ASKING[protocol])))
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not done
    gate.release()
    answers = [await one for one in waiting]
    assert [answer.status for answer in answers] == ([201, 201, 200] if protocol == "ietf" else [204, 204, 200])
    assert {answer.offset for answer in answers} == {len(BODY)}


async def test_who_prefers_not_to_wait_does_not(start_service):
    service, gate = await late(start_service, PATIENCE_SECONDS)
    answer = await service.ask("POST", "/uploads?key=a", BODY, ietf(complete=True) | {"Prefer": "respond-async"})
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
    gate.release()
    await service.becomes("a", state="complete")


# -- tus: creation --------------------------------------------------------------------------------------------------


def expires(answer: Answer) -> float:
    """`Upload-Expires`, in seconds from now."""
    return parsedate_to_datetime(answer.headers["upload-expires"]).timestamp() - time.time()


@both_loops
async def test_a_tus_upload(service):
    headers = TUS | {"Upload-Length": str(len(BODY))}
    answer = await service.ask("POST", "/uploads?key=a", b"", headers)
    assert (answer.status, answer.headers["tus-resumable"]) == (201, "1.0.0")
    assert 86_000 < expires(answer) <= 86_400
    location = answer.headers["location"]
    client = await service.connect()
    for start, end in pairwise([0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, len(BODY)]):
        answer = await client.ask("HEAD", location, None, TUS)
        assert (answer.status, answer.offset) == (200, start)
        assert answer.headers["upload-length"] == str(len(BODY))
        assert answer.headers["cache-control"] == "no-store"
        assert "upload-defer-length" not in answer.headers
        answer = await client.ask("PATCH", location, BODY[start:end], tus(start))
        assert (answer.status, answer.offset, answer.body) == (204, end, b"")
        assert answer.headers["tus-resumable"] == "1.0.0"
        if end < len(BODY):
            assert 86_000 < expires(answer) <= 86_400
    assert service.data("a") == BODY
    answer = await client.ask("HEAD", location, None, TUS)
    assert (answer.status, answer.offset) == (200, len(BODY))


@pytest.mark.parametrize("size", [1, len(START), len(BODY)])
async def test_a_tus_creation_with_its_first_bytes(service, size):
    headers = TUS | OCTETS | {"Upload-Length": str(len(BODY))}
    answer = await service.ask("POST", "/uploads?key=a", BODY[:size], headers)
    assert (answer.status, answer.offset) == (201, size)
    if size < len(BODY):
        answer = await service.ask("PATCH", answer.headers["location"], BODY[size:], tus(size))
        assert answer.status == 204
    assert service.data("a") == BODY


async def test_a_tus_creation_with_bytes_in_chunks(service):
    headers = TUS | OCTETS | {"Upload-Length": str(len(BODY))}
    answer = await service.ask("POST", "/uploads?key=a", headers=headers, chunks=[START, REST])
    assert (answer.status, answer.offset) == (201, len(BODY))
    assert service.data("a") == BODY


async def test_a_tus_creation_that_is_interrupted_is_kept(service):
    client = await service.connect()
    headers = TUS | OCTETS | {"Upload-Length": str(len(BODY)), "Content-Length": str(len(BODY))}
    await client.send(head("POST", "/uploads?key=a", headers) + START)
    await service.becomes("a", received=len(START))
    client.close()
    found = await service.becomes("a", writer=False, offset=len(START))
    answer = await service.ask("PATCH", f"/uploads/{found['id']}", REST, tus(len(START)))
    assert answer.status == 204
    assert service.data("a") == BODY


async def test_a_tus_creation_on_an_object_is_for_that_key(service):
    answer = await service.ask("POST", "/objects/dir/a", b"", TUS | {"Upload-Length": "4"})
    assert answer.status == 201
    location = answer.headers["location"]
    refused(await service.ask("POST", "/objects/dir/a", b"", TUS | {"Upload-Length": "4"}), 409)
    assert (await service.ask("PATCH", location, b"body", tus(0))).status == 204
    assert service.data("dir/a") == b"body"


@pytest.mark.parametrize("headers", [{}, OCTETS])
async def test_a_tus_upload_of_no_bytes_is_complete_at_once(service, headers):
    answer = await service.ask("POST", "/uploads?key=a", b"", TUS | headers | {"Upload-Length": "0"})
    assert (answer.status, answer.offset) == (201, 0)
    assert service.data("a") == b""
    answer = await service.ask("HEAD", answer.headers["location"], None, TUS)
    assert (answer.status, answer.offset, answer.headers["upload-length"]) == (200, 0, "0")


async def test_a_tus_upload_that_fits_into_one_part_is_put_in_one_request(service):
    location = await created(service, "tus", length=9)
    for start in range(0, 9, 3):
        assert (await service.ask("PATCH", location, BODY[start : start + 3], tus(start))).status == 204
    assert (service.store.calls["put_object"], service.store.calls["create_multipart"]) == (1, 0)
    assert service.data("a") == BODY[:9]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": "5", "Upload-Defer-Length": "1"},
        {"Upload-Defer-Length": "0"},
        {"Upload-Defer-Length": "2"},
        {"Upload-Length": "-1"},
        {"Upload-Length": "+5"},
        {"Upload-Length": "five"},
        {"Upload-Length": "5.0"},
        {"Upload-Length": ""},
        {"Upload-Length": "9" * 16},
        {"Upload-Length": "5", "Upload-Metadata": "a !"},
        {"Upload-Length": "5", "Upload-Metadata": "a YQ==,a YQ=="},
        {"Upload-Length": "5", "Upload-Metadata": "a YQ==,,b YQ=="},
        {"Upload-Length": "5", "Upload-Concat": "partial"},
    ],
)
async def test_a_tus_creation_that_contradicts_the_protocol_is_refused(service, headers):
    answer = refused(await service.ask("POST", "/uploads?key=a", b"", TUS | headers), 400)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert (await service.ask("GET", "/uploads")).json["uploads"] == []


async def test_a_tus_creation_with_more_bytes_than_its_length_is_refused(service):
    headers = TUS | OCTETS | {"Upload-Length": "4"}
    refused(await service.ask("POST", "/uploads?key=a", b"bytes", headers), 400)
    assert await service.document("a") is None


async def test_a_tus_creation_whose_body_has_another_content_type_is_refused(service):
    headers = TUS | {"Upload-Length": "4", "Content-Type": "text/plain"}
    refused(await service.ask("POST", "/uploads?key=a", b"body", headers), 415)
    assert await service.document("a") is None


# -- tus: a length that is told later -------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("data", [REST, b""], ids=["with bytes", "empty"])
async def test_the_length_of_a_tus_upload_may_come_with_a_later_append(service, data):
    location = await created(service, "tus")
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.status, answer.offset, answer.headers["upload-defer-length"]) == (200, 0, "1")
    assert "upload-length" not in answer.headers
    offset = len(BODY) - len(data)
    for start, end in pairwise([0, offset // 3, offset]):
        assert (await service.ask("PATCH", location, BODY[start:end], tus(start))).status == 204
    assert not service.store.objects
    answer = await service.ask("PATCH", location, data, tus(offset, length=len(BODY)))
    assert (answer.status, answer.offset) == (204, len(BODY))
    assert service.data("a") == BODY
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.headers["upload-length"], answer.headers.get("upload-defer-length")) == (str(len(BODY)), None)


async def test_the_length_of_a_tus_upload_may_come_before_its_end(service):
    location = await created(service, "tus")
    assert (await service.ask("PATCH", location, START, tus(0, length=len(BODY)))).status == 204
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.offset, answer.headers["upload-length"]) == (len(START), str(len(BODY)))
    assert (await service.ask("PATCH", location, REST, tus(len(START)))).status == 204
    assert service.data("a") == BODY


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("length", [len(START) - 1, len(BODY) + 1, 0])
async def test_the_length_of_a_tus_upload_never_changes(service, length, known):
    location = await created(service, "tus", length=len(BODY) if known else None)
    await service.ask("PATCH", location, START, tus(0, length=None if known else len(BODY)))
    refused(await service.ask("PATCH", location, b"", tus(len(START), length=length)), 400)
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.offset, answer.headers["upload-length"]) == (len(START), str(len(BODY)))
    assert (await service.ask("PATCH", location, REST, tus(len(START), length=len(BODY)))).status == 204
    assert service.data("a") == BODY


async def test_a_length_below_what_has_come_is_refused(service):
    location = await created(service, "tus")
    await service.ask("PATCH", location, START, tus(0))
    refused(await service.ask("PATCH", location, b"", tus(len(START), length=len(START) - 1)), 400)
    assert (await service.ask("PATCH", location, REST, tus(len(START), length=len(BODY)))).status == 204
    assert service.data("a") == BODY


# -- tus: appends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, len(START) - 1, len(START) + 1])
async def test_a_tus_append_at_another_place_is_told_the_right_one(service, wrong):
    location = await created(service, "tus", length=len(BODY))
    await service.ask("PATCH", location, START, tus(0))
    answer = refused(await service.ask("PATCH", location, b"x", tus(wrong)), 409, expected_offset=len(START))
    assert answer.offset == len(START)
    assert (await service.ask("PATCH", location, REST, tus(len(START)))).status == 204
    assert service.data("a") == BODY


async def test_an_interrupted_tus_append_is_kept(service):
    location = await created(service, "tus", length=len(BODY))
    client = await service.connect()
    await client.send(head("PATCH", location, {"Content-Length": str(len(BODY))} | tus(0)) + START)
    await service.becomes("a", received=len(START))
    client.reset()
    await service.becomes("a", writer=False)
    assert (await service.ask("HEAD", location, None, TUS)).offset == len(START)
    assert (await service.ask("PATCH", location, REST, tus(len(START)))).status == 204
    assert service.data("a") == BODY


async def test_a_tus_append_that_ends_beyond_the_length_is_refused_before_its_body(service):
    location = await created(service, "tus", length=len(BODY))
    await service.ask("PATCH", location, START, tus(0))
    client = await service.connect()
    headers = tus(len(START)) | EXPECT | {"Content-Length": str(len(REST) + 1)}
    await client.send(head("PATCH", location, headers))
    answer = await client.answer()
    assert (answer.status in {400, 413}, answer.before) == (True, ())
    assert (await service.ask("PATCH", location, REST, tus(len(START)))).status == 204
    assert service.data("a") == BODY


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/octet-stream"}, 415),
        ({"Content-Type": PARTIAL}, 415),
        ({"Content-Type": ""}, 415),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "one"}, 400),
        ({"Upload-Offset": ""}, 400),
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Tus-Resumable": "1.0"}, 412),
    ],
)
async def test_a_tus_append_that_contradicts_the_protocol_is_refused_and_stops_nobody(service, headers, status):
    _, upload_id = await service.begin()
    answer = refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", tus(len(START)) | headers), status)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers.get("tus-version") == ("1.0.0" if status == 412 else None)
    assert await service.document("a", writer=True, received=len(START))


async def test_a_tus_append_names_its_place(service):
    location = await created(service, "tus", length=4)
    refused(await service.ask("PATCH", location, b"body", TUS | OCTETS), 400)
    assert await offset_of(service, location) == 0


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
async def test_another_version_of_tus_is_refused_everywhere_and_stops_nobody(service, method):
    _, upload_id = await service.begin()
    headers = tus(len(START)) | {"Tus-Resumable": "2.0.0"}
    body = b"x" if method == "PATCH" else None
    answer = await service.ask(method, f"/uploads/{upload_id}", body, headers if body else {"Tus-Resumable": "2.0.0"})
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")
    assert await service.document("a", writer=True, state="open")


@pytest.mark.parametrize(
    ("method", "headers"),
    [("POST", {"Upload-Length": "4"}), ("POST", DEFERRED), ("PATCH", OCTETS | {"Upload-Offset": "0"})],
)
async def test_a_tus_client_that_forgot_its_version_is_told(service, method, headers):
    location = await created(service, "tus", key="b", length=4)
    target = "/uploads?key=a" if method == "POST" else location
    answer = refused(await service.ask(method, target, b"" if method == "POST" else b"body", headers), 412)
    assert answer.headers["tus-version"] == "1.0.0"
    assert await service.document("a") is None
    assert await offset_of(service, location) == 0


# -- tus: metadata and keys -----------------------------------------------------------------------------------------


async def test_metadata_is_told_again_as_it_came_and_stored_as_s3_can(service):
    pairs = {"filename": "Überblick 1.mp4", "filetype": "video/mp4", "camera": "2", "Empty": "", "percent": "100%"}
    headers = TUS | {"Upload-Length": "4"} | metadata(pairs)
    assert headers["Upload-Metadata"].split(",")[3] == "Empty"
    answer = await service.ask("POST", "/uploads?key=a", b"", headers)
    location = answer.headers["location"]
    told = (await service.ask("HEAD", location, None, TUS)).headers["upload-metadata"]
    assert told == headers["Upload-Metadata"]
    assert (await service.ask("PATCH", location, b"body", tus(0))).status == 204
    assert (await service.ask("HEAD", location, None, TUS)).headers["upload-metadata"] == told
    meta = service.store.objects["a"].meta
    assert meta.content_type == "video/mp4"
    assert meta.user == {"filename": "%C3%9Cberblick 1.mp4", "camera": "2", "empty": "", "percent": "100%25"}


async def test_metadata_survives_a_restart(start_service):
    service = await start_service()
    headers = TUS | {"Upload-Length": "4"} | metadata({"name": "film", "flag": ""})
    location = (await service.ask("POST", "/uploads?key=a", b"", headers)).headers["location"]
    await service.stop()
    service = await start_service(store=service.store)
    answer = await service.ask("HEAD", location, None, TUS)
    assert answer.headers["upload-metadata"] == headers["Upload-Metadata"]
    assert answer.headers["upload-length"] == "4"


@pytest.mark.parametrize(
    "pairs", [{"streamup-token": "mine"}, {"Streamup-Token": "mine"}, {"big": "x" * 2100}, {"filetype": "text/\x01"}]
)
async def test_metadata_that_cannot_be_stored_is_refused(service, pairs):
    refused(await service.ask("POST", "/uploads?key=a", b"", TUS | {"Upload-Length": "4"} | metadata(pairs)), 400)
    assert await service.document("a") is None


@pytest.mark.parametrize(
    ("query", "pairs", "key"),
    [
        ("?key=dir/a%20b", {}, "dir/a b"),
        ("", {"key": "dir/été"}, "dir/été"),
        ("?key=first", {"key": "second", "filename": "third"}, "first"),
        ("", {"filename": "film.mp4"}, "{id}/film.mp4"),
        ("", {"name": "film.mp4"}, "{id}/film.mp4"),
        ("", {"filename": "../../etc/passwd"}, "{id}/passwd"),
        ("", {"filename": "C:\\films\\a.mp4"}, "{id}/a.mp4"),
        ("", {}, "{id}/unnamed"),
    ],
)
async def test_the_key_of_a_tus_upload(service, query, pairs, key):
    headers = TUS | OCTETS | {"Upload-Length": "4"} | (metadata(pairs) if pairs else {})
    answer = await service.ask("POST", f"/uploads{query}", b"body", headers)
    assert answer.status == 201
    upload_id = answer.headers["location"].rpartition("/")[2]
    assert service.data(key.replace("{id}", upload_id)) == b"body"


@each_protocol
async def test_the_operator_decides_how_keys_are_made(start_service, protocol):
    service = await start_service(key_template="incoming/{id}-{filename}")
    if protocol == "ietf":
        headers = ietf(complete=True) | {"Content-Disposition": "attachment; filename*=UTF-8''%C3%A9t%C3%A9.mp4"}
    else:
        headers = TUS | OCTETS | {"Upload-Length": "4"} | metadata({"filename": "été.mp4"})
    assert (await service.ask("POST", "/uploads", b"body", headers)).status == 201
    (found,) = (await service.ask("GET", "/uploads")).json["uploads"]
    assert found["key"] == f"incoming/{found['id']}-été.mp4"
    assert service.data(found["key"]) == b"body"


@pytest.mark.parametrize("key", ["../a", "a//b", "/a", "a\\b", "a\0b", ".", "k" * 1025, "\ud800"])
async def test_a_key_in_the_metadata_that_is_not_safe_is_refused(service, key):
    encoded = base64.b64encode(key.encode(errors="surrogatepass")).decode()
    headers = TUS | OCTETS | {"Upload-Length": "4", "Upload-Metadata": f"key {encoded}"}
    refused(await service.ask("POST", "/uploads", b"body", headers), 400)
    assert not service.store.objects


# -- checksums ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "crc32"])
@pytest.mark.parametrize("size", [1, PART_BYTES, len(START), len(BODY)])
async def test_an_append_whose_checksum_is_right_counts(service, algorithm, size):
    location = await created(service, "tus", length=len(BODY))
    answer = await service.ask("PATCH", location, BODY[:size], tus(0) | checksum(algorithm, BODY[:size]))
    assert (answer.status, answer.offset) == (204, size)
    if size < len(BODY):
        answer = await service.ask("PATCH", location, BODY[size:], tus(size) | checksum(algorithm, BODY[size:]))
        assert (answer.status, answer.offset) == (204, len(BODY))
    assert service.data("a") == BODY


@both_loops
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "crc32"])
@pytest.mark.parametrize("start", [0, 1, PART_BYTES - 1, PART_BYTES, len(START)])
async def test_an_append_whose_checksum_is_wrong_changes_nothing(service, algorithm, start):
    location = await created(service, "tus", length=len(BODY))
    if start:
        assert (await service.ask("PATCH", location, BODY[:start], tus(0))).status == 204
    for end in (start + 1, len(BODY)):
        wrong = b"?" * (end - start)
        headers = tus(start) | checksum(algorithm, BODY[start:end])
        answer = refused(await service.ask("PATCH", location, wrong, headers), 460)
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert await offset_of(service, location) == start
        assert not service.store.objects
    headers = tus(start) | checksum(algorithm, BODY[start:])
    assert (await service.ask("PATCH", location, BODY[start:], headers)).status == 204
    assert service.data("a") == BODY


async def test_an_empty_append_whose_checksum_is_wrong_seals_nothing(service):
    location = await created(service, length=len(BODY))
    await service.ask("PATCH", location, BODY, ietf(complete=False, offset=0))
    refused(await service.ask("PATCH", location, b"", tus(len(BODY)) | checksum("sha1", b"x")), 460)
    assert await service.document("a", state="open", offset=len(BODY))
    assert (await service.ask("PATCH", location, b"", tus(len(BODY)) | checksum("sha1", b""))).status == 204
    assert service.data("a") == BODY


async def test_a_creation_whose_checksum_is_wrong_makes_no_object(service):
    headers = TUS | OCTETS | {"Upload-Length": "4"} | checksum("sha1", b"body")
    refused(await service.ask("POST", "/uploads?key=a", b"evil", headers), 460)
    assert not service.store.objects
    assert (await service.ask("POST", "/uploads?key=a", b"body", headers)).status == 201
    assert service.data("a") == b"body"


@pytest.mark.parametrize("value", ["md5 rL0Y20zC+Fzt72VPzMSk2A==", "", "SHA1 YQ==", "sha512 YQ=="])
async def test_a_checksum_that_cannot_be_verified_is_refused_and_stops_nobody(service, value):
    _, upload_id = await service.begin()
    headers = tus(len(START)) | {"Upload-Checksum": value}
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", headers), 400)
    assert await service.document("a", writer=True)


@pytest.mark.parametrize("value", ["sha1", "sha1 YQ==", "crc32 " + "YWFh" * 20])
async def test_a_checksum_that_is_none_matches_nothing(service, value):
    location = await created(service, "tus", length=4)
    refused(await service.ask("PATCH", location, b"body", tus(0) | {"Upload-Checksum": value}), 460)
    assert await offset_of(service, location) == 0
    assert not service.store.objects


@both_loops
@pytest.mark.parametrize("start", [0, PART_BYTES, len(START)])
async def test_an_append_whose_content_digest_is_wrong_changes_nothing(service, start):
    location = await created(service)
    if start:
        await service.ask("PATCH", location, BODY[:start], ietf(complete=False, offset=0))
    headers = ietf(complete=True, offset=start) | content_digest(BODY[start:])
    refused(await service.ask("PATCH", location, b"?" * (len(BODY) - start), headers), 400)
    assert await offset_of(service, location) == start
    assert not service.store.objects
    assert (await service.ask("PATCH", location, BODY[start:], headers)).status == 201
    assert service.data("a") == BODY


PROVISIONAL = {"tus": checksum("sha1", BODY[10:]), "ietf": content_digest(BODY[10:])}


@both_loops
@each_protocol
@pytest.mark.parametrize("newcomer", ["HEAD", "PATCH", None])
async def test_an_append_whose_digest_was_never_verified_counts_for_nothing(service, protocol, newcomer):
    location = await created(service, protocol, length=len(BODY))
    await service.ask("PATCH", location, BODY[:10], appending(protocol, 0))
    client = await service.connect()
    headers = appending(protocol, 10, complete=True, length=len(BODY)) | PROVISIONAL[protocol]
    rest = {"Content-Length": str(len(BODY) - 10)}
    await client.send(head("PATCH", location, headers | rest | EXPECT))
    while await client.interim() != 100:
        pass
    await client.send(BODY[10:-1])
    await eventually(lambda: sum(service.spooled().values()) >= len(BODY) - 1)
    assert (await service.ask("GET", location)).json["offset"] == 10
    assert not service.store.calls["put_part"], "it stays in the spool"
    if newcomer is None:
        client.close()
        await service.becomes("a", writer=False)
    elif newcomer == "HEAD":
        answer = await service.ask("HEAD", location, None, ASKING[protocol])
        assert (answer.status in {200, 204}, answer.offset) == (True, 10)
    answer = await service.ask("PATCH", location, BODY[10:], headers)
    assert answer.status in {201, 204}
    assert service.data("a") == BODY


@each_protocol
async def test_an_append_whose_digest_was_never_verified_does_not_survive_a_kill(start_service, tmp_path, protocol):
    service = await start_service()
    location = await created(service, protocol, length=len(BODY))
    await service.ask("PATCH", location, START, appending(protocol, 0))
    digest = checksum("sha256", REST) if protocol == "tus" else content_digest(REST)
    headers = appending(protocol, len(START), complete=True, length=len(BODY)) | digest
    client = await service.connect()
    rest = {"Content-Length": str(len(REST))}
    await client.send(head("PATCH", location, headers | rest) + REST[:-1])
    await eventually(lambda: sum(service.spooled().values()) >= len(REST) - 1)
    left = service.killed(tmp_path / "killed")
    restarted = await start_service(data=left, store=service.store)
    answer = await restarted.ask("HEAD", location, None, ASKING[protocol])
    assert (answer.status in {200, 204}, answer.offset) == (True, len(START))
    assert (await restarted.ask("PATCH", location, REST, headers)).status in {201, 204}
    assert restarted.data("a") == BODY


# -- methods in disguise --------------------------------------------------------------------------------------------


def override(method: str) -> dict[str, str]:
    return {"X-HTTP-Method-Override": method}


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
async def test_a_post_may_mean_another_method(service, spelling):
    location = await created(service, "tus", length=len(BODY))
    answer = await service.ask("POST", location, START, tus(0) | override(spelling("PATCH")))
    assert (answer.status, answer.offset) == (204, len(START))
    answer = await service.ask("POST", location, b"", TUS | override(spelling("HEAD")))
    assert (answer.status, answer.offset, answer.body) == (200, len(START), b"")
    answer = await service.ask("POST", location, b"", TUS | override(spelling("DELETE")))
    assert answer.status == 204
    assert (await service.ask("HEAD", location, None, TUS)).status == 410


async def test_a_tus_post_on_an_upload_that_does_not_say_what_it_means_is_not_allowed(service):
    location = await created(service, "tus", length=len(BODY))
    answer = refused(await service.ask("POST", location, START, tus(0)), 405)
    assert "PATCH" in answer.headers["allow"]
    assert await offset_of(service, location) == 0


async def test_only_a_post_on_an_upload_may_mean_another_method(service):
    location = await created(service, "tus", length=len(BODY))
    assert (await service.ask("HEAD", location, None, TUS | override("DELETE"))).status == 200
    assert (await service.ask("PATCH", location, START, tus(0) | override("DELETE"))).status == 204
    assert (await service.ask("POST", "/objects/b", b"body", override("DELETE"))).status == 201
    assert service.data("b") == b"body"


async def test_what_a_post_means_decides_what_it_may_do(start_service):
    service = await start_service(api_key_sha256=(parse_api_key(ALICE),), cors_origins=(ORIGIN["Origin"],))
    hers = {"Authorization": f"Bearer {ALICE}"}
    headers = hers | TUS | {"Upload-Length": str(len(BODY))}
    location = (await service.ask("POST", "/uploads?key=a", b"", headers)).headers["location"]
    preflight = ORIGIN | override("OPTIONS") | {"Access-Control-Request-Method": "PATCH"}
    for headers in (preflight, preflight | tus(0), preflight | ietf(complete=True, offset=0)):
        answer = await service.ask("POST", location, b"body", headers)
        assert (answer.status, answer.body) == (204, b"")
        assert "access-control-allow-methods" in answer.headers
        assert not {"upload-offset", "location", "upload-metadata"} & set(answer.headers)
        for target in ("/uploads?key=b", "/objects/b"):
            refused(await service.ask("POST", target, b"body", headers), 401)
    for method in ("OPTIONS", "HEAD", "GET", "PATCH", "DELETE"):
        for headers in (TUS, tus(0)):
            answer = await service.ask("POST", location, b"body", ORIGIN | headers | override(method))
            assert answer.status == 401, method
    (found,) = (await service.ask("GET", "/uploads", None, hers)).json["uploads"]
    assert (found["id"], found["received"], found["state"]) == (location.rpartition("/")[2], 0, "open")


# -- independent uploads --------------------------------------------------------------------------------------------


@both_loops
async def test_law_9_independent_uploads_of_one_key_complete_in_the_order_in_which_they_were_sealed(service):
    gate = service.store.hold("complete_multipart")
    bodies = [random.Random(number).randbytes(2 * PART_BYTES + number) for number in range(4)]
    protocols = ["tus", "ietf", "tus", "ietf"]
    locations = [await created(service, protocol) for protocol in protocols]
    for half in range(2):
        for protocol, location, body in zip(protocols, locations, bodies, strict=True):
            data = body[half * PART_BYTES : (half + 1) * PART_BYTES]
            answer = await service.ask("PATCH", location, data, appending(protocol, half * PART_BYTES))
            assert answer.status == 204
    assert [upload["state"] for upload in (await service.ask("GET", "/uploads")).json["uploads"]] == ["open"] * 4
    order, ends = [2, 0, 3, 1], []
    for number in order:
        rest = bodies[number][2 * PART_BYTES :]
        headers = appending(protocols[number], 2 * PART_BYTES, complete=True, length=len(bodies[number]))
        ends.append(asyncio.create_task(service.ask("PATCH", locations[number], rest, headers)))
        await eventually(lambda number=number: sealed(service, locations[number]))
    gate.release()
    assert [(await end).status for end in ends] == [204 if protocols[number] == "tus" else 201 for number in order]
    assert [done.size for done in service.store.completed.values()] == [len(bodies[number]) for number in order]
    assert service.data("a") == bodies[1]


async def sealed(service: Service, location: str) -> bool:
    return (await service.ask("GET", location)).json["state"] != "open"


@each_protocol
async def test_an_independent_upload_disturbs_no_plain_one(service, protocol):
    client, _ = await service.begin()
    location = await created(service, protocol)
    last = appending(protocol, 0, complete=True, length=4)
    assert (await service.ask("PATCH", location, b"tiny", last)).status in {201, 204}
    assert service.data("a") == b"tiny"
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY


# -- law 6: takeover ------------------------------------------------------------------------------------------------


async def half_open(service: Service, protocol: str) -> tuple[Client, str]:
    """A client that has sent half a body and is silent, and its upload."""
    if protocol == "plain":
        client, upload_id = await service.begin()
        return client, f"/uploads/{upload_id}"
    location = await created(service, protocol)
    client = await service.connect()
    await client.send(
        head("PATCH", location, {"Content-Length": str(len(BODY))} | appending(protocol, 0, complete=True)) + START
    )
    await service.becomes("a", received=len(START), writer=True)
    return client, location


@both_loops
@each_protocol
@pytest.mark.parametrize("old", ["plain", "tus", "ietf"])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
async def test_law_6_a_half_open_writer_gives_way_within_a_second(service, old, method, protocol):
    client, location = await half_open(service, old)
    async with asyncio.timeout(1):
        if method == "PATCH":
            headers = appending(protocol, len(START), complete=True, length=len(BODY))
            assert (await service.ask("PATCH", location, REST, headers)).status in {201, 204}
        else:
            answer = await service.ask(method, location, None, ASKING[protocol])
            assert answer.status in ({200, 204} if method == "HEAD" else {204})
            assert method == "DELETE" or answer.offset == len(START)
    answer = await client.answer()
    assert answer.status in ({409, 410} if method == "DELETE" else {409})
    assert answer.headers["connection"] == "close"
    await client.ended(seconds=4)
    assert service.data("a") == (BODY if method == "PATCH" else None)


@both_loops
@each_protocol
async def test_law_6_an_append_at_another_place_stops_the_writer_and_is_told_where_it_was(service, protocol):
    client, location = await half_open(service, protocol)
    answer = await service.ask("PATCH", location, b"x", appending(protocol, 5))
    assert refused(answer, 409, expected_offset=len(START)).offset == len(START)
    refused(await client.answer(), 409, expected_offset=len(START))
    last = appending(protocol, len(START), complete=True, length=len(BODY))
    assert (await service.ask("PATCH", location, REST, last)).status in {201, 204}
    assert service.data("a") == BODY


@both_loops
async def test_law_6_many_who_resume_at_once_leave_one_object_that_is_whole(service):
    location = await created(service, "tus", length=len(BODY))
    statuses = set()

    async def go_on(number: int) -> None:
        """A client that resumes until it is done, whoever else does the same."""
        chance = random.Random(number)
        for _ in range(200):
            answer = await service.ask("HEAD", location, None, TUS)
            statuses.add(answer.status)
            if answer.status == 200 and answer.offset == len(BODY):
                return
            size = chance.randint(1, 40_000)
            data = BODY[answer.offset : answer.offset + size]
            answer = await service.ask("PATCH", location, data, tus(answer.offset))
            statuses.add(answer.status)
        raise AssertionError("it never ended")

    await asyncio.gather(*(go_on(number) for number in range(6)))
    assert statuses <= {200, 204, 409, 423}, "423 is for who comes while the store completes"
    assert service.data("a") == BODY


# -- clients that take turns ----------------------------------------------------------------------------------------


@both_loops
async def test_clients_of_all_kinds_make_one_object_together(service):
    thirds = [0, PART_BYTES + 100, 2 * PART_BYTES + 7, 3 * PART_BYTES, len(BODY)]
    pieces = [BODY[start:end] for start, end in pairwise(thirds)]
    answer = await service.ask("PUT", "/objects/a", pieces[0], {"Upload-Complete": "?0"})
    assert (answer.status, answer.offset) == (201, thirds[1])
    location = answer.headers["location"]
    answer = await service.ask("PATCH", location, pieces[1], ietf(8, complete=False, offset=thirds[1]))
    assert (answer.status, answer.offset) == (204, thirds[2])
    answer = await service.ask("HEAD", location, None, TUS)
    assert (answer.status, answer.offset, answer.headers["upload-defer-length"]) == (200, thirds[2], "1")
    answer = await service.ask("PATCH", location, pieces[2], tus(thirds[2]))
    assert (answer.status, answer.offset) == (204, thirds[3])
    answer = await service.ask("PUT", "/objects/a", None, {"Content-Range": "bytes */*"})
    assert (answer.status, answer.offset) == (308, thirds[3])
    answer = await service.ask("PUT", "/objects/a", pieces[3], place(thirds[3], len(BODY), len(BODY) - 1))
    assert (answer.status, answer.json["size"]) == (201, len(BODY))
    assert service.data("a") == BODY
    assert (await service.ask("HEAD", location, None, TUS)).offset == len(BODY)


async def test_a_tus_upload_may_be_finished_by_the_draft_and_the_other_way_round(service):
    location = await created(service, "tus")
    await service.ask("PATCH", location, START, tus(0))
    answer = await service.ask("PATCH", location, REST, ietf(complete=True, offset=len(START)))
    assert answer.status == 201
    location = await created(service, "ietf", key="b")
    await service.ask("PATCH", location, START, ietf(complete=False, offset=0))
    assert (await service.ask("PATCH", location, REST, tus(len(START), length=len(BODY)))).status == 204
    assert service.data("a") == service.data("b") == BODY


@both_loops
@pytest.mark.parametrize("how", ["tus", "tus, deferred", "ietf", "ietf, one request"])
async def test_law_5_an_upload_whose_bytes_were_all_here_when_it_was_killed_seals_itself(start_service, tmp_path, how):
    service = await start_service()
    service.store.hold("create_multipart")  # so that the spool keeps everything
    protocol = how.partition(",")[0]
    body = {"Content-Length": str(len(BODY))} | EXPECT
    client = await service.connect()
    if how == "ietf, one request":
        await client.send(head("POST", "/uploads?key=a", ietf(complete=True) | body))
    else:
        location = await created(service, protocol, length=len(BODY) if how == "tus" else None)
        length = len(BODY) if how == "tus, deferred" else None
        await client.send(head("PATCH", location, appending(protocol, 0, complete=True, length=length) | body))
    while (told := await client.told()).status != 100:
        location = told.headers.get("location") or location
    async with held_checkpoint(service):
        await client.send(BODY)
        await eventually(lambda: sum(service.spooled().values()) == len(BODY))
        left = service.killed(tmp_path / "killed")  # and nobody has noted that this was all
    restarted = await start_service(data=left, store=strict_store())
    answer = await restarted.ask("HEAD", location, None, ASKING[protocol])
    assert (answer.status, answer.offset) == (200, len(BODY))
    last = appending(protocol, len(BODY), complete=True)
    assert (await restarted.ask("PATCH", location, b"", last)).status in {201, 204}
    assert restarted.data("a") == BODY


# -- small appends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "most"), [(300, 1400), pytest.param(2000, 200, marks=pytest.mark.campaign)])
async def test_small_appends_are_one_object_and_the_spool_holds_the_tail_only(service, number, most):
    chance = random.Random(1)
    sizes = [chance.randint(1, most) for _ in range(number)]
    data = chance.randbytes(sum(sizes))
    location = await created(service)
    client = await service.connect()
    position = 0
    for size in sizes:
        headers = ietf(complete=False, offset=position)
        answer = await client.ask("PATCH", location, data[position : position + size], headers)
        position += size
        assert (answer.status, answer.offset) == (204, position)
        if position < PART_BYTES:
            assert not service.store.calls
            assert list(service.spooled().values()) == [position]
        elif position % PART_BYTES < size:
            await eventually(lambda: sum(service.spooled().values()) == position % PART_BYTES)  # noqa: B023 - at once
    assert service.store.calls["put_part"] == len(data) // PART_BYTES
    assert (await client.ask("PATCH", location, b"", ietf(complete=True, offset=position))).status == 201
    assert service.data("a") == data


# -- pages of other origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "method"),
    [("/uploads", "POST"), ("/uploads/x", "PATCH"), ("/uploads/x", "HEAD"), ("/uploads/x", "DELETE")],
)
async def test_a_preflight_for_resumable_uploads_needs_no_key(start_service, target, method):
    service = await start_service(cors_origins=(ORIGIN["Origin"],), api_key_sha256=(parse_api_key(ALICE),))
    wanted = "tus-resumable,upload-offset,upload-complete,content-type,authorization"
    headers = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": wanted}
    answer = await service.ask("OPTIONS", target, None, ORIGIN | headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == wanted
    foreign = {"Origin": "https://elsewhere.example"}
    assert (await service.ask("OPTIONS", target, None, foreign | headers)).status == 403


@each_protocol
async def test_a_page_of_an_allowed_origin_may_read_the_fields_of_the_protocols(start_service, protocol):
    service = await start_service(cors_origins=(ORIGIN["Origin"],))
    headers = ietf(complete=False) if protocol == "ietf" else TUS | DEFERRED
    answer = await service.ask("POST", "/uploads?key=a", b"", ORIGIN | headers)
    assert answer.status == 201
    answers = [
        answer,
        await service.ask("HEAD", answer.headers["location"], None, ORIGIN | ASKING[protocol]),
        await service.ask("PATCH", answer.headers["location"], b"x", ORIGIN | appending(protocol, 5)),
        await service.ask("HEAD", "/uploads/unknown", None, ORIGIN | ASKING[protocol]),
    ]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Complete", "Upload-Limit"} <= exposed
        assert {"Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"} <= exposed
        assert {"Upload-Metadata", "Upload-Expires", "Upload-Defer-Length", VERSION, "ETag"} <= exposed


@each_protocol
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
async def test_a_page_of_a_foreign_origin_may_do_nothing(start_service, protocol, method):
    service = await start_service(cors_origins=(ORIGIN["Origin"],))
    client, location = await half_open(service, protocol)
    foreign = {"Origin": "https://elsewhere.example"}
    target = "/uploads?key=b" if method == "POST" else location
    body = b"" if method in {"POST", "PATCH"} else None
    headers = appending(protocol, len(START)) if method == "PATCH" else ASKING[protocol]
    assert (await service.ask(method, target, body, foreign | headers)).status == 403
    assert await service.document("a", writer=True, state="open")
    client.close()


# -- while the server stops, or cannot ------------------------------------------------------------------------------


async def head_while_stopping(start_service: StartService, protocol: str, prepare) -> Answer:
    """The answer to HEAD on a connection that was open before the server began to stop."""
    service = await start_service(grace_seconds=PATIENCE_SECONDS)
    gate = service.store.hold("put_object")
    busy, other = await service.connect(), await service.connect()
    location = await prepare(service)
    assert (await other.ask("GET", "/uploads")).status == 200
    await busy.start("PUT", "/objects/busy", b"body")
    await gate.reached()
    stopping = asyncio.create_task(service.stop())
    await asyncio.wait([stopping], timeout=0.1)
    answer = await other.ask("HEAD", location, None, ASKING[protocol])
    with pytest.raises(OSError, match=r"(?i)connect"):
        await service.connect()
    gate.release()
    assert (await busy.answer()).status == 201
    await stopping
    return answer


@both_loops
@each_protocol
@pytest.mark.parametrize("writer", [True, False])
async def test_head_while_the_server_stops_is_never_a_fault(start_service, protocol, writer):
    async def prepare(service: Service) -> str:
        client, location = await half_open(service, protocol)
        if not writer:
            client.close()
            await service.becomes("a", writer=False)
        return location

    answer = await head_while_stopping(start_service, protocol, prepare)
    if answer.status != 423:
        assert (answer.status in {200, 204}, answer.offset) == (True, len(START))


@each_protocol
async def test_who_waits_for_the_store_when_the_server_stops_is_told_of_no_success(start_service, protocol):
    service = await start_service(grace_seconds=0.1)
    gate = service.store.hold("complete_multipart")
    location = await created(service, protocol, length=len(BODY))
    client, asking = await service.connect(), await service.connect()
    await client.start("PATCH", location, BODY, appending(protocol, 0, complete=True))
    await gate.reached()
    await asking.start("HEAD", location, None, ASKING[protocol])
    await asyncio.wait([asyncio.create_task(service.stop())], timeout=PATIENCE_SECONDS)
    for one in (client, asking):
        try:
            answer = await one.answer()
        except (asyncio.IncompleteReadError, ConnectionError):
            continue
        assert answer.status == 423 if protocol == "tus" else answer.status in {202, 423}
        assert answer.headers.get("upload-complete") != "?1"
        assert protocol == "ietf" or "upload-offset" not in answer.headers


@each_protocol
async def test_creations_and_appends_while_the_server_stops_may_come_back(start_service, protocol):
    service = await start_service(grace_seconds=PATIENCE_SECONDS)
    gate = service.store.hold("put_object")
    location = await created(service, protocol)
    busy, *others = [await service.connect() for _ in range(3)]
    for other in others:
        assert (await other.ask("GET", "/uploads")).status == 200
    await busy.start("PUT", "/objects/busy", b"body")
    await gate.reached()
    stopping = asyncio.create_task(service.stop())
    await asyncio.wait([stopping], timeout=0.1)
    creation = ietf(complete=False) if protocol == "ietf" else TUS | DEFERRED
    answers = [
        await others[0].ask("POST", "/uploads?key=b", b"", creation),
        await others[1].ask("PATCH", location, b"x", appending(protocol, 0)),
    ]
    for answer in answers:
        assert "retry-after" in refused(answer, 423).headers
    gate.release()
    assert (await busy.answer()).status == 201
    await stopping


@pytest.mark.parametrize("protocol", ["tus", "ietf", "nobody"])
async def test_head_while_the_checkpoint_fails_is_no_fault_of_the_servers(service, monkeypatch, caplog, protocol):
    _, location = await half_open(service, "tus")

    async def failing(*_: object) -> None:
        raise CheckpointError("the disk is full")

    with monkeypatch.context() as patch:
        for operation in ("announce", "keep", "save"):
            patch.setattr(service.checkpoint, operation, failing)
        for _ in range(2):
            answer = await service.ask("HEAD", location, None, ASKING.get(protocol, {}))
            assert (answer.status, answer.headers.get("upload-offset")) == (423, None)
            assert "retry-after" in answer.headers
    answer = await eventually(lambda: open_again(service, location))
    assert answer.offset == len(START)
    assert (await service.ask("PATCH", location, REST, tus(len(START), length=len(BODY)))).status == 204
    assert service.data("a") == BODY
    caplog.clear()


async def test_head_while_the_checkpoint_cannot_be_read_is_no_fault_of_the_servers(service, monkeypatch):
    location = await created(service, "tus", length=4)
    await service.ask("PATCH", location, b"body", tus(0))  # only a row is left of it

    async def failing(*_: object) -> None:
        raise CheckpointError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(service.checkpoint, "find", failing)
        for headers in (TUS, {VERSION: "9"}, {}):
            answer = await service.ask("HEAD", location, None, headers)
            assert (answer.status, answer.headers.get("upload-offset")) == (423, None)
    assert (await service.ask("HEAD", location, None, TUS)).offset == 4


@pytest.mark.parametrize(
    "options", [{"disk_floor_bytes": 1 << 60}, {"max_open_uploads": 0}], ids=["disk floor", "open uploads"]
)
async def test_a_creation_where_there_is_no_room_may_come_back(start_service, options):
    service = await start_service(**options)
    creations = [TUS | DEFERRED, TUS | {"Upload-Length": "4"}, *(ietf(version, complete=False) for version in VERSIONS)]
    for headers in creations:
        answer = refused(await service.ask("POST", "/uploads?key=a", b"", headers), 503)
        assert "retry-after" in answer.headers
        assert answer.before == ()
    refused(await service.ask("PUT", "/objects/a", b"body"), 507)
    assert await service.document("a") is None


# -- behind a proxy -------------------------------------------------------------------------------------------------

FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "up.example", "X-Forwarded-Prefix": "/in"}


@pytest.mark.parametrize(
    ("headers", "front"),
    [
        (FORWARDED, "https://up.example/in"),
        ({"Forwarded": "for=192.0.2.1;proto=https;host=up.example"}, "https://up.example"),
        ({"X-Forwarded-Proto": "https"}, "https://127.0.0.1"),
        ({"X-Forwarded-Host": "up.example:8443"}, "http://up.example:8443"),
        ({}, ""),
    ],
)
async def test_a_trusted_proxy_says_where_uploads_are(start_service, headers, front):
    service = await start_service(trusted_proxies=(ip_network("127.0.0.0/8"),), allowed_hosts=("up.example",))
    answer = await service.ask("POST", "/uploads?key=a", b"", headers | TUS | DEFERRED)
    assert answer.status == 201
    path = f"/uploads/{(await service.document('a'))['id']}"
    assert answer.headers["location"] == front + path
    answer = await service.ask("POST", "/uploads?key=b", START, headers | ietf(complete=False))
    path = f"/uploads/{(await service.document('b'))['id']}"
    assert answer.interim == (104,)
    assert answer.before[0].headers["location"] == answer.headers["location"] == front + path
    assert await offset_of(service, path) == len(START)


async def test_nobody_else_says_where_uploads_are(start_service):
    service = await start_service(trusted_proxies=(ip_network("192.0.2.0/24"),))
    forged = FORWARDED | {"Forwarded": "proto=https;host=evil.example"}
    answer = await service.ask("POST", "/uploads?key=a", b"", forged | TUS | DEFERRED)
    assert answer.headers["location"].startswith("/uploads/")
    answer = await service.ask("POST", "/uploads?key=b", START, forged | ietf(complete=False))
    assert answer.before[0].headers["location"] == answer.headers["location"]
    assert answer.headers["location"].startswith("/uploads/")


# -- what a review found --------------------------------------------------------------------------------------------


class OneBadSync(Files):
    """One sync fails (EIO), and only its caller learns of it, as on Linux. It takes until `gate` is set."""

    def __init__(self) -> None:
        self.armed = False
        self.begun, self.gate = threading.Event(), threading.Event()

    def sync(self, path: Path) -> None:
        if self.armed:
            self.armed = False
            self.begun.set()
            assert self.gate.wait(PATIENCE_SECONDS)
            raise OSError(errno.EIO, "I/O error")
        super().sync(path)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("ends", ["before", "after"])
@pytest.mark.usefixtures("often")
async def test_law_10_a_report_whose_sync_fails_has_its_consequence_though_its_request_ends(
    start_service, caplog, complete, ends
):
    disk, store = OneBadSync(), strict_store()
    gate = store.hold("put_part")
    service = await start_service(files=disk, store=store, store_timeout_seconds=1.0)
    client = await service.connect()
    await client.send(head("POST", "/uploads?key=a", CHUNKED | ietf(complete=complete)))
    disk.armed = True
    await client.send(chunk(START))
    assert await asyncio.to_thread(disk.begun.wait, PATIENCE_SECONDS)
    if ends == "before":  # the body ends while the disk still works
        await client.send(LAST_CHUNK)
        writers = [live for live in service.uploads.registry if live.writer]
        if complete:
            await eventually(lambda: not any(live.writer for live in writers))
    disk.gate.set()
    client.methods.append("POST")
    answer = await client.answer()
    assert answer.status in {410, 507}
    (upload,) = (await service.ask("GET", "/uploads")).json["uploads"]
    assert upload["state"] == "failed"
    assert (await service.checkpoint.find(upload["id"])).upload.state is State.FAILED
    await eventually(lambda: service.uploads.live(upload["id"], ANONYMOUS) is None)  # a turn after its commit
    assert service.spool.budget.reserved == 0
    gate.release()
    await eventually(lambda: not service.spooled())
    caplog.clear()


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Incomplete": "?1"},
        {"Upload-Incomplete": "?1", VERSION: "9"},
        {"Upload-Complete": "?0", VERSION: "3"},
        {"Upload-Complete": "?0, ?0"},
        {"Upload-Complete": "0"},
        {"Upload-Complete": "no"},
    ],
)
async def test_law_7_who_says_that_this_is_not_all_gets_no_object(service, headers):
    answer = await service.ask("PUT", "/objects/a", b"half", headers)
    assert answer.status in {201, 400}
    assert answer.headers.get("upload-complete") == "?0"
    assert service.data("a") is None
    assert not service.store.objects


async def test_an_object_is_not_replaced_by_a_tus_creation_without_its_version(service):
    await service.ask("PUT", "/objects/a", b"the object that is there")
    refused(await service.ask("POST", "/objects/a", b"", DEFERRED), 412)
    assert service.data("a") == b"the object that is there"


@pytest.mark.parametrize(("method", "version"), [("POST", "1.1"), ("POST", "1.0")])
async def test_a_creation_that_is_all_and_has_no_framing_replaces_nothing(service, method, version):
    await service.ask("PUT", "/objects/a", b"the object that is there")
    refused(await service.ask(method, "/uploads?key=a", headers=ietf(None, complete=True), version=version), 411)
    assert service.data("a") == b"the object that is there"


async def test_an_append_by_http_1_0_says_its_length(service):
    location = await created(service)
    patch = {"Upload-Offset": "0", "Upload-Complete": "?1", "Content-Type": PARTIAL}
    refused(await service.ask("PATCH", location, headers=patch, version="1.0"), 411)
    assert await offset_of(service, location) == 0


async def test_the_length_of_a_body_that_does_not_match_is_forgotten_with_it(service):
    location = await created(service)
    answer = await service.ask("PATCH", location, b"12345", ietf(complete=True, offset=0) | content_digest(b"x"))
    refused(answer, 400)
    assert answer.offset == 0
    assert "upload-length" not in (await service.ask("HEAD", location)).headers
    answer = await service.ask("PATCH", location, b"hello world", ietf(complete=True, offset=0))
    assert answer.status == 201
    assert service.data("a") == b"hello world"


@pytest.mark.parametrize("good", [True, False])
async def test_a_body_replaces_an_upload_once_its_digest_has_matched(service, good):
    old = await service.leave()
    digest = content_digest(b"body" if good else b"x")
    answer = await service.ask("PUT", "/objects/a?interrupted=replace", b"body", ietf(complete=False) | digest)
    assert answer.status == (201 if good else 400)
    state = "cancelled" if good else "open"
    assert (await service.ask("GET", f"/uploads/{old}")).json["state"] == state


@pytest.mark.parametrize("protocol", ["plain", "ietf"])
@pytest.mark.parametrize("guard", [{"Upload-Checksum": "sha1 AAAA"}, {"Trailer": "Content-Digest"}])
async def test_a_digest_that_is_not_verified_is_not_taken(service, protocol, guard):
    said = ietf(complete=True) if protocol == "ietf" else {}
    refused(await service.ask("PUT", "/objects/a", chunks=[b"body"], headers=said | guard), 501)
    assert not service.store.objects


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_complete_cannot_be_cancelled(service, version):
    answer = await service.ask("POST", "/uploads?key=a", b"body", ietf(version, complete=True))
    location = f"/uploads/{answer.json['upload']}"
    refused(await service.ask("DELETE", location, headers={VERSION: str(version)}), 409)
