"""streamup with something wrong in it, or in a hurry: `python tests/planted.py BUG,BUG push …`.

A test that does not notice such a bug would not notice the like.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from streamup import cli
from streamup.client import backlog, live, sending
from streamup.client.sending import Sending


def in_a_hurry() -> None:
    """No bug: silence is noticed in two seconds, and not in fifteen."""
    sending.STALL_SECONDS = sending.ANSWER_SECONDS = 1.0
    sending.OFFSET_SECONDS = 3.0


def releases_what_was_sent() -> None:
    """... and not what is durable."""
    account = Sending._account

    def released(self: Sending, position: int, piece: Any) -> None:
        account(self, position, piece)
        self._supply.release(self._read)

    Sending._account = released  # type: ignore[method-assign]


def goes_on_where_it_was() -> None:
    """... and not where the server is."""
    begin = Sending._begin

    async def begun(self: Sending) -> int:
        sent = self._sent
        return max(await begin(self), sent)

    Sending._begin = begun  # type: ignore[method-assign]


def believes_an_offset_that_fell() -> None:
    begin = Sending._begin

    async def begun(self: Sending) -> int:
        self._durable = 0
        return await begin(self)

    Sending._begin = begun  # type: ignore[method-assign]


def completes_whatever_the_command_says() -> None:
    async def well(_: live.Command) -> bool:
        return True

    live.Command.ended_well = well  # type: ignore[method-assign]


def does_not_wait_for_the_command() -> None:
    """The end of its output is the end of it."""

    async def well(self: live.Command) -> bool:
        return self._process.returncode in {None, 0}

    live.Command.ended_well = well  # type: ignore[method-assign]


def knows_no_bound() -> None:
    begin = backlog.Backlog.__init__

    def unbounded(self: backlog.Backlog, memory_bytes: int, file_bytes: int, *rest: Any, **more: Any) -> None:
        begin(self, memory_bytes, 1000 * file_bytes, *rest, **more)

    backlog.Backlog.__init__ = unbounded  # type: ignore[method-assign]


def keeps_in_memory_what_is_in_files() -> None:
    put, kept = backlog._InFile.put, []

    def kept_too(self: backlog._InFile, data: memoryview) -> int:
        kept.append(bytes(data))
        return put(self, data)

    backlog._InFile.put = kept_too  # type: ignore[method-assign]


def leaves_its_files() -> None:
    os.unlink = lambda *_, **__: None  # type: ignore[assignment]


def waits_for_ever() -> None:
    """A connection on which nothing happens is as good as any."""
    sending.STALL_SECONDS = 10_000.0


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        globals()[name]()
    cli.main()
