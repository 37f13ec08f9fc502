"""A file to be sent, as it was when it was opened: whatever happens to it meanwhile is noticed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from streamup.client.unfinished import Identity
from streamup.errors import TransferError

READ_BYTES = 1 << 20
"""What is read and sent at a time: a thread for every MiB costs less than the copy of it."""

AFRESH = "--afresh gives up what was sent and begins anew."


class LocalFile:
    """A file to send, as it was when it was opened. A `Supply`."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.identity = Identity.of(os.fstat(descriptor))
        self.length = self.identity.size

    @classmethod
    @contextmanager
    def open(cls, path: str) -> Iterator[Self]:
        """Raises `TransferError` for what is no file, or cannot be read."""
        try:
            # Who opens a pipe that nobody writes to would wait here.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TransferError(f"{error.strerror}.") from error
        try:
            _require_file(path, os.fstat(descriptor).st_mode)
            file = cls(path, descriptor)
            _require_end(path, descriptor, file.length)
            yield file
        finally:
            os.close(descriptor)

    async def read(self, position: int) -> bytes:
        """Some bytes from there on; none at the end, if the file is as it was. Raises `TransferError`."""
        size = min(READ_BYTES, self.length - position)
        if size <= 0:
            self.check()
            return b""
        try:
            piece = await asyncio.to_thread(os.pread, self.descriptor, size, position)
        except OSError as error:
            raise TransferError(f"It cannot be read at byte {position}: {error.strerror}.") from error
        if not piece:
            self.check()
            raise TransferError(f"It ends at byte {position}, before {self.length}.")
        return piece

    def release(self, position: int) -> None:
        """A file keeps its bytes anyway."""

    def check(self) -> None:
        """Raises `TransferError` unless it is as it was."""
        try:
            there = Identity.of(os.stat(self.path))  # noqa: PTH116 - as opened above
        except OSError as error:
            raise TransferError(
                f"It has gone while it was sent, and nothing was completed: {error.strerror}."
            ) from error
        if not (there.same(self.identity) and Identity.of(os.fstat(self.descriptor)).same(self.identity)):
            raise TransferError(f"It has changed while it was sent, and nothing was completed. When it rests: {AFRESH}")


def _require_file(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise TransferError(
            f"It is a directory. Push its files (streamup push {path}/* URL/), or all of it as one: "
            f"tar c {path} | streamup push - URL"
        )
    if not stat.S_ISREG(mode):
        raise TransferError(f"It is no file. What cannot be read twice comes by a pipe: streamup push - URL < {path}")


def _require_end(path: str, descriptor: int, size: int) -> None:
    """A file that is made while it is read (/proc, some FUSE file systems) says that it is empty, and is not."""
    try:
        beyond = os.pread(descriptor, 1, size)
    except OSError as error:
        raise TransferError(f"It cannot be read at byte {size}: {error.strerror}.") from error
    if beyond:
        raise TransferError(
            f"It says that it ends at byte {size}, and goes on there. What grows, or is made while it is read, comes "
            f"by a pipe: streamup push - URL < {path}"
        )
