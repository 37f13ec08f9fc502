"""Bytes in, part files out: any chunking gives the same parts, and nothing is counted that is not in the spool."""

import asyncio
import errno
import random
import tempfile
import threading
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given, settings
from hypothesis import strategies as st

from streamup import accumulator as module
from streamup.accumulator import Accumulator, Synced
from streamup.errors import BadRequest, Gone, LengthExceeded, SpoolError
from streamup.layout import Layout
from streamup.spool import Files, PartFile, Spool
from streamup.stores import ObjectMeta, Receipt
from streamup.upload import Upload


async def turns(count=20):
    """Let everything run that can run without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


class ADisk(Files):
    """Takes at most `most` bytes at once and `room` in all; fails with `error` if one is set; notes what is synced."""

    def __init__(self, *, most=1 << 20, room=1 << 40):
        self.most = most
        self.room = room
        self.error = None
        self.synced = []
        self.while_syncing = None

    def write(self, fd, data):
        if self.error:
            raise OSError(self.error, "as the test wants it")
        if not self.room:
            raise OSError(errno.ENOSPC, "no space")
        written = super().write(fd, data[: min(self.most, self.room)])
        self.room -= written
        return written

    def append(self, path):
        if not self.room and not path.exists():
            raise OSError(errno.ENOSPC, "no space")
        return super().append(path)

    def sync(self, path):
        if self.while_syncing:
            self.while_syncing()
        if self.error:
            raise OSError(self.error, "as the test wants it")
        super().sync(path)
        self.synced.append(path.name)

    def sync_directory(self, path):
        super().sync_directory(path)
        self.synced.append(".")


def make(directory, *, files=None, size=80, layout=None, **fields):
    upload = Upload("u", "key", "s", layout or Layout(10), ObjectMeta("t"), created=0.0, **fields)
    return upload, Accumulator(upload, Spool(Path(directory), size, files or ADisk()))


def budget_of(accumulator):
    return accumulator._spool.budget


async def ready(accumulator):
    """Every part that can be had now."""
    parts = []
    while True:
        task = asyncio.create_task(accumulator.next_part())
        await turns(3)
        if not task.done():
            task.cancel()
            return parts
        if (part := task.result()) is None:
            return parts
        parts.append(part)


def described(parts):
    return [(part.part.number, part.path.read_bytes(), part.crc64nvme) for part in parts]


def expected_parts(data, layout):
    parts, number = [], 1
    while (part := layout.part(number)).start < len(data):
        piece = data[part.start : part.end]
        parts.append((number, piece, crc64nvme(piece)))
        number += 1
    return parts


# -- bytes in -----------------------------------------------------------------------------------------------------

layouts = st.sampled_from([Layout(10), Layout(1), Layout(4, 2, 16), Layout(3, 3, 12)])


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=12),
    layouts,
    st.integers(1, 9),
    st.sets(st.integers(0, 12)),
)
def test_any_chunking_gives_the_same_parts(chunks, layout, most, interruptions):
    async def run():
        with tempfile.TemporaryDirectory() as directory:
            upload, accumulator = make(directory, files=ADisk(most=most), size=10_000, layout=layout)
            parts = []
            for number, chunk in enumerate(chunks):
                if number in interruptions:
                    accumulator.suspend()
                    await accumulator.resume()
                await accumulator.add(chunk)
                parts += await ready(accumulator)
            upload.seal(1)
            accumulator.seal()
            parts += [] if upload.single else await ready(accumulator)
            if upload.single:
                parts = [part for part in [accumulator.file(1)] if part]
            return described(parts)

    data = b"".join(chunks)
    assert expected_parts(data, layout) == asyncio.run(run())


async def test_every_byte_is_in_the_spool_when_add_returns(tmp_path):
    upload, accumulator = make(tmp_path)
    await accumulator.add(b"abcdefghijkl")
    assert ([b"abcdefghij", b"kl"], 12) == ([path.read_bytes() for path in sorted(tmp_path.iterdir())], upload.received)
    accumulator.suspend()


async def test_bytes_up_to_the_limit_are_kept_and_one_more_is_refused(tmp_path):
    upload, accumulator = make(tmp_path)
    with pytest.raises(BadRequest) as refused:
        await accumulator.add(b"abcdefghijkl", limit=5)
    assert type(refused.value) is BadRequest
    assert (5, {"limit": 5}) == (upload.received, refused.value.numbers)
    accumulator.suspend()
    assert (tmp_path / "u.1").read_bytes() == b"abcde"


async def test_a_limit_of_nothing_takes_nothing(tmp_path):
    upload, accumulator = make(tmp_path)
    with pytest.raises(BadRequest):
        await accumulator.add(b"a", limit=0)
    assert ([], 0) == (list(tmp_path.iterdir()), upload.received)


async def test_a_byte_beyond_the_length_is_too_many(tmp_path):
    upload, accumulator = make(tmp_path, length=12)
    with pytest.raises(LengthExceeded) as refused:
        await accumulator.add(b"abcdefghijklmn", limit=13)
    assert (12, {"limit": 12}) == (upload.received, refused.value.numbers)
    accumulator.suspend()


async def test_an_upload_that_has_ended_takes_nothing_more(tmp_path):
    upload, accumulator = make(tmp_path)
    upload.cancel(1.0)
    with pytest.raises(Gone):
        await accumulator.add(b"abc")
    assert upload.received == 0
    accumulator.clear()
    assert ([], 0) == (list(tmp_path.iterdir()), budget_of(accumulator).reserved)


async def test_a_full_disk_is_waited_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DISK_FULL_SECONDS", 0)
    disk = ADisk(room=4)
    upload, accumulator = make(tmp_path, files=disk)
    adding = asyncio.create_task(accumulator.add(b"abcdefgh"))
    await turns()
    assert (False, 4) == (adding.done(), upload.received)
    disk.room = 100
    await adding
    accumulator.suspend()
    assert (tmp_path / "u.1").read_bytes() == b"abcdefgh"


async def test_a_broken_disk_is_told(tmp_path):
    disk = ADisk()
    upload, accumulator = make(tmp_path, files=disk)
    await accumulator.add(b"abc")
    disk.error = errno.EIO
    with pytest.raises(SpoolError):
        await accumulator.add(b"def")
    assert upload.received == 3
    accumulator.clear()


# -- the budget ---------------------------------------------------------------------------------------------------


async def test_a_part_begins_only_when_its_whole_size_is_reserved(tmp_path):
    upload, accumulator = make(tmp_path)
    budget = budget_of(accumulator)
    await budget.reserve("other", 65)
    adding = asyncio.create_task(accumulator.add(b"abc"))
    await turns()
    assert ([], 0) == (list(tmp_path.iterdir()), upload.received)
    budget.release("other", 60)
    await adding
    assert (3, 15) == (upload.received, budget.reserved)
    accumulator.suspend()
    assert budget.reserved == 8


async def test_a_known_end_reserves_no_more_than_it_needs(tmp_path):
    _, accumulator = make(tmp_path, seal_at=13)
    await accumulator.add(b"abcdefghijk")
    assert budget_of(accumulator).reserved == 13
    accumulator.suspend()


async def test_a_declared_length_goes_before_the_announced_end(tmp_path):
    _, accumulator = make(tmp_path, seal_at=13, length=15)
    await accumulator.add(b"abcdefghijk")
    assert budget_of(accumulator).reserved == 15
    accumulator.suspend()


async def test_a_writer_that_comes_back_reserves_the_rest_of_its_part(tmp_path):
    upload, accumulator = make(tmp_path, seal_at=8)
    await accumulator.add(b"abc")
    accumulator.suspend()
    assert budget_of(accumulator).reserved == 3
    upload.begin_append(offset=3, length=None, seal_at=None)
    await accumulator.resume()
    assert budget_of(accumulator).reserved == 10
    await accumulator.resume()
    assert budget_of(accumulator).reserved == 10
    accumulator.suspend()
    accumulator.suspend()
    assert budget_of(accumulator).reserved == 3


async def test_a_writer_that_comes_back_may_use_the_last_eighth(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"abc")
    accumulator.suspend()
    await budget_of(accumulator).reserve("other", 67)
    await accumulator.resume()
    assert budget_of(accumulator).reserved == 77
    accumulator.suspend()


async def test_cancelled_while_it_waits_for_the_budget_nothing_is_half_done(tmp_path):
    upload, accumulator = make(tmp_path)
    budget = budget_of(accumulator)
    await accumulator.add(b"abcdefghij")
    await budget.reserve("other", 60)
    adding = asyncio.create_task(accumulator.add(b"klm"))
    await turns()
    adding.cancel()
    await turns()
    accumulator.suspend()
    assert (10, 70, ["u.1"]) == (upload.received, budget.reserved, [path.name for path in tmp_path.iterdir()])
    budget.release("other", 60)
    await accumulator.resume()
    await accumulator.add(b"klm")
    accumulator.suspend()
    assert (13, b"klm") == (upload.received, (tmp_path / "u.2").read_bytes())


async def test_cancelled_while_it_comes_back_nothing_is_half_done(tmp_path):
    _, accumulator = make(tmp_path)
    budget = budget_of(accumulator)
    await accumulator.add(b"abc")
    accumulator.suspend()
    budget.take("other", 75)
    back = asyncio.create_task(accumulator.resume())
    await turns()
    back.cancel()
    await turns()
    assert budget.reserved == 78
    budget.release("other", 75)
    await accumulator.resume()
    assert budget.reserved == 10
    accumulator.suspend()


async def test_cancelled_at_a_full_disk_every_counted_byte_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DISK_FULL_SECONDS", 3600)
    upload, accumulator = make(tmp_path, files=ADisk(room=4))
    adding = asyncio.create_task(accumulator.add(b"abcdefgh"))
    await turns()
    adding.cancel()
    await turns()
    accumulator.suspend()
    assert (4, b"abcd") == (upload.received, (tmp_path / "u.1").read_bytes())


# -- provisional appends ------------------------------------------------------------------------------------------


async def begun(tmp_path, data, **fields):
    """An upload that has announced these bytes, whose writer has gone."""
    upload, accumulator = make(tmp_path, **fields)
    await accumulator.add(data)
    accumulator.suspend()
    accumulator.committed(await accumulator.sync())
    upload.announce(len(data))
    return upload, accumulator


def on_disk(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def told(accumulator):
    """What the accumulator believes of its files."""
    return {file.path.name: (file.size, file.crc64nvme, file.reserved) for file in accumulator._files.values()}


starts = pytest.mark.parametrize("start", [b"", b"abc", b"abcdefghij", b"abcdefghijkl"], ids=len)


@starts
async def test_provisional_bytes_are_in_the_spool_but_neither_received_nor_handed_out(tmp_path, start):
    upload, accumulator = await begun(tmp_path, start, size=800)
    parts = await ready(accumulator)
    await accumulator.resume_provisionally(25)
    await accumulator.add(b"x" * 25)
    assert (len(start), len(start) + 25) == (upload.received, accumulator.position)
    assert sum(map(len, on_disk(tmp_path).values())) == len(start) + 25
    assert await ready(accumulator) == []
    assert accumulator.rewind()
    assert await ready(accumulator) == parts
    assert await accumulator.sync() == Synced(len(start), [])
    accumulator.clear()
    assert (on_disk(tmp_path), budget_of(accumulator).reserved, accumulator.position) == ({}, 0, len(start))


@starts
async def test_confirmed_they_are_received_and_their_full_parts_leave(tmp_path, start):
    upload, accumulator = await begun(tmp_path, start, size=800)
    parts = await ready(accumulator)
    waiting = asyncio.create_task(accumulator.next_part())
    await accumulator.resume_provisionally(25)
    await accumulator.add(b"x" * 25)
    accumulator.suspend()
    await turns()
    assert not waiting.done()
    accumulator.confirm()
    assert len(start) + 25 == upload.received == accumulator.position == budget_of(accumulator).reserved
    upload.seal(1)
    accumulator.seal()
    parts += [await waiting, *await ready(accumulator)]
    assert described(parts) == expected_parts(start + b"x" * 25, Layout(10))


@starts
async def test_withdrawn_nothing_of_them_stays(tmp_path, start):
    upload, accumulator = await begun(tmp_path, start, size=800)
    before = on_disk(tmp_path), told(accumulator), budget_of(accumulator).reserved
    await accumulator.resume_provisionally(25)
    await accumulator.add(b"x" * 25)
    accumulator.suspend()
    accumulator.withdraw()
    assert before == (on_disk(tmp_path), told(accumulator), budget_of(accumulator).reserved)
    assert len(start) == upload.received == accumulator.position
    await accumulator.resume()
    await accumulator.add(b"rest of it")
    upload.seal(1)
    accumulator.seal()
    assert described(await ready(accumulator)) == expected_parts(start + b"rest of it", Layout(10))


async def test_what_never_began_is_neither_confirmed_nor_withdrawn(tmp_path):
    upload, accumulator = await begun(tmp_path, b"abc")
    accumulator.confirm()
    accumulator.withdraw()
    assert (3, {"u.1": b"abc"}) == (upload.received, on_disk(tmp_path))


async def test_an_upload_that_has_ended_takes_nothing_provisional_either(tmp_path):
    upload, accumulator = await begun(tmp_path, b"abc")
    await accumulator.resume_provisionally(5)
    upload.cancel(1.0)
    with pytest.raises(Gone):
        await accumulator.add(b"de")
    accumulator.clear()
    assert ({}, 0) == (on_disk(tmp_path), budget_of(accumulator).reserved)


@pytest.mark.parametrize("length", [None, 20])
async def test_limit_and_length_count_provisional_bytes(tmp_path, length):
    upload, accumulator = await begun(tmp_path, b"abc", length=length)
    await accumulator.resume_provisionally(10, limit=7)
    await accumulator.add(b"de", limit=7)
    with pytest.raises(BadRequest):
        await accumulator.add(b"fgh", limit=7)
    assert (7, 3) == (accumulator.position, upload.received)
    accumulator.suspend()
    accumulator.withdraw()
    upload.length = 5
    await accumulator.resume_provisionally(10)
    with pytest.raises(LengthExceeded):
        await accumulator.add(b"def")
    accumulator.suspend()


async def test_a_name_that_comes_again_after_a_withdrawal_is_synced_again(tmp_path):
    _, accumulator = await begun(tmp_path, b"")
    await accumulator.resume_provisionally(3)
    await accumulator.add(b"abc")
    accumulator.suspend()
    accumulator.withdraw()
    await accumulator.sync()
    await accumulator.resume()
    await accumulator.add(b"def")
    accumulator._spool.files.synced.clear()
    await accumulator.sync()
    assert accumulator._spool.files.synced == ["u.1", "."]
    accumulator.suspend()


@pytest.mark.parametrize(
    ("start", "most", "fields", "reserved"),
    [
        (b"", 3, {}, 10),  # up to the end of the part
        (b"", 10, {}, 10),
        (b"", 11, {}, 20),
        (b"abc", 7, {}, 10),
        (b"abc", 8, {}, 20),
        (b"abc", 8, {"length": 15}, 15),  # no further than the upload can go
        (b"abc", 8, {"seal_at": 11}, 11),
        (b"abc", 8, {"seal_at": 5}, 11),
        (b"abc", 20, {"length": 9}, 9),  # no body can be longer
        (b"abc", 0, {}, 3),
        (b"abc", 100, {"layout": Layout(10, max_parts=2)}, 20),
    ],
)
async def test_a_provisional_append_has_all_its_reserve_before_its_first_byte(tmp_path, start, most, fields, reserved):
    upload, accumulator = await begun(tmp_path, start, size=800)
    upload.layout = fields.get("layout", upload.layout)
    upload.length, upload.seal_at = fields.get("length"), fields.get("seal_at")
    await accumulator.resume_provisionally(most)
    assert budget_of(accumulator).reserved == reserved
    await accumulator.add(b"x" * min(most, 2))
    assert budget_of(accumulator).reserved == reserved
    accumulator.suspend()
    assert budget_of(accumulator).reserved == len(start) + min(most, 2)
    accumulator.release()
    assert budget_of(accumulator).reserved == 0


async def test_a_provisional_reserve_is_no_larger_than_what_newcomers_leave(tmp_path):
    _, accumulator = await begun(tmp_path, b"abc")
    await budget_of(accumulator).reserve("others", 67)
    async with asyncio.timeout(5):
        await accumulator.resume_provisionally(10)  # two parts, of which one fits
    await accumulator.add(b"x" * 10)
    accumulator.suspend()
    accumulator.confirm()
    assert budget_of(accumulator).reserved == 80


async def test_a_provisional_append_waits_for_disk_and_budget_with_nothing_in_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DISK_FULL_SECONDS", 0)
    _, accumulator = await begun(tmp_path, b"abc")
    spool, budget = accumulator._spool, budget_of(accumulator)
    spool.floor = 1 << 60
    resuming = asyncio.create_task(accumulator.resume_provisionally(7))
    await turns()
    assert (False, []) == (resuming.done(), budget._waiting)
    spool.floor = 0
    budget.take("other", 77)
    await turns()
    assert (False, 80) == (resuming.done(), budget.reserved)
    resuming.cancel()
    await asyncio.gather(resuming, return_exceptions=True)
    accumulator.suspend()
    accumulator.withdraw()
    assert (80, {"u.1": b"abc"}) == (budget.reserved, on_disk(tmp_path))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.sampled_from(["plain", "matches", "fails"])), max_size=10),
    layouts,
    st.integers(1, 9),
)
def test_whatever_is_withdrawn_the_parts_are_those_of_what_is_kept(appends, layout, most):
    async def run():
        with tempfile.TemporaryDirectory() as directory:
            upload, accumulator = make(directory, files=ADisk(most=most), size=10_000, layout=layout)
            kept = b""
            for data, kind in appends:
                await (accumulator.resume() if kind == "plain" else accumulator.resume_provisionally(len(data)))
                await accumulator.add(data)
                assert all(part.part.end <= upload.received for part in await ready(accumulator))
                accumulator.suspend()
                (accumulator.withdraw if kind == "fails" else accumulator.confirm)()
                kept += b"" if kind == "fails" else data
                assert len(kept) == upload.received == budget_of(accumulator).reserved
            upload.seal(1)
            accumulator.seal()
            accumulator.rewind()
            parts = [accumulator.file(1)] if upload.single and kept else await ready(accumulator)
            return kept, described(parts)

    kept, parts = asyncio.run(run())
    assert expected_parts(kept, layout) == parts


async def digested(accumulator, numbers, size):
    """A client that sends everything with digests; some bodies fail, or end early, and come again."""

    async def drain():
        while file := await accumulator.next_part():
            await turns(numbers.randrange(8))
            accumulator.discard(file)

    draining = asyncio.create_task(drain())
    budget = budget_of(accumulator)
    while accumulator._upload.received < size:
        most = numbers.randint(1, min(budget.headroom, size - accumulator._upload.received))
        await accumulator.resume_provisionally(most)
        for _ in range(numbers.randint(0, most)):
            await accumulator.add(b"x")
            assert budget.reserved <= budget.size
            await turns(numbers.randrange(2))
        accumulator.suspend()
        numbers.choice([accumulator.confirm, accumulator.withdraw])()
        await turns(numbers.randrange(4))
    accumulator._upload.seal(1)
    accumulator.seal()
    await draining


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 7))
def test_provisional_appends_never_lock_each_other_up(seed, part, clients):
    """As many as can have half a part each without taking what newcomers leave."""

    async def run():
        numbers = random.Random(seed)
        with tempfile.TemporaryDirectory() as directory:
            spool = Spool(Path(directory), 8 * part, Files())
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                for number in range(clients):
                    upload = Upload(f"u{number}", "key", "s", Layout(part), ObjectMeta("t"), created=0.0)
                    tasks.create_task(digested(Accumulator(upload, spool), numbers, 3 * part))
            return spool.budget.reserved, spool.files.names(spool.directory)

    assert (0, []) == asyncio.run(run())


# -- parts out ----------------------------------------------------------------------------------------------------


async def test_full_parts_leave_and_the_last_one_after_the_seal(tmp_path):
    upload, accumulator = make(tmp_path)
    await accumulator.add(b"x" * 25)
    assert [1, 2] == [part.part.number for part in await ready(accumulator)]
    upload.seal(1)
    accumulator.seal()
    assert [3] == [part.part.number for part in await ready(accumulator)]
    assert await accumulator.next_part() is None


async def test_a_waiting_drain_is_woken_by_a_full_part_and_by_the_seal(tmp_path):
    upload, accumulator = make(tmp_path)
    first = asyncio.create_task(accumulator.next_part())
    await turns()
    await accumulator.add(b"x" * 10)
    assert (await first).part.number == 1
    end = asyncio.create_task(accumulator.next_part())
    await turns()
    upload.seal(1)
    accumulator.seal()
    assert await end is None


@pytest.mark.parametrize("known", [{"length": 10}, {"seal_at": 10}])
async def test_a_part_that_may_be_the_whole_object_waits_for_the_seal(tmp_path, known):
    upload, accumulator = make(tmp_path, **known)
    await accumulator.add(b"x" * 10)
    assert await ready(accumulator) == []
    upload.seal(1)
    accumulator.seal()
    assert (await accumulator.next_part()) is accumulator.file(1)


async def test_a_single_part_leaves_when_a_new_writer_takes_the_end_back(tmp_path):
    upload, accumulator = make(tmp_path, seal_at=10)
    await accumulator.add(b"x" * 10)
    waiting = asyncio.create_task(accumulator.next_part())
    await turns()
    assert not waiting.done()
    accumulator.suspend()
    upload.begin_append(offset=10, length=None, seal_at=None)
    await accumulator.resume()
    assert (await waiting).part.number == 1


async def test_an_empty_upload_has_no_part(tmp_path):
    upload, accumulator = make(tmp_path)
    upload.seal(1)
    accumulator.seal()
    assert (None, None) == (await accumulator.next_part(), accumulator.file(1))


async def test_a_discarded_part_leaves_disk_and_budget(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"x" * 12)
    part = await accumulator.next_part()
    accumulator.discard(part)
    assert (["u.2"], 10) == ([path.name for path in tmp_path.iterdir()], budget_of(accumulator).reserved)
    accumulator.suspend()


async def test_rewound_all_parts_come_again_in_order_but_the_one_being_written(tmp_path):
    upload, accumulator = make(tmp_path)
    await accumulator.add(b"x" * 25)
    await ready(accumulator)
    assert accumulator.rewind()
    assert [1, 2] == [part.part.number for part in await ready(accumulator)]
    upload.add_receipt(Receipt(1, 10, '"1"'))
    assert not accumulator.rewind()
    accumulator.suspend()


# -- durability ---------------------------------------------------------------------------------------------------


async def test_a_sync_says_what_it_made_durable(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"abcdefghijkl")
    synced = await accumulator.sync()
    crcs = crc64nvme(b"abcdefghij"), crc64nvme(b"kl")
    assert synced == Synced(12, [(1, 10, crcs[0]), (2, 2, crcs[1])])
    assert accumulator._spool.files.synced == ["u.1", "u.2", "."]
    accumulator.suspend()


async def test_what_was_committed_is_not_synced_again(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"abcdefghijkl")
    accumulator.committed(await accumulator.sync())
    await accumulator.add(b"m")
    accumulator._spool.files.synced.clear()
    assert await accumulator.sync() == Synced(13, [(2, 3, crc64nvme(b"klm"))])
    assert accumulator._spool.files.synced == ["u.2"]
    accumulator.suspend()


async def test_bytes_that_arrive_during_a_sync_are_not_part_of_it(tmp_path):
    disk = ADisk()
    started, go_on = threading.Event(), threading.Event()
    _, accumulator = make(tmp_path, files=disk)
    await accumulator.add(b"abc")
    disk.while_syncing = lambda: (started.set(), go_on.wait(10))
    syncing = asyncio.create_task(accumulator.sync())
    await asyncio.to_thread(started.wait, 10)
    await accumulator.add(b"defghijklmn")
    go_on.set()
    synced = await syncing
    assert synced == Synced(3, [(1, 3, crc64nvme(b"abc"))])
    accumulator.committed(synced)
    disk.synced.clear()
    assert (await accumulator.sync()).offset == 14
    assert disk.synced == ["u.1", "u.2", "."]
    accumulator.suspend()


async def test_a_file_that_is_stored_during_a_sync_does_no_harm(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"abcdefghijkl")
    part = await accumulator.next_part()
    synced = await accumulator.sync()
    accumulator.discard(part)
    accumulator.committed(synced)
    accumulator.suspend()


async def test_a_failed_sync_is_told_and_claims_nothing(tmp_path):
    disk = ADisk()
    _, accumulator = make(tmp_path, files=disk)
    await accumulator.add(b"abc")
    disk.error = errno.EIO
    with pytest.raises(SpoolError):
        await accumulator.sync()
    assert [0] == [file.synced for file in accumulator._files.values()]
    accumulator.clear()


class Told(list):
    """Tells when the directory has been synced, which is the end of a sync."""

    def __init__(self, ended):
        super().__init__()
        self.ended = ended

    def append(self, name):
        super().append(name)
        if name == ".":
            self.ended.set()


async def test_a_cancelled_sync_claims_nothing_and_leaves_the_names_to_the_next(tmp_path):
    disk = ADisk()
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    _, accumulator = make(tmp_path, files=disk)
    await accumulator.add(b"abc")
    disk.while_syncing = lambda: (started.set(), go_on.wait(10))
    syncing = asyncio.create_task(accumulator.sync())
    await asyncio.to_thread(started.wait, 10)
    syncing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    disk.while_syncing, disk.synced = None, Told(ended)
    go_on.set()
    await asyncio.to_thread(ended.wait, 10)
    assert [0] == [file.synced for file in accumulator._files.values()]
    disk.synced = []
    await accumulator.sync()
    assert disk.synced == ["u.1", "."]
    accumulator.suspend()


async def test_the_name_of_a_file_that_a_full_disk_refused_at_first_is_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DISK_FULL_SECONDS", 0)
    disk = ADisk(room=0)
    _, accumulator = make(tmp_path, files=disk)
    adding = asyncio.create_task(accumulator.add(b"abc"))
    await turns()
    await accumulator.sync()
    disk.room = 100
    await adding
    disk.synced.clear()
    await accumulator.sync()
    assert disk.synced == ["u.1", "."]
    accumulator.suspend()


# -- recovery and ends --------------------------------------------------------------------------------------------


def found(directory, number, data, *, synced=0):
    path = directory / f"u.{number}"
    path.write_bytes(data)
    return PartFile(path, Layout(10).part(number), len(data), crc64nvme(data), synced)


async def test_files_that_a_restart_found_go_on(tmp_path):
    upload, accumulator = make(tmp_path, received=13)
    for number, data in ((1, b"abcdefghij"), (2, b"klm")):
        accumulator.adopt(found(tmp_path, number, data))
    assert [1] == [part.part.number for part in await ready(accumulator)]
    assert budget_of(accumulator).reserved == 13
    await accumulator.resume()
    await accumulator.add(b"nop")
    upload.seal(1)
    accumulator.seal()
    assert [(2, b"klmnop", crc64nvme(b"klmnop"))] == described(await ready(accumulator))


async def test_the_last_file_of_a_sealed_upload_is_ready(tmp_path):
    _, accumulator = make(tmp_path, received=13)
    accumulator._upload.size = 13
    accumulator = Accumulator(accumulator._upload, accumulator._spool)
    for number, data in ((1, b"abcdefghij"), (2, b"klm")):
        accumulator.adopt(found(tmp_path, number, data))
    assert [1, 2] == [part.part.number for part in await ready(accumulator)]


async def test_the_name_of_a_found_file_is_synced_before_its_bytes_are_announced(tmp_path):
    _, accumulator = make(tmp_path, received=5)
    accumulator.adopt(found(tmp_path, 1, b"abcde"))
    await accumulator.sync()
    assert accumulator._spool.files.synced == ["u.1", "."]


async def test_released_files_stay_on_the_disk(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"x" * 12)
    accumulator.release()
    assert (["u.1", "u.2"], 0) == (sorted(path.name for path in tmp_path.iterdir()), budget_of(accumulator).reserved)
    assert await ready(accumulator) == []


async def test_cleared_nothing_stays(tmp_path):
    _, accumulator = make(tmp_path)
    await accumulator.add(b"x" * 12)
    accumulator.clear()
    assert ([], 0) == (list(tmp_path.iterdir()), budget_of(accumulator).reserved)
    assert await ready(accumulator) == []
    assert "u []" in repr(accumulator)
