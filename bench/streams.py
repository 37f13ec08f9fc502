"""How many live streams one process carries: small chunks that arrive one by one, as from encoders and recorders.

    python bench/streams.py [--streams 1 --streams 100 --streams 500] [--rate 2000] [--chunk 4KiB] [--seconds 20]

Each stream is a request of unknown length on a connection of its own, at `--rate` kilobits a second, a chunk at a time,
at moments of its own. One process sends them all and is pinned to the last core, the store (bench/sink.py) with it; the
server has the first one to itself. A chunk that the server has no room for waits here, as it would in an encoder.

    core       of the server process: user and system time by the clock
    us/chunk   the same by the chunk, what all the bytes cost on their way into the store included
    MiB each   resident memory beyond the idle process, by the stream
    slowest    what the slowest stream has got through, by the median one
    delay      from a chunk's `send` until it is in the spool (p50, p99, most), looked at in one part file, each 0.5 ms
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from processes import CORES, LAST_CORE, cpu, machine
from rows import serving

from streamup.values import parse_size

WARM_UP_SECONDS = 3.0
"""Until connections, first part files and buffers are there."""

PATIENCE_SECONDS = 10.0
"""A chunk that takes longer is counted as if it took this."""

TICK_SECONDS = 0.001
"""How exact a chunk's moment is. Its sender sleeps that long between two looks at its calendar."""


@dataclass(frozen=True)
class Row:
    """What so many streams have cost, and got."""

    streams: int
    kilobits: int
    chunk: int
    core: float
    us_per_chunk: float
    mib_each: float
    slowest: float
    got: float
    delay_ms: tuple[float, float, float]
    sender_core: float


class Stream:
    """One request, and the part of it that has gone."""

    def __init__(self, url: str, number: int, chunk: bytes) -> None:
        parts = urlsplit(url)
        self.number = number
        self.sent = 0
        self._left = memoryview(b"")
        self._frame = memoryview(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"POST /uploads?key=live/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
            "Upload-Complete: ?1\r\n\r\n".encode()
        )
        self.socket.settimeout(0)

    def send(self, chunks: int) -> int:
        """Send what is left, then so many chunks. Returns how many of them have to wait."""
        while self._left or chunks:
            if not self._left:
                self._left = self._frame
                chunks -= 1
            try:
                taken = self.socket.send(self._left)
            except BlockingIOError:
                return chunks
            self.sent += taken
            self._left = self._left[taken:]
        return 0


def send(url: str, count: int, chunk: int, interval: float, talk: Connection) -> None:
    """The process that sends: until it is told to stop, when it answers what each stream has sent, and its own CPU."""
    os.sched_setaffinity(0, LAST_CORE)
    body = random.Random(count).randbytes(chunk)
    streams = [Stream(url, number, body) for number in range(count)]
    start = time.monotonic()
    calendar = [(start + interval * number / count, number) for number in range(count)]
    heapq.heapify(calendar)
    waiting = [0] * count
    talk.send("ready")
    while True:
        now = time.monotonic()
        while calendar[0][0] <= now:
            due, number = calendar[0]
            heapq.heapreplace(calendar, (due + interval, number))
            waiting[number] = streams[number].send(waiting[number] + 1)
        if talk.poll(TICK_SECONDS):
            if talk.recv() == "stop":
                break
            talk.send([stream.sent for stream in streams])
    talk.send(time.process_time())
    for stream in streams:
        stream.socket.close()


class Delays:
    """How long it takes a chunk of a stream of its own to be in the spool."""

    def __init__(self, url: str, spool: Path, chunk: int, interval: float) -> None:
        self.seconds: list[float] = []
        self._stream = Stream(url, 10**6, os.urandom(chunk))
        self._spool = spool
        self._chunk = chunk
        self._interval = interval
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()
        self._stream.socket.close()

    def _run(self) -> None:
        before = set(self._spool.iterdir())
        self._stream.send(1)
        while not (new := set(self._spool.iterdir()) - before):
            time.sleep(0.01)
        (file,) = [path for path in new if path.stat().st_size == self._chunk] or [min(new)]
        size = self._chunk
        while not self._ends.wait(random.uniform(0, 2 * self._interval)):
            began = time.monotonic()
            self._stream.send(1)
            size += self._chunk
            while file.stat().st_size < size and time.monotonic() - began < PATIENCE_SECONDS:
                time.sleep(0.0005)
            self.seconds.append(time.monotonic() - began)


def resident(pid: int) -> float:
    """MiB, now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def spool_of(pid: int) -> Path:
    """Where the server keeps its part files."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    data = next(word.partition("=")[2] or words[at + 1] for at, word in enumerate(words) if word.startswith("--data"))
    return Path(data) / "spool"


def measure(count: int, kilobits: int, chunk: int, seconds: float, extra: list[str]) -> Row:
    interval = chunk * 8 / (kilobits * 1000)
    with serving("--spool-size=64GiB", "--max-connections=4096", *extra) as (pid, url):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), CORES[:1])
        idle = resident(pid)
        here, there = multiprocessing.Pipe()
        sender = multiprocessing.Process(target=send, args=(url, count, chunk, interval, there))
        sender.start()
        here.recv()
        delays = Delays(url, spool_of(pid), chunk, interval)
        time.sleep(WARM_UP_SECONDS)
        delays.start()
        here.send("count")
        before, used, began = here.recv(), cpu(pid), time.monotonic()
        time.sleep(seconds)
        here.send("count")
        after, used, took = here.recv(), cpu(pid) - used, time.monotonic() - began
        there_now = resident(pid)
        delays.stop()
        here.send("stop")
        sender_core = here.recv() / (WARM_UP_SECONDS + took)
        sender.join()
    got = sorted(two - one for one, two in zip(before, after, strict=True))
    late = sorted(delays.seconds)
    return Row(
        count,
        kilobits,
        chunk,
        used / took,
        used * 1e6 / (sum(got) / chunk),
        (there_now - idle) / count,
        got[0] / median(got),
        sum(got) / (count * kilobits * 1000 / 8 * took),
        tuple(1000 * late[min(len(late) - 1, round(at * len(late)))] for at in (0.5, 0.99, 1.0)),
        sender_core,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, action="append")
    parser.add_argument("--rate", type=int, default=2000, help="kilobits a second (2000)")
    parser.add_argument("--chunk", type=parse_size, default=4096, help="(4KiB)")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("serve", nargs="*", metavar="-- OPTION", help="for streamup serve")
    options = parser.parse_args()
    here = machine()
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    print("streams kbit/s  chunk   core us/chunk MiB each slowest    got   delay ms (p50 p99 most)  sender")
    rows = []
    for count in options.streams or [1, 10, 100, 500, 1000]:
        row = measure(count, options.rate, options.chunk, options.seconds, options.serve)
        rows.append(row)
        print(
            f"{row.streams:7} {row.kilobits:6} {row.chunk:6} {row.core:6.2f} {row.us_per_chunk:8.1f} "
            f"{row.mib_each:8.3f} {row.slowest:6.0%} {row.got:7.1%} {'':3}"
            + " ".join(f"{ms:6.1f}" for ms in row.delay_ms)
            + f" {row.sender_core:10.2f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
