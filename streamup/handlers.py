"""What each intent does, for all protocols: the one place where intents are told apart.

Who asks is known by now, and that they may (`server`). What an upload may do is decided in `upload`, what a client is
told in which words in `protocols/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from aiohttp import web

from streamup import answers
from streamup.config import Config
from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    DigestMismatch,
    Gone,
    KeyConflict,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    PreconditionFailed,
    StoreError,
    UploadBusy,
)
from streamup.events import Events
from streamup.exchange import Exchange
from streamup.grants import Grant
from streamup.limits import Pace
from streamup.protocols import (
    Append,
    Cancel,
    Create,
    Discover,
    Fetch,
    Inspect,
    Intent,
    Limits,
    Look,
    RequestHead,
    ResponseHead,
    UploadProtocol,
    Watch,
    fields,
)
from streamup.protocols.documents import list_document, parts_document
from streamup.reports import reporting
from streamup.routes import OBJECT
from streamup.stores import SSE_C, ObjectStore, StoredObject
from streamup.upload import State, Upload
from streamup.uploads import Uploads, already_complete
from streamup.writer import Live, Writer

PRESIGNED_SECONDS = 3600
"""How long the URL of a download may be begun with, and no longer than the credential that it was asked with."""

log = logging.getLogger(__name__)


class Handlers:
    """From an intent to its answer."""

    def __init__(
        self,
        config: Config,
        uploads: Uploads,
        store: ObjectStore,
        protocols: Sequence[UploadProtocol],
        limits: Limits,
        *,
        events: Events,
    ) -> None:
        self._config = config
        self._uploads = uploads
        self._store = store
        self._protocols = protocols
        self._limits = limits
        self._events = events
        self._pace = Pace(config.appends_a_second)

    async def answer(self, exchange: Exchange, intent: Intent, grant: Grant) -> web.StreamResponse:  # noqa: PLR0911 - one for each intent
        """What is asked, done. Raises `UploadError`, `StoreError`, `SpoolError`, `CheckpointError`."""
        match intent:
            case Create() | Append():
                return answers.response(await self._receive(exchange, intent, grant))
            case Inspect() | Cancel():
                return answers.response(await self._conclude(exchange, intent, grant))
            case Look(key=str(key)):
                return await self._look_at_key(key, exchange.head, grant)
            case Look(upload_id=str(upload_id)):
                return await self._look_at_upload(upload_id, exchange.head, grant)
            case Look(before=before):
                return await self._list(grant, before)
            case Watch(upload_id=upload_id):
                return await self._events.stream(exchange.request, upload_id, grant, exchange.head.arrived)
            case Fetch():
                return await self._fetch(intent, exchange.head, grant)
            case Discover():
                return self._discover(exchange.head)

    # -- bytes --------------------------------------------------------------------------------------------------

    async def _receive(self, exchange: Exchange, intent: Create | Append, grant: Grant) -> ResponseHead:
        """Take the body, and answer when its outcome is known or the store has taken too long."""
        writer: Writer | None = None
        now = asyncio.get_running_loop().time()
        if delay := self._pace.delay(grant.subject, now, hurried=exchange.body.awaited):
            await asyncio.sleep(delay)
        try:
            if isinstance(intent, Create):
                writer = await self._uploads.create(intent, grant, hurried=exchange.body.awaited)
            else:
                writer = await self._uploads.append(intent, grant)
        except (AlreadyComplete, NotFound, OffsetMismatch, UploadBusy) as error:
            live = await self._repeated(intent, grant)
            if live is None:
                raise
            log.debug("an ending was repeated: %s", error)
        else:
            created = isinstance(intent, Create)
            reports = reporting(self._uploads, exchange, writer.live, created=created)
            async with nullcontext() if self._config.no_interim else reports:
                live = await self._uploads.write(writer, exchange.body)
        upload = live if isinstance(live, Upload) else await self._outcome(live, respond_async=intent.respond_async)
        if upload.failure:
            raise upload.failure
        if writer is None:
            upload.check_again(intent.body.guards)
        return exchange.protocol.respond(exchange.head, intent, upload)

    async def _outcome(self, live: Live, *, respond_async: bool = False) -> Upload:
        if live.upload.state is State.OPEN:
            return live.upload
        seconds = 0.0 if respond_async else self._config.store_timeout_seconds
        return await self._uploads.outcome(live, seconds)

    async def _repeated(self, intent: Create | Append, grant: Grant) -> Live | Upload | None:
        """The sealed or complete upload that this request ends once more, because its first answer was lost.

        Anything else that is asked of a sealed upload learns its end, too: raises `AlreadyComplete`.
        """
        if isinstance(intent, Create):
            return None
        found = await self._newest(intent, grant)
        upload = found.upload if isinstance(found, Live) else found
        if upload is None or upload.state is State.OPEN:
            return None
        body = intent.body
        adds_nothing = body.content_length == 0 and (body.seals or body.seals_at_length)
        # By its key alone a body is no repetition: it may be the first of another upload.
        is_the_last = intent.upload_id is not None and body.seals and body.content_length is not None
        ends = intent.offset + (body.content_length or 0)
        if (adds_nothing or is_the_last) and ends == upload.size:
            return found
        if isinstance(found, Live) and intent.upload_id is not None:
            upload = await self._outcome(found)
            if upload.state is State.COMPLETE:
                raise already_complete(upload)
        return None

    async def _newest(self, intent: Append | Inspect, grant: Grant) -> Live | Upload | None:
        """The upload that an intent addresses, whatever its state."""
        if intent.upload_id is not None:
            return self._uploads.live(intent.upload_id, grant) or await self._uploads.look(intent.upload_id, grant)
        key = intent.key or ""
        return self._uploads.newest(key, grant) or await self._uploads.newest_ended(key, grant)

    async def _conclude(self, exchange: Exchange, intent: Inspect | Cancel, grant: Grant) -> ResponseHead:
        """Where an upload is, or that it is given up. Neither can be wrong about what an upload has failed with: it is
        gone, and the detail says why.
        """
        try:
            if isinstance(intent, Inspect):
                return await self._inspect(exchange, intent, grant)
            await self._cancel(intent, grant)
        except (DigestMismatch, PreconditionFailed, KeyConflict) as error:
            raise Gone(error.detail) from error
        return exchange.protocol.respond(exchange.head, intent, None)

    async def _inspect(self, exchange: Exchange, intent: Inspect, grant: Grant) -> ResponseHead:
        found = await self._newest(intent, grant)
        if found is None:
            raise NotFound("No upload of this key is known. Begin at byte 0.")
        upload = found
        if isinstance(found, Live):
            upload = await self._uploads.inspect(found)
            if upload.state is not State.OPEN:
                upload = await self._outcome(found)
        assert isinstance(upload, Upload)  # noqa: S101 - for the type checker: both branches give one
        if upload.failure:
            raise upload.failure
        total = upload.length if upload.size is None else upload.size
        if intent.total is not None and total is not None and intent.total != total:
            raise BadRequest(f"The upload has {total} bytes, not {intent.total}.", expected_length=total)
        return exchange.protocol.respond(exchange.head, intent, upload)

    # -- looking ------------------------------------------------------------------------------------------------

    async def _look_at_key(self, key: str, head: RequestHead, grant: Grant) -> web.StreamResponse:
        """HEAD of an object: the open upload's fields, and the stored object's."""
        live = self._uploads.newest(key, grant)
        try:
            stored = await self._store.head(key)
        except StoreError:
            if live is None:
                raise
            stored = None
        if live and (live.upload.state is State.OPEN or stored is None):
            live.upload.require_certain()
            await self._uploads.announce(live)
            headers = {
                "Upload-Offset": str(live.upload.offset),
                "Upload-Complete": "?0",
                "Location": fields.location(live.upload.id),
                "Cache-Control": "no-store",
            }
            return web.Response(headers=headers | ({"ETag": stored.etag} if stored else {}))
        if stored is None:
            raise NotFound("There is no object and no unfinished upload under this key.")
        response = answers.stored_object(stored)
        if fields.wanted_digests(head):
            response.headers.update(fields.repr_digest(await self._digests_of(stored, grant)))
        return response

    async def _digests_of(self, stored: StoredObject, grant: Grant) -> Mapping[str, bytes]:
        """What is known of the object's bytes, by the upload that it was."""
        upload = await self._uploads.newest_ended(stored.key, grant)
        if upload is None or upload.stored_object is None or upload.stored_object.etag != stored.etag:
            return {}
        return upload.digests

    async def _look_at_upload(self, upload_id: str, head: RequestHead, grant: Grant) -> web.Response:
        upload = await self._uploads.look(upload_id, grant)
        document = self._uploads.document(upload) | {"parts": parts_document(upload)}
        lifetime = fields.remaining(upload, self._limits, head.arrived)
        headers = {"Cache-Control": "no-store"} | fields.length(upload) | fields.limit(self._limits, lifetime)
        if not document["writer"]:  # else the number would be old before it arrives, and HEAD is there to stop it
            headers["Upload-Offset"] = str(upload.offset)
            headers["Upload-Complete"] = "?1" if upload.state is State.COMPLETE else "?0"
        return answers.json(document, headers=headers)

    async def _list(self, grant: Grant, before: tuple[float, str] | None) -> web.Response:
        uploads, left_out = await self._uploads.look_all(grant, before)
        documents = [self._uploads.document(upload) for upload in uploads]
        document = list_document(documents, uploads[0] if uploads else None, left_out)
        return answers.json(document, headers={"Cache-Control": "no-store"})

    async def _fetch(self, intent: Fetch, head: RequestHead, grant: Grant) -> web.Response:
        if not self._config.downloads:
            raise NotAllowed("Downloads are off on this server (--downloads).", OBJECT.without("GET"))
        stored = await self._store.head(intent.key)
        if stored is None:
            raise NotFound("There is no object under this key.")
        if stored.encryption == SSE_C:
            raise NotImplementedHere(
                "This object is encrypted with a key that goes with each request for it (SSE-C), and a redirect cannot "
                "carry that. Read it from the store, with the key: streamup get s3://BUCKET/KEY."
            )
        lifetime = PRESIGNED_SECONDS if grant.expires is None else min(PRESIGNED_SECONDS, grant.expires - head.arrived)
        seconds = max(1, int(lifetime))
        url = await self._store.presign_get(intent.key, seconds)
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        if intent.as_json:
            return answers.json({"location": url, "seconds": seconds}, headers=headers)
        return web.Response(status=307, headers=headers | {"Location": url})

    async def _cancel(self, intent: Cancel, grant: Grant) -> None:
        if intent.upload_id is not None:
            await self._cancel_upload(intent.upload_id, grant)
        elif self._config.deletes:
            await self._uploads.remove(intent.key or "", grant)
        elif live := self._uploads.open_upload(intent.key or "", grant):
            await self._uploads.cancel(live)
        else:
            raise NotFound("No upload of this key is open, and objects are not deleted by this server (--deletes).")

    async def _cancel_upload(self, upload_id: str, grant: Grant) -> None:
        live = await self._uploads.find(upload_id, grant)
        try:
            await self._uploads.cancel(live)
        except UploadBusy:
            await self._outcome(live)
            await self._uploads.cancel(live)  # which tells what has become of it

    def _discover(self, head: RequestHead) -> web.Response:
        allowed = head.route.allowed
        headers = {"Allow": allowed}
        for protocol in self._protocols:
            headers |= protocol.discover()
        if "Access-Control-Request-Method" in head.headers:
            headers["Access-Control-Allow-Methods"] = allowed
            headers["Access-Control-Allow-Headers"] = head.headers.get("Access-Control-Request-Headers", "")
            headers["Access-Control-Max-Age"] = "86400"
        return web.Response(status=204, headers=headers)
