"""How clients ask: a request head becomes an intent, an outcome becomes a response head. Pure.

One file here is one wire protocol, an implementation of `UploadProtocol`. Adding a protocol is adding a file, its
examples in `tests/`, its name in `PROTOCOLS` of server.py, and its fields in openapi.py; no other room knows which one
a client speaks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streamup.digests import Digest
from streamup.routes import EVENTS, OBJECT, UPLOAD, UPLOAD_EVENTS, UPLOADS, Route
from streamup.stores import Checksum
from streamup.upload import Upload

Policy = Literal["reject", "append", "replace", "new"]
"""What a plain request does that meets an open upload of its key (http: `interrupted`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request without its body. `headers` ignore case. `content_length` None and not `chunked`: there is no body.

    `key` stands for the route `/objects/{key}`, `upload_id` for `/uploads/{id}`, neither for `/uploads`; `events` for
    the events of one upload, or of all. `arrived` is when, in unix seconds. `version` is that of HTTP/1. `url_token` is
    the credential in the URL; `query` has none.
    """

    method: str
    key: str | None = None
    upload_id: str | None = None
    events: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)
    content_length: int | None = None
    chunked: bool = False
    arrived: float = 0.0
    version: tuple[int, int] = (1, 1)
    url_token: str = field(default="", repr=False)

    @property
    def route(self) -> Route:
        """The one that this request came by."""
        if self.key is not None:
            return OBJECT
        if self.events:
            return EVENTS if self.upload_id is None else UPLOAD_EVENTS
        return UPLOADS if self.upload_id is None else UPLOAD


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status, headers, and a JSON document for the body (None: no body)."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, object] | None = None

    def having(
        self, headers: Mapping[str, str], *, status: int | None = None, document: Mapping[str, object] | None = None
    ) -> ResponseHead:
        """With more headers, perhaps with another status, and with more members in the document."""
        members = self.document and {**self.document, **(document or {})}
        return ResponseHead(status or self.status, {**self.headers, **headers}, members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the client wants stored beside the bytes. `checksum` None: the server's default.

    `metadata` is the client's own text about the upload, told again as it came. `wanted`: algorithms of digests that it
    wants to be told.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    cache_control: str | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    checksum: Checksum | None = None
    if_none_match: bool = False
    metadata: str | None = None
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyTerms:
    """What the client says of this request's body, before it comes.

    `content_length` None: chunked. `limit`: the position this append must not pass. `length`: the declared total of
    the upload. `seals`: a clean end of this body is the end of the upload (with `limit`: if it reaches it); it
    `declares` that end by its Content-Length, and no later request may move it. `seals_at_length`: the upload ends
    where its length says, in this body or a later one. `digests`: of this body, whose bytes are provisional until they
    match. `guards`: digests of the whole, which is not completed unless they match.
    """

    content_length: int | None
    seals: bool
    declares: bool = False
    seals_at_length: bool = False
    limit: int | None = None
    length: int | None = None
    digests: tuple[Digest, ...] = ()
    guards: tuple[Digest, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether this body is all of an upload that begins with it."""
        if self.seals_at_length:
            return self.content_length is not None and self.content_length == self.length
        return self.seals


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Begin an upload to `key`; without one, to a key that is made of its id and the `filename`. The id is not the
    client's to choose: the door gives it.

    `policy`: what happens to an open upload of the same key, None for the server's own. `independent`: nothing, there
    may be several. `respond_async`: do not wait for the store.
    """

    key: str | None
    body: BodyTerms
    description: Description
    filename: str | None = None
    upload_id: str | None = None
    independent: bool = False
    policy: Policy | None = None
    respond_async: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Go on at `offset` of the open upload of `key`, or of `upload_id`. Stops a running writer.

    `create` is what a range from byte 0 means where the key has no open upload. `if_none_match`: the upload replaces no
    object from now on.
    """

    offset: int
    body: BodyTerms
    key: str | None = None
    upload_id: str | None = None
    create: Create | None = None
    if_none_match: bool = False
    respond_async: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Ask for the offset. Stops a running writer, so that the answer is the place to go on from.

    `total` is the length the client believes in, if it said so.
    """

    key: str | None = None
    upload_id: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Ask without disturbing anybody: one upload, what is under a key, or a list (`before`: of what began before that
    time, and of what began then of the ids before that one).
    """

    key: str | None = None
    upload_id: str | None = None
    before: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Look for as long as the connection lasts: at one upload, or (None) at all that are one's own."""

    upload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download the stored object. `as_json`: be told where it is, and not redirected there."""

    key: str
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Give an upload up; by key also remove the object, where the server allows that."""

    key: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """Ask what this route can do (OPTIONS)."""


Intent = Create | Append | Inspect | Look | Watch | Fetch | Cancel | Discover


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator allows, as the protocols tell it."""

    max_upload_bytes: int | None
    expire_seconds: float


class UploadProtocol(Protocol):
    """One wire protocol. No I/O, no state."""

    @property
    def response_fields(self) -> Collection[str]:
        """What pages of other origins may read of its answers."""
        ...

    def speaks(self, head: RequestHead) -> bool:
        """Whether the request is of this protocol."""
        ...

    def understand(self, head: RequestHead) -> Intent:
        """What the request asks for. Raises `UploadError`s."""
        ...

    def respond(
        self, head: RequestHead, intent: Create | Append | Inspect | Cancel, upload: Upload | None
    ) -> ResponseHead:
        """The answer to a request that was carried out, with the upload as it is now (None: there is none any more)."""
        ...

    def interim(self, head: RequestHead, upload: Upload, *, created: bool) -> ResponseHead | None:
        """What is said while the body comes: of an upload that was `created` for it, or of its progress. Or nothing."""
        ...

    def refuse(self, head: RequestHead, error: Exception, refusal: ResponseHead) -> ResponseHead:
        """The refusal in this protocol's words, from the one that suits them all. `error` may be a fault of ours."""
        ...

    def discover(self) -> Mapping[str, str]:
        """Fields of an answer to OPTIONS."""
        ...
