"""What was begun and has not ended: which upload a file is going to, remembered across reboots.

    with Notes().open(path, destination) as note:      # locked: nobody else pushes this file there
        note.known                                     # what an earlier push has left, or None
        note.write(Begun(identity, upload_id))         # durable
        note.remove()

One small file for each pair of a local path and a destination, in the user's state directory. There is no credential
in it, and it proves nothing: the upload is looked up, and its bytes are compared with the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from streamup.client.destination import Destination
from streamup.client.table import printable
from streamup.errors import Interrupted

MOST_NOTES = 10_000
"""Of some 400 bytes each. Older ones go: who leaves so many uploads unfinished does not come back to the first."""

OLDEST_SECONDS = 90 * 24 * 3600
"""Servers keep an upload for a day after its last byte, unless told otherwise (`--expire`)."""

NOTE_SUFFIX = ".json"
LOCK_SUFFIX = ".lock"
FRESH_SUFFIX = ".new"


@dataclass(frozen=True, slots=True)
class Identity:
    """A file as it was. Where nothing of this has changed, its bytes are taken to be the same.

    The device is only noted: its number may be another one after a reboot.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Self:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def same(self, other: Identity) -> bool:
        return (self.inode, self.size, self.mtime_ns) == (other.inode, other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class Begun:
    """A file, and the upload it is going to."""

    identity: Identity
    upload_id: str


class Note:
    """What is remembered of one file on its way to one destination. Use `Notes.open`.

    `damaged`: there was something, and it cannot be read.
    """

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        self._path = path
        self._about = about
        self.known, self.damaged = self._read()

    def _read(self) -> tuple[Begun | None, bool]:
        try:
            told = json.loads(self._path.read_bytes())
            identity = Identity(**{name: int(value) for name, value in told["identity"].items()})
            begun = Begun(identity, str(told["upload"]))
            damaged = {name: told[name] for name in self._about} != self._about
        except FileNotFoundError:
            return None, False
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None, True
        return None if damaged else begun, damaged

    def write(self, begun: Begun) -> None:
        """Remember it. It is on the disk when this returns. Raises `OSError`."""
        told = {**self._about, "identity": asdict(begun.identity), "upload": begun.upload_id}
        fresh = self._path.with_suffix(FRESH_SUFFIX)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{json.dumps(told, indent=1)}\n")
            file.flush()
            os.fsync(descriptor)
        fresh.replace(self._path)
        _sync(self._path.parent)
        self.known = begun

    def remove(self) -> None:
        """Nothing is left to go on with. (Should a power cut bring it back, its upload is found complete.)"""
        with suppress(OSError):
            self._path.unlink()


class Forgetful(Note):
    """Remembers nothing: the state directory cannot be used."""

    def __init__(self) -> None:
        self.known, self.damaged = None, False

    def write(self, begun: Begun) -> None:
        self.known = begun

    def remove(self) -> None: ...


class Notes:
    """All of the user's notes, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.complained = False
        """Whether it was said that nothing can be noted there."""

    @contextmanager
    def open(self, path: str, destination: Destination) -> Iterator[Note]:
        """The note of one file and destination, locked. Raises `Interrupted` if another process is at it, and `OSError`
        where there can be no notes.
        """
        about = {"path": os.path.abspath(path), "server": destination.server, "key": destination.key}  # noqa: PTH100
        name = sha256("\0".join(about.values()).encode(errors="surrogateescape")).hexdigest()[:32]
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.directory / f"{name}{LOCK_SUFFIX}"
        descriptor = _locked(lock, destination)
        try:
            yield Note(self.directory / f"{name}{NOTE_SUFFIX}", about)
        finally:
            with suppress(OSError):
                lock.unlink()  # while it is still ours
            os.close(descriptor)

    def forget(self, path: str, destination: Destination) -> None:
        """Nothing is left to go on with; unless another process is at it."""
        with suppress(OSError, Interrupted), self.open(path, destination) as note:
            note.remove()

    def bound(self) -> None:
        """The oldest go, and what was left by who was killed."""
        with suppress(OSError):
            found = [(entry.stat().st_mtime, entry.path) for entry in os.scandir(self.directory)]
            notes = sorted((one for one in found if one[1].endswith(NOTE_SUFFIX)), reverse=True)
            for _, path in notes[MOST_NOTES:]:
                Path(path).unlink(missing_ok=True)
            for modified, path in found:
                if modified < time.time() - OLDEST_SECONDS:
                    Path(path).unlink(missing_ok=True)


def state_directory() -> Path:
    """Where this user's programs keep what should outlive a reboot (XDG Base Directory Specification; macOS: Apple's
    File System Programming Guide). What is not absolute is to be ignored there.
    """
    if (given := os.environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(given) / "streamup"
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/streamup").expanduser()
    return Path("~/.local/state/streamup").expanduser()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(lock: Path, destination: Destination) -> int:
    """A descriptor of the lock file, which says who has it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed it in between: then this is nobody's lock.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                    return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace")
            os.close(descriptor)
            raise Interrupted(
                f"Process {printable(holder)} is pushing it to {destination} already. Wait for it, or end it."
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
