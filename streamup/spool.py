"""The spool: part files on local disk, and the budget that bounds them.

A part file is named `{upload id}.{part number}` and has no header: its length is what has been received of that part.
It is only ever appended to, so a crash can leave it short and nothing else.

The budget (law 8) is kept in reserves, not in bytes written: a part file is begun only when its whole size is
reserved, so a part that was begun can fill, be stored and give its reserve back. An interrupted upload keeps what its
bytes take and gives the rest back; when it is resumed the rest is reserved again, and only this second kind may use
the last eighth of the budget. No part is larger than that eighth, so a budget full of half parts still lets one of
them fill and drain. A provisional append may use it, too: it cannot drain before its end, so it reserves everything at
once, and never more than that eighth.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from awscrt import checksums

from streamup.errors import CheckpointDelayed, SpoolError
from streamup.failpoints import failpoint
from streamup.layout import Part

PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What a full or read-only disk or a busy machine says. It passes; a writer waits for it, and nothing has failed."""

BUSY = frozenset({errno.EMFILE, errno.ENFILE})
"""Of these what only the opening of a file can say, and no sync: from that ENOSPC is a loss like any other."""

READ_BYTES = 1 << 20
"""A slice when a part file is read back: large enough that calls do not count, small enough that memory does not."""


log = logging.getLogger(__name__)


class Files:
    """The operating system's files. The only door to the disk, so that tests can put another disk behind it."""

    def append(self, path: Path) -> int:
        """A descriptor that appends to `path`, created if missing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: memoryview) -> int:
        """How many bytes were taken; may be fewer than given."""
        return os.write(fd, data)

    def close(self, fd: int) -> None:
        os.close(fd)

    def sync(self, path: Path) -> None:
        """Make a file's bytes durable (fdatasync), by path: it may have been closed since, and the kernel
        syncs the file, not the handle.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            getattr(os, "fdatasync", os.fsync)(fd)
        finally:
            os.close(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the names of new files durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, path: Path, size: int) -> None:
        os.truncate(path, size)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def size(self, path: Path) -> int:
        """0 for a file that is not there."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, path: Path, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`, or fewer where the file is shorter, in slices."""
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end and (data := file.read(min(READ_BYTES, end - start))):
                start += len(data)
                yield data

    def names(self, directory: Path) -> list[str]:
        """Its files (a file system's own directory may be there, too)."""
        return [path.name for path in directory.iterdir() if path.is_file()]

    def free(self, directory: Path) -> int:
        """Bytes that an unprivileged process may still write here. Raises `OSError` where nothing can be written."""
        stat = os.statvfs(directory)
        if not os.access(directory, os.W_OK | os.X_OK):
            number = errno.EROFS if stat.f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number))
        return stat.f_bavail * stat.f_frsize


@dataclass(slots=True)
class PartFile:
    """A part's file and what is known of it: `size` bytes written with checksum `crc64nvme`, `synced` of them durable
    and committed. `reserved` is its share of the budget. `removed`: we have removed it, and it need not be there.
    """

    path: Path
    part: Part
    size: int = 0
    crc64nvme: int = 0
    synced: int = 0
    reserved: int = 0
    fd: int | None = None
    removed: bool = False

    @property
    def full(self) -> bool:
        return self.size == self.part.size


class _Waiting(NamedTuple):
    owner: str
    subject: str
    size: int
    resumed: bool
    begun: bool
    granted: asyncio.Future[None]


class Budget:
    """Bytes of disk that part files may take, handed out in order of arrival.

    While others wait, an owner that holds its share or more (the budget by the number of owners) is passed over, so
    one fast upload cannot take the room in which the slow ones must live. Whoever comes back to a part that it had
    begun is neither passed over nor held up: some such rest always fits, and its part must fill before it can leave.

    `share` bounds what the owners of one subject hold together (None: nothing does). Who waits for that only stands in
    nobody's way.
    """

    def __init__(self, size: int, share: int | None = None) -> None:
        self.size = size
        self.headroom = size // 8
        self.share = share
        self.reserved = 0
        self._held: dict[str, int] = {}
        self._subjects: dict[str, str] = {}
        self._of_subject: dict[str, int] = {}
        self._waiting: list[_Waiting] = []

    def __repr__(self) -> str:
        return f"<Budget {self.reserved}/{self.size}, {len(self._held)} owners, {len(self._waiting)} waiting>"

    async def reserve(
        self, owner: str, size: int, *, subject: str = "", resumed: bool = False, begun: bool = False
    ) -> None:
        """Wait until `size` bytes are ours. Cancelled while waiting: nothing is held, or it is given back.

        `begun`: it is the rest of a part that was begun, which the subject's share does not bound.
        """
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(owner, subject, size, resumed, begun, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._grant()  # those behind us are held up no longer
            else:
                self.release(owner, size)  # granted and cancelled in the same turn of the loop
            raise

    def take(self, owner: str, size: int, *, subject: str = "") -> None:
        """What a restart found on the disk: it is there, room or not."""
        self.reserved += size
        self._held[owner] = self._held.get(owner, 0) + size
        self._subjects[owner] = subject
        self._of_subject[subject] = self._of_subject.get(subject, 0) + size

    def release(self, owner: str, size: int) -> None:
        self.reserved -= size
        self._held[owner] = self._held.get(owner, 0) - size
        subject = self._subjects.get(owner, "")
        self._of_subject[subject] = self._of_subject.get(subject, 0) - size
        if self._held[owner] <= 0:
            del self._held[owner]
            self._subjects.pop(owner, None)
        if self._of_subject[subject] <= 0:
            del self._of_subject[subject]
        self._grant()

    def has_room(self, size: int) -> bool:
        """Whether a newcomer that begins a part of `size` would be served at once, as far as others are concerned."""
        return not any(self._has_share(entry) for entry in self._waiting) and self._fits(size, resumed=False)

    def has_share(self, subject: str, size: int) -> bool:
        """Whether the subject may hold `size` bytes more. One that holds nothing may, rather than never."""
        held = self._of_subject.get(subject, 0)
        return self.share is None or held == 0 or held + size <= self.share

    def _has_share(self, entry: _Waiting) -> bool:
        beyond = self.headroom if entry.resumed else 0
        return entry.begun or self.has_share(entry.subject, entry.size - beyond)

    def _fits(self, size: int, *, resumed: bool) -> bool:
        """A part that is larger than the budget (the operator has made it smaller) goes alone, rather than never."""
        return self.reserved == 0 or self.reserved + size <= self.size - (0 if resumed else self.headroom)

    def _grant(self) -> None:
        """Serve whoever may be served, oldest first; a newcomer with a large request is not overtaken by small ones."""
        waiting, self._waiting = [entry for entry in self._waiting if not entry.granted.done()], []
        contenders = {entry.owner for entry in waiting if self._has_share(entry)}
        owners = len(self._held.keys() | contenders)
        blocked = False
        for entry in waiting:
            held = self._held.get(entry.owner, 0)
            crowded = not entry.resumed and len(contenders) > 1 and held > 0 and held + entry.size > self.size // owners
            passed_over = crowded or not self._has_share(entry)
            if not passed_over and (entry.resumed or not blocked) and self._fits(entry.size, resumed=entry.resumed):
                self.take(entry.owner, entry.size, subject=entry.subject)
                entry.granted.set_result(None)
            else:
                self._waiting.append(entry)
                blocked |= not entry.resumed and not passed_over


class Spool:
    """The directory of part files. Every method but `sync` is meant for the event loop: one short system call."""

    def __init__(self, directory: Path, size: int, files: Files, *, floor: int = 0, share: int | None = None) -> None:
        """`size`: bytes for part files in all; `share`: in all of one subject. `floor`: bytes that no new part may take
        from the disk's last ones.
        """
        self.directory = directory
        self.budget = Budget(size, share)
        self.files = files
        self.floor = floor
        self._left = set[Path]()

    def path(self, upload_id: str, number: int) -> Path:
        return self.directory / f"{upload_id}.{number}"

    def free(self) -> int:
        """Bytes that the disk has left. Raises `SpoolError` where nothing at all can be written."""
        try:
            return self.files.free(self.directory)
        except OSError as error:
            raise SpoolError(f"nothing can be written to the spool now: {error.strerror}") from error

    def has_disk(self, size: int) -> bool:
        """Whether a file of `size` leaves the disk its floor. What else is wrong there, the write will meet."""
        try:
            return not self.floor or self.free() - size >= self.floor
        except SpoolError:
            return True

    def append(self, file: PartFile, data: memoryview) -> int:
        """Write what the disk takes of `data`; 0 when it is full or read-only, or no file can be opened: that passes.

        Raises `SpoolError` on any other failure. The checksum runs over exactly the bytes that were written.
        """
        try:
            if file.fd is None:
                file.fd = self.files.append(file.path)
            taken = self.files.write(file.fd, data)
        except OSError as error:
            if error.errno in PASSING:
                return 0
            raise SpoolError(f"writing {file.path.name}: {error.strerror}") from error
        file.crc64nvme = checksums.crc64nvme(data[:taken], file.crc64nvme)
        file.size += taken
        return taken

    def close(self, file: PartFile) -> None:
        """It is ours no more even if that fails: somebody else's file may have its number by then."""
        if file.fd is not None:
            fd, file.fd = file.fd, None
            self.files.close(fd)

    def sync(self, files: list[PartFile], *, new_names: bool) -> None:
        """Make these files durable, then their names. For a thread: it waits for the disk.

        Raises `SpoolError`, after which the kernel may have dropped the bytes: never to be retried (law 10). A file
        that we have removed meanwhile was stored, which is better than synced.
        """
        try:
            for file in files:
                failpoint("before_sync")
                try:
                    self.files.sync(file.path)
                except FileNotFoundError:
                    if not file.removed:
                        raise
            if new_names:
                failpoint("before_sync_directory")
                self.files.sync_directory(self.directory)
        except OSError as error:
            if error.errno in BUSY:  # no sync has failed
                raise CheckpointDelayed(f"syncing the spool: {error.strerror}") from error
            raise SpoolError(f"syncing the spool: {error.strerror}") from error
        failpoint("after_sync")

    def cut(self, owner: str, file: PartFile, size: int, crc64nvme: int) -> None:
        """Take back what was written of a part beyond `size`, where its checksum was `crc64nvme`.

        Raises `SpoolError`: bytes that may still be there would be found by a restart, or appended to.
        """
        self.close(file)
        try:
            if size:
                self.files.truncate(file.path, size)
            else:
                self.files.unlink(file.path)
        except OSError as error:
            raise SpoolError(f"cutting {file.path.name}: {error.strerror}") from error
        failpoint("after_cut")
        file.size, file.crc64nvme = size, crc64nvme
        rest, file.reserved = file.reserved - size, size
        self.budget.release(owner, rest)

    def remove(self, owner: str, file: PartFile) -> None:
        """The part is stored and its receipt committed (law 4), or its upload has ended."""
        failpoint("before_unlink")
        self.close(file)
        file.removed = True
        self.discard(file.path.name)
        if file.reserved:
            self.budget.release(owner, file.reserved)
            file.reserved = 0
        failpoint("after_unlink")

    def discard(self, name: str) -> None:
        """Remove a file that nobody holds."""
        path = self.directory / name
        try:
            self.files.unlink(path)
        except OSError as error:  # it takes room until it can be
            log.warning("removing %s: %s", name, error.strerror)
            self._left.add(path)

    def tidy(self) -> None:
        """Remove what could not be removed at its time. No other file has taken its name: parts are not rewritten."""
        for path in list(self._left):
            with suppress(OSError):
                self.files.unlink(path)
                self._left.remove(path)
