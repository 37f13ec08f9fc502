"""A running server, as its clients see it: `streamup ls` and its like, `sending.py`, and programs of one's own.

    async with Client("http://127.0.0.1:8080", token) as client:
        upload_id = await client.create("movies/a.mp4")
        appended = await client.append(upload_id, 0, body)  # bytes, or an async iterator of them
        await client.append(upload_id, appended.offset, b"", last=True)

What goes wrong is a `ClientError`. When a connection breaks, `offset` tells where to go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from streamup.errors import StreamupError

Upload = Mapping[str, Any]
"""The JSON of one upload, or of one object, as the server writes it."""

Piece = bytes | memoryview

_UNFINISHED = ("open", "sealed", "completing")
_AGAIN = (408, 423, 429, 500, 502, 503, 504, 507)
"""Answers that mean "later", not "no". (409 means "not there": whoever appends asks for the offset.)"""

_NEEDS = "`ls` and `status` need GET, `finish` and `push` HEAD and PATCH as well, `push` POST, and `cancel` DELETE."
"""Methods that a credential must allow."""

# No total limit: a seal waits as long as the server waits for the store, and that is the server's to decide. Ten
# minutes without a byte are beyond any sensible --store-timeout.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_QUESTION = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
"""Of a GET, which waits for nothing but the server. Events come every 15 s, if only to say that there is none."""

_EVENT_BYTES = 1 << 20
"""Of one event at most: an upload is told in some kilobytes."""

_PARTIAL = "application/partial-upload"
_PROBLEM = "application/problem+json"


class ClientError(StreamupError):
    """The server refused, or could not be asked.

    `again`: nothing is lost, and the same may succeed later. `status`: the answer's, if there was one. `refused`: it
    was a problem document of streamup's, and not that of a proxy, of a Wi-Fi's login page or the like on the way.
    `offset`: the one that came with it (409: go on there). `retry_after`: seconds that the server wants to be left
    alone for.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool = False,
        status: int | None = None,
        refused: bool = False,
        offset: int | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.again = again
        self.status = status
        self.refused = refused
        self.offset = offset
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append has come to. Everything before `offset` is durable. `stored` is the object, after the last one, if
    the store has confirmed it.
    """

    offset: int
    stored: Upload | None = None


class Client:
    """The server at `url`, with an API key or a token. An async context manager.

    A `token` that can be called is asked for each request: an upload may last longer than one.
    """

    def __init__(self, url: str, token: str | Callable[[], str] | None = None) -> None:
        self._uploads = URL(url) / "uploads"
        self._objects = URL(url) / "objects"
        self._token = token

    async def __aenter__(self) -> Self:
        # aiohttp's limit of 100 would be taken by the events of as many uploads, which then wait for their appends.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    # -- sending ------------------------------------------------------------------------------------------------

    async def create(
        self,
        key: str,
        *,
        length: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """The id of a new upload to `key`, without a byte yet. Uploads to one key do not stop each other.

        `length` in bytes, if it is known: then it never completes with another number. `metadata` is stored with the
        object (`x-amz-meta-*`). Where the answer is lost, an upload without a byte is left, which expires.
        """
        headers = {f"x-amz-meta-{name}": value for name, value in (metadata or {}).items()}
        headers |= {"Upload-Complete": "?0", "Content-Length": "0"}
        if length is not None:
            headers["Upload-Length"] = str(length)
        if content_type is not None:
            headers["Content-Type"] = content_type
        async with self._request("POST", self._uploads.with_query(key=key), headers=headers) as response:
            upload_id = response.headers.get("Location", "").rpartition("/")[2]
            if not upload_id:
                raise _stranger(self._uploads)
            return upload_id

    async def offset(self, upload_id: str) -> int:
        """Where to go on: everything before it is durable. A writer that is still connected is stopped by this.

        Raises `ClientError` for an upload that has ended; where that has an object, its `status` is 409.
        """
        offset, complete = await self._position(upload_id)
        if complete:
            raise ClientError(f"Upload {upload_id} is complete: somebody has finished it.", status=409, refused=True)
        return offset

    async def _position(self, upload_id: str) -> tuple[int, bool]:
        """The offset, and whether the upload is complete."""
        async with self._request("HEAD", self._uploads / upload_id) as response:
            return _offset(response), response.headers.get("Upload-Complete") == "?1"

    async def append(
        self,
        upload_id: str,
        offset: int,
        body: Piece | AsyncIterator[Piece],
        *,
        last: bool = False,
        crc64nvme: int | None = None,
    ) -> Appended:
        """Send `body` from `offset` on. An iterator is sent as it comes (chunked), and its end is a clean one.

        `last` says that this is all: the upload completes, with no other bytes than those of the checksum of the whole,
        if that is given. The same last append again, after a lost answer, has the same outcome. While the store has
        not confirmed, everything is safe at the server, and completes by itself (`Appended.stored` is None).
        """
        headers = {"Upload-Offset": str(offset), "Upload-Complete": f"?{last:d}", "Content-Type": _PARTIAL}
        if crc64nvme is not None:
            headers["x-amz-checksum-crc64nvme"] = b64encode(crc64nvme.to_bytes(8, "big")).decode()
        if isinstance(body, bytes | memoryview):
            headers["Content-Length"] = str(len(body))
        data = (None if body == b"" else body) if isinstance(body, bytes | memoryview) else _heard(body)
        async with self._request("PATCH", self._uploads / upload_id, headers=headers, data=data) as response:
            if not last:
                return Appended(_offset(response))
            if response.status == 202:  # noqa: PLR2004 - Accepted: it completes by itself
                return Appended(_offset(response))
            stored: Upload = await response.json()
            return Appended(stored["size"], stored)

    async def look(self, upload_id: str) -> Upload:
        """The upload as it is. This never disturbs it."""
        async with self._request("GET", self._uploads / upload_id) as response:
            upload: Upload = await response.json()
            return upload

    async def etag(self, key: str) -> str | None:
        """That of the object which is stored under `key`; None if there is none."""
        async with self._request("HEAD", self._objects / key, missing_ok=True) as response:
            return response.headers.get("ETag")

    async def events(self, upload_id: str) -> AsyncIterator[Upload]:
        """The upload as it is, again whenever it has changed (about once a second), until it has ended.

        Its `offset` is durable, and rises because somebody listens here. Nobody is disturbed.
        """
        headers = {"Accept": "text/event-stream"}
        async with self._request("GET", self._uploads / upload_id / "events", headers=headers) as response:
            if response.content_type != "text/event-stream":
                raise _stranger(response.url)
            data: list[str] = []
            size = 0
            async for line in response.content:
                if (size := size + len(line)) > _EVENT_BYTES:
                    raise _stranger(response.url)
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                if name == "data":
                    data.append(value.removeprefix(" "))
                elif not line.strip():  # an empty line ends an event
                    if data:
                        yield json.loads("\n".join(data))
                    data, size = [], 0

    # -- looking, ending ----------------------------------------------------------------------------------------

    async def uploads(self) -> list[Upload]:
        """The uploads that the credential may see: those that live, oldest first, and the last that have ended."""
        listed: list[Upload] = []
        url = self._uploads
        while True:
            async with self._request("GET", url) as response:
                found = await response.json()
            listed = found["uploads"] + listed  # each list has what comes before the last one
            if not (place := found.get("next")):
                return listed
            url = self._uploads.with_query(before=place)

    async def find(self, name: str) -> Upload:
        """The upload with this id, or the one that goes to this key: the unfinished one, if there are several."""
        if re.fullmatch(r"[A-Za-z0-9_-]+", name):
            async with self._request("GET", self._uploads / name, missing_ok=True) as response:
                if response.status == 200:  # noqa: PLR2004 - 404 is the only other one
                    upload: Upload = await response.json()
                    return upload
        found = [upload for upload in await self.uploads() if upload["key"] == name]
        found = [upload for upload in found if upload["state"] in _UNFINISHED] or found
        if len(found) == 1:
            return await self.find(found[0]["id"])
        if not found:
            raise ClientError(f"No upload has the id or the key {name!r}. `streamup ls --all` shows them.")
        ids = ", ".join(upload["id"] for upload in found)
        raise ClientError(f"{len(found)} uploads go to the key {name!r}. Say which: {ids}.")

    async def finish(self, upload: Upload, *, force: bool = False) -> Upload | None:
        """Seal the upload where it is. The object; None if the store has not confirmed it yet.

        HEAD stops a writer, and so the offset it tells is the one to seal at: nothing can be added in between. That is
        also why an upload with a live writer is only sealed by `force`; and so is one that lacks bytes of its length.
        """
        if upload["state"] not in (*_UNFINISHED, "complete"):
            raise ClientError(
                f"Upload {upload['id']} is {upload['state']}: {upload.get('reason') or 'nothing is left'}."
            )
        if upload["state"] == "complete":
            return {"key": upload["key"], **(upload["object"] or {})}
        if upload["state"] == "open" and upload["writer"] and not force:
            raise ClientError(
                f"A client is sending to upload {upload['id']} now, and finishing would cut it off. Wait for it, or "
                "insist with --force."
            )
        if upload["length"] is not None and upload["received"] < upload["length"] and not force:
            raise ClientError(
                f"{upload['received']} of {upload['length']} bytes of upload {upload['id']} have arrived. Send the "
                "rest, or insist with --force."
            )
        offset, _ = await self._position(upload["id"])
        return (await self.append(upload["id"], offset, b"", last=True)).stored

    async def cancel(self, upload_id: str) -> None:
        """Give the upload up, with every byte of it."""
        async with self._request("DELETE", self._uploads / upload_id):
            pass

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Piece | AsyncIterator[Piece] | None = None,
        missing_ok: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. What the network or the server has against it is raised as a `ClientError`.

        Redirects are not followed: the credential is for this server alone.
        """
        try:
            timeout = _QUESTION if method == "GET" else _TIMEOUT
            token = self._token() if callable(self._token) else self._token
            said = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
            async with self._session.request(
                method, url, headers=said, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                if not (response.ok and response.status < 300) and not (missing_ok and response.status == 404):  # noqa: PLR2004
                    raise await _refusal(response, renewable=callable(self._token))
                yield response
        except aiohttp.ClientConnectorCertificateError as error:  # it is a ValueError, too
            raise ClientError(
                f"The certificate of {url.origin()} cannot be verified: {_why(error.certificate_error)}. If it is the "
                "right server, set SSL_CERT_FILE to a file with the certificate of its authority (PEM)."
            ) from error
        except (aiohttp.ContentTypeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise _stranger(url) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClientError(f"The server at {url.origin()} cannot be reached: {_words(error)}", again=True) from error


async def _heard(body: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """`body`, in aiohttp's task for it. How that ends, is told by the answer, too; nobody asks the task, and asyncio
    would complain of that.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker: this is a coroutine
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    async for piece in body:
        yield piece


def _why(error: Exception) -> str:
    """OpenSSL's words, without its codes and the line of its source."""
    return str(getattr(error, "verify_message", error)).rstrip(".")


def _words(error: Exception) -> str:
    """What the network has against it, as the system says it: aiohttp adds the address again, and Python's numbers."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        return f"{(cause.reason or 'TLS has failed').replace('_', ' ').lower()}. Does it speak HTTPS there?"
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, socket.gaierror):  # with numbers of its own
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(error) or type(error).__name__


def _stranger(url: URL) -> ClientError:
    return ClientError(f"{url} answered what streamup does not. Is this a streamup server?")


def _offset(response: aiohttp.ClientResponse) -> int:
    """Raises `ClientError` if there is none, and `ValueError` if it is none."""
    offset = response.headers.get("Upload-Offset")
    if offset is None:
        raise ClientError(f"{response.url} tells no Upload-Offset. Is this a streamup server?")
    return int(offset)


async def _refusal(response: aiohttp.ClientResponse, *, renewable: bool) -> ClientError:
    """The server's problem document in one line; the bare status where it sent none (it cannot, to a HEAD)."""
    problem: Any = None
    if refused := response.content_type == _PROBLEM:
        try:
            problem = await response.json(content_type=None)
        except ValueError:
            problem = None
    if not isinstance(problem, dict):
        problem = {}
    told = problem.get("detail") if refused else _not_ours(response)
    detail = _detail(response, told, renewable=renewable)
    words = [problem.get("title") or f"{response.status} {response.reason}", detail]
    offset, wait = response.headers.get("Upload-Offset", ""), response.headers.get("Retry-After", "")
    return ClientError(
        ": ".join(str(word) for word in words if word),
        again=response.status in _AGAIN,
        status=response.status,
        refused=refused,
        offset=int(offset) if offset.isdecimal() else None,
        retry_after=float(wait) if wait.isdecimal() else 0.0,
    )


def _not_ours(response: aiohttp.ClientResponse) -> str | None:
    """What to do about a refusal that is none of streamup's. (What means "later" may pass.)"""
    if "Location" in response.headers:  # redirects are not followed
        return f"It sends us to {response.headers['Location']}. Use that address, if it is the right one."
    if response.method == "HEAD" or response.status in _AGAIN:
        return None
    return "That is no answer of streamup's. Is the address right, or is a proxy on the way?"


def _detail(response: aiohttp.ClientResponse, detail: object, *, renewable: bool) -> object:
    """The server's words, except where they are of HTTP and who types a command needs others."""
    if response.status == 401 and "Authorization" not in response.request_info.headers:  # noqa: PLR2004 - Unauthorized
        return "Set STREAMUP_TOKEN or STREAMUP_TOKEN_FILE to an API key or a token."
    if response.status == 401:  # noqa: PLR2004 - as above
        renew = " Its file is read again each time: write a new one there." * renewable
        return f"{detail or 'The credential is not accepted.'}{renew}"
    if response.status == 403 and f"not allow {response.method}" in str(detail):  # noqa: PLR2004 - Forbidden
        return f"{detail} {_NEEDS}"
    return detail
