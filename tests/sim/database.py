"""SQLite in memory, whose commits are durable exactly as far as `PRAGMA synchronous` says.

    database = Database(choices)
    checkpoint.sqlite3 = database.module()      # what `streamup.checkpoint` takes for the module
    database.after_crash()                      # as another process finds it: the last commit
    database.after_power_cut()                  # ... with FULL the same, with NORMAL perhaps an earlier one

The engine is the real one. Its file is an image that is taken after each commit, so a crash in the middle of a
transaction finds what was committed before.

A commit may fail before its effect, or after it. Or in between: the process sees it taken back, and yet a crash may
find it, because it was in the log whose sync failed. The next commit overwrites it there.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

REMEMBERED = 8
"""Commits that a power cut may take back where nothing syncs them."""


class Connection(sqlite3.Connection):
    """A connection that tells its database what it commits."""

    database: Database

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            return self.database.commit(self)
        if statement.startswith("PRAGMA synchronous"):
            self.database.synchronous = statement.rpartition("=")[2].strip().upper()
        elif statement.startswith("PRAGMA journal_mode"):
            statement = "PRAGMA journal_mode = MEMORY"  # the image is of one file, and would not have the log's pages
        elif statement.startswith(("SELECT", "BEGIN")):
            self.database.meet("question")
        return super().execute(statement, *values)

    def really(self, statement: str) -> sqlite3.Cursor:
        return super().execute(statement)


class Database:
    """What is in the file, through all processes that open it one after another."""

    def __init__(self, choices: random.Random, *, passage: Callable[[str], None] = lambda _: None) -> None:
        self.choices = choices
        self.passage = passage
        self.images: deque[bytes] = deque([b""], maxlen=REMEMBERED)
        """The last commits, newest last; the first one of them is durable in any case."""
        self.ghost: bytes | None = None
        self.synchronous = "FULL"
        self.rates: dict[str, float] = {}
        """How often a `commit` or a `question` fails."""
        self.full = False
        """No commit has room."""
        self.happened = Counter[str]()
        self.connection: Connection | None = None

    def module(self) -> Any:
        """What `streamup.checkpoint` needs of the module `sqlite3`."""
        return SimpleNamespace(**vars(sqlite3) | {"connect": self.connect})

    def connect(self, _path: Any, **options: Any) -> Connection:
        connection = sqlite3.connect(":memory:", factory=Connection, **options)
        connection.database = self
        if self.images[-1]:
            connection.deserialize(self.images[-1])
        self.connection = connection
        return connection

    def rows(self, where: str = "1") -> list[tuple[Any, ...]]:
        """What is committed of each upload: its id, key, state, offset and reason. No fault, and nobody is told."""
        if self.connection is None:
            return []
        rows = self.connection.really(f"SELECT id, key, state, offset, reason FROM upload WHERE {where}").fetchall()
        return [tuple(row) for row in rows]

    def commit(self, connection: Connection) -> sqlite3.Cursor:
        if self.full:
            self._fail("finds no room", sqlite3.SQLITE_FULL)
        how = "works"
        if self.choices.random() < self.rates.get("commit", 0):
            how = self.choices.choice(("fails before its effect", "fails after its effect", "fails, and may be found"))
        if how == "fails before its effect":
            self._fail(how)
        self.passage("commit")
        done = connection.really("COMMIT")
        image = connection.serialize()
        if how == "fails, and may be found":
            connection.deserialize(self.images[-1])
            self.ghost = image
            self._fail(how)
        self.images.append(image)
        self.ghost = None
        if self.synchronous == "FULL":
            self.images = deque([image], maxlen=REMEMBERED)
        self.passage("committed")
        if how == "fails after its effect":
            self._fail(how)
        return done

    def meet(self, act: str) -> None:
        if self.choices.random() < self.rates.get(act, 0):
            self._fail(f"{act} fails")

    def snapshot(self) -> Database:
        """A copy as another process finds it."""
        image = self.ghost if self.ghost is not None and self.choices.random() < 0.5 else self.images[-1]
        return self._with([*self.images, image] if image is self.ghost else list(self.images))

    def after_power_cut(self) -> Database:
        return self._with([self.choices.choice(list(self.images))])

    def _with(self, images: list[bytes]) -> Database:
        copy = Database(self.choices, passage=self.passage)
        copy.images = deque(images, maxlen=REMEMBERED)
        copy.rates, copy.happened, copy.full = self.rates, self.happened, self.full
        return copy

    def _fail(self, how: str, code: int = sqlite3.SQLITE_IOERR) -> None:
        self.happened[f"commit {how}"] += 1
        message = "database or disk is full" if code == sqlite3.SQLITE_FULL else "disk I/O error"
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = code
        raise error
