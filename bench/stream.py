"""What a stream costs: CPU, throughput and memory of the real server process.

    python bench/stream.py [--size 2GiB] [--runs 5] [--store sink] [--json FILE]

`cat` and `curl -T -` send a stream of unknown length to `python -m streamup serve`, which spools it, checksums it
(CRC64NVME) and stores it. Each store is measured with a stream of a quarter of the size, too, on a server of its own:
what grows between the two rows grows with the stream.

    sink        S3 that discards (bench/sink.py): what streamup costs by itself
    sink, tmpfs the same with the spool in /dev/shm, if there is one
    seaweedfs   the store of `serve --local`, on the same disk

CPU is user and system time of the server process alone, from /proc (Linux); neither the sender nor the store count.
The numbers are medians, and mean little on a busy machine: with a load of 5 on two cores they are a quarter higher
than with less than 1. Nothing is believed: each stream's size and CRC64NVME are compared with what was sent.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from awscrt import checksums

from streamup.values import parse_size

GIB, MIB = 1 << 30, 1 << 20
BLOCK_BYTES = 64 * MIB
"""The stream is this many random bytes over and over, so that no store can compress it."""

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
STOP_SECONDS = 60


@dataclass(frozen=True)
class Store:
    """What the server is told about its store, and where its data directory lies."""

    name: str
    local: bool = False
    parent: Path | None = None


@dataclass(frozen=True)
class Row:
    """Medians of one store and one size; `spread` is the smallest and the largest CPU figure."""

    store: str
    bytes: int
    cpu_seconds_per_gib: float
    spread: tuple[float, float]
    user: float
    system: float
    gb_per_second: float
    peak_mib: float
    idle_mib: float


@dataclass(frozen=True)
class Source:
    """The block the stream is made of."""

    path: Path
    crc: int

    @classmethod
    def make(cls, directory: Path) -> Source:
        data = os.urandom(BLOCK_BYTES)
        path = directory / "block"
        path.write_bytes(data)
        return cls(path, checksums.crc64nvme(data))

    def crc_of(self, blocks: int) -> str:
        """The CRC64NVME of so many blocks, as S3 writes it."""
        crc = 0
        for _ in range(blocks):
            crc = checksums.combine_crc64nvme(crc, self.crc, BLOCK_BYTES)
        return base64.b64encode(crc.to_bytes(8, "big")).decode()


# --- processes


@contextmanager
def started(*command: str, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program of ours on loopback, and the first line it prints. Ended by SIGTERM, or SIGKILL."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit(f"{' '.join(command)} did not start.")
            yield process, line
        except SystemExit:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


@contextmanager
def serving(store: Store, data: Path, extra: list[str]) -> Iterator[tuple[int, str]]:
    """The server with this store: its pid and its URL."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STREAMUP_"))}
    ours |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    ours |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    serve = [sys.executable, "-m", "streamup", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"]
    serve += ["--data", str(data), *extra]
    if store.local:
        with started(*serve, "--local", env=ours) as (process, line):
            yield process.pid, line.split()[3]
        return
    with started(sys.executable, str(Path(__file__).with_name("sink.py"))) as (_, url):
        where = ["s3://bench", "--s3-endpoint-url", url.strip(), "--s3-path-style"]
        with started(*serve, *where, env=ours) as (process, line):
            yield process.pid, line.split()[3]


def cpu(pid: int) -> tuple[float, float]:
    """User and system seconds of a process so far, its threads included and its children not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def resident(pid: int, field: str) -> float:
    """MiB: `VmRSS` now, `VmHWM` at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def send(source: Source, blocks: int, url: str) -> float:
    """Stream so many blocks through a pipe. Returns the seconds until the answer, which must be the right one."""
    began = time.monotonic()
    with subprocess.Popen(["cat", *[str(source.path)] * blocks], stdout=subprocess.PIPE) as cat:
        curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "-T", "-", url]
        answer = subprocess.run(curl, stdin=cat.stdout, stdout=subprocess.PIPE, text=True, check=False).stdout
    seconds = time.monotonic() - began
    try:
        found = json.loads(answer)
        right = (found["size"], found["checksum"]["crc64nvme"]) == (blocks * BLOCK_BYTES, source.crc_of(blocks))
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise SystemExit(f"The object is not what was sent: {answer or 'no answer'}")
    return seconds


# --- measuring


def measure(store: Store, source: Source, blocks: int, runs: int, extra: list[str]) -> Row:
    size = blocks * BLOCK_BYTES
    user, system, seconds = [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="streamup-bench-", dir=store.parent) as data,
        serving(store, Path(data), extra) as (pid, url),
    ):
        idle = resident(pid, "VmRSS")
        for _ in range(runs):
            before = cpu(pid)
            seconds.append(send(source, blocks, f"{url}/objects/stream"))
            after = cpu(pid)
            user.append((after[0] - before[0]) * GIB / size)
            system.append((after[1] - before[1]) * GIB / size)
        peak = resident(pid, "VmHWM")
    both = [sum(pair) for pair in zip(user, system, strict=True)]
    rate = size / 1e9 / median(seconds)
    return Row(store.name, size, median(both), (min(both), max(both)), median(user), median(system), rate, peak, idle)


def machine() -> dict[str, Any]:
    try:
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except StopIteration:
        model = platform.machine()
    return {
        "cpu": model.rpartition(": ")[2],
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("streamup", "aiohttp", "aiobotocore", "awscrt")},
    }


def stores(names: list[str]) -> list[Store]:
    memory = Path("/dev/shm")
    every = [Store("sink"), Store("seaweedfs", local=True)]
    if memory.is_dir() and os.access(memory, os.W_OK):
        every.insert(1, Store("sink, tmpfs", parent=memory))
    return [store for store in every if not names or store.name.partition(",")[0] in names]


HEAD = "store          stream CPU-s/GiB   (min-max)  user   sys  GB/s  peak (idle) MiB"


def line(row: Row) -> str:
    spread = f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
    return (
        f"{row.store:12} {row.bytes / GIB:4.2f} GiB {row.cpu_seconds_per_gib:9.2f} {spread:>11} {row.user:5.2f} "
        f"{row.system:5.2f} {row.gb_per_second:5.2f}  {row.peak_mib:4.0f} ({row.idle_mib:.0f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=2 * GIB, help="of the longer stream (2GiB)")
    parser.add_argument("--runs", type=int, default=3, help="per row (3)")
    parser.add_argument("--store", action="append", default=[], choices=["sink", "seaweedfs"], help="only this one")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("serve", nargs="*", metavar="-- OPTION", help="for streamup serve, as in: -- --part-size 16MiB")
    options = parser.parse_args()
    if sys.platform != "linux" or shutil.which("curl") is None:
        raise SystemExit("This needs Linux (/proc) and curl.")
    here = machine()
    print(", ".join(f"{name} {value}" for name, value in here.items()), HEAD, sep="\n", flush=True)
    blocks, rows = max(options.size // BLOCK_BYTES, 4), []
    with tempfile.TemporaryDirectory(prefix="streamup-bench-") as directory:
        source = Source.make(Path(directory))
        for store in stores(options.store):
            for part in (blocks // 4, blocks):
                rows.append(measure(store, source, part, options.runs, options.serve))
                print(line(rows[-1]), flush=True)
    if options.json:
        figures = {"machine": here, "runs": options.runs, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
