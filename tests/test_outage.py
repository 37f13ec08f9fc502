"""The store stops, dies, or is not there yet. Clients that send notice nothing, and no byte is lost."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
from process import CURL, MIB, Fresh, bucket_at, content, curl, digest, prefix_of, running, until
from weed import Weed

from streamup.local import LocalStore

pytest_plugins = ["weed", "process"]


@contextlib.contextmanager
def stopped(pid: int):
    """SIGSTOP: the store accepts connections and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_store_stops_in_mid_stream(serve, bucket, weed):
    """Three seconds of them, which is real time: the client goes on at its pace, and its object is whole."""
    server = serve().start()
    data = content(30 * MIB)
    words = ("-f", "-w", "%{time_total}", "-o", os.devnull, "-T", "-", server.object("live"))
    with running(CURL, "-q", "-sS", *words, stdin=subprocess.PIPE) as process:
        process.stdin.write(data[: 6 * MIB])
        process.stdin.flush()
        until(lambda: server.received("live") == 6 * MIB, what="six MiB")
        with stopped(weed.pid):
            began = time.monotonic()
            for start in range(6 * MIB, 24 * MIB, 600_000):
                process.stdin.write(data[start : min(start + 600_000, 24 * MIB)])
                process.stdin.flush()
                time.sleep(0.1)  # a live stream
            until(lambda: server.received("live") == 24 * MIB, 2, "24 MiB, with the store stopped")
            assert 3 < time.monotonic() - began < 6  # nothing held the client up
            assert server.open_upload("live")["stored"] <= 10 * MIB
            assert server.ask("GET", "/uploads").status == 200
        process.stdin.write(data[24 * MIB :])
        process.stdin.close()
        process.stdin = None
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
    assert digest(bucket.read(prefix_of(server) + "live")) == digest(data)
    server.until_quiet()


@pytest.mark.campaign
def test_an_upload_that_ends_while_the_store_is_stopped_is_accepted(serve, bucket, weed):
    """202 after `--store-timeout`: every byte is safe here, and it completes by itself."""
    server = serve("--store-timeout=1s").start()
    with stopped(weed.pid):
        sent = curl("-f", "-i", "-T", "-", server.object("late"), stdin=content(12 * MIB))
        assert sent.code == 0
        assert re.search(r"(?m)^HTTP/1.1 202 ", sent.text)
        assert re.search(rf"(?im)^upload-offset: {12 * MIB}\b", sent.text)
        server.kill()  # and it survives this, too
    server.start()
    server.until_quiet()
    assert digest(bucket.read(prefix_of(server) + "late")) == digest(content(12 * MIB))
    assert not bucket.multiparts(prefix_of(server))


class Store:
    """A SeaweedFS at an address of its own, that is sometimes there. It runs in a thread with a loop of its own."""

    def __init__(self, directory) -> None:
        self.local = LocalStore(directory, "streamup-test", stop_seconds=0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def start(self) -> None:
        self._do(self.local.__aenter__())

    def stop(self) -> None:
        self._do(self.local.__aexit__(None, None, None))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(Store(tmp_path / "store")) as found:
        found.start()
        try:
            yield found
        finally:
            if found.local.pid:
                found.stop()


@pytest.mark.campaign
def test_a_server_that_starts_while_the_store_is_down(store, tmp_path):
    """Connections are refused. Streams are taken in, survive a kill, and are stored when the store is there."""
    local = store.local
    with bucket_at(Weed(local.endpoint_url, local.pid, "streamup-test", local.access_key, local.secret_key)) as bucket:
        fresh = Fresh(bucket, tmp_path)
        try:
            server = fresh("--store-timeout=1s")
            store.stop()
            server.start(ready="/healthz")
            assert server.ask_admin("/readyz").status == 503
            data = content(17 * MIB)
            status = curl("-f", "-o", os.devnull, "-w", "%{http_code}", "-T", "-", server.object("early"), stdin=data)
            assert (status.code, status.text) == (0, "202")
            server.kill()
            server.start(ready="/healthz")
            store.start()
            server.until_quiet()
            assert digest(bucket.read(prefix_of(server) + "early")) == digest(data)
            assert server.answers()
            server.stop()
        finally:
            fresh.kill_all()


@pytest.mark.campaign
def test_the_embedded_store_is_killed_twice(serve, tmp_path):
    """`serve --local` starts it again, with what it had acknowledged; a stream goes on meanwhile."""
    server = serve(local=True).start()
    state = server.data / "local.json"

    def pid() -> int | None:
        return json.loads(state.read_text())["pid"]

    try:
        data = content(24 * MIB)
        with running(CURL, "-q", "-sSf", "-T", "-", server.object("live"), stdin=subprocess.PIPE) as process:
            for half in (1, 2):
                process.stdin.write(data[(half - 1) * 12 * MIB : half * 12 * MIB])
                process.stdin.flush()
                until(lambda end=half * 12 * MIB: server.received("live") == end, what="another half")
                victim = pid()
                os.kill(victim, signal.SIGKILL)
                until(lambda victim=victim: pid() not in {victim, None}, what="another process")
            process.stdin.close()
            process.stdin = None
            _, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, b"")
        got = tmp_path / "got"
        assert curl("-f", "-L", "-o", got, server.object("live")).code == 0
        assert digest(got.read_bytes()) == digest(data)
        server.kill()  # the store outlives it, and is adopted
        orphan = pid()
        server.start()
        assert pid() == orphan
        assert curl("-f", "-L", "-o", got, server.object("live")).code == 0
        assert digest(got.read_bytes()) == digest(data)
    finally:
        if server.process is None:
            server.start()
        server.stop()
