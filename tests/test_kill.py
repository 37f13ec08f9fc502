"""The campaigns that kill streamup, and what must be known of them before they are believed."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import calls
import killing
import pytest
import zygote
from calls import Call, Watch
from campaigns import Size, kill_at_calls, kill_at_failpoints, kill_at_random
from invariants import Broken, Invariant
from killing import Trial
from planted import BUGS
from process import content, prefix_of
from resuming import RANGE, Sending, ranges, small

pytest_plugins = ["weed", "process"]

KEY = "killed"
BODY = content(2 * RANGE)


def broken(*invariants):
    """Bytes that had been received, and that were announced as well, may be missed by either name."""
    names = {*invariants, Invariant.OFFSET} if Invariant.RECEIVED in invariants else invariants
    return pytest.raises(Broken, match=f"^({'|'.join(map(str, names))}) ")


# -- the campaigns ---------------------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_killed_at_every_failpoint_and_again_in_the_restart(serve):
    figures = kill_at_failpoints.run(Size.CI, 1, serve=serve)
    figures.save_if_wanted()
    assert figures.counts["failpoints"] == len(kill_at_failpoints.failpoints())
    assert figures.counts["kills of restarts"] > 10


@pytest.mark.campaign
@pytest.mark.skipif(calls.why_not() is not None, reason=str(calls.why_not()))
def test_killed_at_every_kind_of_system_call(serve):
    figures = kill_at_calls.run(Size.CI, 1, serve=serve)
    figures.save_if_wanted()
    for name in ("write", "pwrite64", "fdatasync", "fsync", "openat", "close", "connect", "accept4"):
        assert figures.counts[f"at {name}"], name
    assert figures.counts["kills of restarts"] > 20


@pytest.mark.campaign
def test_killed_at_random_moments(serve):
    figures = kill_at_random.run(Size.CI, 1, serve=serve)
    figures.save_if_wanted()
    assert figures.counts["bytes in the spool then"] > 0


@pytest.mark.campaign
@pytest.mark.parametrize("bug", kill_at_failpoints.CATCHING)
def test_a_planted_bug_is_caught_by_a_kill(serve, monkeypatch, bug):
    """Without it the same upload goes through the same kill."""
    kill, invariants = kill_at_failpoints.CATCHING[bug], BUGS[bug].caught_by["kill_at_failpoints"]
    assert kill_at_failpoints.survive(serve, *kill).counts["kills"] == 1
    monkeypatch.setattr(killing, "ENDS_WITHIN", 5.0)
    with broken(*invariants):
        kill_at_failpoints.survive(serve, *kill, bug)


# -- failpoints ------------------------------------------------------------------------------------------------------


def test_every_failpoint_has_its_case():
    names = set(kill_at_failpoints.failpoints())
    assert set(kill_at_failpoints.SPECIAL) <= names
    assert {name for name, _ in kill_at_failpoints.CASES} == names
    steps = ("write", "sync", "unlink", "create_multipart", "put_part", "put_object", "complete_multipart")
    assert {f"{when}_{step}" for step in (*steps, "abort_multipart") for when in ("before", "after")} <= names


def test_what_is_killed_at_a_step_goes_on(serve):
    """One of the failpoints, and one of the restart after it; the campaign goes through all."""
    trial = kill_at_failpoints.survive(serve, ranges, ["before_commit_receipt:2", "after_put_part:1"])
    assert trial.counts["kills"] == 2
    assert trial.counts["bytes in the spool then"] > 0
    assert trial.counts["objects compared"] == 1


# -- what is checked -------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(serve):
    return Trial(serve(), serve.bucket, {KEY: BODY})


def test_bytes_that_were_received_and_are_gone_are_missed(trial):
    trial.start()
    Sending(trial.server, KEY, BODY).put(0, RANGE)
    trial.server.kill()
    trial.dead()
    (found,) = (trial.server.data / "spool").iterdir()
    os.truncate(found, RANGE - 1)
    with broken(Invariant.RECEIVED):
        trial.start()


def test_what_is_lost_in_a_second_crash_is_missed_too(trial):
    trial.start()
    Sending(trial.server, KEY, BODY).put(0, RANGE)
    trial.server.kill()
    trial.dead()
    (found,) = (trial.server.data / "spool").iterdir()
    found.unlink()
    trial.dead()
    with broken(Invariant.RECEIVED):
        trial.start()


def test_an_object_that_was_not_sent_so_is_seen(trial):
    trial.bucket.client.put_object(Bucket=trial.bucket.name, Key=prefix_of(trial.server) + KEY, Body=BODY[:-1])
    with broken(Invariant.CLEAN_END):
        trial.look(KEY)


def test_an_object_that_is_made_again_or_vanishes_is_seen(trial):
    where = {"Bucket": trial.bucket.name, "Key": prefix_of(trial.server) + KEY}
    trial.bucket.client.put_object(**where, Body=BODY)
    trial.look(KEY)
    trial.look(KEY)
    trial.bucket.client.put_object(**where, Body=BODY[:-1])
    with broken(Invariant.ONCE):
        trial.look(KEY)
    trial.bucket.client.delete_object(**where)
    with broken(Invariant.WHOLE):
        trial.look(KEY)


def test_what_is_left_in_the_store_is_seen(trial, monkeypatch):
    monkeypatch.setattr(killing, "ENDS_WITHIN", 0.1)
    trial.start()
    trial.bodies[KEY] = BODY[:1000]
    Sending(trial.server, KEY, BODY[:1000]).send(small)
    trial.end(KEY)
    where = {"Bucket": trial.bucket.name, "Key": prefix_of(trial.server) + KEY}
    trial.bucket.client.create_multipart_upload(**where)
    with broken(Invariant.NOTHING_LEFT):
        trial.end(KEY)


def test_an_upload_that_does_not_end_is_seen(trial, monkeypatch):
    monkeypatch.setattr(killing, "ENDS_WITHIN", 0.1)
    trial.start()
    Sending(trial.server, KEY, BODY).put(0, RANGE)
    with broken(Invariant.ENDS):
        trial.end(KEY)


def test_an_even_and_an_odd_seed_are_every_call_that_changes_something():
    made = Counter(write=40, fdatasync=3, read=50)
    found = {(job.name, job.first) for seed in (1, 2) for job in kill_at_calls.jobs("upload", made, Size.RELEASE, seed)}
    assert {("write", 1), ("write", 2), ("fdatasync", 1), ("fdatasync", 2)} < found


# -- system calls ----------------------------------------------------------------------------------------------------

THREADS = """
import os, sys, threading
file = open(sys.argv[1], "ab", buffering=0)
def twice():
    for _ in range(2):
        file.write(b".")
        os.fdatasync(file.fileno())
for _ in range(2):
    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
"""


@dataclass
class Program:
    """What a Watch needs of a server."""

    written: Path
    program: tuple[str, ...] = ("-c", THREADS)
    process: zygote.Forked | None = None

    def spawn(self):
        with self.written.with_suffix(".log").open("wb") as log:
            self.process = zygote.spawn([*self.program, str(self.written)], os.environ, log)


@pytest.fixture
def watch(tmp_path):
    if reason := calls.why_not():
        pytest.skip(reason)
    found = Watch(Program(tmp_path / "written"))
    yield found
    found.close()


def test_calls_of_all_threads_are_counted_in_one_order(watch):
    """Each of two threads makes two: counted by thread, there is no third."""
    watch.spawn(Call("fdatasync", 3))
    assert watch.server.process.wait(20) == -9
    assert watch.server.written.read_bytes() == b"..."
    assert watch.made["fdatasync"] == 3


def test_the_call_at_which_a_process_is_killed_is_not_made(watch):
    watch.spawn(Call("write", 1))
    assert watch.server.process.wait(20) == -9
    assert watch.server.written.read_bytes() == b""


def test_a_run_without_as_many_calls_is_not_hit(watch):
    watch.spawn(Call("fdatasync", 5))
    assert watch.server.process.wait(20) == 0
    assert watch.made["fdatasync"] == 4


@pytest.fixture
def asked_again():
    calls.why_not.cache_clear()
    yield
    calls.why_not.cache_clear()


@pytest.mark.usefixtures("asked_again")
def test_a_machine_whose_calls_have_unknown_numbers_says_so(monkeypatch):
    monkeypatch.setattr(calls, "NAMES", {})
    assert "this machine" in calls.why_not()


@pytest.mark.usefixtures("asked_again")
def test_a_machine_that_allows_no_notifications_says_so(monkeypatch, tmp_path):
    refused = tmp_path / "refused.py"
    refused.write_text("raise OSError(38, 'Function not implemented')")
    monkeypatch.setattr(calls, "__file__", str(refused))
    assert "this machine" in calls.why_not()
    assert "Function not implemented" in calls.why_not()
