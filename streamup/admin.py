"""The admin listener's application: for probes and monitoring, and for the operator's commands on the same machine.

Orchestrators and Prometheus send no credential, so none is asked for. Whoever reaches this listener learns that the
server lives, whether it is ready, and numbers; nothing that names a key, an upload or a client, and no reason: those
are for this machine, and in the log. What can be asked at no cost costs the store and the disk nothing: answers are
kept for a second, however many ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from streamup import answers, forwarded
from streamup.auth import asked_by_foreign_page
from streamup.config import Config
from streamup.errors import CheckpointError, StreamupError
from streamup.exchange import headers_of
from streamup.hosts import can_mean_us, is_loopback
from streamup.metrics import Metrics
from streamup.routes import ADMIN, HEALTH, HOLDINGS, METRICS, READINESS
from streamup.stores import ObjectStore
from streamup.uploads import Uploads

READY_SECONDS = 5.0
"""How long the store may take to show that it is there."""

KEPT_SECONDS = 1.0
"""How long an answer that costs something is good for whoever else asks."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Kept(Generic[T]):
    """What is found out once for all who ask within `KEPT_SECONDS`. Whoever is cancelled leaves it to the others."""

    def __init__(self, find: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._find = find
        self._finding: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        now = asyncio.get_running_loop().time()
        if self._finding is None or (self._finding.done() and now >= self._until):
            self._finding = asyncio.create_task(self._find(), name="what admin was asked")
            self._until = now + KEPT_SECONDS
        return await asyncio.shield(self._finding)


class Admin:
    """`/healthz` (the process lives), `/readyz` (it can take uploads), `/metrics`, `/holdings` (for `sweep`)."""

    def __init__(self, config: Config, uploads: Uploads, store: ObjectStore, metrics: Metrics) -> None:
        self._config = config
        self._uploads = uploads
        self._store = store
        self._metrics = metrics
        self._objection = Kept(self._find_objection)
        self._numbers = Kept(self._read_numbers)
        self._told: str | None = None

    def application(self) -> web.Application:
        handlers = {
            HEALTH: self._healthz,
            READINESS: self._readyz,
            METRICS: self._show_metrics,
            HOLDINGS: self._holdings,
        }
        app = web.Application(middlewares=[self._guard])
        for route in ADMIN:
            for method in route.methods:
                app.router.add_route(method, route.path, handlers[route])
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Nothing here is for pages: neither for those of other origins, nor for one that has pointed a name of its own
        at this listener (DNS rebinding) and would then read what it answers.
        """
        headers = headers_of(request, forwarded.Front())
        if not can_mean_us(headers.get("Host"), self._config.allowed_hosts, addresses=True, words=True):
            return web.Response(status=403, text="This server does not go by that name (--allowed-host NAME).\n")
        if asked_by_foreign_page(headers):
            return web.Response(status=403, text="This is not for web pages.\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        objection = await self._objection.get()
        if objection is None:
            return web.Response(text="ready\n")
        why = f": {objection}" if is_loopback(request.remote or "") else ""
        return web.Response(status=503, text=f"not ready{why}\n")

    async def _find_objection(self) -> str | None:
        """Why no upload can be taken now. The log says it once."""
        objection = None
        try:
            self._uploads.door.room()
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.gather(self._store.ready(), self._uploads.require_checkpoint())
        except (StreamupError, TimeoutError) as error:
            objection = str(error) or f"the store or the disk did not answer within {READY_SECONDS:g} s"
        if objection != self._told:
            log.warning("not ready: %s", objection) if objection else log.info("ready again")
            self._told = objection
        return objection

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._numbers.get(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _read_numbers(self) -> bytes:
        return self._metrics.text()

    async def _holdings(self, request: web.Request) -> web.Response:
        """For this machine only, and for no page: it names keys and uploads."""
        if not (is_loopback(request.remote or "") and is_loopback(request.url.host or "")):
            return web.Response(
                status=403, text="Ask on the machine that the server runs on, by its loopback address.\n"
            )
        try:
            held = await self._uploads.holdings()
        except CheckpointError as error:
            return web.Response(status=503, text=f"{error}\n")
        told = {"data": str(self._config.data.resolve())} | asdict(held)
        return answers.json(told, headers={"Cache-Control": "no-store"})
