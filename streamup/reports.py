"""What a client is told while it still sends: which of its bytes are durable (104, for protocols that have it)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamup.errors import CheckpointDelayed, CheckpointError, SpoolError, UploadError
from streamup.exchange import Exchange
from streamup.uploads import Uploads
from streamup.writer import Live

REPORT_SECONDS = 1.0
"""How often a client learns what is durable; each time costs a sync (law 2)."""


@asynccontextmanager
async def reporting(uploads: Uploads, exchange: Exchange, live: Live, *, created: bool) -> AsyncIterator[None]:
    """While the body comes, tell the client where its upload is (once, if it is `created` now) and how far it is."""
    if created and (head := exchange.interim(live.upload, created=True)):
        exchange.send_interim(head)
    if exchange.interim(live.upload, created=False) is None:
        yield
        return
    reports = asyncio.create_task(_report(uploads, exchange, live), name=f"report {live.upload.id}")
    try:
        yield
    finally:
        reports.cancel()
        await asyncio.wait([reports])


async def _report(uploads: Uploads, exchange: Exchange, live: Live) -> None:
    told = 0
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        try:
            offset = await uploads.announce(live)
        except CheckpointDelayed:
            continue  # the writer goes on, or waits
        except (UploadError, SpoolError, CheckpointError):
            return  # the writer meets it, too, and answers
        if offset > told and (head := exchange.interim(live.upload, created=False)):
            told = offset
            exchange.send_interim(head)
