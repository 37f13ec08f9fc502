"""The world of one schedule: a disk, a database, a bucket and a clock of ours, and one real streamup at a time in it.

    with World(seed) as world:
        world.create(...)            # what clients, operators and the weather do; some time passes with each
        world.crash_at("any", 7, power=True)
        world.finish()               # everything heals, and then every upload must end, and nothing may be left

A crash is a photograph. At that instant, in the middle of whatever runs, disk, database and bucket are copied for the
next process. The old one goes on with what it holds until its loop gets control back, as a ghost whom nobody hears.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, NoReturn, Self

from invariants import Broken, Invariant

from sim.clients import NAMED, Client, SlowBody, described, shaped
from sim.database import Database
from sim.disk import Disk
from sim.judge import EXPIRE_SECONDS, Judge
from sim.ledger import Claim, Model
from sim.loop import picture
from sim.process import Left, Process
from sim.store import SimStore, Weather
from sim.tally import Tally
from streamup import accumulator, checkpoint, completion, drain, layout, registry, spool
from streamup.config import Config
from streamup.errors import CheckpointError, SpoolError, StateDirectoryError
from streamup.grants import Grant
from streamup.protocols import Append, Create, Policy
from streamup.stores import StoreLimits
from streamup.upload import LIVE, State

ROOMS = (accumulator, checkpoint, completion, drain, registry, spool)
"""The rooms that bind `failpoint` by name."""

EPOCH = 1_700_000_000.0
ENDS_SECONDS = EXPIRE_SECONDS + 400.0
"""By then every upload has ended when nothing fails any more: it expires, or a stale listing (60 s), the longest pause
between two attempts (15 s, and 30 s for one that is read again) and the slowest answers (20 s each) are over.
"""

GRANTS = tuple(Grant(subject=f"subject {name}", credential=f"credential {name}") for name in ("1", "2"))
EXHAUSTED = (
    *("disk full", "few descriptors", "checkpoint full", "commits", "commits", "questions", "threads"),
    *("store", "permission", "write", "sync", "sync", "sync_directory", "read", "unlink", "truncate", "short", "open"),
)
"""What of the machine or its disk may come to its end, or break."""

PAUSES = (0.0, 0.0, 0.002, 0.01, 0.2, 3.0)
"""Seconds between two chunks of a body."""

log = logging.getLogger("streamup")


class Crash(NamedTuple):
    """When to crash: at a passage whose name has this in it, after so many others."""

    where: str
    left: int
    power: bool


class _Said(logging.Handler):
    """What the process says; a record with a traceback is an accident."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        if self.world.process.dead:
            return
        self.world.trace(f"says: {record.getMessage()}")
        if record.exc_info:
            error = record.exc_info[1]
            self.world.fail(Broken(Invariant.KNOWN, f"{record.getMessage()}: {error!r}"), error)


class World:
    """One schedule's world. The same seed, and the same calls, give the same one."""

    def __init__(self, seed: int, tally: Tally | None = None) -> None:
        self.seed = seed
        self.tally = Tally() if tally is None else tally
        self.judge = Judge(self)
        self.choices = choices = random.Random(seed)
        self.broken: BaseException | None = None
        self.lines: deque[str] = deque(maxlen=80)
        self._digest = hashlib.blake2b(digest_size=16)
        self.models: dict[str, Model] = {}
        self.clients: list[Client] = []
        self.revoked: set[str] = set()
        self.doubted: set[str] = set()
        """Credentials that have been revoked at some time."""
        self.keys_written: set[str] = set()
        self.keys_replaced: set[str] = set()
        self.may_remove: set[str] = set()
        self.tokens: dict[str, Model] = {}
        self.crash: Crash | None = None
        self.left: Left | None = None
        self.boots = 0
        self.numbers = 0
        self.slow_seconds = 0.0
        self.calm_at = 0.0
        self.counts = Counter[str]()
        self.passed = Counter[str]()
        self.crashed_at = Counter[str]()
        part_bytes = choices.choice((5, 8, 10, 16))
        self.spool_bytes = choices.choice((8, 12, 40)) * part_bytes * 2
        self.floor = choices.choice((0, 0, part_bytes * 3))
        self.share = choices.choice((None, None, self.spool_bytes // 2))
        self.config = Config(
            part_bytes=part_bytes,
            layout=choices.choice(("growing", "equal")),
            spool_bytes=self.spool_bytes,
            parallel_parts=choices.choice((1, 2, 4)),
            disk_floor_bytes=self.floor,
            expire_seconds=EXPIRE_SECONDS,
            max_age_seconds=choices.choice((None, None, 120.0)),
            max_upload_bytes=choices.choice((None, None, 400)),
            max_open_uploads=8,
            store_timeout_seconds=5.0,
        )
        conditional = choices.random() < 0.8
        skew = choices.uniform(-1, 1)
        self.weather = Weather(choices, self.now)
        store = SimStore(
            self.weather,
            limits=StoreLimits(min_part_bytes=5, max_parts=100, equal_parts=choices.random() < 0.2),
            conditional_writes=conditional,
            idempotent_complete=choices.random() < 0.5,
            stale_listing=choices.random() < 0.2,
            checks_sizes=choices.random() < 0.8,
            adds_crc64nvme=choices.random() < 0.3,
            clock=lambda: datetime.fromtimestamp(self.clock() + skew, UTC),
            seed=choices.getrandbits(32),
        )
        disk = Disk(choices, 4 * self.spool_bytes, passage=self.passage, now=self.now)
        self.capacity = disk.capacity
        self._before = [(room, room.failpoint) for room in ROOMS], checkpoint.sqlite3, layout.STEP
        self.process: Process
        self._first = Left(disk, Database(choices, passage=self.passage), store)

    def __enter__(self) -> Self:
        for room in ROOMS:
            room.failpoint = self.passage
        layout.STEP = 3
        self._handler = _Said(self)
        self._was = log.level, log.propagate
        log.addHandler(self._handler)
        log.setLevel(logging.WARNING)
        log.propagate = False
        self._start(self._first, 0.0)
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is not None:
            error.add_note("\n".join(["The last that happened:", *self.lines]))
        self.process.dead = True
        self.process.loop.die()
        self.tally.add(self)
        rooms, checkpoint.sqlite3, layout.STEP = self._before
        for room, was in rooms:
            room.failpoint = was
        log.removeHandler(self._handler)
        log.setLevel(self._was[0])
        log.propagate = self._was[1]

    # -- time and tokens ----------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.process.loop.time()

    def clock(self) -> float:
        return EPOCH + self.now()

    def new_token(self) -> str:
        self.numbers += 1
        return f"{self.numbers:04x}"

    def trace(self, what: str) -> None:
        line = f"{self.now():.6f} {what}"
        self.lines.append(line)
        self._digest.update(line.encode())

    @property
    def fingerprint(self) -> str:
        """Of everything that has happened: the same seed gives the same one."""
        return self._digest.hexdigest()

    # -- crashes ------------------------------------------------------------------------------------------------------

    def crash_at(self, where: str, passages: int, *, power: bool) -> None:
        """Crash at a passage whose name has this in it, after so many others. It may come while another one starts."""
        self.crash = Crash(where, passages, power)

    def crash_now(self, *, power: bool) -> None:
        self.freeze(power=power)
        self.restart()

    def stop_and_start(self, grace_seconds: float, *, reboots: bool) -> None:
        """SIGTERM, and the next start; perhaps after the machine was shut down in order."""
        self.stop(grace_seconds)
        if reboots and self.left:
            self.boots += 1
            self.left.disk.flush()
            for model in self.models.values():
                model.low = model.announced
                model.faults.add("power cut")  # what was not synced counts no more, though it is there
        self.restart()

    def passage(self, name: str) -> None:
        """Whatever happens passes here, just before and just after: the product's failpoints, and acts of our own."""
        if self.left is not None or self.process.dead:
            return
        self.passed[name] += 1
        self.trace(name)
        if (crash := self.crash) and crash.where in name:
            self.crash = crash._replace(left=crash.left - 1)
            if crash.left <= 0:
                self.crashed_at[name] += 1
                self.freeze(power=crash.power)

    def freeze(self, *, power: bool) -> None:
        """This is the moment of the crash."""
        process, self.crash = self.process, None
        self.trace(f"crash, {power=}")
        self.counts["power cuts" if power else "kills"] += 1
        for live in process.uploads.registry:
            if (model := self.models.get(live.upload.id)) and not live.stale:
                upload = live.upload
                kept = upload.received if upload.provisional is None else upload.provisional
                model.low = max(model.low, kept) if upload.state is State.OPEN else model.low
        for model in self.models.values():
            model.clients = 0
            if self.judge.unheard(model):
                model.faults.add("unheard")
            if power:
                model.low = model.announced
                model.faults.add("power cut")
        for client in self.clients:
            client.claim.told = client.claim.told or "nothing, the process has died"
        self.clients.clear()
        if power:
            self.boots += 1
            self.left = Left(
                process.disk.after_power_cut(), process.database.after_power_cut(), process.store.snapshot()
            )
        else:
            self.left = Left(process.disk.snapshot(), process.database.snapshot(), process.store.snapshot())
        process.dead = True
        process.loop.stop()

    def restart(self) -> None:
        """The next process, in what the last one has left. It may crash in its turn."""
        attempts = 0
        while (left := self.left) is not None:
            attempts += 1
            if attempts > 3:
                self.heal_disk()
                self.crash = None
            now = self.now() + self.choices.choice((0.0, 1.0, 30.0))
            self.process.loop.die()
            self.left = None
            self._start(left, now)

    def _start(self, left: Left, now: float) -> None:
        self.process = process = Process(self, left, now)
        checkpoint.sqlite3 = process.database.module()
        self.trace("start")
        self.counts["starts"] += 1
        starting = process.loop.create_task(process.start(f"boot {self.boots}"))
        starting.add_done_callback(lambda _: process.loop.stop())
        for _ in range(20):
            process.loop.spend(30.0)
            if starting.done() or self.left is not None:
                break
        self.raise_if_broken()
        if self.left is not None:
            return
        if not starting.done():
            self.breaks(Invariant.ENDS, f"a start never ends\n{self.picture()}")
        if error := starting.exception():
            if not isinstance(error, CheckpointError | SpoolError | StateDirectoryError | OSError):
                self.breaks(Invariant.KNOWN, f"a start fails: {error!r}", error)
            self.trace(f"start fails: {error!r}")
            self.counts["starts that failed"] += 1
            process.dead = True
            self.left = Left(process.disk.snapshot(), process.database.snapshot(), process.store.snapshot())
            return
        self._after_start()

    def _after_start(self) -> None:
        """What must be there after any crash."""
        for model in self.models.values():
            model.touched = min(model.touched, self.now())
            live = self.process.uploads.registry.get(model.id)
            if (
                live
                and live.upload.state is State.OPEN
                and live.upload.received < model.low
                and not self.judge.hurt(model, "read")
            ):
                self.fail(
                    Broken(Invariant.RECEIVED, f"{model}: {model.low} were received, {live.upload.received} are left")
                )
            model.low = 0
        self.judge.look(bytes_too=True)

    # -- time passes --------------------------------------------------------------------------------------------------

    def spend(self, seconds: float) -> None:
        self._calm()
        self.process.loop.slow_seconds = self.slow_seconds
        self.process.loop.spend(seconds)
        self.raise_if_broken()
        if self.left is not None:
            self.restart()
        self.judge.look(bytes_too=False)

    def until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Whether it holds within so much time."""
        ends = self.now() + seconds
        step = 0.5
        while not condition():
            if self.now() > ends:
                return False
            self.spend(step)
            step = min(step * 1.5, 20.0)
        return True

    def fail(self, broken: BaseException, cause: BaseException | None = None) -> None:
        """Something does not hold. It is raised when the loop has given control back."""
        if self.broken is None:
            broken.__cause__ = cause
            self.broken = broken
        self.process.loop.stop()

    def breaks(self, invariant: Invariant, what: str, cause: BaseException | None = None) -> NoReturn:
        self.fail(Broken(invariant, what), cause)
        raise self.broken

    def raise_if_broken(self) -> None:
        if self.broken:
            raise self.broken
        if errors := self.process.loop.errors:
            error = errors[0].get("exception")
            if isinstance(error, Broken):
                self.fail(error)
                raise error
            self.breaks(Invariant.KNOWN, f"{errors[0]['message']}: {error!r}", error)

    def picture(self) -> str:
        return "\n".join([*self.lines, *picture(self.process.loop)])

    # -- clients ------------------------------------------------------------------------------------------------------

    def create(
        self,
        key: str,
        shape: str,
        size: int,
        body: str = "clean",
        *,
        policy: Policy | Literal["independent"] | None = None,
        subject: int = 0,
    ) -> None:
        """A client begins an upload to this key."""
        self.numbers += 1
        model = Model(f"u{self.numbers}", key, self.now())
        self.models[model.id] = model
        if policy == "replace":
            self.keys_replaced.add(key)
        if shape in {"chunked", "wrong digest", "last digest"} and (not size or "wrong" in shape):
            model.faults.add("cancelled")
        store = self.process.store
        description = described(self.choices, store.checksums, conditional=store.conditional_writes)

        def prepare(offset: int) -> Create:
            terms = shaped(shape, claim, model, offset)
            return Create(
                key=key,
                upload_id=model.id,
                body=terms,
                description=description,
                policy=None if policy == "independent" else policy,
                independent=policy == "independent",
            )

        claim = self._claim(size)
        self._send(model, claim, prepare, subject, body, offset=0)

    def append(self, model: Model, shape: str, size: int, body: str = "clean", *, wrong: int | None = None) -> None:
        """A client goes on with this upload: where the server says, or so many bytes beside what it was told."""

        def prepare(offset: int) -> Append:
            return Append(upload_id=model.id, offset=offset, body=shaped(shape, claim, model, offset))

        claim = self._claim(size)
        offset = None if wrong is None else max(0, model.announced + wrong)
        self._send(model, claim, prepare, model.subject, body, offset=offset)

    def _claim(self, size: int) -> Claim:
        self.numbers += 1
        return Claim(self.numbers, size)

    def _send(
        self,
        model: Model,
        claim: Claim,
        prepare: Callable[[int], Create | Append],
        subject: int,
        body: str,
        *,
        offset: int | None,
    ) -> None:
        """A request with a body is on its way. `body`: its end is `clean`, it is `cut`, or it `stalls` before."""
        model.asked(claim)
        model.subject = subject
        chunks, rest = [], claim.size
        while rest:
            chunks.append(self.choices.randint(1, rest) if len(chunks) < 4 else rest)
            rest -= chunks[-1]
        pauses = [self.choices.choice(PAUSES) for _ in (*chunks, 0)]
        if body != "clean":
            del chunks[self.choices.randint(0, len(chunks)) :]
        if body == "stalls":
            pauses[len(chunks) :] = [-1.0]
        slow = SlowBody(claim, chunks, pauses, "cut" if body == "cut" else None)
        client = Client(self, model, claim, prepare, GRANTS[subject], slow, offset)
        self.clients.append(client)
        self.trace(f"{model.id}: request {claim.number} of {claim.size} bytes, {body}")
        client.task = self._asks(client.run(), f"request {claim.number}")

    def inspect(self, model: Model) -> None:
        async def work(process: Process) -> None:
            live = await process.uploads.find(model.id, GRANTS[model.subject])
            upload = await process.uploads.inspect(live)
            if not process.dead and upload.state in LIVE:
                model.announce(upload.offset, "inspect")

        self._ask(f"inspect {model.id}", work)

    def look_up(self, model: Model) -> None:
        async def work(process: Process) -> None:
            upload = await process.uploads.look(model.id, GRANTS[model.subject])
            if not process.dead and upload.state in LIVE:
                model.announce(upload.offset, "look")

        self._ask(f"look at {model.id}", work)

    def cancel(self, model: Model) -> None:
        async def work(process: Process) -> None:
            live = await process.uploads.find(model.id, GRANTS[model.subject])
            model.faults.add("cancelled")
            await process.uploads.cancel(live)

        self._ask(f"cancel {model.id}", work)

    def remove(self, key: str, subject: int) -> None:
        """DELETE of a key."""
        self.may_remove.add(key)
        for model in self.models.values():
            if model.key == key:
                model.faults |= {"cancelled", "meddled"}

        async def work(process: Process) -> None:
            await process.uploads.remove(key, GRANTS[subject])

        self._ask(f"remove {key}", work)

    def cut(self, client: Client, *, harshly: bool) -> None:
        """A connection is lost, or its handler is cancelled."""
        self.trace(f"request {client.claim.number} is cut, {harshly=}")
        if harshly and client.task:
            client.model.faults.add("cut harshly")
            client.task.cancel()
        else:
            client.body.cut()

    def _ask(self, name: str, work: Callable[[Process], Any]) -> None:
        """A request without a body; `work` writes into the ledger what it is told."""
        process = self.process

        async def asking() -> None:
            try:
                await work(process)
            except NAMED as error:
                self.trace(f"{name} is told {type(error).__name__}")

        self.trace(name)
        self._asks(asking(), name)

    def _asks(self, request: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A request's task. What it does not expect is told at once: nobody else looks at it before it is collected."""
        task = self.process.loop.create_task(request, name=name)
        task.add_done_callback(self._answered)
        return task

    def _answered(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Broken):
            self.fail(error)
        elif error:
            self.fail(Broken(Invariant.KNOWN, f"{task.get_name()}: {error!r}"), error)

    def addressed(self, intent: Append) -> Model | None:
        """The upload that an append means."""
        if intent.upload_id is not None:
            return self.models[intent.upload_id]
        live = self.process.uploads.registry.open_upload(intent.key or "")
        return self.models.get(live.upload.id) if live else None

    # -- the weather --------------------------------------------------------------------------------------------------

    def lasts(self, seconds: float) -> None:
        """What the weather is like now stays so for at least so long."""
        self.calm_at = max(self.calm_at, self.now() + seconds)

    def exhaust(self, what: str) -> None:
        """The machine, or its disk, is at its end, or beyond."""
        disk, database = self.process.disk, self.process.database
        self.trace(f"exhausted: {what}")
        match what:
            case "disk full":
                disk.capacity = disk.used + self.choices.choice((0, 0, 20))
            case "few descriptors":
                disk.most_open = 1
            case "checkpoint full":
                database.full = True
            case "commits":
                database.rates["commit"] = 0.2
            case "questions":
                database.rates["question"] = 0.05
            case "threads":
                self.slow_seconds = 2.0
            case "store":
                self.weather.outage_until = self.now() + self.choices.choice((1.0, 20.0))
            case "permission":
                self.weather.denied_until = self.now() + self.choices.choice((1.0, 20.0))
            case _:
                disk.rates[what] = 0.2

    def revoke_or_restore(self, credential: str) -> None:
        self.revoked ^= {credential}
        self.doubted.add(credential)

    def _calm(self) -> None:
        if 0.0 < self.calm_at <= self.now():
            self.calm_at = 0.0
            self.weather.clear()
            self.heal_disk()
            self.slow_seconds = 0.0

    # -- others who have the bucket ------------------------------------------------------------------------------------

    def meddle(self, key: str, *, writes: bool) -> None:
        """Somebody else writes a key, or removes what is there."""
        self.trace(f"a stranger meddles with {key}, {writes=}")
        self.counts["objects written or removed by strangers"] += 1
        for model in self.models.values():
            if model.key == key:
                model.faults.add("meddled")
        self.keys_written.add(key)
        if writes:
            self.process.store.write_as_stranger(key, b"a stranger's")
        else:
            self.process.store.objects.pop(key, None)

    def abort(self, which: int) -> None:
        """A lifecycle rule aborts a multipart upload behind our back."""
        store = self.process.store
        if store.multiparts:
            found = store.multiparts.pop(sorted(store.multiparts)[which % len(store.multiparts)])
            self.trace(f"a multipart upload of {found.key} is aborted by others")
            self.counts["multipart uploads aborted by others"] += 1
            for model in self.models.values():
                if model.key == found.key:
                    model.faults.add("aborted")

    # -- the end ------------------------------------------------------------------------------------------------------

    def heal_disk(self) -> None:
        for one in (self.process.disk, *([self.left.disk] if self.left else [])):
            one.rates.clear()
            one.most_open = 1 << 30
            one.capacity = self.capacity
        for one in (self.process.database, *([self.left.database] if self.left else [])):
            one.rates.clear()
            one.full = False

    def heal(self) -> None:
        """The faults have stopped."""
        self.crash = None
        self.heal_disk()
        self.slow_seconds = 0.0
        self.revoked.clear()
        self.weather.clear()
        self.process.store.stale_listing = False

    def finish(self) -> None:
        """When the faults have stopped, everything comes to its end, and nothing is left."""
        self.heal()
        for client in list(self.clients):
            client.body.cut()
        if not self.until(lambda: not self.clients, 60.0):
            self.breaks(Invariant.ENDS, f"{len(self.clients)} requests are not answered\n{self.picture()}")
        self._let_all_end()
        self.stop(0.0)
        self.restart()
        self._let_all_end()  # a commit that had failed may have been found
        try:
            self.judge.require_nothing_left()
        except Broken as broken:
            self.fail(broken)
            raise

    def _let_all_end(self) -> None:
        def ended() -> bool:
            return not self.process.uploads.registry

        def done() -> bool:
            return ended() and len(self.process.loop.unfinished()) <= 1

        # What has ended looks for creations that come late, when they cannot come any more.
        if not self.until(ended, ENDS_SECONDS) or not self.until(done, drain.LATE_SECONDS + 60.0):
            self.breaks(Invariant.ENDS, f"{list(self.process.uploads.registry)} live on\n{self.picture()}")

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM. What is left is found by `restart`."""
        process = self.process
        self.trace(f"stop within {grace_seconds} s")
        self.counts["stops"] += 1
        stopping = process.loop.create_task(process.stop(grace_seconds))
        stopping.add_done_callback(lambda _: process.loop.stop())
        for _ in range(20):
            process.loop.spend(30.0)
            if stopping.done() or self.left is not None:
                break
        self.raise_if_broken()
        if self.left is None:
            if not stopping.done():
                self.breaks(Invariant.ENDS, f"a stop never ends\n{self.picture()}")
            if error := stopping.exception():
                self.breaks(Invariant.KNOWN, f"a stop fails: {error!r}", error)
            self.freeze(power=False)
            self.counts["kills"] -= 1
