"""The plug is pulled: what was announced is there after another boot, byte for byte.

The state directory is on a file system of its own, in an image on a loop device. Its journal commits only when asked
to (`commit=600`), so a copy of the image holds what was synced and little else. The copy is mounted in place of the
original, and streamup starts on it with another boot id. What a disk's own cache may lose is beyond this test.
"""

import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from process import MIB, Answer, Server, content, digest, prefix_of, until

pytest_plugins = ["weed", "process"]
pytestmark = pytest.mark.campaign

GONE = (OSError, http.client.HTTPException)

DRIVER = """
import os, sqlite3
import streamup.checkpoint, streamup.recovery, streamup.spool
from streamup.cli import main

boot, flaw = {boot!r}, {flaw!r}
streamup.recovery.boot_id = lambda: boot

class Careless(sqlite3.Connection):
    def execute(self, statement, *values):
        return super().execute(statement.replace("synchronous = FULL", "synchronous = NORMAL"), *values)

if flaw == "synchronous=NORMAL":
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Careless)
if flaw == "no fdatasync":
    streamup.spool.Files.sync = lambda *_: None
main()
"""


def driver(boot: str, flaw: str = "") -> tuple[str, ...]:
    """`streamup serve` in a boot of this name, with a flaw that the test must notice."""
    return ("-c", DRIVER.format(boot=boot, flaw=flaw))


class Disk:
    """An ext4 in an image, mounted at `place`, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "disk"
        self.place.mkdir()
        self.image = directory / "image.0"
        self.cuts = 0
        with self.image.open("wb") as file:
            file.truncate(256 * MIB)
        _do("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))
        self._mount()

    def cut(self, server: Server) -> None:
        """Copy the image while nothing runs, and go on with the copy. What was not synced is in neither."""
        os.kill(server.pid, signal.SIGSTOP)
        self.cuts += 1
        copy = self.image.with_suffix(f".{self.cuts}")
        _do("cp", "--sparse=always", str(self.image), str(copy))
        server.kill()
        self.unmount()
        self.image.unlink()
        self.image = copy
        self._mount()

    def _mount(self) -> None:
        _do("mount", "-o", "loop,commit=600,noatime", str(self.image), str(self.place))

    def unmount(self) -> None:
        _do("umount", str(self.place))


def _do(*command: str) -> None:
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a loop device needs root")
    if shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("there is no mkfs.ext4 (e2fsprogs)")
    try:
        found = Disk(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine gives us no loop device: {error.stderr.decode().strip()}")
    yield found
    found.unmount()


@dataclass
class Stream:
    """A client that sends without end, and asks now and then what it may forget."""

    server: Server
    key: str
    body: bytes
    announced: int = 0
    promises: int = 0
    thread: threading.Thread | None = None
    errors: list[BaseException] = field(default_factory=list)

    def send(self, stop: threading.Event) -> None:
        """From the offset on, until the power is cut. Slowly, which is real time: the moment is the subject."""

        def pieces():
            for start in range(offset, len(self.body), 150_000):
                if stop.is_set():
                    raise ConnectionAbortedError
                yield self.body[start : start + 150_000]
                time.sleep(0.01)
            stop.wait(60)
            raise ConnectionAbortedError

        offset = self.ask()
        where = {"Content-Range": f"bytes {offset}-*/*"}
        with contextlib.suppress(*GONE):
            self.server.ask("PUT", f"/objects/{self.key}", where, pieces())

    def watch(self, stop: threading.Event, rng: random.Random) -> None:
        with contextlib.suppress(*GONE):
            while not stop.wait(rng.uniform(0.02, 0.3)):
                self.ask()

    def ask(self) -> int:
        answer: Answer = self.server.ask("HEAD", f"/objects/{self.key}", seconds=5)
        offset = int(answer.headers.get("Upload-Offset", "0"))
        if offset < self.announced:
            raise LostError(f"{self.announced - offset} announced bytes of {self.key} are lost")
        self.promises += offset > self.announced
        self.announced = offset
        return offset

    def finish(self) -> None:
        offset, size = self.ask(), len(self.body)
        if offset < size:
            where = {"Content-Range": f"bytes {offset}-{size - 1}/{size}"}
        else:  # an empty range is none
            where = {"Content-Range": f"bytes */{size}", "Upload-Complete": "?1"}
        answer = self.server.ask("PUT", f"/objects/{self.key}", where, self.body[offset:])
        if answer.status != 201:
            raise LostError(f"{self.key} cannot be finished: {answer}")


class LostError(Exception):
    """A promise was broken."""


def cut_the_power(serve, bucket, disk: Disk, *, cuts: int, seed: int, flaw: str = "") -> tuple[int, int]:
    """Streams through several power cuts to their end. How many offsets were announced, and how many bytes with them.

    Raises `LostError`.
    """
    rng = random.Random(seed)
    server = serve(data=disk.place / "data", program=driver("boot 0", flaw))
    streams = [Stream(server, f"stream-{n}", content(24 * MIB + n, seed + n)) for n in range(3)]
    server.start()
    for number in range(1, cuts + 1):
        before = sum(stream.promises for stream in streams)
        stop = threading.Event()
        threads = [threading.Thread(target=stream.send, args=(stop,)) for stream in streams]
        threads += [threading.Thread(target=s.watch, args=(stop, random.Random(rng.random()))) for s in streams]
        for thread in threads:
            thread.start()
        until(lambda before=before: sum(s.promises for s in streams) > before, what="an announcement")
        time.sleep(rng.uniform(0.1, 1.0))  # real time, as above
        disk.cut(server)
        stop.set()
        for thread in threads:
            thread.join()
        server.program = driver(f"boot {number}", flaw)
        server.start()
        for stream in streams:
            check(server, stream)
    announced = sum(stream.announced for stream in streams)
    for stream in streams:
        stream.finish()
    server.until_quiet()
    for stream in streams:
        if digest(bucket.read(prefix_of(server) + stream.key)) != digest(stream.body):
            raise LostError(f"{stream.key} is another one")
    assert not bucket.multiparts(prefix_of(server))
    server.stop()
    return sum(stream.promises for stream in streams), announced


def check(server: Server, stream: Stream) -> None:
    """What was announced is there; an upload that had no promise may be gone."""
    lost = [u for u in server.uploads(stream.key) if u["state"] == "failed"]
    if lost and stream.announced:
        raise LostError(f"{stream.key}: {lost[0]['reason']}")
    stream.ask()


@pytest.mark.parametrize("seed", [1, 2])
def test_an_announced_offset_survives_a_power_cut(disk, serve, bucket, seed, record_testsuite_property):
    promises, announced = cut_the_power(serve, bucket, disk, cuts=3, seed=seed)
    record_testsuite_property(f"offsets announced before power cuts, seed {seed}", promises)
    record_testsuite_property(f"bytes announced, seed {seed}", announced)
    assert promises >= 3


@pytest.mark.parametrize("flaw", ["synchronous=NORMAL", "no fdatasync"])
def test_a_streamup_that_does_not_sync_is_caught(disk, serve, bucket, flaw):
    """The negative control: without it nobody would know whether the cut is one.

    There is none for the sync of the directory: ext4 makes the name of a new file durable together with its data.
    """
    with pytest.raises(LostError, match="lost"):
        cut_the_power(serve, bucket, disk, cuts=3, seed=7, flaw=flaw)
