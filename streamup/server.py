"""The aiohttp application: from a socket to an intent, and from an answer to the socket. What the contract says of HTTP
as such is here; what a protocol says is in protocols/, what an upload may do in upload.py.

Every request takes the same way: who asks, what for, whether they may (`grants.decide`), then `handlers`.
`100 Continue` is sent by the body when somebody begins to read it, so every refusal before that stands in its place. A
refusal that leaves a body unread closes the connection, after at most `listeners.LINGER_SECONDS`, so that a client that
reads no answers notices.

A body's sender must never see a status that makes it send again by itself (408, 429, 5xx): `curl --retry` on a pipe
would then send an empty or tail-only body and report success. Where such a status would be the natural one, it is
given only in place of `100 Continue`; later 507 says it, and a fault of ours just cuts the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
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
    CheckpointError,
    ConfigError,
    SpoolError,
    StoreError,
    StreamupError,
    UploadError,
)
from streamup.events import Events
from streamup.exchange import Exchange, authority_of, cut, front_of, head_of, headers_of, target
from streamup.grants import Grant, decide
from streamup.handlers import Handlers
from streamup.limits import Requests
from streamup.listeners import Listener, require_c_parser, tls_context
from streamup.metrics import Metrics
from streamup.pages import Pages
from streamup.protocols import (
    Append,
    Create,
    Intent,
    Limits,
    RequestHead,
    UploadProtocol,
)
from streamup.protocols.ietf import Ietf
from streamup.protocols.plain import Plain
from streamup.protocols.tus import Tus
from streamup.stores import ObjectStore
from streamup.upload import State
from streamup.uploads import Uploads

PROTOCOLS: tuple[Callable[[Limits], UploadProtocol], ...] = (Tus, Ietf, Plain)
"""Asked in this order; the first that speaks a request's language answers it."""

CONTINUE_SECONDS = 0.9
"""curl sends its body after 1 s without 100 Continue; a 503 in its place must come before, also on a busy machine.

Within it come `limits.HURRIED_DELAY_SECONDS` and then `uploads.CLOSES_SECONDS`, of which the store has no more than
`registry.LOOK_SECONDS`.
"""

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
        self._authorizer = authorizer
        limits = Limits(max_upload_bytes=config.max_upload_bytes, expire_seconds=config.expire_seconds)
        self._protocols = [protocol(limits) for protocol in PROTOCOLS]
        self._events = Events(config, uploads)
        self._handlers = Handlers(config, uploads, store, self._protocols, limits, events=self._events)
        self._exposed = ", ".join(dict.fromkeys([*EXPOSED, *(f for p in self._protocols for f in p.response_fields)]))
        self._pages = Pages()
        self._admin = Admin(config, uploads, store, metrics)
        self._requests = Requests(config.share(config.max_connections))
        patience = {"head_seconds": config.head_seconds, "idle_seconds": config.idle_seconds}
        self.public = Listener(self._application(), most=config.max_connections, **patience)
        self._listeners = [self.public]
        if config.admin_listen:
            self._listeners.append(Listener(self._admin.application(), most=ADMIN_CONNECTIONS, **patience))
        self._refusals = audit.Refusals()

    @property
    def refused(self) -> Mapping[str, int]:
        """Refusals since the start, by reason."""
        return self._refusals.counted

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
        await self.public.listen(config.listen)
        if config.admin_listen:
            await self._listeners[-1].listen(config.admin_listen)

    def renew(self, config: Config) -> Credentials:
        """Take the credentials and the certificate of this `config` from now on: for each request that begins, and each
        connection. Raises `ConfigError`, and then nothing has changed.
        """
        if (config.tls_cert is None) is not (self._config.tls_cert is None):
            raise ConfigError("--tls-cert begins and ends HTTPS, and that needs a restart.")
        credentials = Credentials.of(config)
        if self._authorizer.credentials and not credentials:  # a line that was lost must not open it to everybody
            raise ConfigError("No credential would be asked for any more, and that needs a restart.")
        self._take_certificate(config)
        self._authorizer.credentials = credentials
        return credentials

    def _take_certificate(self, config: Config) -> None:
        if config.tls_cert:
            self.public.tls = tls_context(config.tls_cert, config.tls_key)

    async def stop(self) -> None:
        """Close the listeners, settle the uploads, and only then end the connections."""
        for listener in self._listeners:
            listener.close()
        self._events.end()
        await self._uploads.stop(self._config.grace_seconds)
        for listener in self._listeners:
            await listener.end()
        self._refusals.finish()

    def _application(self) -> web.Application:
        app = web.Application()
        # One route for everything: aiohttp's own 404 and 405 would send 100 Continue first.
        app.on_response_prepare.append(self._add_cors)
        app.router.add_route("*", r"/{tail:[\s\S]*}", self._handle, expect_handler=_keep_expecting)
        return app

    # -- one request --------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        # From here on this client is behind what is done.
        asker = audit.asks(forwarded.client(request.remote, request.headers, self._config.trusted_proxies))
        if routes.is_open(target(request.raw_path)):
            return self._show(request)
        began = asyncio.get_running_loop().time()
        body = RequestBody(request, self._config.idle_seconds, self._config.min_rate)
        exchange: Exchange | None = None
        intent: Intent | None = None
        try:
            exchange = self._meet(request, body)
            grant = asker.grant = self._authorizer.authorize(exchange.head)
            intent = self._uploads.door.named(exchange.protocol.understand(exchange.head))
            self.public.require_place(request)
            with self._requests.one_more(grant.subject):
                await self._decide(exchange, intent, grant)
                response = await self._handlers.answer(exchange, intent, grant)
        except (UploadError, StoreError, SpoolError, CheckpointError) as error:
            in_time = asyncio.get_running_loop().time() - began < CONTINUE_SECONDS
            sends = isinstance(intent, Create | Append)
            response = self._refuse(request, exchange, error, sends=sends, instead_of_continue=body.awaited and in_time)
            if exchange and asker.grant is not None:
                self._add_offset(exchange.head, asker.grant, response)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            cut(request)
            raise
        if exchange and (location := response.headers.get("Location", "")).startswith("/"):
            response.headers["Location"] = exchange.outside(location)
        return self._leaving(request, response)

    def _show(self, request: web.Request) -> web.StreamResponse:
        """What is the same for everybody. A link to it may stand on any page, and no credential is asked for."""
        headers = headers_of(request, front_of(request, self._config.trusted_proxies))
        try:
            self._authorizer.admit(RequestHead(method=request.method, headers=headers), linked=True)
            self.public.require_place(request)
            response = self._pages.answer(request.method, target(request.raw_path))
        except UploadError as error:
            response = self._refuse(request, None, error)
        return self._leaving(request, response)

    def _refuse(
        self,
        request: web.Request,
        exchange: Exchange | None,
        error: StreamupError,
        *,
        sends: bool = False,
        instead_of_continue: bool = False,
    ) -> web.Response:
        """A refusal, in the words of its protocol, and a record of it."""
        by_script = "Origin" in request.headers  # browsers send it with all but GET and HEAD
        refusal = answers.refusal(error, sends=sends, instead_of_continue=instead_of_continue, by_script=by_script)
        if exchange:
            refusal = exchange.protocol.refuse(exchange.head, error, refusal)
        self._refusals.add(error, refusal.status, request.method, exchange.head if exchange else None)
        return answers.problem(refusal)

    def _leaving(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """After some answers nothing more can be asked, whoever made them."""
        unframed = response.status == HTTPStatus.LENGTH_REQUIRED  # what follows would be taken for the next request
        if request.can_read_body or unframed or self.public.is_surplus(request):
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

    def _add_offset(self, head: RequestHead, grant: Grant, response: web.Response) -> None:
        """Every answer to a PATCH tells where to go on, if that is known by now and cannot be taken for success."""
        live = self._uploads.live(head.upload_id or "", grant)
        if (
            head.method == "PATCH"
            and not head.events
            and grant.allows("PATCH")
            and live
            and live.writer is None
            and live.upload.state is State.OPEN
            and not live.upload.unconfirmed
        ):
            response.headers.setdefault("Upload-Offset", str(live.upload.offset))

    async def _add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        """For origins that the operator has named; the authorizer has refused all others."""
        origin = request.headers.get("Origin")
        if self._config.cors_origins:
            response.headers.add("Vary", "Origin")
        if origin and origin.lower() in self._config.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = self._exposed


async def _keep_expecting(_: web.Request) -> None:
    """Here aiohttp would send 100 Continue; the body does it when it is read."""
