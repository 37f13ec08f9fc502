"""The spool on a disk that is full, slow, short or broken, and the budget that never hands out what is not there."""

import asyncio
import errno
import os
import random
from types import SimpleNamespace

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given, settings
from hypothesis import strategies as st

from streamup.errors import SpoolError
from streamup.layout import Part
from streamup.spool import Budget, Files, PartFile, Spool


async def turns(count=20):
    """Let everything run that can run without time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def part_file(spool, number=1, size=10):
    return PartFile(spool.path("u", number), Part(number, (number - 1) * size, number * size))


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path, 80, Files())


# -- part files ---------------------------------------------------------------------------------------------------


def test_a_part_file_holds_what_was_appended_and_its_checksum(spool):
    file = part_file(spool)
    assert [3, 4] == [spool.append(file, memoryview(data)) for data in (b"abc", b"defg")]
    assert (b"abcdefg", 7, crc64nvme(b"abcdefg"), False) == (
        file.path.read_bytes(),
        file.size,
        file.crc64nvme,
        file.full,
    )
    spool.append(file, memoryview(b"hij"))
    assert file.full
    spool.close(file)
    assert file.fd is None


def test_a_closed_file_is_appended_to_again(spool):
    file = part_file(spool)
    spool.append(file, memoryview(b"abc"))
    spool.close(file)
    spool.close(file)
    spool.append(file, memoryview(b"def"))
    spool.close(file)
    assert file.path.read_bytes() == b"abcdef"


def test_part_files_are_private(spool):
    file = part_file(spool)
    spool.append(file, memoryview(b"abc"))
    spool.close(file)
    assert file.path.stat().st_mode & 0o777 == 0o600


class ShortWrites(Files):
    def write(self, fd, data):
        return super().write(fd, data[: max(1, len(data) // 2)])


def test_the_checksum_counts_what_was_written_and_no_more(tmp_path):
    spool = Spool(tmp_path, 80, ShortWrites())
    file = part_file(spool)
    assert spool.append(file, memoryview(b"abcdef")) == 3
    spool.close(file)
    assert (b"abc", 3, crc64nvme(b"abc")) == (file.path.read_bytes(), file.size, file.crc64nvme)


class Broken(Files):
    """Fails where it is told to, with the number of the error."""

    def __init__(self, **errors):
        self.errors = errors

    def _meet(self, operation):
        if number := self.errors.get(operation):
            raise OSError(number, os.strerror(number))

    def append(self, path):
        self._meet("append")
        return super().append(path)

    def write(self, fd, data):
        self._meet("write")
        return super().write(fd, data)

    def sync(self, path):
        self._meet("sync")
        super().sync(path)

    def sync_directory(self, path):
        self._meet("sync_directory")
        super().sync_directory(path)

    def truncate(self, path, size):
        self._meet("truncate")
        super().truncate(path, size)

    def unlink(self, path):
        self._meet("unlink")
        super().unlink(path)


@pytest.mark.parametrize("operation", ["append", "write"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_a_full_spool(tmp_path, operation, number):
    files = Broken(**{operation: number})
    spool = Spool(tmp_path, 80, files)
    file = part_file(spool)
    assert spool.append(file, memoryview(b"abc")) == 0
    assert (0, 0) == (file.size, file.crc64nvme)
    files.errors.clear()
    assert spool.append(file, memoryview(b"abc")) == 3
    spool.close(file)


@pytest.mark.parametrize(("read_only", "number"), [(True, errno.EROFS), (False, errno.EACCES)])
def test_a_disk_that_nobody_may_write_has_no_room(spool, monkeypatch, read_only, number):
    flags = os.ST_RDONLY if read_only else 0
    stat = SimpleNamespace(f_bavail=100, f_frsize=4096, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda _: stat)
    assert spool.free() == 409_600
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SpoolError, match=os.strerror(number)):
        spool.free()


def test_whether_there_is_room_is_not_asked_twice(tmp_path):
    """Nobody knows: then the write says what is wrong."""
    spool = Spool(tmp_path / "gone", 80, Files(), floor=1)
    assert spool.has_disk(10)


@pytest.mark.parametrize("operation", ["append", "write"])
def test_a_broken_disk_is_an_error_of_the_spool(tmp_path, operation):
    spool = Spool(tmp_path, 80, Broken(**{operation: errno.EIO}))
    file = part_file(spool)
    with pytest.raises(SpoolError, match=r"u\.1"):
        spool.append(file, memoryview(b"abc"))
    assert (0, 0) == (file.size, file.crc64nvme)
    spool.close(file)


class Recorded(Files):
    def __init__(self):
        self.synced = []

    def sync(self, path):
        super().sync(path)
        self.synced.append(path.name)

    def sync_directory(self, path):
        super().sync_directory(path)
        self.synced.append(".")


@pytest.mark.parametrize(("new_names", "synced"), [(True, ["u.1", "u.2", "."]), (False, ["u.1", "u.2"])])
def test_files_are_synced_and_new_names_after_them(tmp_path, new_names, synced):
    spool = Spool(tmp_path, 80, Recorded())
    files = [part_file(spool, number) for number in (1, 2)]
    for file in files:
        spool.append(file, memoryview(b"abc"))
        spool.close(file)
    spool.sync(files, new_names=new_names)
    assert synced == spool.files.synced


def test_a_file_that_was_stored_meanwhile_needs_no_sync(tmp_path):
    spool = Spool(tmp_path, 80, Recorded())
    there = part_file(spool, 2)
    spool.append(there, memoryview(b"abc"))
    spool.close(there)
    stored = part_file(spool, 1)
    spool.remove("u", stored)
    spool.sync([stored, there], new_names=True)
    assert spool.files.synced == ["u.2", "."]


def test_a_file_that_somebody_else_has_removed_is_not_synced(tmp_path):
    spool = Spool(tmp_path, 80, Files())
    file = part_file(spool)
    spool.append(file, memoryview(b"abc"))
    spool.close(file)
    file.path.unlink()
    with pytest.raises(SpoolError, match="No such file"):
        spool.sync([file], new_names=False)


@pytest.mark.parametrize("operation", ["sync", "sync_directory"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM])
def test_a_failed_sync_is_an_error_of_the_spool(tmp_path, operation, number):
    """A full disk may say so as late as that, and the kernel then has dropped the bytes."""
    spool = Spool(tmp_path, 80, Broken(**{operation: number}))
    with pytest.raises(SpoolError, match="syncing"):
        spool.sync([part_file(spool)], new_names=True)


async def test_a_close_that_fails_lets_go_of_the_descriptor(spool, monkeypatch):
    file, _ = await written(spool, b"abc")
    number = file.fd

    def fails(fd):
        os.close(fd)
        raise OSError(errno.EIO, "as the test wants it")

    monkeypatch.setattr(spool.files, "close", fails, raising=False)
    with pytest.raises(OSError, match="as the test"):
        spool.close(file)
    assert (number is not None, None) == (True, file.fd)


async def written(spool, data, *more):
    """A part file with a reserve of 10 that holds these bytes, and its checksum before `more` came."""
    file = part_file(spool)
    await spool.budget.reserve("u", 10)
    file.reserved = 10
    spool.append(file, memoryview(data))
    crc = file.crc64nvme
    for piece in more:
        spool.append(file, memoryview(piece))
    return file, crc


async def test_a_cut_leaves_what_was_there_and_its_reserve(spool):
    file, crc = await written(spool, b"abc", b"defg")
    spool.cut("u", file, 3, crc)
    assert (b"abc", 3, crc64nvme(b"abc"), None) == (file.path.read_bytes(), file.size, file.crc64nvme, file.fd)
    assert (3, 3) == (file.reserved, spool.budget.reserved)
    spool.append(file, memoryview(b"xyz"))
    spool.close(file)
    assert (b"abcxyz", crc64nvme(b"abcxyz")) == (file.path.read_bytes(), file.crc64nvme)


async def test_a_cut_to_nothing_leaves_no_file(spool):
    file, _ = await written(spool, b"abc")
    spool.cut("u", file, 0, 0)
    spool.cut("u", file, 0, 0)  # it may not have come to be
    assert (False, 0, 0, 0) == (file.path.exists(), file.size, file.crc64nvme, spool.budget.reserved)


@pytest.mark.parametrize(("operation", "size"), [("truncate", 3), ("unlink", 0)])
async def test_a_cut_that_fails_is_an_error_of_the_spool(tmp_path, operation, size):
    spool = Spool(tmp_path, 80, Broken(**{operation: errno.ENOSPC}))
    file, crc = await written(spool, b"abc", b"def")
    with pytest.raises(SpoolError, match=r"cutting u\.1"):
        spool.cut("u", file, size, crc)


async def test_a_removed_file_gives_its_reserve_back(spool):
    file = part_file(spool)
    await spool.budget.reserve("u", 10)
    file.reserved = 10
    spool.append(file, memoryview(b"abc"))
    spool.remove("u", file)
    assert (False, None, 0, 0) == (file.path.exists(), file.fd, file.reserved, spool.budget.reserved)
    spool.remove("u", file)
    assert spool.budget.reserved == 0


async def test_a_file_that_cannot_be_removed_goes_later(tmp_path):
    spool = Spool(tmp_path, 80, Broken(unlink=errno.EIO))
    file, _ = await written(spool, b"abc")
    spool.remove("u", file)
    spool.tidy()
    assert (True, 0) == (file.path.exists(), spool.budget.reserved)
    spool.files.errors.clear()
    spool.tidy()
    assert not file.path.exists()
    file.path.touch()
    spool.tidy()
    assert file.path.exists(), "it is removed once"


def test_files_are_read_back_in_slices(tmp_path):
    path = tmp_path / "u.1"
    path.write_bytes(b"abcdef" * 400_000)
    slices = list(Files().read(path, 3, 2_400_000 + 50))
    assert b"".join(slices) == path.read_bytes()[3:]
    assert max(map(len, slices)) == 1 << 20
    assert b"".join(Files().read(path, 3, 5)) == b"de"


def test_files_know_sizes_names_and_room(tmp_path):
    files = Files()
    (tmp_path / "u.1").write_bytes(b"abcdef")
    files.truncate(tmp_path / "u.1", 4)
    assert (4, 0, ["u.1"]) == (files.size(tmp_path / "u.1"), files.size(tmp_path / "u.2"), files.names(tmp_path))
    assert files.free(tmp_path) > 0
    files.unlink(tmp_path / "u.1")
    files.unlink(tmp_path / "u.1")
    (tmp_path / "lost+found").mkdir()
    assert files.names(tmp_path) == []


# -- the budget ---------------------------------------------------------------------------------------------------


def waiting(budget, owner, size, *, resumed=False):
    return asyncio.create_task(budget.reserve(owner, size, resumed=resumed))


async def done(*tasks):
    await turns()
    return [task.done() for task in tasks]


async def finish(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_newcomers_leave_the_last_eighth_to_those_who_come_back():
    budget = Budget(80)
    for number in range(7):
        await budget.reserve(f"u{number}", 10)
    newcomer, back = waiting(budget, "new", 1), waiting(budget, "back", 10, resumed=True)
    assert await done(newcomer, back) == [False, True]
    assert "80/80" in repr(budget)
    await finish(newcomer)


async def test_newcomers_are_served_in_order_of_arrival():
    budget = Budget(80)
    await budget.reserve("a", 70)
    large, small = waiting(budget, "b", 30), waiting(budget, "c", 5)
    await turns()
    budget.release("a", 10)
    assert await done(large, small) == [False, False]
    budget.release("a", 20)
    assert await done(large, small) == [True, False]
    budget.release("a", 5)
    assert await done(small) == [True]


async def test_an_upload_with_its_share_is_passed_over_while_others_wait():
    budget = Budget(80)
    await budget.reserve("fast", 40)
    await budget.reserve("other", 30)
    fast, slow = waiting(budget, "fast", 10), waiting(budget, "slow", 10)
    await turns()
    budget.release("other", 10)
    assert await done(fast, slow) == [False, True]
    budget.release("other", 20)
    assert await done(fast) == [True]


async def test_an_upload_alone_may_take_all_that_newcomers_may():
    budget = Budget(80)
    for _ in range(7):
        await budget.reserve("only", 10)
    assert budget.reserved == 70


async def test_the_door_is_open_where_a_newcomer_would_be_served_at_once():
    budget = Budget(80)
    assert budget.has_room(81)  # alone, rather than never
    await budget.reserve("a", 1)
    assert [True, True, False] == [budget.has_room(size) for size in (1, 69, 70)]
    await budget.reserve("a", 69)
    assert not budget.has_room(1)
    task = waiting(budget, "b", 30)
    await turns()
    budget.release("a", 20)
    assert not budget.has_room(1)  # others were there before
    await finish(task)
    assert budget.has_room(1)


def test_what_a_restart_found_is_held_room_or_not():
    budget = Budget(80)
    budget.take("a", 100)
    assert budget.reserved == 100
    assert not budget.has_room(0)
    budget.release("a", 100)
    assert budget.has_room(70)


async def test_cancelled_while_waiting_holds_nothing():
    budget = Budget(80)
    await budget.reserve("a", 70)
    await finish(waiting(budget, "b", 10))
    assert budget.reserved == 70
    budget.release("a", 70)
    assert budget.reserved == 0


async def test_granted_and_cancelled_in_the_same_turn_gives_the_reserve_back():
    budget = Budget(80)
    await budget.reserve("a", 70)
    task = waiting(budget, "b", 10)
    await turns()
    budget.release("a", 70)
    task.cancel()
    await turns()
    assert task.cancelled()
    assert budget.reserved == 0


async def test_who_leaves_the_queue_no_longer_holds_up_those_behind():
    budget = Budget(80)
    await budget.reserve("a", 60)
    large, small = waiting(budget, "b", 30), waiting(budget, "c", 5)
    await turns()
    await finish(large)
    assert await done(small) == [True]


async def test_who_is_left_alone_by_a_cancellation_is_not_crowded_any_more():
    budget = Budget(80)
    await budget.reserve("a", 60)
    more, other = waiting(budget, "a", 10), None
    assert await done(more) == [True]
    more, other = waiting(budget, "a", 10), waiting(budget, "b", 20)
    await turns()
    budget.release("a", 10)
    assert await done(more, other) == [False, False]
    await finish(other)
    assert await done(more) == [True]


def share_of(budget, subject, owner, size, **how):
    return asyncio.create_task(budget.reserve(owner, size, subject=subject, **how))


async def test_a_subject_waits_for_its_share_and_stands_in_nobodys_way():
    budget = Budget(80, share=40)
    await share_of(budget, "s", "a", 30)
    await share_of(budget, "s", "b", 10)
    more, other = share_of(budget, "s", "c", 1), share_of(budget, "t", "d", 20)
    assert await done(more, other) == [False, True]
    assert [True, False] == [budget.has_room(5), budget.has_share("s", 1)]
    fast = share_of(budget, "t", "d", 10)  # those who only wait for their share make it no crowd
    assert await done(fast) == [True]
    budget.release("b", 1)
    assert await done(more) == [True]
    budget.release("a", 30)
    budget.release("b", 9)
    budget.release("c", 1)
    budget.release("d", 30)
    assert (0, {}, {}, {}) == (budget.reserved, budget._held, budget._subjects, budget._of_subject)


async def test_a_share_leaves_parts_that_were_begun_their_rest_and_who_resumes_an_eighth():
    budget = Budget(80, share=20)
    budget.take("a", 25, subject="s")
    begun, resumed = (
        share_of(budget, "s", "a", 10, resumed=True, begun=True),
        share_of(budget, "s", "b", 5, resumed=True),
    )
    assert await done(begun, resumed) == [True, False]
    budget.release("a", 10)
    assert await done(resumed) == [True]
    alone = share_of(budget, "t", "c", 30)
    assert await done(alone) == [True], "rather than never"


async def test_a_budget_of_half_parts_lets_every_one_of_them_fill():
    budget = Budget(80)
    owners = [f"u{number}" for number in range(13)]
    for owner in owners:
        await budget.reserve(owner, 10)
        budget.release(owner, 5)  # interrupted in the middle of its part
    back = {owner: waiting(budget, owner, 5, resumed=True) for owner in owners}
    for _ in owners:
        await turns()
        for owner, task in list(back.items()):
            if task.done():
                del back[owner]
                budget.release(owner, 10)  # filled and stored
    await finish(*back.values())
    assert back == {}


async def test_a_large_rest_does_not_hold_up_a_small_one_that_fits():
    budget = Budget(80)
    for owner, size in (("a", 60), ("b", 5)):
        await budget.reserve(owner, size)
    await budget.reserve("c", 10, resumed=True)
    large, small = waiting(budget, "b", 10, resumed=True), waiting(budget, "a", 5, resumed=True)
    assert await done(large, small) == [False, True]
    await finish(large)


class Simulation:
    """Uploads that begin parts, fill them bit by bit, are interrupted and come back, over one budget."""

    def __init__(self, seed, size, part):
        self.random = random.Random(seed)
        self.budget = Budget(size)
        self.part = part
        self.stored = asyncio.Semaphore(2)
        self.finished = 0

    async def upload(self, owner, parts):
        stores = []
        for _ in range(parts):
            await self.budget.reserve(owner, self.part)
            filled = 0
            while filled < self.part:
                self.check()
                await turns(self.random.randrange(3))
                filled += self.random.randint(1, self.part - filled)
                if filled < self.part and self.random.random() < 0.5:
                    await self.interruption(owner, filled)
            stores.append(asyncio.create_task(self.store(owner)))
        await asyncio.gather(*stores)
        self.finished += 1

    async def interruption(self, owner, filled):
        self.budget.release(owner, self.part - filled)
        await turns(self.random.randrange(6))
        while True:
            back = waiting(self.budget, owner, self.part - filled, resumed=True)
            if self.random.random() < 0.3:
                await turns(self.random.randrange(3))
                back.cancel()
            await asyncio.wait([back])
            if not back.cancelled():
                return

    async def store(self, owner):
        async with self.stored:
            await turns(self.random.randrange(8))
        self.budget.release(owner, self.part)

    def check(self):
        assert 0 <= self.budget.reserved <= self.budget.size


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 16), st.integers(1, 4))
def test_the_budget_is_never_exceeded_and_never_locks_up(seed, part, owners, parts):
    simulation = Simulation(seed, 8 * part, part)

    async def run():
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            for number in range(owners):
                tasks.create_task(simulation.upload(f"u{number}", parts))

    asyncio.run(run())
    assert (owners, 0, {}) == (simulation.finished, simulation.budget.reserved, simulation.budget._held)
