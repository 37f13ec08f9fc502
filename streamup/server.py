"""The aiohttp application: from a socket to an intent, from an outcome to an answer. What the contract says of HTTP
as such is here; what a protocol says is in protocols/, what an upload may do in upload.py.

Every request takes the same way: who asks, what for, whether they may (`grants.decide`), then the one `match` on
intents. `100 Continue` is sent by the body when somebody begins to read it, so every refusal before that stands in its
place. A refusal that leaves a body unread closes the connection, after at most `listeners.LINGER_SECONDS`, so that a
client that reads no answers notices.

A body's sender must never see a status that makes it send again by itself (408, 429, 5xx): `curl --retry` on a pipe
would then send an empty or tail-only body and report success. Where such a status would be the natural one, it is
given only in place of `100 Continue`; later 507 says it, and a fault of ours just cuts the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from http import HTTPStatus

from aiohttp import web

from streamup import answers, audit, forwarded, routes
from streamup.admin import Admin
from streamup.auth import Authorizer
from streamup.body import RequestBody
from streamup.config import Config
from streamup.credentials import Credentials
from streamup.digests import SIZES
from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    CheckpointError,
    ConfigError,
    DigestMismatch,
    Gone,
    KeyConflict,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    OffsetMismatch,
    PreconditionFailed,
    SpoolError,
    StoreError,
    UploadBusy,
    UploadError,
)
from streamup.exchange import Exchange, authority_of, cut, front_of, head_of, headers_of, target
from streamup.grants import Grant, decide
from streamup.limits import Pace, Requests
from streamup.listeners import Listener, require_c_parser, tls_context
from streamup.metrics import Metrics, Numbers
from streamup.pages import Pages
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
    fields,
)
from streamup.protocols.documents import upload_document
from streamup.protocols.ietf import Ietf
from streamup.protocols.plain import Plain
from streamup.protocols.tus import Tus
from streamup.reports import reporting
from streamup.routes import OBJECT, UPLOAD, UPLOADS
from streamup.stores import SSE_C, ObjectStore, StoredObject
from streamup.upload import LIVE, State, Upload
from streamup.uploads import Uploads, already_complete
from streamup.writer import Live, Writer

PROTOCOLS: tuple[Callable[[Limits], UploadProtocol], ...] = (Tus, Ietf, Plain)
"""Asked in this order; the first that speaks a request's language answers it."""

CONTINUE_SECONDS = 0.9
"""curl sends its body after 1 s without 100 Continue; a 503 in its place must come before, also on a busy machine.

Within it come `limits.HURRIED_DELAY_SECONDS` and then `uploads.CLOSES_SECONDS`, of which the store has no more than
`registry.LOOK_SECONDS`.
"""

PRESIGNED_SECONDS = 3600
"""How long the URL of a download may be begun with, and no longer than the credential that it was asked with."""

ADMIN_CONNECTIONS = 32
"""Probes, a scraper and an operator: they find a place however many clients there are."""

EXPOSED = (
    *("ETag", "Repr-Digest", "Retry-After"),
    *(f"x-amz-checksum-{name}" for name in (*SIZES, "type")),
)
"""What pages of other origins may read, beside the fields of the protocols."""

log = logging.getLogger(__name__)


class Server:
    """The public listener and the admin listener."""

    def __init__(
        self, config: Config, uploads: Uploads, store: ObjectStore, authorizer: Authorizer, metrics: Metrics
    ) -> None:
        self._config = config
        self._uploads = uploads
        self._store = store
        self._authorizer = authorizer
        self._limits = Limits(max_upload_bytes=config.max_upload_bytes, expire_seconds=config.expire_seconds)
        self._protocols = [protocol(self._limits) for protocol in PROTOCOLS]
        self._exposed = ", ".join(dict.fromkeys([*EXPOSED, *(f for p in self._protocols for f in p.response_fields)]))
        self._pages = Pages()
        self._admin = Admin(config, uploads, store, metrics)
        self._requests = Requests(config.share(config.max_connections))
        self._pace = Pace(config.appends_a_second)
        patience = {"head_seconds": config.head_seconds, "idle_seconds": config.idle_seconds}
        self._public = Listener(self._application(), most=config.max_connections, **patience)
        self._listeners = [self._public]
        if config.admin_listen:
            self._listeners.append(Listener(self._admin.application(), most=ADMIN_CONNECTIONS, **patience))
        self._refusals = audit.Refusals()
        metrics.registry.register(Numbers(uploads.census, self._refusals.counted, self._public))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: public, admin."""
        return [listener.address for listener in self._listeners]

    async def start(self) -> None:
        """Listen. Raises `ConfigError` when an address is taken, a certificate is wrong, or aiohttp was built without
        its C parser.
        """
        require_c_parser()
        config = self._config
        self._take_certificate(config)
        await self._public.listen(config.listen)
        if config.admin_listen:
            await self._listeners[-1].listen(config.admin_listen)

    def renew(self, config: Config) -> Credentials:
        """Take the credentials and the certificate of this `config` from now on: for each request that begins, and each
        connection. Raises `ConfigError`, and then nothing has changed.
        """
        if (config.tls_cert is None) is not (self._config.tls_cert is None):
            raise ConfigError("--tls-cert begins and ends HTTPS, and that needs a restart.")
        credentials = Credentials.of(config)
        self._take_certificate(config)
        self._authorizer.credentials = credentials
        return credentials

    def _take_certificate(self, config: Config) -> None:
        if config.tls_cert:
            self._public.tls = tls_context(config.tls_cert, config.tls_key)

    async def stop(self) -> None:
        """Close the listeners, settle the uploads, and only then end the connections."""
        for listener in self._listeners:
            listener.close()
        await self._uploads.stop(self._config.grace_seconds)
        for listener in self._listeners:
            await listener.end()
        self._refusals.finish()

    def _application(self) -> web.Application:
        app = web.Application()
        for route in routes.OPEN:
            app.router.add_route("*", route.path, self._show, expect_handler=_keep_expecting)
        # One route for everything else: aiohttp's own 404 and 405 would send 100 Continue first.
        app.router.add_route("*", r"/{tail:[\s\S]*}", self._handle, expect_handler=_keep_expecting)
        return app

    # -- one request --------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        began = asyncio.get_running_loop().time()
        body = RequestBody(request, self._config.idle_seconds, self._config.min_rate)
        asker = self._asks(request)
        exchange: Exchange | None = None
        grant: Grant | None = None
        intent: Intent | None = None
        try:
            exchange = self._meet(request, body)
            grant = asker.grant = self._authorizer.authorize(exchange.head)
            _check_expectation(request)
            intent = self._uploads.door.named(exchange.protocol.understand(exchange.head))
            self._public.require_place(request)
            with self._requests.one_more(grant.subject):
                await self._decide(exchange, intent, grant)
                response = await self._answer(exchange, intent, grant)
        except (UploadError, StoreError, SpoolError, CheckpointError) as error:
            in_time = asyncio.get_running_loop().time() - began < CONTINUE_SECONDS
            sends = isinstance(intent, Create | Append)
            refusal = answers.refusal(error, sends=sends, instead_of_continue=body.awaited and in_time)
            if exchange:
                refusal = exchange.protocol.refuse(exchange.head, error, refusal)
            response = answers.problem(refusal)
            self._refusals.add(error, refusal.status, request.method, exchange.head if exchange else None)
            if exchange and grant is not None:
                self._add_offset(exchange.head, grant, response)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            cut(request)
            raise
        if exchange and (location := response.headers.get("Location", "")).startswith("/"):
            response.headers["Location"] = exchange.outside(location)
        return self._leaving(request, response)

    def _asks(self, request: web.Request) -> audit.Asker:
        """From here on this client is behind what is done."""
        return audit.asks(forwarded.client(request.remote, request.headers, self._config.trusted_proxies))

    async def _show(self, request: web.Request) -> web.StreamResponse:
        """What is the same for everybody. A link to it may stand on any page, and no credential is asked for."""
        self._asks(request)
        headers = headers_of(request, front_of(request, self._config.trusted_proxies))
        try:
            self._authorizer.admit(RequestHead(method=request.method, headers=headers), linked=True)
            self._public.require_place(request)
            response = self._pages.answer(request.method, target(request.raw_path))
        except UploadError as error:
            refusal = answers.refusal(error, sends=False, instead_of_continue=False)
            response = answers.problem(refusal)
            self._refusals.add(error, refusal.status, request.method, None)
        return self._leaving(request, response)

    def _leaving(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """What is on every answer, whoever made it."""
        self._add_cors(request, response)
        unframed = response.status == HTTPStatus.LENGTH_REQUIRED  # what follows would be taken for the next request
        if request.can_read_body or unframed or self._public.is_surplus(request):
            response.force_close()
        return response

    def _meet(self, request: web.Request, body: RequestBody) -> Exchange:
        """The request as protocols see it, and whose language it is in. Raises `NotFound`, `BadRequest`."""
        front = front_of(request, self._config.trusted_proxies)
        headers = headers_of(request, front)
        try:
            head = head_of(request, headers, self._config.prefix)
        except UploadError:
            # Who may not ask is not told what is wrong with the question.
            self._authorizer.authorize(authority_of(request, headers))
            raise
        return Exchange(request, head, body, next(p for p in self._protocols if p.speaks(head)), front)

    async def _decide(self, exchange: Exchange, intent: Intent, grant: Grant) -> None:
        """Whether this may be done, and with how much patience for its body. Raises as `decide`."""
        addressed = await self._uploads.addressed(intent)
        decide(grant, exchange.head.method, intent, addressed, deletes=self._config.deletes)
        body = exchange.body
        body.idle_seconds = body.idle_seconds if grant.idle_seconds is None else grant.idle_seconds
        body.min_rate = body.min_rate if grant.min_rate is None else grant.min_rate

    async def _answer(self, exchange: Exchange, intent: Intent, grant: Grant) -> web.StreamResponse:  # noqa: PLR0911 - one for each intent
        """The one place where intents are told apart, for all protocols."""
        match intent:
            case Create() | Append():
                return answers.response(await self._receive(exchange, intent, grant))
            case Inspect() | Cancel():
                return answers.response(await self._conclude(exchange, intent, grant))
            case Look(key=str(key)):
                return await self._look_at_key(key, exchange.head, grant)
            case Look(upload_id=str(upload_id)):
                return await self._look_at_upload(upload_id, exchange.head, grant)
            case Look():
                return await self._list(grant)
            case Fetch(key=key):
                return await self._fetch(key, exchange.head, grant)
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
        rate = self._uploads.rate(upload_id)
        lifetime = fields.remaining(upload, self._limits, head.arrived)
        headers = {"Cache-Control": "no-store"} | fields.length(upload) | fields.limit(self._limits, lifetime)
        if rate is None:  # with a live writer the number would be old before it arrives, and HEAD is there to stop it
            headers["Upload-Offset"] = str(upload.offset)
            headers["Upload-Complete"] = "?1" if upload.state is State.COMPLETE else "?0"
        return answers.json(self._document(upload), headers=headers)

    async def _list(self, grant: Grant) -> web.Response:
        uploads = await self._uploads.look_all(grant)
        return answers.json(
            {"uploads": [self._document(upload) for upload in uploads]}, headers={"Cache-Control": "no-store"}
        )

    def _document(self, upload: Upload) -> dict[str, object]:
        rate = self._uploads.rate(upload.id) if upload.state in LIVE else None
        held, expire_seconds = self._uploads.held(upload.id), self._config.expire_seconds
        return upload_document(upload, writing=rate is not None, rate=rate, expire_seconds=expire_seconds, held=held)

    async def _fetch(self, key: str, head: RequestHead, grant: Grant) -> web.Response:
        if not self._config.downloads:
            raise NotAllowed("Downloads are off on this server (--downloads).", OBJECT.without("GET"))
        stored = await self._store.head(key)
        if stored is None:
            raise NotFound("There is no object under this key.")
        if stored.encryption == SSE_C:
            raise NotImplementedHere(
                "This object is encrypted with a key that goes with each request for it (SSE-C), and a redirect cannot "
                "carry that. Read it from the store, with the key: streamup get s3://BUCKET/KEY."
            )
        lifetime = PRESIGNED_SECONDS if grant.expires is None else min(PRESIGNED_SECONDS, grant.expires - head.arrived)
        url = await self._store.presign_get(key, max(1, int(lifetime)))
        return web.Response(status=307, headers={"Location": url, "Cache-Control": "no-store"})

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
        allowed = (OBJECT if head.key else UPLOAD if head.upload_id else UPLOADS).allowed
        headers = {"Allow": allowed}
        for protocol in self._protocols:
            headers |= protocol.discover()
        if "Access-Control-Request-Method" in head.headers:
            headers["Access-Control-Allow-Methods"] = allowed
            headers["Access-Control-Allow-Headers"] = head.headers.get("Access-Control-Request-Headers", "")
            headers["Access-Control-Max-Age"] = "86400"
        return web.Response(status=204, headers=headers)

    def _add_offset(self, head: RequestHead, grant: Grant, response: web.Response) -> None:
        """Every answer to a PATCH tells where to go on, if that is known by now."""
        live = self._uploads.live(head.upload_id or "", grant)
        if (
            head.method == "PATCH"
            and grant.allows("PATCH")
            and live
            and live.writer is None
            and live.upload.state is State.OPEN
        ):
            response.headers.setdefault("Upload-Offset", str(live.upload.offset))

    def _add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        """For origins that the operator has named; the authorizer has refused all others."""
        origin = request.headers.get("Origin")
        if self._config.cors_origins:
            response.headers.add("Vary", "Origin")
        if origin and origin.lower() in self._config.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = self._exposed


async def _keep_expecting(_: web.Request) -> None:
    """Here aiohttp would send 100 Continue; the body does it when it is read."""


def _check_expectation(request: web.Request) -> None:
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise BadRequest("The only expectation there is, is 100-continue.")
