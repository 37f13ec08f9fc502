"""What a credential allows, and the one decision whether a request may be done. Pure.

Who asks is found out before (`auth`), what for is an intent (`protocols`), and the key or the upload that it addresses
is known by then. So this comes before the body, before any writer is stopped and before the store is asked anything.

A refusal tells nothing of what is there: a key out of reach is 403 whether or not it is an object, an upload out of
reach is as unknown as one that never was.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamup.errors import BadRequest, Forbidden, NotFound
from streamup.keys import validate_key
from streamup.protocols import Append, BodyTerms, Cancel, Create, Discover, Fetch, Inspect, Intent, Look, Watch
from streamup.terms import too_large
from streamup.upload import Upload, smallest

UNTYPED = "application/octet-stream"
"""What a body without Content-Type is taken for (RFC 9110, 8.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one credential allows, and on whose behalf. None is no limit; sizes in bytes, times in unix seconds.

    `credential` names it in logs and for revocation, and opens nothing (None: nobody asked for one). It reaches one
    `key`, or what is below `prefix` (compared at `/`), or with neither every key. `methods` are those of HTTP, and none
    implies another. `max_bytes` bounds an upload over all its appends; `content_types` are media types, `video/*` among
    them. `expires` bounds the start of a request. `idle_seconds` and `min_rate` (bytes a second) are its own patience
    with a socket, in place of the server's.

    Raises `ValueError` for a key or a prefix that is none, and for both together.
    """

    subject: str
    credential: str | None = None
    key: str | None = None
    prefix: str | None = None
    methods: frozenset[str] | None = None
    max_bytes: int | None = None
    overwrite: bool = True
    content_types: tuple[str, ...] | None = None
    expires: float | None = None
    idle_seconds: float | None = None
    min_rate: float | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.prefix is not None:
            raise ValueError("A credential is for one key or for what is below a prefix, not for both.")
        for name, key in (("key", self.key), ("prefix", self.prefix and f"{self.prefix.removesuffix('/')}/-")):
            if key is not None:
                try:
                    validate_key(key, "")
                except BadRequest as error:
                    raise ValueError(f"{name}: {error.detail}") from None

    def allows(self, method: str) -> bool:
        return self.methods is None or method in self.methods

    def reaches(self, key: str) -> bool:
        """Whether it is for this key."""
        if self.key is not None:
            return key == self.key
        return self.prefix is None or key.startswith(self.prefix.removesuffix("/") + "/")

    def require_reach(self, key: str) -> None:
        """Raises `Forbidden`."""
        if not self.reaches(key):
            raise Forbidden("This credential is not for this key. Use a key that it is for, or another credential.")

    def owns(self, upload: Upload) -> bool:
        """Whether this is an upload of its subject, and one that it reaches."""
        return upload.subject == self.subject and self.reaches(upload.key)


def decide(grant: Grant, method: str, intent: Intent, upload: Upload | None, *, deletes: bool) -> None:
    """The decision for every route and method. Raises `Forbidden`, `NotFound`, `TooLarge`.

    `method` is the effective one. A creation has its key by now; `upload` is the one that the intent names, or the open
    one of its key that it goes on with, whoever's it is. `deletes`: DELETE of a key removes the object, too.
    """
    if isinstance(intent, Discover):  # the answer tells what this server can, and a preflight tells that to anybody
        return
    if not grant.allows(method):
        raise Forbidden(f"This credential does not allow {method}. Use another one.")
    own = upload if upload and grant.owns(upload) else None
    _require_place(grant, intent, own)
    if isinstance(intent, Cancel) and intent.key is not None and deletes and not grant.overwrite:
        raise Forbidden("This credential does not allow removing an object. DELETE /uploads/ID cancels an upload.")
    if isinstance(intent, Create | Append):
        _require_terms(grant, intent, own)


def unknown_upload(upload_id: str) -> NotFound:
    """The same for an upload that never was, one that is forgotten, and one of somebody else's."""
    return NotFound(
        f"There is no upload {upload_id[:80]}, or it has ended and is forgotten: that is a day later, or after 10,000 "
        "others."
    )


def _require_place(grant: Grant, intent: Intent, own: Upload | None) -> None:
    match intent:
        case Append() | Inspect() | Look() | Watch() | Cancel() if intent.upload_id is not None:
            if own is None:
                raise unknown_upload(intent.upload_id)
        case Create() | Append() | Inspect() | Look() | Fetch() | Cancel() if intent.key is not None:
            grant.require_reach(intent.key)
        case Look() | Watch():  # all that it owns
            pass
        case _:
            raise Forbidden("There is no rule for such a request, so it is not allowed.")


def _require_terms(grant: Grant, intent: Create | Append, own: Upload | None) -> None:
    """What is said of the body, or of the whole, before a byte of it comes."""
    create = intent if isinstance(intent, Create) else intent.create
    if create and not _allows_type(grant, create.description.content_type):
        raise Forbidden(f"This credential allows these content types only: {', '.join(grant.content_types or ())}.")
    start = intent.offset if isinstance(intent, Append) else own.received if own else 0
    limit = smallest(grant.max_bytes, own.max_bytes if own else None)
    if limit is not None and _end(intent.body, start) > limit:
        raise too_large(limit)


def _allows_type(grant: Grant, content_type: str | None) -> bool:
    """Of one that is written as HTTP has it (`fields.described_type`): browsers would believe the last of a list."""
    if grant.content_types is None:
        return True
    found = (content_type or UNTYPED).partition(";")[0].strip().lower()
    return any(one.lower() in {found, f"{found.partition('/')[0]}/*"} for one in grant.content_types)


def _end(body: BodyTerms, start: int) -> int:
    """How far the upload will reach, by what is declared."""
    return max(body.length or 0, body.limit or 0, start + (body.content_length or 0))
