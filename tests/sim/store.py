"""The strict store, with weather: whatever a store, or the way to it, does to a request, drawn for each call.

store = SimStore(weather, disk, clock=...)
weather.rates["put_part lost"] = 0.2       # its effect happens, and its answer is lost
weather.outage_until = 30.0                # nothing gets through before this time
"""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from fake_store import DROP, Arrives, Damages, FakeObject, FakeStore, Fault, Keeps, Tells, flipped, lost, shortened

from streamup.errors import AccessDenied, CredentialsExpired, StoreConflict, StoreThrottled, StoreUnavailable
from streamup.stores import Checksum, ObjectMeta, PartBody, StoredObject

WRITES = ("create_multipart", "put_part", "complete_multipart", "put_object", "abort_multipart", "delete")
WHOLE = ("put_object", "complete_multipart")


def _without_checksums(answer: StoredObject) -> StoredObject:
    """An answer that proves nothing."""
    return replace(answer, checksums={}, token=None)


TROUBLES: Mapping[str, tuple[Sequence[str], Sequence[Fault]]] = {
    "refused": ((), (StoreUnavailable,)),
    "throttled": ((), (StoreThrottled,)),
    "expired": ((), (CredentialsExpired,)),
    "denied": ((), (AccessDenied,)),
    "error in a 200": (WHOLE, (StoreUnavailable("an error after the head of the answer", status=200),)),
    "lost": (WRITES, (DROP,)),
    "conflict": (("complete_multipart",), (StoreConflict("another request is under way", status=409),)),
    "damaged on its way": (("put_part", "put_object"), (Arrives(flipped), Arrives(shortened))),
    "kept wrong": (WHOLE, (Keeps(flipped), Keeps(shortened))),
    "told wrong": (WHOLE, (Tells(_without_checksums),)),
    "not kept": (WHOLE, ((Keeps(lost), Tells(_without_checksums)),)),
}
"""Kinds of trouble: which operations meet them (none are named: all do), and what it is."""

STRANGER = "a stranger's"

LATE_SHARE = 0.5
"""Of the creations that are given up, by whom or whatever: the request is on its way all the same, and arrives."""

LATE_SECONDS = 900.0
"""... so late at most. After that a store refuses what was signed before."""


@dataclass
class Weather:
    """What the store is like now. `rates`: how often a call of each kind of trouble meets it."""

    choices: random.Random
    now: Callable[[], float]
    delay_seconds: float = 0.05
    rates: dict[str, float] = field(default_factory=dict)
    outage_until: float = 0.0
    denied_until: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)

    async def __call__(self, operation: str, _number: int) -> Fault:
        faults: list[Fault] = [self.choices.random() * self.delay_seconds]
        if self.choices.random() < self.rates.get("slow", 0):
            self.happened[f"{operation} is slow"] += 1
            faults.append(self.choices.uniform(1, 20))
        trouble = self._trouble(operation)
        return (*faults, *(trouble if isinstance(trouble, tuple) else (trouble,)))

    def _trouble(self, operation: str) -> Fault:
        """The one that this call meets, if any."""
        for until, kind, fault in (
            (self.outage_until, "outage", StoreUnavailable),
            (self.denied_until, "access denied", AccessDenied),
        ):
            if self.now() < until:
                self.happened[kind] += 1
                return fault
        for kind, (operations, faults) in TROUBLES.items():
            if (not operations or operation in operations) and self._meets(operation, kind):
                return self.choices.choice(faults)
        return None

    def _meets(self, operation: str, kind: str) -> bool:
        if self.choices.random() >= self.rates.get(kind, 0):
            return False
        self.happened[f"{operation} {kind}"] += 1
        return True

    def clear(self) -> None:
        self.rates.clear()
        self.outage_until = self.denied_until = 0.0


class Watcher(Protocol):
    """Who is told what happens in the bucket, when it does."""

    def passage(self, name: str, /) -> None: ...
    def stored(self, key: str, made: FakeObject, sent: bytes, /) -> None: ...
    def removed(self, key: str, before: FakeObject, /) -> None: ...
    def not_kept(self, key: str, /) -> None: ...


class SimStore(FakeStore):
    """The bucket, as one process meets it: it reads that one's files, and tells its watcher."""

    watcher: Watcher
    bytes_of: Callable[[Path], bytes | None]

    def __init__(self, weather: Weather, **options: Any) -> None:
        super().__init__(**options)
        self.weather = self.plan = weather
        self._creations: list[tuple[str, ObjectMeta]] = []
        """On their way."""
        self._late: list[tuple[float, str, ObjectMeta]] = []
        """Given up, and when they arrive."""

    def snapshot(self) -> SimStore:
        """A copy that the next process meets: requests on their way have had their effect by now, or never will; but
        for creations, which may come late.
        """
        one = copy.copy(self)
        one.given_up, one._creations, one._late = list(self._creations), [], list(self._late)
        one.objects, one.completed = dict(self.objects), dict(self.completed)
        one.multiparts = {
            name: replace(multipart, parts=dict(multipart.parts), listed=list(multipart.listed))
            for name, multipart in self.multiparts.items()
        }
        one.effects, one.calls = list(self.effects), Counter(self.calls)
        one.in_flight, one.peak = Counter(), Counter()
        one._random = random.Random(self._random.random())
        one._let_go()
        return one

    async def create_multipart(self, key: str, meta: ObjectMeta) -> str:
        self._creations.append((key, meta))
        try:
            return await super().create_multipart(key, meta)
        finally:
            self._creations.remove((key, meta))
            self._let_go()

    def _let_go(self) -> None:
        for key, meta in self.given_up:
            if self.weather.choices.random() < LATE_SHARE:
                self.weather.happened["create_multipart is late"] += 1
                arrives = self.weather.now() + self.weather.choices.uniform(0, LATE_SECONDS)
                self._late.append((arrives, key, meta))
        self.given_up = []

    def arrive(self, until: float) -> None:
        """What is late and has arrived by then."""
        for arrives, key, meta in [one for one in self._late if one[0] <= until]:
            self._late.remove((arrives, key, meta))
            begun = self.multiparts[self._begin(key, meta)]
            begun.initiated -= timedelta(seconds=math.floor(self.weather.now() - arrives))

    def write_as_stranger(self, key: str, data: bytes) -> None:
        """Somebody else writes the key."""
        meta = ObjectMeta(token=STRANGER, checksum=Checksum.NONE)
        self.objects[key] = FakeObject(data, meta, self._etag(), {}, self._clock())

    async def delete(self, key: str) -> None:
        before = self.objects.get(key)
        try:
            await super().delete(key)
        finally:
            if before is not None and key not in self.objects:
                self.watcher.removed(key, before)

    @asynccontextmanager
    async def _call(self, operation: str, key: str = "key") -> AsyncIterator[Any]:
        self.arrive(self.weather.now())
        async with super()._call(operation, key) as damages:
            self.watcher.passage(f"before {operation} in the store")
            yield damages
            self.watcher.passage(f"after {operation} in the store")

    def _checked(self, body: PartBody, meta: ObjectMeta, damage: Any) -> bytes:
        """What comes without a checksum arrives as it was sent: nobody could tell."""
        return super()._checked(body, meta, Damages(()) if body.checksum is Checksum.NONE else damage)

    def _bytes_of(self, path: Path, size: int) -> bytes:
        if (data := self.bytes_of(path)) is None:
            raise FileNotFoundError(str(path))
        return data[:size]

    def _store(self, key: str, data: bytes, kept: bytes | None, *others: Any, **options: Any) -> StoredObject:
        before = self.objects.get(key)
        if kept is None:
            self.watcher.not_kept(key)
        try:
            return super()._store(key, data, kept, *others, **options)
        finally:
            if (made := self.objects.get(key)) is not None and made is not before:
                self.watcher.stored(key, made, data)
