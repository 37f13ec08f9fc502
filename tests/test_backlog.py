"""client/backlog.py against plain bytes, and client/pipe.py over real pipes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamup.client import backlog as backlog_module
from streamup.client.backlog import Backlog

MEMORY, FILES = 64, 200
"""Bytes. Segments are a quarter of the memory, and 50 in a file."""


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(backlog_module, "IN_MEMORY_BYTES", MEMORY // 4)
    monkeypatch.setattr(backlog_module, "IN_FILE_BYTES", 50)
    monkeypatch.setattr(backlog_module, "READ_BYTES", 20)


class AgainstBytes(RuleBasedStateMachine):
    """Whatever is added, read and released in whatever order, it is the stream from what was released to its end."""

    def __init__(self):
        super().__init__()
        self.stream = b""
        self.released = 0

    @initialize(files=st.sampled_from([0, FILES]))
    def begin(self, files):
        self.backlog = Backlog(MEMORY, files)
        self.most = MEMORY + files

    @rule(data=st.binary(max_size=100))
    def add(self, data):
        taken = self.backlog.add(data)
        assert 0 <= taken <= len(data)
        self.stream += data[:taken]
        if taken < len(data):
            # What is given back in whole segments may be held by the first and the last of each kind.
            assert len(self.stream) - self.released > self.most - 2 * (MEMORY // 4) - 2 * 50

    @precondition(lambda self: len(self.stream) > self.released)
    @rule(share=st.floats(0, 1))
    def release(self, share):
        self.released += round(share * (len(self.stream) - self.released))
        self.backlog.release(self.released)

    @rule(share=st.floats(0, 1))
    def read(self, share):
        position = self.released + round(share * (len(self.stream) - self.released))
        piece = bytes(self.backlog.at(position))
        assert piece == self.stream[position : position + len(piece)]
        assert (len(piece) > 0) is (position < len(self.stream))
        assert isinstance(self.backlog.in_memory(position), bool)

    @rule()
    def read_all(self):
        position, found = self.released, b""
        while piece := self.backlog.at(position + len(found)):
            found += piece
        assert found == self.stream[self.released :]

    @invariant()
    def bounded(self):
        assert self.backlog.end == len(self.stream)
        assert self.backlog.start == self.released
        assert 0 <= self.backlog.in_files <= FILES
        assert 0 <= self.backlog._memory <= MEMORY

    def teardown(self):
        self.backlog.close()
        assert self.backlog.in_files == 0


@pytest.mark.usefixtures("_small")
class TestAgainstBytes(AgainstBytes.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
