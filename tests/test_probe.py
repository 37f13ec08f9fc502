"""The start-up probe: what it finds in real stores, what it leaves behind (nothing), and when it refuses to start."""

from dataclasses import replace

import pytest
from moto.server import ThreadedMotoServer
from process import prefix_of, until
from store_proxy import HELD_SECONDS, Fault, on
from wire import answer, error, store_at

from streamup import errors
from streamup.object_options import ObjectRules
from streamup.stores import StoreLimits
from streamup.stores.experiments import MARK
from streamup.stores.probe import _shortcomings, probe
from streamup.stores.profiles import BOTH, UNKNOWN, recognise
from streamup.stores.s3 import S3Store

pytest_plugins = ["weed", "process", "store_proxy", "wire"]


async def left_behind(store):
    return [found.key async for found in store.list_multiparts("")]


async def test_seaweedfs_has_no_shortcomings(weed):
    async with weed.store("probe") as store:
        assert store.profile is UNKNOWN
        assert await probe(store, "name") == ()
        assert store.profile == recognise("SeaweedFS", "")
        assert store.conditional_writes
        assert store.limits.max_parts == 9_999
        assert await left_behind(store) == []


def test_what_a_start_that_died_meanwhile_has_left_is_removed_by_the_next_one(serve, bucket, store_proxy, tmp_path):
    """The object, and the multipart uploads: of the bucket, and of a prefix with options of its own."""
    options = tmp_path / "streamup.toml"
    options.write_text('[prefix."cold/"]\nstorage-class = "STANDARD"\n')
    server = serve(f"--config={options}")
    place = prefix_of(server)
    behind = server.store
    server.store = tuple(word.replace(bucket.endpoint_url, store_proxy.url) for word in behind)
    aborting = on("AbortMultipartUpload", Fault(wait=HELD_SECONDS), 2)
    store_proxy.rule = aborting
    server.spawn()
    until(lambda: store_proxy.seen["AbortMultipartUpload"] == 2)
    server.kill()
    (left,) = bucket.keys(place)
    assert left.startswith(MARK)
    assert {f"cold/{left}"} == set(bucket.multiparts(place))
    server.store = behind
    server.start()
    assert ([], []) == (bucket.keys(place), bucket.multiparts(place))


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
async def moto_store(moto):
    options = {"endpoint_url": moto, "access_key": "a", "secret_key": "b", "path_style": True}
    async with S3Store("probed", **options) as store:
        yield store


async def test_a_store_that_takes_checksums_but_does_not_compare_them_is_found_out(moto_store):
    await moto_store.create_bucket()
    first, second = await probe(moto_store, "name")
    assert "neither CRC64NVME nor Content-MD5" in first
    assert "SHA-256" in second
    assert moto_store.profile == replace(UNKNOWN, conditional_put=True, conditional_complete=True, content_md5=False)
    assert await left_behind(moto_store) == []


async def test_a_missing_bucket_refuses_the_start(weed):
    async with weed.store(bucket="no-such-bucket") as store:
        with pytest.raises(errors.ConfigError, match=r"no bucket 'no-such-bucket'.*Create it"):
            await probe(store, "name")


async def test_wrong_keys_refuse_the_start(weed):
    async with weed.store(secret_key="wrong") as store:
        with pytest.raises(errors.ConfigError, match="does not let these credentials in"):
            await probe(store, "name")
        assert store.profile is UNKNOWN


KINDS = {"x-amz-checksum-algorithm", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha256"}


def permitting(*operations):
    """Answers by what is asked for; everything but these operations is denied. It knows no checksum but Content-MD5."""
    by_request = {
        "HEAD bucket": answer(200),
        "HEAD key": answer(404),
        "GET uploads": answer(200, "<ListMultipartUploadsResult/>"),
        "PUT key": answer(200, ETag='"e"'),
        "POST uploads": answer(
            200, "<InitiateMultipartUploadResult><UploadId>m</UploadId></InitiateMultipartUploadResult>"
        ),
        "GET uploadId": answer(200, "<ListPartsResult/>"),
        "DELETE uploadId": answer(204),
        "DELETE key": answer(204),
        "PUT uploadId": answer(200, ETag='"p"'),
        "POST uploadId": answer(
            200, "<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
        ),
    }

    def reply(request):
        path, _, query = request.target.partition("?")
        name = query.partition("=")[0].partition("&")[0] or ("key" if path.count("/") > 1 else "bucket")
        name = name if f"{request.method} {name}" in by_request else "key"
        allowed = f"{request.method} {name}" in operations
        if allowed and KINDS & request.headers.keys():
            return answer(400, error("InvalidRequest"))
        return by_request[f"{request.method} {name}"] if allowed else answer(403, error("AccessDenied"))

    return reply


STEPS = [
    ("HEAD bucket", "s3:ListBucket"),
    ("HEAD key", "s3:GetObject and s3:ListBucket"),
    ("GET uploads", "s3:ListBucketMultipartUploads"),
    ("PUT key", "s3:PutObject"),
    ("POST uploads", "s3:PutObject"),
    ("PUT uploadId", "s3:PutObject"),
    ("GET uploadId", "s3:ListMultipartUploadParts"),
    ("DELETE uploadId", "s3:AbortMultipartUpload"),
    ("POST uploadId", "s3:PutObject"),
]


@pytest.mark.parametrize("missing", range(len(STEPS)), ids=[step for step, _ in STEPS])
async def test_a_missing_permission_is_named(wire, missing):
    wire.reply = permitting(*(step for step, _ in STEPS[:missing]))
    async with store_at(wire, profile=UNKNOWN) as store:
        with pytest.raises(errors.ConfigError, match=f"lack {STEPS[missing][1]} on bucket 'bucket'"):
            await probe(store, "name")


async def test_a_store_that_knows_only_content_md5(wire):
    allowed = permitting(*(step for step, _ in STEPS), "DELETE key")

    def reply(request):
        if request.headers.get("content-md5") == "AAAAAAAAAAAAAAAAAAAAAA==":
            return answer(400, error("BadDigest"))
        return answer(400, error("NotImplemented")) if "if-none-match" in request.headers else allowed(request)

    wire.reply = reply
    async with store_at(wire, profile=UNKNOWN) as store:
        sentences = await probe(store, "name")
        assert store.profile == UNKNOWN
    assert [" ".join(sentence.split()[:6]) for sentence in sentences] == [
        "This store does not check CRC64NVME:",
        "This store does not check SHA-256:",
        "This store does not honour If-None-Match:",
    ]
    assert "Content-MD5 instead" in sentences[0]


@pytest.mark.parametrize(("status", "code"), [(400, "InvalidStorageClass"), (403, "AccessDenied")])
async def test_a_prefix_whose_options_the_store_refuses_refuses_the_start(wire, status, code):
    allowed = permitting(*(step for step, _ in STEPS), "DELETE key")
    wire.reply = lambda request: answer(status, error(code)) if "cold" in request.target else allowed(request)
    rules = ObjectRules(prefixes={"warm/": {"acl": "private"}, "cold/": {"storage_class": "GLACIER"}})
    async with store_at(wire, profile=UNKNOWN, objects=rules) as store:
        with pytest.raises(errors.ConfigError, match=rf"an upload below cold/ .*prefix\.'cold/'.*{code}"):
            await probe(store, "name")
    created = [request for request in wire.requests if request.method == "POST" and "warm/.streamup-" in request.target]
    assert [request.headers["x-amz-acl"] for request in created] == ["private"]


def test_equal_parts_are_said():
    profile = replace(UNKNOWN, checksums=BOTH, limits=StoreLimits(equal_parts=True))
    assert any("--layout equal" in sentence for sentence in _shortcomings(profile))


async def test_what_may_not_be_deleted_is_named(wire):
    wire.reply = permitting(*(step for step, _ in STEPS))
    async with store_at(wire, profile=UNKNOWN) as store:
        *_, last = await probe(store, "name")
    assert last.startswith("The object some/prefix/.streamup-probe-")
    assert last.endswith("these credentials lack s3:DeleteObject.")


async def test_no_credentials_refuse_the_start(wire, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with store_at(wire, access_key=None, secret_key=None) as store:
        with pytest.raises(errors.ConfigError, match="There are no credentials"):
            await probe(store, "name")


async def test_a_store_that_is_down_is_not_a_mistake_in_the_configuration(wire):
    wire.reply = lambda _: answer(503, error("SlowDown"))
    async with store_at(wire, profile=UNKNOWN) as store:
        with pytest.raises(errors.StoreUnavailable):
            await probe(store, "name")
        assert store.profile is UNKNOWN


async def test_a_store_that_goes_down_meanwhile_keeps_its_profile(wire):
    allowed = permitting("HEAD bucket", "HEAD key", "GET uploads", "PUT key")
    wire.reply = lambda request: answer(500) if request.method == "POST" else allowed(request)
    async with store_at(wire, profile=UNKNOWN) as store:
        with pytest.raises(errors.StoreUnavailable):
            await probe(store, "name")
        assert store.profile is UNKNOWN
