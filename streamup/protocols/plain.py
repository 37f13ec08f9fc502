"""Plain HTTP: PUT and POST of whole objects, `Content-Range` to go on, GET and HEAD to look. curl and ffmpeg speak it.

RFC 9110 for the methods and fields; `Content-Range` on PUT and `308` as Google Cloud Storage's resumable uploads use
them (and `curl -C` sends them); `Upload-Offset`, `Upload-Complete`, `Upload-Length` as in the IETF draft "Resumable
Uploads for HTTP". A field of the wrong structured type is ignored, as that draft says.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import get_args
from urllib.parse import quote

from streamup.errors import (
    BadRequest,
    LengthRequired,
    NotAllowed,
    NotImplementedHere,
    OffsetMismatch,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.protocols import (
    Append,
    BodyTerms,
    Cancel,
    Create,
    Description,
    Discover,
    Fetch,
    Inspect,
    Intent,
    Look,
    Policy,
    RequestHead,
    ResponseHead,
)
from streamup.stores import Checksum, Receipt
from streamup.upload import LIVE, State, Upload

OBJECT_METHODS = "PUT, POST, HEAD, GET, DELETE, OPTIONS"
UPLOADS_METHODS = "GET, OPTIONS"
UPLOAD_METHODS = "HEAD, GET, PATCH, POST, DELETE, OPTIONS"

MOST_KEY_BYTES = 1024
"""S3's limit for a key, prefix included."""

MOST_USER_METADATA_BYTES = 2048
"""S3's limit for all x-amz-meta-* names and values together."""

MOST_BYTES = 10**15 - 1
"""The largest Integer of a structured field (RFC 8941, 3.3.1); S3's largest object is a twentieth of it."""

GUARDS = ("repr-digest", "content-digest", "content-md5")
"""Digests that a client gives to be verified. Not verifying one that was given would be a false promise."""

PREFERENCE_APPLIED = {"Preference-Applied": "respond-async"}
"""RFC 7240, 3."""

_RANGE = re.compile(r"bytes (?:(\*)|(\d{1,15})-(?:(\d{1,15})|\*))/(?:(\d{1,15})|\*)", re.ASCII)

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")


class Plain:
    """The protocol of clients that know no protocol. It recognises everything, so it is asked last."""

    def recognise(self, head: RequestHead) -> Intent:
        if head.key is None:
            return _on_upload(head)
        match head.method:
            case "PUT" | "POST":
                return _send(head, head.key)
            case "HEAD":
                return Look(key=head.key)
            case "GET":
                return Fetch(key=head.key)
            case "DELETE":
                return Cancel(key=head.key)
            case "OPTIONS":
                return Discover()
            case method:
                raise NotAllowed(f"{method} means nothing on an object. Use {OBJECT_METHODS}.", OBJECT_METHODS)

    def respond(self, intent: Create | Append | Inspect, upload: Upload) -> ResponseHead:
        match upload.state:
            case State.COMPLETE:
                status = 200 if isinstance(intent, Inspect) else 201
                return ResponseHead(status, _final(upload), object_document(upload))
            case State.SEALED | State.COMPLETING:
                applied = {} if isinstance(intent, Inspect) or not intent.respond_async else PREFERENCE_APPLIED
                return ResponseHead(202, _progress(upload) | applied, object_document(upload))
        headers = _progress(upload) | {"Upload-Complete": "?0", "Cache-Control": "no-store"}
        match intent:
            case Create():
                return ResponseHead(201, headers)
            case Append(upload_id=str()) | Inspect(upload_id=str()):
                return ResponseHead(204, headers)
            case _:
                return ResponseHead(308, headers | _range(upload))

    def refuse(self, _intent: Intent | None, error: UploadError) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        match error:
            case OffsetMismatch(expected=offset) | WriterStopped(offset=offset):
                headers |= {"Upload-Offset": str(offset), "Upload-Complete": "?0"}
            case UploadExists(offset=int(offset), upload_id=str(upload_id)):
                headers |= {"Upload-Offset": str(offset), "Upload-Complete": "?0", "Location": f"/uploads/{upload_id}"}
        return headers


# -- requests -----------------------------------------------------------------------------------------------------


def _on_upload(head: RequestHead) -> Intent:
    """A request to `/uploads/{id}`, or to `/uploads` itself."""
    if head.upload_id is None and head.method not in {"GET", "OPTIONS"}:
        raise NotAllowed(f"{head.method} is for one upload: /uploads/ID. GET lists them all.", UPLOADS_METHODS)
    match head.method:
        case "GET":
            return Look(upload_id=head.upload_id)
        case "HEAD":
            return Inspect(upload_id=head.upload_id)
        case "DELETE":
            return Cancel(upload_id=head.upload_id)
        case "OPTIONS":
            return Discover()
        case "PATCH" | "POST":
            return _append_by_offset(head)
        case method:
            raise NotAllowed(f"{method} means nothing on an upload. Use {UPLOAD_METHODS}.", UPLOAD_METHODS)


def _append_by_offset(head: RequestHead) -> Append:
    """PATCH or POST to the upload resource: the body continues at `Upload-Offset`."""
    _refuse_guards(head)
    body_length = _framing(head)
    offset = integer(head.headers, "Upload-Offset")
    complete = boolean(head, "Upload-Complete")
    if offset is None or complete is None:
        raise BadRequest(
            "An append to an upload names its place: Upload-Offset (bytes received so far; HEAD tells it) and "
            "Upload-Complete (?1 if this is the last one, ?0 if not)."
        )
    terms = BodyTerms(content_length=body_length, seals=complete, length=integer(head.headers, "Upload-Length"))
    _check_length(terms, offset)
    return Append(upload_id=head.upload_id, offset=offset, body=terms, respond_async=_respond_async(head))


def _send(head: RequestHead, key: str) -> Intent:
    """PUT or POST to `/objects/{key}`."""
    _refuse_guards(head)
    content_range = head.headers.get("Content-Range")
    if content_range is not None:
        return _send_range(head, key, content_range)
    if "Upload-Offset" in head.headers:
        raise BadRequest(
            "Here a body continues an upload by Content-Range (bytes N-*/*). Upload-Offset is for PATCH /uploads/{id}."
        )
    complete = boolean(head, "Upload-Complete")
    terms = BodyTerms(
        content_length=_framing(head), seals=complete is not False, length=integer(head.headers, "Upload-Length")
    )
    _check_length(terms, 0)
    return _create(head, key, terms)


def _create(head: RequestHead, key: str, terms: BodyTerms) -> Create:
    return Create(
        key=key,
        body=terms,
        description=_description(head),
        policy=_policy(head),
        respond_async=_respond_async(head),
    )


def _send_range(head: RequestHead, key: str, content_range: str) -> Intent:
    """A body that says where it belongs, or an empty one that asks."""
    found = _RANGE.fullmatch(content_range.strip())
    if not found:
        raise BadRequest(
            "Content-Range is `bytes N-M/T`, `bytes N-M/*` or `bytes N-*/*` with a body, `bytes */*` without one."
        )
    star, first, last, total = found.groups()
    declared = integer(head.headers, "Upload-Length")
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
    if not boolean(head, "Upload-Complete"):
        return Inspect(key=key, total=length)
    if length is None:
        raise BadRequest("To seal, name the end: `Content-Range: bytes */N` with N the bytes received.")
    terms = BodyTerms(content_length=0, seals=True, length=length)
    return Append(key=key, offset=length, body=terms, respond_async=_respond_async(head))


def _continue(head: RequestHead, key: str, first: int, last: int | None, length: int | None) -> Append:
    content_length = _framing(head)
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
    complete = boolean(head, "Upload-Complete")
    seals = complete if complete is not None else limit in {None, length}
    terms = BodyTerms(content_length=content_length, seals=seals, limit=limit, length=length)
    _check_length(terms, first)
    create = _create(head, key, terms) if first == 0 else None
    return Append(key=key, offset=first, body=terms, create=create, respond_async=_respond_async(head))


def _framing(head: RequestHead) -> int | None:
    """Content-Length, None for a chunked body. Raises where neither says where the body ends."""
    coding = head.headers.get("Transfer-Encoding", "").strip().lower()
    if coding not in {"", "chunked"}:
        raise NotImplementedHere(f"Transfer-Encoding {coding!r} is not implemented. Use chunked.")
    if not head.chunked and head.content_length is None:
        raise LengthRequired("Send a Content-Length, or the body in chunks (Transfer-Encoding: chunked).")
    return None if head.chunked else head.content_length


def _check_length(terms: BodyTerms, start: int) -> None:
    """Lengths that contradict each other are refused before the body."""
    if terms.length is None or terms.content_length is None:
        return
    end = start + terms.content_length
    if end > terms.length or (terms.seals and end != terms.length):
        raise BadRequest(
            f"The body ends at byte {end}, and the length was declared as {terms.length}.",
            expected_length=terms.length,
            provided_length=end,
        )


def _refuse_guards(head: RequestHead) -> None:
    for name in head.headers:
        if name.lower() in GUARDS or name.lower().startswith("x-amz-checksum-"):
            raise NotImplementedHere(f"{name} cannot be verified by this version. Send the body without it.")
    if "aws-chunked" in head.headers.get("Content-Encoding", "").lower():
        raise NotImplementedHere("The coding aws-chunked belongs to S3's own clients. Send the bytes as they are.")


def _description(head: RequestHead) -> Description:
    return Description(
        content_type=_stored(head, "Content-Type"),
        content_encoding=_stored(head, "Content-Encoding"),
        content_disposition=_stored(head, "Content-Disposition"),
        cache_control=_stored(head, "Cache-Control"),
        user=_user_metadata(head.headers),
        checksum=_checksum(head),
        if_none_match=_if_none_match(head),
    )


def _stored(head: RequestHead, name: str) -> str | None:
    value = head.headers.get(name)
    if value is not None and not (value.isascii() and value.isprintable()):
        raise BadRequest(f"{name} must be printable ASCII (percent-encode what is not).")
    return value


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    user = {name.lower()[len(prefix) :]: value for name, value in headers.items() if name.lower().startswith(prefix)}
    for name, value in user.items():
        if not name or name.startswith("streamup-"):
            raise BadRequest(f"The metadata name {name!r} is not for clients.")
        if not (value.isascii() and value.isprintable()):
            raise BadRequest(f"x-amz-meta-{name} must be printable ASCII (percent-encode what is not).")
    size = sum(len(name) + len(value) for name, value in user.items())
    if size > MOST_USER_METADATA_BYTES:
        raise BadRequest(f"S3 stores {MOST_USER_METADATA_BYTES} bytes of x-amz-meta-*; these are {size}.", limit=2048)
    return user


def _checksum(head: RequestHead) -> Checksum | None:
    value = head.query.get("checksum")
    if value is None:
        return None
    try:
        return Checksum(value)
    except ValueError:
        raise BadRequest(f"?checksum={value} is unknown. Use {', '.join(Checksum)}.") from None


def _if_none_match(head: RequestHead) -> bool:
    value = head.headers.get("If-None-Match")
    if value not in {None, "*"}:
        raise BadRequest("Only `If-None-Match: *` (create, never replace) is supported.")
    if "If-Match" in head.headers:
        raise NotImplementedHere("If-Match is not supported. Use `If-None-Match: *` to create without replacing.")
    return value is not None


def _policy(head: RequestHead) -> Policy | None:
    value = head.query.get("interrupted")
    for policy in get_args(Policy):
        if value == policy:
            return policy  # type: ignore[no-any-return]  # get_args loses the literal types
    if value is not None:
        raise BadRequest(f"?interrupted={value} is unknown. Use {', '.join(get_args(Policy))}.")
    return None


def _respond_async(head: RequestHead) -> bool:
    """RFC 7240, 4.1."""
    preferences = head.headers.get("Prefer", "").lower().split(",")
    return any(preference.split(";")[0].strip() == "respond-async" for preference in preferences)


def integer(headers: Mapping[str, str], name: str) -> int | None:
    """A structured field that is a non-negative Integer; None if absent or of another type."""
    value = headers.get(name, "").split(";")[0].strip()
    if not re.fullmatch(r"-?[0-9]+", value):
        return None
    if len(value) > len(str(MOST_BYTES)) or int(value) < 0:
        raise BadRequest(f"{name} is out of range: {value[:40]}.", limit=MOST_BYTES)
    return int(value)


def boolean(head: RequestHead, name: str) -> bool | None:
    """A structured field that is a Boolean (`?1`, `?0`), or a query parameter (`1`, `0`) for who has no headers."""
    value = head.headers.get(name, "").split(";")[0].strip()
    if value in {"?1", "?0"}:
        return value == "?1"
    value = head.query.get(name.lower(), "")
    return value.lstrip("?") == "1" if value.lstrip("?") in {"0", "1"} else None


def validate_key(key: str, prefix: str) -> str:
    """A key that is safe below `prefix`, or `BadRequest` with the reason."""
    if not key:
        raise BadRequest("The key is empty: PUT /objects/some/name.")
    if _UNSAFE.search(key):
        raise BadRequest("A key is valid UTF-8 without control characters and without backslash.")
    if len((prefix + key).encode()) > MOST_KEY_BYTES:
        raise BadRequest(f"A key has at most {MOST_KEY_BYTES} bytes of UTF-8, the prefix included.", limit=1024)
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise BadRequest("A key has no empty segments, no `.` and no `..`.")
    return key


# -- answers ------------------------------------------------------------------------------------------------------


def _range(upload: Upload) -> dict[str, str]:
    """308's way to say how much is there; no Range at all for nothing."""
    return {"Range": f"bytes=0-{upload.offset - 1}"} if upload.offset else {}


def _progress(upload: Upload) -> dict[str, str]:
    headers = {"Upload-Offset": str(upload.offset), "Location": f"/uploads/{upload.id}"}
    if upload.length is not None:
        headers["Upload-Length"] = str(upload.length)
    return headers


def _final(upload: Upload) -> dict[str, str]:
    etag = upload.stored_object.etag if upload.stored_object else ""
    return {
        "ETag": etag,
        "Upload-Complete": "?1",
        "Upload-Offset": str(upload.size),
        "Location": f"/objects/{quote(upload.key)}",
    }


def object_document(upload: Upload) -> dict[str, object]:
    """The object, as the answer to the request that completed it."""
    stored = upload.stored_object
    return {
        "key": upload.key,
        "size": upload.size,
        "etag": stored.etag if stored else None,
        "checksum": dict(stored.checksums) if stored else None,
        "parts": len(upload.receipts) or (1 if upload.size else 0),
        "upload": upload.id,
    }


def upload_document(
    upload: Upload, *, writing: bool, expire_seconds: float, rate: float | None = None
) -> dict[str, object]:
    """The upload, as JSON for whoever looks. Sizes in bytes, times RFC 3339, `rate` in bytes a second."""
    return {
        "id": upload.id,
        "key": upload.key,
        "state": upload.state.value,
        "reason": upload.reason,
        "offset": upload.offset,
        "received": upload.received,
        "stored": upload.size if upload.state is State.COMPLETE else upload.stored,
        "length": next((n for n in (upload.size, upload.length, upload.seal_at) if n is not None), None),
        "writer": writing,
        "rate": rate,
        "created": _time(upload.created),
        "expires": _time(upload.expires(expire_seconds)),
        "ended": _time(upload.ended),
        "parts": [_part_document(receipt) for _, receipt in sorted(upload.receipts.items())],
        "object": object_document(upload) if upload.state not in LIVE and upload.stored_object else None,
    }


def _part_document(receipt: Receipt) -> dict[str, object]:
    document: dict[str, object] = {"number": receipt.number, "size": receipt.size, "etag": receipt.etag}
    if receipt.crc64nvme is not None:
        document["crc64nvme"] = b64encode(receipt.crc64nvme.to_bytes(8, "big")).decode()
    if receipt.sha256 is not None:
        document["sha256"] = b64encode(receipt.sha256).decode()
    return document


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
