"""A server on loopback that records what an S3 client sends, and answers whatever it is told.

Use: `pytest_plugins = ["wire"]` in a test module, then the fixture `wire`. (PYTEST_DONT_REWRITE: it is imported too.)
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from streamup.stores.profiles import StoreProfile
from streamup.stores.s3 import S3Store

MIB = 1 << 20
ALL = StoreProfile(name="all")


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Wire:
    """`requests` are what came. Each takes the next of `answers`: bytes, or a coroutine function that does as it likes
    with (reader, writer). Where none is left `reply` makes one of the request.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: deque = field(default_factory=deque)
    reply: Callable[[Request], bytes] = lambda _: answer(200, ETag='"e"')
    connections: set[asyncio.Task] = field(default_factory=set)

    async def serve(self, reader, writer):
        self.connections.add(asyncio.current_task())
        try:
            while True:
                await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled by `end`: one that never reads does not notice that its client has gone
        finally:
            writer.close()

    async def end(self):
        """No connection outlives the test, not even a deaf one."""
        for connection in self.connections:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def _exchange(self, reader, writer):
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        request = Request(
            method, target, {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
        )
        self.requests.append(request)
        act = self.answers.popleft() if self.answers else self.reply(request)
        if callable(act):
            await act(reader, writer)
        else:
            request.body = await reader.readexactly(int(request.headers.get("content-length", 0)))
            writer.write(act.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else act)


def answer(status, body="", **headers):
    fields = {"Content-Length": len(body.encode()), **headers}
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", body]).encode()


def error(code):
    return f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>'


async def silent(reader, _):
    """Takes everything and never answers."""
    while await reader.read(MIB):
        pass


async def deaf(_, writer):
    """Never reads, so that the sender's socket fills up."""
    writer.transport.pause_reading()
    await writer.wait_closed()


async def reset(_, writer):
    writer.transport.abort()


def store_at(wire, **options):
    keys = {"access_key": "key", "secret_key": "secret"}
    return S3Store(
        "bucket", "some/prefix/", **{"endpoint_url": wire.url, "path_style": True, "profile": ALL, **keys, **options}
    )


@pytest.fixture
async def wire():
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield wire
    server.close()
    await wire.end()
