"""The end of an upload: from parts to an object, exactly once, and believed only when it is proven.

    turn of the key (law 9) · commit `completing` · Complete or PutObject · HEAD if in doubt · commit the end

An object is ours by its token, size and checksum, never because it is there; and ours that is not whole is removed.
What the store refuses is repaired from the spool where the spool still can, else the upload fails with its reason
(law 10). It may be cancelled at any await: whatever was not committed is done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from awscrt import checksums

from streamup.accumulator import Accumulator
from streamup.digests import base64_of
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
    StoreUnavailable,
    UploadFailed,
)
from streamup.failpoints import failpoint
from streamup.read_back import body_of, read_back
from streamup.spool import PartFile
from streamup.stores import Checksum, PartBody, Receipt, StoredObject, composite
from streamup.upload import State, Upload
from streamup.uploader import Uploader

T = TypeVar("T")

STALE_FIRST_SECONDS = 0.2
STALE_SECONDS = 60.0
"""How long the store is asked again that shows less than it has confirmed, parts or an object: that may be stale."""

MOST_REFUSALS = 3
"""How often a part that arrives damaged, or a request that lost a race, is tried again before that is the answer."""

log = logging.getLogger(__name__)


class Completion:
    """One sealed upload whose parts have been handed out, on its way to its object."""

    def __init__(self, shared: Uploader, upload: Upload, accumulator: Accumulator) -> None:
        self._shared = shared
        self._store = shared.store
        self._upload = upload
        self._parts = accumulator

    async def put(self) -> StoredObject:
        """PutObject: the whole object is one part, or empty.

        An answer that leaves a doubt is settled by HEAD. A blind repeat could overwrite a newer object of somebody
        else's, so the request is repeated only while the key still has the ETag that was recorded with `completing`.
        """
        key, attempt, refusals = self._upload.key, 0, 0
        doubtful = self._upload.state is State.COMPLETING
        found = await self._look()
        if found and (proven := await self._prove(found)):
            return proven
        if self._upload.offset:
            await self._shared.checkpoint.insist(self._sync)
        self._upload.announce_completion(found.etag if found else None)
        await self._save()
        while True:
            self._require_unchanged(found)
            failpoint("before_put_object")
            file = self._parts.file(1)
            if (file.size if file else 0) != self._upload.size:
                raise UploadFailed(
                    "state lost: bytes are not on the disk any more, and the store has no object of ours"
                )
            body = await body_of(self._shared.files, file, self._upload.meta)
            try:
                async with self._shared.slots.hold(self._upload.id):
                    stored = await self._store.put_object(key, body, self._upload.meta)
            except StoreError as error:
                found = await self._look()
                if found and (proven := await self._prove(found, error, body)):
                    return proven
                doubtful |= isinstance(error, StoreUnavailable)
                tries = attempt, refusals
                attempt, refusals = await self._after_refusal(error, file, *tries, doubtful=doubtful)
            else:
                failpoint("after_put_object")
                self._shared.answered()
                return await self._proven(stored, body=body)

    async def _sync(self) -> None:
        """Offsets were told: a power cut from here on must leave all of it, and not just what was told (law 2)."""
        synced = await self._parts.sync()
        await self._shared.checkpoint.announce(self._upload.id, synced.offset, synced.files)
        self._parts.committed(synced)

    async def _look(self) -> StoredObject | None:
        """What is under the key. One that nobody can look into, and that was not there before, may be ours, from before
        the customer's key was replaced: then that key is waited for, as parts wait for theirs.
        """
        upload = self._upload
        found = await self._shared.insist(self._store.head, upload.key)
        if upload.state is State.COMPLETING and found and found.token is None and found.etag != upload.replaces:
            found = await self._shared.insist(self._store.head, upload.key, upload.meta.sse_c_key_md5)
        return found

    def _require_unchanged(self, found: StoredObject | None) -> None:
        if self._upload.meta.if_none_match and found:
            raise UploadFailed("precondition: the object exists (If-None-Match: *)")
        if (found.etag if found else None) != self._upload.replaces:
            raise UploadFailed("conflict: the key was written by somebody else while this object was being stored")

    async def _after_refusal(
        self, error: StoreError, file: PartFile | None, attempt: int, refusals: int, *, doubtful: bool
    ) -> tuple[int, int]:
        """Whether an object that was not stored may be tried again; the new counts, or the reason why not.

        `doubtful`: an earlier attempt may have its effect yet, so no refusal is the last word before it had its time.
        """
        match error:
            case StoreUnavailable():
                await self._shared.pause(attempt, error)
                return attempt + 1, refusals
            case BadDigest() | StoreConflict() if refusals + 1 < MOST_REFUSALS:
                if file:
                    await read_back(self._shared.files, file)
                await self._shared.give_way(refusals)
                return attempt, refusals + 1
            case _ if doubtful and refusals < MOST_REFUSALS:
                await self._shared.give_way(refusals)
                return attempt, refusals + 1
            case StorePrecondition():
                raise UploadFailed("precondition: the object exists (If-None-Match: *)") from error
            case _:
                raise error

    async def complete(self) -> StoredObject:
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
        """What a 200 is worth. One that names a checksum of ours proves the object; else the object is looked at, and
        what is not there was not stored, or is somebody else's by now.

        `repeated`: a completion that was asked for again. The store may replay its first answer then, and somebody may
        have replaced the object since.
        """
        proven = await self._prove(stored, body=body)
        if not repeated and proven and proven.checksums.keys() & (await self._checksums(body)).keys():
            return proven
        if found := await self._in_time(partial(self._ours, body=body)):
            return found
        raise UploadFailed("conflict: the object was completed, and then replaced or removed by somebody else")

    async def _after_refused_completion(
        self, error: StoreError, receipts: Sequence[Receipt], attempt: int, races: int, *, repeated: bool
    ) -> tuple[int, int]:
        """Whether a completion may be asked for again; the new counts, or the reason why not.

        `repeated`: an earlier attempt may have taken the parts, and not be done. Until it had its time, nothing that is
        said of a later one is the last word.
        """
        match error:
            case StoreUnavailable():
                await self._shared.pause(attempt, error)
                return attempt + 1, races
            case _ if races < MOST_REFUSALS and (repeated or await self._lost_a_race(error, receipts)):
                await self._shared.give_way(races)
                return attempt, races + 1
            case StorePrecondition():
                raise UploadFailed("precondition: the object exists (If-None-Match: *)") from error
            case StoreConflict():
                raise UploadFailed("conflict: another request to this key came in between") from error
            case InvalidPart():
                raise UploadFailed(f"the store does not take a part it has confirmed: {error}") from error
            case NoSuchMultipart():
                raise UploadFailed("the store has lost the multipart upload, and there is no object of ours") from error
            case _:
                raise error

    def _check_receipts(self) -> tuple[list[Receipt], int | None]:
        """Our own proof before the store is asked: parts 1 to N without a gap, all bytes, and the whole's CRC64NVME."""
        receipts, expected = self._receipts(), 0
        for number, receipt in enumerate(receipts, 1):
            part = self._upload.layout.part(number)
            if receipt.number != number or part.start != expected or receipt.crc64nvme is None:
                raise UploadFailed(f"part {number} has no receipt")
            expected += receipt.size
        if expected != self._upload.size:
            raise UploadFailed(f"the receipts add up to {expected} bytes, the upload has {self._upload.size}")
        return receipts, combined(receipts) if self._upload.meta.checksum is Checksum.CRC64NVME else None

    def _receipts(self) -> list[Receipt]:
        return [self._upload.receipts[number] for number in sorted(self._upload.receipts)]

    async def _look_at_parts(self, receipts: Sequence[Receipt]) -> None:
        """A second look by ListParts. A listing that disagrees is logged; no more."""
        try:
            if not await self._in_time(partial(self._listed, receipts)):
                log.warning("upload %s: the store's listing of parts disagrees with its receipts", self._upload.id)
        except StoreRefused as error:  # the completion itself will tell what is wrong
            log.warning("upload %s: parts could not be listed: %s", self._upload.id, error)

    async def _lost_a_race(self, error: StoreError, receipts: Sequence[Receipt]) -> bool:
        """Whether that is all, and our parts are still there, or are no parts any more because they are the object."""
        try:
            return isinstance(error, StoreConflict) and await self._in_time(partial(self._listed, receipts))
        except NoSuchMultipart:
            return True  # asked once more, the store says which

    async def _in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store shows, asked again for a minute while that is nothing."""
        delay = STALE_FIRST_SECONDS
        deadline = self._shared.clock() + STALE_SECONDS
        while not (shown := await ask()) and self._shared.clock() <= deadline:
            await asyncio.sleep(delay)
            delay = min(2 * delay, STALE_SECONDS / 8)
        return shown

    async def _listed(self, receipts: Sequence[Receipt]) -> bool:
        """Whether each of our receipts is in the store's listing (which may name a number twice)."""
        found = await self._shared.insist(self._store.list_parts, self._upload.key, self._upload.multipart_id or "")
        listed = {(receipt.number, receipt.size, receipt.etag.strip('"')) for receipt in found}
        return all((receipt.number, receipt.size, receipt.etag.strip('"')) in listed for receipt in receipts)

    async def _ours(self, error: StoreError | None = None, body: PartBody | None = None) -> StoredObject | None:
        """The object, if it is this upload's; `error` is what has left the doubt. Raises `UploadFailed`."""
        found = await self._shared.insist(self._store.head, self._upload.key)
        return await self._prove(found, error, body) if found else None

    async def _prove(
        self, found: StoredObject, error: StoreError | None = None, body: PartBody | None = None
    ) -> StoredObject | None:
        """The object, if it is ours. Existence proves nothing; our token, our size and the checksums named with it do.

        An object of ours that is not whole, and not when it is looked at again either, is removed, so that nobody takes
        it for whole: raises `UploadFailed`. Where a checksum has said so (`BadDigest`: in an answer), only a checksum
        shows that it is whole.
        """
        if found.token != self._upload.meta.token:
            return None
        ours = await self._checksums(body)
        by_checksum = isinstance(error, BadDigest)
        if self._is_whole(found, ours, by_checksum=by_checksum):
            return found
        by_checksum |= any(ours[name] != value for name, value in _comparable(found, ours).items())
        return await self._keep_or_remove(found, ours, by_checksum=by_checksum)

    def _is_whole(self, found: StoredObject, ours: Mapping[str, str], *, by_checksum: bool) -> bool:
        """`by_checksum`: its size does not suffice."""
        named = _comparable(found, ours)
        same = found.size == self._upload.size and all(ours[name] == value for name, value in named.items())
        return same and (bool(named) or not by_checksum)

    async def _keep_or_remove(self, found: StoredObject, ours: Mapping[str, str], *, by_checksum: bool) -> StoredObject:
        """The object, if it looks whole now: what it looked like may have been damaged on its way. Else it is removed,
        which is the end of the upload. Where that is not permitted, the reason says that it is still there.
        """
        reason = f"the object in the store is not what was sent: {found.size} bytes, {found.checksums}"

        async def look_and_delete() -> StoredObject | None:
            again = await self._store.head(self._upload.key)  # after an outage, too: it may be another's by now
            if again is None or again.token != self._upload.meta.token:
                return None
            if self._is_whole(again, ours, by_checksum=by_checksum):
                return again
            try:
                await self._store.delete(self._upload.key)
            except AccessDenied as error:
                raise StoreRefused(str(error)) from error
            return None

        try:
            whole = await self._shared.insist(look_and_delete)
        except StoreRefused as error:
            raise UploadFailed(f"{reason}; remove it: {error}") from error
        if whole is None:
            raise UploadFailed(f"{reason}; it was removed")
        return whole

    async def _checksums(self, body: PartBody | None) -> Mapping[str, str]:
        """The object's checksums as S3 would name them (`StoredObject.checksums`), as far as they are known here."""
        if body is not None:
            return _named(body)
        if self._upload.multipart_id is not None:
            receipts = self._receipts()
            of_parts = composite(receipts)
            crc = base64_of(combined(receipts).to_bytes(8, "big"))
            return {"crc64nvme": crc} | ({"sha256": of_parts} if of_parts else {})
        file = self._parts.file(1)
        if (file.size if file else 0) == self._upload.size:
            with suppress(SpoolError):  # a restart finds the spool changed; the object may have been stored before that
                return _named(await body_of(self._shared.files, file, self._upload.meta))
        # A power cut took its bytes. What they were was committed before the store was asked.
        return {name: base64_of(digest) for name, digest in self._upload.digests.items()}

    async def _save(self) -> None:
        await self._shared.checkpoint.insist(partial(self._shared.checkpoint.save, self._upload))


def combined(parts: Sequence[Receipt | PartFile]) -> int:
    """The whole's CRC64NVME, of parts that are all there."""
    crc = 0
    for part in parts:
        crc = checksums.combine_crc64nvme(crc, part.crc64nvme or 0, part.size)
    return crc


def _named(body: PartBody) -> dict[str, str]:
    """The checksums of an object that is one body."""
    digest = {"sha256": base64_of(body.sha256)} if body.sha256 is not None else {}
    return {"crc64nvme": base64_of(body.crc64nvme.to_bytes(8, "big"))} | digest


def _comparable(found: StoredObject, ours: Mapping[str, str]) -> dict[str, str]:
    """What the store names that is of a kind with ours: a composite ends with its number of parts."""
    return {
        name: value for name, value in found.checksums.items() if name in ours and ("-" in value) == ("-" in ours[name])
    }
