"""A request body off a real socket: it ends cleanly or with a reason, and loses nothing that the parser accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from raw_client import LAST_CHUNK, PATIENCE_SECONDS, Client, chunk, eventually, head

from streamup.body import GATHER_SECONDS, RequestBody, gather_seconds

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

CHUNKED = {"Transfer-Encoding": "chunked"}
PIECES = (b"The first piece", b", and", b" a second one")
BODY = b"".join(PIECES)
WIRE = b"".join(map(chunk, PIECES)) + LAST_CHUNK


class Desk:
    """A server whose handlers do nothing: the test reads each body itself, when it likes."""

    def __init__(self) -> None:
        self.idle_seconds = PATIENCE_SECONDS
        self.address = ("", 0)
        self.requests: asyncio.Queue[web.Request] = asyncio.Queue()
        self.over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.put_nowait(request)
        await self.over.wait()
        return web.Response()

    async def body(self) -> tuple[web.Request, RequestBody]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = await self.requests.get()
        return request, RequestBody(request, self.idle_seconds)


async def _keep_expecting(_: web.Request) -> None:
    pass


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    app = web.Application()
    app.router.add_route("*", "/", desk.handle, expect_handler=_keep_expecting)
    runner = web.AppRunner(
        app, access_log=None, auto_decompress=False, read_bufsize=256 << 10, lingering_time=0, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    desk.address = runner.addresses[0][:2]
    yield desk
    desk.over.set()
    await runner.cleanup()


@pytest.fixture
async def connect(desk: Desk) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(await Client.connect(desk.address))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


async def read_all(body: RequestBody) -> bytes:
    data = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while piece := await body.read():
            data += piece
    return data


def lost(request: web.Request) -> Callable[[], bool]:
    return lambda: request.transport is None


@pytest.mark.parametrize("headers", [CHUNKED, {"Content-Length": str(len(BODY))}], ids=["chunked", "length"])
async def test_a_whole_body_ends_cleanly(desk, connect, headers):
    client = await connect()
    await client.send(head("PUT", "/", headers) + (WIRE if headers is CHUNKED else BODY))
    _, body = await desk.body()
    assert await read_all(body) == BODY
    assert body.interrupted is None
    assert await body.read() == b""


async def test_bytes_are_not_decoded(desk, connect):
    client = await connect()
    await client.send(head("PUT", "/", {"Content-Length": "5", "Content-Encoding": "gzip"}) + b"plain")
    assert await read_all((await desk.body())[1]) == b"plain"


@pytest.mark.parametrize("late", [False, True], ids=["read at once", "read after the connection is lost"])
async def test_every_strict_prefix_of_a_body_is_interrupted_and_keeps_its_bytes(desk, connect, late):
    for size in range(len(WIRE) + 1):
        client = await connect()
        await client.send(head("PUT", "/", CHUNKED) + WIRE[:size])
        request, body = await desk.body()
        client.close()
        if late:
            await eventually(lost(request))
        assert await read_all(body) == payload(size), size
        assert (body.interrupted is None) == (size == len(WIRE)), size


def payload(size: int) -> bytes:
    """The body's bytes within the first `size` bytes on the wire."""
    found, position = b"", 0
    for piece in PIECES:
        start = position + len(chunk(piece)) - len(piece) - 2
        found += piece[: max(0, size - start)]
        position += len(chunk(piece))
    return found


@pytest.mark.parametrize("size", range(len(BODY)))
async def test_a_body_shorter_than_its_content_length_is_interrupted(desk, connect, size):
    client = await connect()
    await client.send(head("PUT", "/", {"Content-Length": str(len(BODY))}) + BODY[:size])
    request, body = await desk.body()
    client.half_close() if size % 2 else client.close()
    if size % 3:
        await eventually(lost(request))
    assert await read_all(body) == BODY[:size]
    assert body.interrupted


@pytest.mark.parametrize("end", ["close", "half_close"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_whole_body_whose_sender_left_at_once_ends_cleanly(desk, connect, end, chunked):
    data = random.Random(1).randbytes(300_000)  # fits into aiohttp's buffer, so that the connection is lost meanwhile
    client = await connect()
    if chunked:
        pieces = b"".join(chunk(data[at : at + 1400]) for at in range(0, len(data), 1400))
        await client.send(head("PUT", "/", CHUNKED) + pieces + LAST_CHUNK)
    else:
        await client.send(head("PUT", "/", {"Content-Length": str(len(data))}) + data)
    getattr(client, end)()
    request, body = await desk.body()
    await eventually(lost(request))
    assert await read_all(body) == data
    assert body.interrupted is None


async def test_a_large_body_survives_a_slow_reader_and_a_sender_that_leaves(desk, connect):
    data = random.Random(2).randbytes(4 << 20)
    client = await connect()

    async def send() -> None:
        await client.send(head("PUT", "/", CHUNKED))
        for at in range(0, len(data), 32 << 10):
            await client.send(chunk(data[at : at + (32 << 10)]))
        await client.send(LAST_CHUNK)
        client.close()

    sender = asyncio.create_task(send())
    _, body = await desk.body()
    received = []
    while piece := await body.read():
        received.append(piece)
        await asyncio.sleep(0.001)
    await sender
    assert b"".join(received) == data
    assert body.interrupted is None


async def test_a_reset_is_interrupted(desk, connect):
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED) + chunk(BODY))
    _, body = await desk.body()
    assert await body.read() == BODY
    client.reset()
    assert await body.read() == b""
    assert body.interrupted


async def test_a_malformed_chunk_is_interrupted_by_the_idle_limit(desk, connect):
    desk.idle_seconds = 0.2
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED) + chunk(BODY))
    _, body = await desk.body()
    assert await body.read() == BODY
    await client.send(b"ZZ\r\n" + WIRE)
    assert await read_all(body) == b""
    assert body.interrupted


async def test_the_idle_limit_counts_from_the_last_byte(desk, connect):
    desk.idle_seconds = 0.3
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED))
    _, body = await desk.body()
    for _ in range(8):
        await asyncio.sleep(0.05)
        await client.send(chunk(b"x"))
        assert await body.read() == b"x"
    assert body.interrupted is None
    assert await body.read() == b""
    assert body.interrupted == "no byte came for 0.3 s"


# -- small chunks are gathered ----------------------------------------------------------------------------------------


@pytest.fixture
def _from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamup.body.GATHER_AFTER_SECONDS", 0.0)


@pytest.mark.usefixtures("_from_the_start")
async def test_chunks_that_come_one_by_one_are_read_together_and_soon(desk, connect):
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED))
    _, body = await desk.body()
    loop, sent, delays, reads = asyncio.get_running_loop(), [], [], 0

    async def send() -> None:
        for number in range(100):
            sent.append(loop.time())
            await client.send(chunk(bytes([number]) * 1000))
            await asyncio.sleep(0.005)
        await client.send(LAST_CHUNK)

    sender = asyncio.create_task(send())
    data = b""
    while piece := await body.read():
        reads += 1
        delays.append(loop.time() - sent[len(data) // 1000])
        data += piece
    await sender
    assert data == b"".join(bytes([number]) * 1000 for number in range(100))
    assert body.interrupted is None
    assert reads < 50
    assert sorted(delays)[len(delays) // 2] < 0.05


@pytest.mark.parametrize("end", ["close", "half_close", "reset"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.usefixtures("_from_the_start")
async def test_what_comes_before_the_sender_leaves_is_read_after_a_pause(desk, connect, monkeypatch, end, whole):
    monkeypatch.setattr("streamup.body.GATHER_SECONDS", 0.2)
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED))
    request, body = await desk.body()
    reading = asyncio.create_task(body.read())
    await asyncio.sleep(0.05)  # so long do its few bytes take
    await client.send(chunk(PIECES[0]))
    assert await reading == PIECES[0]
    assert not request.transport.is_reading()
    await client.send(b"".join(map(chunk, PIECES[1:])) + LAST_CHUNK * whole)
    getattr(client, end)()
    assert await read_all(body) == b"".join(PIECES[1:])
    assert (body.interrupted is None) == whole


@pytest.mark.parametrize(
    ("size", "since", "seconds"),
    [
        (4096, 0.016, GATHER_SECONDS),  # 2 Mbit/s
        (1, 3.0, GATHER_SECONDS),
        (4096, 0.001, 0.016),  # 64 KiB take that long at its rate
        (64 << 10, 0.01, 0.01),
        (64 << 10, 0.001, 0),
        (256 << 10, 0.004, 0),  # 64 MB/s: what a fast sender brings, however late the loop reads it
        (1 << 20, 0.02, 0),
        (4096, 0.0, 0),
    ],
)
async def test_nobody_who_sends_much_waits(size, since, seconds):
    assert gather_seconds(size, since) == pytest.approx(seconds)


async def test_a_young_body_is_read_at_once(desk, connect):
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED))
    request, body = await desk.body()
    for _ in range(5):
        await asyncio.sleep(0.01)
        await client.send(chunk(b"x"))
        assert await body.read() == b"x"
        assert request.transport.is_reading()


async def test_a_cancelled_read_loses_nothing(desk, connect):
    chance = random.Random(3)
    data = bytes(range(256)) * 4
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED))
    request, body = await desk.body()

    async def send() -> None:
        for at in range(0, len(data), 8):
            await client.send(chunk(data[at : at + 8]))
            await asyncio.sleep(chance.uniform(0, 0.001))
        await client.send(LAST_CHUNK)

    sender = asyncio.create_task(send())
    received, cancelled = b"", 0
    while not (request.content.is_eof() and len(received) == len(data)):
        reading = asyncio.create_task(body.read())
        await asyncio.wait([reading], timeout=chance.uniform(0, 0.001))
        if reading.cancel():
            cancelled += 1
        try:
            received += await reading
        except asyncio.CancelledError:
            continue
    await sender
    assert received == data
    assert cancelled
    assert body.interrupted is None


async def test_continue_is_said_once_and_only_when_somebody_reads(desk, connect):
    client = await connect()
    await client.send(head("PUT", "/", CHUNKED | {"Expect": "100-continue"}))
    _, body = await desk.body()
    assert body.awaited is True
    with pytest.raises(TimeoutError):
        await client.interim(seconds=0.1)
    reading = asyncio.create_task(body.read())
    assert await client.interim() == 100
    assert not body.awaited
    await client.send(WIRE)
    assert await reading + await read_all(body) == BODY
    desk.over.set()
    answer = await client.answer()
    assert (answer.status, answer.interim) == (200, ())


@pytest.mark.parametrize(("headers", "version"), [({}, "1.1"), ({"Expect": "100-continue"}, "1.0")])
async def test_continue_is_not_said_to_those_who_do_not_wait_for_it(desk, connect, headers, version):
    client = await connect()
    await client.send(head("PUT", "/", {"Content-Length": str(len(BODY))} | headers, version))
    _, body = await desk.body()
    assert not body.awaited
    reading = asyncio.create_task(body.read())
    await client.send(BODY)
    assert await reading + await read_all(body) == BODY
    desk.over.set()
    assert (await client.answer()).interim == ()
