"""`get` and `verify` over the strict fake store: what arrives is the object, or nothing has the file's name."""

import asyncio
import errno
import hashlib
import json
import os
import random
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fake_store import PIECE_BYTES, FakeObject, FakeStore

from streamup.client import partial as partial_module
from streamup.client import reading
from streamup.client.compare import Comparison
from streamup.client.download import Download
from streamup.client.hashing import digest
from streamup.client.known import Known
from streamup.client.partial import Claimed, Partial
from streamup.client.progress import Progress
from streamup.client.reading import Patience
from streamup.client.source import StoreSource
from streamup.errors import (
    AccessDenied,
    CredentialsExpired,
    Different,
    Interrupted,
    NoSuchObject,
    StoreRefused,
    StoreUnavailable,
    TransferError,
)
from streamup.stores import ObjectMeta, StoredPart

SPAN = 4 * PIECE_BYTES
DATA = random.Random(1).randbytes(10 * SPAN + 1234)
SIZES = (100_000, 7, 300_000, 65_536, len(DATA) - 465_543)
"""Parts as no tool cuts them."""


@pytest.fixture(autouse=True)
def _small_spans(monkeypatch):
    monkeypatch.setattr(reading, "SPAN_BYTES", SPAN)


@pytest.fixture
def store():
    return FakeStore()


def keep(store, data=DATA, *, sizes=None, checksum=None, etag=None, told=True, key="dir/k", **fields):
    """An object as some tool has stored it: `sizes` of its parts, `checksum` by kind and type."""
    ends = [sum((sizes or [])[: index + 1]) for index in range(len(sizes or []))]
    pieces = [data[end - size : end] for size, end in zip(sizes or [], ends, strict=True)] or [data]
    words = {}
    if checksum:
        kind, form = checksum.split()
        value = digest(kind, data if form == "whole" else b"".join(digest(kind, piece) for piece in pieces))
        words[kind] = b64encode(value).decode() + ("" if form == "whole" else f"-{len(pieces)}")
    md5 = [hashlib.md5(piece).digest() for piece in pieces]
    made = hashlib.md5(b"".join(md5)).hexdigest() + f"-{len(md5)}" if sizes else md5[0].hex()
    parts = [
        StoredPart(number, len(piece), {"sha256": b64encode(hashlib.sha256(piece).digest()).decode()})
        for number, piece in enumerate(pieces, 1)
    ]
    store.objects[key] = FakeObject(
        data,
        ObjectMeta("token"),
        f'"{made}"' if etag is None else etag,
        words,
        datetime.now(UTC),
        parts=parts if told else None,
        **fields,
    )
    return store.objects[key]


async def download(store, target, *, key="dir/k", etag=False, patience=0.0, parallel=3, say=lambda _: None):
    source, waiting = StoreSource(store, key, f"s3://bucket/{key}"), Patience(say, patience)
    known = await Known.of(source, waiting)
    progress = Progress("k", known.stored.size)
    return await Download(source, known, target, waiting, parallel=parallel, etag=etag).run(progress, say)


async def compare(store, path, *, key="dir/k", etag=False, read=False, patience=0.0):
    source, waiting = StoreSource(store, key, f"s3://bucket/{key}"), Patience(seconds=patience)
    known = await Known.of(source, waiting)
    comparison = Comparison(source, known, path, waiting, parallel=3)
    return await comparison.run(Progress("k", known.stored.size), etag=etag, read=read)


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory / "film.mp4"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


CHECKSUMS = [
    *(f"{kind} whole" for kind in ("crc64nvme", "crc32", "crc32c", "sha256", "sha1")),
    *(f"{kind} parts" for kind in ("crc32", "crc32c", "sha256", "sha1")),
]


# What arrives


@pytest.mark.parametrize("checksum", [None, *CHECKSUMS])
@pytest.mark.parametrize("sizes", [None, SIZES])
async def test_every_kind_of_proof_is_made(store, target, file, checksum, sizes):
    keep(store, sizes=sizes, checksum=checksum)
    outcome = await download(store, target)
    assert target.read_bytes() == DATA
    assert names(target) == ["film.mp4"]
    proof = outcome.findings[0]
    assert outcome.proven
    assert proof.words.split()[0].lower() == (checksum or "etag").split()[0]
    store.calls.clear()
    assert (await compare(store, file))[0] == proof
    assert store.calls["read"] == 0


@pytest.mark.parametrize("checksum", [None, *CHECKSUMS])
@pytest.mark.parametrize("sizes", [None, SIZES])
async def test_a_byte_that_was_flipped_in_the_store_is_found_by_every_kind_of_proof(
    store, target, file, checksum, sizes
):
    kept = keep(store, sizes=sizes, checksum=checksum)
    kept.data = flipped(DATA, 200_000)
    target.write_bytes(b"what was there before")
    with pytest.raises(Different) as caught:
        await download(store, target)
    part = "part 3 (bytes 100007 to 400007)" if sizes else None
    assert part is None or part in str(caught.value)
    assert names(target) == ["film.mp4"]
    assert target.read_bytes() == b"what was there before"
    with pytest.raises(Different, match="from byte 200000 on"):
        await compare(store, file, read=True)
    file.write_bytes(kept.data)
    with pytest.raises(Different) as caught:
        await compare(store, file)
    assert part is None or part in str(caught.value)


@pytest.mark.parametrize(("checksum", "sizes"), [("crc32 whole", None), ("sha256 parts", SIZES[:2]), (None, SIZES[:2])])
async def test_what_comes_is_not_read_again_for_its_digests(store, target, monkeypatch, checksum, sizes):
    monkeypatch.setattr(reading, "SPAN_BYTES", 2 * SPAN)
    data = DATA[: sum(sizes)] if sizes else DATA
    keep(store, data, sizes=sizes, checksum=checksum)
    monkeypatch.setattr(os, "preadv", None)
    assert (await download(store, target)).proven
    assert target.read_bytes() == data


@pytest.mark.parametrize("checksum", [None, "crc64nvme whole", "sha1 whole", "crc32 parts", "sha256 parts"])
async def test_the_empty_object(store, target, checksum):
    keep(store, b"", checksum=checksum, sizes=(0,) if checksum and "parts" in checksum else None)
    assert (await download(store, target)).proven
    assert target.read_bytes() == b""
    assert (await compare(store, target))[0].verdict.value == "proven"
    assert store.calls["read"] == 0


@pytest.mark.parametrize("checksum", [None, "crc32 parts"])
async def test_parts_that_nobody_tells_are_guessed(store, target, monkeypatch, checksum):
    monkeypatch.setattr("streamup.client.proof.USUAL_PART_BYTES", (300_000, 250_000))
    sizes = [250_000] * 2 + [len(DATA) - 500_000]
    keep(store, sizes=sizes, checksum=checksum, told=False)
    outcome = await download(store, target)
    assert outcome.proven
    assert "of 3 parts" in outcome.findings[0].words


async def test_parts_that_cannot_be_guessed_leave_the_file_and_say_so(store, target, file):
    keep(store, sizes=SIZES, checksum="sha256 parts", told=False)
    outcome = await download(store, target)
    assert not outcome.proven
    assert target.read_bytes() == DATA
    assert "does not tell where the parts end" in outcome.findings[0].words
    assert "ETag" in outcome.findings[1].words  # it was tried as well
    assert (await compare(store, file))[0].words == "every byte was read and compared"
    file.write_bytes(flipped(DATA, 5))
    with pytest.raises(Different, match="from byte 5 on"):
        await compare(store, file)


async def test_an_etag_that_is_no_md5_leaves_the_file_and_says_so(store, target, file):
    keep(store, encryption="aws:kms")
    outcome = await download(store, target)
    assert (outcome.proven, target.read_bytes() == DATA) == (False, True)
    assert "aws:kms" in outcome.findings[0].words
    assert (await compare(store, file))[0].words == "every byte was read and compared"


async def test_the_etag_is_computed_where_somebody_insists(store, target, file):
    kept = keep(store, sizes=SIZES, checksum="crc64nvme whole")
    lazy, careful = await download(store, target), await download(store, target, etag=True)
    assert [one.verdict.value for one in lazy.findings] == ["proven", "open"]
    assert "--etag" in lazy.findings[1].words
    assert [one.verdict.value for one in careful.findings] == ["proven", "proven"]
    kept.etag = kept.etag.replace(kept.etag[1], "0" if kept.etag[1] != "0" else "1", 1)
    assert (await download(store, target)).proven
    with pytest.raises(Different, match="ETag"):
        await download(store, target, etag=True)
    with pytest.raises(Different, match="ETag"):
        await compare(store, file, etag=True)


async def test_memory_and_requests_are_bounded(store, target):
    keep(store)
    await download(store, target, parallel=2)
    assert store.peak["read"] == 2
    assert store.calls["read"] == 9  # spans of an eighth: four for each connection, and the rest
    assert store.calls["parts_of"] == 0  # one piece needs none


async def test_nothing_is_made_of_what_is_not_there(store, target):
    with pytest.raises(NoSuchObject):
        await download(store, target)
    assert names(target) == []


# Interrupted, and again


async def test_a_body_that_ends_early_is_continued_where_it_ended(store, target):
    keep(store)
    store.fail("piece", None, StoreUnavailable, None, StoreUnavailable)
    said = []
    assert (await download(store, target, patience=30.0, say=said.append)).proven
    assert store.calls["read"] == 13
    assert store.calls["piece"] == -(-len(DATA) // PIECE_BYTES) + 2  # none came twice
    assert "Trying again" in said[0]


async def test_a_store_that_stays_away_leaves_what_has_come_to_the_next_attempt(store, target):
    keep(store, sizes=SIZES, checksum="sha256 parts")
    store.fail("piece", *[None] * 20, *[StoreUnavailable] * 20)
    with pytest.raises(Interrupted, match="same command"):
        await download(store, target)
    assert names(target) == ["film.mp4.streamup-journal", "film.mp4.streamup-part"]
    store._faults.clear()
    store.calls.clear()
    outcome = await download(store, target)
    assert outcome.proven
    assert 20 * PIECE_BYTES - 4 * PIECE_BYTES < outcome.resumed <= 20 * PIECE_BYTES  # parts make smaller pieces
    assert store.calls["piece"] <= -(-len(DATA) // PIECE_BYTES) - 20 + 10  # a span that begins within a piece
    assert target.read_bytes() == DATA
    assert names(target) == ["film.mp4"]


async def test_cancelled_it_keeps_what_has_come_and_holds_no_connection(store, target):
    keep(store)
    store.fail("piece", *[None] * 7)
    arrived = asyncio.Event()

    async def plan(operation, number):
        if operation == "piece" and number > 7:
            arrived.set()
            await asyncio.Event().wait()

    store.plan = plan
    running = asyncio.create_task(download(store, target))
    await arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.in_flight["read"] == 0
    store.plan = None
    assert (await download(store, target)).resumed == 7 * PIECE_BYTES
    assert target.read_bytes() == DATA


async def interrupted(store, target, pieces=20):
    """An attempt that has come so far."""
    store.fail("piece", *[None] * pieces, *[StoreUnavailable] * 20)
    with pytest.raises(Interrupted):
        await download(store, target)
    store._faults.clear()
    return target.with_name("film.mp4.streamup-part"), target.with_name("film.mp4.streamup-journal")


async def test_what_the_journal_claims_is_compared_with_the_file(store, target):
    keep(store)
    part, _ = await interrupted(store, target)
    whole = part.read_bytes()
    part.write_bytes(flipped(whole, 3))
    outcome = await download(store, target)
    assert outcome.resumed == 20 * PIECE_BYTES - SPAN
    assert target.read_bytes() == DATA


async def test_a_file_that_a_power_cut_has_shortened(store, target):
    keep(store)
    part, _ = await interrupted(store, target)
    os.truncate(part, 2 * SPAN)
    assert (await download(store, target)).resumed == 2 * SPAN
    assert target.read_bytes() == DATA


async def test_a_journal_whose_end_was_lost(store, target):
    keep(store)
    _, journal = await interrupted(store, target)
    text = journal.read_text()
    journal.write_text(text[: len(text) - 20])
    outcome = await download(store, target)
    assert 0 < outcome.resumed < 20 * PIECE_BYTES
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("text", ["", "x", "[]", "null\n", '{"source": 1}\n', None])
async def test_a_journal_that_is_none(store, target, text):
    keep(store)
    _, journal = await interrupted(store, target)
    head = journal.read_text().splitlines()[0]
    journal.write_text(f'{head}\n{{"start": "x", "end": 5, "crc64nvme": "00"}}\n' if text is None else text)
    said = []
    assert (await download(store, target, say=said.append)).resumed == 0
    assert "afresh" in said[0]
    assert target.read_bytes() == DATA


async def test_claims_that_overlap_count_once(store, target):
    keep(store)
    _, journal = await interrupted(store, target)
    head = journal.read_text().splitlines()[0]
    claims = [(0, 50), (0, 100), (40, 60), (100, 200), (150, 150), (-5, 20)]
    lines = [
        {"start": start, "end": end, "crc64nvme": digest("crc64nvme", DATA[max(start, 0) : end]).hex()}
        for start, end in claims
    ]
    journal.write_text("\n".join([head, *map(json.dumps, lines)]) + "\n")
    assert (await download(store, target)).resumed == 200
    assert target.read_bytes() == DATA


async def test_another_object_begins_afresh_and_it_is_said(store, target):
    old = keep(store)
    await interrupted(store, target)
    other = random.Random(2).randbytes(len(DATA))
    keep(store, other)
    said = []
    outcome = await download(store, target, say=said.append)
    assert outcome.resumed == 0
    assert old.etag in said[0]
    assert target.read_bytes() == other


async def test_an_object_that_is_replaced_midway_makes_no_mixed_file(store, target, file):
    keep(store)

    async def plan(operation, number):
        if operation == "read" and number == 5:
            keep(store, DATA[::-1])

    store.plan = plan
    with pytest.raises(Interrupted, match="replaced"):
        await download(store, target)
    assert "film.mp4" not in names(target)
    assert (await download(store, target)).resumed == 0
    assert target.read_bytes() == DATA[::-1]
    keep(store)
    store.calls.clear()
    with pytest.raises(Interrupted, match="replaced"):
        await compare(store, file, read=True)


async def test_what_waiting_cannot_mend_is_not_waited_for(store, target):
    keep(store)
    store.fail("read", AccessDenied)
    with pytest.raises(AccessDenied):
        await download(store, target, patience=60.0)
    store.fail("head", CredentialsExpired, None, CredentialsExpired, CredentialsExpired)
    await download(store, target, patience=60.0)
    with pytest.raises(CredentialsExpired):  # fresh ones were no better
        await download(store, target, patience=60.0)
    store.fail("head", StoreRefused)
    with pytest.raises(StoreRefused):
        await download(store, target, patience=60.0)


async def test_who_has_never_answered_is_not_waited_for_and_who_has_is(store, target):
    keep(store)
    store.fail("head", StoreUnavailable)
    said = []
    with pytest.raises(Interrupted, match="cannot be reached"):
        await download(store, target, patience=60.0, say=said.append)
    assert (said, store.calls["head"]) == ([], 1)
    store.fail("head", StoreUnavailable("head: 503", status=503))
    await download(store, target, patience=60.0, say=said.append)
    assert "Trying again" in said[0]


async def test_a_bare_400_is_the_key_if_the_credentials_are_let_in(store, target):
    keep(store)
    bare = CredentialsExpired("head: 400", status=400)
    store.fail("head", bare)
    with pytest.raises(StoreRefused, match="--sse-c-key"):
        await download(store, target, patience=60.0)
    store.fail("head", bare)
    store.fail("ready", AccessDenied)
    with pytest.raises(StoreRefused, match="--sse-c-key"):
        await download(store, target, patience=60.0)
    store.fail("head", bare)
    store.fail("ready", bare)
    assert (await download(store, target, patience=60.0)).proven  # with fresh ones


async def test_a_slow_download_is_noted_while_it_runs(store, target, monkeypatch):
    monkeypatch.setattr("streamup.client.download.NOTE_SECONDS", 0.0)
    keep(store)
    journal, lines = target.with_name("film.mp4.streamup-journal"), []

    async def plan(operation, number):
        if (operation, number) == ("piece", 4):
            lines.extend(journal.read_text().splitlines()[1:])

    store.plan = plan
    await download(store, target, parallel=1)
    claims = [json.loads(line)["end"] for line in lines]
    assert claims == [PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES]


# Two at once, and a disk that does not take it


async def test_two_downloads_to_one_file_do_not_meet(store, target):
    keep(store)
    gate = store.hold("read")
    first = asyncio.create_task(download(store, target))
    await gate.reached(1)
    with pytest.raises(Interrupted, match="Another streamup"):
        async with asyncio.timeout(10):  # it does not wait at the gate as well
            await download(store, target)
    gate.release()
    assert (await first).proven
    assert target.read_bytes() == DATA


async def test_a_lock_that_was_waited_for_is_not_that_of_the_finished_file(target, monkeypatch):
    """The other process finishes between our open and our lock: what was opened is the target by then."""
    identity = {"etag": "e"}
    with Partial.open(target, identity) as other:
        other.begin([])
        other.write(b"finished", 0)
    real, renamed = partial_module.fcntl.flock, []

    def flock(descriptor, how):
        if not renamed:
            renamed.append(other.path.replace(target))
        real(descriptor, how)

    monkeypatch.setattr(partial_module.fcntl, "flock", flock)
    with Partial.open(target, identity) as ours:
        ours.begin([])
        ours.write(b"x", 0)
    assert target.read_bytes() == b"finished"


async def test_a_full_disk_is_said_and_the_same_command_goes_on(store, target, monkeypatch):
    keep(store)
    real, room = os.pwrite, [15]

    def pwrite(descriptor, data, position):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:9_000], position)  # short writes are legal, too

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(Interrupted, match=r"No space left.*Make room"):
        await download(store, target)
    room[0] = 10_000
    assert (await download(store, target)).resumed > 0
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("refused", [None, "open", "pwrite"])
async def test_past_the_page_cache_or_through_it(store, target, monkeypatch, refused):
    """Not every file system takes direct writes, and some only of other sizes."""
    keep(store, sizes=SIZES, checksum="sha256 parts")
    direct, passed = set(), []
    real = {"open": os.open, "pwrite": os.pwrite}

    def opened(path, flags, *mode):
        if flags & os.O_DIRECT and refused == "open":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = real["open"](path, flags, *mode)
        direct.update([descriptor] if flags & os.O_DIRECT else ())
        return descriptor

    def pwrite(descriptor, data, position):
        if descriptor in direct and refused == "pwrite":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        written = real["pwrite"](descriptor, data, position)
        passed.extend([written] if descriptor in direct else ())
        return written

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert (await download(store, target)).proven
    assert target.read_bytes() == DATA
    # Some go past it in any case, although parts begin and end as no disk would have it.
    assert bool(passed) == (not refused and bool(direct))
    assert not [size for size in passed if size % partial_module.ALIGNMENT]


async def test_room_is_looked_for_before_anything_comes(store, target, monkeypatch):
    keep(store)
    usage = partial_module.shutil.disk_usage(target.parent)
    monkeypatch.setattr(partial_module.shutil, "disk_usage", lambda _: usage._replace(free=len(DATA) // 2))
    with pytest.raises(Interrupted, match="Make room"):
        await download(store, target)
    assert store.calls["read"] == 0


async def test_a_directory_that_cannot_be_written(store, tmp_path):
    keep(store)
    (tmp_path / "not a directory").write_bytes(b"")
    with pytest.raises(TransferError, match=r"Not a directory\.$"):  # nothing has arrived: nothing is said to be kept
        await download(store, tmp_path / "not a directory" / "k")


async def test_a_claim_survives_the_process(target):
    with Partial.open(target, {"etag": "e"}) as partial:
        partial.begin([])
        partial.note(Claimed(3, 7, 5))
    with Partial.open(target, {"etag": "e"}) as partial:
        assert (partial.claimed, partial.afresh) == ([Claimed(3, 7, 5)], None)
        partial.discard()
    partial.discard()  # it may be gone already


# Comparing


async def test_a_file_of_another_size_is_another_file(store, file):
    keep(store)
    file.write_bytes(DATA[:-1])
    with pytest.raises(Different, match=f"{len(DATA) - 1} bytes"):
        await compare(store, file)
    assert store.calls["read"] == 0


async def test_the_first_byte_that_differs_is_told_whichever_is_found_first(store, file):
    keep(store)
    file.write_bytes(flipped(flipped(DATA, SPAN - 1), 2 * SPAN + 3))
    found = asyncio.Event()

    async def plan(operation, number):
        if operation == "piece" and number == 1:
            return found  # the first span's first piece comes last
        if operation == "piece" and number == 6:
            found.set()
        return None

    store.plan = plan
    with pytest.raises(Different, match=f"from byte {SPAN - 1} on"):
        async with asyncio.timeout(10):  # the sixth piece may never be asked for
            await compare(store, file, read=True)


async def test_a_comparison_goes_on_after_an_outage_or_says_that_it_is_not_known(store, file):
    keep(store)
    store.fail("piece", None, StoreUnavailable)
    assert (await compare(store, file, read=True, patience=30.0))[0].verdict.value == "proven"
    store.fail("piece", *[StoreUnavailable] * 9)
    with pytest.raises(Interrupted):
        await compare(store, file, read=True)


async def test_a_file_that_is_written_to_meanwhile_is_not_compared(store, file):
    keep(store)
    gate = store.hold("read")
    comparing = asyncio.create_task(compare(store, file, read=True))
    await gate.reached(1)
    with file.open("ab") as more:
        more.write(b"more")
    gate.release()
    with pytest.raises(Interrupted, match="written to"):
        await comparing


async def test_a_file_that_is_not_there(store, tmp_path):
    keep(store)
    with pytest.raises(TransferError, match="No such file"), suppress(FileNotFoundError):
        await compare(store, tmp_path / "nothing")
