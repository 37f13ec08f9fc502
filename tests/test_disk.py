"""The disk in trouble, as large as CI has it (`campaigns/disk.py`); what it must catch; and what it is made of."""

import contextlib
import os
import random
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.client import RemoteDisconnected
from pathlib import Path

import pytest
from campaigns import Size, disk
from campaigns.disk import ForbiddenHereError, Sending, Stage, clients, fill, injected, run
from figures import Figures
from invariants import Broken
from planted import BUGS
from process import Answer


@contextlib.contextmanager
def as_the_machine_lets_us():
    try:
        yield
    except ForbiddenHereError as error:
        pytest.skip(str(error))


# -- the campaign ----------------------------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("seed", "scenes"),
    [
        (1, (disk.full,)),
        (2, (disk.broken, disk.damaged)),
        (3, (disk.read_only, disk.remounted, disk.gone, disk.descriptors, disk.clock)),
    ],
    ids=["full", "broken", "away"],
)
def test_a_disk_in_trouble_loses_nothing_that_it_need_not(seed, scenes):
    with as_the_machine_lets_us():
        figures = run(Size.CI, seed, scenes=scenes)
    figures.save_if_wanted()
    assert figures.counts["scenes"] >= len(scenes)
    assert figures.counts["offsets announced"] > 0


@pytest.mark.campaign
@pytest.mark.parametrize("bug", disk.CATCHING)
def test_a_mistake_about_the_disk_is_caught(bug):
    with as_the_machine_lets_us(), pytest.raises(Broken) as caught:
        run(Size.CI, 1, planted=bug, scenes=(disk.CATCHING[bug],))
    assert caught.value.invariant in BUGS[bug].caught_by["disk"]


# -- what it is made of ----------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path):
    with contextlib.ExitStack() as undo:
        yield Stage(None, tmp_path, random.Random(1), Figures("test", Size.CI, 1), (), undo)


def test_a_scene_that_fails_leaves_no_mount(stage):
    with as_the_machine_lets_us(), contextlib.suppress(ZeroDivisionError), stage.scene() as own:
        place = own.tmpfs(own.directory / "disk", 1)
        assert place.is_mount()
        raise ZeroDivisionError
    assert not place.is_mount()


def test_a_disk_is_filled_to_its_last_byte_and_freed(stage):
    with as_the_machine_lets_us(), stage.scene() as own:
        place = own.tmpfs(own.directory / "disk", 1)
        foreign = fill(place)
        with pytest.raises(OSError, match="No space left"):
            (place / "another").write_bytes(b"x")
        foreign.unlink()
        (place / "another").write_bytes(b"x")


@dataclass
class Failing:
    """A server that knows of no upload any more, but for this one."""

    found: list

    def ask(self, *_, **__):
        return Answer(404, {}, b"")

    def uploads(self, _):
        if not self.found:
            raise RemoteDisconnected
        return self.found


@pytest.fixture
def sending():
    return Sending(Failing([]), "key", b"0123456789", announced=4)


def test_a_server_that_has_gone_is_asked_later(sending):
    with pytest.raises(RemoteDisconnected):
        sending.place()
    assert (4, []) == (sending.announced, sending.lost)


def test_an_upload_that_has_failed_begins_anew(sending):
    sending.server.found = [{"state": "failed", "reason": "state lost"}]
    assert sending.place() == 0
    assert (0, ["state lost"]) == (sending.announced, sending.lost)


def test_an_upload_that_nobody_knows_of_is_noticed(sending):
    sending.server.found = [{"state": "cancelled", "reason": None}]
    with pytest.raises(Broken, match="4 bytes were announced"):
        sending.place()


def test_what_a_client_meets_is_raised_where_somebody_looks():
    def meets(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), clients(meets, threading.Event.wait):
        pass


def test_a_client_without_an_end_is_noticed(monkeypatch):
    monkeypatch.setattr(disk, "ENDS_WITHIN", 0.1)
    end = threading.Event()
    with pytest.raises(Broken, match="has not come to an end"), clients(lambda _: end.wait(10)):
        pass
    end.set()


WRITER = """
import os, sys
for line in sys.stdin:
    try:
        fd = os.open(line.strip(), os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"x")
        print("well", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


def test_a_call_fails_on_its_path_at_its_time_and_no_longer(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER], stdin=-1, stdout=-1, text=True) as writer:

        def write(name):
            writer.stdin.write(f"{tmp_path / name}\n")
            writer.stdin.flush()
            return writer.stdout.readline().strip()

        record = tmp_path / "record"
        assert write("a") == "well"
        with as_the_machine_lets_us(), injected(writer.pid, "write:error=EIO:when=2", record, tmp_path / "a"):
            assert ["well"] * 3 == [write("a"), write("b"), write("b")]
            assert write("a") == "Input/output error"
            assert write("a") == "well"
        assert (1, "well") == (record.read_text().count("INJECTED"), write("a"))
        writer.stdin.close()


@pytest.mark.parametrize("damage", disk.DAMAGES)
def test_a_damaged_checkpoint_is_another_one(tmp_path, damage):
    source = """
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE a (b)")
db.executemany("INSERT INTO a VALUES (?)", [("x" * 1000,)] * 100)
os._exit(0)
"""
    checkpoint = tmp_path / "checkpoint.sqlite"
    subprocess.run([sys.executable, "-c", source, str(checkpoint)], check=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"checkpoint.sqlite", "checkpoint.sqlite-wal", "checkpoint.sqlite-shm"}
    damage(checkpoint, random.Random(1))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert before != after


def test_without_root_it_says_what_is_forbidden(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ForbiddenHereError, match="this machine"):
        run(Size.CI, 1)


def test_open_files_are_told_without_sockets(tmp_path):
    class Here:
        pid = os.getpid()

    before = disk.open_files(Here)
    with (tmp_path / "file").open("w"):
        assert {str(Path(tmp_path, "file"))} == set(disk.open_files(Here)) - set(before)
