"""A disk in memory that knows what a power cut would leave of it, and that can fail in every way a disk fails.

    disk = Disk(choices)
    spool = Spool(directory, size, disk)         # it is a `Files`
    disk.after_crash()                           # as another process finds it: everything written is there
    disk.after_power_cut()                       # ... or what the rules below leave

What a power cut leaves of a file: all that was synced, unless it was truncated since, and then perhaps. What was
written since is there in part, or is zeros (as delayed allocation leaves it), or garbage. A name that is new since its
directory was synced may be gone, one that was removed may be back.

A sync that fails drops what it should have written: the kernel takes those pages for clean, and a later sync that
succeeds says nothing about them.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from streamup.spool import Files


@dataclass
class Inode:
    """A file's bytes as a process reads them, and what of them the disk has: `durable`, of which the first `firm` bytes
    have not been cut since. What a failed sync has dropped are the bytes in `dropped`.
    """

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    firm: int = 0
    dropped: list[tuple[int, int]] = field(default_factory=list)

    def sync(self) -> None:
        kept = bytearray(self.data)
        for start, end in self.dropped:
            kept[start:end] = bytes(len(kept[start:end]))
        self.durable, self.firm = bytes(kept), len(kept)

    def lose(self) -> None:
        """A sync has failed."""
        self.dropped.append((self.firm, len(self.data)))

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.firm = min(self.firm, size)
        self.dropped = [(start, min(end, size)) for start, end in self.dropped if start < size]

    def copy(self) -> Inode:
        return Inode(bytearray(self.data), self.durable, self.firm, list(self.dropped))

    def after_power_cut(self, choices: random.Random) -> Inode:
        if len(self.durable) > self.firm and choices.random() < 0.5:
            left = self.durable  # the cut came undone
        else:
            tail = bytes(self.data[self.firm :])
            kept = choices.randint(0, len(tail))
            rest = choices.randint(0, len(tail) - kept)
            filler = choices.choice((bytes, choices.randbytes))(rest)
            left = self.durable[: self.firm] + tail[:kept] + filler
        return Inode(bytearray(left), left, len(left))


class Disk(Files):
    """`Files` in memory. `passage` is told the name of each act just before it has its effect, and just after."""

    def __init__(
        self,
        choices: random.Random,
        capacity: int,
        *,
        passage: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.capacity = capacity
        self.choices = choices
        self.passage = passage
        self.now = now
        self.names_now: dict[str, Inode] = {}
        self.names_durable: dict[str, Inode] = {}
        self.open: dict[int, Inode] = {}
        self.most_open = 1 << 30
        self.rates: dict[str, float] = {}
        """How often each act fails: `write`, `sync`, `sync_directory`, `read`, `unlink`, `truncate`; and `short`, a
        write that takes only some of its bytes.
        """
        self.happened = Counter[str]()
        """Faults, by kind."""
        self.hurt: dict[tuple[str, str], float] = {}
        """Acts that have failed, each with the name of its file: when that was, the last time."""
        self._next = 3

    # -- what a test asks ---------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        return sum(len(inode.data) for inode in self.names_now.values())

    def contents(self) -> dict[str, bytes]:
        return {name: bytes(inode.data) for name, inode in self.names_now.items()}

    def bytes_of(self, path: Path) -> bytes | None:
        """What a file holds; no fault, and nobody is told."""
        inode = self.names_now.get(path.name)
        return None if inode is None else bytes(inode.data)

    def durable(self, path: Path) -> bytes:
        """What is left of a file whatever a power cut does."""
        inode = self.names_durable.get(path.name)
        return inode.durable[: inode.firm] if inode and inode is self.names_now.get(path.name) else b""

    def snapshot(self) -> Disk:
        """A copy as another process finds it: nothing is open, and all that was written is there."""
        copy = self._empty()
        inodes = {id(inode): inode.copy() for inode in (*self.names_now.values(), *self.names_durable.values())}
        copy.names_now = {name: inodes[id(inode)] for name, inode in self.names_now.items()}
        copy.names_durable = {name: inodes[id(inode)] for name, inode in self.names_durable.items()}
        return copy

    def after_power_cut(self) -> Disk:
        copy = self._empty()
        for name in sorted(self.names_now.keys() | self.names_durable.keys()):
            now, durable = self.names_now.get(name), self.names_durable.get(name)
            inode = durable if now is durable or self.choices.random() < 0.5 else now
            if inode is not None:
                copy.names_now[name] = inode.after_power_cut(self.choices)
        copy.names_durable = dict(copy.names_now)
        return copy

    def flush(self) -> None:
        """As an orderly shutdown of the machine does."""
        for inode in self.names_now.values():
            inode.sync()
        self.names_durable = dict(self.names_now)

    def _empty(self) -> Disk:
        copy = Disk(self.choices, self.capacity, passage=self.passage, now=self.now)
        copy.rates, copy.happened, copy.hurt, copy.most_open = self.rates, self.happened, self.hurt, self.most_open
        return copy

    # -- Files --------------------------------------------------------------------------------------------------------

    def append(self, path: Path) -> int:
        self._require_descriptor(path)
        self._meet("open", path, errno.EMFILE)
        if path.name not in self.names_now:
            self.passage("disk_create")
            self.names_now[path.name] = Inode()
            self.passage("disk_created")
        self._next += 1
        self.open[self._next] = self.names_now[path.name]
        return self._next

    def write(self, fd: int, data: memoryview) -> int:
        inode = self.open[fd]
        name = next((name for name, one in self.names_now.items() if one is inode), "?")
        self._meet("write", Path(name), errno.EIO)
        room = self.capacity - self.used
        if room <= 0 and data:
            self._fail("full", Path(name), errno.ENOSPC, hurts=False)
        taken = min(len(data), room)
        if taken > 1 and self.choices.random() < self.rates.get("short", 0):
            self.happened["disk write is short"] += 1
            taken = self.choices.randint(1, taken - 1)
        self.passage("disk_write")
        inode.data += data[:taken]
        self.passage("disk_written")
        return taken

    def close(self, fd: int) -> None:
        del self.open[fd]

    def sync(self, path: Path) -> None:
        self._require_descriptor(path)
        inode = self._found(path)
        if self.choices.random() < self.rates.get("sync", 0):
            inode.lose()
            self._fail("sync", path, self.choices.choice((errno.EIO, errno.ENOSPC)))
        self.passage("disk_sync")
        inode.sync()
        self.passage("disk_synced")

    def sync_directory(self, path: Path) -> None:
        self._require_descriptor(path)
        self._meet("sync_directory", path, errno.EIO)
        self.passage("disk_sync_directory")
        self.names_durable = dict(self.names_now)
        self.passage("disk_synced_directory")

    def truncate(self, path: Path, size: int) -> None:
        self._meet("truncate", path, errno.EIO)
        self.passage("disk_truncate")
        self._found(path).truncate(size)
        self.passage("disk_truncated")

    def unlink(self, path: Path) -> None:
        self._meet("unlink", path, errno.EIO)
        self.passage("disk_unlink")
        self.names_now.pop(path.name, None)
        self.passage("disk_unlinked")

    def size(self, path: Path) -> int:
        inode = self.names_now.get(path.name)
        return len(inode.data) if inode else 0

    def read(self, path: Path, start: int, end: int) -> Iterator[bytes]:
        self._require_descriptor(path)
        inode = self._found(path)
        self._meet("read", path, errno.EIO)
        if data := bytes(inode.data[start:end]):
            yield data

    def names(self, directory: Path) -> list[str]:
        self._meet("list", directory, errno.EIO)
        return sorted(self.names_now)

    def free(self, _directory: Path) -> int:
        return max(0, self.capacity - self.used)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _found(self, path: Path) -> Inode:
        if (inode := self.names_now.get(path.name)) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return inode

    def _require_descriptor(self, path: Path) -> None:
        if len(self.open) >= self.most_open:
            self._fail("too many open files", path, errno.EMFILE, hurts=False)

    def _meet(self, act: str, path: Path, number: int) -> None:
        if self.choices.random() < self.rates.get(act, 0):
            self._fail(act, path, number)

    def _fail(self, act: str, path: Path, number: int, *, hurts: bool = True) -> None:
        self.happened[f"disk {act}"] += 1
        if hurts:
            self.hurt[act, path.name] = self.now()
        raise OSError(number, os.strerror(number), str(path))
