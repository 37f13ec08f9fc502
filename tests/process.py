"""`streamup serve` as a process of its own, to be stopped, killed and started again; and what is in the store then.

Use: `pytest_plugins = ["weed", "process"]` in a test module, then the fixtures `serve`, `server` and `bucket`.
It is imported, too, before pytest could rewrite its asserts: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pytest
import zygote
from weed import Weed
from zygote import Forked

MIB = 1 << 20
PART = 5 * MIB
"""`--part-size` of every server here: S3's smallest."""

CURL = shutil.which("curl") or "curl"
STARTS_WITHIN = 30
MODULE = ("-m", "streamup")


# -- waiting for other processes -------------------------------------------------------------------------------------


def until(condition: Callable[[], Any], seconds: float = 20, what: str = "the condition") -> Any:
    """The first true value of `condition`. Other processes can only be asked again and again."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true in {seconds:g} s")
        time.sleep(0.01)
    return value


_given_out: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Below the range that outgoing connections and SeaweedFS take theirs from, so that a restart finds them free.

    A port looks free while its server is dead: none is given out twice, and each process of a parallel run
    (pytest-xdist) has a range of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(3_000 + 1_000 * worker, 4_000 + 1_000 * worker), 500):
        if port in _given_out:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
            _given_out.add(port)
        if len(ports) == count:
            return ports
    raise OSError("no free ports")


# -- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """One state directory and one pair of ports; over its life any number of processes."""

    data: Path
    store: tuple[str, ...]
    environ: Mapping[str, str]
    options: tuple[str, ...] = ()
    program: tuple[str, ...] = MODULE
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: Forked | None = None
    failpoint: str = ""
    """The one that it was started with last."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def cpu_seconds(self) -> float:
        user, system = self._proc("stat").rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int:
        return int(self._proc("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def _proc(self, name: str) -> str:
        """What Linux tells of the process."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    @property
    def log(self) -> str:
        return self.data.with_suffix(".log").read_text(errors="replace")

    def object(self, key: str) -> str:
        return f"{self.url}/objects/{key}"

    def spawn(self, failpoint: str = "") -> Self:
        """Start it without waiting for anything."""
        assert self.process is None
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.failpoint = failpoint
        arguments = [
            *(*self.program, "serve", *self.store, f"--data={self.data}", *self.options),
            *(f"--listen=127.0.0.1:{self.ports[0]}", f"--admin-listen=127.0.0.1:{self.ports[1]}"),
        ]
        environ = {**self.environ, **({"STREAMUP_FAILPOINT": failpoint} if failpoint else {})}
        with self.data.with_suffix(".log").open("ab") as log:
            self.process = zygote.spawn(arguments, environ, log)
        return self

    def start(self, failpoint: str = "", *, ready: str = "/readyz") -> Self:
        """Start it, and return when it is ready (`/healthz`: when it listens, whatever the store does)."""
        self.spawn(failpoint)
        assert self.answers(ready), f"it ended while it started:\n{self.log}"
        return self

    def answers(self, path: str = "/readyz") -> bool:
        """Wait until it says 200 there; False if it ends instead."""

        def state() -> str | None:
            if self.process is None or self.process.poll() is not None:
                return "ended"
            with contextlib.suppress(OSError, http.client.HTTPException):
                return "ready" if self.ask_admin(path).status == 200 else None
            return None

        return until(state, STARTS_WITHIN, f"{path} of the server") == "ready"

    def kill(self) -> None:
        """`kill -9`, and it is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM; it must end by itself, and well."""
        assert self.process
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log
        self.process = None

    def killed(self) -> bool:
        """Whether a failpoint has killed it."""
        if self.process is None or self.process.poll() is None:
            return False
        assert self.process.returncode == -signal.SIGKILL, self.log
        self.process = None
        return True

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = b"", *, seconds: float = 60
    ) -> Answer:
        """One request. An iterable body goes out in chunks. Raises `OSError` or `HTTPException` if it is cut."""
        return _ask(self.ports[0], (method, path, headers or {}, body), seconds)

    def ask_admin(self, path: str) -> Answer:
        return _ask(self.ports[1], ("GET", path, {}, b""), 10)

    def uploads(self, key: str | None = None) -> list[dict[str, Any]]:
        """GET /uploads, which disturbs nobody."""
        found = self.ask("GET", "/uploads").json()["uploads"]
        return [upload for upload in found if key in (None, upload["key"])]

    def open_upload(self, key: str) -> dict[str, Any] | None:
        return next((upload for upload in self.uploads(key) if upload["state"] == "open"), None)

    def received(self, key: str) -> int:
        """Bytes of the open upload of this key, as far as anybody who only looks can know."""
        upload = self.open_upload(key)
        return upload["received"] if upload else 0

    def spooled(self) -> dict[tuple[str, int], int]:
        """(upload, part) → size of each part file on the disk."""
        sizes = {}
        for path in (self.data / "spool").iterdir():
            upload_id, _, number = path.name.rpartition(".")
            with contextlib.suppress(FileNotFoundError):
                sizes[upload_id, int(number)] = path.stat().st_size
        return sizes

    def until_quiet(self, keys: str = "") -> None:
        """Wait until no upload of a key that begins so is unfinished, and nothing of it is left in the spool."""

        def unfinished() -> list[str]:
            live = ("open", "sealed", "completing")
            return [u["id"] for u in self.uploads() if u["state"] in live and u["key"].startswith(keys)]

        ids = {upload["id"] for upload in self.uploads() if upload["key"].startswith(keys)}
        until(lambda: not unfinished(), what=f"the end of every upload of {keys or 'all keys'}")
        until(lambda: not [n for n in self.spooled() if n[0] in ids or not keys], what="an empty spool")


def _ask(port: int, request: tuple[str, str, Mapping[str, str], Any], seconds: float) -> Answer:
    method, path, headers, body = request
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    with contextlib.closing(connection):
        connection.connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a refusal may come before all of it has gone
            connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


# -- the store -------------------------------------------------------------------------------------------------------


class Bucket:
    """What is in the store, asked without streamup. `environ` is for programs that speak to it, too."""

    def __init__(self, weed: Weed) -> None:
        self.name = weed.bucket
        self.endpoint_url = weed.endpoint_url
        self.environ = weed.environ
        self.client = weed.client()

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def read(self, key: str) -> bytes | None:
        try:
            with contextlib.closing(self.client.get_object(Bucket=self.name, Key=key)["Body"]) as body:
                return body.read()
        except self.client.exceptions.NoSuchKey:
            return None

    def look(self, key: str) -> tuple[str, datetime] | None:
        """An object's ETag, and when it was made; None if there is none."""
        try:
            found = self.client.head_object(Bucket=self.name, Key=key)
        except self.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None
        return found["ETag"], found["LastModified"]

    def multiparts(self, prefix: str) -> list[str]:
        found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=prefix)
        return [upload["Key"].removeprefix(prefix) for upload in found.get("Uploads", ())]


@dataclass(frozen=True)
class Fresh:
    """Makes servers in front of one bucket, each with a prefix and a state directory of its own."""

    bucket: Bucket
    directory: Path
    made: list[Server] = field(default_factory=list)

    def __call__(
        self, *options: str, program: tuple[str, ...] = MODULE, local: bool = False, data: Path | None = None
    ) -> Server:
        name = uuid.uuid4().hex[:12]
        store = (f"s3://{self.bucket.name}/{name}", f"--s3-endpoint-url={self.bucket.endpoint_url}", "--s3-path-style")
        foreign = ("STREAMUP_", "AWS_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        server = Server(
            data=data or self.directory / name / "data",
            store=("--local",) if local else store,
            environ=environ if local else {**environ, **self.bucket.environ},
            options=(f"--part-size={PART}", "--spool-size=1GiB", "--disk-floor=1MiB", *options),
            program=program,
        )
        self.made.append(server)
        return server

    def kill_all(self) -> None:
        """And have pytest show their logs beside a failure."""
        for server in self.made:
            server.kill()
            if server.data.with_suffix(".log").exists():
                sys.stdout.write(f"--- {server.data}\n{server.log}\n")


def prefix_of(server: Server) -> str:
    """Where a server keeps its objects in the bucket."""
    return server.store[0].removeprefix("s3://").partition("/")[2] + "/"


@pytest.fixture(scope="session")
def bucket(weed) -> Iterator[Bucket]:
    with bucket_at(weed) as found:
        yield found


@contextlib.contextmanager
def bucket_at(weed: Weed) -> Iterator[Bucket]:
    found = Bucket(weed)
    with contextlib.closing(found.client):
        yield found


@pytest.fixture
def serve(bucket, tmp_path) -> Iterator[Fresh]:
    """`serve(*options)` makes a server that is not started yet. All of them are killed in the end."""
    fresh = Fresh(bucket, tmp_path)
    yield fresh
    fresh.kill_all()


@pytest.fixture(scope="module")
def server(bucket, tmp_path_factory) -> Iterator[Server]:
    """A running server for all tests of a module that break nothing."""
    fresh = Fresh(bucket, tmp_path_factory.mktemp("server"))
    yield fresh("--downloads", "--deletes").start()
    fresh.kill_all()


# -- clients ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode(errors="replace")


def run(
    *command: str | Path, stdin: bytes | None = None, seconds: float = 60, environ: Mapping[str, str] | None = None
) -> Ran:
    """A program to its end."""
    done = subprocess.run(
        [str(word) for word in command],
        input=b"" if stdin is None else stdin,
        capture_output=True,
        timeout=seconds,
        check=False,
        env=environ,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def curl(*words: str | Path, stdin: bytes | None = None, seconds: float = 60) -> Ran:
    """curl to its end, quiet but for errors. A user's .curlrc stays out of it."""
    return run(CURL, "-q", "-sS", *words, stdin=stdin, seconds=seconds)


@contextlib.contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background; killed at the end if it is still there."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([str(word) for word in command], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that no other seed and no other position has."""
    numbers = random.Random(seed)
    return b"".join(numbers.randbytes(min(16 * MIB, size - start)) for start in range(0, size, 16 * MIB))


def digest(data: bytes | None) -> str | None:
    """For asserts: two bodies of megabytes make no readable message."""
    return None if data is None else f"{len(data)} bytes, sha256 {sha256(data).hexdigest()}"
