"""SIGKILL at random moments, again and again, while four clients send: a live stream, ranges, small objects, and tus.

The clients are never killed and remember all that they were told. What the part files on the disk prove after each kill
is what had been received: the next process must have it.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from figures import Figures
from killing import Trial, program, replayed, servers
from process import MIB, Fresh
from resuming import GONE, Client, Kind, finish, live, ranges, small, tus

from campaigns import Size


class Amount(NamedTuple):
    """Until both are reached: how many kills, and how many bytes in objects that have been compared."""

    kills: int
    size: int


AMOUNTS = {Size.CI: Amount(12, 128 * MIB), Size.RELEASE: Amount(130, 2100 * MIB)}
"""Four seeds of a release are more than 500 kills and 8 GiB."""

LIVES_SECONDS = {Size.CI: 0.4, Size.RELEASE: 1.2}
"""How long a process lives at most. Real time: the moment is the subject."""

KINDS = (
    Kind(live, 3 * MIB, 24 * MIB),
    Kind(ranges, 8 * MIB, 64 * MIB),
    Kind(small, MIB // 2, 4 * MIB),
    Kind(tus, 8 * MIB, 64 * MIB),
)
"""Who sends at the same time, and how small and how large an object."""

UNCOMPARED = 8
"""How many objects a client is ahead of those who compare them, at most: they are in memory until then."""

FINISHES_WITHIN = 60.0
"""Seconds that a client has for what it was sending when the last kill was over, on a busy machine."""


def run(size: Size, seed: int, planted: str | None = None, *, serve: Fresh | None = None) -> Figures:
    """Until there were kills and bytes enough."""
    figures, rng, wanted = Figures("kills at random moments", size, seed), random.Random(seed), AMOUNTS[size]
    with servers(serve) as fresh, replayed("four clients", "kill_at_random", size, seed):
        trial = Trial(fresh(program=program(planted)), fresh.bucket, counts=Counter(kills=0))
        names = [(kind, kind.way.__name__, random.Random(rng.random())) for kind in KINDS]
        clients = [Client(trial.server, name, kind, own, again=GONE, most=UNCOMPARED) for kind, name, own in names]
        trial.start()
        stop = threading.Event()
        with ThreadPoolExecutor(len(clients)) as pool:
            running = [pool.submit(client.run, stop) for client in clients]
            try:
                while trial.counts["kills"] < wanted.kills or trial.counts["bytes compared"] < wanted.size:
                    time.sleep(rng.uniform(0, LIVES_SECONDS[size]))  # real time, as above
                    trial.server.kill()
                    trial.counts["kills"] += 1
                    open_then = sum(client.sendings[-1].announced for client in clients if client.sendings)
                    trial.counts["bytes announced of what was open then"] += open_then
                    trial.bodies |= {one.key: one.data for client in clients for one in client.sendings}
                    trial.dead()
                    trial.start()
                    _compare(trial, clients)
                    for client in running:
                        if client.done():
                            client.result()
            finally:
                stop.set()
        finish(clients, FINISHES_WITHIN)
        trial.settle()
        _compare(trial, clients, last=True)
        trial.server.stop()
    for what, number in trial.counts.items():
        figures.count(what, number)
    figures.count("% at most of all kills lose something (95 % sure)", 300 / trial.counts["kills"])
    return figures


def _compare(trial: Trial, clients: Sequence[Client], *, last: bool = False) -> None:
    """What is complete, to the last byte; then it makes room. What a client has in its hands waits for the `last`."""
    for client in clients:
        for sending in client.sendings[: None if last else -1]:
            sending.place()
            trial.bodies[sending.key] = sending.data
            trial.counts["bytes compared"] += sending.size
            trial.counts["offsets announced"] += sending.announcements
            trial.end(sending.key)
            trial.forget(sending.key)
            client.sendings.remove(sending)
