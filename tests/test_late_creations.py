"""CreateMultipartUpload that nobody waits for any more, and that the store acts on all the same: nothing stays (law 8).

Whoever gave it up has looked for it before that. So it is looked for once more, when it cannot come any more.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import test_uploads as base
from fake_store import FakeStore
from test_faults import feeding
from test_uploads import until

from streamup import drain
from streamup.errors import StoreUnavailable
from streamup.stores import ObjectMeta
from streamup.upload import State

no_waiting = base.no_waiting
clock = base.clock
start = base.start
process = base.process


@pytest.fixture
def store(clock):
    return FakeStore(clock=lambda: datetime.fromtimestamp(clock(), UTC))


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(drain, "LATE_SECONDS", 0.2)


async def settled(process, upload_id):
    """The upload, when nothing of it is left in the store, nor looked for."""
    async with asyncio.timeout(20):
        while True:
            upload = (await process.checkpoint.find(upload_id)).upload
            if upload.creating is None and upload.multipart_id is None:
                return upload
            await asyncio.sleep(0)


async def cancelled_while_it_creates(process, store):
    """The id of an upload that has ended, and has looked for what was on its way."""
    gate = store.hold("create_multipart")
    live, _, _ = await feeding(process, b"x" * 15)
    await gate.reached()
    await process.uploads.cancel(live)
    gate.release()
    await until(lambda: store.calls["list_multiparts"] and not store.in_flight.total())
    return live.upload.id


async def test_of_an_upload_that_was_cancelled_meanwhile(process, store):
    upload_id = await cancelled_while_it_creates(process, store)
    assert store.arrive_late()
    assert State.CANCELLED is (await settled(process, upload_id)).state
    assert {} == store.multiparts


async def test_the_next_process_looks_for_it(start, store, monkeypatch):
    monkeypatch.setattr(drain, "LATE_SECONDS", 3600.0)
    async with start() as first:
        upload_id = await cancelled_while_it_creates(first, store)
    monkeypatch.setattr(drain, "LATE_SECONDS", 0.2)
    looks = store.calls["list_multiparts"]
    async with start() as second:
        await until(lambda: store.calls["list_multiparts"] > looks and not store.in_flight.total())
        assert store.arrive_late()
        await settled(second, upload_id)
    assert {} == store.multiparts


@pytest.mark.parametrize("when", ["while parts go on", "when it is complete"])
async def test_of_an_upload_that_has_created_another(process, store, when):
    """Its answer was lost, and it was not there yet when it was looked for."""
    store.fail("create_multipart", StoreUnavailable)
    gate = store.hold("put_part")
    live, body, writing = await feeding(process, b"x" * 15, b"y" * 10)
    await gate.reached()
    (ours,) = store.multiparts
    if when == "while parts go on":
        assert store.arrive_late()
    gate.release()
    body.go_on.set()
    await writing
    await live.ended.wait()
    assert store.arrive_late() or when == "while parts go on"
    assert State.COMPLETE is (await settled(process, live.upload.id)).state
    assert (ours, {}) == (store.objects["key"].multipart_id, store.multiparts)


async def test_of_an_upload_that_needs_none_after_all(start, store):
    """All of it fits in one part, and that was not known before it was sealed."""
    gate = store.hold("create_multipart")
    async with start() as first:
        live, body, writing = await feeding(first, b"x" * 10)
        await gate.reached()
        body.go_on.set()
        await writing
    gate.release()
    async with start() as second:
        await until(lambda: not len(second.uploads.registry))
        assert store.arrive_late()
        assert State.COMPLETE is (await settled(second, live.upload.id)).state
    assert (None, {}) == (store.objects["key"].multipart_id, store.multiparts)


async def test_of_a_process_that_has_died(start, store):
    gate = store.hold("create_multipart")
    async with start() as first:
        live, _, _ = await feeding(first, b"x" * 15)
        await gate.reached()
    gate.release()
    async with start() as second:
        again = second.uploads.registry.get(live.upload.id)
        await until(lambda: again.upload.multipart_id)
        (ours,) = store.multiparts
        (late,) = store.arrive_late()
        await until(lambda: again.upload.receipts)
        assert {ours, late} == store.multiparts.keys()
        await second.uploads.cancel(again)
        await settled(second, live.upload.id)
    assert {} == store.multiparts


async def test_what_somebody_else_has_begun_later_is_spared(start, store, clock):
    """A server that was away for days finds what its creation has left, and nothing that cannot come from it."""
    async with start() as first:
        upload_id = await cancelled_while_it_creates(first, store)
    store.arrive_late()
    clock.now += 3 * 86400
    stranger = await store.create_multipart("key", ObjectMeta("foreign"))
    async with start() as second:
        await settled(second, upload_id)
    assert [stranger] == list(store.multiparts)


async def test_a_search_that_took_long_is_made_again_before_the_creation(process, store, clock):
    """Else nobody would know until when the creation may come: it is counted from before the search."""
    announced = []

    async def plan(operation, number):
        if operation == "create_multipart":
            (record,) = await process.checkpoint.unfinished()
            announced.append(clock.now - record.upload.creating)
            return StoreUnavailable if number == 1 else None
        if operation == "list_multiparts" and number == 1:
            clock.now += 3600
        return None

    store.plan = plan
    live, _, _ = await feeding(process, b"x" * 15)
    await until(lambda: live.upload.multipart_id)
    assert [0, 0] == announced
    assert 2 == store.calls["list_multiparts"]


async def test_nothing_is_looked_for_twice_when_every_creation_was_answered(process, store):
    live, body, writing = await feeding(process, b"x" * 15, b"y" * 10)
    body.go_on.set()
    await writing
    await live.ended.wait()
    await settled(process, live.upload.id)
    assert 0 == store.calls["list_multiparts"]
