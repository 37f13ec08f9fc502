"""Bodies that come, read in threads: over blocking sockets, and given to who takes them where they arrive.

An event loop takes 0.5 to 0.9 CPU-s/GiB to hand a body out, and all of it on one core; a thread takes 0.3, and whoever
writes or hashes the bytes there does so beside all others. A thread cannot be cancelled, so each has an end: what it
reads from is shut down, or it is left to its time-out, and the process does not wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from urllib3 import BaseHTTPResponse

from streamup.stores import Take

T = TypeVar("T")

READ_BYTES = 128 << 10
"""Bytes in memory at a time. What is cut off within them is asked for again. Pieces of 32 KiB cost a third more, those
of 1 MiB up to twice as much, because the kernel looks for large pages to put them in."""


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


async def pour(body: BaseHTTPResponse, size: int, take: Take) -> int:
    """Give `size` bytes of `body` to `take`, as `ObjectStore.read` says. Returns how many there were.

    Raises what urllib3 raises. The body is to be closed: read to its end, its connection has gone back to the pool by
    then, and stays there.
    """

    def run() -> int:
        given = 0
        while given < size and (piece := body.read(min(READ_BYTES, size - given))):
            take(memoryview(piece))
            given += len(piece)
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
