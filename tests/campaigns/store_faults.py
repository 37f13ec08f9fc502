"""A store, and a network before it, of which anything must be expected; and at the end every object is what was sent.

Clients of all kinds send through one streamup into SeaweedFS. Between the two is `store_proxy` with `store_chaos`: a
part of all requests are refused, torn, damaged, delayed, answered wrongly or not at all, doubled, or meet somebody
else's work; and now and then nearly all of them, or nobody listens. Meanwhile the bucket is listed again and again, and
the server's memory, disk and descriptors are looked at. Then the faults stop.

By seed, the n-th request of an operation meets the same fate, and clients send the same. What runs at the same time is
real, so a seed replays the choices and not the microseconds. Streamup waits for its store for seconds here
(`impatient` in `planted`), else a minute would not do for one silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from figures import Figures
from invariants import Broken, Invariant
from keystream import Keystream
from killing import LIVE, program
from process import MIB, PART, Bucket, Fresh, Server, bucket_at, prefix_of
from resuming import Way, checked_tus, digests, live, ranges, sha256, small
from senders import Sent, cancelled
from store_chaos import KINDS, STORMS, Chaos, Kind
from store_proxy import Request, StoreProxy, proxy_to
from weed import weed_in

from campaigns import Size

UPLOADS = {Size.CI: 260, Size.RELEASE: 2_100}
CLIENTS = 16
SPOOL = 160 * MIB
"""Less than all clients send at once while the store is away, so that some of them wait."""

PARALLEL_PARTS = 8
ENDS_WITHIN = 30.0
"""Seconds, after the faults: some attempts, of which each may be the last that waits for its time to be over."""

MEMORY = 105e6 + 0.25e6 * PARALLEL_PARTS + 0.8e6 * CLIENTS
"""As the README has it: the process, parts in flight, and clients that send faster than the disk takes."""

MEMORY_SLACK = 1.2
"""Of an "about": it was 113 MB at most in CI, and 135 in a release, flat from the 500th of 2,472 uploads on."""

CONNECTIONS = PARALLEL_PARTS + 16
"""To the store: for parts, and for the rest. Each client has one, too, and a part file that it fills."""

WRITTEN_AGAIN = "again/"
"""Keys below this are written again and again."""

VERSIONS = 4
AGAIN = 0.06
"""The share of uploads which are such a series."""

STRANGE = b"a stranger's"

REASONS = [kind.ends for kind in KINDS if kind.ends]


@dataclass
class Seen:
    """What has been in the bucket: for each key the version that was there last, of those that are written again."""

    looks: int = 0
    objects: set[tuple[str, str]] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    peaks: Counter[str] = field(default_factory=Counter)


@dataclass
class World:
    """One server between clients and a store that fails."""

    size: Size
    seed: int
    server: Server
    bucket: Bucket
    proxy: StoreProxy
    figures: Figures
    idle_descriptors: int
    """Before anybody has come."""

    sent: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    """By key, in the order in which they were begun."""

    strangers: set[str] = field(default_factory=set)
    """Keys that somebody else has written."""

    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        self.numbers = random.Random(self.seed)
        self.prefix = prefix_of(self.server)
        others = {"aborts": self._abort, "aborts at the end": self._abort, "writes the key": self._write}
        self.chaos = Chaos(self.seed, others, spared=lambda it: self.key_of(it).startswith(WRITTEN_AGAIN))
        self.done = threading.Event()
        """Nothing more is to be sent."""

    @property
    def all_sent(self) -> list[Sent]:
        return [sent for series in self.sent.values() for sent in series]

    def key_of(self, request: Request) -> str:
        return request.path.removeprefix(f"{self.bucket.name}/{self.prefix}")

    def broken(self, invariant: Invariant, key: str, what: str) -> Broken:
        """With all that the store was asked of this key, and what became of it."""
        story = [
            f"{request.came:.3f} {request.operation} {request.query.get('uploadId', '')[-8:]}"
            f"{' part ' + request.query['partNumber'] if 'partNumber' in request.query else ''}: {request.status}"
            f"{', ' + request.fault if request.fault else ''}{', echo' if request.echo else ''}"
            for request in self.proxy.requests
            if self.key_of(request) == key or request.query.get("prefix") == self.prefix + key
        ]
        return Broken(invariant, "\n".join([f"{key} {what}", *story]))

    # -- somebody else

    def _abort(self, request: Request) -> None:
        with contextlib.suppress(self.bucket.client.exceptions.NoSuchUpload):  # it is an object by now
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=self.prefix + self.key_of(request), UploadId=request.query["uploadId"]
            )

    def _write(self, request: Request) -> None:
        key = self.key_of(request)
        self.strangers.add(key)
        self.bucket.client.put_object(Bucket=self.bucket.name, Key=self.prefix + key, Body=STRANGE)

    # -- what is sent

    async def send_all(self) -> None:
        numbers = iter(range(UPLOADS[self.size]))
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(numbers))

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            chosen = random.Random(f"{self.seed} {number}")
            if chosen.random() < AGAIN:
                step = chosen.choice([30_000, PART])
                sizes = [chosen.randrange(version * step, (version + 1) * step) for version in range(VERSIONS)]
                for size in sizes:  # each has its own, by which it is known
                    await self._send(f"{WRITTEN_AGAIN}{number}", chosen, size)
            else:
                await self._send(f"{number // 100:02}/{number}", chosen, _some_size(chosen))

    async def _send(self, key: str, chosen: random.Random, size: int) -> None:
        versions = self.sent[key]
        sent = Sent(self.server, key, Keystream(f"{key} {len(versions)}", size), rng=chosen, stop=self.done)
        versions.append(sent)
        way = self._way(sent, chosen)
        try:
            await asyncio.to_thread(sent.run, way)
        except TimeoutError as error:
            raise self.broken(Invariant.ENDS, key, "has not ended, or nothing was answered") from error

    def _way(self, sent: Sent, chosen: random.Random) -> Way:
        ways = [small, live]
        if sent.size > 1:
            ways += [ranges, checked_tus, digests]
        if sent.size > 1 and not sent.key.startswith(WRITTEN_AGAIN) and chosen.random() < 0.05:
            return cancelled
        way = chosen.choice(ways)
        if way in {small, live}:
            self._says_more(sent, chosen)
        return way

    def _says_more(self, sent: Sent, chosen: random.Random) -> None:
        """Digests of the whole, right or wrong; a condition."""
        match chosen.choice(["nothing", "nothing", "sha256", "right", "wrong", "none"]):
            case "sha256":
                sent.query = "?checksum=sha256"
            case "right":
                sent.words = {"Repr-Digest": sha256(sent.data[:])}
            case "wrong" if not sent.key.startswith(WRITTEN_AGAIN):
                sent.wrong = True
                sent.words = {"Repr-Digest": sha256(b"another")}
            case "none" if not sent.key.startswith(WRITTEN_AGAIN):
                sent.words = {"If-None-Match": "*"}

    async def storms(self) -> None:
        """Now and then. Cancelled when everything has been sent."""
        while True:
            await asyncio.sleep(self.numbers.uniform(2, 5))
            kind = self.numbers.choice([*STORMS, "away", "away"])
            lasts = self.numbers.uniform(0.5, 2)
            with self.proxy.away() if kind == "away" else self.chaos.storm(kind):
                await asyncio.sleep(lasts)

    # -- what is seen meanwhile

    def watch(self) -> None:
        """Look at the bucket and at the server until it is done."""
        while not self.done.wait(0.3):
            self.look()

    def look(self) -> None:
        self._look_at_server()
        self.seen.looks += 1
        former = dict(self.seen.versions)
        found = {found["Key"].removeprefix(self.prefix): found for found in self._listed()}
        for key, entry in found.items():
            self._look_at(key, entry)
        if gone := former.keys() - found.keys():
            raise Broken(Invariant.WHOLE, f"{gone} were there, and are no more")

    def _listed(self) -> Iterator[dict[str, Any]]:
        """The objects: of the thousands that there may be, those that are written again, and the youngest."""
        places = sorted({key.partition("/")[0] + "/" for key in list(self.sent)} - {WRITTEN_AGAIN})
        for below in (WRITTEN_AGAIN, *places[-2:]):
            pages = self.bucket.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.prefix + below):
                yield from page.get("Contents", ())

    def _look_at(self, key: str, entry: dict[str, Any]) -> None:
        known = (key, entry["ETag"])
        if known in self.seen.objects:
            return
        self.seen.objects.add(known)
        if key in self.strangers and entry["Size"] == len(STRANGE):
            return
        whole = [n for n, sent in enumerate(self.sent.get(key, ())) if sent.size == entry["Size"]]
        if not whole:
            sizes = [sent.size for sent in self.sent.get(key, ())]
            raise self.broken(Invariant.CLEAN_END, key, f"shows {entry['Size']} bytes; what was sent has {sizes}")
        if key.startswith(WRITTEN_AGAIN):
            if whole[0] < self.seen.versions.get(key, 0):
                raise self.broken(Invariant.ORDER, key, f"shows version {whole[0]} after {self.seen.versions[key]}")
            self.seen.versions[key] = whole[0]
            self._compare_any(key)

    def _look_at_server(self) -> None:
        peaks, limits = self.seen.peaks, self.limits
        now = {
            "memory": self.server.resident_bytes,
            "descriptors": self.server.descriptors,
            "spool": sum(self.server.spooled().values()),
        }
        for what, number in now.items():
            peaks[what] = max(peaks[what], number)
            if number > limits[what]:
                raise Broken(Invariant.BOUNDED, f"{what}: {number:,.0f}, and the most is {limits[what]:,.0f}")

    @property
    def limits(self) -> dict[str, float]:
        return {
            "memory": MEMORY_SLACK * MEMORY,
            "descriptors": self.idle_descriptors + 2 * CLIENTS + CONNECTIONS + PARALLEL_PARTS,
            "spool": SPOOL,
        }

    # -- the end

    def check(self) -> None:
        """When the faults have stopped."""
        self._ended()
        self.proxy.settle()
        self._inside()
        self._once()
        objects = dict(self._everything())
        for key, versions in self.sent.items():
            self._check(key, versions, objects.pop(key, None))
        if objects:
            raise Broken(Invariant.CLEAN_END, f"nobody has sent {sorted(objects)}")
        self._left()

    def _ended(self) -> None:
        began = time.monotonic()
        while unfinished := [one for one in self.server.uploads() if one["state"] in LIVE]:
            if time.monotonic() - began > ENDS_WITHIN:
                raise Broken(Invariant.ENDS, f"{ENDS_WITHIN:g} s after the last fault: {unfinished}")
            time.sleep(0.05)
        self.figures.count("s until the last one had ended", round(time.monotonic() - began, 1))

    def _left(self) -> None:
        def left() -> dict[str, Any]:
            holdings = self.server.ask_admin("/holdings").json()
            found = {name: holdings[name] for name in ("uploads", "multiparts", "creating")}
            found |= {"part files": self.server.spooled(), "in the store": self.bucket.multiparts(self.prefix)}
            found["descriptors"] = max(0, self.server.descriptors - self.idle_descriptors - CONNECTIONS)
            return {name: what for name, what in found.items() if what}

        deadline = time.monotonic() + ENDS_WITHIN
        while found := left():
            if time.monotonic() > deadline:
                key = next(iter(found.get("in the store", ())), "")
                raise self.broken(Invariant.NOTHING_LEFT, key, f"and others: {found}")
            time.sleep(0.1)

    def _everything(self) -> Iterator[tuple[str, dict[str, Any]]]:
        pages = self.bucket.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket.name, Prefix=self.prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self.prefix), entry

    def _check(self, key: str, versions: list[Sent], entry: dict[str, Any] | None) -> None:
        last = versions[-1]
        for sent in versions:
            self._check_end(sent)
        if last.outcome == "complete":
            self.figures.count("completed", len(versions))
            if entry is None:
                raise self.broken(Invariant.FAIL_CLOSED, key, "was told to be complete, and there is no object")
            self._compare(last)
        elif entry and key in self.strangers and self._came_late(last):
            self._compare(last)  # a PutObject that was late: no store without conditions can know which was meant last
        elif entry and not (key in self.strangers and self.bucket.read(self.prefix + key) == STRANGE):
            raise self.broken(Invariant.CLEAN_END, key, f"was {last.outcome} ({last.reason}), and is there: {entry}")
        elif key in self.strangers and entry is None:
            raise self.broken(Invariant.ORDER, key, f"was {last.outcome}, and somebody else's object has gone with it")

    def _met(self, sent: Sent) -> Sequence[Kind]:
        return self.chaos.met.get(f"{self.bucket.name}/{self.prefix}{sent.key}", [])

    def _came_late(self, sent: Sent) -> bool:
        late = any(kind.reorders for kind in self._met(sent))
        return late and self.bucket.read(self.prefix + sent.key) != STRANGE

    def _check_end(self, sent: Sent) -> None:
        """That it has ended as it had to."""
        met = self._met(sent)
        may = REASONS if any(kind.ends for kind in met) else []  # the last word may be that of another fault
        may = [*may, "sha256"] if sent.wrong else may
        if not sent.size:  # and nobody knew whether there was an object
            may = [*may, "An empty chunked body does not replace"]
        if sent.wrong and sent.outcome == "complete":
            raise self.broken(Invariant.CLEAN_END, sent.key, "is not what its client said it is, and complete")
        if sent.outcome == "failed":
            if not any(re.search(reason, sent.reason) for reason in may):
                names = [kind.name for kind in met]
                raise self.broken(Invariant.PATIENT, sent.key, f"has failed: {sent.reason}. It had met {names}")
            self.figures.count("failed for a named reason")
        elif sent.outcome == "cancelled":
            self.figures.count("cancelled by their clients")
        if sent.key in self.strangers and sent.outcome == "complete" and not any(kind.reorders for kind in met):
            raise self.broken(Invariant.ORDER, sent.key, "has replaced what somebody else wrote meanwhile")

    def _compare(self, sent: Sent) -> None:
        answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=self.prefix + sent.key)
        with contextlib.closing(answer["Body"]) as body:
            at = 0
            while data := body.read(4 * MIB):
                if (where := sent.data.differs(at, data)) is not None:
                    raise self.broken(Invariant.CLEAN_END, sent.key, f"is not what was sent, from byte {where}")
                at += len(data)
        if at != sent.size:
            raise self.broken(Invariant.CLEAN_END, sent.key, f"has {at} bytes, {sent.size} were sent")
        self.figures.count("GiB compared", at / (1 << 30))

    def _compare_any(self, key: str) -> None:
        """The object is one of the versions, whole: whichever is there by now."""
        data = self.bucket.read(self.prefix + key) or b""
        if all(sent.size != len(data) or sent.data.differs(0, data) is not None for sent in self.sent[key]):
            raise self.broken(Invariant.WHOLE, key, f"has {len(data)} bytes, and is none of its versions")
        self.figures.count("versions compared while others were written")

    def _inside(self) -> None:
        """No request leaves the prefix, but for questions about the bucket itself."""
        for request in self.proxy.requests:
            inside = request.path.startswith(f"{self.bucket.name}/{self.prefix}")
            lists = request.path == self.bucket.name and request.query.get("prefix", self.prefix).startswith(
                self.prefix
            )
            if not inside and not lists:
                raise Broken(Invariant.INSIDE, f"{request.method} {request.target}")

    def _once(self) -> None:
        """Who asks for an object again has looked in between whether it is there, and knows that it is not."""
        ends = defaultdict(list)
        looks = defaultdict(list)
        for request in self.proxy.requests:
            if request.operation in {"PutObject", "CompleteMultipartUpload"} and not request.echo:
                token = request.headers.get("x-amz-meta-streamup-token") or request.query["uploadId"]
                ends[request.path, token].append(request)
            elif request.operation == "HeadObject" and request.status is not None:
                looks[request.path].append(request)
        for (path, _), requests in ends.items():
            for earlier, later in pairwise(requests):
                if earlier.told and earlier.status == 200:
                    raise self.broken(Invariant.ONCE, self.key_of(later), "was asked for again after its 200")
                if not any(earlier.came < look.came and (look.answered or 0) < later.came for look in looks[path]):
                    raise self.broken(Invariant.ONCE, self.key_of(later), "was asked for again, and nobody had looked")


def run(size: Size, seed: int, planted: str | None = None) -> Figures:
    """`planted`: with this bug in it."""
    figures = Figures("store faults", size, seed)
    try:
        with _world(size, seed, planted, figures) as world:
            asyncio.run(_through(world))
            world.check()
            world.server.stop()
            _count(world)
    except Broken as broken:
        release = " --release" if size is Size.RELEASE else ""
        broken.add_note(f"again: python tests/campaign.py store_faults{release} --seed {seed}")
        raise
    return figures


@contextlib.contextmanager
def _world(size: Size, seed: int, planted: str | None, figures: Figures) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weed = stack.enter_context(weed_in(directory))
        proxy = stack.enter_context(proxy_to(weed.endpoint_url))
        bucket = stack.enter_context(bucket_at(weed))
        fresh = Fresh(bucket, directory)
        stack.callback(fresh.kill_all)
        options = (f"--spool-size={SPOOL}", f"--parallel-parts={PARALLEL_PARTS}", "--store-timeout=2s")
        server = fresh(*options, program=program(",".join(filter(None, ["impatient", planted]))))
        server.store = tuple(word.replace(bucket.endpoint_url, proxy.url) for word in server.store)
        server.start()
        proxy.forget()
        yield World(size, seed, server, bucket, proxy, figures, server.descriptors)


async def _through(world: World) -> None:
    """Everything is sent while faults happen, and somebody watches. The first thing that is broken ends it."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CLIENTS + 1))
    watching = asyncio.create_task(asyncio.to_thread(world.watch))
    world.proxy.rule = world.chaos
    storms = asyncio.create_task(world.storms())
    sending = asyncio.create_task(world.send_all())
    try:
        await asyncio.wait([watching, sending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        world.chaos.over = True
        world.done.set()
        storms.cancel()
        if not sending.done():
            sending.cancel()
        await asyncio.gather(watching, sending, storms, return_exceptions=True)
    for task in (watching, sending):
        if not task.cancelled() and (error := task.exception()):
            raise _first(error)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _some_size(numbers: random.Random) -> int:
    """Most are small; some fill parts, and some fill them exactly."""
    match numbers.choices(["empty", "small", "part", "exact", "parts"], [2, 60, 15, 3, 20])[0]:
        case "empty":
            return 0
        case "small":
            return int(numbers.expovariate(1 / 60_000))
        case "part":
            return numbers.randrange(PART)
        case "exact":
            return numbers.choice([1, 2, 3]) * PART
    return numbers.randrange(PART, 5 * PART)


def _count(world: World) -> None:
    figures, kinds = world.figures, Counter[str]()
    for (name, _), times in world.proxy.did.items():
        kinds[name] += times
    figures.count("faults", kinds.total())
    figures.count("kinds of fault", len(kinds))
    figures.count("uploads", len(world.all_sent))
    figures.count("requests to the store", len(world.proxy.requests))
    figures.count("times told to come later", sum(sent.delayed for sent in world.all_sent))
    figures.count("looks at the bucket", world.seen.looks)
    figures.count("MB of memory at most", round(world.seen.peaks["memory"] / 1e6))
    figures.count("descriptors at most", world.seen.peaks["descriptors"])
