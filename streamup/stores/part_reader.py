"""A part file on its way out: as a request body that is never held whole; as an MD5 where a store knows no better.

What goes wrong with the file here is a `SpoolError`, never the store's fault.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path
from typing import Self

from awscrt import checksums

from streamup.digests import base64_of
from streamup.errors import SpoolError, StoreUnavailable
from streamup.stores import PartBody

NOTHING = Path(os.devnull)
SLICE = 256 << 10
"""Bytes in memory at a time. From 64 KiB to 1 MiB the CPU cost is the same; slices of 1 MiB are fresh memory each time
(8,000 page faults per GiB instead of 100)."""


class PartReader:
    """A part file as a request body: botocore asks it for its length, aiohttp iterates over it, nobody holds it whole.

    Measured with 8 MiB parts over loopback, CPU-s/GiB of the whole request: this 0.5-0.7; slices read in threads
    0.7-1.0; the part as `bytes` 0.8-1.1; `sendfile` from an aiohttp payload 0.45-0.53, but without TLS and uvloop only.
    `failure` is what went wrong with the file: aiohttp wraps it beyond recognition on its way to us.

    `compare`: no checksum goes with the body by which the store would refuse it. So its CRC64NVME is compared here with
    that of what came off the socket, before the last slice goes out: a body without its end has no effect anywhere.
    Measured with 8 MiB parts: 0.025 CPU-s/GiB.
    """

    def __init__(self, body: PartBody, *, compare: bool = False) -> None:
        self._path = body.path or NOTHING
        self._size = body.size
        self._expected = body.crc64nvme if compare else None
        self._file: FileIO
        self.failure: SpoolError | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:  # it passes
                raise StoreUnavailable(
                    f"The part file {self._path.name} cannot be opened now: {error.strerror}"
                ) from error
            raise SpoolError(f"The part file {self._path.name} cannot be opened: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        crc = 0
        for start in range(0, self._size, SLICE):
            end = min(start + SLICE, self._size)
            try:
                # Part files are young and nearly always in the page cache, where a thread would only cost. After an
                # outage of the store they may not be, and a slow disk must not stall every other upload.
                if self._cached(end - 1):
                    data = os.pread(self._file.fileno(), end - start, start)
                else:
                    data = await asyncio.to_thread(_read_slice, self._path, start, end)
            except OSError as error:
                self.failure = SpoolError(f"The part file {self._path.name} cannot be read: {error.strerror}")
                raise self.failure from error
            if len(data) < end - start:
                self.failure = SpoolError(f"The part file {self._path.name} ends before byte {end}.")
                raise self.failure
            if self._expected is not None:
                crc = checksums.crc64nvme(data, crc)
                if end == self._size and crc != self._expected:
                    self.failure = _changed(self._path)
                    raise self.failure
            yield data

    def _cached(self, position: int) -> bool:
        """Whether a read here would not wait for the disk. Where the system cannot tell, it would."""
        try:
            return os.preadv(self._file.fileno(), [bytearray(1)], position, os.RWF_NOWAIT) == 1
        except (AttributeError, OSError):
            return False

    # botocore wants the looks of a file, and rewinds it when it follows a redirect. Every iteration starts at 0.
    def read(self, _size: int = -1) -> bytes:
        raise NotImplementedError

    def seek(self, offset: int, _whence: int = 0) -> int:
        return offset

    def tell(self) -> int:
        return 0


def _read_slice(path: Path, start: int, end: int) -> bytes:
    """Runs in a thread, and opens the file for itself: the request may be cancelled and its file closed meanwhile."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), end - start, start)


def content_md5(body: PartBody) -> str:
    """For stores without CRC64NVME (runs in a thread, 2 s/GiB). The CRC is compared here instead, on the same bytes, so
    that nothing on the way from the socket to the store goes unchecked.
    """
    path, digest, crc = body.path or NOTHING, hashlib.md5(usedforsecurity=False), 0
    try:
        with path.open("rb", buffering=0) as file:
            for start in range(0, body.size, SLICE):
                data = os.pread(file.fileno(), min(SLICE, body.size - start), start)
                digest.update(data)
                crc = checksums.crc64nvme(data, crc)
    except OSError as error:
        raise SpoolError(f"The part file {path.name} cannot be read: {error.strerror}") from error
    if crc != body.crc64nvme:
        raise _changed(path)
    return base64_of(digest.digest())


def _changed(path: Path) -> SpoolError:
    return SpoolError(f"The part file {path.name} is not what was received: its CRC64NVME differs.")
