"""One upload on its way to a server, over as many connections as it takes.

    sending = Sending(client, supply, "live/a.ts", tell=show)
    await sending.deliver()        # every byte of the supply is durable at the server
    stored = await sending.seal()  # and now it is an object, or will be (None)

The bytes come from a `Supply`, which keeps them until they are durable: from wherever the server says that it has got
to, they are sent again. In between nobody has to be asked: `Client.events` tells what has become durable while an
append lives. Where events do not come (a proxy may hold them back), an append is ended after some seconds, cleanly;
its answer tells the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from streamup.client.remote import Client, ClientError, Piece, Upload

T = TypeVar("T")

PATIENCE_SECONDS = 24 * 3600.0
"""As long as a server keeps an upload that nobody writes to (`--expire`)."""

FIRST_DELAY_SECONDS = 0.2
MOST_DELAY_SECONDS = 10.0
"""Between two attempts, with jitter: a server that starts again is not met by all of its clients in the same moment."""

MOST_OBEYED_SECONDS = 60.0
"""Longer than that no `Retry-After` is waited for: it may be a proxy's."""

IDLE_SECONDS = 10.0
"""An append without a new byte for so long is ended: a server cuts off who is silent for 30 s (`--idle`)."""

SLOW_BYTES = 10 << 10
"""... and so is one that has had no more than this in that time: a server wants 240 bytes a second (`--min-rate`)."""

SILENT_SECONDS = 60.0
"""A stream that brings nothing says so as often, by an append without a byte: a server lets go of an upload that nobody
has written to for some time (`--expire`), and what is wrong is found before there is something to send.
"""

STALL_SECONDS = 8.0
"""So long without progress, while bytes are on their way, an append is ended cleanly: then the server answers."""

ANSWER_SECONDS = 7.0
"""... and if that does not come, either, the connection is given up. A sync takes a second on a busy disk."""

OFFSET_SECONDS = 30.0
"""For the answer to HEAD: the server stops the former writer and waits until its bytes are durable. So does DELETE, and
POST takes no longer.
"""

SEAL_SECONDS = 90.0
"""For the answer to the seal, which the server gives after its `--store-timeout` (a minute) at the latest."""

DENIED = (401, 403)
"""A credential that was good may have expired, or was revoked."""

CANCEL_SECONDS = 60.0
"""So long it is tried to cancel an upload. One that stays expires by itself."""

LOOK_SECONDS = 0.5
"""How often it is looked whether there is progress."""


class Supply(Protocol):
    """Bytes to send, from 0 to an end that may not be known yet."""

    @property
    def length(self) -> int | None:
        """Of all, in bytes; None while that is not known."""
        ...

    async def read(self, position: int) -> Piece:
        """The next piece from there, as large as is convenient; waits for one. Empty at the end.

        It is only asked for what has not been released. What it returns does not change. May be cancelled.
        """
        ...

    def release(self, position: int) -> None:
        """Everything before it is durable at the server, and will not be asked for again."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is, in bytes: `read` of the supply, `sent` on this connection, `durable` at the server.

    `state` is one of connecting, connected, waiting (`seconds` long, because of `reason`), sealing.
    """

    state: str
    read: int
    sent: int
    durable: int
    reason: str = ""
    seconds: float = 0.0


class Sending:
    """One upload of `supply` to `key`, by `client`; a new one, or the one with `upload_id`.

    `patience`: seconds without progress after which it is given up; `first_patience` the same until the server has
    answered for the first time, if only "later". `checked`: a position before which all is known to be as the server
    has it, and the CRC64NVME of that; the rest is read once for it, whatever the server has. `tell` is called when
    `progress.state` changes; for numbers look at `progress`.
    """

    def __init__(
        self,
        client: Client,
        supply: Supply,
        key: str,
        *,
        upload_id: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        patience: float = PATIENCE_SECONDS,
        first_patience: float | None = None,
        checked: tuple[int, int] = (0, 0),
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.upload_id = upload_id
        self.reached = False
        """Whether the server has ever answered as it should."""

        self._client = client
        self._supply = supply
        self._key = key
        self._content_type = content_type
        self._metadata = metadata
        self._patience = patience
        self._first_patience = patience if first_patience is None else first_patience
        self._read, self._crc = checked
        self._sent = self._durable = 0
        self._failures = 0
        self._failing_since = 0.0
        self._tell = tell
        self._broken: Exception | None = None
        self._state: tuple[str, str, float] = ("connecting", "", 0.0)

    @property
    def progress(self) -> Progress:
        """Now."""
        state, reason, seconds = self._state
        return Progress(state, self._read, self._sent, self._durable, reason, seconds)

    def _turn(self, state: str, reason: str = "", seconds: float = 0.0) -> None:
        if self._state != (state, reason, seconds):
            self._state = state, reason, seconds
            self._tell(self.progress)

    # -- bytes --------------------------------------------------------------------------------------------------

    async def deliver(self) -> int:
        """Send until the supply's end; how many bytes that is. All of them are durable then, and the upload is open.

        Raises `ClientError` when the server has refused for good, or (`again`) patience is at its end; and what
        `Supply.read` raises. Cancelled, it leaves the upload open, too.
        """
        listening: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    position = await self._begin()
                    if listening is None:
                        listening = asyncio.create_task(self._listen(), name="durable offsets")
                    while not await self._append(position):
                        position = self._durable
                except ClientError as error:
                    await self._pause(error)
                else:
                    return self._durable
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait([listening])

    async def _begin(self) -> int:
        """Where to begin, or to go on."""
        if self.upload_id is None:
            creating = self._client.create(
                self._key, length=self._supply.length, content_type=self._content_type, metadata=self._metadata
            )
            self.upload_id = await within(OFFSET_SECONDS, creating)
            position = 0
        else:
            position = await within(OFFSET_SECONDS, self._client.offset(self.upload_id))
        self.reached = True
        length = self._supply.length
        if position < self._durable:
            raise ClientError(
                f"The server has {position} bytes of upload {self.upload_id}, and had said that {self._durable} are "
                "durable. Those between are gone.",
                refused=True,
            )
        if position > (self._read if length is None else length):
            raise ClientError(
                f"The server has {position} bytes of upload {self.upload_id}, more than there are here: somebody else "
                "is sending to it.",
                refused=True,
            )
        while self._read < position:
            self._account(self._read, await self._supply.read(self._read))
        self._learn(position)
        return position

    async def _append(self, position: int) -> bool:
        """One append, from its first byte on. Whether it has come to the supply's end."""
        assert self.upload_id is not None  # noqa: S101 - for the type checker: it has begun
        self._turn("connected")
        self._sent = position
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                first = await self._supply.read(position)
        except TimeoutError:
            await within(OFFSET_SECONDS, self._client.append(self.upload_id, position, b""))
            return False
        if not first:
            return True
        line = _Line(asyncio.get_running_loop())
        watching = asyncio.create_task(self._watch(line), name="progress of an append")
        try:
            async with line.aborted:
                appended = await self._client.append(self.upload_id, position, self._body(line, position, first))
        except TimeoutError:
            raise ClientError("The connection stalls.", again=True) from None
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            if self._broken is not None:
                raise self._broken
        self._learn(appended.offset)
        return line.finished and appended.offset == self._sent

    async def _body(self, line: _Line, position: int, piece: Piece) -> AsyncIterator[Piece]:
        """The bytes from `position` on, beginning with `piece`, until the supply's or the line's end."""
        loop = asyncio.get_running_loop()
        mark, since = position, loop.time()
        try:
            while piece:
                self._account(position, piece)
                position += len(piece)
                self._sent = position
                yield piece
                if line.ended:
                    return
                if loop.time() > since + IDLE_SECONDS:
                    if position < mark + SLOW_BYTES:
                        return
                    mark, since = position, loop.time()
                async with asyncio.timeout(IDLE_SECONDS) as line.waiting:
                    piece = await self._supply.read(position)
                line.waiting = None
            line.finished = True
        except TimeoutError:
            line.waiting = None
        except Exception as error:
            self._broken = error  # aiohttp would make another of it
            raise
        finally:
            line.over = True

    def _account(self, position: int, piece: Piece) -> None:
        """Take a piece into the checksum, as far as it has not been there yet."""
        from awscrt.checksums import crc64nvme  # noqa: PLC0415 - half a second of every other command

        if not piece:
            raise ClientError(f"There are {position} bytes here, fewer than the server has.", refused=True)
        if position + len(piece) > self._read:
            self._crc = crc64nvme(memoryview(piece)[self._read - position :], self._crc)
            self._read = position + len(piece)

    def _learn(self, offset: int) -> None:
        """Everything before `offset` is durable. It never falls; one beyond what was read is another writer's."""
        if self._durable < offset <= self._read:
            self._durable = offset
            self._failures = 0
            self._supply.release(offset)

    async def _listen(self) -> None:
        """Learn what has become durable, as long as this runs."""
        assert self.upload_id is not None  # noqa: S101 - as above
        delay = FIRST_DELAY_SECONDS
        while True:
            with suppress(ClientError, KeyError, TypeError):
                async for document in self._client.events(self.upload_id):
                    if document["id"] == self.upload_id:
                        self._learn(document["offset"])
                    delay = FIRST_DELAY_SECONDS
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
            delay = min(2 * delay, MOST_DELAY_SECONDS)

    async def _watch(self, line: _Line) -> None:
        """End an append that makes no progress."""
        loop = asyncio.get_running_loop()
        seen, since = self._durable, loop.time()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            idle = self._durable == self._sent and not line.over  # once it is over, an answer is due
            if self._durable != seen or idle:
                seen, since = self._durable, loop.time()
            elif loop.time() > since + STALL_SECONDS + ANSWER_SECONDS:
                line.aborted.reschedule(loop.time())
                return
            elif loop.time() > since + STALL_SECONDS:
                line.end()

    # -- failures -----------------------------------------------------------------------------------------------

    async def _pause(self, error: ClientError) -> None:
        """Wait before the next attempt; raises the error if there is none to be made."""
        elsewhere = error.status == 409 and error.offset is not None  # noqa: PLR2004 - Conflict: HEAD tells where to go on
        # Who was reached once is believed to be there still; what is between (a proxy, a login page) may say anything.
        # A stream does not come again: it waits for another credential, and a file is pushed again with one.
        denied = self.reached and error.status in DENIED and self._supply.length is None
        passing = error.again or elsewhere or denied or (self.reached and not error.refused)
        if not passing:
            raise error
        now = asyncio.get_running_loop().time()
        if self._failures == 0:
            self._failing_since = now
        answers = self.reached or error.status is not None
        if now - self._failing_since > (self._patience if answers else self._first_patience):
            raise ClientError(str(error), again=True, status=error.status) from error
        delay = min(FIRST_DELAY_SECONDS * 2**self._failures, MOST_DELAY_SECONDS) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        delay = max(delay, min(error.retry_after, MOST_OBEYED_SECONDS))
        self._failures = min(self._failures + 1, 16)  # for 2**n
        self._turn("waiting", str(error), delay)
        await asyncio.sleep(delay)
        self._turn("connecting")

    # -- the end ------------------------------------------------------------------------------------------------

    async def seal(self) -> Upload | None:
        """Say that this was all, after `deliver`. The object; None if the store has not confirmed it yet.

        It completes only with the bytes that were read here: their CRC64NVME goes with it. Raises `ClientError` as
        `deliver`.
        """
        assert self.upload_id is not None  # noqa: S101 - as above
        self._failures = 0
        while True:
            self._turn("sealing")
            try:
                seal = self._client.append(self.upload_id, self._durable, b"", last=True, crc64nvme=self._crc)
                return (await within(SEAL_SECONDS, seal)).stored
            except ClientError as error:
                if error.offset not in (None, self._durable):
                    raise ClientError(str(error), refused=True, status=error.status) from error
                await self._pause(error)


async def cancel(client: Client, upload_id: str) -> None:
    """Give an upload up, with every byte of it; for some time as often as it takes. Raises `ClientError`."""
    loop = asyncio.get_running_loop()
    deadline, delay = loop.time() + CANCEL_SECONDS, FIRST_DELAY_SECONDS
    while True:
        try:
            return await within(OFFSET_SECONDS, client.cancel(upload_id))
        except ClientError as error:
            if error.status in (404, 410):  # it has been cancelled, and that answer was lost
                return None
            if not error.again or loop.time() > deadline:
                raise
        await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
        delay = min(2 * delay, MOST_DELAY_SECONDS)


class _Line:
    """One append, to be ended from outside: cleanly, or at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.aborted = asyncio.timeout(None)
        self.waiting: asyncio.Timeout | None = None
        self.ended = False
        self.finished = False
        """Whether its body went on to the supply's end."""

        self.over = False
        """Whether its body has ended, there or before."""

    def end(self) -> None:
        """Its body ends with what has been sent."""
        if not self.ended:
            self.ended = True
            if self.waiting is not None and not self.waiting.expired():
                self.waiting.reschedule(self._loop.time())


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives. Raises `ClientError` if it takes longer: a connection may be dead, and nobody says so."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise ClientError(f"The server does not answer within {seconds:g} s.", again=True) from None
