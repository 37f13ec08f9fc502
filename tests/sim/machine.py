"""What happens in a schedule, as rules for Hypothesis: clients, operators, the weather, and time."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sim.clients import SHAPES
from sim.judge import KEYS
from sim.ledger import Model
from sim.store import TROUBLES
from sim.tally import Tally
from sim.world import EXHAUSTED, World

SIZES = st.sampled_from([0, 1, 4, 9, 16, 17, 33, 50, 50, 90, 150])
WHICH = st.integers(0, 7)
SOON = st.sampled_from([0.0, 0.001, 0.003, 0.01, 0.05, 0.2, 1.0])
"""How long the world goes on before the next step: within one turn of the loop, between two acts, after them."""

ENDS = st.sampled_from(["put", "chunked", "declared", "last range", "guard"])
SELDOM = (
    *("kill", "power cut", "stop", "stop, and reboot", "write", "remove", "abort", "abort"),
    *("stale listings", "revoke or restore", "long silence"),
)
LASTS = st.sampled_from([0.1, 1.0, 10.0, 60.0])

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
            world.__exit__(None, world.broken, None)
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

    def _create(self, *, key: str, shape: str, size: int, policy: Any, subject: int, body: str, soon: float) -> None:
        self.world.create(key, shape, size, body, policy=policy, subject=subject)
        self.world.spend(soon)

    create = rule(
        key=st.sampled_from(KEYS),
        shape=st.sampled_from(SHAPES),
        size=SIZES,
        policy=st.sampled_from([None, "append", "replace", "new", "independent", "independent"]),
        subject=st.sampled_from([0, 0, 0, 1]),
        body=st.sampled_from(["clean", "clean", "cut", "stalls"]),
        soon=SOON,
    )(_create)
    create_whole = rule(
        key=st.sampled_from(KEYS),
        shape=ENDS,
        size=SIZES,
        policy=st.sampled_from([None, "replace", "independent"]),
        subject=st.just(0),
        body=st.just("clean"),
        soon=SOON,
    )(_create)
    """... of which all comes."""

    def _append(self, *, which: int, shape: str, size: int, body: str, wrong: int | None, soon: float) -> None:
        if model := self.one_of(self.models(), which):
            self.world.append(model, shape, size, body, wrong=wrong)
            self.world.spend(soon)

    append = rule(
        which=WHICH,
        shape=st.sampled_from(SHAPES),
        size=SIZES,
        body=st.sampled_from(["clean", "clean", "cut", "stalls"]),
        wrong=st.sampled_from([None, None, None, 0, 0, 1, -1]),
        soon=SOON,
    )(_append)

    go_on = rule(which=WHICH, shape=ENDS, size=SIZES, body=st.just("clean"), wrong=st.none(), soon=SOON)(_append)
    """The one that knows where to, and that this is all."""

    @rule(which=WHICH, what=st.sampled_from(["inspect", "inspect", "look_up", "cancel", "remove"]), soon=SOON)
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

    # -- time, and the weather ----------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 5.0, 10.0, 40.0]))
    def wait(self, *, seconds: float) -> None:
        self.world.spend(seconds)

    @rule(trouble=st.sampled_from([*TROUBLES, "slow"]), rate=st.sampled_from([0.1, 0.3, 0.8]), seconds=LASTS)
    def trouble_the_store(self, *, trouble: str, rate: float, seconds: float) -> None:
        self.world.weather.rates[trouble] = rate
        self.world.lasts(seconds)

    @rule(what=st.sampled_from(EXHAUSTED), seconds=LASTS)
    def trouble_the_machine(self, *, what: str, seconds: float) -> None:
        self.world.exhaust(what)
        self.world.lasts(seconds)

    # -- crashes ------------------------------------------------------------------------------------------------------

    @rule(
        where=st.sampled_from(PLACES), passages=st.sampled_from([0, 0, 0, 1, 2, 5, 13]), power=st.booleans(), soon=SOON
    )
    def crash_soon(self, *, where: str, passages: int, power: bool, soon: float) -> None:
        self.world.crash_at(where, passages, power=power)
        self.world.spend(soon)

    @rule(which=WHICH, what=st.sampled_from(SELDOM))
    def something_else(self, *, which: int, what: str) -> None:
        world = self.world
        match what:
            case "kill" | "power cut":
                world.crash_now(power=what == "power cut")
            case "stop" | "stop, and reboot":
                world.stop_and_start((0.0, 1.0, 20.0)[which % 3], reboots="reboot" in what)
            case "abort":
                world.abort(which)
            case "stale listings":
                world.process.store.stale_listing ^= True
            case "revoke or restore":
                world.revoke_or_restore(f"credential {which % 2 + 1}")
            case "long silence":
                world.spend(300.0)
            case _:
                world.meddle(KEYS[which % 2], writes=what == "write")
