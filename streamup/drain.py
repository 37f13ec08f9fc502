"""One upload's way into the store: its parts as they fill, whether or not a client is connected, and then its object.

Order of acts, each committed before the next (laws 4 and 5):

    part:      slot · UploadPart · commit receipt · unlink part file
    multipart: commit `creating` · CreateMultipartUpload · commit `multipart_id` · parts
    object:    see `completion`

What the store refuses is repaired from the spool where the spool still can, else the upload fails with its reason
(law 10). A drain may be cancelled at any await: whatever was not committed is done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from streamup.accumulator import Accumulator
from streamup.completion import MOST_REFUSALS, Completion, combined
from streamup.errors import (
    BadDigest,
    NoSuchMultipart,
    SpoolError,
    StoreRefused,
    StoreUnavailable,
    UploadFailed,
)
from streamup.failpoints import failpoint
from streamup.hashes import Hashes
from streamup.read_back import body_of, read_back
from streamup.spool import PartFile
from streamup.stores import Multipart, Receipt, StoredObject
from streamup.upload import ALWAYS_RUNNING, State, Upload
from streamup.uploader import Uploader

CLOCK_SLACK = timedelta(seconds=2)
"""Stores tell their time in whole seconds, `Date` as well as `Initiated`."""

ANNOUNCED_SECONDS = 60.0
"""How old `creating` may be when the creation is asked for."""

LATE_SECONDS = 20 * 60.0
"""So long after `creating` a creation that was given up has had its effect, or never will: S3 refuses what was signed
more than 15 minutes ago. The rest is for what comes before that (`ANNOUNCED_SECONDS`, credentials), and for the store
to act.
"""

log = logging.getLogger(__name__)


class _MultipartLostError(Exception):
    """The store does not know our multipart upload, but the spool still has every byte."""


class Drain:
    """One upload on its way into the store."""

    def __init__(
        self,
        shared: Uploader,
        upload: Upload,
        accumulator: Accumulator,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        """`turn` returns when all uploads of this key that were sealed earlier have ended (law 9)."""
        self._shared = shared
        self._store = shared.store
        self._upload = upload
        self._parts = accumulator
        self._turn = turn
        self._hashes: Hashes | None = None

    async def run(self) -> None:
        """Store the parts as they fill, and complete the object once sealed.

        Returns when the upload is complete or failed, and that is committed. Raises `CheckpointError` when a commit
        did not happen.
        """
        try:
            await self._shared.opened.wait()
            await self._store_parts()
            await self._turn()
            stored = await self._complete()
        except (UploadFailed, StoreRefused, SpoolError) as error:
            reason = f"the store refused: {error}" if isinstance(error, StoreRefused) else str(error)
            log.error("upload %s failed: %s", self._upload.id, reason)  # noqa: TRY400 - a reason, not a fault of ours
            self._upload.fail(reason, self._shared.clock())
            if self._parts.distrusted:  # as in `registry.end`
                self._parts.clear()
            await self._save()
        else:
            finished, now = copy(self._upload), self._shared.clock()
            finished.finish(stored, now)
            await self._save(finished)  # nobody is told of an end that a crash may take back: an offset would fall
            self._upload.finish(stored, now)
        failpoint("after_complete")

    async def _complete(self) -> StoredObject:
        completion = Completion(self._shared, self._upload, self._parts)
        if self._upload.multipart_id and self._upload.size == 0:
            # A power cut took all that it was begun for, and nobody was told. No store makes an object of no parts.
            await self._abort(self._upload.multipart_id)
            self._upload.multipart_gone()
            await self._save()
        if self._upload.multipart_id:
            return await completion.complete()
        stored = await completion.put()
        self._shared.stored_bytes += stored.size
        return stored

    async def abort(self) -> None:
        """Abort whatever is there by now of ours. Raises `StoreRefused`; waits out an outage."""
        await self._shared.opened.wait()
        async with self._shared.creation(self._upload.key):
            await self._abort_orphans()
        if self._upload.multipart_id is not None:
            await self._abort(self._upload.multipart_id)

    async def _save(self, upload: Upload | None = None) -> None:
        """On a full disk as soon as there is room: no client waits for a drain."""
        await self._shared.checkpoint.insist(partial(self._shared.checkpoint.save, upload or self._upload))

    # -- parts --------------------------------------------------------------------------------------------------

    async def _store_parts(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._hand_over(tasks)
            except BaseExceptionGroup as group:
                error = _first(group)
                if not isinstance(error, _MultipartLostError):
                    raise error from None
                await self._begin_again()
            else:
                return

    async def _hand_over(self, tasks: asyncio.TaskGroup) -> None:
        """Start a task for each part that is ready; return when the last one has been handed out."""
        while file := await self._parts.next_part():
            state = await self._hash(file)
            if self._upload.single:
                break
            if self._upload.multipart_id is None:
                await self._create_multipart()
            number = file.part.number
            tasks.create_task(self._store_part(file, state), name=f"part {number} of {self._upload.id}")
        if self._upload.state is State.SEALED:  # a restart while it completes finds what was committed with that
            self._check_digests()

    # -- one part -----------------------------------------------------------------------------------------------

    async def _store_part(self, file: PartFile, hashes: str | None) -> None:
        attempt = refusals = 0
        while True:
            try:
                async with self._shared.slots.hold(self._upload.id):
                    receipt = await self._put_part(file)
            except StoreUnavailable as error:
                await self._shared.pause(attempt, error)
                attempt += 1
            except BadDigest:
                await read_back(self._shared.files, file)
                refusals += 1
                if refusals == MOST_REFUSALS:
                    raise
                await self._shared.give_way(refusals)  # what damages it on its way may pass
            else:
                break
        self._shared.answered()
        failpoint("before_receipt")
        checkpoint = self._shared.checkpoint
        await checkpoint.insist(partial(checkpoint.add_receipt, self._upload.id, receipt, hashes))
        self._upload.add_receipt(receipt, hashes)
        self._shared.stored_bytes += receipt.size
        self._parts.discard(file)

    async def _put_part(self, file: PartFile) -> Receipt:
        body = await body_of(self._shared.files, file, self._upload.meta)
        failpoint("before_put_part")
        try:
            receipt = await self._store.put_part(
                self._upload.key, self._upload.multipart_id or "", file.part.number, body
            )
        except NoSuchMultipart as error:
            if self._upload.receipts:
                raise UploadFailed(
                    "the store has lost the multipart upload (aborted from outside, or expired there)"
                ) from error
            raise _MultipartLostError from error
        failpoint("after_put_part")
        return replace(receipt, crc64nvme=file.crc64nvme, sha256=body.sha256)

    async def _begin_again(self) -> None:
        """The multipart upload is gone, and every byte is still in the spool."""
        if not self._parts.rewind():
            raise UploadFailed("the store has lost the multipart upload, and parts of it had left the spool")
        await self._abort(self._upload.multipart_id or "")  # one that is there all the same would stay for ever
        self._upload.multipart_gone()
        # A part that was stored while its neighbour found the loss may have had its receipt committed.
        checkpoint = self._shared.checkpoint
        await checkpoint.insist(partial(checkpoint.forget_receipts, self._upload))

    # -- digests of the whole -----------------------------------------------------------------------------------

    async def _hash(self, file: PartFile) -> str | None:
        """The next part through the hashes that run over the whole; their state after it, to be kept with its receipt.

        Read back from the spool, in a thread: what is there is final, and nobody's socket waits. Cancelled: the thread
        goes on with hashes that nobody uses any more, since whoever comes next begins at byte 0 or in another drain.
        """
        if not self._upload.hashed:
            return None
        hashes = self._hashes_at(file.part.start)
        await read_back(self._shared.files, file, hashes.update)
        self._hashes = hashes
        return hashes.state

    def _hashes_at(self, position: int) -> Hashes:
        """The hashes of all bytes before a part, or before the end: those that have come so far, or a receipt's."""
        algorithms = self._upload.hashed
        if position == 0:
            return Hashes.begun(algorithms)
        if self._hashes and self._hashes.position == position:
            return self._hashes
        number = self._upload.layout.part_at(position - 1).number
        resumed = Hashes.resumed(algorithms, self._upload.hashes.get(number), position)
        if resumed:
            return resumed
        lost = [name for name in sorted(algorithms) if self._upload.guards[name] is not None]
        if lost:
            raise UploadFailed(f"digest lost: this Python cannot keep the state of {', '.join(lost)} across a restart")
        for name in algorithms:  # nobody has said what it must be: it will not be told
            del self._upload.guards[name]
        return Hashes.begun(())

    def _check_digests(self) -> None:
        """Nothing is completed that is not what the client says it is."""
        found = self._hashes_at(self._upload.size or 0).digests() if self._upload.hashed else {}
        self._upload.digests = found | {ALWAYS_RUNNING: self._crc64nvme().to_bytes(8, "big")}
        if error := self._upload.mismatch:
            raise UploadFailed(f"digest: {error.difference}")

    def _crc64nvme(self) -> int:
        """Of the whole, combined from those of its parts: each has a receipt, or is in the spool."""
        pieces: list[PartFile | Receipt] = []
        position = 0
        while position < (self._upload.size or 0):
            number = self._upload.layout.part_at(position).number
            pieces.append(self._parts.file(number) or self._upload.receipts[number])
            position += pieces[-1].size
        return combined(pieces)

    # -- multipart uploads --------------------------------------------------------------------------------------

    async def _create_multipart(self) -> None:
        """CreateMultipartUpload, whose lost answer leaves an orphan: ours are found by key and time, and aborted. One
        that comes even later is found when the upload has ended: `creating` is remembered until then.

        One at a time for a key, until its id is committed: in between it would look like an orphan to another.
        """
        async with self._shared.creation(self._upload.key):
            attempt = 0
            while not await self._try_to_create(attempt):
                attempt += 1

    async def _try_to_create(self, attempt: int) -> bool:
        others, now = self.late_seconds > 0, self._shared.store_time()
        await self._abort_orphans()
        self._upload.announce_creation(now)  # the search may have missed what begins from then on
        await self._save()
        failpoint("before_create_multipart")
        if self._shared.store_time() - now > ANNOUNCED_SECONDS:  # an outage, or a full disk
            return False
        try:
            multipart_id = await self._store.create_multipart(self._upload.key, self._upload.meta)
        except StoreUnavailable as error:
            await self._shared.pause(attempt, error)
            return False
        failpoint("after_create_multipart")
        self._shared.answered()
        self._upload.multipart_created(multipart_id, others=others)
        await self._save()
        return True

    @property
    def late_seconds(self) -> float:
        """How long a creation may still come that was given up: it was cancelled, its process died, or nothing was
        answered. After that, a last search finds what it has made.
        """
        if self._upload.creating is None:
            return 0.0
        left = self._upload.creating + LATE_SECONDS - self._shared.store_time()
        return min(max(left, 0.0), LATE_SECONDS)  # a clock that was set back makes it no later

    async def _abort_orphans(self) -> None:
        """Abort what creations since `creating` have made under this key, and no row knows (hold `creation`)."""
        if self._upload.creating is None:
            return
        since = datetime.fromtimestamp(self._upload.creating, UTC)
        until = since + timedelta(seconds=LATE_SECONDS)
        listed = await self._shared.insist(self._list_multiparts)
        known = await self._shared.checkpoint.multipart_ids(self._upload.key)
        for found in listed:
            ours = found.key == self._upload.key and since - CLOCK_SLACK <= found.initiated <= until + CLOCK_SLACK
            if ours and found.multipart_id not in known:
                await self._abort(found.multipart_id)

    async def _abort(self, multipart_id: str) -> None:
        failpoint("before_abort_multipart")
        await self._shared.insist(self._store.abort_multipart, self._upload.key, multipart_id)
        failpoint("after_abort_multipart")

    async def _list_multiparts(self) -> list[Multipart]:
        return [found async for found in self._store.list_multiparts(self._upload.key)]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group; the others were cancelled because of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
