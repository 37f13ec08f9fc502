"""Failpoints kill where they are told to, at the passage they are told to, and do nothing otherwise."""

import os
import signal
import subprocess
import sys

from streamup import failpoints

PASSAGES = """
from streamup.failpoints import failpoint
for number in range(4):
    failpoint("elsewhere")
    print(number, flush=True)
    failpoint("here")
"""


def run(setting):
    environment = {name: value for name, value in os.environ.items() if name != "STREAMUP_FAILPOINT"}
    if setting is not None:
        environment["STREAMUP_FAILPOINT"] = setting
    done = subprocess.run(
        [sys.executable, "-c", PASSAGES], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.split()


def test_without_the_variable_nothing_happens():
    assert run(None) == (0, ["0", "1", "2", "3"])


def test_the_first_passage_kills():
    assert run("here") == (-signal.SIGKILL, ["0"])


def test_the_nth_passage_kills():
    assert run("here:3") == (-signal.SIGKILL, ["0", "1", "2"])


def test_in_this_process_it_is_an_empty_function():
    assert failpoints.failpoint is failpoints._ignore
    assert failpoints.failpoint("anything") is None


def test_only_the_named_place_at_the_given_passage_kills(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    hit = failpoints._killer("here:2")
    for name in ("here", "elsewhere", "elsewhere"):
        hit(name)
    assert killed == []
    hit("here")
    assert killed == [(os.getpid(), signal.SIGKILL)]
    hit("here")
    assert len(killed) == 1
