"""The checkpoint: what streamup must still know after the power was cut, in SQLite. No other room holds SQL.

One connection in one thread. Each public coroutine is one transaction: when it returns, the change is on the disk
(WAL, `synchronous=FULL`); when it raises `CheckpointError`, what is there must be read again. Those that wait at the
same time share one commit, so a hundred uploads do not pay for a hundred syncs. A cancelled caller does not stop its
transaction, and need not: each of them records something that has already happened, or announces an act that its
caller then does not begin.

`locking_mode=EXCLUSIVE` is set before WAL. It refuses a second process on the same state directory, needs no shared
memory file, and with its single connection stays clear of the WAL-reset bug of SQLite up to 3.51.2.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from streamup.errors import CheckpointDelayed, CheckpointError, StateDirectoryBusy, StateDirectoryError
from streamup.failpoints import failpoint
from streamup.layout import Layout
from streamup.stores import NO_KEY, Checksum, ObjectMeta, Receipt, StoredObject
from streamup.upload import LIVE, State, Tally, Upload

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], Any]

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    INSERT INTO setting VALUES ('name', lower(hex(randomblob(8))));
    CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    ) WITHOUT ROWID;
    CREATE INDEX upload_by_state ON upload (state, ended);
    CREATE INDEX upload_by_key ON upload (key, created);
    CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
    CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE upload ADD COLUMN provisional INTEGER;
    ALTER TABLE upload ADD COLUMN metadata TEXT;
    """,
    """
    ALTER TABLE upload ADD COLUMN guards TEXT;
    ALTER TABLE upload ADD COLUMN digests TEXT;
    ALTER TABLE receipt ADD COLUMN hashes TEXT;
    """,
    """
    ALTER TABLE upload ADD COLUMN credential TEXT;
    ALTER TABLE upload ADD COLUMN max_bytes INTEGER;
    ALTER TABLE upload ADD COLUMN overwrite INTEGER NOT NULL DEFAULT 1;
    """,
    """
    CREATE INDEX upload_by_subject ON upload (subject, ended);
    CREATE INDEX upload_by_end ON upload (ended);
    """,
)
"""What each version of the schema adds; `PRAGMA user_version` counts those that have been applied.

A change of the schema, or of what the JSON in it may hold, is one more entry (if an empty one: an older streamup must
refuse what it cannot read), and must keep open uploads as they are. `tests/states` has what each version left behind.
"""

FORGET_AT_ONCE = 500
"""Uploads in one transaction of `forget`: those who commit something meanwhile wait for one of them, not for all."""

FULL_SECONDS = 0.5
"""How often a commit that met a full disk is tried again, where somebody can wait for it."""

_OVER = "state NOT IN ('open', 'sealed', 'completing') AND multipart_id IS NULL AND creating IS NULL"
"""It has ended, and holds nothing in the store any more."""


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """How much of a part file is known to be durable, and its CRC64NVME."""

    number: int
    synced: int
    crc64nvme: int


@dataclass(frozen=True, slots=True)
class Record:
    """One upload as the checkpoint knows it (`received` is not in it: the spool knows)."""

    upload: Upload
    synced: dict[int, SyncedFile]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a state directory holds on to, here and in the store: the uploads that have something left, the multipart
    uploads that are theirs, and (key, since when) of those that are being created and have no id yet. `place` is where
    its objects go (`s3://bucket/prefix`), None if no server has said so yet.
    """

    place: str | None
    uploads: Sequence[str]
    multiparts: Sequence[str]
    creating: Sequence[tuple[str, float]]


class Checkpoint:
    """The state directory's database. Open it with `Checkpoint.open`; close it with `close`."""

    def __init__(self, path: Path, executor: Executor, *, migrations: Sequence[str] = MIGRATIONS) -> None:
        """`executor` must run one call at a time: it is the thread that owns the connection."""
        self._path = path
        self._executor = executor
        self._migrations = migrations
        self._db: sqlite3.Connection
        self.name = ""
        """The random name of this state directory, once it is open; one that an older streamup has made has none."""
        self._waiting: list[tuple[Transaction, asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def open(self, *, as_it_is: bool = False) -> None:
        """Open or create the database, and bring it to this version (`as_it_is`: or refuse to).

        Raises `StateDirectoryError`: in use by another process, of another version, or damaged.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._open, as_it_is)

    async def close(self) -> None:
        """Wait for the transactions under way, and let go of the file."""
        while self._committing:
            await asyncio.wait([self._committing])
        await asyncio.get_running_loop().run_in_executor(self._executor, self._db.close)

    # -- transactions -------------------------------------------------------------------------------------------

    async def insist(self, commit: Callable[[], Awaitable[None]], waits: Callable[[], bool] = lambda: True) -> None:
        """One of the transactions below, again and again while the disk is full and whoever needs it `waits`."""
        while True:
            try:
                return await commit()
            except CheckpointDelayed:
                if not waits():
                    raise
            await asyncio.sleep(FULL_SECONDS)

    async def save(self, upload: Upload) -> None:
        """The upload as it is now: created, or changed by a transition."""
        row = _row(upload)
        await self._transact("save", lambda db: _replace(db, row))

    async def add_receipt(self, upload_id: str, receipt: Receipt, hashes: str | None = None) -> None:
        """The store has this part; its part file is no longer needed (law 4). `hashes`: the state at its end of those
        that run over the whole.
        """

        def transaction(db: sqlite3.Connection) -> None:
            db.execute(
                "REPLACE INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    upload_id,
                    receipt.number,
                    receipt.size,
                    receipt.etag,
                    _crc(receipt.crc64nvme),
                    receipt.sha256,
                    hashes,
                ),
            )
            db.execute("DELETE FROM part_file WHERE upload_id = ? AND number = ?", (upload_id, receipt.number))
            if hashes is not None:  # as in `Upload.add_receipt`
                db.execute(
                    "UPDATE receipt SET hashes = NULL WHERE upload_id = :id AND number IN (:number - 1, :number) AND "
                    "EXISTS (SELECT 1 FROM receipt AS n WHERE n.upload_id = :id AND n.number = receipt.number + 1)",
                    {"id": upload_id, "number": receipt.number},
                )

        await self._transact("receipt", transaction)

    async def forget_receipts(self, upload: Upload) -> None:
        """The multipart upload that they were for is gone; the upload as it is now, without any."""
        row = _row(upload)

        def transaction(db: sqlite3.Connection) -> None:
            _replace(db, row)
            db.execute("DELETE FROM receipt WHERE upload_id = ?", (row["id"],))

        await self._transact("save", transaction)

    async def announce(self, upload_id: str, offset: int, files: Sequence[tuple[int, int, int]]) -> None:
        """Everything up to `offset` has been synced: `files` are (number, synced size, CRC64NVME) (law 2)."""
        await self._transact("announce", lambda db: _announce(db, upload_id, offset, files))

    async def keep(self, upload: Upload, offset: int, files: Sequence[tuple[int, int, int]]) -> None:
        """`save` and `announce` in one: the upload as it is now, and what of it has been synced."""
        row = _row(upload)

        def transaction(db: sqlite3.Connection) -> None:
            _replace(db, row)
            _announce(db, row["id"], offset, files)

        await self._transact("announce", transaction)

    async def settle_recovery(
        self, uploads: Sequence[Upload], boot_id: str, synced: Mapping[str, Sequence[SyncedFile]]
    ) -> None:
        """What a restart found, all of it at once: what is beyond `received` goes, and only now is the boot known."""

        def transaction(db: sqlite3.Connection) -> None:
            for upload in uploads:
                row = _row(upload)
                changes = ", ".join(f"{name} = :{name}" for name in row)
                db.execute(f"UPDATE upload SET {changes} WHERE id = :id", row)  # noqa: S608 - column names of our own
                last = max(upload.receipts, default=0)
                db.execute("DELETE FROM receipt WHERE upload_id = ? AND number > ?", (upload.id, last))
                db.execute("DELETE FROM part_file WHERE upload_id = ?", (upload.id,))
                files = [(upload.id, file.number, file.synced, _crc(file.crc64nvme)) for file in synced[upload.id]]
                db.executemany("INSERT INTO part_file VALUES (?, ?, ?, ?)", files)
            db.execute("REPLACE INTO setting VALUES ('boot_id', ?)", (boot_id,))

        await self._transact("recovery", transaction)

    async def keep_place(self, place: str) -> None:
        """Where the objects of this state go."""
        await self._transact("place", lambda db: db.execute("REPLACE INTO setting VALUES ('place', ?)", (place,)))

    async def require_writable(self) -> None:
        """Commit something that nobody reads. Raises `CheckpointError`."""
        # Another value each time: what is the same as before SQLite does not write, whatever has become of the disk.
        await self._transact("ask", lambda db: db.execute("REPLACE INTO setting VALUES ('asked', hex(randomblob(8)))"))

    async def forget(self, before: float, most: int) -> None:
        """Drop what ended before this time, and of the others all but `most`, unless something of it is in the store.

        It is the subject with the most endings that loses its oldest ones: nobody's are pushed out by another's flood.
        """
        ids = await self._ask(lambda db: _forgettable(db, before, most))
        while True:
            batch, ids = ids[:FORGET_AT_ONCE], ids[FORGET_AT_ONCE:]
            await self._transact("forget", partial(_forget, ids=batch))
            if not ids:
                return

    # -- questions ----------------------------------------------------------------------------------------------

    async def boot_id(self) -> str | None:
        """The boot during which this state was last written."""
        return await self._ask(lambda db: _setting(db, "boot_id"))

    async def last_order(self) -> int:
        """The highest place that a seal has been given."""
        return await self._ask(
            lambda db: db.execute("SELECT coalesce(max(sealed_order), 0) AS last FROM upload").fetchone()["last"]
        )

    async def unfinished(self) -> list[Record]:
        """Uploads that a restart must take up: the live ones, and ended ones with something left in the store."""
        live = ", ".join(f"'{state}'" for state in sorted(LIVE))
        where = f"state IN ({live}) OR multipart_id IS NOT NULL OR creating IS NOT NULL ORDER BY created"
        return await self._ask(lambda db: list(_records(db, where)))

    async def multipart_ids(self, key: str) -> set[str]:
        """The multipart uploads of a key that some row knows."""
        where = "SELECT multipart_id FROM upload WHERE key = ? AND multipart_id IS NOT NULL"
        return await self._ask(lambda db: {row["multipart_id"] for row in db.execute(where, (key,))})

    async def holdings(self) -> Holdings:
        """Everything that something is left of."""
        live = ", ".join(f"'{state}'" for state in sorted(LIVE))
        where = f"state IN ({live}) OR multipart_id IS NOT NULL OR creating IS NOT NULL"

        def question(db: sqlite3.Connection) -> Holdings:
            rows = db.execute(f"SELECT id, key, creating, multipart_id FROM upload WHERE {where}").fetchall()  # noqa: S608 - as in unfinished
            return Holdings(
                _setting(db, "place"),
                [row["id"] for row in rows],
                [row["multipart_id"] for row in rows if row["multipart_id"] is not None],
                [(row["key"], row["creating"]) for row in rows if row["creating"] is not None],
            )

        return await self._ask(question)

    async def find(self, upload_id: str) -> Record | None:
        """One upload, whatever its state."""
        return await self._ask(lambda db: next(_records(db, "id = ?", upload_id), None))

    async def known(self, upload_ids: Sequence[str]) -> set[str]:
        """Those of these ids that are an upload's."""
        where = "SELECT id FROM upload WHERE id IN (SELECT value FROM json_each(?))"
        return await self._ask(lambda db: {row["id"] for row in db.execute(where, (json.dumps(upload_ids),))})

    async def newest_ended(self, key: str) -> Record | None:
        """The last upload of this key, by the time it was created, that has ended."""
        where = "key = ? AND ended IS NOT NULL ORDER BY created DESC LIMIT 1"
        return await self._ask(lambda db: next(_records(db, where, key), None))

    async def ended(self, subject: str, limit: int) -> list[Upload]:
        """The uploads of a subject that ended last, newest first; in place of their receipts, what these come to."""
        where = "ended IS NOT NULL AND subject = ? ORDER BY ended DESC LIMIT ?"

        def question(db: sqlite3.Connection) -> list[Upload]:
            rows = db.execute(f"SELECT * FROM upload WHERE {where}", (subject, limit)).fetchall()  # noqa: S608 - a clause of our own
            return [replace(_upload(row, []), told=_tally(db, row["id"])) for row in rows]

        return await self._ask(question)

    # -- the thread ---------------------------------------------------------------------------------------------

    def _open(self, as_it_is: bool) -> None:  # noqa: FBT001 - run_in_executor passes no names
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0)
            try:
                self._prepare(as_it_is=as_it_is)
            except BaseException:
                self._db.close()  # a file that is refused is let go of
                raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StateDirectoryBusy(
                    f"{self._path.parent} is in use by another streamup. Stop it, or choose another --data."
                ) from error
            raise StateDirectoryError(
                f"{self._path}: {error}. Is its disk full or read-only, or is it another user's? Mend that, and start "
                "again; nothing of it was given up."
            ) from error
        except (sqlite3.DatabaseError, UnicodeError) as error:  # SQLite may say what is wrong in words that are damaged
            raise StateDirectoryError(
                f"{self._path} is damaged ({error}). Keep a copy of the directory before you do anything else; "
                "with a new --data streamup starts without its unfinished uploads."
            ) from error

    def _prepare(self, *, as_it_is: bool) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._migrate(as_it_is=as_it_is)

    def _migrate(self, *, as_it_is: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(self._migrations):
            raise StateDirectoryError(
                f"{self._path.parent} was written by a newer streamup (state version {version}, this one knows "
                f"{len(self._migrations)}). It is as it was. Start that version again; to go back to this one, finish "
                "or cancel its uploads there, and start this one with a new --data."
            )
        if as_it_is and version < len(self._migrations):
            raise StateDirectoryError(
                f"{self._path.parent} was written by an older streamup (state version {version}, this one knows "
                f"{len(self._migrations)}). Start streamup serve once: it brings the state to this version."
            )
        self._db.execute("BEGIN EXCLUSIVE")  # also takes the lock that refuses a second process
        for number, script in enumerate(self._migrations[version:], version + 1):
            for statement in filter(str.strip, script.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {number}")
        self.name = _setting(self._db, "name") or ""
        self._db.execute("COMMIT")

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with _translated():
                return question(self._db)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    async def _transact(self, name: str, transaction: Transaction) -> None:
        failpoint(f"before_commit_{name}")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((transaction, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="checkpoint")
        await done
        failpoint(f"after_commit_{name}")

    async def _commit_all(self) -> None:
        """Commit what is waiting, together, until nothing is."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                results: list[Exception | None]
                try:
                    results = await loop.run_in_executor(self._executor, self._run, [entry[0] for entry in batch])
                except Exception as error:  # noqa: BLE001 - nobody must be left waiting, whatever it was
                    results = [CheckpointError(f"the checkpoint did not commit: {error}")] * len(batch)
                for (_, done), result in zip(batch, results, strict=True):
                    if done.cancelled():
                        continue
                    if result:
                        done.set_exception(result)
                    else:
                        done.set_result(None)
        finally:
            self._committing = None

    def _run(self, batch: Sequence[Transaction]) -> list[Exception | None]:
        """Run a batch as one transaction; one that fails takes only itself back."""
        try:
            with _translated():
                self._db.execute("BEGIN IMMEDIATE")
                results = [self._run_one(transaction) for transaction in batch]
                self._db.execute("COMMIT")
        except CheckpointError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return [error] * len(batch)
        return results

    def _run_one(self, transaction: Transaction) -> Exception | None:
        self._db.execute("SAVEPOINT one")
        try:
            with _translated():
                transaction(self._db)
        except CheckpointError as error:
            if not self._db.in_transaction:  # SQLite has rolled back everything (disk full): the batch has failed
                raise
            self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
            return error
        self._db.execute("RELEASE one")
        return None


@contextmanager
def _translated() -> Iterator[None]:
    """Whatever went wrong in SQLite, or on the way into it (a number too large for its integers)."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL  # a write that found no room, no sync
        raise (CheckpointDelayed if full else CheckpointError)(f"the checkpoint did not commit: {error}") from error


# -- rows and values ----------------------------------------------------------------------------------------------

_PLAIN = [
    field.name
    for field in fields(Upload)
    if field.name
    not in {"layout", "meta", "state", "stored_object", "receipts", "received", "guards", "digests", "hashes", "told"}
]
"""Fields that are a column as they are (SQLite has 0 and 1 for a bool)."""


def _row(upload: Upload) -> dict[str, Any]:
    """The upload's columns, copied now: it may change before the thread runs."""
    stored = upload.stored_object
    return {name: getattr(upload, name) for name in _PLAIN} | {
        "state": upload.state.value,
        "layout": _json(upload.layout),
        "meta": _json(upload.meta),
        "stored_object": stored and _json(stored),
        "guards": _digests_json(upload.guards),
        "digests": _digests_json(upload.digests),
    }


def _json(value: Any) -> str:
    """A dataclass of plain values. `asdict` would copy each of them first, which costs four times as much."""
    return json.dumps({field.name: getattr(value, field.name) for field in fields(value)}, default=datetime.isoformat)


def _replace(db: sqlite3.Connection, row: dict[str, Any]) -> None:
    """Write an upload's row. Its offset never falls: the row may have been copied before a later announcement."""
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    changes = ", ".join(f"{name} = excluded.{name}" for name in row if name not in {"id", "offset"})
    statement = f"INSERT INTO upload ({names}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"  # noqa: S608 - column names of our own
    db.execute(f"{statement}, offset = max(offset, excluded.offset)", row)


def _announce(db: sqlite3.Connection, upload_id: str, offset: int, files: Sequence[tuple[int, int, int]]) -> None:
    """Write what has been synced. A part that was stored meanwhile has no file any more."""
    db.execute("UPDATE upload SET offset = max(offset, ?) WHERE id = ?", (offset, upload_id))
    db.executemany(
        "REPLACE INTO part_file SELECT :id, :number, :synced, :crc WHERE NOT EXISTS "
        "(SELECT 1 FROM receipt WHERE upload_id = :id AND number = :number)",
        [{"id": upload_id, "number": n, "synced": s, "crc": _crc(c)} for n, s, c in files],
    )


def _forgettable(db: sqlite3.Connection, before: float, most: int) -> list[str]:
    """The ids for `forget`. Endings are counted first, in an index alone: seldom are there too many."""
    ids = [row["id"] for row in db.execute(f"SELECT id FROM upload WHERE ended < ? AND {_OVER}", (before,))]  # noqa: S608 - a clause of our own
    if db.execute("SELECT count(*) FROM upload WHERE ended >= ?", (before,)).fetchone()[0] > most:
        places = (
            "SELECT id, ended, row_number() OVER (PARTITION BY subject ORDER BY ended DESC) AS place "  # noqa: S608 - as above
            f"FROM upload WHERE ended >= ? AND {_OVER}"
        )
        surplus = f"SELECT id FROM ({places}) ORDER BY place, ended DESC LIMIT -1 OFFSET ?"  # noqa: S608 - as above
        ids += [row["id"] for row in db.execute(surplus, (before, most))]
    return ids


def _forget(db: sqlite3.Connection, ids: Sequence[str]) -> None:
    for table, column in (("receipt", "upload_id"), ("part_file", "upload_id"), ("upload", "id")):
        db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(one,) for one in ids])  # noqa: S608 - names of our own


def _setting(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return row["value"] if row else None


def _records(db: sqlite3.Connection, where: str, *values: Any) -> Iterator[Record]:
    for row in db.execute(f"SELECT * FROM upload WHERE {where}", values).fetchall():  # noqa: S608 - clauses of our own
        files = db.execute("SELECT * FROM part_file WHERE upload_id = ?", (row["id"],))
        synced = {f["number"]: SyncedFile(f["number"], f["synced"], _uncrc(f["crc64nvme"]) or 0) for f in files}
        receipts = db.execute("SELECT * FROM receipt WHERE upload_id = ? ORDER BY number", (row["id"],))
        yield Record(_upload(row, receipts.fetchall()), synced)


def _upload(row: sqlite3.Row, receipts: Sequence[sqlite3.Row]) -> Upload:
    try:
        return _understood(row, receipts)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"upload {row['id']} has what this streamup does not know ({error}). If a newer streamup wrote it, start "
            "that one again; else it is damaged"
        ) from error


def _understood(row: sqlite3.Row, receipts: Sequence[sqlite3.Row]) -> Upload:
    meta = {"sse_c_key_md5": NO_KEY} | json.loads(row["meta"])  # there were no such keys before they were recorded
    return Upload(
        **{name: row[name] for name in _PLAIN},
        state=State(row["state"]),
        layout=Layout(**json.loads(row["layout"])),
        meta=ObjectMeta(**meta | {"checksum": Checksum(meta["checksum"])}),
        stored_object=_stored_object(row["stored_object"]),
        receipts={receipt["number"]: _receipt(receipt) for receipt in receipts},
        received=row["size"] or row["offset"],
        guards=_digests(row["guards"]),
        digests={name: value for name, value in _digests(row["digests"]).items() if value is not None},
        hashes={receipt["number"]: receipt["hashes"] for receipt in receipts if receipt["hashes"]},
    )


def _tally(db: sqlite3.Connection, upload_id: str) -> Tally:
    """Of all receipts of an upload, and of those that none is missing before."""
    placed = "SELECT size, number = row_number() OVER (ORDER BY number) AS joins FROM receipt WHERE upload_id = ?"
    query = f"SELECT count(*), coalesce(sum(size) FILTER (WHERE joins), 0) FROM ({placed})"  # noqa: S608 - as written above
    return Tally(*db.execute(query, (upload_id,)).fetchone())


def _stored_object(text: str | None) -> StoredObject | None:
    if text is None:
        return None
    values = json.loads(text)
    modified = values.pop("modified")
    return StoredObject(**values, modified=modified and datetime.fromisoformat(modified))


def _receipt(row: sqlite3.Row) -> Receipt:
    return Receipt(row["number"], row["size"], row["etag"], _uncrc(row["crc64nvme"]), row["sha256"])


def _digests_json(digests: Mapping[str, bytes | None]) -> str | None:
    return (
        json.dumps({name: None if value is None else value.hex() for name, value in digests.items()})
        if digests
        else None
    )


def _digests(text: str | None) -> dict[str, bytes | None]:
    values = json.loads(text) if text else {}
    return {name: None if value is None else bytes.fromhex(value) for name, value in values.items()}


def _crc(value: int | None) -> bytes | None:
    """A CRC64 as eight bytes: SQLite's integers have a sign."""
    return None if value is None else value.to_bytes(8, "big")


def _uncrc(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")
