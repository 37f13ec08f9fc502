"""An event loop with virtual time: seeded, in one thread, and never asleep.

    loop = VirtualLoop(random.Random(7))
    loop.spend(2.5)          # runs everything that happens in this time
    loop.die()               # the process is gone: nothing of it runs any more

When nothing is ready, the clock jumps to the next timer. What asyncio promises is kept (callbacks run in the order in
which they were scheduled); what it does not is drawn: which of two timers that are due together comes first, and how
long a function waits for a thread, and its result for the loop.

A thread's function runs as a whole, at one moment. In between that and the moment at which its result is told, a crash
may come: it is done, and nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from invariants import Broken, Invariant

TOGETHER_SECONDS = 1e-6
"""Timers this close to each other are due together."""

THREAD_SECONDS = 0.002
"""How long a function waits for its thread at most, and as long again its result, when nothing is slow."""


MOST_TURNS = 20_000
"""Turns of the loop at one moment. Who needs more goes round in circles."""


class OneThread(Executor):
    """As `ThreadPoolExecutor(1)`: one function after another."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.busy = False


class _Task(asyncio.Task):
    """A task whose place in a set depends on when it was made, and not on where in memory."""

    def __init__(self, *args: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future):
    """As `_Task`."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class _Clock:
    """In place of a selector: waiting is time that has passed."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.turns = 0

    def select(self, seconds: float | None) -> list[Any]:
        self.turns = 0 if seconds else self.turns + 1
        if self.turns > MOST_TURNS:
            raise Broken(Invariant.ENDS, f"{MOST_TURNS} turns of the loop, and no time has passed")
        self.now += seconds or 0.0
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """One process's loop. `choices` decides what asyncio leaves open."""

    def __init__(self, choices: random.Random, now: float = 0.0) -> None:
        super().__init__()
        self._clock_resolution = TOGETHER_SECONDS
        self._selector = _Clock(now)
        self._choices = choices
        self._numbers = itertools.count()
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self.dead = False
        self.slow_seconds = 0.0
        """What the machine is busy with besides: every function in a thread takes up to so much longer."""
        self.errors: list[dict[str, Any]] = []
        """What asyncio would have logged: exceptions that nobody has looked at."""
        self.set_task_factory(self._new_task)
        self.set_exception_handler(lambda _, context: None if self.dead else self.errors.append(context))

    def time(self) -> float:
        return self._selector.now

    def spend(self, seconds: float) -> None:
        """Run whatever happens in so much time, or until `stop`."""
        timer = super().call_at(self.time() + seconds, self.stop)
        self.run_forever()
        timer.cancel()

    def unfinished(self) -> list[asyncio.Task[Any]]:
        return list(self._tasks.values())

    def die(self) -> None:
        """Nothing runs here any more, and no `finally` of what was under way at a later moment."""
        self.dead = True
        asyncio._set_running_loop(self)  # for a `finally` that asks which one runs
        while self._tasks:  # a `finally` may begin others
            _, task = self._tasks.popitem()
            task._log_destroy_pending = False
            for _ in range(10):  # one that waits on its way out is closed again
                with suppress(BaseException):
                    task.get_coro().close()
                    break
        asyncio._set_running_loop(None)
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    # -- what asyncio asks of a loop ----------------------------------------------------------------------------------

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        due = when + self._choices.random() * TOGETHER_SECONDS
        return super().call_at(due, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        future.number = next(self._numbers)
        return future

    def run_in_executor(self, executor: Executor | None, function: Callable[..., Any], *args: Any) -> asyncio.Future:
        told = self.create_future()

        def run() -> None:
            result, error = None, None
            if not told.cancelled():  # before it has begun, it can still be taken back
                try:
                    result = function(*args)
                except Exception as raised:  # noqa: BLE001 - it is the caller's
                    error = raised
            self.call_later(self._delay(), tell, result, error)
            self._free(executor)

        def tell(result: Any, error: Exception | None) -> None:
            if told.done():
                return
            if error is None:
                told.set_result(result)
            else:
                told.set_exception(error)

        if isinstance(executor, OneThread):
            executor.waiting.append(run)
            if not executor.busy:
                self._free(executor)
        else:
            self.call_later(self._delay(), run)
        return told

    def _free(self, executor: Executor | None) -> None:
        """The thread can take the next function."""
        if isinstance(executor, OneThread):
            executor.busy = bool(executor.waiting)
            if executor.waiting:
                self.call_later(self._delay(), executor.waiting.popleft())

    def _delay(self) -> float:
        return self._choices.random() * (THREAD_SECONDS + self.slow_seconds)

    def _new_task(self, _: Any, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        number = next(self._numbers)
        task = _Task(coroutine, loop=self, number=number, **options)
        self._tasks[number] = task
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: Any) -> None:
        self._tasks.pop(task.number, None)

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _check_closed(self) -> None:
        """What is left of a process that has died may still ask, and is not answered."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        if not self.dead:
            super()._asyncgen_finalizer_hook(agen)


def picture(loop: VirtualLoop) -> Iterator[str]:
    """What each task waits for: the chain of its coroutines, a line each."""
    for task in loop.unfinished():
        yield f"{task.get_name()}:"
        inner: Any = task.get_coro()
        while frame := getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None):
            yield f"    {frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
            inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
