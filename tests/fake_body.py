"""A request body in memory, for tests without HTTP."""

from __future__ import annotations

import asyncio


class Body:
    """Chunks, then its end. `None` among the chunks waits until the test says `go_on`."""

    def __init__(self, *chunks: bytes | None, interrupted: str | None = None) -> None:
        self.chunks = list(chunks)
        self.ending = interrupted
        self.interrupted: str | None = None
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self) -> bytes:
        if self.chunks and self.chunks[0] is None:
            self.waiting.set()
            await self.go_on.wait()
            self.chunks.pop(0)
        if self.chunks:
            return self.chunks.pop(0) or b""
        self.interrupted = self.ending
        return b""
