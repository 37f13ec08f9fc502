"""The core of streamup in a world of ours, thousands of times: clients, faults, crashes and power cuts, all by seed.

Everything is real but the loop, the disk, SQLite's durability, the store, the clients and the clock: see `sim`.
A seed is a batch of schedules; a campaign of seed N goes through the seeds N, N + 1, ..., so the seed with which one
fails is the first batch of the command that replays it.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any
from unittest import mock

from figures import Figures
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture import engine
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.stateful import run_state_machine_as_test
from invariants import Broken
from sim.machine import Machine
from sim.tally import Tally

from campaigns import Size

BATCH = 25
"""Schedules of one seed: what a replay takes a second for."""

STEPS = 60
SHRINKING_SECONDS = 60
"""How long a way to what was found is made shorter. The seed finds it again."""

BATCHES = {Size.CI: 14, Size.RELEASE: 400}
"""CI's size is that of one test of four."""


class Dice(HypothesisProvider):
    """Each schedule is drawn afresh. Hypothesis alone would vary the ones before, mostly by doing the same again and
    again, and would draw what it finds in the source of modules: a seed would depend on what is imported.
    """

    def _maybe_draw_constant(self, *_: Any, **__: Any) -> None:
        return None


AVAILABLE_PROVIDERS["dice"] = Dice


def run(size: Size, seed: int) -> Figures:
    """Raises `Broken`, with the shortest way to it that was found."""
    figures = Figures("simulation", size, seed)
    seeds = range(seed, seed + BATCHES[size])
    tally = Tally()
    if size is Size.CI:
        for one in seeds:
            tally.more(batch(one))
    else:
        with ProcessPoolExecutor(2, get_context("forkserver")) as pool:
            for part in pool.map(batch, seeds, chunksize=10):
                tally.more(part)
    _count(figures, tally)
    return figures


def batch(number: int, tally: Tally | None = None, *, shrinks: bool = True, schedules: int = BATCH) -> Tally:
    """The schedules of one seed, and what they have gone through. Raises `Broken`, which says how to see it again."""
    through = Tally() if tally is None else tally

    class Batch(Machine):
        tally = through

    how = settings(
        max_examples=schedules,
        stateful_step_count=STEPS,
        phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
        backend="dice",
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        with (
            _without_garbage(),
            mock.patch.object(engine, "MAX_SHRINKING_SECONDS", SHRINKING_SECONDS),
        ):
            run_state_machine_as_test(seed(number)(Batch), settings=how)
    except Broken as broken:
        broken.add_note(f"Again: python tests/campaign.py simulation --seed {number}")
        raise
    return through


def until_broken(number: int, schedules: int) -> tuple[int, Broken | None]:
    """How many schedules it takes from this seed on, and what does not hold then; None if that many find nothing."""
    done = 0
    for one in itertools.count(number):
        tally = Tally()
        try:
            batch(one, tally, shrinks=False)
        except Broken as broken:
            return done + tally.schedules - 1, broken  # Hypothesis has gone through the last one twice
        done += tally.schedules
        if done >= schedules:
            break
    return done, None


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Cycles are collected between schedules, not in the middle of one, where they would be found at another moment
    each time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _count(figures: Figures, tally: Tally) -> None:
    figures.count("schedules", tally.schedules)
    figures.count("steps", tally.steps)
    figures.count("faults", tally.faults.total())
    figures.count("kinds of them", len(tally.faults))
    for what in ("kills", "power cuts", "stops", "starts"):
        figures.count(what, tally.counts[what])
    figures.count(f"of {len(tally.passed)} passages crashed at", len(tally.crashed_at))
    for what in ("complete uploads", "failed uploads", "cancelled uploads", "expired uploads"):
        figures.count(what, tally.counts[what])
