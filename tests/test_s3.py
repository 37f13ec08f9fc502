"""What `S3Store` puts on the wire, and what it makes of what comes back; the server says whatever it is told."""

import asyncio
import base64
import hashlib
import json
import ssl
import threading
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from awscrt import checksums
from certificates import make_certificate
from wire import ALL, Wire, answer, deaf, error, reset, silent, store_at

from streamup import errors
from streamup.object_options import ObjectOptions, ObjectRules
from streamup.stores import NO_KEY, Checksum, ObjectMeta, PartBody, Receipt
from streamup.stores.bodies import PIECE_BYTES
from streamup.stores.part_reader import SLICE, PartReader
from streamup.stores.profiles import PROFILES, UNKNOWN, recognise
from streamup.stores.s3 import Deadlines

pytest_plugins = ["weed", "wire"]

META = ObjectMeta("token-1")
MIB = 1 << 20
SHORT = Deadlines(control=0.3, complete=0.3, part=0.3, bytes_per_second=1 << 40)


CREATED = "<InitiateMultipartUploadResult><UploadId>m</UploadId></InitiateMultipartUploadResult>"
COMPLETED = "<CompleteMultipartUploadResult><ETag>&quot;e&quot;</ETag>{}</CompleteMultipartUploadResult>"


@pytest.fixture
async def store(wire):
    async with store_at(wire) as opened:
        yield opened


@pytest.fixture
async def hasty(wire):
    """Deadlines of 0.3 s."""
    async with store_at(wire, deadlines=SHORT) as opened:
        yield opened


@pytest.fixture
def body(tmp_path):
    def make(data=b"abc", checksum=Checksum.CRC64NVME):
        path = tmp_path / "part"
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).digest() if checksum is Checksum.SHA256 else None
        return PartBody(path, len(data), checksums.crc64nvme(data), checksum, sha256)

    return make


def sparse(path, size):
    """A body of zeros that takes no time to make."""
    with path.open("wb") as file:
        file.truncate(size)
    return PartBody(path, size, 0)


def base64_of(digest):
    return base64.b64encode(digest).decode()


def crc_of(data):
    return base64_of(checksums.crc64nvme(data).to_bytes(8, "big"))


# What goes out


async def test_a_part_goes_out_as_it_is(store, wire, body):
    data = bytes(range(256)) * 3_000
    receipt = await store.put_part("kéy", "m", 3, body(data))
    (request,) = wire.requests
    assert (request.method, request.target) == ("PUT", "/bucket/some/prefix/k%C3%A9y?uploadId=m&partNumber=3")
    assert request.body == data
    assert request.headers["content-length"] == str(len(data))
    assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert request.headers["x-amz-checksum-crc64nvme"] == crc_of(data)
    assert request.headers.keys().isdisjoint({"expect", "transfer-encoding", "content-encoding", "content-md5"})
    assert receipt == Receipt(3, len(data), '"e"', checksums.crc64nvme(data))


async def test_a_sha256_goes_out_instead_where_it_was_asked_for(store, wire, body):
    await store.put_part("k", "m", 1, body(b"abc", Checksum.SHA256))
    headers = wire.requests[0].headers
    assert headers["x-amz-checksum-sha256"] == base64_of(hashlib.sha256(b"abc").digest())
    assert "x-amz-checksum-crc64nvme" not in headers


async def test_a_store_without_crc64nvme_gets_content_md5(store, wire, body):
    store.adopt(UNKNOWN)
    await store.put_part("k", "m", 1, body(b"abc"))
    await store.put_part("k", "m", 2, body(b"abc", Checksum.NONE))
    first, second = (request.headers for request in wire.requests)
    assert first["content-md5"] == base64_of(hashlib.md5(b"abc").digest())
    assert "x-amz-checksum-crc64nvme" not in first
    assert "content-md5" not in second


async def test_a_damaged_part_file_gets_no_content_md5(store, wire, body):
    store.adopt(UNKNOWN)
    with pytest.raises(errors.SpoolError, match="not what was received"):
        await store.put_part("k", "m", 1, replace(body(b"abc"), crc64nvme=7))
    assert wire.requests == []


@pytest.mark.parametrize("profile", [ALL, replace(UNKNOWN, content_md5=False)], ids=lambda profile: profile.name)
@pytest.mark.parametrize("size", [1, SLICE, SLICE + 1, 3 * SLICE + 5])
async def test_a_damaged_part_file_does_not_reach_a_store_that_would_not_notice(wire, body, profile, size):
    """Its last slice is missing, and the connection is cut; of one slice nothing is sent, not even the head."""
    checksum = Checksum.NONE if profile is ALL else Checksum.CRC64NVME
    arrived = asyncio.get_running_loop().create_future()

    async def count(reader, _):
        arrived.set_result(len(await reader.read(-1)))

    part = body(bytes(size), checksum)
    async with store_at(wire, profile=profile) as store:
        if size > SLICE:
            wire.answers.append(count)
        with pytest.raises(errors.SpoolError, match="not what was received"):
            await store.put_part("k", "m", 1, replace(part, crc64nvme=part.crc64nvme ^ 1))
        assert (await arrived if size > SLICE else len(wire.requests)) == (size - 1) // SLICE * SLICE
        await store.put_part("k", "m", 1, part)
    assert len(wire.requests[-1].body) == size


async def test_everything_about_the_object_is_said_at_creation(wire, body):
    meta = ObjectMeta(
        "token-1",
        content_type="video/mp4",
        content_encoding="gzip",
        content_disposition="attachment",
        cache_control="no-store",
        user={"title": "a%20film"},
    )
    options = ObjectOptions(
        sse="aws:kms",
        sse_kms_key_id="key-1",
        sse_kms_context=(("team", "vidéo"),),
        sse_bucket_key=True,
        storage_class="STANDARD_IA",
        acl="bucket-owner-read",
        tags=(("team", "a b/c"), ("x&y", "")),
        cache_control="for those who say nothing",
    )
    async with store_at(wire, objects=ObjectRules(options)) as store:
        wire.answers.append(answer(200, CREATED))
        assert await store.create_multipart("k", meta) == "m"
        await store.put_object("k", body(), meta)
    expected = {
        "content-type": "video/mp4",
        "content-encoding": "gzip",
        "content-disposition": "attachment",
        "cache-control": "no-store",
        "x-amz-meta-title": "a%20film",
        "x-amz-meta-streamup-token": "token-1",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-acl": "bucket-owner-read",
        "x-amz-tagging": "team=a%20b%2Fc&x%26y=",
    }
    created, put = (request.headers for request in wire.requests)
    assert expected.items() <= created.items()
    assert expected.items() <= put.items()
    assert (created["x-amz-checksum-algorithm"], created["x-amz-checksum-type"]) == ("CRC64NVME", "FULL_OBJECT")
    context = base64.b64decode(put["x-amz-server-side-encryption-context"])
    assert json.loads(context) == {"team": "vidéo"}
    assert context == base64.b64decode(created["x-amz-server-side-encryption-context"])


async def test_nothing_is_said_of_what_is_not_configured(store, wire, body):
    await store.put_object("k", body(), META)
    said = {name for name in wire.requests[0].headers if name.startswith("x-amz-")}
    assert said == {"x-amz-content-sha256", "x-amz-date", "x-amz-checksum-crc64nvme", "x-amz-meta-streamup-token"}


async def test_a_cache_control_of_the_clients_goes_before_the_configured_one(wire, body):
    rules = ObjectRules(ObjectOptions(cache_control="no-cache"), {"live/": {"cache_control": "max-age=1"}})
    async with store_at(wire, objects=rules) as store:
        await store.put_object("live/a", body(), META)
        await store.put_object("live/a", body(), replace(META, cache_control="no-store"))
        await store.put_object("a", body(), META)
    assert [request.headers["cache-control"] for request in wire.requests] == ["max-age=1", "no-store", "no-cache"]


SSE_C = ObjectRules(prefixes={"secret/": {"sse_c_key": bytes(range(32))}})
SSE_C_HEADERS = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": base64.b64encode(bytes(range(32))).decode(),
    "x-amz-server-side-encryption-customer-key-md5": "tP/LI3N87DFaSk0aoqYgzg==",
}
ATTRIBUTES = "<GetObjectAttributesResponse></GetObjectAttributesResponse>"


async def test_a_customers_key_goes_with_everything_about_its_objects(wire, body):
    async with store_at(wire, objects=SSE_C) as store:
        key, receipts = "secret/k", [Receipt(1, 3, '"e"', 7)]
        wire.answers.extend([answer(200, ETag='"e"'), answer(200, CREATED), answer(200, ETag='"e"')])
        await store.put_object(key, body(), META)
        await store.create_multipart(key, META)
        await store.put_part(key, "m", 1, body())
        wire.answers.extend([answer(200, "<ListPartsResult/>"), answer(200, COMPLETED.format(""))])
        assert await store.list_parts(key, "m") == []
        await store.complete_multipart(key, "m", receipts, META, 7)
        wire.answers.extend([answer(200, ETag='"e"')] * 2 + [answer(200, ATTRIBUTES)])
        await store.head(key)
        await store._ask("get_object", key)
        await store._ask("get_object_attributes", key, ObjectAttributes=["ObjectParts"])
        assert all(SSE_C_HEADERS.items() <= request.headers.items() for request in wire.requests)
        assert len(wire.requests) == 8
        await store.abort_multipart(key, "m")
        await store.delete(key)
        await store.put_object("k", body(), META)
    assert all(wire.headers.keys().isdisjoint(SSE_C_HEADERS) for wire in wire.requests[8:])


async def test_an_object_from_before_the_key_is_found_without_it(wire):
    wire.reply = lambda request: answer(400 if SSE_C_HEADERS.items() <= request.headers.items() else 200, ETag='"old"')
    async with store_at(wire, objects=SSE_C) as store:
        assert (await store.head("secret/k")).etag == '"old"'
        wire.reply = lambda _: answer(400)
        with pytest.raises(errors.CredentialsExpired, match="expired credentials, or an object that needs another key"):
            await store.head("secret/k")


async def test_a_missing_permission_is_not_taken_for_another_key(wire):
    """Whoever may not look must not conclude that the object is somebody else's."""
    wire.reply = lambda _: answer(403)
    async with store_at(wire, objects=SSE_C) as store:
        for key in ("secret/k", "k"):
            with pytest.raises(errors.AccessDenied):
                await store.head(key)
    assert [request.method for request in wire.requests] == ["HEAD"] * 3


async def test_an_object_whose_key_is_another_may_be_gone_by_the_second_look(wire):
    listing = "<ListBucketResult><Contents><Key>some/prefix/secret/k2</Key><Size>1</Size></Contents></ListBucketResult>"

    def reply(request):
        keyed = SSE_C_HEADERS.items() <= request.headers.items()
        return answer(200, listing) if request.method == "GET" else answer(403 if keyed else 400)

    wire.reply = reply
    async with store_at(wire, objects=SSE_C) as store:
        assert await store.head("secret/k") is None


async def test_an_upload_keeps_to_the_key_it_was_begun_with(wire, body):
    """Whatever is configured by now: it waits for another key to be put back, and goes on without one it never had."""
    changed = replace(META, sse_c_key_md5="another"), replace(body(), sse_c_key_md5="another")
    unkeyed = replace(META, sse_c_key_md5=NO_KEY), replace(body(), sse_c_key_md5=NO_KEY)
    async with store_at(wire, objects=SSE_C) as store:
        for key in ("secret/k", "k"):
            for call in (
                store.create_multipart(key, changed[0]),
                store.put_part(key, "m", 1, changed[1]),
                store.complete_multipart(key, "m", [Receipt(1, 3, '"e"', 7)], changed[0], 7),
            ):
                with pytest.raises(errors.AccessDenied, match=r"begun with another key for SSE-C.*cancel the upload"):
                    await call
        assert wire.requests == []
        wire.answers.extend([answer(200, CREATED), answer(200, ETag='"e"'), answer(200, COMPLETED.format(""))])
        await store.create_multipart("secret/k", unkeyed[0])
        await store.put_part("secret/k", "m", 1, unkeyed[1])
        await store.complete_multipart("secret/k", "m", [Receipt(1, 3, '"e"', 7)], unkeyed[0], 7)
    assert all(request.headers.keys().isdisjoint(SSE_C_HEADERS) for request in wire.requests)


async def test_an_object_under_another_key_may_be_that_of_an_upload_which_was_begun_with_another(wire):
    """PutObject may have taken effect before the key was replaced. Who is asked for such an upload does not guess."""
    listing = "<Contents><Key>some/prefix/secret/k</Key><Size>1</Size><ETag>e</ETag></Contents>"

    def reply(request):
        keyed = SSE_C_HEADERS.items() <= request.headers.items()
        found = answer(200, f"<ListBucketResult>{listing}</ListBucketResult>")
        return found if request.method == "GET" else answer(403 if keyed else 400)

    wire.reply = reply
    async with store_at(wire, objects=SSE_C) as store:
        with pytest.raises(errors.AccessDenied, match="begun with another key for SSE-C"):
            await store.head("secret/k", "another")
        for own in (None, NO_KEY, SSE_C_HEADERS["x-amz-server-side-encryption-customer-key-md5"]):
            assert (await store.head("secret/k", own)).etag == "e"


@pytest.mark.parametrize("source", ["option", "environment"])
async def test_a_customers_key_is_not_sent_in_the_clear(monkeypatch, source):
    if source == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio:9000")
    url = "http://minio:9000" if source == "option" else None
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(errors.ConfigError, match="in the clear to http://minio:9000"):
        async with store_at(Wire(), objects=SSE_C, endpoint_url=url):
            pass
    async with store_at(Wire(), objects=SSE_C, endpoint_url="https://minio:9000"):
        pass


async def test_a_complete_carries_all_that_the_store_can_compare(store, wire):
    wire.answers.append(answer(200, COMPLETED.format("")))
    receipts = [Receipt(1, 5, '"e1"', 1), Receipt(2, 2, '"e2"', 2)]
    await store.complete_multipart("k", "m", receipts, replace(META, if_none_match=True), 7)
    headers, text = wire.requests[0].headers, wire.requests[0].body.decode()
    expected = {
        "if-none-match": "*",
        "x-amz-mp-object-size": "7",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAc=",
        "x-amz-checksum-type": "FULL_OBJECT",
    }
    assert expected.items() <= headers.items()
    for checksum, number in (("AAAAAAAAAAE=", 1), ("AAAAAAAAAAI=", 2)):
        assert f"<ChecksumCRC64NVME>{checksum}</ChecksumCRC64NVME>" in text
        assert f"<PartNumber>{number}</PartNumber>" in text


async def test_what_the_store_would_ignore_is_not_asked_of_it(store, wire, body):
    store.adopt(UNKNOWN)
    assert not store.conditional_writes
    assert store.checksums == {Checksum.CRC64NVME, Checksum.NONE}
    with pytest.raises(errors.StoreRefused, match="If-None-Match"):
        await store.put_object("k", body(), replace(META, if_none_match=True))
    with pytest.raises(errors.StoreRefused, match="SHA-256"):
        await store.create_multipart("k", replace(META, checksum=Checksum.SHA256))
    assert wire.requests == []


async def test_what_is_purged_is_one_key_and_all_of_it(store, wire):
    """A listing is by prefix, and has pages."""

    def version(kind, key, number):
        return f"<{kind}><Key>some/prefix/{key}</Key><VersionId>{number}</VersionId></{kind}>"

    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>1</NextVersionIdMarker>"
    pages = {
        False: version("Version", "k", 1) + version("DeleteMarker", "k", 2) + more,
        True: version("Version", "k", 3) + version("Version", "k/sibling", 4) + version("DeleteMarker", "k2", 5),
    }

    def reply(request):
        if request.method == "DELETE":
            return answer(204, **{"x-amz-version-id": "9"})
        page = pages["key-marker=k&version-id-marker=1" in request.target]
        return answer(200, f"<ListVersionsResult>{page}</ListVersionsResult>")

    wire.reply = reply
    assert await store.purge("k")
    removed = [request.target.removeprefix("/bucket/some/prefix/") for request in wire.requests]
    assert [target for target in removed if "versionId" in target] == [f"k?versionId={number}" for number in (1, 2, 3)]


async def test_a_presigned_url_names_the_public_endpoint(wire):
    async with store_at(wire, public_endpoint_url="https://files.example") as store:
        url = await store.presign_get("k", 60)
    assert url.startswith("https://files.example/bucket/some/prefix/k?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert "X-Amz-Expires=60" in url
    assert wire.requests == []


async def test_memory_does_not_grow_with_the_part(store, wire, tmp_path):
    async def swallow(reader, writer):
        left = 64 * MIB
        while left:
            left -= len(await reader.read(min(left, MIB)))
        writer.write(answer(200, ETag='"e"'))

    await store.put_part("k", "m", 1, sparse(tmp_path / "small", 1))
    wire.answers.append(swallow)
    tracemalloc.start()
    await store.put_part("k", "m", 2, sparse(tmp_path / "large", 64 * MIB))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


async def test_a_part_that_is_not_in_the_page_cache_is_read_in_threads(store, wire, body, monkeypatch):
    monkeypatch.setattr(PartReader, "_cached", lambda *_: False)
    data = bytes(range(256)) * 3_000
    await store.put_part("k", "m", 1, body(data))
    assert wire.requests[0].body == data


@pytest.mark.parametrize("profile", [ALL, UNKNOWN])
async def test_a_part_file_that_is_gone_or_short_is_not_the_stores_fault(store, body, tmp_path, profile):
    store.adopt(profile)
    with pytest.raises(errors.SpoolError):
        await store.put_part("k", "m", 1, PartBody(tmp_path / "gone", 3, 0))
    with pytest.raises(errors.SpoolError):
        await store.put_part("k", "m", 1, replace(body(b"abc"), size=MIB))


async def test_a_part_file_that_goes_away_while_it_is_sent_is_not_the_stores_fault(store, body, monkeypatch):
    def vanish(reader, _):
        reader._path.unlink(missing_ok=True)
        return False

    monkeypatch.setattr(PartReader, "_cached", vanish)
    with pytest.raises(errors.SpoolError, match="cannot be read"):
        await store.put_part("k", "m", 1, body())


async def test_a_part_can_be_read_again_from_its_beginning(body):
    """botocore rewinds it to follow a redirect to the bucket's region."""
    with PartReader(body(b"abc")) as reader:
        for _ in range(2):
            assert [data async for data in reader] == [b"abc"]
            assert reader.seek(0) == reader.tell() == 0


def test_where_the_system_cannot_tell_what_is_cached_a_thread_reads(body, monkeypatch):
    monkeypatch.delattr("os.RWF_NOWAIT", raising=False)
    with PartReader(body()) as reader:
        assert not reader._cached(0)


# Deadlines


@pytest.mark.parametrize("behaviour", [silent, deaf])
async def test_a_part_is_given_up_at_its_deadline(hasty, wire, tmp_path, behaviour):
    wire.answers.append(behaviour)
    async with asyncio.timeout(5):
        with pytest.raises(errors.StoreUnavailable, match="no answer within"):
            await hasty.put_part("k", "m", 1, sparse(tmp_path / "part", 64 * MIB))


async def test_every_other_call_is_given_up_at_its_deadline(hasty, wire):
    calls = [hasty.head("k"), hasty.create_multipart("k", META), hasty.complete_multipart("k", "m", [], META, 0)]
    wire.answers.extend([silent] * len(calls))
    async with asyncio.timeout(5):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [errors.StoreUnavailable] * len(calls)


def test_a_part_gets_time_for_its_bytes():
    assert Deadlines().of(PartBody(None, 0, 0)) == 15
    assert Deadlines().of(PartBody(None, 8 * MIB, 0)) == 15 + 128


async def test_parts_do_not_hold_up_an_abort(wire, body):
    arrived = asyncio.Event()

    async def stuck(reader, writer):
        arrived.set()
        await silent(reader, writer)

    async with store_at(wire, parallel_parts=1) as store:
        wire.answers.append(stuck)
        part = asyncio.create_task(store.put_part("k", "m", 1, body()))
        await arrived.wait()
        await store.abort_multipart("k", "m")
        part.cancel()
        with pytest.raises(asyncio.CancelledError):
            await part


# What comes back

REFUSALS = [
    (500, "InternalError", errors.StoreUnavailable),
    (503, "SlowDown", errors.StoreThrottled),
    (400, "ThrottlingException", errors.StoreThrottled),
    (400, "KMS.ThrottlingException", errors.StoreThrottled),
    (503, "ErrTooManyRequest", errors.StoreThrottled),
    (429, "Whatever", errors.StoreThrottled),
    (400, "RequestTimeout", errors.StoreUnavailable),
    (400, "ExpiredToken", errors.CredentialsExpired),
    (403, "RequestTimeTooSkewed", errors.CredentialsExpired),
    (403, "AccessDenied", errors.AccessDenied),
    (403, "SignatureDoesNotMatch", errors.AccessDenied),
    (404, "NoSuchUpload", errors.NoSuchMultipart),
    (404, "NoSuchKey", errors.NoSuchObject),
    (404, "NoSuchBucket", errors.StoreUnavailable),
    (400, "InvalidPart", errors.InvalidPart),
    (400, "InvalidPartOrder", errors.InvalidPart),
    (400, "EntityTooSmall", errors.InvalidPart),
    (400, "BadDigest", errors.BadDigest),
    (400, "XAmzContentSHA256Mismatch", errors.BadDigest),
    (412, "PreconditionFailed", errors.StorePrecondition),
    (409, "ConditionalRequestConflict", errors.StoreConflict),
    (501, "NotImplemented", errors.StoreRefused),
    (400, "MalformedXML", errors.StoreRefused),
]


async def test_a_refusal_has_a_name(store, wire, body):
    part = body()
    for number, (status, code, kind) in enumerate(REFUSALS, start=1):
        wire.answers.append(answer(status, error(code)))
        with pytest.raises(errors.StoreError) as caught:
            await store.put_part("k", "m", 1, part)
        assert (type(caught.value), caught.value.status, caught.value.code) == (kind, status, code)
        assert len(wire.requests) == number, "one attempt: when to try again is the uploader's decision"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (error("InternalError"), errors.StoreUnavailable),
        (error("InvalidPart"), errors.InvalidPart),
        (COMPLETED.format("")[:40], errors.StoreUnavailable),
        ("      ", errors.StoreUnavailable),
        ("<html>a proxy's own page</html>", errors.StoreUnavailable),
    ],
)
async def test_a_200_is_no_success_by_itself(store, wire, text, kind):
    wire.answers.append(answer(200, text))
    with pytest.raises(errors.StoreError) as caught:
        await store.complete_multipart("k", "m", [Receipt(1, 3, '"e"', 7)], META, 7)
    assert type(caught.value) is kind


async def test_an_answer_that_breaks_off_is_none(store, wire):
    async def cut(_, writer):
        writer.write(answer(200, COMPLETED.format(""))[:-10])
        writer.close()

    wire.answers.append(cut)
    with pytest.raises(errors.StoreUnavailable):
        await store.complete_multipart("k", "m", [Receipt(1, 3, '"e"', 7)], META, 7)


async def test_a_reset_is_no_answer(store, wire):
    wire.answers.extend([reset, reset])
    with pytest.raises(errors.StoreUnavailable):
        await store.head("k")
    assert len(wire.requests) == 2, "aiohttp itself repeats what is idempotent, a HEAD for example"


@pytest.mark.parametrize("size", [0, 1, 16 * MIB])
async def test_a_put_is_never_repeated_behind_our_back(store, wire, tmp_path, size):
    """A second PutObject could replace a newer object. aiohttp would repeat it, were the body not used up."""
    wire.answers.append(reset)
    with pytest.raises(errors.StoreUnavailable):
        await store.put_object("k", sparse(tmp_path / "part", size), META)
    assert len(wire.requests) == 1


async def test_nobody_there_is_no_answer(body):
    async with store_at(Wire("http://127.0.0.1:9")) as store:
        with pytest.raises(errors.StoreUnavailable):
            await store.put_part("k", "m", 1, body())


async def test_an_answer_without_an_etag_is_none(store, wire, body):
    wire.answers.append(answer(200))
    with pytest.raises(errors.StoreUnavailable, match="lacks ETag"):
        await store.put_part("k", "m", 1, body())


async def test_another_checksum_than_ours_is_an_error_although_the_store_says_200(store, wire, body):
    wire.answers.append(answer(200, ETag='"e"', x_amz_checksum_crc64nvme="AAAAAAAAAAA="))
    with pytest.raises(errors.BadDigest):
        await store.put_part("k", "m", 1, body())
    wire.answers.append(answer(200, COMPLETED.format("<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>")))
    with pytest.raises(errors.BadDigest):
        await store.complete_multipart("k", "m", [Receipt(1, 3, '"e"', 7)], META, 7)
    wire.answers.append(answer(200, COMPLETED.format("<ChecksumSHA256>another-1</ChecksumSHA256>")))
    receipts = [Receipt(1, 3, '"e"', None, bytes(32))]
    with pytest.raises(errors.BadDigest):
        await store.complete_multipart("k", "m", receipts, replace(META, checksum=Checksum.SHA256), None)


async def test_what_s3_does_not_allow_is_refused_before_it_is_sent(store, wire):
    with pytest.raises(errors.StoreRefused, match=r"[Nn]on ascii"):
        await store.create_multipart("k", replace(META, user={"title": "Café"}))
    assert wire.requests == []


async def test_head_tells_absent_from_forbidden(store, wire):
    wire.answers.extend([answer(404), answer(403)])
    assert await store.head("k") is None
    with pytest.raises(errors.AccessDenied):
        await store.head("k")


async def test_ready_says_what_is_wrong(store, wire):
    wire.answers.extend([answer(404), answer(403), answer(503)])
    with pytest.raises(errors.StoreUnavailable, match="no bucket 'bucket'"):
        await store.ready()
    with pytest.raises(errors.AccessDenied):
        await store.ready()
    with pytest.raises(errors.StoreThrottled):
        await store.ready()


async def test_listings_are_read_to_their_last_page(store, wire):
    page = (
        "<ListPartsResult><IsTruncated>{}</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"
        "<Part>{}</Part></ListPartsResult>"
    )
    part = "<PartNumber>{}</PartNumber><Size>5</Size><ETag>e</ETag><ChecksumCRC64NVME>AAAAAAAAAAc=</ChecksumCRC64NVME>"
    wire.answers.append(answer(200, page.format("true", part.format(1))))
    wire.answers.append(answer(200, page.format("false", part.format(2))))
    assert await store.list_parts("k", "m") == [Receipt(1, 5, "e", 7), Receipt(2, 5, "e", 7)]
    assert "part-number-marker=1" in wire.requests[1].target

    page = (
        "<ListMultipartUploadsResult><IsTruncated>{}</IsTruncated><NextKeyMarker>some/prefix/a</NextKeyMarker>"
        "<NextUploadIdMarker>m1</NextUploadIdMarker><Upload><Key>some/prefix/{}</Key><UploadId>m</UploadId>"
        "<Initiated>2026-11-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"
    )
    wire.answers.extend([answer(200, page.format("true", "a")), answer(200, page.format("false", "b"))])
    assert [found.key async for found in store.list_multiparts("")] == ["a", "b"]
    assert "key-marker=some%2Fprefix%2Fa" in wire.requests[3].target
    assert "upload-id-marker=m1" in wire.requests[3].target


async def test_after_a_cancelled_part_the_next_one_is_whole(wire, body, tmp_path):
    arrived = asyncio.Event()

    async def half(reader, _):
        await reader.readexactly(MIB)
        arrived.set()
        await reader.readexactly(1 << 40)

    async with store_at(wire, parallel_parts=1) as store:
        wire.answers.append(half)
        part = asyncio.create_task(store.put_part("k", "m", 1, sparse(tmp_path / "large", 64 * MIB)))
        await arrived.wait()
        part.cancel()
        with pytest.raises(asyncio.CancelledError):
            await part
        await store.put_part("k", "m", 2, body(b"abc"))
    assert wire.requests[-1].body == b"abc"


# Credentials


async def test_expired_credentials_are_fetched_anew(wire, body, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    async with store_at(wire, access_key=None, secret_key=None) as store:
        wire.answers.append(answer(400, error("ExpiredToken")))
        with pytest.raises(errors.CredentialsExpired):
            await store.put_part("k", "m", 1, body())
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        await store.put_part("k", "m", 1, body())
    assert ["Credential=old/" in request.headers["authorization"] for request in wire.requests] == [True, False]
    assert "Credential=new/" in wire.requests[1].headers["authorization"]


async def test_no_credentials_are_like_wrong_ones(wire, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with store_at(wire, access_key=None, secret_key=None) as store:
        with pytest.raises(errors.AccessDenied) as caught:
            await store.head("k")
    assert caught.value.code == "NoCredentials"
    assert wire.requests == []


async def test_credentials_that_cannot_be_fetched_now_are_asked_for_again(wire, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with store_at(wire, access_key=None, secret_key=None) as store:
        with pytest.raises(errors.CredentialsExpired):
            await store.head("k")
    assert wire.requests == []


# Reading


async def pieces(store, start=0, end=6, etag='"e"'):
    taken = bytearray()
    await store.read("k", start, end, etag, taken.extend)
    return taken


def span(body, start=0, size=100, **fields):
    return answer(206, body, ETag='"e"', Content_Range=f"bytes {start}-{start + len(body) - 1}/{size}", **fields)


async def test_a_read_asks_for_its_span_of_its_object(store, wire):
    wire.answers.append(span("abcdef", 10))
    assert await pieces(store, 10, 16) == b"abcdef"
    (request,) = wire.requests
    assert (request.headers["range"], request.headers["if-match"]) == ("bytes=10-15", '"e"')


async def test_a_whole_object_is_no_answer_for_a_span(store, wire):
    wire.reply = lambda _: answer(200, "abcdef", ETag='"e"')
    assert await pieces(store, 0, 6) == b"abcdef"
    for start, end in ((0, 5), (1, 6)):
        with pytest.raises(errors.StoreRefused):
            await pieces(store, start, end)


async def test_another_object_is_noticed_where_the_store_ignores_if_match(store, wire):
    wire.answers.append(span("abcdef"))
    with pytest.raises(errors.StorePrecondition):
        await pieces(store, etag='"f"')


async def test_bytes_that_end_early_or_stay_away_ask_for_another_attempt(wire):
    async def short(_, writer):
        writer.write(span("abcdef").removesuffix(b"def"))
        writer.close()

    async def stalled(reader, writer):
        writer.write(span("abcdef").removesuffix(b"def"))
        await silent(reader, writer)

    wire.answers += [short, stalled, error_at(403, "AccessDenied"), error_at(503, "SlowDown")]
    unavailable = errors.StoreUnavailable
    kinds = [(unavailable, b"abc"), (unavailable, b""), (errors.AccessDenied, b""), (errors.StoreThrottled, b"")]
    async with store_at(wire, deadlines=Deadlines(stall=0.2)) as store:
        for kind, came in kinds:
            taken = bytearray()
            with pytest.raises(kind):
                await store.read("k", 0, 6, '"e"', taken.extend)
            assert taken == came


async def test_pieces_end_where_the_blocks_of_a_file_do(store, wire):
    wire.answers.append(span("x" * (PIECE_BYTES + 30), PIECE_BYTES - 10))
    sizes = []
    await store.read("k", PIECE_BYTES - 10, 2 * PIECE_BYTES + 20, '"e"', lambda piece: sizes.append(len(piece)))
    assert sizes == [10, PIECE_BYTES, 20]


async def test_who_leaves_a_read_does_not_wait_for_the_store(wire):
    """It may be silent before its answer, or within a body. No thread takes anything afterwards, nor stays."""
    arrived, taken = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def unanswered(reader, writer):
        arrived.set()
        await silent(reader, writer)

    async def stalled(reader, writer):
        writer.write(span("x" * 2 * PIECE_BYTES).removesuffix(b"x" * (PIECE_BYTES // 2)))
        await silent(reader, writer)

    wire.answers += [unanswered, stalled]
    async with store_at(wire) as store:
        for reached in (arrived, taken):
            notice = partial(loop.call_soon_threadsafe, taken.set)
            reading = asyncio.create_task(store.read("k", 0, 2 * PIECE_BYTES, '"e"', lambda _, notice=notice: notice()))
            async with asyncio.timeout(5):
                await reached.wait()
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
        await wire.end()
    async with asyncio.timeout(5):
        while [thread for thread in threading.enumerate() if thread.name == "body"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_takes_the_bytes_may_end_the_reading(store, wire):
    def full(_):
        raise errors.TransferError("No space left")

    wire.answers.append(span("abcdef"))
    with pytest.raises(errors.TransferError, match="No space left"):
        await store.read("k", 0, 6, '"e"', full)


async def test_reads_trust_the_authority_that_is_configured(tmp_path, monkeypatch):
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    wire, closed = Wire(reply=lambda _: span("abcdef")), asyncio.Event()

    async def serve(reader, writer):
        await wire.serve(reader, writer)
        with suppress(OSError):
            await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    wire.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with store_at(wire) as store:
        with pytest.raises(errors.StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await pieces(store)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    async with store_at(wire) as store:
        assert await pieces(store) == b"abcdef"
        assert await pieces(store) == b"abcdef"
    assert len(wire.connections) == 1, "it is kept from one read to the next"
    async with asyncio.timeout(5):
        await closed.wait()
    server.close()


async def test_reads_go_by_the_proxy_that_is_configured(wire, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", wire.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    wire.answers.append(span("abcdef"))
    async with store_at(wire, endpoint_url="http://store.example") as store:
        assert await pieces(store) == b"abcdef"
    assert wire.requests[0].target == "http://store.example/bucket/some/prefix/k"


def error_at(status, code):
    return answer(status, error(code))


def listed(parts, *, more=False, total=3):
    """GetObjectAttributes."""
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ChecksumSHA256>{value}</ChecksumSHA256></Part>"
        for number, size, value in parts
    )
    next_marker = f"<NextPartNumberMarker>{parts[-1][0]}</NextPartNumberMarker>" if more else ""
    truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>{next_marker}"
    told = f"<ObjectParts><PartsCount>{total}</PartsCount>{truncated}{rows}</ObjectParts>"
    return answer(200, f"<GetObjectAttributesResponse>{told}</GetObjectAttributesResponse>")


def head_of(size, count=3):
    return answer(206, "x" * size, ETag='"e"', **({"x-amz-mp-parts-count": count} if count else {}))


async def test_parts_are_listed_page_by_page_with_their_checksums(store, wire):
    wire.answers += [head_of(5), listed([(1, 5, "AA=="), (2, 5, "BB==")], more=True), listed([(3, 1, "CC==")])]
    parts = await store.parts_of("k")
    assert [(part.number, part.size, part.checksums) for part in parts] == [
        (1, 5, {"sha256": "AA=="}),
        (2, 5, {"sha256": "BB=="}),
        (3, 1, {"sha256": "CC=="}),
    ]
    assert [request.method for request in wire.requests] == ["HEAD", "GET", "GET"]
    assert wire.requests[2].headers["x-amz-part-number-marker"] == "2"


@pytest.mark.parametrize(
    "refused",
    [
        error_at(403, "AccessDenied"),
        error_at(501, "NotImplemented"),
        answer(200, "the object itself"),
        listed([(1, 5, "AA==")]),
        listed([]),
    ],
)
async def test_parts_that_are_not_all_listed_are_asked_for_one_by_one(store, wire, refused):
    wire.answers += [head_of(5), refused]
    sizes = {"1": 5, "2": 4, "3": 3}
    wire.reply = lambda request: head_of(sizes[request.target.rpartition("=")[2]])
    assert [(part.number, part.size) for part in await store.parts_of("k")] == [(1, 5), (2, 4), (3, 3)]


@pytest.mark.parametrize("reply", [head_of(5, count=None), error_at(416, ""), error_at(400, ""), error_at(403, "")])
async def test_a_store_that_tells_no_parts_is_not_asked_further(store, wire, reply):
    wire.reply = lambda _: reply
    assert await store.parts_of("k") is None
    assert {request.method for request in wire.requests} == {"HEAD"}  # on 400 botocore itself asks for the region


async def test_an_object_of_one_part_needs_no_list(store, wire):
    wire.answers.append(head_of(5, count=1))
    assert [(part.number, part.size) for part in await store.parts_of("k")] == [(1, 5)]
    assert len(wire.requests) == 1


async def test_parts_that_cannot_be_asked_for_now_are_not_unknown(store, wire):
    wire.answers.append(error_at(503, ""))
    with pytest.raises(errors.StoreThrottled):
        await store.parts_of("k")


# Profiles


@pytest.mark.parametrize(
    ("server", "host", "name"),
    [
        ("AmazonS3", "s3.eu-central-1.amazonaws.com", "aws"),
        ("AmazonS3", "bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", "aws"),
        ("SeaweedFS 8000GB 4.48", "127.0.0.1", "seaweedfs"),
        ("cloudflare", "abc.r2.cloudflarestorage.com", "r2"),
        ("UploadServer", "storage.googleapis.com", "gcs"),
        ("nginx", "s3.us-west-004.backblazeb2.com", "b2"),
        ("MinIO", "minio", "minio"),
        ("nginx", "notamazonaws.com", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_a_store_is_recognised(server, host, name):
    assert recognise(server, host).name == name


def test_profiles_have_names_of_their_own():
    assert len({profile.name for profile in PROFILES}) == len(PROFILES)
