"""A network between a client and a server that can be as bad as one wants: it resets, stalls, loses answers, dies.

    with network_to(server.ports[0]) as network:          # or the fixture: network = between(server.ports[0])
        network.fate = chaos(random.Random(7), 1 << 20)    # what becomes of each connection
        with network.stalled(): ...                        # nothing passes, and then it goes on
        with network.unplugged(): ...                      # ... and what was connected then is dead for ever
        with network.refusing(): ...                       # nobody listens
        network.reset_all()

It sits at the level of TCP and changes no byte. It reads along only to count: `requests` are those that went up, each
with the bytes of its body that have passed; `did` counts what was done to connections. It runs in a thread of its own.

Use: `pytest_plugins = ["network"]` and the fixture `between`. (PYTEST_DONT_REWRITE: it is imported too.)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

Way = Literal["up", "down"]
"""To the server, and back."""

PIECE = 16 << 10
"""What passes at once. Small, so that a rate is smooth and a cut is somewhere."""

WINDOW = 128 << 10
"""Of each socket's buffers. Linux would let them grow to megabytes, and nobody would feel that nothing passes."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a connection when one more byte than `after` is about to pass on its `way`.

    `reset`: both ends are told by RST. (On the way down, after nothing: the server has acted, and its answer is lost.)
    `stall`: nothing passes either way for `seconds`, then it goes on. `die`: nothing passes any more, and nobody is
    told.
    """

    act: Literal["reset", "stall", "die"]
    way: Way = "up"
    after: int = 0
    seconds: float = 0.0


def chaos(numbers: random.Random, mean_bytes: float) -> Callable[[int], Fate | None]:
    """For each connection a fate, most of them within some `mean_bytes`: half are reset on the way up, the others have
    their answers cut or lost, or stall for a moment.
    """

    def fate(_number: int) -> Fate | None:
        match numbers.choice(["cut", "cut", "cut", "stall", "answer", "lost", "good"]):
            case "cut":
                return Fate("reset", "up", int(numbers.expovariate(1 / mean_bytes)))
            case "stall":
                after = int(numbers.expovariate(1 / mean_bytes))
                return Fate("stall", "up", after, seconds=numbers.uniform(0.2, 1.5))
            case "answer":
                return Fate("reset", "down", numbers.randrange(1, 200))
            case "lost":
                return Fate("reset", "down", 0)
        return None

    return fate


@dataclass
class Request:
    """A request as it went up. `passed`: how much of its body has gone on towards the server."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    passed: int = 0


class _Framing:
    """Where requests begin on one connection, and how much of each body has passed. Fed with what goes up."""

    def __init__(self, connection: int, seen: list[Request]) -> None:
        self._connection, self._seen = connection, seen
        self._rest = b""
        self._reading = self._read()
        next(self._reading)

    def feed(self, data: bytes) -> None:
        self._reading.send(data)

    def _until(self, mark: bytes) -> Generator[None, bytes, bytes]:
        while mark not in self._rest:
            self._rest += yield
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _body(self, size: int, request: Request) -> Generator[None, bytes, None]:
        while size:
            if not self._rest:
                self._rest = yield
            taken = min(size, len(self._rest))
            self._rest = self._rest[taken:]
            request.passed += taken
            size -= taken

    def _read(self) -> Generator[None, bytes, None]:
        while True:
            line, *fields = (yield from self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in fields)}
            request = Request(self._connection, method, target, headers)
            self._seen.append(request)
            if headers.get("transfer-encoding") != "chunked":
                yield from self._body(int(headers.get("content-length", 0)), request)
                continue
            while size := int((yield from self._until(b"\r\n")), 16):
                yield from self._body(size, request)
                yield from self._until(b"\r\n")
            while (yield from self._until(b"\r\n")):
                pass  # trailers


class _Line:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, network: Network, number: int, fate: Fate | None) -> None:
        self.network, self.number, self.fate = network, number, fate
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.writers: list[asyncio.StreamWriter] = []
        self._framing = _Framing(number, network.requests)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            await self.network.flowing.wait()
            above, towards = await asyncio.open_connection("127.0.0.1", self.network.port)
            self.writers.append(towards)
            _small(towards)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("up", reader, towards))
                pumps.create_task(self._pump("down", above, writer))
        except* OSError:
            self.reset()  # nobody there, or one of the two has been reset: so is the other
        finally:
            for one in self.writers:
                one.close()

    def reset(self) -> None:
        """RST to both."""
        for writer in self.writers:
            with contextlib.suppress(OSError):  # it is closed already
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while True:
            try:
                data = await reader.read(PIECE)
            except OSError:
                await self._may_pass()  # not even that one end has gone passes a cable that is pulled
                raise
            await self._may_pass()
            if not data:
                break
            if self.fate and self.fate.way == way and passed + len(data) > self.fate.after:
                before = self.fate.after - passed
                await self._pass(way, data[:before], writer)
                data = data[before:]
                await self._meet(self.fate)
            passed += len(data)
            await self._pass(way, data, writer)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _may_pass(self) -> None:
        while not (self.flowing.is_set() and self.network.flowing.is_set()):
            await self.flowing.wait()
            await self.network.flowing.wait()

    async def _pass(self, way: Way, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        self.network.passed[way] += len(data)
        if way == "up":
            self._framing.feed(data)
            if self.network.rate:
                await asyncio.sleep(len(data) / self.network.rate)

    async def _meet(self, fate: Fate) -> None:
        self.fate = None
        self.network.did[f"{fate.act} {fate.way}"] += 1
        if fate.act == "reset":
            raise ConnectionResetError
        self.flowing.clear()
        if fate.act == "stall":
            await asyncio.sleep(fate.seconds)
            self.flowing.set()
        await self._may_pass()


def _small(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW)
    writer.transport.set_write_buffer_limits(PIECE)


@dataclass
class Network:
    """`fate` is asked for each connection, by its number. `rate`: bytes a second that go up on each, if it has one."""

    port: int
    """Of the server, on loopback."""

    fate: Callable[[int], Fate | None] = lambda _number: None
    rate: float | None = None
    did: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _lines: dict[asyncio.Task[None], _Line] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _listener: asyncio.Server | None = None

    @property
    def bodies(self) -> int:
        """Bytes of all request bodies that have passed."""
        return sum(request.passed for request in self.requests)

    def appends(self, since: int = 0) -> list[tuple[int, int]]:
        """Where each append began, and how much of it has passed: those requests that name an offset. `since`: how many
        requests there were before.
        """
        named = [request for request in self.requests[since:] if "upload-offset" in request.headers]
        return [(int(request.headers["upload-offset"]), request.passed) for request in named]

    # -- what a test does to it

    def reset_all(self) -> None:
        self.did["reset all"] += 1
        self._do(self._each(_Line.reset))

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        self.did["stalled"] += 1
        self._do(self._flow(on=False))
        try:
            yield
        finally:
            self._do(self._flow(on=True))

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        self.did["unplugged"] += 1
        self._do(self._flow(on=False))
        self._do(self._each(lambda line: line.flowing.clear()))
        try:
            yield
        finally:
            self._do(self._flow(on=True))

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """No new connections, and those that there are end."""
        self.did["refusing"] += 1
        self._do(self._close())
        self._do(self._each(_Line.reset))
        try:
            yield
        finally:
            self._do(self._listen(int(self.url.rpartition(":")[2])))

    # -- in its thread

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _each(self, act: Callable[[_Line], None]) -> None:
        for line in list(self._lines.values()):
            act(line)

    async def _flow(self, *, on: bool) -> None:
        (self.flowing.set if on else self.flowing.clear)()

    async def _listen(self, port: int = 0) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        sock.bind(("127.0.0.1", port))
        self._listener = await asyncio.start_server(self._accept, sock=sock, limit=PIECE)
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        line = _Line(self, number, self.fate(number))
        task = asyncio.current_task()
        assert task
        self._lines[task] = line
        self.did["connections"] += 1
        try:
            await line.run(reader, writer)
        except asyncio.CancelledError:
            line.reset()  # the test has ended
        finally:
            del self._lines[task]

    async def _close(self) -> None:
        assert self._listener
        self._listener.close()

    async def _end(self) -> None:
        await self._close()
        tasks = list(self._lines)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def network_to(port: int) -> Iterator[Network]:
    network = Network(port)
    thread = threading.Thread(target=network._loop.run_forever)
    thread.start()
    try:
        network._do(network._flow(on=True))
        network._do(network._listen())
        yield network
    finally:
        network._do(network._end())
        network._loop.call_soon_threadsafe(network._loop.stop)
        thread.join()
        network._loop.close()


@pytest.fixture
def between() -> Iterator[Callable[[int], Network]]:
    """`between(port)`: a network to the server there."""
    with contextlib.ExitStack() as networks:
        yield lambda port: networks.enter_context(network_to(port))
