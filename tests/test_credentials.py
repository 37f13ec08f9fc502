"""Credentials that end while streams go on: found again wherever AWS keeps them, by one who asks for all, and no byte
is lost for as long as nobody can find any.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest
from awscrt import checksums
from front import Front
from process import CURL, PART, content, curl, digest, prefix_of, running, until

from streamup import errors
from streamup.object_options import ObjectOptions, ObjectRules
from streamup.stores import ObjectMeta, PartBody
from streamup.stores.profiles import PROFILES
from streamup.stores.s3 import S3Store

pytest_plugins = ["weed", "process", "front"]

SEAWEEDFS = next(profile for profile in PROFILES if profile.name == "seaweedfs")
META = ObjectMeta("token")
TOGETHER = 8
LONG = content(4 * PART + 12345)


ROLES = ["web identity", "instance", "container"]
everywhere = pytest.mark.parametrize("opened", ["file", *ROLES], indirect=True)
with_roles = pytest.mark.parametrize("opened", ROLES, indirect=True)


@pytest.fixture
async def opened(request, front: Front, weed, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in front.environ(request.param, tmp_path).items():
        monkeypatch.setenv(name, value)
    prefix = f"credentials/{request.param}"
    async with S3Store(weed.bucket, prefix, endpoint_url=front.url, path_style=True, profile=SEAWEEDFS) as store:
        yield store, request.param


@pytest.fixture
def body(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"abc")
    return PartBody(path, 3, checksums.crc64nvme(b"abc"))


def runs(pid: str) -> bool:
    with suppress(ProcessLookupError):
        os.kill(int(pid), 0)
        return True
    return False


@everywhere
async def test_of_many_that_are_refused_together_one_asks(opened, front, body, tmp_path):
    store, place = opened
    multipart_id = await store.create_multipart("a", META)

    async def put_all():
        parts = (store.put_part("a", multipart_id, number, body) for number in range(1, TOGETHER + 1))
        return await asyncio.gather(*parts, return_exceptions=True)

    front.good.clear()
    refused = await put_all()
    assert [type(error) for error in refused] == [errors.CredentialsExpired] * TOGETHER
    if place == "file":
        front.write(tmp_path)
    assert [part.number for part in await put_all()] == list(range(1, TOGETHER + 1))
    assert front.handed_out == 2
    assert len(front.refused) == TOGETHER
    url = await store.presign_get("a", 60)
    assert f"X-Amz-Security-Token=token-{front.handed_out}" in url


@everywhere
async def test_who_is_refused_late_does_not_take_away_what_others_have_found(opened, front, monkeypatch, tmp_path):
    store, place = opened
    monkeypatch.setattr("streamup.stores.s3.RENEW_SECONDS", 0)  # a HEAD is refused without a word
    await store.head("a")
    front.good.clear()
    late = asyncio.Event()

    async def refused_late():
        async with store._signed("head_object", 30):
            await store._chain.get_frozen_credentials()
            await late.wait()
            raise errors.CredentialsExpired("as the test wants it")

    waiting = asyncio.create_task(refused_late())
    with pytest.raises(errors.CredentialsExpired):
        await store.head("a")
    if place == "file":
        front.write(tmp_path)
    await store.head("a")
    late.set()
    with pytest.raises(errors.CredentialsExpired):
        await waiting
    await store.head("a")
    assert front.handed_out == 2


@with_roles
async def test_while_nobody_hands_any_out_one_asks_for_all_and_it_is_an_outage(opened, front, monkeypatch):
    store, place = opened
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    front.away = True
    for _ in range(2):
        before = front.asked
        answers = await asyncio.gather(*(store.head(str(key)) for key in range(TOGETHER)), return_exceptions=True)
        assert all(isinstance(error, errors.StoreUnavailable) for error in answers), answers
        assert front.asked - before <= (3 if place == "container" else 1), "the container's client asks three times"
    front.away = False
    assert await store.head("a") is None


@pytest.mark.parametrize("opened", ["web identity", "container"], indirect=True)
async def test_credentials_that_say_they_have_ended_are_none(opened, front):
    """A provider of botocore raises a `RuntimeError` then."""
    store, _ = opened
    front.lifetime = -front.lifetime
    with pytest.raises(errors.CredentialsExpired, match="still expired"):
        await store.head("a")
    front.lifetime = -front.lifetime
    assert await store.head("a") is None


@pytest.mark.parametrize("opened", ["file"], indirect=True)
async def test_a_search_that_never_returns_is_given_up_and_the_next_one_asks_anew(opened, monkeypatch, tmp_path):
    store, _ = opened
    monkeypatch.setattr("streamup.stores.credentials.SEARCH_SECONDS", 0.5)
    (tmp_path / "credentials").unlink()
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/asked\nexec sleep 600\n")
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\ncredential_process={program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for times in (1, 2):
        with pytest.raises(errors.CredentialsExpired, match=r"within 0\.5 s.*credential_process"):
            await store.head("a")
        asked = (tmp_path / "asked").read_text().split()
        assert len(asked) == times
    async with asyncio.timeout(5):  # nor do the programs stay
        while any(map(runs, asked)):  # noqa: ASYNC110 - the end of a process sets no event here
            await asyncio.sleep(0.02)
    program.write_text("""#!/bin/sh\necho '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"}'\n""")
    with pytest.raises(errors.CredentialsExpired, match="400"):  # the store's word: these are none it knows
        await store.head("a")


@pytest.mark.parametrize("opened", ["instance"], indirect=True)
async def test_an_object_from_before_a_customers_key_costs_no_search(opened, front, body):
    """A HEAD with the key that it does not need is answered 400 without a word, as if credentials had expired."""
    store, _ = opened
    await store.put_object("a", body, META)
    front.needs_no_key = True
    store.objects = ObjectRules(ObjectOptions(sse_c_key=bytes(32)))
    for _ in range(3):
        assert (await store.head("a")).size == body.size
    assert front.handed_out == 1


@pytest.mark.parametrize("opened", ["file"], indirect=True)
async def test_an_access_key_that_is_replaced_in_the_file_is_found(opened, front, monkeypatch, tmp_path):
    """One that never expires: the old one is not known any more, and a HEAD is answered 403 like any other."""
    store, _ = opened
    front.refusal = 403
    await store.head("a")
    front.good.clear()
    front.write(tmp_path)
    for _ in range(2):  # it may be about a permission: not with every refusal
        with pytest.raises(errors.AccessDenied):
            await store.head("a")
    monkeypatch.setattr("streamup.stores.s3.RENEW_SECONDS", 0)  # as if that time had passed
    with pytest.raises(errors.AccessDenied):
        await store.head("a")
    await store.head("a")


def asked(front: Front) -> set[str]:
    """What has been refused, by its method."""
    return {what.partition(" ")[0] for what in front.refused}


@pytest.mark.parametrize("place", ["file", pytest.param("web identity", marks=pytest.mark.campaign)])
def test_a_stream_outlives_its_credentials(serve, front, bucket, tmp_path, place):
    """They end while parts are on their way, and for a while nobody has others: parts are refused, then HEADs, which
    are answered without a word. All of it is sent again once there are new ones.
    """
    server = serve(f"--s3-endpoint-url={front.url}", "--store-timeout=100ms")
    found = {name: value for name, value in server.environ.items() if not name.startswith("AWS_")}
    server.environ = found | front.environ(place, tmp_path)
    server.start()
    front.revoke_after = 1
    front.away = True
    with running(CURL, "-sS", "-f", "-T", "-", server.object("long"), stdin=subprocess.PIPE) as sender:
        sender.stdin.write(LONG[:-PART])
        until(lambda: sum("partNumber" in what for what in front.refused) >= 2, what="refused parts")
        assert curl("-f", "-T", "-", server.object("short"), stdin=b"short").code == 0, "202: it is durable here"
        until(lambda: "HEAD" in asked(front) if place == "file" else front.asked > 5, what="more than one attempt")
        sender.stdin.write(LONG[-PART:])
        sender.stdin.close()
        assert sender.wait(30) == 0, "202 again"
    assert bucket.keys(prefix_of(server)) == []
    if place == "file":
        front.write(tmp_path)
    front.away = False
    mended = time.monotonic()
    until(lambda: set(bucket.keys(prefix_of(server))) == {"long", "short"}, what="both objects")
    sys.stdout.write(
        f"complete {time.monotonic() - mended:.2f} s after there were credentials; {len(front.refused)} refused\n"
    )
    assert digest(bucket.read(prefix_of(server) + "long")) == digest(LONG)
    stored = Counter(what.partition("partNumber=")[2] for what in front.passed_on if "partNumber" in what)
    assert stored.keys() == {str(number) for number in range(1, 6)}
    assert front.handed_out == 2
    assert [upload["state"] for upload in server.uploads("long")] == ["complete"]
