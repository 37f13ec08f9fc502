"""Server-sent events on raw sockets: uploads as they change, for who watches."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Self

import pytest
from conftest import BODY, PART_BYTES, START, Service, strict_store
from documented import validator
from raw_client import (
    LAST_CHUNK,
    PARTIAL,
    PATIENCE_SECONDS,
    TUS,
    Answer,
    Client,
    at,
    chunk,
    eventually,
    head,
    refused,
)
from test_authority import SECRET, token
from test_laws import FailingDisk
from test_limits import ONE, OTHER, TWO_SUBJECTS

from streamup import board, events, listeners, registry, uploads
from streamup.auth import ANONYMOUS
from streamup.errors import CheckpointError, TooManyStreams
from streamup.limits import Streams

pytestmark = pytest.mark.usefixtures("impatient")

SCHEMAS = {
    name: validator(json.dumps({"$ref": f"#/components/schemas/{schema}"}))
    for name, schema in {"upload": "Upload", "server": "Server"}.items()
}


@pytest.fixture
def eager(monkeypatch):
    """What is told once a second is told twenty times a second. To be asked for before `service`."""
    monkeypatch.setattr(events, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(board, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(registry, "ANNOUNCE_SECONDS", 0.05)


@dataclass
class Stream:
    """One who watches. Each event is held to its schema."""

    client: Client
    answer: Answer
    text: bytes = b""

    @classmethod
    async def of(
        cls, service: Service, target: str, headers: dict[str, str] | None = None, version: str = "1.1"
    ) -> Self:
        client = await service.connect()
        await client.start("GET", target, None, headers, version=version)
        answer = await client.answer()
        if answer.status == 200:
            assert answer.headers["content-type"] == "text/event-stream"
        return cls(client, answer)

    async def _more(self) -> bool:
        """One more chunk; False at the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            size = int(await self.client.reader.readline(), 16)
            self.text += (await self.client.reader.readexactly(size + 2))[:-2]
        return size > 0

    async def next(self, seconds: float = PATIENCE_SECONDS) -> tuple[str, dict[str, Any]]:
        """The next event, comments skipped."""
        async with asyncio.timeout(seconds):
            while True:
                while b"\n\n" not in self.text:
                    assert await self._more(), "the stream has ended"
                one, _, self.text = self.text.partition(b"\n\n")
                if not one.startswith(b":"):
                    break
        first, second = one.decode().split("\n")
        name, document = first.removeprefix("event: "), json.loads(second.removeprefix("data: "))
        SCHEMAS[name].validate(document)
        assert "parts" not in document
        return name, document

    async def upload(self, **wanted: Any) -> dict[str, Any]:
        """The next event of an upload that is like this."""
        while True:
            name, document = await self.next()
            if name == "upload" and wanted.items() <= document.items():
                return document

    async def ends(self, seconds: float = PATIENCE_SECONDS) -> None:
        """It ends, cleanly, with nothing more than what was on its way."""
        async with asyncio.timeout(seconds):
            while await self._more():
                pass
            assert await self.client.reader.read() == b""


async def watched(service: Service, upload_id: str, headers: dict[str, str] | None = None) -> Stream:
    return await Stream.of(service, f"/uploads/{upload_id}/events", headers)


# -- one upload -----------------------------------------------------------------------------------------------------


async def test_an_upload_is_told_at_once_then_as_it_changes_then_how_it_ended(service):
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    assert stream.answer.headers["cache-control"] == "no-store"
    assert stream.answer.headers["x-accel-buffering"] == "no"
    first = await stream.upload()
    assert (first["id"], first["received"], first["writer"], first["state"]) == (upload_id, len(START), True, "open")
    await stream.upload(offset=len(START))
    await client.send(chunk(BODY[len(START) :]))
    await stream.upload(received=len(BODY), offset=len(BODY), state="open")
    await client.send(LAST_CHUNK)
    client.methods.append("PUT")
    done = (await client.answer()).json
    last = await stream.upload(state="complete")
    assert (last["object"], last["offset"], last["writer"]) == (done, len(BODY), False)
    await stream.ends()


async def test_an_offset_that_was_told_survives_a_power_cut(service, start_service, tmp_path, eager):  # noqa: ARG001
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    await client.send(chunk(BODY[:20_000]))
    told = (await stream.upload(offset=len(START) + 20_000))["offset"]
    copy = service.killed(tmp_path / "copy")  # on another boot only what was synced counts
    again = await start_service(data=copy, store=strict_store(), boot_id="another boot")
    assert (await again.ask("HEAD", f"/uploads/{upload_id}")).offset >= told
    client.close()


async def test_a_clock_that_is_set_back_holds_no_offset_back(service, eager, monkeypatch):  # noqa: ARG001
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    await stream.upload(offset=len(START))
    monkeypatch.setattr(service.uploads.registry, "_clock", lambda: time.time() - 3600)
    await client.send(chunk(b"more"))
    await stream.upload(offset=len(START) + 4, writer=True)


async def test_who_watches_stops_nobody_and_sees_who_does(service, eager):  # noqa: ARG001
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    await stream.upload(offset=len(START))
    assert (await service.document("a"))["writer"], "nobody was stopped"
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == len(START)
    refused(await client.answer(), 409)
    await stream.upload(writer=False)
    rest = BODY[len(START) :]
    answer = await service.ask(
        "PATCH", f"/uploads/{upload_id}", rest, at(len(START), complete=True) | {"Content-Type": PARTIAL}
    )
    assert answer.status == 201
    await stream.upload(state="complete")
    assert service.data("a") == BODY
    await stream.ends()


async def test_an_upload_that_has_ended_is_told_once(service):
    for key, headers, state in [("a", {}, "complete"), ("b", {"Upload-Complete": "?0"}, "cancelled")]:
        answer = await service.ask("PUT", f"/objects/{key}", BODY, headers)
        upload_id = (await service.document(key))["id"]
        if state == "cancelled":
            assert answer.status == 201
            assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204
        stream = await watched(service, upload_id)
        assert (await stream.upload())["state"] == state
        await stream.ends()


async def test_every_end_is_told(start_service, eager, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(registry, "UPKEEP_SECONDS", 0.05)
    service = await start_service(expire_seconds=1.0, files=(disk := FailingDisk()))
    streams = {"expired": await watched(service, await service.leave("expired"))}
    client, upload_id = await service.begin("cancelled")
    streams["cancelled"] = await watched(service, upload_id)
    assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204
    client, upload_id = await service.begin("failed")
    streams["failed"] = await watched(service, upload_id)
    await streams["failed"].upload(offset=len(START))
    disk.failing = True
    await client.send(chunk(b"more"))
    for state, stream in streams.items():
        last = await stream.upload(state=state)
        assert last["ended"]
        await stream.ends()
    assert "spool" in last["reason"]


async def test_what_is_sealed_and_what_completes_is_told_with_a_durable_offset(service, eager):  # noqa: ARG001
    gate = service.store.hold("complete_multipart")
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    await client.send(chunk(BODY[len(START) :]) + LAST_CHUNK)
    await gate.reached(1)
    told = await stream.upload(state="completing", offset=len(BODY), stored=len(BODY))
    assert (told["length"], told["object"]) == (len(BODY), None)
    gate.release()
    assert (await stream.upload(state="complete"))["object"]["size"] == len(BODY)
    await stream.ends()
    client.close()


async def test_what_comes_with_a_digest_is_told_when_it_counts(service, eager):  # noqa: ARG001
    upload_id = await service.leave()
    stream = await watched(service, upload_id)
    await stream.upload(received=len(START), writer=False)
    data = b"x" * 1000
    terms = at(len(START), complete=False) | {"Content-Type": PARTIAL, "Content-Length": "1000"}
    terms["Content-Digest"] = f"sha-256=:{base64.b64encode(sha256(data).digest()).decode()}:"
    client = await service.connect()
    await client.send(head("PATCH", f"/uploads/{upload_id}", terms) + data[:500])
    assert (await stream.upload(writer=True))["received"] == len(START)
    await client.send(data[500:])
    assert (await stream.upload(offset=len(START) + 1000, writer=False))["received"] == len(START) + 1000
    client.close()


async def test_an_upload_that_is_read_again_is_told_when_it_is_true(service, eager, monkeypatch, caplog):  # noqa: ARG001
    """The commit of its own announcement fails, twice; meanwhile nothing is told from memory (law 4)."""
    committed, failed = service.checkpoint.announce, 0

    async def failing(*given: object) -> None:
        nonlocal failed
        failed += 1
        if failed < 3:
            raise CheckpointError("the disk is full")
        await committed(*given)

    client, upload_id = await service.begin()
    monkeypatch.setattr(service.checkpoint, "announce", failing)
    stream = await watched(service, upload_id)
    assert (await stream.upload())["offset"] == 0
    refused(await client.answer(), 507)
    await stream.upload(offset=len(START), writer=False)
    assert failed == 3
    refused(await service.ask("PUT", "/objects/a", b"x"), 409, expected_offset=len(START))
    caplog.clear()


async def test_an_upload_that_is_forgotten_ends_its_stream(service, eager, monkeypatch):  # noqa: ARG001
    client, upload_id = await service.begin()
    stream = await watched(service, upload_id)
    await stream.upload(offset=len(START))
    monkeypatch.setattr(service.checkpoint, "find", lost)
    assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204
    await stream.ends()
    client.close()


async def lost(_upload_id: str) -> None:
    """As of an upload that nobody knows."""


# -- all uploads ----------------------------------------------------------------------------------------------------


async def test_all_uploads_are_told_after_the_server_and_then_those_that_change(service, eager):  # noqa: ARG001
    await service.ask("PUT", "/objects/done", BODY)
    await service.leave("left")
    client, _ = await service.begin("live")
    for key in ("left", "live"):
        await service.becomes(key, stored=PART_BYTES)
    stream = await Stream.of(service, "/uploads/events")
    name, document = await stream.next()
    used = service.spool.budget.reserved
    size = service.spool.budget.size
    assert (name, document) == (
        "server",
        {"spool_used": used, "spool_size": size, "store_available": True, "downloads": False, "left_out": 0},
    )
    told = [await stream.upload() for _ in range(3)]
    assert [one["key"] for one in told] == ["left", "live", "done"]
    await client.send(chunk(b"more"))
    changed = await stream.upload(received=len(START) + 4)
    assert changed["offset"] == 0, "nothing is synced for a list"
    await service.ask("PUT", "/objects/short", b"begins and ends between two looks")
    await stream.upload(key="short", state="complete")
    assert (await service.ask("DELETE", f"/uploads/{changed['id']}")).status == 204
    await stream.upload(key="live", state="cancelled")
    service.uploader.available = False
    while (await stream.next())[1].get("store_available", True):
        pass


async def test_whether_there_are_downloads_is_told(start_service):
    service = await start_service(downloads=True)
    stream = await Stream.of(service, "/uploads/events")
    assert (await stream.next())[1]["downloads"] is True


async def test_a_list_is_bounded_and_says_what_it_begins_without(service, eager, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(uploads, "MOST_LISTED", 2)
    ids = [await service.leave(key, b"x") for key in "abc"]
    stream = await Stream.of(service, "/uploads/events")
    assert (await stream.next())[1]["left_out"] == 1
    assert [(await stream.upload())["key"] for _ in "bc"] == ["b", "c"]
    await service.ask("PATCH", f"/uploads/{ids[0]}", b"y", at(1, complete=False) | {"Content-Type": PARTIAL})
    await stream.upload(key="a", received=2)


async def test_nobody_is_told_of_somebody_elses_uploads(start_service, eager):  # noqa: ARG001
    service = await start_service(jwt_secret=SECRET)
    ann, bob = token(), token(sub="bob")
    await service.ask("PUT", "/objects/own/a", b"x", ann | {"Upload-Complete": "?0"})
    upload_id = (await service.ask("GET", "/uploads", headers=ann)).json["uploads"][0]["id"]
    refused(await service.ask("GET", f"/uploads/{upload_id}/events", headers=bob), 404)
    refused(await service.ask("GET", f"/uploads/{upload_id}/events", headers=token(prefix="elsewhere")), 404)
    others = [await Stream.of(service, "/uploads/events", who) for who in (bob, token(prefix="elsewhere"))]
    for name in ("own/b", "elsewhere/c"):
        await service.ask("PUT", f"/objects/{name}", b"x", ann)
    await service.ask("PUT", "/objects/elsewhere/d", b"x", bob)
    assert (await others[0].upload())["key"] == "elsewhere/d"
    assert (await others[1].upload())["key"] == "elsewhere/c"


# -- how long -------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_server_ends_all_streams_and_waits_for_none(start_service):
    service = await start_service(grace_seconds=5.0)
    client, upload_id = await service.begin()
    one, every = await watched(service, upload_id), await Stream.of(service, "/uploads/events")
    await one.upload(offset=len(START))
    await every.upload()
    began = time.monotonic()
    await service.stop()
    assert time.monotonic() - began < 3
    for stream in (one, every):
        await stream.ends()
    client.close()


async def test_a_token_that_expires_ends_its_stream(start_service):
    service = await start_service(jwt_secret=SECRET)
    stream = await Stream.of(service, "/uploads/events", token(exp=time.time() + 1.0))
    assert (await stream.next())[0] == "server"
    await stream.ends()


async def test_a_key_that_is_revoked_ends_its_stream(start_service, eager):  # noqa: ARG001
    service = await start_service(api_key_sha256=TWO_SUBJECTS)
    streams = [await Stream.of(service, "/uploads/events", who) for who in (ONE, OTHER)]
    service.server.renew(replace(service.config, api_key_sha256=TWO_SUBJECTS[1:]))
    await streams[0].ends()
    await service.ask("PUT", "/objects/a", b"x", OTHER)
    await streams[1].upload(key="a")


async def test_silence_is_broken_by_a_comment(service, eager, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.1)
    stream = await watched(service, await service.leave())
    await stream.upload()
    for _ in range(3):
        stream.text = b""
        await stream._more()
        assert stream.text == b":\n\n"


async def test_a_client_that_goes_frees_its_place(service, eager):  # noqa: ARG001
    await service.leave()
    for leave in (Client.close, Client.reset):
        stream = await Stream.of(service, "/uploads/events")
        await stream.next()
        assert "<Streams 1/" in repr(service.server._events._streams)
        leave(stream.client)
        await eventually(lambda: "<Streams 0/" in repr(service.server._events._streams))
        assert "0 uploads" in repr(service.server._events._board)


# -- what it may take -----------------------------------------------------------------------------------------------


async def deaf(service: Service) -> socket.socket:
    """Somebody who asks for events and reads nothing, with more to tell than its socket takes."""
    long = "x" * 900
    await asyncio.gather(*(service.ask("PUT", f"/objects/{number}{long}", b"body") for number in range(50)))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.to_thread(connection.connect, service.address)
    connection.send(head("GET", "/uploads/events"))
    await eventually(lambda: stuck(service))
    return connection


def stuck(service: Service) -> int:
    """Bytes that wait in this process for the sockets of who watches."""
    handlers = service.server.public._server.connections
    return sum(one.transport.get_write_buffer_size() for one in handlers if one.transport)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_who_does_not_read_makes_nothing_grow_and_is_cut(start_service, eager):  # noqa: ARG001
    service = await start_service(idle_seconds=0.6)
    with await deaf(service):
        waiting = stuck(service)
        assert waiting <= events.PIECE_BYTES + 4096
        for _ in range(3):
            await service.ask("PUT", "/objects/more", BODY)
            assert stuck(service) <= waiting
        await eventually(lambda: "<Streams 0/" in repr(service.server._events._streams))
        await eventually(lambda: not stuck(service))


async def test_the_end_of_the_server_does_not_wait_for_who_does_not_read(start_service, monkeypatch):
    monkeypatch.setattr(listeners, "SHUTDOWN_SECONDS", 5)
    service = await start_service(grace_seconds=5.0)
    with await deaf(service):
        began = time.monotonic()
        await service.stop()
        assert time.monotonic() - began < 4


async def test_who_was_too_slow_to_see_every_end_begins_anew(service, eager, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(board, "MOST_ENDINGS", 2)
    monkeypatch.setattr(events, "EVERY_SECONDS", 0.5)
    stream = await Stream.of(service, "/uploads/events")
    await stream.next()
    for number in range(4):
        await service.ask("PUT", f"/objects/{number}", b"x")
    await stream.ends()


def test_streams_are_counted_by_subject_and_altogether():
    streams = Streams(3, 2)
    with streams.one_more("a"), streams.one_more("a"):
        with pytest.raises(TooManyStreams, match="of yours") as refusal, streams.one_more("a"):
            pass
        assert refusal.value.numbers == {"limit": 2}
        with streams.one_more("b"):
            with pytest.raises(TooManyStreams) as refusal, streams.one_more("c"):
                pass
            assert refusal.value.numbers == {"limit": 3}
            assert "3/3 of 2 subjects" in repr(streams)
    assert "0/3 of 0 subjects" in repr(streams)
    with Streams(1, None).one_more("a"):
        pass


async def test_watchers_never_keep_writers_out(start_service):
    service = await start_service(api_key_sha256=TWO_SUBJECTS, max_connections=16)
    streams = [await Stream.of(service, "/uploads/events", ONE) for _ in range(5)]
    assert [one.answer.status for one in streams] == [200, 200, 200, 200, 503]
    assert refused(streams[4].answer, 503, limit=4).headers["retry-after"]
    assert (await service.ask("PUT", "/objects/a", BODY, ONE)).status == 201
    assert (await Stream.of(service, "/uploads/events", OTHER)).answer.status == 200


async def test_only_get_means_something_there_and_http_1_0_will_do(service):
    upload_id = await service.leave()
    for target in ("/uploads/events", f"/uploads/{upload_id}/events"):
        for method, headers in [("HEAD", {}), ("POST", TUS | {"X-HTTP-Method-Override": "GET"}), ("PATCH", TUS)]:
            answer = await service.ask(method, target, None if method == "HEAD" else b"", headers)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, OPTIONS")
            assert "upload-offset" not in answer.headers
        client = await service.connect()
        answer = await client.ask("GET", target, version="1.0")
        assert "transfer-encoding" not in answer.headers
        assert (await client.reader.readline()).startswith(b"event: ")


async def test_a_page_of_a_named_origin_can_read_it(start_service):
    service = await start_service(cors_origins=("https://app.example",))
    stream = await Stream.of(service, "/uploads/events", {"Origin": "https://app.example"})
    assert stream.answer.headers["access-control-allow-origin"] == "https://app.example"
    assert (await stream.next())[0] == "server"
    refused((await Stream.of(service, "/uploads/events", {"Origin": "https://elsewhere.example"})).answer, 403)


async def test_what_could_not_be_told_is_told_when_memory_is_true_again(service):
    """Though nothing of it has changed since then."""
    upload_id = await service.leave()
    live, seen_by_all = service.uploads.registry.get(upload_id), board.Board(service.uploads)
    with seen_by_all.watched():
        seen = seen_by_all.look()
        live.stale = True
        assert seen_by_all.notice(upload_id).event is None
        await service.uploads.registry._replace(live)
        seen_by_all._looked = 0.0
        seen_by_all.look()
        assert all(notice.event for notice in seen_by_all.since(seen, ANONYMOUS))
        assert seen_by_all.since(seen, ANONYMOUS)
