"""Reading an object in parallel, with patience: what `get` and `verify` have in common.

Spans begin and end where parts do, as far as parts are known: stores keep a part in one place, and read it so.
"""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import TypeVar

from streamup.client.proof import Cut
from streamup.client.source import Source
from streamup.client.table import sentence
from streamup.errors import AccessDenied, CredentialsExpired, Interrupted, StorePrecondition, StoreUnavailable
from streamup.layout import MIB

T = TypeVar("T")

PARALLEL = 8
"""Requests at a time. From 4 to 8 it made no difference beside the store (2 GiB, two cores); far away it does."""

SPAN_BYTES = 16 * MIB
"""What one request asks for, about, and at least. Smaller parts are joined to it, larger ones cut."""

MAX_SPAN_BYTES = 64 * MIB
"""Of an object that is large enough: 2 GiB beside a busy SeaweedFS took 4.6 to 6.3 s in such spans, and 6.1 to 8.6 s in
those of 16 MiB. Small ones are cut smaller, so that all connections have work until the end."""

SHARES = 4
"""Spans for each connection."""

PATIENCE_SECONDS = 60.0
"""Without a byte on any connection, until it is called interrupted."""

MAX_PAUSE_SECONDS = 8.0


class Patience:
    """Attempts with pauses between them, as long as bytes come now and then. `say` is told why, once for each spell.

    Who has never answered is not waited for: that may be a mistyped address, and nothing is lost yet.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None, seconds: float = PATIENCE_SECONDS) -> None:
        self._say = say
        self._seconds = seconds
        self._last = time.monotonic()
        self._failures = 0
        self._begun = False

    def reward(self) -> None:
        """Something has come."""
        self._last, self._failures, self._begun = time.monotonic(), 0, True

    async def pause(self, error: StoreUnavailable) -> None:
        """Wait before another attempt. Raises `Interrupted` when it was long enough, and what waiting cannot mend."""
        stale = isinstance(error, CredentialsExpired) and self._failures  # the second attempt had fresh ones
        if isinstance(error, AccessDenied) or stale:
            raise error
        if not (self._begun or self._failures or error.status or isinstance(error, CredentialsExpired)):
            raise Interrupted(f"{sentence(error)} Is the address right?") from error
        if time.monotonic() - self._last > self._seconds:
            raise Interrupted(f"{sentence(error)} The same command goes on where this ended.") from error
        if not self._failures:
            self._say(f"{sentence(error)} Trying again for {self._seconds:.0f} s.")
        self._failures += 1
        longest = min(MAX_PAUSE_SECONDS, 0.25 * 2 ** min(self._failures, 10))
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - spreads retries, protects nothing

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, after as many attempts as it takes."""
        while True:
            try:
                answer = await ask()
            except StoreUnavailable as error:
                await self.pause(error)
            else:
                self.reward()
                return answer


async def read_span(
    source: Source,
    span: tuple[int, int],
    etag: str,
    patience: Patience,
    take: Callable[[int, memoryview], object],
) -> None:
    """Give `take` the bytes of a span with their positions, in as many requests as it takes. Raises `Interrupted`."""
    position, end = span

    def took(piece: memoryview) -> None:
        nonlocal position
        take(position, piece)
        position += len(piece)
        patience.reward()

    while position < end:
        try:
            await source.read(position, end, etag, took)
        except StoreUnavailable as error:
            await patience.pause(error)
        except StorePrecondition as error:
            raise Interrupted(
                f"{source.name} was replaced while it was read. Nothing is made of two objects: the same command "
                "takes the new one."
            ) from error


async def in_parallel(count: int, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """So many workers, until all have ended or one has failed, which ends the others."""
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(count):
                workers.create_task(work())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def span_bytes(size: int, parallel: int) -> int:
    """How much one request asks for of an object of `size` bytes."""
    return max(SPAN_BYTES, min(MAX_SPAN_BYTES, size // (parallel * SHARES)))


def spans_between(gaps: Iterable[tuple[int, int]], cut: Cut, size: int) -> Iterator[tuple[int, int]]:
    """The gaps in spans of about `size` bytes: small parts together, and large ones in pieces."""
    for start, end in gaps:
        position = start
        while position < end:
            reach = bisect_right(cut, position + size) - 1  # the last part that ends within reach
            stop = cut[reach] if reach >= 0 and cut[reach] > position else position + size
            yield position, min(stop, end)
            position = stop
