"""Each planted bug, through the campaigns that must catch it: what a harness was not seen to catch, it may not.

A bug that is not caught is the failure here, or one that is caught by another invariant than those that it breaks. What
was caught is told in a table, which is in the JSON, too. And the reverse: without a bug the same schedules find
nothing.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
import planted
from figures import Figures
from invariants import Broken
from killing import servers
from loop_disk import fast_directory

from campaigns import Size, disk, endings, kill_at_failpoints, power_cut, simulation, store_faults

SCHEDULES = {Size.CI: 1_500, Size.RELEASE: 6_000}
"""Of the simulation, for one bug."""

RUNS = 3
"""Of a campaign that has a clock, a disk or sockets: where the moments are real, each run meets others."""


@dataclass(frozen=True)
class Caught:
    """How a bug was caught: by the how-manieth schedule of the simulation, or run of another campaign."""

    bug: str
    campaign: str
    invariant: str
    attempts: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.bug:38} {self.campaign:18} {self.invariant:12} {self.attempts:7,} {self.seconds:7.1f} s"


class NotCaughtError(AssertionError):
    """The harness does not notice what it should."""


def run(size: Size, seed: int, share: tuple[int, int] = (1, 1)) -> Figures:
    """All bugs; or the first, the second, ... of so many shares of them."""
    number, shares = share
    figures = Figures("planted bugs" if shares == 1 else f"planted bugs {number} of {shares}", size, seed)
    missed: list[str] = []
    longest = 0
    for bug, campaign in list(_wanted(size))[number - 1 :: shares]:
        figures.count("planted")
        try:
            caught = catch(bug, campaign, size, seed)
        except NotCaughtError as error:
            click.echo(error)
            missed.append(str(error))
        else:
            click.echo(caught)
            longest = max(longest, caught.attempts if campaign == "simulation" else 0)
            figures.count("caught")
            figures.count(f"by {campaign}")
            figures.table.append(asdict(caught))
    if missed:
        raise NotCaughtError("\n".join(missed))
    schedules, broken = simulation.until_broken(seed, longest)
    if broken:
        raise broken
    figures.count("schedules without a bug find nothing", schedules)
    return figures


def _wanted(size: Size) -> Iterator[tuple[str, str]]:
    """Bugs, each with a campaign: in CI the first one, if it takes seconds."""
    for name, bug in planted.BUGS.items():
        campaigns = list(bug.caught_by)
        if size is Size.CI:
            campaigns = [one for one in campaigns[:1] if one in QUICK and name not in RARE]
        yield from ((name, campaign) for campaign in campaigns)


def catch(bug: str, campaign: str, size: Size, seed: int) -> Caught:
    """Go through a campaign with a bug until it is caught. Raises `NotCaughtError`."""
    began, expected = time.monotonic(), planted.BUGS[bug].caught_by[campaign]
    if campaign == "simulation":
        attempts, broken = _simulated(bug, seed, SCHEDULES[size])
    else:
        attempts, broken = _went_through(CAMPAIGNS[campaign], bug, seed)
    if broken.invariant not in expected:
        raise NotCaughtError(f"{bug} was caught, and not by {' or '.join(map(str, expected))}: {broken}") from broken
    return Caught(bug, campaign, str(broken.invariant), attempts, round(time.monotonic() - began, 1))


def _simulated(bug: str, seed: int, schedules: int) -> tuple[int, Broken]:
    with planted.planted(bug) as reached:
        attempts, broken = simulation.until_broken(seed, schedules)
    if broken is None:
        raise NotCaughtError(f"{bug}: not caught in {attempts} schedules, which came to it {reached[bug]} times")
    return attempts, broken


def _went_through(campaign: Callable[[str, int], None], bug: str, seed: int) -> tuple[int, Broken]:
    for attempt in range(1, RUNS + 1):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # logs of servers that were broken on purpose
                campaign(bug, seed + attempt - 1)
        except Broken as broken:
            return attempt, broken
    raise NotCaughtError(f"{bug}: not caught in {RUNS} runs")


def _endings(bug: str, seed: int) -> None:
    endings.run(Size.CI, seed, planted=bug)


def _kill(bug: str, _: int) -> None:
    with servers() as fresh:
        kill_at_failpoints.survive(fresh, *kill_at_failpoints.CATCHING[bug], bug)


def _disk(bug: str, seed: int) -> None:
    disk.run(Size.CI, seed, planted=bug, scenes=(disk.CATCHING[bug],))


def _power_cut(bug: str, seed: int) -> None:
    """One disk, and more cuts than the campaign has for one: something is always on its way."""
    with servers() as fresh:
        figures = Figures("", Size.CI, seed)
        power_cut.cut_the_power(fresh.bucket, fast_directory(), seed, figures, cuts=power_cut.MISTAKE_CUTS, bugs=bug)


def _store_faults(bug: str, seed: int) -> None:
    store_faults.run(Size.CI, seed, planted=bug)


CAMPAIGNS: dict[str, Callable[[str, int], None]] = {
    "endings": _endings,
    "kill_at_failpoints": _kill,
    "disk": _disk,
    "power_cut": _power_cut,
    "store_faults": _store_faults,
}

RARE = {
    *("a_200_is_proof", "a_full_disk_passes", "a_lost_answer_is_success"),
    *("a_refusal_tells_what_was_received", "checksum_of_what_was_meant", "checksums_are_not_compared"),
    *("claims_what_was_not_synced", "completes_again_blindly", "counts_what_was_meant"),
    *("creates_unannounced", "does_not_cut", "does_not_wait_for_the_old_writer", "expires_what_has_a_writer"),
    *("forgets_new_names", "ignores_a_failed_commit", "ignores_a_failed_sync", "notes_the_boot_first"),
    *("offset_is_a_sum", "opens_what_was_promised", "size_is_not_compared", "skips_the_digest"),
    "skips_the_digest_of_the_whole",
}
"""The simulation takes more than fifty schedules to show them, or did so once (which those are changes with every draw
that the world makes more), and CI has little time.
"""

QUICK = {"simulation", "endings"}
"""They run in this process. The others start programs, take up to some minutes, and have tests of their own that go
through some bugs.
"""
