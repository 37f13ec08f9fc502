"""The uploader: part files in, an object out.

`Drain` empties one upload's part accumulator into the store and completes it, whether or not a client is connected.
All drains share one `Uploader`: its slots (parts in flight), its clock, its way to wait out an outage.

Order of acts, each committed before the next (laws 4 and 5):

    part:      slot · UploadPart · commit receipt · unlink part file
    multipart: commit `creating` · CreateMultipartUpload · commit `multipart_id` · parts
    object:    turn of the key (law 9) · commit `completing` · Complete or PutObject · HEAD if in doubt · commit the end

The store's "later" (`StoreUnavailable`) is waited out for ever, with full jitter; everybody wakes when anybody gets
through. The store's "no" (`StoreRefused`) is repaired from the spool where the spool still can, else the upload fails
with its reason (law 10). Whatever it says at the end, an object is ours by its token, size and checksum, never because
it is there; and ours that is not whole is removed. A drain may be cancelled at any await: whatever was not committed is
done again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from awscrt import checksums

from streamup.accumulator import Accumulator
from streamup.checkpoint import Checkpoint
from streamup.errors import (
    AccessDenied,
    BadDigest,
    InvalidPart,
    NoSuchMultipart,
    SpoolError,
    StoreConflict,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.failpoints import failpoint
from streamup.hashes import Hashes
from streamup.spool import Files, PartFile
from streamup.stores import Checksum, Multipart, ObjectStore, PartBody, Receipt, StoredObject
from streamup.upload import ALWAYS_RUNNING, State, Upload

P = ParamSpec("P")
T = TypeVar("T")

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MOST_SECONDS = 15.0
"""Longest wait between two attempts: what an outage may cost after its end, if no other attempt notices it earlier."""

BACKOFF_LEAST_SHARE = 0.1
"""The share of a wait that nobody's success shortens, so that one refusal among many successes is no hot loop."""

LISTING_SECONDS = 60.0
"""How long a listing of parts that disagrees with our receipts is asked again: it may be stale, never the truth."""

CLOCK_SLACK = timedelta(seconds=2)
"""Stores tell `Initiated` in whole seconds, and clocks differ a little."""

MOST_REFUSALS = 3
"""How often a part that arrives damaged, or a request that lost a race, is tried again before that is the answer."""

log = logging.getLogger(__name__)


class Slots:
    """Permits to have a part in flight: as many as the store bears, fair between uploads.

    The next permit goes to the upload with the fewest parts in flight, so a fast upload cannot starve a live one.
    While the store throttles, there are fewer (halved each time); each success brings a fraction of one back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = Counter[str]()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._emptied = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Slots {self.in_flight.total()}/{self.limit:.1f}, {len(self._waiting)} waiting>"

    @asynccontextmanager
    async def hold(self, owner: str) -> AsyncIterator[None]:
        """A permit for as long as the context lasts. Cancelled while waiting: none is held."""
        await self._acquire(owner)
        try:
            yield
        finally:
            self._release(owner)

    async def idle(self) -> None:
        """Wait until no part is in flight."""
        while self.in_flight:
            self._emptied.clear()
            await self._emptied.wait()

    def throttled(self) -> None:
        self.limit = max(1.0, self.limit / 2)

    def succeeded(self) -> None:
        self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._grant()

    async def _acquire(self, owner: str) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(owner)
            raise
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not granted]

    def _release(self, owner: str) -> None:
        self.in_flight[owner] -= 1
        if not self.in_flight[owner]:
            del self.in_flight[owner]
        if not self.in_flight:
            self._emptied.set()
        self._grant()

    def _grant(self) -> None:
        while self.in_flight.total() < int(self.limit):
            pending = [entry for entry in self._waiting if not entry[1].done()]
            if not pending:
                return
            owner, granted = min(pending, key=lambda entry: self.in_flight[entry[0]])
            self.in_flight[owner] += 1
            granted.set_result(None)


class Uploader:
    """What all drains share."""

    def __init__(
        self,
        store: ObjectStore,
        checkpoint: Checkpoint,
        files: Files,
        *,
        parallel_parts: int,
        clock: Callable[[], float],
        jitter: random.Random,
    ) -> None:
        self.store = store
        self.checkpoint = checkpoint
        self.files = files
        self.slots = Slots(parallel_parts)
        self.clock = clock
        self.available = True
        self.opened = asyncio.Event()
        """Cleared while the store's profile is not known: nothing is sent then, so that one upload is sent one way."""
        self.opened.set()
        self._jitter = jitter
        self._creations = WeakValueDictionary[str, asyncio.Lock]()
        self._answered = asyncio.Event()

    def creation(self, key: str) -> asyncio.Lock:
        """Held while a multipart upload of this key is created, or orphans of this key are looked for."""
        return self._creations.setdefault(key, asyncio.Lock())

    async def insist(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call until the store answers. Raises `StoreRefused`; waits out everything else."""
        attempt = 0
        while True:
            try:
                answer = await call(*args, **kwargs)
            except StoreUnavailable as error:
                await self.pause(attempt, error)
                attempt += 1
            else:
                self.answered()
                return answer

    async def pause(self, attempt: int, error: StoreUnavailable) -> None:
        """Wait before the next attempt: jittered, and after a moment only until the store has answered somebody (not if
        it throttles: it answers others, and wants less).
        """
        if isinstance(error, StoreThrottled):
            self.slots.throttled()
        if self.available:
            log.warning("the store does not answer: %s", error)
        self.available = False
        most = min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 10))
        least = most if isinstance(error, StoreThrottled) else most * BACKOFF_LEAST_SHARE
        await asyncio.sleep(self._jitter.uniform(least / 2, least))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._jitter.uniform(0, most - least)):
                await self._answered.wait()

    async def give_way(self, races: int) -> None:
        """Wait after a lost race: whoever won it, perhaps an earlier attempt of our own, needs a moment to be seen."""
        await asyncio.sleep(self._jitter.uniform(0.5, 1) * min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2**races))

    def answered(self) -> None:
        """The store works: wake whoever waits for that."""
        self.slots.succeeded()
        if not self.available:
            self.available = True
            log.info("the store answers again")
        self._answered.set()
        self._answered = asyncio.Event()


class _MultipartLostError(Exception):
    """The store does not know our multipart upload, but the spool still has every byte."""


class _FailedError(Exception):
    """The upload fails, for the reason given."""


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
            stored = await (self._complete() if self._upload.multipart_id else self._put())
        except (_FailedError, StoreRefused, SpoolError) as error:
            reason = f"the store refused: {error}" if isinstance(error, StoreRefused) else str(error)
            log.error("upload %s failed: %s", self._upload.id, reason)  # noqa: TRY400 - a reason, not a fault of ours
            self._upload.fail(reason, self._shared.clock())
        else:
            self._upload.finish(stored, self._shared.clock())
        await self._save()
        failpoint("after_complete")

    async def abort(self) -> None:
        """Leave no multipart upload behind. Raises `StoreRefused`; waits out an outage."""
        await self._shared.opened.wait()
        async with self._shared.creation(self._upload.key):
            await self._abort_orphans()
        if self._upload.multipart_id is not None:
            await self._abort(self._upload.multipart_id)

    async def _save(self) -> None:
        await self._shared.checkpoint.save(self._upload)

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

    # -- digests of the whole -----------------------------------------------------------------------------------

    async def _hash(self, file: PartFile) -> str | None:
        """The next part through the hashes that run over the whole; their state after it, to be kept with its receipt.

        Read back from the spool, in a thread: what is there is final, and nobody's socket waits. Cancelled: the thread
        goes on with hashes that nobody uses any more, since whoever comes next begins at byte 0 or in another drain.
        """
        if not self._upload.hashed:
            return None
        hashes = self._hashes_at(file.part.start)

        def advance() -> None:
            crc = 0
            for data in self._shared.files.read(file.path, 0, file.size):
                crc = checksums.crc64nvme(data, crc)
                hashes.update(data)
            _same(file, crc)

        await asyncio.to_thread(advance)
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
        if resumed is None:
            raise _FailedError(
                f"digest lost: this Python cannot keep the state of {', '.join(sorted(algorithms))} across a restart"
            )
        return resumed

    def _check_digests(self) -> None:
        """Nothing is completed that is not what the client says it is."""
        found = self._hashes_at(self._upload.size or 0).digests() if self._upload.hashed else {}
        if ALWAYS_RUNNING in self._upload.guards:
            found[ALWAYS_RUNNING] = self._crc64nvme().to_bytes(8, "big")
        self._upload.digests = found
        if error := self._upload.mismatch:
            raise _FailedError(f"digest: {error.difference}")

    def _crc64nvme(self) -> int:
        """Of the whole, combined from those of its parts: each has a receipt, or is in the spool."""
        pieces: list[PartFile | Receipt] = []
        position = 0
        while position < (self._upload.size or 0):
            number = self._upload.layout.part_at(position).number
            pieces.append(self._parts.file(number) or self._upload.receipts[number])
            position += pieces[-1].size
        return _combined(pieces)

    # -- multipart uploads --------------------------------------------------------------------------------------

    async def _create_multipart(self) -> None:
        """CreateMultipartUpload, whose lost answer leaves an orphan: ours are found by key and time, and aborted.

        One at a time for a key, until its id is committed: in between it would look like an orphan to another.
        """
        async with self._shared.creation(self._upload.key):
            attempt = 0
            while not await self._try_to_create(attempt):
                attempt += 1

    async def _try_to_create(self, attempt: int) -> bool:
        await self._abort_orphans()
        self._upload.announce_creation(self._shared.clock())
        await self._save()
        failpoint("before_create_multipart")
        try:
            multipart_id = await self._store.create_multipart(self._upload.key, self._upload.meta)
        except StoreUnavailable as error:
            await self._shared.pause(attempt, error)
            return False
        failpoint("after_create_multipart")
        self._shared.answered()
        self._upload.multipart_created(multipart_id)
        await self._save()
        return True

    async def _abort_orphans(self) -> None:
        """Abort multipart uploads of this key that were begun since `creating`, in no row (hold `creation`)."""
        if self._upload.creating is None:
            return
        since = datetime.fromtimestamp(self._upload.creating, UTC) - CLOCK_SLACK
        listed = await self._shared.insist(self._list_multiparts)
        known = await self._shared.checkpoint.multipart_ids(self._upload.key)
        for found in listed:
            if found.key == self._upload.key and found.initiated >= since and found.multipart_id not in known:
                await self._abort(found.multipart_id)

    async def _abort(self, multipart_id: str) -> None:
        failpoint("before_abort_multipart")
        await self._shared.insist(self._store.abort_multipart, self._upload.key, multipart_id)
        failpoint("after_abort_multipart")

    async def _list_multiparts(self) -> list[Multipart]:
        return [found async for found in self._store.list_multiparts(self._upload.key)]

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
                await self._verify(file)
                refusals += 1
                if refusals == MOST_REFUSALS:
                    raise
            else:
                break
        self._shared.answered()
        failpoint("before_receipt")
        await self._shared.checkpoint.add_receipt(self._upload.id, receipt, hashes)
        self._upload.add_receipt(receipt, hashes)
        self._parts.discard(file)

    async def _put_part(self, file: PartFile) -> Receipt:
        body = await self._body(file)
        failpoint("before_put_part")
        try:
            receipt = await self._store.put_part(
                self._upload.key, self._upload.multipart_id or "", file.part.number, body
            )
        except NoSuchMultipart as error:
            if self._upload.receipts:
                raise _FailedError(
                    "the store has lost the multipart upload (aborted from outside, or expired there)"
                ) from error
            raise _MultipartLostError from error
        failpoint("after_put_part")
        return replace(receipt, crc64nvme=file.crc64nvme, sha256=body.sha256)

    async def _begin_again(self) -> None:
        """The multipart upload is gone, and every byte is still in the spool."""
        if not self._parts.rewind():
            raise _FailedError("the store has lost the multipart upload, and parts of it had left the spool")
        self._upload.multipart_gone()
        # A part that was stored while its neighbour found the loss may have had its receipt committed.
        await self._shared.checkpoint.forget_receipts(self._upload)

    async def _body(self, file: PartFile | None) -> PartBody:
        """The part as a request body; None is the empty object."""
        checksum = self._upload.meta.checksum
        if file is None:
            digest = sha256().digest() if checksum is Checksum.SHA256 else None
            return PartBody(None, 0, 0, checksum, digest)
        digest = await asyncio.to_thread(self._sha256, file) if checksum is Checksum.SHA256 else None
        return PartBody(file.path, file.size, file.crc64nvme, checksum, digest, self._upload.meta.sse_c_key_md5)

    def _sha256(self, file: PartFile) -> bytes:
        """The digest the store will check, of bytes that are first checked against what came off the socket."""
        digest, crc = sha256(), 0
        for data in self._shared.files.read(file.path, 0, file.size):
            digest.update(data)
            crc = checksums.crc64nvme(data, crc)
        _same(file, crc)
        return digest.digest()

    async def _verify(self, file: PartFile) -> None:
        """Raise `SpoolError` if the spool no longer holds what came off the socket."""

        def crc() -> int:
            value = 0
            for data in self._shared.files.read(file.path, 0, file.size):
                value = checksums.crc64nvme(data, value)
            return value

        _same(file, await asyncio.to_thread(crc))

    # -- the object ---------------------------------------------------------------------------------------------

    async def _put(self) -> StoredObject:
        """PutObject: the whole object is one part, or empty.

        An answer that leaves a doubt is settled by HEAD. A blind repeat could overwrite a newer object of somebody
        else's, so the request is repeated only while the key still has the ETag that was recorded with `completing`.
        """
        key, attempt, refusals = self._upload.key, 0, 0
        async with self._shared.creation(key):
            await self._abort_orphans()
        if self._upload.offset:
            await self._sync()
        found = await self._shared.insist(self._store.head, key)
        if found and await self._prove(found):
            return found
        self._upload.announce_completion(found.etag if found else None)
        await self._save()
        while True:
            self._require_unchanged(found)
            failpoint("before_put_object")
            file = self._parts.file(1)
            if (file.size if file else 0) != self._upload.size:
                raise _FailedError(
                    "state lost: bytes are not on the disk any more, and the store has no object of ours"
                )
            body = await self._body(file)
            try:
                async with self._shared.slots.hold(self._upload.id):
                    stored = await self._store.put_object(key, body, self._upload.meta)
            except StoreError as error:
                found = await self._shared.insist(self._store.head, key)
                if found and await self._prove(found, error, body):
                    return found
                attempt, refusals = await self._after_refusal(error, file, attempt, refusals)
            else:
                failpoint("after_put_object")
                self._shared.answered()
                return await self._proven(stored, body=body)

    async def _sync(self) -> None:
        """Offsets were told: a power cut from here on must leave all of it, and not just what was told (law 2)."""
        synced = await self._parts.sync()
        await self._shared.checkpoint.announce(self._upload.id, synced.offset, synced.files)
        self._parts.committed(synced)

    def _require_unchanged(self, found: StoredObject | None) -> None:
        if self._upload.meta.if_none_match and found:
            raise _FailedError("precondition: the object exists (If-None-Match: *)")
        if (found.etag if found else None) != self._upload.replaces:
            raise _FailedError("conflict: the key was written by somebody else while this object was being stored")

    async def _after_refusal(
        self, error: StoreError, file: PartFile | None, attempt: int, refusals: int
    ) -> tuple[int, int]:
        """Whether an object that was not stored may be tried again; the new counts, or the reason why not."""
        match error:
            case StoreUnavailable():
                await self._shared.pause(attempt, error)
                return attempt + 1, refusals
            case BadDigest() if refusals + 1 < MOST_REFUSALS:
                if file:
                    await self._verify(file)
                return attempt, refusals + 1
            case StoreConflict() if refusals + 1 < MOST_REFUSALS:
                await self._shared.give_way(refusals)
                return attempt, refusals + 1
            case StorePrecondition():
                raise _FailedError("precondition: the object exists (If-None-Match: *)") from error
            case _:
                raise error

    async def _complete(self) -> StoredObject:
        """CompleteMultipartUpload: called again while its effect is unknown, and settled by HEAD."""
        key, attempt, races = self._upload.key, 0, 0
        receipts, crc = self._check_receipts()
        repeated = self._upload.state is State.COMPLETING
        if repeated and (found := await self._ours()):
            return found
        await self._look_at_parts(receipts)
        self._upload.announce_completion()
        await self._save()
        while True:
            failpoint("before_complete_multipart")
            try:
                stored = await self._store.complete_multipart(
                    key, self._upload.multipart_id or "", receipts, self._upload.meta, crc
                )
            except StoreError as error:
                if found := await self._ours(error):
                    return found
                tries = attempt, races
                attempt, races = await self._after_refused_completion(error, receipts, *tries, repeated=repeated)
                repeated = True
            else:
                failpoint("after_complete_multipart")
                self._shared.answered()
                return await self._proven(stored, repeated=repeated)

    async def _proven(
        self, stored: StoredObject, *, body: PartBody | None = None, repeated: bool = False
    ) -> StoredObject:
        """What a 200 is worth. One that names a checksum of ours proves the object; else its size is looked at.

        `repeated`: a completion that was asked for again. The store may replay its first answer then, and somebody may
        have replaced the object since.
        """
        named = await self._prove(stored, body=body) and stored.checksums.keys() & (await self._checksums(body)).keys()
        if named and not repeated:
            return stored
        found = await self._ours(body=body)
        if found is None and repeated:
            raise _FailedError("conflict: the object was completed, and then replaced or removed by somebody else")
        return found or stored

    async def _after_refused_completion(
        self, error: StoreError, receipts: Sequence[Receipt], attempt: int, races: int, *, repeated: bool
    ) -> tuple[int, int]:
        """Whether a completion may be asked for again; the new counts, or the reason why not."""
        match error:
            case StoreUnavailable():
                await self._shared.pause(attempt, error)
                return attempt + 1, races
            case StorePrecondition():
                raise _FailedError("precondition: the object exists (If-None-Match: *)") from error
            case StoreConflict():
                if races < MOST_REFUSALS and await self._may_complete(receipts):
                    await self._shared.give_way(races)
                    return attempt, races + 1
                raise _FailedError("conflict: another request to this key came in between") from error
            case InvalidPart():
                raise _FailedError(f"the store does not take a part it has confirmed: {error}") from error
            case NoSuchMultipart() if repeated and races < MOST_REFUSALS:
                await self._shared.give_way(races)  # an earlier attempt may have taken the parts, and not be done
                return attempt, races + 1
            case NoSuchMultipart():
                raise _FailedError("the store has lost the multipart upload, and there is no object of ours") from error
            case _:
                raise error

    def _check_receipts(self) -> tuple[list[Receipt], int | None]:
        """Our own proof before the store is asked: parts 1 to N without a gap, all bytes, and the whole's CRC64NVME."""
        receipts, expected = self._receipts(), 0
        for number, receipt in enumerate(receipts, 1):
            part = self._upload.layout.part(number)
            if receipt.number != number or part.start != expected or receipt.crc64nvme is None:
                raise _FailedError(f"part {number} has no receipt")
            expected += receipt.size
        if expected != self._upload.size:
            raise _FailedError(f"the receipts add up to {expected} bytes, the upload has {self._upload.size}")
        return receipts, _combined(receipts) if self._upload.meta.checksum is Checksum.CRC64NVME else None

    def _receipts(self) -> list[Receipt]:
        return [self._upload.receipts[number] for number in sorted(self._upload.receipts)]

    async def _look_at_parts(self, receipts: Sequence[Receipt]) -> None:
        """A second look by ListParts. A listing that disagrees is asked again for a minute, and logged; no more."""
        delay = BACKOFF_FIRST_SECONDS
        deadline = self._shared.clock() + LISTING_SECONDS
        try:
            while not await self._listed(receipts):
                if self._shared.clock() > deadline:
                    log.warning("upload %s: the store's listing of parts disagrees with its receipts", self._upload.id)
                    return
                await asyncio.sleep(delay)
                delay = min(2 * delay, LISTING_SECONDS / 8)
        except StoreRefused as error:  # the completion itself will tell what is wrong
            log.warning("upload %s: parts could not be listed: %s", self._upload.id, error)

    async def _may_complete(self, receipts: Sequence[Receipt]) -> bool:
        """Whether our parts are still there after a lost race, or are no parts any more because they are the object."""
        try:
            return await self._listed(receipts)
        except NoSuchMultipart:
            return True  # asked once more, the store says which

    async def _listed(self, receipts: Sequence[Receipt]) -> bool:
        """Whether each of our receipts is in the store's listing (which may name a number twice)."""
        found = await self._shared.insist(self._store.list_parts, self._upload.key, self._upload.multipart_id or "")
        listed = {(receipt.number, receipt.size, receipt.etag.strip('"')) for receipt in found}
        return all((receipt.number, receipt.size, receipt.etag.strip('"')) in listed for receipt in receipts)

    async def _ours(self, error: StoreError | None = None, body: PartBody | None = None) -> StoredObject | None:
        """The object, if it is this upload's; `error` is what has left the doubt. Raises `_FailedError`."""
        found = await self._shared.insist(self._store.head, self._upload.key)
        return found if found and await self._prove(found, error, body) else None

    async def _prove(self, found: StoredObject, error: StoreError | None = None, body: PartBody | None = None) -> bool:
        """Whether an object is ours. Existence proves nothing; our token, our size and the checksums named with it do.

        An object of ours that is not whole is removed, so that nobody takes it for whole: raises `_FailedError`. After
        a `BadDigest` (the store has named another checksum) only a checksum shows that it is whole.
        """
        if found.token != self._upload.meta.token:
            return False
        ours = await self._checksums(body)
        named = {name: value for name, value in found.checksums.items() if _comparable(value, ours.get(name))}
        whole = found.size == self._upload.size and all(ours[name] == value for name, value in named.items())
        if whole and (named or not isinstance(error, BadDigest)):
            return True
        await self._remove(f"the object in the store is not what was sent: {found.size} bytes, {found.checksums}")
        return False

    async def _remove(self, reason: str) -> None:
        """Remove the object and fail. Where that is not permitted, the reason says that it is still there."""

        async def delete() -> None:
            try:
                await self._store.delete(self._upload.key)
            except AccessDenied as error:
                raise StoreRefused(str(error)) from error

        try:
            await self._shared.insist(delete)
        except StoreRefused as error:
            raise _FailedError(f"{reason}; remove it: {error}") from error
        raise _FailedError(f"{reason}; it was removed")

    async def _checksums(self, body: PartBody | None) -> Mapping[str, str]:
        """The object's checksums as S3 would name them (`StoredObject.checksums`), as far as they are known here."""
        if body is not None:
            return _named(body)
        if self._upload.multipart_id is not None:
            receipts = self._receipts()
            digests = [receipt.sha256 for receipt in receipts if receipt.sha256 is not None]
            composite = {"sha256": f"{_base64(sha256(b''.join(digests)).digest())}-{len(digests)}"} if digests else {}
            return {"crc64nvme": _base64(_combined(receipts).to_bytes(8, "big"))} | composite
        file = self._parts.file(1)
        if (file.size if file else 0) == self._upload.size:
            with suppress(SpoolError):  # a restart finds the spool changed; the object may have been stored before that
                return _named(await self._body(file))
        return {}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group; the others were cancelled because of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _same(file: PartFile, crc64nvme: int) -> None:
    if crc64nvme != file.crc64nvme:
        raise SpoolError(f"the spool's bytes of part {file.part.number} are not those that came off the socket")


def _combined(parts: Sequence[Receipt | PartFile]) -> int:
    """The whole's CRC64NVME, of parts that are all there."""
    crc = 0
    for part in parts:
        crc = checksums.combine_crc64nvme(crc, part.crc64nvme or 0, part.size)
    return crc


def _named(body: PartBody) -> dict[str, str]:
    """The checksums of an object that is one body."""
    digest = {"sha256": _base64(body.sha256)} if body.sha256 is not None else {}
    return {"crc64nvme": _base64(body.crc64nvme.to_bytes(8, "big"))} | digest


def _comparable(named: str, ours: str | None) -> bool:
    """Whether two checksums are of one kind: a composite ends with its number of parts."""
    return ours is not None and ("-" in named) == ("-" in ours)


def _base64(digest: bytes) -> str:
    """As `StoredObject.checksums` are written."""
    return b64encode(digest).decode()
