"""A bit that turns between the socket and the store never becomes an object: in the spool, and on the way to the store.

A real server, and a real SeaweedFS behind an address that can hold requests up and change their bodies.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_store import flipped
from process import MIB, Fresh, content, digest, prefix_of, until
from store_proxy import Fault, on, proxy_to

pytest_plugins = ["weed", "process"]

LARGE = content(7 * MIB)
SMALL = content(MIB, seed=1)
KINDS = {"put": ("HeadObject", "PutObject", SMALL), "multipart": ("CreateMultipartUpload", "UploadPart", LARGE)}
"""What the store is asked before any body goes there, by what the bodies go there, and the object."""

DAMAGED = re.compile("not (what was received|those that came off the socket)")
CHECKSUMS = ("crc64nvme", "sha256", "none")


@pytest.fixture(scope="module")
def proxy(bucket):
    with proxy_to(bucket.endpoint_url) as found:
        yield found


@pytest.fixture(scope="module")
def server(bucket, proxy, tmp_path_factory):
    """A server whose store is behind `proxy`."""
    fresh = Fresh(bucket, tmp_path_factory.mktemp("server"))
    made = fresh()
    made.store = tuple(word.replace(bucket.endpoint_url, proxy.url) for word in made.store)
    yield made.start()
    fresh.kill_all()


def put(server, key, data, checksum):
    return server.ask("PUT", f"/objects/{key}?checksum={checksum}", body=data)


def flip(server, key):
    """Turn a bit of the upload's first part in the spool."""
    [upload] = server.uploads(key)
    path = server.data / "spool" / f"{upload['id']}.1"
    path.write_bytes(flipped(path.read_bytes()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_turns_in_the_spool_fails_the_upload(server, bucket, proxy, kind):
    first, _, data = KINDS[kind]
    held = threading.Event()
    proxy.rule = on(first, Fault(wait=held))
    proxy.forget()
    with ThreadPoolExecutor() as pool:
        answers = {f"{kind}-{it}": pool.submit(put, server, f"{kind}-{it}", data, it) for it in CHECKSUMS}
        until(lambda: proxy.seen[first] == len(CHECKSUMS), what=f"a {first} for each")
        for key in answers:
            until(lambda it=key: server.uploads(it)[0]["received"] == len(data), what="all bytes")
            flip(server, key)
        held.set()
        for key, answer in answers.items():
            assert answer.result().status == 410, key
            assert DAMAGED.search(answer.result().json()["detail"]), key
            assert server.uploads(key)[0]["state"] == "failed"
    until(lambda: not server.spooled(), what="an empty spool")
    assert [] == bucket.keys(f"{prefix_of(server)}{kind}-")
    until(lambda: not bucket.multiparts(prefix_of(server)), what="no parts left behind")


@pytest.mark.parametrize("checksum", ["crc64nvme", "sha256"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_turns_on_the_way_is_sent_again(server, bucket, proxy, kind, checksum):
    _, bodies, data = KINDS[kind]
    damaged = Fault(flip=0)
    proxy.forget()
    proxy.rule = lambda request: damaged if request.operation == bodies and request.number <= 2 else None
    key = f"twice-{kind}-{checksum}"
    assert put(server, key, data, checksum).status == 201
    assert digest(bucket.read(prefix_of(server) + key)) == digest(data)
    assert proxy.seen[bodies] == 2 + (2 if kind == "multipart" else 1)

    proxy.rule = on(bodies, damaged)
    key = f"always-{kind}-{checksum}"
    answer = put(server, key, data, checksum)
    assert answer.status == 410
    assert "BadDigest" in answer.json()["detail"]
    assert bucket.read(prefix_of(server) + key) is None
