"""The disk under a running server is full, breaks, becomes read-only, goes away; state is damaged; descriptors run out;
the clock is set.

Scene after scene: a real server, a real store, clients that send slowly and remember what they were told, and one
thing that goes wrong and is mended. Meanwhile whoever cannot be served must be told so in words, readiness must say it,
and what can wait must wait. Afterwards the clients do what the README tells them (HEAD, and go on from there), and the
store must hold exactly what they sent. An upload may fail only for a disk that has lost bytes, and then with its
reason.

The faults are real where they can be: a tmpfs or an ext4 that somebody else fills, a kernel that gives up a file
system, `prlimit`. The others are answers of the kernel that strace puts in place of its own, for one path only.
What happens when is real time, so a seed replays the choices and not the microseconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import resuming
from figures import Figures
from invariants import Broken, Invariant
from killing import LIVE, program
from process import CURL, MIB, Answer, Bucket, Fresh, Server, bucket_at, content, digest, prefix_of
from resuming import AGAIN, GONE
from weed import Weed, weed_in

from campaigns import Size

PIECE = 40_000
"""What a client sends at once, before it waits a moment."""

ENDS_WITHIN = 40.0
"""Seconds from the end of a fault to the last object. An upload that was read again waits up to 30 s for its turn."""

TOLD_WITHIN = 4.0
"""Seconds until readiness says that something is wrong, or that nothing is any more: an answer is kept for one."""

IDLE_CPU = 0.25
"""Of one processor, while everybody waits. A loop that is busy takes all of it."""


class ForbiddenHereError(Exception):
    """What this machine does not let us do; the message says which."""


# -- clients ---------------------------------------------------------------------------------------------------------


@dataclass
class Sending(resuming.Sending):
    """... and how often it could not be served.

    `lost`: the reasons for which uploads of it have failed; after each its client has begun anew. `cut`: how its
    connections were.
    """

    lost: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    cut_off: list[str] = field(default_factory=list)

    @property
    def met(self) -> list[object]:
        """How often and how it could not be served."""
        return [*self.refused.elements(), *self.cut_off]

    def attempt(self, method: str, headers: Mapping[str, str], body: Any = b"") -> None:
        """One request about the object, whatever becomes of it."""
        with contextlib.suppress(*GONE):
            self.ask(method, f"/objects/{self.key}", headers, body)

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
        try:
            answer = self.server.ask(method, path, headers, body, seconds=20)
        except GONE as error:
            self.cut_off.append(repr(error))
            raise
        if answer.status >= 400 and answer.status != 404:
            self.refused[answer.status] += 1
            if answer.status == 500 or (method != "HEAD" and not answer.json().get("detail")):
                raise Broken(Invariant.SAID, f"{method} {self.key}: {answer.status} {answer.body!r}")
        return answer

    def gone(self, why: str) -> None:
        """It has failed, and there is a reason. Its client begins anew."""
        reason = next((u["reason"] for u in self.server.uploads(self.key) if u["state"] == "failed"), None)
        if reason is None:
            super().gone(why)
        self.lost.append(reason)
        self.announced = 0

    def send_slowly(self, hurry: threading.Event) -> None:
        """Until it is stored. Slowly at first (real time: something is to go wrong meanwhile), then in a `hurry`."""

        def pieces(offset: int) -> Iterator[bytes]:
            for start in range(offset, self.size, PIECE):
                yield self.data[start : start + PIECE]
                hurry.wait(0.01)

        def rest(_: resuming.Sending, offset: int) -> None:
            where = {"Content-Range": f"bytes {offset}-{self.size - 1}/{self.size}"}
            self.ask("PUT", f"/objects/{self.key}", where, pieces(offset), 201)

        while not self.stored:
            with contextlib.suppress(*AGAIN):
                self.go_on(rest)
                continue
            hurry.wait(0.05)
            time.sleep(0.02)  # other processes: they can only be asked again


def ask_now_and_then(sending: Sending, hurry: threading.Event, rng: random.Random) -> None:
    """Somebody else, who makes what arrives durable by asking how far it is."""
    while not sending.stored and not hurry.wait(rng.uniform(0.05, 0.3)):
        sending.attempt("HEAD", {})


@dataclass
class Pipe:
    """What a live stream is to most people: `curl -T -`, fed slowly. It cannot go on after anything."""

    sending: Sending
    process: subprocess.Popen[bytes] | None = None

    def send(self, hurry: threading.Event) -> None:
        url = self.sending.server.object(self.sending.key)
        command = [CURL, "-q", "-sS", "--fail-with-body", "-T", "-", url]
        self.process = subprocess.Popen(command, bufsize=0, stdin=-1, stdout=-1, stderr=-1)
        with self.process as curl:
            with contextlib.suppress(BrokenPipeError):
                for start in range(0, len(self.sending.data), PIECE):
                    piece = memoryview(self.sending.data)[start : start + PIECE]
                    while piece:
                        piece = piece[curl.stdin.write(piece) :]
                    hurry.wait(0.01)
            curl.stdin.close()
            curl.stdin = None
            out, err = curl.communicate(timeout=120)
        if curl.returncode:
            raise Broken(Invariant.SAID, f"a live stream that could wait was cut: {out!r} {err!r}")
        self.sending.stored = True

    def kill(self) -> None:
        if self.process:
            self.process.kill()


@dataclass
class Camera(Pipe):
    """ffmpeg in real time, which reads no answer. What it sends goes into a file of its own as well."""

    local: Path = Path()

    def __post_init__(self) -> None:
        self.sending.data = bytes(100 * MIB)  # until it has ended nobody knows how much it is, but it is less

    def send(self, _: threading.Event) -> None:
        to = f"[f=mpegts]{self.local}|[f=mpegts:method=PUT]{self.sending.server.object(self.sending.key)}"
        noise = ("-re", "-f", "lavfi", "-i", "nullsrc=size=320x180:rate=25,noise=alls=100:allf=t", "-t", "3")
        coded = ("-c:v", "mpeg2video", "-q:v", "2", "-map", "0:v", "-f", "tee", to)
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        self.process = subprocess.Popen([ffmpeg, "-nostdin", "-v", "error", *noise, *coded], stderr=-1)
        with self.process as process:
            _, err = process.communicate(timeout=120)
        if process.returncode or err:
            raise Broken(Invariant.SAID, f"a live stream that could wait was cut: {err!r}")
        self.sending.data = self.local.read_bytes()
        self.sending.stored = True


# -- scenes ----------------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What all scenes have: a bucket, a directory, chance, figures, and what is mounted and runs."""

    bucket: Bucket
    directory: Path
    rng: random.Random
    figures: Figures
    program: tuple[str, ...]
    undo: contextlib.ExitStack
    scenes: int = 0

    @contextlib.contextmanager
    def scene(self) -> Iterator[Stage]:
        """One that leaves no mounts and no processes behind, whatever happens in it."""
        self.scenes += 1
        place = self.directory / f"scene-{self.scenes}"
        place.mkdir()
        with contextlib.ExitStack() as undo:
            yield Stage(self.bucket, place, random.Random(self.rng.random()), self.figures, self.program, undo)

    def server(self, *options: str, data: Path | None = None) -> Server:
        fresh = Fresh(self.bucket, self.directory)
        server = fresh("--disk-floor=0", *options, program=self.program, data=data)
        self.undo.callback(server.kill)
        return server

    def mount(self, place: Path, *options: str) -> Path:
        place.mkdir(exist_ok=True, parents=True)
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ForbiddenHereError(f"this machine does not let us mount: {done.stderr.strip()}")
        self.undo.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        return place

    def tmpfs(self, place: Path, mib: int) -> Path:
        return self.mount(place, "-t", "tmpfs", "-o", f"size={mib}m", "none")

    def ext4(self, place: Path, mib: int, *options: str) -> Path:
        """On a loop device. No block is kept for root."""
        image = place.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        words = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        subprocess.run(["mkfs.ext4", *words], check=True, capture_output=True, env=_with_sbin())
        try:
            return self.mount(place, "-t", "ext4", "-o", ",".join(["loop", *options]), str(image))
        except ForbiddenHereError as error:
            raise ForbiddenHereError(f"no loop device: {error}") from error

    def sending(self, server: Server, name: str, least: int = 300_000, most: int = 3 * MIB) -> Sending:
        data = content(self.rng.randint(least, most), self.rng.getrandbits(32))
        self.figures.count("uploads")
        return Sending(server, name, data)


@contextlib.contextmanager
def clients(*sends: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """They send beside what is done in here, must come to an end after it, and raise here what they meet."""
    hurry, met = threading.Event(), list[BaseException]()

    def run(send: Callable[[threading.Event], None]) -> None:
        try:
            send(hurry)
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody looks
            met.append(error)

    threads = [threading.Thread(target=run, args=(send,), daemon=True) for send in sends]
    for thread in threads:
        thread.start()
    try:
        yield hurry
        hurry.set()
        deadline = time.monotonic() + ENDS_WITHIN
        for thread in threads:
            while thread.is_alive() and not met and time.monotonic() < deadline:
                thread.join(0.05)
    finally:
        hurry.set()
    if met:
        raise met[0]
    if any(thread.is_alive() for thread in threads):
        raise Broken(Invariant.ENDS, f"a client has not come to an end in {ENDS_WITHIN:g} s after the fault")


def wait_until(condition: Callable[[], Any], seconds: float, invariant: Invariant, what: Callable[[], object]) -> Any:
    """The first true value of `condition`; `what` says what is there instead."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Broken(invariant, f"after {seconds:g} s it is still: {what()}")
        time.sleep(0.02)
    return value


def readiness(server: Server) -> tuple[int, str]:
    """What a probe is told."""
    try:
        answer = server.ask_admin("/readyz")
    except GONE:
        return 0, "nobody answers"
    return answer.status, answer.body.decode()


def require_told(server: Server, *words: str) -> None:
    """Readiness says that no upload can be taken, in one of these words."""

    def told() -> bool:
        status, text = readiness(server)
        return status == 503 and any(word in text for word in words)

    wait_until(told, TOLD_WITHIN, Invariant.SAID, lambda: f"{readiness(server)}, and not 503 for {' or '.join(words)}")


def require_refused(server: Server, key: str, **headers: str) -> None:
    """A newcomer is refused at the door, in a sentence, with a status that makes nobody send half a body."""
    answer = server.ask("PUT", f"/objects/{key}", headers, b"x" * 1000, seconds=20)
    if answer.status not in {503, 507} or not answer.json().get("detail"):
        raise Broken(Invariant.SAID, f"a newcomer is told {answer.status} {answer.body!r}")


def open_files(server: Server) -> list[str]:
    """What the process has open, but for sockets: those to the store are kept for a while."""
    found = list[str]()
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return sorted(name for name in found if not name.startswith("socket:"))


def check(stage: Stage, server: Server, *sendings: Sending, files: list[str] | None = None) -> None:
    """At the end: objects are what was sent, nothing is left over, nothing has happened that nobody thought of."""
    wait_until(lambda: readiness(server)[0] == 200, ENDS_WITHIN, Invariant.ENDS, lambda: readiness(server))

    def unfinished() -> list[str]:
        return [upload["key"] for upload in server.uploads() if upload["state"] in LIVE]

    wait_until(lambda: not unfinished(), ENDS_WITHIN, Invariant.ENDS, unfinished)
    wait_until(lambda: not server.spooled(), 5, Invariant.NOTHING_LEFT, server.spooled)
    for sending in sendings:
        if digest(stage.bucket.read(prefix_of(server) + sending.key)) != digest(sending.data):
            raise Broken(Invariant.CLEAN_END, f"{sending.key} is not what was sent")
        stage.figures.count("offsets announced", sending.announcements)
        stage.figures.count("refusals that were told", sending.refused.total())
    if left := stage.bucket.multiparts(prefix_of(server)):
        raise Broken(Invariant.NOTHING_LEFT, f"multipart uploads of {left}")
    if files is not None:
        wait_until(lambda: open_files(server) == files, 5, Invariant.NOTHING_LEFT, lambda: open_files(server))
    no_client, gone = b"streamup_connections 0.0", Invariant.NOTHING_LEFT
    wait_until(lambda: no_client in server.ask_admin("/metrics").body, 5, gone, lambda: "a connection of a client")
    if "Traceback" in server.log:
        raise Broken(Invariant.SAID, f"a fault that nobody has thought of:\n{server.log[-3000:]}")
    stage.figures.count("scenes")


# -- a full disk -----------------------------------------------------------------------------------------------------


def fill(place: Path) -> Path:
    """Somebody else takes every block that is left."""
    path = place / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def full(stage: Stage) -> None:
    """Under the spool, the checkpoint or both, on tmpfs or ext4, with and without a floor; and free again."""
    rng = stage.rng
    which = rng.choice(["spool", "checkpoint", "both", "both"])
    kind = rng.choice([stage.tmpfs, stage.tmpfs, stage.ext4])
    floor = rng.choice([0, 2])
    place = data = kind(stage.directory / "data", 48)
    if which != "both":
        stage.tmpfs(data / "spool", 64)
    server = stage.server(f"--disk-floor={floor}MiB", data=data).start()
    before = open_files(server)
    sendings = [stage.sending(server, f"full-{n}", 2 * MIB, 8 * MIB) for n in range(3)]
    pipe = Pipe(stage.sending(server, "pipe", 4 * MIB, 12 * MIB))
    if rng.random() < 0.3:
        pipe = Camera(stage.sending(server, "camera"), local=stage.directory / "camera.ts")
        stage.figures.count("streams of ffmpeg")
    stage.undo.callback(pipe.kill)
    watching = [(lambda hurry, s=s: ask_now_and_then(s, hurry, random.Random(1))) for s in (sendings[0], pipe.sending)]
    with clients(pipe.send, *(sending.send_slowly for sending in sendings), *watching):
        wait_until(lambda: server.received(pipe.sending.key), 20, Invariant.ENDS, server.uploads)
        time.sleep(rng.uniform(0.0, 0.5))  # real time: so far they have come
        foreign = fill(data / "spool" if which == "spool" else place)
        stage.figures.count(f"disks filled ({which})")
        if which != "checkpoint":
            require_told(server, "bytes left", "disk is full")
            require_refused(server, "newcomer")
            require_refused(server, "newcomer", Expect="100-continue")
        cpu, began = server.cpu_seconds, time.monotonic()
        time.sleep(rng.uniform(0.5, 1.5))  # real time: as above
        if server.cpu_seconds - cpu > IDLE_CPU * (time.monotonic() - began) + 0.3:
            raise Broken(Invariant.BOUNDED, f"{server.cpu_seconds - cpu:.1f} CPU-s while the disk is full")
        foreign.unlink()
    check(stage, server, *sendings, pipe.sending, files=before)
    for sending in (*sendings, pipe.sending):
        if sending.lost:
            raise Broken(Invariant.OFFSET, f"{sending.key} has failed on a full disk: {sending.lost}")
        if sending.cut_off:
            raise Broken(Invariant.SAID, f"{sending.key} was cut without a word on a full disk: {sending.cut_off}")


# -- a disk that breaks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A system call on the part file (`part`), the directory of the spool or the checkpoint's files, answered with one
    of these errors; and what may come of it: the upload `fails`, `waits`, or is `kept` for who goes on with it.
    """

    call: str
    where: str
    errors: tuple[str, ...]
    outcome: str
    most: int = 1
    """How many times one after another (in each thread: strace counts there)."""


FAULTS = (
    Fault("write", "part", ("EIO",), "fails"),
    Fault("write", "part", ("ENOSPC", "EDQUOT", "EROFS"), "waits", 3),
    Fault("openat", "part", ("EMFILE", "ENFILE"), "waits"),
    Fault("openat", "part", ("EIO",), "fails"),
    Fault("fdatasync", "part", ("EIO", "ENOSPC", "EDQUOT", "EROFS"), "fails"),
    Fault("fsync", "spool", ("EIO", "ENOSPC"), "fails"),
    Fault("pread64", "part", ("EIO",), "fails"),
    Fault("unlink", "part", ("EIO", "EROFS"), "waits"),
    Fault("pwrite64", "checkpoint", ("EIO", "ENOSPC", "EDQUOT", "EROFS"), "kept", 2),
    Fault("fdatasync", "checkpoint", ("EIO", "ENOSPC"), "kept"),
)


def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        raise ForbiddenHereError("strace is not installed")
    return found


@contextlib.contextmanager
def injected(pid: int, rule: str, record: Path, *paths: Path) -> Iterator[None]:
    """Let strace answer for the kernel by this rule (`CALL:error=E:when=N`), on these paths only. Each call is written
    down in the `record`.
    """
    command = [
        *(strace(), "-f", "-qq", "-p", str(pid), "-o", str(record), "-e", f"trace={rule.partition(':')[0]}"),
        *("-e", f"inject={rule}", *(word for path in paths for word in ("-P", str(path)))),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not _traced(pid):
                if process.poll() is not None:
                    raise ForbiddenHereError(f"this machine forbids ptrace: {process.stderr.read()}")
                time.sleep(0.01)
            yield
        finally:
            process.terminate()


def _traced(pid: int) -> bool:
    """Whether every thread of it is."""
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def broken(stage: Stage) -> None:
    """One server, and one fault after another on one of its uploads, while another upload goes on beside it."""
    server = stage.server("--expire=60s").start()
    sendings = list[Sending]()
    for number, fault in enumerate(stage.rng.sample(FAULTS, len(FAULTS))):
        for error in fault.errors if stage.figures.size is Size.RELEASE else [stage.rng.choice(fault.errors)]:
            sendings += break_once(stage, server, fault, error, f"{number}-{fault.call}-{fault.where}-{error}")
    server.stop()
    server.start()  # what could not be removed goes now at the latest
    check(stage, server, *sendings)


def break_once(stage: Stage, server: Server, fault: Fault, error: str, name: str) -> list[Sending]:
    """Appends, each of which is made durable; from a moment on the n-th call fails. Then go on as a client would."""
    sending, others = stage.sending(server, name, 400_000, 600_000), list[Sending]()
    if fault.where != "spool":  # which is everybody's: whose sync of it fails would be chance
        others.append(stage.sending(server, f"{name}-beside"))
    third = len(sending.data) // 3
    sending.attempt("PUT", {"Content-Range": f"bytes 0-{third - 1}/*"}, sending.data[:third])
    upload_id = server.open_upload(name)["id"]
    spool, nth = server.data / "spool", 1
    paths = {
        "part": [spool / f"{upload_id}.1"],
        "spool": [spool],
        "checkpoint": [server.data / "checkpoint.sqlite", server.data / "checkpoint.sqlite-wal"],
    }[fault.where]
    if fault.where == "part" and fault.call in {"write", "fdatasync"}:
        nth = stage.rng.randint(1, 2)
    with clients(*(beside.send_slowly for beside in others)):
        if fault.where == "spool":  # its names are synced once: a restart does not know that they were
            server.kill()
            server.start()
        record = stage.directory / f"strace-{name}"
        with injected(server.pid, f"{fault.call}:error={error}:when={nth}..{nth + fault.most - 1}", record, *paths):
            more = {"Content-Range": f"bytes {third}-{2 * third - 1}/*"}
            sending.attempt("PUT", more, sending.data[third : 2 * third])
            sending.send_slowly(threading.Event())
        hits = record.read_text().count("INJECTED")
    stage.figures.count(f"injected into {fault.call} ({fault.where})", hits)
    if not hits:
        raise AssertionError(f"{fault} with {error} has not come about")
    found = server.ask("GET", f"/uploads/{upload_id}").json()
    state = found["state"]
    if fault.outcome == "fails" and (state != "failed" or os.strerror(getattr(errno, error)) not in found["reason"]):
        raise Broken(Invariant.FAIL_CLOSED, f"{fault.call} of {fault.where}: {error}, and {name} is {found}")
    if fault.outcome != "fails" and state != "complete":
        raise Broken(Invariant.OFFSET, f"{fault.call} of {fault.where}: {error}, and {name} is {found}")
    if fault.outcome == "waits" and sending.met:
        raise Broken(Invariant.SAID, f"{fault.call} of {fault.where}: {error}, and {name} met {sending.met}")
    for beside in others:
        if beside.lost or (fault.where == "part" and beside.met):
            raise Broken(Invariant.ENDS, f"what was sent beside {name} met {beside.met}, {beside.lost}")
    return [sending, *others]


# -- a disk that is read-only, or goes away ---------------------------------------------------------------------------


def give_up(place: Path) -> None:
    """Let the kernel find an error in this ext4."""
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", str(place)], text=True).strip()
    try:
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("as the campaign wants it")
    except OSError as error:
        raise ForbiddenHereError(f"this machine lets us break no ext4: {error}") from error


def read_only(stage: Stage) -> None:
    """The kernel gives up an ext4 after an error (`errors=remount-ro`): it is mounted again after a check."""
    place = stage.ext4(stage.directory / "data", 64, "errors=remount-ro")
    server = stage.server(data=place).start()
    sendings = [stage.sending(server, f"read-only-{n}", 2 * MIB, 6 * MIB) for n in range(2)]
    with clients(*(s.send_slowly for s in sendings), lambda h: ask_now_and_then(sendings[0], h, random.Random(1))):
        time.sleep(stage.rng.uniform(0.1, 0.6))  # real time: so far they have come
        give_up(place)
        stage.figures.count("file systems given up by the kernel")
        require_told(server, "Read-only file system", "disk I/O error", "readonly")
        require_refused(server, "newcomer")
        server.process.terminate()
        if server.process.wait(60) != 0:
            raise Broken(Invariant.SAID, f"a server on a read-only disk does not end well:\n{server.log[-2000:]}")
        server.process = None
        subprocess.run(["umount", str(place)], check=True)
        image = place.with_suffix(".image")
        subprocess.run(["e2fsck", "-fy", str(image)], check=False, capture_output=True, env=_with_sbin())
        subprocess.run(["mount", "-t", "ext4", "-o", "loop", str(image), str(place)], check=True)
        server.start()
    check(stage, server, *sendings)
    for sending in sendings:
        if sending.lost:
            raise Broken(Invariant.OFFSET, f"{sending.key} has failed with its file system: {sending.lost}")


def remounted(stage: Stage) -> None:
    """An administrator makes the spool's mount read-only, and writable again (between parts: else it is refused)."""
    data = stage.directory / "data"
    spool = stage.tmpfs(data / "spool", 64)
    server = stage.server(data=data).start()
    sendings = [stage.sending(server, f"remounted-{n}") for n in range(3)]
    for sending in sendings:
        sending.attempt("PUT", {"Upload-Complete": "?0"}, sending.data[: len(sending.data) // 2])
    subprocess.run(["mount", "-o", "remount,ro", str(spool)], check=True)
    stage.figures.count("mounts made read-only")
    require_told(server, "Read-only file system")
    require_refused(server, "newcomer")
    with clients(*(sending.send_slowly for sending in sendings)):
        time.sleep(stage.rng.uniform(0.2, 0.8))  # real time: they meet it
        subprocess.run(["mount", "-o", "remount,rw", str(spool)], check=True)
    check(stage, server, *sendings)
    for sending in sendings:
        if sending.lost or sending.met:
            raise Broken(Invariant.OFFSET, f"{sending.key}: {sending.lost} {sending.met} on a read-only disk")


def gone(stage: Stage) -> None:
    """The spool, or a part file, is taken away. What was announced with it is lost, and that is said, not hidden."""
    server = stage.server().start()
    spool, away = server.data / "spool", server.data / "away"
    kept, lost = stage.sending(server, "kept"), stage.sending(server, "lost", 400_000, 900_000)
    half = len(lost.data) // 2
    for sending in (kept, lost):
        sending.attempt("PUT", {"Upload-Complete": "?0"}, sending.data[: len(sending.data) // 2])
    upload_id = server.open_upload("lost")["id"]
    spool.rename(away)
    require_told(server, "No such file")
    require_refused(server, "newcomer")
    if server.ask_admin("/metrics").status != 200:
        raise Broken(Invariant.SAID, "no metrics without a spool")
    away.rename(spool)
    with clients(kept.send_slowly):

        def pieces() -> Iterator[bytes]:
            yield lost.data[half : half + 50_000]
            wait_until(lambda: server.received("lost") > half, 10, Invariant.ENDS, lambda: server.uploads("lost"))
            (spool / f"{upload_id}.1").unlink()
            time.sleep(1.2)  # real time: a stream is synced for those who ask at most once a second
            lost.attempt("HEAD", {})
            if lost.announced > half:
                raise Broken(Invariant.FAIL_CLOSED, f"{lost.announced} bytes were announced, their file was gone")
            yield lost.data[half + 50_000 :]

        lost.attempt("PUT", {"Content-Range": f"bytes {half}-{len(lost.data) - 1}/{len(lost.data)}"}, pieces())
        stage.figures.count("files and directories taken away", 2)
        lost.send_slowly(threading.Event())
    state = server.ask("GET", f"/uploads/{upload_id}").json()["state"]
    if state != "failed":
        raise Broken(Invariant.FAIL_CLOSED, f"the file of an upload was gone, and it is {state}")
    check(stage, server, kept, lost)


# -- descriptors -----------------------------------------------------------------------------------------------------


def descriptors(stage: Stage) -> None:
    """More clients than the process may open files for: who is not let in waits, and who is inside loses nothing."""
    rng = stage.rng
    server = stage.server().start()
    sendings = [stage.sending(server, f"crowd-{n}", 100_000, 1 * MIB) for n in range(24)]
    before = open_files(server)
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    with clients(*(sending.send_slowly for sending in sendings)):
        time.sleep(rng.uniform(0.0, 0.1))  # real time: so far they have come
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.descriptors + rng.randint(-5, 10), limit[1]))
        stage.figures.count("processes without descriptors")
        time.sleep(1)  # real time: whatever can go on has gone on
        cpu, began = server.cpu_seconds, time.monotonic()
        time.sleep(1.5)  # real time: all wait
        if server.cpu_seconds - cpu > IDLE_CPU * (time.monotonic() - began) + 0.3:
            raise Broken(Invariant.BOUNDED, f"{server.cpu_seconds - cpu:.1f} CPU-s while there are no descriptors")
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limit)
    check(stage, server, *sendings, files=before)
    for sending in sendings:
        if sending.lost:
            raise Broken(Invariant.OFFSET, f"{sending.key} has failed for want of descriptors: {sending.lost}")


# -- a clock that is set ---------------------------------------------------------------------------------------------

CLOCK = """
import os, runpy, sys, time

real = time.time

def set_by_somebody():
    with open({path!r}) as file:
        return real() + float(file.read())

time.time = set_by_somebody
kind, *rest = {program!r}
if kind == "-m":
    runpy.run_module(*rest, run_name="__main__", alter_sys=True)
else:
    sys.argv[1:1] = rest
    sys.path.insert(0, os.path.dirname(kind))
    runpy.run_path(kind, run_name="__main__")
"""
"""A program whose wall clock is as many seconds ahead as a file says."""


def clock(stage: Stage) -> None:
    """The wall clock is set by hours, back or forth, under streams, idle uploads and newcomers."""
    ahead = stage.directory / "ahead"

    def set_clock(seconds: int) -> None:
        new = ahead.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(ahead)

    set_clock(0)
    server = stage.server("--expire=30m", "--max-age=6h")
    server.program = ("-c", CLOCK.format(path=str(ahead), program=stage.program))
    server.start()
    idle, sending = stage.sending(server, "idle"), stage.sending(server, "sending")
    pipe = Pipe(stage.sending(server, "pipe", 6 * MIB, 8 * MIB))
    stage.undo.callback(pipe.kill)
    half = len(idle.data) // 2
    idle.attempt("PUT", {"Upload-Complete": "?0"}, idle.data[:half])
    with clients(pipe.send, sending.send_slowly, lambda hurry: ask_now_and_then(pipe.sending, hurry, random.Random(1))):
        for seconds in (stage.rng.randint(-20_000, -1000), stage.rng.randint(100, 1500)):
            wait_until(lambda: server.received("pipe"), 10, Invariant.ENDS, lambda: server.uploads("pipe"))
            set_clock(seconds)
            stage.figures.count("clocks set")
            began = time.monotonic()
            answer = server.ask("PUT", "/objects/pipe", {}, b"another", seconds=20)
            if answer.status != 409 or time.monotonic() - began > TOLD_WITHIN:
                raise Broken(Invariant.SAID, f"{answer.status} after {time.monotonic() - began:.1f} s")
    idle.send_slowly(threading.Event())
    check(stage, server, idle, sending, pipe.sending)
    if idle.lost:
        raise Broken(Invariant.OFFSET, f"an upload was given up before its time: {idle.lost}")


# -- a state directory that is not as it was left -------------------------------------------------------------------


def _merged(checkpoint: Path) -> None:
    """All of it in one file."""
    with contextlib.closing(sqlite3.connect(checkpoint)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def _flip(checkpoint: Path, rng: random.Random) -> None:
    _merged(checkpoint)
    raw = bytearray(checkpoint.read_bytes())
    for _ in range(400):
        raw[rng.randrange(100, len(raw))] ^= 1 << rng.randrange(8)
    checkpoint.write_bytes(raw)


def _without_wal(checkpoint: Path, _: random.Random) -> None:
    checkpoint.with_name(f"{checkpoint.name}-wal").unlink()


def _emptied(checkpoint: Path, rng: random.Random) -> None:
    checkpoint.write_bytes(b"")
    _without_wal(checkpoint, rng)


def _missing(checkpoint: Path, rng: random.Random) -> None:
    checkpoint.unlink()
    _without_wal(checkpoint, rng)


def _truncated(checkpoint: Path, rng: random.Random) -> None:
    _merged(checkpoint)
    os.truncate(checkpoint, rng.randrange(4096, checkpoint.stat().st_size // 4096 * 4096, 4096))


def _zeroed(checkpoint: Path, _: random.Random) -> None:
    _merged(checkpoint)
    _overwrite(checkpoint, 4096, bytes(checkpoint.stat().st_size - 4096))


def _no_database(checkpoint: Path, _: random.Random) -> None:
    _merged(checkpoint)
    _overwrite(checkpoint, 0, b"something else!!")


def _a_directory(checkpoint: Path, rng: random.Random) -> None:
    _missing(checkpoint, rng)
    checkpoint.mkdir()


DAMAGES = (_flip, _without_wal, _emptied, _missing, _truncated, _zeroed, _no_database, _a_directory)


def damaged(stage: Stage) -> None:
    """A checkpoint that is not what was left is refused in words, and nothing is removed; put back, all goes on."""
    server = stage.server().start()
    sendings = [stage.sending(server, f"damaged-{n}") for n in range(2)]
    for sending in sendings:
        sending.attempt("PUT", {"Upload-Complete": "?0"}, sending.data[: len(sending.data) // 2])
    server.kill()
    (server.data / "spool" / "notes.txt").write_text("somebody else's")
    copy = stage.directory / "copy"
    shutil.copytree(server.data, copy)
    for damage in stage.rng.sample(DAMAGES, len(DAMAGES)):
        damage(server.data / "checkpoint.sqlite", stage.rng)
        stage.figures.count("damaged checkpoints")
        refused_in_words(server, damage.__name__.strip("_"))
        shutil.rmtree(server.data)
        shutil.copytree(copy, server.data)
    server.start()
    if not (server.data / "spool" / "notes.txt").exists():
        raise Broken(Invariant.INSIDE, "a stranger's file in the spool was removed")
    (server.data / "spool" / "notes.txt").unlink()
    with clients(*(sending.send_slowly for sending in sendings)):
        pass
    check(stage, server, *sendings)


def refused_in_words(server: Server, damage: str) -> None:
    """It does not start, says why and what to do, and every part file is still there."""
    files, log = sorted((server.data / "spool").iterdir()), len(server.log)
    server.spawn()
    if server.answers("/healthz"):
        said = "it has started, and nobody knows of the uploads" if not server.uploads() else "it has started"
        raise Broken(Invariant.FAIL_CLOSED, f"checkpoint {damage}: {said}")
    told = server.log[log:]
    if server.process.returncode != 1 or "Traceback" in told or not re.search("[Kk]eep a copy|Put back|Mend", told):
        raise Broken(Invariant.SAID, f"checkpoint {damage}, exit code {server.process.returncode}: {told[-2000:]}")
    server.process = None
    if files != sorted((server.data / "spool").iterdir()):
        raise Broken(Invariant.NOTHING_LEFT, f"checkpoint {damage}: part files were removed")


# -- all of it -------------------------------------------------------------------------------------------------------

SCENES: Mapping[Callable[[Stage], None], tuple[int, int]] = {
    full: (3, 40),
    broken: (1, 9),
    read_only: (1, 24),
    remounted: (1, 24),
    gone: (1, 24),
    descriptors: (1, 18),
    damaged: (1, 6),
    clock: (1, 9),
}
"""How many in CI, and before a release."""

CATCHING: Mapping[str, Callable[[Stage], None]] = {
    "a_full_disk_is_a_failure": full,
    "syncs_again_after_a_failure": broken,
    "a_missing_file_is_synced": gone,
}
"""Planted bugs, each with the scene that shows it."""

LANES = {Size.CI: 1, Size.RELEASE: 3}
"""Processes side by side: scenes wait more than they work."""


def run(
    size: Size, seed: int, planted: str | None = None, scenes: tuple[Callable[[Stage], None], ...] = tuple(SCENES)
) -> Figures:
    """Scene after scene. Raises `Broken`; and `ForbiddenHereError` where the machine does not let us."""
    if os.geteuid() != 0:
        raise ForbiddenHereError("this machine gives us no root, and so no file systems of our own")
    figures, lanes = Figures("disk faults", size, seed), LANES[size]
    played = [scene.__name__ for scene in scenes for _ in range(SCENES[scene][size is Size.RELEASE])]
    with tempfile.TemporaryDirectory() as directory, weed_in(Path(directory)) as weed:
        if lanes == 1:
            parts = [_play(weed, Path(directory), size, seed, planted, played, 0)]
        else:
            with ProcessPoolExecutor(lanes, get_context("spawn")) as pool:
                found = [
                    pool.submit(_play, weed, Path(directory), size, seed, planted, played[lane::lanes], lane)
                    for lane in range(lanes)
                ]
                parts = [future.result() for future in found]
    for counts in parts:
        for what, number in counts.items():
            figures.count(what, number)
    return figures


def _play(  # noqa: PLR0917 - the pool passes no names
    weed: Weed, directory: Path, size: Size, seed: int, planted: str | None, played: list[str], lane: int
) -> dict[str, float]:
    """These scenes one after another; what they have counted. One that fails says how it is played again."""
    again = f"python tests/campaign.py disk{' --release' * (size is Size.RELEASE)} --seed {seed}"
    os.environ.setdefault("PYTEST_XDIST_WORKER", f"gw{lane}")  # which ports are whose
    figures = Figures("", size, seed)
    with bucket_at(weed) as bucket:
        for number, name in enumerate(played):
            own = f"{seed}-{lane}-{number}"
            (directory / own).mkdir()
            stage = Stage(
                bucket, directory / own, random.Random(own), figures, program(planted), contextlib.ExitStack()
            )
            with stage.scene() as scene:
                try:
                    globals()[name](scene)
                except Broken as broken:
                    raise Broken(broken.invariant, f"{broken.what} (scene {own}, {name}: {again})") from broken
    return figures.counts


def _with_sbin() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"}
