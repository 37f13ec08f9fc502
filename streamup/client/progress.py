"""How far a transfer is: a bar on a terminal, JSON lines for programs, or nothing.

async with Progress(total, "movie.mp4", show=choose(quiet=False, as_json=False)) as progress:
    progress.add(len(data))                # bytes that have been transferred
    progress.turn("verifying", total)      # another phase begins
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from streamup.client.table import human_size, printable

JSON_SECONDS = 1.0
BAR_SECONDS = 0.2
"""Between two pictures: five a second look smooth, and cost nothing."""

RATE_SECONDS = 5.0
"""The rate is that of the last seconds: an average of hours would hide that it stalls now."""


CLEAR = "\r\x1b[K"
"""Takes the bar off its line."""


@dataclass(frozen=True, slots=True)
class State:
    """What is shown. `rate` in bytes a second; `seconds` since the phase began."""

    name: str
    phase: str
    done: int
    total: int
    rate: float
    seconds: float

    @property
    def left(self) -> float | None:
        """Seconds, if it goes on like this."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


@dataclass(frozen=True, slots=True)
class Show:
    """How to show a state, how often, and how to end."""

    state: Callable[[State], None]
    seconds: float
    end: Callable[[], None]


def choose(*, quiet: bool, as_json: bool) -> Show | None:
    """The way that fits the options and the terminal; None shows nothing."""
    if quiet:
        return None
    if as_json:
        return Show(_print_json, JSON_SECONDS, lambda: None)
    return Show(_draw, BAR_SECONDS, _wipe) if sys.stderr.isatty() else None


def _print_json(state: State) -> None:
    left = state.left
    numbers = {"done": state.done, "total": state.total, "rate": round(state.rate), "left": left and round(left, 1)}
    sys.stdout.write(f"{json.dumps({'name': state.name, 'phase': state.phase, **numbers})}\n")
    sys.stdout.flush()


def bar(state: State, columns: int) -> str:
    """One line of at most so many columns."""
    share = state.done / state.total if state.total else 1.0
    left = "" if state.left is None else f"  {clock(state.left)} left"
    numbers = f"{share:4.0%}  {human_size(state.done)} of {human_size(state.total)}  {human_size(state.rate)}/s{left}"
    head = f"{state.phase} {printable(state.name)}"
    width = columns - len(head) - len(numbers) - 6
    if width < 5:  # noqa: PLR2004 - a shorter bar says nothing
        return f"{head}  {numbers}"[:columns]
    filled = int(share * width)
    return f"{head}  [{'#' * filled}{'.' * (width - filled)}] {numbers}"


def clock(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _draw(state: State) -> None:
    columns = shutil.get_terminal_size().columns - 1  # in the last column some terminals begin a new line
    sys.stderr.write(f"\r{bar(state, columns)}\x1b[K")
    sys.stderr.flush()


def _wipe() -> None:
    sys.stderr.write(CLEAR)
    sys.stderr.flush()


class Progress:
    """Counts bytes, and shows them from a task of its own: it goes on when nothing comes."""

    def __init__(self, total: int, name: str, show: Show | None = None, *, phase: str = "downloading") -> None:
        self._name = name
        self._show = show
        self._task: asyncio.Task[None] | None = None
        self._measure: Callable[[], tuple[int, int]] | None = None
        self._adding = threading.Lock()
        self.turn(phase, total)

    def turn(self, phase: str, total: int, done: int = 0) -> None:
        """Begin another phase."""
        self._phase, self.total, self.done, self._measure = phase, total, done, None
        self._restart()

    def follow(self, phase: str, measure: Callable[[], tuple[int, int]]) -> None:
        """Begin another phase, which counts by itself: `measure` tells how much is done, and of how much."""
        self._phase, self._measure = phase, measure
        self.done, self.total = measure()
        self._restart()

    def _restart(self) -> None:
        self._began = time.monotonic()
        self._marks = [(self._began, self.done)]

    def add(self, size: int) -> None:
        """Threads may call it."""
        with self._adding:
            self.done += size

    async def __aenter__(self) -> Self:
        if self._show:
            self._task = asyncio.create_task(self._run(self._show), name="progress")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task and self._show:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._show.state(self.state())
            self._show.end()

    async def _run(self, show: Show) -> None:
        while True:
            await asyncio.sleep(show.seconds)
            show.state(self.state())

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
        return State(self._name, self._phase, self.done, self.total, max(rate, 0.0), now - self._began)
