"""HTTP messages as text, as the specifications print them: requests to protocols, and the answers these give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict

from streamup.layout import Layout
from streamup.protocols import Intent, Limits, RequestHead, ResponseHead, UploadProtocol
from streamup.protocols.fields import effective_method
from streamup.protocols.ietf import Ietf
from streamup.protocols.plain import Plain
from streamup.protocols.tus import Tus
from streamup.stores import ObjectMeta, StoredObject
from streamup.upload import State, Upload

EXAMPLES = Path(__file__).parent / "examples"

NOW = 1767225600.0
"""2026-01-01 00:00:00 UTC: when every request here arrives."""

DAY = 86400
LIMITS = Limits(max_upload_bytes=10**12, expire_seconds=DAY)
PROTOCOLS: Sequence[UploadProtocol] = (Tus(LIMITS), Ietf(LIMITS), Plain(LIMITS))


def request(text: str) -> RequestHead:
    """A request head as the server gives it to protocols: fields that came several times are joined."""
    first, *lines = text.strip().splitlines()
    method, target = first.split()[:2]
    path, _, query = target.partition("?")
    route, _, rest = path[1:].partition("/")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, _, value = line.partition(":")
        headers[name] = ", ".join([*headers.getall(name, ()), value.strip(" \t")])
    upload_id = rest if route == "uploads" and rest else None
    return RequestHead(
        method=method if upload_id is None else effective_method(method, headers),
        key=unquote(rest) if route == "objects" else None,
        upload_id=upload_id,
        headers=headers,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        content_length=int(headers["Content-Length"]) if "Content-Length" in headers else None,
        chunked=headers.get("Transfer-Encoding", "").lower() == "chunked",
        arrived=NOW,
    )


def protocol_of(head: RequestHead) -> UploadProtocol:
    """Whose language it is in; asked as the server asks."""
    return next(protocol for protocol in PROTOCOLS if protocol.speaks(head))


def understood(head: RequestHead) -> Intent:
    return protocol_of(head).understand(head)


# -- what became of a request ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Created:
    """An upload was created for it."""

    upload: Upload


@dataclass(frozen=True)
class Durable:
    """So much of its body is durable."""

    upload: Upload


@dataclass(frozen=True)
class Done:
    """It was carried out."""

    upload: Upload | None = None


@dataclass(frozen=True)
class Refused:
    """It was not; `status` is the one that suits all protocols."""

    error: Exception
    status: int


Event = Created | Durable | Done | Refused


def answer(head: RequestHead, event: Event, intent: Any = None) -> ResponseHead | None:
    """What its protocol says of what became of it."""
    protocol = protocol_of(head)
    match event:
        case Created(upload):
            return protocol.interim(head, upload, created=True)
        case Durable(upload):
            return protocol.interim(head, upload, created=False)
        case Done(upload):
            return protocol.respond(head, intent or protocol.understand(head), upload)
    return protocol.refuse(head, event.error, problem(event.error, event.status))


def problem(error: Exception, status: int) -> ResponseHead:
    """A refusal before a protocol has put it into its own words; without the `detail`, which is for persons."""
    title, numbers = getattr(error, "title", "?"), getattr(error, "numbers", {})
    return ResponseHead(status, {}, {"type": "about:blank", "title": title, "status": status} | numbers)


def upload(state: State = State.OPEN, **fields: Any) -> Upload:
    """An upload whose last writer has just left."""
    given = {"touched": NOW, "received": fields.get("offset", 0), **fields}
    return Upload("u1", "film.mp4", "s", Layout(5), ObjectMeta("t"), created=NOW, state=state, **given)


def complete(size: int, **fields: Any) -> Upload:
    stored = StoredObject("film.mp4", size, '"e"', "t", {"crc64nvme": "AAAA"}, checksum_type="FULL_OBJECT")
    return upload(State.COMPLETE, size=size, offset=size, stored_object=stored, **fields)


# -- examples ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A file of `examples/`: a request, and one answer after the other."""

    request: RequestHead
    answers: Sequence[ResponseHead]


def examples(protocol: str) -> set[str]:
    return {path.stem for path in (EXAMPLES / protocol).iterdir()}


def example(protocol: str, name: str) -> Example:
    """Messages are separated by empty lines; `[...]` stands for a body, JSON is one."""
    head, *blocks = (EXAMPLES / protocol / f"{name}.http").read_text().strip().split("\n\n")
    answers: list[ResponseHead] = []
    for block in blocks:
        if block.startswith("HTTP/1.1 "):
            answers.append(_response(block))
        elif block.startswith("{"):
            answers[-1] = ResponseHead(answers[-1].status, answers[-1].headers, json.loads(block))
        else:
            assert block.startswith("["), block
    return Example(request(head), answers)


def _response(text: str) -> ResponseHead:
    first, *lines = text.splitlines()
    headers: Mapping[str, str] = dict(line.split(": ", 1) for line in lines)
    return ResponseHead(int(first.split()[1]), headers)
