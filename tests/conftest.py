"""A whole streamup on real sockets, over the strict in-memory store.

    async def test_something(service):                  # with this suite's defaults
    async def test_something(start_service):            # with options of its own, more than one, or one after another
        service = await start_service(idle_seconds=0.2, store=FakeStore(...))

Parts are small (`PART_BYTES`), the spool is a real directory, the checkpoint a real SQLite file; only the object store
is a fake. `service.store`, `.uploads`, `.spool`, `.checkpoint` can be looked at and made to fail.

Tests run on asyncio's own event loop, and on uvloop as well where their module says so:

    pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import documented
import pytest
import uvloop
from fake_store import FakeStore
from raw_client import CHUNKED, Answer, Client, chunk, eventually, head

from streamup.auth import Authorizer
from streamup.checkpoint import Checkpoint
from streamup.config import Config
from streamup.metrics import Metrics, Numbers
from streamup.server import Server
from streamup.spool import Files, Spool
from streamup.stores import StoreLimits
from streamup.uploader import Uploader
from streamup.uploads import Uploads

PART_BYTES = 64 << 10
BODY = random.Random(1).randbytes(3 * PART_BYTES + 1234)
START = BODY[: PART_BYTES + 100]
"""What has arrived of an interrupted upload: a part that leaves the spool, and a piece that stays."""

REST = BODY[len(START) :]
BOOT = "this boot"

DEFAULTS = Config(
    listen=("127.0.0.1", 0),
    admin_listen=("127.0.0.1", 0),
    part_bytes=PART_BYTES,
    spool_bytes=64 * PART_BYTES,
    parallel_parts=4,
    disk_floor_bytes=0,
    idle_seconds=10.0,
    store_timeout_seconds=10.0,
    grace_seconds=0.1,
)

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    marker = item.get_closest_marker("asyncio")
    wanted = marker.kwargs.get("loop_factories", ["asyncio"]) if marker else ["asyncio"]
    return {name: LOOPS[name] for name in wanted}


def strict_store(**options: Any) -> FakeStore:
    """A store for parts of `PART_BYTES`."""
    return FakeStore(limits=StoreLimits(min_part_bytes=PART_BYTES), **options)


class Service:
    """One streamup from start to stop. The fields are its rooms, by their names in `streamup`."""

    def __init__(self, config: Config, store: FakeStore, files: Files) -> None:
        self.config = config
        self.store = store
        self.files = files
        self.executor = ThreadPoolExecutor(1, "checkpoint")
        self.checkpoint = Checkpoint(config.data / "checkpoint.sqlite", self.executor)
        self.spool = Spool(config.data / "spool", config.spool_bytes, files, share=config.share(config.spool_bytes))
        self.uploader = Uploader(
            store,
            self.checkpoint,
            files,
            parallel_parts=config.parallel_parts,
            clock=time.time,
            jitter=random.Random(1),
        )
        authorizer = Authorizer.of(config)
        self.uploads = Uploads(
            config,
            self.uploader,
            self.checkpoint,
            self.spool,
            clock=time.time,
            random_token=lambda: secrets.token_hex(16),
            still_known=authorizer.still_known,
        )
        self.metrics = Metrics()
        self.server = Server(config, self.uploads, store, authorizer, self.metrics)
        self.metrics.registry.register(
            Numbers(self.uploads.registry, self.uploader, self.spool, self.server.refused, self.server.public)
        )
        self._stack = AsyncExitStack()
        self._clients: list[Client] = []

    async def start(self, boot_id: str = BOOT) -> None:
        """As `service.serve` does it."""
        self.spool.directory.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(self.executor)
        await self.checkpoint.open()
        self._stack.push_async_callback(self.checkpoint.close)
        await self.uploads.recover(boot_id)
        self._stack.push_async_callback(self.server.stop)
        await self.server.start()

    async def stop(self) -> None:
        """As SIGTERM does it, with clients still connected. A second time it does nothing."""
        await self._stack.aclose()

    def hang_up(self) -> None:
        """End all connections, from the clients' side."""
        for client in self._clients:
            client.close()

    @property
    def address(self) -> tuple[str, int]:
        return self.server.addresses[0]

    @property
    def admin_address(self) -> tuple[str, int]:
        return self.server.addresses[1]

    async def connect(self, **options: Any) -> Client:
        """A connection of its own, which ends with the service at the latest."""
        client = await Client.connect(self.address, **options)
        self._clients.append(client)
        return client

    async def ask(self, method: str, target: str, *args: Any, **options: Any) -> Answer:
        """A whole request on a connection of its own, and its answer (raw_client tells the arguments).

        Whatever is asked here, the answer is one that the document at `/openapi.json` tells of.
        """
        client = await self.connect()
        try:
            answer = await client.ask(method, target, *args, **options)
        finally:
            client.close()
        documented.check(method, target, answer)
        return answer

    async def ask_admin(self, path: str, method: str = "GET", version: str = "1.1", **headers: str) -> Answer:
        """The same of the admin listener."""
        client = await Client.connect(self.admin_address)
        try:
            return await client.ask(method, path, headers=headers, version=version)
        finally:
            client.close()

    async def document(self, key: str, **wanted: Any) -> dict[str, Any] | None:
        """The newest upload of a key in GET /uploads, if its fields are as wanted."""
        uploads = (await self.ask("GET", "/uploads")).json["uploads"]
        found = max((one for one in uploads if one["key"] == key), key=lambda one: one["created"], default=None)
        return found if found and wanted.items() <= found.items() else None

    async def becomes(self, key: str, **wanted: Any) -> dict[str, Any]:
        """Wait until the newest upload of a key is like this; its document."""
        return await eventually(lambda: self.document(key, **wanted))

    async def begin(self, key: str = "a", data: bytes = START, **headers: str) -> tuple[Client, str]:
        """A connected writer whose bytes have been received, and its upload's id."""
        client = await self.connect()
        await client.send(head("PUT", f"/objects/{key}", CHUNKED | headers))
        if data:
            await client.send(chunk(data))
        return client, (await self.becomes(key, received=len(data), state="open", writer=True))["id"]

    async def leave(self, key: str = "a", data: bytes = START, **headers: str) -> str:
        """An interrupted upload; its id."""
        client, upload_id = await self.begin(key, data, **headers)
        client.close()
        await self.becomes(key, received=len(data), offset=len(data), writer=False)
        return upload_id

    def data(self, key: str) -> bytes | None:
        """The object's bytes in the store; None if there is none."""
        found = self.store.objects.get(key)
        return found and found.data

    def spooled(self) -> dict[str, int]:
        """Part files on the disk, with their sizes."""
        return {path.name: path.stat().st_size for path in sorted(self.spool.directory.iterdir())}

    def killed(self, directory: Path) -> Path:
        """A copy of the state directory as `kill -9` would leave it now."""
        return shutil.copytree(self.config.data, directory)


StartService = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[StartService]:
    """`await start_service(store=…, files=…, boot_id=…, **fields of Config)`.

    Started again on the same directory (the default one, or `data=`), after `stop`, it is the next process.
    """
    started: list[Service] = []

    async def start(
        *, store: FakeStore | None = None, files: Files | None = None, boot_id: str = BOOT, **options: Any
    ) -> Service:
        config = replace(DEFAULTS, **{"data": tmp_path / "state"} | options)
        service = Service(config, store or strict_store(), files or Files())
        started.append(service)
        await service.start(boot_id)
        return service

    yield start
    for service in started:
        service.hang_up()
        await service.stop()
    _check_log(caplog)


@pytest.fixture
async def service(start_service: StartService) -> Service:
    return await start_service()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections end soon, so that a test need not wait for that. To be asked for before `service`."""
    monkeypatch.setattr("streamup.listeners.LINGER_SECONDS", 0.1)
    monkeypatch.setattr("streamup.listeners.SHUTDOWN_SECONDS", 0.1)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """For a test that has streamup set logging up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _check_log(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that only the log knows is a defect. A test that provokes one ends with `caplog.clear()`."""
    hidden = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR and record.exc_info]
    assert not hidden, "\n".join(logging.Formatter().format(record) for record in hidden)
