"""The part accumulator: bytes in, part files out.

One per upload. `add` puts every byte into the part file of its position (laws 1 and 3); whatever is full, or sealed,
leaves by `next_part` in order, as often as the uploader needs it, and is removed by `discard` once its receipt is
committed (law 4). The checksum of each part runs as its bytes arrive.

`add` waits in two places only, for the budget and for a full disk, and with nothing half done: it may be cancelled
there, and every byte it has counted is in the spool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamup.errors import BadRequest, LengthExceeded
from streamup.failpoints import failpoint
from streamup.spool import PartFile, Spool
from streamup.upload import Upload

DISK_FULL_SECONDS = 0.5
"""How often a writer that met a full disk looks again. Its socket stays unread meanwhile."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What one sync made durable: `offset`, and per part file (number, size, CRC64NVME) as of its start."""

    offset: int
    files: Sequence[tuple[int, int, int]]


class Accumulator:
    """The part files of one upload."""

    def __init__(self, upload: Upload, spool: Spool) -> None:
        self._upload = upload
        self._spool = spool
        self._files: dict[int, PartFile] = {}
        self._open: PartFile | None = None
        self._ready = deque[PartFile]()
        self._changed = asyncio.Event()
        self._new_names = False
        self._sealed = upload.size is not None

    def __repr__(self) -> str:
        return f"<Accumulator {self._upload.id} {sorted(self._files)} open={self._open}>"

    # -- bytes in -----------------------------------------------------------------------------------------------

    async def add(self, chunk: bytes, *, limit: int | None = None) -> None:
        """Keep `chunk`. `limit` is the position at which this append must end.

        Bytes up to the limit (or the upload's length) are kept; a byte beyond it raises `BadRequest` (or
        `LengthExceeded`). Raises `SpoolError`.
        """
        view = memoryview(chunk)
        while view:
            allowed = self._allowed(limit)
            if allowed == 0:
                self._refuse(limit)
            file = self._open or await self._begin_part()
            failpoint("before_write")
            taken = self._spool.append(file, view[: min(file.part.size - file.size, allowed or len(view))])
            self._new_names |= file.size == taken  # its first bytes, so its name is new (with none taken, it may be)
            self._upload.receive(taken)
            failpoint("after_write")
            view = view[taken:]
            if file.full:
                self._hand_out(file)
            elif not taken:
                await asyncio.sleep(DISK_FULL_SECONDS)

    async def resume(self) -> None:
        """A new writer is about to add: reserve the rest of the unfinished part, which its predecessor gave back."""
        if (file := self._open) and (rest := self._wanted(file) - file.reserved) > 0:
            await self._spool.budget.reserve(self._upload.id, rest, resumed=True)
            file.reserved += rest
        self._changed.set()  # the client's word may be another one: its single part may have to leave

    def suspend(self) -> None:
        """The writer has gone: keep what the bytes take, give the rest of the reserve and the descriptor back."""
        if file := self._open:
            self._spool.close(file)
            rest, file.reserved = file.reserved - file.size, file.size
            self._spool.budget.release(self._upload.id, rest)

    def seal(self) -> None:
        """The upload's seal is committed: the last part is whatever is there."""
        self._sealed = True
        if self._open:
            self._hand_out(self._open)
        self._changed.set()

    def _allowed(self, limit: int | None) -> int | None:
        """How many bytes may still come in this append, None: any number."""
        rooms = [room for room in (self._upload.room, limit and limit - self._upload.received) if room is not None]
        return min(rooms) if rooms else None

    def _refuse(self, limit: int | None) -> None:
        if self._upload.room == 0:
            raise LengthExceeded(
                f"More than the declared {self._upload.length} bytes were sent.", limit=self._upload.length or 0
            )
        raise BadRequest(f"The body goes beyond byte {limit}, where its range ends.", limit=limit or 0)

    async def _begin_part(self) -> PartFile:
        """Open the part of the next byte, once there is room for all of it."""
        part = self._upload.layout.part_at(self._upload.received)
        file = PartFile(self._spool.path(self._upload.id, part.number), part)
        wanted = self._wanted(file)
        while not self._spool.has_disk(wanted):  # noqa: ASYNC110 - nobody tells us when a disk has room again
            await asyncio.sleep(DISK_FULL_SECONDS)
        await self._spool.budget.reserve(self._upload.id, wanted)
        file.reserved = wanted
        self._files[part.number] = self._open = file
        return file

    def _wanted(self, file: PartFile) -> int:
        """The reserve a part file needs: its whole size, or less where the upload is known to end inside it."""
        end = self._upload.seal_at if self._upload.length is None else self._upload.length
        return file.part.size if end is None else max(min(file.part.end, end) - file.part.start, file.size)

    def _hand_out(self, file: PartFile) -> None:
        self._spool.close(file)
        self._open = None
        self._ready.append(file)
        self._changed.set()

    # -- parts out ----------------------------------------------------------------------------------------------

    async def next_part(self) -> PartFile | None:
        """The next part to store, in order; None when the upload is sealed and all have been handed out.

        While the upload may still turn out to be a single object, its only part waits for the seal.
        """
        while True:
            if self._ready and (self._sealed or not self._upload.single):
                return self._ready.popleft()
            if self._sealed:
                return None
            self._changed.clear()
            await self._changed.wait()

    def rewind(self) -> bool:
        """Hand all parts out again from the first; False if some have left the spool already."""
        files = sorted(self._files.values(), key=lambda file: file.part.number)
        self._ready = deque(file for file in files if file is not self._open)
        return not self._upload.receipts

    def discard(self, file: PartFile) -> None:
        """The part's receipt is committed: its file may go."""
        del self._files[file.part.number]
        self._spool.remove(self._upload.id, file)

    def only_part(self) -> PartFile | None:
        """The single part of a sealed upload; None when it is empty."""
        return self._files.get(1)

    # -- durability and recovery --------------------------------------------------------------------------------

    async def sync(self) -> Synced:
        """Make everything received so far durable, and say what that was; committing it is the caller's business.

        The disk works in a thread; bytes that arrive meanwhile are not part of the answer. Cancelled: the thread
        finishes, nothing is claimed. Raises `SpoolError`.
        """
        offset = self._upload.received
        files = [file for file in self._files.values() if file.synced < file.size]
        sizes = [(file.part.number, file.size, file.crc64nvme) for file in files]
        new_names, self._new_names = self._new_names, False
        try:
            await asyncio.to_thread(self._spool.sync, files, new_names=new_names)
        except BaseException:
            self._new_names |= new_names
            raise
        return Synced(offset, sizes)

    def committed(self, synced: Synced) -> None:
        """The checkpoint holds this sync."""
        for number, size, _ in synced.files:
            if file := self._files.get(number):
                file.synced = max(file.synced, size)

    def adopt(self, file: PartFile) -> None:
        """A part file that a restart found and verified."""
        self._files[file.part.number] = file
        self._new_names = True  # the process that created it may not have come to sync the directory
        file.reserved = file.size
        self._spool.budget.take(self._upload.id, file.size)
        if file.full or self._sealed:
            self._ready.append(file)
        else:
            self._open = file

    def release(self) -> None:
        """Forget the files without touching them: they will be read again."""
        for file in self._files.values():
            self._spool.close(file)
            self._spool.budget.release(self._upload.id, file.reserved)
        self._files.clear()
        self._open = None
        self._ready.clear()

    def clear(self) -> None:
        """The upload has ended: nothing of it stays in the spool."""
        for file in list(self._files.values()):
            self.discard(file)
        self._open = None
        self._ready.clear()
