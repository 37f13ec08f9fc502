"""Planted bugs are caught, as far as seconds do for it; the release goes through all (`campaigns/planted_bugs.py`)."""

from __future__ import annotations

import planted
import pytest
from campaigns import Size, planted_bugs
from invariants import Broken, Invariant

SHARES = 4


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(1, SHARES + 1))
def test_planted_bugs_are_caught(number):
    """And the same schedules without a bug find nothing."""
    planted_bugs.run(Size.CI, seed=1, share=(number, SHARES)).save_if_wanted()


# -- the campaign itself ----------------------------------------------------------------------------------------------


def test_there_is_a_campaign_for_every_bug_of_the_server():
    assert not [name for name, bug in planted.SERVER.items() if not bug.caught_by]
    campaigns = {campaign for bug in planted.BUGS.values() for campaign in bug.caught_by}
    assert campaigns == {"simulation", *planted_bugs.CAMPAIGNS}


def test_what_is_not_caught_is_a_failure(monkeypatch):
    """A bug of the client is none for the simulation, which has no such client."""
    monkeypatch.setitem(planted.BUGS["waits_for_ever"].caught_by, "simulation", (Invariant.ENDS,))
    monkeypatch.setitem(planted_bugs.SCHEDULES, Size.CI, 1)
    with pytest.raises(planted_bugs.NotCaughtError, match="waits_for_ever: not caught in 25 schedules"):
        planted_bugs.catch("waits_for_ever", "simulation", Size.CI, seed=1)


def test_what_is_caught_by_another_invariant_is_a_failure(monkeypatch):
    def broken(*_):
        raise Broken(Invariant.INSIDE, "somewhere else")

    monkeypatch.setitem(planted_bugs.CAMPAIGNS, "endings", broken)
    with pytest.raises(planted_bugs.NotCaughtError, match="somewhere else"):
        planted_bugs.catch("leaves_the_tail", "endings", Size.CI, seed=1)
