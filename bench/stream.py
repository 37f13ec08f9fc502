"""What one stream of unknown length costs on its way into S3: streamup beside what else people use, in turn.

    python bench/stream.py [--size 2GiB] [--rounds 3] [--store sink] [--row NAME] [--json FILE] [--picture FILE]
        [-- OPTION OF streamup serve ...]

`cat` sends the stream into the program's stdin, or through `curl -T -` to a server, once into each row and then again:
A B C A B C. Rows and stores are in bench/rows.py, the peers in bench/peers; they are installed into `--cache`.

    sink        S3 that discards (bench/sink.py): what the program costs by itself
    seaweedfs   the store of `serve --local`, on the same disk, a new one for each round

Each run has a process of its own, which has started, and waits, when the stream begins: neither its start nor its end
as a server is in the figures. CPU is user and system time of all its threads and children, memory its highest resident
set, both from /proc (Linux). Sender and sink are on the last core, and what they use of it is told: near 100 % they are
what limits. Figures are medians (lowest to highest), "x" is the median of the CPU's ratios to streamup of the same
round: on a busy machine compare these.

Nothing is believed: size and CRC64NVME of each object are compared with what was sent. And what survives `kill -9` is
tried: a stream stops in the middle of a part, the program is killed when it has taken all of that, started again, and
asked how far it is.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import botocore.session
from awscrt import checksums
from botocore.exceptions import BotoCoreError, ClientError
from processes import LOOK_SECONDS, cpu, free_port, kill, machine, peak, settle, to_last_core
from rows import BUCKET, ROWS, STREAMUP, Environment, Place, Row, Server, Store, certificate, sink, streamup

from streamup.local import LocalStore
from streamup.values import parse_size

GIB, MIB = 1 << 30, 1 << 20
BLOCK_BYTES = 64 * MIB
"""The stream is this many random bytes over and over, so that no store can compress it."""

KILLED_BYTES = BLOCK_BYTES + 37 * MIB
"""Sent before the kill: twelve parts, and five MiB of the next."""

KEY = "stream"


@dataclass(frozen=True)
class Run:
    """One stream."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    sender_cpu_seconds: float
    sink_cpu_seconds: float | None


@dataclass
class Line:
    """One row of one store: all its runs, by rounds, and what a kill has left."""

    row: str
    store: str
    bytes: int
    runs: list[Run] = field(default_factory=list)
    kept: int | None = None
    """Of `KILLED_BYTES`: the offset that the program knows after `kill -9`."""

    unfinished: int | None = None
    """Bytes of parts that are in the store then, in a multipart upload that is not complete."""

    missing: str | None = None
    """Why there are no figures."""

    def figures(self, first: Line) -> dict[str, Any]:
        """Medians, of the CPU also the lowest and the highest, and its ratio to the same rounds of another row."""
        per_gib = [run.cpu_seconds * GIB / self.bytes for run in self.runs]
        return {
            "cpu_seconds_per_gib": median(per_gib),
            "spread": (min(per_gib), max(per_gib)),
            "ratio": _median([a.cpu_seconds / b.cpu_seconds for a, b in zip(self.runs, first.runs, strict=False)]),
            "gb_per_second": self.bytes / 1e9 / median(run.seconds for run in self.runs),
            "peak_mib": max(run.peak_bytes for run in self.runs) / MIB,
            "last_core": median(
                (run.sender_cpu_seconds + (run.sink_cpu_seconds or 0)) / run.seconds for run in self.runs
            ),
        }


Lines = Sequence[Line]


def _median(numbers: Sequence[float]) -> float | None:
    return median(numbers) if numbers else None


class WrongError(Exception):
    """A program did not do what it is for."""


# --- the stream


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

    def crc_of(self, blocks: int) -> int:
        crc = 0
        for _ in range(blocks):
            crc = checksums.combine_crc64nvme(crc, self.crc, BLOCK_BYTES)
        return crc


def measure(row: Row, place: Place, source: Source, blocks: int) -> Run:
    """So many blocks, once."""
    with row.running(place, KEY) as process, row.taker(place, KEY, process) as taker:
        settle(process.pid)
        used, discarded = cpu(process.pid), _cpu(place.store)
        began = time.monotonic()
        cat = subprocess.Popen(["cat", *[str(source.path)] * blocks], stdout=taker.stdin)
        to_last_core(cat.pid)
        assert taker.stdin is not None
        taker.stdin.close()
        top = await_end(taker, process)
        row.finish(place, KEY, blocks * BLOCK_BYTES)
        seconds, used = time.monotonic() - began, cpu(process.pid) - used
        discarded = _cpu(place.store) - discarded
        sender = cpu(cat.pid) + (0 if taker is process else cpu(taker.pid))
        if codes := [code for code in (cat.wait(), taker.wait()) if code]:
            raise WrongError(f"the stream ended with {codes[-1]}")
    return Run(seconds, used, top, sender, discarded if place.store.pid else None)


def await_end(taker: subprocess.Popen[bytes], process: subprocess.Popen[bytes]) -> int:
    """Leave the end of `taker` to be waited for, so that its CPU can be read. Returns the peak memory of `process`."""
    top, end = 0, os.pidfd_open(taker.pid)
    try:
        while not select.select([end], [], [], LOOK_SECONDS)[0]:
            top = max(top, peak(process.pid))
    finally:
        os.close(end)
    return max(top, peak(process.pid))


def _cpu(store: Store) -> float:
    return cpu(store.pid) if store.pid else 0.0


def survive(row: Row, place: Place, source: Source) -> int:
    """Kill it in the middle of a stream. Returns the offset that it knows when it is there again."""
    data = source.path.read_bytes()
    with row.running(place, KEY) as process, row.taker(place, KEY, process) as taker:
        assert taker.stdin is not None
        for start in range(0, KILLED_BYTES, BLOCK_BYTES):
            taker.stdin.write(data[: KILLED_BYTES - start])
        taker.stdin.flush()
        settle(process.pid)
        kill(process)
    return row.offset(place, KEY)


# --- what is in the store


class Bucket:
    """Looks, with botocore, at what the programs have stored."""

    def __init__(self, store: Store) -> None:
        self._kind = store.kind
        keys = {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}
        session = botocore.session.get_session()
        self._s3 = session.create_client(
            "s3", "us-east-1", endpoint_url=store.url, verify=str(store.certificate or True), **keys
        )

    def check(self, size: int, crc: int) -> None:
        """That the object is what was sent; the sink knows it of itself, from others it is read. Then delete it."""
        head = self._s3.head_object(Bucket=BUCKET, Key=KEY, ChecksumMode="ENABLED")
        if head["ContentLength"] != size:
            raise WrongError(f"its object has {head['ContentLength']} bytes of {size}")
        if self._crc(head) != crc:
            raise WrongError("its object has other bytes")
        self._s3.delete_object(Bucket=BUCKET, Key=KEY)

    def _crc(self, head: dict[str, Any]) -> int:
        if self._kind == "sink":
            return int.from_bytes(base64.b64decode(head["ChecksumCRC64NVME"]))
        crc = 0
        for data in self._s3.get_object(Bucket=BUCKET, Key=KEY)["Body"].iter_chunks(4 * MIB):
            crc = checksums.crc64nvme(data, crc)
        return crc

    def unfinished(self) -> int:
        """Bytes of parts that wait in the store for the rest. There must be no object."""
        with suppress(self._s3.exceptions.ClientError):
            head = self._s3.head_object(Bucket=BUCKET, Key=KEY)
            raise WrongError(f"an object of {head['ContentLength']} bytes is there")
        uploads = self._s3.list_multipart_uploads(Bucket=BUCKET, Prefix=KEY).get("Uploads", [])
        listed = [self._s3.list_parts(Bucket=BUCKET, Key=KEY, UploadId=upload["UploadId"]) for upload in uploads]
        return sum(part["Size"] for parts in listed for part in parts.get("Parts", []))


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Store]:
    with asyncio.Runner() as runner:
        local = LocalStore(directory, BUCKET)
        runner.run(local.__aenter__())
        try:
            yield Store("seaweedfs", local.endpoint_url, local.access_key, local.secret_key)
        finally:
            runner.run(local.__aexit__(None, None, None))


@contextmanager
def opened(kind: str, row: Row | None = None) -> Iterator[Callable[[Row], Store]]:
    """Stores of this kind, new and empty, for one row or for all: one by TLS, too, where that is wanted."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamup-bench-")))
        if kind == "seaweedfs":
            store = stack.enter_context(seaweedfs(directory))
            yield lambda _: store
            return
        stores = {False: stack.enter_context(sink())}
        if shutil.which("openssl") and (row is None or row.tls):
            stores[True] = stack.enter_context(sink(certificate(directory)))
        yield lambda row: stores[row.tls]


# --- all of them


@contextmanager
def a_place(row: Row, store: Store, peers: Environment) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="streamup-bench-", dir=row.parent) as directory:
        yield Place(store, Path(directory), free_port(), peers)


@contextmanager
def told(line: Line) -> Iterator[None]:
    """What goes wrong stands in the table, and the others go on."""
    try:
        yield
    except (WrongError, OSError, subprocess.SubprocessError, BotoCoreError, ClientError) as error:
        line.missing = str(error)


def compare(kind: str, rows: Sequence[Row], source: Source, peers: Environment, options: argparse.Namespace) -> Lines:
    blocks = max(1, options.size // BLOCK_BYTES)
    lines = {row: Line(row.name, kind, blocks * BLOCK_BYTES, missing=row.missing(peers)) for row in rows}
    for turn in range(options.rounds):
        with opened(kind) as store_of:
            for row, line in lines.items():
                if line.missing is not None:
                    continue
                with told(line), a_place(row, store := store_of(row), peers) as place:
                    line.runs.append(measure(row, place, source, blocks))
                    Bucket(store).check(line.bytes, source.crc_of(blocks))
                say(f"{kind}, round {turn + 1}: {row.name}: {line.missing or line.runs[-1]}")
    if kind == "sink":
        for row, line in lines.items():
            if line.missing is not None:
                continue
            with told(line), opened(kind, row) as store_of, a_place(row, store := store_of(row), peers) as place:
                line.kept = survive(row, place, source)
                line.unfinished = Bucket(store).unfinished()
                say(f"{row.name}: {line.kept / MIB:.1f} of {KILLED_BYTES / MIB:.1f} MiB known after kill -9")
    return list(lines.values())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def base(lines: Lines) -> Line:
    """What the others are compared with."""
    return next((line for line in lines if line.row == STREAMUP.name), lines[0])


def table(lines: Lines) -> Iterator[str]:
    yield f"{lines[0].store:28} CPU-s/GiB   (min-max)      x  GB/s  peak MiB  last core  after kill -9"
    for line in lines:
        if line.missing is not None or not line.runs:
            yield f"{line.row:28} missing: {line.missing}"
            continue
        figures = line.figures(base(lines))
        spread = "{:.2f}-{:.2f}".format(*figures["spread"])
        ratio = "" if figures["ratio"] is None else f"{figures['ratio']:.2f}"
        kept = "" if line.kept is None else f"{line.kept / MIB:.0f} of {KILLED_BYTES / MIB:.0f} MiB"
        yield (
            f"{line.row:28} {figures['cpu_seconds_per_gib']:9.2f} {spread:>11} {ratio:>6} "
            f"{figures['gb_per_second']:5.2f} {figures['peak_mib']:9.0f} {figures['last_core']:9.0%}   {kept}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamup-bench"
    parser.add_argument("--size", type=parse_size, default=2 * GIB, help="of each stream, in blocks of 64 MiB (2GiB)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--store", action="append", choices=["sink", "seaweedfs"], help="only this one")
    parser.add_argument("--row", action="append", help="only rows with this in their name")
    parser.add_argument("--cache", type=Path, default=cache, help=f"where the peers are installed ({cache})")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--picture", type=Path, help="... and draw them, into a PNG")
    parser.add_argument("serve", nargs="*", metavar="-- OPTION", help="one more row: streamup with it")
    options = parser.parse_args()
    if sys.platform != "linux" or shutil.which("curl") is None:
        raise SystemExit("This needs Linux (/proc) and curl.")
    peers = Environment(options.cache)
    peers.install()
    here = machine() | {"peers": peers.versions()}
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    chosen = [row for row in ROWS if not options.row or any(name in row.name for name in options.row)]
    if options.serve:
        chosen.append(Server(f"streamup {' '.join(options.serve)}", streamup(*options.serve), needs="curl"))
    figures: dict[str, Any] = {"machine": here, "killed_bytes": KILLED_BYTES, "rows": []}
    with tempfile.TemporaryDirectory(prefix="streamup-bench-") as directory:
        source = Source.make(Path(directory))
        for kind in options.store or ["sink", "seaweedfs"]:
            rows = [row for row in chosen if kind == "sink" or not row.sink_only]
            if not rows:
                continue
            lines = compare(kind, rows, source, peers, options)
            print("", *table(lines), sep="\n", flush=True)
            figures["rows"] += [asdict(line) | (line.figures(base(lines)) if line.runs else {}) for line in lines]
    figures["machine"]["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.picture and "pip" in peers.missing:
        say(f"There is no picture: {peers.missing['pip']}")
    elif options.picture:
        draw = [str(peers.python), str(Path(__file__).with_name("picture.py")), str(options.picture)]
        subprocess.run(draw, input=json.dumps(figures), text=True, check=True)


if __name__ == "__main__":
    main()
