"""Programs that start in a moment: a process that has imported what is heavy and foreign forks, and runs them.

    process = spawn(["-m", "streamup", "serve", ...], environ, log)      # in place of subprocess.Popen
    process.pid, .poll(), .wait(), .returncode, .send_signal(), .terminate(), .kill()

`python -m streamup` takes 0.6 CPU-seconds to start, four fifths of them for the imports of others. Campaigns start it
thousands of times. Nothing of streamup is imported before the fork: each process has modules of its own, and a program
that patches them first is as good as any. Not the same as a fresh interpreter are only the modules of others.

(PYTEST_DONT_REWRITE: the forking side is a program of its own.)
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HEAVY = (
    *("aiobotocore.config", "aiobotocore.session", "aiofiles", "aiohttp.web", "awscrt.checksums", "botocore.session"),
    *("click", "concurrent.futures.thread", "jwt", "prometheus_client", "rich.console", "rich.progress", "sqlite3"),
    *("urllib3", "uvloop", "yarl"),
)
"""None of these starts a thread when it is imported: only what has none may fork."""

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.003
"""How often somebody who waits for the end of a process asks whether it has come."""


@dataclass
class Forked:
    """A process of the zygote's, as far as `subprocess.Popen` goes."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        with _one_at_a_time:
            if self.returncode is None:
                self.returncode = _zygote().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(POLL_SECONDS)  # another process: there is nothing to wait for but its end
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # until then its number is nobody else's
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def spawn(arguments: Sequence[str], environ: Mapping[str, str], log: IO[bytes]) -> Forked:
    """What `python ARGUMENTS` would do: `-m MODULE`, `-c SCRIPT` or a file, and what follows. Output goes to `log`."""
    order = {"arguments": list(arguments), "environ": dict(environ), "directory": str(Path.cwd())}
    with _one_at_a_time:
        return Forked(_zygote().ask(order, log.fileno()))


# -- who asks --------------------------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()
"""There is one zygote, and a process ends once: nobody can be told so a second time."""


class _Zygote:
    """The forking process, and the way to it: one line of JSON each way, at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._socket, self._answers = ours, ours.makefile()
        atexit.register(self._end)

    def ask(self, order: Mapping[str, Any], *descriptors: int) -> Any:
        line = json.dumps(order).encode() + b"\n"
        sent = socket.send_fds(self._socket, [line], descriptors)
        self._socket.sendall(line[sent:])
        return json.loads(self._answers.readline())

    def _end(self) -> None:
        self._socket.close()  # which ends it
        self._answers.close()
        self._process.wait()


@functools.cache
def _zygote() -> _Zygote:
    return _Zygote()


# -- who forks -------------------------------------------------------------------------------------------------------


def _serve(orders: socket.socket) -> None:
    """Fork and be asked, until nobody is there any more."""
    sys.dont_write_bytecode = False  # a third of a start would be compiling streamup again
    for module in HEAVY:
        with contextlib.suppress(ImportError):  # uvloop is not everywhere
            importlib.import_module(module)
    _share_botocores_loader()
    rest, descriptors = b"", list[int]()
    while True:
        data, found, _, _ = socket.recv_fds(orders, 1 << 20, 1)
        descriptors += found
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            answer = _poll(order["poll"]) if "poll" in order else _fork(order, descriptors.pop(), orders)
            orders.sendall(json.dumps(answer).encode() + b"\n")


def _share_botocores_loader() -> None:
    """Every S3 client reads 1 MB of JSON (0.1 to 0.3 s); what is read here, no child reads again."""
    import botocore.session  # noqa: PLC0415 - only who forks needs it

    loader = botocore.session.create_loader()
    for kind in ("service-2", "endpoint-rule-set-1", "paginators-1", "waiters-2"):
        with contextlib.suppress(Exception):  # another botocore may have fewer
            loader.load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "_retry", "sdk-default-configuration"):
        with contextlib.suppress(Exception):
            loader.load_data(name)
    botocore.session.create_loader = lambda *_: loader


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(order: Mapping[str, Any], log: int, orders: socket.socket) -> int:
    if pid := os.fork():
        os.close(log)
        return pid
    orders.close()
    _end_with_parent()
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(order["directory"])
        os.environ.clear()
        os.environ.update(order["environ"])
        code = run(order["arguments"])
    except BaseException:  # noqa: BLE001 - a child that went on would be a second zygote
        sys.excepthook(*sys.exc_info())
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does before it ends: wait for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """As the interpreter does it; the exit code."""
    kind, *rest = arguments
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [kind, *rest]
            sys.path.insert(0, str(Path(kind).parent))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
            return 1
        return end.code or 0
    return 0


def _end_with_parent() -> None:
    """Linux: a test run that is killed leaves nothing behind."""
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    # It ends with the socket, and not with its parent: to Linux that is the thread which has started it.
    _serve(socket.socket(fileno=int(sys.argv[1])))
