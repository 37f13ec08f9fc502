"""The plug is pulled: what was announced is there after another boot, byte for byte.

Clients of six kinds send objects to one streamup, and remember whatever it has told them. Its state directory is on a
file system of its own (`loop_disk`). Again and again the machine loses its power, and streamup starts on what is left,
with another boot id. Then everything that anybody was told is compared with what is there, the clients go on, and when
all of them have been told that theirs is stored, the store holds exactly what they sent.

By seed, a cut comes at a random moment or at the very moment at which a client hears an announcement; after a
`kill -9`, or a stop; with the store away; in the middle of the recovery from the one before, or right after it; some of
what was not synced may have reached the disk, and what nobody was told of may be anything there (`damage`). The moments
are real time, so a seed replays the choices and not the microseconds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from damage import damage_log, damage_part_files
from figures import Figures
from invariants import Broken, Invariant
from loop_disk import LoopDisk, fast_directory, freeze, mount_alone, sync_all, sync_file, sync_range
from process import MIB, PART, Answer, Bucket, Fresh, Server, bucket_at, content, digest, free_ports, prefix_of
from weed import weed_in

from campaigns import Size
from streamup.stores.experiments import MARK

TESTS = str(Path(__file__).parent.parent)

GONE = (OSError, http.client.HTTPException)
"""What a client gets from a server whose power has failed."""

CUTS = 12
"""Of one disk and the uploads on it: long enough for uploads that live through several, short enough for many disks."""

DISKS = {Size.CI: (1,), Size.RELEASE: (10, 10)}
"""How many one after another, in each of how many processes (which have mounts of their own)."""

FILE_SYSTEMS = ("", "", "nodelalloc,data=writeback")
"""The last: a file has its new length before it has its bytes."""

NOWHERE = "--s3-endpoint-url=http://127.0.0.1:9"
"""A store that is away: nobody listens on the port of `discard`."""

IN_RECOVERY = (
    *("before_sync", "before_sync_directory", "after_sync", "before_commit_recovery", "after_commit_recovery"),
    *("before_commit_place", "before_unlink", "before_put_part", "before_commit_receipt"),
)
"""Failpoints that a start passes, if it has something to take up."""

ENDS_WITHIN = 60.0
"""Seconds from the last cut to the last object."""

DRIVER = """
import sys
import streamup.recovery, streamup.registry

streamup.recovery.boot_id = lambda: {boot!r}
streamup.registry.ANNOUNCE_SECONDS = 0.05  # a stream that is asked often announces often, not once a second
sys.path.insert(0, {tests!r})
from planted import planted
from streamup.cli import main

with planted(*{bugs!r}):
    main()
"""


def run(size: Size, seed: int) -> Figures:
    """Disk after disk. Raises `Broken`, and `NoLoopDeviceError` where the machine forbids it."""
    figures = Figures("power cuts", size, seed)
    disks = DISKS[size]
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory, weed_in(Path(directory)) as weed:
        place = (weed.bucket, weed.endpoint_url, weed.access_key, weed.secret_key)
        lanes = [
            (place, Path(directory), number, 100 * seed + lane, free_ports(2)) for lane, number in enumerate(disks)
        ]
        with get_context("spawn").Pool(len(lanes)) as pool:
            parts = list(pool.imap_unordered(_disks, lanes))
    for counts in parts:
        for what, number in counts.items():
            figures.count(what, number)
    return figures


def _disks(lane: tuple[tuple[str, ...], Path, int, int, list[int]]) -> dict[str, float]:
    """One after another, each with a seed of its own; their counts."""
    place, directory, many, seed, ports = lane
    mount_alone()
    figures = Figures("power cuts", Size.CI, seed)
    with bucket_at(*place) as bucket:
        for disk in range(many):
            cut_the_power(bucket, directory, 100 * seed + disk, figures, ports=ports)
    return figures.counts


def cut_the_power(
    bucket: Bucket,
    directory: Path,
    seed: int,
    figures: Figures,
    *,
    cuts: int = CUTS,
    bugs: Sequence[str] = (),
    ports: Sequence[int] = (),
) -> None:
    """One disk and the uploads on it, through several power cuts to their end. `bugs` are planted, `ports` nobody's
    else (of a server that is dead they look free).
    """
    rng = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(dir=directory) as own,
        LoopDisk.mounted(Path(own), rng.choice(FILE_SYSTEMS)) as disk,
    ):
        server = Fresh(bucket, Path(own))(data=disk.place / "state" / "data")
        server.ports = list(ports) or server.ports
        try:
            Story(disk, server, bucket, rng, figures, tuple(bugs)).tell(cuts)
        finally:
            server.kill()


# -- clients ---------------------------------------------------------------------------------------------------------


@dataclass
class Sending:
    """One object on its way, and everything that its client was told: at least so many bytes are kept (`announced`),
    there is such an upload (`known`), it completes by itself (`promised`), it is stored (`stored`).
    """

    server: Server
    key: str
    data: bytes
    heard: Callable[[], None]
    id: str = ""
    announced: int = 0
    announcements: int = 0
    promised: bool = False
    stored: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = b"") -> Answer:
        """One request, and what its answer promises."""
        before = self.announced
        answer = self.server.ask(method, path, headers, body)
        if answer.status == 410 and before:
            raise Broken(Invariant.OFFSET, f"{self.key} is gone, {before} bytes were announced: {answer.body!r}")
        if (location := answer.headers.get("Location", "")).rpartition("/")[0].endswith("/uploads"):
            self.id = location.rpartition("/")[2]
        if "Upload-Offset" in answer.headers:
            self.hear(int(answer.headers["Upload-Offset"]), before)
        if answer.status in {200, 201} and answer.headers.get("Upload-Complete") == "?1":
            self.promised = self.stored = True
        elif answer.status == 202:
            self.promised = True
        return answer

    def hear(self, offset: int, before: int) -> None:
        """An announcement, and what had been announced when it was asked for."""
        if offset < before:
            raise Broken(Invariant.OFFSET, f"{self.key}: {before} was announced, {offset} is told now")
        with self.lock:
            new, self.announced = offset > self.announced, max(offset, self.announced)
            self.announcements += new
        if new:
            self.heard()

    def look(self) -> dict[str, Any] | None:
        """The upload as it is, without disturbing it; None if there is none."""
        before = self.announced
        if self.id:
            answer = self.server.ask("GET", f"/uploads/{self.id}")
            found = answer.json() if answer.status == 200 else None
        else:
            found = next((one for one in self.server.uploads(self.key) if one["state"] != "failed"), None)
        if found:
            self.id = found["id"]
            self.hear(found["offset"], before)
        return found

    def check(self) -> None:
        """After a restart: what we were told is so."""
        found = self.look()
        if found is None:
            if self.id:
                raise Broken(Invariant.OFFSET, f"{self.key} is not known, and {self.announced} bytes were announced")
            return
        if found["state"] == "failed" and not self.announced and not self.promised:
            self.id = ""  # it was being stored, and nobody was told of a byte of it: it is sent again
            return
        if found["state"] not in {"open", "sealed", "completing", "complete"}:
            raise Broken(
                Invariant.OFFSET,
                f"{self.announced} announced bytes of {self.key} are lost: it is {found['state']} ({found['reason']})",
            )
        if self.promised and found["state"] == "open":
            raise Broken(Invariant.OFFSET, f"{self.key} was to complete by itself, and is open again")
        if self.stored and found["state"] != "complete":
            raise Broken(Invariant.OFFSET, f"{self.key} was stored, and is {found['state']} again")
        for path in self.server.data.glob(f"spool/{self.id}.*"):
            start = (int(path.suffix[1:]) - 1) * PART
            with contextlib.suppress(FileNotFoundError):  # it has been stored meanwhile
                there = path.read_bytes()
                if there != self.data[start : start + len(there)]:
                    raise Broken(Invariant.OFFSET, f"{path.name} of {self.key} does not hold what was sent")

    # -- what a client does next -------------------------------------------------------------------------------------

    def place(self) -> int | None:
        """Where to go on; None if all has been sent, and only the outcome is not known."""
        found = self.look()
        if found is None:
            return 0
        if found["state"] == "open":
            head = self.ask("HEAD", f"/uploads/{self.id}")
            return int(head.headers["Upload-Offset"]) if head.status < 300 and not self.promised else None
        self.ask("PUT", f"/objects/{self.key}", {"Content-Range": f"bytes */{len(self.data)}"})
        return None

    def put(self, start: int, end: int, body: Any = None, **headers: str) -> Answer:
        """A range of it; the last one is the last."""
        total = len(self.data) if end == len(self.data) else "*"
        where = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        return self.ask("PUT", f"/objects/{self.key}", where | headers, self.data[start:end] if body is None else body)

    def seal(self) -> None:
        """All bytes are there, and nobody has said that they are all."""
        words = {"Upload-Offset": str(len(self.data)), "Upload-Complete": "?1"}
        self.ask("PATCH", f"/uploads/{self.id}", words | {"Content-Type": "application/partial-upload"})


Send = Callable[[Sending, int, random.Random, threading.Event], None]


def live(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """A stream of small pieces, without a known end."""

    def pieces() -> Iterator[bytes]:
        position = offset
        while position < len(sending.data):
            if stop.wait(0.004):  # real time: it is slower than the disk
                raise ConnectionAbortedError
            end = position + rng.randint(1, 80_000)
            yield sending.data[position:end]
            position = end

    where = {"Content-Range": f"bytes {offset}-*/*"} if offset or sending.id else {}
    sending.ask("PUT", f"/objects/{sending.key}", where, pieces())


def ranges(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """Range after range, each answered with what is kept."""
    while offset < len(sending.data) and not stop.wait(0.002):
        end = min(len(sending.data), offset + rng.choice([rng.randint(1, 5000), rng.randint(1, 3 * MIB)]))
        if sending.put(offset, end).status not in {201, 202, 308}:
            return
        offset = end


def digests(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """Appends that count once their digest has matched; now and then it does not."""
    if not sending.id:
        sending.ask("PUT", f"/objects/{sending.key}", {"Upload-Complete": "?0"})
    while offset < len(sending.data) and not stop.wait(0.002):
        end = min(len(sending.data), offset + rng.randint(1, 2 * MIB))
        piece = sending.data[offset:end]
        digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        words = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == len(sending.data) else "?0"}
        words |= {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/partial-upload"}
        wrong = rng.random() < 0.2
        answer = sending.ask("PATCH", f"/uploads/{sending.id}", words, piece[::-1] if wrong else piece)
        if answer.status not in ({400} if wrong else {200, 201, 202, 204}):
            return
        offset = offset if wrong else end


def small(sending: Sending, offset: int, _rng: random.Random, _stop: threading.Event) -> None:
    """All of it in one request, and one PutObject."""
    if sending.id:
        sending.put(offset, len(sending.data))
    else:
        sending.ask("PUT", f"/objects/{sending.key}", {}, sending.data)


def promised(sending: Sending, offset: int, _rng: random.Random, _stop: threading.Event) -> None:
    """... whose client does not wait until it is stored: it is told that it will be."""
    prefer = {"Prefer": "respond-async"}
    if sending.id:
        sending.put(offset, len(sending.data), **prefer)
    else:
        sending.ask("PUT", f"/objects/{sending.key}", prefer, sending.data)


KINDS: tuple[tuple[Send, int, int], ...] = (
    (live, 3 * MIB, 14 * MIB),
    (live, 1, 6 * MIB),
    (ranges, 1, 12 * MIB),
    (digests, 1, 8 * MIB),
    (small, 1, 400_000),
    (promised, 1, 7 * MIB),
)
"""Who sends, and how small and how large an object."""


@dataclass
class Client:
    """Sends one object after another."""

    server: Server
    name: str
    kind: tuple[Send, int, int]
    rng: random.Random
    heard: Callable[[], None]
    sendings: list[Sending] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Until the power is cut."""
        while not stop.is_set():
            self.finish(stop)
            if not stop.is_set():
                self._begin()

    def finish(self, stop: threading.Event) -> None:
        """The object on its way, until its client may forget it."""
        while self.sendings and not self.sendings[-1].promised and not stop.is_set():
            try:
                self._go_on(self.sendings[-1], stop)
            except GONE:
                stop.wait(0.01)  # somebody else went on with it, or nobody is there: ask again

    def _begin(self) -> None:
        _, least, most = self.kind
        data = content(self.rng.randint(least, most), self.rng.getrandbits(32))
        self.sendings.append(Sending(self.server, f"{self.name}-{len(self.sendings)}", data, self.heard))

    def _go_on(self, sending: Sending, stop: threading.Event) -> None:
        offset = sending.place()
        if offset is not None and offset == len(sending.data) and sending.id:
            sending.seal()
        elif offset is not None:
            self.kind[0](sending, offset, self.rng, stop)


# -- the story of one disk -------------------------------------------------------------------------------------------


@dataclass
class Story:
    """One state directory, its clients, and the power."""

    disk: LoopDisk
    server: Server
    bucket: Bucket
    rng: random.Random
    figures: Figures
    bugs: tuple[str, ...]
    boot: int = 0
    countdown: int = 0
    announced: threading.Event = field(default_factory=threading.Event)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = self.server.store
        for number, kind in enumerate(KINDS):
            name, rng = f"{number}-{kind[0].__name__}", random.Random(self.rng.random())
            self.clients.append(Client(self.server, name, kind, rng, self.hear))

    @property
    def sendings(self) -> list[Sending]:
        return [sending for client in self.clients for sending in client.sendings]

    def tell(self, cuts: int) -> None:
        """All of it."""
        self.start()
        for _ in range(cuts):
            self.send_until_the_power_fails()
            if self.rng.random() < 0.2:
                self.fail_while_starting()
            self.start()
            self.check()
            if self.rng.random() < 0.15:
                self.figures.count("cuts right after a start")
                self.cut()
                self.start()
                self.check()
        self.finish()

    def start(self, *, away: bool | None = None) -> None:
        """Switch the machine on, until streamup answers. `away`: the store is; None leaves it to chance."""
        self.spawn(away=away)
        if not self.server.answers("/healthz"):
            raise Broken(Invariant.OFFSET, f"it does not start on what is left: {self.server.log[-2000:]}")

    def spawn(self, failpoint: str = "", *, away: bool | None = None) -> None:
        away = self.rng.random() < 0.25 if away is None else away
        self.figures.count("boots without the store", away)
        self.server.store = (self.store[0], NOWHERE, *self.store[2:]) if away else self.store
        self.server.program = ("-c", DRIVER.format(boot=f"boot {self.boot}", bugs=self.bugs, tests=TESTS))
        self.server.spawn(failpoint)

    # -- power -------------------------------------------------------------------------------------------------------

    def send_until_the_power_fails(self) -> None:
        """Clients send, for some tenths of a second (real time: the moment is the subject)."""
        stop, rng = threading.Event(), self.rng
        at_an_announcement = rng.random() < 0.4
        self.announced.clear()
        self.countdown = rng.randint(1, 30) if at_an_announcement else 0
        with ThreadPoolExecutor(len(self.clients) + 1) as pool:
            running = [pool.submit(client.run, stop) for client in self.clients]
            running.append(pool.submit(self.watch, stop, random.Random(rng.random())))
            try:
                if rng.random() < 0.2:
                    self.restart_in_between()
                if rng.random() < 0.2:
                    self.figures.count("disks written back in between")
                    time.sleep(rng.uniform(0.05, 0.3))
                    sync_all(self.disk.place)
                if not at_an_announcement:
                    time.sleep(rng.uniform(0.05, 0.6))
                elif self.announced.wait(2.0):
                    self.figures.count("cuts at an announcement")
                self.cut(stop, running)
            finally:
                stop.set()
                self.server.kill()

    def restart_in_between(self) -> None:
        """On the same boot, on which everything that was written counts; and is announced later."""
        time.sleep(self.rng.uniform(0.05, 0.3))
        if self.rng.random() < 0.7:
            self.figures.count("kills between cuts")
            self.server.kill()
        else:
            self.figures.count("stops between cuts")
            self.server.stop()
        self.start()

    def cut(self, stop: threading.Event | None = None, running: list[Future[None]] | None = None) -> None:
        """Everything stops, and what is on the disk is what is left."""
        if self.server.process and self.server.process.poll() is None:
            freeze(self.server.pid)
        self.write_something_back()
        image = self.disk.copy()
        self.server.kill()
        self.countdown = 0
        if stop:
            stop.set()
        for client in running or ():
            client.result()  # what it was told before the end, it hears now
        self.disk.replace(image)
        self.boot += 1
        self.figures.count("images")
        at_stake = sum(sending.announced for sending in self.sendings if not sending.stored)
        self.figures.count("MiB of them announced and not yet stored", at_stake / MIB)
        self.damage()

    def fail_while_starting(self) -> None:
        """The power is back for a moment only."""
        self.figures.count("cuts during a start")
        failpoint = f"{self.rng.choice(IN_RECOVERY)}:{self.rng.randint(1, 3)}" if self.rng.random() < 0.7 else ""
        self.spawn(failpoint)
        if failpoint:
            self.server.answers("/healthz")  # or it is dead: its last write is no more synced than that of the living
        else:
            time.sleep(self.rng.uniform(0.0, 0.25))  # real time, as above
        self.cut()

    def write_something_back(self) -> None:
        """What the kernel may have done by itself."""
        files = [path for path in self.server.data.rglob("*") if path.is_file()]
        chosen, kind = self.rng.choice(files), self.rng.random()
        if kind < 0.15:
            sync_file(chosen)
            self.figures.count("images with a file written back")
        elif kind < 0.35:
            size = chosen.stat().st_size
            start = self.rng.randrange(size + 1) // 4096 * 4096
            sync_range(chosen, start, self.rng.randint(1, size - start + 1))
            self.figures.count("images with some pages written back")
        elif kind < 0.45:
            sync_all(self.disk.place)
            self.figures.count("images with everything written back")

    def damage(self) -> None:
        """What nobody was told of may be anything."""
        if self.rng.random() < 0.4:
            self.figures.count("part files with other ends", damage_part_files(self.server.data, self.rng))
        if self.rng.random() < 0.3:
            self.figures.count("logs with other ends", damage_log(self.server.data, self.rng))

    # -- announcements -----------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """A client has been told something new. Perhaps the power fails before it has read to the end of the line."""
        if self.countdown:
            self.countdown -= 1
            if self.countdown == 0:
                with contextlib.suppress(AttributeError, ProcessLookupError):  # it is being killed just now
                    os.kill(self.server.pid, signal.SIGSTOP)
                self.announced.set()

    def watch(self, stop: threading.Event, rng: random.Random) -> None:
        """Somebody who asks now and then how far it is; as HEAD of the upload that stops its writer, too."""
        while not stop.wait(rng.uniform(0.0, 0.06)):
            sending = rng.choice([client.sendings[-1] for client in self.clients if client.sendings] or [None])
            with contextlib.suppress(*GONE):
                if sending and sending.id and rng.random() < 0.1:
                    sending.ask("HEAD", f"/uploads/{sending.id}")
                elif sending:
                    sending.ask("HEAD", f"/objects/{sending.key}")

    # -- what must be so ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """After each start."""
        for sending in self.sendings:
            sending.check()

    def finish(self) -> None:
        """No power fails any more: every upload ends, and the store holds what was sent and nothing else."""
        self.server.kill()
        self.start(away=False)
        stop = threading.Event()
        alarm = threading.Timer(ENDS_WITHIN, stop.set)
        alarm.start()
        try:
            with ThreadPoolExecutor(len(self.clients)) as pool:
                for running in [pool.submit(client.finish, stop) for client in self.clients]:
                    running.result()
        finally:
            alarm.cancel()
        late = [sending.key for sending in self.sendings if not sending.promised]
        if late:
            raise Broken(Invariant.ENDS, f"{late} have not ended within {ENDS_WITHIN:g} s")
        self.check_objects()
        self.server.stop()
        self.figures.count("offsets announced", sum(sending.announcements for sending in self.sendings))
        self.figures.count("MiB announced", sum(sending.announced for sending in self.sendings) / MIB)
        self.figures.count("objects", len(self.sendings))
        self.figures.count("announced bytes lost", 0)

    def check_objects(self) -> None:
        server, prefix = self.server, prefix_of(self.server)
        try:
            server.until_quiet()
        except pytest.fail.Exception as error:
            raise Broken(Invariant.ENDS, str(error)) from error
        for sending in self.sendings:
            if digest(found := self.bucket.read(prefix + sending.key)) != digest(sending.data):
                raise Broken(
                    Invariant.CLEAN_END, f"{sending.key} is {digest(found)}, and {digest(sending.data)} was sent"
                )
        strangers = _not_of_a_probe(self.bucket.keys(prefix)) - {sending.key for sending in self.sendings}
        multiparts = _not_of_a_probe(self.bucket.multiparts(prefix))
        if strangers or multiparts:
            raise Broken(Invariant.NOTHING_LEFT, f"objects {strangers}, multipart uploads {multiparts}")


def _not_of_a_probe(keys: Iterable[str]) -> set[str]:
    """A start that the power ended in the middle of its questions to the store leaves what it asked with."""
    return {key for key in keys if not key.startswith(MARK)}
