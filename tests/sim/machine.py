"""What happens in a schedule, as rules for Hypothesis: clients, operators, the weather, and time."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sim.clients import SHAPES
from sim.ledger import Model
from sim.store import TROUBLES
from sim.world import KEYS, Tally, World

SIZES = st.sampled_from([0, 1, 4, 9, 16, 17, 33, 50, 90])
WHICH = st.integers(0, 7)
SOON = st.sampled_from([0.0, 0.001, 0.003, 0.01, 0.05, 0.2, 1.0])
"""How long the world goes on before the next step: within one turn of the loop, between two acts, after them."""

DISK_TROUBLES = ("write", "sync", "sync_directory", "read", "unlink", "truncate", "short", "open")
PLACES = (
    *("", "", "commit", "commit", "disk", "disk_sync", "in the store", "before", "after"),
    *("receipt", "multipart", "put_object", "put_part", "confirm", "cut", "provisionally", "unlink", "recovery"),
    *("complete", "sync", "abort", "write"),
)
"""Where a crash may come, as a part of a passage's name; the empty one is any."""


class Machine(RuleBasedStateMachine):
    """One schedule. Its world draws the rest from the seed."""

    tally = Tally()

    def __init__(self) -> None:
        super().__init__()
        self.world: World

    @initialize(seed=st.integers(0, (1 << 32) - 1))
    def begin(self, *, seed: int) -> None:
        self.world = World(seed, self.tally)
        self.world.__enter__()

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        try:
            if not world.broken:
                world.finish()
        finally:
            world.__exit__()
            del self.world
            gc.collect()

    def check_invariants(self, *_: Any) -> None:
        """Hypothesis calls this after each step; what must be so is looked at whenever time has passed."""
        self.tally.steps += 1

    def models(self) -> list[Model]:
        return [one for one in self.world.models.values() if one.state in {"open", "sealed", "completing"}]

    def one_of(self, found: list[Any], which: int) -> Any:
        return found[which % len(found)] if found else None

    # -- clients ------------------------------------------------------------------------------------------------------

    @rule(
        key=st.sampled_from(KEYS),
        shape=st.sampled_from(SHAPES),
        size=SIZES,
        policy=st.sampled_from([None, "append", "replace", "new", "reject"]),
        subject=st.sampled_from([0, 0, 0, 1]),
        body=st.sampled_from(["clean", "clean", "cut", "stalls"]),
        soon=SOON,
    )
    def create(self, *, key: str, shape: str, size: int, policy: Any, subject: int, body: str, soon: float) -> None:
        self.world.create(key, shape, size, body, policy=policy, subject=subject)
        self.world.spend(soon)

    @rule(
        which=WHICH,
        shape=st.sampled_from(SHAPES),
        size=SIZES,
        body=st.sampled_from(["clean", "clean", "clean", "cut", "stalls"]),
        wrong=st.sampled_from([None, None, None, 0, 0, 1, -1]),
        soon=SOON,
    )
    def append(self, *, which: int, shape: str, size: int, body: str, wrong: int | None, soon: float) -> None:
        if model := self.one_of(self.models(), which):
            self.world.append(model, shape, size, body, wrong=wrong)
            self.world.spend(soon)

    @rule(which=WHICH, what=st.sampled_from(["inspect", "look_up", "cancel", "remove"]), soon=SOON)
    def ask(self, *, which: int, what: str, soon: float) -> None:
        if what == "remove":
            self.world.remove(KEYS[which % 2], 0)
        elif model := self.one_of(self.models(), which):
            getattr(self.world, what)(model)
        self.world.spend(soon)

    @rule(which=WHICH, harshly=st.booleans(), soon=SOON)
    def cut(self, *, which: int, harshly: bool, soon: float) -> None:
        if client := self.one_of(self.world.clients, which):
            self.world.cut(client, harshly=harshly)
        self.world.spend(soon)

    # -- time ---------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 2.0, 10.0, 70.0, 300.0]))
    def wait(self, *, seconds: float) -> None:
        self.world.spend(seconds)

    # -- the weather --------------------------------------------------------------------------------------------------

    @rule(trouble=st.sampled_from([*TROUBLES, "slow"]), rate=st.sampled_from([0.1, 0.4, 0.9]))
    def trouble_the_store(self, *, trouble: str, rate: float) -> None:
        self.world.weather.rates[trouble] = rate

    @rule(seconds=st.sampled_from([1.0, 20.0]), denied=st.booleans())
    def lose_the_store(self, *, seconds: float, denied: bool) -> None:
        until = self.world.now() + seconds
        if denied:
            self.world.weather.denied_until = until
        else:
            self.world.weather.outage_until = until

    @rule(trouble=st.sampled_from(DISK_TROUBLES), rate=st.sampled_from([0.05, 0.3]))
    def trouble_the_disk(self, *, trouble: str, rate: float) -> None:
        self.world.process.disk.rates[trouble] = rate

    @rule(what=st.sampled_from(["full", "almost full", "few descriptors", "database full", "commits", "questions"]))
    def exhaust(self, *, what: str) -> None:
        disk, database = self.world.process.disk, self.world.process.database
        match what:
            case "full":
                disk.capacity = disk.used
            case "almost full":
                disk.capacity = disk.used + 20
            case "few descriptors":
                disk.most_open = 1
            case "database full":
                database.full = True
            case "commits":
                database.rates["commit"] = 0.1
            case _:
                database.rates["question"] = 0.05

    @rule()
    def calm(self) -> None:
        self.world.weather.clear()
        self.world.heal_disk()

    @rule(slow=st.sampled_from([0.0, 0.1, 2.0]))
    def keep_threads_busy(self, *, slow: float) -> None:
        self.world.slow_seconds = slow

    @rule(key=st.sampled_from(KEYS), what=st.sampled_from(["write", "remove", "abort", "list stale"]), which=WHICH)
    def meddle(self, *, key: str, what: str, which: int) -> None:
        if what == "abort":
            self.world.abort(which)
        elif what == "list stale":
            self.world.process.store.stale_listing ^= True
        else:
            self.world.meddle(key, writes=what == "write")

    @rule(which=st.sampled_from([0, 1]))
    def revoke_or_restore(self, *, which: int) -> None:
        self.world.revoked ^= {f"credential {which + 1}"}

    # -- crashes ------------------------------------------------------------------------------------------------------

    @rule(where=st.sampled_from(PLACES), passages=st.sampled_from([0, 0, 1, 2, 3, 5, 8, 13, 30]), power=st.booleans())
    def crash_soon(self, *, where: str, passages: int, power: bool) -> None:
        self.world.crash_at(where, passages, power=power)

    @rule(power=st.booleans())
    def crash_now(self, *, power: bool) -> None:
        self.world.crash_now(power=power)

    @rule(grace=st.sampled_from([0.0, 1.0, 20.0]), reboots=st.booleans())
    def stop(self, *, grace: float, reboots: bool) -> None:
        self.world.stop_and_start(grace, reboots=reboots)
