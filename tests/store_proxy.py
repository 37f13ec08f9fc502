"""A store's address at which anything may happen to what is asked and answered, by S3's names of it.

    with proxy_to(weed.endpoint_url) as proxy:             # or the fixture: store_proxy
        proxy.rule = lambda request: Fault(flip=0) if request.operation == "UploadPart" else None
        proxy.rule = on("PutObject", Fault(reaches=False), number=1)
        with proxy.away(): ...                              # nobody listens, and who was connected is reset

Bodies stream; what is asked for and what the store has made of it is in `proxy.requests`. Nothing is signed again: our
client signs no body, so a body may change on its way. It runs on an event loop in a thread of its own, for tests with a
loop and without.

Use: `pytest_plugins = ["weed", "store_proxy"]` and the fixture `store_proxy`. It is imported, too: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

PIECE = 256 << 10
"""What passes at once of a body."""

HELD_SECONDS = 20
"""Nobody is held longer by an event that is never set."""

Pause = float | threading.Event
"""Seconds, or until somebody says so."""


def operation_of(method: str, target: str) -> str:
    """S3's name of what a request asks for, as far as streamup asks for it."""
    path, _, query = target.partition("?")
    asked = parse_qs(query, keep_blank_values=True).keys()
    settings = {
        "lifecycle": "GetBucketLifecycleConfiguration",
        "cors": "GetBucketCors",
        "versioning": "GetBucketVersioning",
        "encryption": "GetBucketEncryption",
        "object-lock": "GetObjectLockConfiguration",
        "uploads": "ListMultipartUploads",
        "versions": "ListObjectVersions",
        "list-type": "ListObjectsV2",
    }
    if path.strip("/").count("/") < 1:
        return next((name for word, name in settings.items() if word in asked), f"{method.title()}Bucket")
    if "attributes" in asked:
        return "GetObjectAttributes"
    if "uploads" in asked:
        return "CreateMultipartUpload"
    if "uploadId" in asked:
        return {
            "PUT": "UploadPart",
            "GET": "ListParts",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }[method]
    return f"{method.title()}Object"


@dataclass(frozen=True)
class Answer:
    """What the store says, or what is said in its place."""

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def head(self) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.fields.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode()


def says(status: int, body: str = "", **fields: str) -> Answer:
    """An answer in the place of the store's."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body)), **named}, body.encode())


def error(code: str, message: str = "as the test wants it") -> str:
    return f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'


def no(status: int, code: str, **fields: str) -> Answer:
    """A refusal, as S3 words it."""
    return says(status, error(code), **fields)


@dataclass(frozen=True)
class Fault:
    """What happens to one request: each of these by itself, or several, in the order in which they come."""

    name: str = "fault"
    """By which it is counted."""

    wait: Pause = 0.0
    """Before anything else."""

    act: Callable[[Request], None] | None = None
    """What somebody else does meanwhile."""

    instead: Answer | None = None
    """This answer, and the store is not asked."""

    early: bool = False
    """... before the body is read, and then the connection is closed."""

    reaches: bool = True
    """False: the store hears nothing, and the connection is reset."""

    late: float | None = None
    """The connection is reset, and the store hears all of it so many seconds later."""

    again: float | None = None
    """The store hears it a second time, so many seconds later."""

    flip: int | None = None
    """A bit turns in this byte of the body (or, if it is shorter, in another one)."""

    tear: int | None = None
    """After so many bytes of the body the connection to the store ends, and that to who asks is reset."""

    stall: tuple[int, float] | None = None
    """After so many bytes of the body nothing passes for so many seconds."""

    rate: float | None = None
    """Bytes a second of both bodies."""

    after: Pause = 0.0
    """Between the effect and the answer."""

    change: Callable[[Answer], Answer] | None = None
    """What becomes of the answer."""

    cut: int | None = None
    """So much of the answer passes (negative: all but so much), and then a reset. 0: it is lost, after the effect."""


FINE = Fault("")


@dataclass
class Request:
    """One request as it came, and what has become of it. Times are those of `time.monotonic`."""

    method: str
    target: str
    headers: dict[str, str]
    number: int
    """Among those of its operation."""

    operation: str
    came: float
    fault: str = ""
    echo: bool = False
    """It is one that came before, and arrives a second time, or late."""

    status: int | None = None
    """What the store has said, if it was asked, and has answered."""

    answered: float | None = None
    """When it has."""

    told: float | None = None
    """When all of that had passed on, unchanged."""

    @property
    def path(self) -> str:
        """Bucket and key."""
        return unquote(urlsplit(self.target).path).removeprefix("/")

    @property
    def size(self) -> int:
        return int(self.headers.get("content-length", 0))

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


Rule = Callable[[Request], Fault | None]


def on(operation: str, fault: Fault, number: int | None = None) -> Rule:
    """This fault for this operation: each time, or at its n-th request."""
    return lambda request: fault if request.operation == operation and number in {None, request.number} else None


class _Line:
    """One connection of a client, and ours to the store for it."""

    def __init__(self, proxy: StoreProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._above: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        try:
            while await self._exchange():
                pass
        except (OSError, asyncio.IncompleteReadError):
            self.reset()
        finally:
            self.close()

    def reset(self) -> None:
        """RST to both."""
        for writer in self._writers():
            with contextlib.suppress(OSError):  # it is closed already
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._writers():
            writer.close()

    def _writers(self) -> list[asyncio.StreamWriter]:
        return [self._writer, *([self._above[1]] if self._above else [])]

    async def _exchange(self) -> bool:
        """One request and its answer. False: no more come on this connection."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            return False
        request = self._proxy.came(head)
        fault = self._proxy.fate(request)
        await _pause(fault.wait)
        if fault.wait and self._reader.at_eof():
            raise ConnectionResetError  # whoever asked has gone, and no network delivers what was not sent
        if fault.act:
            await asyncio.to_thread(fault.act, request)
        if fault.instead and fault.early:
            await self._say(request, fault.instead)
            return False
        if not fault.reaches:
            raise ConnectionResetError
        if fault.instead:
            await self._skip(request.size)
            await self._say(request, fault.instead)
            return True
        if fault.late is not None or fault.again is not None:
            body = await self._reader.readexactly(request.size)
            self._proxy.echo(fault.late if fault.late is not None else fault.again or 0.0, request, head, body)
            if fault.late is not None:
                raise ConnectionResetError
            reader = asyncio.StreamReader()
            reader.feed_data(body)
        else:
            reader = self._reader
        await self._pass_on(request, head, reader, fault)
        return await self._pass_back(request, fault)

    async def _skip(self, size: int) -> None:
        while size:
            size -= len(await _some(self._reader, size))

    async def _say(self, request: Request, answer: Answer) -> None:
        self._writer.write(answer.head() + (b"" if request.method == "HEAD" else answer.body))
        await self._writer.drain()

    # -- to the store

    async def _pass_on(self, request: Request, head: bytes, body: asyncio.StreamReader, fault: Fault) -> None:
        if self._above is None:
            self._above = await asyncio.open_connection(*self._proxy.store, limit=4 * PIECE)
        _, writer = self._above
        writer.write(head)
        flip = fault.flip % request.size if fault.flip is not None and request.size else None
        at, seconds = fault.stall or (-1, 0.0)
        passed = 0
        while passed < request.size:
            if passed == fault.tear:
                await self._tear()
            if passed == at:
                await asyncio.sleep(seconds)
            ahead = [place - passed for place in (request.size, passed + PIECE, fault.tear, at) if place is not None]
            data = await _some(body, min(left for left in ahead if left > 0))
            if flip is not None and passed <= flip < passed + len(data):
                data = flipped(data, flip - passed)
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if fault.rate:
                await asyncio.sleep(len(data) / fault.rate)

    async def _tear(self) -> None:
        """The store gets what has passed, and then the end: an RST would take from it what it has not read yet."""
        assert self._above
        _, writer = self._above
        self._above = None
        writer.close()
        await writer.wait_closed()
        raise ConnectionResetError

    # -- and back

    async def _pass_back(self, request: Request, fault: Fault) -> bool:
        assert self._above
        reader, _ = self._above
        head, answer = await _head(reader)
        request.status, request.answered = answer.status, time.monotonic()
        await _pause(fault.after)
        bodiless = request.method == "HEAD" or answer.status in {204, 304}
        if fault.change is None and fault.cut is None:
            self._writer.write(head)
            if not bodiless:
                async for data in _body(reader, answer):
                    self._writer.write(data)
                    await self._writer.drain()
                    if fault.rate:
                        await asyncio.sleep(len(data) / fault.rate)
            await self._writer.drain()
            if not self._reader.at_eof():  # else nobody was there any more
                request.told = time.monotonic()
            return answer.fields.get("connection", "").lower() != "close"
        body = b"" if bodiless else await _whole(reader, answer)
        answer = _framed(answer, body, bodiless=bodiless)
        changed = fault.change(answer) if fault.change else answer
        said = changed.head() + (b"" if bodiless else changed.body)
        self._writer.write(said if fault.cut is None else said[: fault.cut])
        await self._writer.drain()
        if fault.cut is not None:
            raise ConnectionResetError
        return True


async def _pause(pause: Pause) -> None:
    if isinstance(pause, threading.Event):
        await asyncio.to_thread(pause.wait, HELD_SECONDS)
    elif pause:
        await asyncio.sleep(pause)


async def _some(reader: asyncio.StreamReader, most: int) -> bytes:
    """What is there, up to so much."""
    data = await reader.read(most)
    if not data:
        raise asyncio.IncompleteReadError(b"", most)
    return data


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, Answer]:
    """The answer's head, as it came and as it is; names of fields are lower-case."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    named = {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
    return head, Answer(int(line.split(" ")[1]), named)


async def _body(reader: asyncio.StreamReader, answer: Answer) -> Any:
    """The body's bytes as they came, with the framing of chunks."""
    if answer.fields.get("transfer-encoding") != "chunked":
        left = int(answer.fields["content-length"])
        while left:
            data = await _some(reader, min(left, PIECE))
            left -= len(data)
            yield data
        return
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line, 16)
        yield line + await reader.readexactly(size + 2)
        if not size:
            return


async def _whole(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    """The body without framing."""
    data = b"".join([piece async for piece in _body(reader, answer)])
    if answer.fields.get("transfer-encoding") != "chunked":
        return data
    body = b""
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        body, data = body + data[:size], data[size + 2 :]
    return body


def _framed(answer: Answer, body: bytes, *, bodiless: bool) -> Answer:
    """The same with a body whose length is told."""
    if bodiless:
        return answer
    kept = {name: value for name, value in answer.fields.items() if name != "transfer-encoding"}
    return Answer(answer.status, {**kept, "content-length": str(len(body))}, body)


def flipped(data: bytes, at: int = 0) -> bytes:
    """One bit of it has turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass
class StoreProxy:
    """`rule` is asked for the fate of each request; None passes it on. `did` counts faults by name and operation."""

    store: tuple[str, int]
    url: str = ""
    rule: Rule = lambda _request: None
    requests: list[Request] = field(default_factory=list)
    did: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed: int = 0
    """Bytes of all bodies that were announced on their way to the store."""

    _numbers: Counter[str] = field(default_factory=Counter)
    _lines: dict[asyncio.Task[None], _Line] = field(default_factory=dict)
    _echoes: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _listener: asyncio.Server | None = None

    # -- what a test asks and does

    @property
    def operations(self) -> list[str]:
        """What was asked for, in order."""
        return [request.operation for request in self.requests]

    @property
    def seen(self) -> Counter[str]:
        """How often, by operation."""
        return Counter(self.operations)

    def forget(self) -> None:
        """Count from one again."""
        self.requests.clear()
        self._numbers.clear()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens, and who was connected is reset."""
        self.did["away", "all"] += 1
        self._do(self._close())
        try:
            yield
        finally:
            self._do(self._listen(int(self.url.rpartition(":")[2])))

    def settle(self) -> None:
        """Wait until all that was to arrive late has arrived."""
        self._do(self._settle())

    # -- in its thread

    def came(self, head: bytes) -> Request:
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
        operation = operation_of(method, target)
        self._numbers[operation] += 1
        request = Request(method, target, headers, self._numbers[operation], operation, time.monotonic())
        self.requests.append(request)
        self.passed += request.size
        return request

    def fate(self, request: Request) -> Fault:
        fault = self.rule(request)
        if fault is None:
            return FINE
        request.fault = fault.name
        self.did[fault.name, request.operation] += 1
        return fault

    def echo(self, seconds: float, request: Request, head: bytes, body: bytes) -> None:
        """Have it arrive later, on a connection of its own. Nobody hears the answer."""
        task = self._loop.create_task(self._echo(seconds, request, head, body))
        self._echoes.add(task)
        task.add_done_callback(self._echoes.discard)

    async def _echo(self, seconds: float, request: Request, head: bytes, body: bytes) -> None:
        await asyncio.sleep(seconds)
        late = replace(request, came=time.monotonic(), echo=True, status=None, answered=None, told=None)
        self.requests.append(late)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(*self.store, limit=4 * PIECE)
            try:
                writer.write(head)
                writer.write(body)
                await writer.drain()
                _, answer = await _head(reader)
                late.status, late.answered = answer.status, time.monotonic()
            finally:
                writer.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * HELD_SECONDS)

    async def _listen(self, port: int = 0) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=4 * PIECE, backlog=1000)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        line = self._lines[task] = _Line(self, reader, writer)
        try:
            await line.run()
        except asyncio.CancelledError:
            line.reset()
        finally:
            del self._lines[task]

    async def _close(self) -> None:
        assert self._listener
        self._listener.close()
        lines = list(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    async def _settle(self) -> None:
        await asyncio.gather(*self._echoes, return_exceptions=True)

    async def _end(self) -> None:
        await self._close()
        for echo in list(self._echoes):
            echo.cancel()
        await self._settle()


@contextlib.contextmanager
def proxy_to(url: str) -> Iterator[StoreProxy]:
    store = urlsplit(url)
    assert store.hostname
    assert store.port
    proxy = StoreProxy((store.hostname, store.port))
    thread = threading.Thread(target=proxy._loop.run_forever)
    thread.start()
    try:
        proxy._do(proxy._listen())
        yield proxy
    finally:
        proxy._do(proxy._end())
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join()
        proxy._loop.close()


@pytest.fixture
def store_proxy(weed) -> Iterator[StoreProxy]:
    with proxy_to(weed.endpoint_url) as found:
        yield found
