"""What a power cut may leave of a state directory beside what was synced: anything at all, where nothing was promised.

A part file counts as far as the checkpoint says that it was synced, on another boot. The checkpoint counts as far as
the last commit in its write-ahead log. Behind these ends a disk may hold zeros, garbage, old blocks, or nothing. What
is before them is never touched here: nobody can say from outside whether somebody was told of it.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from process import PART

CHECKPOINT = "checkpoint.sqlite"
BLOCK = 4096
WAL_HEADER, FRAME_HEADER = 32, 24
"""https://sqlite.org/fileformat2.html, section 4: the sizes, and where salts and the mark of a commit are."""


def synced_ends(state: Path) -> dict[str, int]:
    """How far each part file is durable, by its name, as the checkpoint has it. Read from a copy: a reader of the
    original would tidy it up.
    """
    with tempfile.TemporaryDirectory() as directory:
        for name in (CHECKPOINT, f"{CHECKPOINT}-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(state / name, directory)
        with closing(sqlite3.connect(Path(directory) / CHECKPOINT)) as db, suppress(sqlite3.OperationalError):
            rows = db.execute("SELECT upload_id, number, synced FROM part_file")
            return {f"{upload_id}.{number}": end for upload_id, number, end in rows}
    return {}


def damage_part_files(state: Path, rng: random.Random) -> int:
    """Do something to what was not synced of each part file. How many were changed."""
    ends, changed = synced_ends(state), 0
    for path in sorted((state / "spool").iterdir()):
        end, size = ends.get(path.name, 0), path.stat().st_size
        if size < end:
            continue  # what is lost is for the server to find
        tail = _tail(rng, PART - end)
        changed += 1
        if not end and rng.random() < 0.2:
            path.unlink()
            continue
        with path.open("r+b") as file:
            file.seek(end)
            file.write(tail)
            if rng.random() < 0.5:
                file.truncate()
    return changed


def damage_log(state: Path, rng: random.Random) -> int:
    """Tear what a commit would have added to the write-ahead log. Whether there was one."""
    path = state / f"{CHECKPOINT}-wal"
    if not path.exists() or (end := end_of_commits(data := path.read_bytes())) is None:
        return 0
    torn = _tail(rng, 5 * BLOCK)
    if end > WAL_HEADER and rng.random() < 0.6:
        frame = bytearray(data[WAL_HEADER : WAL_HEADER + FRAME_HEADER + _page_size(data)])
        frame[4:8] = rng.randint(1, 9).to_bytes(4, "big")  # it says that it is a commit
        torn = bytes(frame[: rng.randint(1, len(frame))]) + torn * rng.randint(0, 1)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(torn)
        if rng.random() < 0.5:
            file.truncate()
    return 1


def end_of_commits(log: bytes) -> int | None:
    """Where the last commit in a write-ahead log ends; None for what is no such log.

    Checksums are not looked at: a frame that has the log's salts may only make this end later than it is.
    """
    if len(log) < WAL_HEADER or log[:3] != b"\x37\x7f\x06":
        return None
    salts, size = log[16:24], FRAME_HEADER + _page_size(log)
    position, end = WAL_HEADER, WAL_HEADER
    while position + size <= len(log) and log[position + 8 : position + 16] == salts:
        position += size
        if any(log[position - size + 4 : position - size + 8]):
            end = position
    return end


def _page_size(log: bytes) -> int:
    return int.from_bytes(log[8:12], "big")


def _tail(rng: random.Random, most: int) -> bytes:
    """Zeros or garbage, up to so many bytes: few, some blocks, or all."""
    size = min(most, rng.choice([0, rng.randint(1, 600), BLOCK, rng.randint(1, 40) * BLOCK, most]))
    return bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
