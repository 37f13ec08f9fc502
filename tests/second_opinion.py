"""What a request may leave in the store, said by another parser than the server's: h11, which knows no leniency.

An object is justified if it is, byte for byte, the body of one of the requests that h11 reads (or of several to one
key, one after another), to that key, with an end, and if what the request says of its digest and length is true.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5, sha256
from urllib.parse import parse_qsl, unquote

import h11


@dataclass
class Read:
    """A request. `fields` are in lower case; `ended`: all of its body came."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    ended: bool = False

    def said(self, name: str, pattern: str) -> list[str]:
        """What the fields of this name say, as far as they are well-formed."""
        found = [re.fullmatch(pattern, value) for field, value in self.fields if field == name]
        return [match[1] for match in found if match]

    def key(self, own: str) -> str | None:
        """Where it goes: a key, None for one that the server chooses. `own`: the key of the upload that it names."""
        path, _, query = re.sub("^[^/?]*://[^/?]*", "", self.target).partition("?")
        first, _, rest = path[1:].partition("/")
        if first == "objects" or rest:
            return unquote(rest) if first == "objects" else own
        return dict(parse_qsl(query)).get("key")

    @property
    def is_preflight(self) -> bool:
        """Whether nobody is asked who it is from."""
        return self.method == "OPTIONS" and any(name == "access-control-request-method" for name, _ in self.fields)

    @property
    def is_all(self) -> bool:
        """Whether this may be the end of an object."""
        declared = [*self.said("content-range", r"bytes .*/(\d+)"), *self.said("upload-length", r"(\d+)")]
        return (self.ended or bool(declared)) and not self.said("upload-complete", r"(\?0)")

    def allows(self, whole: bytes) -> bool:
        """Whether what it says of the object is true."""
        return (
            all(b64decode(text) == md5(whole).digest() for text in self.said("content-md5", "([A-Za-z0-9+/]{22}==)"))
            and all(text == _sha256(whole) for text in self.said("repr-digest", "sha-256=:([A-Za-z0-9+/]{43}=):"))
            and all(int(text) == len(whole) for text in self.said("upload-length", r"(\d{1,15})"))
        )


def read(wire: bytes) -> list[Read]:
    """The requests in these bytes, up to the first fault."""
    found: list[Read] = []
    with suppress(h11.ProtocolError):
        while wire := _as_h11_wants(wire):
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 22)
            connection.receive_data(wire)
            wire = _read_one(connection, found)
    return found


def _read_one(connection: h11.Connection, found: list[Read]) -> bytes:
    """Add one request; what comes after it."""
    while True:
        match connection.next_event():
            case h11.Request(method=method, target=target, headers=headers):
                fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
                found.append(Read(method.decode("latin-1"), target.decode("latin-1"), fields))
            case h11.Data(data=data):
                found[-1].body += bytes(data)
            case h11.EndOfMessage():
                found[-1].ended = True
                return connection.trailing_data[0]
            case _:
                return b""


def possible(requests: list[Read], own: str) -> Iterator[tuple[str | None, bytes]]:
    """Each object that these requests may have made: its key, its bytes."""
    for start, first in enumerate(requests):
        whole = b""
        for one in requests[start:]:
            if one.key(own) == first.key(own):
                whole += one.body
                if one.is_all and one.allows(whole):
                    yield one.key(own), whole


def statuses(answer: bytes) -> tuple[int, ...]:
    """The final answers in what came back."""
    found: list[int] = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/\d\.\d (\d{3}) ", head)
        assert status, answer[:200]
        if status[1] >= b"200":
            found.append(int(status[1]))
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if size and not rest.startswith(b"HTTP/"):  # the answer to HEAD has a length, and no body
            rest = rest[int(size[1]) :]
        answer = rest
    return tuple(found)


def _as_h11_wants(wire: bytes) -> bytes:
    """No empty lines before a request, and one space between its words; a server may be laxer (RFC 9112, 2.2 and 3)."""
    return re.sub(rb"(?m)^([A-Z]+) +(\S+) +(HTTP/)", rb"\1 \2 \3", wire.lstrip(b"\r\n"))


def _sha256(data: bytes) -> str:
    return b64encode(sha256(data).digest()).decode()
