"""Outcomes and errors as responses: one table error → status, and problem documents (RFC 9457).

What a protocol says in its own words is in protocols/; here is what suits them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from typing import Any

from aiohttp import web

from streamup import errors
from streamup.errors import NotAllowed, NotNow, SpoolError, StoreError, StreamupError, Unauthorized, UploadError
from streamup.protocols import ResponseHead
from streamup.stores import StoredObject

STATUS: Mapping[type[StreamupError], int] = {
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.TooOld: 403,
    errors.NotFound: 404,
    errors.NotAllowed: 405,
    errors.OffsetMismatch: 409,
    errors.UploadExists: 409,
    errors.EmptyBody: 409,
    errors.KeyConflict: 409,
    errors.AlreadyComplete: 409,
    errors.WriterStopped: 409,
    errors.Gone: 410,
    errors.LengthRequired: 411,
    errors.PreconditionFailed: 412,
    errors.UnsupportedVersion: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.UploadBusy: 423,
    errors.NotImplementedHere: 501,
    errors.NotNow: 503,
    errors.StoreError: 503,
    errors.SpoolError: 507,
    errors.CheckpointError: 507,
}
"""Error → status. The most specific class counts."""

RETRY_SECONDS = 5


def response(head: ResponseHead) -> web.Response:
    if head.document is None:
        return web.Response(status=head.status, headers=head.headers)
    return json(head.document, status=head.status, headers=head.headers)


def json(document: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str]) -> web.Response:
    """A JSON document that ends its line: most of those who read it sit at a terminal."""
    text = dumps(document) + "\n"
    return web.Response(status=status, headers=headers, text=text, content_type="application/json")


def stored_object(stored: StoredObject) -> web.Response:
    """What HEAD tells of an object."""
    headers = {"ETag": stored.etag, "Upload-Complete": "?1", "Upload-Offset": str(stored.size)}
    headers["Cache-Control"] = "no-store"
    headers |= {f"x-amz-checksum-{name}": value for name, value in stored.checksums.items()}
    told = {
        "Content-Type": stored.content_type,
        # Who verifies a download must know which of the values are made of the bytes, and how.
        "x-amz-checksum-type": stored.checksum_type,
        "x-amz-server-side-encryption": stored.encryption,
    }
    headers |= {name: value for name, value in told.items() if value}
    return web.Response(headers=headers | {"Content-Length": str(stored.size)})


def refusal(error: StreamupError, *, sends: bool, instead_of_continue: bool, by_script: bool = False) -> ResponseHead:
    """An error, for a client that `sends` a body or not; `instead_of_continue`: before it has begun to.

    `by_script`: a page asks, and asks its user for a token itself. To a challenge of Basic its browser would show a
    dialog of its own, during which the page is told nothing. (`fetch` can decline that, XMLHttpRequest cannot.)
    """
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if sends and isinstance(error, NotNow | StoreError):
        status = 503 if instead_of_continue else 507
    headers: dict[str, str] = {}
    if isinstance(error, NotAllowed):
        headers["Allow"] = error.allowed
    if isinstance(error, Unauthorized):
        basic = [] if by_script else ['Basic realm="streamup", charset="UTF-8"']
        headers["WWW-Authenticate"] = ", ".join([*basic, 'Bearer realm="streamup"'])
    return ResponseHead(status, headers, _problem(error, status))


def problem(head: ResponseHead) -> web.Response:
    """A refusal on the wire."""
    retry = {"Retry-After": str(RETRY_SECONDS)} if head.status in {423, 503, 507} else {}
    return web.Response(
        status=head.status,
        headers={**head.headers, **retry},
        body=dumps(head.document).encode() + b"\n",
        content_type="application/problem+json",
    )


def _problem(error: StreamupError, status: int) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "about:blank", "title": "The server could not do it", "status": status}
    if isinstance(error, UploadError):
        return document | {"title": error.title, "detail": error.detail} | error.numbers
    if isinstance(error, StoreError):
        return document | {"detail": "The object store does not answer as it should. Ask again later."}
    if isinstance(error, SpoolError):
        return document | {"detail": "The disk of the spool has a fault, and this upload fails with it. Begin it anew."}
    return document | {
        "detail": "The disk is full or has a fault, so nothing can be recorded now. What was announced is kept: ask "
        "later where to go on (HEAD)."
    }
