"""How far transfers are: bars on a terminal, JSON lines for programs, and otherwise nothing but lines that are said.

async with Display(choose(quiet=False, as_json=False)) as display:
    progress = display.begin("movie.mp4", total)
    progress.add(len(data))                # bytes that have been transferred
    progress.turn("verifying", total)      # another phase begins
    progress.waiting = "..."               # why nothing comes, until it is set to None
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from streamup.client.table import human_size, printable

if TYPE_CHECKING:
    from rich.table import Table

JSON_SECONDS = 1.0
BAR_SECONDS = 0.2
"""Between two pictures: five a second look smooth, and cost nothing."""

RATE_SECONDS = 5.0
"""The rate is that of the last seconds: an average of hours would hide that it stalls now."""

NARROW_COLUMNS = 72
"""On a terminal that is narrower the numbers leave no room for a bar that would say anything."""


@dataclass(frozen=True, slots=True)
class State:
    """What is shown. `rate` in bytes a second; `total` is None where nobody knows it; `waiting` says for what."""

    name: str
    phase: str
    done: int
    total: int | None
    rate: float
    waiting: str | None = None

    @property
    def left(self) -> float | None:
        """Seconds, if it goes on like this."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total is not None else None


class Progress:
    """The numbers of one transfer."""

    def __init__(self, name: str, total: int | None, phase: str = "downloading") -> None:
        self.waiting: str | None = None
        self.name = name
        self._measure: Callable[[], tuple[int, int | None]] | None = None
        self._adding = threading.Lock()
        self.turn(phase, total)

    def turn(self, phase: str, total: int | None, done: int = 0) -> None:
        """Begin another phase."""
        self._phase, self.total, self.done, self._measure = phase, total, done, None
        self._marks = [(time.monotonic(), self.done)]

    def follow(self, phase: str, measure: Callable[[], tuple[int, int | None]]) -> None:
        """Begin another phase, which counts by itself: `measure` tells how much is done, and of how much."""
        done, total = measure()
        self.turn(phase, total, done)
        self._measure = measure

    def add(self, size: int) -> None:
        """Threads may call it."""
        with self._adding:
            self.done += size

    def skip(self, size: int) -> None:
        """So many bytes are done without any work: they say nothing about the rate."""
        self.add(size)
        self._marks = [(then, done + size) for then, done in self._marks]

    def state(self) -> State:
        """Now."""
        now = time.monotonic()
        if self._measure:
            self.done, self.total = self._measure()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_SECONDS:  # noqa: PLR2004 - a span has two ends
            del self._marks[0]
        then, done = self._marks[0]
        rate = (self.done - done) / (now - then) if now > then else 0.0
        return State(self.name, self._phase, self.done, self.total, max(rate, 0.0), self.waiting)


class Display:
    """Shows what goes on, from a task of its own: it goes on when nothing comes. `whole`: all of several transfers."""

    def __init__(self, show: Lines, whole: Progress | None = None) -> None:
        self._show = show
        self._whole = whole
        self._going: list[Progress] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self, name: str, total: int | None, phase: str = "downloading") -> Progress:
        """One more transfer."""
        progress = Progress(name, total, phase)
        self._going.append(progress)
        return progress

    def end(self, progress: Progress) -> None:
        """It is over, and shown no more."""
        self._going.remove(progress)

    async def __aenter__(self) -> Self:
        if self._show.seconds:
            self._show.begin()
            self._task = asyncio.create_task(self._run(self._show.seconds), name="progress")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
            with suppress(OSError):  # a terminal that has gone
                self._draw()
                self._show.end()

    async def _run(self, seconds: float) -> None:
        with suppress(OSError):  # as above
            while True:
                await asyncio.sleep(seconds)
                self._draw()

    def _draw(self) -> None:
        whole = self._whole.state() if self._whole else None
        self._show.draw([progress.state() for progress in self._going], whole)


class Lines:
    """Lines as they are said, and no picture: where there is no terminal, and with -q. The base of all others."""

    seconds: float | None = None
    """Between two pictures."""

    def begin(self) -> None: ...

    def draw(self, going: Sequence[State], whole: State | None) -> None:
        """Show what goes on, and all of it where there are several transfers."""

    def end(self) -> None:
        """Take the picture away."""

    def say(self, text: str) -> None:
        """One line for people, on stderr. One that cannot be written is no reason to end a transfer."""
        with suppress(OSError):  # the terminal has gone, the log's disk is full
            self._write(text)

    def _write(self, text: str) -> None:
        if sys.stderr is not None:  # closed from the beginning
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()

    def tell(self, text: str) -> None:
        """One line of what came out, on stdout."""
        sys.stdout.write(f"{printable(text)}\n")
        sys.stdout.flush()


class Json(Lines):
    """A line a second, of one transfer or of all: then with `files`, those on their way."""

    def __init__(self) -> None:
        self.seconds = JSON_SECONDS

    def draw(self, going: Sequence[State], whole: State | None) -> None:
        listed = [_numbers(state) for state in going]
        if whole:
            self.tell(json.dumps({**_numbers(whole), "files": listed}))
        else:
            for numbers in listed:
                self.tell(json.dumps(numbers))


class Bars(Lines):
    """A line with a bar for each transfer, redrawn in place at the end of what was said. Needs a terminal.

    rich is imported here, for 0.1 s: `get` in a script starts without it.
    """

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - as above
        from rich.live import Live  # noqa: PLC0415 - as above

        self.seconds = BAR_SECONDS
        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def begin(self) -> None:
        self._live.start()
        self._console.show_cursor(True)  # who is killed cannot give it back  # noqa: FBT003 - rich's argument

    def draw(self, going: Sequence[State], whole: State | None) -> None:
        self._live.update(self._table([*going, *([whole] if whole else [])]), refresh=True)

    def _table(self, states: Sequence[State]) -> Table:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415 - as above
        from rich.table import Table  # noqa: PLC0415 - as above
        from rich.text import Text  # noqa: PLC0415 - as above

        columns = self._console.width
        wide = columns >= NARROW_COLUMNS
        table = Table.grid(padding=(0, 1), expand=wide)
        if wide:
            table.width = columns - len("^C")  # which a terminal writes behind it; a line more would be left standing
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=columns // 3)
        if wide:
            table.add_column(ratio=1)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for state in states:
            bar = [ProgressBar(total=state.total or max(state.done, 1), completed=state.done)] if wide else []
            table.add_row(Text(printable(state.name)), *bar, Text(numbers(state)))
        return table

    def end(self) -> None:
        self._live.stop()

    def _write(self, text: str) -> None:
        """Above the bars."""
        self._console.print(printable(text), soft_wrap=True)

    def tell(self, text: str) -> None:
        """Above the bars, too, if stdout is the same terminal; otherwise nothing is in its way."""
        if sys.stdout.isatty():
            self.say(text)
        else:
            super().tell(text)


def choose(*, quiet: bool, as_json: bool) -> Lines:
    """The way that fits the options and the terminal."""
    if quiet:
        return Lines()
    if as_json:
        return Json()
    return Bars() if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


def numbers(state: State) -> str:
    """`25%  50 B of 200 B  sending  10 B/s  0:15 left`."""
    size = human_size(state.done)
    if state.total is not None:
        share = state.done / state.total if state.total else 1.0
        size = f"{share:4.0%}  {size} of {human_size(state.total)}"
    left = "" if state.left is None else f"  {clock(state.left)} left"
    moving = f"{state.phase}  {human_size(state.rate)}/s{left}"
    return f"{size}  {printable(state.waiting) if state.waiting else moving}"


def clock(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _numbers(state: State) -> dict[str, Any]:
    left = state.left
    told = {"name": state.name, "phase": state.phase, "done": state.done, "total": state.total}
    waiting = {"waiting": state.waiting} if state.waiting else {}
    return {**told, "rate": round(state.rate), "left": left and round(left, 1), **waiting}
