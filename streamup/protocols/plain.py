"""Plain HTTP: PUT and POST of whole objects, `Content-Range` to go on, GET and HEAD to look. curl and ffmpeg speak it.

RFC 9110 for the methods and fields; `Content-Range` on PUT and `308` as Google Cloud Storage's resumable uploads use
them (and `curl -C` sends them). `Upload-Length` and, with a range, `Upload-Complete` are the IETF draft's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamup.errors import BadRequest, NotAllowed, OffsetMismatch, UploadExists, WriterStopped
from streamup.protocols import (
    Append,
    BodyTerms,
    Cancel,
    Create,
    Discover,
    Fetch,
    Inspect,
    Intent,
    Limits,
    Look,
    RequestHead,
    ResponseHead,
    Watch,
    fields,
)
from streamup.protocols.documents import object_document
from streamup.routes import OBJECT
from streamup.upload import State, Upload

_RANGE = re.compile(r"bytes (?:(\*)|(\d{1,15})-(?:(\d{1,15})|\*))/(?:(\d{1,15})|\*)", re.ASCII)


class Plain:
    """The protocol of clients that know no protocol. It speaks everything, so it is asked last."""

    response_fields = ("ETag", "Location", "Range", "Upload-Offset", "Upload-Complete", "Upload-Length")

    def __init__(self, _limits: Limits) -> None:
        """Plain HTTP has no words for limits."""

    def speaks(self, _head: RequestHead) -> bool:
        return True

    def understand(self, head: RequestHead) -> Intent:
        if head.key is None:
            return _look(head)
        match head.method:
            case "PUT" | "POST":
                return _send(head, head.key)
            case "HEAD":
                return Look(key=head.key)
            case "GET":
                return Fetch(key=head.key, as_json=fields.prefers_json(head))
            case "DELETE":
                return Cancel(key=head.key)
            case "OPTIONS":
                return Discover()
            case method:
                raise NotAllowed(f"{method} means nothing on an object. Use {OBJECT.allowed}.", OBJECT.allowed)

    def respond(
        self, _head: RequestHead, intent: Create | Append | Inspect | Cancel, upload: Upload | None
    ) -> ResponseHead:
        if upload is None or isinstance(intent, Cancel):
            return ResponseHead(204)
        match upload.state:
            case State.COMPLETE:
                status = 200 if isinstance(intent, Inspect) else 201
                return ResponseHead(status, fields.final(upload), object_document(upload))
            case State.SEALED | State.COMPLETING:
                applied = {} if isinstance(intent, Inspect) or not intent.respond_async else fields.PREFERENCE_APPLIED
                return ResponseHead(202, _progress(upload) | applied, object_document(upload))
        headers = _progress(upload) | {"Upload-Complete": "?0", "Cache-Control": "no-store"}
        if isinstance(intent, Create):
            return ResponseHead(201, headers)
        return ResponseHead(308, headers | _range(upload))

    def interim(self, _head: RequestHead, _upload: Upload, *, created: bool) -> None:
        """Nothing: who speaks no protocol expects none."""

    def refuse(self, _head: RequestHead, error: Exception, refusal: ResponseHead) -> ResponseHead:
        match error:
            case OffsetMismatch(expected=offset) | WriterStopped(offset=offset):
                return refusal.having({"Upload-Offset": str(offset), "Upload-Complete": "?0"})
            case UploadExists(offset=int(offset), upload_id=str(upload_id)):
                headers = {
                    "Upload-Offset": str(offset),
                    "Upload-Complete": "?0",
                    "Location": fields.location(upload_id),
                }
                return refusal.having(headers)
        return refusal

    def discover(self) -> Mapping[str, str]:
        return {}


# -- requests -----------------------------------------------------------------------------------------------------


def _look(head: RequestHead) -> Intent:
    """A request to `/uploads/{id}`, or to `/uploads` itself: what resumable protocols leave. And to the events."""
    allowed = head.route.allowed
    match head.method:
        case "GET" if head.events:
            return Watch(upload_id=head.upload_id)
        case "GET":
            return Look(upload_id=head.upload_id, before=fields.before(head))
        case "OPTIONS":
            return Discover()
        case method:
            raise NotAllowed(f"{method} means nothing here. Use {allowed}.", allowed)


def _send(head: RequestHead, key: str) -> Intent:
    """PUT or POST to `/objects/{key}`."""
    content_range = head.headers.get("Content-Range")
    if content_range is not None:
        return _send_range(head, key, content_range)
    if "Upload-Offset" in head.headers:
        raise BadRequest(
            "Here a body continues an upload by Content-Range (bytes N-*/*). Upload-Offset is for PATCH /uploads/{id}."
        )
    terms = BodyTerms(
        content_length=fields.framing(head, required=True),
        seals=True,
        length=_declared(head),
        digests=fields.content_digests(head),
        guards=fields.guards(head),
    )
    fields.check_length(terms, 0)
    return _create(head, key, terms)


def _declared(head: RequestHead) -> int | None:
    """`Upload-Length`. Here it is a guard; one that cannot be read would guard nothing."""
    length = fields.integer(head, "Upload-Length")
    if length is None and "Upload-Length" in head.headers:
        raise BadRequest("Upload-Length is the number of bytes that the object must have.")
    return length


def _complete(head: RequestHead) -> bool | None:
    """`Upload-Complete` beside a range. "This is not all" must not be overheard (law 7)."""
    complete = fields.boolean(head, "Upload-Complete")
    said = "Upload-Complete" in head.headers or "upload-complete" in head.query
    if "Upload-Incomplete" in head.headers or (said and complete is None):
        raise BadRequest("Whether this is all, a range says with Upload-Complete: ?1 (it is), ?0 (more will follow).")
    return complete


def _create(head: RequestHead, key: str, terms: BodyTerms) -> Create:
    return Create(
        key=key,
        body=terms,
        description=fields.described(head),
        policy=fields.policy(head),
        respond_async=fields.respond_async(head),
    )


def _send_range(head: RequestHead, key: str, content_range: str) -> Intent:
    """A body that says where it belongs, or an empty one that asks."""
    found = _RANGE.fullmatch(content_range.strip())
    if not found:
        raise BadRequest(
            "Content-Range is `bytes N-M/T`, `bytes N-M/*` or `bytes N-*/*` with a body, `bytes */*` without one."
        )
    star, first, last, total = found.groups()
    declared = _declared(head)
    length = int(total) if total else declared
    if declared not in {None, length}:
        raise BadRequest(f"Upload-Length says {declared}, Content-Range says {length}.")
    if star:
        return _ask(head, key, length)
    return _continue(head, key, int(first), int(last) if last else None, length)


def _ask(head: RequestHead, key: str, length: int | None) -> Intent:
    """`bytes */T`: where are we? With `Upload-Complete: ?1`: T was all."""
    if head.chunked or head.content_length:
        raise BadRequest("A request with `Content-Range: bytes */…` asks for the offset and has no body.")
    if not _complete(head):
        return Inspect(key=key, total=length)
    if length is None:
        raise BadRequest("To seal, name the end: `Content-Range: bytes */N` with N the bytes received.")
    terms = BodyTerms(content_length=0, seals=True, length=length, guards=fields.guards(head))
    return _append(head, key, length, terms)


def _continue(head: RequestHead, key: str, first: int, last: int | None, length: int | None) -> Append:
    content_length = fields.framing(head, required=True)
    limit = None if last is None else last + 1
    if limit is not None:
        if limit <= first:
            raise BadRequest(f"The range {first}-{last} ends before it begins.")
        if content_length not in {None, limit - first}:
            raise BadRequest(
                f"The range {first}-{last} has {limit - first} bytes, Content-Length says {content_length}."
            )
        if length is not None and limit > length:
            raise BadRequest(f"The range {first}-{last} does not fit into {length} bytes.")
    complete = _complete(head)
    seals = complete if complete is not None else limit in {None, length}
    terms = BodyTerms(
        content_length=content_length,
        seals=seals,
        limit=limit,
        length=length,
        digests=fields.content_digests(head),
        guards=fields.guards(head),
    )
    fields.check_length(terms, first)
    return _append(head, key, first, terms, _create(head, key, terms) if first == 0 else None)


def _append(head: RequestHead, key: str, offset: int, terms: BodyTerms, create: Create | None = None) -> Append:
    return Append(
        key=key,
        offset=offset,
        body=terms,
        create=create,
        if_none_match=fields.if_none_match(head),
        respond_async=fields.respond_async(head),
    )


# -- answers ------------------------------------------------------------------------------------------------------


def _range(upload: Upload) -> dict[str, str]:
    """308's way to say how much is there; no Range at all for nothing."""
    return {"Range": f"bytes=0-{upload.offset - 1}"} if upload.offset else {}


def _progress(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Location": fields.location(upload.id)} | fields.length(upload)
