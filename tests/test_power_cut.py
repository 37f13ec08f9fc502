"""The plug is pulled, as large as CI has it (`campaigns/power_cut.py`); what it must catch; and what it is made of."""

import random
import sqlite3
import subprocess
import sys

import pytest
from campaigns import Size
from campaigns.power_cut import catch, run
from damage import CHECKPOINT, damage_log, damage_part_files, end_of_commits, synced_ends
from figures import Figures
from loop_disk import LoopDisk, NoLoopDeviceError, fast_directory, freeze, sync_file, sync_range
from process import MIB

pytest_plugins = ["weed", "process"]

SYNCED, NOT_SYNCED = random.Random(1).randbytes(50_000), random.Random(2).randbytes(50_000)


def fail(disk):
    assert disk.place.is_mount()
    raise ZeroDivisionError


@pytest.fixture
def disk(tmp_path):
    try:
        with LoopDisk.mounted(tmp_path) as found:
            yield found
    except NoLoopDeviceError as error:
        pytest.skip(str(error))


# -- the campaign ----------------------------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_announced_survives_power_cuts(seed):
    try:
        figures = run(Size.CI, seed)
    except NoLoopDeviceError as error:
        pytest.skip(str(error))
    figures.save_if_wanted()
    assert figures.counts["images"] >= 12
    assert figures.counts["offsets announced"] > figures.counts["images"]


@pytest.mark.campaign
@pytest.mark.parametrize("bugs", ["synchronous_normal", "no_fdatasync", "announces_what_was_received"])
def test_a_streamup_that_announces_what_is_not_durable_is_caught(bucket, bugs):
    """The negative controls: without them nobody would know whether a cut is one. A release has all of them."""
    figures = Figures(f"power cuts with {bugs}", Size.CI, 7)
    try:
        catch(bucket, fast_directory(), 7, figures, bugs)
    except NoLoopDeviceError as error:
        pytest.skip(str(error))
    assert figures.counts == {"planted mistakes caught by offset": 1}
    figures.save_if_wanted()


# -- the disk --------------------------------------------------------------------------------------------------------


def test_an_image_holds_what_was_synced_and_nothing_else(disk):
    for name, data in (("synced", SYNCED), ("not", NOT_SYNCED)):
        (disk.place / name).write_bytes(data)
    sync_file(disk.place / "synced")
    disk.replace(disk.copy())
    assert (disk.place / "synced").read_bytes() == SYNCED
    assert not (disk.place / "not").exists() or not (disk.place / "not").read_bytes()


def test_pages_that_are_written_back_are_there_without_a_sync(disk):
    """And others are not. (How many go along with the one that is asked for is the kernel's choice.)"""
    path, before, after = disk.place / "file", b"b" * (16 * MIB), b"a" * (16 * MIB)
    path.write_bytes(before)
    sync_file(path)
    with path.open("r+b") as file:
        file.write(after)
    sync_range(path, 8 * MIB, 4096)
    disk.replace(disk.copy())
    there = path.read_bytes()
    assert there[8 * MIB : 8 * MIB + 4096] == after[:4096]
    assert b"b" in there


def test_a_program_that_is_frozen_writes_no_more(disk):
    path = disk.place / "file"
    path.touch()
    with subprocess.Popen(["sh", "-c", f"while :; do echo more >>{path}; done"]) as program:
        while not path.stat().st_size:
            pass
        freeze(program.pid)
        size = path.stat().st_size
        image = disk.copy()
        assert path.stat().st_size == size
        program.kill()
    disk.replace(image)


def test_nothing_stays_mounted_when_a_test_fails(disk, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ZeroDivisionError), LoopDisk.mounted(tmp_path / "other") as other:
        fail(other)
    assert not other.place.is_mount()
    assert disk.place.is_mount()
    assert not other.image.exists()
    found = subprocess.run(["losetup", "-j", str(other.image)], capture_output=True, check=True)
    assert found.stdout == b""


# -- what may be damaged ---------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path):
    """A state directory with two part files, of which one was synced up to a place, and a log with three commits."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "a.1").write_bytes(SYNCED + NOT_SYNCED)
    (tmp_path / "spool" / "b.3").write_bytes(NOT_SYNCED)
    script = f"""
import os, sqlite3
db = sqlite3.connect({str(tmp_path / CHECKPOINT)!r}, isolation_level=None)
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE part_file (upload_id, number, synced, crc64nvme)")
db.execute("INSERT INTO part_file VALUES ('a', 1, 10, x'')")
db.execute("UPDATE part_file SET synced = {len(SYNCED)}")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    return tmp_path


def test_a_synced_end_is_read_from_the_log_and_disturbs_nothing(state):
    before = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
    assert synced_ends(state) == {"a.1": len(SYNCED)}
    assert {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()} == before
    assert f"{CHECKPOINT}-wal" in before


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_reaches_what_was_synced(state, seed):
    rng = random.Random(seed)
    assert damage_part_files(state, rng)
    assert (state / "spool" / "a.1").read_bytes()[: len(SYNCED)] == SYNCED
    assert damage_log(state, rng) == 1
    assert synced_ends(state) == {"a.1": len(SYNCED)}


def test_damage_is_done(state):
    """Garbage, zeros, less or nothing, by seed; and the torn log is longer than its commits in most of them."""
    log = state / f"{CHECKPOINT}-wal"
    data, files, logs = log.read_bytes(), set(), set()
    assert end_of_commits(data) == len(data)
    for seed in range(20):
        damage_part_files(state, random.Random(seed))
        damage_log(state, random.Random(seed))
        files.add((state / "spool" / "a.1").read_bytes())
        logs.add(log.read_bytes())
        (state / "spool" / "a.1").write_bytes(SYNCED + NOT_SYNCED)
        log.write_bytes(data)
    assert len(files) > 5
    assert len(logs) > 5
    assert SYNCED in files


def test_the_end_of_commits_is_before_a_transaction_that_was_not_committed(state):
    log = state / f"{CHECKPOINT}-wal"
    data = log.read_bytes()
    frame = 24 + int.from_bytes(data[8:12], "big")
    last_is_no_commit = data[: -frame + 4] + bytes(4) + data[-frame + 8 :]
    assert end_of_commits(last_is_no_commit) == len(data) - frame
    assert end_of_commits(data[:-1]) == len(data) - frame
    other_salts = data[: -frame + 8] + bytes(8) + data[-frame + 16 :]
    assert end_of_commits(other_salts) == len(data) - frame
    assert end_of_commits(b"") is None
    log.write_bytes(last_is_no_commit)
    assert synced_ends(state) == {"a.1": 10}


def test_a_log_is_needed(tmp_path):
    assert damage_log(tmp_path, random.Random(1)) == 0
    assert synced_ends(tmp_path) == {}
    with sqlite3.connect(tmp_path / CHECKPOINT) as db:
        db.execute("CREATE TABLE other (name)")
    db.close()
    assert synced_ends(tmp_path) == {}
