"""The first SIGTERM or SIGINT asks a program to end in order, the second ends it. SIGHUP asks it to read again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STDIN = 0


def stop_signal(hangup: asyncio.Event | None = None) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second has its default effect again: it ends even a loop that hangs.

    SIGHUP sets `hangup`, if that is given; but when it tells that the terminal is gone which we were started from, we
    are to end, too.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    at_terminal = os.isatty(_STDIN)

    def stop() -> None:
        stopped.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    def hang_up(hangup: asyncio.Event) -> None:
        if at_terminal and not os.isatty(_STDIN):
            stop()
        else:
            hangup.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up, hangup)
    return stopped


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. The first SIGINT or SIGTERM cancels it: it ends in order, and `CancelledError` is raised."""

    async def stoppable() -> T:
        stop = asyncio.create_task(stop_signal().wait(), name="stop signal")
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        return await task

    try:
        return asyncio.run(stoppable())
    finally:
        work.close()  # if it was interrupted before it began
