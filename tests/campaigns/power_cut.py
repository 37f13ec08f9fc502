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

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from damage import damage_log, damage_part_files
from figures import Figures
from invariants import Broken, Invariant
from loop_disk import LoopDisk, fast_directory, freeze, mount_alone, sync_all, sync_file, sync_range
from process import MIB, Bucket, Fresh, Server, bucket_at, digest, free_ports, prefix_of
from resuming import GONE, Client, Kind, Sending, digests, finish, live, promised, ranges, small
from weed import Weed, weed_in

from campaigns import Size
from streamup.stores.experiments import MARK

TESTS = str(Path(__file__).parent.parent)

CUTS = 12
"""Of one disk and the uploads on it: long enough for uploads that live through several, short enough for many disks."""

DISKS = {Size.CI: (1,), Size.RELEASE: (10, 10)}
"""How many one after another, in each of how many processes."""

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

MISTAKES = (
    *("synchronous_normal", "no_fdatasync", "no_fdatasync,synchronous_normal"),
    *("commits_later", "announces_what_was_received", "claims_what_was_not_synced"),
)
"""What a power cut must find out (`planted`), by the offset that is less than the one announced.

The sync of the directory is not among them: ext4 makes the name of a new file durable together with its data.
"""

MISTAKE_CUTS = 60
"""Until a mistake must have been found. Most are in the first image; a commit that is a moment late takes ten."""

KINDS = (
    Kind(live, 3 * MIB, 14 * MIB),
    Kind(live, 1, 6 * MIB),
    Kind(ranges, 1, 12 * MIB),
    Kind(digests, 1, 8 * MIB),
    Kind(small, 1, 400_000),
    Kind(promised, 1, 7 * MIB),
)
"""Who sends, and how small and how large an object."""

DRIVER = """
import sys
import streamup.recovery, streamup.registry

streamup.recovery.boot_id = lambda: {boot!r}
streamup.registry.ANNOUNCE_SECONDS = 0.05  # a stream that is asked often announces often, not once a second
sys.path.insert(0, {tests!r})
from planted import planted
from streamup.cli import main

with planted(*{bugs!r}):  # an empty name plants nothing
    main()
"""


class NotCaughtError(AssertionError):
    """A planted mistake went unnoticed: what this campaign finds nothing with is worth nothing."""


@dataclass(frozen=True)
class Lane:
    """What one process does: so many disks, one after another, and these mistakes. It has mounts of its own."""

    weed: Weed
    directory: Path
    disks: int
    mistakes: Sequence[str]
    seed: int
    ports: Sequence[int] = field(default_factory=lambda: free_ports(2))

    def go(self) -> Figures:
        mount_alone()
        figures = Figures("power cuts", Size.CI, self.seed)
        with bucket_at(self.weed) as bucket:
            for disk in range(self.disks):
                cut_the_power(bucket, self.directory, 100 * self.seed + disk, figures, ports=self.ports)
            for bugs in self.mistakes:
                catch(bucket, self.directory, self.seed, figures, bugs, ports=self.ports)
        return figures


def run(size: Size, seed: int) -> Figures:
    """Disk after disk; and in release size the mistakes, which are tests of their own in CI's.

    Raises `Broken`; `NotCaughtError`; `NoLoopDeviceError` where the machine forbids it.
    """
    figures, lanes = Figures("power cuts", size, seed), len(DISKS[size])
    for first in ("images", "offsets announced"):
        figures.count(first, 0)
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory, weed_in(Path(directory)) as weed:
        orders = [
            Lane(weed, Path(directory), disks, MISTAKES[lane::lanes] * (size is Size.RELEASE), 100 * seed + lane)
            for lane, disks in enumerate(DISKS[size])
        ]
        with get_context("spawn").Pool(lanes) as pool:
            for found in pool.imap_unordered(Lane.go, orders):
                for what, number in found.counts.items():
                    figures.count(what, number)
    return figures


def catch(
    bucket: Bucket, directory: Path, seed: int, figures: Figures, bugs: str, *, ports: Sequence[int] = ()
) -> None:
    """Plant these mistakes (their names, with commas). Raises `NotCaughtError`."""
    try:
        cut_the_power(bucket, directory, seed, replace(figures, counts={}), cuts=MISTAKE_CUTS, bugs=bugs, ports=ports)
    except Broken as broken:
        if broken.invariant is not Invariant.OFFSET:
            raise
        figures.count(f"planted mistakes caught by {broken.invariant}")
    else:
        raise NotCaughtError(bugs)


def cut_the_power(
    bucket: Bucket,
    directory: Path,
    seed: int,
    figures: Figures,
    *,
    cuts: int = CUTS,
    bugs: str = "",
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
            Story(disk, server, bucket, rng, figures, bugs).tell(cuts)
        except pytest.fail.Exception as error:  # what `process.until` waits for in vain; a pool would wait for ever
            raise Broken(Invariant.ENDS, str(error)) from error
        finally:
            server.kill()


# -- the story of one disk -------------------------------------------------------------------------------------------


@dataclass
class Story:
    """One state directory, its clients, and the power."""

    disk: LoopDisk
    server: Server
    bucket: Bucket
    rng: random.Random
    figures: Figures
    bugs: str
    boot: int = 0
    countdown: int = 0
    """At so many announcements from now the power fails; 0 and less: at none."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    announced: threading.Event = field(default_factory=threading.Event)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = self.server.store
        for number, kind in enumerate(KINDS):
            name, rng = f"{number}-{kind.way.__name__}", random.Random(self.rng.random())
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
        self.server.program = ("-c", DRIVER.format(boot=f"boot {self.boot}", bugs=self.bugs.split(","), tests=TESTS))
        self.server.spawn(failpoint)

    # -- power -------------------------------------------------------------------------------------------------------

    def send_until_the_power_fails(self) -> None:
        """Clients send, for some tenths of a second (real time: the moment is the subject)."""
        stop, rng = threading.Event(), self.rng
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
                if rng.random() < 0.4:
                    self.wait_for_an_announcement()
                else:
                    time.sleep(rng.uniform(0.05, 0.6))
                self.cut(stop, running)
            finally:
                stop.set()
                self.server.kill()

    def wait_for_an_announcement(self) -> None:
        """One of those to come, or a moment later if there are no more."""
        self.announced.clear()
        with self.lock:
            self.countdown = self.rng.randint(1, 30)
        self.figures.count("cuts at an announcement", self.announced.wait(2.0))
        with self.lock:
            self.countdown = 0

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
        if stop:
            stop.set()
        for client in running or ():
            client.result()  # what it was told before the end, it hears now
        self.disk.replace(image)
        self.boot += 1
        self.figures.count("images")
        at_stake = sum(sending.announced for sending in self.sendings if not sending.stored)
        self.figures.count("MiB in them announced and not yet stored", at_stake // MIB)
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
        with self.lock:
            self.countdown -= 1
            last = self.countdown == 0
        if last:
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
        finish(self.clients, ENDS_WITHIN)
        self.check_objects()
        self.server.stop()
        self.figures.count("offsets announced", sum(sending.announcements for sending in self.sendings))
        self.figures.count("MiB announced", sum(sending.announced for sending in self.sendings) // MIB)
        self.figures.count("objects", len(self.sendings))

    def check_objects(self) -> None:
        server, prefix = self.server, prefix_of(self.server)
        server.until_quiet()
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
