"""The admin listener's application: for probes, and for the operator's commands on the same machine."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from aiohttp import web

from streamup import answers
from streamup.config import Config, is_loopback
from streamup.errors import CheckpointError, StreamupError
from streamup.routes import ADMIN, HEALTH, HOLDINGS, READINESS
from streamup.stores import ObjectStore
from streamup.uploads import Uploads

READY_SECONDS = 5.0
"""How long the store may take to show that it is there."""


class Admin:
    """`/healthz` (the process lives), `/readyz` (it can take uploads), `/holdings` (what `streamup sweep` spares)."""

    def __init__(self, config: Config, uploads: Uploads, store: ObjectStore) -> None:
        self._config = config
        self._uploads = uploads
        self._store = store

    def application(self) -> web.Application:
        handlers = {HEALTH: self._healthz, READINESS: self._readyz, HOLDINGS: self._holdings}
        app = web.Application()
        for route in ADMIN:
            app.router.add_get(route.path, handlers[route])
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        try:
            self._uploads.door.room()
            async with asyncio.timeout(READY_SECONDS):
                await self._store.ready()
        except (StreamupError, TimeoutError) as error:
            return web.Response(status=503, text=f"not ready: {error or 'the store does not answer'}\n")
        return web.Response(text="ready\n")

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
