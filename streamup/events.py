"""What those are told who watch: uploads as they change, as server-sent events (WHATWG HTML, 9.2).

A stream is an answer that goes on until the upload has ended, the client goes, its credential expires or is revoked, or
the server stops; then the client comes back, and it begins with everything, so there is nothing to remember about it.
The time of a token bounds a stream, too, though it bounds only the start of other requests: each event answers the
question anew, and who may ask for an hour must not be told for days.

Nobody waits for who watches. What has changed is told about once a second; while the socket takes nothing, nothing is
prepared for it, and what it is told then is the newest (law 8). The offset of one upload is made durable for that
(law 2); the list tells what is durable anyway.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from streamup.board import Board, marks_of, may_be_told
from streamup.config import Config
from streamup.errors import CheckpointDelayed, CheckpointError, Forbidden, SpoolError, UploadBusy, UploadError
from streamup.exchange import cut
from streamup.grants import Grant
from streamup.limits import Streams
from streamup.protocols.documents import event
from streamup.uploads import Pressure, Uploads
from streamup.writer import Live

EVERY_SECONDS = 1.0
"""How often it is looked whether there is something to tell."""

KEEP_ALIVE_SECONDS = 15.0
"""How long a stream may be silent: proxies take one for dead after 60 s (nginx), some already after 30 s."""

KEEP_ALIVE = b":\n\n"
"""A comment, which clients ignore."""

STREAMS_SHARE = 2
"""One of so many connections may be a stream (and as many of a subject's share): watchers never keep writers out."""

PIECE_BYTES = 32 << 10
"""What waits for a socket at most, and between two pieces the loop has its turn: some 60 uploads, 2 ms."""

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect them
}

Tell = Callable[["Watcher"], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


class Events:
    """All streams."""

    def __init__(self, config: Config, uploads: Uploads) -> None:
        self._uploads = uploads
        self._downloads = config.downloads
        self._board = Board(uploads)
        total = max(1, config.max_connections // STREAMS_SHARE)
        self._streams = Streams(total, config.share(total))
        self._scopes: set[asyncio.Timeout] = set()
        self._ended = False

    def end(self) -> None:
        """The server stops: every stream ends now, wherever it waits."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now)

    async def stream(self, request: web.Request, upload_id: str | None, grant: Grant, now: float) -> web.StreamResponse:
        """The events of one upload, or (None) of all that are one's own and of the server. `now`: the unix time.

        Raises `TooManyStreams`, `NotFound`, `CheckpointError`, and nothing once it has begun.
        """
        with self._streams.one_more(grant.subject):
            if upload_id is None:
                with self._board.watched():
                    return await self._stream(request, grant, now, partial(self._tell_all, grant))
            await self._uploads.look(upload_id, grant)
            return await self._stream(request, grant, now, partial(self._tell_one, grant, upload_id))

    async def _stream(self, request: web.Request, grant: Grant, now: float, tell: Tell) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        deadline = None if grant.expires is None else asyncio.get_running_loop().time() + grant.expires - now
        try:
            async with asyncio.timeout_at(0 if self._ended else deadline) as scope:
                self._scopes.add(scope)
                try:
                    writer = await response.prepare(request)
                    if writer is not None:  # for the type checker: it is for an answer that has been sent
                        await tell(Watcher(request, writer))
                finally:
                    self._scopes.discard(scope)
        except (TimeoutError, ConnectionError) as error:
            log.debug("a stream of events ended: %r", error)
        except (UploadError, SpoolError, CheckpointError) as error:
            log.debug("a stream of events cannot go on; its client comes back: %s", error)
        if request.transport is not None and request.transport.get_write_buffer_size():
            cut(request)  # it reads nothing, and nobody waits for it
        return response

    # -- what is told -------------------------------------------------------------------------------------------

    async def _tell_one(self, grant: Grant, upload_id: str, watcher: Watcher) -> None:
        told: object = None
        while live := self._uploads.live(upload_id, grant):
            if told is not None:  # the first time what is known is told at once: a disk may take its time
                await self._announce(live)
            if may_be_told(live) and (marks := marks_of(live, self._uploads)) != told:
                await watcher.say([event("upload", self._uploads.document(live.upload))])
                first, told = told is None, marks
                if first:
                    continue
            await self._pause(watcher, grant, live.ended)
        upload = await self._uploads.look(upload_id, grant)
        await watcher.say([event("upload", self._uploads.document(upload))])

    async def _announce(self, live: Live) -> None:
        """Make its offset durable. Raises `SpoolError`, `CheckpointError`."""
        try:
            await self._uploads.announce(live)
        except (UploadBusy, CheckpointDelayed):
            return  # it is being read again, or must wait for room: it will have something to tell
        except (SpoolError, CheckpointError):
            if may_be_told(live):
                raise
            # It has failed for that, and how it ended is told when that is committed.

    async def _tell_all(self, grant: Grant, watcher: Watcher) -> None:
        board, seen, pressure = self._board, self._board.look(), self._uploads.pressure()
        left_out = await self._tell_everything(grant, watcher)
        while True:
            await self._pause(watcher, grant)
            if board.forgotten > seen:
                return  # it was too slow to see every end, and begins anew
            before, seen, told, pressure = seen, board.look(), pressure, self._uploads.pressure()
            server = [] if pressure == told else [self._server_event(pressure, left_out)]
            changed = board.since(before, grant)
            await watcher.say(chain(server, (text for notice in changed if (text := notice.event))))

    async def _tell_everything(self, grant: Grant, watcher: Watcher) -> int:
        """How it is now. Returns how many uploads are left out."""
        uploads, left_out = await self._uploads.look_all(grant)

        def events() -> Iterator[bytes]:
            yield self._server_event(self._uploads.pressure(), left_out)
            for upload in uploads:
                notice = self._board.notice(upload.id)
                if text := notice.event if notice else event("upload", self._uploads.document(upload)):
                    yield text

        await watcher.say(events())
        return left_out

    def _server_event(self, pressure: Pressure, left_out: int) -> bytes:
        return event("server", pressure._asdict() | {"downloads": self._downloads, "left_out": left_out})

    async def _pause(self, watcher: Watcher, grant: Grant, until: asyncio.Event | None = None) -> None:
        """... until there may be something to tell. Raises `ConnectionError`, `Forbidden`: it is told nothing more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_SECONDS):
                await (until or asyncio.Event()).wait()
        if grant.credential is not None and not self._uploads.still_known(grant.credential):
            raise Forbidden("The credential has been revoked.")
        await watcher.keep()


class Watcher:
    """The socket of somebody who watches. Raises `ConnectionError` when nobody is there, or nobody reads."""

    def __init__(self, request: web.Request, writer: AbstractStreamWriter) -> None:
        self._request = request
        self._writer = writer
        self._said = asyncio.get_running_loop().time()
        self._transport.set_write_buffer_limits(high=0)  # so that `drain` waits until the kernel has everything
        if (connection := request.get_extra_info("socket")) is not None:
            # Else the kernel keeps megabytes of what was new an hour ago.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)

    @property
    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport

    async def say(self, events: Iterable[bytes]) -> None:
        for piece in _pieces(events):
            await self._writer.write(piece)
            await self._writer.drain()  # the listener has told the kernel how long that may take
            self._said = asyncio.get_running_loop().time()
            await asyncio.sleep(0)

    async def keep(self) -> None:
        """See whether it is still there, and say something if that was long ago."""
        if self._transport and asyncio.get_running_loop().time() >= self._said + KEEP_ALIVE_SECONDS:
            await self.say([KEEP_ALIVE])


def _pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """Events together, as many as make a piece."""
    piece = bytearray()
    for one in events:
        piece += one
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
