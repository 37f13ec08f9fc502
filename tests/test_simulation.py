"""The simulation finds nothing in streamup; and it would."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import Size, simulation
from invariants import Broken, Invariant
from sim.database import Database
from sim.disk import Disk
from sim.ledger import Claim, Model, stream
from sim.loop import OneThread, VirtualLoop
from sim.world import World

HERE = Path(__file__).parent


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1, 101, 201, None], ids=lambda seed: "fresh" if seed is None else str(seed))
def test_whatever_happens_nothing_is_lost(seed):
    """A failure says which command replays it; one of the seeds is a fresh one each time."""
    seed = random.SystemRandom().randrange(1_000_000, 1_000_000_000) if seed is None else seed
    figures = simulation.run(Size.CI, seed)
    figures.save_if_wanted()
    assert figures.counts["schedules"] >= 250


# -- the same seed is the same schedule -------------------------------------------------------------------------------

FINGERPRINT = "from campaigns.simulation import batch; print(batch(5, schedules=8, shrinks=False).fingerprint)"


def test_a_seed_gives_the_same_schedule_byte_for_byte_in_any_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    found.add(f"{simulation.batch(5, schedules=8, shrinks=False).fingerprint}\n")
    assert len(found) == 1
    assert simulation.batch(6, schedules=8, shrinks=False).fingerprint not in found


# -- the loop ---------------------------------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer():
    loop, seen = VirtualLoop(random.Random(1)), []
    loop.call_later(3600.0, lambda: seen.append(loop.time()))
    loop.spend(3599.0)
    assert seen == []
    loop.spend(2.0)
    assert seen == [pytest.approx(3600.0, abs=1e-3)]
    loop.die()


def test_a_function_in_a_thread_is_done_before_that_is_told():
    loop, done = VirtualLoop(random.Random(1)), []
    told = loop.run_in_executor(None, done.append, 1)
    while not done:
        loop.spend(0.0001)
    assert not told.done()
    loop.spend(0.01)
    assert told.done()
    loop.die()


def test_one_thread_does_one_thing_after_another():
    loop, done, thread = VirtualLoop(random.Random(1)), [], OneThread()
    for number in range(20):
        loop.run_in_executor(thread, done.append, number)
    loop.spend(1.0)
    assert done == list(range(20))
    loop.die()


def test_who_goes_round_in_circles_is_found():
    loop = VirtualLoop(random.Random(1))

    def again():
        loop.call_soon(again)

    again()
    with pytest.raises(Broken, match="no time has passed"):
        loop.spend(1.0)
    loop.die()


# -- the disk ---------------------------------------------------------------------------------------------------------


def after_power_cuts(prepare, cuts=200):
    """What a file may hold after a power cut (None: it is not there)."""
    path, found = Path("/spool/a"), set()
    for seed in range(cuts):
        disk = Disk(random.Random(seed), 1000)
        prepare(disk, path)
        found.add(disk.after_power_cut().bytes_of(path))
    return found


def write(disk, path, data):
    fd = disk.append(path)
    disk.write(fd, memoryview(data))
    disk.close(fd)


def test_what_was_synced_survives_a_power_cut_and_what_was_not_may_not():
    def prepare(disk, path):
        write(disk, path, b"synced")
        disk.sync(path)
        disk.sync_directory(path.parent)
        write(disk, path, b"more")

    found = after_power_cuts(prepare)
    assert all(data.startswith(b"synced") for data in found)
    assert {b"synced", b"syncedmore", b"synced\0\0\0\0", b"syncedm\0"} <= found


def test_a_name_that_was_not_synced_may_be_gone_and_one_that_was_removed_may_be_back():
    def new(disk, path):
        write(disk, path, b"x")
        disk.sync(path)

    def removed(disk, path):
        new(disk, path)
        disk.sync_directory(path.parent)
        disk.unlink(path)

    assert after_power_cuts(new) == after_power_cuts(removed) == {None, b"x"}


def test_a_sync_that_failed_has_dropped_what_it_should_have_written():
    def prepare(disk, path):
        write(disk, path, b"lost")
        disk.sync_directory(path.parent)
        disk.rates["sync"] = 1.0
        with pytest.raises(OSError, match=r"error|No space"):
            disk.sync(path)
        disk.rates.clear()
        disk.sync(path)  # a success, and worth nothing

    assert after_power_cuts(prepare) == {b"\0\0\0\0"}


# -- the database -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronous", "left"), [("FULL", {3}), ("NORMAL", {0, 1, 2, 3})])
def test_a_commit_is_as_durable_as_synchronous_says(synchronous, left):
    found = set()
    for seed in range(50):
        database = Database(random.Random(seed))
        db = database.module().connect("", isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (x)")
        db.execute("BEGIN")
        db.execute("COMMIT")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        for number in range(3):
            db.execute("BEGIN")
            db.execute("INSERT INTO t VALUES (?)", (number,))
            db.execute("COMMIT")
        again = database.after_power_cut().module().connect("", isolation_level=None)
        found.add(again.execute("SELECT count(*) FROM t").fetchone()[0])
    assert found == left


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_knows_whose_byte_is_where():
    model, first, second = Model("id", "key", 0.0), Claim(1, 10), Claim(2, 10, seals=True)
    model.entered(first, 0)
    first.taken = 10
    model.announce(6, "to the second")
    model.entered(second, 6)
    second.taken, second.end = 10, 16
    model.words.append(second)
    right = stream(1, 0, 6) + stream(2, 6, 16)
    model.require_object(right)
    for wrong, invariant in (
        (right[:-1], Invariant.CLEAN_END),
        (stream(1, 0, 10) + stream(2, 10, 16), Invariant.ONE_WRITER),
        (right[:8] + bytes(8), Invariant.CLEAN_END),
    ):
        with pytest.raises(Broken) as broken:
            model.require_object(wrong)
        assert broken.value.invariant is invariant
    with pytest.raises(Broken, match="5 is told"):
        model.announce(5, "GET")
    with pytest.raises(Broken, match="16 bytes were sent"):
        model.announce(17, "GET")


# -- the world --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [False, True])
def test_an_upload_goes_on_after_a_crash(power):
    with World(3) as world:
        world.create("a/key", "part", 33)
        world.spend(20.0)
        world.crash_now(power=power)
        (model,) = world.models.values()
        assert (model.state, model.announced) == ("open", 33)
        world.append(model, "chunked", 9)
        world.spend(20.0)
        world.finish()
        assert (model.state, model.stored, world.counts["starts"]) == ("complete", 1, 3)


def test_a_crash_comes_where_it_was_asked_for():
    with World(3) as world:
        world.crash_at("before_put_object", 0, power=False)
        world.create("a/key", "put", 4)
        world.spend(5.0)
        assert world.crashed_at == {"before_put_object": 1}
        world.finish()
        assert world.counts["complete uploads"] == 1
