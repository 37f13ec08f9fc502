"""Part files read back from the spool: as bodies for the store, and through hashes.

They must be what came off the socket. All of it waits for the disk, in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256

from awscrt import checksums

from streamup.errors import CheckpointError, SpoolError
from streamup.spool import PASSING, Files, PartFile
from streamup.stores import Checksum, ObjectMeta, PartBody


async def read_back(files: Files, file: PartFile, *updates: Callable[[bytes], object]) -> None:
    """All of the part's bytes through these hashes. Raises `SpoolError` unless they are those that were received, and
    `CheckpointError` if they cannot be read now: then the upload is to be read again.

    Cancelled: the thread goes on, and the hashes are worth nothing any more.
    """

    def read() -> None:
        crc = 0
        try:
            for data in files.read(file.path, 0, file.size):
                crc = checksums.crc64nvme(data, crc)
                for update in updates:
                    update(data)
        except OSError as error:
            if error.errno in PASSING:
                raise CheckpointError(f"reading {file.path.name}: {error.strerror}") from error
            raise SpoolError(f"reading {file.path.name}: {error.strerror}") from error
        if crc != file.crc64nvme:
            raise SpoolError(f"the spool's bytes of part {file.part.number} are not those that came off the socket")

    await asyncio.to_thread(read)


async def body_of(files: Files, file: PartFile | None, meta: ObjectMeta) -> PartBody:
    """A part as a request body, with the digest that the store will check; None is the empty object."""
    digest = sha256() if meta.checksum is Checksum.SHA256 else None
    if file and digest:
        await read_back(files, file, digest.update)
    path, size, crc64nvme = (file.path, file.size, file.crc64nvme) if file else (None, 0, 0)
    return PartBody(path, size, crc64nvme, meta.checksum, digest.digest() if digest else None, meta.sse_c_key_md5)
