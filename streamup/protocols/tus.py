"""tus 1.0.0 (https://tus.io/protocols/resumable-upload): core and the extensions in `EXTENSIONS`.

An upload ends where its length says. tus-js-client takes an offset that equals the length for success, so until the
object is there such an offset is told to nobody: 423 instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import quote

from streamup.digests import Digest
from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    DigestMismatch,
    NotAllowed,
    OffsetMismatch,
    TooLarge,
    UnsupportedMedia,
    UnsupportedVersion,
    UploadBusy,
    WriterStopped,
)
from streamup.protocols import (
    Append,
    BodyTerms,
    Cancel,
    Create,
    Description,
    Inspect,
    Intent,
    Limits,
    RequestHead,
    ResponseHead,
    fields,
)
from streamup.routes import UPLOAD
from streamup.upload import Upload

VERSION = "1.0.0"

EXTENSIONS = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination"

MEDIA_TYPE = "application/offset+octet-stream"

CHECKSUMS = ("sha1", "sha256", "crc32")
"""Algorithms of `Upload-Checksum`, by tus's own names, which are ours."""

MISMATCH = 460
"""Checksum Mismatch, a status of tus's own."""

_FIELDS = ("Upload-Defer-Length", "Upload-Metadata", "Upload-Checksum", "Upload-Concat")
"""Request fields that only tus has: who sends one without Tus-Resumable has left the version out."""

_FIELDS_OF_OTHERS = ("Upload-Draft-Interop-Version", "Upload-Complete", "Upload-Incomplete")
"""... unless it is one that speaks the IETF draft: tus-js-client sends metadata in that, too."""

_TOKEN = "!#$&'*+-.^_`|~"  # noqa: S105 - RFC 9110, 5.6.2, but for the %
"""What may stand in the name of a header, beside letters and digits."""


class Tus:
    """Creation on `/uploads` (or `/objects/{key}`, for that key); the upload resource is `/uploads/{id}`."""

    response_fields = (
        "Location",
        "Upload-Offset",
        "Upload-Length",
        "Upload-Defer-Length",
        "Upload-Metadata",
        "Upload-Expires",
        "Tus-Resumable",
        "Tus-Version",
        "Tus-Extension",
        "Tus-Max-Size",
        "Tus-Checksum-Algorithm",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def speaks(self, head: RequestHead) -> bool:
        if head.events:
            return False
        if head.method not in ({"POST"} if head.upload_id is None else {"HEAD", "PATCH", "POST", "DELETE"}):
            return False
        return "Tus-Resumable" in head.headers or _has_no_version(head)

    def understand(self, head: RequestHead) -> Intent:
        if head.headers.get("Tus-Resumable") != VERSION:
            raise UnsupportedVersion(f"Every tus request but OPTIONS says `Tus-Resumable: {VERSION}`.")
        if head.upload_id is None:
            return _create(head)
        match head.method:
            case "HEAD":
                return Inspect(upload_id=head.upload_id)
            case "PATCH":
                return _append(head)
            case "DELETE":
                return Cancel(upload_id=head.upload_id)
        raise NotAllowed(
            "POST means nothing on an upload, unless X-HTTP-Method-Override says PATCH.", UPLOAD.without("POST")
        )

    # -- answers ------------------------------------------------------------------------------------------------

    def respond(
        self, _head: RequestHead, intent: Create | Append | Inspect | Cancel, upload: Upload | None
    ) -> ResponseHead:
        headers = {"Tus-Resumable": VERSION}
        if upload is None or isinstance(intent, Cancel):
            return ResponseHead(204, headers)
        if (expires := upload.expires(self._limits.expire_seconds)) is not None:
            headers["Upload-Expires"] = formatdate(expires, usegmt=True)
        if not upload.unconfirmed:
            headers["Upload-Offset"] = str(upload.offset)
            headers |= fields.repr_digest(upload.digests)
        match intent:
            case Create() if upload.received or not upload.unconfirmed:  # one of no bytes needs no further request
                return ResponseHead(201, headers | {"Location": fields.location(upload.id)})
            case _ if upload.unconfirmed:
                raise UploadBusy(fields.UNCONFIRMED)
            case Append():
                return ResponseHead(204, headers)
        headers |= fields.length(upload) or {"Upload-Defer-Length": "1"}
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        return ResponseHead(200, headers | {"Cache-Control": "no-store"})

    def interim(self, _head: RequestHead, _upload: Upload, *, created: bool) -> None:
        """There are none in tus."""

    def refuse(self, head: RequestHead, error: Exception, refusal: ResponseHead) -> ResponseHead:
        headers, status = {"Tus-Resumable": VERSION}, refusal.status
        match error:
            case UnsupportedVersion():
                headers["Tus-Version"] = VERSION
            case OffsetMismatch(expected=offset) | WriterStopped(offset=offset):
                headers["Upload-Offset"] = str(offset)
            case AlreadyComplete(size=int(size)):
                headers["Upload-Offset"] = str(size)
            case DigestMismatch():
                status = MISMATCH
            case TooLarge(name=name, limit=limit):
                headers["Upload-Limit"] = f"{name}={limit}"
        status = fields.patient(head, status)
        return refusal.having(headers, status=status, document={"status": status})

    def discover(self) -> Mapping[str, str]:
        headers = {
            "Tus-Resumable": VERSION,
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        if self._limits.max_upload_bytes is not None:
            headers["Tus-Max-Size"] = str(self._limits.max_upload_bytes)
        return headers


# -- requests -----------------------------------------------------------------------------------------------------


def _has_no_version(head: RequestHead) -> bool:
    """Whether this is a tus client that forgot to say so, and nobody else."""
    if any(name in head.headers for name in _FIELDS_OF_OTHERS):
        return False
    creates = head.upload_id is None and head.key is None and "Upload-Length" in head.headers
    return creates or fields.media_type(head) == MEDIA_TYPE or any(name in head.headers for name in _FIELDS)


def _create(head: RequestHead) -> Create:
    """Extensions creation, creation-with-upload and creation-defer-length."""
    if "Upload-Concat" in head.headers:
        raise BadRequest("The extension concatenation is not offered here (Tus-Extension): send one upload.")
    length, deferred = _number(head, "Upload-Length"), head.headers.get("Upload-Defer-Length")
    if deferred not in {None, "1"}:
        raise BadRequest("Upload-Defer-Length is 1, or absent.")
    if (length is None) is (deferred is None):
        raise BadRequest("A new upload says either Upload-Length, or `Upload-Defer-Length: 1` if it is not known yet.")
    metadata = _metadata(head)
    on_uploads = head.key is None
    return Create(
        key=head.query.get("key", metadata.get("key")) if on_uploads else head.key,
        filename=metadata.get("filename") or metadata.get("name"),
        independent=on_uploads,
        body=_terms(head, 0, length),
        description=Description(
            content_type=fields.described_type("filetype", metadata.get("filetype") or None),
            user=_user_metadata(metadata),
            checksum=fields.checksum(head),
            if_none_match=fields.if_none_match(head),
            metadata=head.headers.get("Upload-Metadata"),
            wanted=fields.wanted_digests(head),
        ),
        policy=fields.policy(head),
    )


def _append(head: RequestHead) -> Append:
    if fields.media_type(head) != MEDIA_TYPE:
        raise UnsupportedMedia(f"The bytes to append have the Content-Type {MEDIA_TYPE}.")
    offset = _number(head, "Upload-Offset")
    if offset is None:
        raise BadRequest("An append names its place: Upload-Offset, as HEAD tells it.")
    return Append(
        upload_id=head.upload_id,
        offset=offset,
        body=_terms(head, offset, _number(head, "Upload-Length")),
        if_none_match=fields.if_none_match(head),
    )


def _terms(head: RequestHead, start: int, length: int | None) -> BodyTerms:
    content_length = fields.framing(head)
    if content_length != 0 and fields.media_type(head) != MEDIA_TYPE:
        raise UnsupportedMedia(f"A body has the Content-Type {MEDIA_TYPE}, also that of a creation.")
    terms = BodyTerms(
        content_length=content_length,
        seals=False,
        seals_at_length=True,
        length=length,
        digests=_digests(head),
        guards=fields.guards(head),
    )
    fields.check_length(terms, start)
    return terms


def _number(head: RequestHead, name: str) -> int | None:
    """A non-negative integer. tus has no structured fields: what is something else is wrong, not absent."""
    value = head.headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.removeprefix("-").isdecimal()):
        raise BadRequest(f"{name} is a number of bytes, not {value[:40]!r}.")
    return fields.in_range(name, value)


def _digests(head: RequestHead) -> tuple[Digest, ...]:
    """Extension checksum: `Upload-Checksum: sha1 BASE64`. HTTP's own field says the same."""
    digests = fields.content_digests(head)
    value = head.headers.get("Upload-Checksum")
    if value is None:
        return digests
    algorithm, _, text = value.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise BadRequest(f"Upload-Checksum is verified with {', '.join(CHECKSUMS)}, not with {algorithm[:40]!r}.")
    # One of another size is a digest, too: it matches nothing, and tus has its answer for that.
    return (Digest(algorithm, fields.base64("Upload-Checksum", text.strip())), *digests)


def _metadata(head: RequestHead) -> dict[str, str]:
    """`Upload-Metadata: name BASE64, flag`: names with values; a value may be empty, or left out."""
    text = head.headers.get("Upload-Metadata", "")
    metadata: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        name, _, value = pair.strip().partition(" ")
        if not name or not name.isascii() or name in metadata:
            raise BadRequest(
                "Upload-Metadata is `name BASE64` pairs, separated by commas; each name is ASCII, and once."
            )
        metadata[name] = fields.base64("Upload-Metadata", value.strip()).decode(errors="surrogateescape")
    return metadata


def _user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What of it is stored with the object: S3 has names like headers, in lower case, and ASCII values."""
    user: dict[str, str] = {}
    for name, value in metadata.items():
        stored = quote(name.lower(), safe=_TOKEN)
        if stored in user:
            raise BadRequest(f"Upload-Metadata has {stored!r} in several spellings; S3 knows lower case only.")
        if name not in {"key", "filetype"}:  # these two become something else
            user[stored] = _field_value(value)
    return fields.user_metadata(user)


def _field_value(value: str) -> str:
    """Text as the value of a header, which has no spaces at its ends."""
    within = value.strip(" ")
    start, _, end = value.partition(within) if within else ("", "", value)
    return "%20" * len(start) + quote(within, safe=" " + _PRINTABLE, errors="surrogateescape") + "%20" * len(end)


_PRINTABLE = "".join(map(chr, range(33, 127))).replace("%", "")
"""Visible ASCII stays as it is; what is not, and the percent sign itself, is percent-encoded."""
