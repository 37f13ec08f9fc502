"""One request on its way: from aiohttp's request to the head that protocols understand."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import HttpVersion10, HttpVersion11, web
from multidict import CIMultiDict

from streamup import forwarded, routes
from streamup.body import RequestBody
from streamup.errors import BadRequest, NotFound
from streamup.keys import validate_key
from streamup.protocols import RequestHead, ResponseHead, UploadProtocol, fields
from streamup.upload import Upload

INTERIM = "Upload Resumption Supported"
"""What 104 says in words."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """`protocol`: the one whose language it speaks. `front`: what a trusted proxy has told of the client's side."""

    request: web.Request
    head: RequestHead
    body: RequestBody
    protocol: UploadProtocol
    front: forwarded.Front

    def outside(self, path: str) -> str:
        """Where the client finds our `path`."""
        return self.front.location(path, host=self.head.headers.get("Host"))

    def interim(self, upload: Upload, *, created: bool) -> ResponseHead | None:
        """What the client may be told before the answer, if its protocol has words for that. HTTP/1.0 has none."""
        head = self.protocol.interim(self.head, upload, created=created)
        return head if self.request.version >= (1, 1) else None

    def send_interim(self, head: ResponseHead) -> None:
        """An interim response, past aiohttp, which knows none but 100."""
        transport = self.request.transport
        if transport is None or transport.get_write_buffer_size():
            return  # a client that reads nothing: what waits for it must not grow (law 8)
        headers = dict(head.headers)
        if "Location" in headers:
            headers["Location"] = self.outside(headers["Location"])
        lines = [f"HTTP/1.1 {head.status} {INTERIM}", *(f"{name}: {value}" for name, value in headers.items())]
        transport.write("\r\n".join([*lines, "", ""]).encode())


def front_of(request: web.Request, trusted: Collection[IPv4Network | IPv6Network]) -> forwarded.Front:
    """Whom the client thinks it is talking to."""
    front = forwarded.front(request.remote, request.headers, trusted)
    return front if front.host is None else replace(front, scheme=front.scheme or request.scheme)


def headers_of(request: web.Request, front: forwarded.Front) -> Mapping[str, str]:
    """The request's fields: one that came several times is a list (RFC 9110, 5.3); Host is what the client named, in
    its target before any field (RFC 9112, 3.2.2).
    """
    headers = request.headers
    host = _authority(request.raw_path) if front.host is None else front.host
    if host is None and len({name.lower() for name in headers}) == len(headers):
        return headers
    joined: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    if host is not None:
        joined["Host"] = host
    return joined


def head_of(request: web.Request, headers: Mapping[str, str], prefix: str) -> RequestHead:
    """The request as protocols see it. Raises `NotFound`, `BadRequest`."""
    _check_version(request)
    _check_expectation(request)
    key, upload_id, events = _route(request.raw_path, prefix)
    query = _query(request.rel_url.raw_query_string)
    url_token = query.pop("token", "")
    return RequestHead(
        method=request.method if upload_id is None or events else fields.effective_method(request.method, headers),
        key=key,
        upload_id=upload_id,
        events=events,
        headers=headers,
        query=query,
        content_length=request.content_length,
        chunked="chunked" in headers.get("Transfer-Encoding", "").lower(),
        arrived=time.time(),
        version=(request.version.major, request.version.minor),
        url_token=url_token,
    )


def authority_of(request: web.Request, headers: Mapping[str, str]) -> RequestHead:
    """Of a request that is not understood, what says who asks."""
    url_token = ""
    with suppress(BadRequest):
        url_token = _query(request.rel_url.raw_query_string).get("token", "")
    return RequestHead(method=request.method, headers=headers, url_token=url_token, arrived=time.time())


def target(raw_path: str) -> str:
    """The request target's path, undecoded (RFC 9112, 3.2: origin-form or absolute-form)."""
    path = raw_path.partition("?")[0]
    return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]


def cut(request: web.Request) -> None:
    """End the connection without an answer: the sender must notice, and no status would tell it the truth."""
    if request.transport is not None:
        request.transport.abort()


def _check_version(request: web.Request) -> None:
    """The parser knows versions that are framed in ways of their own: a line without one is HTTP/0.9 to it."""
    if request.version not in {HttpVersion10, HttpVersion11}:
        raise BadRequest("This server speaks HTTP/1.1 and HTTP/1.0.")
    if request.version == HttpVersion10 and "Transfer-Encoding" in request.headers:
        # RFC 9112, 6.1: whoever framed it passes on what it does not know.
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding. Send a Content-Length, or speak HTTP/1.1.")


def _check_expectation(request: web.Request) -> None:
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise BadRequest("The only expectation there is, is 100-continue.")


def _route(raw_path: str, prefix: str) -> tuple[str | None, str | None, bool]:
    """The key or the upload id in the request target, neither for `/uploads`; and whether its events are asked for."""
    if "#" in raw_path:
        raise BadRequest("A # in a key is written %23: in an address, what follows it is for the browser alone.")
    match routes.find(target(raw_path)):
        case (routes.OBJECT, rest):
            return validate_key(_decoded(rest), prefix), None, False
        case (routes.UPLOADS | routes.EVENTS as route, _):
            return None, None, route is routes.EVENTS
        case (routes.UPLOAD | routes.UPLOAD_EVENTS as route, rest):
            return None, _decoded(rest), route is routes.UPLOAD_EVENTS
    raise NotFound("Objects are at /objects/KEY, uploads at /uploads and /uploads/ID.")


def _authority(raw_path: str) -> str | None:
    """The server that an absolute-form target names."""
    return None if raw_path.startswith("/") else re.split("[/?#]", raw_path.partition("://")[2])[0]


def _query(text: str) -> dict[str, str]:
    """The parameters, each as it came first. Strictly UTF-8: one of them is a key."""
    try:
        return dict(reversed(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)))
    except ValueError:
        raise BadRequest("The query is UTF-8, percent-encoded, with a hundred parameters at most.") from None


def _decoded(text: str) -> str:
    """Percent-decoded once, and UTF-8, or refused."""
    try:
        return unquote_to_bytes(text).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise BadRequest("A key is UTF-8, percent-encoded.") from None
