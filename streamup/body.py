"""A request body that ends with a reason instead of raising. aiohttp's peculiarities live here and nowhere else.

- A body whose sender closes right after the last chunk (ffmpeg always does) is complete, but aiohttp raises
  `ConnectionResetError` as soon as the connection is lost, with the tail still in its buffer. The parser has accepted
  those bytes, so they are read out of the buffer, and the parser's own word (`is_eof`) says whether that was all.
  This reaches into two private names of `StreamReader`, hence the bound on aiohttp's version; `tests/test_body.py`
  fails if they change.
- A truncated body never looks like a clean end: it raises as well, with `is_eof` false.
- A malformed chunk makes aiohttp wait for ever, so each read has a deadline of its own (`idle`).
- The body of a request that said `Expect: 100-continue` is only asked for when somebody begins to read it.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError


class RequestBody:
    """The body of one request (implements `writer.Body`)."""

    def __init__(self, request: web.BaseRequest, idle_seconds: float) -> None:
        self.interrupted: str | None = None
        self.begun = False
        self._request = request
        self._content: StreamReader = request.content
        self.idle_seconds = idle_seconds
        self._lost = False

    @property
    def awaited(self) -> bool:
        """Whether the client still waits for `100 Continue`, and so for a refusal in its place."""
        expects = self._request.headers.get("Expect", "").lower() == "100-continue"
        return expects and not self.begun and self._request.version >= (1, 1)

    async def read(self) -> bytes:
        """The next bytes as they came; none at the end, after a clean one as after any other (`interrupted`).

        May be cancelled: nothing leaves aiohttp's buffer before this returns it.
        """
        if self._lost:
            return self._drain()
        if not self.begun:
            self._begin()
        try:
            async with asyncio.timeout(self.idle_seconds):
                return await self._content.readany()
        except TimeoutError:
            self.interrupted = f"no byte came for {self.idle_seconds:g} s"
        except (ConnectionError, OSError):
            self._lost = True
            return self._drain()
        except (web.RequestPayloadError, HttpProcessingError) as error:
            self.interrupted = f"the body is malformed ({type(error).__name__})"
        return b""

    def _begin(self) -> None:
        """RFC 9110, 10.1.1: now the client may send."""
        if self.awaited and self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.begun = True

    def _drain(self) -> bytes:
        """What the parser had accepted before the connection was lost, piece by piece."""
        content = self._content
        content._exception = None  # noqa: SLF001 - it would be raised before the buffer is looked at
        if content._buffer:  # noqa: SLF001 - there is no public way to ask
            return content.read_nowait()
        if not content.is_eof():
            self.interrupted = "the connection was lost"
        return b""
