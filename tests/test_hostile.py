"""What strangers send: every case of the corpus, cut and changed in any way. None hangs, none brings the server down,
none leaves an object that it should not, and none is let in without a key.

    pytest tests/test_hostile.py                                # each case once, as it is
    pytest -m campaign tests/test_hostile.py                    # ... in every segmentation, and 1,000 mutants
    HOSTILE_MUTANTS=20000 pytest -m campaign tests/test_hostile.py
    HOSTILE_SEED=7 HOSTILE_ONLY=1234 pytest -m campaign tests/test_hostile.py    # one attempt, as a failure names it

What may have come of a mutant is said by h11, another parser: an object is whole in one of the requests that it reads.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import md5

import pytest
from hostile import BODY, CORPUS, Case
from mutants import mutant, segments
from process import Bucket, Fresh, Server, prefix_of, until
from raw_client import CHUNKED, LAST_CHUNK, Client, chunk, head
from second_opinion import possible, read, statuses

from streamup import listeners

pytest_plugins = ["weed", "process"]

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
MUTANTS = int(os.environ.get("HOSTILE_MUTANTS", "1000"))
ONLY = os.environ.get("HOSTILE_ONLY")

CONNECTIONS = 200
"""At a time."""

IDLE_SECONDS = 1.5
HEADER_SECONDS = 3.0
HANGS_AFTER = IDLE_SECONDS + HEADER_SECONDS + listeners.LINGER_SECONDS + 1
"""A connection that is still there then, counted from the last byte that was sent."""

WORDS = {"tus": {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(BODY))}, "ietf": {"Upload-Complete": "?0"}}
"""How a good request begins an upload."""

KEY = "a-key-that-strangers-do-not-have"

CREDENTIALS = (
    b"",
    b"Authorization: Bearer a-key-that-strangers-have-guessed\r\n",
    b"Authorization: Basic YW55OndoYXRldmVy\r\n",
    b"Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwicHJlZml4IjoiIn0.\r\n",  # a JWT that nobody signed
    b"Authorization: Bearer \xff\r\n",
    b"Authorization:\r\n",
)

CHUNKS_OF_ONE_BYTE = 1_000_000
MOST_SECONDS_PER_CHUNK = 5e-6

MOST_GROWTH_BYTES = 48 << 20
"""A leak of 50 kB for each connection would be three times that."""

UNNAMED = re.compile("[0-9a-f]{32}")
"""The key of an upload that was created without one, by `--key-template {id}`."""


@dataclass
class Attempt:
    """One connection: what is sent, in which pieces, and what has come back."""

    number: int
    case: Case
    how: str
    changed: bool
    wire: bytes
    key: str
    answer: bytes = b""
    hung: bool = False
    slow: bool = False
    """It took us so long to send it that the server may have lost its patience."""

    @property
    def answers(self) -> tuple[int, ...]:
        return statuses(self.answer)

    @property
    def successes(self) -> int:
        return sum(200 <= status < 300 for status in self.answers)

    @property
    def told_offset(self) -> int:
        """How much of it is kept, as an interrupted client is told."""
        found = re.search(rb'"expected-offset": (\d+)', self.answer)
        return int(found[1]) if found else 0

    def __str__(self) -> str:
        return (
            f"HOSTILE_SEED={SEED} HOSTILE_ONLY={self.number} {self.case.name!r}, sent by {self.how}"
            f"{', changed' if self.changed else ''}\n  {self.wire[:3000]!r}\n  answered {self.answer[:500]!r}"
        )


def attempts(hows: Iterable[str], mutants: int, first: int = 0) -> Iterator[Attempt]:
    """Every case in each of these segmentations, and mutants of them: the same ones for the same seed. They are
    numbered from `first`.
    """
    plan = [(case, how, False) for how in hows for case in CORPUS] + [(None, "", True)] * mutants
    for number, (case, how, changed) in enumerate(plan, first):
        if ONLY not in {None, str(number)}:
            continue
        chance = random.Random(f"{SEED}/{number}")
        one, other = case or chance.choice(CORPUS), chance.choice(CORPUS)
        wire = mutant(chance, one.wire, other.wire) if changed else one.wire
        pieces = how or chance.choice(("whole", "whole", "lines", "bytes"))
        yield Attempt(number, one, pieces, changed, wire, chance.randbytes(8).hex())


async def play(attempt: Attempt, address: tuple[str, int], **headers: str) -> None:
    """Send it, and wait until the server ends the connection. `headers`: of the good request that comes before."""
    if attempt.case.begins or b"UPLOAD" in attempt.wire:
        words = WORDS[attempt.case.begins or "tus"]
        async with _connected(address) as client:
            begun = await client.ask("POST", f"/uploads?key={attempt.key}", b"", headers | words, seconds=30)
        upload = begun.headers["location"].removeprefix("/uploads/")
        attempt.wire = attempt.wire.replace(b"UPLOAD", upload.encode())
    attempt.wire = attempt.wire.replace(b"KEY", attempt.key.encode())
    async with _connected(address) as client:
        receiving = asyncio.create_task(client.ended(seconds=60))
        began = time.monotonic()
        with suppress(ConnectionError):
            for piece in segments(attempt.wire, attempt.how):
                await client.send(piece)
                await asyncio.sleep(0)
        attempt.slow = time.monotonic() - began > IDLE_SECONDS / 2
        ended, _ = await asyncio.wait([receiving], timeout=HANGS_AFTER)
        attempt.hung = not ended
        client.close()
        attempt.answer = await receiving


@asynccontextmanager
async def _connected(address: tuple[str, int]) -> AsyncIterator[Client]:
    client = await Client.connect(address)
    try:
        yield client
    finally:
        client.close()


async def play_all(all_of_them: Iterable[Attempt], address: tuple[str, int], **headers: str) -> list[Attempt]:
    waiting, played = iter(all_of_them), []

    async def player() -> None:
        for attempt in waiting:
            await play(attempt, address, **headers)
            played.append(attempt)

    async with asyncio.TaskGroup() as players:
        for _ in range(CONNECTIONS):
            players.create_task(player())
    return played


def objections(attempt: Attempt, stored: bytes | None) -> Iterator[str]:
    """What is wrong with the outcome of one attempt; `stored` is the MD5 of what is under its key."""
    answers = attempt.answers
    if attempt.hung:
        yield "it hangs"
    if any(status in {500, 502, 504} for status in answers):
        yield "it met a fault of ours"
    if attempt.changed:
        if attempt.successes > len(read(attempt.wire)):
            yield "it was granted more than it asked for"
    elif attempt.slow and answers in {(), (409,)}:
        return
    elif attempt.how != "whole" and not answers and (400,) in attempt.case.outcomes and stored is None:
        return  # what was still sent to a connection that the parser had given up has swallowed the answer
    elif answers not in attempt.case.outcomes:
        yield f"it was answered {answers}, which is none of {list(attempt.case.outcomes)}"
    elif stored != _md5(attempt.case.outcomes[answers]):
        yield "another object is stored than that should leave"


def _md5(data: bytes | None) -> str | None:
    return None if data is None else md5(data, usedforsecurity=False).hexdigest()


def unexplained(stored: Mapping[str, str], played: Iterable[Attempt]) -> list[str]:
    """Objects that no request asked for, and who sent their keys. `stored`: the MD5 of each, by key."""
    asked = {(key, _md5(data)) for attempt in played for key, data in possible(read(attempt.wire), attempt.key)}
    senders = {attempt.key: attempt for attempt in played}
    return [
        f"nobody asked for the object {key}: {senders.get(key)}"
        for key, digest in stored.items()
        if (None if UNNAMED.fullmatch(key) else key, digest) not in asked
    ]


# -- each case once ----------------------------------------------------------------------------------------------------


async def test_every_case_ends_as_the_table_says(start_service, monkeypatch):
    monkeypatch.setattr(listeners, "LINGER_SECONDS", 0.1)
    service = await start_service(idle_seconds=0.5, head_seconds=2.0)
    played = await play_all(attempts(["whole"], 0), service.address)
    found = {key: _md5(made.data) for key, made in service.store.objects.items()}
    wrong = [f"{why}: {attempt}" for attempt in played for why in objections(attempt, found.get(attempt.key))]
    uploads = (await service.ask("GET", "/uploads")).json["uploads"]
    kept = {upload["key"]: upload["offset"] for upload in uploads if upload["state"] == "open"}
    wrong += [f"what came is not kept: {one}" for one in played if one.told_offset not in {0, kept.get(one.key)}]
    wrong += unexplained(found, played)
    assert not wrong, "\n".join(wrong)


# -- changed, and cut in pieces, against a server of its own -----------------------------------------------------------


def impatient(serve: Fresh, *options: str) -> Server:
    """A server whose connections end soon, and what they leave unfinished soon after."""
    seconds = (f"--idle={IDLE_SECONDS}", f"--head-timeout={HEADER_SECONDS}", "--expire=5s")
    return serve(*seconds, "--key-template={id}", *options).start()


def assault(server: Server, all_of_them: Iterable[Attempt], **headers: str) -> list[Attempt]:
    """Play them all, while a client that means well is served all the while, and once more afterwards."""
    address = ("127.0.0.1", server.ports[0])

    async def serve_somebody() -> None:
        async with _connected(address) as client:
            answer = await client.ask("PUT", "/objects/honest", chunks=[BODY], headers=headers, seconds=20)
        assert answer.status == 201, answer

    async def serve_on(ended: asyncio.Event) -> None:
        while not ended.is_set():
            await serve_somebody()
            await asyncio.sleep(0.02)

    async def run() -> list[Attempt]:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_on(ended))
            played = await tasks.create_task(play_all(all_of_them, address, **headers))
            ended.set()
        await serve_somebody()
        return played

    return asyncio.run(run())


def in_store(bucket: Bucket, server: Server) -> dict[str, str]:
    """The MD5 of every object but the honest client's, by key. The store says so."""
    prefix = prefix_of(server)
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix)
    found = (one for page in pages for one in page.get("Contents", ()))
    digests = {one["Key"].removeprefix(prefix): one["ETag"].strip('"') for one in found}
    assert digests.pop("honest") == _md5(BODY)
    return digests


@pytest.mark.campaign
def test_nothing_hangs_crashes_or_leaves_what_it_should_not(serve, bucket, record_property):
    server = impatient(serve)
    played = assault(server, attempts(["whole"], 0))  # also so that what is allocated once is there
    server.until_quiet()
    held, memory = server.descriptors, server.resident_bytes
    played += assault(server, attempts(["bytes", "lines"], MUTANTS, first=len(played)))
    found = in_store(bucket, server)
    wrong = [f"{why}: {attempt}" for attempt in played for why in objections(attempt, found.get(attempt.key))]
    wrong += unexplained(found, played)
    assert not wrong, "\n".join([*wrong[:20], f"{len(wrong)} faults in {len(played)} connections"])
    assert "Traceback" not in server.log
    server.until_quiet()
    until(lambda: server.descriptors <= held + 16, what="the end of all connections")
    grown = server.resident_bytes - memory
    assert grown < MOST_GROWTH_BYTES + 1000 * len(played), f"{grown >> 20} MiB more than before"
    record_property("connections", len(played))
    server.stop()


@pytest.mark.campaign
def test_nobody_is_let_in_without_a_key(serve, bucket):
    server = impatient(serve, f"--api-key={KEY}")
    played = assault(server, map(knocking, attempts(["whole"], MUTANTS // 4)), Authorization=f"Bearer {KEY}")
    wrong = [
        f"it was let in: {attempt}"
        for attempt in played
        if attempt.successes > sum(request.is_preflight for request in read(attempt.wire))
    ]
    wrong += [f"it hangs: {attempt}" for attempt in played if attempt.hung]
    assert not wrong, "\n".join(wrong)
    assert not in_store(bucket, server)
    assert "Traceback" not in server.log
    server.stop()


def knocking(attempt: Attempt) -> Attempt:
    """With a credential that is none, or without any."""
    first, end, rest = attempt.wire.partition(b"\r\n")
    credential = CREDENTIALS[attempt.number % len(CREDENTIALS)]
    return replace(attempt, wire=b"".join([first, end, credential, rest]) if end else attempt.wire)


@pytest.mark.campaign
def test_chunks_of_one_byte_cost_their_sender_more_than_us(serve, bucket):
    server = impatient(serve)
    flood = (
        head("PUT", "/objects/flood", CHUNKED | {"Connection": "close"}) + CHUNKS_OF_ONE_BYTE * chunk(b"x") + LAST_CHUNK
    )
    before = server.cpu_seconds
    (played,) = assault(server, [Attempt(0, CORPUS[0], "whole", changed=True, wire=flood, key="flood")])
    assert played.answers == (201,)
    assert bucket.read(prefix_of(server) + "flood") == b"x" * CHUNKS_OF_ONE_BYTE
    assert server.cpu_seconds - before < CHUNKS_OF_ONE_BYTE * MOST_SECONDS_PER_CHUNK
    server.stop()
