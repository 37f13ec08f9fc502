"""listeners.py: what every connection is held to before there is a request."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys

import pytest
from conftest import REST, START
from raw_client import CHUNKED, EXPECT, LAST_CHUNK, TUS, chunk, eventually, head, refused

from streamup import listeners
from streamup.errors import ConfigError

pytestmark = pytest.mark.usefixtures("impatient")

SECRET = "sesame-that-opens"

both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


def test_the_pure_python_parser_is_refused():
    asked = "from streamup.listeners import require_c_parser; require_c_parser()"
    environ = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    ended = subprocess.run([sys.executable, "-c", asked], env=environ, capture_output=True, text=True, check=False)
    assert "ConfigError: aiohttp runs without its C parser. Unset AIOHTTP_NO_EXTENSIONS" in ended.stderr


async def test_no_server_starts_on_it(start_service, monkeypatch):
    monkeypatch.setattr(listeners.http_parser, "HttpRequestParser", listeners.http_parser.HttpRequestParserPy)
    with pytest.raises(ConfigError, match="C parser"):
        await start_service()


@both_loops
async def test_who_finds_no_place_is_told_so_in_its_own_words_and_comes_in_when_somebody_has_left(start_service):
    service = await start_service(max_connections=2)
    writer = await service.connect()
    await writer.send(head("PUT", "/objects/live", CHUNKED) + chunk(START))
    silent = await service.connect()
    await eventually(lambda: service.server.public.connections == 2)
    refused(await service.ask("PUT", "/objects/a", b"body"), 507, limit=2)
    in_place_of_100 = refused(await service.ask("PUT", "/objects/a", None, CHUNKED | EXPECT), 503)
    assert (in_place_of_100.interim, "retry-after" in in_place_of_100.headers) == ((), True)
    refused(await service.ask("POST", "/uploads", b"", TUS | {"Upload-Length": "3"}), 503)
    assert (await service.ask("HEAD", "/uploads/x", headers=TUS)).status == 423
    client = await service.connect()
    refused(await client.ask("GET", "/uploads"), 503)
    assert await client.ended(seconds=1) == b"", "its place is for the next one"
    await writer.send(chunk(REST) + LAST_CHUNK)  # nobody who is inside is disturbed
    writer.methods.append("PUT")
    assert (await writer.answer()).status == 201
    silent.close()
    await eventually(lambda: service.server.public.connections < 2)
    assert (await service.ask("PUT", "/objects/a", b"body")).status == 201


@both_loops
async def test_beyond_the_margin_connections_are_closed_and_the_admin_listener_has_places_of_its_own(
    start_service, monkeypatch
):
    monkeypatch.setattr(listeners, "MARGIN", 1)
    service = await start_service(max_connections=1)
    inside = [await service.connect() for _ in range(2)]
    await eventually(lambda: service.server.public.connections == 2)
    for _ in range(3):
        assert await (await service.connect()).ended(seconds=1) == b""
    assert service.server.public.closed_at_once == 3
    assert (await service.ask_admin("/readyz")).status == 200
    refused(await inside[1].ask("PUT", "/objects/a", b"body"), 507)
    assert (await inside[0].ask("PUT", "/objects/a", b"body")).status == 201


@both_loops
async def test_small_packets_are_not_held_back(service):
    client = await service.connect()
    assert (await client.ask("GET", "/uploads")).status == 200
    (handler,) = service.server.public._server.connections
    connection = handler.transport.get_extra_info("socket")
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_when_the_system_has_no_descriptor_left_accepting_pauses_and_goes_on(start_service, monkeypatch, caplog):
    monkeypatch.setattr(listeners, "ACCEPT_AGAIN_SECONDS", 0.1)
    service = await start_service()
    accept, left = socket.socket.accept, [OSError(errno.EMFILE, "Too many open files")]

    def exhausted(listening: socket.socket):
        if left:
            raise left.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    assert (await service.ask("GET", "/uploads")).status == 200
    assert (left, caplog.text.count("Too many open files")) == ([], 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Long": "x" * (listeners.MAX_FIELD_BYTES + 1)},
        {f"X-{n}": "x" for n in range(listeners.MAX_FIELDS)},
        {"X" * (listeners.MAX_FIELD_BYTES + 1): "x"},
    ],
    ids=["value", "number", "name"],
)
async def test_a_head_has_a_size(service, fields):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | fields))
    client.methods.append("PUT")
    refused(await client.answer(), 400)
    assert await client.ended(seconds=1) == b""


async def test_a_request_line_has_a_size_and_every_key_fits(service):
    key = "/".join(["%C3%A9" * 84] * 6)
    assert (await service.ask("PUT", f"/objects/{key}", b"body")).status == 201
    client = await service.connect()
    refused(await client.ask("PUT", "/objects/" + "a" * listeners.MAX_LINE_BYTES, b"body"), 400)


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (f"/objects/a?token={SECRET * 1000}", {}),
        ("/objects/a", {"Authorization": f"Bearer {SECRET * 1000}"}),
        ("/objects/a", {"Authorization": f"Bearer {SECRET}\0"}),
    ],
    ids=["line", "field", "byte"],
)
async def test_what_is_no_request_goes_neither_back_nor_into_the_log(service, target, fields, caplog):
    caplog.set_level(logging.DEBUG)
    client = await service.connect()
    await client.send(head("GET", target, fields))
    answer = refused(await client.answer(), 400)
    assert SECRET not in answer.body.decode()
    assert SECRET not in caplog.text
    assert answer.headers["server"] == "streamup"
