"""Any store that speaks S3. With `credentials` the only module that knows aiobotocore; no exception of its leaves it.

- Every call is one attempt, with a deadline of its own: `read_timeout` does not cover the sending of a body, and a
  store that stops reading would hold the call for ever. When to try again is the uploader's decision.
- Parts have a client of their own, so that an abort or a complete never queues behind them for a connection.
- Checksums were computed on the bytes as they came off the socket, and go out as headers: botocore touches no body.
  The store compares; what it answers is compared again here.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import urllib3

from streamup.digests import base64_of
from streamup.errors import (
    AccessDenied,
    BadDigest,
    ConfigError,
    CredentialsExpired,
    NoSuchMultipart,
    NoSuchObject,
    StoreConflict,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreUnavailable,
)
from streamup.hosts import is_loopback
from streamup.object_options import AS_THE_BUCKET_HAS_IT, ObjectRules
from streamup.stores import (
    NO_KEY,
    SSE_C,
    Checksum,
    Multipart,
    ObjectMeta,
    PartBody,
    Receipt,
    StoredObject,
    StoredPart,
    Take,
    composite,
)
from streamup.stores.bodies import pour
from streamup.stores.object_arguments import TOKEN, creation, customer_key
from streamup.stores.part_reader import PartReader, content_md5
from streamup.stores.profiles import UNKNOWN, StoreProfile, recognise
from streamup.stores.refusals import WORDLESS, refusal

# botocore looks at it while it is imported. Its other signer, in awscrt, copies a body that is `bytes`.
os.environ.setdefault("BOTO_DISABLE_CRT", "true")
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.handlers import add_expect_header  # type: ignore[import-untyped]

from streamup.stores.credentials import RENEW_SECONDS, CredentialChain
from streamup.stores.sessions import Session

CONTROL_CONNECTIONS = 16
CHECKSUM_TYPES = {Checksum.CRC64NVME: "FULL_OBJECT", Checksum.SHA256: "COMPOSITE"}

NOT_SET = {
    "NoSuchCORSConfiguration",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "ServerSideEncryptionConfigurationNotFoundError",
}
"""The words of a 404 which says that a bucket has no such setting. Any other may mean that the store has none."""


Observer = Callable[[str, float, StoreError | None], None]
"""Is told of each call that has ended: the operation, its seconds, and with what error, if any."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds until a call is given up. A part gets `part` and as long as it takes at `bytes_per_second` besides."""

    connect: float = 10
    control: float = 30
    complete: float = 600  # S3 documents minutes for many parts, and answers with white space meanwhile
    part: float = 15
    bytes_per_second: int = 64 << 10
    stall: float = 30  # of a body that is read: without a byte

    def of(self, body: PartBody) -> float:
        return self.part + body.size / self.bytes_per_second


class S3Store:
    """An `ObjectStore` in one bucket, below `prefix`. An async context manager; usable inside it only.

    Without keys the usual AWS chain finds the credentials (environment, profile, container, instance, web identity).
    Without `endpoint_url` botocore's configuration names it. `public_endpoint_url` is for presigned URLs only.
    `objects` says what goes with an object. It is asked anew with each call, so an upload that an earlier process
    began goes on by what is configured now; what was fixed when its multipart upload was created stays.
    What the store can do is `profile`; `adopt` sets it, and `probe.probe` finds it out.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        path_style: bool = False,
        objects: ObjectRules = AS_THE_BUCKET_HAS_IT,
        parallel_parts: int = 8,
        access_key: str | None = None,
        secret_key: str | None = None,
        profile: StoreProfile = UNKNOWN,
        deadlines: Deadlines = Deadlines(),
        observe: Observer | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.deadlines = deadlines
        self._observe = observe or (lambda *_: None)
        self._endpoint_url = endpoint_url
        self._public_endpoint_url = public_endpoint_url or endpoint_url
        self._addressing = "path" if path_style else "auto"
        self.objects = objects
        self._parallel_parts = parallel_parts
        self._keys = (access_key, secret_key) if access_key and secret_key else None
        self._chain = CredentialChain()
        self._stack = AsyncExitStack()
        self._parts: Any = None  # the clients' operations are called by name, with None left out: no typed client fits
        self._control: Any = None
        self._presigner: Any = None
        self.clock_skew: timedelta | None = None
        self.adopt(profile)

    def adopt(self, profile: StoreProfile) -> None:
        """Go by this profile from now on."""
        self.profile = profile
        self.limits = profile.limits
        self.conditional_writes = profile.conditional_put and profile.conditional_complete
        self.checksums = profile.checksums | {Checksum.CRC64NVME, Checksum.NONE}

    async def __aenter__(self) -> Self:
        session = AioSession()
        if self._keys:
            session.set_credentials(*self._keys)
        else:
            session.register_component("credential_provider", self._chain)
            self._stack.callback(self._chain.close)
        self._parts = await self._client(session, self._endpoint_url, self._parallel_parts)
        self._control = await self._client(session, self._endpoint_url, CONTROL_CONNECTIONS)
        self._require_private_way(self._control.meta.endpoint_url)
        # Some regions would still presign with SigV2, which their newer buckets refuse.
        self._presigner = await self._client(session, self._public_endpoint_url, 1, signature_version="s3v4")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _require_private_way(self, endpoint_url: str) -> None:
        """A customer's key goes with each request, so S3 refuses it over plain http. Raises `ConfigError`."""
        parts = urlsplit(endpoint_url)
        keyed = any(options.sse_c_key for options in self.objects.each.values())
        if keyed and parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ConfigError(
                f"--sse-c-key would be sent in the clear to {endpoint_url}, and S3 refuses that. Use an https endpoint."
            )

    async def _client(self, session: AioSession, endpoint_url: str | None, connections: int, **options: Any) -> Any:
        config = AioConfig(
            # Over plain http botocore would hash every body to sign it.
            s3={"payload_signing_enabled": False, "addressing_style": self._addressing},
            # Otherwise botocore computes checksums of its own, and sends bodies aws-chunked, which many stores refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=connections,
            connect_timeout=self.deadlines.connect,
            read_timeout=self.deadlines.complete,  # the deadlines around each call are shorter
            retries={"mode": "standard", "total_max_attempts": 1},
            http_session_cls=partial(Session, stall_seconds=self.deadlines.stall),
            **options,
        )
        context = session.create_client("s3", endpoint_url=endpoint_url, config=config)
        client = await self._stack.enter_async_context(context)
        # A store that never answers "100 Continue" would hold the body back for ever.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("response-received.s3", self._note_date)
        return client

    def _note_date(self, response_dict: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Botocore's event, with what it tells by name. `response_dict` is None where no answer came."""
        with suppress(KeyError, TypeError, ValueError):  # no answer, or none with a date
            date = parsedate_to_datetime((response_dict or {})["headers"]["date"])
            self.clock_skew = date - datetime.now(UTC)

    async def put_object(self, key: str, body: PartBody, meta: ObjectMeta) -> StoredObject:
        self._refuse_unkept(meta)
        checksum = self._checksum(body.checksum, body.crc64nvme, body.sha256)
        condition = self._condition(meta, honoured=self.profile.conditional_put)
        options = {**creation(self.objects.of(key), meta), **self._customer_key(key), **condition}
        answer = await self._send("put_object", body, checksum, Key=self.prefix + key, **options)
        return _stored(key, body.size, meta, answer)

    async def create_multipart(self, key: str, meta: ObjectMeta) -> str:
        self._refuse_unkept(meta)
        kind = {}
        if meta.checksum in self.profile.checksums:
            kind = {"ChecksumAlgorithm": meta.checksum.upper(), "ChecksumType": CHECKSUM_TYPES[meta.checksum]}
        secret = self._customer_key(key, meta.sse_c_key_md5)
        options = {**creation(self.objects.of(key), meta), **secret, **kind}
        answer = await self._call("create_multipart_upload", self.deadlines.control, Key=self.prefix + key, **options)
        return _field(answer, "UploadId")

    async def put_part(self, key: str, multipart_id: str, number: int, body: PartBody) -> Receipt:
        checksum = self._checksum(body.checksum, body.crc64nvme, body.sha256)
        target = {"Key": self.prefix + key, "UploadId": multipart_id, "PartNumber": number}
        secret = self._customer_key(key, body.sse_c_key_md5)
        answer = await self._send("upload_part", body, checksum, **target, **secret)
        return Receipt(number, body.size, answer["ETag"], body.crc64nvme, body.sha256)

    async def list_parts(self, key: str, multipart_id: str) -> Sequence[Receipt]:
        receipts: list[Receipt] = []
        page = {"UploadId": multipart_id}
        while True:
            answer = await self._ask("list_parts", key, **page)
            receipts.extend(_listed(part) for part in answer.get("Parts", ()))
            if not answer.get("IsTruncated"):
                return receipts
            page["PartNumberMarker"] = answer["NextPartNumberMarker"]

    async def complete_multipart(
        self, key: str, multipart_id: str, receipts: Sequence[Receipt], meta: ObjectMeta, crc64nvme: int | None
    ) -> StoredObject:
        """As the interface says. `BadDigest` also where the store has made an object and names another checksum for it
        than ours: that object is not the upload, unless a checksum in `head` says otherwise.
        """
        size = sum(receipt.size for receipt in receipts)
        whole = self._checksum(meta.checksum, crc64nvme, None) if meta.checksum is Checksum.CRC64NVME else {}
        answer = await self._call(
            "complete_multipart_upload",
            self.deadlines.complete,
            Key=self.prefix + key,
            UploadId=multipart_id,
            MultipartUpload={"Parts": [self._completed(receipt, meta.checksum) for receipt in receipts]},
            MpuObjectSize=size,
            ChecksumType=CHECKSUM_TYPES.get(meta.checksum) if meta.checksum in self.profile.checksums else None,
            **self._condition(meta, honoured=self.profile.conditional_complete),
            **self._customer_key(key, meta.sse_c_key_md5),
            **whole,
        )
        _field(answer, "ETag")
        if meta.checksum is Checksum.SHA256 and (of_parts := composite(receipts)):
            whole = {"ChecksumSHA256": of_parts}
        _confirm("the object", answer, whole)
        return _stored(key, size, meta, answer)

    async def abort_multipart(self, key: str, multipart_id: str) -> None:
        with suppress(NoSuchMultipart):
            await self._call(
                "abort_multipart_upload", self.deadlines.control, Key=self.prefix + key, UploadId=multipart_id
            )

    async def list_multiparts(self, prefix: str) -> AsyncIterator[Multipart]:
        page: dict[str, str] = {"Prefix": self.prefix + prefix}
        while True:
            answer = await self._call("list_multipart_uploads", self.deadlines.control, **page)
            for found in answer.get("Uploads", ()):
                yield Multipart(found["Key"].removeprefix(self.prefix), found["UploadId"], found["Initiated"])
            if not answer.get("IsTruncated"):
                return
            page |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    async def head(self, key: str, begun: str | None = None) -> StoredObject | None:
        try:
            answer = await self._ask("head_object", key, ChecksumMode="ENABLED")
        except NoSuchObject:
            return None
        except AccessDenied:
            if not await self._has_another_key(key):
                raise
            self._customer_key(key, begun)
            return await self._find(key)
        token = answer.get("Metadata", {}).get(TOKEN)
        return StoredObject(
            key,
            answer["ContentLength"],
            answer["ETag"],
            token,
            _checksums(answer),
            answer.get("ContentType"),
            answer.get("LastModified"),
            _checksum_type(answer),
            _encryption(answer),
        )

    async def read(self, key: str, start: int, end: int, etag: str, take: Take) -> None:
        span = {"Range": f"bytes={start}-{end - 1}", "IfMatch": etag}
        answer = await self._ask("get_object", key, self._parts, **span)
        body = answer["Body"].raw_stream
        with closing(body):
            _check_span(answer, start, end, etag)
            async with _translated("get_object", None):
                given = await pour(body, start, end - start, take)
        if given < end - start:
            raise StoreUnavailable(f"get_object: the bytes end at {start + given}, before {end}")

    async def parts_of(self, key: str) -> Sequence[StoredPart] | None:
        """HEAD comes first: a store that does not know GetObjectAttributes may answer it with the object itself."""
        try:
            count, first = await self._head_part(key, 1)
        except (StoreRefused, AccessDenied, CredentialsExpired) as error:
            if isinstance(error, CredentialsExpired) and error.status != HTTPStatus.BAD_REQUEST:
                raise
            return None  # 416 for an empty object, 400 or 501 for a parameter that is not known
        if count is None:
            return None
        if count == 1:
            return [first]
        try:
            parts = await self.list_stored_parts(key)
        except StoreError:  # it takes a permission of its own, and who does not know it may answer with the object
            parts = []
        if len(parts) == count:
            return parts
        gate = asyncio.Semaphore(CONTROL_CONNECTIONS)

        async def ask(number: int) -> StoredPart:
            async with gate:
                return (await self._head_part(key, number))[1]

        return [first, *await asyncio.gather(*map(ask, range(2, count + 1)))]

    async def _head_part(self, key: str, number: int) -> tuple[int | None, StoredPart]:
        """How many parts the object has, if the store says it, and one of them (S3: HeadObject with PartNumber)."""
        answer = await self._ask("head_object", key, PartNumber=number, ChecksumMode="ENABLED")
        return answer.get("PartsCount"), StoredPart(number, answer["ContentLength"])

    async def list_stored_parts(self, key: str) -> list[StoredPart]:
        """The parts with their checksums, as far as the store keeps them (S3: GetObjectAttributes, all pages)."""
        parts: list[StoredPart] = []
        page: dict[str, Any] = {"ObjectAttributes": ["ObjectParts"], "MaxParts": 1000}
        while True:
            answer = await self._ask("get_object_attributes", key, **page)
            listed = answer.get("ObjectParts", {})
            found = listed.get("Parts", ())
            parts += [StoredPart(part["PartNumber"], part["Size"], _checksums(part)) for part in found]
            if not listed.get("IsTruncated") or not found:
                return parts
            page["PartNumberMarker"] = listed["NextPartNumberMarker"]

    async def _ask(self, operation: str, key: str, client: Any = None, **arguments: Any) -> dict[str, Any]:
        """An operation on an object or parts that are there, with a customer's key if there is one for them. S3 answers
        400 to a key that it does not need; what was begun before there was a key is asked for without.
        """
        target = {"Key": self.prefix + key, **arguments}
        if secret := self._customer_key(key):
            try:
                return await self._call(operation, self.deadlines.control, client, **target, **secret)
            except StoreError as error:
                if error.status != HTTPStatus.BAD_REQUEST:
                    raise
        return await self._call(operation, self.deadlines.control, client, **target)

    async def _has_another_key(self, key: str) -> bool:
        """Whether a HEAD with a customer's key was forbidden because the object has another one. Without any key the
        answer is 403 again if the permission is missing, and 400 if it is the key.
        """
        if not self._customer_key(key):
            return False
        try:
            await self._call("head_object", self.deadlines.control, Key=self.prefix + key)
        except CredentialsExpired as error:
            return error.status == HTTPStatus.BAD_REQUEST
        except AccessDenied:
            pass
        return False

    async def _find(self, key: str) -> StoredObject | None:
        """What can be known of an object whose key we do not have: enough to replace it (S3: ListObjectsV2)."""
        page = {"Prefix": self.prefix + key, "MaxKeys": 1}
        answer = await self._call("list_objects_v2", self.deadlines.control, **page)
        for found in answer.get("Contents", ()):
            if found["Key"] == self.prefix + key:
                return StoredObject(key, found["Size"], found["ETag"], encryption=SSE_C)
        return None

    def _customer_key(self, key: str, begun: str | None = None) -> dict[str, str]:
        """The arguments for SSE-C, if this key has it. `begun` is the MD5 of the key that the upload began with.

        A store need not notice that parts come with several keys (SeaweedFS 4.48 makes an object of them that nobody
        can read), and an upload that was refused would be lost. So another key is like a missing permission: somebody
        can put the right one back while the bytes wait.
        """
        options = self.objects.of(key)
        if begun == NO_KEY:
            return {}
        if begun not in (None, options.sse_c_key_md5):
            raise AccessDenied(
                f"The upload of {key} was begun with another key for SSE-C than it has now (the MD5 was {begun}), and "
                "all its parts need the same one. Configure that one again, or cancel the upload."
            )
        return customer_key(options)

    async def delete(self, key: str) -> None:
        with suppress(NoSuchObject):
            await self._call("delete_object", self.deadlines.control, Key=self.prefix + key)

    async def purge(self, key: str) -> bool:
        """Remove the object and, where the bucket keeps versions, every trace of it. False: old versions stay, because
        their removal is denied (S3: DeleteObject, ListObjectVersions).
        """
        place = self.prefix + key
        answer = await self._call("delete_object", self.deadlines.control, Key=place)
        if "VersionId" not in answer:
            return True
        try:
            async for version_id in self._versions(place):
                await self._call("delete_object", self.deadlines.control, Key=place, VersionId=version_id)
        except AccessDenied:
            return False
        return True

    async def _versions(self, place: str) -> AsyncIterator[str]:
        """The ids of an object's versions and delete markers (S3: ListObjectVersions, which goes by prefix)."""
        page: dict[str, str | None] = {"Prefix": place}
        while True:
            answer = await self._call("list_object_versions", self.deadlines.control, **page)
            for found in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())):
                if found["Key"] == place:
                    yield found["VersionId"]
            if not answer.get("IsTruncated"):
                return
            page |= {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer.get("NextVersionIdMarker")}

    async def presign_get(self, key: str, seconds: int) -> str:
        target = {"Bucket": self.bucket, "Key": self.prefix + key}
        async with self._signed("presign", self.deadlines.control):  # credentials may have to be fetched
            url: str = await self._presigner.generate_presigned_url("get_object", Params=target, ExpiresIn=seconds)
            return url

    async def ready(self) -> None:
        await self.recognise()

    async def recognise(self) -> StoreProfile:
        """The profile that the bucket's answer and the endpoint's name speak for (S3: HeadBucket). Adopts nothing."""
        try:
            answer = await self._call("head_bucket", self.deadlines.control)
        except NoSuchObject as error:
            raise StoreUnavailable(f"There is no bucket {self.bucket!r}.", status=404, code="NoSuchBucket") from error
        server = answer["ResponseMetadata"]["HTTPHeaders"].get("server", "")
        return recognise(server, urlsplit(self._control.meta.endpoint_url).hostname or "")

    @property
    def partition(self) -> str:
        """The part of AWS that the region is in, as ARNs name it (`aws`, `aws-cn`)."""
        return str(self._control.meta.partition)

    async def bucket_setting(self, operation: str) -> Mapping[str, Any] | None:
        """What the bucket's owner has set, as S3 answers `operation` (`get_bucket_cors`, and its like); None: nothing.

        A store that knows no such setting raises `StoreRefused`.
        """
        try:
            answer = await self._call(operation, self.deadlines.control)
        except NoSuchObject as error:
            if error.code not in NOT_SET:
                raise
            return None
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    async def create_bucket(self) -> None:
        """Make the bucket; one that is there already, and ours, is as good (S3: CreateBucket). For stores of our own:
        it names no region.
        """
        with suppress(StoreConflict):
            await self._call("create_bucket", self.deadlines.control)

    async def checks_content_md5(self, key: str) -> bool:
        """Whether a wrong `Content-MD5` is refused. Writes an empty object if it is not (S3: PutObject)."""
        wrong = {"Body": b"", "ContentMD5": base64_of(bytes(16))}
        options = {**creation(self.objects.of(key), ObjectMeta(token="probe")), **self._customer_key(key)}  # noqa: S106
        try:
            await self._call("put_object", self.deadlines.control, Key=self.prefix + key, **wrong, **options)
        except BadDigest:
            return True
        except StoreRefused:
            return False
        return False

    async def _call(self, operation: str, seconds: float, client: Any = None, **arguments: Any) -> dict[str, Any]:
        """One attempt at an operation (botocore's name) within a deadline. Arguments that are None are left out."""
        given = {name: value for name, value in arguments.items() if value is not None}
        async with self._signed(operation, seconds):
            answer: dict[str, Any] = await getattr(client or self._control, operation)(Bucket=self.bucket, **given)
            return answer

    @asynccontextmanager
    async def _signed(self, operation: str, seconds: float) -> AsyncIterator[None]:
        """A call that needs credentials. If they are refused, the next one looks for others."""
        try:
            async with self._observed(operation), _translated(operation, seconds):
                yield
        except (AccessDenied, CredentialsExpired) as error:
            # A HEAD does not say what it is about: an access key may have been replaced, or an object's key is another.
            certain = isinstance(error, CredentialsExpired) and error.code != WORDLESS
            self._chain.forget(older_than=0 if certain else RENEW_SECONDS)
            raise

    @asynccontextmanager
    async def _observed(self, operation: str) -> AsyncIterator[None]:
        """A call that is told of when it ends. One that is cancelled has not."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        except StoreError as error:
            self._observe(operation, loop.time() - began, error)
            raise
        self._observe(operation, loop.time() - began, None)

    async def _send(
        self, operation: str, body: PartBody, checksum: Mapping[str, str], **arguments: Any
    ) -> dict[str, Any]:
        """An operation with a body, confirmed by ETag and checksum. `SpoolError` if the part file is to blame."""
        if body.checksum is Checksum.CRC64NVME and not checksum and self.profile.content_md5:
            checksum = {"ContentMD5": await asyncio.to_thread(content_md5, body)}
        with PartReader(body, compare=not checksum) as reader:
            try:
                answer = await self._call(
                    operation,
                    self.deadlines.of(body),
                    self._parts,
                    Body=reader,  # also for no bytes: an interrupted PUT of `bytes` would be repeated by aiohttp itself
                    **checksum,
                    **arguments,
                )
            except StoreError as error:
                raise reader.failure or error from error
        _field(answer, "ETag")
        _confirm(operation, answer, checksum)
        return answer

    def _refuse_unkept(self, meta: ObjectMeta) -> None:
        """SHA-256 is only sent on request, so there is no second best for it, as MD5 is for CRC64NVME."""
        if meta.checksum is Checksum.SHA256 and Checksum.SHA256 not in self.profile.checksums:
            raise StoreRefused("This store does not keep SHA-256 checksums.")

    def _condition(self, meta: ObjectMeta, *, honoured: bool) -> dict[str, str]:
        """A store that would ignore the condition would overwrite what it protects: fail closed."""
        if meta.if_none_match and not honoured:
            raise StoreRefused("This store does not honour If-None-Match.")
        return {"IfNoneMatch": "*"} if meta.if_none_match else {}

    def _checksum(self, checksum: Checksum, crc64nvme: int | None, sha256: bytes | None) -> dict[str, str]:
        """The checksum of a part or an object as S3 wants it, if this store takes its kind."""
        if checksum not in self.profile.checksums:
            return {}
        if checksum is Checksum.SHA256:
            return {"ChecksumSHA256": base64_of(sha256)} if sha256 is not None else {}
        return {"ChecksumCRC64NVME": base64_of(crc64nvme.to_bytes(8, "big"))} if crc64nvme is not None else {}

    def _completed(self, receipt: Receipt, checksum: Checksum) -> dict[str, Any]:
        # The checksums again: AWS wants them for composites, MinIO always.
        return {
            "PartNumber": receipt.number,
            "ETag": receipt.etag,
            **self._checksum(checksum, receipt.crc64nvme, receipt.sha256),
        }


@asynccontextmanager
async def _translated(operation: str, seconds: float | None) -> AsyncIterator[None]:
    """The edge: a deadline (None: what is called has its own), and foreign exceptions turned into `StoreError`s.
    Cancellation passes.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"{operation}: no answer within {seconds:.0f} s") from error
    except ClientError as error:
        answer = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        raise refusal(operation, status, str(answer.get("Code", "")), str(answer.get("Message", ""))) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AccessDenied(f"{operation}: {error}", code="NoCredentials") from error
    except CredentialRetrievalError as error:
        raise CredentialsExpired(f"{operation}: {error}") from error
    except ParamValidationError as error:
        raise StoreRefused(f"{operation}: {error}") from error
    except (BotoCoreError, aiohttp.ClientError, urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(f"{operation}: {error}") from error


def _field(answer: Mapping[str, Any], name: str) -> str:
    """A field without which an answer is none: what was cut off may have been an error."""
    if not answer.get(name):
        raise StoreUnavailable(f"The store's answer lacks {name}: it was cut short, or is not S3's.")
    return str(answer[name])


def _check_span(answer: Mapping[str, Any], start: int, end: int, etag: str) -> None:
    """That the answer is the span that was asked for, of the object that was meant: some stores ignore If-Match, and
    some Range.
    """
    if answer.get("ETag") != etag:
        raise StorePrecondition(f"get_object: the object's ETag is {answer.get('ETag')}, and no longer {etag}")
    given = answer.get("ContentRange", f"bytes 0-{answer['ContentLength'] - 1}/")
    if not given.startswith(f"bytes {start}-{end - 1}/"):
        raise StoreRefused(f"get_object: bytes {start}-{end - 1} were asked for, and {given} came")


def _confirm(what: str, answer: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    """Compare the checksums that the store names, if it names any, with ours. Raises `BadDigest`."""
    for name, value in ours.items():
        if answer.get(name, value) != value:
            raise BadDigest(f"{what}: the store has {name} {answer[name]}, and {value} was sent.")


def _listed(part: Mapping[str, Any]) -> Receipt:
    crc, sha256 = part.get("ChecksumCRC64NVME"), part.get("ChecksumSHA256")
    return Receipt(
        part["PartNumber"],
        part["Size"],
        part["ETag"],
        int.from_bytes(base64.b64decode(crc), "big") if crc else None,
        base64.b64decode(sha256) if sha256 else None,
    )


def _stored(key: str, size: int, meta: ObjectMeta, answer: Mapping[str, Any]) -> StoredObject:
    """The object that has just been put or completed, as the answer describes it."""
    return StoredObject(
        key,
        size,
        answer["ETag"],
        meta.token,
        _checksums(answer),
        meta.content_type,
        checksum_type=_checksum_type(answer),
        encryption=_encryption(answer),
    )


def _checksum_type(answer: Mapping[str, Any]) -> str | None:
    """As S3 names it. Not every store does; a composite shows itself by the number of its parts."""
    if said := answer.get("ChecksumType"):
        return str(said)
    values = _checksums(answer).values()
    if not values:
        return None
    return "COMPOSITE" if any("-" in value for value in values) else "FULL_OBJECT"


def _encryption(answer: Mapping[str, Any]) -> str | None:
    return SSE_C if answer.get("SSECustomerAlgorithm") else answer.get("ServerSideEncryption")


def _checksums(answer: Mapping[str, Any]) -> dict[str, str]:
    names = (name for name in answer if name.startswith("Checksum") and name != "ChecksumType")
    return {name.removeprefix("Checksum").lower(): answer[name] for name in names}
