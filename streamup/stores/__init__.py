"""Where finished bytes go: the interface every object store is seen through.

Add a store: one module here that implements `ObjectStore`, translating its exceptions into `errors.StoreError`s
where they enter, and its name in `tests/test_stores.py`, whose contract every store must pass.
The verbs and words are S3's. Checksums are plain values here (CRC64NVME as an int, SHA-256 as 32 raw bytes);
how they are written on the wire is the store's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from streamup.digests import base64_of


class Checksum(StrEnum):
    """The checksum an object is stored with, as the client may ask for it (`?checksum=`)."""

    CRC64NVME = "crc64nvme"
    SHA256 = "sha256"
    NONE = "none"


NO_KEY = ""
"""What an upload remembers that began without a customer's key."""

SSE_C = "SSE-C"
"""The encryption of an object that needs a customer's key; S3 itself has no word for it."""


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What is stored beside an object's bytes; fixed when its upload is created.

    `user` becomes `x-amz-meta-*`. `token` (random, ours) becomes `x-amz-meta-streamup-token`: a HEAD that shows it
    proves that the object is this upload's and no stranger's. `if_none_match` stands for `If-None-Match: *`.
    `sse_c_key_md5`, the MD5 of the customer's key that its parts are encrypted with (`NO_KEY`: with none), keeps them
    to one key whatever is configured later; None is what is configured.
    """

    token: str
    checksum: Checksum = Checksum.CRC64NVME
    if_none_match: bool = False
    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    cache_control: str | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    sse_c_key_md5: str | None = None


@dataclass(frozen=True, slots=True)
class PartBody:
    """One part's bytes, as a file that does not change any more: the first `size` bytes of `path`.

    `path` None is the empty body. `crc64nvme` was computed on the bytes as they came off the socket. `sha256`, 32 raw
    bytes, is given exactly where the object's checksum is SHA256. `sse_c_key_md5` is that of the object.
    """

    path: Path | None
    size: int
    crc64nvme: int
    checksum: Checksum = Checksum.CRC64NVME
    sha256: bytes | None = None
    sse_c_key_md5: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The store's proof of one part (S3: CompletedPart). `etag` is kept as the store wrote it, quotes included."""

    number: int
    size: int
    etag: str
    crc64nvme: int | None = None
    sha256: bytes | None = None


def composite(receipts: Sequence[Receipt]) -> str | None:
    """S3's SHA-256 of an object of these parts: that of their digests, with their number. None if one is not known."""
    digests = [receipt.sha256 for receipt in receipts if receipt.sha256 is not None]
    if not digests or len(digests) != len(receipts):
        return None
    return f"{base64_of(sha256(b''.join(digests)).digest())}-{len(digests)}"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store describes it.

    `checksums` are the store's own words by S3's field names without the prefix, lower-case (`crc64nvme`, `sha256`),
    base64, composites with their `-N`; `checksum_type` is S3's ChecksumType (`FULL_OBJECT`, `COMPOSITE`), where the
    store says it. `encryption` is S3's ServerSideEncryption, or `SSE-C`: with `aws:kms` and `SSE-C` the ETag is no MD5.
    `token` is that of the upload which made it, if one of ours did.
    """

    key: str
    size: int
    etag: str
    token: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    modified: datetime | None = None
    checksum_type: str | None = None
    encryption: str | None = None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One part of an object that is complete, as the store describes it; `checksums` as in `StoredObject`."""

    number: int
    size: int
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Multipart:
    """An unfinished multipart upload, as a listing shows it. `initiated` is the store's clock, in whole seconds."""

    key: str
    multipart_id: str
    initiated: datetime


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a store takes. `equal_parts`: all parts but the last must have one size (Cloudflare R2). `max_name_bytes`:
    between two slashes of a key, where each becomes a name in a file system or something like it.
    """

    max_parts: int = 10_000
    min_part_bytes: int = 5 << 20
    max_part_bytes: int = 5 << 30
    equal_parts: bool = False
    max_name_bytes: int | None = None


Take = Callable[[memoryview], object]
"""Takes bytes as they come, and keeps none: their memory is used again. It may be called in a thread, and what it
raises ends the reading.
"""


class ObjectStore(Protocol):
    """A bucket and a prefix; `key` is always below the prefix and never begins with it.

    `put_part` may be repeated with the same arguments. `create_multipart`, `put_object` and `complete_multipart` run a
    single attempt each: after a `StoreUnavailable` from them nobody knows what happened, and `head` settles it.
    Every method raises `StoreError`s only, and ends within a deadline of its own that grows with the bytes it moves.
    """

    limits: StoreLimits
    conditional_writes: bool
    """Whether `If-None-Match: *` is honoured when an object is put or completed."""
    checksums: frozenset[Checksum]
    """What an object may be asked to be stored with. A store that cannot keep CRC64NVME sends the best it has."""
    clock_skew: timedelta | None
    """By how much the store's clock was ahead of ours in its last answer, give or take two seconds."""

    async def put_object(self, key: str, body: PartBody, meta: ObjectMeta) -> StoredObject:
        """Store an object that fits in one part, the empty one too (S3: PutObject)."""
        ...

    async def create_multipart(self, key: str, meta: ObjectMeta) -> str:
        """Begin a multipart upload; returns its `multipart_id` (S3: CreateMultipartUpload)."""
        ...

    async def put_part(self, key: str, multipart_id: str, number: int, body: PartBody) -> Receipt:
        """Store one part with its checksum (S3: UploadPart). Raises `NoSuchMultipart`, `BadDigest`."""
        ...

    async def list_parts(self, key: str, multipart_id: str) -> Sequence[Receipt]:
        """What the store lists (S3: ListParts, all pages). A cross-check, never the truth: it may be stale and name a
        number twice. Raises `NoSuchMultipart`.
        """
        ...

    async def complete_multipart(
        self, key: str, multipart_id: str, receipts: Sequence[Receipt], meta: ObjectMeta, crc64nvme: int | None
    ) -> StoredObject:
        """Join the parts (S3: CompleteMultipartUpload). `crc64nvme` is the whole object's, to be compared by the store.

        Raises `NoSuchMultipart`, `InvalidPart`, `BadDigest`, `StorePrecondition`, `StoreConflict`.
        """
        ...

    async def abort_multipart(self, key: str, multipart_id: str) -> None:
        """Give a multipart upload up (S3: AbortMultipartUpload). One that is not there is aborted already."""
        ...

    def list_multiparts(self, prefix: str) -> AsyncIterator[Multipart]:
        """Unfinished multipart uploads whose key begins with `prefix` (S3: ListMultipartUploads, all pages)."""
        ...

    async def head(self, key: str, begun: str | None = None) -> StoredObject | None:
        """The object under `key`, or None (S3: HeadObject with checksums).

        Of one under a customer's key that is not configured, size and ETag; or `AccessDenied`, where an upload that was
        `begun` (`ObjectMeta.sse_c_key_md5`) with another key than there is now may have made it.
        """
        ...

    async def read(self, key: str, start: int, end: int, etag: str, take: Take) -> None:
        """Give bytes `start` to `end` (half-open, not empty) of the object with this ETag to `take`, all of them and in
        order (S3: GetObject with Range and If-Match). When it returns or raises, `take` is called no more.

        Raises `StorePrecondition` when the object is another one by now, `NoSuchObject`, and `StoreUnavailable` when
        the bytes end early.
        """
        ...

    async def parts_of(self, key: str) -> Sequence[StoredPart] | None:
        """The parts the object was made of, all of them and in order; None where the store does not tell
        (S3: HeadObject with PartNumber, GetObjectAttributes).
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the object under `key`; one that is not there is removed already (S3: DeleteObject)."""
        ...

    async def presign_get(self, key: str, seconds: int) -> str:
        """A URL that lets anybody GET the object for `seconds` (S3: query authentication), on the public endpoint."""
        ...

    async def ready(self) -> None:
        """Return if the bucket answers now; raise a `StoreError` that says what is wrong otherwise (S3: HeadBucket)."""
        ...
