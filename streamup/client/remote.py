"""A running server, as `streamup ls`, `status`, `finish` and `cancel` see it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from streamup.errors import StreamupError

Upload = Mapping[str, Any]
"""The JSON of one upload, as the server writes it."""

_UNFINISHED = ("open", "sealed", "completing")
_AGAIN = (423, 429, 500, 502, 503, 504)
"""Answers that mean "later", not "no"."""

_NEEDS = "`ls` and `status` need GET, `finish` HEAD and PATCH as well, and `cancel` DELETE."
"""Methods that a credential must allow."""

# No total limit: a seal waits as long as the server waits for the store, and that is the server's to decide. Ten
# minutes without a byte are beyond any sensible --store-timeout.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
_QUESTION = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
"""Of a GET, which waits for nothing but the server."""


class RemoteError(StreamupError):
    """The server refused, or could not be asked. `again`: nothing is lost, and the same command may succeed later."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Remote:
    """The server at `url`. An async context manager."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._uploads = URL(url) / "uploads"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def uploads(self) -> tuple[list[Upload], int]:
        """The newest uploads the credential may see, and how many others there are."""
        async with self._request("GET", self._uploads) as response:
            found = await response.json()
            return found["uploads"], found.get("left_out", 0)

    async def find(self, name: str) -> Upload:
        """The upload with this id, or the one that goes to this key: the unfinished one, if there are several."""
        if re.fullmatch(r"[A-Za-z0-9_-]+", name):
            async with self._request("GET", self._uploads / name, missing_ok=True) as response:
                if response.status == 200:  # noqa: PLR2004 - 404 is the only other one
                    upload: Upload = await response.json()
                    return upload
        listed, left_out = await self.uploads()
        found = [upload for upload in listed if upload["key"] == name]
        found = [upload for upload in found if upload["state"] in _UNFINISHED] or found
        if len(found) == 1:
            return await self.find(found[0]["id"])
        if not found and left_out:
            raise RemoteError(
                f"No upload has the id {name!r}, nor this key among the newest {len(listed)}. Name it by its id."
            )
        if not found:
            raise RemoteError(f"No upload has the id or the key {name!r}. `streamup ls --all` shows them.")
        ids = ", ".join(upload["id"] for upload in found)
        raise RemoteError(f"{len(found)} uploads go to the key {name!r}. Say which: {ids}.")

    async def finish(self, upload: Upload, *, force: bool = False) -> Upload | None:
        """Seal the upload where it is. The object; None if the store has not confirmed it yet.

        HEAD stops a writer, and so the offset it tells is the one to seal at: nothing can be added in between. That is
        also why an upload with a live writer is only sealed by `force`; and so is one that lacks bytes of its length.
        """
        if upload["state"] not in (*_UNFINISHED, "complete"):
            raise RemoteError(
                f"Upload {upload['id']} is {upload['state']}: {upload.get('reason') or 'nothing is left'}."
            )
        if upload["state"] == "complete":
            return {"key": upload["key"], **(upload["object"] or {})}
        if upload["state"] == "open" and upload["writer"] and not force:
            raise RemoteError(
                f"A client is sending to upload {upload['id']} now, and finishing would cut it off. Wait for it, or "
                "insist with --force."
            )
        if upload["length"] is not None and upload["received"] < upload["length"] and not force:
            raise RemoteError(
                f"{upload['received']} of {upload['length']} bytes of upload {upload['id']} have arrived. Send the "
                "rest, or insist with --force."
            )
        return await self._seal(upload["id"])

    async def _seal(self, upload_id: str) -> Upload | None:
        url = self._uploads / upload_id
        async with self._request("HEAD", url) as response:
            offset = response.headers.get("Upload-Offset")
        if offset is None:
            raise RemoteError(f"{url} tells no Upload-Offset. Is this a streamup server?")
        seal = {
            "Upload-Offset": offset,
            "Upload-Complete": "?1",
            "Content-Type": "application/partial-upload",
            "Content-Length": "0",
        }
        async with self._request("PATCH", url, headers=seal) as response:
            if response.status == 202:  # noqa: PLR2004 - Accepted: it completes by itself
                return None
            stored: Upload = await response.json()
            return stored

    async def cancel(self, upload_id: str) -> None:
        """Give the upload up, with every byte of it."""
        async with self._request("DELETE", self._uploads / upload_id):
            pass

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, missing_ok: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. What the network or the server has against it is raised as a `RemoteError`.

        Redirects are not followed: the credential is for this server alone.
        """
        try:
            timeout = _QUESTION if method == "GET" else _TIMEOUT
            async with self._session.request(
                method, url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if not (response.ok and response.status < 300) and not (missing_ok and response.status == 404):  # noqa: PLR2004
                    raise await _refusal(response)
                yield response
        except aiohttp.ClientConnectorCertificateError as error:  # it is a ValueError, too
            raise RemoteError(
                f"The certificate of {url.origin()} cannot be verified: {_why(error.certificate_error)}. If it is the "
                "right server, set SSL_CERT_FILE to a file with the certificate of its authority (PEM)."
            ) from error
        except (aiohttp.ContentTypeError, KeyError, TypeError, ValueError) as error:
            raise RemoteError(f"{url} answered what streamup does not. Is this a streamup server?") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RemoteError(f"The server at {url.origin()} cannot be reached: {error}", again=True) from error


def _why(error: Exception) -> str:
    """OpenSSL's words, without its codes and the line of its source."""
    return str(getattr(error, "verify_message", error)).rstrip(".")


async def _refusal(response: aiohttp.ClientResponse) -> RemoteError:
    """The server's problem document in one line; the bare status where it sent none (it cannot, to a HEAD)."""
    problem: Any = None
    if response.content_type == "application/problem+json":
        try:
            problem = await response.json(content_type=None)
        except ValueError:
            problem = None
    if not isinstance(problem, dict):
        problem = {}
    words = [problem.get("title") or f"{response.status} {response.reason}", _detail(response, problem.get("detail"))]
    return RemoteError(": ".join(str(word) for word in words if word), again=response.status in _AGAIN)


def _detail(response: aiohttp.ClientResponse, detail: object) -> object:
    """The server's words, except where they are of HTTP and who types a command needs others."""
    if response.status == 401 and "Authorization" not in response.request_info.headers:  # noqa: PLR2004 - Unauthorized
        return "Set STREAMUP_TOKEN or STREAMUP_TOKEN_FILE to an API key or a token."
    if response.status == 403 and f"not allow {response.method}" in str(detail):  # noqa: PLR2004 - Forbidden
        return f"{detail} {_NEEDS}"
    return detail
