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
- Each read costs the same, however little there is: an encoder's chunks come one by one, and several are read together
  if the socket keeps them for a moment.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

GATHER_SECONDS = 0.04
"""How long a socket may keep what has come, at most: nobody who watches a live stream notices. 500 streams of 2 Mbit/s
in chunks of 4 KiB take 0.6 of a core, and 0.95 without this.
"""

GATHER_BYTES = 64 << 10
"""What is worth a read: it is left in the socket no longer than that takes to come, and fits into its first buffer."""

GATHER_LEAST_SECONDS = 0.002
"""A shorter pause costs as much as it saves."""

GATHER_AFTER_SECONDS = 1.0
"""So old is a body before its bytes wait for others: who sends something small waits for an answer."""


class RequestBody:
    """The body of one request (implements `writer.Body`)."""

    def __init__(self, request: web.BaseRequest, idle_seconds: float, min_rate: float = 0) -> None:
        """`idle_seconds`: how long no byte may come. `min_rate`: how many a second at least, whenever that much time
        has been spent waiting for them.
        """
        self.interrupted: str | None = None
        self.begun = False
        self.idle_seconds = idle_seconds
        self.min_rate = min_rate
        self._request = request
        self._content: StreamReader = request.content
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._last = 0.0
        self._waits_since: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
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
        began = self._waits_since = self._loop.time()
        if self._alarm is None:
            self._alarm = self._loop.call_later(self.idle_seconds, self._ring)
        try:
            data = await self._content.readany()
            now = self._loop.time()
            self._waited += now - began
            self._came += len(data)
            self._gather(len(data), now)
            return data  # noqa: TRY300 - what follows are other ends
        except TimeoutError:
            self.interrupted = f"no byte came for {self.idle_seconds:g} s"
        except (ConnectionError, OSError):
            self._lost = True
            return self._drain()
        except (web.RequestPayloadError, HttpProcessingError) as error:
            self.interrupted = f"the body is malformed ({type(error).__name__})"
        finally:
            self._waits_since = None
        return b""

    def _ring(self) -> None:
        """The deadline of the read that waits, if one does, has come or been moved.

        One timer serves all reads: one for each costs as much as the write of a small chunk.
        """
        self._alarm = None
        if self._waits_since is None:
            return
        left = self._waits_since + self.idle_seconds - self._loop.time()
        if left > 0:
            self._alarm = self._loop.call_later(left, self._ring)
        else:
            self._content.set_exception(TimeoutError())

    def _gather(self, size: int, now: float) -> None:
        """`size` bytes have come: leave the next ones in the socket until there are enough, or for a moment.

        A connection that is lost meanwhile keeps them, unless it is TLS, whose bytes are in memory by then.
        """
        since, self._last = now - self._last, now
        if now - self._began < GATHER_AFTER_SECONDS or not size or self._content.is_eof():
            return
        seconds = gather_seconds(size, since)
        transport = self._request.transport
        if not seconds or transport is None or transport.get_extra_info("sslcontext"):
            return
        if not transport.is_closing():
            transport.pause_reading()
            self._loop.call_later(seconds, _go_on, transport)

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
        self._began = self._last = self._loop.time()

    def _drain(self) -> bytes:
        """What the parser had accepted before the connection was lost, piece by piece."""
        content = self._content
        content._exception = None  # noqa: SLF001 - it would be raised before the buffer is looked at
        if content._buffer:  # noqa: SLF001 - there is no public way to ask
            return content.read_nowait()
        if not content.is_eof():
            self.interrupted = "the connection was lost"
        return b""


def gather_seconds(size: int, since: float) -> float:
    """How long to leave the socket alone after `size` bytes that came `since` seconds after those before; 0: not."""
    seconds = min(GATHER_SECONDS, GATHER_BYTES * since / size)
    return seconds if seconds >= GATHER_LEAST_SECONDS else 0.0


def _go_on(transport: asyncio.Transport) -> None:
    """Read again. Nothing has arrived meanwhile, so aiohttp has found no reasons of its own to pause."""
    if not transport.is_closing():
        transport.resume_reading()
