"""Where `get` and `verify` read an object: a store (`s3://…`), or a streamup server (`http://…/objects/…`).

Both look the same from here and raise `StoreError`s. The server answers a GET with a presigned URL of its store; the
credential goes to the server alone, and presigned URLs are asked for anew before they run out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Protocol, Self
from urllib.parse import unquote

import aiohttp
from yarl import URL

from streamup.errors import (
    AccessDenied,
    CredentialsExpired,
    NoSuchObject,
    StoreError,
    StorePrecondition,
    StoreRefused,
    StoreUnavailable,
)
from streamup.stores import SSE_C, ObjectStore, StoredObject, StoredPart, Take

FRESH_SECONDS = 1800
"""A presigned URL is used for this long: streamup signs them for an hour, and a span must end before that."""

CONNECT_SECONDS = 10
STALL_SECONDS = 30
"""Without a byte."""

PREFIX = "x-amz-checksum-"


class Source(Protocol):
    """One object. `name` is how people write it, without any credential."""

    name: str
    key: str

    async def head(self) -> StoredObject:
        """What the store says of it. Raises `NoSuchObject`."""
        ...

    async def read(self, start: int, end: int, etag: str, take: Take) -> None:
        """As `ObjectStore.read`."""
        ...

    async def parts(self) -> Sequence[StoredPart] | None:
        """As `ObjectStore.parts_of`."""
        ...


class StoreSource:
    """An object in a store."""

    def __init__(self, store: ObjectStore, key: str, name: str) -> None:
        self.name = name
        self.key = key
        self._store = store

    async def head(self) -> StoredObject:
        try:
            stored = await self._store.head(self.key)
        except AccessDenied as error:
            raise AccessDenied(self._denied(error), status=error.status, code=error.code) from error
        except CredentialsExpired as error:  # so does a HEAD without the object's key look
            if error.status != HTTPStatus.BAD_REQUEST or not await self._let_in():
                raise
            raise StoreRefused(self._locked()) from error
        except StoreUnavailable as error:
            if error.status is None:
                raise StoreUnavailable(f"{self.name} cannot be reached: {error}") from error
            raise
        if stored is None:
            raise NoSuchObject(f"There is no object {self.name}.")
        if stored.encryption == SSE_C and stored.modified is None:  # from a listing: the key is not the object's
            raise StoreRefused(self._locked())
        return stored

    async def _let_in(self) -> bool:
        """Whether the store takes the credentials."""
        try:
            await self._store.ready()
        except AccessDenied:  # it knows them
            return True
        except StoreError:
            return False
        return True

    def _locked(self) -> str:
        return f"{self.name} is under SSE-C. Give the key it was stored with: --sse-c-key, or STREAMUP_SSE_C_KEY_FILE."

    def _denied(self, error: AccessDenied) -> str:
        why = "There are no credentials for the store"
        if error.code != "NoCredentials":
            why = f"The store does not let these credentials in, or they lack s3:GetObject on {self.name} ({error})"
        return f"{why}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."

    async def read(self, start: int, end: int, etag: str, take: Take) -> None:
        await self._store.read(self.key, start, end, etag, take)

    async def parts(self) -> Sequence[StoredPart] | None:
        return await self._store.parts_of(self.key)


class ServerSource:
    """An object as a streamup server shows it. An async context manager."""

    def __init__(self, url: str, token: str | None = None, *, connections: int = 8) -> None:
        self._url = URL(url)
        self.name = str(self._url.with_user(None).with_query(None).with_fragment(None))
        self.key = unquote(self._url.raw_path.rpartition("/objects/")[2])
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connections = connections
        self._presigned: URL | None = None
        self._presigned_at = 0.0
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections + 1),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
            auto_decompress=False,  # stored bytes are wanted, whatever their Content-Encoding
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def head(self) -> StoredObject:
        async with self._request("HEAD", self._url, self._headers) as answer:
            if answer.headers.get("Upload-Complete") != "?0":
                return self._described(answer.headers)
            if "ETag" not in answer.headers:
                raise NoSuchObject(f"{self.name} is not complete: `streamup ls` shows its upload.")
        # An open upload to the same key hides all but the ETag. The store tells the rest, though no checksum.
        async with self._request("GET", await self._presign(), {}) as answer:
            return self._described(answer.headers)

    def _described(self, headers: Mapping[str, str]) -> StoredObject:
        checksums = {
            name.lower().removeprefix(PREFIX): value
            for name, value in headers.items()
            if name.lower().startswith(PREFIX) and name.lower() != f"{PREFIX}type"
        }
        try:
            return StoredObject(
                self.key,
                int(headers["Content-Length"]),
                headers["ETag"],
                checksums=checksums,
                checksum_type=headers.get(f"{PREFIX}type"),
                encryption=headers.get("x-amz-server-side-encryption"),
            )
        except (KeyError, ValueError) as error:
            raise StoreRefused(f"{self.name} answered what streamup does not: is this a streamup server?") from error

    async def read(self, start: int, end: int, etag: str, take: Take) -> None:
        span = {"Range": f"bytes={start}-{end - 1}", "If-Match": etag}
        async with self._request("GET", await self._presign(), span) as answer:
            if answer.headers.get("ETag") != etag:
                raise StorePrecondition(f"The object's ETag is {answer.headers.get('ETag')}, and no longer {etag}.")
            if answer.status != 206 and int(answer.headers.get("Content-Length", -1)) != end:  # noqa: PLR2004 - Partial
                raise StoreRefused(f"{self._presigned} ignores Range.")
            while start < end and (piece := await answer.content.readany()):
                take(memoryview(piece))
                start += len(piece)
        if start < end:
            raise StoreUnavailable(f"The bytes end at {start}, before {end}.")

    async def parts(self) -> None:
        """A presigned URL is for GET of the object, and nothing else."""

    async def _presign(self) -> URL:
        async with self._asking:
            if self._presigned is None or time.monotonic() - self._presigned_at > FRESH_SECONDS:
                asked = time.monotonic()
                async with self._request("GET", self._url, self._headers, redirected=True) as answer:
                    self._presigned, self._presigned_at = URL(answer.headers["Location"], encoded=True), asked
            return self._presigned

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], *, redirected: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, and the answer's head. What the network or the other side has against it is a `StoreError`.

        Redirects are not followed: the credential is for this server alone.
        """
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False) as answer:
                if (answer.status == 307) if redirected else (200 <= answer.status < 300):  # noqa: PLR2004
                    yield answer
                    return
                if url is self._presigned:
                    self._presigned = None  # it may have run out, or its keys were revoked: ask for another
                    if answer.status == 403:  # noqa: PLR2004 - of the store: the server has allowed it
                        words = await _words(answer)
                        raise StoreUnavailable(f"The store refuses the presigned URL: {words}", status=answer.status)
                raise await self._refusal(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"{url.origin()} cannot be reached: {error or 'no answer'}") from error

    async def _refusal(self, answer: aiohttp.ClientResponse) -> Exception:
        words = await _words(answer)
        match answer.status:
            case 401 | 403:
                return AccessDenied(f"{self.name}: {words}. Is the credential right (STREAMUP_TOKEN)?")
            case 404:
                return NoSuchObject(f"There is no object {self.name}.")
            case 412:
                return StorePrecondition(f"{self.name} is another object by now.")
            case 408 | 423 | 429 | 500 | 502 | 503 | 504:
                return StoreUnavailable(f"{self.name}: {words}", status=answer.status)
            case _:
                return StoreRefused(f"{self.name}: {words}")


async def _words(answer: aiohttp.ClientResponse) -> str:
    """What the other side says about it: a problem document's detail, or the bare status."""
    status = f"{answer.status} {answer.reason}"
    if answer.content_type != "application/problem+json":
        return status
    try:
        problem = await answer.json(content_type=None)
        return f"{status}: {problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return status
