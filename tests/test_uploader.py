"""Slots, outages, and drains over a strict store: each act is committed before the next, and any may be cut short."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from awscrt.checksums import crc64nvme
from fake_store import DROP, FakeObject, FakeStore, Keeps, Tells, flipped

from streamup import completion
from streamup import uploader as module
from streamup.accumulator import Accumulator
from streamup.checkpoint import Checkpoint
from streamup.completion import Completion
from streamup.drain import Drain
from streamup.errors import (
    AccessDenied,
    BadDigest,
    CheckpointError,
    InvalidPart,
    NoSuchMultipart,
    StoreConflict,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.layout import Layout
from streamup.recovery import part_names, survey
from streamup.spool import Files, Spool
from streamup.stores import Checksum, ObjectMeta
from streamup.upload import State, Upload
from streamup.uploader import Slots, Uploader

DATA = bytes(range(28))
PARTS = [DATA[:10], DATA[10:20], DATA[20:]]

SLOW = pytest.mark.campaign


async def turns(count=20):
    """Let everything run that can run without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    """Let everything run until this holds; a test that waits for ever is stopped."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is the state itself, which sets no event
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(module, "BACKOFF_MOST_SECONDS", 0.002)
    monkeypatch.setattr(completion, "STALE_FIRST_SECONDS", 0.001)


class Clock:
    """Unix seconds that go on when somebody looks."""

    def __init__(self, step=0.0):
        self.now = 1_000_000.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now

    def date(self):
        return datetime.fromtimestamp(self.now, UTC)


class World:
    """A store, a checkpoint and a spool, and what is needed to start again over them."""

    def __init__(self, directory, store, clock):
        self.directory = directory
        self.store = store
        self.clock = clock
        self.executor = ThreadPoolExecutor(1)
        self.checkpoint = Checkpoint(directory / "checkpoint.sqlite", self.executor)
        (directory / "spool").mkdir()
        self.uploads = []

    def uploader(self):
        return Uploader(
            self.store, self.checkpoint, Files(), parallel_parts=4, clock=self.clock, jitter=random.Random(1)
        )

    def spool(self):
        return Spool(self.directory / "spool", 1000, Files())

    async def upload(self, data=DATA, *, upload_id="u", key="key", sealed=True, meta=None, **fields):
        """An upload that has received this, and its drain."""
        meta = meta or ObjectMeta(f"token of {upload_id}")
        upload = Upload(upload_id, key, "s", Layout(10), meta, created=1.0, **fields)
        accumulator = Accumulator(upload, self.spool())
        if data:
            await accumulator.add(data)
        accumulator.suspend()
        if sealed:
            upload.seal(1)
            accumulator.seal()
        await self.checkpoint.save(upload)
        return upload, self.drain(upload, accumulator)

    def drain(self, upload, accumulator, *, turn=None):
        async def at_once():
            pass

        return Drain(self.uploader(), upload, accumulator, turn or at_once)

    async def again(self, upload_id="u"):
        """The upload as a restart finds it, and a fresh drain."""
        record = await self.checkpoint.find(upload_id)
        spool = self.spool()
        found = survey(record, spool, part_names(spool).get(upload_id, []), same_boot=True)
        record.upload.recover(found.received, self.clock())
        accumulator = Accumulator(record.upload, spool)
        for file in found.files:
            accumulator.adopt(file)
        return record.upload, self.drain(record.upload, accumulator)

    async def row(self, upload_id="u"):
        return (await self.checkpoint.find(upload_id)).upload

    def files(self):
        return sorted(path.name for path in (self.directory / "spool").iterdir())


@pytest.fixture
def store(clock):
    return FakeStore(clock=clock.date)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def world(tmp_path, store, clock):
    one = World(tmp_path, store, clock)
    await one.checkpoint.open()
    yield one
    await one.checkpoint.close()
    one.executor.shutdown()


def effects(store):
    return [(operation, number) if number else operation for operation, _, number in store.effects]


# -- slots --------------------------------------------------------------------------------------------------------


class Holders:
    """Tasks that hold a slot until they are told to leave."""

    def __init__(self, slots):
        self.slots = slots
        self.tasks = []
        self.inside = []

    def start(self, owner):
        leave = asyncio.Event()

        async def hold():
            async with self.slots.hold(owner):
                self.inside.append(owner)
                await leave.wait()

        self.tasks.append(asyncio.create_task(hold()))
        return leave, self.tasks[-1]

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_no_more_parts_are_in_flight_than_there_are_slots():
    holders = Holders(Slots(2))
    leave, _ = holders.start("a")
    for owner in "bc":
        holders.start(owner)
    await turns()
    assert holders.inside == ["a", "b"]
    leave.set()
    await turns()
    assert holders.inside == ["a", "b", "c"]
    assert "2/2.0, 0 waiting" in repr(holders.slots)
    await holders.end()


async def test_the_upload_with_the_fewest_parts_in_flight_is_next():
    holders = Holders(Slots(3))
    leave, _ = holders.start("fast")
    for owner in ("fast", "fast", "fast", "fast", "slow"):
        holders.start(owner)
    await turns()
    leave.set()
    await turns()
    assert holders.inside == ["fast"] * 3 + ["slow"]
    await holders.end()


async def test_throttling_halves_the_slots_and_success_brings_them_back():
    slots = Slots(8)
    slots.throttled()
    assert slots.limit == 4
    for _ in range(5):
        slots.throttled()
    assert slots.limit == 1
    before = []
    for _ in range(200):
        before.append(slots.limit)
        slots.succeeded()
    assert before == sorted(before)
    assert slots.limit == 8


async def test_success_lets_those_in_who_waited_while_the_store_throttled():
    holders = Holders(Slots(2))
    holders.slots.throttled()
    holders.start("a")
    holders.start("b")
    await turns()
    assert holders.inside == ["a"]
    holders.slots.succeeded()
    await turns()
    assert holders.inside == ["a", "b"]
    await holders.end()


async def test_cancelled_while_waiting_holds_no_slot():
    holders = Holders(Slots(1))
    leave, _ = holders.start("a")
    _, waiting = holders.start("b")
    await turns()
    waiting.cancel()
    await turns()
    leave.set()
    await turns()
    assert holders.slots.in_flight == {}
    await holders.end()


async def test_granted_and_cancelled_in_the_same_turn_gives_the_slot_back():
    slots = Slots(1)
    await slots._acquire("a")
    waiting = asyncio.create_task(slots._acquire("b"))
    await turns()
    slots._release("a")
    waiting.cancel()
    await turns()
    assert slots.in_flight == {}


async def test_idle_is_when_nothing_is_in_flight():
    holders = Holders(Slots(2))
    await holders.slots.idle()
    leaves = [holders.start(owner)[0] for owner in "ab"]
    await turns()
    idle = asyncio.create_task(holders.slots.idle())
    for leave in leaves:
        await turns()
        assert not idle.done()
        leave.set()
    await idle


# -- insisting ----------------------------------------------------------------------------------------------------


async def test_outages_are_waited_out_and_a_no_is_an_answer(world, store):
    shared = world.uploader()
    store.fail("head", StoreUnavailable, StoreThrottled, AccessDenied, DROP)
    assert await shared.insist(store.head, "key") is None
    assert (5, True) == (store.calls["head"], shared.available)
    store.fail("head", StoreRefused)
    with pytest.raises(StoreRefused):
        await shared.insist(store.head, "key")


async def test_only_a_throttling_store_gets_fewer_parts_at_once(world):
    shared = world.uploader()
    await shared.pause(0, StoreUnavailable("down"))
    assert (4.0, False) == (shared.slots.limit, shared.available)
    await shared.pause(0, StoreThrottled("slow"))
    assert shared.slots.limit == 2.0


async def test_who_is_held_is_named_once_for_each_reason_and_the_store_is_none_the_worse(world, store, caplog):
    shared = world.uploader()
    seen = []

    async def denied(operation, number):
        if operation == "head":
            seen.append((shared.held("a"), shared.available))
        return AccessDenied("another key") if operation == "put_object" and number % 4 else None

    async def hold(upload_id):
        _, drain = await world.upload(b"abc", upload_id=upload_id, key=upload_id)
        drain._shared = shared
        with shared.on_behalf_of(upload_id):
            await drain.run()
            assert shared.held(upload_id) is None

    store.plan = denied
    await hold("a")
    await hold("b")
    assert {(None, True), ("another key", True)} == set(seen)
    held = [record.message for record in caplog.records]
    assert ["upload a is held: another key", "upload b is held: another key"] == held
    assert {} == shared._holds


async def test_what_else_the_store_answers_does_not_hide_that_an_upload_is_held(world, store):
    shared = world.uploader()
    seen = []

    async def denied(operation, number):
        if operation != "create_multipart":
            return None
        seen.append(shared.held("u"))  # orphans have just been looked for, and the store told
        return AccessDenied("not here") if number < 3 else None

    store.plan = denied
    _, drain = await world.upload()
    drain._shared = shared
    with shared.on_behalf_of("u"):
        await drain.run()
    assert [None, "not here", "not here"] == seen


async def test_the_tasks_of_an_uploads_parts_speak_for_it(world, store):
    shared = world.uploader()
    gate = asyncio.Event()

    async def denied(operation, number):
        if operation == "put_part" and number <= 3:
            return AccessDenied("not here")
        return gate if operation == "put_part" else None

    store.plan = denied
    upload, drain = await world.upload()
    drain._shared = shared

    async def run():
        with shared.on_behalf_of("u"):
            await drain.run()

    running = asyncio.create_task(run())
    await until(lambda: store.calls["put_part"] == 6)
    assert "not here" == shared.held("u")
    gate.set()
    await until(lambda: shared.held("u") is None)
    await running
    assert upload.state is State.COMPLETE


async def test_everybody_wakes_when_anybody_gets_through(world, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 3600)
    monkeypatch.setattr(module, "BACKOFF_MOST_SECONDS", 3600)
    monkeypatch.setattr(module, "BACKOFF_LEAST_SHARE", 0)
    shared = world.uploader()
    waiting = [asyncio.create_task(shared.pause(attempt, StoreUnavailable("down"))) for attempt in range(3)]
    await turns()
    shared.answered()
    await asyncio.gather(*waiting)
    assert shared.available


# -- the ways into the store --------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", list(Checksum))
async def test_parts_become_an_object(world, store, checksum):
    upload, drain = await world.upload(meta=ObjectMeta("t", checksum))
    await drain.run()
    assert store.objects["key"].data == DATA
    assert (State.COMPLETE, 28, None) == (upload.state, upload.offset, upload.multipart_id)
    receipts = upload.receipts
    assert [crc64nvme(part) for part in PARTS] == [receipts[number].crc64nvme for number in (1, 2, 3)]
    if checksum is Checksum.SHA256:
        assert [sha256(part).digest() for part in PARTS] == [receipts[number].sha256 for number in (1, 2, 3)]
    assert ([], {}) == (world.files(), store.multiparts)
    assert (await world.row()) == upload


@pytest.mark.parametrize("checksum", list(Checksum))
@pytest.mark.parametrize("data", [b"", b"a", DATA[:10]])
async def test_what_fits_in_one_part_is_one_put(world, store, data, checksum):
    upload, drain = await world.upload(data, meta=ObjectMeta("t", checksum))
    await drain.run()
    assert (data, ["put_object"], State.COMPLETE) == (store.objects["key"].data, effects(store), upload.state)
    assert (await world.row()).stored_object == upload.stored_object


async def test_one_part_of_unknown_end_is_a_multipart_of_one(world, store):
    upload, drain = await world.upload(DATA[:10], sealed=False)
    gate = store.hold("put_part")
    running = asyncio.create_task(drain.run())
    await gate.reached()
    upload.seal(1)
    drain._parts.seal()
    await world.checkpoint.save(upload)
    gate.release()
    await running
    assert ["create_multipart", ("put_part", 1), "complete_multipart"] == effects(store)
    assert store.objects["key"].data == DATA[:10]


async def test_nothing_is_created_before_a_part_is_full(world, store):
    _, drain = await world.upload(DATA[:9], sealed=False)
    running = asyncio.create_task(drain.run())
    await turns(50)
    assert store.calls == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_parts_are_stored_at_the_same_time(world, store):
    gate = store.hold("put_part")
    _, drain = await world.upload()
    running = asyncio.create_task(drain.run())
    await gate.reached(3)
    gate.release()
    await running
    assert store.peak["put_part"] == 3


async def test_nothing_is_sent_before_the_store_is_known(world, store):
    _, drain = await world.upload()
    drain._shared.opened.clear()
    running = asyncio.create_task(drain.run())
    await turns(50)
    assert store.calls == {}
    drain._shared.opened.set()
    await running
    assert store.objects["key"].data == DATA


async def test_completion_waits_for_its_turn(world, store):
    upload, drain = await world.upload()
    turn = asyncio.Event()
    drain._turn = turn.wait
    running = asyncio.create_task(drain.run())
    await until(lambda: len(upload.receipts) == 3)
    await turns()
    assert store.objects == {}
    turn.set()
    await running
    assert store.objects["key"].data == DATA


# -- laws 4 and 5: what is on record when the store is called ------------------------------------------------------


async def test_every_act_is_on_record_before_it_happens(world, store):
    seen = {}

    async def look(operation, _):
        row = await world.row()
        seen.setdefault(operation, []).append((row.state, row.creating is not None, row.multipart_id is not None))

    store.plan = look
    _, drain = await world.upload()
    await drain.run()
    assert [(State.SEALED, True, False)] == seen["create_multipart"]
    assert [(State.SEALED, False, True)] * 3 == seen["put_part"]
    assert [(State.COMPLETING, False, True)] == seen["complete_multipart"]


async def test_a_put_is_on_record_with_what_it_replaces(world, store):
    _, other = await world.upload(b"old", upload_id="other")
    await other.run()
    seen = []

    async def look(operation, _):
        if operation == "put_object":
            row = await world.row()
            seen.append((row.state, row.replaces))

    store.plan = look
    old = store.objects["key"].etag
    _, drain = await world.upload(b"new")
    await drain.run()
    assert [(State.COMPLETING, old)] == seen
    assert store.objects["key"].data == b"new"


async def test_a_part_file_stays_until_its_receipt_is_committed(world):
    upload, drain = await world.upload(DATA[:20], sealed=False)
    committing = asyncio.Event()
    go_on = asyncio.Event()
    add_receipt = world.checkpoint.add_receipt

    async def slowly(upload_id, receipt, hashes):
        committing.set()
        await go_on.wait()
        await add_receipt(upload_id, receipt, hashes)

    world.checkpoint.add_receipt = slowly
    running = asyncio.create_task(drain.run())
    await committing.wait()
    await turns()
    assert ({}, ["u.1", "u.2"]) == (upload.receipts, world.files())
    go_on.set()
    await until(lambda: not world.files())
    assert {1, 2} == set((await world.row()).receipts)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_commit_that_fails_is_told(world):
    _, drain = await world.upload()

    async def broken(upload_id, receipt, _):
        raise CheckpointError(f"no commit of {upload_id} {receipt.number}")

    world.checkpoint.add_receipt = broken
    with pytest.raises(CheckpointError):
        await drain.run()
    assert world.files() == ["u.1", "u.2", "u.3"]


# -- between two processes ----------------------------------------------------------------------------------------


async def told(world, drain):
    """An offset was told: what there is is synced, and its checksum committed."""
    synced = await drain._parts.sync()
    await world.checkpoint.announce("u", synced.offset, synced.files)


def rot(world):
    """A bit of the first part file turns."""
    path = next((world.directory / "spool").iterdir())
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


async def test_a_spool_that_rots_between_two_processes_is_noticed(world, store):
    upload, drain = await world.upload(b"abcdefg")
    upload.announce(7)
    await told(world, drain)
    rot(world)
    upload, _ = await world.again()
    assert (State.FAILED, {}) == (upload.state, store.objects)
    assert upload.reason.startswith("state lost")


async def test_a_whole_object_is_not_judged_by_a_spool_that_rotted_after_it_was_stored(world, store):
    store.fail("put_object", DROP)
    upload, drain = await world.upload(b"abcdefg")
    await told(world, drain)

    async def silent(operation, number):
        return asyncio.Event() if operation == "head" and number == 2 else None

    store.plan = silent
    running = asyncio.create_task(drain.run())
    await until(lambda: store.calls["head"] == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.plan = None
    rot(world)
    upload, drain = await world.again()
    await drain.run()
    assert (State.COMPLETE, b"abcdefg") == (upload.state, store.objects["key"].data)


@pytest.mark.parametrize("fault", [StoreUnavailable, DROP], ids=["no effect", "answer lost"])
@pytest.mark.parametrize("data", [b"abcdefg", DATA], ids=["put", "multipart"])
async def test_a_removal_that_is_repeated_removes_only_our_own_object(world, store, fault, data):
    store.fail("put_object" if len(data) < 10 else "complete_multipart", (Keeps(flipped), DROP))
    store.fail("delete", fault)

    async def plan(operation, number):
        if (operation, number) == ("head", store.calls["head"]) and store.calls["delete"] == 1:
            store.objects["key"] = FakeObject(b"new", ObjectMeta("stranger"), '"n"', {}, datetime.now(UTC))

    store.plan = plan
    upload, drain = await world.upload(data)
    await drain.run()
    assert (State.FAILED, b"new") == (upload.state, store.objects["key"].data)


# -- outages and lost answers -------------------------------------------------------------------------------------

OPERATIONS = ["create_multipart", "put_part", "list_parts", "complete_multipart", "head", "list_multiparts"]


@pytest.mark.parametrize("fault", [StoreUnavailable, StoreThrottled, AccessDenied, DROP], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("idempotent", [False, True])
async def test_an_outage_of_anything_is_ridden_out(world, store, operation, fault, idempotent):
    store.idempotent_complete = idempotent
    store.fail(operation, fault, fault, fault)
    upload, drain = await world.upload()
    await drain.run()
    assert (State.COMPLETE, DATA) == (upload.state, store.objects["key"].data)
    assert ({}, []) == (store.multiparts, world.files())


@pytest.mark.parametrize("fault", [StoreUnavailable, StoreThrottled, DROP], ids=str)
@pytest.mark.parametrize("operation", ["put_object", "head"])
@pytest.mark.parametrize("if_none_match", [False, True])
async def test_an_outage_of_a_put_is_ridden_out(world, store, operation, fault, if_none_match):
    store.fail(operation, fault, fault, fault)
    upload, drain = await world.upload(b"abc", meta=ObjectMeta("t", if_none_match=if_none_match))
    await drain.run()
    assert (State.COMPLETE, b"abc") == (upload.state, store.objects["key"].data)
    assert store.effects.count(("put_object", "key", None)) == 1


async def test_a_lost_answer_to_a_conditional_complete_is_no_conflict_with_itself(world, store):
    store.fail("complete_multipart", DROP)
    upload, drain = await world.upload(meta=ObjectMeta("t", if_none_match=True))
    await drain.run()
    assert (State.COMPLETE, 1) == (upload.state, store.calls["complete_multipart"])


async def test_a_lost_creation_leaves_no_orphan(world, store):
    store.fail("create_multipart", DROP, DROP)
    _, drain = await world.upload()
    await drain.run()
    assert ({}, 3) == (store.multiparts, effects(store).count("create_multipart"))


async def test_only_orphans_of_ours_are_aborted(world, store, clock):
    for upload_id, key in (("neighbour", "key"), ("other", "key2")):
        neighbour, _ = await world.upload(upload_id=upload_id, key=key, sealed=False)
        neighbour.multipart_created(await store.create_multipart(key, neighbour.meta))
        await world.checkpoint.save(neighbour)
    strangers = [await store.create_multipart("key2", ObjectMeta("foreign"))]
    strangers += [await store.create_multipart("key", ObjectMeta("older"))]
    clock.now += 10
    store.fail("create_multipart", DROP)
    _, drain = await world.upload()
    await drain.run()
    assert len(store.multiparts) == 4
    assert set(strangers) < set(store.multiparts)


@pytest.mark.parametrize("clock_skew", [timedelta(hours=-1), timedelta(hours=1)], ids=["behind", "ahead"])
async def test_orphans_are_told_by_the_stores_clock(tmp_path, clock, clock_skew):
    """It may be an hour off. Then an orphan would stay, or a stranger's multipart upload would be aborted."""
    store = FakeStore(clock=clock.date, clock_skew=clock_skew)
    stranger = await store.create_multipart("key", ObjectMeta("stranger"))
    clock.now += 600
    store.fail("create_multipart", DROP)
    world = World(tmp_path, store, clock)
    await world.checkpoint.open()
    assert await outcome_of(world) == (State.COMPLETE, "")
    assert list(store.multiparts) == [stranger]
    await world.checkpoint.close()
    world.executor.shutdown()


async def test_a_restart_after_a_lost_creation_aborts_the_orphan(world, store, clock):
    upload, _ = await world.upload()
    upload.announce_creation(clock())
    await world.checkpoint.save(upload)
    await store.create_multipart("key", upload.meta)
    upload, drain = await world.again()
    await drain.run()
    assert ({}, DATA) == (store.multiparts, store.objects["key"].data)


async def test_an_abort_leaves_nothing_behind(world, store, clock):
    upload, drain = await world.upload(sealed=False)
    upload.multipart_created(await store.create_multipart("key", upload.meta))
    upload.announce_creation(clock())
    await store.create_multipart("key", upload.meta)
    await world.checkpoint.save(upload)
    store.fail("abort_multipart", StoreUnavailable, DROP)
    await drain.abort()
    assert store.multiparts == {}


async def test_an_abort_of_nothing_does_nothing(world, store):
    _, drain = await world.upload(sealed=False)
    await drain.abort()
    assert store.calls == {}


async def test_an_object_that_may_be_ours_under_a_key_that_was_replaced_is_waited_for(world, store):
    """PutObject took effect, its answer was lost, and after a restart nobody can look into the object."""
    unseen = asyncio.Event()

    async def plan(operation, number):
        return {("put_object", 1): DROP, ("head", 2): unseen}.get((operation, number))

    store.plan = plan
    _, drain = await world.upload(b"abcdefg", meta=ObjectMeta("token", sse_c_key_md5="first"))
    task = asyncio.create_task(drain.run())
    await until(lambda: store.calls["head"] == 2)
    task.cancel()
    await asyncio.wait([task])
    store.key_replaced = True
    upload, drain = await world.again()
    task = asyncio.create_task(drain.run())
    await until(lambda: store.calls["head"] == 6 or task.done())
    assert (upload.state, upload.reason) == (State.COMPLETING, None)
    store.key_replaced = False
    await task
    assert (upload.state, effects(store)) == (State.COMPLETE, ["put_object"])


@pytest.mark.parametrize("fault", [StoreUnavailable, StoreConflict])
async def test_an_object_that_was_there_before_is_replaced_whatever_its_key(world, store, fault):
    await world.upload(b"before", upload_id="v", meta=ObjectMeta("before", sse_c_key_md5="first"))
    await (await world.again("v"))[1].run()
    store.key_replaced = True
    store.fail("put_object", fault)
    upload, drain = await world.upload(b"after", meta=ObjectMeta("after", sse_c_key_md5="first"))
    async with asyncio.timeout(20):
        await drain.run()
    assert (upload.state, store.objects["key"].data) == (State.COMPLETE, b"after")


# -- what the store refuses ---------------------------------------------------------------------------------------


async def outcome_of(world, *, data=DATA, **options):
    upload, drain = await world.upload(data, **options)
    await drain.run()
    assert (await world.row(upload.id)).state is upload.state
    return upload.state, upload.reason or ""


async def test_a_part_that_arrived_damaged_is_sent_again(world, store):
    store.fail("put_part", BadDigest, BadDigest)
    assert await outcome_of(world) == (State.COMPLETE, "")


async def test_a_part_that_always_arrives_damaged_fails_the_upload(world, store):
    store.fail("put_part", *[BadDigest] * 9)
    state, reason = await outcome_of(world, data=DATA[:20])
    assert state is State.FAILED
    assert reason.startswith("the store refused")


@pytest.mark.parametrize(("data", "checksum"), [(DATA, "crc64nvme"), (b"abc", "crc64nvme"), (DATA, "sha256")])
async def test_a_spool_that_changed_fails_the_upload(world, store, data, checksum):
    upload, drain = await world.upload(data, meta=ObjectMeta("t", Checksum(checksum)))
    (world.directory / "spool" / "u.1").write_bytes(b"X" * min(len(data), 10))
    await drain.run()
    assert (State.FAILED, {}) == (upload.state, store.objects)
    assert "spool" in upload.reason


async def test_an_object_that_arrived_damaged_is_sent_again(world, store):
    store.fail("put_object", BadDigest, StoreConflict)
    assert await outcome_of(world, data=b"abc") == (State.COMPLETE, "")


@pytest.mark.parametrize("data", [b"", b"abc"])
@pytest.mark.parametrize("fault", [BadDigest, StoreConflict])
async def test_an_object_that_is_refused_again_and_again_fails(world, store, data, fault):
    store.fail("put_object", *[fault] * 5)
    state, reason = await outcome_of(world, data=data)
    assert (State.FAILED, 3) == (state, store.calls["put_object"])
    assert reason.startswith("the store refused")


@pytest.mark.parametrize("data", [b"abc", DATA])
async def test_if_none_match_never_replaces(world, store, data):
    await outcome_of(world, data=b"old", upload_id="other")
    state, reason = await outcome_of(world, data=data, meta=ObjectMeta("t", if_none_match=True))
    assert (State.FAILED, b"old") == (state, store.objects["key"].data)
    assert reason.startswith("precondition:")


async def test_an_object_that_appears_during_a_conditional_put_wins(world, store):
    store.fail("put_object", StorePrecondition)
    state, reason = await outcome_of(world, data=b"abc", meta=ObjectMeta("t", if_none_match=True))
    assert state is State.FAILED
    assert reason.startswith("precondition:")


async def test_a_put_is_not_repeated_over_a_newer_object(world, store):
    upload, drain = await world.upload(b"mine")
    _, newer = await world.upload(b"newer", upload_id="newer")

    async def overtaken(operation, number):
        if operation == "put_object" and number == 1:
            store.plan = None
            await newer.run()
            return StoreUnavailable
        return None

    store.plan = overtaken
    await drain.run()
    assert (State.FAILED, b"newer") == (upload.state, store.objects["key"].data)
    assert upload.reason.startswith("conflict:")


@pytest.mark.parametrize("data", [b"foreign!", DATA])
async def test_a_foreign_object_is_never_taken_for_ours(world, store, data):
    await outcome_of(world, data=b"x" * 28, upload_id="foreign")
    store.fail("complete_multipart", StoreUnavailable)
    store.fail("put_object", StoreUnavailable)
    assert await outcome_of(world, data=data) == (State.COMPLETE, "")
    assert store.objects["key"].data == data


async def test_the_store_refusing_a_creation_fails_the_upload(world, store):
    store.fail("create_multipart", StoreRefused("no such bucket"))
    assert await outcome_of(world) == (State.FAILED, "the store refused: no such bucket")


async def test_a_multipart_that_is_only_said_to_be_lost_is_not_left_behind(world, store):
    store.fail("put_part", NoSuchMultipart)
    upload, drain = await world.upload()
    await drain.run()
    assert (State.COMPLETE, DATA, {}) == (upload.state, store.objects["key"].data, store.multiparts)
    assert store.calls["create_multipart"] == 2


async def test_a_multipart_lost_with_everything_in_the_spool_begins_again(world, store):
    upload, drain = await world.upload()

    async def abort(operation, number):
        if operation == "put_part" and number == 1:
            store.multiparts.clear()

    store.plan = abort
    await drain.run()
    assert (State.COMPLETE, DATA) == (upload.state, store.objects["key"].data)
    assert effects(store).count("create_multipart") == 2


async def test_a_multipart_lost_with_parts_gone_from_the_spool_fails(world, store):
    upload, drain = await world.upload(DATA[:10], sealed=False)
    running = asyncio.create_task(drain.run())
    await until(lambda: upload.receipts)
    store.multiparts.clear()
    await drain._parts.add(DATA[10:20])
    await running
    assert upload.state is State.FAILED
    assert "lost the multipart upload" in upload.reason


async def test_no_receipt_of_a_lost_multipart_outlives_it(world, store):
    upload, drain = await world.upload()
    add_receipt = world.checkpoint.add_receipt
    committing = asyncio.Event()

    async def noticed(upload_id, receipt, hashes):
        committing.set()
        await add_receipt(upload_id, receipt, hashes)

    async def abort(operation, number):
        if operation == "put_part" and number == 2:
            await committing.wait()
            store.multiparts.clear()
        elif operation == "put_part" and number == 3:
            await asyncio.Event().wait()

    world.checkpoint.add_receipt = noticed
    store.plan = abort
    running = asyncio.create_task(drain.run())
    await until(lambda: store.calls["create_multipart"] == 2 or running.done())
    row = await world.row()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert row.receipts == {} or upload.state is State.FAILED


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (InvalidPart, "the store does not take a part it has confirmed"),
        (NoSuchMultipart, "the store has lost the multipart upload"),
        (StorePrecondition, "precondition:"),
        (BadDigest, "the store refused"),
    ],
)
async def test_a_completion_that_is_refused_fails_with_its_reason(world, store, fault, reason):
    store.fail("complete_multipart", fault)
    state, found = await outcome_of(world)
    assert state is State.FAILED
    assert found.startswith(reason)


async def test_a_completion_that_lost_a_race_is_tried_again(world, store):
    store.fail("complete_multipart", StoreConflict, StoreConflict)
    assert await outcome_of(world) == (State.COMPLETE, "")


async def test_a_completion_that_loses_every_race_is_a_conflict(world, store):
    store.fail("complete_multipart", *[StoreConflict] * 9)
    state, reason = await outcome_of(world)
    assert state is State.FAILED
    assert reason.startswith("conflict:")


async def test_outages_do_not_use_up_the_patience_with_races(world, store):
    store.fail("complete_multipart", *[StoreUnavailable] * 5, StoreConflict)
    assert await outcome_of(world) == (State.COMPLETE, "")


async def test_a_first_completion_that_takes_effect_during_the_second_is_found(world, store):
    upload, drain = await world.upload()

    async def late(operation, number):
        if operation == "complete_multipart" and number == 1:
            return StoreUnavailable  # the answer is lost, the store still works on it
        if operation == "complete_multipart" and number == 2:
            return StoreConflict
        if operation == "list_parts" and number == 2:
            multipart_id = upload.multipart_id
            receipts, crc = Completion(drain._shared, upload, drain._parts)._check_receipts()
            store.plan = None
            await store.complete_multipart("key", multipart_id, receipts, upload.meta, crc)
        return None

    store.plan = late
    await drain.run()
    assert (State.COMPLETE, DATA) == (upload.state, store.objects["key"].data)


async def test_a_listing_that_disagrees_is_asked_for_a_minute_and_is_no_reason_to_fail(tmp_path):
    clock = Clock(step=15.0)
    store = FakeStore(stale_listing=True, clock=lambda: datetime.now(UTC) + timedelta(days=365))
    world = World(tmp_path, store, clock)
    await world.checkpoint.open()
    assert await outcome_of(world) == (State.COMPLETE, "")
    assert store.calls["list_parts"] > 2
    await world.checkpoint.close()
    world.executor.shutdown()


@pytest.mark.parametrize("odd", [{"number": 7}, {"size": 9}, {"etag": '"other"'}], ids=str)
async def test_a_listing_is_compared_by_number_size_and_etag(tmp_path, odd):
    clock = Clock(step=15.0)
    world = World(tmp_path, FakeStore(clock=clock.date), clock)
    await world.checkpoint.open()
    world.store.fail("list_parts", Tells(lambda listed: [*listed[:1], replace(listed[1], **odd), *listed[2:]]))
    assert await outcome_of(world) == (State.COMPLETE, "")
    assert world.store.calls["list_parts"] == 2
    await world.checkpoint.close()
    world.executor.shutdown()


async def test_a_listing_that_is_refused_is_no_reason_to_fail(world, store):
    store.fail("list_parts", NoSuchMultipart)
    assert await outcome_of(world) == (State.COMPLETE, "")


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_missing_receipt_fails_before_the_store_is_asked(world, store, number):
    upload, drain = await world.upload()
    turn = drain._turn

    async def lose():
        del upload.receipts[number]
        await turn()

    drain._turn = lose
    await drain.run()
    assert (State.FAILED, 0) == (upload.state, store.calls["complete_multipart"])


@pytest.mark.parametrize("odd", [{"number": 1}, {"size": 9}, {"size": 11}, {"crc64nvme": None}], ids=str)
@pytest.mark.parametrize("number", [2, 3])
async def test_receipts_that_do_not_fit_fail_before_the_store_is_asked(world, store, odd, number):
    world.clock.step = 15.0  # or a listing that disagrees would be asked again for ever
    upload, drain = await world.upload()

    async def spoil():
        upload.receipts[number] = replace(upload.receipts[number], **odd)

    drain._turn = spoil
    await drain.run()
    assert (State.FAILED, 0) == (upload.state, store.calls["complete_multipart"])
    assert "receipt" in upload.reason


async def test_receipts_whose_sizes_only_add_up_fail_before_the_store_is_asked(world, store):
    world.clock.step = 15.0
    upload, drain = await world.upload()

    async def shift():
        for number, size in ((1, 9), (2, 11)):
            upload.receipts[number] = replace(upload.receipts[number], size=size)

    drain._turn = shift
    await drain.run()
    assert (State.FAILED, 0) == (upload.state, store.calls["complete_multipart"])


async def test_sha256_is_computed_in_a_thread(world):
    readers = set()

    class Watched(Files):
        def read(self, path, start, end):
            readers.add(threading.current_thread())
            return super().read(path, start, end)

    _, drain = await world.upload(meta=ObjectMeta("t", Checksum.SHA256))
    drain._shared.files = Watched()
    await drain.run()
    assert readers
    assert threading.current_thread() not in readers


# -- cut short anywhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [pytest.param(b"", marks=SLOW), pytest.param(b"abc", marks=SLOW), DATA], ids=len)
async def test_a_drain_cancelled_at_any_await_is_completed_by_a_fresh_one(tmp_path, data, clock):
    # Turns of the loop; those spent waiting for a thread are many and alike, so later ones are sampled.
    for step in [*range(150), *range(150, 8000, 25)]:
        store = FakeStore(clock=clock.date)
        directory = tmp_path / str(step)
        directory.mkdir()
        world = World(directory, store, clock)
        await world.checkpoint.open()
        _, drain = await world.upload(data)
        running = asyncio.create_task(drain.run())
        for _ in range(step):
            if not running.done():
                await asyncio.sleep(0)
        finished = running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        upload, fresh = await world.again()
        if upload.state is not State.COMPLETE:
            await fresh.run()
        assert (State.COMPLETE, data, {}) == (upload.state, store.objects["key"].data, store.multiparts), step
        await world.checkpoint.close()
        world.executor.shutdown()
        if finished:
            return
    pytest.fail("it never finished by itself")


@pytest.mark.parametrize("data", [b"abc", DATA], ids=len)
@pytest.mark.parametrize(
    "operation", ["head", "put_object", "create_multipart", "put_part", "list_parts", "complete_multipart"]
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_drain_cancelled_in_any_call_is_completed_by_a_fresh_one(world, store, data, operation, when):
    reached = asyncio.Event()

    async def stand_still(name, number):
        if name == operation and number == 1:
            reached.set()
            await asyncio.Event().wait()

    async def lose_the_answer(name, number):
        if name == operation and number == 2:
            reached.set()
            await asyncio.Event().wait()
        return DROP if name == operation else None

    store.plan = stand_still if when == "before" else lose_the_answer
    _, drain = await world.upload(data)
    running = asyncio.create_task(drain.run())
    waiting = asyncio.create_task(reached.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    store.plan = None
    upload, fresh = await world.again()
    if upload.state is not State.COMPLETE:
        await fresh.run()
    assert (State.COMPLETE, data, {}) == (upload.state, store.objects["key"].data, store.multiparts)
