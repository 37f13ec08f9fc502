"""What many worlds have gone through, in numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.world import World


@dataclass
class Tally:
    """What many worlds have gone through."""

    schedules: int = 0
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    crashed_at: Counter[str] = field(default_factory=Counter)
    fingerprint: str = ""

    def add(self, world: World) -> None:
        self.schedules += 1
        self.counts.update(world.counts)
        self.passed.update(world.passed)
        self.crashed_at.update(world.crashed_at)
        for happened in (world.weather.happened, world.process.disk.happened, world.process.database.happened):
            self.faults.update(happened)
        self.fingerprint = hashlib.blake2b((self.fingerprint + world.fingerprint).encode()).hexdigest()[:32]

    def more(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.steps += other.steps
        for name in ("faults", "counts", "passed", "crashed_at"):
            getattr(self, name).update(getattr(other, name))
