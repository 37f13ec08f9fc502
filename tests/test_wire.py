"""Sockets that break: framing cut at every byte, senders that leave, newcomers to half-open writers, stopping.

Nothing received is lost, and nothing short is ever taken for whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
from pathlib import Path

import pytest
from certificates import make_certificate, trusting
from conftest import BODY, PART_BYTES, REST, START
from raw_client import (
    CHUNKED,
    EXPECT,
    LAST_CHUNK,
    PATIENCE_SECONDS,
    Client,
    at,
    chunk,
    eventually,
    head,
    place,
    refused,
)

from streamup import listeners
from streamup.auth import ANONYMOUS
from streamup.errors import ConfigError
from streamup.spool import Files

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("impatient"),
]

LINGER_SECONDS = listeners.LINGER_SECONDS


# -- framing that breaks --------------------------------------------------------------------------------------------

PIECES = (b"The first piece", b", and", b" a second one")
WIRE = b"".join(map(chunk, PIECES)) + LAST_CHUNK


async def test_every_strict_prefix_of_a_chunked_request_is_interrupted_and_resumable(service):
    for size in range(len(WIRE)):
        key = f"prefix-{size}"
        client = await service.connect()
        await client.send(head("PUT", f"/objects/{key}", CHUNKED) + WIRE[:size])
        client.close()
        await service.becomes(key, writer=False, offset=len(payload(size)))
        kept = (await service.ask("HEAD", f"/objects/{key}")).offset
        assert kept == len(payload(size))
        assert key not in service.store.objects
        answer = await service.ask("PUT", f"/objects/{key}", b"".join(PIECES)[kept:], place(kept))
        assert answer.status == 201, size
        assert service.data(key) == b"".join(PIECES)


def payload(size: int) -> bytes:
    """The body's bytes within the first `size` bytes on the wire."""
    found, position = b"", 0
    for piece in PIECES:
        start = position + len(chunk(piece)) - len(piece) - 2
        found += piece[: max(0, size - start)]
        position += len(chunk(piece))
    return found


async def test_a_request_that_breaks_off_before_its_body_leaves_nothing(service):
    request = head("PUT", "/objects/a", CHUNKED)
    for size in range(0, len(request), 7):
        client = await service.connect()
        await client.send(request[:size])
        client.close()
    assert (await service.ask("GET", "/uploads")).json["uploads"] == []


@pytest.mark.parametrize("end", ["close", "reset", "half_close"])
async def test_a_body_shorter_than_its_content_length_is_interrupted(service, end):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", {"Content-Length": str(len(BODY))}) + START)
    await service.becomes("a", received=len(START))
    getattr(client, end)()
    await service.becomes("a", writer=False, offset=len(START), state="open")
    assert (await service.ask("PUT", "/objects/a", REST, place(len(START), len(BODY), len(BODY) - 1))).status == 201
    assert service.data("a") == BODY


async def test_a_reset_is_interrupted(service):
    client, upload_id = await service.begin()
    client.reset()
    await service.becomes("a", writer=False, offset=len(START))
    assert (await service.ask("PATCH", f"/uploads/{upload_id}", REST, at(len(START), complete=True))).status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("garbage", [b"ZZ\r\n", b"-5\r\n", b"fffffffffffffffff\r\n", b"3\r\nabcdef", b"\x00" * 10])
async def test_a_malformed_chunk_is_interrupted_and_what_came_before_is_kept(start_service, garbage):
    service = await start_service(idle_seconds=0.3)
    client, _ = await service.begin()
    await client.send(garbage + LAST_CHUNK)
    found = await service.becomes("a", writer=False)
    assert found["state"] == "open"
    assert found["offset"] in {len(START), len(START) + 3}
    assert not service.store.objects
    answer = await client.ended()
    assert b" 201 " not in answer


async def test_a_malformed_chunk_in_the_first_packet_completes_nothing(start_service):
    service = await start_service(idle_seconds=0.3)
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + b"ZZ\r\n" + LAST_CHUNK)
    assert b" 201 " not in await client.ended()
    assert not service.store.objects


@pytest.mark.parametrize(
    "headers",
    [
        {"Transfer-Encoding": "chunked", "Content-Length": "4"},
        {"Content-Length": "-1"},
        {"Content-Length": "+4"},
        {"Content-Length": "4, 5"},
        {"Transfer-Encoding": "xchunked"},
        {"Transfer-Encoding": "identity"},
    ],
)
async def test_framing_that_can_be_read_in_two_ways_is_refused(service, headers):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", headers) + chunk(b"body") + LAST_CHUNK)
    assert (await client.answer()).status in {400, 411, 501}
    await client.ended()
    assert not service.store.objects


@pytest.mark.parametrize("hosts", [b"", b"Host: 127.0.0.1\r\nHost: evil.example\r\n"], ids=["none", "two"])
async def test_a_request_has_one_host(service, hosts):
    client = await service.connect()
    await client.send(b"PUT /objects/a HTTP/1.1\r\n" + hosts + b"Content-Length: 4\r\n\r\nbody")
    assert (await client.answer()).status == 400
    assert not service.store.objects


async def test_an_upgrade_that_nobody_speaks_does_not_swallow_the_body(service):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert (await service.ask("PUT", "/objects/a", chunks=[BODY], headers=headers)).status == 201
    assert (await service.ask("PUT", "/objects/b", BODY, headers)).status == 201
    assert service.data("a") == service.data("b") == BODY


async def test_an_idle_client_is_interrupted(start_service):
    service = await start_service(idle_seconds=0.3)
    client, _ = await service.begin()
    answer = refused(await client.answer(), 409, expected_offset=len(START))
    assert answer.headers["connection"] == "close"
    assert "No byte came for 0.3 s" in answer.detail
    await client.ended(seconds=4)


async def test_tiny_chunks(service):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED))
    for position in range(0, 2000, 50):
        await client.send(b"".join(chunk(BODY[i : i + 1]) for i in range(position, position + 50)))
    await client.send(LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY[:2000]


async def test_chunk_extensions_and_trailers_are_no_content(service):
    client = await service.connect()
    wire = b'4;name="a b"\r\nbody\r\n0\r\nX-Trailer: ignored\r\n\r\n'
    await client.send(head("PUT", "/objects/a", CHUNKED | {"Trailer": "X-Trailer"}) + wire)
    assert (await client.answer()).status == 201
    assert service.data("a") == b"body"


async def test_http_1_0(service):
    client = await service.connect()
    answer = await client.ask("PUT", "/objects/a", BODY, {"Host": "127.0.0.1"}, version="1.0")
    assert answer.status == 201
    await client.ended()
    assert service.data("a") == BODY
    client = await service.connect()
    await client.send(b"PUT /objects/b HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody")
    assert (await client.answer()).status == 201
    client = await service.connect()
    await client.send(b"PUT /objects/c HTTP/1.0\r\n\r\n")
    assert (await client.answer()).status == 411


# -- senders that leave ---------------------------------------------------------------------------------------------


class SlowFiles(Files):
    """A spool disk that takes little at a time."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:3000])


@pytest.mark.parametrize("end", ["close", "half_close"])
async def test_a_sender_that_leaves_after_the_last_chunk_loses_nothing(start_service, end):
    service = await start_service(files=SlowFiles())
    data = BODY * 12
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | {"Connection": "close"}))
    for position in range(0, len(data), 16_000):
        await client.send(chunk(data[position : position + 16_000]))
    await client.send(LAST_CHUNK)
    getattr(client, end)()
    await service.becomes("a", state="complete")
    assert service.data("a") == data


async def test_a_sender_that_leaves_while_the_spool_is_full_loses_nothing(start_service):
    service = await start_service(spool_bytes=8 * PART_BYTES)
    gate = service.store.hold("put_part")
    data = BODY * 4
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(data) + LAST_CHUNK)
    client.close()
    await service.becomes("a", received=7 * PART_BYTES)
    await gate.reached(4)
    gate.release()
    await service.becomes("a", state="complete")
    assert service.data("a") == data


async def test_a_body_of_known_length_needs_no_answer_to_complete(service):
    client = await service.connect()
    await client.start("PUT", "/objects/a", BODY)
    client.close()
    await service.becomes("a", state="complete")
    assert service.data("a") == BODY


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


# Not on uvloop: it throws decrypted bytes away when a peer leaves while reading is paused (sslproto's _do_flush).
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_tls_and_its_sender_that_leaves_after_the_last_chunk(start_service, certificate):
    service = await start_service(tls_cert=certificate[0], tls_key=certificate[1], files=SlowFiles())
    data = BODY * 15

    def send() -> None:
        """As ffmpeg: blocking, without a goodbye, and without reading anything."""
        with socket.create_connection(service.address) as plain:
            tls = trusting(certificate).wrap_socket(plain, server_hostname="127.0.0.1")
            tls.sendall(head("PUT", "/objects/a", CHUNKED))
            for position in range(0, len(data), 16_000):
                tls.sendall(chunk(data[position : position + 16_000]))
            tls.sendall(LAST_CHUNK)
            tls.close()

    await asyncio.to_thread(send)
    await eventually(lambda: service.data("a") is not None)
    assert service.data("a") == data


async def test_a_handshake_takes_a_place_from_its_beginning(start_service, monkeypatch, certificate):
    monkeypatch.setattr(listeners, "MARGIN", 0)
    service = await start_service(max_connections=2, tls_cert=certificate[0], tls_key=certificate[1], head_seconds=0.5)
    silent = [await service.connect(), await service.connect()]
    await eventually(lambda: service.server.public.connections == 2)
    with pytest.raises(OSError):  # noqa: PT011 - an SSLError, a reset or an end
        await service.connect(tls=trusting(certificate))
    for client in silent:
        await client.ended(seconds=2)
    await eventually(lambda: service.server.public.connections == 0)
    client = await service.connect(tls=trusting(certificate))
    assert (await client.ask("PUT", "/objects/a", b"body")).status == 201


async def test_tls_sends_no_session_tickets(start_service, certificate):
    service = await start_service(tls_cert=certificate[0], tls_key=certificate[1])
    client = await service.connect(tls=trusting(certificate))
    assert (await client.ask("PUT", "/objects/a", BODY)).status == 201
    session = client.writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket
    assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.3"


async def test_a_certificate_that_is_none_is_refused_at_start(start_service, tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="tls-cert"):
        await start_service(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "cert.pem")


# -- connections that are used again --------------------------------------------------------------------------------


async def test_requests_one_after_another_on_one_connection(service):
    client = await service.connect()
    for number in range(3):
        assert (await client.ask("PUT", f"/objects/{number}", chunks=[BODY])).status == 201
        assert (await client.ask("HEAD", f"/objects/{number}")).status == 200
    assert (await client.ask("DELETE", "/objects/0", chunks=[])).status == 404
    assert (await client.ask("GET", "/uploads")).status == 200


async def test_pipelined_requests_are_kept_apart(service):
    client = await service.connect()
    wire = b"".join(
        head("PUT", f"/objects/{number}", CHUNKED) + chunk(BODY[: 1000 + number]) + LAST_CHUNK for number in range(5)
    )
    await client.send(wire)
    for number in range(5):
        answer = await client.answer()
        assert (answer.status, answer.json["key"]) == (201, str(number))
    assert [len(service.data(str(number))) for number in range(5)] == [1000, 1001, 1002, 1003, 1004]


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_what_follows_a_refused_body_is_never_taken_for_a_request(service, framing):
    await service.leave()
    smuggled = head("PUT", "/objects/smuggled", {"Content-Length": "4"}) + b"evil"
    headers = CHUNKED if framing == "chunked" else {"Content-Length": str(2 * len(smuggled))}
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", headers) + (b"" if framing == "chunked" else smuggled))
    answer = refused(await client.answer(), 409)
    assert answer.headers["connection"] == "close"
    with contextlib.suppress(ConnectionError):
        await client.send(smuggled * 2)
    assert await client.ended() == b""
    assert "smuggled" not in service.store.objects


async def test_a_refusal_that_leaves_a_whole_body_unread_closes_too(service):
    await service.leave()
    client = await service.connect()
    answer = refused(await client.ask("PUT", "/objects/a", b"body"), 409)
    assert answer.headers["connection"] == "close"
    assert await client.ended() == b""


async def test_a_live_stream_that_is_refused_is_cut_soon(start_service, monkeypatch):
    monkeypatch.setattr(listeners, "LINGER_SECONDS", LINGER_SECONDS)
    service = await start_service()
    await service.leave()
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(b"x"))
    refused(await client.answer(), 409)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ConnectionError):
        await stream(client)
    assert loop.time() - began < 2.5


async def stream(client: Client) -> None:
    """Send and send, as ffmpeg does, which reads no answer."""
    for _ in range(1000):
        await client.send(chunk(b"x" * 1000))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", [b"", b"PUT /objects/a HTTP/1.1\r\nHost: 127", b"\r\n"])
async def test_a_connection_that_never_completes_a_head_is_closed(start_service, sent):
    service = await start_service(head_seconds=0.3)
    client = await service.connect()
    if sent:
        await client.send(sent)
    await client.ended(seconds=2)


async def test_an_idle_connection_is_closed_and_a_slow_stream_is_not(start_service):
    service = await start_service(head_seconds=0.3)
    client, _ = await service.begin()
    idle = await service.connect()
    assert (await idle.ask("GET", "/uploads")).status == 200
    await idle.ended(seconds=2)
    await asyncio.sleep(0.3)
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201


# -- newcomers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newcomer", ["HEAD", "PATCH", "PUT"])
async def test_a_newcomer_to_a_half_open_writer_is_served_within_a_second(service, newcomer):
    client, upload_id = await service.begin()
    async with asyncio.timeout(1):
        if newcomer == "HEAD":
            assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == len(START)
        elif newcomer == "PATCH":
            answer = await service.ask("PATCH", f"/uploads/{upload_id}", REST, at(len(START), complete=True))
            assert answer.status == 201
        else:
            assert (await service.ask("PUT", "/objects/a", REST, place(len(START)))).status == 201
    refused(await client.answer(), 409)
    await client.ended(seconds=4)
    if newcomer != "HEAD":
        assert service.data("a") == BODY


async def test_a_newcomer_that_waits_for_100_takes_over_too(service):
    client, _ = await service.begin()
    newcomer = await service.connect()
    await newcomer.send(head("PUT", "/objects/a", CHUNKED | EXPECT | place(len(START))))
    assert await newcomer.interim(seconds=1) == 100
    refused(await client.answer(), 409)
    await newcomer.send(chunk(REST) + LAST_CHUNK)
    assert (await newcomer.answer()).status == 201
    assert service.data("a") == BODY


async def test_bytes_of_a_stopped_writer_never_come_after_the_offset_that_was_told(service):
    client, upload_id = await service.begin()
    sending = asyncio.create_task(send_until_cut(client))
    told = (await service.ask("HEAD", f"/uploads/{upload_id}")).offset
    await sending
    assert told >= len(START)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == told
    answer = await service.ask("PATCH", f"/uploads/{upload_id}", b"the end", at(told, complete=True))
    assert answer.status == 201
    assert service.data("a") == START + b"y" * (told - len(START)) + b"the end"


async def send_until_cut(client: Client) -> None:
    with contextlib.suppress(ConnectionError):
        for _ in range(100_000):
            await client.send(chunk(b"y" * 1000))
            await asyncio.sleep(0)


async def test_a_stopped_writer_with_its_last_chunk_in_the_buffer_does_not_seal(start_service):
    service = await start_service(spool_bytes=8 * PART_BYTES)
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(BODY * 3) + LAST_CHUNK)
    found = await service.becomes("a", received=7 * PART_BYTES)
    answer = await service.ask("HEAD", f"/uploads/{found['id']}")
    assert (answer.status, answer.offset) == (204, 7 * PART_BYTES)
    gate.release()
    refused(await client.answer(), 409, expected_offset=7 * PART_BYTES)
    assert not service.store.objects
    headers = at(7 * PART_BYTES, complete=True)
    assert (await service.ask("PATCH", f"/uploads/{found['id']}", b"the end", headers)).status == 201
    assert service.data("a") == (BODY * 3)[: 7 * PART_BYTES] + b"the end"


async def test_a_writer_that_is_stopped_while_it_writes_its_last_chunk_does_not_seal(start_service):
    class Stopping(Files):
        """Its third write is the moment in which a newcomer comes."""

        writes = 0

        def write(self, fd: int, data: memoryview) -> int:
            self.writes += 1
            if self.writes == 3:
                service.uploads.open_upload("a", ANONYMOUS).writer.stop("a newcomer")
            return super().write(fd, data)

    service = await start_service(files=Stopping())
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(BODY) + LAST_CHUNK)
    answer = refused(await client.answer(), 409)
    assert not service.store.objects
    rest = BODY[answer.offset :]
    assert (await service.ask("PUT", "/objects/a", rest, place(answer.offset))).status == 201
    assert service.data("a") == BODY


async def test_many_newcomers_at_once_leave_one_upload_that_is_whole(service):
    await service.leave(data=START)

    async def go_on() -> int:
        """A client that resumes until it is done, whoever else does the same."""
        for _ in range(100):
            answer = await service.ask("PUT", "/objects/a", None, {"Content-Range": f"bytes */{len(BODY)}"})
            if answer.status == 200:
                return 200
            offset = answer.offset
            answer = await service.ask("PUT", "/objects/a", BODY[offset:], place(offset, len(BODY), len(BODY) - 1))
            if answer.status == 201:
                return 201
            assert answer.status in {409, 423}, answer
        raise AssertionError("it never ended")

    ends = await asyncio.gather(*(go_on() for _ in range(8)))
    assert 201 in ends
    assert service.data("a") == BODY


# -- stopping -------------------------------------------------------------------------------------------------------


async def test_stopping_keeps_the_bytes_of_every_writer(start_service):
    service = await start_service()
    clients = [(await service.begin(key))[0] for key in "abc"]
    await service.stop()
    for client in clients:
        answer = refused(await client.answer(), 409, expected_offset=len(START))
        assert answer.headers["connection"] == "close"
    with pytest.raises(OSError, match=r"(?i)connect"):
        await service.connect()
    service = await start_service(store=service.store)
    for key in "abc":
        assert (await service.ask("PUT", f"/objects/{key}", REST, place(len(START)))).status == 201
        assert service.data(key) == BODY


async def test_stopping_completes_what_is_sealed_within_the_grace(start_service):
    service = await start_service(grace_seconds=PATIENCE_SECONDS)
    gate = service.store.hold("complete_multipart")
    client = await service.connect()
    await client.start("PUT", "/objects/a", BODY)
    await gate.reached()
    stopping = asyncio.create_task(service.stop())
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    gate.release()
    assert (await client.answer()).status == 201
    await stopping
    assert service.data("a") == BODY


async def test_stopping_does_not_wait_longer_than_the_grace(start_service):
    service = await start_service(grace_seconds=0.2)
    gate = service.store.hold("complete_multipart")
    client = await service.connect()
    await client.start("PUT", "/objects/a", BODY)
    await gate.reached()
    async with asyncio.timeout(4):
        await service.stop()
    assert not service.store.objects
    gate.release()
    service = await start_service(store=service.store)
    await eventually(lambda: service.data("a") == BODY)


async def test_stopping_refuses_newcomers_on_connections_that_are_open(start_service):
    service = await start_service(grace_seconds=PATIENCE_SECONDS)
    gate = service.store.hold("put_object")
    client, other = await service.connect(), await service.connect()
    assert (await other.ask("GET", "/uploads")).status == 200
    await client.start("PUT", "/objects/a", b"body")
    await gate.reached()
    stopping = asyncio.create_task(service.stop())
    await asyncio.wait([stopping], timeout=0.1)
    refused(await other.ask("PUT", "/objects/b", b"body"), 423)
    gate.release()
    assert (await client.answer()).status == 201
    await stopping


# -- real numbers ---------------------------------------------------------------------------------------------------


async def test_many_uploads_at_once(service):
    async def upload(number: int) -> None:
        data = random.Random(number).randbytes(50_000 + 10_000 * number)
        answer = await service.ask(
            "PUT", f"/objects/{number}", chunks=[data[i : i + 7000] for i in range(0, len(data), 7000)]
        )
        assert answer.status == 201
        assert hashlib.sha256(service.data(str(number))).digest() == hashlib.sha256(data).digest()

    await asyncio.gather(*(upload(number) for number in range(20)))
    assert not service.spooled()
    assert service.store.peak["put_part"] <= service.config.parallel_parts


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this machine's system has no TCP_USER_TIMEOUT")
async def test_who_reads_no_answer_does_not_hold_a_place_for_ever(start_service):
    service = await start_service(idle_seconds=0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(service.address)
        client.settimeout(0)
        await asyncio.get_running_loop().sock_sendall(client, head("GET", "/openapi.json") * 400)
        await eventually(lambda: service.server.public.connections == 1)
        await eventually(lambda: service.server.public.connections == 0)
