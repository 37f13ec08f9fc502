"""Programs under measurement: started on loopback, looked at in /proc (Linux), and ended by their pid."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
STOP_SECONDS = 60
SETTLED_SECONDS = 0.5
"""A program that uses less than a tick (10 ms) of CPU in this time waits for something."""

LOOK_SECONDS = 0.02

CORES = sorted(os.sched_getaffinity(0))
LAST_CORE = {CORES[-1]}
"""Where the sender runs, and the store that discards: what is measured has the others for itself, and shares this."""


def to_last_core(pid: int) -> None:
    """Keep a program there that has just been started."""
    os.sched_setaffinity(pid, LAST_CORE)


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program, whose stderr is told if something goes wrong. Ended by SIGTERM, or SIGKILL, with its children."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=dict(environ), stderr=log, **options)
        try:
            yield process
        except BaseException:
            log.seek(0)
            sys.stderr.buffer.write(log.read()[-4000:])
            raise
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill -9, with the children."""
    for pid in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def first_line(command: Sequence[str], environ: Mapping[str, str] = os.environ) -> Iterator[tuple[int, str]]:
    """The pid of a program, and what it says when it is there."""
    with running(command, environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not (line := process.stdout.readline().decode()):
            raise SystemExit(f"{' '.join(command)} did not start.")
        yield process.pid, line


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens. OSError: it has ended, or does not come."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            return


# --- what /proc knows


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _words(task / "children")]
    except FileNotFoundError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu(pid: int) -> float:
    """User and system seconds so far of a process, its threads, and its children, also those that have ended."""
    return sum(int(field) for one in family(pid) for field in _stat(one)[11:15]) / TICKS


def peak(pid: int) -> int:
    """The highest resident set so far, in bytes: a process and its children, what they share counted for each.

    (rusage begins with that of the process from which it was forked.)
    """
    return sum(_peak(one) for one in family(pid))


def settle(pid: int) -> None:
    """Wait until a program waits. TimeoutError: it never does."""
    deadline, used = time.monotonic() + START_SECONDS, -1.0
    while (now := cpu(pid)) > used:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it uses CPU for {START_SECONDS} s without being asked for anything")
        used = now
        time.sleep(SETTLED_SECONDS)


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _stat(pid: int) -> list[str]:
    """What follows the program's name; also of a process that has ended and was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return []


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []


def machine(*more: str) -> dict[str, Any]:
    """What figures depend on, with the versions of our packages, and of others."""
    try:
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except StopIteration:
        model = platform.machine()
    return {
        "cpu": model.rpartition(": ")[2],
        "cores": len(CORES),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("streamup", "aiohttp", "aiobotocore", "awscrt", *more)},
    }
