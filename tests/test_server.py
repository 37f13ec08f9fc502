"""The contract: what clients get for what they send, route by route. Sockets that break are in test_wire.py."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from conftest import BODY, PART_BYTES, REST, START, Service, StartService, strict_store
from fake_store import DROP, FakeStore
from raw_client import (
    CHUNKED,
    EXPECT,
    LAST_CHUNK,
    PATIENCE_SECONDS,
    Answer,
    Client,
    at,
    chunk,
    eventually,
    head,
    place,
    refused,
)
from test_laws import SlowSync

from streamup import uploads
from streamup.errors import AccessDenied, ConfigError, StorePrecondition, StoreRefused, StoreUnavailable
from streamup.spool import Files
from streamup.stores import StoreLimits
from streamup.values import parse_api_key

pytestmark = pytest.mark.usefixtures("impatient")

ALICE, BOB = "alice-has-this-key", "bob-has-another-key"


# -- objects: PUT and POST -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, len(BODY)])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_body_becomes_an_object(service, method, chunked, size):
    body = {"chunks": [BODY[i : min(i + 10_000, size)] for i in range(0, size, 10_000)]} if chunked else {}
    answer = await service.ask(method, "/objects/dir/file.ts", None if chunked else BODY[:size], **body)
    assert answer.status == 201, answer
    assert service.data("dir/file.ts") == BODY[:size]
    stored = service.store.objects["dir/file.ts"]
    assert answer.json == {
        "key": "dir/file.ts",
        "size": size,
        "etag": stored.etag,
        "checksum": stored.checksums,
        "checksum_type": "FULL_OBJECT",
        "parts": -(-size // PART_BYTES),
        "upload": answer.json["upload"],
    }
    assert answer.headers["etag"] == stored.etag
    assert answer.headers["upload-complete"] == "?1"
    assert answer.offset == size
    assert answer.headers["location"] == "/objects/dir/file.ts"
    assert not service.spooled()
    assert not service.store.multiparts


async def test_an_object_that_fits_into_one_part_is_put_in_one_request(service):
    await service.ask("PUT", "/objects/a", chunks=[b"small"])
    assert service.store.calls["put_object"] == 1
    assert not service.store.calls["create_multipart"]


async def test_a_put_replaces_the_object_before(service):
    await service.ask("PUT", "/objects/a", b"one")
    assert (await service.ask("PUT", "/objects/a", b"another")).status == 201
    assert service.data("a") == b"another"


async def test_what_is_said_of_the_object_is_stored_with_it_and_its_bytes_are_not_decoded(service):
    headers = {
        "Content-Type": "video/mp2t",
        "Content-Encoding": "gzip",
        "Content-Disposition": "attachment",
        "Cache-Control": "no-store",
        "X-Amz-Meta-Camera": "north%20gate",
        "X-Amz-Acl": "public-read",
    }
    gzip = base64.b64decode("H4sIAAAAAAAC/8tIzcnJBwCGphA2BQAAAA==")
    assert (await service.ask("PUT", "/objects/a", gzip, headers)).status == 201
    meta = service.store.objects["a"].meta
    assert service.data("a") == gzip
    assert (meta.content_type, meta.content_encoding) == ("video/mp2t", "gzip")
    assert (meta.content_disposition, meta.cache_control) == ("attachment", "no-store")
    assert meta.user == {"camera": "north%20gate"}


@pytest.mark.parametrize("checksum", ["crc64nvme", "sha256", "none"])
async def test_the_checksum_is_the_clients_choice(service, checksum):
    answer = await service.ask("PUT", f"/objects/a?checksum={checksum}", BODY)
    assert answer.status == 201
    assert set(answer.json["checksum"]) == ({checksum} - {"none"})
    assert service.data("a") == BODY


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Amz-Meta-Streamup-Token": "mine"}, 400),
        ({"X-Amz-Meta-": "no name"}, 400),
        ({"X-Amz-Meta-Big": "x" * 2048}, 400),
        ({"X-Amz-Meta-A": "é"}, 400),
        ({"Content-Type": "text/\xe9"}, 400),
        ({"If-None-Match": '"etag"'}, 400),
        ({"If-Match": "*"}, 501),
        ({"Content-Range": "bytes 5-4/*"}, 400),
        ({"Content-Range": "bytes 4-2/3"}, 400),
        ({"Content-Range": "bytes 0-9/5"}, 400),
        ({"Content-Range": "bytes 0-9/*"}, 400),  # Content-Length is 4
        ({"Content-Range": "lines 0-3/4"}, 400),
        ({"Content-Range": "bytes */4"}, 400),  # asks, and has a body
        ({"Upload-Length": "3"}, 400),
        ({"Upload-Length": "5"}, 400),
        ({"Upload-Length": "9" * 16}, 400),
        ({"Upload-Offset": "0"}, 400),
        ({"Content-MD5": "x"}, 400),
        ({"Content-MD5": "eA=="}, 400),
        ({"Repr-Digest": "sha-256=:eA==:"}, 400),
        ({"Repr-Digest": "sha-256=eA=="}, 400),
        ({"Repr-Digest": "unixsum=:eA==:"}, 400),
        ({"Content-Digest": "sha-256=:eA==:"}, 400),
        ({"x-amz-checksum-crc64nvme": "x"}, 400),
        ({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=-2"}, 400),
        ({"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, 501),
        ({"Content-Encoding": "aws-chunked"}, 501),
        ({"Expect": "200-ok"}, 400),
    ],
)
async def test_what_cannot_be_granted_is_refused_and_leaves_nothing(service, headers, status):
    refused(await service.ask("PUT", "/objects/a", b"body", headers), status)
    assert not service.store.objects
    assert (await service.ask("GET", "/uploads")).json["uploads"] == []


@pytest.mark.parametrize("query", ["checksum=md5", "interrupted=maybe"])
async def test_an_unknown_word_in_the_query_is_refused(service, query):
    refused(await service.ask("PUT", f"/objects/a?{query}", b"body"), 400)


async def test_a_body_without_framing_is_refused(service):
    refused(await service.ask("PUT", "/objects/a"), 411)
    refused(await service.ask("PUT", "/objects/a", None, {"Upload-Complete": "?1"}), 411)


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked"])
async def test_a_transfer_coding_other_than_chunked_is_not_implemented(service, coding):
    client = await service.connect()
    answer = await client.ask("PUT", "/objects/a", chunks=[b"body"], headers={"Transfer-Encoding": coding})
    assert answer.status in {400, 501}
    assert not service.store.objects
    if coding.startswith("gzip"):
        refused(answer, 501)


@pytest.mark.parametrize(
    "target",
    [
        *("/", "//a", "/a//b", "/a/", "/.", "/..", "/a/../b", "/%2e%2e/a", "/a%2f..%2fb", "/a%2f%2fb", "/%2fa"),
        *("/a%5cb", "/a\\b", "/%00", "/a%0ab", "/a%7f", "/%c2%85", "/%e2%80%a8", "/%ff", "/%c3", "/%ed%a0%80"),
        "/" + "k" * 1025,
        "/" + "%C3%A9" * 513,
    ],
)
async def test_a_key_that_is_not_safe_is_refused(service, target):
    refused(await service.ask("PUT", f"/objects{target}", b"body"), 400)
    assert not service.store.calls


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/a%2Fb", "a/b"),
        ("/%C3%A9t%C3%A9", "été"),
        ("/a+b%20c", "a+b c"),
        ("/%2541", "%41"),
        ("/a..b/...", "a..b/..."),
        ("/a:b@c;d=e,f'(g)!*", "a:b@c;d=e,f'(g)!*"),
        ("/a%3Fb%23c", "a?b#c"),
        ("/" + "k" * 1024, "k" * 1024),
    ],
)
async def test_a_key_is_decoded_once(service, target, key):
    answer = await service.ask("PUT", f"/objects{target}", b"body")
    assert answer.status == 201
    assert answer.json["key"] == key
    assert service.data(key) == b"body"
    assert (await service.ask("HEAD", answer.headers["location"])).status == 200


async def test_the_prefix_counts_towards_the_length_of_a_key(start_service):
    service = await start_service(prefix="prefix/")
    assert (await service.ask("PUT", "/objects/" + "k" * 1017, b"body")).status == 201
    refused(await service.ask("PUT", "/objects/" + "k" * 1018, b"body"), 400, limit=1024)


async def test_a_name_that_the_store_cannot_have_is_refused_at_the_door(start_service):
    limits = StoreLimits(min_part_bytes=PART_BYTES, max_name_bytes=255)
    service = await start_service(store=FakeStore(limits=limits))
    name = "é" * 127 + "x"
    for key in (name, f"{name}/{name}/{name}"):
        assert (await service.ask("PUT", f"/objects/{quote(key)}", b"body")).status == 201
        refused(await service.ask("PUT", f"/objects/{quote(key)}x", b"body"), 400, limit=255)
    await service.leave("x" * 255)
    refused(await service.ask("PUT", f"/objects/{'x' * 255}?interrupted=new", b"body"), 400, limit=255)


async def test_an_absolute_target_is_understood(service):
    assert (await service.ask("PUT", "http://127.0.0.1/objects/a", b"body")).status == 201
    assert service.data("a") == b"body"


@pytest.mark.parametrize("path", ["/objects", "/other", "/uploads/a/b", "//objects/a", "/static", "/openapi"])
async def test_other_paths_are_not_found(service, path):
    refused(await service.ask("PUT", path, b"body"), 404)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("PATCH", "/objects/a"), ("TRACE", "/objects/a"), ("PROPFIND", "/objects/a"), ("PUT", "/uploads/a")),
        *((method, "/uploads") for method in ("PUT", "PATCH", "HEAD", "DELETE")),
    ],
)
async def test_a_method_that_means_nothing_here_is_not_allowed(start_service, method, target):
    service = await start_service(deletes=True)
    answer = await service.ask(method, target, b"body" if method != "HEAD" else None)
    assert answer.status == 405
    assert method not in answer.headers["allow"].split(", ")
    assert not service.store.calls


# -- objects: empty bodies -------------------------------------------------------------------------------------------


async def test_an_empty_chunked_body_replaces_no_object(service):
    await service.ask("PUT", "/objects/a", b"precious")
    refused(await service.ask("PUT", "/objects/a", chunks=[]), 409)
    assert service.data("a") == b"precious"
    assert await service.document("a", state="cancelled")
    assert (await service.ask("PUT", "/objects/a?interrupted=replace", chunks=[])).status == 201
    assert service.data("a") == b""


async def test_content_length_0_is_a_deliberate_empty_object(service):
    await service.ask("PUT", "/objects/a", b"precious")
    assert (await service.ask("PUT", "/objects/a", b"")).status == 201
    assert service.data("a") == b""


async def test_an_empty_chunked_body_replaces_nothing_while_nobody_knows_what_is_there(service):
    service.store.fail("head", StoreUnavailable)
    refused(await service.ask("PUT", "/objects/a", chunks=[]), 409)
    assert not service.store.objects


async def test_an_empty_chunked_body_replaces_no_open_upload_by_the_servers_policy(start_service):
    service = await start_service(interrupted="replace")
    upload_id = await service.leave()
    refused(await service.ask("PUT", "/objects/a", chunks=[]), 409)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == len(START)
    assert (await service.ask("PUT", "/objects/a?interrupted=replace", chunks=[])).status == 201
    assert service.data("a") == b""
    refused(await service.ask("GET", "/uploads/" + "0" * 32), 404)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410


# -- objects: HEAD, GET, DELETE, OPTIONS -----------------------------------------------------------------------------


async def test_head_tells_of_the_stored_object(service):
    await service.ask("PUT", "/objects/a", BODY, {"Content-Type": "video/mp2t"})
    answer = await service.ask("HEAD", "/objects/a")
    stored = service.store.objects["a"]
    assert answer.status == 200
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["content-type"] == "video/mp2t"
    assert answer.headers["etag"] == stored.etag
    assert answer.headers["x-amz-checksum-crc64nvme"] == stored.checksums["crc64nvme"]
    assert answer.headers["upload-complete"] == "?1"
    assert answer.offset == len(BODY)


async def test_head_tells_of_an_open_upload_and_of_the_object_beneath_it(service):
    assert (await service.ask("HEAD", "/objects/a")).status == 404
    upload_id = await service.leave()
    alone = await service.ask("HEAD", "/objects/a")
    await service.ask("PUT", "/objects/a?interrupted=new", b"elsewhere")
    assert service.data("a") is None
    service.store._store("a", b"before", b"before", service.store.objects["a-1"].meta)
    both = await service.ask("HEAD", "/objects/a")
    for answer in (alone, both):
        assert (answer.status, answer.offset) == (200, len(START))
        assert answer.headers["upload-complete"] == "?0"
        assert answer.headers["location"] == f"/uploads/{upload_id}"
    assert "etag" not in alone.headers
    assert both.headers["etag"] == service.store.objects["a"].etag


async def test_head_tells_of_an_upload_that_is_being_completed(service):
    gate = service.store.hold("put_object")
    first = await service.connect()
    await first.start("PUT", "/objects/a", b"first")
    await gate.reached()
    answer = await service.ask("HEAD", "/objects/a")
    assert (answer.status, answer.offset, answer.headers["upload-complete"]) == (200, 5, "?0")
    gate.release()
    await first.answer()
    gate = service.store.hold("put_object")
    second = await service.connect()
    await second.start("PUT", "/objects/a", b"second")
    await gate.reached()
    answer = await service.ask("HEAD", "/objects/a")
    assert (answer.status, answer.headers["content-length"], answer.headers["upload-complete"]) == (200, "5", "?1")
    gate.release()
    assert (await second.answer()).status == 201


async def test_looking_stops_nobody(service):
    client, upload_id = await service.begin()
    for method, target in [
        ("HEAD", "/objects/a"),
        ("GET", "/uploads"),
        ("GET", f"/uploads/{upload_id}"),
        ("OPTIONS", "/objects/a"),
        ("OPTIONS", f"/uploads/{upload_id}"),
    ]:
        answer = await service.ask(method, target)
        assert answer.status in {200, 204}
        assert (await service.document("a"))["writer"], f"{method} {target} stopped the writer"
        if target.startswith("/uploads"):
            assert "upload-offset" not in answer.headers, "it would be old before it arrives"
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY


async def test_head_works_while_the_store_does_not(service):
    await service.leave()
    service.store.fail("head", StoreUnavailable)
    assert (await service.ask("HEAD", "/objects/a")).offset == len(START)
    service.store.fail("head", StoreUnavailable)
    assert (await service.ask("HEAD", "/objects/b")).status == 503


async def test_get_redirects_to_the_store_where_downloads_are_on(start_service):
    service = await start_service(downloads=True)
    refused(await service.ask("GET", "/objects/a"), 404)
    await service.ask("PUT", "/objects/a", b"body")
    answer = await service.ask("GET", "/objects/a")
    assert answer.status == 307
    assert answer.headers["location"].startswith("https://store.example/a?")
    assert answer.headers["cache-control"] == "no-store"


async def test_a_page_that_has_a_token_is_told_where_an_object_is(start_service):
    service = await start_service(downloads=True, cors_origins=("https://app.example",))
    await service.ask("PUT", "/objects/a", b"body")
    answer = await service.ask("GET", "/objects/a", None, {"Accept": "application/json"})
    assert (answer.status, answer.json["seconds"]) == (200, 3600)
    assert answer.json["location"].startswith("https://store.example/a?")
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept, Origin", "no-store")
    redirected = await service.ask("GET", "/objects/a", None, {"Accept": "application/json, text/plain, */*"})
    assert (redirected.status, redirected.headers["vary"]) == (307, "Accept, Origin")
    refused(await service.ask("GET", "/objects/b", None, {"Accept": "application/json"}), 404)


async def test_get_is_off_by_default(service):
    await service.ask("PUT", "/objects/a", b"body")
    assert "GET" not in refused(await service.ask("GET", "/objects/a"), 405).headers["allow"].split(", ")


async def test_delete_cancels_the_open_upload_and_leaves_the_object(service):
    await service.ask("PUT", "/objects/a", b"stays")
    refused(await service.ask("DELETE", "/objects/a"), 404)
    upload_id = await service.leave()
    assert (await service.ask("DELETE", "/objects/a")).status == 204
    assert service.data("a") == b"stays"
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    assert not service.spooled()
    await eventually(lambda: not service.store.multiparts)
    refused(await service.ask("DELETE", "/objects/a"), 404)


async def test_delete_removes_both_where_deletes_are_on_and_may_be_repeated(start_service):
    service = await start_service(deletes=True)
    await service.ask("PUT", "/objects/a", b"goes")
    client, _ = await service.begin()
    for _ in range(2):
        answer = await service.ask("DELETE", "/objects/a", chunks=[])  # ffmpeg sends an empty chunked body
        assert (answer.status, answer.body) == (204, b"")
        assert not service.store.objects
    assert (await client.answer()).status in {409, 410}
    assert not service.spooled()
    await eventually(lambda: not service.store.multiparts)


async def test_delete_waits_for_an_upload_that_was_sealed_before(start_service):
    service = await start_service(deletes=True)
    gate = service.store.hold("put_object")
    client = await service.connect()
    await client.start("PUT", "/objects/a", b"body")
    await gate.reached()
    deleting = asyncio.create_task(service.ask("DELETE", "/objects/a"))
    await asyncio.wait([deleting], timeout=0.1)
    assert not deleting.done()
    gate.release()
    assert (await client.answer()).status == 201
    assert (await deleting).status == 204
    assert not service.store.objects


async def test_options_tells_methods_and_limits(start_service):
    service = await start_service(max_upload_bytes=12345)
    for target, methods in [
        ("/objects/a", {"PUT", "POST", "HEAD", "GET", "DELETE", "OPTIONS"}),
        ("/uploads/a", {"HEAD", "GET", "PATCH", "POST", "DELETE", "OPTIONS"}),
    ]:
        answer = await service.ask("OPTIONS", target)
        assert answer.status == 204
        assert set(answer.headers["allow"].split(", ")) == methods
        assert "max-size=12345" in answer.headers["upload-limit"]
        assert "access-control-allow-methods" not in answer.headers


# -- an interrupted upload, and the policies -------------------------------------------------------------------------


async def test_reject_is_the_default_and_names_the_ways_on(service):
    upload_id = await service.leave()
    for query in ("", "?interrupted=reject"):
        answer = refused(await service.ask("PUT", f"/objects/a{query}", BODY), 409, expected_offset=len(START))
        assert answer.offset == len(START)
        assert answer.headers["location"] == f"/uploads/{upload_id}"
        for way in (f"bytes {len(START)}-*/*", "interrupted=append", "interrupted=replace", "DELETE"):
            assert way in answer.detail
    assert "a" not in service.store.objects


async def test_append_goes_on_at_the_offset(service):
    await service.leave()
    assert (await service.ask("PUT", "/objects/a?interrupted=append", chunks=[REST])).status == 201
    assert service.data("a") == BODY


async def test_append_is_a_new_upload_where_none_is_open(service):
    assert (await service.ask("PUT", "/objects/a?interrupted=append", BODY)).status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("empty", [{"chunks": []}, {"body": b""}], ids=["chunked", "length"])
async def test_an_empty_body_appends_nothing_and_seals_nothing(service, empty):
    upload_id = await service.leave()
    refused(await service.ask("PUT", "/objects/a?interrupted=append", **empty), 409)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == len(START)
    assert (await service.ask("PUT", "/objects/a?interrupted=append", REST)).status == 201
    assert service.data("a") == BODY


async def test_append_drops_a_length_known_only_from_content_length(service):
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", {"Content-Length": str(len(BODY))}) + START)
    await service.becomes("a", received=len(START))
    client.close()
    await service.becomes("a", writer=False)
    assert (await service.ask("PUT", "/objects/a?interrupted=append", chunks=[BODY, BODY])).status == 201
    assert service.data("a") == START + BODY + BODY


async def test_append_stops_a_writer_that_is_still_connected(service):
    client, _ = await service.begin()
    assert (await service.ask("PUT", "/objects/a?interrupted=append", REST)).status == 201
    refused(await client.answer(), 409)
    assert service.data("a") == BODY


async def test_replace_cancels_the_old_upload(service):
    upload_id = await service.leave()
    assert (await service.ask("PUT", "/objects/a?interrupted=replace", b"new")).status == 201
    assert service.data("a") == b"new"
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    await eventually(lambda: not service.store.multiparts)


async def test_replace_cancels_only_when_a_byte_has_come(service):
    client, old = await service.begin()
    newcomer = await service.connect()
    await newcomer.send(head("PUT", "/objects/a?interrupted=replace", CHUNKED))
    await eventually(lambda: service.document("a", received=0))
    await client.send(chunk(REST))
    await eventually(lambda: received(service, old, len(BODY)))
    await newcomer.send(chunk(b"new") + LAST_CHUNK)
    assert (await newcomer.answer()).status == 201
    assert (await client.answer()).status in {409, 410}
    assert service.data("a") == b"new"


async def received(service: Service, upload_id: str, size: int) -> bool:
    return (await service.ask("GET", f"/uploads/{upload_id}")).json["received"] == size


async def test_new_takes_the_first_numbered_name_that_is_free(service):
    await service.leave("dir/film.ts")
    await service.ask("PUT", "/objects/dir/film-1.ts", b"taken")
    answer = await service.ask("PUT", "/objects/dir/film.ts?interrupted=new", b"new")
    assert (answer.status, answer.json["key"]) == (201, "dir/film-2.ts")
    assert service.data("dir/film-2.ts") == b"new"
    assert service.store.objects["dir/film-2.ts"].meta.if_none_match


@pytest.mark.parametrize("taken", [1, 3, 4, 300, 1023])
async def test_new_asks_the_store_little_however_many_names_are_taken(service, taken):
    await service.ask("PUT", "/objects/a-1", b"taken")
    service.store.objects |= {f"a-{number}": service.store.objects["a-1"] for number in range(2, taken + 1)}
    await service.leave()
    before = service.store.calls["head"]
    answer = await service.ask("PUT", "/objects/a?interrupted=new", b"new")
    assert (answer.status, answer.json["key"]) == (201, f"a-{taken + 1}")
    assert service.store.calls["head"] - before <= 21


async def test_new_gives_up_when_there_are_too_many_names(service):
    await service.ask("PUT", "/objects/a-1", b"taken")
    service.store.objects |= {f"a-{number}": service.store.objects["a-1"] for number in range(2, 1100)}
    await service.leave()
    refused(await service.ask("PUT", "/objects/a?interrupted=new", b"new"), 409)


async def test_who_was_slower_to_take_a_numbered_name_takes_the_next(service):
    await service.leave()
    gate = service.store.hold("head")
    asking = [asyncio.create_task(service.ask("PUT", "/objects/a?interrupted=new", b"new")) for _ in range(3)]
    await gate.reached(3)
    gate.release()
    answers = await asyncio.gather(*asking)
    assert {(answer.status, answer.json["key"]) for answer in answers} == {(201, f"a-{n}") for n in (1, 2, 3)}


@pytest.mark.parametrize("conditional", [True, False])
async def test_new_takes_no_name_while_the_store_does_not_say_what_is_free(start_service, monkeypatch, conditional):
    service = await start_service(store=strict_store(conditional_writes=conditional))
    await service.ask("PUT", "/objects/a-1", b"taken")
    await service.leave()
    monkeypatch.setattr("streamup.registry.LOOK_SECONDS", 0.05)
    gate = service.store.hold("head")
    refused(await service.ask("PUT", "/objects/a?interrupted=new", b"new"), 507)
    gate.release()
    assert service.data("a-1") == b"taken"
    assert len((await service.ask("GET", "/uploads")).json["uploads"]) == 2, "none was begun"


@pytest.mark.parametrize("policy", ["append", "replace", "new"])
async def test_the_servers_policy_counts_where_the_request_has_none(start_service, policy):
    service = await start_service(interrupted=policy)
    await service.leave()
    assert (await service.ask("PUT", "/objects/a?interrupted=reject", REST)).status == 409
    assert (await service.ask("PUT", "/objects/a", REST)).status == 201
    key, expected = {"append": ("a", BODY), "replace": ("a", REST), "new": ("a-1", REST)}[policy]
    assert service.data(key) == expected


async def test_sealed_uploads_are_no_obstacle_and_keep_their_order(service):
    gate = service.store.hold("put_object")
    first, second = await service.connect(), await service.connect()
    await first.start("PUT", "/objects/a", b"first")
    await gate.reached()
    await second.start("PUT", "/objects/a", b"second")
    await service.becomes("a", state="sealed")
    gate.release()
    assert (await first.answer()).status == 201
    assert (await second.answer()).status == 201
    assert service.data("a") == b"second"


# -- Content-Range ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", ["*", len(BODY)])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_range_to_the_end_completes(service, total, framing):
    await service.leave()
    end = "*" if total == "*" else len(BODY) - 1
    body = {"chunks": [REST]} if framing == "chunked" else {"body": REST}
    answer = await service.ask("PUT", "/objects/a", headers=place(len(START), total, end), **body)
    assert answer.status == 201
    assert service.data("a") == BODY


async def test_an_open_range_with_a_total_completes_only_there(service):
    await service.leave()
    answer = await service.ask("PUT", "/objects/a", chunks=[REST], headers=place(len(START), len(BODY)))
    assert answer.status == 201
    assert service.data("a") == BODY


@pytest.mark.parametrize("total", ["*", len(BODY)])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_a_range_short_of_the_end_leaves_the_upload_open(service, total, framing):
    position = 0
    for size in (1000, PART_BYTES, 70_000):
        data = BODY[position : position + size]
        body = {"chunks": [data]} if framing == "chunked" else {"body": data}
        answer = await service.ask("PUT", "/objects/a", headers=place(position, total, position + size - 1), **body)
        position += size
        assert (answer.status, answer.offset) == (308, position)
        assert answer.headers["range"] == f"bytes=0-{position - 1}"
    answer = await service.ask("PUT", "/objects/a", BODY[position:], place(position, len(BODY), len(BODY) - 1))
    assert answer.status == 201
    assert service.data("a") == BODY


async def test_a_chunked_body_that_ends_short_of_its_range_leaves_the_upload_open(service):
    answer = await service.ask("PUT", "/objects/a", chunks=[START], headers=place(0, len(BODY), len(BODY) - 1))
    assert (answer.status, answer.offset) == (308, len(START))
    assert (await service.ask("PUT", "/objects/a", REST, place(len(START)))).status == 201
    assert service.data("a") == BODY


async def test_a_chunked_body_beyond_its_range_is_refused_and_kept_up_to_there(service):
    upload_id = await service.leave(data=b"")
    answer = await service.ask("PUT", "/objects/a", chunks=[START], headers=place(0, "*", 999))
    refused(answer, 400, limit=1000)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).offset == 1000


async def test_bytes_beyond_the_total_fail_the_upload(service):
    upload_id = await service.leave()
    answer = await service.ask("PUT", "/objects/a", chunks=[REST, b"!"], headers=place(len(START), len(BODY)))
    refused(answer, 400)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    assert not service.store.objects


async def test_a_range_at_another_place_is_told_the_right_one(service):
    await service.leave()
    for wrong in (0, len(START) - 1, len(START) + 1):
        answer = refused(await service.ask("PUT", "/objects/a", b"x", place(wrong)), 409, expected_offset=len(START))
        assert answer.offset == len(START)
    refused(await service.ask("PUT", "/objects/nothing", b"x", place(5)), 409, expected_offset=0)
    assert (await service.ask("PUT", "/objects/a", REST, place(len(START)))).status == 201


async def test_totals_that_contradict_each_other_are_refused(service):
    await service.leave(**{"Upload-Length": str(len(BODY))})
    refused(await service.ask("PUT", "/objects/a", b"x", place(len(START), len(BODY) + 1, len(START))), 400)
    refused(await service.ask("PUT", "/objects/a", None, {"Content-Range": "bytes */7"}), 400)
    headers = place(len(START), len(BODY)) | {"Upload-Length": "7"}
    refused(await service.ask("PUT", "/objects/a", REST, headers), 400)
    assert (await service.ask("PUT", "/objects/a", REST, place(len(START), len(BODY)))).status == 201


@pytest.mark.parametrize("total", ["*", len(BODY)])
async def test_the_query_for_the_offset(service, total):
    query = {"Content-Range": f"bytes */{total}"}
    refused(await service.ask("PUT", "/objects/a", None, query), 404)
    client, _ = await service.begin(data=b"")
    answer = await service.ask("PUT", "/objects/a", b"", query)
    assert (answer.status, answer.offset) == (308, 0)
    assert "range" not in answer.headers
    client.close()
    assert (await service.ask("PUT", "/objects/a", START, place(0, end=len(START) - 1))).status == 308
    for body in (None, b""):
        answer = await service.ask("PUT", "/objects/a", body, query)
        assert (answer.status, answer.offset) == (308, len(START))
        assert answer.headers["range"] == f"bytes=0-{len(START) - 1}"
    await service.ask("PUT", "/objects/a", REST, place(len(START)))
    answer = await service.ask("PUT", "/objects/a", b"", query)
    assert (answer.status, answer.json["size"]) == (200, len(BODY))
    assert answer.headers["upload-complete"] == "?1"


# -- not yet the end, and sealing ------------------------------------------------------------------------------------

SEALS: dict[str, Callable[[Service, str, int], Any]] = {
    "PATCH": lambda service, upload, size: service.ask("PATCH", f"/uploads/{upload}", b"", at(size, complete=True)),
    "POST": lambda service, upload, size: service.ask("POST", f"/uploads/{upload}", b"", at(size, complete=True)),
    "PUT": lambda service, _, size: service.ask(
        "PUT", "/objects/a", b"", {"Content-Range": f"bytes */{size}", "Upload-Complete": "?1"}
    ),
}
each_way_to_seal = pytest.mark.parametrize("seal", SEALS.values(), ids=SEALS)


@pytest.mark.parametrize("how", [{"headers": {"Upload-Complete": "?0"}}, {"query": "?upload-complete=0"}])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_upload_complete_0_keeps_the_upload_open_after_a_clean_end(service, how, framing):
    body = {"chunks": [START]} if framing == "chunked" else {"body": START}
    answer = await service.ask("PUT", f"/objects/a{how.get('query', '')}", headers=how.get("headers"), **body)
    assert (answer.status, answer.offset) == (201, len(START))
    assert answer.headers["upload-complete"] == "?0"
    location = answer.headers["location"]
    assert (await service.ask("HEAD", location)).offset == len(START)
    answer = await service.ask("PATCH", location, REST, at(len(START), complete=True))
    assert answer.status == 201
    assert service.data("a") == BODY


async def test_an_offset_that_was_looked_at_a_moment_ago_is_not_told_again(service):
    client, _ = await service.begin(**{"Upload-Complete": "?0"})
    assert (await service.ask("HEAD", "/objects/a")).offset == len(START)
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).offset == len(BODY)


async def test_an_offset_that_was_looked_at_a_moment_ago_is_not_told_after_an_interruption(start_service):
    service = await start_service(idle_seconds=0.3)
    client, _ = await service.begin()
    assert (await service.ask("HEAD", "/objects/a")).offset == len(START)
    await client.send(chunk(REST))
    assert refused(await client.answer(), 409).offset == len(BODY)


@each_way_to_seal
async def test_an_upload_is_sealed_by_a_request_that_names_its_offset(service, seal):
    upload_id = (await service.ask("PUT", "/objects/a", BODY, {"Upload-Complete": "?0"})).headers["location"][9:]
    wrong = await seal(service, upload_id, len(BODY) - 1)
    refused(wrong, 409, expected_offset=len(BODY))
    assert not service.store.objects
    answer = await seal(service, upload_id, len(BODY))
    assert answer.status == 201
    assert service.data("a") == BODY


@each_way_to_seal
async def test_a_seal_may_be_repeated_after_its_answer_was_lost(service, seal):
    upload_id = (await service.ask("PUT", "/objects/a", BODY, {"Upload-Complete": "?0"})).headers["location"][9:]
    first = await seal(service, upload_id, len(BODY))
    again = await seal(service, upload_id, len(BODY))
    assert (first.status, again.status) == (201, 201)
    assert first.json == again.json
    refused(await seal(service, upload_id, len(BODY) - 1), 409)


@each_way_to_seal
async def test_a_seal_that_is_repeated_while_the_store_still_works_waits_for_it(service, seal):
    gate = service.store.hold("complete_multipart")
    upload_id = (await service.ask("PUT", "/objects/a", BODY, {"Upload-Complete": "?0"})).headers["location"][9:]
    seals = [asyncio.create_task(seal(service, upload_id, len(BODY))) for _ in range(2)]
    await gate.reached()
    assert not any(task.done() for task in seals)
    gate.release()
    assert [(await task).status for task in seals] == [201, 201]


@each_way_to_seal
async def test_a_seal_that_is_repeated_is_told_why_there_is_no_object(service, seal):
    headers = {"Upload-Complete": "?0", "If-None-Match": "*"}
    upload_id = (await service.ask("PUT", "/objects/a", BODY, headers)).headers["location"][9:]
    service.store.fail("complete_multipart", StorePrecondition)
    refused(await seal(service, upload_id, len(BODY)), 412)
    refused(await seal(service, upload_id, len(BODY)), 412)
    assert not service.store.objects


async def test_the_key_alone_never_seals(service):
    await service.leave()
    for request in [
        {"target": "/objects/a?upload-complete=1"},
        {"target": "/objects/a", "headers": {"Upload-Complete": "?1"}},
    ]:
        refused(await service.ask("PUT", body=b"", **request), 409)
    assert await service.document("a", state="open")


async def test_patch_and_post_append_to_an_upload(service):
    location = f"/uploads/{await service.leave(data=b'')}"
    position = 0
    for method, size in [("PATCH", 1), ("POST", PART_BYTES), ("PATCH", 100_000)]:
        answer = await service.ask(method, location, BODY[position : position + size], at(position, complete=False))
        position += size
        assert (answer.status, answer.offset) == (204, position)
        assert answer.headers["upload-complete"] == "?0"
    refused(await service.ask("PATCH", location, b"x", at(0, complete=False)), 409, expected_offset=position)
    answer = await service.ask("PATCH", location, chunks=[BODY[position:]], headers=at(position, complete=True))
    assert answer.status == 201
    assert service.data("a") == BODY
    refused(await service.ask("PATCH", location, b"x", at(len(BODY), complete=False)), 409)


@pytest.mark.parametrize("headers", [{}, {"Upload-Offset": "0"}, {"Upload-Complete": "?1"}, {"Upload-Offset": "?0"}])
async def test_an_append_that_does_not_say_where_or_whether_is_refused_and_stops_nobody(service, headers):
    _, upload_id = await service.begin()
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", headers), 400)
    assert await service.document("a", writer=True)


# -- lengths and conditions ------------------------------------------------------------------------------------------


async def test_more_than_the_declared_length_fails_the_upload(service):
    answer = await service.ask("PUT", "/objects/a", chunks=[b"12345", b"6"], headers={"Upload-Length": "5"})
    refused(answer, 400, limit=5)
    assert not service.store.objects
    assert (await service.document("a"))["state"] == "failed"


async def test_less_than_the_declared_length_leaves_the_upload_open(service):
    length = {"Upload-Length": str(len(BODY))}
    answer = refused(await service.ask("PUT", "/objects/a", chunks=[START], headers=length), 400)
    assert answer.json["expected-offset"] == len(START)
    assert not service.store.objects
    assert (await service.ask("PUT", "/objects/a", REST, place(len(START), len(BODY)))).status == 201
    assert service.data("a") == BODY


async def test_the_declared_length_counts_for_later_appends(service):
    location = f"/uploads/{await service.leave(**{'Upload-Length': str(len(BODY))})}"
    answer = await service.ask("HEAD", location)
    assert answer.headers["upload-length"] == str(len(BODY))
    refused(await service.ask("PATCH", location, REST, at(len(START), complete=True) | {"Upload-Length": "7"}), 400)
    refused(await service.ask("PATCH", location, REST + b"x", at(len(START), complete=True)), 400)
    refused(await service.ask("PATCH", location, REST[:-1], at(len(START), complete=True)), 400)
    assert (await service.ask("HEAD", location)).offset == len(START), "refused before its body"
    short = await service.ask("PATCH", location, chunks=[REST[:-1]], headers=at(len(START), complete=True))
    refused(short, 400, expected_offset=len(BODY) - 1)
    assert (await service.ask("PATCH", location, BODY[-1:], at(len(BODY) - 1, complete=True))).status == 201
    assert service.data("a") == BODY


async def test_more_than_an_upload_may_have_is_refused(start_service):
    service = await start_service(max_upload_bytes=1000)
    refused(await service.ask("PUT", "/objects/a", b"x" * 1001), 413, limit=1000)
    refused(await service.ask("PUT", "/objects/a", chunks=[b"x"], headers={"Upload-Length": "1001"}), 413)
    assert await service.document("a") is None
    refused(await service.ask("PUT", "/objects/a", chunks=[b"x" * 600, b"x" * 401]), 413, limit=1000)
    assert not service.store.objects
    assert (await service.ask("PUT", "/objects/b", chunks=[b"x" * 1000])).status == 201


async def test_if_none_match_is_checked_before_the_body(service):
    await service.ask("PUT", "/objects/a", b"first")
    client = await service.connect()
    answer = await client.ask("PUT", "/objects/a", headers=CHUNKED | EXPECT | {"If-None-Match": "*"})
    assert refused(answer, 412).interim == ()
    assert (await service.ask("PUT", "/objects/b", b"new", {"If-None-Match": "*"})).status == 201
    assert service.data("a") == b"first"


async def test_if_none_match_is_checked_again_by_the_store(service):
    client, upload_id = await service.begin(**{"If-None-Match": "*"})
    service.store.objects["a"] = object_ = service.store.objects.get("a")  # a key that is there, whatever it holds
    del service.store.objects["a"]
    assert object_ is None
    await service.ask("PUT", "/objects/other", b"somebody else's")
    service.store.objects["a"] = service.store.objects["other"]
    await client.send(chunk(REST) + LAST_CHUNK)
    refused(await client.answer(), 412)
    assert service.data("a") == b"somebody else's"
    for method in ("HEAD", "DELETE"):  # a 412 would be about their own conditions, of which they have none
        assert (await service.ask(method, f"/uploads/{upload_id}")).status == 410


@pytest.mark.parametrize("size", [2**63 - 1, 10**15])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_body_longer_than_any_number_we_keep_is_refused_before_it(service, caplog, method, size):
    upload_id = await service.leave()
    target = "/objects/a" if method == "PUT" else f"/uploads/{upload_id}"
    headers = place(len(START)) if method == "PUT" else at(len(START), complete=True)
    client = await service.connect()
    answer = await client.ask(method, target, headers=headers | EXPECT | {"Content-Length": str(size)})
    assert refused(answer, 413, limit=10**15 - 1).interim == ()
    assert (await service.document("a"))["offset"] == len(START)
    assert "ERROR" not in caplog.text


WAYS_ON = {
    "append": ("PUT", "/objects/a?interrupted=append", {}),
    "range": ("PUT", "/objects/a", place(len(START))),
    "ietf": ("PATCH", "/uploads/{id}", at(len(START), complete=True)),
    "tus": (
        "PATCH",
        "/uploads/{id}",
        {
            "Tus-Resumable": "1.0.0",
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(len(START)),
            "Upload-Length": str(len(BODY)),
        },
    ),
}


@pytest.mark.parametrize("way", WAYS_ON)
async def test_if_none_match_holds_for_who_goes_on(service, way):
    """Whether the object is there before the body, or comes with it; and no later request takes it back."""
    upload_id = await service.leave()
    await service.ask("PUT", "/objects/other", b"somebody else's")
    method, target, headers = WAYS_ON[way]
    ask = (method, target.format(id=upload_id))
    theirs = service.store.objects["a"] = service.store.objects["other"]
    refused(await service.ask(*ask, REST, headers | {"If-None-Match": "*"}), 412)
    assert (await service.document("a"))["received"] == len(START)
    del service.store.objects["a"]
    client = await service.connect()
    await client.send(head(*ask, headers | CHUNKED | {"If-None-Match": "*"}) + chunk(REST))
    await service.becomes("a", received=len(BODY))
    service.store.objects["a"] = theirs
    await client.send(LAST_CHUNK)
    refused(await client.answer(), 412)
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"", at(len(BODY), complete=True)), 412)
    assert service.data("a") == b"somebody else's"
    del service.store.objects["a"]
    again = {"If-None-Match": "*"} | at(len(BODY), complete=True)
    for _ in range(2):  # the second time its own object is there
        assert (await service.ask("PATCH", f"/uploads/{upload_id}", b"", again)).status == 201
    assert service.data("a") == BODY


async def test_a_condition_the_store_cannot_keep_is_refused_before_the_body(start_service):
    service = await start_service(store=strict_store(conditional_writes=False))
    refused(await service.ask("PUT", "/objects/a", b"body", {"If-None-Match": "*"}), 501)
    await service.leave()
    assert (await service.ask("PUT", "/objects/a?interrupted=new", b"body")).status == 201


# -- the upload resource ---------------------------------------------------------------------------------------------


async def test_head_of_an_upload_stops_its_writer_and_tells_where_to_go_on(service):
    client, upload_id = await service.begin()
    answer = await service.ask("HEAD", f"/uploads/{upload_id}")
    assert (answer.status, answer.offset) == (204, len(START))
    assert answer.headers["upload-complete"] == "?0"
    assert answer.headers["cache-control"] == "no-store"
    refused(await client.answer(), 409, expected_offset=len(START))
    await client.ended()


async def test_head_of_a_complete_upload(service):
    upload_id = (await service.ask("PUT", "/objects/a", BODY)).json["upload"]
    answer = await service.ask("HEAD", f"/uploads/{upload_id}")
    assert (answer.status, answer.offset) == (200, len(BODY))
    assert answer.headers["upload-complete"] == "?1"


async def test_an_upload_as_json(service):
    upload_id = await service.leave()
    await service.becomes("a", stored=PART_BYTES)
    answer = await service.ask("GET", f"/uploads/{upload_id}")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.offset, answer.headers["upload-complete"]) == (len(START), "?0")
    found = answer.json
    part = found.pop("parts")[0]
    assert (await service.ask("GET", "/uploads")).json == {"uploads": [found], "left_out": 0, "next": None}
    created, expires = (datetime.fromisoformat(found.pop(name)) for name in ("created", "expires"))
    assert created < datetime.now(UTC) < expires
    assert (part["number"], part["size"]) == (1, PART_BYTES)
    assert {"etag", "crc64nvme"} <= set(part)
    assert found == {
        "id": upload_id,
        "key": "a",
        "state": "open",
        "reason": None,
        "held": None,
        "offset": len(START),
        "received": len(START),
        "stored": PART_BYTES,
        "length": None,
        "writer": False,
        "rate": None,
        "ended": None,
        "object": None,
    }


async def test_a_list_has_the_newest_uploads_and_tells_where_the_others_are(service, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_LISTED", 3)
    await service.ask("PUT", "/objects/complete", b"body")
    for number in range(8):
        await service.ask("PUT", f"/objects/{number}", b"x", {"Upload-Complete": "?0"})
    pages, target = [], "/uploads"
    while target:
        found = (await service.ask("GET", target)).json
        pages.append(([upload["key"] for upload in found["uploads"]], found["left_out"]))
        target = found["next"] and f"/uploads?before={found['next']}"
    assert pages == [(["6", "7", "complete"], 6), (["3", "4", "5"], 3), (["0", "1", "2"], 0)]
    for wrong in ("7", "1.5-", "x-1", "1.5-a-b"):
        refused(await service.ask("GET", f"/uploads?before={wrong}"), 400)


async def test_a_complete_upload_as_json(service):
    done = (await service.ask("PUT", "/objects/a", BODY)).json
    found = (await service.ask("GET", f"/uploads/{done['upload']}")).json
    assert (found["state"], found["object"]) == ("complete", done)
    assert found["offset"] == found["stored"] == found["length"] == len(BODY)
    assert sum(part["size"] for part in found["parts"]) == len(BODY)
    assert found["expires"] is None
    assert datetime.fromisoformat(found["ended"]) <= datetime.now(UTC)


async def test_a_live_upload_as_json_has_a_rate(service):
    _, upload_id = await service.begin()
    found = (await service.ask("GET", f"/uploads/{upload_id}")).json
    assert found["writer"]
    assert found["rate"] > 0
    assert found["expires"] is None


async def test_an_upload_is_cancelled_once(service):
    client, upload_id = await service.begin()
    assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204
    assert (await client.answer()).status in {409, 410}
    for method, headers in [("DELETE", {}), ("HEAD", {}), ("PATCH", at(len(START), complete=True))]:
        answer = await service.ask(method, f"/uploads/{upload_id}", b"" if method == "PATCH" else None, headers)
        assert answer.status == 410, method
    assert (await service.ask("GET", f"/uploads/{upload_id}")).json["state"] == "cancelled"
    assert not service.spooled()
    await eventually(lambda: not service.store.multiparts)


@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "POST", "DELETE"])
async def test_an_unknown_upload_is_not_found(service, method):
    appends = method.startswith("P")
    answer = await service.ask(
        method, "/uploads/unknown", b"" if appends else None, at(0, complete=True) if appends else None
    )
    assert answer.status == 404


async def test_a_sealed_upload_can_be_cancelled_and_a_completing_one_cannot(start_service):
    service = await start_service(store_timeout_seconds=0.2)
    gate = service.store.hold("put_object")
    first, second = [
        (await service.ask("PUT", "/objects/a", b"body", {"Prefer": "respond-async"})).json["upload"] for _ in range(2)
    ]
    await service.becomes("a", state="sealed")
    await gate.reached()
    refused(await service.ask("DELETE", f"/uploads/{first}"), 423)
    assert (await service.ask("DELETE", f"/uploads/{second}")).status == 204
    deleting = asyncio.create_task(service.ask("DELETE", f"/uploads/{first}"))
    gate.release()
    refused(await deleting, 409)
    assert service.data("a") == b"body"


# -- when the store is slow, down, or full ---------------------------------------------------------------------------


async def test_respond_async_is_answered_before_the_store_has_it(service):
    gate = service.store.hold("complete_multipart")
    answer = await service.ask("PUT", "/objects/a", BODY, {"Prefer": "wait=10, respond-async"})
    assert (answer.status, answer.offset) == (202, len(BODY))
    assert answer.headers["preference-applied"] == "respond-async"
    location = answer.headers["location"]
    assert location.startswith("/uploads/")
    asking = asyncio.create_task(service.ask("HEAD", location))
    await gate.reached()
    gate.release()
    assert (await asking).status == 200
    assert service.data("a") == BODY


async def test_a_store_that_takes_too_long_is_answered_for_with_202(start_service):
    service = await start_service(store_timeout_seconds=0.2)
    gate = service.store.hold("put_object")
    answer = await service.ask("PUT", "/objects/a", b"body")
    assert (answer.status, answer.offset) == (202, 4)
    location = answer.headers["location"]
    assert (await service.ask("HEAD", location)).status == 202
    gate.release()
    await eventually(lambda: service.data("a") == b"body")
    answer = await eventually(lambda: completed(service, location))
    assert answer.headers["upload-complete"] == "?1"


async def completed(service: Service, location: str) -> Answer | None:
    answer = await service.ask("HEAD", location)
    return answer if answer.status == 200 else None


async def test_what_was_answered_with_202_survives_a_kill(start_service, tmp_path):
    service = await start_service(store_timeout_seconds=0.2)
    service.store.hold("complete_multipart")
    answer = await service.ask("PUT", "/objects/a", BODY)
    assert answer.status == 202
    restarted = await start_service(data=service.killed(tmp_path / "killed"), store=strict_store())
    assert (await restarted.ask("HEAD", answer.headers["location"])).status in {202, 410}


async def test_a_store_that_is_down_refuses_nobody_at_the_door(service):
    async def down(_operation: str, _number: int) -> type[StoreUnavailable]:
        return StoreUnavailable

    service.store.plan = down
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | EXPECT | {"If-None-Match": "*"}))
    assert await client.interim(seconds=1) == 100
    await client.send(chunk(BODY) + LAST_CHUNK)
    await service.becomes("a", received=len(BODY), state="sealed")
    service.store.plan = None
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY


async def test_a_store_that_does_not_answer_lets_the_body_in_before_curl_loses_patience(service):
    gate = service.store.hold("head")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | EXPECT | {"If-None-Match": "*"}))
    assert await client.interim(seconds=0.95) == 100
    await client.send(chunk(BODY) + LAST_CHUNK)
    gate.release()
    assert (await client.answer()).status == 201


async def test_a_409_comes_before_curl_loses_patience_however_slow_disk_and_store_are(start_service):
    """Whatever is waited for at the door: one key's writer feeds, another's settles, and the store does not answer."""
    disk = SlowSync()
    service = await start_service(files=disk)
    feeding, _ = await service.begin("feeding")
    settling, _ = await service.begin("settling")
    settling.close()
    assert await asyncio.to_thread(disk.waiting.wait, PATIENCE_SECONDS)
    gate = service.store.hold("head")
    requests = [
        head("PUT", "/objects/feeding", CHUNKED | EXPECT),
        head("PUT", "/objects/feeding", CHUNKED | EXPECT | {"If-None-Match": "*"}),
        *[head("PUT", "/objects/settling", CHUNKED | EXPECT)] * 2,
    ]
    for answer in await asyncio.gather(*(refusal_in_time(service, request) for request in requests)):
        assert refused(answer, 409, expected_offset=0).offset == 0, "what is not durable is not told"
    feeding.close()
    gate.release()
    disk.go.set()
    for key in ("feeding", "settling"):
        refused(await service.ask("PUT", f"/objects/{key}", b"again"), 409, expected_offset=len(START))


async def test_who_has_sent_its_body_already_waits_in_line_at_the_door_as_long_as_that_takes(service, monkeypatch):
    """ffmpeg's playlists, on a machine that is slow just now: a 409 would be read by nobody."""
    monkeypatch.setattr("streamup.uploads.CLOSES_SECONDS", 0.05)
    monkeypatch.setattr("streamup.uploads.SETTLE_SECONDS", PATIENCE_SECONDS)
    first, _ = await service.begin()
    second, hurried = await service.connect(), await service.connect()
    await second.send(head("PUT", "/objects/a", CHUNKED) + chunk(b"second") + LAST_CHUNK)
    await hurried.send(head("PUT", "/objects/a", CHUNKED | EXPECT))
    refused(await hurried.answer(), 409)
    await first.send(LAST_CHUNK)
    assert [201, 201] == [(await client.answer()).status for client in (first, second)]
    assert service.data("a") == b"second"


async def refusal_in_time(service: Service, request: bytes) -> Answer:
    client = await service.connect()
    await client.send(request)
    async with asyncio.timeout(0.95):
        return await client.answer()


async def test_an_answer_that_the_store_loses_is_not_lost_on_the_client(service):
    service.store.fail("complete_multipart", DROP)
    assert (await service.ask("PUT", "/objects/a", BODY)).status == 201
    service.store.fail("put_object", DROP)
    assert (await service.ask("PUT", "/objects/b", b"body")).status == 201
    assert service.data("a") == BODY
    assert service.data("b") == b"body"


@pytest.mark.parametrize("headers", [{}, EXPECT], ids=["without Expect", "with Expect"])
async def test_a_refusal_by_the_store_is_503_only_in_place_of_100(service, headers):
    service.store.fail("head", StoreRefused)
    answer = await service.ask("PUT", "/objects/a", None, CHUNKED | headers | {"If-None-Match": "*"})
    refused(answer, 503 if headers else 507)
    assert "retry-after" in answer.headers


async def full(start_service: StartService) -> tuple[Service, Client, Any]:
    """A service whose spool is full, the writer that filled it, and the gate that holds the store."""
    service = await start_service(spool_bytes=8 * PART_BYTES)
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", "/objects/big", CHUNKED))
    sending = asyncio.create_task(client.send(chunk(BODY) * 10 + LAST_CHUNK))
    await service.becomes("big", received=7 * PART_BYTES)
    await gate.reached(4)
    return service, client, (gate, sending)


async def test_a_full_spool_refuses_newcomers_and_makes_those_inside_wait(start_service):
    service, client, (gate, sending) = await full(start_service)
    refused(await service.ask("PUT", "/objects/a", b"body"), 507)
    in_place_of_100 = await service.ask("PUT", "/objects/a", None, CHUNKED | EXPECT)
    assert refused(in_place_of_100, 503).interim == ()
    assert "retry-after" in in_place_of_100.headers
    assert await service.document("a") is None
    assert sum(service.spooled().values()) <= 8 * PART_BYTES
    assert (await service.document("big", writer=True))["received"] == 7 * PART_BYTES
    gate.release()
    await sending
    assert (await client.answer()).status == 201
    assert service.data("big") == BODY * 10
    assert (await service.ask("PUT", "/objects/a", b"body")).status == 201


async def test_waiting_for_the_store_is_not_idleness(start_service):
    service = await start_service(spool_bytes=8 * PART_BYTES, idle_seconds=0.2)
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED))
    await client.send(chunk(BODY) * 3 + LAST_CHUNK)
    await service.becomes("a", received=7 * PART_BYTES)
    with pytest.raises(TimeoutError):
        await client.answer(seconds=0.5)
    client.methods.append("PUT")
    gate.release()
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY * 3


@pytest.mark.parametrize(
    "options", [{"disk_floor_bytes": 1 << 60}, {"max_open_uploads": 0}], ids=["disk floor", "open uploads"]
)
async def test_a_limit_is_507_at_the_door(start_service, options):
    service = await start_service(**options)
    refused(await service.ask("PUT", "/objects/a", b"body"), 507)
    assert refused(await service.ask("PUT", "/objects/a", None, CHUNKED | EXPECT), 503).interim == ()
    assert not service.spooled()


async def test_a_disk_that_is_full_inside_makes_the_writer_wait(start_service):
    class Disk(Files):
        full = False

        def write(self, fd: int, data: memoryview) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(fd, data)

    disk = Disk()
    service = await start_service(files=disk)
    client, _ = await service.begin()
    disk.full = True
    await client.send(chunk(REST) + LAST_CHUNK)
    with pytest.raises(TimeoutError):
        await client.answer(seconds=0.1)
    client.methods.append("PUT")
    disk.full = False
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY


async def test_a_disk_that_fails_cuts_the_upload_and_tells_no_status_that_retries(start_service):
    class Disk(Files):
        broken = False

        def write(self, fd: int, data: memoryview) -> int:
            if self.broken:
                raise OSError(5, "Input/output error")
            return super().write(fd, data)

    disk = Disk()
    service = await start_service(files=disk)
    client, upload_id = await service.begin()
    disk.broken = True
    await client.send(chunk(REST) + LAST_CHUNK)
    refused(await client.answer(), 507)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    assert not service.store.objects


async def test_a_fault_of_ours_cuts_the_connection_without_an_answer(service, monkeypatch, caplog):
    def fault() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.uploads.door, "room", fault)
    client = await service.connect()
    await client.start("PUT", "/objects/a", BODY)
    assert await client.ended() == b""
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


# -- Expect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/objects/a//b", {}, 400),
        ("/objects/a", {"Content-Range": "bytes 4-2/3"}, 400),
        ("/objects/a", {"Origin": "https://elsewhere.example"}, 403),
        ("/nowhere", {}, 404),
        ("/uploads/x", {}, 405),
        ("/objects/open", {}, 409),
        ("/objects/open", {"Content-Range": "bytes 1-*/*"}, 409),
        ("/objects/there", {"If-None-Match": "*"}, 412),
        ("/objects/a", {"Upload-Length": "1000000000"}, 413),
        ("/objects/a", {"Content-MD5": "x"}, 400),
        ("/objects/a", {"x-amz-checksum-xxhash3": "x"}, 501),
        ("/objects/a", {"Transfer-Encoding": "gzip, chunked"}, 501),
    ],
)
async def test_a_refusal_that_needs_no_body_comes_instead_of_100(start_service, target, headers, status):
    service = await start_service(max_upload_bytes=10_000_000)
    await service.leave("open")
    await service.ask("PUT", "/objects/there", b"body")
    client = await service.connect()
    answer = await client.ask("PUT", target, None, CHUNKED | EXPECT | headers)
    assert refused(answer, status).interim == ()
    assert answer.headers["connection"] == "close"


async def test_100_is_said_once_where_the_body_is_wanted(service):
    client = await service.connect()
    for key in "ab":
        await client.send(head("PUT", f"/objects/{key}", CHUNKED | EXPECT))
        assert await client.interim() == 100
        await client.send(chunk(START))
        await service.becomes(key, received=len(START))
        await client.send(chunk(REST) + LAST_CHUNK)
        answer = await client.answer()
        assert (answer.status, answer.interim) == (201, ())
        assert service.data(key) == BODY


async def test_a_body_that_does_not_wait_for_100_is_taken(service):
    assert (await service.ask("PUT", "/objects/a", BODY, EXPECT)).status == 201
    assert (await service.ask("PUT", "/objects/b", BODY, EXPECT, version="1.0")).interim == ()
    assert service.data("a") == service.data("b") == BODY


# -- who may do what -------------------------------------------------------------------------------------------------


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"any:{key}".encode()).decode()}


@pytest.fixture
async def guarded(start_service: StartService) -> Service:
    return await start_service(api_key_sha256=(parse_api_key(ALICE), parse_api_key(BOB)))


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), basic("wrong"), {"Authorization": "Digest x"}])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        *((method, "/objects/a") for method in ("PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS", "PATCH")),
        *((method, "/uploads/x") for method in ("GET", "HEAD", "PATCH", "POST", "DELETE", "OPTIONS")),
        *(("GET", "/uploads"), ("GET", "/other"), ("PUT", "/objects/a//b")),
    ],
)
async def test_without_a_key_nothing_is_done_and_no_body_is_asked_for(guarded, method, target, headers):
    with_body = method in {"PUT", "POST", "PATCH"}
    client = await guarded.connect()
    answer = await client.ask(method, target, None, headers | (CHUNKED | EXPECT if with_body else {}))
    assert (answer.status, answer.interim) == (401, ())
    assert "Basic realm=" in answer.headers["www-authenticate"]
    assert "Bearer" in answer.headers["www-authenticate"]
    assert not guarded.store.calls


async def test_a_page_asks_for_a_token_itself(guarded):
    """The browser has no dialog for a challenge of Bearer only."""
    host = f"127.0.0.1:{guarded.address[1]}"
    answer = await guarded.ask("PATCH", "/uploads/x", b"", {"Origin": f"http://{host}", "Host": host})
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="streamup"')


@pytest.mark.parametrize("credential", [bearer, basic])
async def test_a_key_opens(guarded, credential):
    assert (await guarded.ask("PUT", "/objects/a", BODY, credential(ALICE))).status == 201
    assert guarded.data("a") == BODY


async def test_an_upload_belongs_to_its_subject(guarded):
    client = await guarded.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | bearer(ALICE)) + chunk(START))
    hers = await eventually(lambda: uploads_of(guarded, ALICE))
    upload_id = hers[0]["id"]
    his = bearer(BOB)
    for query in ("", "?interrupted=append", "?interrupted=replace", "?interrupted=new"):
        answer = refused(await guarded.ask("PUT", f"/objects/a{query}", b"x", his), 409)
        assert "upload-offset" not in answer.headers
        assert upload_id not in str(answer)
    answer = await guarded.ask("PUT", "/objects/a", b"x", his | place(len(START)))
    assert refused(answer, 409).headers.get("upload-offset") is None
    for method, headers in [("HEAD", {}), ("GET", {}), ("DELETE", {}), ("PATCH", at(len(START), complete=True))]:
        body = b"" if method == "PATCH" else None
        assert (await guarded.ask(method, f"/uploads/{upload_id}", body, his | headers)).status == 404
    for method, headers in [("HEAD", {}), ("DELETE", {}), ("PUT", {"Content-Range": "bytes */*"})]:
        assert (await guarded.ask(method, "/objects/a", None, his | headers)).status == 404
    assert await uploads_of(guarded, BOB) == []
    assert await any_writer(guarded, ALICE), "nobody has stopped her"
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert guarded.data("a") == BODY


async def test_a_delete_spares_what_somebody_else_is_uploading(start_service):
    service = await start_service(deletes=True, api_key_sha256=(parse_api_key(ALICE), parse_api_key(BOB)))
    await service.ask("PUT", "/objects/a", b"precious", bearer(ALICE))
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | bearer(ALICE)) + chunk(START))
    await eventually(lambda: any_writer(service, ALICE))
    refused(await service.ask("DELETE", "/objects/a", None, bearer(BOB)), 409)
    assert service.data("a") == b"precious"
    assert await any_writer(service, ALICE)
    assert (await service.ask("DELETE", "/objects/a", None, bearer(ALICE))).status == 204


async def any_writer(service: Service, key: str) -> bool:
    return any(upload["writer"] for upload in await uploads_of(service, key))


async def uploads_of(service: Service, key: str) -> list[dict[str, Any]]:
    return (await service.ask("GET", "/uploads", None, bearer(key))).json["uploads"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=["origin", "null", "fetch site"],
)
@pytest.mark.parametrize(
    ("method", "target"),
    [*((m, "/objects/a") for m in ("PUT", "POST", "HEAD", "GET", "DELETE", "OPTIONS")), ("GET", "/uploads")],
)
async def test_a_foreign_page_is_refused_whatever_it_asks(service, method, target, headers):
    body = b"body" if method.startswith("P") else None
    answer = await service.ask(method, target, body, headers)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    assert not service.store.calls


async def test_a_page_of_our_own_is_not_foreign(service):
    own = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
    assert (await service.ask("PUT", "/objects/a", b"body", own)).status == 201


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost:1", 201), ("127.0.0.1", 201)])
async def test_the_host_must_be_one_of_ours(service, host, status):
    assert (await service.ask("PUT", "/objects/a", b"body", {"Host": host})).status == status


async def test_allowed_hosts_are_those_that_were_named(start_service):
    service = await start_service(allowed_hosts=("up.example.com",))
    assert (await service.ask("PUT", "/objects/a", b"body", {"Host": "up.example.com"})).status == 201
    assert (await service.ask("PUT", "/objects/a", b"body", {"Host": "192.0.2.1"})).status == 403


async def test_an_allowed_origin_may_ask_and_read(start_service):
    service = await start_service(cors_origins=("https://app.example",))
    origin = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    preflight = origin | {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "upload-offset"}
    answer = await service.ask("OPTIONS", "/objects/a", None, preflight)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "upload-offset"
    answer = await service.ask("PUT", "/objects/a", b"body", origin)
    assert answer.status == 201
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    for name in ("Upload-Offset", "Upload-Complete", "Location", "ETag", "x-amz-checksum-crc64nvme"):
        assert name in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]
    refusal = await service.ask("PUT", "/objects/a//b", b"body", origin)
    assert refusal.headers["access-control-allow-origin"] == "https://app.example", "a page must see why"
    assert (await service.ask("PUT", "/objects/a", b"x", {"Origin": "https://app.example.evil"})).status == 403


async def test_a_preflight_needs_no_key(start_service):
    service = await start_service(cors_origins=("https://app.example",), api_key_sha256=(parse_api_key(ALICE),))
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    assert (await service.ask("OPTIONS", "/objects/a", None, headers)).status == 204
    assert (await service.ask("OPTIONS", "/objects/a", None, {"Origin": "https://app.example"})).status == 401


# -- the rest --------------------------------------------------------------------------------------------------------


async def test_an_address_that_is_taken_is_refused_at_start(start_service, tmp_path):
    service = await start_service()
    with pytest.raises(ConfigError, match="Cannot listen"):
        await start_service(listen=service.address, data=tmp_path / "other")


async def test_whoever_looks_sees_why_an_upload_is_held_until_the_store_takes_it(service):
    denied = [AccessDenied("begun with another key")]

    async def plan(operation, _):
        return denied[0] if operation == "put_part" and denied else None

    service.store.plan = plan
    await service.leave("a")
    held = await service.becomes("a", held="begun with another key", state="open")
    assert (await service.ask("GET", f"/uploads/{held['id']}")).json["held"] == "begun with another key"
    denied.clear()
    assert (await service.becomes("a", held=None, stored=PART_BYTES))["reason"] is None
