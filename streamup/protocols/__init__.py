"""How clients ask: a request head becomes an intent, an outcome becomes a response head. Pure.

One file here is one wire protocol, an implementation of `UploadProtocol`. Adding a protocol is adding a file, its
examples in `tests/`, and its name in `PROTOCOLS` of server.py; no other room knows which one a client speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streamup.errors import UploadError
from streamup.stores import Checksum
from streamup.upload import Upload

Policy = Literal["reject", "append", "replace", "new"]
"""What a plain request does that meets an open upload of its key (http: `interrupted`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request without its body. `headers` ignore case. `content_length` None and not `chunked`: there is no body.

    `key` stands for the route `/objects/{key}`, `upload_id` for `/uploads/{id}`, neither for `/uploads`.
    """

    method: str
    key: str | None = None
    upload_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    content_length: int | None = None
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status, headers, and a JSON document for the body (None: no body)."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the client wants stored beside the bytes. `checksum` None: the server's default."""

    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    cache_control: str | None = None
    user: Mapping[str, str] = field(default_factory=dict)
    checksum: Checksum | None = None
    if_none_match: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyTerms:
    """What the client says of this request's body, before it comes.

    `content_length` None: chunked. `limit`: the position this append must not pass. `seals`: a clean end of this body
    is the end of the upload (with `limit`: if it reaches it). `length`: the declared total of the upload.
    """

    content_length: int | None
    seals: bool
    limit: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Begin an upload to `key`. `policy` None: the server's own; `respond_async`: do not wait for the store."""

    key: str
    body: BodyTerms
    description: Description
    policy: Policy | None = None
    respond_async: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Go on at `offset` of the open upload of `key`, or of `upload_id`. Stops a running writer.

    `create` is what a range from byte 0 means where the key has no open upload.
    """

    offset: int
    body: BodyTerms
    key: str | None = None
    upload_id: str | None = None
    create: Create | None = None
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
    """Ask without disturbing anybody: one upload, or what is under a key."""

    key: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download the stored object."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Give an upload up; by key also remove the object, where the server allows that."""

    key: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """Ask what this route can do (OPTIONS)."""


Intent = Create | Append | Inspect | Look | Fetch | Cancel | Discover


class UploadProtocol(Protocol):
    """One wire protocol. No I/O, no state."""

    def recognise(self, head: RequestHead) -> Intent | None:
        """What the request asks for; None if it is not of this protocol. Raises `UploadError`s."""
        ...

    def respond(self, intent: Create | Append | Inspect, upload: Upload) -> ResponseHead:
        """The answer to a request that was carried out, with the upload as it is now."""
        ...

    def refuse(self, intent: Intent | None, error: UploadError, /) -> Mapping[str, str]:
        """Headers that this protocol adds to a refusal (intent None: before the request was understood)."""
        ...
