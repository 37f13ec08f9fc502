"""A request body that ends with a reason instead of raising. aiohttp's peculiarities live here and nowhere else.

- A body whose sender closes right after the last chunk (ffmpeg always does) is complete, but aiohttp raises
  `ConnectionResetError` as soon as the connection is lost, with the tail still in its buffer. The parser has accepted
  those bytes, so they are read out of the buffer, and the parser's own word (`is_eof`) says whether that was all.
  This reaches into two private names of `StreamReader`, hence the bound on aiohttp's version; `tests/test_body.py`
  fails if they change.
- A truncated body never looks like a clean end: it raises as well, with `is_eof` false.
- A malformed chunk makes aiohttp wait for ever, so each read has a deadline of its own (`idle_seconds`).
- Who sends a byte now and then meets no such deadline, so there is a least rate, too, over the time that we waited.
  Time in which nobody reads (a full spool, a slow disk) is not the client's, and counts for neither.
- The body of a request that said `Expect: 100-continue` is only asked for when somebody begins to read it.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError


class RequestBody:
    """The body of one request (implements `writer.Body`)."""

    def __init__(self, request: web.BaseRequest, idle_seconds: float, min_rate: float = 0) -> None:
        """`idle_seconds`: how long no byte may come. `min_rate`: how many a second at least, whenever that much time
        has been spent waiting for them.
        """
        self.interrupted: str | None = None
        self.begun = False
        self._request = request
        self._content: StreamReader = request.content
        self.idle_seconds = idle_seconds
        self.min_rate = min_rate
        self._waited = 0.0
        self._came = 0
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
        if self._is_slow():
            self.interrupted = f"fewer than {self.min_rate:g} bytes a second came in {self.idle_seconds:g} s of waiting"
            return b""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.idle_seconds):
                data = await self._content.readany()
            self._waited += asyncio.get_running_loop().time() - began
            self._came += len(data)
            return data  # noqa: TRY300 - what follows are other ends
        except TimeoutError:
            self.interrupted = f"no byte came for {self.idle_seconds:g} s"
        except (ConnectionError, OSError):
            self._lost = True
            return self._drain()
        except (web.RequestPayloadError, HttpProcessingError) as error:
            self.interrupted = f"the body is malformed ({type(error).__name__})"
        return b""

    def _is_slow(self) -> bool:
        """Whether the least rate was missed, each time that enough time has been waited."""
        if self._waited < self.idle_seconds or self._content.is_eof():
            return False
        slow = self._came < self.min_rate * self._waited
        self._waited, self._came = 0.0, 0
        return slow

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
