"""SIGKILL at random moments, again and again, while four clients send: a live stream, ranges, small objects, and tus.

The clients are never killed and remember all that they were told. What the part files on the disk prove after each kill
is what had been received: the next process must have it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from figures import Figures
from invariants import Broken, Invariant
from killing import Trial, program, replayed, servers
from process import MIB, Fresh, content
from resuming import GONE, Ledger, Send, send_by_tus, send_ranges, send_slowly, send_small

from campaigns import Size


class Amount(NamedTuple):
    """Until both are reached: how many kills, and how many bytes in objects that have been compared."""

    kills: int
    size: int


AMOUNTS = {Size.CI: Amount(12, 128 * MIB), Size.RELEASE: Amount(260, 4200 * MIB)}
"""Two seeds of a release are more than 500 kills and 8 GiB."""

LIVES_SECONDS = {Size.CI: 0.4, Size.RELEASE: 1.2}
"""How long a process lives at most. Real time: the moment is the subject."""

KINDS: tuple[tuple[str, Send, int], ...] = (
    ("live", send_slowly, 24 * MIB),
    ("ranges", send_ranges, 64 * MIB),
    ("small", send_small, 4 * MIB),
    ("tus", send_by_tus, 64 * MIB),
)
"""Who sends at the same time, and how much at most for one object."""

FINISHES_WITHIN = 60.0
"""Seconds that a client has for what it was sending when the last kill was over, on a busy machine."""

AGAIN_SECONDS = 0.01
"""How soon a client asks again while there is no server."""


@dataclass
class Client:
    """Sends one object after another through every crash."""

    kind: str
    send: Send
    most: int
    trial: Trial
    numbers: random.Random
    stop: threading.Event = field(default_factory=threading.Event)
    ledger: Ledger = field(default_factory=Ledger)
    ended: list[str] = field(default_factory=list)
    """Keys of objects that are complete as far as it knows, and that nobody has compared yet."""

    error: BaseException | None = None

    def run(self) -> None:
        try:
            number = 0
            while not self.stop.is_set():
                self._send(f"{self.kind}-{number}")
                number += 1
        except BaseException as error:  # noqa: BLE001 - whoever waits for this thread raises it
            self.error = error

    def _send(self, key: str) -> None:
        body = content(self.numbers.randint(self.most // 8, self.most), self.numbers.getrandbits(32))
        self.ledger = Ledger(offsets=self.ledger.offsets)
        self.trial.bodies[key] = body
        while not self.ledger.done:
            try:
                self.send(self.trial.server, key, body, self.ledger)
            except GONE:
                time.sleep(AGAIN_SECONDS)  # the server is being started again: ask until it answers
        self.ended.append(key)


def run(size: Size, seed: int, planted: str | None = None, *, serve: Fresh | None = None) -> Figures:
    """Until there were kills and bytes enough."""
    figures, rng = Figures("kills at random moments", size, seed), random.Random(seed)
    with servers(serve) as fresh, replayed("four clients", "kill_at_random", size, seed):
        trial = Trial(fresh(program=program(planted)), fresh.bucket, counts=Counter(kills=0))
        clients = [Client(*kind, trial, random.Random(rng.random())) for kind in KINDS]
        trial.start()
        with _sending(clients):
            while trial.counts["kills"] < AMOUNTS[size].kills or trial.counts["bytes compared"] < AMOUNTS[size].size:
                time.sleep(rng.uniform(0, LIVES_SECONDS[size]))  # real time, as above
                trial.server.kill()
                trial.counts["kills"] += 1
                trial.counts["bytes announced of what was open then"] += sum(one.ledger.announced for one in clients)
                trial.dead()
                trial.start()
                _compare(trial, clients)
        trial.settle()
        _compare(trial, clients)
        trial.server.stop()
    for what, number in trial.counts.items():
        figures.count(what, number)
    figures.count("offsets announced", sum(client.ledger.offsets for client in clients))
    figures.count("% at most of all kills lose something (95 % sure)", 300 / trial.counts["kills"])
    return figures


@contextlib.contextmanager
def _sending(clients: Sequence[Client]) -> Iterator[None]:
    """In here all of them send; in the end each brings what it has begun to its end."""
    threads = [threading.Thread(target=client.run, name=client.kind, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop.set()
        for thread in threads:
            thread.join(FINISHES_WITHIN)
    for client, thread in zip(clients, threads, strict=True):
        if thread.is_alive():
            raise Broken(Invariant.ENDS, f"{client.kind} still sends after {FINISHES_WITHIN:.0f} s: {client.ledger}")


def _compare(trial: Trial, clients: Sequence[Client]) -> None:
    """What is complete, to the last byte; then it makes room."""
    for client in clients:
        if client.error:
            raise client.error
        while client.ended:
            key = client.ended.pop()
            trial.counts["bytes compared"] += len(trial.bodies[key] or b"")
            trial.end(key)
            trial.forget(key)
