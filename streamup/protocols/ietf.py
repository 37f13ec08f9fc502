"""IETF "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload): creation, append, offset, cancellation.

URLSession speaks it to any server, tus-js-client on request; each names the interop version of the draft it was built
from, and what differs between those is data here (`Draft`). A client of the RFC to come names none. Section numbers
are those of draft -12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamup.errors import (
    AlreadyComplete,
    BadRequest,
    LengthConflict,
    LengthExceeded,
    OffsetMismatch,
    TooLarge,
    UnsupportedMedia,
    UploadBusy,
    UploadExists,
    WriterStopped,
)
from streamup.protocols import (
    Append,
    BodyTerms,
    Cancel,
    Create,
    Inspect,
    Intent,
    Limits,
    RequestHead,
    ResponseHead,
    fields,
)
from streamup.protocols.documents import object_document
from streamup.upload import State, Upload

MEDIA_TYPE = "application/partial-upload"

PROBLEMS = "https://iana.org/assignments/http-problem-types#"

VERSION = "Upload-Draft-Interop-Version"

COMPLETENESS: Mapping[str, bool] = {"Upload-Complete": False, "Upload-Incomplete": True}
"""The fields that say whether this is all, and whether they say the inverse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """How one interop version differs. `number` None: no version is named, or one that is not implemented.

    `complete` is the field that says whether this is all, one of `COMPLETENESS`. `reports`: 104 with
    `Upload-Offset` during an append. `appended`: the status of an append after which more will come. `lifetime`: the
    limit's name. `media_type`: PATCH must have one. `offset_is_success`: its clients take an offset that equals the
    length for success, so they must not hear one before the object is there. `completed`: it has a problem type of
    its own for an append to a complete upload.
    """

    number: int | None
    complete: str = "Upload-Complete"
    reports: bool = True
    appended: int = 204
    lifetime: str = "max-age"
    media_type: bool = True
    offset_is_success: bool = False
    completed: bool = False


_EARLY = Draft(number=5, appended=201, lifetime="expires", media_type=False, offset_is_success=True)

NAMELESS = Draft(number=None)

DRAFTS: Mapping[int, Draft] = {
    3: replace(_EARLY, number=3, complete="Upload-Incomplete", reports=False),
    5: _EARLY,
    6: replace(_EARLY, number=6, media_type=True, completed=True),
    7: Draft(number=7, completed=True),
    8: Draft(number=8, completed=True),
    9: Draft(number=9),
}
"""-01 is 3, -03 is 5, -04 and -05 are 6, -06 to -08 are 7, -09 to -11 are 8, -12 is 9."""


class Ietf:
    """Creation on `/uploads` and `/objects/{key}`; what is done to `/uploads/{id}`, if no other protocol claims it."""

    response_fields = (
        "Location",
        "Upload-Offset",
        "Upload-Complete",
        "Upload-Incomplete",
        "Upload-Length",
        "Upload-Limit",
        VERSION,
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def speaks(self, head: RequestHead) -> bool:
        if head.events:
            return False
        if head.upload_id is not None:
            return head.method in {"HEAD", "PATCH", "POST", "DELETE"}
        if head.key is None:
            return head.method == "POST"
        creates = head.method in {"PUT", "POST"} and "Content-Range" not in head.headers
        # Also if it cannot be read: "this is not all" must not become a whole object (law 7).
        return creates and any(name in head.headers or name.lower() in head.query for name in COMPLETENESS)

    def understand(self, head: RequestHead) -> Intent:
        draft = _draft(head)
        if head.upload_id is None:
            return _create(head, draft)
        if head.method in {"PATCH", "POST"}:
            return _append(head, draft)
        if any(name in head.headers for name in ("Upload-Offset", *COMPLETENESS)):
            raise BadRequest(f"{head.method} asks; Upload-Offset and {draft.complete} belong into the answer (4.3.1).")
        return Inspect(upload_id=head.upload_id) if head.method == "HEAD" else Cancel(upload_id=head.upload_id)

    # -- answers ------------------------------------------------------------------------------------------------

    def respond(
        self, head: RequestHead, intent: Create | Append | Inspect | Cancel, upload: Upload | None
    ) -> ResponseHead:
        draft = _draft(head)
        if upload is None or isinstance(intent, Cancel):
            return ResponseHead(204, _version(draft))
        if upload.state is State.COMPLETE:
            return self._complete(draft, intent, upload)
        headers = self._progress(head, draft, upload)
        if draft.offset_is_success and upload.unconfirmed:
            if not isinstance(intent, Create) or not upload.received:  # one of no bytes needs no further request
                raise UploadBusy(fields.UNCONFIRMED)
            del headers["Upload-Offset"]
        if upload.state is State.OPEN:
            statuses = {Create: 201, Append: draft.appended, Inspect: 204}
            place = {"Location": fields.location(upload.id)} if isinstance(intent, Create) else {}
            return ResponseHead(statuses[type(intent)], headers | place)
        if isinstance(intent, Inspect):
            return ResponseHead(202, headers)
        applied = fields.PREFERENCE_APPLIED if intent.respond_async else {}
        return ResponseHead(202, headers | applied | {"Location": fields.location(upload.id)}, object_document(upload))

    def _complete(self, draft: Draft, intent: Create | Append | Inspect, upload: Upload) -> ResponseHead:
        """Append: the answer that the creation would have had; so often as somebody asks for it (4.4.2)."""
        headers = fields.final(upload) | _version(draft) | _completeness(draft, complete=True)
        if isinstance(intent, Inspect):
            del headers["Location"]
            headers |= fields.length(upload) | fields.limit(self._limits) | {"Cache-Control": "no-store"}
            return ResponseHead(200, headers)
        return ResponseHead(201, headers, object_document(upload))

    def _progress(self, head: RequestHead, draft: Draft, upload: Upload) -> dict[str, str]:
        now = head.arrived if head.method == "HEAD" else upload.touched or head.arrived
        return {
            "Upload-Offset": str(upload.offset),
            "Cache-Control": "no-store",
            **_completeness(draft, complete=False),
            **fields.length(upload),
            **fields.limit(self._limits, fields.remaining(upload, self._limits, now), name=draft.lifetime),
            **_version(draft),
        }

    def interim(self, head: RequestHead, upload: Upload, *, created: bool) -> ResponseHead | None:
        """104 (Upload Resumption Supported), for clients that have named their version only."""
        draft = _draft(head)
        if draft.number is None or not (created or draft.reports):
            return None
        if not created:
            if draft.offset_is_success and upload.unconfirmed:
                return None
            return ResponseHead(104, {"Upload-Offset": str(upload.offset)} | _version(draft))
        limit = fields.limit(self._limits, self._limits.expire_seconds, name=draft.lifetime)
        return ResponseHead(104, {"Location": fields.location(upload.id)} | limit | _version(draft))

    def refuse(self, head: RequestHead, error: Exception, refusal: ResponseHead) -> ResponseHead:
        draft = _draft(head)
        words = _words(head, draft, error)
        headers = {**_version(draft), **words.headers}
        if head.method in {"PUT", "POST", "PATCH"}:
            headers = _completeness(draft, complete=False) | headers
        status = words.status or refusal.status
        if draft.number is not None or head.method == "HEAD":  # who names no version may be curl --retry
            status = fields.patient(head, status)
        return refusal.having(headers, status=status, document={**(words.document or {}), "status": status})

    def discover(self) -> Mapping[str, str]:
        return fields.limit(self._limits, self._limits.expire_seconds) | {"Accept-Patch": MEDIA_TYPE}


# -- requests -----------------------------------------------------------------------------------------------------


def _draft(head: RequestHead) -> Draft:
    """What the client's version differs in. A field of the wrong type counts as absent."""
    number = fields.item(head, VERSION, "[0-9]{1,15}")
    return NAMELESS if number is None else DRAFTS.get(int(number), NAMELESS)


def _is_all(head: RequestHead, draft: Draft) -> bool | None:
    """Whether this request carries all that is still to come; None if it does not say.

    In the version's own field, or in the other one: "this is not all" must not be overlooked (law 7).
    """
    for name in sorted(COMPLETENESS, key=draft.complete.__ne__):
        value = fields.boolean(head, name)
        if value is not None:
            return value is not COMPLETENESS[name]
    return None


def _create(head: RequestHead, draft: Draft) -> Create:
    """4.2: any request with `Upload-Complete`."""
    complete = _is_all(head, draft)
    if complete is None:
        raise BadRequest(
            f"An upload is created with {draft.complete} (?1 if this body is all of it, ?0 if more will follow), or in "
            "tus 1.0 with Tus-Resumable."
        )
    if fields.integer(head, "Upload-Offset"):
        raise BadRequest("A new upload begins at byte 0. Upload-Offset is for PATCH /uploads/ID.")
    if draft.offset_is_success and not complete and fields.integer(head, "Upload-Length") == 0:
        raise BadRequest(
            f"An upload of 0 bytes is whole when it begins: create it with {draft.complete} that says so (in "
            "tus-js-client: uploadDataDuringCreation)."
        )
    description = fields.described(head)
    if fields.media_type(head) == MEDIA_TYPE:  # tus-js-client says so of a first body, too; it is not the object's
        description = replace(description, content_type=None)
    on_uploads = head.key is None
    return Create(
        key=head.query.get("key") if on_uploads else head.key,
        filename=fields.filename(head),
        independent=on_uploads,
        body=_terms(head, 0, seals=complete),
        description=description,
        policy=fields.policy(head),
        respond_async=fields.respond_async(head),
    )


def _append(head: RequestHead, draft: Draft) -> Append:
    """4.4: the body continues at `Upload-Offset`."""
    offset, complete = fields.integer(head, "Upload-Offset"), _is_all(head, draft)
    if complete is None and head.content_length == 0 and offset == fields.integer(head, "Upload-Length"):
        complete = True  # so tus-js-client ends a stream whose length it has only just learnt
    if offset is None or complete is None:
        raise BadRequest(
            "An append to an upload names its place: Upload-Offset (bytes received so far; HEAD tells it) and "
            f"{draft.complete} (?1 if this is the last one, ?0 if not)."
        )
    terms = _terms(head, offset, seals=complete)
    media_type = fields.media_type(head)
    # Unversioned clients may leave it out: they write their requests by hand.
    required = draft.media_type and head.method == "PATCH" and (draft.number is not None or media_type)
    if required and terms.content_length != 0 and media_type != MEDIA_TYPE:
        raise UnsupportedMedia(f"The bytes to append have the Content-Type {MEDIA_TYPE}, not {media_type or 'none'}.")
    return Append(
        upload_id=head.upload_id,
        offset=offset,
        body=terms,
        if_none_match=fields.if_none_match(head),
        respond_async=fields.respond_async(head),
    )


def _terms(head: RequestHead, start: int, *, seals: bool) -> BodyTerms:
    """Raises `LengthConflict`: 4.1.3, all indicators of the length must agree."""
    terms = BodyTerms(
        # An empty object is to be meant: who creates and seals in one says how long the body is.
        content_length=fields.framing(head, required=head.key is not None or (seals and head.upload_id is None)),
        seals=seals,
        declares=seals,
        length=fields.integer(head, "Upload-Length"),
        digests=fields.content_digests(head),
        guards=fields.guards(head),
    )
    if seals or start == 0:  # an append that goes beyond is a matter of its bytes: it invalidates the upload (4.4.2)
        fields.check_length(terms, start)
    return terms


# -- answers ------------------------------------------------------------------------------------------------------


def _version(draft: Draft) -> dict[str, str]:
    return {} if draft.number is None else {VERSION: str(draft.number)}


def _completeness(draft: Draft, *, complete: bool) -> dict[str, str]:
    """The draft's own field, and always the one by which newer clients know what happened."""
    return {"Upload-Complete": f"?{complete:d}", draft.complete: f"?{complete is not COMPLETENESS[draft.complete]:d}"}


def _words(head: RequestHead, draft: Draft, error: Exception) -> ResponseHead:  # noqa: PLR0911 - one for each error
    """What the draft adds to a refusal; status 0 leaves the one that there is."""
    match error:
        case OffsetMismatch(expected=offset):
            return ResponseHead(0, {"Upload-Offset": str(offset)}, {"type": PROBLEMS + "mismatching-upload-offset"})
        case WriterStopped(offset=offset):
            return ResponseHead(0, {"Upload-Offset": str(offset)})
        case UploadExists(offset=int(offset), upload_id=str(upload_id)):
            return ResponseHead(0, {"Upload-Offset": str(offset), "Location": fields.location(upload_id)})
        case LengthConflict() | LengthExceeded():
            return ResponseHead(0, {}, {"type": PROBLEMS + "inconsistent-upload-length"})
        case AlreadyComplete(size=int(size)):
            headers = {"Upload-Offset": str(size)} | _completeness(draft, complete=True)
            if draft.completed and head.method != "DELETE":
                return ResponseHead(400, headers, {"type": PROBLEMS + "completed-upload"})
            return ResponseHead(0, headers)
        case TooLarge(name=name, limit=limit):
            return ResponseHead(0, {"Upload-Limit": f"{name}={limit}"})
    return ResponseHead(0)
