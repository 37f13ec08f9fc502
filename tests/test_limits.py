"""What keeps one client, or a thousand, from taking what the others need: shares, paces, least rates, ages.

On whole services; what belongs to the budget alone is in test_spool.py, places for connections are in
test_listeners.py, a thousand real attackers in test_attack.py.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace
from hashlib import sha256

import pytest
from conftest import BODY, PART_BYTES, REST, START
from raw_client import CHUNKED, EXPECT, LAST_CHUNK, TUS, Client, at, chunk, eventually, head, place, refused

from streamup import registry
from streamup.config import Config
from streamup.errors import ConfigError, RequestShareTaken, TooManyAppends
from streamup.limits import BURST_SECONDS, DELAY_SECONDS, HURRIED_DELAY_SECONDS, Pace, Requests
from streamup.service import _within_descriptors

pytestmark = pytest.mark.usefixtures("impatient")

KEYS = {name: f"the key of {name}, which is long" for name in ("one", "other")}
TWO_SUBJECTS = tuple(sha256(key.replace(" ", "-").encode()).digest() for key in KEYS.values())


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name].replace(' ', '-')}"}


ONE, OTHER = as_("one"), as_("other")
DRAFT = {"Upload-Draft-Interop-Version": "7", "Upload-Complete": "?1"}
"""A client that knows how to resume, and says 503 means later."""


async def stay(service, key, headers, data=b"x"):
    """A writer that is there and says no more."""
    client = await service.connect()
    await client.send(head("PUT", f"/objects/{key}", CHUNKED | headers) + chunk(data))
    await eventually(lambda: any(live.upload.key == key and live.upload.received for live in service.uploads.registry))
    return client


# -- of one subject -------------------------------------------------------------------------------------------------


def test_requests_are_counted_while_they_last():
    requests = Requests(2)
    with requests.one_more("a"), requests.one_more("b"):
        with requests.one_more("a"), pytest.raises(RequestShareTaken) as refusal, requests.one_more("a"):
            pass
        assert refusal.value.numbers == {"limit": 2}
        assert "2 of 2 subjects" in repr(requests)
        with requests.one_more("a"):
            pass
    assert "0 of 0 subjects" in repr(requests)


def test_nobody_is_counted_out_where_there_is_no_limit():
    requests, pace = Requests(None), Pace(None)
    with requests.one_more("a"), requests.one_more("a"):
        assert [pace.delay("a", 0.0) for _ in range(1000)] == [0.0] * 1000
    assert "0 subjects" in repr(pace)


def test_a_pace_gives_way_to_a_burst_then_slows_down_then_refuses():
    pace, now = Pace(8), 100.0
    assert [pace.delay("a", now) for _ in range(17)] == [0.0] * 17, "what comes together, and one"
    assert [pace.delay("a", now) for _ in range(4)] == [0.125, 0.25, 0.375, DELAY_SECONDS]
    with pytest.raises(TooManyAppends) as refusal:
        pace.delay("a", now)
    assert refusal.value.numbers == {"limit": 8}
    assert pace.delay("b", now) == 0, "others are not concerned"
    assert pace.delay("a", now + 0.125) == DELAY_SECONDS, "a refusal does not count"


def test_who_waits_for_100_is_not_delayed_for_long():
    pace = Pace(16)
    for _ in range(33):
        pace.delay("a", 0.0)
    assert pace.delay("a", 0.0, hurried=True) == 0.0625 < HURRIED_DELAY_SECONDS
    with pytest.raises(TooManyAppends):
        pace.delay("a", 0.0, hurried=True)


def test_in_the_long_run_it_is_the_pace_and_one_after_another_is_never_refused():
    pace, now, count = Pace(50), 0.0, 0
    while now < 60:
        now += pace.delay("a", now) + 0.001
        count += 1
    assert count == pytest.approx(60 * 50 + BURST_SECONDS * 50, rel=0.01)


def test_a_pace_remembers_nobody_for_long():
    pace = Pace(10)
    for number in range(10_000):
        pace.delay(f"subject {number}", number / 1000)
    assert len(pace._due) <= 102, "those of the last tenth of a second"


async def test_one_subject_cannot_open_all_uploads(start_service):
    service = await start_service(api_key_sha256=TWO_SUBJECTS, max_open_uploads=4, idle_seconds=0.3)
    await stay(service, "a", ONE)
    await stay(service, "b", ONE)
    answer = refused(await service.ask("PUT", "/objects/c", b"body", ONE), 507, limit=2)
    assert "retry-after" in answer.headers
    assert "GET /uploads" in answer.detail
    assert refused(await service.ask("PUT", "/objects/c", None, ONE | CHUNKED | EXPECT), 503).interim == ()
    assert (await service.ask("PUT", "/objects/c", b"body", OTHER)).status == 201
    for one in (await service.ask("GET", "/uploads", headers=ONE)).json["uploads"]:
        assert (await service.ask("DELETE", f"/uploads/{one['id']}", headers=ONE)).status == 204
    assert (await service.ask("PUT", "/objects/c", b"body", ONE)).status == 201
    assert not service.uploads.registry._by_subject


async def test_one_subject_cannot_keep_all_of_the_server_busy(start_service):
    service = await start_service(api_key_sha256=TWO_SUBJECTS, max_connections=20, subject_share_percent=5)
    writer = await stay(service, "a", ONE)
    refused(await service.ask("PUT", "/objects/b", b"body", ONE), 507, limit=1)
    refused(await service.ask("PUT", "/objects/b", None, ONE | CHUNKED | EXPECT), 503)
    refused(await service.ask("PUT", "/objects/b", b"body", ONE | DRAFT), 503)
    refused(await service.ask("POST", "/uploads", b"", ONE | TUS | {"Upload-Length": "3"}), 503)
    assert (await service.ask("HEAD", "/uploads/x", headers=ONE | TUS)).status == 423, "or tus-js-client begins anew"
    assert (await service.ask("PUT", "/objects/b", b"body", OTHER)).status == 201
    await writer.send(LAST_CHUNK)
    assert (await writer.answer()).status == 201
    assert (await service.ask("PUT", "/objects/b", b"body", ONE)).status == 201


async def test_appends_of_one_subject_are_refused_when_they_come_too_fast(start_service):
    service = await start_service(api_key_sha256=TWO_SUBJECTS, subject_appends=1)
    plain = [service.ask("PUT", f"/objects/{n}", b"body", ONE) for n in range(12)]
    drafts = [service.ask("PUT", f"/objects/d{n}", b"body", ONE | DRAFT) for n in range(12)]
    answers = await asyncio.gather(*plain, *drafts)
    assert {answer.status for answer in answers[:12]} == {201, 507}
    assert 503 in {answer.status for answer in answers[12:]} <= {201, 503}
    assert all(
        "retry-after" in refused(answer, answer.status, limit=1).headers for answer in answers if answer.status > 500
    )
    assert (await service.ask("PUT", "/objects/a", b"body", OTHER)).status == 201


async def test_who_is_a_little_too_fast_is_slowed_down(start_service, monkeypatch):
    monkeypatch.setattr("streamup.limits.BURST_SECONDS", -0.3)
    service = await start_service(api_key_sha256=TWO_SUBJECTS, subject_appends=1)
    began = asyncio.get_running_loop().time()
    assert (await service.ask("PUT", "/objects/a", b"body", ONE)).status == 201
    assert asyncio.get_running_loop().time() - began > 0.3


async def test_one_subject_cannot_hold_all_of_the_spool(start_service):
    """With digests: such appends reserve everything before their first byte, and need never send one."""
    service = await start_service(api_key_sha256=TWO_SUBJECTS, spool_bytes=64 * PART_BYTES)
    digest = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:", "Upload-Complete": "?0"}
    budget, slow = service.spool.budget, []
    for number in range(4):
        client = await service.connect()
        headers = ONE | digest | {"Content-Length": str(8 * PART_BYTES)}
        await client.send(head("POST", f"/uploads?key=slow{number}", headers) + b"x")
        await eventually(lambda number=number: budget.reserved == 8 * (number + 1) * PART_BYTES)
        slow.append(client)
    refused(await service.ask("PUT", "/objects/a", b"body", ONE), 507, limit=32 * PART_BYTES)
    assert (await service.ask("PUT", "/objects/a", BODY, OTHER)).status == 201
    for client in slow:
        client.close()
    await eventually(lambda: not budget.reserved)
    assert (await service.ask("PUT", "/objects/a", b"body", ONE)).status == 201
    assert (budget._of_subject, budget._subjects) == ({}, {})


async def test_who_waits_for_its_own_share_goes_on_when_there_is_room(start_service):
    service = await start_service(api_key_sha256=TWO_SUBJECTS, spool_bytes=50 * PART_BYTES, subject_share_percent=4)
    gate = service.store.hold("put_part")
    one = await service.connect()
    await one.send(head("PUT", "/objects/a", CHUNKED | ONE) + chunk(BODY) + LAST_CHUNK)
    one.methods.append("PUT")
    await eventually(lambda: service.spool.budget._waiting)
    other = asyncio.create_task(service.ask("PUT", "/objects/b", BODY, OTHER))
    await gate.reached(4)
    gate.release()
    assert ((await one.answer()).status, (await other).status) == (201, 201)
    assert service.data("a") == service.data("b") == BODY


# -- of one body, and of one upload ---------------------------------------------------------------------------------


async def drip(client: Client, piece: bytes, every: float) -> None:
    try:
        while True:
            await client.send(chunk(piece))
            await asyncio.sleep(every)
    except ConnectionError:
        pass


async def test_who_drips_is_interrupted_and_what_came_is_kept(start_service):
    service = await start_service(idle_seconds=0.3, min_rate=1000)
    client, _ = await service.begin()
    dripping = asyncio.create_task(drip(client, b"x", 0.05))
    answer = refused(await client.answer(), 409)
    assert "fewer than 1000 bytes a second" in answer.detail.lower()
    await dripping
    upload = await service.becomes("a", writer=False)
    assert upload["offset"] > len(START)
    rest = await service.ask("PUT", "/objects/a", REST, place(upload["offset"]))
    assert rest.status == 201


async def test_who_is_slow_and_fast_enough_is_not_interrupted(start_service):
    service = await start_service(idle_seconds=0.2, min_rate=1000)
    client, _ = await service.begin(data=b"x" * 500)
    for _ in range(8):
        await asyncio.sleep(0.1)
        await client.send(chunk(b"x" * 300))
    await client.send(LAST_CHUNK)
    client.methods.append("PUT")
    assert (await client.answer()).json["size"] == 500 + 8 * 300


async def test_time_in_which_nobody_reads_is_not_the_clients(start_service):
    service = await start_service(idle_seconds=0.2, min_rate=1 << 40, spool_bytes=8 * PART_BYTES)
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(BODY) * 4 + LAST_CHUNK)
    client.methods.append("PUT")
    await eventually(lambda: service.spool.budget._waiting)
    with pytest.raises(TimeoutError):
        await client.answer(seconds=0.5)
    client.methods.append("PUT")
    gate.release()
    assert (await client.answer()).status == 201


async def test_an_upload_takes_bytes_for_so_long_whatever_its_writer_does_and_can_then_be_ended(start_service):
    service = await start_service(max_age_seconds=1.5, min_rate=0)
    client, upload_id = await service.begin()
    dripping = asyncio.create_task(drip(client, b"x", 0.05))
    assert f"streamup finish {upload_id}" in refused(await client.answer(), 403).detail
    await dripping
    offset = (await service.becomes("a", writer=False))["offset"]
    answer = refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"more", at(offset, complete=True)), 403)
    assert "streamup finish" in answer.detail
    refused(await service.ask("PUT", "/objects/a?interrupted=append", b"more"), 403)
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"", TUS | {"Upload-Offset": str(offset)}), 415)
    ended = await service.ask("PATCH", f"/uploads/{upload_id}", b"", at(offset, complete=True))
    assert (ended.status, ended.json["size"]) == (201, offset)


async def test_sealed_uploads_have_no_age(start_service, monkeypatch):
    monkeypatch.setattr(registry, "UPKEEP_SECONDS", 0.05)
    service = await start_service(max_age_seconds=0.2)
    gate = service.store.hold("put_object")
    sending = asyncio.create_task(service.ask("PUT", "/objects/a", b"body"))
    await gate.reached(1)
    await asyncio.sleep(0.4)
    gate.release()
    assert (await sending).status == 201


# -- of the process ---------------------------------------------------------------------------------------------------


def test_connections_are_no_more_than_there_are_descriptors_for(caplog):
    config = Config(max_connections=2000, parallel_parts=8)
    assert _within_descriptors(config, 1 << 20) == _within_descriptors(config, resource.RLIM_INFINITY) == config
    lowered = _within_descriptors(config, 1024).max_connections
    assert 2 * lowered + 2 * 8 < 1024 - 150
    assert "2000 is lowered to 404" in caplog.text
    of_several = replace(config, api_key_sha256=TWO_SUBJECTS)
    assert _within_descriptors(of_several, 1024).share(lowered) == 202, "half of those that there are"
    with pytest.raises(ConfigError, match="ulimit -n"):
        _within_descriptors(config, 200)
