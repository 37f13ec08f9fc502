"""A state directory with open uploads in it meets a newer streamup, or an older one.

`states/` has what each version left behind (`states/make.py` says how): uploads that were begun, have parts in the
store, were being sent, were sealed while the store was away, have ended. Today's streamup goes on with all of them.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
import zygote
from conftest import BOOT, PART_BYTES, strict_store
from fake_store import FakeMultipart, FakePart
from states.make import body

from streamup.checkpoint import MIGRATIONS, Checkpoint
from streamup.errors import CheckpointError, StateDirectoryError
from streamup.layout import Layout
from streamup.stores import ObjectMeta, StoredObject

STATES = Path(__file__).parent / "states"
VERSIONS = range(1, len(MIGRATIONS) + 1)
A_CENTURY = 100 * 365 * 24 * 3600.0
"""`--expire`: these uploads were interrupted in 2026."""

OPEN = {"begun": 900, "half": 2 * PART_BYTES + PART_BYTES // 2, "written": 0}
SINCE = {2: {"provisional": 2000, "tus": 1000}, 3: {"guarded": PART_BYTES + 100}}
"""What was announced of those that are open, and the version since which there are such."""

SIZES = {"begun": 1500, "half": 3 * PART_BYTES + 2000, "written": 3000, "provisional": 5000, "tus": 4000}
SIZES |= {"guarded": 2 * PART_BYTES + 300, "small": 800, "large": PART_BYTES + 400}


def announced(version):
    return OPEN | {key: offset for since, more in SINCE.items() if since <= version for key, offset in more.items()}


def left_by(version, directory):
    """The state directory as a streamup of this version left it. As after a crash: in its write-ahead log."""
    sql = (STATES / f"version-{version}.sql").read_text()
    (directory / "spool").mkdir(parents=True)
    for name, number, key, size in re.findall(r"^-- (\w+\.(\d+)) of (\w+): (\d+) bytes$", sql, re.MULTILINE):
        start = (int(number) - 1) * PART_BYTES
        (directory / "spool" / name).write_bytes(body(key, start + int(size))[start:])
    script = f"""
import os, sqlite3
db = sqlite3.connect({str(directory / "checkpoint.sqlite")!r}, isolation_level=None)
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("PRAGMA journal_mode = WAL")
db.executescript(open({str(STATES / f"version-{version}.sql")!r}).read())
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (directory / "checkpoint.sqlite-wal").stat().st_size
    return directory


@contextlib.asynccontextmanager
async def opened(directory, **options):
    with ThreadPoolExecutor(1) as executor:
        checkpoint = Checkpoint(directory / "checkpoint.sqlite", executor, **options)
        await checkpoint.open()
        try:
            yield checkpoint
        finally:
            await checkpoint.close()


async def store_of(directory, scratch):
    """The store as it was when this state was left: the parts that it had confirmed."""
    shutil.copytree(directory, scratch)
    store = strict_store()
    async with opened(scratch) as checkpoint:
        for record in await checkpoint.unfinished():
            if (multipart_id := record.upload.multipart_id) is None:
                continue
            parts = {}
            for number, receipt in record.upload.receipts.items():
                start = record.upload.layout.part(number).start
                parts[number] = FakePart(body(record.upload.key, start + receipt.size)[start:], receipt)
            receipts = list(record.upload.receipts.values())
            begun = store._clock()
            store.multiparts[multipart_id] = FakeMultipart(
                record.upload.key, multipart_id, record.upload.meta, begun, parts, receipts
            )
    return store


def everything(directory):
    """All files of a directory."""
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def schema(directory):
    """Tables with their columns, and indexes with theirs, in whatever order they came to be."""
    with closing(sqlite3.connect(directory / "checkpoint.sqlite")) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
        pragmas = ("table_info", "index_info")
        return {name: [db.execute(f"PRAGMA {pragma}({name})").fetchall() for pragma in pragmas] for name in names}


def dump(directory):
    """What a database holds."""
    with closing(sqlite3.connect(directory / "checkpoint.sqlite")) as db:
        return [db.execute("PRAGMA user_version").fetchone(), *db.iterdump()]


def test_there_is_a_state_of_each_version():
    """Whoever adds a migration adds the state that it makes."""
    assert {path.name for path in STATES.glob("*.sql")} == {f"version-{version}.sql" for version in VERSIONS}


# -- a newer streamup ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boot_id", [BOOT, "another boot"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_what_an_older_streamup_left_goes_on(start_service, tmp_path, version, boot_id):
    directory = left_by(version, tmp_path / "state")
    store = await store_of(directory, tmp_path / "scratch")
    service = await start_service(data=directory, store=store, boot_id=boot_id, expire_seconds=A_CENTURY)
    same_boot = boot_id == BOOT
    for key, offset in announced(version).items():
        found = await service.document(key)
        received = 1200 if key == "written" and same_boot else offset
        assert (found["state"], found["offset"], found["received"]) == ("open", offset, received), key
    for key in ("small", "large"):  # whose clients were told that they complete by themselves
        await service.becomes(key, state="complete", length=SIZES[key])
        assert service.data(key) == body(key, SIZES[key])
    assert (await service.document("complete"))["object"]["size"] == 1000
    assert (await service.document("cancelled"))["state"] == "cancelled"
    await finish(service, version)
    await service.stop()
    assert not store.multiparts
    assert not service.spooled()


async def finish(service, version):
    """Every client comes back, asks, and sends the rest."""
    for key in announced(version):
        place = "/uploads/" + (await service.document(key))["id"]
        asked = await service.ask("HEAD", place, headers={"Upload-Draft-Interop-Version": "8"})
        offset = int(asked.headers["upload-offset"])
        words = {"Upload-Offset": str(offset), "Upload-Complete": "?1", "Content-Type": "application/partial-upload"}
        words |= {"Upload-Draft-Interop-Version": "8"}
        answer = await service.ask("PATCH", place, body(key, SIZES[key])[offset:], words)
        assert answer.status in {200, 201, 204}, answer
        assert service.data(key) == body(key, SIZES[key])


async def test_words_of_the_client_are_kept(start_service, tmp_path):
    """Its metadata; and a digest of the whole, which goes on where the receipts were."""
    directory = left_by(3, tmp_path / "state")
    service = await start_service(
        data=directory, store=await store_of(directory, tmp_path / "scratch"), expire_seconds=A_CENTURY
    )
    place = "/uploads/" + (await service.document("tus"))["id"]
    told = await service.ask("HEAD", place, headers={"Tus-Resumable": "1.0.0"})
    assert told.headers["upload-metadata"] == "key dHVz,filetype dGV4dC9wbGFpbg=="
    upload_id = (await service.document("guarded"))["id"]
    offset = SINCE[3]["guarded"]
    wrong = bytes(SIZES["guarded"] - offset)
    where = {"Content-Range": f"bytes {offset}-{SIZES['guarded'] - 1}/{SIZES['guarded']}"}
    answer = await service.ask("PUT", "/objects/guarded", wrong, where)
    assert answer.status == 400, answer
    assert (await service.document("guarded"))["reason"].startswith("digest:")
    assert (await service.document("guarded"))["id"] == upload_id
    assert service.data("guarded") is None


async def test_it_ends_in_the_schema_that_a_new_state_has(tmp_path):
    (tmp_path / "new").mkdir()
    async with opened(tmp_path / "new"):
        pass
    for version in VERSIONS:
        async with opened(left_by(version, tmp_path / str(version))):
            pass
        assert schema(tmp_path / str(version)) == schema(tmp_path / "new")


MIGRATION = """
import asyncio, os, pathlib, signal, sqlite3, sys
from concurrent.futures import ThreadPoolExecutor

path, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])

class Dying(sqlite3.Connection):
    def execute(self, *words):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*words)

connect = sqlite3.connect
sqlite3.connect = lambda *words, **options: connect(*words, **options, factory=Dying)
from streamup.checkpoint import Checkpoint
with ThreadPoolExecutor(1) as executor:
    asyncio.run(Checkpoint(path, executor).open())
os._exit(0)
"""


@pytest.mark.parametrize("version", [1, VERSIONS[-2]])
async def test_killed_in_the_middle_of_a_migration_it_is_the_old_state_or_the_new_one(tmp_path, version):
    """Before each statement."""
    old = left_by(version, tmp_path / "old")
    async with opened(shutil.copytree(old, tmp_path / "new")):
        pass
    states = {"old": dump(shutil.copytree(old, tmp_path / "read")), "new": dump(tmp_path / "new")}
    seen = []
    for statements in range(100):
        state = shutil.copytree(old, tmp_path / f"after {statements}")
        with (tmp_path / "log").open("ab") as log:
            code = zygote.spawn(
                ["-c", MIGRATION, str(state / "checkpoint.sqlite"), str(statements)], {"PATH": "/bin"}, log
            ).wait(30)
        seen += [name for name, there in states.items() if there == dump(state)][-1:] or ["neither"]
        if code == 0:
            break
        assert code == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert seen == ["old"] * (len(seen) - 1) + ["new"]
    assert len(seen) > len(MIGRATIONS) - version


# -- an older streamup -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS[1:])
async def test_an_older_streamup_refuses_and_changes_nothing(start_service, tmp_path, version):
    """Every older one; and the one whose state it is goes on as if nothing had been."""
    directory = left_by(version, tmp_path / "state")
    store = await store_of(directory, tmp_path / "scratch")
    before, there = dump(shutil.copytree(directory, tmp_path / "read")), part_files(directory)
    for older in range(1, version):
        files = everything(directory)
        with pytest.raises(StateDirectoryError, match=r"newer streamup .* Start that version again"):
            async with opened(directory, migrations=MIGRATIONS[:older]):
                pass
        # After a crash there is a log, and who opens the file first (be it to look) moves it in. SQLite does that.
        assert everything(directory) == files or older == 1
        assert part_files(directory) == there
    assert dump(directory) == before
    service = await start_service(data=directory, store=store, expire_seconds=A_CENTURY)
    await finish(service, version)


async def test_serve_refuses_the_state_of_a_newer_streamup(tmp_path):
    """With a sentence, and no traceback."""
    directory = left_by(VERSIONS[-1], tmp_path / "state")
    change(directory, "PRAGMA user_version = 99")
    before = everything(directory)
    command = ["-m", "streamup", "serve", "s3://bucket", "--s3-endpoint-url=http://127.0.0.1:9", f"--data={directory}"]
    with (tmp_path / "log").open("ab") as log:
        code = await asyncio.to_thread(zygote.spawn(command, os.environ, log).wait, 30)
    said = (tmp_path / "log").read_text()
    assert code == 1
    assert "written by a newer streamup (state version 99, this one knows" in said
    assert "Traceback" not in said
    assert everything(directory) == before


JSON_COLUMNS = {"layout": Layout, "meta": ObjectMeta, "stored_object": StoredObject}


def test_what_the_json_may_hold_belongs_to_the_version():
    """Whoever adds a field adds a migration, if an empty one: an older streamup must refuse what it cannot read."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript((STATES / f"version-{VERSIONS[-1]}.sql").read_text())
        for column, kind in JSON_COLUMNS.items():
            texts = [text for (text,) in db.execute(f"SELECT {column} FROM upload WHERE {column} IS NOT NULL")]
            assert texts
            assert {frozenset(json.loads(text)) for text in texts} == {frozenset(field.name for field in fields(kind))}


@pytest.mark.parametrize(
    "what",
    [
        "meta = json_set(meta, '$.colour', 'blue')",
        "meta = json_set(meta, '$.checksum', 'md6')",
        "layout = json_set(layout, '$.shape', 'round')",
        "layout = 'no JSON'",
        "state = 'undecided'",
    ],
)
async def test_a_row_that_is_not_understood_ends_the_start_and_changes_nothing(start_service, tmp_path, what):
    """A newer streamup wrote it under the same version, where the rule above was forgotten; or it is damaged."""
    directory = left_by(VERSIONS[-1], tmp_path / "state")
    change(directory, f"UPDATE upload SET {what} WHERE key = 'begun'")
    change(directory, "UPDATE upload SET creating = 1.0 WHERE key = 'begun'")  # it is looked at, whatever its state
    before, there = dump(directory), part_files(directory)
    with pytest.raises(CheckpointError, match=r"^upload \w{32} .* newer streamup .* damaged"):
        await start_service(data=directory)
    assert part_files(directory) == there
    assert dump(shutil.copytree(directory, tmp_path / "read")) == before


def part_files(directory):
    return everything(directory / "spool")


def change(directory, statement):
    """And leave it as a stop does, without a log."""
    with closing(sqlite3.connect(directory / "checkpoint.sqlite", isolation_level=None)) as db:
        db.execute(statement)
