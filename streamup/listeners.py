"""The sockets we listen on, and what every connection is held to before there is a request.

asyncio's own server accepts whatever comes, until the process has no descriptor left for a part file or for SQLite, and
aiohttp counts a connection of TLS only after its handshake. So accepting is done here, and counted from the first
moment. Whoever comes when all places are taken gets one of `MARGIN` more: a request that comes from there is refused
like any other that is refused at the door, in the words of its protocol (a 5xx that suits curl in place of 100 Continue
makes tus-js-client begin anew, and curl without Expect send half a body). When those are taken, too, connections are
closed as they come, which every client takes for a network that fails, and tries again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import http_parser, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from streamup import answers
from streamup.errors import BadRequest, ConfigError, TooManyConnections

LINGER_SECONDS = 2
"""How long the rest of a refused body is read and thrown away, so that the refusal is seen and not a reset."""

SHUTDOWN_SECONDS = 1
"""How long answers may still be on their way once every writer has settled."""

ON_EVERY_ANSWER = {"Server": "streamup"}  # aiohttp would tell the versions of itself and of Python

WHERE_SOMETHING_IS_READ = {
    "X-Content-Type-Options": "nosniff",
    # A page of another origin cannot embed what it may not read: requests for images and media carry no Origin.
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""For browsers, and on answers to GET only: ffmpeg looks at the first 1,024 bytes of all that its connection has been
answered, and what it leaves unread makes the kernel reset the connection, with the end of its last playlist in it.
"""

MARGIN = 64
"""Places for clients who are told that there is none, beside those that are for use."""

BACKLOG = 1024
"""Clients that the kernel lets wait for us."""

AT_ONCE = 64
"""Connections that are accepted in one turn of the event loop: streams go on between them."""

ACCEPT_AGAIN_SECONDS = 1.0
"""After the system had no descriptor, or no memory, for another connection."""

MAX_LINE_BYTES = 8190
"""A request line: a key of 1,024 bytes, percent-encoded, takes 3,072, a token in the query another thousand or two."""

MAX_FIELDS, MAX_FIELD_BYTES = 64, 8190
"""Browsers send 20 fields, proxies add 5, metadata may be 20; the longest is tus's Upload-Metadata, or a token."""

NO_REQUEST = (
    f"This is no request of HTTP/1.1; or its first line or a field is longer than {MAX_LINE_BYTES} bytes, or it has "
    f"more than {MAX_FIELDS} fields."
)

RequestFactory = Callable[..., web.BaseRequest]

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's, but for its answer to what is no request: that quotes what came, and so does its record in the log. A
    piece of a credential would go back to its sender, and to all who read either.
    """

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.debug("what came from %s is no request: %s", request.remote, type(exc).__name__)
        response = answers.problem(answers.refusal(BadRequest(NO_REQUEST), sends=False, instead_of_continue=False))
        response.headers.update(ON_EVERY_ANSWER)
        response.force_close()
        return response


class Listener:
    """One application on one address (of a name: on all that it has). Serves `most` clients at once."""

    def __init__(self, app: web.Application, *, most: int, head_seconds: float, idle_seconds: float) -> None:
        """`head_seconds`: how long a connection may be without a whole request head. `idle_seconds`: how long an answer
        may be on its way without a byte of it being read.
        """
        self._most = most
        self._head_seconds = head_seconds
        self._idle_seconds = idle_seconds
        app.on_response_prepare.append(self._begin_answer)
        self._runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=SHUTDOWN_SECONDS)
        self._connection = partial(
            Connection,
            access_log=None,  # type: ignore[arg-type]  # it would hold tokens
            auto_decompress=False,
            keepalive_timeout=head_seconds,
            lingering_time=LINGER_SECONDS,
            read_bufsize=256 << 10,  # with smaller ones the allocator returns and faults pages for every read
            max_line_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            max_field_size=MAX_FIELD_BYTES,
        )
        self.tls: ssl.SSLContext | None = None
        """What connections to come speak HTTPS with. To be set before it listens; may be exchanged for another one."""
        self._sockets: list[socket.socket] = []
        self._entering: dict[web.RequestHandler, asyncio.Task[None]] = {}
        self._surplus: set[web.RequestHandler] = set()
        self.address = ("", 0)
        """Where it listens (port 0 has become a real one)."""
        self.closed_at_once = 0
        """Connections for which there was no place at all."""

    def __repr__(self) -> str:
        return f"<Listener {self.connections}/{self._most}, {len(self._surplus)} in surplus>"

    @property
    def connections(self) -> int:
        """How many there are: in their handshake, open, and closed ones whose request still has an effect here."""
        handshakes = sum(handler.transport is None for handler in self._entering)
        return handshakes + len(self._server.connections)

    def is_surplus(self, request: web.Request) -> bool:
        """Whether this client was let in only to be told that there is no place."""
        return request.protocol in self._surplus

    def require_place(self, request: web.Request) -> None:
        """Raises `TooManyConnections`."""
        if self.is_surplus(request):
            raise TooManyConnections(
                f"{self._most} clients are connected, which is the limit. Come back later.", limit=self._most
            )

    async def listen(self, address: tuple[str, int]) -> None:
        """Raises `ConfigError` when the address is taken."""
        await self._runner.setup()
        self._server.request_factory = _answerable(self._server.request_factory)
        loop = asyncio.get_running_loop()
        try:
            self._sockets = await _bound(*address)
        except OSError as error:
            raise ConfigError(f"Cannot listen on {address[0]}:{address[1]}: {error.strerror}.") from error
        self.address = self._sockets[0].getsockname()[:2]
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """No new connections; those that are there go on."""
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    async def end(self) -> None:
        """End all connections. aiohttp throws away what arrives from now on."""
        entering = list(self._entering.values())
        for task in entering:
            task.cancel()
        await asyncio.gather(*entering, return_exceptions=True)
        await self._runner.cleanup()

    @property
    def _server(self) -> web.Server:
        server = self._runner.server
        assert server is not None  # noqa: S101 - for the type checker: it is set up before it listens
        return server

    def _accept(self, listening: socket.socket) -> None:
        """Connections are waiting."""
        taken = self.connections
        self._surplus.intersection_update([*self._server.connections, *self._entering])
        for _ in range(AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400 - no fault of ours
                self._pause(listening)
                return
            if taken >= self._most + MARGIN:
                self.closed_at_once += 1
                connection.close()
                continue
            handler = self._connection(self._server, loop=asyncio.get_running_loop())
            if taken >= self._most:
                self._surplus.add(handler)
            self._entering[handler] = asyncio.create_task(self._enter(connection, handler), name="connection")
            taken += 1

    async def _enter(self, connection: socket.socket, handler: web.RequestHandler) -> None:
        """A connection becomes aiohttp's, with TLS after its handshake."""
        patience = self._head_seconds if self.tls else None
        try:
            connection.settimeout(0)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: handler, connection, ssl=self.tls, ssl_handshake_timeout=patience
            )
        except OSError as error:
            log.debug("a connection did not come about: %s", error)
            connection.close()
        finally:
            del self._entering[handler]

    async def _begin_answer(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(ON_EVERY_ANSWER)
        if request.method in {"GET", "HEAD"}:
            response.headers.update(WHERE_SOMETHING_IS_READ)
        # Linux' own timer (tcp(7), milliseconds), also for a peer whose window stays shut; aiohttp has none for it. Not
        # before the answer: who sends a long body may leave interim responses unread until its end.
        timer: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
        if timer is not None and (connection := request.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, timer, round(1000 * self._idle_seconds))

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def resume() -> None:
            if listening.fileno() >= 0:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(ACCEPT_AGAIN_SECONDS, resume)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each address of the host ("": every interface). Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            listening = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            refused = error
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # a machine may be without IPv6
                break
        else:
            listening.settimeout(0)
            sockets.append(listening)
    if refused and (not sockets or refused.errno == errno.EADDRINUSE):
        for listening in sockets:
            listening.close()
        raise refused
    return sockets


def _answerable(factory: RequestFactory) -> RequestFactory:
    """Of `CONNECT` without a target aiohttp's parser makes neither path nor URL, its handler fails before there is a
    request, and nobody ever closes the connection.
    """

    def make(message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
        return factory(message if message.url else message._replace(path="/", url=URL("/")), *rest)

    return make


def require_c_parser() -> None:
    """Most of aiohttp's advisories concern its pure-Python parser. Raises `ConfigError`."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError("aiohttp runs without its C parser. Unset AIOHTTP_NO_EXTENSIONS, or install its wheel.")


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """HTTPS with this certificate chain (PEM). Raises `ConfigError`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # A ticket sent after the handshake meets a client that has already sent and closed, whose kernel then resets the
    # connection and takes the body's tail with it (1 of 3 MB arrived).
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-cert {certificate}: {error}") from error
    return context
