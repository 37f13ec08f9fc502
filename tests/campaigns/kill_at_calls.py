"""SIGKILL at the system calls of an upload of three parts, and at those of the restart after a crash and the resume.

Each kind of call on files and sockets, every second of them (release) or every few of them (CI), counted over all
threads until one run ends without being hit. Each time a client goes on, and everything is checked. `tests/calls.py`
says how.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

from calls import Call, Watch
from figures import Figures
from killing import Trial, program, replayed, servers
from process import MIB, Fresh, content
from resuming import GONE, RANGE, Sending, ranges, whole

from campaigns import Size

BODY = content(12 * MIB + 345)
SIDE_BY_SIDE = 2

SAMPLES = {"upload": 3, "restart": 2}
"""How many calls of each kind CI kills at, more or less: the first of them by the seed, the others as far apart."""

STEP, STEP_OF_TAKING = 2, 16
"""A release kills at every second call: two seeds, one even and one odd, are all of them."""

ONLY_TAKE = {"read", "readv", "recvfrom", "recvmsg", "epoll_wait", "epoll_pwait"}
"""These change no file and tell nobody anything: a kill before one leaves what a kill before the next call leaves, but
for what is in the buffer of a socket. Fewer of them are enough.
"""

Phase = Literal["upload", "restart"]


class Lane:
    """A watched server, and what is sent to it: one upload after another."""

    def __init__(self, fresh: Fresh, planted: str | None) -> None:
        self.server = fresh(program=program(planted))
        self.trial = Trial(self.server, fresh.bucket)
        self.watch = Watch(self.server)
        self.made = Counter[str]()
        """By the last one."""

        self._keys = (f"killed-{number}" for number in itertools.count())

    def upload(self, at: Call | None) -> bool:
        """An upload of three parts to a server that runs; whether it was killed."""
        sending = self._begin()
        self.watch.arm(at)
        return self._survive(sending)

    def restart(self, at: Call | None) -> bool:
        """A server that died in the second part of an upload is killed when it starts again, or goes on."""
        sending = self._begin()
        for start in (0, RANGE):
            sending.put(start, start + RANGE)
        self.server.kill()
        self.trial.dead()
        self.watch.spawn(at)
        return self._survive(sending)

    def kill(self, job: Job) -> None:
        """At one of its calls after another, until a run ends unhit."""
        nth = job.first
        while getattr(self, job.phase)(Call(job.name, nth)):
            self.trial.counts[f"at {job.name}"] += 1
            self.trial.counts[f"kills of {job.phase}s"] += 1
            nth += job.step

    def close(self) -> None:
        self.server.kill()
        self.watch.close()

    def _begin(self) -> Sending:
        if self.server.process is None:
            self.watch.spawn()
            self.trial.started()
        key = next(self._keys)
        self.trial.bodies[key] = BODY
        return Sending(self.server, key, BODY, whole(BODY))

    def _survive(self, sending: Sending) -> bool:
        if self.server.answers():
            with contextlib.suppress(*GONE):
                self.trial.hold()
                sending.send(ranges)
        if killed := self.trial.killed():
            self.trial.dead()
            self.watch.spawn()
            self.trial.started()
            sending.send(ranges)
        self.made = self.watch.made
        self.watch.arm(None)
        self.trial.end(sending.key)
        self.trial.forget(sending.key)
        return killed


@dataclass(frozen=True)
class Job:
    """Calls of one name in an upload or in a restart, `step` apart, from the `first` on."""

    phase: Phase
    name: str
    first: int
    step: int

    def __str__(self) -> str:
        return f"{self.phase}s, killed at {self.name}:{self.first} and each {self.step} calls on"


def jobs(phase: Phase, made: Counter[str], size: Size, seed: int) -> list[Job]:
    """Of a run in which these calls were made."""
    found = []
    for name, number in sorted(made.items()):
        step = STEP_OF_TAKING if name in ONLY_TAKE else STEP
        if size is Size.CI:
            step = max(1, number // SAMPLES[phase])
        found.append(Job(phase, name, 1 + (seed * 7919 + len(found)) % step, step))
    return found


def run(size: Size, seed: int, planted: str | None = None, *, serve: Fresh | None = None) -> Figures:
    """All jobs, whichever lane has nothing to do."""
    figures = Figures("kills at system calls", size, seed)
    with servers(serve) as fresh, contextlib.ExitStack() as stack:
        lanes = [stack.enter_context(contextlib.closing(Lane(fresh, planted))) for _ in range(SIDE_BY_SIDE)]
        left: list[Job] = []
        for phase in ("upload", "restart"):
            with replayed(f"unhurt {phase}", "kill_at_calls", size, seed):
                getattr(lanes[0], phase)(None)
            figures.count(f"calls of one {phase}", lanes[0].made.total())
            left += jobs(phase, lanes[0].made, size, seed)

        def work(lane: Lane) -> None:
            while left:
                job = left.pop()
                with replayed(str(job), "kill_at_calls", size, seed):
                    lane.kill(job)

        with ThreadPoolExecutor(SIDE_BY_SIDE) as executor:
            running = [executor.submit(work, lane) for lane in lanes]
            try:
                for done in as_completed(running):
                    done.result()
            finally:
                left.clear()
        for lane in lanes:
            for what, number in lane.trial.counts.items():
                figures.count(what, number)
    return figures
