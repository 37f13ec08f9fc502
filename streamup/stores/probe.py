"""What a store can do, found out by doing it: a few tiny objects and multipart uploads under our prefix, removed again.

Documentation and `Server` headers are hints. Whether a wrong checksum is refused, and whether a condition is honoured,
is seen only by trying, and a store that silently does neither costs bytes one day.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from awscrt import checksums

from streamup.errors import (
    AccessDenied,
    BadDigest,
    ConfigError,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreUnavailable,
)
from streamup.stores import Checksum, ObjectMeta, PartBody
from streamup.stores.profiles import BOTH, StoreProfile
from streamup.stores.s3 import S3Store

CONTENT = b"streamup asks what this store can do, and removes this again\n"


async def probe(store: S3Store) -> tuple[str, ...]:
    """Find out what the store can do and let it `adopt` that. Returns a sentence for each thing it cannot do.

    Raises `ConfigError` if the bucket or a permission is missing, `StoreUnavailable` if the store cannot be asked now.
    """
    known = await _known(store)
    store.adopt(replace(known, checksums=BOTH, conditional_put=True, conditional_complete=True))
    try:
        with TemporaryDirectory(prefix="streamup-probe-") as directory:
            trial = _Trial(store, f".streamup-probe-{secrets.token_hex(8)}", Path(directory) / "part")
            found, remarks = await trial.run(known)
    except BaseException:
        store.adopt(known)
        raise
    store.adopt(found)
    return (*_shortcomings(found), *remarks)


async def _known(store: S3Store) -> StoreProfile:
    try:
        return await store.recognise()
    except AccessDenied as error:
        raise _denied(store.bucket, "s3:ListBucket", error) from error
    except StoreUnavailable as error:
        if error.code != "NoSuchBucket":
            raise
        raise ConfigError(f"{error} Create it, or name another one (s3://BUCKET/PREFIX).") from error


@dataclass(frozen=True, slots=True)
class _Trial:
    store: S3Store
    key: str
    path: Path

    async def run(self, known: StoreProfile) -> tuple[StoreProfile, list[str]]:
        """The profile that was found, and what is left to say about the attempt itself."""
        self.path.write_bytes(CONTENT)
        try:
            await self._permissions()
            kept = frozenset([checksum for checksum in BOTH if await self._checks(checksum)])
            self.store.adopt(replace(self.store.profile, checksums=kept))
            found = replace(
                known,
                checksums=kept,
                content_md5=Checksum.CRC64NVME in kept or await self.store.checks_content_md5(self.key),
                conditional_put=await self._conditional_put(),
                conditional_complete=await self._conditional_complete(),
            )
        finally:
            remarks = await self._clean()
        return found, remarks

    async def _permissions(self) -> None:
        with self._needs("s3:GetObject and s3:ListBucket"):  # without the second, what is missing looks forbidden
            await self.store.head(self.key)
        with self._needs("s3:ListBucketMultipartUploads"):
            await anext(self.store.list_multiparts(self.key), None)
        with self._needs("s3:PutObject"):
            await self.store.put_object(self.key, self._body(Checksum.NONE), self._meta(Checksum.NONE))
            multipart_id = await self.store.create_multipart(self.key, self._meta(Checksum.NONE))
        with self._needs("s3:ListMultipartUploadParts"):
            await self.store.list_parts(self.key, multipart_id)
        with self._needs("s3:AbortMultipartUpload"):
            await self.store.abort_multipart(self.key, multipart_id)

    async def _checks(self, checksum: Checksum) -> bool:
        """Whether a multipart upload with this checksum succeeds, and a part with a wrong one does not."""
        body, meta = self._body(checksum), self._meta(checksum)
        wrong = replace(body, crc64nvme=body.crc64nvme ^ 1, sha256=bytes(32) if body.sha256 else None)
        try:
            multipart_id = await self.store.create_multipart(self.key, meta)
            if not await self._is_refused(multipart_id, wrong):
                return False
            receipt = await self.store.put_part(self.key, multipart_id, 1, body)
            await self.store.complete_multipart(self.key, multipart_id, [receipt], meta, body.crc64nvme)
        except StoreRefused:
            return False
        return True

    async def _is_refused(self, multipart_id: str, wrong: PartBody) -> bool:
        try:
            await self.store.put_part(self.key, multipart_id, 1, wrong)
        except BadDigest:
            return True
        return False

    async def _conditional_put(self) -> bool:
        """The key exists by now."""
        try:
            await self.store.put_object(self.key, self._body(Checksum.NONE), self._meta(Checksum.NONE, new=True))
        except StoreRefused as error:
            return isinstance(error, StorePrecondition)
        return False

    async def _conditional_complete(self) -> bool:
        body, meta = self._body(Checksum.NONE), self._meta(Checksum.NONE, new=True)
        try:
            multipart_id = await self.store.create_multipart(self.key, meta)
            receipt = await self.store.put_part(self.key, multipart_id, 1, body)
            await self.store.complete_multipart(self.key, multipart_id, [receipt], meta, None)
        except StoreRefused as error:
            return isinstance(error, StorePrecondition)
        return False

    async def _clean(self) -> list[str]:
        """Abort what is unfinished, delete the object. A store that has gone away meanwhile keeps them."""
        with suppress(StoreError):
            async for left in self.store.list_multiparts(self.key):
                await self.store.abort_multipart(left.key, left.multipart_id)
        try:
            await self.store.delete(self.key)
        except AccessDenied:
            return [f"The object {self.store.prefix}{self.key} stays: these credentials lack s3:DeleteObject."]
        except StoreError as error:
            return [f"The object {self.store.prefix}{self.key} may have stayed behind: {error}"]
        return []

    def _body(self, checksum: Checksum) -> PartBody:
        sha256 = hashlib.sha256(CONTENT).digest() if checksum is Checksum.SHA256 else None
        return PartBody(self.path, len(CONTENT), checksums.crc64nvme(CONTENT), checksum, sha256)

    def _meta(self, checksum: Checksum, *, new: bool = False) -> ObjectMeta:
        return ObjectMeta(token="probe", checksum=checksum, if_none_match=new)  # noqa: S106 - a mark, not a secret

    @contextmanager
    def _needs(self, permission: str) -> Iterator[None]:
        try:
            yield
        except AccessDenied as error:
            raise _denied(self.store.bucket, permission, error) from error


def _denied(bucket: str, permission: str, error: AccessDenied) -> ConfigError:
    if error.code == "NoCredentials":
        return ConfigError(
            "There are no credentials for the store. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or run where an instance or container role provides them."
        )
    return ConfigError(
        f"The store does not let these credentials in, or they lack {permission} on bucket {bucket!r} (with SSE-KMS "
        f"also kms:GenerateDataKey and kms:Decrypt). Grant it, or use others. The store said: {error}"
    )


def _shortcomings(profile: StoreProfile) -> Iterator[str]:
    if Checksum.CRC64NVME not in profile.checksums:
        yield (
            "This store does not check CRC64NVME: parts go with Content-MD5 instead (2 CPU-seconds per GiB more)."
            if profile.content_md5
            else "This store checks neither CRC64NVME nor Content-MD5: damage on the way to it goes unnoticed."
        )
    if Checksum.SHA256 not in profile.checksums:
        yield "This store does not check SHA-256: uploads that ask for it are refused."
    if not (profile.conditional_put and profile.conditional_complete):
        yield "This store does not honour If-None-Match: uploads that ask for it are refused."
    if profile.limits.equal_parts:
        yield "This store wants equal parts: streams of unknown length need --layout equal, which has a largest size."
