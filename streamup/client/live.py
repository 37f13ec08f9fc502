"""A live stream to one key: that of a pipe, or of a command which runs meanwhile.

It becomes an object only if its end is known to be one: the end of a pipe when nobody has interrupted it, or that of a
command which has ended well. Otherwise the upload is left open, with all that came.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from streamup.client.pipe import Pipe
from streamup.client.progress import Display, Lines
from streamup.client.progress import Progress as Shown
from streamup.client.remote import ClientError, Upload
from streamup.client.sending import Progress, Sending
from streamup.client.table import human_size, sentence

GRACE_SECONDS = 8.0
"""How long what has been read may still be sent after SIGTERM: who sends that, often kills after ten seconds."""

SAY_SECONDS = 30.0
"""How often people are told that the server is away for another reason than before."""

TERM_SECONDS = 5.0
"""How long a command may take to end by SIGTERM, before it is killed."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Source(Protocol):
    """Where a stream comes from."""

    pipe: Pipe

    async def ended_well(self) -> bool:
        """Whether the end of the pipe, which has come, is the stream's. Tells the same when asked again."""
        ...

    def signalled(self, number: int) -> None:
        """We have got a signal."""
        ...


@dataclass
class Outcome:
    """What has become of a stream. `upload_id` None: nothing came, and nothing is at the server.

    `read` and `durable` in bytes. `sealed`: every byte is safe at the server; `stored` is the object, if the store has
    confirmed it. `error` is what went wrong with the upload; `cut`: there was no time for all that had been read.
    """

    upload_id: str | None = None
    read: int = 0
    durable: int = 0
    sealed: bool = False
    stored: Upload | None = None
    error: ClientError | OSError | None = None
    cut: bool = False


async def send(
    source: Source,
    begin: Callable[[Callable[[Progress], None]], Sending],
    lines: Lines,
    name: str,
    *,
    allow_empty: bool = False,
) -> Outcome:
    """Send a stream to its end, and make an object of it, if it has ended well.

    The first signal goes to the source; after SIGTERM and SIGHUP what was read is sent for some seconds more. A second
    signal ends the process.
    """
    pipe, outcome = source.pipe, Outcome()
    words = _Words(lines, pipe)
    words.sending = sending = begin(words.tell)

    async def deliver() -> None:
        if not await pipe.first() and not (allow_empty and await source.ended_well()):
            return
        async with Display(lines) as display:
            words.progress = display.begin(name, None)
            words.progress.follow("sending", lambda: (sending.progress.durable, None))
            await sending.deliver()
            if await source.ended_well():
                outcome.stored = await sending.seal()
                outcome.sealed = True

    work = asyncio.create_task(deliver(), name="live stream")

    def signalled(number: int) -> None:
        source.signalled(number)
        if number == signal.SIGINT:
            lines.say("Interrupted. What still comes is sent; a second signal ends at once.")
        else:
            lines.say(f"Ending. What has come is sent, for {GRACE_SECONDS:g} s at most; a second signal ends at once.")
            asyncio.get_running_loop().call_later(GRACE_SECONDS, work.cancel)

    with _first_of(SIGNALS, signalled):
        await asyncio.wait([work])
    if work.cancelled():
        outcome.cut = True
    elif error := work.exception():
        if not isinstance(error, ClientError | OSError):
            raise error
        outcome.error = error
    outcome.upload_id, outcome.durable, outcome.read = sending.upload_id, sending.progress.durable, pipe.backlog.end
    return outcome


@contextmanager
def _first_of(numbers: Sequence[int], act: Callable[[int], None]) -> Iterator[None]:
    """The first of these signals calls `act`, and the next has its default effect: it ends even what hangs.

    Those that are ignored (nohup, a shell's background) stay ignored.
    """
    loop = asyncio.get_running_loop()
    former = {number: signal.getsignal(number) for number in numbers}
    former = {number: handler for number, handler in former.items() if handler is not signal.SIG_IGN}

    def let_go(handlers: Mapping[int, Any]) -> None:
        for number in former:
            loop.remove_signal_handler(number)
            signal.signal(number, handlers[number])

    def first(number: int) -> None:
        let_go(dict.fromkeys(former, signal.SIG_DFL))
        act(number)

    for number in former:
        loop.add_signal_handler(number, first, number)
    try:
        yield
    finally:
        let_go(former)


class _Words:
    """What people are told while a stream is on its way: when the connection is lost, and when it is back."""

    sending: Sending
    progress: Shown

    def __init__(self, lines: Lines, pipe: Pipe) -> None:
        self._lines = lines
        self._pipe = pipe
        self._lost = False
        self._said: tuple[str, float] = ("", 0.0)

    def tell(self, at: Progress) -> None:
        """Raises `ClientError` for a server that has never been reached, when there is no room for more."""
        kept = human_size(self._pipe.backlog.end - at.durable)
        reason = sentence(at.reason)
        self.progress.waiting = f"{reason} Keeping {kept}." if at.state == "waiting" else None
        if at.state == "waiting":
            if self._pipe.full and not self.sending.reached:
                raise ClientError(f"{reason} And there is no room to keep more of the stream.", again=True)
            said, then = self._said
            if not self._lost or (reason != said and time.monotonic() > then + SAY_SECONDS):
                self._lines.say(f"{reason} Trying again; what comes meanwhile is kept.")
                self._said = reason, time.monotonic()
            self._lost = True
        elif at.state == "connected" and self._lost:
            self._lines.say(f"Connected again. {kept} are still to be sent.")
            self._lost = False


# --- sources


class Piped:
    """Standard input.

    Ctrl-C reaches the whole pipeline. What the producer still brings after it is sent, but its end is no end: a
    producer that was cut off looks the same.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.interrupted = False

    async def ended_well(self) -> bool:
        """As `Source`."""
        return not self.interrupted and self.pipe.error is None

    def signalled(self, number: int) -> None:
        """As `Source`."""
        self.interrupted = True
        if number != signal.SIGINT:
            self.pipe.stop()


class Command:
    """A command that writes the stream to its standard output. Its other two are ours."""

    def __init__(self, pipe: Pipe, process: asyncio.subprocess.Process, ok_codes: Collection[int]) -> None:
        self.pipe = pipe
        self._process = process
        self._ok_codes = ok_codes

    async def code(self) -> int:
        """Its exit code as shells count it: 128 and the number of the signal that has ended it."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def ended_well(self) -> bool:
        """As `Source`. Raises `OSError` if its output could not be read to the end: it waits then, or has lost some."""
        if self.pipe.error is not None:
            raise self.pipe.error
        return await self.code() in self._ok_codes

    def signalled(self, number: int) -> None:
        """As `Source`. Ctrl-C has reached it already, and a second one makes programs leave in a hurry."""
        if not (number == signal.SIGINT and _in_foreground()):
            self._signal(number)

    async def end(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed that."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


async def start(command: Sequence[str]) -> tuple[int, asyncio.subprocess.Process]:
    """The reading end of its standard output, and the command. Raises `OSError`."""
    reading, writing = os.pipe()
    try:
        return reading, await asyncio.create_subprocess_exec(*command, stdout=writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)


def _in_foreground() -> bool:
    """Whether a Ctrl-C of our terminal is for our process group, and so for the command, too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
