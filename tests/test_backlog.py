"""client/backlog.py against plain bytes, and client/pipe.py over real pipes."""

import asyncio
import errno
import os
import resource
import tempfile
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from raw_client import eventually

from streamup.client import backlog as backlog_module
from streamup.client import pipe as pipe_module
from streamup.client.backlog import Backlog
from streamup.client.pipe import Pipe

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


@pytest.mark.parametrize("call", ["pwrite", "pread"])
def test_nobody_waits_for_the_disk_of_another(monkeypatch, call):
    stalls, goes_on = threading.Event(), threading.Event()
    real = getattr(os, call)

    def stalling(*args):
        stalls.set()
        assert goes_on.wait(10)
        return real(*args)

    backlog = Backlog(10, 100)
    backlog.add(b"memory" * 2)
    assert backlog.in_files
    monkeypatch.setattr(os, call, stalling)
    work = threading.Thread(target=backlog.add, args=(b"more",)) if call == "pwrite" else None
    work = work or threading.Thread(target=backlog.at, args=(11,))
    work.start()
    assert stalls.wait(10)
    assert not backlog.in_memory(11)
    assert backlog.at(0) == b"memorymemo"
    backlog.release(12)
    assert backlog.in_files, "its file is still in use"
    goes_on.set()
    work.join()
    backlog.release(backlog.end)
    assert backlog.in_files == 0


def test_a_full_disk_is_no_room_and_memory_is_used_again(monkeypatch):
    told, full = [], [True]

    def pwrite(descriptor, data, offset, real=os.pwrite):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    backlog = Backlog(MEMORY, FILES, full_disk=told.append)
    assert backlog.add(bytes(100)) == MEMORY
    assert backlog.add(b"x") == 0
    assert (backlog.in_files, len(told), told[0].errno) == (0, 1, errno.ENOSPC)
    backlog.release(MEMORY // 4)
    assert backlog.add(bytes(100)) == MEMORY // 4
    full[0] = False
    assert backlog.add(bytes(10)) == 10
    full[0] = True
    assert backlog.add(b"x") == 0
    assert backlog.in_files == 10
    backlog.release(MEMORY)
    assert backlog.add(b"y") == 1
    assert backlog.at(backlog.end - 1) == b"y"
    backlog.close()


def test_no_directory_for_files_is_no_room(tmp_path):
    told = []
    backlog = Backlog(MEMORY, FILES, str(tmp_path / "none"), full_disk=told.append)
    assert backlog.add(bytes(100)) == MEMORY
    assert told[0].errno == errno.ENOENT


def test_a_file_that_has_lost_its_bytes_is_an_error(monkeypatch):
    backlog = Backlog(MEMORY, FILES)
    backlog.add(bytes(100))
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(OSError, match="not there any more"):
        backlog.at(MEMORY)
    backlog.close()


def test_files_have_no_name(tmp_path):
    backlog = Backlog(MEMORY, FILES, str(tmp_path))
    backlog.add(bytes(100))
    assert backlog.in_files
    assert list(tmp_path.iterdir()) == []
    backlog.close()


def test_large_temporary_files_are_not_kept_in_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert backlog_module.usual_directory() == str(tmp_path)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert backlog_module.usual_directory() == "/var/tmp"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert backlog_module.usual_directory() == tempfile.gettempdir()


# --- pipes


class Producer:
    """A thread that writes into a pipe, and may have to wait."""

    def __init__(self, data, write=65536):
        self.reading, self.writing = os.pipe()
        self.written = 0

        def run():
            while self.written < len(data):
                self.written += os.write(self.writing, data[self.written : self.written + write])
            os.close(self.writing)

        self.thread = threading.Thread(target=run)
        self.thread.start()


async def all_of(pipe):
    found = b""
    while piece := await pipe.read(len(found)):
        found += piece
        pipe.release(len(found))
    return found


async def test_what_goes_into_a_pipe_comes_out_of_it():
    data = os.urandom(20_000)
    producer = Producer(data, write=1_000)
    pipe = Pipe(producer.reading, Backlog(MEMORY, FILES))
    pipe.start()
    assert await pipe.first()
    assert await all_of(pipe) == data
    assert (pipe.ended, pipe.error) == (True, None)
    producer.thread.join()


async def test_a_producer_only_ever_sees_a_slow_pipe(monkeypatch):
    monkeypatch.setattr(pipe_module, "READ_BYTES", 4096)
    monkeypatch.setattr(backlog_module, "IN_MEMORY_BYTES", 4096)
    data = os.urandom(80_000)
    producer = Producer(data)
    pipe = Pipe(producer.reading, Backlog(8192, 0))
    pipe.start()
    await eventually(lambda: pipe.full)
    assert pipe.backlog.end == 8192
    assert producer.written < len(data)
    assert await all_of(pipe) == data
    producer.thread.join()


async def test_a_pipe_that_is_empty_or_broken_or_stopped(tmp_path):
    nothing = os.open(os.devnull, os.O_RDONLY)
    pipe = Pipe(nothing, Backlog(MEMORY, FILES))
    pipe.start()
    assert not await pipe.first()
    os.close(nothing)
    directory = os.open(tmp_path, os.O_RDONLY)
    pipe = Pipe(directory, Backlog(MEMORY, FILES))
    pipe.start()
    assert not await pipe.first()
    assert pipe.error.errno == errno.EISDIR
    os.close(directory)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    pipe = Pipe(reading, Backlog(MEMORY, FILES))
    pipe.start()
    first = asyncio.create_task(pipe.first())
    await asyncio.sleep(0)
    pipe.stop()
    assert not await first
    os.write(writing, b"x")
    await eventually(lambda: not pipe._thread.is_alive())
    for one in (reading, writing):
        os.close(one)


async def test_waiting_for_a_producer_costs_nothing():
    reading, writing = os.pipe()
    pipe = Pipe(reading, Backlog(MEMORY, FILES))
    pipe.start()
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await pipe.first()
    assert sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before < 0.1
    os.close(writing)
    assert not await pipe.first()
    os.close(reading)
