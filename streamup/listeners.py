"""The sockets we listen on, and what every connection is held to before there is a request."""

from __future__ import annotations

import ssl
from pathlib import Path

from aiohttp import http_parser, web

from streamup.errors import ConfigError

LINGER_SECONDS = 2
"""How long the rest of a refused body is read and thrown away, so that the refusal is seen and not a reset."""

KEEPALIVE_SECONDS = 20
"""Idle connections, and connections that never complete a request head."""

SHUTDOWN_SECONDS = 1
"""How long answers may still be on their way once every writer has settled."""

ON_EVERY_ANSWER = {
    "Server": "streamup",  # aiohttp would tell the versions of itself and of Python
    "X-Content-Type-Options": "nosniff",
    # A page of another origin cannot embed what it may not read: requests for images and media carry no Origin.
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Listeners:
    """Applications, each on an address of its own."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []
        self._sites: list[web.TCPSite] = []
        self.addresses: list[tuple[str, int]] = []
        """Where they listen, in the order of `listen` (port 0 has become a real one)."""

    async def listen(self, app: web.Application, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        """Raises `ConfigError` when the address is taken."""
        app.on_response_prepare.append(_harden)
        runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
            read_bufsize=256 << 10,  # with smaller ones the allocator returns and faults pages for every read
        )
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, *address, ssl_context=tls, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(f"Cannot listen on {address[0]}:{address[1]}: {error.strerror}.") from error
        self._sites.append(site)
        self.addresses.extend(name[:2] for name in runner.addresses[:1])

    async def close(self) -> None:
        """No new connections; those that are there go on."""
        for site in self._sites:
            await site.stop()

    async def end(self) -> None:
        """End all connections. aiohttp throws away what arrives from now on."""
        for runner in self._runners:
            await runner.cleanup()


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(ON_EVERY_ANSWER)


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
