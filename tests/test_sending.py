"""client/remote.py and client/sending.py: one upload on its way, over connections that break and servers that lie."""

import asyncio
from base64 import b64encode
from contextlib import suppress

import pytest
from aiohttp import web
from awscrt.checksums import crc64nvme
from conftest import BODY
from network import Fate
from raw_client import eventually

from streamup.client import Client, ClientError
from streamup.client import sending as sending_module
from streamup.client.sending import Sending, cancel

pytest_plugins = ["network"]


class Bytes:
    """A supply of bytes that are all there."""

    def __init__(self, data, length=None, piece=7_000):
        self.data, self.length, self.piece, self.released = data, length, piece, 0

    async def read(self, position):
        assert position >= self.released
        return self.data[position : position + self.piece]

    def release(self, position):
        assert position >= self.released
        self.released = position


class Live(Bytes):
    """One that grows, until `end`."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.changed = asyncio.Condition()
        self.ended = False

    async def add(self, data):
        async with self.changed:
            self.data += data
            self.changed.notify_all()

    async def end(self):
        async with self.changed:
            self.ended = True
            self.changed.notify_all()

    async def read(self, position):
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended or position < len(self.data))
            return await super().read(position)


class Server:
    """The steps of an upload, over a bytearray. `rules`: what to answer instead, asked with each request."""

    def __init__(self):
        self.data = bytearray()
        self.durable = 0
        self.asked = []
        self.rules = []
        self.told = asyncio.Condition()
        self.object = None
        self.events = True
        self.told_of = b"a"

    async def announce(self):
        async with self.told:
            self.durable = len(self.data)
            self.told.notify_all()

    async def handle(self, request):
        self.asked.append(request.method)
        for rule in self.rules:
            if (answer := await rule(request)) is not None:
                return answer
        if request.path.endswith("/events"):
            return await self.tell(request) if self.events else problem(404)
        return await getattr(self, request.method.lower())(request)

    async def post(self, _request):
        return web.Response(status=201, headers={"Location": "/uploads/a"})

    async def head(self, _request):
        return web.Response(status=204, headers={"Upload-Offset": str(len(self.data)), "Upload-Complete": "?0"})

    async def patch(self, request):
        if int(request.headers["Upload-Offset"]) != len(self.data):
            return problem(409, headers={"Upload-Offset": str(len(self.data))})
        async for piece in request.content.iter_any():
            self.data += piece
        if request.headers["Upload-Complete"] == "?0":
            return web.Response(status=204, headers={"Upload-Offset": str(len(self.data))})
        self.object = bytes(self.data)
        self.crc = request.headers["x-amz-checksum-crc64nvme"]
        return web.json_response({"key": "a", "size": len(self.data), "etag": "e"}, status=201)

    async def tell(self, request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        seen = -1
        with suppress(ConnectionError):
            while True:
                async with self.told:
                    while self.durable == seen:
                        await self.told.wait()
                    seen = self.durable
                told = b'{\r\ndata: "id": "%s", "offset": %d}' % (self.told_of, seen)
                await response.write(b": here\n\nevent: upload\r\ndata: " + told + b"\r\n\r\n")
        return response


def problem(status, **options):
    text = '{"title": "No", "detail": "Because."}'
    return web.Response(status=status, text=text, content_type="application/problem+json", **options)


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    async with Client(f"http://127.0.0.1:{server.port}") as server.client:
        yield server
    await runner.cleanup()


def times(count, method, answer):
    """A rule: so many requests of a method are answered so."""
    left = [count]

    async def rule(request):
        if request.method == method and not request.path.endswith("/events") and left[0]:
            left[0] -= 1
            return answer() if callable(answer) else answer
        return None

    return rule


def url(service):
    return "http://127.0.0.1:{}".format(*service.address[1:])


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(sending_module, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(sending_module, "MOST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(sending_module, "MOST_OBEYED_SECONDS", 0.05)
    monkeypatch.setattr(sending_module, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(sending_module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(sending_module, "LOOK_SECONDS", 0.05)


async def test_bytes_of_unknown_length_become_an_object(service):
    async with Client(url(service)) as client:
        sending = Sending(client, supply := Bytes(BODY), "a/b c.ts", content_type="video/mp2t", metadata={"team": "x"})
        assert await sending.deliver() == len(BODY)
        assert service.data("a/b c.ts") is None
        stored = await sending.seal()
        assert (stored["key"], stored["size"], stored["upload"]) == ("a/b c.ts", len(BODY), sending.upload_id)
        assert await sending.seal() == stored
    assert service.data("a/b c.ts") == BODY
    assert service.store.objects["a/b c.ts"].meta.content_type == "video/mp2t"
    assert service.store.objects["a/b c.ts"].meta.user["team"] == "x"
    assert supply.released == len(BODY)


async def test_a_known_length_is_declared(service):
    async with Client(url(service)) as client:
        sending = Sending(client, Bytes(BODY, len(BODY)), "a")
        await sending.deliver()
        found = await client.look(sending.upload_id)
        assert (found["length"], found["state"]) == (len(BODY), "open")
        assert (await sending.seal())["size"] == len(BODY)
    assert service.data("a") == BODY


async def test_nothing_is_an_object_too(service):
    async with Client(url(service)) as client:
        sending = Sending(client, Bytes(b""), "a")
        assert await sending.deliver() == 0
        assert (await sending.seal())["size"] == 0
    assert service.data("a") == b""


async def test_connections_that_break_again_and_again(service, between):
    network = between(service.address[1])
    network.fate = lambda number: Fate("reset", "up", 20_000) if number < 8 else None
    states = []
    async with Client(network.url) as client:
        sending = Sending(client, Bytes(BODY), "a", tell=lambda progress: states.append(progress.state))
        assert await sending.deliver() == len(BODY)
        await sending.seal()
    assert service.data("a") == BODY
    assert "waiting" in states
    assert network.did["reset up"] > 3


async def test_a_creation_whose_answer_never_comes_is_tried_again(service, between, monkeypatch):
    monkeypatch.setattr(sending_module, "OFFSET_SECONDS", 0.3)
    network = between(service.address[1])
    network.fate = lambda number: Fate("die", "down") if number == 0 else None
    async with Client(network.url) as client, asyncio.timeout(5):
        sending = Sending(client, Bytes(BODY), "a")
        await sending.deliver()
        await sending.seal()
    assert network.did["die down"] == 1
    assert service.data("a") == BODY


@pytest.mark.parametrize("fate", [Fate("reset"), Fate("reset", "down"), Fate("die")], ids=["asked", "done", "dead"])
async def test_a_cancel_is_tried_again(service, between, monkeypatch, fate):
    """The second finds nothing any more, where it was the first's answer that was lost."""
    monkeypatch.setattr(sending_module, "OFFSET_SECONDS", 0.3)
    network = between(service.address[1])
    upload_id = await service.leave("a")
    network.fate = lambda number: fate if number == 0 else None
    async with Client(network.url) as client, asyncio.timeout(5):
        await cancel(client, upload_id)
    assert network.did["connections"] == 2
    assert (await service.document("a"))["state"] == "cancelled"


async def test_a_cancel_that_is_refused_is_not_tried_again(service, monkeypatch):
    await service.ask("PUT", "/objects/a", BODY)
    done = (await service.document("a"))["id"]
    async with Client(url(service)) as client, asyncio.timeout(5):
        with pytest.raises(ClientError) as refused:
            await cancel(client, done)
    assert refused.value.status == 409
    monkeypatch.setattr(sending_module, "CANCEL_SECONDS", 0.5)
    async with Client("http://127.0.0.1:9") as client, asyncio.timeout(5):
        with pytest.raises(ClientError, match="cannot be reached"):
            await cancel(client, done)


async def test_a_seal_whose_answer_is_lost_is_asked_again(service, between):
    network = between(service.address[1])
    async with Client(network.url) as client:
        sending = Sending(client, Bytes(BODY), "a")
        await sending.deliver()
        network.reset_all()
        lost = network.did["connections"]
        network.fate = lambda number: Fate("reset", "down") if number <= lost + 2 else None
        assert (await sending.seal())["size"] == len(BODY)
    assert network.did["reset down"] >= 2
    assert service.data("a") == BODY


# --- servers and networks that misbehave


async def test_later_is_heeded(server):
    statuses = iter([408, 423, 429, 500, 502, 503, 504, 507] * 2)
    later = times(8, "PATCH", lambda: problem(next(statuses), headers={"Retry-After": "5"}))
    server.rules = [times(1, "POST", lambda: problem(503)), later]
    sending = Sending(server.client, Bytes(BODY), "a")
    assert await sending.deliver() == len(BODY)
    server.rules = [times(8, "PATCH", lambda: problem(next(statuses)))]
    await sending.seal()
    assert server.object == BODY
    assert server.crc == b64encode(crc64nvme(BODY).to_bytes(8, "big")).decode()


async def test_a_server_that_wants_to_be_left_alone_is(server, monkeypatch):
    monkeypatch.setattr(sending_module, "MOST_OBEYED_SECONDS", 0.3)
    server.rules = [times(1, "POST", lambda: problem(503, headers={"Retry-After": "5"}))]
    begun = asyncio.get_running_loop().time()
    await Sending(server.client, Bytes(BODY), "a").deliver()
    assert asyncio.get_running_loop().time() - begun > 0.3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_no_is_no(server, method):
    server.rules = [times(1, method, lambda: problem(413))]
    sending = Sending(server.client, Bytes(BODY), "a")
    with pytest.raises(ClientError, match="No: Because") as caught:
        await sending.deliver()
    assert (caught.value.status, caught.value.again) == (413, False)


async def test_a_stranger_at_the_beginning_is_told_and_later_is_waited_for(server):
    def elsewhere():
        return web.Response(status=404, text="<html>")

    server.rules = [times(1, "POST", elsewhere)]
    with pytest.raises(ClientError, match="404 Not Found"):
        await Sending(server.client, Bytes(BODY), "a").deliver()
    server.rules = [times(1, "POST", lambda: web.Response(text="hello"))]
    with pytest.raises(ClientError, match="Is this a streamup server"):
        await Sending(server.client, Bytes(BODY), "a").deliver()
    server.rules = [times(3, "PATCH", elsewhere), times(3, "HEAD", lambda: web.Response(status=302))]
    assert await Sending(server.client, Bytes(BODY), "a").deliver() == len(BODY)


async def test_the_first_contact_has_a_patience_of_its_own(server):
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ClientError, match="cannot be reached") as caught:
            await Sending(client, Bytes(BODY), "a", first_patience=0).deliver()
        assert caught.value.again
    server.rules = [times(3, "PATCH", lambda: problem(503))]
    assert await Sending(server.client, Bytes(BODY), "a", first_patience=0).deliver() == len(BODY)
    server.rules = [times(-1, "HEAD", lambda: problem(503)), times(-1, "PATCH", lambda: problem(503))]
    with pytest.raises(ClientError) as caught:
        await Sending(server.client, Bytes(b""), "a", upload_id="a", patience=0.1).deliver()
    assert caught.value.again


async def test_an_offset_that_falls_is_an_error_and_nothing_is_sent_again(server):
    async def forget(request):
        if request.method == "PATCH" and len(server.data) == 0:
            server.data += await request.content.readexactly(7_000)
            await server.announce()
            await eventually(lambda: supply.released)
            server.data = server.data[:100]
            request.transport.abort()

    supply = Bytes(BODY)
    server.rules = [forget]
    with pytest.raises(ClientError, match="had said that 7000 are durable"):
        await Sending(server.client, supply, "a").deliver()
    assert server.asked.count("PATCH") == 1


async def test_another_who_sends_to_the_same_upload_is_an_error(server):
    server.data += b"x" * (len(BODY) + 1)
    with pytest.raises(ClientError, match="somebody else"):
        await Sending(server.client, Live(BODY), "a", upload_id="a").deliver()
    with pytest.raises(ClientError, match="somebody else"):
        await Sending(server.client, Bytes(BODY, len(BODY)), "a", upload_id="a").deliver()


async def test_the_rest_of_an_upload_is_sent_and_the_checksum_is_of_all(server):
    server.data += BODY[:50_000]
    sending = Sending(server.client, supply := Bytes(BODY, len(BODY)), "a", upload_id="a")
    assert await sending.deliver() == len(BODY)
    await sending.seal()
    assert server.object == BODY
    assert server.crc == b64encode(crc64nvme(BODY).to_bytes(8, "big")).decode()
    assert supply.released == len(BODY)
    checked = Sending(server.client, Bytes(BODY), "a", upload_id="a", checked=(60_000, crc64nvme(BODY[:60_000])))
    server.data = bytearray(BODY[:50_000])
    await checked.deliver()
    await checked.seal()
    assert server.crc == b64encode(crc64nvme(BODY).to_bytes(8, "big")).decode()


async def test_durable_bytes_are_released_while_the_append_lives(server):
    sending = Sending(server.client, supply := Live(), "a")
    work = asyncio.create_task(sending.deliver())
    for end in (10_000, 20_000):
        await supply.add(BODY[end - 10_000 : end])
        await eventually(lambda end=end: len(server.data) == end)
        await server.announce()
        await eventually(lambda end=end: supply.released == end)
    await supply.end()
    assert await work == 20_000
    assert server.asked.count("PATCH") == 1


async def test_where_no_event_comes_appends_are_ended_and_their_answers_tell(server):
    server.events = False
    sending = Sending(server.client, supply := Live(BODY), "a")
    work = asyncio.create_task(sending.deliver())
    await eventually(lambda: supply.released == len(BODY))
    await supply.add(b"more")
    await eventually(lambda: supply.released == len(BODY) + 4)
    await supply.end()
    await work
    assert server.data == BODY + b"more"
    assert "HEAD" not in server.asked


async def test_an_answer_that_never_comes_is_given_up_though_every_byte_is_durable(server):
    async def mute(request):
        if request.method == "PATCH" and request.headers["Upload-Complete"] == "?0" and not server.data:
            server.data += await request.read()
            await server.announce()
            await asyncio.sleep(3600)

    server.rules.append(mute)
    sending = Sending(server.client, supply := Bytes(BODY), "a")
    assert await asyncio.wait_for(sending.deliver(), 10) == supply.released == len(BODY)
    assert server.data == BODY


async def test_what_is_told_of_another_upload_releases_nothing(server, monkeypatch):
    monkeypatch.setattr(sending_module, "STALL_SECONDS", 10)
    server.told_of = b"b"
    sending = Sending(server.client, supply := Live(BODY), "a")
    work = asyncio.create_task(sending.deliver())
    await eventually(lambda: len(server.data) == len(BODY))
    await server.announce()
    await server.announce()
    await supply.end()
    assert supply.released == 0
    assert await work == len(BODY)


async def test_those_who_listen_leave_connections_to_those_who_send(server):
    listening = []

    async def others(request):
        if request.method == "PATCH":
            return web.Response(status=204, headers={"Upload-Offset": str(len(await request.read()))})
        if request.path.endswith("/events"):
            listening.append(request)
        return None

    server.rules = [others]
    watched = [asyncio.create_task(anext(server.client.events("b"))) for _ in range(110)]
    await eventually(lambda: len(listening) == 110)
    assert await asyncio.wait_for(Sending(server.client, Bytes(BODY), "a").deliver(), 10) == len(BODY)
    for task in watched:
        task.cancel()
    await asyncio.gather(*watched, return_exceptions=True)


@pytest.mark.parametrize(
    "flood", [b"data: %s\n" % (b"x" * 1000) * 2_000, b"data: " + b"[" * 60_000 + b"\n\n"], ids=["long", "deep"]
)
async def test_an_event_that_is_none_ends_no_stream(server, flood):
    async def drown(request):
        if not request.path.endswith("/events"):
            return None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(flood)
        return response

    server.rules = [drown]
    async with asyncio.timeout(5):
        with pytest.raises(ClientError, match="Is this a streamup server"):
            async for _ in server.client.events("a"):
                pass
        sending = Sending(server.client, supply := Live(BODY), "a")
        work = asyncio.create_task(sending.deliver())
        await eventually(lambda: supply.released == len(BODY))
        await supply.end()
        await work


async def test_a_silent_stream_keeps_its_upload_from_expiring(start_service, monkeypatch):
    monkeypatch.setattr(sending_module, "SILENT_SECONDS", 0.2)
    service = await start_service(expire_seconds=1.0)
    async with Client(url(service)) as client:
        sending = Sending(client, supply := Live(BODY[:10]), "a")
        monkeypatch.setattr(sending_module, "IDLE_SECONDS", 0.1)
        work = asyncio.create_task(sending.deliver())
        await eventually(lambda: supply.released == 10)
        expires = []

        async def later():
            found = await client.look(sending.upload_id)
            expires.extend([found["expires"]] if found["expires"] not in (*expires, None) else [])
            return len(expires) > 2

        await eventually(later)
        await supply.add(BODY[10:20])
        await supply.end()
        await work
        await sending.seal()
    assert service.data("a") == BODY[:20]


async def test_a_stream_waits_for_another_credential_and_a_file_does_not(server):
    def denied(request):
        return request.headers.get("Authorization") not in (None, f"Bearer {good[0]}")

    async def refuse(request):
        return problem(401) if denied(request) else None

    good, mine, told = ["one"], ["one"], []
    server.rules = [refuse]
    async with Client(f"http://127.0.0.1:{server.port}", lambda: mine[0]) as client:
        sending = Sending(client, supply := Live(BODY[:10]), "a", tell=told.append)
        work = asyncio.create_task(sending.deliver())
        await eventually(lambda: supply.released == 10)
        good[0] = "two"
        await supply.add(BODY[10:])
        await eventually(lambda: any("read again each time" in progress.reason for progress in told))
        mine[0] = "two"
        await supply.end()
        assert await work == len(BODY)
        good[0] = "three"
        sealing = asyncio.create_task(sending.seal())
        await eventually(lambda: sending.progress.state == "waiting")
        mine[0] = "three"
        await sealing
        assert server.object == BODY
        good[0] = "four"
        with pytest.raises(ClientError) as refused:
            await Sending(client, Live(BODY), "a").deliver()  # it was never good
        assert refused.value.status == 401
        server.data.clear()
        server.rules = [times(1, "PATCH", lambda: problem(401))]
        with pytest.raises(ClientError) as refused:
            await Sending(client, Bytes(BODY, len(BODY)), "a").deliver()
        assert refused.value.status == 401


async def test_an_append_without_a_byte_is_ended(server, monkeypatch):
    monkeypatch.setattr(sending_module, "IDLE_SECONDS", 0.1)
    sending = Sending(server.client, supply := Live(BODY[:10]), "a")
    work = asyncio.create_task(sending.deliver())
    await eventually(lambda: supply.released == 10)
    await supply.add(BODY[10:20])
    await supply.end()
    assert await work == 20
    assert (server.asked.count("PATCH"), server.asked.count("HEAD")) == (2, 0)


async def test_a_slow_stream_ends_its_appends_before_a_server_does(server, monkeypatch):
    monkeypatch.setattr(sending_module, "IDLE_SECONDS", 0.1)
    sending = Sending(server.client, supply := Live(), "a")
    work = asyncio.create_task(sending.deliver())
    end = asyncio.get_running_loop().time() + 0.5
    while asyncio.get_running_loop().time() < end:
        await supply.add(b"x")
        await asyncio.sleep(0.01)
    await supply.add(bytes(2 * sending_module.SLOW_BYTES))
    await supply.end()
    assert await work == len(supply.data) == len(server.data)
    assert server.asked.count("PATCH") > 2


async def test_the_service_tells_what_is_durable_while_the_append_lives(service, monkeypatch):
    monkeypatch.setattr(sending_module, "STALL_SECONDS", 10)
    async with Client(url(service)) as client:
        sending = Sending(client, supply := Live(BODY[:100]), "a")
        work = asyncio.create_task(sending.deliver())
        await eventually(lambda: supply.released == 100)
        assert (await client.look(sending.upload_id))["writer"]
        await supply.end()
        assert await work == 100


async def test_a_connection_that_is_dead_is_given_up(service, between):
    network = between(service.address[1])
    network.fate = lambda number: Fate("die", "up", 50_000) if number < 3 else None
    async with Client(network.url) as client:
        sending = Sending(client, Bytes(BODY), "a")
        assert await sending.deliver() == len(BODY)
        await sending.seal()
    assert service.data("a") == BODY


async def test_bytes_that_change_between_two_attempts_never_complete(service):
    class Changing(Bytes):
        async def read(self, position):
            if position == 0:
                self.data = bytes([self.data[0] ^ 1]) + self.data[1:]
            return await super().read(position)

    async with Client(url(service)) as client:
        sending = Sending(client, supply := Changing(BODY), "a")
        sending._account(0, BODY)
        await sending.deliver()
        assert supply.data != BODY
        with pytest.raises(ClientError, match="do not match their digest"):
            await sending.seal()
    assert service.data("a") is None


async def test_a_supply_that_breaks_is_not_the_networks_fault(server):
    class Broken(Bytes):
        async def read(self, position):
            if position:
                raise OSError("the disk")
            return await super().read(position)

    with pytest.raises(OSError, match="the disk"):
        await Sending(server.client, Broken(BODY), "a").deliver()


async def test_an_upload_that_somebody_has_finished_is_left_alone(service):
    async with Client(url(service)) as client:
        sending = Sending(client, Bytes(BODY), "a")
        await sending.deliver()
        await client.append(sending.upload_id, len(BODY), b"", last=True)
        with pytest.raises(ClientError, match="somebody has finished it"):
            await Sending(client, Bytes(BODY + b"more"), "a", upload_id=sending.upload_id).deliver()
        with pytest.raises(ClientError, match="is complete"):
            await client.offset(sending.upload_id)


async def test_the_seal_of_an_upload_that_has_grown_is_refused(server):
    sending = Sending(server.client, Bytes(BODY), "a")
    await sending.deliver()
    server.data += b"x"
    with pytest.raises(ClientError, match="No"):
        await sending.seal()
