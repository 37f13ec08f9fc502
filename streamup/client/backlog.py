"""The bytes of a stream that are not durable at the server yet: in memory up to a limit, then in temporary files.

    backlog = Backlog(64 << 20, 10 << 30)
    taken = backlog.add(data)      # 0: it is full, and has to wait for a release
    piece = backlog.at(position)   # the next bytes from there; empty if there are none yet
    backlog.release(position)      # what lies before that is not asked for again

A run of segments, each in memory or in a file of its own, and each given back as a whole: so memory is used again as
soon as it is free, and no file system has to punch holes. Files have no name, and are gone with the process. One thread
may add while another reads and releases, and none of them waits for the disk of another.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable

MEMORY_BYTES = 64 << 20
"""Two seconds of a gigabit."""

IN_MEMORY_BYTES = 1 << 20
"""Of a segment in memory: as much as a read of a pipe can bring, and small beside the limit."""

IN_FILE_BYTES = 64 << 20
"""Of a segment in a file, at least: what is released lags behind by one of them at most."""

MOST_FILES = 64
"""A process on macOS has 256 descriptors, unless it asks for more."""

PIECE_BYTES = 256 << 10
"""What is given out of memory at once. It stays in the processor's cache on its way; smaller ones cost more calls."""

READ_BYTES = 1 << 20
"""What is read of a file at once: that takes a thread, which costs more."""


def usual_directory() -> str:
    """Where large temporary files belong: TMPDIR, else /var/tmp, which lies on a disk where /tmp is often memory."""
    return next(
        (place for place in (os.environ.get("TMPDIR"), "/var/tmp") if place and os.access(place, os.W_OK)),  # noqa: S108
        tempfile.gettempdir(),
    )


class Backlog:
    """Bytes from `start` to `end`. `full_disk` is called with what the disk has against more, when it first does."""

    def __init__(
        self,
        memory_bytes: int,
        file_bytes: int,
        directory: str | None = None,
        *,
        full_disk: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        self.start = self.end = 0
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._directory = directory or usual_directory()
        self._full_disk = full_disk
        self._in_memory_bytes = min(IN_MEMORY_BYTES, memory_bytes)
        self._in_file_bytes = max(IN_FILE_BYTES, -(-file_bytes // MOST_FILES)) if file_bytes else 0
        self._segments: list[_Segment] = []
        self._memory = self._file = 0
        """Bytes of the segments that there are, whether they are filled or not."""

        self._told = False
        self._lock = threading.Lock()

    @property
    def in_files(self) -> int:
        """Bytes of disk that are taken at most."""
        return self._file

    def add(self, data: bytes | memoryview) -> int:
        """Take what there is room for; how many bytes that is. A full disk is no room, like any other limit."""
        view = memoryview(data)
        taken = 0
        while taken < len(view) and (segment := self._last()):
            try:
                added = segment.put(view[taken : taken + segment.room])
            except OSError as error:
                self._refused_by_disk(error)
                self._done(segment, cut=True)
                break
            self._done(segment, added)
            taken += added
        return taken

    def _last(self) -> _Segment | None:
        """The segment with room for more, for the time of a write."""
        with self._lock:
            segment = self._with_room()
            if segment is not None:
                segment.users += 1
            return segment

    def _done(self, segment: _Segment, added: int = 0, *, cut: bool = False) -> None:
        """A read or a write of a segment has ended, and bytes are there now. What was released meanwhile may go."""
        with self._lock:
            segment.users -= 1
            segment.size += added
            self.end += added
            if cut:
                self._cut(segment)
            self._give_back()

    def _with_room(self) -> _Segment | None:
        """The last segment, or another; None if there may be no more."""
        if self._segments and self._segments[-1].room:
            return self._segments[-1]
        segment: _Segment
        if self._memory + self._in_memory_bytes <= self._memory_bytes:
            segment = _InMemory(self.end, self._in_memory_bytes)
            self._memory += segment.capacity
        elif self._file < self._file_bytes:
            try:
                segment = _InFile(self.end, min(self._in_file_bytes, self._file_bytes - self._file), self._directory)
            except OSError as error:
                self._refused_by_disk(error)
                return None
            self._file += segment.capacity
        else:
            return None
        self._segments.append(segment)
        return segment

    def _refused_by_disk(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._full_disk(error)

    def _cut(self, segment: _Segment) -> None:
        """The last one takes no more: what comes next may find room in memory."""
        self._file -= segment.room
        segment.capacity = segment.size
        if not segment.size:
            self._segments.pop().close()

    def at(self, position: int) -> bytes | memoryview:
        """The bytes from `position` on, as many as are at hand; at `end` none. Raises `OSError` for a broken disk."""
        with self._lock:
            if position == self.end:
                return b""
            segment = self._with(position)
            segment.users += 1
        try:
            return segment.read(position - segment.start)
        finally:
            self._done(segment)

    def _with(self, position: int) -> _Segment:
        return self._segments[bisect_right(self._segments, position, key=lambda segment: segment.start) - 1]

    def in_memory(self, position: int) -> bool:
        """Whether `at` would not need the disk."""
        with self._lock:
            return position == self.end or isinstance(self._with(position), _InMemory)

    def release(self, position: int) -> None:
        """Everything before `position` may go. Memory that has room is kept: more is to come."""
        with self._lock:
            self.start = max(self.start, min(position, self.end))
            self._give_back()

    def _give_back(self) -> None:
        while self._segments and self._segments[0].start + self._segments[0].size <= self.start:
            first = self._segments[0]
            if first.users or (first.room and isinstance(first, _InMemory)):
                break
            if isinstance(first, _InMemory):
                self._memory -= first.capacity
            else:
                self._file -= first.capacity
            self._segments.pop(0).close()

    def close(self) -> None:
        """Everything may go."""
        self.release(self.end)


class _Segment(ABC):
    """`size` bytes from `start` on, of at most `capacity`. While it has `users`, it is read or written."""

    def __init__(self, start: int, capacity: int) -> None:
        self.start, self.capacity, self.size, self.users = start, capacity, 0, 0

    @property
    def room(self) -> int:
        return self.capacity - self.size

    @abstractmethod
    def put(self, data: memoryview) -> int:
        """As much behind `size` as goes, or less; how much that is. Raises `OSError`."""
        ...

    @abstractmethod
    def read(self, offset: int) -> bytes | memoryview:
        """Some bytes from there on. Raises `OSError`."""
        ...

    @abstractmethod
    def close(self) -> None: ...


class _InMemory(_Segment):
    def __init__(self, start: int, capacity: int) -> None:
        super().__init__(start, capacity)
        self._bytes = memoryview(bytearray(capacity))

    def put(self, data: memoryview) -> int:
        self._bytes[self.size : self.size + len(data)] = data
        return len(data)

    def read(self, offset: int) -> memoryview:
        """Not a copy: what is in there never changes, and is not used again."""
        return self._bytes[offset : min(self.size, offset + PIECE_BYTES)].toreadonly()

    def close(self) -> None: ...


class _InFile(_Segment):
    def __init__(self, start: int, capacity: int, directory: str) -> None:
        """Raises `OSError`."""
        super().__init__(start, capacity)
        self._descriptor, path = tempfile.mkstemp(prefix="streamup-", dir=directory)
        os.unlink(path)  # noqa: PTH108 - it is a string

    def put(self, data: memoryview) -> int:
        return os.pwrite(self._descriptor, data, self.size)

    def read(self, offset: int) -> bytes:
        data = os.pread(self._descriptor, min(READ_BYTES, self.size - offset), offset)
        if not data:
            raise OSError(errno.EIO, "what was written to a temporary file is not there any more")
        return data

    def close(self) -> None:
        os.close(self._descriptor)
