"""A download that is not whole yet: the bytes in a temporary file beside the target, what is there in a journal.

    with Partial.open(target, identity) as partial:       # locked; what an earlier attempt left is in `claimed`
        partial.begin(partial.claimed)                     # ... as far as it was found true
        partial.write(data, start); partial.note(Claimed(start, end, crc64nvme))
        partial.finish()                                   # now it is the target

- The target's name only ever shows a file that was finished. Whatever happens before, the same command goes on.
- The journal claims; it proves nothing. Each claim carries the CRC64NVME of its bytes, and is compared with the file.
- One process at a time: the temporary file is locked.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from streamup.client.table import human_size
from streamup.errors import Interrupted, TransferError

PART_SUFFIX = ".streamup-part"
JOURNAL_SUFFIX = ".streamup-journal"
WRITEBACK_BYTES = 64 << 20
"""The disk begins with so many as soon as one has written beyond them: the sync at the end of 2 GiB then takes 0.03 s
instead of 0.7."""

BLOCK_BYTES = 1 << 20
"""What is best written at a time, beginning at a multiple of it: past the page cache, which takes 0.3 to 1.5 CPU-s/GiB
for its copy when several threads write, and the disk alone 0.1. Blocks of 256 KiB cost twice as much as these."""

ALIGNMENT = 4096
"""What passes the page cache must begin, end and lie in memory at multiples of this (open(2): O_DIRECT)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Bytes `start` to `end` are in the file, and this is their CRC64NVME."""

    start: int
    end: int
    crc64nvme: int


class Partial:
    """Use `open`."""

    def __init__(self, target: Path, descriptor: int, identity: Mapping[str, Any]) -> None:
        self.target = target
        self.path = _beside(target, PART_SUFFIX)
        self.journal = _beside(target, JOURNAL_SUFFIX)
        self.descriptor = descriptor
        self._direct = _past_the_cache(self.path)
        self.afresh: str | None = None
        """Why what an earlier attempt left is of no use, if it left something."""
        self._identity = dict(identity)
        self._turn = threading.Lock()
        self.claimed = self._read_journal()
        self._worth_keeping = bool(self.claimed)

    @classmethod
    def open(cls, target: Path, identity: Mapping[str, Any]) -> Self:
        """The temporary file of `target`, locked. `identity` says which object it is: another one begins afresh."""
        with _explained(target):
            return cls(target, _locked(_beside(target, PART_SUFFIX)), identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._worth_keeping:
            self.discard()
        os.close(self.descriptor)  # and with it goes the lock
        if self._direct is not None:
            os.close(self._direct)

    def _read_journal(self) -> list[Claimed]:
        try:
            first, *lines = self.journal.read_text(encoding="utf-8").splitlines() or [""]
        except FileNotFoundError:
            return []
        entries = list(_entries([first, *lines]))
        if not entries or entries[0] != self._identity:
            was = entries[0].get("etag") if entries else None
            self.afresh = f"the object is another one by now (its ETag was {was})" if was else "its journal is damaged"
            return []
        with suppress(KeyError, TypeError, ValueError):
            return [Claimed(int(one["start"]), int(one["end"]), int(one["crc64nvme"], 16)) for one in entries[1:]]
        self.afresh = "its journal is damaged"
        return []

    def begin(self, kept: list[Claimed]) -> None:
        """Go on from these bytes; nothing else counts as there."""
        self._worth_keeping = bool(kept)
        with _explained(self.target, kept=self._worth_keeping):
            if not kept:
                os.ftruncate(self.descriptor, 0)
            lines = [self._identity, *map(_line, kept)]
            fresh = self.journal.with_name(f"{self.journal.name}~")
            fresh.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
            fresh.replace(self.journal)

    def check_room(self, size: int) -> None:
        """That the disk holds a file of `size` bytes. Raises `Interrupted`."""
        with _explained(self.target, kept=self._worth_keeping):
            needed = size - os.fstat(self.descriptor).st_blocks * 512  # st_blocks counts in 512 bytes everywhere
            free = shutil.disk_usage(self.target.parent).free
        if free < needed:
            raise Interrupted(
                f"{self.target}: {human_size(needed)} are to come, and {human_size(free)} are free. Make room; the "
                "same command goes on."
            )

    def write(self, data: memoryview | bytes, position: int) -> None:
        """Threads may call it. Best are whole blocks in aligned memory (`block`)."""
        begun, view = position // WRITEBACK_BYTES, memoryview(data)
        with _explained(self.target, kept=self._worth_keeping):
            while view:
                written = self._write_directly(view, position) or self._write_in_turn(view, position)
                view, position = view[written:], position + written
            if position // WRITEBACK_BYTES > begun:
                self._write_back(begun * WRITEBACK_BYTES)

    def _write_directly(self, view: memoryview, position: int) -> int:
        """Past the page cache. 0: it does not go that way."""
        if self._direct is None or position % ALIGNMENT or len(view) % ALIGNMENT:
            return 0
        try:
            return os.pwrite(self._direct, view, position)
        except OSError as error:
            if error.errno != errno.EINVAL:  # memory or disk are aligned otherwise
                raise
            return 0

    def _write_in_turn(self, view: memoryview, position: int) -> int:
        """Threads take turns: in the kernel eight of them spin for the file's lock (1.4 to 2.4 CPU-s/GiB instead of
        0.9).
        """
        with self._turn:
            return os.pwrite(self.descriptor, view, position)

    def _write_back(self, start: int) -> None:
        """Linux begins to write what it is told to forget, and forgets what has been written."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, start, WRITEBACK_BYTES, os.POSIX_FADV_DONTNEED)

    def note(self, claimed: Claimed) -> None:
        """Remember that these bytes are in the file, for an attempt that comes after this one."""
        self._worth_keeping = True
        with (
            _explained(self.target, kept=self._worth_keeping),
            self._turn,
            self.journal.open("a", encoding="utf-8") as journal,
        ):
            journal.write(f"{json.dumps(_line(claimed))}\n")

    def finish(self) -> None:
        """Synced and renamed, in this order; then the journal goes."""
        with _explained(self.target, kept=self._worth_keeping):
            os.fsync(self.descriptor)
            self.path.replace(self.target)
            directory = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self.journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Nothing of it is of any use. Still locked, so that it is ours and no newcomer's."""
        with suppress(OSError):
            self.path.unlink()
        with suppress(OSError):
            self.journal.unlink()


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _line(claimed: Claimed) -> dict[str, Any]:
    return {"start": claimed.start, "end": claimed.end, "crc64nvme": f"{claimed.crc64nvme:016x}"}


def _entries(lines: list[str]) -> Iterator[dict[str, Any]]:
    """The journal's lines up to one that was cut short."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        yield entry


def _locked(path: Path) -> int:
    """A descriptor of the temporary file that no other process writes to."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other process may have finished in between: then what is locked here is the target itself.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Interrupted(f"Another streamup writes {path} now. Wait for it, or end it.") from None
        os.close(descriptor)


def block() -> memoryview:
    """Memory for a block, aligned."""
    return memoryview(mmap.mmap(-1, BLOCK_BYTES))


def _past_the_cache(path: Path) -> int | None:
    """Another descriptor of the file. None where the file system, or the platform, knows no such way."""
    with suppress(AttributeError, OSError):
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    return None


@contextmanager
def _explained(target: Path, *, kept: bool = False) -> Iterator[None]:
    """What the file system has against it, and what to do."""
    try:
        yield
    except OSError as error:
        where = f"{target}: {error.strerror or error}"
        if error.errno in _FULL:
            raise Interrupted(f"{where}. Make room; the same command goes on.") from error
        raise TransferError(f"{where}.{' What has arrived is kept beside it.' * kept}") from error
