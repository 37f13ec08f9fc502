"""What can be asked of the public listener, as OpenAPI 3.1: one document, for other people's tools and our tests. Pure.

It is written by hand, and held to the truth: the suite compares almost every answer it gets with it, so a status, a
field or a member that is missing here fails the test that met it (tests/documented.py).

A field that several requests or answers share is described once (`PARAMETERS`, `HEADERS`, `SCHEMAS`, `PROBLEMS`), and
the operations name it. What is on every answer (see `DESCRIPTION`) is not named again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from streamup import routes
from streamup.digests import SIZES
from streamup.keys import MOST_KEY_BYTES
from streamup.protocols import Policy
from streamup.protocols.fields import MOST_BYTES
from streamup.stores import Checksum
from streamup.upload import State

Json = dict[str, Any]

DESCRIPTION = """\
Takes bodies of unknown length and makes objects of them; no byte that was received is lost, and no truncated object
is presented as whole.

Three protocols meet on the same uploads: plain HTTP (`PUT /objects/{key}`), the IETF's "Resumable Uploads for HTTP"
(`Upload-Complete`), and tus 1.0 (`Tus-Resumable`). A body comes by `Content-Length` or `Transfer-Encoding: chunked`.

Every refusal is `application/problem+json`, and its `detail` says what to do. A request of a web page (`Origin`) gets
403 unless the page is this server's own or the operator has named its origin; the answers then have
`Access-Control-Allow-Origin` and `Access-Control-Expose-Headers`. Metadata of an object may be given in any number of
`x-amz-meta-NAME` fields. Cookies are neither read nor set. A server that was started without credentials asks for none.
"""


# -- what a request may have ------------------------------------------------------------------------------------------


def _parameter(name: str, place: str, description: str, schema: Json, example: Any = None) -> Json:
    required = {"required": True} if place == "path" else {}
    shown = {} if example is None else {"example": example}
    return {"name": name, "in": place, "description": description, "schema": schema} | required | shown


def _text(pattern: str = "") -> Json:
    return {"type": "string"} | ({"pattern": f"^{pattern}$"} if pattern else {})


def _one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


_BYTES: Json = {"type": "integer", "minimum": 0, "maximum": MOST_BYTES}
_BASE64 = "[A-Za-z0-9+/]+={0,2}"
_DIGEST = rf"sha-(256|512)=:{_BASE64}:(, *sha-(256|512)=:{_BASE64}:)*"
_EXAMPLE_DIGEST = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"

_KEY = (
    f"UTF-8, at most {MOST_KEY_BYTES} bytes, percent-encoded. Slashes may stand as they are. "
    "No empty, `.` or `..` segments."
)

KEY_TO_CREATE = _parameter(
    "key", "query", f"The key of the object; else one is made of the upload's id and the file name. {_KEY}", _text()
)

PARAMETERS: Mapping[str, Json] = {"key-to-create": KEY_TO_CREATE} | {
    parameter["name"]: parameter
    for parameter in (
        _parameter("key", "path", f"The object's key. {_KEY}", {"type": "string", "minLength": 1}, "videos/talk.mp4"),
        _parameter("id", "path", "The upload's id, as `Location` tells it.", _text("[^/]+"), "0f9d8c7b6a5f4e3d"),
        _parameter("name", "path", "One of the page's files.", _text("[^/]+"), "page.js"),
        # of the query
        _parameter(
            "interrupted",
            "query",
            "What happens if an upload of this key is open: refuse with 409, go on where it is, begin anew in its "
            "place, or take a numbered name beside it. The server's default is the operator's.",
            _one_of(*get_args(Policy)),
        ),
        _parameter(
            "checksum", "query", "What the store shall keep to prove the bytes.", _one_of(*Checksum), Checksum.SHA256
        ),
        _parameter(
            "upload-complete", "query", "As the field `Upload-Complete`, for who has no headers.", _one_of("0", "1")
        ),
        _parameter("before", "query", "`next` of a list: those that come before it.", _text(r"\d+\.\d+-[0-9A-Za-z]+")),
        _parameter("upload-incomplete", "query", "Its inverse, of interop version 3.", _one_of("0", "1")),
        # where a body belongs, and whether it is all
        _parameter(
            "Content-Range",
            "header",
            "Continue at byte N: `bytes N-M/T`, `bytes N-M/*` (leaves it open), `bytes N-*/*`. Without a body, "
            "`bytes */*` or `bytes */T` asks for the offset.",
            _text(r"bytes (\*|\d{1,15}-(\d{1,15}|\*))/(\d{1,15}|\*)"),
            "bytes 0-*/*",
        ),
        _parameter("Upload-Offset", "header", "Where this body begins: the bytes received so far.", _BYTES, 0),
        _parameter("Upload-Length", "header", "The bytes that the object must have.", _BYTES),
        _parameter(
            "Upload-Complete",
            "header",
            "`?1`: this body is the last. `?0`: keep the upload open after it.",
            _one_of("?0", "?1"),
            "?1",
        ),
        _parameter("Upload-Incomplete", "header", "The inverse, of interop version 3.", _one_of("?0", "?1")),
        _parameter(
            "Upload-Draft-Interop-Version",
            "header",
            "The version of the IETF draft: 3, 5, 6, 7, 8 or 9. Who names one gets 104 responses.",
            _text(),
            "8",
        ),
        # what the bytes must be
        _parameter("Repr-Digest", "header", "Of the whole object (RFC 9530).", _text(_DIGEST), _EXAMPLE_DIGEST),
        _parameter(
            "Content-Digest", "header", "Of this body, which is kept only if it matches (RFC 9530).", _text(_DIGEST)
        ),
        _parameter("Content-MD5", "header", "Of the whole object, in base64.", _text(_BASE64)),
        *(
            _parameter(f"x-amz-checksum-{name}", "header", "Of the whole object, in base64.", _text(_BASE64))
            for name in SIZES
        ),
        _parameter("Want-Repr-Digest", "header", "Tell the object's digest when it is complete.", _text(), "sha-256=1"),
        # what is stored with the object
        _parameter("Content-Encoding", "header", "Stored with the object, never decoded.", _text("[ -~]*")),
        _parameter(
            "Content-Disposition",
            "header",
            "Stored with the object; on `/uploads` its `filename` may become part of the key.",
            _text("[ -~]*"),
            'attachment; filename="talk.mp4"',
        ),
        _parameter("Cache-Control", "header", "Stored with the object.", _text("[ -~]*"), "no-store"),
        _parameter("If-None-Match", "header", "`*`: create, and never replace an object.", _one_of("*")),
        # how to answer
        _parameter("Prefer", "header", "`respond-async`: 202 as soon as every byte is durable.", _text()),
        _parameter("Expect", "header", "Be refused before the body is sent.", _one_of("100-continue")),
        # tus
        _parameter("Tus-Resumable", "header", "The version of tus.", _one_of("1.0.0"), "1.0.0"),
        _parameter("Upload-Defer-Length", "header", "tus: the length is not known yet.", _one_of("1")),
        _parameter(
            "Upload-Metadata",
            "header",
            "tus: names with base64 values. `key`, `filename` or `name`, and `filetype` have a meaning; the others "
            "are stored with the object.",
            _text("[ -~]*"),
            "filename dGFsay5tcDQ=,filetype dmlkZW8vbXA0",
        ),
        _parameter(
            "Upload-Checksum",
            "header",
            "tus: of this body, which is kept only if it matches.",
            _text(rf"(sha1|sha256|crc32) {_BASE64}"),
        ),
        _parameter("Upload-Concat", "header", "tus: refused, because the extension is not offered.", _text("[ -~]*")),
        _parameter(
            "X-HTTP-Method-Override",
            "header",
            "What is meant, where only POST gets through.",
            _one_of("PATCH", "DELETE", "HEAD", "GET", "OPTIONS"),
        ),
        # before the request proper
        _parameter("Access-Control-Request-Method", "header", "Of a preflight.", _text(), "PUT"),
        _parameter("Access-Control-Request-Headers", "header", "Of a preflight.", _text(), "upload-complete"),
    )
}

_DIGESTS = ("Repr-Digest", "Content-Digest", "Content-MD5", *(f"x-amz-checksum-{name}" for name in SIZES))
_STORED = ("Content-Encoding", "Content-Disposition", "Cache-Control", "If-None-Match", "Want-Repr-Digest", "checksum")
_IETF = ("Upload-Complete", "Upload-Incomplete", "Upload-Draft-Interop-Version")
_TUS = ("Tus-Resumable", "Upload-Defer-Length", "Upload-Checksum")
_BODY = ("Upload-Offset", "Upload-Length", *_IETF, *_DIGESTS, "Prefer", "Expect", *_TUS)
_CREATION = (
    *_BODY,
    *_STORED,
    "upload-complete",
    "upload-incomplete",
    "interrupted",
    "Upload-Metadata",
    "Upload-Concat",
)
_APPEND = (*_BODY, "If-None-Match", "upload-complete", "upload-incomplete")
_RESUME = ("Upload-Draft-Interop-Version", "Tus-Resumable")
_PREFLIGHT = ("Access-Control-Request-Method", "Access-Control-Request-Headers")


# -- what an answer may have ------------------------------------------------------------------------------------------


def _header(description: str, example: str, schema: Json | None = None) -> Json:
    return {"description": description, "schema": schema or _text(), "example": example}


HEADERS: Mapping[str, Json] = {
    "Accept-Patch": _header("What PATCH takes.", "application/partial-upload"),
    "Access-Control-Allow-Headers": _header("The fields that the preflight asked for.", "upload-complete"),
    "Access-Control-Allow-Methods": _header("The methods of this route.", "PUT, POST, HEAD"),
    "Access-Control-Max-Age": _header("Seconds that the preflight holds.", "86400"),
    "Allow": _header("The methods that mean something here.", "POST, GET, OPTIONS"),
    "Cache-Control": _header("Nothing that changes is to be kept.", "no-store"),
    "Content-Security-Policy": _header("What the page may load: its own files.", "default-src 'none'"),
    "Cross-Origin-Opener-Policy": _header("No other page has a hand on this one.", "same-origin"),
    "ETag": _header("The store's, of the object.", '"9a0364b9e99bb480dd25e1f0284c8555-2"'),
    "Location": _header("The upload (`/uploads/ID`), or the object once it is there.", "/uploads/0f9d8c7b6a5f4e3d"),
    "Permissions-Policy": _header("What of the device the page may not ask for.", "camera=()"),
    "Preference-Applied": _header("`Prefer` was followed.", "respond-async"),
    "Range": _header("The bytes that are there; absent while there are none.", "bytes=0-1048575"),
    "Referrer-Policy": _header("Where the page is, is told to nobody.", "no-referrer"),
    "Repr-Digest": _header("Of the whole, where it was asked for.", _EXAMPLE_DIGEST),
    "Retry-After": _header("Seconds until it is worth asking again.", "5"),
    "Tus-Checksum-Algorithm": _header("tus: of `Upload-Checksum`.", "sha1,sha256,crc32"),
    "Tus-Extension": _header("tus: what is offered beside the core.", "creation,termination"),
    "Tus-Max-Size": _header("tus: the longest upload, in bytes.", "1000000000"),
    "Tus-Resumable": _header("tus: the version of this answer.", "1.0.0", _one_of("1.0.0")),
    "Tus-Version": _header("tus: the versions that are spoken.", "1.0.0"),
    "Upload-Complete": _header("Whether the object is there.", "?0", _one_of("?0", "?1")),
    "Upload-Defer-Length": _header("tus: the length is not known yet.", "1", _one_of("1")),
    "Upload-Draft-Interop-Version": _header("The version that the client named.", "8"),
    "Upload-Expires": _header("tus: when the upload expires if nobody comes.", "Sun, 22 Nov 2026 12:00:00 GMT"),
    "Upload-Incomplete": _header("The inverse of `Upload-Complete`, of interop version 3.", "?1", _one_of("?0", "?1")),
    "Upload-Length": _header("The bytes of the whole, if that is known.", "2097152"),
    "Upload-Limit": _header("What may be uploaded, and how long it is kept.", "min-size=0, max-age=86400"),
    "Upload-Metadata": _header("tus: as it was given at the creation.", "filename dGFsay5tcDQ="),
    "Upload-Offset": _header("Bytes that are durable: where to go on.", "1048576", _text("[0-9]+")),
    "X-Accel-Buffering": _header("For nginx: pass it on as it comes.", "no", _one_of("no")),
    "WWW-Authenticate": _header("How to show a credential.", 'Basic realm="streamup", charset="UTF-8"'),
    **{f"x-amz-checksum-{name}": _header("The store's, of the object.", "rosUhgp5mIg=") for name in SIZES},
    "x-amz-checksum-type": _header("Of the whole's bytes, or of the parts' checksums.", "FULL_OBJECT"),
    "x-amz-server-side-encryption": _header("How the object is encrypted.", "AES256"),
}

_PROGRESS = (
    *("Upload-Offset", "Upload-Length", "Upload-Complete", "Upload-Incomplete", "Upload-Limit"),
    *("Upload-Draft-Interop-Version", "Tus-Resumable", "Upload-Expires", "Cache-Control", "Location"),
)
_FINAL = (*_PROGRESS, "ETag", "Repr-Digest")
_PAGE_FIELDS = (
    *("Cache-Control", "Content-Security-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy"),
    "Referrer-Policy",
)

_COUNT: Json = {"type": "integer", "minimum": 0}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_MAYBE: Json = {"type": ["string", "null"]}


def _object(properties: Json, *, optional: Iterable[str] = (), example: Json | None = None) -> Json:
    required = [name for name in properties if name not in optional]
    found: Json = {"type": "object", "required": required, "properties": properties}
    return found | ({"examples": [example]} if example else {})


_EXAMPLE_OBJECT: Json = {
    "key": "videos/talk.mp4",
    "size": 2097152,
    "etag": '"9a0364b9e99bb480dd25e1f0284c8555-2"',
    "checksum": {"crc64nvme": "rosUhgp5mIg="},
    "checksum_type": "FULL_OBJECT",
    "parts": 2,
    "upload": "0f9d8c7b6a5f4e3d",
}
_EXAMPLE_PART: Json = {"number": 1, "size": 1048576, "etag": '"b6d8"', "crc64nvme": "rosUhgp5mIg="}
_EXAMPLE_UPLOAD: Json = {
    "id": "0f9d8c7b6a5f4e3d",
    "key": "videos/talk.mp4",
    "state": "open",
    "reason": None,
    "held": None,
    "offset": 1048576,
    "received": 1572864,
    "stored": 1048576,
    "length": None,
    "writer": True,
    "rate": 262144.0,
    "created": "2026-11-22T12:00:00.000+00:00",
    "expires": None,
    "ended": None,
    "parts": [_EXAMPLE_PART],
    "object": None,
}
_EXAMPLE_PROBLEM: Json = {
    "type": "about:blank",
    "title": "The offset does not match",
    "status": 409,
    "detail": "Continue at byte 1048576: that is what has been received.",
    "expected-offset": 1048576,
    "provided-offset": 0,
}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


SCHEMAS: Mapping[str, Json] = {
    "Upload": _object(
        {
            "id": {"type": "string"},
            "key": {"type": "string"},
            "state": _one_of(*State),
            "reason": {**_MAYBE, "description": "Why it ended without an object."},
            "held": {**_MAYBE, "description": "Why the store does not take it now."},
            "offset": {**_COUNT, "description": "Bytes that are durable: a promise."},
            "received": {**_COUNT, "description": "Bytes that are here."},
            "stored": {**_COUNT, "description": "Bytes that the store has confirmed."},
            "length": {"type": ["integer", "null"], "minimum": 0, "description": "Of the whole, if it is known."},
            "writer": {"type": "boolean", "description": "Whether somebody is sending now."},
            "rate": {"type": ["number", "null"], "minimum": 0, "description": "Bytes a second, while somebody sends."},
            "created": {"type": "string", "format": "date-time"},
            "expires": _TIME,
            "ended": _TIME,
            "parts": {
                "type": "array",
                "items": _ref("schemas", "Part"),
                "description": "What the store has confirmed; not in lists and events.",
            },
            "object": {"anyOf": [_ref("schemas", "Object"), {"type": "null"}]},
        },
        optional=("parts",),
        example=_EXAMPLE_UPLOAD,
    ),
    "Uploads": _object(
        {
            "uploads": {"type": "array", "items": _ref("schemas", "Upload")},
            "left_out": {**_COUNT, "description": "The oldest of those that live, if there are too many for one list."},
            "next": {**_MAYBE, "description": "What `before` asks for those; null if there are none."},
        },
        example={"uploads": [_EXAMPLE_UPLOAD], "left_out": 1, "next": "1763812800.25-0f9d8c7b6a5f4e3d"},
    ),
    "Server": _object(
        {
            "spool_used": {**_COUNT, "description": "Bytes of the spool that are taken or promised."},
            "spool_size": _COUNT,
            "store_available": {"type": "boolean", "description": "Whether the store answered last."},
            "downloads": {"type": "boolean", "description": "Whether GET leads to objects (`--downloads`)."},
            "left_out": {**_COUNT, "description": "Uploads with which the stream did not begin: as in a list."},
        },
        example={
            "spool_used": 8388608,
            "spool_size": 10737418240,
            "store_available": True,
            "downloads": False,
            "left_out": 0,
        },
    ),
    "Part": _object(
        {
            "number": {"type": "integer", "minimum": 1},
            "size": _COUNT,
            "etag": {"type": "string"},
            "crc64nvme": {"type": "string", "description": "base64"},
            "sha256": {"type": "string", "description": "base64"},
        },
        optional=("crc64nvme", "sha256"),
        example=_EXAMPLE_PART,
    ),
    "Object": _object(
        {
            "key": {"type": "string"},
            "size": _COUNT,
            "etag": {**_MAYBE, "description": "null until the store has confirmed (202)."},
            "checksum": {
                "type": ["object", "null"],
                "description": "base64, by algorithm: what the store keeps.",
                "additionalProperties": {"type": "string"},
            },
            "checksum_type": {**_MAYBE, "description": "FULL_OBJECT, or COMPOSITE of the parts'."},
            "parts": _COUNT,
            "upload": {"type": "string", "description": "The id of the upload that it was."},
            "digest": {
                "type": "object",
                "description": "base64, by algorithm: what was given or asked for, of the whole.",
                "additionalProperties": {"type": "string"},
            },
        },
        optional=("digest",),
        example=_EXAMPLE_OBJECT,
    ),
    "Download": _object(
        {
            "location": {"type": "string", "format": "uri", "description": "Opens without a credential."},
            "seconds": {"type": "integer", "minimum": 1, "description": "How long it can be begun with."},
        },
        example={"location": "https://store.example/bucket/videos/talk.mp4?X-Amz-Signature=0f9d", "seconds": 3600},
    ),
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What to do about it."},
            "expected-offset": _COUNT,
            "provided-offset": {"type": "integer"},
            "expected-length": _COUNT,
            "provided-length": _COUNT,
            "expected-digest": {"type": "string"},
            "found-digest": {"type": "string"},
            "limit": _COUNT,
        },
        optional=(
            *("expected-offset", "provided-offset", "expected-length", "provided-length"),
            *("expected-digest", "found-digest", "limit"),
        ),
        example=_EXAMPLE_PROBLEM,
    ),
}

PROBLEMS: Mapping[int, str] = {
    400: "The request contradicts itself or the protocol, or the bytes are not those of their digest.",
    401: "A credential is needed, or this one is not known.",
    403: "The credential does not allow this; a foreign page, or another host name; or the upload is too old.",
    404: "There is none.",
    405: "The method means nothing here, or the operator has switched it off.",
    409: "The offset is not the right one (`Upload-Offset` is), an unfinished upload is in the way, or it is complete.",
    410: "The upload was cancelled, has expired, or failed.",
    411: "Neither `Content-Length` nor `Transfer-Encoding: chunked`.",
    412: "`If-None-Match: *`, and the object exists; or a version of tus that is not spoken.",
    413: "Over a limit, which is named.",
    415: "A form around the bytes; or the protocol has a content type of its own for such a body.",
    423: "It is being completed: ask again.",
    460: "tus: the bytes do not match `Upload-Checksum`.",
    501: "What this server or its store cannot do, or cannot verify.",
    503: "The store, or the server, cannot now: ask again.",
    507: "No room, or the store is away. Whether something was kept, the offset tells.",
}

_PROBLEM_FIELDS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    412: ("Tus-Version",),
    423: ("Retry-After",),
    503: ("Retry-After",),
    507: ("Retry-After",),
}
_PROGRESS_OF_PROBLEMS = (
    *("Upload-Offset", "Upload-Complete", "Upload-Incomplete", "Upload-Limit", "Location"),
    *("Tus-Resumable", "Upload-Draft-Interop-Version"),
)

_DOOR = (400, 401, 403, 405, 503)
"""What may be said to anybody, about anything."""

_OF_PAGES = (400, 403, 404, 405, 503)
_SENDING = (*_DOOR, 404, 409, 410, 411, 412, 413, 415, 423, 460, 501, 507)


def _answer(description: str, fields: Iterable[str], schema: str = "", media: str = "application/json") -> Json:
    headers = {name: _ref("headers", name) for name in dict.fromkeys(fields)}
    answer: Json = {"description": description, "headers": headers}
    if schema:
        answer["content"] = {media: {"schema": _ref("schemas", schema)}}
    return answer


def _problem(status: int) -> Json:
    fields = (*_PROGRESS_OF_PROBLEMS, *_PROBLEM_FIELDS.get(status, ()))
    return _answer(PROBLEMS[status], fields, "Problem", "application/problem+json")


# -- routes -----------------------------------------------------------------------------------------------------------

SECURITY: list[Json] = [{"bearer": []}, {"basic": []}, {"token": []}]


def _operation(
    name: str,
    summary: str,
    answers: Mapping[int, Json],
    problems: Iterable[int],
    *,
    parameters: Iterable[str] = (),
    description: str = "",
    body: Json | None = None,
    security: list[Json] | None = None,
) -> Json:
    operation: Json = {"operationId": name, "summary": summary}
    if description:
        operation["description"] = description
    if parameters:
        operation["parameters"] = [_ref("parameters", parameter) for parameter in parameters]
    if body:
        operation["requestBody"] = body
    refusals = {str(status): _ref("responses", str(status)) for status in sorted(set(problems))}
    operation["responses"] = {str(status): answer for status, answer in answers.items()} | refusals
    return operation | ({} if security is None else {"security": security})


def _body(description: str, *media: str) -> Json:
    return {"description": description, "content": {name: {} for name in media}}


_BYTES_OF_OBJECT = _body(
    "The bytes. Their Content-Type, whatever it is, is stored with the object.", "application/octet-stream", "video/mp4"
)
_BYTES_TO_APPEND = _body(
    "The bytes that follow those that are there.", "application/partial-upload", "application/offset+octet-stream"
)

_ENDINGS: Mapping[int, Json] = {
    201: _answer("The object is there; or (no JSON, `Upload-Complete: ?0`) the upload is, and open.", _FINAL, "Object"),
    202: _answer(
        "Every byte is durable here, and the object will be there by itself; the store has not confirmed yet.",
        (*_FINAL, "Preference-Applied"),
        "Object",
    ),
}

_ABILITIES = (
    *("Allow", "Upload-Limit", "Accept-Patch", "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size"),
    *("Tus-Checksum-Algorithm", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"),
    "Access-Control-Max-Age",
)


def _discover(name: str) -> Json:
    return _operation(
        name,
        "What can be done here",
        {204: _answer("What this route can do, and what may be uploaded.", _ABILITIES)},
        _DOOR,
        parameters=_PREFLIGHT,
        description="A preflight of a browser needs no credential.",
        security=[*SECURITY, {}],
    )


def _send(name: str, summary: str) -> Json:
    return _operation(
        name,
        summary,
        {
            200: _answer("`Content-Range: bytes */*` asked, and the object is there.", _FINAL, "Object"),
            **_ENDINGS,
            308: _answer("Open: `Upload-Offset` bytes are here, and more may follow.", (*_PROGRESS, "Range")),
        },
        _SENDING,
        parameters=("Content-Range", *_CREATION),
        description="One body, or the beginning or the continuation of a resumable one. What arrived of a body that "
        "is interrupted is kept, and a request with `Content-Range` goes on from there. A clean end completes.",
        body=_BYTES_OF_OBJECT,
    )


def _read(name: str, summary: str, *media: str) -> Json:
    """GET and HEAD of something that is the same for everybody."""
    found = _answer("It.", _PAGE_FIELDS)
    content: Json = {"content": {kind: {} for kind in media}}
    return {
        "get": _operation(name, summary, {200: found | content}, _OF_PAGES, security=[]),
        "head": _operation(f"{name}Head", f"{summary}: its fields only", {200: found}, _OF_PAGES, security=[]),
    }


def _events(name: str, summary: str, description: str, problems: Iterable[int], *data: str) -> Json:
    """`data`: the schemas of what the events carry."""
    found = _answer("Events, until the client goes.", ("Cache-Control", "X-Accel-Buffering"))
    schema: Json = {"type": "string", "description": "Each `data:` is a JSON document of one line."}
    schema["contentSchema"] = {"anyOf": [_ref("schemas", one) for one in data]}
    found["content"] = {"text/event-stream": {"schema": schema}}
    return _operation(name, summary, {200: found}, problems, description=description)


PATHS: Mapping[str, Json] = {
    routes.OBJECT.path: {
        "parameters": [_ref("parameters", "key")],
        "put": _send("putObject", "Send an object"),
        "post": _send("postObject", "Send an object, as PUT does"),
        "head": _operation(
            "headObject",
            "The stored object, and the unfinished upload of this key",
            {
                200: _answer(
                    "`Upload-Complete: ?1`: the object, with its size as Content-Length. `?0`: an upload is open, at "
                    "`Location`; of an object that it would replace only `ETag` is told.",
                    (
                        *("Upload-Offset", "Upload-Complete", "Location", "Cache-Control", "ETag", "Repr-Digest"),
                        *(f"x-amz-checksum-{name}" for name in SIZES),
                        *("x-amz-checksum-type", "x-amz-server-side-encryption"),
                    ),
                )
            },
            (*_DOOR, 404, 423, 507),
            parameters=("Want-Repr-Digest",),
            description="It stops nobody.",
        ),
        "get": _operation(
            "getObject",
            "Download",
            {
                200: _answer("`Accept: application/json`: where it is.", ("Cache-Control",), "Download"),
                307: _answer("To the store, for an hour at most.", ("Location", "Cache-Control")),
            },
            (*_DOOR, 404, 501, 507),
            description="Off unless the server was started with `--downloads` (405). A link has no header to carry a "
            "credential: a page asks for JSON, and shows a link to that.",
        ),
        "delete": _operation(
            "deleteObject",
            "Cancel the open upload of this key; where the server was started with `--deletes`, remove the object, too",
            {204: _answer("It is gone.", _RESUME)},
            (*_DOOR, 404, 409, 423, 507),
        ),
        "options": _discover("discoverObject"),
    },
    routes.UPLOADS.path: {
        "post": _operation(
            "createUpload",
            "Create an upload, with the first of its bytes or without any",
            _ENDINGS,
            _SENDING,
            parameters=("key-to-create", *_CREATION),
            description="By tus, or as the IETF draft says it: `Upload-Complete` is needed then.",
            body=_BYTES_TO_APPEND,
        ),
        "get": _operation(
            "listUploads",
            "One's uploads: those that live, and the endings of the last day",
            {200: _answer("The newest 300, or the 300 before.", ("Cache-Control",), "Uploads")},
            (*_DOOR, 507),
            parameters=("before",),
            description="It stops nobody.",
        ),
        "options": _discover("discoverUploads"),
    },
    routes.EVENTS.path: {
        "get": _events(
            "watchUploads",
            "One's uploads as they change, and the server",
            "Server-sent events. `event: server` comes first, and `event: upload` for each of the list; then, about "
            "once a second, what has changed. A comment comes when nothing has for 15 s. Whoever comes back is told "
            "everything again; `Last-Event-ID` is not needed. It stops nobody, and makes nothing durable.",
            (*_DOOR, 507),
            *("Server", "Upload"),
        ),
        "options": _discover("discoverEvents"),
    },
    routes.UPLOAD_EVENTS.path: {
        "parameters": [_ref("parameters", "id")],
        "get": _events(
            "watchUpload",
            "An upload as it changes, until it has ended",
            "Server-sent events: `event: upload`, at once and then about once a second if it has changed. Its `offset` "
            "is made durable for that. How it ended is the last one. It stops nobody.",
            (*_DOOR, 404, 507),
            "Upload",
        ),
        "options": _discover("discoverUploadEvents"),
    },
    routes.UPLOAD.path: {
        "parameters": [_ref("parameters", "id")],
        "head": _operation(
            "headUpload",
            "Where to go on",
            {
                200: _answer("tus; or the object is there.", (*_FINAL, "Upload-Defer-Length", "Upload-Metadata")),
                202: _answer("It is being completed.", _PROGRESS),
                204: _answer("It is open.", _PROGRESS),
            },
            (*_DOOR, 404, 410, 412, 423, 507),
            parameters=_RESUME,
            description="It stops who is sending: the answer is the place to go on from.",
        ),
        "get": _operation(
            "getUpload",
            "Look at an upload",
            {200: _answer("The upload, or how it ended.", _PROGRESS, "Upload")},
            (*_DOOR, 404, 507),
            description="It stops nobody; while somebody sends, `Upload-Offset` is in the JSON only.",
        ),
        "patch": _operation(
            "appendToUpload",
            "Append at `Upload-Offset`",
            {**_ENDINGS, 204: _answer("The bytes are kept; the upload is open, or (tus) complete.", _FINAL)},
            _SENDING,
            parameters=_APPEND,
            description="It stops who is sending. `Upload-Complete: ?1` says that it was all; tus goes by the length.",
            body=_BYTES_TO_APPEND,
        ),
        "post": _operation(
            "postToUpload",
            "Append, as PATCH does; or what `X-HTTP-Method-Override` says",
            {
                **_ENDINGS,
                200: _answer(
                    "The override is GET or HEAD.", (*_FINAL, "Upload-Defer-Length", "Upload-Metadata"), "Upload"
                ),
                204: _answer(
                    "The bytes are kept; or the override says something that is answered so.", (*_FINAL, *_ABILITIES)
                ),
            },
            _SENDING,
            parameters=("X-HTTP-Method-Override", *_APPEND),
            body=_BYTES_TO_APPEND,
        ),
        "delete": _operation(
            "cancelUpload",
            "Give the upload up",
            {204: _answer("Its bytes are gone.", _RESUME)},
            (*_DOOR, 404, 409, 410, 412, 423, 507),
            parameters=_RESUME,
        ),
        "options": _discover("discoverUpload"),
    },
    routes.PAGE.path: _read("getPage", "The page for people", "text/html"),
    routes.FILE.path: {
        "parameters": [_ref("parameters", "name")],
        **_read("getFile", "A file of the page", "text/javascript", "text/css", "image/svg+xml"),
    },
    routes.DESCRIPTION.path: _read("getDescription", "This document", "application/json"),
}


def document(version: str) -> Json:
    """The whole of it; `version` is that of the program."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamup",
            "version": version,
            "summary": "Bodies of unknown length become objects.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": SECURITY,
        "paths": dict(PATHS),
        "components": {
            "schemas": dict(SCHEMAS),
            "parameters": dict(PARAMETERS),
            "headers": dict(HEADERS),
            "responses": {str(status): _problem(status) for status in PROBLEMS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token, or an API key."},
                "basic": {"type": "http", "scheme": "basic", "description": "The same, as the password."},
                "token": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "A token that is for a single key.",
                },
            },
        },
    }
