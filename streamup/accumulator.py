"""The part accumulator: bytes in, part files out.

One per upload. `add` puts every byte into the part file of its position (laws 1 and 3); whatever is full, or sealed,
leaves by `next_part` in order, as often as the uploader needs it, and is removed by `discard` once its receipt is
committed (law 4). The checksum of each part runs as its bytes arrive.

`add` waits in two places only, for the budget and for a full disk, and with nothing half done: it may be cancelled
there, and every byte it has counted is in the spool.

The bytes of a provisional append (one that comes with a digest) are written in their places, too, but they are not
received, leave by no door and are in no sync before `confirm`; `withdraw` leaves what was there before them. So such an
append cannot drain what it fills: it has its whole reserve before its first byte, or it waits with none of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from streamup.errors import BadRequest, LengthExceeded, SpoolError
from streamup.failpoints import failpoint
from streamup.spool import PartFile, Spool
from streamup.upload import Upload

DISK_FULL_SECONDS = 0.5
"""How often a writer that met a full disk looks again. Its socket stays unread meanwhile."""


@dataclass(slots=True)
class _Provisional:
    """A provisional append: the part it found open, as that was then, and how many bytes it has `added` since.

    `reserved` is what is left of its reserve; each byte takes its share along into its part file.
    """

    file: PartFile | None
    size: int
    crc64nvme: int
    reserved: int
    added: int = 0


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
        self._provisional: _Provisional | None = None
        self._ready = deque[PartFile]()
        self._changed = asyncio.Event()
        self._new_names = False
        self._sealed = upload.size is not None
        self.distrusted = False
        """A sync has failed: nobody knows what the disk has of the files, whatever a later sync says (law 10)."""

    def __repr__(self) -> str:
        return f"<Accumulator {self._upload.id} {sorted(self._files)} open={self._open}>"

    @property
    def position(self) -> int:
        """Where the next byte goes: after what is received, and what a provisional append has added to that."""
        return self._upload.received + (self._provisional.added if self._provisional else 0)

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
            self._count(file, taken)
            failpoint("after_write")
            view = view[taken:]
            if file.full:
                self._hand_out(file)
            elif not taken:
                await asyncio.sleep(DISK_FULL_SECONDS)

    async def resume(self) -> None:
        """A new writer is about to add: reserve the rest of the unfinished part, which its predecessor gave back."""
        if (file := self._open) and (rest := self._wanted(file) - file.reserved) > 0:
            await self._reserve(rest, resumed=True, begun=True)
            file.reserved += rest
        self._changed.set()  # the client's word may be another one: its single part may have to leave

    async def resume_provisionally(self, most: int, *, limit: int | None = None) -> None:
        """A new writer is about to add up to `most` bytes that count only after `confirm`. The others are announced.

        All of their reserve is taken at once: several such writers with half of theirs would wait for each other.
        """
        allowed = self._allowed(limit)
        wanted = self._wanted_provisionally(most if allowed is None else min(most, allowed))
        if wanted:
            while not self._spool.has_disk(wanted):  # noqa: ASYNC110 - as in `_begin_part`
                await asyncio.sleep(DISK_FULL_SECONDS)
            await self._reserve(wanted, resumed=True)
        size, crc64nvme = (self._open.size, self._open.crc64nvme) if self._open else (0, 0)
        self._provisional = _Provisional(self._open, size, crc64nvme, wanted)
        failpoint("after_resume_provisionally")
        self._changed.set()

    def suspend(self) -> None:
        """The writer has gone: keep what the bytes take, give the rest of the reserve and the descriptor back."""
        if file := self._open:
            self._spool.close(file)
            rest, file.reserved = file.reserved - file.size, file.size
            self._spool.budget.release(self._upload.id, rest)
        if provisional := self._provisional:
            self._spool.budget.release(self._upload.id, provisional.reserved)
            provisional.reserved = 0

    def confirm(self) -> None:
        """The digest has matched, and that is committed: what was provisional is received, and its full parts leave."""
        provisional, start = self._provisional, self._upload.received
        if provisional is None:
            return
        self._provisional = None
        self._upload.receive(provisional.added)
        self._ready.extend(file for file in self._in_order() if file.full and file.part.end > start)
        self._changed.set()

    def withdraw(self) -> None:
        """Leave what was there before the provisional append, and nothing of it. Raises `SpoolError`."""
        if (provisional := self._provisional) is None:
            return
        for file in filter(self._is_provisional, self._in_order()):
            if file is provisional.file:
                self._spool.cut(self._upload.id, file, provisional.size, provisional.crc64nvme)
            else:
                self._spool.cut(self._upload.id, file, 0, 0)
                del self._files[file.part.number]
        self._open, self._provisional = provisional.file, None

    def seal(self) -> None:
        """The upload's seal is committed: the last part is whatever is there."""
        self._sealed = True
        if self._open and self._open.size:
            self._hand_out(self._open)
        elif self._open:  # nothing has come of it, and there may be no file
            self.discard(self._open)
            self._open = None
        self._changed.set()

    def _allowed(self, limit: int | None) -> int | None:
        """How many bytes may still come in this append, None: any number."""
        ends = [end for end in (self._upload.length, limit) if end is not None]
        return max(0, min(ends) - self.position) if ends else None

    def _refuse(self, limit: int | None) -> None:
        if self._upload.length == self.position:
            raise LengthExceeded(
                f"More than the declared {self._upload.length} bytes were sent.", limit=self._upload.length or 0
            )
        raise BadRequest(f"The body goes beyond byte {limit}, where its range ends.", limit=limit or 0)

    async def _begin_part(self) -> PartFile:
        """Open the part of the next byte, once there is room for all of it."""
        part = self._upload.layout.part_at(self.position)
        file = PartFile(self._spool.path(self._upload.id, part.number), part)
        if not self._provisional:
            wanted = self._wanted(file)
            while not self._spool.has_disk(wanted):  # noqa: ASYNC110 - nobody tells us when a disk has room again
                await asyncio.sleep(DISK_FULL_SECONDS)
            await self._reserve(wanted)
            file.reserved = wanted
        self._files[part.number] = self._open = file
        return file

    async def _reserve(self, size: int, *, resumed: bool = False, begun: bool = False) -> None:
        upload = self._upload
        await self._spool.budget.reserve(upload.id, size, subject=upload.subject, resumed=resumed, begun=begun)

    def _count(self, file: PartFile, size: int) -> None:
        """`size` bytes more are in the spool."""
        if provisional := self._provisional:
            file.reserved += size
            provisional.reserved -= size
            self._upload.require_open()
            provisional.added += size
        else:
            self._upload.receive(size)

    def _is_provisional(self, file: PartFile) -> bool:
        """Whether a part file may hold bytes that are not received."""
        return self._provisional is not None and file.part.end > self._upload.received

    def _in_order(self) -> list[PartFile]:
        return sorted(self._files.values(), key=lambda file: file.part.number)

    def _wanted(self, file: PartFile) -> int:
        """The reserve a part file needs: its whole size, or less where the upload is known to end inside it."""
        end = self._upload.seal_at if self._upload.length is None else self._upload.length
        return file.part.size if end is None else max(min(file.part.end, end) - file.part.start, file.size)

    def _wanted_provisionally(self, most: int) -> int:
        """The reserve of a provisional append: up to the end of the last part it may reach, which can then fill.

        But never more than the budget leaves to those who come back: newcomers could take the rest of it for ever,
        and room for that much is room for any one part.
        """
        layout, start = self._upload.layout, self.position
        last = min(start + most, layout.capacity)
        if last == start:
            return 0
        end = layout.part_at(last - 1).end
        known = self._upload.seal_at if self._upload.length is None else self._upload.length
        if known is not None:
            end = min(end, max(known, last))
        return min(end - start, max(self._spool.budget.headroom, most))

    def _hand_out(self, file: PartFile) -> None:
        self._spool.close(file)
        self._open = None
        if not self._is_provisional(file):
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
        self._ready = deque(
            file for file in self._in_order() if file is not self._open and not self._is_provisional(file)
        )
        return not self._upload.receipts

    def discard(self, file: PartFile) -> None:
        """The part's receipt is committed: its file may go."""
        del self._files[file.part.number]
        self._spool.remove(self._upload.id, file)

    def file(self, number: int) -> PartFile | None:
        """A part that has not left the spool."""
        return self._files.get(number)

    # -- durability and recovery --------------------------------------------------------------------------------

    async def sync(self) -> Synced:
        """Make everything received so far durable, and say what that was; committing it is the caller's business.

        The disk works in a thread; bytes that arrive meanwhile are not part of the answer. Cancelled: the thread
        finishes, nothing is claimed. Raises `SpoolError`.
        """
        offset = self._upload.received
        # What a provisional append found was announced before it began: nothing is missing without its files.
        files = [file for file in self._files.values() if file.synced < file.size and not self._is_provisional(file)]
        sizes = [(file.part.number, file.size, file.crc64nvme) for file in files]
        new_names, self._new_names = self._new_names, False
        try:
            await asyncio.to_thread(self._spool.sync, files, new_names=new_names)
        except BaseException as error:
            self._new_names |= new_names
            self.distrusted |= isinstance(error, SpoolError)
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
        self._spool.budget.take(self._upload.id, file.size, subject=self._upload.subject)
        if file.full or self._sealed:
            self._ready.append(file)
        else:
            self._open = file

    def release(self) -> None:
        """Forget the files without touching them: they will be read again."""
        self.suspend()
        for file in self._files.values():
            self._spool.close(file)
            self._spool.budget.release(self._upload.id, file.reserved)
        self._files.clear()
        self._open = self._provisional = None
        self._ready.clear()

    def clear(self) -> None:
        """The upload has ended: nothing of it stays in the spool."""
        self.suspend()
        for file in list(self._files.values()):
            self.discard(file)
        self._open = self._provisional = None
        self._ready.clear()
