"""What becomes of a request on its way: cut into pieces as networks do, or changed as nobody would on purpose."""

from __future__ import annotations

import random
import re

MOST_SINGLE_BYTES = 200
"""Of a longer one, the beginning and the end are sent byte by byte."""


def segments(wire: bytes, how: str) -> list[bytes]:
    """The bytes as they are sent: `whole`, by `bytes`, or cut at the `lines`: before, within and after each CRLF."""
    match how:
        case "lines":
            return [piece for piece in re.split(rb"(\r)(\n)", wire, maxsplit=1000) if piece]
        case "bytes":
            half = max(MOST_SINGLE_BYTES, len(wire)) - MOST_SINGLE_BYTES // 2
            first, middle, last = wire[: MOST_SINGLE_BYTES // 2], wire[MOST_SINGLE_BYTES // 2 : half], wire[half:]
            pieces = [*(bytes([byte]) for byte in first), middle, *(bytes([byte]) for byte in last)]
            return [piece for piece in pieces if piece]
    return [wire]


def mutant(chance: random.Random, wire: bytes, other: bytes) -> bytes:
    """Another request, made of one or of both: bits and bytes changed, pieces lost, repeated, moved."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        wire = chance.choice(MUTATIONS)(chance, wire, other)
    return wire


def _flip(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    """A few bits."""
    changed = bytearray(wire or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _delete(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    start = chance.randrange(len(wire) + 1)
    return wire[:start] + wire[start + chance.choice((1, 2, 5, 30)) :]


def _repeat(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    start = chance.randrange(len(wire) + 1)
    piece = wire[start : start + chance.choice((1, 2, 5, 30))]
    return wire[:start] + piece * chance.choice((2, 3)) + wire[start + len(piece) :]


def _insert(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    """What parsers stumble over."""
    start = chance.randrange(len(wire) + 1)
    return wire[:start] + chance.choice(STONES) + wire[start:]


def _splice(chance: random.Random, wire: bytes, other: bytes) -> bytes:
    """The beginning of one, the end of the other."""
    return wire[: chance.randrange(len(wire) + 1)] + other[chance.randrange(len(other) + 1) :]


def _shuffle(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    """Its lines in another order."""
    lines = wire.split(b"\r\n")
    chance.shuffle(lines)
    return b"\r\n".join(lines)


def _shuffle_fields(chance: random.Random, wire: bytes, other: bytes) -> bytes:
    """Its fields in another order, perhaps with some of the other's."""
    head, _, body = wire.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    fields += other.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:][: chance.choice((0, 0, 1, 3))]
    chance.shuffle(fields)
    return b"\r\n".join([first, *fields, b"", body])


def _cut(chance: random.Random, wire: bytes, _: bytes) -> bytes:
    return wire[: chance.randrange(len(wire) + 1)]


def _follow(_: random.Random, wire: bytes, other: bytes) -> bytes:
    """One after the other."""
    return wire + other


MUTATIONS = (_flip, _flip, _delete, _repeat, _insert, _splice, _shuffle, _shuffle_fields, _cut, _follow)

STONES = (
    *(
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\x7f",
        b"\xff",
        b":",
        b",",
        b";",
        b"0",
        b"-",
        b"%",
        b"#",
    ),
    *(b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upload-Complete: ?0\r\n", b"Content-Range: bytes 0-4/5\r\n", b"Host: x\r\n"),
)
