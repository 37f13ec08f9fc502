"""HTTP by hand: requests as bytes on a socket, so that a test decides what is sent, when, and how it breaks off.

    client = await Client.connect(service.address)
    answer = await client.ask("PUT", "/objects/a", b"body")          # Content-Length
    answer = await client.ask("PUT", "/objects/a", chunks=[b"body"])  # chunked
    await client.send(head("PUT", "/objects/a", {"Transfer-Encoding": "chunked"}) + chunk(b"body"))
    client.close(), client.reset(), client.half_close()

Nothing here waits without a deadline.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Self

PATIENCE_SECONDS = 10.0
"""Nothing takes this long; whatever has not happened by then never will."""

CHUNKED = {"Transfer-Encoding": "chunked"}
EXPECT = {"Expect": "100-continue"}
LAST_CHUNK = b"0\r\n\r\n"

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}
PARTIAL = "application/partial-upload"
"""The content types of an append: tus's, as a field, and the draft's."""


def head(method: str, target: str, headers: Mapping[str, str] | None = None, version: str = "1.1") -> bytes:
    """A request head. `Host` is there unless the headers have their own."""
    fields = {"Host": "127.0.0.1"} | dict(headers or {})
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def eventually(condition: Callable[[], Any | Awaitable[Any]], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `condition` gives as soon as that is true; it must become so in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        assert loop.time() < deadline, f"still not so after {seconds:g} s"
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    """A response. The names of `headers` are lower-case; `before` holds the interim ones that came before it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    before: tuple[Answer, ...] = ()

    @property
    def interim(self) -> tuple[int, ...]:
        """The statuses of the interim responses."""
        return tuple(answer.status for answer in self.before)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        return self.json["detail"]

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    methods: list[str] = field(default_factory=list)

    @classmethod
    async def connect(cls, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> Self:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return cls(*await asyncio.open_connection(*address, ssl=tls))

    async def send(self, data: bytes) -> None:
        """Raises `ConnectionError` once the server has closed."""
        if self.writer.transport.is_closing():  # uvloop would not say so as an OSError
            raise ConnectionResetError
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.writer.drain()

    async def start(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunks: Iterable[bytes] | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a whole request; a server that closes before it has read everything is no error here."""
        fields = dict(headers or {})
        if chunks is not None:
            fields.setdefault("Transfer-Encoding", "chunked")
            body = b"".join([*map(chunk, chunks), LAST_CHUNK])
        elif body is not None:
            fields.setdefault("Content-Length", str(len(body)))
        self.methods.append(method)
        with suppress(ConnectionError):
            await self.send(head(method, target, fields, version) + (body or b""))

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunks: Iterable[bytes] | None = None,
        version: str = "1.1",
        seconds: float = PATIENCE_SECONDS,
    ) -> Answer:
        """A whole request and its answer."""
        await self.start(method, target, body, headers, chunks=chunks, version=version)
        return await self.answer(seconds)

    async def answer(self, seconds: float = PATIENCE_SECONDS) -> Answer:
        """The next response, interim ones skipped (and noted). Raises `IncompleteReadError` if none comes."""
        method = self.methods.pop(0) if self.methods else "PUT"
        before: list[Answer] = []
        async with asyncio.timeout(seconds):
            while True:
                status, headers = await self._head()
                if status >= 200:
                    break
                before.append(Answer(status, headers))
            size = 0 if method == "HEAD" or status in {204, 304} else int(headers.get("content-length", 0))
            body = await self.reader.readexactly(size)
        return Answer(status, headers, body, tuple(before))

    async def interim(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The status of the next response, which must be an interim one."""
        return (await self.told(seconds)).status

    async def told(self, seconds: float = PATIENCE_SECONDS) -> Answer:
        """The next response, which must be an interim one."""
        async with asyncio.timeout(seconds):
            status, headers = await self._head()
        assert status < 200, status
        return Answer(status, headers)

    async def ended(self, seconds: float = PATIENCE_SECONDS) -> bytes:
        """Whatever still comes until the server has ended the connection, in whatever way."""
        rest = b""
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    rest += data
        return rest

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        """As a process does that ends: whatever was sent still arrives, and nobody is left to read."""
        self.writer.close()

    def reset(self) -> None:
        """RST: the other side's kernel throws away what it has not handed over."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _head(self) -> tuple[int, Mapping[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip("\r\n").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(first.split(" ")[1]), headers


def refused(answer: Answer, status: int, **numbers: Any) -> Answer:
    """The answer, which must be a problem document of this status with these numbers (RFC 9457)."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json["status"] == status
    assert {"type", "title", "status", "detail"} <= set(answer.json)
    assert len(answer.detail) > 20, "the detail says what to do"
    for name, number in numbers.items():
        assert answer.json[name.replace("_", "-")] == number
    return answer


def metadata(pairs: Mapping[str, str]) -> dict[str, str]:
    """tus's field of this name."""
    encoded = (f"{name} {base64.b64encode(value.encode()).decode()}".strip() for name, value in pairs.items())
    return {"Upload-Metadata": ",".join(encoded)}


def place(at: int, total: int | str = "*", end: int | str = "*") -> dict[str, str]:
    return {"Content-Range": f"bytes {at}-{end}/{total}"}


def at(offset: int, *, complete: bool) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Complete": "?1" if complete else "?0"}
