"""All uploads of a process, without HTTP: one writer each, the policies, the order of a key, and what goes wrong."""

import asyncio
import copy
import errno
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from fake_body import Body
from fake_store import FakeStore

from streamup import registry, uploader, uploads
from streamup.checkpoint import Checkpoint
from streamup.config import Config
from streamup.errors import (
    AccessDenied,
    AlreadyComplete,
    BadRequest,
    CheckpointError,
    EmptyBody,
    Gone,
    LengthExceeded,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    PreconditionFailed,
    SpoolError,
    SpoolFull,
    StateDirectoryError,
    StoreUnavailable,
    TooLarge,
    TooManyUploads,
    UploadBusy,
    UploadExists,
    WriterStopped,
)
from streamup.grants import Grant
from streamup.object_options import ObjectOptions
from streamup.protocols import Append, BodyTerms, Create, Description
from streamup.spool import Files, Spool
from streamup.stores import NO_KEY, Checksum
from streamup.upload import State
from streamup.uploader import Uploader
from streamup.uploads import Uploads

NOBODY = Grant(subject="nobody")
OTHER = Grant(subject="other")


async def turns(count=20):
    """Let everything run that can run without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    """Let everything run until this holds; a test that waits for ever is stopped."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is the state itself, which sets no event
            await asyncio.sleep(0)


class FlakyCheckpoint(Checkpoint):
    """Fails the next commits of the kinds in `failing`, or holds them while `held`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.failing = []
        self.held = asyncio.Event()
        self.held.set()

    async def _transact(self, name, transaction):
        await self.held.wait()
        if name in self.failing:
            self.failing.remove(name)
            raise CheckpointError(f"no commit of {name}")
        await super()._transact(name, transaction)


class FlakyFiles(Files):
    sync_error = None

    def sync(self, path):
        if self.sync_error:
            raise OSError(self.sync_error, "as the test wants it")
        super().sync(path)


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class Process:
    """Uploads and all below them, over a directory and a store that outlive it."""

    def __init__(self, directory, store, clock, *, spool_bytes=1000, **config):
        self.directory = directory
        self.store = store
        self.clock = clock
        self.executor = ThreadPoolExecutor(1)
        self.writing = []
        self.checkpoint = FlakyCheckpoint(directory / "checkpoint.sqlite", self.executor)
        (directory / "spool").mkdir(exist_ok=True)
        self.files = FlakyFiles()
        self.spool = Spool(directory / "spool", spool_bytes, self.files)
        self.uploader = Uploader(
            store, self.checkpoint, self.files, parallel_parts=4, clock=clock, jitter=random.Random(1)
        )
        numbers = itertools.count(len(list(directory.iterdir())) * 1000)
        options = {"part_bytes": 10, "disk_floor_bytes": 0, "store_timeout_seconds": 5.0} | config
        self.uploads = Uploads(
            Config(**options),
            self.uploader,
            self.checkpoint,
            self.spool,
            clock=clock,
            random_token=lambda: f"id{next(numbers)}-{id(self)}",
            still_known=lambda _: True,
        )

    async def start(self, boot_id="boot"):
        await self.checkpoint.open()
        await self.uploads.recover(boot_id)
        return self

    async def kill(self):
        """As `kill -9` would: nothing settles."""

        async def nothing(*_):
            pass

        self.uploads._settle = nothing
        tasks = [*self.uploads.registry._tasks, *self.writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.checkpoint.close()
        self.executor.shutdown()

    async def create(self, *, key="key", grant=NOBODY, **options):
        return await self.uploads.create(creation(key=key, **options), grant)

    async def send(self, body, **options):
        return await self.uploads.write(await self.create(**options), body)

    async def put(self, data, **options):
        """A whole object; the upload once it has ended."""
        live = await self.send(Body(*([data] if data else [])), **options)
        return await self.uploads.outcome(live, 5)

    async def interrupted(self, data, **options):
        """An upload whose client went away after these bytes."""
        with pytest.raises(WriterStopped):
            await self.send(Body(*([data] if data else []), interrupted="reset"), **options)
        return self.uploads.open_upload(options.get("key", "key"), NOBODY)

    def running(self, writer, body):
        self.writing.append(asyncio.create_task(self.uploads.write(writer, body)))
        return self.writing[-1]

    def names(self):
        return sorted(path.name for path in (self.directory / "spool").iterdir())


def terms(*, content_length=None, seals=True, **options):
    return BodyTerms(content_length=content_length, seals=seals, **options)


def creation(*, key="key", policy=None, description=None, **body):
    return Create(key=key, body=terms(**body), description=description or Description(), policy=policy)


def append(offset, *, key="key", upload_id=None, create=None, **body):
    return Append(key=None if upload_id else key, upload_id=upload_id, offset=offset, body=terms(**body), create=create)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(uploader, "BACKOFF_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(uploader, "BACKOFF_MOST_SECONDS", 0.002)
    monkeypatch.setattr(uploads, "PROMPT_SECONDS", 0.2)
    monkeypatch.setattr(uploads, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(registry, "LOOK_SECONDS", 0.1)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(tmp_path, store, clock):
    @asynccontextmanager
    async def starting(boot_id="boot", **options):
        one = await Process(tmp_path, store, clock, **options).start(boot_id)
        try:
            yield one
        finally:
            await one.kill()

    return starting


@pytest.fixture
async def process(start):
    async with start() as one:
        yield one


# -- whole objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"abc", b"x" * 10, b"0123456789" * 5 + b"rest"])
async def test_a_body_becomes_an_object(process, store, data):
    upload = await process.put(data)
    assert (State.COMPLETE, data) == (upload.state, store.objects["key"].data)
    assert ([], 0, 0) == (process.names(), process.spool.budget.reserved, len(process.uploads.registry))
    assert (await process.uploads.look(upload.id, NOBODY)).state is State.COMPLETE
    assert (await process.uploads.newest_ended("key", NOBODY)).id == upload.id


async def test_a_description_is_stored_beside_the_bytes(process, store):
    description = Description(content_type="a/b", user={"name": "value"}, checksum=Checksum.SHA256)
    await process.put(b"abc", description=description)
    meta = store.objects["key"].meta
    assert ("a/b", {"name": "value"}, Checksum.SHA256) == (meta.content_type, meta.user, meta.checksum)


async def test_an_empty_body_with_its_length_is_an_empty_object(process, store):
    await process.put(b"old")
    await process.put(b"", content_length=0)
    assert store.objects["key"].data == b""


async def test_an_empty_chunked_body_begins_an_object_but_replaces_none(process, store):
    await process.put(b"")
    assert store.objects["key"].data == b""
    await process.put(b"old", policy="replace")
    with pytest.raises(EmptyBody):
        await process.send(Body())
    assert (b"old", None) == (store.objects["key"].data, process.uploads.open_upload("key", NOBODY))
    await process.put(b"", policy="replace")
    assert store.objects["key"].data == b""


async def test_an_empty_chunked_body_replaces_nothing_while_the_store_is_silent(process, store):
    gate = store.hold("head")
    with pytest.raises(EmptyBody):
        await process.send(Body())
    gate.release()


async def test_a_body_that_is_not_the_end_stays_open(process, store):
    live = await process.send(Body(b"abc"), seals=False)
    upload = live.upload
    assert (State.OPEN, 3, process.clock.now) == (upload.state, upload.offset, upload.touched)
    live = await process.uploads.write(
        await process.uploads.append(append(3, upload_id=upload.id, content_length=0), NOBODY), Body()
    )
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"abc"


# -- interrupted, and going on ------------------------------------------------------------------------------------


async def test_an_interrupted_body_is_kept_durable_and_told(process, store):
    with pytest.raises(WriterStopped) as stopped:
        await process.send(Body(b"x" * 13, interrupted="reset by the client"))
    assert stopped.value.offset == 13
    assert "Reset by the client. 13 bytes of an unfinished upload are kept" in stopped.value.detail
    record = await process.checkpoint.find(process.uploads.open_upload("key", NOBODY).upload.id)
    assert (13, State.OPEN, {}) == (record.upload.offset, record.upload.state, store.objects)


@pytest.mark.parametrize("data", [b"abc", b""], ids=["announced", "nothing to announce"])
async def test_that_the_writer_has_gone_is_committed(process, data):
    live = await process.interrupted(data)
    record = await process.checkpoint.find(live.upload.id)
    assert (len(data), process.clock.now) == (record.upload.offset, record.upload.touched)


async def test_an_append_goes_on_and_completes(process, store):
    await process.interrupted(b"0123456789abc")
    live = await process.uploads.write(await process.uploads.append(append(13), NOBODY), Body(b"def"))
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"0123456789abcdef"


async def test_another_offset_is_refused_with_ours(process):
    live = await process.interrupted(b"abc")
    for intent in (append(2), append(4, upload_id=live.upload.id)):
        with pytest.raises(OffsetMismatch) as refused:
            await process.uploads.append(intent, NOBODY)
        assert refused.value.expected == live.upload.offset == 3


async def test_an_offset_is_durable_before_a_mismatch_tells_it(start):
    async with start() as first:
        await die_after(first, b"abc")
    async with start() as second:
        with pytest.raises(OffsetMismatch) as refused:
            await second.uploads.append(append(1), NOBODY)
        live = second.uploads.open_upload("key", NOBODY)
        record = await second.checkpoint.find(live.upload.id)
        assert (3, 3) == (refused.value.expected, record.upload.offset)


async def test_a_range_from_byte_0_begins_where_nothing_is_open(process, store):
    intent = append(0, create=creation())
    live = await process.uploads.write(await process.uploads.append(intent, NOBODY), Body(b"abc"))
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"abc"


async def test_a_range_with_nothing_to_go_on_from_is_refused(process):
    with pytest.raises(OffsetMismatch) as refused:
        await process.uploads.append(append(5), NOBODY)
    assert refused.value.expected == 0


async def test_a_range_that_ends_before_the_total_leaves_it_open(process, store):
    live = await process.send(Body(b"abcde"), seals=False, limit=5, length=8)
    assert (State.OPEN, 5) == (live.upload.state, live.upload.offset)
    writer = await process.uploads.append(append(5, limit=8, length=8), NOBODY)
    await process.uploads.outcome(await process.uploads.write(writer, Body(b"fgh")), 5)
    assert store.objects["key"].data == b"abcdefgh"


async def test_a_chunked_range_that_ends_short_leaves_it_open(process):
    await process.send(Body(b"ab"), seals=False, limit=2, length=8)
    writer = await process.uploads.append(append(2, limit=8, length=8), NOBODY)
    live = await process.uploads.write(writer, Body(b"cd"))
    assert (State.OPEN, 4) == (live.upload.state, live.upload.offset)


@pytest.mark.parametrize("seals", [False, True])
async def test_a_body_beyond_its_range_is_refused_and_kept_up_to_it(process, seals):
    writer = await process.create(seals=seals, limit=5)
    with pytest.raises(BadRequest):
        await process.uploads.write(writer, Body(b"abcdefg"))
    live = process.uploads.open_upload("key", NOBODY)
    assert (State.OPEN, 5) == (live.upload.state, live.upload.offset)


async def test_a_body_beyond_the_declared_length_fails_the_upload(process, store):
    with pytest.raises(LengthExceeded):
        await process.send(Body(b"abcdefg"), length=5)
    [upload], _ = await process.uploads.look_all(NOBODY)
    assert (State.FAILED, [], {}) == (upload.state, process.names(), store.objects)
    with pytest.raises(Gone):
        await process.uploads.find(upload.id, NOBODY)


async def test_a_body_short_of_the_declared_length_is_kept(process):
    with pytest.raises(BadRequest):
        await process.send(Body(b"abc"), length=5)
    live = process.uploads.open_upload("key", NOBODY)
    assert (State.OPEN, 3) == (live.upload.state, live.upload.offset)


async def test_what_has_reached_its_announced_end_seals_itself_although_the_client_went(process, store):
    writer = await process.create(content_length=5)
    live = await process.uploads.write(writer, Body(b"abcde", interrupted="reset"))
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"abcde"


# -- an upload that ends where its length says --------------------------------------------------------------------


AT_LENGTH = {"seals": False, "seals_at_length": True}


async def add(process, live, data, *, interrupted=None, **options):
    """An append of these bytes where the upload is, by the length's word."""
    options = {"content_length": len(data)} | options
    intent = append(live.upload.received, upload_id=live.upload.id, **AT_LENGTH | options)
    body = Body(*([data] if data else []), interrupted=interrupted)
    return await process.uploads.write(await process.uploads.append(intent, NOBODY), body)


async def test_the_body_that_reaches_the_length_ends_the_upload(process, store):
    live = await process.send(Body(), content_length=0, length=12, **AT_LENGTH)
    for piece in (b"abcde", b"fghij"):
        await add(process, live, piece)
        assert (State.OPEN, live.upload.received) == (live.upload.state, live.upload.offset)
    await process.uploads.outcome(await add(process, live, b"kl"), 5)
    assert store.objects["key"].data == b"abcdefghijkl"


@pytest.mark.parametrize("content_length", [3, None], ids=["declared", "chunked"])
async def test_it_ends_although_the_client_went_after_its_last_byte(process, store, content_length):
    live = await process.send(Body(b"ab"), content_length=2, length=5, **AT_LENGTH)
    await add(process, live, b"cde", content_length=content_length, interrupted="reset")
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"abcde"


async def test_a_length_that_comes_when_all_bytes_are_there_ends_the_upload(process, store):
    live = await process.send(Body(b"abcde"), content_length=5, **AT_LENGTH)
    assert (State.OPEN, None) == (live.upload.state, live.upload.seal_at)
    await process.uploads.outcome(await add(process, live, b"", length=5), 5)
    assert store.objects["key"].data == b"abcde"


async def test_an_upload_of_no_bytes_ends_with_its_creation(process, store):
    live = await process.send(Body(), content_length=0, length=0, **AT_LENGTH)
    await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b""


async def test_without_a_length_no_body_ends_the_upload(process):
    live = await process.send(Body(b"abc"), content_length=3, **AT_LENGTH)
    await add(process, live, b"")
    assert (State.OPEN, 3) == (live.upload.state, live.upload.offset)


async def test_a_body_that_would_go_beyond_the_length_is_refused_at_the_door(process, store):
    live = await process.send(Body(b"ab"), content_length=2, length=5, **AT_LENGTH)
    before = copy.deepcopy(live.upload)
    with pytest.raises(TooLarge) as refused:
        await add(process, live, b"cdef")
    assert (5, "max-size", before) == (refused.value.limit, refused.value.name, live.upload)
    with pytest.raises(OffsetMismatch):
        await process.uploads.append(append(4, upload_id=live.upload.id, content_length=9, **AT_LENGTH), NOBODY)
    with pytest.raises(TooLarge):
        await process.create(key="other", content_length=6, length=5, **AT_LENGTH)
    assert process.uploads.open_upload("other", NOBODY) is None
    await process.uploads.outcome(await add(process, live, b"cde"), 5)
    assert store.objects["key"].data == b"abcde"


async def test_a_chunked_body_that_goes_beyond_the_length_fails_the_upload(process):
    live = await process.send(Body(b"ab"), content_length=2, length=5, **AT_LENGTH)
    with pytest.raises(LengthExceeded):
        await add(process, live, b"cdef", content_length=None)
    assert live.upload.state is State.FAILED


async def test_a_length_over_the_limit_is_refused_whenever_it_comes(start):
    async with start(max_upload_bytes=5) as process:
        live = await process.send(Body(b"ab"), content_length=2, **AT_LENGTH)
        with pytest.raises(TooLarge):
            await add(process, live, b"", length=6)
        assert live.upload.length is None


async def test_reached_when_the_process_dies_it_seals_itself(start, store):
    async with start() as first:
        await die_after(first, b"abcde", length=5, **AT_LENGTH)
    async with start() as second:
        await until(lambda: len(second.uploads.registry) == 0)
    assert store.objects["key"].data == b"abcde"


async def test_a_sealing_stream_ends_at_the_length_that_an_earlier_request_declared(process, store):
    live = await process.send(Body(b"ab"), seals=False, length=5)
    writer = await process.uploads.append(append(2, upload_id=live.upload.id), NOBODY)
    await process.uploads.outcome(await process.uploads.write(writer, Body(b"cde", interrupted="reset")), 5)
    assert store.objects["key"].data == b"abcde"


# -- one writer ---------------------------------------------------------------------------------------------------


async def test_a_newcomer_stops_the_writer_and_goes_on_from_there(process, store):
    body = Body(b"abc", None, b"never")
    old = process.running(await process.create(), body)
    await body.waiting.wait()
    writer = await process.uploads.append(append(3), NOBODY)
    with pytest.raises(WriterStopped):
        await old
    await process.uploads.outcome(await process.uploads.write(writer, Body(b"def")), 5)
    assert store.objects["key"].data == b"abcdef"


async def test_a_stopped_writer_does_not_seal_whatever_its_buffer_still_holds(process):
    body = Body(b"abc", None, b"late")
    writing = process.running(await process.create(), body)
    await body.waiting.wait()
    live = process.uploads.open_upload("key", NOBODY)
    body.go_on.set()  # the rest and the end arrive in the same turn as the newcomer
    upload = await process.uploads.inspect(live)
    with pytest.raises(WriterStopped):
        await writing
    assert (State.OPEN, upload.received) == (upload.state, upload.offset)


async def test_a_writer_that_waits_for_the_spool_can_be_stopped(process):
    process.spool.budget.take("other", 1000 - 125 - 10)
    body = Body(b"x" * 10, b"y" * 5)
    gate = process.store.hold("put_part")
    writing = process.running(await process.create(), body)
    await gate.reached()
    live = process.uploads.open_upload("key", NOBODY)
    upload = await process.uploads.inspect(live)
    with pytest.raises(WriterStopped):
        await writing
    assert (10, 10) == (upload.received, upload.offset)
    gate.release()


async def test_a_writer_that_was_stopped_before_it_began_takes_nothing(process):
    writer = await process.create()
    writer.stop("too late")
    with pytest.raises(WriterStopped):
        await process.uploads.write(writer, Body(b"abc"))
    assert process.uploads.open_upload("key", NOBODY).upload.received == 0


async def test_newcomers_go_in_one_after_another(process):
    body = Body(b"abc", None)
    old = process.running(await process.create(), body)
    await body.waiting.wait()

    async def newcomer():
        writer = await process.uploads.append(append(3, seals=False), NOBODY)
        return await process.uploads.write(writer, Body(b"def"))

    results = await asyncio.gather(old, newcomer(), newcomer(), return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds.count(WriterStopped) + kinds.count(OffsetMismatch) == 2
    live = process.uploads.open_upload("key", NOBODY)
    assert live.upload.received == live.upload.offset == 6


async def test_looking_stops_nobody(process):
    body = Body(b"abc", None, b"def")
    writing = process.running(await process.create(), body)
    await body.waiting.wait()
    live = process.uploads.open_upload("key", NOBODY)
    upload = await process.uploads.look(live.upload.id, NOBODY)
    assert (3, ([upload], 0)) == (upload.received, await process.uploads.look_all(NOBODY))
    assert await process.uploads.announce(live) == 3
    live.writer.began = asyncio.get_running_loop().time() - 2
    assert (1.5, live) == (round(process.uploads.document(upload)["rate"], 1), process.uploads.newest("key", NOBODY))
    body.go_on.set()
    assert (await process.uploads.outcome(await writing, 5)).state is State.COMPLETE
    assert process.uploads.document(upload)["rate"] is None


async def test_a_writing_task_that_is_cancelled_settles_all_the_same(process):
    body = Body(b"abc", None)
    writer = await process.create()
    writing = process.running(writer, body)
    await body.waiting.wait()
    writing.cancel()
    await writer.settled.wait()
    assert writing.cancelled() or writing.cancelling()
    live = process.uploads.open_upload("key", NOBODY)
    assert (3, None, process.clock.now) == (live.upload.offset, live.writer, live.upload.touched)


async def test_a_creation_that_is_cancelled_leaves_nothing_that_never_expires(process):
    process.checkpoint.held.clear()
    creating = asyncio.create_task(process.create())
    await turns()
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    process.checkpoint.held.set()
    await turns(100)
    live = process.uploads.open_upload("key", NOBODY)
    assert live is None or live.upload.expires(60) is not None


async def test_an_upload_keeps_to_the_key_of_its_prefix_whatever_is_configured_later(start, store):
    rules = [{"secret/": {"sse_c_key": key}} for key in (b"1" * 32, b"2" * 32)]
    kept = {"secret/a": ObjectOptions(sse_c_key=b"1" * 32).sse_c_key_md5, "plain": NO_KEY}
    async with start(prefixes=rules[0]) as process:
        for key in kept:
            await process.interrupted(b"0123456789ab", key=key)
    async with start(prefixes=rules[1]) as process:
        for key, md5 in kept.items():
            assert process.uploads.open_upload(key, NOBODY).upload.meta.sse_c_key_md5 == md5
            live = await process.uploads.write(
                await process.uploads.append(append(12, key=key), NOBODY), Body(b"cdefghijklm")
            )
            await process.uploads.outcome(live, 5)
            assert (store.objects[key].data, store.objects[key].meta.sse_c_key_md5) == (b"0123456789abcdefghijklm", md5)
        new = await process.interrupted(b"abc", key="secret/b")
        assert new.upload.meta.sse_c_key_md5 == ObjectOptions(sse_c_key=b"2" * 32).sse_c_key_md5


# -- policies -----------------------------------------------------------------------------------------------------


async def test_reject_names_the_ways_on_and_a_durable_offset(process):
    live = await process.interrupted(b"abc")
    with pytest.raises(UploadExists) as refused:
        await process.create()
    assert (3, live.upload.id) == (refused.value.offset, refused.value.upload_id)
    assert "curl -C 3 -T FILE" in refused.value.detail


async def test_append_goes_on_wherever_it_is(process, store):
    await process.interrupted(b"abc")
    await process.put(b"def", policy="append")
    assert store.objects["key"].data == b"abcdef"


async def test_an_empty_append_adds_and_seals_nothing(process):
    live = await process.interrupted(b"abc")
    with pytest.raises(EmptyBody):
        await process.send(Body(), policy="append")
    assert (State.OPEN, 3, None) == (live.upload.state, live.upload.offset, live.writer)


async def test_replace_cancels_the_old_upload_at_the_first_byte(process, store):
    old = await process.interrupted(b"old")
    body = Body(None, b"new")
    writing = process.running(await process.create(policy="replace"), body)
    await body.waiting.wait()
    assert old.upload.state is State.OPEN
    body.go_on.set()
    await process.uploads.outcome(await writing, 5)
    assert (State.CANCELLED, b"new") == (old.upload.state, store.objects["key"].data)


async def test_new_takes_the_next_free_name_and_replaces_nothing(process, store):
    await process.put(b"1", key="a/b-1.ts")
    await process.interrupted(b"old", key="a/b.ts")
    upload = await process.put(b"new", key="a/b.ts", policy="new")
    assert ("a/b-2.ts", True) == (upload.key, upload.meta.if_none_match)
    assert store.objects["a/b-2.ts"].data == b"new"


async def test_the_servers_policy_holds_where_the_client_names_none(start, store):
    async with start(interrupted="append") as process:
        await process.interrupted(b"abc")
        await process.put(b"def")
        assert store.objects["key"].data == b"abcdef"


async def test_an_upload_of_somebody_else_is_not_shown(process):
    live = await process.interrupted(b"abc")
    upload_id = live.upload.id
    for policy in ("reject", "append", "replace", "new"):
        with pytest.raises(UploadExists) as refused:
            await process.create(grant=OTHER, policy=policy)
        assert (None, None) == (refused.value.offset, refused.value.upload_id)
    with pytest.raises(UploadExists):
        await process.uploads.append(append(3), OTHER)
    for question in (process.uploads.find, process.uploads.look):
        with pytest.raises(NotFound):
            await question(upload_id, OTHER)
    assert await process.uploads.look_all(OTHER) == ([], 0)
    assert process.uploads.live(upload_id, OTHER) is None
    assert process.uploads.live(upload_id, NOBODY) is live
    assert process.uploads.newest("key", OTHER) is None
    await process.uploads.cancel(live)
    assert await process.uploads.newest_ended("key", OTHER) is None


# -- the door -----------------------------------------------------------------------------------------------------


async def test_if_none_match_is_refused_before_the_body(process):
    await process.put(b"old")
    with pytest.raises(PreconditionFailed):
        await process.create(description=Description(if_none_match=True))


@pytest.mark.parametrize(
    "description",
    [Description(if_none_match=True), Description(checksum=Checksum.SHA256)],
    ids=["condition", "checksum"],
)
async def test_what_the_store_cannot_keep_is_refused_at_the_door(process, store, description):
    store.conditional_writes, store.checksums = False, frozenset({Checksum.CRC64NVME})
    with pytest.raises(NotImplementedHere):
        await process.create(description=description)


async def test_a_full_spool_is_refused_at_the_door(process):
    process.spool.budget.take("other", 1000 - 125)
    with pytest.raises(SpoolFull):
        await process.create()
    writer = await process.create(content_length=0)
    await process.uploads.write(writer, Body())


async def test_a_disk_below_its_floor_is_refused_at_the_door(start):
    async with start(disk_floor_bytes=1 << 60) as process:
        with pytest.raises(SpoolFull):
            await process.create()


async def test_there_are_only_so_many_uploads(start):
    async with start(max_open_uploads=1) as process:
        await process.interrupted(b"abc")
        with pytest.raises(TooManyUploads):
            await process.create(key="other")


@pytest.mark.parametrize("body", [{"content_length": 6}, {"length": 6}])
async def test_a_size_over_the_limit_is_refused_at_the_door(start, body):
    async with start(max_upload_bytes=5) as process:
        with pytest.raises(TooLarge):
            await process.create(**body)


async def test_a_stream_over_the_limit_is_cut_off(start, store):
    async with start(max_upload_bytes=5) as process:
        with pytest.raises(TooLarge):
            await process.send(Body(b"abc", b"def"))
        assert store.objects == {}


async def test_the_store_may_be_down_at_the_door(process, store):
    store.fail("head", StoreUnavailable)
    assert (await process.put(b"abc")).state is State.COMPLETE


# -- ends ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_upload_leaves_nothing(process, store):
    live = await process.interrupted(b"x" * 25)
    await until(lambda: len(live.upload.receipts) == 2)
    await process.uploads.cancel(live)
    await until(lambda: not store.multiparts)
    assert (State.CANCELLED, [], 0) == (live.upload.state, process.names(), process.spool.budget.reserved)
    await until(lambda: live.upload.multipart_id is None)
    with pytest.raises(Gone):
        await process.uploads.append(append(25, upload_id=live.upload.id), NOBODY)


async def test_a_cancellation_stops_the_writer(process):
    body = Body(b"abc", None)
    writing = process.running(await process.create(), body)
    await body.waiting.wait()
    await process.uploads.cancel(process.uploads.open_upload("key", NOBODY))
    with pytest.raises(Gone):
        await writing
    assert process.spool.budget.reserved == 0


async def test_completing_cannot_be_cancelled(process, store):
    gate = store.hold("put_object")
    live = await process.send(Body(b"abc"))
    await gate.reached()
    with pytest.raises(UploadBusy):
        await process.uploads.cancel(live)
    with pytest.raises(UploadBusy):
        await process.uploads.append(append(3, upload_id=live.upload.id), NOBODY)
    gate.release()
    assert (await process.uploads.outcome(live, 5)).state is State.COMPLETE
    with pytest.raises(AlreadyComplete):
        await process.uploads.find(live.upload.id, NOBODY)


async def test_a_removal_takes_open_upload_and_object(process, store):
    await process.put(b"object")
    live = await process.interrupted(b"abc")
    await process.uploads.remove("key", NOBODY)
    assert (State.CANCELLED, {}) == (live.upload.state, store.objects)
    await process.uploads.remove("key", NOBODY)


async def test_a_removal_waits_for_what_was_sealed_before(process, store):
    gate = store.hold("put_object")
    await process.send(Body(b"abc"))
    await gate.reached()
    removing = asyncio.create_task(process.uploads.remove("key", NOBODY))
    await turns()
    assert not removing.done()
    gate.release()
    await removing
    assert store.objects == {}


async def test_a_removal_waits_no_longer_than_for_the_store(start, store):
    async with start(store_timeout_seconds=0.0) as process:
        gate = store.hold("put_object")
        await process.send(Body(b"abc"))
        await gate.reached()
        with pytest.raises(UploadBusy):
            await process.uploads.remove("key", NOBODY)
        gate.release()


async def test_the_store_not_answering_in_time_leaves_a_durable_upload(process, store):
    gate = store.hold("put_object")
    live = await process.send(Body(b"abc"))
    upload = await process.uploads.outcome(live, 0)
    assert (State.COMPLETING, 3) == (upload.state, upload.offset)
    gate.release()
    assert (await process.uploads.outcome(live, 5)).state is State.COMPLETE


async def test_an_upload_that_nobody_comes_back_for_expires(start, clock):
    async with start(expire_seconds=0.01) as process:
        live = await process.interrupted(b"abc")
        clock.now += 1
        await live.ended.wait()
        assert (State.EXPIRED, []) == (live.upload.state, process.names())


async def test_a_failed_commit_does_not_end_expiry_for_good(start, clock):
    async with start(expire_seconds=0.01) as process:
        live = await process.interrupted(b"abc")
        process.checkpoint.failing = ["save"]
        clock.now += 1
        await until(lambda: not process.checkpoint.failing)
        async with asyncio.timeout(5):
            await live.ended.wait()  # the verdict stood, and was committed when that was possible
        other = await process.interrupted(b"abc", key="other")
        clock.now += 1
        async with asyncio.timeout(5):
            await other.ended.wait()


async def test_outcomes_are_forgotten_after_a_day(start, clock, monkeypatch):
    monkeypatch.setattr(registry, "UPKEEP_SECONDS", 0.01)
    async with start() as process:
        upload = await process.put(b"abc")
        clock.now += registry.KEEP_SECONDS + 1
        async with asyncio.timeout(5):
            while await process.checkpoint.find(upload.id):  # noqa: ASYNC110 - upkeep sets no event
                await asyncio.sleep(0)
        with pytest.raises(NotFound):
            await process.uploads.look(upload.id, NOBODY)


# -- one order per key --------------------------------------------------------------------------------------------


async def test_completions_of_a_key_take_effect_as_they_were_sealed(process, store):
    gate = store.hold("put_part")
    first = await process.send(Body(b"first" * 5))
    await gate.reached()
    second = await process.send(Body(b"second"))
    third = await process.send(Body(b"third"))
    await turns(100)
    assert store.objects == {}
    gate.release()
    for live in (first, second, third):
        await process.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"third"
    assert [effect[0] for effect in store.effects if effect[0] in {"complete_multipart", "put_object"}] == [
        "complete_multipart",
        "put_object",
        "put_object",
    ]


async def test_one_that_fails_or_is_cancelled_holds_nobody_up(process, store):
    gate = store.hold("put_part")
    first = await process.send(Body(b"first" * 5))
    await gate.reached()
    second = await process.send(Body(b"second"))
    await process.uploads.cancel(first)
    assert (await process.uploads.outcome(second, 5)).state is State.COMPLETE
    gate.release()
    assert store.objects["key"].data == b"second"


async def test_another_key_waits_for_nobody(process, store):
    gate = store.hold("put_part")
    await process.send(Body(b"first" * 5))
    assert (await process.put(b"abc", key="other")).state is State.COMPLETE
    gate.release()


# -- faults of our own --------------------------------------------------------------------------------------------


async def test_a_creation_that_was_not_committed_never_was(process):
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.create()
    await until(lambda: len(process.uploads.registry) == 0)
    assert (await process.put(b"abc")).state is State.COMPLETE


async def test_an_upload_whose_commit_failed_is_dropped_and_read_again(process, store):
    writer = await process.create()
    live = writer.live
    process.checkpoint.failing = ["announce"]
    with pytest.raises(CheckpointError):
        await process.uploads.write(writer, Body(b"abc", interrupted="reset"))
    await until(lambda: process.uploads.open_upload("key", NOBODY) not in {None, live})
    fresh = process.uploads.open_upload("key", NOBODY)
    assert (live.upload.id, 3) == (fresh.upload.id, fresh.upload.received)
    writer = await process.uploads.append(append(3), NOBODY)
    await process.uploads.outcome(await process.uploads.write(writer, Body(b"def")), 5)
    assert (b"abcdef", 0) == (store.objects["key"].data, process.spool.budget.reserved)


async def test_a_writer_is_told_no_offset_of_an_upload_whose_commit_failed(process):
    writer = await process.create()
    process.checkpoint.failing = ["save"]  # the drain's, before it creates the multipart upload
    with pytest.raises(CheckpointError):
        await process.uploads.write(writer, Body(b"x" * 13, interrupted="reset"))


async def test_nothing_is_answered_from_an_upload_whose_commit_failed(process):
    writer = await process.create()
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.uploads.write(writer, Body(b"abc"))
    live = writer.live
    assert live.stale
    with pytest.raises((CheckpointError, UploadBusy)):
        await process.uploads.outcome(live, 0)


async def test_a_receipt_that_was_not_committed_sends_the_part_again(process, store):
    process.checkpoint.failing = ["receipt"]
    writer = await process.create()
    body = Body(b"x" * 10, None, b"y")
    writing = process.running(writer, body)
    await until(lambda: not process.checkpoint.failing)
    with pytest.raises(CheckpointError):
        await writing
    await until(lambda: process.uploads.open_upload("key", NOBODY) not in {None, writer.live})
    writer = await process.uploads.append(append(10), NOBODY)
    await process.uploads.outcome(await process.uploads.write(writer, Body(b"y")), 5)
    assert (b"x" * 10 + b"y", [], {}) == (store.objects["key"].data, process.names(), store.multiparts)


def sleep_shortly(monkeypatch):
    real_sleep = asyncio.sleep

    async def shortly(seconds):
        await real_sleep(min(seconds, 0.001))

    monkeypatch.setattr(registry.asyncio, "sleep", shortly)


async def test_reading_again_over_and_over_holds_no_more_budget(process, monkeypatch):
    sleep_shortly(monkeypatch)
    writer = await process.create()
    process.checkpoint.failing = ["announce"] + ["save"] * 3
    with pytest.raises(CheckpointError):
        await process.uploads.write(writer, Body(b"abc", interrupted="reset"))
    await until(lambda: process.uploads.open_upload("key", NOBODY) not in {None, writer.live})
    assert process.spool.budget.reserved == 3


async def test_an_end_that_was_committed_and_not_told_leaves_nothing(process):
    live = await process.interrupted(b"abc")
    record = await process.checkpoint.find(live.upload.id)
    record.upload.fail("state lost", process.clock.now)
    await process.checkpoint.save(record.upload)
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.uploads.append(append(3), NOBODY)
    await until(lambda: not len(process.uploads.registry))
    assert ([], 0) == (process.names(), process.spool.budget.reserved)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
async def test_a_failed_sync_fails_the_upload(process, number):
    process.files.sync_error = number
    with pytest.raises(SpoolError):
        await process.send(Body(b"abc", interrupted="reset"))
    process.files.sync_error = None
    [upload], _ = await process.uploads.look_all(NOBODY)
    assert (State.FAILED, []) == (upload.state, process.names())
    assert upload.reason.startswith("spool:")


async def test_a_failed_write_fails_the_upload(process, monkeypatch):
    def broken(_, __):
        raise OSError(errno.EIO, "as the test wants it")

    monkeypatch.setattr(process.files, "write", broken)
    with pytest.raises(SpoolError):
        await process.send(Body(b"abc"))
    [upload], _ = await process.uploads.look_all(NOBODY)
    assert (State.FAILED, 0) == (upload.state, process.spool.budget.reserved)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
async def test_a_part_that_cannot_be_read_back_fails_the_upload_or_is_read_again(
    process, store, monkeypatch, caplog, number
):
    errors, read = [OSError(number, "as the test wants it")], process.files.read

    def broken(*span):
        if errors:
            raise errors.pop()
        yield from read(*span)

    monkeypatch.setattr(process.files, "read", broken)
    live = await process.send(Body(b"abc"), description=Description(checksum=Checksum.SHA256))
    await live.ended.wait()
    await until(lambda: not len(process.uploads.registry))
    upload = await process.uploads.look(live.upload.id, NOBODY)
    if number == errno.EIO:
        assert (State.FAILED, {}) == (upload.state, store.objects)
        assert upload.reason.startswith("reading ")
    else:
        assert store.objects["key"].data == b"abc"
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_store_that_refuses_fails_the_upload_under_its_writer(process, store):
    body = Body(b"x" * 10, None, b"y" * 10)
    gate = store.hold("put_part")
    writing = process.running(await process.create(), body)
    await gate.reached()
    live = process.uploads.open_upload("key", NOBODY)
    (process.directory / "spool" / f"{live.upload.id}.1").write_bytes(b"damaged!!!")
    gate.release()
    await live.ended.wait()
    body.go_on.set()
    with pytest.raises(Gone):
        await process.uploads.outcome(await writing, 5)
    await until(lambda: not store.multiparts)
    assert ([], 0) == (process.names(), process.spool.budget.reserved)


# -- stop and start -----------------------------------------------------------------------------------------------


async def test_a_stop_settles_writers_and_lets_nobody_in(process):
    body = Body(b"abc", None)
    writing = process.running(await process.create(), body)
    await body.waiting.wait()
    await process.uploads.stop(1)
    with pytest.raises(WriterStopped):
        await writing
    for entering in (process.create(key="other"), process.uploads.append(append(3), NOBODY)):
        with pytest.raises(UploadBusy):
            await entering
    assert "1 live" in repr(process.uploads)


async def test_a_stop_lets_the_sealed_complete(process, store):
    gate = store.hold("put_object")
    await process.send(Body(b"abc"))
    await gate.reached()
    stopping = asyncio.create_task(process.uploads.stop(5))
    await turns()
    gate.release()
    await stopping
    assert store.objects["key"].data == b"abc"


async def test_a_stop_waits_no_longer_than_it_is_given(start, store):
    async with start() as first:
        gate = store.hold("put_object")
        await first.send(Body(b"abc"))
        await gate.reached()
        await first.uploads.stop(0.01)
    gate.release()
    async with start() as second:
        await until(lambda: len(second.uploads.registry) == 0)
    assert store.objects["key"].data == b"abc"


async def test_a_stop_does_not_wait_for_a_store_that_is_down(process, store, monkeypatch):
    monkeypatch.setattr(uploader, "BACKOFF_FIRST_SECONDS", 3600)
    monkeypatch.setattr(uploader, "BACKOFF_MOST_SECONDS", 3600)
    store.fail("put_object", StoreUnavailable)
    await process.send(Body(b"abc"))
    await until(lambda: not process.uploader.available)
    async with asyncio.timeout(5):
        await process.uploads.stop(3600)


async def test_a_stop_waits_for_those_whom_the_store_takes_and_not_for_one_that_is_held(start, store):
    gate = asyncio.Event()
    put = store.put_object

    async def put_object(key, *rest):
        if key == "held":
            raise AccessDenied("begun with another key")
        await gate.wait()
        return await put(key, *rest)

    store.put_object = put_object
    async with start() as process:
        held = await process.send(Body(b"abc"), key="held")
        good = await process.send(Body(b"abc"), key="good")
        await until(lambda: process.uploader.held(held.upload.id))
        stopping = asyncio.create_task(process.uploads.stop(3600))
        await turns()
        gate.set()
        async with asyncio.timeout(5):
            await stopping
    assert (State.COMPLETE, State.COMPLETING) == (good.upload.state, held.upload.state)


async def die_after(process, *chunks, **options):
    """A process that is killed while a client waits after these bytes."""
    body = Body(*chunks, None)
    process.running(await process.create(**options), body)
    await body.waiting.wait()


async def test_of_a_stream_whose_bytes_a_power_cut_took_an_empty_object_can_be_made(start, store):
    gate = store.hold("put_part")
    async with start() as first:
        await die_after(first, b"x" * 10, b"y" * 13)
        await gate.reached()
    gate.release()
    async with start("another boot") as second:
        assert (0, 1) == (second.uploads.open_upload("key", NOBODY).upload.received, len(store.multiparts))
        writer = await second.uploads.append(append(0, content_length=0), NOBODY)
        await second.uploads.outcome(await second.uploads.write(writer, Body()), 5)
        assert (b"", {}) == (store.objects["key"].data, store.multiparts)


@pytest.mark.parametrize("chunks", [[b"abc"], [b"x" * 10, b"y" * 13]])
async def test_kill_loses_nothing_received(start, store, chunks):
    async with start() as first:
        await die_after(first, *chunks)
    data = b"".join(chunks)
    async with start() as second:
        live = second.uploads.open_upload("key", NOBODY)
        assert live.upload.received == len(data)
        writer = await second.uploads.append(append(len(data)), NOBODY)
        await second.uploads.outcome(await second.uploads.write(writer, Body(b"end")), 5)
    assert (data + b"end", {}) == (store.objects["key"].data, store.multiparts)


async def test_after_a_power_cut_what_was_announced_is_there(start):
    async with start() as first:
        await die_after(first, b"abcdef")
        live = first.uploads.open_upload("key", NOBODY)
        assert await first.uploads.announce(live) == 6
    async with start("another boot") as second:
        upload = second.uploads.open_upload("key", NOBODY).upload
        assert (6, 6) == (upload.received, upload.offset)


async def test_after_a_power_cut_what_was_never_told_may_be_gone(start):
    async with start() as first:
        await die_after(first, b"abcdef")
    async with start("another boot") as second:
        upload = second.uploads.open_upload("key", NOBODY).upload
        assert (0, 0, State.OPEN, []) == (upload.received, upload.offset, upload.state, second.names())


async def test_an_upload_whose_promised_bytes_are_gone_fails(start):
    async with start() as first:
        live = await first.interrupted(b"abcdef")
        upload_id = live.upload.id
    (path,) = (first.directory / "spool").iterdir()
    path.unlink()
    async with start() as second:
        await until(lambda: len(second.uploads.registry) == 0)
        with pytest.raises(Gone, match="state lost"):
            await second.uploads.find(upload_id, NOBODY)


async def test_a_due_upload_seals_itself_at_a_restart(start, store):
    async with start() as first:
        await die_after(first, b"abcdef", content_length=6)
    async with start() as second:
        await until(lambda: len(second.uploads.registry) == 0)
    assert store.objects["key"].data == b"abcdef"


async def test_what_an_ended_upload_left_in_the_spool_goes_at_a_restart(start):
    async with start() as first:
        upload = await first.put(b"abc")
        (first.directory / "spool" / f"{upload.id}.1").write_bytes(b"abc")
    async with start() as second:
        assert second.names() == []


@pytest.mark.parametrize("name", ["stranger.1", "notes.txt", "notes"])
async def test_files_that_nobody_knows_are_left_and_told(start, tmp_path, caplog, name):
    """The checkpoint may be one from before these uploads, put back by hand."""
    async with start():
        (tmp_path / "spool" / name).write_bytes(b"x")
    async with start() as second:
        assert second.names() == [name]
    assert "1 files in" in caplog.text


async def test_part_files_without_their_checkpoint_are_refused_and_left(start, tmp_path):
    async with start() as first:
        await first.interrupted(b"abcde")
        names = first.names()
    for path in tmp_path.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(StateDirectoryError, match="Put back the one that belongs to them"):
        async with start():
            pass
    assert names == sorted(path.name for path in (tmp_path / "spool").iterdir())


async def test_what_an_ended_upload_left_in_the_store_goes_at_a_restart(start, store):
    async with start() as first:
        live = await first.interrupted(b"x" * 15)
        await until(lambda: live.upload.receipts)
        gate = store.hold("abort_multipart")
        await first.uploads.cancel(live)
        await gate.reached()
    assert len(store.multiparts) == 1
    gate.release()
    async with start():
        await until(lambda: not store.multiparts)


async def test_seals_go_on_counting_after_a_restart(start, store):
    async with start() as first:
        gate = store.hold("put_object")
        await first.send(Body(b"first"))
        await gate.reached()
    gate.release()
    async with start() as second:
        live = await second.send(Body(b"second"))
        assert live.upload.sealed_order == 2
        await second.uploads.outcome(live, 5)
    assert store.objects["key"].data == b"second"


async def test_a_stopped_writer_is_not_told_of_a_success_that_is_not_its_own(process):
    """Its client had more to send; that somebody sealed what there was is no answer to it."""
    writer = await process.create()
    body = Body(b"abc", None)
    writing = process.running(writer, body)
    await until(lambda: writer.live.upload.received == 3)
    await process.uploads.inspect(writer.live)
    newcomer = await process.uploads.append(append(3, upload_id=writer.live.upload.id), NOBODY)
    await process.uploads.outcome(await process.uploads.write(newcomer, Body()), 5)
    assert writer.live.upload.state is State.COMPLETE
    with pytest.raises(WriterStopped):
        await writing


async def test_a_fault_that_lasts_for_days_ends_some_day(process, monkeypatch):
    sleep_shortly(monkeypatch)
    live = await process.interrupted(b"abc")
    live.rereads = 5000  # half a minute apart: two days
    process.checkpoint.failing = ["save"]
    with pytest.raises(CheckpointError):
        await process.uploads.append(append(3, upload_id=live.upload.id), NOBODY)
    await until(lambda: process.uploads.open_upload("key", NOBODY) not in {None, live})
