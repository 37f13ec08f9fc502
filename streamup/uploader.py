"""What all uploads share on their way into the store: permits for parts in flight, and patience with the store.

The store's "later" (`StoreUnavailable`) is waited out for ever, with full jitter; everybody wakes when anybody gets
through. "Not this one" (`AccessDenied`) holds one upload, says why, and says nothing about the store. What each upload
does is `drain`'s business, and `completion`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from streamup.checkpoint import Checkpoint
from streamup.errors import (
    AccessDenied,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.spool import Files
from streamup.stores import ObjectStore

P = ParamSpec("P")
T = TypeVar("T")

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MOST_SECONDS = 15.0
"""Longest wait between two attempts: what an outage may cost after its end, if no other attempt notices it earlier."""

BACKOFF_LEAST_SHARE = 0.1
"""The share of a wait that nobody's success shortens, so that one refusal among many successes is no hot loop."""

_owner = ContextVar("_owner", default="")
"""The upload for which the store is asked; the tasks of its parts inherit it."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Hold:
    """Why the store does not take one upload, None once it does; `said` is what the log has of that."""

    reason: str | None = None
    said: str | None = None


class Slots:
    """Permits to have a part in flight: as many as the store bears, fair between uploads.

    The next permit goes to the upload with the fewest parts in flight, so a fast upload cannot starve a live one.
    While the store throttles, there are fewer (halved each time); each success brings a fraction of one back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = Counter[str]()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._emptied = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Slots {self.in_flight.total()}/{self.limit:.1f}, {len(self._waiting)} waiting>"

    @asynccontextmanager
    async def hold(self, owner: str) -> AsyncIterator[None]:
        """A permit for as long as the context lasts. Cancelled while waiting: none is held."""
        await self._acquire(owner)
        try:
            yield
        finally:
            self._release(owner)

    async def idle(self) -> None:
        """Wait until no part is in flight."""
        while self.in_flight:
            self._emptied.clear()
            await self._emptied.wait()

    def throttled(self) -> None:
        self.limit = max(1.0, self.limit / 2)

    def succeeded(self) -> None:
        self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._grant()

    async def _acquire(self, owner: str) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(owner)
            raise
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not granted]

    def _release(self, owner: str) -> None:
        self.in_flight[owner] -= 1
        if not self.in_flight[owner]:
            del self.in_flight[owner]
        if not self.in_flight:
            self._emptied.set()
        self._grant()

    def _grant(self) -> None:
        while self.in_flight.total() < int(self.limit):
            pending = [entry for entry in self._waiting if not entry[1].done()]
            if not pending:
                return
            owner, granted = min(pending, key=lambda entry: self.in_flight[entry[0]])
            self.in_flight[owner] += 1
            granted.set_result(None)


class Uploader:
    """What all drains share."""

    def __init__(
        self,
        store: ObjectStore,
        checkpoint: Checkpoint,
        files: Files,
        *,
        parallel_parts: int,
        clock: Callable[[], float],
        jitter: random.Random,
    ) -> None:
        self.store = store
        self.checkpoint = checkpoint
        self.files = files
        self.slots = Slots(parallel_parts)
        self.clock = clock
        self.available = True
        self.stored_bytes = 0
        """What the store has confirmed since the start, in parts and in objects that needed none."""
        self.opened = asyncio.Event()
        """Cleared while the store's profile is not known: nothing is sent then, so that one upload is sent one way."""
        self.opened.set()
        self._jitter = jitter
        self._creations = WeakValueDictionary[str, asyncio.Lock]()
        self._answered = asyncio.Event()
        self._holds: dict[str, Hold] = {}

    @contextmanager
    def on_behalf_of(self, upload_id: str) -> Iterator[None]:
        """In here, and in tasks that are begun in here, the store is asked for this upload."""
        token = _owner.set(upload_id)
        try:
            yield
        finally:
            _owner.reset(token)
            self._holds.pop(upload_id, None)

    @property
    def answering(self) -> bool:
        """Whether the store answered last, and is known by now."""
        return self.available and self.opened.is_set()

    def held(self, upload_id: str) -> str | None:
        """Why the store does not take this upload now, though it answers."""
        hold = self._holds.get(upload_id)
        return hold.reason if hold else None

    def store_time(self) -> float:
        """Now by the store's clock, as its last answer told it; by ours before any."""
        return self.clock() + (self.store.clock_skew or timedelta()).total_seconds()

    def creation(self, key: str) -> asyncio.Lock:
        """Held while a multipart upload of this key is created, or orphans of this key are looked for."""
        return self._creations.setdefault(key, asyncio.Lock())

    async def insist(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call until the store answers. Raises `StoreRefused`; waits out everything else."""
        attempt = 0
        while True:
            try:
                answer = await call(*args, **kwargs)
            except StoreUnavailable as error:
                await self.pause(attempt, error)
                attempt += 1
            else:
                self.answered(taken=attempt > 0)  # else something else may be what is denied
                return answer

    async def pause(self, attempt: int, error: StoreUnavailable) -> None:
        """Wait before the next attempt: jittered, and after a moment only until the store has answered somebody (not if
        it throttles: it answers others, and wants less).
        """
        if isinstance(error, StoreThrottled):
            self.slots.throttled()
        if isinstance(error, AccessDenied):
            self._hold(str(error))
        else:
            if self.available:
                log.warning("the store does not answer: %s", error)
            self.available = False
        most = min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 10))
        least = most if isinstance(error, StoreThrottled) else most * BACKOFF_LEAST_SHARE
        await asyncio.sleep(self._jitter.uniform(least / 2, least))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._jitter.uniform(0, most - least)):
                await self._answered.wait()

    async def give_way(self, races: int) -> None:
        """Wait after a lost race: whoever won it, perhaps an earlier attempt of our own, needs a moment to be seen."""
        await asyncio.sleep(self._jitter.uniform(0.5, 1) * min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2**races))

    def _hold(self, reason: str) -> None:
        hold = self._holds.setdefault(_owner.get(), Hold())
        if reason != hold.said:
            log.warning("upload %s is held: %s", _owner.get(), reason)
        hold.reason = hold.said = reason

    def answered(self, *, taken: bool = True) -> None:
        """The store works: wake whoever waits for that. `taken`: and holds this upload no more."""
        self.slots.succeeded()
        if taken and (hold := self._holds.get(_owner.get())):
            hold.reason = None
        if not self.available:
            self.available = True
            log.info("the store answers again")
        self._answered.set()
        self._answered = asyncio.Event()
