"""An `ObjectStore` in memory, stricter than AWS: what passes here has a chance elsewhere.

    store = FakeStore()                       # parts of at least 5 bytes, complete is not idempotent
    store.objects[key].data                   # what is visible
    store.fail("put_part", StoreUnavailable, None, DROP)   # next calls: fails, works, works but the answer is lost
    gate = store.hold("put_part")             # every call waits ...
    await gate.reached(2)                     # ... until two are there
    gate.release()
    store.calls["put_part"], store.peak["put_part"], store.effects
    store.arrive_late()                       # creations that were given up have their effect now

A fault is one of: None, a `StoreError` or its class (raised before any effect), `DROP` (the effect happens and
the answer is lost), a number (seconds of delay), an `asyncio.Event` (waits for it); damage, done by a function such as
`flipped`, `shortened`, `lost`: `Arrives` (to a body on its way), `Keeps` (to what is stored), `Tells` (to an answer);
or a tuple of these. `plan`, if set, is asked first: an async callable of the operation's name and its number, returning
a fault.

What no store would accept is an `AssertionError`: it is the caller's mistake, and must not look like weather.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import category

from awscrt.checksums import crc64nvme as crc64nvme_of

from streamup.errors import (
    AccessDenied,
    BadDigest,
    CredentialsExpired,
    InvalidPart,
    NoSuchMultipart,
    NoSuchObject,
    SpoolError,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.stores import (
    SSE_C,
    Checksum,
    Multipart,
    ObjectMeta,
    PartBody,
    Receipt,
    StoredObject,
    StoredPart,
    StoreLimits,
    Take,
)


class _Drop(Enum):
    DROP = "the effect happens, the answer is lost"


DROP = _Drop.DROP
PIECE_BYTES = 16 << 10
"""What a read gives at a time; each piece is a call of `piece`, for faults and gates in the middle of a body."""

T = TypeVar("T")


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another, if there is one."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 1 for byte in data[middle : middle + 1]) + data[middle + 1 :]


def shortened(data: bytes) -> bytes:
    return data[:-1]


def lost(_: bytes) -> None:
    return None


@dataclass(frozen=True)
class Arrives:
    """A body arrives like this. The store compares it with its checksum, if one came with it."""

    change: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Keeps:
    """The bytes are stored like this, or not at all, after they were compared."""

    change: Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class Tells:
    """The answer is this one."""

    change: Callable[[Any], Any]


Damage = Arrives | Keeps | Tells
Fault = None | StoreError | type[StoreError] | _Drop | float | asyncio.Event | Damage | tuple["Fault", ...]


class Damages:
    """The damage that one call does."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults

    def arriving(self, data: bytes) -> bytes:
        return self._changed(Arrives, data)

    def kept(self, data: bytes) -> bytes | None:
        return self._changed(Keeps, data)

    def told(self, answer: T) -> T:
        return self._changed(Tells, answer)

    def _changed(self, kind: type[Damage], value: Any) -> Any:
        for fault in self._faults:
            if isinstance(fault, kind):
                value = fault.change(value)
        return value


@dataclass
class FakeObject:
    data: bytes
    meta: ObjectMeta
    etag: str
    checksums: dict[str, str]
    modified: datetime
    multipart_id: str | None = None
    parts: Sequence[StoredPart] | None = None
    """As `parts_of` tells them; to be overwritten by a test whose store tells nothing."""

    checksum_type: str | None = None
    encryption: str | None = None


@dataclass
class FakePart:
    data: bytes
    receipt: Receipt


@dataclass
class FakeMultipart:
    key: str
    multipart_id: str
    meta: ObjectMeta
    initiated: datetime
    parts: dict[int, FakePart] = field(default_factory=dict)
    listed: list[Receipt] = field(default_factory=list)
    """Every receipt ever given, the overwritten ones too."""


class Gate:
    """Holds calls up. Released, it lets all through, later ones too."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self._waiting = 0
        self._arrival = asyncio.Condition()

    def release(self) -> None:
        self.open.set()

    async def reached(self, calls: int = 1) -> None:
        """Return when this many calls have arrived."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: self._waiting >= calls)

    async def wait(self) -> None:
        async with self._arrival:
            self._waiting += 1
            self._arrival.notify_all()
        await self.open.wait()


class FakeStore:
    """Implements `ObjectStore`. Options say where stores differ; the defaults are the harder way."""

    def __init__(
        self,
        *,
        limits: StoreLimits | None = None,
        conditional_writes: bool = True,
        checksums: frozenset[Checksum] = frozenset(Checksum),
        idempotent_complete: bool = False,
        stale_listing: bool = False,
        checks_sizes: bool = True,
        adds_crc64nvme: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_skew: timedelta = timedelta(),
        seed: int = 1,
    ) -> None:
        self.limits = limits or StoreLimits(max_parts=10_000, min_part_bytes=5)
        self.conditional_writes = conditional_writes
        self.checksums = checksums
        self.idempotent_complete = idempotent_complete
        self.stale_listing = stale_listing
        self.checks_sizes = checks_sizes
        self.adds_crc64nvme = adds_crc64nvme
        self.objects: dict[str, FakeObject] = {}
        self.multiparts: dict[str, FakeMultipart] = {}
        self.completed: dict[str, StoredObject] = {}
        self.plan: Callable[[str, int], Awaitable[Fault]] | None = None
        self.calls: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.effects: list[tuple[str, str, int | None]] = []
        """What happened, in the order in which it did: operation, key, part number."""
        self.given_up: list[tuple[str, ObjectMeta]] = []
        """Creations without an effect whose callers wait no more. A request may be on its way all the same."""
        self.key_replaced = False
        """Objects under a customer's key are seen from outside only."""
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._gates: dict[str, Gate] = {}
        self.clock_skew = clock_skew
        self._clock = lambda: clock() + clock_skew
        self._random = random.Random(seed)

    # What tests do with it

    def fail(self, operation: str, *faults: Fault) -> None:
        """The next calls of this operation meet these faults, one each."""
        self._faults[operation].extend(faults)

    def hold(self, operation: str) -> Gate:
        """All calls of this operation wait until the gate is released."""
        gate = self._gates[operation] = Gate()
        return gate

    def arrive_late(self) -> list[str]:
        """What was given up has its effect now. The ids of what was begun."""
        late, self.given_up = self.given_up, []
        return [self._begin(key, meta) for key, meta in late]

    # ObjectStore

    async def put_object(self, key: str, body: PartBody, meta: ObjectMeta) -> StoredObject:
        async with self._call("put_object", key) as damage:
            data = self._checked(body, meta, damage)
            self._check_condition(key, meta)
            self._happened("put_object", key)
            return damage.told(self._store(key, data, damage.kept(data), meta))

    async def create_multipart(self, key: str, meta: ObjectMeta) -> str:
        reached = False
        try:
            async with self._call("create_multipart", key):
                reached = True
                return self._begin(key, meta)
        except (StoreThrottled, CredentialsExpired, AccessDenied):
            raise
        except (asyncio.CancelledError, StoreUnavailable):
            if not reached:
                self.given_up.append((key, meta))
            raise

    def _begin(self, key: str, meta: ObjectMeta) -> str:
        multipart_id = self._random.randbytes(12).hex()
        self.multiparts[multipart_id] = FakeMultipart(key, multipart_id, meta, self._clock().replace(microsecond=0))
        self._happened("create_multipart", key)
        return multipart_id

    async def put_part(self, key: str, multipart_id: str, number: int, body: PartBody) -> Receipt:
        async with self._call("put_part", key) as damage:
            multipart = self._multipart(key, multipart_id)
            if not 1 <= number <= self.limits.max_parts:
                raise StoreRefused(f"part number {number}", status=400, code="InvalidArgument")
            if body.sse_c_key_md5 != multipart.meta.sse_c_key_md5:
                raise StoreRefused("parts have one key, from the beginning", status=400, code="InvalidRequest")
            data = self._checked(body, multipart.meta, damage)
            multipart = self._multipart(key, multipart_id)  # it may have been aborted while the body was read
            receipt = Receipt(number, len(data), self._etag(), body.crc64nvme, body.sha256)
            if (kept := damage.kept(data)) is not None:
                multipart.parts[number] = FakePart(kept, receipt)
                multipart.listed.append(receipt)
            self._happened("put_part", key, number)
            return damage.told(receipt)

    async def list_parts(self, key: str, multipart_id: str) -> Sequence[Receipt]:
        async with self._call("list_parts", key) as damage:
            multipart = self._multipart(key, multipart_id)
            if self.stale_listing:  # as SeaweedFS shows overwritten parts, and any cache the state of a moment ago
                return sorted(multipart.listed[:-1], key=lambda receipt: receipt.number)
            parts = sorted(multipart.parts.items())
            return damage.told([replace(part.receipt, size=len(part.data)) for _, part in parts])

    async def complete_multipart(
        self, key: str, multipart_id: str, receipts: Sequence[Receipt], meta: ObjectMeta, crc64nvme: int | None
    ) -> StoredObject:
        async with self._call("complete_multipart", key) as damage:
            self._check_condition(key, meta)  # before the replay, as SeaweedFS and MinIO do
            if self.idempotent_complete and multipart_id in self.completed:
                return self.completed[multipart_id]
            multipart = self._multipart(key, multipart_id)
            fixed = replace(meta, if_none_match=multipart.meta.if_none_match)
            assert fixed == multipart.meta, "the object's metadata was fixed when its multipart upload was created"
            parts = [self._listed_part(multipart, index, receipt) for index, receipt in enumerate(receipts, 1)]
            self._check_sizes(parts)
            data = b"".join(part.data for part in parts)
            if meta.checksum is Checksum.CRC64NVME and crc64nvme != crc64nvme_of(data):
                raise BadDigest("the object's checksum", status=400, code="BadDigest")
            del self.multiparts[multipart_id]
            self._happened("complete_multipart", key)
            told = [
                StoredPart(index, len(part.data), checksums_of(part.data, meta, adds=self.adds_crc64nvme))
                for index, part in enumerate(parts, 1)
            ]
            kept = damage.kept(data)
            done = self._store(key, data, kept, meta, multipart_id=multipart_id, receipts=receipts, parts=told)
            self.completed[multipart_id] = done
            return damage.told(done)

    async def abort_multipart(self, key: str, multipart_id: str) -> None:
        async with self._call("abort_multipart", key):
            multipart = self.multiparts.get(multipart_id)
            assert multipart is None or multipart.key == key, "another key's multipart upload"
            if self.multiparts.pop(multipart_id, None):
                self._happened("abort_multipart", key)

    async def list_multiparts(self, prefix: str) -> AsyncIterator[Multipart]:
        async with self._call("list_multiparts"):
            found = [one for one in self.multiparts.values() if one.key.startswith(prefix)]
        for one in sorted(found, key=lambda one: (one.key, one.initiated)):
            yield Multipart(one.key, one.multipart_id, one.initiated)

    async def head(self, key: str, begun: str | None = None) -> StoredObject | None:
        async with self._call("head", key) as damage:
            found = self.objects.get(key)
            if found and self.key_replaced and found.meta.sse_c_key_md5:
                if begun:
                    raise AccessDenied("another key for SSE-C", status=403)
                return damage.told(StoredObject(key, len(found.data), found.etag, encryption=SSE_C))
            return damage.told(found and _described(key, found))

    async def read(self, key: str, start: int, end: int, etag: str, take: Take) -> None:
        async with self._call("read", key):
            found = self.objects.get(key)
            if found is None:
                raise NoSuchObject(key, status=404, code="NoSuchKey")
            if found.etag != etag:
                raise StorePrecondition(f"{key} is {found.etag}", status=412, code="PreconditionFailed")
            assert 0 <= start < end <= len(found.data), "a span of the object, and not empty"
            for position in range(start, end, PIECE_BYTES):
                async with self._call("piece") as damage:
                    piece = damage.told(found.data[position : min(position + PIECE_BYTES, end)])
                take(memoryview(piece))

    async def parts_of(self, key: str) -> Sequence[StoredPart] | None:
        async with self._call("parts_of", key):
            found = self.objects.get(key)
            return found and found.parts

    async def delete(self, key: str) -> None:
        async with self._call("delete", key):
            if self.objects.pop(key, None):
                self._happened("delete", key)

    async def presign_get(self, key: str, seconds: int) -> str:
        async with self._call("presign_get", key):
            return f"https://store.example/{key}?expires={seconds}"

    async def ready(self) -> None:
        async with self._call("ready"):
            pass

    # Faults

    @asynccontextmanager
    async def _call(self, operation: str, key: str = "key") -> AsyncIterator[Damages]:
        assert not {".", ".."}.intersection(key.split("/")), "a key that may leave the prefix"
        assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(category, key)), "a key with control characters"
        self.calls[operation] += 1
        number = self.calls[operation]
        self.in_flight[operation] += 1
        self.peak[operation] = max(self.peak[operation], self.in_flight[operation])
        try:
            await asyncio.sleep(0)  # no real store answers without the loop turning once
            fault = await self.plan(operation, number) if self.plan else None
            if fault is None and self._faults[operation]:
                fault = self._faults[operation].popleft()
            if gate := self._gates.get(operation):
                await gate.wait()
            faults = fault if isinstance(fault, tuple) else (fault,)
            for one in faults:
                await _meet(operation, one)
            with suppress(StoreError) if DROP in faults else nullcontext():
                yield Damages(faults)
            if DROP in faults:
                raise StoreUnavailable(f"{operation}: the answer was lost")
        finally:
            self.in_flight[operation] -= 1

    # Strictness

    def _multipart(self, key: str, multipart_id: str) -> FakeMultipart:
        multipart = self.multiparts.get(multipart_id)
        if multipart is None or multipart.key != key:
            raise NoSuchMultipart(f"{key} {multipart_id}", status=404, code="NoSuchUpload")
        return multipart

    def _checked(self, body: PartBody, meta: ObjectMeta, damage: Damages) -> bytes:
        """The body's bytes, read after all delays: a part file that went away too early is noticed."""
        assert body.checksum in self.checksums, "a kind of checksum this store does not keep"
        assert (body.sha256 is not None) == (body.checksum is Checksum.SHA256), (
            "sha256 goes with SHA256, and only there"
        )
        if body.checksum is not meta.checksum:
            raise StoreRefused("not the checksum that was announced", status=400, code="InvalidRequest")
        if body.size > self.limits.max_part_bytes:
            raise StoreRefused(f"{body.size} bytes", status=400, code="EntityTooLarge")
        data = self._read(body)
        if body.checksum is Checksum.NONE and crc64nvme_of(data) != body.crc64nvme:
            raise SpoolError(f"{body.path}: nothing goes with it that would tell the store what it must be")
        data = damage.arriving(data)
        if len(data) != body.size:
            raise StoreUnavailable(f"{len(data)} bytes", status=400, code="IncompleteBody")
        if body.checksum is Checksum.CRC64NVME and crc64nvme_of(data) != body.crc64nvme:
            raise BadDigest("CRC64NVME", status=400, code="BadDigest")
        if body.sha256 is not None and hashlib.sha256(data).digest() != body.sha256:
            raise BadDigest("SHA-256", status=400, code="BadDigest")
        return data

    def _read(self, body: PartBody) -> bytes:
        if body.path is None:
            assert body.size == 0, "only the empty body has no file"
            return b""
        try:
            data = self._bytes_of(body.path, body.size)
        except OSError as error:
            raise SpoolError(f"{body.path}: {error}") from error
        if len(data) < body.size:
            raise SpoolError(f"{body.path} ends at {len(data)}, not {body.size}")
        return data

    def _bytes_of(self, path: Path, size: int) -> bytes:
        with path.open("rb") as file:
            return file.read(size)

    def _check_condition(self, key: str, meta: ObjectMeta) -> None:
        if not meta.if_none_match:
            return
        if not self.conditional_writes:
            raise StoreRefused("If-None-Match", status=501, code="NotImplemented")
        if key in self.objects:
            raise StorePrecondition(f"{key} exists", status=412, code="PreconditionFailed")

    def _listed_part(self, multipart: FakeMultipart, index: int, receipt: Receipt) -> FakePart:
        if receipt.number != index:
            raise InvalidPart(f"part {receipt.number} in place {index}", status=400, code="InvalidPartOrder")
        part = multipart.parts.get(receipt.number)
        if part is None or part.receipt != receipt:
            raise InvalidPart(f"part {receipt.number}: {receipt}", status=400, code="InvalidPart")
        return part

    def _check_sizes(self, parts: Sequence[FakePart]) -> None:
        if not parts:
            raise StoreRefused("no parts", status=400, code="MalformedXML")
        sizes = [len(part.data) for part in parts]
        if self.checks_sizes and sizes != [part.receipt.size for part in parts]:
            raise StoreRefused(f"sizes {sizes}", status=400, code="InvalidRequest")
        if any(size < self.limits.min_part_bytes for size in sizes[:-1]):
            raise InvalidPart(f"sizes {sizes}", status=400, code="EntityTooSmall")
        if self.limits.equal_parts and (len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]):
            raise InvalidPart("all parts but the last must have one size", status=400, code="InvalidPart")

    # Storage

    def _store(
        self,
        key: str,
        data: bytes,
        kept: bytes | None,
        meta: ObjectMeta,
        *,
        multipart_id: str | None = None,
        receipts: Sequence[Receipt] = (),
        parts: Sequence[StoredPart] = (),
    ) -> StoredObject:
        """`kept` is what becomes of `data`; None: it is not there any more when the answer comes."""
        adds = self.adds_crc64nvme
        words = checksums_of(data if kept is None else kept, meta, receipts, adds=adds)
        parts = parts or [StoredPart(1, len(data), words)]
        made = FakeObject(data if kept is None else kept, meta, self._etag(), words, self._clock(), multipart_id, parts)
        if kept is not None:
            self.objects[key] = made
        if words != checksums_of(data, meta, receipts, adds=adds) and meta.checksum is not Checksum.NONE:
            raise BadDigest("the answer names another checksum than the request", status=200)
        return replace(_described(key, made), size=len(data))  # no answer tells the size

    def _etag(self) -> str:
        """Never the same twice, not even for the same bytes: nobody may compute one."""
        return f'"{self._random.randbytes(8).hex()}"'

    def _happened(self, operation: str, key: str, number: int | None = None) -> None:
        self.effects.append((operation, key, number))


async def _meet(operation: str, fault: Fault) -> None:
    match fault:
        case None | _Drop() | Arrives() | Keeps() | Tells():
            return
        case asyncio.Event():
            await fault.wait()
        case float() | int():
            await asyncio.sleep(fault)
        case StoreError():
            raise fault
        case _:
            raise fault(f"{operation}: as the test wants it")


def checksums_of(data: bytes, meta: ObjectMeta, receipts: Sequence[Receipt] = (), *, adds: bool) -> dict[str, str]:
    match meta.checksum:
        case Checksum.NONE if not adds:
            return {}
        case Checksum.CRC64NVME | Checksum.NONE:  # AWS adds one where none was asked for
            return {"crc64nvme": _base64(crc64nvme_of(data).to_bytes(8, "big"))}
        case Checksum.SHA256 if receipts:
            joined = b"".join(receipt.sha256 or b"" for receipt in receipts)
            return {"sha256": f"{_base64(hashlib.sha256(joined).digest())}-{len(receipts)}"}
        case Checksum.SHA256:
            return {"sha256": _base64(hashlib.sha256(data).digest())}


def _described(key: str, found: FakeObject) -> StoredObject:
    return StoredObject(
        key,
        len(found.data),
        found.etag,
        found.meta.token,
        found.checksums,
        found.meta.content_type,
        found.modified.replace(microsecond=0),
        found.checksum_type or _kind(found.checksums),
        found.encryption,
    )


def _kind(words: Mapping[str, str]) -> str | None:
    """S3's ChecksumType."""
    return ("COMPOSITE" if any("-" in value for value in words.values()) else "FULL_OBJECT") if words else None


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
