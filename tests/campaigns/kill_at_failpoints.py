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
from process import MIB, Fresh, Server, content
from resuming import (
    GONE,
    RANGE,
    Ledger,
    Send,
    send_and_give_up,
    send_range,
    send_ranges,
    send_small,
    send_stream,
    send_with_digests,
)

import streamup
from campaigns import Size

BODY = content(12 * MIB + 345)
"""Of three parts."""

KEY = "killed"
SIDE_BY_SIDE = 2

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


def send_before_the_start(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """The server is killed while it starts, and has an interrupted upload to take up."""
    send_ranges(server, key, body, ledger)


def send_and_wait(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """An object, and then the time after which its row is looked at (real time matters: `--expire` is short)."""
    send_small(server, key, body, ledger)
    if server.process and server.failpoint:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            server.ask("GET", "/uploads")
            time.sleep(0.05)


SPECIAL: dict[str, tuple[Send, ...]] = {
    "before_put_object": (send_small,),
    "after_put_object": (send_small,),
    "before_abort_multipart": (send_and_give_up,),
    "after_abort_multipart": (send_and_give_up,),
    "after_resume_provisionally": (send_with_digests,),
    "after_cut": (send_with_digests,),
    "before_confirm": (send_with_digests,),
    "before_commit_recovery": (send_before_the_start,),
    "after_commit_recovery": (send_before_the_start,),
    "before_commit_forget": (send_and_wait,),
    "after_commit_forget": (send_and_wait,),
    "before_commit_save": (send_ranges, send_stream, send_small, send_and_give_up),
    "after_commit_save": (send_ranges, send_stream, send_small, send_and_give_up),
    "before_unlink": (send_ranges, send_stream, send_small, send_and_give_up),
}
"""Who passes a failpoint, where it is not `send_ranges` alone."""

CASES = [(name, send) for name in failpoints() for send in SPECIAL.get(name, (send_ranges,))]
STARTS = ("before_commit_recovery", "after_commit_recovery", "before_commit_place", "after_commit_place")
"""What every restart passes, whoever sends."""


def of_a_restart(send: Send) -> list[str]:
    """What may be passed when this client goes on."""
    return [name for name in failpoints() if name in STARTS or send in SPECIAL.get(name, (send_ranges,))]


# -- the campaign ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A client whose server is killed at a failpoint, at these passages of it, and then perhaps once more."""

    name: str
    send: Send
    passages: Sequence[int]
    then: str = ""
    each: bool = False
    """At each passage until one is not reached; otherwise at the first that is."""

    def __str__(self) -> str:
        then = f", then at {self.then}" if self.then else ""
        return f"{self.send.__name__}, killed at {self.name}{then}"

    def run(self, fresh: Fresh, planted: str | None) -> tuple[Counter[str], set[str]]:
        """What happened, and the failpoints that have killed."""
        happened, passed = Counter[str](), set[str]()
        for passage in self.passages:
            wanted = [f"{self.name}:{passage}", *([f"{self.then}:1"] if self.then else ())]
            trial = survive(fresh, self.send, wanted, planted)
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
    for number, (name, send) in enumerate(CASES):
        passages = range(1 + (number + seed) % MOST_PASSAGES[Size.CI], 0, -1)
        jobs.append(Job(name, send, passages, rng.choice(of_a_restart(send))))
    return jobs


def everything(seed: int) -> list[Job]:
    """Each failpoint at every passage, and each of a restart after several others."""
    rng = random.Random(seed)
    passages = range(1, MOST_PASSAGES[Size.RELEASE] + 1)
    jobs = [Job(name, send, passages, each=True) for name, send in CASES]
    for then in failpoints():
        firsts = [(name, send) for name, send in CASES if then in of_a_restart(send)]
        jobs += [Job(*first, (1,), then) for first in rng.sample(firsts, min(len(firsts), FIRSTS))]
    return jobs


def run(size: Size, seed: int, planted: str | None = None, *, serve: Fresh | None = None) -> Figures:
    """CI: a sample. Release: everything."""
    figures, names = Figures("kills at failpoints", size, seed), set[str]()
    jobs = samples(seed) if size is Size.CI else everything(seed)
    with servers(serve) as fresh, ThreadPoolExecutor(SIDE_BY_SIDE) as executor:
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


CATCHING: Mapping[str, tuple[Send, Sequence[str]]] = {
    "trusts_nothing_but_the_record": (send_ranges, ["after_write:20"]),
    "keeps_what_has_the_wrong_digest": (send_with_digests, ["after_cut:1"]),
    "a_provisional_append_counts": (send_with_digests, ["after_write:3"]),
    "creates_unannounced": (send_ranges, ["after_create_multipart:1"]),
    "leaves_orphans": (send_ranges, ["after_create_multipart:1"]),
    "forgets_the_cancelled": (send_and_give_up, ["before_abort_multipart:1"]),
}
"""Planted bugs, each with an upload and a kill that show it: nobody needs to go through all of them for that."""


def survive(fresh: Fresh, send: Send, wanted: Sequence[str], planted: str | None = None) -> Trial:
    """One upload to its end, through a kill at each of these failpoints (`name:passage`) that is passed."""
    server = fresh("--expire=2s" if send is send_and_wait else "--expire=1h", program=program(planted))
    body = BODY[:MIB] if send in {send_small, send_and_wait} else BODY
    trial, ledger = Trial(server, fresh.bucket, {KEY: None if send is send_and_give_up else body}), Ledger()
    trial.unproven = send in {send_with_digests, send_and_wait}
    if send is send_before_the_start:
        trial.start()
        send_range(server, KEY, body, ledger, RANGE)
        server.kill()
        trial.dead()
    for failpoint in wanted:
        server.spawn(failpoint)
        if server.answers():
            with contextlib.suppress(*GONE):
                trial.hold()
                send(server, KEY, body, ledger)
        if not trial.killed():
            break
        trial.dead()
        trial.counts["kills of restarts" if trial.counts["kills"] else "kills of uploads"] += 1
        trial.counts["kills"] += 1
    else:
        trial.start()
        send(server, KEY, body, ledger)
    trial.end(KEY)
    server.kill()
    return trial
