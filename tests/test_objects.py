"""What goes with an object, from the configuration of a real server to what a real SeaweedFS has and does with it.

SeaweedFS 4.48 honours SSE-S3, SSE-C (over loopback without TLS), tags and storage classes; canned ACLs it takes and
forgets, and SSE-KMS it answers with 500 unless it has a KMS. What it does not honour is looked for on the wire
(`test_s3.py`).
"""

from __future__ import annotations

import base64
import json
import os

import pytest
from awscrt import checksums
from click.testing import CliRunner
from process import PART, Bucket, Server, content, curl, digest, prefix_of, until

from streamup.cli import main
from streamup.errors import CredentialsExpired
from streamup.object_options import ObjectRules
from streamup.stores import ObjectMeta, PartBody
from streamup.stores.probe import probe
from streamup.stores.profiles import PROFILES

pytest_plugins = ["weed", "process"]

KEY = bytes(range(32))
BASE64_KEY = base64.b64encode(KEY).decode()
WITH_KEY = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
RULES = ObjectRules(prefixes={"secret/": {"sse_c_key": KEY}, "cold/": {"storage_class": "GLACIER"}})
SEAWEEDFS = next(profile for profile in PROFILES if profile.name == "seaweedfs")

CONFIGURATION = f"""
tag = {{ team = "video" }}
cache-control = "no-cache"

[prefix."recordings/"]
storage-class = "STANDARD_IA"
sse = "AES256"
tag = {{ team = "live", "cost centre" = "7/8" }}
cache-control = "none"

[prefix."secret/"]
sse-c-key = "{BASE64_KEY}"
tag = {{}}
"""


def configured(serve, text: str, *options: str) -> Server:
    """A server that is started with this TOML file."""
    server = serve(*options)
    server.data.parent.mkdir(parents=True)
    file = server.data.with_suffix(".toml")
    file.write_text(text)
    server.options = (*server.options, f"--config={file}")
    return server


def described(bucket: Bucket, key: str, **secret: object) -> dict[str, object]:
    """What the store says of an object, asked without streamup."""
    found = bucket.client.head_object(Bucket=bucket.name, Key=key, **secret)
    tags = bucket.client.get_object_tagging(Bucket=bucket.name, Key=key)["TagSet"]
    return {
        "class": found.get("StorageClass", "STANDARD"),
        "encryption": found.get("ServerSideEncryption") or (found.get("SSECustomerAlgorithm") and "SSE-C"),
        "tags": {tag["Key"]: tag["Value"] for tag in tags},
        "cache": found.get("CacheControl"),
    }


def test_each_prefix_has_what_the_configuration_says(serve, bucket):
    server = configured(serve, CONFIGURATION, "--downloads").start()
    prefix = prefix_of(server)
    small, large = b"small", content(2 * PART + 7)
    expected = {
        "plain": {"class": "STANDARD", "encryption": None, "tags": {"team": "video"}, "cache": "no-cache"},
        "recordings/a": {
            "class": "STANDARD_IA",
            "encryption": "AES256",
            "tags": {"team": "live", "cost centre": "7/8"},
            "cache": None,
        },
        "secret/a": {"class": "STANDARD", "encryption": "SSE-C", "tags": {}, "cache": "no-cache"},
    }
    for key, description in expected.items():
        for name, data in ((key, small), (f"{key}-large", large)):
            answer = json.loads(curl("-f", "-T", "-", server.object(name), stdin=data).out)
            assert (answer["size"], "crc64nvme" in answer["checksum"]) == (len(data), True)
            secret = WITH_KEY if key == "secret/a" else {}
            assert described(bucket, prefix + name, **secret) == description
            got = bucket.client.get_object(Bucket=bucket.name, Key=prefix + name, **secret)
            assert digest(got["Body"].read()) == digest(data)
    with pytest.raises(bucket.client.exceptions.ClientError, match="must provide the customer key"):
        bucket.client.get_object(Bucket=bucket.name, Key=f"{prefix}secret/a-large")
    assert curl("-f", "-L", server.object("recordings/a")).out == small
    assert "x-amz-checksum-crc64nvme" in curl("-f", "-I", server.object("secret/a-large")).text.lower()
    refused = json.loads(curl(server.object("secret/a")).out)
    assert refused["status"] == 501
    assert "(SSE-C), and a redirect cannot carry that" in refused["detail"]


def test_a_customers_object_is_downloaded_and_verified_with_its_key(bucket, tmp_path):
    data = content(PART + 1)
    bucket.client.put_object(
        Bucket=bucket.name, Key="customers/a", Body=data, ChecksumAlgorithm="CRC64NVME", **WITH_KEY
    )
    place, file = f"s3://{bucket.name}/customers/a", tmp_path / "a"
    environ = {**bucket.environ, "STREAMUP_SSE_C_KEY": BASE64_KEY}
    runner = CliRunner(env={**environ, "STREAMUP_S3_ENDPOINT_URL": bucket.endpoint_url, "STREAMUP_S3_PATH_STYLE": "1"})
    wrong = base64.b64encode(bytes(32)).decode()
    refused = runner.invoke(main, ["get", place, str(file), "--sse-c-key", wrong])
    assert (refused.exit_code, file.exists()) == (1, False), refused.output
    got = runner.invoke(main, ["get", place, str(file)])
    assert (got.exit_code, digest(file.read_bytes())) == (0, digest(data)), got.output
    assert "crc64nvme" in got.output.lower()
    verified = runner.invoke(main, ["verify", str(file), place])
    assert verified.exit_code == 0, verified.output


@pytest.mark.campaign
def test_an_upload_waits_for_the_key_it_was_begun_with(serve, bucket):
    """After a restart with another key; SeaweedFS would make an object of parts under two keys. One that never had a
    key goes on without.
    """
    server = configured(serve, CONFIGURATION, "--store-timeout=100ms").start()
    unkeyed, keyed = content(2 * PART, 1), content(2 * PART, 2)
    keep = "?upload-complete=0"
    for key, data in (("secret/a", keyed), ("plain/a", unkeyed)):
        assert curl("-f", "-T", "-", server.object(key) + keep, stdin=data[: PART + 5]).code == 0
        until(lambda key=key: server.open_upload(key)["stored"] == PART, what="the first part in the store")
    server.stop()
    file = server.data.with_suffix(".toml")
    other = base64.b64encode(bytes(32)).decode()
    file.write_text(
        CONFIGURATION.replace(BASE64_KEY, other).replace("[prefix", f'[prefix.plain]\nsse-c-key="{other}"\n[prefix', 1)
    )
    server.start()
    on = ("-H", f"Content-Range: bytes {PART + 5}-*/*", "-T", "-")
    assert curl("-f", *on, server.object("plain/a"), stdin=unkeyed[PART + 5 :]).code == 0
    waiting = curl(
        "-f", "-w", "%{http_code}", "-o", os.devnull, *on, server.object("secret/a"), stdin=keyed[PART + 5 :]
    )
    assert waiting.text == "202"
    until(lambda: "begun with another key for SSE-C" in server.log, what="a word in the log")
    assert bucket.keys(prefix_of(server)) == ["plain/a"]
    server.stop()
    file.write_text(CONFIGURATION)
    server.start()
    until(lambda: "secret/a" in bucket.keys(prefix_of(server)), what="the object, once its key is back")
    got = bucket.client.get_object(Bucket=bucket.name, Key=f"{prefix_of(server)}secret/a", **WITH_KEY)
    assert digest(got["Body"].read()) == digest(keyed)


# -- the store ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def store(weed, request):
    async with weed.store(request.node.name, objects=RULES, profile=SEAWEEDFS) as opened:
        yield opened


@pytest.fixture
def body(tmp_path):
    def make(data: bytes) -> PartBody:
        path = tmp_path / str(len(data))
        path.write_bytes(data)
        return PartBody(path, len(data), checksums.crc64nvme(data))

    return make


META = ObjectMeta("token")


async def test_a_customers_key_on_a_real_store(store, weed, body):
    data = content(PART + 5)
    first, last = body(data[:PART]), body(data[PART:])
    multipart_id = await store.create_multipart("secret/a", META)
    receipts = [await store.put_part("secret/a", multipart_id, n, part) for n, part in ((1, first), (2, last))]
    assert {listed.number for listed in await store.list_parts("secret/a", multipart_id)} == {1, 2}
    whole = checksums.crc64nvme(data)
    made = await store.complete_multipart("secret/a", multipart_id, receipts, META, whole)
    found = await store.head("secret/a")
    assert (found.encryption, found.size, found.etag, found.token) == ("SSE-C", len(data), made.etag, "token")
    assert [part.size for part in await store.parts_of("secret/a")] == [PART, 5]
    taken = bytearray()
    await store.read("secret/a", 5, len(data), found.etag, taken.extend)
    assert taken == data[5:]
    async with weed.store(store.prefix, profile=SEAWEEDFS) as unkeyed:
        with pytest.raises(CredentialsExpired):
            await unkeyed.head("secret/a")


async def test_an_object_under_another_key_can_be_seen_and_replaced(store, weed, body):
    """Its HEAD is forbidden, and with that it would stand in the way of every upload once a key has been replaced."""
    old = await store.put_object("secret/a", body(b"old"), META)
    await store.put_object("secret/a2", body(b"another"), META)
    other = ObjectRules(prefixes={"secret/": {"sse_c_key": bytes(32)}})
    async with weed.store(store.prefix, objects=other, profile=SEAWEEDFS) as rotated:
        found = await rotated.head("secret/a")
        assert (found.size, found.etag, found.token, found.encryption) == (3, old.etag, None, "SSE-C")
        assert await rotated.head("secret/none") is None
        await rotated.put_object("secret/a", body(b"newer"), META)
        found = await rotated.head("secret/a")
        assert (found.size, found.token, found.encryption) == (5, "token", "SSE-C")


async def test_every_prefix_is_tried_at_the_start_and_nothing_stays_there(store):
    assert await probe(store, "name") == ()
    for prefix in RULES.prefixes:
        assert [found async for found in store.list_multiparts(prefix)] == []
