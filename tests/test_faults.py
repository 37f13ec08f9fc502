"""Faults that reviews have proved, each of which was once a loss, a hang or a wrong answer."""

import asyncio
import errno
import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import test_uploads as base
from fake_store import DROP, Keeps, flipped
from test_uploads import (
    NOBODY,
    Body,
    FlakyFiles,
    append,
    turns,
    until,
)

from streamup import accumulator, checkpoint, registry, service, uploader
from streamup.errors import (
    AlreadyComplete,
    CheckpointDelayed,
    CheckpointError,
    EmptyBody,
    LengthExceeded,
    SpoolError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadBusy,
    UploadExists,
    WriterStopped,
)
from streamup.spool import Budget
from streamup.upload import State

no_waiting = base.no_waiting
store = base.store
clock = base.clock
start = base.start
process = base.process


@pytest.fixture(autouse=True)
def a_busy_disk_is_soon_asked_again(monkeypatch):
    monkeypatch.setattr(accumulator, "DISK_FULL_SECONDS", 0.001)
    monkeypatch.setattr(checkpoint, "FULL_SECONDS", 0.001)


class Disk(FlakyFiles):
    """Opens nothing (`append_error`), reads nothing (`read_error`), removes nothing (`unlink_error`), is full (`room`),
    and a power cut (`cut`) takes what was not synced.
    """

    append_error = read_error = unlink_error = None
    room = 1 << 40

    def __init__(self):
        self.synced = {}

    def append(self, path):
        if self.append_error:
            raise OSError(self.append_error, os.strerror(self.append_error))
        return super().append(path)

    def read(self, path, start, end):
        if self.read_error:
            raise OSError(self.read_error, os.strerror(self.read_error))
        return super().read(path, start, end)

    def unlink(self, path):
        if self.unlink_error:
            raise OSError(self.unlink_error, os.strerror(self.unlink_error))
        super().unlink(path)

    def sync(self, path):
        super().sync(path)
        self.synced[path] = path.stat().st_size

    def free(self, directory):  # noqa: ARG002 - the signature is the system's
        return self.room

    def cut(self, directory):
        for path in directory.iterdir():
            os.truncate(path, self.synced.get(path, 0))


@pytest.fixture
def disk(process):
    process.files = process.spool.files = process.uploader.files = Disk()
    return process.files


def unreadable(process):
    """From now on the checkpoint does not say what it knows of an upload, until the event is set."""
    readable, find = asyncio.Event(), process.checkpoint.find

    async def waiting(upload_id):
        await readable.wait()
        return await find(upload_id)

    process.checkpoint.find = waiting
    return readable


async def read_again(process, live):
    """Wait until this upload has given way to what the checkpoint says of it; the fresh one."""
    await until(lambda: process.uploads.registry.get(live.upload.id) is not live)
    return process.uploads.registry.get(live.upload.id)


async def go_on(process, offset, data):
    """Append the rest; the upload once it has ended."""
    writer = await process.uploads.append(append(offset), NOBODY)
    return await process.uploads.outcome(await process.uploads.write(writer, Body(data)), 5)


async def feeding(process, *chunks, **options):
    """A writer that has fed the first chunk and waits to go on: itself, its body, its task."""
    writer, body = await process.create(**options), Body(chunks[0], None, *chunks[1:])
    task = process.running(writer, body)
    await body.waiting.wait()
    return writer.live, body, task


def idle(process):
    """Nothing is left behind: no live upload, no budget."""
    return (len(process.uploads.registry), process.spool.budget.reserved) == (0, 0)


# -- empty bodies -------------------------------------------------------------------------------------------------


async def test_an_empty_append_seals_nothing_after_a_restart(start, store):
    async with start() as first:
        await first.interrupted(b"abcde")
        with pytest.raises(EmptyBody):
            await first.send(Body(), policy="append", content_length=0)
    async with start() as second:
        [upload], _ = await second.uploads.look_all(NOBODY)
        assert (State.OPEN, 5, False) == (upload.state, upload.offset, upload.due)
        assert (await go_on(second, 5, b"fgh")).state is State.COMPLETE
    assert store.objects["key"].data == b"abcdefgh"


async def test_nor_is_it_said_where_all_ends_by_who_adds_nothing(process):
    live = await process.interrupted(b"abcde")
    await process.create(policy="append", content_length=0, length=9, seals_at_length=True)
    assert live.upload.seal_at is None


@pytest.mark.parametrize("received", [b"", b"abcde"])
async def test_nor_does_one_that_only_says_how_long_all_is(process, received):
    """Its body has not ended, and if the process dies now it never will: nobody knows that nothing would have come."""
    live = await process.interrupted(received)
    writer = await process.create(policy="append", length=len(received))
    assert (writer.live, live.upload.seal_at, live.upload.due) == (live, None, False)


async def test_an_empty_append_that_is_stopped_before_it_feeds_seals_nothing(process, store):
    live = await process.interrupted(b"abcde")
    writer = await process.create(policy="append", content_length=0)
    inspecting = asyncio.create_task(process.uploads.inspect(live))
    await asyncio.sleep(0)
    with pytest.raises(WriterStopped):
        await process.uploads.write(writer, Body())
    assert (State.OPEN, 5, {}) == ((await inspecting).state, live.upload.offset, store.objects)


async def test_a_declared_length_of_0_takes_no_bytes(process, store):
    with pytest.raises(LengthExceeded):
        await process.send(Body(b"abc"), length=0)
    [upload], _ = await process.uploads.look_all(NOBODY)
    assert (State.FAILED, {}, True) == (upload.state, store.objects, idle(process))


async def test_a_declared_length_of_0_is_an_error_of_the_client(service):
    answer = await service.ask("PUT", "/objects/a", None, {"Upload-Length": "0"}, chunks=[b"abc"])
    assert (400, None) == (answer.status, service.data("a"))


async def test_an_empty_object_replaces_an_open_upload(process, store):
    old = await process.interrupted(b"abcde")
    upload = await process.put(b"", policy="replace", content_length=0)
    assert (State.COMPLETE, State.CANCELLED) == (upload.state, old.upload.state)
    assert (b"", True, []) == (store.objects["key"].data, idle(process), process.names())


# -- a machine that is busy, or full ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_writer_waits_until_a_part_file_can_be_opened(process, disk, store, number):
    live, body, writing = await feeding(process, b"x" * 15, b"y" * 10)
    disk.append_error = number
    body.go_on.set()
    await until(lambda: live.upload.received == 20)
    await turns(100)
    assert (False, State.OPEN, 20) == (writing.done(), live.upload.state, live.upload.received)
    disk.append_error = None
    await process.uploads.outcome(await writing, 5)
    assert store.objects["key"].data == b"x" * 15 + b"y" * 10


@pytest.mark.parametrize("data", [b"", b"x" * 10])
async def test_a_part_file_that_never_was_opened_is_no_part(process, disk, store, data):
    """An upload ends where its next part would have begun, and no file could be opened for that one."""
    writer, body = await process.create(), Body(*[data] * bool(data), None, b"y")
    writing = process.running(writer, body)
    await body.waiting.wait()
    disk.append_error = errno.EMFILE
    body.go_on.set()
    await until(lambda: process.spool.budget.reserved == 2 * len(data) + 10 * (not data))
    assert (await process.uploads.inspect(writer.live)).offset == len(data)
    assert isinstance(*await asyncio.gather(writing, return_exceptions=True), WriterStopped)
    disk.append_error = None
    upload = await go_on(process, len(data), b"")
    assert (State.COMPLETE, None) == (upload.state, upload.reason)
    assert (data, True, []) == (store.objects["key"].data, idle(process), process.names())


async def test_a_sync_that_cannot_open_its_file_fails_nothing(process, disk, store):
    live, body, writing = await feeding(process, b"abcde", b"fgh")
    disk.sync_error = errno.EMFILE
    with pytest.raises(CheckpointError):
        await process.uploads.announce(live)
    assert (State.OPEN, False, 0) == (live.upload.state, live.stale, live.upload.offset)
    body.ending = "reset"
    body.go_on.set()
    await until(lambda: live.upload.received == 8)
    await turns(100)
    assert (False, False) == (writing.done(), live.stale)
    disk.sync_error = None
    with pytest.raises(WriterStopped):
        await writing
    assert process.uploads.open_upload("key", NOBODY) is live
    assert (await go_on(process, 8, b"ij")).state is State.COMPLETE
    assert store.objects["key"].data == b"abcdefghij"


async def test_an_upload_that_is_read_again_while_no_file_can_be_opened_loses_nothing(process, disk, store):
    live = await process.interrupted(b"abcde")
    disk.read_error = errno.EMFILE
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.uploads.append(append(5), NOBODY)
    await asyncio.sleep(0.1)
    disk.read_error = None
    assert await read_again(process, live), "it has failed"
    await go_on(process, 5, b"fgh")
    assert store.objects["key"].data == b"abcdefgh"


async def test_a_part_is_begun_only_above_the_floor_of_the_disk(process, disk, store):
    process.spool.floor = 100
    live, body, writing = await feeding(process, b"x" * 5, b"y" * 10)
    disk.room = 109
    body.go_on.set()
    await until(lambda: live.upload.received == 10)
    await asyncio.sleep(0.02)
    assert (10, False) == (live.upload.received, writing.done()), "what was begun fills, and no more is begun"
    disk.room = 110
    await process.uploads.outcome(await writing, 5)
    assert store.objects["key"].data == b"x" * 5 + b"y" * 10


async def test_a_writer_that_waits_for_the_disk_can_be_stopped(process, disk):
    process.spool.floor = 100
    live, body, writing = await feeding(process, b"x" * 10, b"y" * 10)
    disk.room = 0
    body.go_on.set()
    await asyncio.sleep(0.01)
    upload = await process.uploads.inspect(live)
    with pytest.raises(WriterStopped):
        await writing
    assert 10 == upload.received == upload.offset


async def test_a_part_larger_than_the_whole_budget_goes_alone():
    budget = Budget(80)
    await budget.reserve("small", 5)
    large = asyncio.create_task(budget.reserve("large", 100))
    behind = asyncio.create_task(budget.reserve("behind", 5))
    await turns()
    assert (False, False, 5) == (large.done(), behind.done(), budget.reserved)
    budget.release("small", 5)
    await turns()
    assert (True, False, 100) == (large.done(), behind.done(), budget.reserved)
    budget.release("large", 100)
    await turns()
    assert (True, 5) == (behind.done(), budget.reserved)


# -- a checkpoint whose disk is full ------------------------------------------------------------------------------


@contextmanager
def full(process):
    """No transaction commits in here; what `insist`s is tried again often."""
    transact = process.checkpoint._transact

    async def refused(name, _):
        process.refused.append(name)
        raise CheckpointDelayed(f"no room for {name}")

    process.refused = []
    process.checkpoint._transact = refused
    try:
        yield
    finally:
        process.checkpoint._transact = transact


async def test_who_asks_on_a_full_disk_is_refused_and_the_stream_goes_on(process, store):
    live, body, writing = await feeding(process, b"abcde", b"fgh")
    with full(process):
        with pytest.raises(CheckpointDelayed):
            await process.uploads.announce(live)
        assert (False, 0) == (live.stale, live.upload.offset)
        body.go_on.set()
    await process.uploads.outcome(await writing, 5)
    assert (b"abcdefgh", True) == (store.objects["key"].data, idle(process))


async def test_receipts_wait_for_room_and_the_stream_goes_on(process, store):
    live, body, writing = await feeding(process, b"x" * 5, b"y" * 41)
    with full(process):
        body.go_on.set()
        await until(lambda: process.refused)
        await until(lambda: live.upload.received == 46)
        await turns(100)
        assert (False, False, {}) == (live.stale, writing.done(), live.upload.receipts)
    await process.uploads.outcome(await writing, 5)
    assert (b"x" * 5 + b"y" * 41, True) == (store.objects["key"].data, idle(process))


@pytest.mark.parametrize("ending", [None, "reset"])
async def test_the_end_of_a_body_waits_for_room(process, store, ending):
    live, body, writing = await feeding(process, b"abcde")
    body.ending = ending
    with full(process):
        body.go_on.set()
        await until(lambda: len(process.refused) > 3)
        assert (False, False) == (writing.done(), live.stale)
    if ending:
        with pytest.raises(WriterStopped):
            await writing
        assert (await go_on(process, 5, b"fgh")).state is State.COMPLETE
    else:
        assert (await process.uploads.outcome(await writing, 5)).state is State.COMPLETE
    assert (b"abcde" + b"fgh" * bool(ending), True) == (store.objects["key"].data, idle(process))


async def test_an_upload_expires_no_sooner_for_the_time_its_client_waited_for_room(process, clock):
    live, body, writing = await feeding(process, b"abcde")
    body.ending = "reset"
    with full(process):
        body.go_on.set()
        await until(lambda: process.refused)
        clock.now += 3600
    with pytest.raises(WriterStopped):
        await writing
    record = await process.checkpoint.find(live.upload.id)
    assert (clock.now, clock.now) == (live.upload.touched, record.upload.touched)


async def test_who_waits_for_room_gives_way_to_who_comes(process, store):
    live, body, writing = await feeding(process, b"abcde")
    with full(process):
        body.go_on.set()
        await until(lambda: process.refused)
        with pytest.raises(UploadBusy):
            await process.uploads.inspect(live)
        with pytest.raises(CheckpointError):
            await writing
    assert (await read_again(process, live)).upload.received == 5
    assert (await go_on(process, 5, b"fgh")).state is State.COMPLETE
    assert (b"abcdefgh", True) == (store.objects["key"].data, idle(process))


async def test_a_sealed_upload_whose_disk_is_full_is_still_waited_for(process, store):
    """Its client has time, and there may be room before that is over."""
    gate = store.hold("put_object")
    writer = await process.create()
    live = await process.uploads.write(writer, Body(b"abc"))
    await gate.reached()
    with full(process):
        outcome = asyncio.create_task(process.uploads.outcome(live, 5))
        await until(lambda: process.refused)
        gate.release()
        await turns(50)
        assert not outcome.done()
    assert ((await outcome).state, b"abc") == (State.COMPLETE, store.objects["key"].data)


# -- a checkpoint that fails --------------------------------------------------------------------------------------


async def test_a_stale_upload_still_holds_its_key(process, store):
    live = await process.interrupted(b"abcde")
    readable = unreadable(process)
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.uploads.append(append(5), NOBODY)
    for policy in ("reject", "append", "replace", "new"):
        with pytest.raises(UploadBusy):
            await process.create(policy=policy)
    for intent in (append(5), append(5, upload_id=live.upload.id)):
        with pytest.raises(UploadBusy):
            await process.uploads.append(intent, NOBODY)
    with pytest.raises(UploadBusy):
        await process.uploads.cancel(live)
    readable.set()
    assert (await read_again(process, live)).upload.received == 5
    assert (await go_on(process, 5, b"fgh")).state is State.COMPLETE
    assert (b"abcdefgh", True) == (store.objects["key"].data, idle(process))


async def test_no_offset_of_a_stale_upload_is_told_or_committed(process):
    live, body, writing = await feeding(process, b"abcde")
    readable, find = unreadable(process), type(process.checkpoint).find
    process.checkpoint.failing = ["announce"]
    with pytest.raises(CheckpointError):
        await process.uploads.announce(live)
    body.go_on.set()
    with pytest.raises(CheckpointError):
        await writing
    for question in (process.uploads.announce, process.uploads.inspect):
        with pytest.raises(UploadBusy):
            await question(live)
    assert (await find(process.checkpoint, live.upload.id)).upload.offset == 0
    readable.set()
    fresh = await read_again(process, live)
    assert (5, 5) == (await process.uploads.announce(fresh), (await process.uploads.inspect(fresh)).offset)


async def test_a_takeover_that_queued_while_a_commit_failed_does_not_enter(process, store):
    live = await process.interrupted(b"abcde")
    readable = unreadable(process)
    async with live.entry:
        queued = asyncio.create_task(process.uploads.append(append(5), NOBODY))
        await turns()
        process.checkpoint.failing = ["save"]
        with pytest.raises(CheckpointError):
            await process.uploads.registry.keep(live)
    with pytest.raises(UploadBusy):
        await queued
    readable.set()
    await read_again(process, live)
    assert process.spool.budget.reserved == 5
    await go_on(process, 5, b"fgh")
    assert (b"abcdefgh", True) == (store.objects["key"].data, idle(process))


async def test_a_sync_that_failed_stays_failed_although_that_was_not_committed_at_once(process, disk):
    live, body, writing = await feeding(process, b"abcde")
    disk.sync_error = errno.EIO
    process.checkpoint.failing = ["save"]
    with pytest.raises((CheckpointError, SpoolError)):
        await process.uploads.announce(live)
    disk.sync_error = None
    body.go_on.set()
    await asyncio.gather(writing, return_exceptions=True)
    assert await read_again(process, live) is None
    record = await process.checkpoint.find(live.upload.id)
    assert (State.FAILED, 0) == (record.upload.state, record.upload.offset)
    assert (None, True, []) == (process.uploads.open_upload("key", NOBODY), idle(process), process.names())


async def test_a_sync_on_its_way_that_fails_when_its_upload_is_read_again_stays_failed(process, disk):
    live, _, writing = await feeding(process, b"abcde")
    began, may_end, sync = threading.Event(), threading.Event(), disk.sync

    def slow(path):
        began.set()
        may_end.wait()
        sync(path)

    disk.sync = slow
    asking = asyncio.create_task(process.uploads.announce(live))
    await asyncio.to_thread(began.wait)
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        async with process.uploads.registry.committing(live):
            await process.checkpoint.save(live.upload)
    await turns(100)
    disk.sync_error = errno.EIO
    may_end.set()
    await asyncio.gather(asking, writing, return_exceptions=True)
    disk.sync, disk.sync_error = sync, None
    await until(lambda: process.uploads.registry.get(live.upload.id) is None)
    record = await process.checkpoint.find(live.upload.id)
    assert (State.FAILED, 0) == (record.upload.state, record.upload.offset)


@pytest.mark.parametrize("announced", [0, 3])
async def test_a_sync_that_failed_stays_failed_although_that_was_never_committed(start, announced):
    """The next process would find the bytes, sync them, and call that a success."""
    async with start() as first:
        disk = first.files = first.spool.files = first.uploader.files = Disk()
        live, body, writing = await feeding(first, b"abc", b"de")
        if announced:
            await first.uploads.announce(live)
        disk.sync_error, body.ending = errno.EIO, "reset"
        first.checkpoint.failing = ["save"] * 1000
        body.go_on.set()
        await asyncio.gather(writing, return_exceptions=True)
        assert (State.FAILED, announced, True) == (live.upload.state, live.upload.offset, live.stale)
    async with start() as second:
        upload = await second.uploads.look(live.upload.id, NOBODY)
        assert (State.FAILED if announced else State.OPEN, announced) == (upload.state, upload.offset)
        assert announced or upload.received == 0


async def test_nor_is_that_forgotten_which_failed_while_the_object_was_completed(start, store):
    async with start() as first:
        disk = first.files = first.spool.files = first.uploader.files = Disk()
        live = await first.interrupted(b"abcd")

        def fail(_):
            first.checkpoint.failing = ["save"] * 1000
            raise OSError(errno.EIO, "as the test wants it")

        disk.sync = fail
        writer = await first.uploads.append(append(4, content_length=4), NOBODY)
        await first.uploads.write(writer, Body(b"efgh"))
        await until(lambda: live.stale)
        assert live.upload.state is State.FAILED
    async with start() as second:
        upload = await second.uploads.look(live.upload.id, NOBODY)
        assert (State.FAILED, 4, {}) == (upload.state, upload.offset, store.objects)


async def test_a_committed_offset_never_falls(process):
    live = await process.interrupted(b"abcde")
    await process.checkpoint.save(replace(live.upload, offset=0, touched=7.0))
    record = await process.checkpoint.find(live.upload.id)
    assert (5, 7.0) == (record.upload.offset, record.upload.touched)


async def test_a_stop_does_not_wait_for_what_a_broken_disk_keeps_from_its_end(process, disk):
    live, _, writing = await feeding(process, b"abcde")
    disk.sync_error = errno.EIO
    process.checkpoint.failing = ["save"] * 1000
    with pytest.raises((CheckpointError, SpoolError)):
        await process.uploads.announce(live)
    await asyncio.gather(writing, return_exceptions=True)
    async with asyncio.timeout(5):
        await process.uploads.stop(60)


# -- power cuts ---------------------------------------------------------------------------------------------------


async def test_offsets_that_were_told_survive_a_power_cut_while_a_single_object_is_stored(start, store):
    gate = store.hold("put_object")
    async with start() as first:
        disk = first.files = first.spool.files = first.uploader.files = Disk()
        live = await first.interrupted(b"abcd")
        assert live.upload.offset == 4
        writer = await first.uploads.append(append(4, content_length=4), NOBODY)
        await first.uploads.write(writer, Body(b"efgh"))
        await gate.reached()
        assert live.upload.state is State.COMPLETING
    disk.cut(first.spool.directory)
    gate.release()
    async with start("another boot") as second:
        await until(lambda: not len(second.uploads.registry))
        upload = await second.uploads.newest_ended("key", NOBODY)
        assert (State.COMPLETE, None) == (upload.state, upload.reason)
    assert store.objects["key"].data == b"abcdefgh"


async def test_so_do_those_that_are_told_while_the_upload_ends(start, store):
    """A sync is under way when the last bytes come: what it makes durable is not all, and it is told after the seal."""
    gate, committed, told = store.hold("put_object"), asyncio.Event(), asyncio.Event()
    async with start() as first:
        disk = first.files = first.spool.files = first.uploader.files = Disk()
        live, body, writing = await feeding(first, b"abcd", b"efgh")
        announce = first.checkpoint.announce

        async def announce_slowly(*what):
            await announce(*what)
            committed.set()
            await told.wait()

        first.checkpoint.announce = announce_slowly
        asking = asyncio.create_task(first.uploads.announce(live))
        await committed.wait()
        first.checkpoint.announce = announce
        body.go_on.set()
        await writing
        await turns(100)
        told.set()
        await gate.reached()
        assert (4, State.COMPLETING) == (await asking, live.upload.state)
    disk.cut(first.spool.directory)
    gate.release()
    async with start("another boot") as second:
        await until(lambda: not len(second.uploads.registry))
        upload = await second.uploads.newest_ended("key", NOBODY)
        assert (State.COMPLETE, None) == (upload.state, upload.reason)
    assert store.objects["key"].data == b"abcdefgh"


async def test_an_object_that_is_not_whole_is_no_success_when_a_power_cut_took_what_it_was_made_of(start, store):
    """What is left to compare it with is the checksum that was committed before the store was asked."""
    stored = store.hold("put_object")
    store.fail("put_object", (Keeps(flipped), DROP))
    async with start() as first:
        disk = first.files = first.spool.files = first.uploader.files = Disk()
        await first.uploads.write(await first.create(content_length=4), Body(b"abcd"))
        await stored.reached()
        looking = store.hold("head")
        stored.release()
        await looking.reached()
        assert store.objects["key"].data not in {b"", b"abcd"}
    disk.cut(first.spool.directory)
    looking.release()
    async with start("another boot") as second:
        await until(lambda: not len(second.uploads.registry))
        upload = await second.uploads.newest_ended("key", NOBODY)
        assert (State.FAILED, {}) == (upload.state, store.objects)
        assert "is not what was sent" in upload.reason


async def test_an_object_that_is_not_whole_goes_although_the_disk_fails_its_upload(start, store, monkeypatch):
    """The object is looked at first: it may be there from before the process was killed."""
    stored = store.hold("put_object")
    store.fail("put_object", (Keeps(flipped), DROP))
    async with start() as first:
        live = await first.uploads.write(await first.create(content_length=4), Body(b"abcd"))
        await first.uploads.announce(live)
        await stored.reached()
        looking = store.hold("head")
        stored.release()
        await looking.reached()
        assert store.objects["key"].data not in {b"", b"abcd"}

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(base.FlakyFiles, "sync_directory", fails)
    looking.release()
    async with start() as second:
        await until(lambda: not len(second.uploads.registry))
        upload = await second.uploads.newest_ended("key", NOBODY)
        assert (State.FAILED, {}) == (upload.state, store.objects)


# -- drains and upkeep --------------------------------------------------------------------------------------------


async def test_an_orphan_hunt_that_waits_out_an_outage_spares_a_successor(process, store):
    outage = store.hold("create_multipart")
    live, body, writing = await feeding(process, b"x" * 15)
    await outage.reached()
    body.ending = "reset"
    body.go_on.set()
    with pytest.raises(WriterStopped):
        await writing
    hunt = store.hold("list_multiparts")
    writer, body = await process.create(policy="replace"), Body(b"y" * 25, None, b"z" * 10)
    writing = process.running(writer, body)
    await hunt.reached()
    outage.release()
    await asyncio.sleep(0.1)
    hunt.release()
    body.go_on.set()
    upload = await process.uploads.outcome(await writing, 5)
    assert (State.COMPLETE, State.CANCELLED) == (upload.state, live.upload.state)
    assert ([], b"y" * 25 + b"z" * 10) == (
        [effect for effect in store.effects if effect[0] == "abort_multipart"],
        store.objects["key"].data,
    )


@pytest.mark.parametrize("operation", ["put_object", "head", "create_multipart", "put_part", "complete_multipart"])
async def test_a_drain_that_meets_the_unexpected_is_read_again_and_completes(process, store, operation):
    data = b"abc" if operation in {"put_object", "head"} else b"0123456789" * 2 + b"abc"
    sent = asyncio.Event()

    async def plan(called, number):
        if called == operation and number == 1:
            await sent.wait()
            raise OSError(errno.EIO, "as the test wants it")

    store.plan = plan
    await process.send(Body(data), content_length=len(data))
    sent.set()
    await until(lambda: idle(process))
    assert (data, []) == (store.objects["key"].data, process.names())


async def test_a_drain_that_goes_on_in_the_turn_in_which_its_upload_is_cancelled_ends_quietly(process, store, caplog):
    gate = store.hold("head")
    live = await process.uploads.write(await process.create(), Body(b"abc"))
    await gate.reached()
    cancelling = asyncio.create_task(process.uploads.cancel(live))
    gate.release()
    await cancelling
    await until(live.ended.is_set)
    assert (State.CANCELLED, {}, True, []) == (live.upload.state, store.objects, idle(process), process.names())
    assert "drain died" not in caplog.text


async def test_a_drain_that_dies_again_and_again_does_not_keep_the_machine_busy(process, store):
    async def plan(called, _):
        if called == "put_object":
            raise OSError(errno.EIO, "as the test wants it")

    store.plan = plan
    await process.send(Body(b"abc"), content_length=3)
    await asyncio.sleep(0.3)
    assert store.calls["put_object"] < 10


async def test_a_completion_that_cannot_sync_now_does_not_keep_the_machine_busy(process, disk, store, monkeypatch):
    monkeypatch.setattr(checkpoint, "FULL_SECONDS", 0.1)
    await process.interrupted(b"abcd")
    syncs = []

    def sync(path):
        syncs.append(path)
        raise OSError(errno.EMFILE, "as the test wants it")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync", sync)
        writer = await process.uploads.append(append(4, content_length=4), NOBODY)
        await process.uploads.write(writer, Body(b"efgh"))
        await asyncio.sleep(0.3)
    assert len(syncs) < 10
    await until(lambda: idle(process))
    assert store.objects["key"].data == b"abcdefgh"


async def test_a_file_that_cannot_be_removed_ends_no_drain_and_keeps_no_budget(process, disk, store):
    disk.unlink_error = errno.EIO
    upload = await process.put(b"x" * 25)
    assert (State.COMPLETE, 25, True) == (upload.state, len(store.objects["key"].data), idle(process))


async def test_upkeep_goes_on_after_an_unexpected_error(start, clock, monkeypatch):
    monkeypatch.setattr(registry, "UPKEEP_SECONDS", 0.01)
    async with start(expire_seconds=100) as process:
        forget, forgotten = process.checkpoint.forget, []

        async def forgetting(before, most):
            forgotten.append(before)
            if len(forgotten) == 1:
                raise RuntimeError("as the test wants it")
            await forget(before, most)

        process.checkpoint.forget = forgetting
        live = await process.interrupted(b"abcde")
        await until(lambda: forgotten)
        clock.now += 101
        async with asyncio.timeout(5):
            await live.ended.wait()
        assert live.upload.state is State.EXPIRED


class Latest:
    """The longest of all waits."""

    def uniform(self, _, most):
        return most


async def paused(process, error):
    """How long the longest pause takes while the store answers others all the time."""
    process.uploader._jitter = Latest()
    began = time.monotonic()
    pause = asyncio.create_task(process.uploader.pause(0, error))
    while not pause.done():
        process.uploader.answered()
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def test_a_throttled_pause_is_not_cut_short_by_the_successes_of_others(process, monkeypatch):
    monkeypatch.setattr(uploader, "BACKOFF_FIRST_SECONDS", 0.2)
    monkeypatch.setattr(uploader, "BACKOFF_MOST_SECONDS", 0.2)
    assert await paused(process, StoreThrottled("slow down")) >= 0.19


async def test_a_pause_has_a_minimum_and_then_ends_with_the_success_of_others(process, monkeypatch):
    monkeypatch.setattr(uploader, "BACKOFF_FIRST_SECONDS", 2.0)
    monkeypatch.setattr(uploader, "BACKOFF_MOST_SECONDS", 2.0)
    assert 0.19 <= await paused(process, StoreUnavailable("away")) < 1.5


async def test_the_store_is_asked_again_after_it_has_refused_a_probe(process, monkeypatch, caplog):
    answers = [StoreUnavailable("away"), StoreRefused("the bucket is being moved"), None]

    async def probe(*_):
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(service, "_probe", probe)
    monkeypatch.setattr(service, "PROBE_AGAIN_SECONDS", 0.001)
    process.uploader.opened.clear()
    with caplog.at_level(logging.ERROR):
        await service._probe_later(process.store, process.uploader, "name")
    assert (True, []) == (process.uploader.opened.is_set(), answers)
    assert "the bucket is being moved" in caplog.text


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False])
async def test_two_new_versions_at_once_get_different_names(process, store, conditional):
    store.conditional_writes = conditional
    await process.interrupted(b"abcde")
    writers = await asyncio.gather(process.create(policy="new"), process.create(policy="new"))
    assert ["key-1", "key-2"] == sorted(writer.live.upload.key for writer in writers)


async def test_a_predecessor_that_seals_while_it_is_replaced_completes_first(process, store):
    gate = store.hold("put_object")
    old, _, writing = await feeding(process, b"old", content_length=3)
    new = await process.send(Body(b"new"), policy="replace")
    assert await writing is old
    await gate.reached()
    gate.release()
    for live in (old, new):
        assert (await process.uploads.outcome(live, 5)).state is State.COMPLETE
    assert [("put_object", "key", None)] * 2 == store.effects
    assert store.objects["key"].data == b"new"


async def test_a_range_beyond_the_start_of_a_complete_upload_is_too_late(process):
    upload = await process.put(b"abc")
    for intent in (append(2), append(3), append(3, upload_id=upload.id)):
        with pytest.raises(AlreadyComplete):
            await process.uploads.append(intent, NOBODY)


async def test_a_range_beyond_the_start_of_a_complete_upload_is_a_conflict(service):
    assert (await service.ask("PUT", "/objects/a", b"abc")).status in {200, 201}
    answer = await service.ask("PUT", "/objects/a", b"def", {"Content-Range": "bytes 3-5/6"})
    assert (409, b"abc") == (answer.status, service.data("a"))
    assert answer.json["title"] == AlreadyComplete.title


# -- a wall clock that is set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_newcomer_is_refused_in_time_whatever_the_wall_clock_says(process, clock, hours):
    live, body, writing = await feeding(process, b"abcde")
    clock.now += hours * 3600
    async with asyncio.timeout(5):
        with pytest.raises(UploadExists):
            await process.create(policy="reject")
    assert process.uploads.document(live.upload)["rate"] < 1_000_000
    body.go_on.set()
    await process.uploads.outcome(await writing, 5)
