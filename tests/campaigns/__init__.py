"""What a streamup is put through before anybody may trust it. Each campaign is a module with one function:

    def run(size: Size, seed: int) -> Figures        # raises Broken, which names the invariant

    python tests/campaign.py simulation                          # as large as `.ci/run` has it
    python tests/campaign.py simulation --release --seed 7 --json figures/

`tests/test_*.py` runs it in CI's size, marked `campaign`.
"""

from __future__ import annotations

from enum import Enum


class Size(Enum):
    """How much of it: minutes are all that CI has, a release takes its time (each command less than ten minutes)."""

    CI = "ci"
    RELEASE = "release"
