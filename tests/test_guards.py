"""Digests that a client gives of a whole object: it becomes one only if they match, over HTTP and across restarts."""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from base64 import b64encode

import pytest
from awscrt import checksums
from conftest import BODY, PART_BYTES
from fake_store import DROP
from raw_client import CHUNKED, EXPECT, LAST_CHUNK, OCTETS, TUS, chunk, eventually, head, place, refused
from test_resumable import ietf

from streamup import hashes
from streamup.errors import StoreUnavailable
from streamup.stores import Checksum

pytestmark = pytest.mark.usefixtures("impatient")

ONE = "Repr-Digest: sha-256"
"""The digest with which plain runs go through all sizes and places; with the others the campaign does."""
OTHER = b"not what is sent"
CREATION = TUS | {"Upload-Length": str(len(BODY))}


def text(value: bytes) -> str:
    return b64encode(value).decode()


def crc(function, size):
    return lambda data: text(function(data).to_bytes(size, "big"))


FIELDS = {
    "Repr-Digest: sha-256": lambda data: f"sha-256=:{text(hashlib.sha256(data).digest())}:",
    "Repr-Digest: sha-512": lambda data: f"sha-512=:{text(hashlib.sha512(data).digest())}:",
    "Content-Digest: sha-256": lambda data: f"sha-256=:{text(hashlib.sha256(data).digest())}:",
    "Content-MD5": lambda data: text(hashlib.md5(data).digest()),
    "x-amz-checksum-sha256": lambda data: text(hashlib.sha256(data).digest()),
    "x-amz-checksum-sha1": lambda data: text(hashlib.sha1(data).digest()),
    "x-amz-checksum-crc32": crc(zlib.crc32, 4),
    "x-amz-checksum-crc32c": crc(checksums.crc32c, 4),
    "X-Amz-Checksum-Crc64nvme": crc(checksums.crc64nvme, 8),
}


def each_field(name: str, values: tuple[int, ...], *, without: str = "") -> pytest.MarkDecorator:
    """Every field with every value of a parameter; in plain runs all fields with the last one, and `ONE` with all."""
    cases = [
        pytest.param(field, value, marks=() if field == ONE or value == values[-1] else pytest.mark.campaign)
        for field in sorted(FIELDS)
        for value in values
        if field != without
    ]
    return pytest.mark.parametrize(("field", name), cases)


SIZES = each_field("size", (0, 1, PART_BYTES, PART_BYTES + 1, len(BODY)))


def guard(field: str, data: bytes) -> dict[str, str]:
    return {field.partition(":")[0]: FIELDS[field](data)}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@SIZES
async def test_a_digest_that_matches_lets_the_object_be(service, field, chunked, size):
    data = BODY[:size]
    insist = "?interrupted=replace"  # an empty chunked body is meant
    body = {"chunks": [data] if data else []} if chunked else {}
    headers = guard(field, data)
    answer = await service.ask("PUT", f"/objects/a{insist}", None if chunked else data, headers, **body)
    assert (201, data) == (answer.status, service.data("a"))


@SIZES
async def test_a_digest_that_does_not_match_leaves_no_object(service, field, size):
    data = BODY[:size]
    answer = refused(await service.ask("PUT", "/objects/a", data, guard(field, OTHER)), 400)
    values = {answer.json["expected-digest"], answer.json["found-digest"]}
    assert {re.sub("sha-...=:(.*):", r"\1", FIELDS[field](one)) for one in (data, OTHER)} == values
    assert not service.store.objects
    await eventually(lambda: asyncio.sleep(0, not service.store.multiparts))
    found = await service.document("a")
    assert found["state"] == "failed"
    assert all(value in found["reason"] for value in values)
    assert service.spooled() == {}
    assert (await service.ask("PUT", "/objects/a", data, guard(field, data))).status == 201, "the key is free again"


async def test_an_object_that_was_there_stays_if_its_successor_is_not_what_it_should_be(service):
    assert (await service.ask("PUT", "/objects/a", b"first")).status == 201
    refused(await service.ask("PUT", "/objects/a", BODY, guard("Content-MD5", OTHER)), 400)
    assert service.data("a") == b"first"


async def test_several_digests_must_all_match(service):
    right, wrong = guard("x-amz-checksum-sha256", BODY), guard("Content-MD5", OTHER)
    assert "md5" in refused(await service.ask("PUT", "/objects/a", BODY, right | wrong), 400).json["detail"]
    assert not service.store.objects


async def test_two_values_of_one_digest_are_refused_before_the_body(service):
    both = guard("Repr-Digest: sha-256", BODY) | guard("Content-Digest: sha-256", OTHER)
    refused(await service.ask("PUT", "/objects/a", None, CHUNKED | EXPECT | both), 400)
    assert await service.document("a") is None


# -- later requests ------------------------------------------------------------------------------------------------


@each_field("at", (100, PART_BYTES, 2 * PART_BYTES + 100), without="Content-Digest: sha-256")
@pytest.mark.parametrize("good", [True, False])
async def test_a_digest_given_at_the_beginning_counts_at_the_end(service, field, good, at):
    await service.leave("a", BODY[:at], **guard(field, BODY if good else OTHER))
    answer = await service.ask("PUT", "/objects/a", BODY[at:], place(at))
    assert (201 if good else 400, BODY if good else None) == (answer.status, service.data("a"))


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("at", [100, 2 * PART_BYTES])
async def test_crc64nvme_may_be_given_at_the_end(service, good, at):
    await service.leave("a", BODY[:at])
    late = guard("X-Amz-Checksum-Crc64nvme", BODY if good else OTHER)
    answer = await service.ask("PUT", "/objects/a", BODY[at:], place(at) | late)
    assert (201 if good else 400, BODY if good else None) == (answer.status, service.data("a"))


async def test_a_digest_that_has_not_been_running_is_refused_with_those_that_have(service):
    await service.leave("a", BODY[:100], **guard("Content-MD5", BODY))
    late = guard("x-amz-checksum-sha256", BODY)
    answer = refused(await service.ask("PUT", "/objects/a", BODY[100:], place(100) | late), 400)
    assert "crc64nvme, md5" in answer.json["detail"]
    assert (await service.ask("PUT", "/objects/a", BODY[100:], place(100))).status == 201


async def test_another_value_than_the_first_is_refused(service):
    await service.leave("a", BODY[:100], **guard("Content-MD5", BODY))
    refused(await service.ask("PUT", "/objects/a", BODY[100:], place(100) | guard("Content-MD5", OTHER)), 400)
    again = guard("Content-MD5", BODY)
    assert (await service.ask("PUT", "/objects/a", BODY[100:], place(100) | again)).status == 201


async def test_the_first_bytes_may_bring_the_digest_of_the_whole(service):
    location = (await service.ask("POST", "/uploads?key=a", b"", ietf(complete=False))).headers["location"]
    headers = ietf(complete=False, offset=0) | guard("Repr-Digest: sha-256", BODY)
    assert (await service.ask("PATCH", location, BODY[:100], headers)).status == 204
    refused(await service.ask("PATCH", location, OTHER, ietf(complete=True, offset=100)), 400)
    assert not service.store.objects


async def test_the_end_that_is_only_said_may_bring_the_digest(service):
    await service.leave("a", BODY)
    late = guard("X-Amz-Checksum-Crc64nvme", OTHER)
    end = {"Content-Range": f"bytes */{len(BODY)}", "Upload-Complete": "?1"}
    refused(await service.ask("PUT", "/objects/a", b"", end | late), 400)
    assert not service.store.objects


# -- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [True, False])
async def test_a_range_with_the_digest_of_its_body_counts_when_that_matches(service, good):
    await service.leave("a", BODY[:100])
    headers = place(100) | guard("Content-Digest: sha-256", BODY[100:] if good else OTHER)
    answer = await service.ask("PUT", "/objects/a", BODY[100:], headers)
    assert (201 if good else 400, BODY if good else None) == (answer.status, service.data("a"))
    if not good:
        assert (await service.document("a"))["offset"] == 100
        assert (await service.ask("PUT", "/objects/a", BODY[100:], place(100))).status == 201


@pytest.mark.parametrize("protocol", ["plain", "ietf", "tus"])
async def test_a_whole_body_is_bounded_by_nothing_and_kept_when_it_is_interrupted(service, protocol):
    """Its digest is that of the whole, so nothing of it is provisional."""
    digest = guard("Content-Digest: sha-256", BODY)
    said = {"plain": {}, "ietf": ietf(complete=True), "tus": CREATION | OCTETS}[protocol]
    client = await service.connect()
    target = "/uploads?key=a" if protocol == "tus" else "/objects/a"
    method = "POST" if protocol == "tus" else "PUT"
    await client.send(head(method, target, {"Content-Length": str(len(BODY))} | said | digest) + BODY[:-1])
    await service.becomes("a", received=len(BODY) - 1)
    client.close()
    found = await service.becomes("a", offset=len(BODY) - 1, writer=False)
    location = f"/uploads/{found['id']}"
    refused(await service.ask("PATCH", location, b"?", ietf(complete=True, offset=len(BODY) - 1)), 400)
    assert not service.store.objects


async def test_tus_has_a_status_of_its_own(service):
    headers = CREATION | OCTETS | {"Upload-Checksum": f"sha1 {text(hashlib.sha1(OTHER).digest())}"}
    refused(await service.ask("POST", "/uploads?key=a", BODY, headers), 460)
    assert not service.store.objects


# -- being told ----------------------------------------------------------------------------------------------------


async def test_whoever_wants_to_know_the_digest_is_told_at_the_end_and_later(service):
    want = {"Want-Repr-Digest": "sha-256=3, sha-512=0, unixsum=9"}
    answer = await service.ask("PUT", "/objects/a", BODY, want)
    said = FIELDS["Repr-Digest: sha-256"](BODY)
    assert said == answer.headers["repr-digest"]
    assert answer.json["digest"] == {"sha256": text(hashlib.sha256(BODY).digest())}
    assert said == (await service.ask("HEAD", "/objects/a", headers=want)).headers["repr-digest"]
    assert "repr-digest" not in (await service.ask("HEAD", "/objects/a")).headers
    document = (await service.ask("GET", f"/uploads/{answer.json['upload']}")).json
    assert document["object"] == answer.json


async def test_nothing_is_told_of_an_object_that_is_not_that_upload_any_more(service):
    want = {"Want-Repr-Digest": "sha-256=3"}
    await service.ask("PUT", "/objects/a", BODY, want)
    service.store.objects["a"].etag = '"another"'
    assert "repr-digest" not in (await service.ask("HEAD", "/objects/a", headers=want)).headers
    await service.ask("PUT", "/objects/b", BODY)
    assert "repr-digest" not in (await service.ask("HEAD", "/objects/b", headers=want)).headers


async def test_who_asks_for_sha256_in_the_store_is_told_that_of_the_whole(service):
    answer = await service.ask("PUT", "/objects/a?checksum=sha256", BODY)
    assert FIELDS["Repr-Digest: sha-256"](BODY) == answer.headers["repr-digest"]
    assert ("COMPOSITE", [Checksum.SHA256]) == (answer.json["checksum_type"], list(answer.json["checksum"]))


async def test_tus_clients_are_told_too(service):
    headers = CREATION | {"Want-Repr-Digest": "sha-256=1"}
    location = (await service.ask("POST", "/uploads?key=a", headers=headers)).headers["location"]
    answer = await service.ask("PATCH", location, BODY, TUS | OCTETS | {"Upload-Offset": "0"})
    assert FIELDS["Repr-Digest: sha-256"](BODY) == answer.headers["repr-digest"]


# -- restarts and faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("at", [PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 100])
async def test_a_digest_goes_on_after_a_kill(start_service, tmp_path, good, at):
    service = await start_service()
    await service.leave("a", BODY[:at], **guard("Content-MD5", BODY if good else OTHER))
    await service.becomes("a", stored=at - at % PART_BYTES)
    directory = service.killed(tmp_path / "killed")
    store = service.store
    await service.stop()
    service = await start_service(store=store, data=directory)
    answer = await service.ask("PUT", "/objects/a", BODY[at:], place(at))
    assert (201 if good else 400, BODY if good else None) == (answer.status, service.data("a"))


async def test_a_digest_goes_on_where_parts_were_stored_out_of_order(start_service, tmp_path):
    """Part 1 waits for the store, part 2 has its receipt: a restart reads part 1, and then part 3 from 2's state on."""
    service = await start_service()
    at = 2 * PART_BYTES + 100

    async def plan(operation, number):
        return asyncio.Event() if operation == "put_part" and number == 1 else None

    service.store.plan = plan
    upload_id = await service.leave("a", BODY[:at], **guard("x-amz-checksum-sha256", BODY))

    async def receipts():
        return set((await service.checkpoint.find(upload_id)).upload.receipts) == {2}

    await eventually(receipts)
    directory, store = service.killed(tmp_path / "killed"), service.store
    await service.stop()
    store.plan = None
    service = await start_service(store=store, data=directory)
    assert (await service.ask("PUT", "/objects/a", BODY[at:], place(at))).status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("at", [PART_BYTES - 1, 2 * PART_BYTES + 100])
async def test_a_digest_whose_state_cannot_be_kept_is_lost_with_the_process_and_that_is_said(
    start_service, tmp_path, monkeypatch, at
):
    monkeypatch.setattr(hashes, "LIBRARY", None)
    service = await start_service()
    await service.leave("a", BODY[:at], **guard("Content-MD5", BODY))
    await service.becomes("a", stored=at - at % PART_BYTES)
    directory, store = service.killed(tmp_path / "killed"), service.store
    await service.stop()
    service = await start_service(store=store, data=directory)
    answer = await service.ask("PUT", "/objects/a", BODY[at:], place(at))
    lost = at > PART_BYTES  # else every byte is still in the spool
    assert (410 if lost else 201, None if lost else BODY) == (answer.status, service.data("a"))
    if lost:
        assert "digest lost" in refused(answer, 410).json["detail"]


async def test_a_restart_while_it_completes_tells_the_digest_all_the_same(start_service, tmp_path):
    service = await start_service()
    gate = service.store.hold("complete_multipart")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | {"Want-Repr-Digest": "sha-256=1"}) + chunk(BODY) + LAST_CHUNK)
    await gate.reached()
    directory, store = service.killed(tmp_path / "killed"), service.store
    await service.stop()
    gate.release()
    service = await start_service(store=store, data=directory)
    found = await service.becomes("a", state="complete")
    assert found["object"]["digest"] == {"sha256": text(hashlib.sha256(BODY).digest())}


async def test_a_multipart_upload_that_the_store_lost_is_hashed_from_its_beginning_again(service):
    async def plan(operation, number):
        if operation == "put_part" and number == 1:
            service.store.multiparts.clear()

    service.store.plan = plan
    answer = await service.ask("PUT", "/objects/a", BODY, guard("Content-MD5", BODY))
    assert (201, BODY) == (answer.status, service.data("a"))
    assert service.store.calls["create_multipart"] == 2


async def test_bytes_that_changed_in_the_spool_are_not_hashed_as_if_they_had_come_so(service):
    gate = service.store.hold("create_multipart")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | guard("Content-MD5", BODY)) + chunk(BODY[: PART_BYTES + 10]))
    await gate.reached()
    path = next(path for path in service.spool.directory.iterdir() if path.name.endswith(".2"))
    with path.open("r+b") as file:
        file.write(bytes([file.read(1)[0] ^ 1]))
    gate.release()
    await service.becomes("a", stored=PART_BYTES)
    await client.send(chunk(BODY[PART_BYTES + 10 :]) + LAST_CHUNK)
    refused(await client.answer(), 410)
    assert "not those that came off the socket" in (await service.document("a"))["reason"]
    assert (1, {}) == (service.store.calls["put_part"], service.store.objects), "and they are not even sent"


async def test_an_object_whose_completion_was_in_doubt_is_not_judged_again_by_bytes_that_are_gone(
    start_service, tmp_path
):
    """The store has the object, its answer is lost, and so is the spool, with the power."""
    service = await start_service()
    service.store.fail("put_object", DROP)
    service.store.fail("head", None, *[StoreUnavailable] * 50)  # the first one is asked before the object is put
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", {"Content-Length": "4"} | guard("Content-MD5", b"body")) + b"body")
    await eventually(lambda: service.data("a"))
    directory, store = service.killed(tmp_path / "killed"), service.store
    await service.stop()
    for path in (directory / "spool").iterdir():
        path.unlink()
    store._faults.clear()
    service = await start_service(store=store, data=directory, boot_id="another boot")
    assert (await service.becomes("a", state="complete"))["object"]["digest"] == {
        "md5": text(hashlib.md5(b"body").digest())
    }


# -- what was said with a request that is refused does not count ---------------------------------------------------


async def test_an_append_that_added_nothing_leaves_no_guard(service):
    await service.leave("a", BODY[:100])
    wrong = guard("X-Amz-Checksum-Crc64nvme", b"")
    refused(await service.ask("PUT", "/objects/a?interrupted=append", b"", wrong), 409)
    refused(await service.ask("PUT", "/objects/a?interrupted=append", chunks=[], headers=wrong), 409)
    answer = await service.ask("PUT", "/objects/a", BODY[100:], place(100))
    assert (201, BODY) == (answer.status, service.data("a"))


async def test_a_provisional_append_that_was_withdrawn_leaves_no_guard(service):
    await service.leave("a", BODY[:100])
    wrong = place(100) | guard("Content-Digest: sha-256", OTHER) | guard("X-Amz-Checksum-Crc64nvme", OTHER)
    refused(await service.ask("PUT", "/objects/a", BODY[100:], wrong), 400)
    assert (await service.ask("PUT", "/objects/a", BODY[100:], place(100))).status == 201


@pytest.mark.parametrize("good", [True, False])
async def test_what_a_provisional_append_says_of_the_whole_counts_with_it(service, good):
    await service.leave("a", BODY[:100])
    digests = guard("Content-Digest: sha-256", BODY[100:200]) | guard(
        "X-Amz-Checksum-Crc64nvme", BODY if good else OTHER
    )
    assert (await service.ask("PUT", "/objects/a", BODY[100:200], place(100, end=199) | digests)).status == 308
    answer = await service.ask("PUT", "/objects/a", BODY[200:], place(200))
    assert (201 if good else 400, BODY if good else None) == (answer.status, service.data("a"))


async def test_a_body_that_goes_beyond_its_range_leaves_no_guard(service):
    await service.leave("a", BODY[:100])
    wrong = place(100, end=199) | guard("X-Amz-Checksum-Crc64nvme", OTHER)
    refused(await service.ask("PUT", "/objects/a", chunks=[BODY[100:300]], headers=wrong), 400)
    found = await service.becomes("a", writer=False)
    assert (await service.ask("PUT", "/objects/a", BODY[found["offset"] :], place(found["offset"]))).status == 201


# -- endings that are repeated -------------------------------------------------------------------------------------


async def test_the_end_said_again_with_a_digest_that_is_wrong_is_no_success(service):
    await service.leave("a", BODY)
    end = {"Content-Range": f"bytes */{len(BODY)}", "Upload-Complete": "?1"}
    right, wrong = (guard("X-Amz-Checksum-Crc64nvme", data) for data in (BODY, OTHER))
    for headers, status in (
        (end, 201),
        (end | right, 201),
        (end | wrong, 400),
        (end | guard("Content-MD5", BODY), 400),
    ):
        assert (await service.ask("PUT", "/objects/a", b"", headers)).status == status
    assert service.data("a") == BODY


async def test_the_last_append_said_again_with_a_digest_that_is_wrong_is_no_success(service):
    location = f"/uploads/{await service.leave('a', BODY[:100])}"
    last = ietf(complete=True, offset=100)
    assert (await service.ask("PATCH", location, BODY[100:], last)).status == 201
    wrong = guard("X-Amz-Checksum-Crc64nvme", OTHER)
    refused(await service.ask("PATCH", location, BODY[100:], last | wrong), 400)
    assert (await service.ask("PATCH", location, BODY[100:], last)).status == 201


async def test_a_digest_of_what_still_completes_is_not_promised(start_service):
    service = await start_service(store_timeout_seconds=0.05)
    await service.leave("a", BODY)
    service.store.hold("put_part")
    end = {"Content-Range": f"bytes */{len(BODY)}", "Upload-Complete": "?1"}
    assert (await service.ask("PUT", "/objects/a", b"", end)).status == 202
    assert (await service.ask("PUT", "/objects/a", b"", end | guard("X-Amz-Checksum-Crc64nvme", BODY))).status == 202
    refused(await service.ask("PUT", "/objects/a", b"", end | guard("X-Amz-Checksum-Crc64nvme", OTHER)), 400)


async def test_a_digest_that_was_only_wanted_costs_nothing_when_its_state_is_lost(start_service, tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "LIBRARY", None)
    service = await start_service()
    at = 2 * PART_BYTES + 100
    await service.leave("a", BODY[:at], **{"Want-Repr-Digest": "sha-256=1"})
    await service.becomes("a", stored=2 * PART_BYTES)
    directory, store = service.killed(tmp_path / "killed"), service.store
    await service.stop()
    service = await start_service(store=store, data=directory)
    answer = await service.ask("PUT", "/objects/a", BODY[at:], place(at))
    assert (201, BODY) == (answer.status, service.data("a"))
    assert "repr-digest" not in answer.headers


async def test_the_state_of_hashes_is_kept_where_somebody_may_go_on_from_it_only(service):
    answer = await service.ask("PUT", "/objects/a", BODY, guard("Content-MD5", BODY))
    row = (await service.checkpoint.find(answer.json["upload"])).upload
    assert [max(row.receipts)] == list(row.hashes)
