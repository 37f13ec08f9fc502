"""The contract of `ObjectStore`, the same for the strict fake, a real SeaweedFS, and (in the campaign) moto.

Where a store is laxer than the contract, `LAX` says so: the test must fail there, or the entry goes.
"""

import asyncio
import base64
import hashlib
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from awscrt import checksums
from fake_store import DROP, FakeStore
from moto.server import ThreadedMotoServer

from streamup.errors import (
    BadDigest,
    InvalidPart,
    NoSuchMultipart,
    NoSuchObject,
    SpoolError,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.stores import Checksum, ObjectMeta, PartBody
from streamup.stores.profiles import StoreProfile
from streamup.stores.s3 import S3Store

pytest_plugins = ["weed"]

META = ObjectMeta("token-1")
ALL = StoreProfile(name="all")
LAX = {
    "moto": {
        "an_object_keeps_its_crc64nvme": "the answer to a PutObject names no checksum",
        "an_object_keeps_its_sha256": "the answer to a PutObject names no checksum",
        "the_sha256_of_parts_is_a_composite": "it lacks its -N",
        "a_part_with_a_wrong_crc64nvme_is_refused": "checksums are not compared",
        "a_part_with_a_wrong_sha256_is_refused": "checksums are not compared",
        "a_wrong_checksum_of_the_whole_is_refused": "checksums are not compared",
        "an_object_with_a_wrong_checksum_is_refused": "checksums are not compared",
        "an_object_with_a_wrong_sha256_replaces_nothing": "checksums are not compared",
        "a_part_with_the_checksum_of_another_is_refused_at_the_end": "checksums are not compared",
        "a_part_with_the_sha256_of_another_is_refused_at_the_end": "checksums are not compared",
        "a_missing_last_part_is_refused": "checksums are not compared",
        "a_part_that_is_named_twice_is_refused": "once is enough",
        "a_part_with_another_kind_of_checksum_is_refused": "any kind is taken",
        "parts_out_of_order_are_refused": "they are sorted",
        "a_missing_part_is_refused": "the parts that are there are joined",
        "a_wrong_size_is_refused": "MpuObjectSize is ignored",
        "parts_of_an_aborted_multipart_are_refused": "500 instead of 404 NoSuchUpload",
        "an_unknown_multipart_is_said_to_be_unknown": "500 instead of 404 NoSuchUpload",
        "unfinished_multiparts_are_listed": "Initiated is always in 2010",
    },
    "seaweedfs": {
        "a_missing_part_is_refused": "the parts that are there are joined (4.48)",
        "a_wrong_size_is_refused": "MpuObjectSize is ignored (4.48)",
    },
}


@pytest.fixture(scope="session")
def moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(params=["fake", pytest.param("moto", marks=pytest.mark.campaign), "seaweedfs"])
def unopened(request):
    """The store as an async context manager: servers start outside the test's event loop."""
    reason = LAX.get(request.param, {}).get(request.node.originalname.removeprefix("test_"))
    if reason:
        request.node.add_marker(pytest.mark.xfail(reason=f"{request.param}: {reason}", strict=True))
    if request.param == "fake":
        return nullcontext(FakeStore())
    if request.param == "seaweedfs":
        return request.getfixturevalue("weed").store(request.node.name, profile=ALL)
    options = {"endpoint_url": request.getfixturevalue("moto"), "access_key": "a", "secret_key": "b"}
    return S3Store("bucket", request.node.name, **options, path_style=True, profile=ALL)


@pytest.fixture
async def store(unopened):
    async with unopened as opened:
        if isinstance(opened, S3Store):
            await opened.create_bucket()
        yield opened


@pytest.fixture
def body(tmp_path):
    """Makes a `PartBody` of some bytes; in files of their own, longer than the part."""

    def make(data: bytes, checksum=Checksum.CRC64NVME):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        path.write_bytes(data + b"beyond the part")
        sha256 = hashlib.sha256(data).digest() if checksum is Checksum.SHA256 else None
        return PartBody(path, len(data), checksums.crc64nvme(data), checksum, sha256)

    return make


def full(store, seed=b"0123456789abcdef"):
    """The content of a part that need not be the last."""
    return (seed * (store.limits.min_part_bytes // len(seed) + 1))[: store.limits.min_part_bytes]


def base64_of(digest):
    return base64.b64encode(digest).decode()


def crc_of(data):
    return base64_of(checksums.crc64nvme(data).to_bytes(8, "big"))


async def content(store, key):
    if isinstance(store, FakeStore):
        return store.objects[key].data
    async with aiohttp.ClientSession() as session, session.get(await store.presign_get(key, 60)) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def send(store, key, bodies, meta=META):
    """A multipart upload up to, and not including, its completion."""
    multipart_id = await store.create_multipart(key, meta)
    receipts = [await store.put_part(key, multipart_id, number, body) for number, body in enumerate(bodies, 1)]
    return multipart_id, receipts


# Objects


async def test_an_object_is_what_was_put(store, body):
    meta = replace(META, content_type="video/mp4", user={"title": "Caf%C3%A9"})
    made = await store.put_object("a/film.mp4", body(b"moving pictures"), meta)
    assert (made.size, made.token) == (15, "token-1")
    assert await content(store, "a/film.mp4") == b"moving pictures"
    found = await store.head("a/film.mp4")
    assert (found.key, found.size, found.etag) == ("a/film.mp4", 15, made.etag)
    assert (found.token, found.content_type) == ("token-1", "video/mp4")
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_empty_object_is_no_special_case(store):
    await store.put_object("empty", PartBody(None, 0, 0), META)
    assert await content(store, "empty") == b""
    assert (await store.head("empty")).size == 0


async def test_an_object_keeps_its_crc64nvme(store, body):
    made = await store.put_object("k", body(b"abc"), META)
    assert made.checksums["crc64nvme"] == (await store.head("k")).checksums["crc64nvme"] == crc_of(b"abc")
    assert "FULL_OBJECT" == made.checksum_type == (await store.head("k")).checksum_type


async def test_an_object_keeps_its_sha256(store, body):
    made = await store.put_object("k", body(b"abc", Checksum.SHA256), replace(META, checksum=Checksum.SHA256))
    assert made.checksums["sha256"] == base64_of(hashlib.sha256(b"abc").digest())


async def test_an_object_without_a_checksum_of_ours(store, body):
    await store.put_object("k", body(b"abc", Checksum.NONE), replace(META, checksum=Checksum.NONE))
    assert await content(store, "k") == b"abc"


async def test_an_object_with_a_wrong_checksum_is_refused(store, body):
    with pytest.raises(BadDigest):
        await store.put_object("k", replace(body(b"abc"), crc64nvme=7), META)
    assert await store.head("k") is None


async def test_an_object_with_a_wrong_sha256_replaces_nothing(store, body):
    await store.put_object("k", body(b"first"), META)
    damaged = replace(body(b"abc", Checksum.SHA256), sha256=bytes(32))
    with pytest.raises(BadDigest):
        await store.put_object("k", damaged, replace(META, checksum=Checksum.SHA256))
    assert await content(store, "k") == b"first"


@pytest.mark.parametrize("size", [3, 1_000_000])
async def test_a_part_file_that_has_changed_replaces_nothing(store, body, size):
    await store.put_object("k", body(b"first"), META)
    changed = replace(body(bytes(size), Checksum.NONE), crc64nvme=7)
    with pytest.raises(SpoolError):
        await store.put_object("k", changed, replace(META, checksum=Checksum.NONE))
    assert await content(store, "k") == b"first"


@pytest.mark.parametrize("key", ["über/naïve ключ 鍵.bin", "a+b &c=d?e#f%20g", "dots../..x", "a/ b"])
async def test_any_key_comes_back_as_it_was(store, body, key):
    await store.put_object(key, body(b"abc"), META)
    assert await content(store, key) == b"abc"
    assert (await store.head(key)).key == key


async def test_nothing_is_found_where_nothing_is(store):
    assert await store.head("nothing") is None


async def test_delete_may_be_repeated(store, body):
    await store.put_object("k", body(b"abc"), META)
    await store.delete("k")
    assert await store.head("k") is None
    await store.delete("k")


async def test_a_condition_protects_an_object_from_a_put(store, body):
    await store.put_object("k", body(b"first"), replace(META, if_none_match=True))
    with pytest.raises(StorePrecondition):
        await store.put_object("k", body(b"second"), replace(META, if_none_match=True))
    assert await content(store, "k") == b"first"


async def test_a_store_is_ready(store):
    await store.ready()


# Reading


class StopReading(Exception):
    pass


async def read(store, key, start, end, etag):
    taken = bytearray()
    await store.read(key, start, end, etag, taken.extend)
    return taken


async def test_any_span_of_an_object_is_read(store, body):
    data = bytes(range(256)) * 1024
    made = await store.put_object("k", body(data), META)
    for start, end in ((0, len(data)), (0, 1), (len(data) - 1, len(data)), (70_001, 200_003)):
        assert await read(store, "k", start, end, made.etag) == data[start:end]


async def test_an_object_that_was_replaced_is_not_read(store, body):
    made = await store.put_object("k", body(b"first"), META)
    await store.put_object("k", body(b"other"), META)
    with pytest.raises(StorePrecondition):
        await read(store, "k", 0, 5, made.etag)


async def test_nothing_is_read_where_nothing_is(store):
    with pytest.raises(NoSuchObject):
        await read(store, "nothing", 0, 5, '"00000000000000000000000000000000"')


async def test_a_read_that_is_left_holds_no_connection(store, body):
    data = bytes(8 << 20)  # more than sockets and buffers hold
    made = await store.put_object("k", body(data), META)

    def enough(_):
        raise StopReading

    for _ in range(20):  # more than there are connections
        with pytest.raises(StopReading):
            await store.read("k", 0, len(data), made.etag, enough)
    reading = asyncio.create_task(read(store, "k", 0, len(data), made.etag))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    async with asyncio.timeout(10):
        assert await read(store, "k", 7, 9, made.etag) == b"\0\0"


async def test_the_parts_of_an_object_are_told(store, body):
    first, last = full(store), b"the end"
    multipart_id, receipts = await send(store, "k", [body(first), body(last)])
    await store.complete_multipart("k", multipart_id, receipts, META, checksums.crc64nvme(first + last))
    parts = await store.parts_of("k")
    assert [(part.number, part.size) for part in parts] == [(1, len(first)), (2, 7)]


async def test_an_object_of_one_piece_has_one_part_or_none_is_told(store, body):
    await store.put_object("k", body(b"abc"), META)
    parts = await store.parts_of("k")
    assert parts is None or [(part.number, part.size) for part in parts] == [(1, 3)]
    await store.put_object("empty", PartBody(None, 0, 0), META)
    parts = await store.parts_of("empty")
    assert parts is None or [(part.number, part.size) for part in parts] == [(1, 0)]


# Multipart uploads


async def test_parts_become_an_object(store, body):
    first, last = full(store), b"the end"
    multipart_id, receipts = await send(store, "k", [body(first), body(last)], replace(META, content_type="a/b"))
    assert [(receipt.number, receipt.size) for receipt in receipts] == [(1, len(first)), (2, 7)]
    assert await store.head("k") is None
    whole = checksums.crc64nvme(first + last)
    made = await store.complete_multipart("k", multipart_id, receipts, replace(META, content_type="a/b"), whole)
    assert (made.size, made.token) == (len(first) + 7, "token-1")
    assert await content(store, "k") == first + last
    found = await store.head("k")
    assert (found.etag, found.size, found.token, found.content_type) == (made.etag, made.size, "token-1", "a/b")
    assert found.checksums["crc64nvme"] == crc_of(first + last)


async def test_parts_may_arrive_together_and_in_any_order(store, body):
    first, last = full(store), b"the end"
    multipart_id = await store.create_multipart("k", META)
    puts = [store.put_part("k", multipart_id, number, body(data)) for number, data in ((2, last), (1, first))]
    receipts = sorted(await asyncio.gather(*puts), key=lambda receipt: receipt.number)
    await store.complete_multipart("k", multipart_id, receipts, META, checksums.crc64nvme(first + last))
    assert await content(store, "k") == first + last


async def test_a_single_small_part_is_enough(store, body):
    multipart_id, receipts = await send(store, "k", [body(b"x")])
    await store.complete_multipart("k", multipart_id, receipts, META, checksums.crc64nvme(b"x"))
    assert await content(store, "k") == b"x"


async def test_the_sha256_of_parts_is_a_composite(store, body):
    meta, parts = replace(META, checksum=Checksum.SHA256), (full(store), b"the end")
    multipart_id, receipts = await send(store, "k", [body(part, Checksum.SHA256) for part in parts], meta)
    await store.complete_multipart("k", multipart_id, receipts, meta, None)
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    found = await store.head("k")
    assert found.checksums["sha256"] == f"{base64_of(hashlib.sha256(digests).digest())}-2"
    assert found.checksum_type == "COMPOSITE"


async def test_parts_without_a_checksum_of_ours(store, body):
    meta = replace(META, checksum=Checksum.NONE)
    multipart_id, receipts = await send(store, "k", [body(b"abc", Checksum.NONE)], meta)
    await store.complete_multipart("k", multipart_id, receipts, meta, None)
    assert await content(store, "k") == b"abc"


async def test_a_part_sent_again_replaces_the_first(store, body):
    multipart_id, _ = await send(store, "k", [body(b"damaged")])
    again = await store.put_part("k", multipart_id, 1, body(b"whole"))
    await store.complete_multipart("k", multipart_id, [again], META, checksums.crc64nvme(b"whole"))
    assert await content(store, "k") == b"whole"


async def test_a_repeated_complete_is_replayed_or_unknown(store, body):
    multipart_id, receipts = await send(store, "k", [body(b"abc")])
    crc = checksums.crc64nvme(b"abc")
    made = await store.complete_multipart("k", multipart_id, receipts, META, crc)
    try:
        again = await store.complete_multipart("k", multipart_id, receipts, META, crc)
    except NoSuchMultipart:
        assert (await store.head("k")).etag == made.etag
    else:
        assert again.etag == made.etag


async def test_a_condition_protects_an_object_from_a_complete(store, body):
    await store.put_object("k", body(b"first"), META)
    meta = replace(META, if_none_match=True)
    multipart_id, receipts = await send(store, "k", [body(b"second")], meta)
    with pytest.raises(StorePrecondition):
        await store.complete_multipart("k", multipart_id, receipts, meta, checksums.crc64nvme(b"second"))
    assert await content(store, "k") == b"first"
    await store.delete("k")
    await store.complete_multipart("k", multipart_id, receipts, meta, checksums.crc64nvme(b"second"))
    assert await content(store, "k") == b"second"


async def test_a_part_with_a_wrong_crc64nvme_is_refused(store, body):
    multipart_id = await store.create_multipart("k", META)
    with pytest.raises(BadDigest):
        await store.put_part("k", multipart_id, 1, replace(body(b"abc"), crc64nvme=7))
    receipt = await store.put_part("k", multipart_id, 1, body(b"abc"))
    await store.complete_multipart("k", multipart_id, [receipt], META, checksums.crc64nvme(b"abc"))


async def test_a_part_with_a_wrong_sha256_is_refused(store, body):
    multipart_id = await store.create_multipart("k", replace(META, checksum=Checksum.SHA256))
    with pytest.raises(BadDigest):
        await store.put_part("k", multipart_id, 1, replace(body(b"abc", Checksum.SHA256), sha256=bytes(32)))


@pytest.mark.parametrize("size", [3, 1_000_000])
async def test_a_part_file_that_has_changed_never_becomes_a_part(store, body, size):
    meta = replace(META, checksum=Checksum.NONE)
    multipart_id = await store.create_multipart("k", meta)
    part = body(bytes(size), Checksum.NONE)
    with pytest.raises(SpoolError):
        await store.put_part("k", multipart_id, 1, replace(part, crc64nvme=7))
    assert await store.list_parts("k", multipart_id) == []
    receipt = await store.put_part("k", multipart_id, 1, part)
    await store.complete_multipart("k", multipart_id, [receipt], meta, None)
    assert await content(store, "k") == bytes(size)


async def test_a_part_without_a_place_is_refused(store, body):
    multipart_id = await store.create_multipart("k", META)
    with pytest.raises(StoreRefused):
        await store.put_part("k", multipart_id, 0, body(b"abc"))


async def test_a_part_with_another_kind_of_checksum_is_refused(store, body):
    multipart_id = await store.create_multipart("k", META)
    with pytest.raises(StoreRefused):
        await store.put_part("k", multipart_id, 1, body(b"abc", Checksum.SHA256))


async def test_a_wrong_checksum_of_the_whole_is_refused(store, body):
    multipart_id, receipts = await send(store, "k", [body(b"abc")])
    with pytest.raises(BadDigest):
        await store.complete_multipart("k", multipart_id, receipts, META, 7)
    assert await store.head("k") is None


async def test_parts_out_of_order_are_refused(store, body):
    data = full(store)
    multipart_id, receipts = await send(store, "k", [body(data), body(data)])
    with pytest.raises(InvalidPart):
        await store.complete_multipart("k", multipart_id, receipts[::-1], META, checksums.crc64nvme(data + data))


async def test_a_missing_part_is_refused(store, body):
    data = full(store)
    multipart_id, receipts = await send(store, "k", [body(data), body(data), body(data)])
    with pytest.raises(InvalidPart):
        await store.complete_multipart("k", multipart_id, receipts[::2], META, checksums.crc64nvme(data + data))


async def test_a_missing_last_part_is_refused(store, body):
    """By the checksum of the whole."""
    data = full(store)
    multipart_id, receipts = await send(store, "k", [body(data), body(b"the end")])
    with pytest.raises(BadDigest):
        await store.complete_multipart("k", multipart_id, receipts[:1], META, checksums.crc64nvme(data + b"the end"))
    assert await store.head("k") is None


async def test_a_part_that_is_named_twice_is_refused(store, body):
    data = full(store)
    multipart_id, (receipt,) = await send(store, "k", [body(data)])
    with pytest.raises((BadDigest, InvalidPart)):
        await store.complete_multipart("k", multipart_id, [receipt] * 2, META, checksums.crc64nvme(data + data))
    assert await store.head("k") is None


async def test_a_part_with_the_checksum_of_another_is_refused_at_the_end(store, body):
    multipart_id, (receipt,) = await send(store, "k", [body(b"abc")])
    with pytest.raises((BadDigest, InvalidPart)):
        await store.complete_multipart(
            "k", multipart_id, [replace(receipt, crc64nvme=7)], META, checksums.crc64nvme(b"abc")
        )
    assert await store.head("k") is None


async def test_a_part_with_the_sha256_of_another_is_refused_at_the_end(store, body):
    meta = replace(META, checksum=Checksum.SHA256)
    multipart_id, (receipt,) = await send(store, "k", [body(b"abc", Checksum.SHA256)], meta)
    with pytest.raises((BadDigest, InvalidPart)):
        await store.complete_multipart("k", multipart_id, [replace(receipt, sha256=bytes(32))], meta, None)


async def test_the_part_of_another_upload_is_refused(store, body):
    theirs, (receipt,) = await send(store, "k", [body(b"theirs")])
    ours, _ = await send(store, "k", [body(b"ours")])
    with pytest.raises(InvalidPart):
        await store.complete_multipart("k", ours, [receipt], META, receipt.crc64nvme)
    await store.complete_multipart("k", theirs, [receipt], META, receipt.crc64nvme)
    assert await content(store, "k") == b"theirs"


async def test_no_parts_are_no_object(store):
    multipart_id = await store.create_multipart("k", META)
    with pytest.raises(StoreRefused):
        await store.complete_multipart("k", multipart_id, [], META, 0)
    assert await store.head("k") is None


async def test_a_part_that_was_never_sent_is_refused(store, body):
    multipart_id, (receipt,) = await send(store, "k", [body(b"abc")])
    stale = replace(receipt, etag='"00000000000000000000000000000000"')
    with pytest.raises(InvalidPart):
        await store.complete_multipart("k", multipart_id, [stale], META, receipt.crc64nvme)


async def test_a_small_part_in_the_middle_is_refused(store, body):
    multipart_id, receipts = await send(store, "k", [body(b"abc"), body(b"def")])
    with pytest.raises(InvalidPart):
        await store.complete_multipart("k", multipart_id, receipts, META, checksums.crc64nvme(b"abcdef"))


async def test_a_wrong_size_is_refused(store, body):
    multipart_id, (receipt,) = await send(store, "k", [body(b"abc")])
    with pytest.raises(StoreRefused):
        await store.complete_multipart("k", multipart_id, [replace(receipt, size=4)], META, receipt.crc64nvme)


async def test_an_unknown_multipart_is_said_to_be_unknown(store, body):
    multipart_id, (receipt,) = await send(store, "k", [body(b"abc")])
    await store.abort_multipart("k", multipart_id)
    with pytest.raises(NoSuchMultipart):
        await store.list_parts("k", multipart_id)
    with pytest.raises(NoSuchMultipart):
        await store.complete_multipart("k", multipart_id, [receipt], META, receipt.crc64nvme)
    assert await store.head("k") is None


async def test_parts_of_an_aborted_multipart_are_refused(store, body):
    multipart_id = await store.create_multipart("k", META)
    await store.abort_multipart("k", multipart_id)
    with pytest.raises(NoSuchMultipart):
        await store.put_part("k", multipart_id, 1, body(b"abc"))


async def test_abort_may_be_repeated(store):
    multipart_id = await store.create_multipart("k", META)
    await store.abort_multipart("k", multipart_id)
    await store.abort_multipart("k", multipart_id)
    assert [found async for found in store.list_multiparts("k")] == []


async def test_parts_are_listed(store, body):
    multipart_id, receipts = await send(store, "k", [body(full(store)), body(b"the end")])
    again = await store.put_part("k", multipart_id, 1, body(full(store, b"fedcba9876543210")))
    listed = {(receipt.number, receipt.size, receipt.etag) for receipt in await store.list_parts("k", multipart_id)}
    assert listed >= {(receipt.number, receipt.size, receipt.etag) for receipt in (again, receipts[1])}


async def test_unfinished_multiparts_are_listed(store):
    made = {key: await store.create_multipart(key, META) for key in ("a/1", "a/2", "b/1")}
    found = {one.key: one async for one in store.list_multiparts("a/")}
    assert {key: one.multipart_id for key, one in found.items()} == {key: made[key] for key in ("a/1", "a/2")}
    assert all(abs(one.initiated - datetime.now(UTC)) < timedelta(minutes=1) for one in found.values())
    for key, multipart_id in made.items():
        await store.abort_multipart(key, multipart_id)


async def test_a_part_file_that_is_missing_or_short_is_not_the_stores_fault(store, body, tmp_path):
    multipart_id = await store.create_multipart("k", META)
    with pytest.raises(SpoolError):
        await store.put_part("k", multipart_id, 1, PartBody(tmp_path / "gone", 3, 0))
    with pytest.raises(SpoolError):
        await store.put_part("k", multipart_id, 1, replace(body(b"abc"), size=1_000_000))


# The fake's own ways


async def test_faults_meet_the_calls_they_were_made_for(body):
    store = FakeStore()
    store.fail("put_object", StoreThrottled, DROP)
    with pytest.raises(StoreThrottled):
        await store.put_object("k", body(b"abc"), META)
    assert store.objects == {}
    with pytest.raises(StoreUnavailable, match="the answer was lost"):
        await store.put_object("k", body(b"abc"), META)
    assert store.objects["k"].data == b"abc"
    assert store.calls["put_object"] == 2
    assert store.effects == [("put_object", "k", None)]


async def test_a_gate_holds_calls_until_it_is_released(body):
    store = FakeStore()
    gate = store.hold("put_object")
    puts = [asyncio.create_task(store.put_object(key, body(b"abc"), META)) for key in "ab"]
    await gate.reached(2)
    assert (store.objects, store.peak["put_object"]) == ({}, 2)
    gate.release()
    await asyncio.gather(*puts)
    assert set(store.objects) == {"a", "b"}


async def test_a_stale_listing_lacks_the_newest_and_keeps_the_overwritten(body):
    store = FakeStore(stale_listing=True)
    multipart_id, (first,) = await send(store, "k", [body(b"abc")])
    again = await store.put_part("k", multipart_id, 1, body(b"abc"))
    assert first.etag != again.etag
    assert await store.list_parts("k", multipart_id) == [first]
