"""`streamup push` while everything breaks: the server is killed, the network resets and stalls, the client dies.

Every time: the object is what the producer wrote, the producer never failed, and nothing is left over. `planted.py` has
bugs that must be noticed here.

    FIRE_SEED=7 pytest -m campaign tests/test_push_under_fire.py      # other moments, other faults
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from network import Fate, Network, chaos
from process import MIB, MODULE, PART, Bucket, Server, content, digest, prefix_of, until
from test_outage import stopped

from streamup.client.backlog import MEMORY_BYTES

pytest_plugins = ["weed", "process", "network"]
pytestmark = pytest.mark.campaign

SEED = int(os.environ.get("FIRE_SEED", "1"))
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
KEY = "fire"
ENDS_WITHIN = 60
"""Seconds from the last fault to the end of the command. Its longest pause between two attempts is part of them."""

PLANTED = str(Path(__file__).with_name("planted.py"))
HURRIED = (PLANTED, "in_a_hurry")

# -- the command, and what it leaves --------------------------------------------------------------------------------


@dataclass
class Push:
    """`streamup push` as a user runs it, with a home and a temporary directory of its own. Started once or more."""

    directory: Path
    program: tuple[str, ...] = MODULE
    process: subprocess.Popen[bytes] | None = None
    sessions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.temporary.mkdir(parents=True)

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def errors(self) -> str:
        return (self.directory / "err").read_text(errors="replace")

    def start(self, *words: str | Path, stdin: Any = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
        foreign = ("STREAMUP_", "AWS_", "XDG_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environ |= {"HOME": str(self.directory), "TMPDIR": str(self.temporary)}
        with (self.directory / "err").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "push", *map(str, words)],
                **{"env": environ, "stdin": stdin, "stdout": err, "stderr": err, "start_new_session": True} | options,
            )
        self.sessions.append(self.process.pid)
        return self.process

    def ends(self, seconds: float = ENDS_WITHIN) -> int:
        """Its exit code, as a shell would say it."""
        assert self.process
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"push has not ended after {seconds:g} s:\n{self.errors}")

    def held(self) -> int:
        """Bytes on disk of its temporary files, with those that have no name."""
        assert self.process
        total = 0
        for number in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(number.readlink()).startswith(str(self.temporary)):
                    total += number.stat().st_blocks * 512
        return total

    def peak(self) -> int:
        """Its largest resident set so far."""
        assert self.process
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def children(self) -> list[str]:
        """What still runs of what it has started."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, _, rest = stat.read_text().rpartition(")")
                if int(rest.split()[3]) in self.sessions and rest.split()[0] != "Z":
                    found.append(name)
        return found

    def end(self) -> None:
        """Whatever has become of it, nothing of it goes on. pytest shows what it said."""
        if self.process:
            for session in self.sessions:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(session, signal.SIGKILL)
            self.process.wait()
            sys.stdout.write(f"--- push\n{self.errors}\n")


@dataclass
class Fire:
    """A server, a network before it, and a client behind that."""

    server: Server
    network: Network
    push: Push
    bucket: Bucket

    @property
    def url(self) -> str:
        return f"{self.network.url}/objects/{KEY}"

    def stored(self) -> bytes | None:
        return self.bucket.read(prefix_of(self.server) + KEY)

    def is_whole(self, data: bytes) -> None:
        """What is in the store, and that nothing is left: no process, no temporary file, no multipart upload; and at
        the server no open upload but empty ones, one for each answer to a creation that was lost: nobody knows their
        names.
        """
        until(lambda: self.stored() is not None, what="the object")
        assert digest(self.stored()) == digest(data)
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        until(lambda: not self.push.children(), 5, f"the end of {self.push.children()}")
        assert list(self.push.temporary.iterdir()) == []
        creations = sum(1 for request in self.network.requests if request.method == "POST")
        begun = [upload for upload in self.server.uploads() if upload["state"] not in {"complete", "cancelled"}]
        assert [upload for upload in begun if upload["received"]] == []
        assert len(begun) <= max(creations - 1, 0)
        until(lambda: not self.bucket.multiparts(prefix_of(self.server)), what="no multipart upload in the store")

    def report(self) -> None:
        """For `pytest -rP`, and beside a failure."""
        sent, did = self.network.bodies, dict(sorted(self.network.did.items()))
        sys.stdout.write(f"--- {sent} bytes of bodies went up; the network: {did}\n")


Begin = Callable[..., Fire]


@pytest.fixture
def begin(serve, bucket, between, tmp_path) -> Iterator[Begin]:
    """`begin(*options of the server, program=…)`"""
    made: list[Fire] = []

    def begin(*options: str, program: tuple[str, ...] = MODULE) -> Fire:
        server = serve(*options).start()
        network = between(server.ports[0])
        made.append(Fire(server, network, Push(tmp_path / f"client{len(made)}", program), bucket))
        return made[-1]

    yield begin
    for one in made:
        one.push.end()
        one.report()


@dataclass
class Killer:
    """Kills the server at random moments, and starts it again; before that the network has its turn."""

    fire: Fire
    numbers: random.Random
    kills: int = 0

    def strike(self) -> None:
        time.sleep(self.numbers.uniform(0.1, 0.8))  # real time: that is what faults come in
        match self.numbers.choice(["reset", "stall", "refuse", "nothing"]):
            case "reset":
                self.fire.network.reset_all()
            case "stall":
                with self.fire.network.stalled():
                    time.sleep(self.numbers.uniform(0.1, 1.0))
            case "refuse":
                with self.fire.network.refusing():
                    time.sleep(self.numbers.uniform(0.1, 0.5))
        time.sleep(self.numbers.uniform(0.0, 0.5))
        self.fire.server.kill()
        self.kills += 1
        time.sleep(self.numbers.uniform(0.0, 0.3))
        self.fire.server.start()
        assert self.fire.push.process.poll() is None


# -- a live stream --------------------------------------------------------------------------------------------------


def test_a_live_encoding_through_ten_kills_and_a_bad_network(begin, tmp_path):
    """ffmpeg encodes in real time, writes the same stream into a file, and is told to stop after the tenth kill."""
    fire, local = begin(), tmp_path / "local.ts"
    fire.network.fate = chaos(random.Random(SEED), 200_000)
    encode = (
        *(FFMPEG, "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=640x360:rate=25"),
        *("-re", "-f", "lavfi", "-i", "sine=frequency=440", "-t", "300", "-map", "0:v", "-map", "1:a"),
        *("-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-b:v", "4M", "-g", "25", "-c:a", "aac"),
        *("-f", "tee", f"[f=mpegts]{local}|[f=mpegts]pipe:1"),
    )
    with subprocess.Popen(encode, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
        fire.push.start("-", fire.url, stdin=ffmpeg.stdout)
        ffmpeg.stdout.close()
        ffmpeg.stdout = None
        try:
            killer = Killer(fire, random.Random(SEED))
            while killer.kills < 10:
                killer.strike()
                assert ffmpeg.poll() is None
            _, complaints = ffmpeg.communicate(b"q", timeout=20)
        finally:
            ffmpeg.kill()
    assert (ffmpeg.returncode, complaints) == (0, b"")
    assert fire.push.ends() == 0
    fire.is_whole(local.read_bytes())


# -- at full speed --------------------------------------------------------------------------------------------------


def written(path: Path, size: int) -> Path:
    """What a producer at full speed writes: `cat` of this file."""
    path.write_bytes(content(size, SEED))
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    """More than the memory of a client and the spool of a server hold, if that is small."""
    return written(tmp_path / "source", 120 * MIB)


@contextlib.contextmanager
def cat(source: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat", source], stdout=subprocess.PIPE) as producer:
        try:
            yield producer
        finally:
            producer.kill()


def test_a_fast_pipe_through_kills_resets_and_lost_answers(begin, tmp_path):
    fire, source = begin(), written(tmp_path / "source", 80 * MIB)
    fire.network.fate = chaos(random.Random(SEED + 1), 6 * MIB)
    fire.network.rate = 10 * MIB  # as long as the kills last
    with cat(source) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        killer = Killer(fire, random.Random(SEED + 1))
        while killer.kills < 4:
            killer.strike()
        fire.network.rate = None
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
    fire.is_whole(source.read_bytes())


def test_a_fast_pipe_while_the_store_stops_and_the_spool_is_full(begin, weed, source):
    """The server stops reading, the backlog fills, its file too, and the producer waits. Then all of it goes on."""
    fire = begin("--spool-size=40MiB")
    with cat(source) as producer:
        with stopped(weed.pid):
            fire.push.start("-", fire.url, "--backlog-size=8MiB", stdin=producer.stdout)
            until(lambda: sum(fire.server.spooled().values()) > 30 * MIB, what="a full spool")
            until(lambda: fire.push.held() > 7 * MIB, what="a full backlog, on the disk, too")
            fire.server.kill()  # and a spool that is full when a server starts
            fire.server.start(ready="/healthz")
            assert (producer.poll(), fire.push.process.poll()) == (None, None)
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
    fire.is_whole(source.read_bytes())


def through_resets(fire: Fire, source: Path) -> None:
    """Connections that break after each MiB, and answers that are lost."""
    numbers = random.Random(SEED)
    fates = [Fate("reset", "up", MIB), Fate("reset", "up", MIB), Fate("reset", "down", 0)]
    fire.network.fate = lambda number: numbers.choice(fates) if number < 20 else None
    fire.network.rate = 20 * MIB
    with cat(source) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
    fire.is_whole(source.read_bytes())


def test_a_server_that_has_lost_what_it_announced_is_not_believed(begin, tmp_path):
    lost_what_was_announced(begin(), tmp_path)


def lost_what_was_announced(fire: Fire, directory: Path) -> None:
    """An older copy of its state takes the place of the present one. What the client has released nobody has."""
    data, older = fire.server.data, directory / "older"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        for size in (MIB, 2 * MIB):
            producer.stdin.write(content(MIB, size))
            producer.stdin.flush()
            until(lambda size=size: durable(fire.server) == size, what=f"{size} durable bytes")
            if size == MIB:
                shutil.copytree(data, older)
        time.sleep(1.5)  # real time: about a second after that the client is told of it
        fire.server.kill()
        shutil.rmtree(data)
        older.rename(data)
        fire.server.start()
        assert fire.push.ends() == 1
        producer.kill()
    assert "Those between are gone" in fire.push.errors
    assert fire.stored() is None


# -- a command ------------------------------------------------------------------------------------------------------

WRITES = f"head -c {3 * MIB} /dev/zero"
CLOSES = "import os, sys, time; os.write(1, bytes(1000)); os.close(1); time.sleep(0.8); sys.exit({})"


def durable(server: Server) -> int:
    """Of the upload that has the most."""
    return max((upload["offset"] for upload in server.uploads(KEY)), default=0)


@dataclass(frozen=True)
class Case:
    command: tuple[str, ...]
    code: int
    size: int = 3 * MIB


CASES = {
    "ends well": Case(("sh", "-c", WRITES), 0),
    "fails": Case(("sh", "-c", f"{WRITES}; exit 7"), 7),
    "is killed": Case(("sh", "-c", f"{WRITES}; kill -KILL $$"), 128 + signal.SIGKILL),
    "closes its output and ends well": Case((sys.executable, "-c", CLOSES.format(0)), 0, 1000),
    "closes its output and fails": Case((sys.executable, "-c", CLOSES.format(5)), 5, 1000),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_decides_what_becomes_of_its_bytes(begin, case):
    fire = begin()
    fire.network.fate = chaos(random.Random(SEED), MIB)
    decides(fire, CASES[case])


def decides(fire: Fire, case: Case) -> None:
    fire.push.start(fire.url, "--", *case.command)
    assert fire.push.ends() == case.code
    if case.code == 0:
        fire.is_whole(bytes(case.size))
        return
    kept = [upload for upload in fire.server.uploads(KEY) if upload["received"]]
    assert [(upload["state"], upload["received"]) for upload in kept] == [("open", case.size)]
    assert fire.stored() is None
    assert kept[0]["id"] in fire.push.errors  # how to go on
    assert fire.push.children() == []


def test_what_a_failed_command_wrote_is_cancelled_when_that_is_said(begin, tmp_path):
    """Also when the server cannot be reached just then."""
    fire, go = begin(), tmp_path / "go"
    command = f"{WRITES}; head -c {9 * MIB} /dev/zero; while [ ! -e {go} ]; do sleep 0.05; done; exit 3"
    fire.push.start(fire.url, "--on-failure", "cancel", "--", "sh", "-c", command)
    until(lambda: durable(fire.server) == 12 * MIB, what="all of it")
    with fire.network.refusing():
        go.touch()
        time.sleep(1)  # real time, in which it tries
        assert fire.push.process.poll() is None
    assert fire.push.ends() == 3
    assert fire.stored() is None
    fire.nothing_is_left()


# -- what is held back ----------------------------------------------------------------------------------------------

BASE_BYTES = 64 * MIB
"""Resident of a client that sends a few bytes: the interpreter, aiohttp, TLS, checksums (50 MiB), and some air."""

PIECES_BYTES = 16 * MIB
"""Beside the backlog: a pipe's MiB, pieces that were read of a file again, and what aiohttp and the kernel hold."""

FILE_BYTES = 96 * MIB
"""Of the backlog: more than its memory, so that it would be seen if that were held in memory, too."""

TOO_MUCH = MEMORY_BYTES + FILE_BYTES + 16 * MIB
"""The producer has to wait with the last of it."""


def test_a_producer_ten_times_faster_than_the_network_meets_bounds(begin, tmp_path):
    meets_bounds(begin(), written(tmp_path / "source", TOO_MUCH))


def meets_bounds(fire: Fire, source: Path) -> None:
    """Memory first, then a file, then the producer waits; and when the network is fast, all of it goes away."""
    fire.network.rate = 2 * MIB
    with cat(source) as producer:
        process = fire.push.start("-", fire.url, f"--backlog-size={FILE_BYTES >> 20}MiB", stdin=producer.stdout)
        until(lambda: fire.push.held() > FILE_BYTES - MIB, what="a full backlog")
        began = fire.network.bodies
        most = peak = 0
        until(lambda: fire.network.bodies > began, what="progress")
        for _ in range(40):
            time.sleep(0.05)  # real time, in which it must not grow
            most = max(most, fire.push.held())
        assert producer.poll() is None
        assert most <= FILE_BYTES + MIB
        fire.network.rate = None
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # it has just ended
                peak = max(peak, fire.push.peak())
            time.sleep(0.02)
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
    sys.stdout.write(f"--- at its peak it had {peak / MIB:.0f} MiB in memory and {most / MIB:.0f} MiB on the disk\n")
    assert peak < BASE_BYTES + MEMORY_BYTES + PIECES_BYTES
    fire.is_whole(source.read_bytes())


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place]
    if (done := subprocess.run(mount, capture_output=True, check=False)).returncode:
        pytest.skip(f"this machine forbids to mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_temporary_disk_makes_the_producer_wait(begin, source):
    fire, size = begin(), 8 * MIB
    fire.network.rate = 2 * MIB
    with small_disk(fire.push.temporary, size), cat(source) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        until(lambda: fire.push.held() > size - MIB, what="a full disk")
        began = fire.network.bodies
        until(lambda: fire.network.bodies > began + MIB, what="a MiB more")
        fire.network.reset_all()
        until(lambda: fire.network.bodies > began + 3 * MIB, what="and two MiB more")
        assert producer.poll() is None
        fire.network.rate = None
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
        fire.is_whole(source.read_bytes())
    assert "No space left" in fire.push.errors


SILENCES = {
    "before the first answer": Fate("die", "down", 0),
    "in the middle of a body": Fate("die", "up", 3 * MIB),
}


@pytest.mark.parametrize("silence", SILENCES)
def test_a_connection_that_dies_silently_is_given_up(begin, tmp_path, silence):
    gives_up(begin(program=HURRIED), written(tmp_path / "source", 8 * MIB), SILENCES[silence])


def gives_up(fire: Fire, source: Path, fate: Fate, seconds: float = ENDS_WITHIN) -> None:
    """Half open for ever: no FIN, no RST, and nothing passes."""
    fire.network.fate = lambda number: fate if number == 0 else None
    with cat(source) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        assert fire.push.ends(seconds) == 0
        assert producer.wait(5) == 0
    assert fire.network.did[f"die {fate.way}"] == 1
    fire.is_whole(source.read_bytes())


def test_a_cable_is_pulled_and_plugged_in_again(begin, source):
    """All connections die at once, that of the events, too; new ones wait as long as the cable is out."""
    fire = begin(program=HURRIED)
    fire.network.rate = 20 * MIB
    with cat(source) as producer:
        fire.push.start("-", fire.url, stdin=producer.stdout)
        for more in (5 * MIB, 10 * MIB):
            until(lambda more=more: fire.network.bodies > more, what="some bytes")
            with fire.network.unplugged():
                time.sleep(3)  # real time: longer than it takes to notice
        fire.network.rate = None
        assert fire.push.ends() == 0
        assert producer.wait(5) == 0
    fire.is_whole(source.read_bytes())


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Path:
    return written(tmp_path / "recording.bin", 40 * MIB)


IN_FLIGHT_BYTES = 512 << 10
"""What a kill may cost: bytes that had passed and were not received, in the buffers of sockets on the way."""


def nobody_writes(server: Server) -> bool:
    return not [upload for upload in server.uploads(KEY) if upload["writer"]]


def test_a_client_of_a_file_is_killed_and_started_again(begin, file):
    """At random moments, while it sends and while it starts. What was durable when it was killed is not sent again."""
    fire, numbers = begin(), random.Random(SEED)
    fire.network.rate = 8 * MIB
    kills = interrupted = 0
    for early in [False] * 6 + [True] * 4:
        begun, reached, target = len(fire.network.requests), durable(fire.server), numbers.randrange(3 * MIB)
        process = fire.push.start(file, fire.url)
        if early:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(numbers.uniform(0.1, 0.6))
        else:
            target += fire.network.bodies
            until(lambda target=target: fire.network.bodies > target, what="some bytes")
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
        until(lambda: nobody_writes(fire.server), what="the end of its writer")
        offsets = [offset for offset, _ in fire.network.appends(begun)]
        assert all(offset >= reached for offset in offsets), (reached, offsets)
        interrupted += bool(offsets)
    assert interrupted >= 6
    fire.push.start(file, fire.url)
    assert fire.push.ends() == 0
    twice = fire.network.bodies - file.stat().st_size
    sys.stdout.write(f"--- {kills} kills, {twice} bytes sent twice\n")
    assert twice <= kills * IN_FLIGHT_BYTES
    fire.is_whole(file.read_bytes())


def test_a_file_through_kills_of_its_server_and_a_bad_network(begin, file):
    fire = begin()
    fire.network.fate = chaos(random.Random(SEED + 2), 4 * MIB)
    fire.network.rate = 8 * MIB
    fire.push.start(file, fire.url)
    until(lambda: fire.network.bodies, what="a first byte")  # a server that was never there is not waited for
    killer = Killer(fire, random.Random(SEED + 2))
    while killer.kills < 2:
        killer.strike()
    fire.network.rate = None
    assert fire.push.ends() == 0
    fire.is_whole(file.read_bytes())


def test_a_file_that_changed_in_between_is_refused(begin, file):
    """In a part that is stored already, with its size and times as they were."""
    fire = begin()
    fire.network.rate = 20 * MIB
    before = file.stat()
    process = fire.push.start(file, fire.url)
    until(lambda: fire.network.bodies > 2 * PART, what="two parts")
    process.kill()
    process.wait()
    until(lambda: nobody_writes(fire.server), what="the end of its writer")
    with file.open("r+b") as changed:
        changed.seek(PART + 1000)
        byte = changed.read(1)
        changed.seek(PART + 1000)
        changed.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    sent = fire.network.bodies
    fire.push.start(file, fire.url)
    assert fire.push.ends() == 1
    assert "changed" in fire.push.errors
    assert fire.network.bodies == sent
    assert fire.stored() is None


def test_several_clients_of_one_file_do_not_harm_each_other(begin, file, tmp_path):
    """A second one of the same user is refused, and sends nothing; one on another machine has an upload of its own."""
    fire = begin()
    elsewhere = Push(tmp_path / "elsewhere")
    fire.network.rate = 8 * MIB
    first = fire.push.start(file, fire.url)
    until(lambda: fire.network.bodies > MIB, what="some bytes")
    fire.push.start(file, fire.url)
    other = elsewhere.start(file, fire.url)
    assert fire.push.ends() == 3
    assert "already" in fire.push.errors
    until(lambda: len(fire.server.uploads(KEY)) == 2, what="two uploads")
    fire.network.rate = None
    assert [first.wait(ENDS_WITHIN), other.wait(ENDS_WITHIN)] == [0, 0]
    assert fire.network.bodies == 2 * file.stat().st_size
    fire.is_whole(file.read_bytes())


# -- bugs that must be noticed --------------------------------------------------------------------------------------

Scenario = Callable[[Fire, Path], None]

NOTICED: dict[str, Scenario] = {
    "releases_what_was_sent": lambda fire, path: through_resets(fire, written(path / "source", 10 * MIB)),
    "goes_on_where_it_was": lambda fire, path: through_resets(fire, written(path / "source", 10 * MIB)),
    "believes_an_offset_that_fell": lost_what_was_announced,
    "completes_whatever_the_command_says": lambda fire, _: decides(fire, CASES["fails"]),
    "does_not_wait_for_the_command": lambda fire, _: decides(fire, CASES["closes its output and fails"]),
    "knows_no_bound": lambda fire, path: meets_bounds(fire, written(path / "source", TOO_MUCH)),
    "keeps_in_memory_what_is_in_files": lambda fire, path: meets_bounds(fire, written(path / "source", TOO_MUCH)),
    "leaves_its_files": lambda fire, path: meets_bounds(fire, written(path / "source", TOO_MUCH)),
    "in_a_hurry,waits_for_ever": lambda fire, path: gives_up(
        fire, written(path / "source", 8 * MIB), SILENCES["in the middle of a body"], 8
    ),
}


def test_connections_that_break_after_each_mib(begin, tmp_path):
    through_resets(begin(), written(tmp_path / "source", 10 * MIB))


@pytest.mark.parametrize("bug", NOTICED)
def test_a_planted_bug_is_noticed(begin, tmp_path, bug):
    with pytest.raises((AssertionError, pytest.fail.Exception)) as noticed:
        NOTICED[bug](begin(program=(PLANTED, bug)), tmp_path)
    sys.stdout.write(f"--- {noticed.value}\n")
