"""SIGKILL at every named step of an upload, and at every named step of the restart after it.

Clients go on after each kill. No byte that the server had received is lost, nothing truncated is visible, nothing is
left over.
"""

from __future__ import annotations

import ast
import contextlib
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from figures import Figures
from killing import Trial, program, replayed, servers
from process import MIB, Fresh, content, until
from resuming import GONE, RANGE, Sending, Way, digests, live, ranges, small, whole

import streamup
from campaigns import Size

BODY = content(12 * MIB + 345)
"""Of three parts."""

KEY = "killed"
SIDE_BY_SIDE = {Size.CI: 2, Size.RELEASE: 4}

MOST_PASSAGES = {Size.CI: 3, Size.RELEASE: 30}
"""Only `before_write` and `after_write` have more: one for each piece that a socket gives. `kill_at_calls` goes through
all of those.
"""

FIRSTS = 5
"""After how many others each failpoint of a restart kills."""


def failpoints() -> list[str]:
    """Their names, from the source: whoever adds one has it tested."""
    plain, families, transactions = set[str](), set[str](), set[str]()
    for path in Path(streamup.__file__).parent.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name.endswith("_transact"):
                transactions.add(call.args[0].value)
            elif name == "failpoint" and isinstance(call.args[0], ast.Constant):
                plain.add(call.args[0].value)
            elif name == "failpoint":
                start, end = call.args[0].values  # f"before_commit_{name}"
                assert ast.unparse(end.value) == "name"
                families.add(start.value)
    return sorted(plain | {family + transaction for family in families for transaction in transactions})


# -- who passes them -------------------------------------------------------------------------------------------------


def before_the_start(sending: Sending, offset: int) -> None:
    """The server is killed while it starts, and has an interrupted upload to take up."""
    ranges(sending, offset)


def small_and_wait(sending: Sending, offset: int) -> None:
    """An object, and then the time after which its row is looked at."""
    small(sending, offset)


def give_up(sending: Sending, _: int) -> None:
    """More than one part, then DELETE: nothing may be left, in the store neither."""
    server, path = sending.server, f"/objects/{sending.key}"
    if found := server.uploads(sending.key):
        state = found[0]["state"]
    else:
        state = "open"
        sending.ask("PUT", path, {"Upload-Complete": "?0"}, sending.data[: 7 * MIB], 201)
        until(lambda: server.uploads(sending.key)[0]["stored"], what="a part in the store, which must not be left")
    if state == "open":
        sending.ask("DELETE", path, {}, b"", 204)


def send(sending: Sending, way: Way) -> None:
    """Until there is no more to do."""
    if way is give_up:
        return way(sending, 0)
    sending.send(way)
    if way is small_and_wait and sending.server.process and sending.server.failpoint:
        deadline = time.monotonic() + 3  # real time matters: `--expire` is short
        while time.monotonic() < deadline:
            sending.server.ask("GET", "/uploads")
            time.sleep(0.05)
    return None


SPECIAL: dict[str, tuple[Way, ...]] = {
    "before_put_object": (small,),
    "after_put_object": (small,),
    "before_abort_multipart": (give_up,),
    "after_abort_multipart": (give_up,),
    "after_resume_provisionally": (digests,),
    "after_cut": (digests,),
    "before_confirm": (digests,),
    "before_commit_recovery": (before_the_start,),
    "after_commit_recovery": (before_the_start,),
    "before_commit_forget": (small_and_wait,),
    "after_commit_forget": (small_and_wait,),
    "before_commit_save": (ranges, live, small, give_up),
    "after_commit_save": (ranges, live, small, give_up),
    "before_unlink": (ranges, live, small, give_up),
}
"""Who passes a failpoint, where it is not `ranges` alone."""

CASES = [(name, way) for name in failpoints() for way in SPECIAL.get(name, (ranges,))]
STARTS = ("before_commit_recovery", "after_commit_recovery", "before_commit_place", "after_commit_place")
"""What every restart passes, whoever sends."""


def of_a_restart(way: Way) -> list[str]:
    """What may be passed when this client goes on."""
    return [name for name in failpoints() if name in STARTS or way in SPECIAL.get(name, (ranges,))]


# -- the campaign ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A client whose server is killed at a failpoint, at these passages of it, and then perhaps once more."""

    name: str
    way: Way
    passages: Sequence[int]
    then: str = ""
    each: bool = False
    """At each passage until one is not reached; otherwise at the first that is."""

    def __str__(self) -> str:
        then = f", then at {self.then}" if self.then else ""
        return f"{self.way.__name__}, killed at {self.name}{then}"

    def run(self, fresh: Fresh, planted: str | None) -> tuple[Counter[str], set[str]]:
        """What happened, and the failpoints that have killed."""
        happened, passed = Counter[str](), set[str]()
        for passage in self.passages:
            wanted = [f"{self.name}:{passage}", *([f"{self.then}:1"] if self.then else ())]
            trial = survive(fresh, self.way, wanted, planted)
            happened += trial.counts
            passed |= {failpoint.partition(":")[0] for failpoint in wanted[: trial.counts["kills"]]}
            if bool(trial.counts["kills"]) is not self.each:
                break
        assert self.name in passed, f"{self.name} is never passed"
        return happened, passed


def samples(seed: int) -> list[Job]:
    """Each failpoint at one passage, and one more in the restart."""
    rng = random.Random(seed)
    jobs = []
    for number, (name, way) in enumerate(CASES):
        passages = range(1 + (number + seed) % MOST_PASSAGES[Size.CI], 0, -1)
        jobs.append(Job(name, way, passages, rng.choice(of_a_restart(way))))
    return jobs


def everything(seed: int) -> list[Job]:
    """Each failpoint at every passage, and each of a restart after several others."""
    rng = random.Random(seed)
    passages = range(1, MOST_PASSAGES[Size.RELEASE] + 1)
    jobs = [Job(name, way, passages, each=True) for name, way in CASES]
    for then in failpoints():
        firsts = [(name, way) for name, way in CASES if then in of_a_restart(way)]
        jobs += [Job(*first, (1,), then) for first in rng.sample(firsts, min(len(firsts), FIRSTS))]
    return jobs


def run(size: Size, seed: int, planted: str | None = None, *, serve: Fresh | None = None) -> Figures:
    """CI: a sample. Release: everything."""
    figures, names = Figures("kills at failpoints", size, seed), set[str]()
    jobs = samples(seed) if size is Size.CI else everything(seed)
    with servers(serve) as fresh, ThreadPoolExecutor(SIDE_BY_SIDE[size]) as executor:
        running = [executor.submit(job.run, fresh, planted) for job in jobs]
        try:
            for job, done in zip(jobs, running, strict=True):
                with replayed(str(job), "kill_at_failpoints", size, seed):
                    happened, passed = done.result()
                names |= passed
                for what, number in happened.items():
                    figures.count(what, number)
        finally:
            executor.shutdown(cancel_futures=True)
    figures.count("failpoints", len(names))
    return figures


CATCHING: Mapping[str, tuple[Way, Sequence[str]]] = {
    "trusts_nothing_but_the_record": (ranges, ["after_write:20"]),
    "keeps_what_has_the_wrong_digest": (digests, ["after_cut:1"]),
    "a_provisional_append_counts": (digests, ["after_write:3"]),
    "creates_unannounced": (ranges, ["after_create_multipart:1"]),
    "leaves_orphans": (ranges, ["after_create_multipart:1"]),
    "forgets_the_cancelled": (give_up, ["before_abort_multipart:1"]),
}
"""Planted bugs, each with an upload and a kill that show it: nobody needs to go through all of them for that."""


def survive(fresh: Fresh, way: Way, wanted: Sequence[str], planted: str | None = None) -> Trial:
    """One upload to its end, through a kill at each of these failpoints (`name:passage`) that is passed."""
    server = fresh("--expire=2s" if way is small_and_wait else "--expire=1h", program=program(planted))
    body = BODY[:MIB] if way in {small, small_and_wait} else BODY
    trial = Trial(server, fresh.bucket, {KEY: None if way is give_up else body})
    sending = Sending(server, KEY, body, whole(body))
    trial.unproven = way in {digests, small_and_wait}
    if way is before_the_start:
        trial.start()
        sending.put(0, RANGE)
        server.kill()
        trial.dead()
    for failpoint in wanted:
        server.spawn(failpoint)
        if server.answers():
            with contextlib.suppress(*GONE):
                trial.hold()
                send(sending, way)
        if not trial.killed():
            break
        trial.dead()
        trial.counts["kills of restarts" if trial.counts["kills"] else "kills of uploads"] += 1
        trial.counts["kills"] += 1
    else:
        trial.start()
        send(sending, way)
    trial.end(KEY)
    server.kill()
    return trial
