"""Keys and metadata that no honest client sends, and a real store: refused, or there exactly as they came.

What is there is read by boto3, key by key and value by value; 300 kB of it, and 1 MB by

    HOSTILE_OBJECTS=1600 pytest -m campaign tests/test_hostile_names.py
"""

from __future__ import annotations

import asyncio
import os
import random
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

import pytest
from process import Bucket, Server, prefix_of
from raw_client import Client

pytest_plugins = ["weed", "process"]

SEED = 5
OBJECTS = int(os.environ.get("HOSTILE_OBJECTS", "480"))
MOST_METADATA_BYTES = 1900

PIECES = (
    *(
        "a",
        "Z",
        "0",
        " ",
        "+",
        "-",
        "_",
        "~",
        "!",
        "*",
        "'",
        "(",
        ")",
        "&",
        "=",
        "?",
        "#",
        "%",
        ":",
        ";",
        "@",
        ",",
        "$",
    ),
    *(
        "<",
        ">",
        '"',
        "|",
        "^",
        "`",
        "{",
        "}",
        "[",
        "]",
        ".a",
        "..a",
        "...a",
        "%41",
        "%0d%0aX: y",
        "%zz",
        "é",
        "e\u0301",
    ),
    *("\ufb01", "\u212b", "ß", "İ", "日本", "א", "\U0001f600", "\U0010fffd", "\u200d", "\ufeff", "\u00a0", "\uffff"),
)
"""What a key may have."""

FORBIDDEN = (
    *(b"\0", b"\x01", b"\t", b"\r", b"\n", b"\x1b", b"\x7f", b"\xc2\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\\"),
    *(b"//", b"/./", b"/../", b"/..", b"/", b"%2e", b"%2F", b"%5C", b"%2E%2e%2f"),
    *(b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x80"),  # not UTF-8
)
"""What it may not."""

NAMES = "abcxyz019!#$%&'*+-.^_`|~"
"""What the name of a header may have, in lower case."""

OF_THE_STORE = {
    "x-amz-copy-source": "/bucket/key",
    "x-amz-acl": "public-read-write",
    "x-amz-tagging": "a=b",
    "x-amz-storage-class": "GLACIER",
    "x-amz-website-redirect-location": "https://evil.example/",
    "x-amz-security-token": "x",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-object-lock-legal-hold": "ON",
}
"""Fields that mean something to S3, and that no client has a say in."""


@dataclass
class Sent:
    """One object as it is asked for. `metadata`: as it must be there, where values of tus are percent-encoded."""

    key: bytes
    good: bool
    tus: bool
    metadata: dict[str, bytes] = field(default_factory=dict)
    status: int = 0

    @property
    def body(self) -> bytes:
        return b"the object " + self.key

    async def ask(self, address: tuple[str, int]) -> None:
        client = await Client.connect(address)
        target = quote(self.key, safe="")
        if self.tus:
            pairs = ",".join(f"{name} {b64encode(value).decode()}" for name, value in self.metadata.items())
            headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(self.body)), "Upload-Metadata": pairs}
            headers["Content-Type"] = "application/offset+octet-stream"
            answer = await client.ask("POST", f"/uploads?key={target}", self.body, headers | OF_THE_STORE, seconds=60)
        else:
            headers = {f"X-Amz-Meta-{name}": value.decode() for name, value in self.metadata.items()}
            answer = await client.ask("PUT", f"/objects/{target}", self.body, headers | OF_THE_STORE, seconds=60)
        client.close()
        self.status = answer.status


def everything(chance: random.Random) -> Iterator[Sent]:
    for number in range(OBJECTS):
        key, tus = _key(chance, number), number % 3 == 0
        good = number % 4 != 3 and len(key) < 1000 and all(len(name) <= 255 for name in key.split(b"/"))
        yield Sent(key, good, tus, dict(_metadata(chance, tus=tus)))


def _key(chance: random.Random, number: int) -> bytes:
    """Of any length up to the limit and further, with a number that no other has; every fourth is a bad one."""
    names = ("".join(chance.choices(PIECES, k=chance.choice((1, 3, 30)))) for _ in range(chance.choice((1, 2, 5, 9))))
    key = "/".join([str(number), *names]).encode()
    if number % 4 != 3:
        return key
    return key[: chance.randrange(4, 60)].decode(errors="ignore").encode() + chance.choice(FORBIDDEN)


def _metadata(chance: random.Random, *, tus: bool) -> Iterator[tuple[str, bytes]]:
    """As much as S3 takes. tus has any bytes for a value, a header visible characters and spaces between them."""
    left = MOST_METADATA_BYTES
    for number in range(chance.choice((1, 3, 20))):
        name = f"{number}-" + "".join(chance.choices(NAMES.replace("%", ""), k=chance.choice((1, 5, 40))))
        size = chance.choice((0, 1, 30, left - len(name))) // (3 if tus else 1)
        printable = "".join(map(chr, chance.choices(range(32, 127), k=max(0, size)))).strip().encode()
        value = chance.randbytes(size) if tus and size > 0 else printable
        left -= len(name) + len(quote(value)) if tus else len(name) + len(value)
        if left < 0:
            return
        yield name, value


def _is_there(bucket: Bucket, server: Server, sent: Sent) -> str | None:
    """What is wrong with what is there; None for nothing."""
    found = bucket.client.get_object(Bucket=bucket.name, Key=prefix_of(server) + sent.key.decode())
    with found["Body"] as body:
        if body.read() != sent.body:
            return f"other bytes: {sent}"
    metadata = {name: value.encode() for name, value in found["Metadata"].items() if name != "streamup-token"}
    if sent.tus:
        metadata = {name: unquote_to_bytes(value) for name, value in metadata.items()}
    # SeaweedFS forgets what has a name only.
    if metadata != {name: value for name, value in sent.metadata.items() if value}:
        return f"other metadata: {sent}\n{metadata}"
    known = {"Body", "Metadata", "ResponseMetadata", "AcceptRanges", "LastModified", "ContentLength", "ETag"}
    surplus = {name for name in found.keys() - known if not name.startswith("Checksum") and name != "ContentType"}
    return f"{surplus} came with {sent}" if surplus else None


@pytest.mark.campaign
def test_what_is_not_refused_is_stored_exactly(server, bucket):
    all_of_them = list(everything(random.Random(SEED)))
    assert sum(len(one.key) + sum(map(len, one.metadata.values())) for one in all_of_them) > 625 * OBJECTS

    async def send() -> None:
        waiting = iter(all_of_them)

        async def sender() -> None:
            for one in waiting:
                await one.ask(("127.0.0.1", server.ports[0]))

        await asyncio.gather(*(sender() for _ in range(20)))

    asyncio.run(send())
    wrong = [f"it was answered {one.status}: {one}" for one in all_of_them if one.status != (201 if one.good else 400)]
    assert not wrong, "\n".join(wrong)
    good = [one for one in all_of_them if one.good]
    assert sorted(bucket.keys(prefix_of(server))) == sorted(one.key.decode() for one in good)
    with ThreadPoolExecutor(8) as readers:
        wrong = [why for why in readers.map(lambda one: _is_there(bucket, server, one), good) if why]
    assert not wrong, "\n".join(wrong)
