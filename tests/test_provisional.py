"""An append that comes with a digest counts only when that matches: else, whatever happens, nothing of it was there.

On a whole service, but without HTTP: requests are `service.uploads`' own, their bodies in memory.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import BODY, PART_BYTES, Service, strict_store
from fake_body import Body
from raw_client import eventually

from streamup import accumulator, checkpoint, registry, spool
from streamup.digests import HASHES, Digest
from streamup.errors import (
    BadRequest,
    CheckpointError,
    DigestMismatch,
    Gone,
    LengthExceeded,
    OffsetMismatch,
    SpoolError,
    TooLarge,
    WriterStopped,
)
from streamup.grants import Grant
from streamup.protocols import Append, BodyTerms, Create, Description
from streamup.spool import Files
from streamup.upload import State, Upload
from streamup.writer import Live, Writer

NOBODY = Grant(subject="nobody")
STARTS = pytest.mark.parametrize("start", [0, 100, PART_BYTES, PART_BYTES + 100])
"""In a part, between two, and before the first."""

END = 3 * PART_BYTES + 17
"""Where the provisional appends of these tests end: each goes through two boundaries at least."""

FRESH = {"content_length": None, "seals": False}


def digest_of(data: bytes, algorithm: str = "sha256") -> tuple[Digest, ...]:
    running = HASHES[algorithm]()
    running.update(data)
    return (Digest(algorithm, running.digest()),)


WRONG = digest_of(b"something else")


async def create(service: Service, key: str = "a", **terms: Any) -> Writer:
    body = BodyTerms(**FRESH | terms)
    return await service.uploads.create(Create(key=key, body=body, description=Description()), NOBODY)


async def append(service: Service, live: Live, **terms: Any) -> Writer:
    """A writer where the upload is."""
    intent = Append(offset=live.upload.received, upload_id=live.upload.id, body=BodyTerms(**FRESH | terms))
    return await service.uploads.append(intent, NOBODY)


async def opened(service: Service, size: int, key: str = "a") -> Live:
    """An upload with so many bytes of `BODY`, and no writer."""
    return await service.uploads.write(await create(service, key), Body(*([BODY[:size]] if size else [])))


def the_upload(service: Service, key: str = "a") -> Live:
    live = service.uploads.open_upload(key, NOBODY)
    assert live
    return live


async def add(service: Service, live: Live, data: bytes, **terms: Any) -> Live:
    """These bytes, by default with their digest."""
    writer = await append(service, live, **{"digests": digest_of(data)} | terms)
    return await service.uploads.write(writer, Body(data))


async def complete(service: Service, live: Live) -> bytes | None:
    """The object, after the rest of `BODY`."""
    writer = await append(service, live, seals=True)
    rest = BODY[live.upload.received :]
    await service.uploads.outcome(await service.uploads.write(writer, Body(rest)), 5)
    return service.data(live.upload.key)


async def received(writer: Writer, size: int) -> None:
    async with asyncio.timeout(5):
        while writer.added < size:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


@asynccontextmanager
async def in_the_middle(
    service: Service, live: Live, **terms: Any
) -> AsyncIterator[tuple[asyncio.Task[Live], Body, Writer]]:
    """While a provisional append has sent all its bytes up to `END`, but not their end."""
    data = BODY[live.upload.received : END]
    body = Body(data[:5], data[5:], None)
    writer = await append(service, live, **{"digests": digest_of(data)} | terms)
    writing = asyncio.create_task(service.uploads.write(writer, body))
    await received(writer, len(data))
    yield writing, body, writer
    body.go_on.set()
    await asyncio.gather(writing, return_exceptions=True)


def kept(service: Service, live: Live) -> tuple[Any, ...]:
    """All that is known of an upload's bytes, and what there is of them on the disk."""
    upload, files = live.upload, live.accumulator._files
    numbers = [(number, file.size, file.crc64nvme, file.reserved) for number, file in sorted(files.items())]
    return upload.state, upload.received, upload.offset, upload.provisional, numbers, service.spooled()


def at(monkeypatch: pytest.MonkeyPatch, room: Any, name: str, act: Callable[[], object]) -> None:
    """Act when a room passes this failpoint."""
    monkeypatch.setattr(room, "failpoint", lambda passed: act() if passed == name else None)


# -- it counts ------------------------------------------------------------------------------------------------------


@STARTS
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_matching_digest_makes_the_bytes_received_and_durable(service, start, framing):
    live = await opened(service, start)
    content_length = END - start if framing == "length" else None
    await add(service, live, BODY[start:END], content_length=content_length)
    assert (State.OPEN, END, END, None) == kept(service, live)[:4]
    record = await service.checkpoint.find(live.upload.id)
    assert (END, None) == (record.upload.offset, record.upload.provisional)
    await eventually(lambda: live.upload.stored == END - 17)
    assert await complete(service, live) == BODY
    assert service.spool.budget.reserved == 0


@pytest.mark.parametrize("algorithm", sorted(HASHES))
async def test_appends_with_digests_follow_each_other(service, algorithm):
    live = await opened(service, 0)
    for start in range(0, len(BODY), 50_000):
        data = BODY[start : start + 50_000]
        await add(service, live, data, digests=digest_of(data, algorithm), content_length=len(data))
    assert await complete(service, live) == BODY


async def test_a_whole_object_with_its_digest(service):
    writer = await create(service, content_length=len(BODY), seals=True, digests=digest_of(BODY))
    await service.uploads.outcome(await service.uploads.write(writer, Body(BODY)), 5)
    assert (service.data("a"), service.spool.budget.reserved) == (BODY, 0)


async def test_the_last_append_ends_the_upload_by_its_own_word_or_the_lengths(service):
    for key, terms in (("a", {"seals": True}), ("b", {"seals_at_length": True, "length": len(BODY)})):
        live = await opened(service, 100, key)
        await service.uploads.outcome(await add(service, live, BODY[100:], **terms), 5)
        assert service.data(key) == BODY


async def test_an_empty_body_with_its_digest_adds_nothing_and_may_end_the_upload(service):
    live = await opened(service, len(BODY))
    await add(service, live, b"", content_length=0)
    assert (State.OPEN, len(BODY)) == kept(service, live)[:2]
    await service.uploads.outcome(await add(service, live, b"", content_length=0, seals=True), 5)
    assert service.data("a") == BODY


# -- it does not count ----------------------------------------------------------------------------------------------


@STARTS
async def test_a_mismatch_leaves_everything_as_it_was(service, start):
    live = await opened(service, start)
    await eventually(lambda: live.upload.stored == start // PART_BYTES * PART_BYTES)
    before = kept(service, live)
    with pytest.raises(DigestMismatch):
        await add(service, live, BODY[start:END][::-1], digests=WRONG)
    assert kept(service, live) == before
    assert await complete(service, live) == BODY
    assert service.spool.budget.reserved == 0


@STARTS
async def test_an_interruption_leaves_everything_as_it_was(service, start):
    live = await opened(service, start)
    await eventually(lambda: live.upload.stored == start // PART_BYTES * PART_BYTES)
    before = kept(service, live)
    writer = await append(service, live, digests=digest_of(BODY[start:END]))
    with pytest.raises(WriterStopped) as stopped:
        await service.uploads.write(writer, Body(BODY[start:END], interrupted="reset by the client"))
    assert (start, 0) == (stopped.value.offset, writer.added)
    assert kept(service, live) == before
    await add(service, live, BODY[start:END])
    assert await complete(service, live) == BODY


async def test_whoever_asks_where_to_go_on_is_told_the_start(service):
    live = await opened(service, PART_BYTES + 100)
    async with in_the_middle(service, live) as (writing, _, _):
        upload = await service.uploads.inspect(live)
        assert (PART_BYTES + 100,) * 2 == (upload.offset, upload.received)
        with pytest.raises(WriterStopped):
            await writing
    assert await complete(service, live) == BODY


async def test_a_takeover_goes_on_at_the_start(service):
    live = await opened(service, PART_BYTES + 100)
    async with in_the_middle(service, live) as (writing, _, _):
        intent = Append(offset=END, upload_id=live.upload.id, body=BodyTerms(**FRESH))
        with pytest.raises(OffsetMismatch) as refused:
            await service.uploads.append(intent, NOBODY)
        assert refused.value.expected == PART_BYTES + 100
        with pytest.raises(WriterStopped):
            await writing
    assert await complete(service, live) == BODY


async def test_a_cancelled_request_leaves_everything_as_it_was(service):
    live = await opened(service, 100)
    before = kept(service, live)
    async with in_the_middle(service, live) as (writing, _, writer):
        writing.cancel()
        await writer.settled.wait()
        assert kept(service, live) == before


async def test_a_byte_beyond_the_range_leaves_everything_as_it_was(service):
    live = await opened(service, 100)
    before = kept(service, live)
    with pytest.raises(BadRequest):
        await add(service, live, BODY[100:END], limit=END - 1)
    assert kept(service, live) == before
    assert await complete(service, live) == BODY


async def test_a_byte_beyond_the_length_does_not_fail_an_upload_whose_bytes_are_verified(service):
    live = await opened(service, 100)
    with pytest.raises(LengthExceeded):
        await add(service, live, BODY[100:] + b"!", length=len(BODY))
    assert (State.OPEN, 100) == kept(service, live)[:2]
    assert await complete(service, live) == BODY


async def test_a_writer_that_is_stopped_before_its_body_leaves_everything_as_it_was(service):
    live = await opened(service, 100)
    before = kept(service, live)
    writer = await append(service, live, digests=WRONG, content_length=5, seals=True)
    writer.stop("too late")
    with pytest.raises(WriterStopped):
        await service.uploads.write(writer, Body(b"12345"))
    assert kept(service, live) == before


async def test_a_cut_that_fails_fails_the_upload(start_service):
    class Disk(Files):
        def truncate(self, path: Path, _size: int) -> None:
            raise OSError(errno.EIO, "as the test wants it", path)

    service = await start_service(files=Disk())
    live = await opened(service, 100)
    with pytest.raises(SpoolError):
        await add(service, live, BODY[100:END], digests=WRONG)
    assert (State.FAILED, {}, 0) == (live.upload.state, service.spooled(), service.spool.budget.reserved)


# -- meanwhile ------------------------------------------------------------------------------------------------------


async def test_nothing_is_stored_before_the_digest_has_matched(service):
    live = await opened(service, 100)
    async with in_the_middle(service, live) as (writing, body, _):
        await asyncio.sleep(0.05)  # time for a drain that would
        assert (0, {}) == (service.store.calls["put_part"], service.store.multiparts)
        assert len(service.spooled()) == 4
        body.go_on.set()
        await writing
        await eventually(lambda: live.upload.stored == 3 * PART_BYTES)


async def test_what_was_received_before_goes_on_draining(service):
    gate = service.store.hold("put_part")
    live = await opened(service, PART_BYTES + 100)
    async with in_the_middle(service, live):
        gate.release()
        await eventually(lambda: live.upload.stored == PART_BYTES)
        assert live.upload.received == PART_BYTES + 100


async def test_nothing_is_announced_or_synced_meanwhile(start_service):
    class Disk(Files):
        syncs = 0

        def sync(self, path: Path) -> None:
            self.syncs += 1
            super().sync(path)

    disk = Disk()
    service = await start_service(files=disk)
    live = await opened(service, 100)
    async with in_the_middle(service, live) as (_, _, writer):
        syncs = disk.syncs
        assert await service.uploads.announce(live) == 100
        upload = await service.uploads.look(live.upload.id, NOBODY)
        assert (100, 100, syncs) == (upload.received, upload.offset, disk.syncs)
        assert writer.added == END - 100
        assert service.uploads.document(live.upload)["rate"] > 0


async def test_what_came_without_a_digest_is_announced_before_one_that_has_one(start_service, tmp_path):
    """After a kill more may be received than was announced; a provisional append must not stand on that."""
    first = await start_service()
    writer = await create(first)
    writing = asyncio.create_task(first.uploads.write(writer, Body(BODY[:100], None)))
    await received(writer, 100)
    service = await start_service(data=first.killed(tmp_path / "killed"), store=strict_store())
    writing.cancel()
    live = the_upload(service)
    assert (100, 0) == (live.upload.received, live.upload.offset)
    async with in_the_middle(service, live):
        assert live.upload.offset == 100
        cut = await start_service(data=service.killed(tmp_path / "cut"), store=strict_store(), boot_id="another boot")
    assert await complete(cut, the_upload(cut)) == BODY


# -- creations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [{}, {"seals_at_length": True, "length": len(BODY)}], ids=["open", "chunked"])
async def test_a_mismatch_of_the_body_that_created_an_upload_ends_it(service, terms):
    writer = await create(service, digests=WRONG, **terms)
    with pytest.raises(DigestMismatch):
        await service.uploads.write(writer, Body(BODY))
    assert (State.CANCELLED, {}, {}) == (writer.live.upload.state, service.spooled(), service.store.objects)
    assert (None, 0) == (service.uploads.open_upload("a", NOBODY), service.spool.budget.reserved)


async def test_an_interruption_of_the_body_that_created_an_upload_keeps_it_at_0(service):
    writer = await create(service, digests=digest_of(BODY), content_length=len(BODY))
    with pytest.raises(WriterStopped):
        await service.uploads.write(writer, Body(BODY[:-1], interrupted="reset"))
    live = the_upload(service)
    assert (State.OPEN, 0, 0, None, [], {}) == kept(service, live)
    assert await complete(service, live) == BODY


# -- ends are not reached on bytes that nobody has verified ---------------------------------------------------------

ENDS = pytest.mark.parametrize(
    "terms",
    [
        {"seals": True, "content_length": len(BODY) - 100},
        {"seals": True, "length": len(BODY)},
        {"seals_at_length": True, "length": len(BODY)},
    ],
    ids=["its own word", "the length in a stream", "the length's word"],
)


@ENDS
@pytest.mark.parametrize("how", ["mismatch", "interruption", "takeover"])
async def test_an_end_that_is_reached_without_the_digest_is_none(service, terms, how):
    live = await opened(service, 100)
    rest = BODY[100:]
    writer = await append(service, live, **terms | {"digests": WRONG if how == "mismatch" else digest_of(rest)})
    if how == "takeover":
        writing = asyncio.create_task(service.uploads.write(writer, Body(rest, None)))
        await received(writer, len(rest))
        assert (await service.uploads.inspect(live)).offset == 100
        with pytest.raises(WriterStopped):
            await writing
    else:
        with pytest.raises(DigestMismatch if how == "mismatch" else WriterStopped):
            await service.uploads.write(writer, Body(rest, interrupted=None if how == "mismatch" else "reset"))
    assert (State.OPEN, 100, 100, None) == kept(service, live)[:4]
    assert service.store.objects == {}
    assert await complete(service, live) == BODY


@ENDS
@pytest.mark.parametrize("boot_id", ["this boot", "another boot"])
async def test_an_end_that_was_reached_before_a_crash_without_the_digest_is_none(
    start_service, tmp_path, terms, boot_id
):
    first = await start_service()
    live = await opened(first, 100)
    rest = BODY[100:]
    writer = await append(first, live, **terms | {"digests": digest_of(rest)})
    writing = asyncio.create_task(first.uploads.write(writer, Body(rest, None)))
    await received(writer, len(rest))
    second = await start_service(data=first.killed(tmp_path / "killed"), store=strict_store(), boot_id=boot_id)
    writing.cancel()
    live = the_upload(second)
    assert (State.OPEN, 100, 100, None) == kept(second, live)[:4]
    await asyncio.sleep(0.05)  # time for a seal that would
    assert second.store.objects == {}
    assert await complete(second, live) == BODY


async def test_an_empty_body_that_ends_the_upload_needs_its_digest(service):
    live = await opened(service, len(BODY))
    with pytest.raises(DigestMismatch):
        await add(service, live, b"", content_length=0, seals=True, digests=WRONG)
    assert (State.OPEN, len(BODY), None) == (live.upload.state, live.upload.offset, live.upload.seal_at)


async def test_an_empty_body_that_brings_the_length_needs_its_digest(service):
    live = await opened(service, len(BODY))
    terms = {"content_length": 0, "seals_at_length": True, "length": len(BODY)}
    with pytest.raises(DigestMismatch):
        await add(service, live, b"", **terms | {"digests": WRONG})
    assert (State.OPEN, len(BODY), None) == (live.upload.state, live.upload.offset, live.upload.seal_at)
    await service.uploads.outcome(await add(service, live, b"", **terms), 5)
    assert service.data("a") == BODY


# -- crashes --------------------------------------------------------------------------------------------------------

BOOTS = pytest.mark.parametrize("boot_id", ["this boot", "another boot"])


async def goes_on(start_service, directory: Path, boot_id: str, offset: int) -> None:
    """What a crash left begins at this offset, and ends as the right object."""
    service = await start_service(data=directory, store=strict_store(), boot_id=boot_id)
    live = the_upload(service)
    await eventually(lambda: live.upload.stored == offset // PART_BYTES * PART_BYTES)
    upload = live.upload
    assert (State.OPEN, offset, None) == (upload.state, upload.received, upload.provisional)
    record = await service.checkpoint.find(upload.id)
    assert record.upload.provisional is None
    assert sum(service.spooled().values()) == offset % PART_BYTES == service.spool.budget.reserved
    await add(service, live, BODY[offset : offset + 1000])
    assert await complete(service, live) == BODY


@STARTS
@BOOTS
async def test_killed_in_the_middle_it_begins_again_at_its_start(start_service, tmp_path, start, boot_id):
    service = await start_service()
    service.store.hold("put_part")
    live = await opened(service, start)
    async with in_the_middle(service, live):
        left = service.killed(tmp_path / "killed")
        await goes_on(start_service, left, boot_id, start)


@BOOTS
async def test_killed_right_after_its_start_was_committed(start_service, tmp_path, monkeypatch, boot_id):
    service = await start_service()
    live = await opened(service, 100)
    left = tmp_path / "killed"
    at(monkeypatch, accumulator, "after_resume_provisionally", lambda: service.killed(left))
    await add(service, live, BODY[100:END])
    monkeypatch.undo()
    await goes_on(start_service, left, boot_id, 100)


@BOOTS
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_killed_while_it_is_cut_back(start_service, tmp_path, monkeypatch, boot_id, nth):
    service = await start_service()
    live = await opened(service, 100)
    passages = iter(range(1, 100))

    def copy() -> None:
        if next(passages) == nth:
            service.killed(tmp_path / "killed")

    at(monkeypatch, spool, "after_cut", copy)
    with pytest.raises(DigestMismatch):
        await add(service, live, BODY[100:END], digests=WRONG)
    monkeypatch.undo()
    await goes_on(start_service, tmp_path / "killed", boot_id, 100)


@pytest.mark.parametrize(("boot_id", "offset"), [("this boot", END), ("another boot", 100)])
async def test_killed_right_after_its_digest_has_matched(start_service, tmp_path, monkeypatch, boot_id, offset):
    """Received, but announced to nobody yet."""
    service = await start_service()
    live = await opened(service, 100)
    left = tmp_path / "killed"
    at(monkeypatch, registry, "before_confirm", lambda: service.killed(left))
    await add(service, live, BODY[100:END])
    monkeypatch.undo()
    await goes_on(start_service, left, boot_id, offset)


@BOOTS
async def test_killed_again_while_it_recovers(start_service, tmp_path, monkeypatch, boot_id):
    service = await start_service()
    live = await opened(service, 100)
    async with in_the_middle(service, live):
        first = service.killed(tmp_path / "first")
    left = tmp_path / "second"
    with monkeypatch.context() as patched:
        recovering: list[Service] = []

        def copy() -> None:
            left.mkdir()
            for path in first.rglob("*"):
                target = left / path.relative_to(first)
                target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
            recovering.append(service)

        at(patched, checkpoint, "before_commit_recovery", copy)
        second = await start_service(data=first, store=strict_store(), boot_id=boot_id)
    assert recovering
    await second.stop()
    await goes_on(start_service, left, boot_id, 100)


async def test_stopped_in_the_middle_it_begins_again_at_its_start(start_service):
    service = await start_service()
    live = await opened(service, 100)
    async with in_the_middle(service, live) as (writing, _, _):
        await service.stop()
        with pytest.raises(WriterStopped):
            await writing
    await goes_on(start_service, service.config.data, "this boot", 100)


async def test_a_confirmation_that_is_not_committed_is_none(service, monkeypatch):
    live = await opened(service, 100)
    writer = await append(service, live, digests=digest_of(BODY[100:END]))

    async def failing(_: Upload) -> None:
        monkeypatch.undo()
        raise CheckpointError("as the test wants it")

    monkeypatch.setattr(service.checkpoint, "save", failing)
    with pytest.raises(CheckpointError):
        await service.uploads.write(writer, Body(BODY[100:END]))
    await eventually(lambda: service.uploads.open_upload("a", NOBODY) not in {None, live})
    live = the_upload(service)
    assert (State.OPEN, 100, 100, None) == kept(service, live)[:4]
    assert (100, {}) == (service.spool.budget.reserved, service.store.multiparts)
    assert await complete(service, live) == BODY


async def test_an_upload_that_is_read_again_in_the_middle_begins_again_at_its_start(service, monkeypatch):
    gate = service.store.hold("put_part")
    live = await opened(service, PART_BYTES + 100)

    async def failing(*_: object) -> None:
        monkeypatch.undo()
        raise CheckpointError("as the test wants it")

    async with in_the_middle(service, live) as (writing, _, _):
        monkeypatch.setattr(service.checkpoint, "add_receipt", failing)
        gate.release()
        with pytest.raises(CheckpointError):
            await writing
    await eventually(lambda: service.uploads.open_upload("a", NOBODY) not in {None, live})
    live = the_upload(service)
    assert (State.OPEN, PART_BYTES + 100, PART_BYTES + 100, None) == kept(service, live)[:4]
    assert await complete(service, live) == BODY
    assert service.spool.budget.reserved == 0


async def test_an_upload_that_fails_while_it_is_confirmed_stays_failed(service, monkeypatch):
    live = await opened(service, 100)
    at(monkeypatch, registry, "before_confirm", lambda: live.upload.fail("as the test wants it", 1.0))
    await add(service, live, BODY[100:END])
    assert (State.FAILED, 100) == (live.upload.state, live.upload.received)
    await service.uploads.registry.end(live)
    assert ({}, 0) == (service.spooled(), service.spool.budget.reserved)
    with pytest.raises(Gone):
        await service.uploads.outcome(live, 1)


async def test_a_takeover_that_was_not_committed_leaves_nothing_provisional(service, monkeypatch):
    live = await opened(service, 100)
    gate = asyncio.Event()

    async def waiting(_: Upload) -> None:
        await gate.wait()

    with monkeypatch.context() as patched:
        patched.setattr(service.checkpoint, "save", waiting)
        taking = asyncio.create_task(append(service, live, digests=WRONG, content_length=0, seals=True))
        await asyncio.sleep(0.01)
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
    assert (None, None) == (live.upload.provisional, live.upload.seal_at)
    assert await complete(service, live) == BODY


# -- the bound and the budget ---------------------------------------------------------------------------------------


async def test_a_body_that_is_too_long_for_a_digest_is_refused_before_anybody_is_stopped(service):
    most = service.uploads.door.max_append_bytes
    assert most == service.config.spool_bytes // 8
    live = await opened(service, 100)
    async with in_the_middle(service, live) as (_, _, writer):
        for entering in (
            append(service, live, digests=WRONG, content_length=most + 1),
            create(service, "b", digests=WRONG, content_length=most + 1),
        ):
            with pytest.raises(TooLarge) as refused:
                await entering
            assert (most, "max-append-size") == (refused.value.limit, refused.value.name)
        assert (None, writer) == (writer.stopped, live.writer)
    assert service.uploads.open_upload("b", NOBODY) is None


async def test_a_stream_that_is_too_long_for_a_digest_is_cut_back(start_service):
    service = await start_service(spool_bytes=16 * PART_BYTES)
    live = await opened(service, 100)
    before = kept(service, live)
    most = service.uploads.door.max_append_bytes
    data = BODY[100:]
    assert len(data) > most == 2 * PART_BYTES
    writer = await append(service, live, digests=digest_of(data))
    with pytest.raises(TooLarge) as refused:
        await service.uploads.write(writer, Body(data[:most], data[most:]))
    assert (most, "max-append-size") == (refused.value.limit, refused.value.name)
    assert kept(service, live) == before
    await add(service, live, data[:most])
    assert await complete(service, live) == BODY


async def test_a_stream_over_the_servers_limit_is_cut_back(start_service):
    service = await start_service(max_upload_bytes=END - 1)
    live = await opened(service, 100)
    writer = await append(service, live, digests=digest_of(BODY[100:END]))
    with pytest.raises(TooLarge) as refused:
        await service.uploads.write(writer, Body(BODY[100:1000], BODY[1000:END]))
    assert (END - 1, "max-size") == (refused.value.limit, refused.value.name)
    assert (State.OPEN, 100) == kept(service, live)[:2]


async def test_a_reserve_that_is_larger_than_what_is_free_waits_and_is_served(service):
    budget = service.spool.budget
    live = await opened(service, 100)
    budget.take("others", budget.size - budget.reserved - PART_BYTES)
    data = BODY[100:END]
    writer = await append(service, live, digests=digest_of(data), content_length=len(data))
    writing = asyncio.create_task(service.uploads.write(writer, Body(data)))
    await asyncio.sleep(0.05)  # time for a writer that would
    assert (0, {f"{live.upload.id}.1": 100}) == (writer.added, service.spooled())
    assert budget.reserved == budget.size - PART_BYTES
    budget.release("others", 3 * PART_BYTES)
    await writing
    assert await complete(service, live) == BODY


async def test_stopped_while_it_waits_for_its_reserve_it_holds_nothing(service):
    budget = service.spool.budget
    live = await opened(service, 100)
    before = kept(service, live)
    budget.take("others", budget.size - budget.reserved)
    writer = await append(service, live, digests=WRONG)
    writing = asyncio.create_task(service.uploads.write(writer, Body(b"abc")))
    await asyncio.sleep(0.01)
    assert (await service.uploads.inspect(live)).offset == 100
    with pytest.raises(WriterStopped):
        await writing
    assert (before, budget.size) == (kept(service, live), budget.reserved)


@pytest.mark.parametrize("content_length", ["known", "unknown"])
async def test_many_on_a_small_spool_are_all_served(start_service, content_length):
    """Each fills a part and begins the next: with half of their reserves in hand they would wait for each other."""
    service = await start_service(spool_bytes=8 * PART_BYTES)
    lives = [await opened(service, 40_000, f"key {number}") for number in range(7)]
    data = BODY[40_000 : 40_000 + PART_BYTES]

    async def one(live: Live) -> None:
        terms = {"content_length": len(data) if content_length == "known" else None, "digests": digest_of(data)}
        pieces = [data[start : start + 4096] for start in range(0, len(data), 4096)]
        await service.uploads.write(await append(service, live, **terms), Body(*pieces))
        await complete(service, live)

    async with asyncio.timeout(10):
        await asyncio.gather(*map(one, lives))
    assert [service.data(live.upload.key) == BODY for live in lives] == [True] * 7
    assert service.spool.budget.reserved == 0


async def test_newcomers_do_not_keep_the_room_from_it_for_ever(start_service):
    """Whoever comes anew leaves it as much as it can ever need."""
    service = await start_service(spool_bytes=8 * PART_BYTES)
    budget = service.spool.budget
    live = await opened(service, 100)
    await budget.reserve("newcomers", 7 * PART_BYTES - 100)
    more = asyncio.create_task(budget.reserve("newcomers", PART_BYTES))
    async with asyncio.timeout(5):
        await add(service, live, BODY[100 : 100 + PART_BYTES])
    more.cancel()


# -- ends -----------------------------------------------------------------------------------------------------------


async def test_cancelled_in_the_middle_nothing_stays(service):
    live = await opened(service, PART_BYTES + 100)
    async with in_the_middle(service, live) as (writing, _, _):
        await service.uploads.cancel(live)
        with pytest.raises(Gone):
            await writing
    assert (State.CANCELLED, {}, 0) == (live.upload.state, service.spooled(), service.spool.budget.reserved)
    await eventually(lambda: not service.store.multiparts)


async def test_an_upload_that_fails_in_the_middle_leaves_nothing(service):
    live = await opened(service, 100)
    async with in_the_middle(service, live) as (writing, _, _):
        await service.uploads.registry.fail(live, "as the test wants it")
        with pytest.raises(Gone):
            await writing
    assert (State.FAILED, {}, 0) == (live.upload.state, service.spooled(), service.spool.budget.reserved)


async def test_a_multipart_upload_that_is_lost_meanwhile_is_begun_again(service):
    gate = service.store.hold("put_part")
    live = await opened(service, PART_BYTES + 100)
    await gate.reached()
    async with in_the_middle(service, live) as (writing, body, _):
        service.store.multiparts.clear()
        gate.release()
        await eventually(lambda: live.upload.stored == PART_BYTES)
        assert service.store.effects.count(("create_multipart", "a", None)) == 2
        body.go_on.set()
        await writing
    assert await complete(service, live) == BODY
