"""A thousand connections that give nothing, beside twenty streams that do: the streams keep their rate.

What is compared is measured in one run, in turns: a machine that is busy with something else is so in both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
from process import MIB, Bucket, Fresh, Server, bucket_at
from raw_client import CHUNKED, chunk, eventually, head
from weed import Weed

pytest_plugins = ["weed", "process"]
pytestmark = pytest.mark.campaign

SINK = Path(__file__).parents[1] / "bench" / "sink.py"
ATTACKER = Path(__file__).with_name("attacker.py")
KEYS = {name: f"the-key-of-those-who-{name}" for name in ("attack", "stream")}
ATTACKERS, STREAMS, TURNS = 1000, 20, 3
PHASE_SECONDS, WARM_UP_SECONDS = 2.0, 0.3
OWN = 24
"""Descriptors of the server's own that come and go: connections to the store, files that are read back or synced."""

BASE_BYTES, STREAM_BYTES, SILENT_BYTES = 95 * MIB, 800 << 10, 50 << 10
"""What README says of memory: the process and its parts in flight, a fast client, one that gives nothing."""

BLOCK = chunk(os.urandom(256 << 10))


def authorization(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@contextlib.contextmanager
def started(*command: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A program of ours, and its first line."""
    with subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture
def sink() -> Iterator[Bucket]:
    with started(SINK) as process:
        assert process.stdout
        url = process.stdout.readline().decode().strip()
        with bucket_at(Weed(url, process.pid, "sink")) as bucket:
            yield bucket


async def stream(server: Server, number: int, open_gate: asyncio.Event) -> None:
    """Send as fast as it goes while the gate is open, until cancelled."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
    writer.write(head("PUT", f"/objects/stream/{number}", CHUNKED | authorization("stream")) + BLOCK)
    try:
        while True:
            await open_gate.wait()
            writer.write(BLOCK)
            await writer.drain()
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def streaming(server: Server) -> AsyncIterator[asyncio.Event]:
    gate = asyncio.Event()
    streams = [asyncio.create_task(stream(server, number, gate)) for number in range(STREAMS)]
    try:
        yield gate
    finally:
        for task in streams:
            task.cancel()
        ends = await asyncio.gather(*streams, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}, "nobody who streams was ever cut"


def received(server: Server) -> dict[str, int]:
    uploads = server.ask("GET", "/uploads", authorization("stream")).json()["uploads"]
    return {upload["key"]: upload["received"] for upload in uploads}


@dataclass(frozen=True)
class Phase:
    """What the streams got through, together and the slowest of them, and what the server took for it."""

    seconds: float
    cpu_seconds: float
    received: int
    slowest: int

    @property
    def rate(self) -> float:
        return self.received / self.seconds

    @property
    def per_cpu(self) -> float:
        return self.received / self.cpu_seconds

    def lost(self, per_cpu: float) -> float:
        """The share of the event loop's one CPU that went into anything but streams, which otherwise cost `per_cpu`."""
        return (self.cpu_seconds - self.received / per_cpu) / self.seconds


async def measured(server: Server, gate: asyncio.Event) -> Phase:
    gate.set()
    await asyncio.sleep(WARM_UP_SECONDS)
    before, cpu, began = await asyncio.to_thread(received, server), server.cpu_seconds, time.monotonic()
    await asyncio.sleep(PHASE_SECONDS)
    after = await asyncio.to_thread(received, server)
    seconds, cpu = time.monotonic() - began, server.cpu_seconds - cpu
    gate.clear()
    added = [after[key] - before[key] for key in after]
    return Phase(seconds, cpu, sum(added), min(added))


async def test_streams_keep_their_rate_beside_a_thousand_who_give_nothing(sink, tmp_path):
    fresh = Fresh(sink, tmp_path)
    try:
        server = fresh(
            "--spool-size=10GiB", "--subject-appends=1000", *(f"--api-key={key}" for key in KEYS.values())
        ).start()
        quiet, attacked, resident, at_rest = [], [], [], server.descriptors
        # A socket each, and a part file for who sends a body.
        all_there = at_rest + 2 * STREAMS + 4 * ATTACKERS // 3 - 5
        async with streaming(server) as gate:
            await eventually(lambda: server.descriptors >= at_rest + 2 * STREAMS - 5)
            for _ in range(TURNS):
                quiet.append(await measured(server, gate))
                with started(ATTACKER, str(server.ports[0]), str(ATTACKERS), f"Authorization: Bearer {KEYS['attack']}"):
                    await eventually(lambda: server.descriptors >= all_there, seconds=60)
                    attacked.append(await measured(server, gate))
                    resident.append(server.resident_bytes)
                await eventually(lambda: server.descriptors < at_rest + 2 * STREAMS + OWN, seconds=20)
        await eventually(lambda: server.descriptors < at_rest + OWN, seconds=20)
        server.stop()
    finally:
        fresh.kill_all()
    told = f"quiet {quiet}\nattacked {attacked}\nresident {[f'{size / MIB:.0f} MiB' for size in resident]}"
    sys.stdout.write(told)
    # On a machine that is busy the server gets less than its one CPU, and the rate says nothing; on one that is not,
    # the streams take all of it, and this is the part of their rate that they lose.
    per_cpu = median(phase.per_cpu for phase in quiet)
    assert median(phase.lost(per_cpu) for phase in attacked) < 0.2, told
    assert max(phase.rate for phase in attacked) > 0.8 * min(phase.rate for phase in quiet), told
    assert all(phase.slowest * STREAMS > 0.25 * phase.received for phase in attacked), told
    assert max(resident) < BASE_BYTES + STREAMS * STREAM_BYTES + ATTACKERS * SILENT_BYTES, told
