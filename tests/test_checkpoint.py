"""The checkpoint: each coroutine is one transaction that is on the disk when it returns, or changed nothing."""

import asyncio
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from streamup import checkpoint as checkpoint_room
from streamup.checkpoint import MIGRATIONS, Checkpoint, SyncedFile
from streamup.errors import CheckpointDelayed, CheckpointError, StateDirectoryError
from streamup.layout import Layout
from streamup.stores import NO_KEY, Checksum, ObjectMeta, Receipt, StoredObject
from streamup.upload import State, Upload

LARGEST_CRC = 2**64 - 1


class Counting(ThreadPoolExecutor):
    """One thread that counts its calls, and stands still while it is told to."""

    def __init__(self):
        super().__init__(1)
        self.calls = 0

    def submit(self, *args, **kwargs):
        self.calls += 1
        return super().submit(*args, **kwargs)


@asynccontextmanager
async def opened(path, **options):
    with Counting() as executor:
        checkpoint = Checkpoint(path, executor, **options)
        await checkpoint.open()
        try:
            yield checkpoint
        finally:
            await checkpoint.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.sqlite"


@pytest.fixture
async def checkpoint(path):
    async with opened(path) as one:
        yield one


def make(upload_id="u", **values):
    upload = Upload(upload_id, "key", "subject", Layout(10), ObjectMeta("token"), created=1.5)
    for name, value in values.items():
        setattr(upload, name, value)
    return upload


FULL = Upload(
    id="u",
    key="a/b é",
    subject="someone",
    layout=Layout(10, 3, 40, 77),
    meta=ObjectMeta(
        token="token",
        checksum=Checksum.SHA256,
        if_none_match=True,
        content_type="a/b",
        content_encoding="gzip",
        content_disposition="inline",
        cache_control="no-cache",
        user={"name": "value"},
    ),
    created=1.25,
    length=12,
    seal_at=11,
    state=State.COMPLETE,
    reason="none",
    received=12,
    offset=9,
    size=12,
    touched=2.5,
    ended=3.5,
    sealed_order=4,
    creating=4.5,
    multipart_id="m",
    replaces='"old"',
    provisional=8,
    metadata="name dmFsdWU=",
    credential="key-1",
    max_bytes=1000,
    overwrite=False,
    stored_object=StoredObject(
        "a/b é", 12, '"e"', "token", {"sha256": "AA==-2"}, "a/b", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ),
    receipts={1: Receipt(1, 10, '"1"', LARGEST_CRC, b"\1" * 32), 2: Receipt(2, 2, '"2"', None, None)},
    guards={"md5": b"\2" * 16, "sha256": None, "sha1": b""},
    digests={"md5": b"\2" * 16, "sha256": b"\3" * 32},
    hashes={1: "state"},
)


# -- what is kept -------------------------------------------------------------------------------------------------


def test_the_example_fills_every_field():
    names = [field.name for field in fields(Upload) if field.name != "told"]  # it stands for what is there
    assert [name for name in names if repr(getattr(FULL, name)) in {"None", "0", "{}"}] == []


async def test_every_field_comes_back(path):
    async with opened(path) as checkpoint:
        await checkpoint.save(FULL)
        for receipt in FULL.receipts.values():
            await checkpoint.add_receipt("u", receipt, FULL.hashes.get(receipt.number))
        await checkpoint.announce("u", 9, [(3, 7, LARGEST_CRC), (4, 1, 0)])
    async with opened(path) as checkpoint:
        record = await checkpoint.find("u")
    assert record.upload == FULL
    assert {3: SyncedFile(3, 7, LARGEST_CRC), 4: SyncedFile(4, 1, 0)} == record.synced


async def test_an_upload_with_nothing_known_comes_back(checkpoint):
    await checkpoint.save(make())
    assert (await checkpoint.find("u")).upload == make()


async def test_an_object_without_its_time_comes_back(checkpoint):
    stored = StoredObject("key", 1, '"e"')
    await checkpoint.save(make(stored_object=stored))
    assert (await checkpoint.find("u")).upload.stored_object == stored


async def test_unknown_uploads_are_not_found(checkpoint):
    assert await checkpoint.find("nobody") is None


async def test_an_upload_from_before_customers_keys_was_begun_without_one(checkpoint):
    """Not with whatever is configured now: its parts need the key of the first."""
    await checkpoint.save(make())
    change = "UPDATE upload SET meta = json_remove(meta, '$.sse_c_key_md5')"
    await checkpoint._transact("old", lambda db: db.execute(change))
    assert (await checkpoint.find("u")).upload.meta.sse_c_key_md5 == NO_KEY


async def test_a_row_is_written_as_it_was_when_it_was_saved(checkpoint):
    upload = make(offset=1)
    saving = asyncio.create_task(checkpoint.save(upload))
    await asyncio.sleep(0)
    upload.offset = 2
    await saving
    assert (await checkpoint.find("u")).upload.offset == 1


async def test_what_is_kept_and_what_is_synced_of_it_are_one_transaction(checkpoint):
    await checkpoint.save(make(offset=3, touched=1.0))
    await checkpoint.add_receipt("u", Receipt(1, 10, '"1"', 1))
    executor = checkpoint._executor
    calls = executor.calls
    await checkpoint.keep(make(offset=3, touched=2.0), 15, [(1, 10, 1), (2, 5, 2)])
    assert executor.calls == calls + 1
    record = await checkpoint.find("u")
    assert (15, 2.0, {2: SyncedFile(2, 5, 2)}) == (record.upload.offset, record.upload.touched, record.synced)
    await checkpoint.keep(make(offset=3, touched=3.0), 9, [])
    assert (await checkpoint.find("u")).upload.offset == 15


async def test_a_receipt_takes_the_place_of_the_part_file(checkpoint):
    await checkpoint.save(make())
    await checkpoint.announce("u", 15, [(1, 10, 1), (2, 5, 2)])
    await checkpoint.add_receipt("u", Receipt(1, 10, '"1"', 1))
    await checkpoint.announce("u", 16, [(1, 10, 1), (2, 6, 3)])
    record = await checkpoint.find("u")
    assert ({2: SyncedFile(2, 6, 3)}, {1}, 16) == (record.synced, set(record.upload.receipts), record.upload.offset)


async def test_a_part_sent_again_has_its_last_receipt(checkpoint):
    await checkpoint.save(make())
    for etag in ('"1"', '"2"'):
        await checkpoint.add_receipt("u", Receipt(1, 10, etag, 1))
    assert (await checkpoint.find("u")).upload.receipts[1].etag == '"2"'


async def test_an_announced_offset_never_falls(checkpoint):
    await checkpoint.save(make())
    for offset in (5, 9, 7):
        await checkpoint.announce("u", offset, [])
    assert (await checkpoint.find("u")).upload.offset == 9


async def test_of_many_endings_the_newest_are_kept_and_nobody_pushes_out_anothers(checkpoint, monkeypatch):
    monkeypatch.setattr(checkpoint_room, "FORGET_AT_ONCE", 2)
    for number in range(9):
        subject = "quiet" if number < 2 else "busy"
        await checkpoint.save(make(f"{number}", subject=subject, state=State.CANCELLED, ended=10.0 + number))
    await checkpoint.add_receipt("2", Receipt(1, 10, '"e"', 1))
    await checkpoint.save(make("left", subject="busy", state=State.FAILED, ended=10.0, multipart_id="m"))
    await checkpoint.forget(1.0, most=10)
    assert len(await checkpoint.ended("busy", 10)) == 8, "there is room for all of them"
    await checkpoint.forget(1.0, most=4)
    assert [upload.id for upload in await checkpoint.ended("quiet", 10)] == ["1", "0"]
    assert [upload.id for upload in await checkpoint.ended("busy", 10)] == ["8", "7", "left"]
    await checkpoint.save(make("2"))
    assert (await checkpoint.find("2")).upload.receipts == {}


async def test_no_question_of_a_running_server_reads_all_rows(checkpoint):
    for number in range(3):
        await checkpoint.save(make(f"u{number}", state=State.CANCELLED, ended=10.0 + number))
    asked = []
    checkpoint._db.set_trace_callback(asked.append)
    await checkpoint.ended("subject", 3)
    await checkpoint.newest_ended("key")
    await checkpoint.multipart_ids("key")
    await checkpoint.find("u1")
    await checkpoint.forget(11.5, most=10)
    checkpoint._db.set_trace_callback(None)
    asked = [statement for statement in asked if statement.startswith(("SELECT", "DELETE"))]
    assert len(asked) >= 8
    for statement in asked:
        plan = [row["detail"] for row in checkpoint._db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert all(step.startswith(("SEARCH ", "CO-ROUTINE ", "SCAN (subquery")) for step in plan), (statement, plan)


async def test_the_highest_seal_is_known(checkpoint):
    assert await checkpoint.last_order() == 0
    for order in (3, 7, 5):
        await checkpoint.save(make(f"u{order}", sealed_order=order, state=State.SEALED, size=0))
    assert await checkpoint.last_order() == 7


async def test_a_restart_takes_up_the_live_ones_and_those_with_something_in_the_store(checkpoint):
    for number, state in enumerate(State):
        await checkpoint.save(make(state.value, state=state, created=float(-number)))
    await checkpoint.save(make("creating", state=State.CANCELLED, creating=1.0, created=100.0))
    await checkpoint.save(make("multipart", state=State.FAILED, multipart_id="m", created=101.0))
    ids = [record.upload.id for record in await checkpoint.unfinished()]
    assert ids == ["completing", "sealed", "open", "creating", "multipart"]


async def test_outcomes_are_found_by_key_and_by_time(checkpoint):
    for number in range(4):
        await checkpoint.save(make(f"u{number}", state=State.CANCELLED, created=float(number), ended=10.0 - number))
    await checkpoint.save(make("live", created=99.0))
    assert (await checkpoint.newest_ended("key")).upload.id == "u3"
    assert await checkpoint.newest_ended("other") is None
    assert [upload.id for upload in await checkpoint.ended("subject", 3)] == ["u0", "u1", "u2"]
    assert await checkpoint.ended("other", 3) == []


async def test_of_an_ending_the_receipts_are_told_as_their_sum(checkpoint):
    for name, numbers in {"all": (1, 2, 3), "gap": (1, 2, 4), "late": (2,), "none": ()}.items():
        await checkpoint.save(make(name, state=State.FAILED, ended=10.0))
        for number in numbers:
            await checkpoint.add_receipt(name, Receipt(number, 10 * number, '"e"', 1))
    found = {upload.id: upload for upload in await checkpoint.ended("subject", 9)}
    tallies = {name: (upload.tally.parts, upload.stored, upload.receipts) for name, upload in found.items()}
    assert tallies == {"all": (3, 60, {}), "gap": (3, 30, {}), "late": (1, 0, {}), "none": (0, 0, {})}
    for name, upload in found.items():
        known = (await checkpoint.find(name)).upload.tally
        assert known == upload.tally


async def test_a_recovery_is_settled_at_once(checkpoint):
    for name in ("a", "b"):
        await checkpoint.save(make(name))
        for number in (1, 2, 3):
            await checkpoint.add_receipt(name, Receipt(number, 10, '"e"', number))
        await checkpoint.announce(name, 5, [(4, 5, 4), (5, 5, 5)])
    assert await checkpoint.boot_id() is None
    a, b = [(await checkpoint.find(name)).upload for name in ("a", "b")]
    del a.receipts[2], a.receipts[3]
    b.receipts.clear()
    b.fail("lost", 1.0)
    await checkpoint.settle_recovery([a, b], "boot", {"a": [SyncedFile(2, 3, 9)], "b": []})
    a, b = [await checkpoint.find(name) for name in ("a", "b")]
    assert ({1}, {2: SyncedFile(2, 3, 9)}) == (set(a.upload.receipts), a.synced)
    assert ({}, {}, State.FAILED) == (b.upload.receipts, b.synced, b.upload.state)
    assert await checkpoint.boot_id() == "boot"


async def test_a_recovery_that_fails_is_not_settled_at_all(checkpoint):
    await checkpoint.save(make())
    with pytest.raises(CheckpointError):
        await checkpoint.settle_recovery([make(reason="changed"), make("v")], "boot", {"u": []})
    assert (None, None) == ((await checkpoint.find("u")).upload.reason, await checkpoint.boot_id())


async def test_what_ended_long_ago_is_forgotten_unless_something_is_left(checkpoint):
    kept = [make("young", state=State.COMPLETE, ended=10.0), make("live", ended=1.0)]
    kept += [make("left", state=State.FAILED, ended=1.0, multipart_id="m")]
    kept += [make("creating", state=State.FAILED, ended=1.0, creating=1.0)]
    for upload in [*kept, make("old", state=State.COMPLETE, ended=9.0)]:
        await checkpoint.save(upload)
        await checkpoint.add_receipt(upload.id, Receipt(1, 10, '"e"', 1))
        await checkpoint.announce(upload.id, 5, [(2, 5, 2)])
    await checkpoint.forget(10.0, most=10)
    assert await checkpoint.find("old") is None
    found = [await checkpoint.find(upload.id) for upload in kept]
    assert [{1}] * 4 == [set(record.upload.receipts) for record in found]
    await checkpoint.save(make("old"))
    again = await checkpoint.find("old")
    assert ({}, {}) == (again.upload.receipts, again.synced)


# -- transactions -------------------------------------------------------------------------------------------------


async def test_transactions_that_wait_together_share_a_commit(checkpoint):
    before = checkpoint._executor.calls
    await asyncio.gather(*(checkpoint.save(make(f"u{number}")) for number in range(100)))
    assert checkpoint._executor.calls - before <= 2
    assert len(await checkpoint.unfinished()) == 100


async def test_transactions_that_come_during_a_commit_share_the_next(checkpoint):
    first = asyncio.create_task(checkpoint.save(make("first")))
    await asyncio.sleep(0)
    before = checkpoint._executor.calls
    await asyncio.gather(first, *(checkpoint.save(make(f"u{number}")) for number in range(50)))
    assert checkpoint._executor.calls - before <= 2
    assert len(await checkpoint.unfinished()) == 51


@pytest.mark.parametrize("bad", [{"reason": object()}, {"offset": 2**70}], ids=["type", "overflow"])
async def test_one_failing_transaction_leaves_the_others(checkpoint, bad):
    results = await asyncio.gather(
        checkpoint.save(make("a")),
        checkpoint.save(make("bad", **bad)),
        checkpoint.save(make("b")),
        return_exceptions=True,
    )
    assert [None, CheckpointError, None] == [result and type(result) for result in results]
    assert {"a", "b"} == {record.upload.id for record in await checkpoint.unfinished()}
    await checkpoint.save(make("c"))
    assert await checkpoint.find("c")


async def test_a_failing_transaction_takes_all_of_itself_back(checkpoint):
    await checkpoint.save(make(offset=1))
    with pytest.raises(CheckpointError):
        await checkpoint.announce("u", 9, [(1, 1, 1), (2, object(), 1)])
    record = await checkpoint.find("u")
    assert (1, {}) == (record.upload.offset, record.synced)


async def test_a_commit_that_fails_fails_all_and_changes_nothing(checkpoint):
    await checkpoint.save(make())

    def full(db):
        db.execute("PRAGMA max_page_count = 1")  # no more than there is

    await checkpoint._ask(full)
    large = "x" * 5_000_000
    results = await asyncio.gather(
        checkpoint.save(make("a", reason=large)), checkpoint.save(make("b", reason=large)), return_exceptions=True
    )
    assert [CheckpointDelayed, CheckpointDelayed] == [type(result) for result in results]
    await checkpoint._ask(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    assert ["u"] == [record.upload.id for record in await checkpoint.unfinished()]
    await checkpoint.save(make("c"))


async def test_whether_it_can_be_written_is_found_out_by_writing(checkpoint, path):
    wal = path.with_name(f"{path.name}-wal")
    for _ in range(2):
        before = wal.read_bytes()
        await checkpoint.require_writable()
        assert before != wal.read_bytes()


async def test_what_insists_commits_when_there_is_room_and_not_before(checkpoint, monkeypatch):
    monkeypatch.setattr("streamup.checkpoint.FULL_SECONDS", 0.001)
    row, attempts = make("a"), []

    async def commit():
        attempts.append(1)
        if len(attempts) < 3:
            raise CheckpointDelayed("full")
        await checkpoint.save(row)

    await checkpoint.insist(commit)
    assert (3, row) == (len(attempts), (await checkpoint.find("a")).upload)
    attempts.clear()
    with pytest.raises(CheckpointDelayed):
        await checkpoint.insist(commit, lambda: len(attempts) < 2)
    assert len(attempts) == 2


async def test_a_refused_commit_changes_nothing_and_the_next_one_works(checkpoint):
    def strict(db):
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("CREATE TABLE parent (id PRIMARY KEY)")
        db.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")

    await checkpoint._ask(strict)
    results = await asyncio.gather(
        checkpoint.save(make("a")),
        checkpoint._transact("test", lambda db: db.execute("INSERT INTO child VALUES (1)")),
        return_exceptions=True,
    )
    assert [CheckpointError] * 2 == [type(result) for result in results]
    await checkpoint.save(make("b"))
    assert ["b"] == [record.upload.id for record in await checkpoint.unfinished()]


async def test_when_sqlite_takes_everything_back_the_whole_batch_has_failed(checkpoint):
    def disk_full(db):
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    results = await asyncio.gather(
        checkpoint.save(make("a")),
        checkpoint._transact("test", disk_full),
        checkpoint.save(make("b")),
        return_exceptions=True,
    )
    assert [CheckpointError] * 3 == [type(result) for result in results]
    assert await checkpoint.unfinished() == []
    await checkpoint.save(make("c"))


class Refusing(ThreadPoolExecutor):
    """One thread that takes no more work when it is told to."""

    refuse = False

    def submit(self, *args, **kwargs):
        if self.refuse:
            raise RuntimeError("cannot schedule new futures")
        return super().submit(*args, **kwargs)


async def test_nobody_waits_for_a_thread_that_is_gone(path):
    with Refusing(1) as executor:
        checkpoint = Checkpoint(path, executor)
        await checkpoint.open()
        executor.refuse = True
        with pytest.raises(CheckpointError):
            await checkpoint.save(make())
        executor.refuse = False
        await checkpoint.save(make())
        await checkpoint.close()


async def test_a_cancelled_caller_does_not_stop_its_transaction(checkpoint):
    saving = asyncio.create_task(checkpoint.save(make()))
    other = asyncio.create_task(checkpoint.save(make("other")))
    await asyncio.sleep(0)
    saving.cancel()
    await other
    assert saving.cancelled()
    assert await checkpoint.find("u")


async def test_closing_waits_for_what_is_under_way(path):
    async with opened(path) as checkpoint:
        saving = asyncio.create_task(checkpoint.save(make()))
        await asyncio.sleep(0)
    await saving
    async with opened(path) as checkpoint:
        assert await checkpoint.find("u")


# -- the file -----------------------------------------------------------------------------------------------------


async def test_a_commit_is_on_the_disk_and_the_file_is_ours_alone(checkpoint):
    def pragmas(db):
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "locking_mode")]

    full = 2
    assert ["wal", full, "exclusive"] == await checkpoint._ask(pragmas)


SECOND = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from streamup.checkpoint import Checkpoint
asyncio.run(Checkpoint(Path(sys.argv[1]), ThreadPoolExecutor(1)).open())
"""


async def test_a_second_process_is_refused_and_told_what_to_do(checkpoint, path):
    await checkpoint.save(make())
    command = [sys.executable, "-c", SECOND, path]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "is in use by another streamup. Stop it, or choose another --data." in second.stderr


async def test_a_new_file_is_ours_alone_from_the_start(checkpoint, path):
    assert checkpoint
    with pytest.raises(StateDirectoryError, match="in use by another streamup"):
        async with opened(path):
            pass


LATER = (*MIGRATIONS, "ALTER TABLE upload ADD COLUMN colour TEXT; UPDATE upload SET colour = 'blue';")


async def test_a_newer_version_takes_over_open_uploads(path):
    async with opened(path) as checkpoint:
        await checkpoint.save(make(offset=5))
        await checkpoint.announce("u", 7, [(1, 7, 1)])
    async with opened(path, migrations=LATER) as checkpoint:
        record = await checkpoint.find("u")
        assert (make(offset=7, received=7), {1: SyncedFile(1, 7, 1)}) == (record.upload, record.synced)
        assert await checkpoint._ask(lambda db: db.execute("SELECT colour FROM upload").fetchone()[0]) == "blue"


async def test_open_uploads_of_the_first_version_are_taken_over(path):
    with sqlite3.connect(path) as db:
        db.executescript(MIGRATIONS[0])
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO upload (id, key, subject, state, created, offset, layout, meta) VALUES ('u', 'key', 's', "
            """'open', 1.5, 7, '{"part_bytes": 10}', '{"token": "token", "checksum": "crc64nvme"}')"""
        )
    db.close()
    async with opened(path) as checkpoint:
        upload = (await checkpoint.find("u")).upload
    assert (7, None, None) == (upload.offset, upload.provisional, upload.metadata)
    assert (None, None, True) == (upload.credential, upload.max_bytes, upload.overwrite)


async def test_the_state_of_a_newer_version_is_refused(path):
    async with opened(path, migrations=LATER) as checkpoint:
        await checkpoint.save(make())
    with pytest.raises(StateDirectoryError, match=r"by a newer streamup \(state version 6, this one knows 5\)"):
        async with opened(path):
            pass


async def test_a_refused_file_is_let_go_of(path):
    async with opened(path, migrations=LATER):
        pass
    with Counting() as executor:
        older = Checkpoint(path, executor)
        with pytest.raises(StateDirectoryError):
            await older.open()
        async with opened(path, migrations=LATER) as newer:
            await newer.save(make())


async def test_a_migration_that_fails_changes_nothing(path):
    async with opened(path) as checkpoint:
        await checkpoint.save(make())
    broken = (*MIGRATIONS, "ALTER TABLE upload ADD COLUMN colour TEXT; UPDATE nothing SET colour = 'blue'")
    with pytest.raises(StateDirectoryError, match="nothing"):
        async with opened(path, migrations=broken):
            pass
    async with opened(path, migrations=LATER) as checkpoint:
        assert await checkpoint.find("u")


async def test_a_damaged_file_is_refused_with_advice(path):
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StateDirectoryError, match=r"is damaged .* Keep a copy"):
        async with opened(path):
            pass


async def test_damage_in_the_words_of_sqlite_is_damage(path):
    async with opened(path):
        pass
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE setting", b"CREATE T\xd4BLE setting"))
    with pytest.raises(StateDirectoryError, match=r"is damaged .* Keep a copy"):
        async with opened(path):
            pass


async def test_a_place_that_is_not_there_is_refused(path):
    with pytest.raises(StateDirectoryError, match="unable to open"):
        async with opened(path / "nowhere" / "checkpoint.sqlite"):
            pass


async def test_no_shared_memory_is_needed(checkpoint, path):
    await checkpoint.save(make())
    assert {path.name, f"{path.name}-wal"} == {file.name for file in path.parent.iterdir()}


async def test_holdings_are_all_that_something_is_left_of(checkpoint):
    rows = [
        make("open"),
        make("parts", multipart_id="m1"),
        make("creating", key="b", creating=5.0),
        make("done", state=State.COMPLETE, ended=2.0),
        make("buried", state=State.CANCELLED, ended=2.0, multipart_id="m2"),
    ]
    for row in rows:
        await checkpoint.save(row)
    held = await checkpoint.holdings()
    assert sorted(held.uploads) == ["buried", "creating", "open", "parts"]
    assert sorted(held.multiparts) == ["m1", "m2"]
    assert held.creating == [("b", 5.0)]


async def test_a_state_of_another_version_can_be_refused_instead_of_changed(path):
    async with opened(path, migrations=MIGRATIONS[:1]):
        pass
    with ThreadPoolExecutor(1) as executor, pytest.raises(StateDirectoryError, match="older streamup"):
        await Checkpoint(path, executor).open(as_it_is=True)
    async with opened(path, migrations=MIGRATIONS[:1]):
        pass
