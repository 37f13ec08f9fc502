"""Everything that can go wrong, by name.

```
StreamupError
├── ConfigError                 refused before anything starts; the message says what to do
├── UploadError                 a request about an upload cannot be granted
│   ├── BadRequest              the request contradicts itself or the protocol
│   │   ├── LengthConflict      two lengths that contradict each other
│   │   ├── LengthExceeded      bytes beyond the known length; the upload fails
│   │   └── DigestMismatch      the bytes are not those of the client's digest; they are not kept
│   ├── LengthRequired          a body without Content-Length or chunked framing
│   ├── UnsupportedMedia        a form around the bytes, or not the content type that the protocol has for them
│   ├── UnsupportedVersion      a version of a protocol that is not spoken here
│   ├── NotFound                no such upload, no such object
│   ├── Gone                    the upload was cancelled, has expired, or failed
│   ├── OffsetMismatch          the client's offset is not ours; carries ours
│   ├── UploadExists            a plain request met an open upload of its key; carries the ways on
│   ├── EmptyBody               an empty chunked body would have replaced something
│   ├── AlreadyComplete         it is an object by now; nothing can be added or given up
│   ├── UploadBusy              sealed or completing: the outcome is not known yet
│   ├── WriterStopped           this append ended early; what arrived is kept
│   ├── PreconditionFailed      If-None-Match: the object exists
│   ├── KeyConflict             somebody else wrote the key while this upload was completing
│   ├── TooLarge                over a limit; carries the limit
│   ├── Unauthorized            no credential, or a wrong one
│   ├── Forbidden               a right credential that does not allow this, or a foreign page
│   ├── NotAllowed              the method does not exist on this route, or is switched off
│   ├── NotImplementedHere      what this server or its store cannot do, or cannot verify
│   ├── TooOld                  the upload takes no more bytes; it can be ended or cancelled
│   └── NotNow                  a limit is reached: the same request may be let in later
│       ├── SpoolFull           no room for another upload in the spool or on its disk
│       ├── SpoolShareTaken     ... or in the subject's share of the spool
│       ├── TooManyUploads      as many uploads are open as may be
│       ├── UploadShareTaken    ... or as many of the subject's
│       ├── TooManyConnections  as many clients are connected as may be
│       ├── RequestShareTaken   as many requests of the subject are being answered as may be
│       ├── TooManyStreams      as many watch events as may, of the subject or altogether
│       └── TooManyAppends      the subject appends more often than may be
├── StoreError                  the object store; translated where it enters (stores/)
│   ├── StoreUnavailable        no answer, or one that says "later": ask again
│   │   ├── StoreThrottled      ... and send less
│   │   ├── CredentialsExpired  ... with fresh credentials
│   │   └── AccessDenied        ... once somebody has mended the permission
│   └── StoreRefused            a definite no; asking again changes nothing
│       ├── NoSuchMultipart     the store does not know this multipart upload (any more)
│       ├── NoSuchObject        nothing under this key
│       ├── InvalidPart         a part is not the one the store has
│       ├── BadDigest           what arrived at the store is not what was sent
│       ├── StorePrecondition   412: the condition on the key does not hold
│       └── StoreConflict       409: another request to the key got in between
├── TransferError               `get` or `verify` came to no good end, and another attempt would not either
│   ├── Interrupted             ... but the same command goes on
│   └── Different               the bytes are not the object's
├── CheckpointError             a commit did not happen; memory must be read again
│   └── CheckpointDelayed       ... because the disk is full or the machine busy: it passes
├── StateDirectoryError         the state directory is of another version, or damaged
│   └── StateDirectoryBusy      another process has it
├── UploadFailed                an upload cannot become its object; it fails closed, for the reason given
└── SpoolError                  a part file could not be written, synced or read: fail closed
```

`UploadError`s carry numbers as attributes and a `detail` that says what to do; which HTTP status each becomes is one
table in `answers.py`. Foreign exceptions never pass a room's edge.
"""

from __future__ import annotations


class StreamupError(Exception):
    """Base of all errors of this package."""


class ConfigError(StreamupError):
    """The configuration is refused. The message says which option, why, and what to do."""


class UploadError(StreamupError):
    """A request about an upload cannot be granted.

    `detail` tells the client what to do about it; `numbers` go beside it into the problem document, by the
    names the client sees (`expected-offset`, `limit`, ...).
    """

    title = "The request cannot be granted"

    def __init__(self, detail: str, **numbers: int | str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.numbers = {name.replace("_", "-"): value for name, value in numbers.items()}


class BadRequest(UploadError):
    title = "The request is not valid"


class LengthConflict(BadRequest):
    title = "The lengths contradict each other"


class LengthExceeded(BadRequest):
    title = "More bytes than the length that was declared"


class DigestMismatch(BadRequest):
    """The bytes are not the ones that the client's digest was made of. Digests are base64."""

    title = "The bytes do not match their digest"

    def __init__(self, algorithm: str, expected: str, found: str, consequence: str) -> None:
        self.difference = f"the {algorithm} of the bytes that came is {found}, and {expected} was sent with them"
        super().__init__(
            f"{self.difference[:1].upper()}{self.difference[1:]}. {consequence}",
            expected_digest=expected,
            found_digest=found,
        )


class UnsupportedMedia(UploadError):
    title = "Not a content type for such a body"


class UnsupportedVersion(UploadError):
    title = "The protocol's version is not spoken here"


class LengthRequired(UploadError):
    title = "The body has no framing"


class NotFound(UploadError):
    title = "Not found"


class Gone(UploadError):
    title = "The upload has ended without an object"


class OffsetMismatch(UploadError):
    """The offset in the request is not the number of bytes received."""

    title = "The offset does not match"

    def __init__(self, expected: int, provided: int, detail: str = "") -> None:
        super().__init__(
            detail or f"Continue at byte {expected}: that is what has been received.",
            expected_offset=expected,
            provided_offset=provided,
        )
        self.expected = expected


class UploadExists(UploadError):
    """An open upload has this key, and the policy `interrupted` is `reject` (offset None: it is somebody else's)."""

    title = "An unfinished upload has this key"

    def __init__(self, detail: str, upload_id: str | None = None, offset: int | None = None) -> None:
        super().__init__(detail)
        self.upload_id = upload_id
        self.offset = offset
        if offset is not None:
            self.numbers["expected-offset"] = offset


class EmptyBody(UploadError):
    title = "An empty body replaces nothing"


class AlreadyComplete(UploadError):
    """`size` is that of the object."""

    title = "The upload is complete"

    def __init__(self, detail: str, size: int | None = None) -> None:
        super().__init__(detail)
        self.size = size


class UploadBusy(UploadError):
    title = "The upload is being completed"


class WriterStopped(UploadError):
    """The append ended before its body did. What arrived is kept; `offset` is where to go on."""

    title = "The upload was interrupted"

    def __init__(self, detail: str, offset: int) -> None:
        super().__init__(detail, expected_offset=offset)
        self.offset = offset


class PreconditionFailed(UploadError):
    title = "The object exists"


class KeyConflict(UploadError):
    title = "The key was written by somebody else"


class TooLarge(UploadError):
    """`limit` bytes are allowed. `name` is the limit's, as clients know it (`Upload-Limit`)."""

    title = "Over a limit"

    def __init__(self, detail: str, *, limit: int, name: str = "max-size") -> None:
        super().__init__(detail, limit=limit)
        self.limit = limit
        self.name = name


class Unauthorized(UploadError):
    title = "A credential is needed"


class Forbidden(UploadError):
    title = "Not allowed"


class NotAllowed(UploadError):
    """`allowed` are the methods that do mean something here (RFC 9110, 15.5.6)."""

    title = "Method not allowed"

    def __init__(self, detail: str, allowed: str) -> None:
        super().__init__(detail)
        self.allowed = allowed


class NotImplementedHere(UploadError):
    title = "Not implemented"


class TooOld(UploadError):
    title = "The upload is too old for more bytes"


class NotNow(UploadError):
    """A limit is reached, and later it will not be. Nothing of the request was taken."""

    title = "A limit is reached"


class SpoolFull(NotNow):
    title = "No room for another upload now"


class SpoolShareTaken(NotNow):
    title = "No room for another of your uploads now"


class TooManyUploads(NotNow):
    title = "Too many uploads are open"


class UploadShareTaken(NotNow):
    title = "Too many of your uploads are open"


class TooManyConnections(NotNow):
    title = "Too many clients are connected"


class RequestShareTaken(NotNow):
    title = "Too many of your requests at once"


class TooManyStreams(NotNow):
    title = "Too many are watching"


class TooManyAppends(NotNow):
    title = "Appends come too fast"


class StoreError(StreamupError):
    """The object store did not do what it was asked. `status` and `code` are the store's own words, if any."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class StoreUnavailable(StoreError):
    """No answer, a broken one, or one that says "later". Whether the request took effect is not known."""


class StoreThrottled(StoreUnavailable):
    """503 SlowDown, 429: ask again, and ask for less."""


class CredentialsExpired(StoreUnavailable):
    """The session's credentials have run out; the next attempt fetches fresh ones."""


class AccessDenied(StoreUnavailable):
    """The store says 403. Held, not given up: a permission can be mended while the bytes wait in the spool."""


class StoreRefused(StoreError):
    """A definite no."""


class NoSuchMultipart(StoreRefused):
    """The multipart upload is unknown: aborted, expired, or already completed."""


class NoSuchObject(StoreRefused):
    """Nothing under this key."""


class InvalidPart(StoreRefused):
    """A part in the list is not the one the store has (InvalidPart, InvalidPartOrder, EntityTooSmall)."""


class BadDigest(StoreRefused):
    """The bytes that arrived do not match the checksum that came with them."""


class StorePrecondition(StoreRefused):
    """412: If-None-Match or If-Match does not hold."""


class StoreConflict(StoreRefused):
    """409: a conditional request lost a race."""


class TransferError(StreamupError):
    """A download or a comparison came to no good end. The message says what to do, if anything."""


class Interrupted(TransferError):
    """Not now. Nothing that arrived is lost, and the same command goes on."""


class Different(TransferError):
    """The bytes are not the object's. The message says in what."""


class CheckpointError(StreamupError):
    """A transaction did not commit. What memory holds may not be true any more."""


class CheckpointDelayed(CheckpointError):
    """The disk is full, or no file can be opened. Nothing of the transaction has happened; later the same one may."""


class StateDirectoryError(StreamupError):
    """The state directory cannot be used. The message says what to do."""


class StateDirectoryBusy(StateDirectoryError):
    """Another process has it."""


class UploadFailed(StreamupError):
    """An upload cannot become its object. The message is the reason with which it ends."""


class SpoolError(StreamupError):
    """A part file could not be written, synced or read as it must be."""
