"""A live stream as a `Supply`: what a pipe brings, read by a thread, and kept until it is durable at the server.

The producer at its other end only ever sees a slow pipe: while the backlog is full, nobody reads.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import threading
from contextlib import suppress

from streamup.client.backlog import Backlog
from streamup.client.remote import Piece

READ_BYTES = 1 << 20
"""What is read at once. Also the size that a pipe is asked to have: 64 KiB, Linux's own, wake a reader up too often."""

ROOM_SECONDS = 1.0
"""How often a full disk is tried again: nobody says when it has room."""


class Pipe:
    """The stream of a file descriptor: a pipe, a terminal, a file, whatever can be read."""

    length = None

    def __init__(self, descriptor: int, backlog: Backlog) -> None:
        self.backlog = backlog
        self.ended = False
        """Whether nothing is read any more: `backlog.end` is the stream's."""

        self.error: OSError | None = None
        """What ended it, if not its own end."""

        self.full = False
        """Whether the producer waits, because there is no room for more."""

        self._descriptor = descriptor
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self._waiting = False
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pipe", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        with suppress(OSError, AttributeError):  # no pipe, one that may not grow, another system
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, READ_BYTES)
        self._thread.start()

    def stop(self) -> None:
        """Read no more: what is there is all."""
        with self._room:
            self.ended = True
            self._room.notify_all()
        self._more.set()

    async def first(self) -> bool:
        """Wait for the first byte. False if there is none, and never will be."""
        return len(await self.read(0)) > 0

    # -- Supply -------------------------------------------------------------------------------------------------

    async def read(self, position: int) -> Piece:
        """As `Supply.read`. Raises `OSError` if the temporary files cannot be read."""
        while position == self.backlog.end:
            self._more.clear()
            self._waiting = True
            if position == self.backlog.end:
                if self.ended:
                    return b""
                await self._more.wait()
        if self.backlog.in_memory(position):
            return self.backlog.at(position)
        return await asyncio.to_thread(self.backlog.at, position)

    def release(self, position: int) -> None:
        """As `Supply.release`."""
        self.backlog.release(position)
        with self._room:
            self._room.notify_all()

    # -- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.ended and (size := self._receive()):
                self._keep(self._buffer[:size])
        except OSError as error:
            self.error = error
        except MemoryError:
            self.error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.ended = True
        self._wake()

    def _receive(self) -> int:
        """Read what comes next into the buffer; 0 at the end."""
        while True:
            try:
                return os.readv(self._descriptor, [self._buffer])
            except BlockingIOError:  # whoever shares it with us may have made it so
                select.select([self._descriptor], [], [])

    def _keep(self, data: memoryview) -> None:
        """Waits for room."""
        while data and not self.ended:
            with self._room:  # so that no release falls between the question and the wait
                taken = self.backlog.add(data)
                self.full = not taken
                if self.full:
                    self._room.wait(ROOM_SECONDS)
            if taken:
                data = data[taken:]
                self._wake()

    def _wake(self) -> None:
        """The loop is told only if it waits: a thread that talks to it all the time would cost as much as the bytes."""
        if self._waiting:
            self._waiting = False
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._more.set)
