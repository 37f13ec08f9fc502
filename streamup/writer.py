"""One append: a writer feeds a request's body into an upload until it ends, or is stopped.

`Live` is an upload that still holds bytes or promises, with what moves it: its part accumulator, its drain into the
store, and at most one `Writer` (law 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from streamup.accumulator import Accumulator
from streamup.digests import Running
from streamup.errors import UploadBusy
from streamup.terms import Terms
from streamup.upload import Upload


class Body(Protocol):
    """The body of one request, as body.py reads it from a socket."""

    interrupted: str | None
    """Why the body ended, None after a clean end."""

    async def read(self) -> bytes:
        """The next bytes; none at the end, whatever the end was. May be cancelled without losing any."""
        ...


class Writer:
    """The one live append of an upload: feeds a body into the accumulator until it ends, or is stopped."""

    def __init__(self, live: Live, terms: Terms, began: float, replaces: Live | None = None) -> None:
        """`began`: when, by the clock of the event loop."""
        self.live = live
        self.terms = terms
        self.began = began
        self.replaces = replaces
        self.settled = asyncio.Event()
        self.stopped: str | None = None
        self.sealed = False
        self._scope: asyncio.Timeout | None = None

    @property
    def added(self) -> int:
        """Bytes that have come from this writer and are kept, the provisional ones too."""
        return self.live.accumulator.position - self.terms.start

    @property
    def feeding(self) -> bool:
        """Whether it is between a body and the accumulator now."""
        return self._scope is not None

    def stop(self, reason: str) -> None:
        """End at once, wherever it waits: it drains nothing and seals nothing (law 6)."""
        self.stopped = self.stopped or reason
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def feed(self, body: Body, arrived: Callable[[], Coroutine[Any, Any, None]]) -> str | None:
        """Returns None after a clean end, else why it ended. `arrived` is awaited once, at the first bytes.

        Raises `BadRequest` (a byte too many), `TooLarge`, `DigestMismatch` (after a clean end) and `SpoolError`. It is
        cancelled by `stop` through its timeout only.
        """
        running = Running(self.terms.digests)
        try:
            async with asyncio.timeout(None) as self._scope:
                if self.stopped:
                    return self.stopped
                await self._resume()
                while chunk := await body.read():
                    if self.stopped:
                        break
                    if not self.added:
                        await arrived()
                    self.terms.check_size(self.added, len(chunk))
                    await self.live.accumulator.add(chunk, limit=self.terms.limit)
                    running.update(chunk)
                if (ending := self.stopped or body.interrupted) is None:
                    running.check()
                return ending
        except TimeoutError:
            return self.stopped or "stopped"
        finally:
            self._scope = None

    async def _resume(self) -> None:
        if self.terms.digests:
            await self.live.accumulator.resume_provisionally(self.terms.most, limit=self.terms.limit)
        else:
            await self.live.accumulator.resume()


class Live:
    """An upload in memory, and what moves it.

    `entry` is held by a newcomer from stopping the old writer to being the new one; `syncing` during a sync, so that
    those who ask together share it; `announced` is when the last one was, by the loop's clock. `ended` is set once
    nothing moves any more.
    `stale`: a commit failed, so memory may be wrong; `rereads` counts how often that has happened to this upload.
    """

    def __init__(self, upload: Upload, accumulator: Accumulator) -> None:
        self.upload = upload
        self.accumulator = accumulator
        self.writer: Writer | None = None
        self.entry = asyncio.Lock()
        self.syncing = asyncio.Lock()
        self.ended = asyncio.Event()
        self.stale = False
        self.rereads = 0
        self.announced = float("-inf")
        self.drain: asyncio.Task[None] | None = None

    def require_fresh(self) -> None:
        """Raise `UploadBusy` while memory cannot be trusted: nothing is answered from it, and nothing done (law 4)."""
        if self.stale:
            raise UploadBusy("This upload is being read again after a fault of the disk. Ask again in a moment.")

    def __repr__(self) -> str:
        return f"<Live {self.upload.id} {self.upload.state} {self.upload.received} writer={self.writer is not None}>"
