"""Bodies that come, read in threads: over blocking sockets, and given to who takes them where they arrive.

An event loop takes 0.5 to 0.9 CPU-s/GiB to hand a body out, and all of it on one core; a thread takes 0.3, and whoever
writes or hashes the bytes there does so beside all others. A thread cannot be cancelled, so each has an end: what it
reads from is shut down, or it is left to its time-out, and the process does not wait for it.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from urllib3 import HTTPResponse

from streamup.stores import Take

T = TypeVar("T")

PIECE_BYTES = 1 << 20
"""Bytes in memory at a time, and what is given on at once where they come fast: in memory as aligned as they are in the
object, so that a file can take them without another copy (0.12 CPU-s/GiB less)."""

PIECE_SECONDS = 1.0
"""After which slow ones are given on."""

READ_BYTES = 128 << 10
"""What is cut off within so many is asked for again."""


def in_thread(work: Callable[[], T]) -> Future[T]:
    """`work` in a thread of its own, which holds up nobody's end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it learns it
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="body", daemon=True).start()
    return future


async def answered(ask: Callable[[], T], leave: Callable[[T], None]) -> T:
    """What `ask` returns, in a thread. Who is cancelled does not wait for it: what still comes is given to `leave`."""

    def left(done: Future[T]) -> None:
        if not done.exception():
            leave(done.result())

    asking = in_thread(ask)
    try:
        return await asyncio.wrap_future(asking)
    except asyncio.CancelledError:
        asking.add_done_callback(left)
        raise


async def pour(body: HTTPResponse, start: int, size: int, take: Take) -> int:
    """Give `size` bytes of `body`, which begin at `start` of the object, to `take`, as `ObjectStore.read` says. Returns
    how many there were.

    Raises what urllib3 raises. The body is to be closed: read to its end, its connection has gone back to the pool by
    then, and stays there.
    """

    def run() -> int:
        buffer, given, ended = memoryview(mmap.mmap(-1, PIECE_BYTES)), 0, False
        while given < size and not ended:
            room = min(PIECE_BYTES - (start + given) % PIECE_BYTES, size - given)
            came, due = 0, time.monotonic() + PIECE_SECONDS
            try:
                while came < room and not ended and time.monotonic() < due:
                    count = _read_into(body, buffer[came : min(came + READ_BYTES, room)])
                    came, ended = came + count, not count
            finally:
                given += came
                if came:
                    take(buffer[:came])
        return given

    pouring = asyncio.wrap_future(in_thread(run))
    try:
        return await asyncio.shield(pouring)
    except asyncio.CancelledError:
        with suppress(ValueError, RuntimeError, OSError):  # it has come to its end by itself
            body.shutdown()
        await asyncio.wait([pouring])
        pouring.exception()
        raise


def _read_into(body: HTTPResponse, buffer: memoryview) -> int:
    """The next bytes; 0 at the end. urllib3's own `readinto` makes an object of them and copies that, with twice the
    cost of all the rest here; so what is below it is asked, and errors are translated as urllib3 does.
    """
    with body._error_catcher():  # noqa: SLF001 - as above
        return body._fp.readinto(buffer)  # type: ignore[union-attr]  # noqa: SLF001 - as above
