"""What a store does when it is asked: small experiments under one key of our own, which is removed again.

Documentation and `Server` headers are hints. Whether a wrong checksum is refused, and whether a condition is honoured,
is seen only by trying, and a store that silently does neither costs bytes one day.

`probe.py` makes those that a start needs; `streamup doctor` makes all of them and says what to do. An experiment is a
method of `Trial`: it returns what it found, and raises the `StoreError` that kept it from finding out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

from awscrt import checksums

from streamup.errors import (
    AccessDenied,
    BadDigest,
    InvalidPart,
    NoSuchMultipart,
    NoSuchObject,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreUnavailable,
)
from streamup.stores import Checksum, Multipart, ObjectMeta, PartBody, Receipt, StoreLimits
from streamup.stores.profiles import BOTH, NEITHER, StoreProfile
from streamup.stores.s3 import S3Store

CONTENT = b"streamup asks what this store can do, and removes this again\n"
MARK = ".streamup-probe-"
"""What the names of all experiments begin with: whoever finds one left behind knows where it came from."""

MIN_PART = StoreLimits().min_part_bytes


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that the credentials must be allowed. `actions` are IAM's; `lost` is what does not work without it.

    `after`: the permission whose attempt makes what this one works on. `on_bucket`: IAM grants it on the bucket, not on
    the objects in it. `starts`: a server does not start without it.
    """

    name: str
    operation: str
    actions: tuple[str, ...]
    lost: str
    after: str = ""
    on_bucket: bool = False
    starts: bool = True


LIST = Permission(
    "list", "HeadBucket", ("s3:ListBucket",), "no start: what is missing would look forbidden", on_bucket=True
)
LIST_MULTIPARTS = Permission(
    "list multipart uploads",
    "ListMultipartUploads",
    ("s3:ListBucketMultipartUploads",),
    "a creation whose answer was lost leaves its parts behind for ever, and is not known; sweep finds nothing",
    on_bucket=True,
)
MISSING = Permission(
    "head (missing)",
    "HeadObject",
    ("s3:GetObject", "s3:ListBucket"),
    "whether an object exists cannot be found out, so none is completed",
)
PUT = Permission("put", "PutObject", ("s3:PutObject",), "objects that fit in one part cannot be stored")
CREATE = Permission(
    "create multipart", "CreateMultipartUpload", ("s3:PutObject",), "objects of more than one part cannot be stored"
)
PART = Permission("upload part", "UploadPart", ("s3:PutObject",), "nothing leaves the spool", after=CREATE.name)
LIST_PARTS = Permission(
    "list parts",
    "ListParts",
    ("s3:ListMultipartUploadParts",),
    "the second look before an object is completed; completions wait",
    after=CREATE.name,
)
ABORT = Permission(
    "abort",
    "AbortMultipartUpload",
    ("s3:AbortMultipartUpload",),
    "the parts of cancelled and expired uploads stay in the store, and are billed",
    after=CREATE.name,
)
COMPLETE = Permission(
    "complete", "CompleteMultipartUpload", ("s3:PutObject",), "no upload becomes an object", after=PART.name
)
HEAD = Permission("head", "HeadObject", ("s3:GetObject",), "an answer that was lost cannot be settled", after=PUT.name)
GET = Permission(
    "get", "GetObject", ("s3:GetObject",), "downloads (--downloads), streamup get and verify", HEAD.name, starts=False
)
ATTRIBUTES = Permission(
    "get attributes",
    "GetObjectAttributes",
    ("s3:GetObjectAttributes",),
    "streamup get and verify cannot compare parts, only the object",
    HEAD.name,
    starts=False,
)
DELETE = Permission(
    "delete",
    "DeleteObject",
    ("s3:DeleteObject",),
    "--deletes; an object that the store has damaged cannot be removed; and what this writes stays behind",
    PUT.name,
    starts=False,
)


class Compared(StrEnum):
    """What a store does about a checksum that is wrong."""

    YES = "it refuses what does not match"
    NO = "it takes what does not match"
    UNKNOWN_KIND = "it does not know this kind of checksum"


@asynccontextmanager
async def trial(store: S3Store, known: StoreProfile, name: str = "") -> AsyncIterator[Trial]:
    """A `Trial` under a key of this name, which nobody else uses meanwhile; a random one, if there is none. Call its
    `clean` in the end, whatever happened.

    Meanwhile the store is asked for everything (`Trial.ask_for`), and afterwards it goes by what it did before.
    """
    before = store.profile
    try:
        with TemporaryDirectory(prefix="streamup-probe-") as directory:
            path = Path(directory) / "part"
            path.write_bytes(CONTENT)
            yield Trial(store, known, MARK + (name or secrets.token_hex(8)), path)
    finally:
        store.adopt(before)


@dataclass(slots=True)
class Trial:
    """Experiments on one key. `known` is the profile that the store's name speaks for."""

    store: S3Store
    known: StoreProfile
    key: str
    path: Path
    multiparts: dict[str, str] = field(default_factory=dict)
    """Those begun and not known to have ended, and their keys."""
    _multipart_id: str = ""
    _written: bool = False

    # -- permissions --------------------------------------------------------------------------------------------

    def attempts(self) -> Sequence[tuple[Permission, Callable[[], Awaitable[object]]]]:
        """Every permission but `LIST` with the request that shows whether it is there. In this order: some need what
        others make.

        With Content-MD5 instead of another checksum: every store takes it, and buckets with object lock want one.
        """
        self.ask_for(NEITHER)
        return (
            (MISSING, self._head),
            (LIST_MULTIPARTS, self._list_multiparts),
            (PUT, self.put),
            (HEAD, self._head),
            (GET, self._get),
            (ATTRIBUTES, self._attributes),
            (CREATE, self._create),
            (PART, self._put_part),
            (LIST_PARTS, self._list_parts),
            (ABORT, self._abort),
            (COMPLETE, self._complete),
            (DELETE, self._delete),
        )

    def ask_for(self, kinds: frozenset[Checksum]) -> None:
        """Send these kinds of checksums, and every condition, whatever the store is thought to know."""
        everything = replace(self.known, checksums=kinds, conditional_put=True, conditional_complete=True)
        self.store.adopt(everything)

    async def put(self) -> None:
        self.ask_for(NEITHER)
        await self._put(self._meta())

    async def _head(self) -> None:
        await self.store.head(self.key)

    async def _list_multiparts(self) -> None:
        await anext(self.store.list_multiparts(self.key), None)

    async def _create(self) -> None:
        self._multipart_id = await self._begin(self._meta())

    async def _put_part(self) -> None:
        await self.store.put_part(self.key, self._multipart_id, 1, self._body())

    async def _list_parts(self) -> None:
        await self.store.list_parts(self.key, self._multipart_id)

    async def _abort(self) -> None:
        await self.store.abort_multipart(self.key, self._multipart_id)
        del self.multiparts[self._multipart_id]

    async def _complete(self) -> None:
        multipart_id = await self._begin(self._meta())
        receipt = await self.store.put_part(self.key, multipart_id, 1, self._body())
        await self._join(multipart_id, [receipt], self._meta())

    async def _get(self) -> None:
        stored = await self.store.head(self.key)
        if stored is None:
            raise NoSuchObject(f"The object {self.key} that was put just now is not there.")
        await self.store.read(self.key, 0, stored.size, stored.etag, lambda _: None)

    async def _attributes(self) -> None:
        try:
            await self.store.list_stored_parts(self.key)
        except StoreUnavailable as error:
            # Some stores answer with the object itself, of which botocore makes a 500.
            if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                raise StoreRefused(str(error)) from error
            raise

    async def _delete(self) -> None:
        await self.store.delete(self.key)

    async def begin_below(self, prefix: str) -> None:
        """An upload with all that goes with objects below a prefix, and without a byte: nothing is stored there, not
        for a moment in a class of storage that is paid for by the month.
        """
        key = prefix + self.key
        multipart_id = await self._begin(self._meta(), key)
        await self.store.abort_multipart(key, multipart_id)
        del self.multiparts[multipart_id]

    # -- checksums and conditions -------------------------------------------------------------------------------

    async def compares(self, checksum: Checksum) -> Compared:
        """Whether a multipart upload with this checksum succeeds, and a part with a wrong one does not."""
        self.ask_for(BOTH)
        body, meta = self._body(checksum), self._meta(checksum)
        wrong = replace(body, crc64nvme=body.crc64nvme ^ 1, sha256=bytes(32) if body.sha256 else None)
        try:
            multipart_id = await self._begin(meta)
            if not await self._is_refused(multipart_id, wrong):
                return Compared.NO
            receipt = await self.store.put_part(self.key, multipart_id, 1, body)
            await self._join(multipart_id, [receipt], meta)
        except StoreRefused:
            return Compared.UNKNOWN_KIND
        return Compared.YES

    async def compares_content_md5(self) -> bool:
        with self._writing():
            return await self.store.checks_content_md5(self.key)

    async def _is_refused(self, multipart_id: str, wrong: PartBody) -> bool:
        try:
            await self.store.put_part(self.key, multipart_id, 1, wrong)
        except BadDigest:
            return True
        return False

    async def conditional_put(self) -> bool:
        """Whether `If-None-Match: *` protects an object, when it is put over."""
        await self.put()
        try:
            await self._put(self._meta(new=True))
        except StoreRefused as error:
            return isinstance(error, StorePrecondition)
        return False

    async def conditional_complete(self) -> bool:
        """Whether `If-None-Match: *` protects an object, when a multipart upload to its key is completed."""
        await self.put()
        meta = self._meta(new=True)
        try:
            multipart_id = await self._begin(meta)
            receipt = await self.store.put_part(self.key, multipart_id, 1, self._body())
            await self._join(multipart_id, [receipt], meta)
        except StoreRefused as error:
            return isinstance(error, StorePrecondition)
        return False

    # -- multipart uploads --------------------------------------------------------------------------------------

    async def small_part_is_refused(self) -> bool:
        """Whether a part below 5 MiB in the middle is (S3: EntityTooSmall)."""
        try:
            await self._join_parts(self._body(), self._body())
        except InvalidPart as error:
            if error.code != "EntityTooSmall":
                raise
            return True
        return False

    async def unequal_parts_are_refused(self) -> bool:
        """Whether all parts but the last must have one size (Cloudflare R2). Sends 10 MiB: less proves nothing."""
        try:
            await self._join_parts(self._large(MIN_PART), self._large(MIN_PART + 1), self._body())
        except InvalidPart as error:
            if error.code != "InvalidPart":
                raise
            return True
        return False

    async def gap_is_refused(self) -> bool:
        """Whether a list that leaves out part 1 is, where no checksum of the whole gives it away."""
        try:
            await self._join_parts(self._body(), self._body(), leave_out=1)
        except StoreRefused:
            return True
        return False

    async def complete_may_be_repeated(self) -> bool:
        """Whether a second CompleteMultipartUpload is answered like the first."""
        multipart_id, receipts = await self._join_parts(self._body())
        try:
            await self._join(multipart_id, receipts, self._meta())
        except NoSuchMultipart:
            return False
        return True

    async def listed(self, prefix: str) -> Multipart | None:
        """A multipart upload that was begun just now, as a listing below `prefix` shows it."""
        self.ask_for(NEITHER)
        multipart_id = await self._begin(self._meta())
        async for found in self.store.list_multiparts(prefix):
            if found.multipart_id == multipart_id:
                return found
        return None

    async def _join_parts(self, *bodies: PartBody, leave_out: int = 0) -> tuple[str, Sequence[Receipt]]:
        """A multipart upload of these parts, completed without the part that is left out."""
        self.ask_for(NEITHER)
        multipart_id = await self._begin(self._meta())
        receipts = [
            await self.store.put_part(self.key, multipart_id, number, body) for number, body in enumerate(bodies, 1)
        ]
        receipts = [receipt for receipt in receipts if receipt.number != leave_out]
        await self._join(multipart_id, receipts, self._meta())
        return multipart_id, receipts

    def _large(self, size: int) -> PartBody:
        """Zeros, in a file that takes no room on the disk."""
        path = self.path.with_name(f"zeros-{size}")
        with path.open("wb") as file:
            file.truncate(size)
        return PartBody(path, size, checksums.crc64nvme(bytes(size)))

    # -- the end ------------------------------------------------------------------------------------------------

    async def clean(self) -> list[str]:
        """Abort what is unfinished, delete the object. Returns a sentence for each thing that stays, or may stay."""
        with suppress(StoreError):  # a creation whose answer was lost, or that of a process which has died
            for prefix in ("", *self.store.objects.prefixes):
                async for found in self.store.list_multiparts(prefix + self.key):
                    self.multiparts[found.multipart_id] = found.key
        place = f"{self.store.prefix}{self.key}"
        remarks = [
            f"The multipart upload {multipart_id} of {self.store.prefix}{key} may have stayed behind: {error}"
            for multipart_id, key in self.multiparts.items()
            if (error := await self._left(key, multipart_id))
        ]
        try:
            if self._written and not await self.store.purge(self.key):
                lacking = "s3:ListBucketVersions and s3:DeleteObjectVersion, or object lock keeps them"
                remarks.append(f"Old versions of the object {place} stay: these credentials lack {lacking}.")
        except AccessDenied:
            remarks.append(f"The object {place} stays: these credentials lack s3:DeleteObject.")
        except StoreError as error:
            remarks.append(f"The object {place} may have stayed behind: {error}")
        return remarks

    async def _left(self, key: str, multipart_id: str) -> StoreError | None:
        try:
            await self.store.abort_multipart(key, multipart_id)
        except StoreError as error:
            return error
        return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """There is an object from now on, or may be, unless the store says no."""
        before, self._written = self._written, True
        try:
            yield
        except (AccessDenied, StoreRefused):
            self._written = before
            raise

    async def _put(self, meta: ObjectMeta) -> None:
        with self._writing():
            await self.store.put_object(self.key, self._body(), meta)

    async def _begin(self, meta: ObjectMeta, key: str = "") -> str:
        multipart_id = await self.store.create_multipart(key or self.key, meta)
        self.multiparts[multipart_id] = key or self.key
        return multipart_id

    async def _join(self, multipart_id: str, receipts: Sequence[Receipt], meta: ObjectMeta) -> None:
        crc = 0
        for receipt in receipts:
            crc = checksums.combine_crc64nvme(crc, receipt.crc64nvme, receipt.size)
        with self._writing():
            await self.store.complete_multipart(self.key, multipart_id, receipts, meta, crc)
        self.multiparts.pop(multipart_id, None)

    def _body(self, checksum: Checksum = Checksum.CRC64NVME) -> PartBody:
        sha256 = hashlib.sha256(CONTENT).digest() if checksum is Checksum.SHA256 else None
        return PartBody(self.path, len(CONTENT), checksums.crc64nvme(CONTENT), checksum, sha256)

    def _meta(self, checksum: Checksum = Checksum.CRC64NVME, *, new: bool = False) -> ObjectMeta:
        return ObjectMeta(token="probe", checksum=checksum, if_none_match=new)  # noqa: S106 - a mark, not a secret
