"""Digests that a client sends with a body, and their running counterparts. Pure."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256, sha512
from types import MappingProxyType
from typing import Protocol

from streamup.errors import DigestMismatch


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    """zlib's CRC32 in hashlib's dress; big-endian, as tus and S3 write it."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


SIZES: Mapping[str, int] = MappingProxyType(
    {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
)
"""How many bytes each digest has that is computed here, by S3's names for them, which are ours."""

HASHES: Mapping[str, Callable[[], _Hash]] = MappingProxyType(
    {
        "crc32": _Crc32,
        "sha1": lambda: sha1(usedforsecurity=False),  # tus demands it; it finds damage, not forgery
        "sha256": sha256,
        "sha512": sha512,
    }
)
"""By algorithm. How a protocol spells them is its own business."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What the client says of its bytes. `algorithm` is one of `HASHES` for those of one body, which are hashed as they
    come; those of a whole upload may have others, too (`hashes`).
    """

    algorithm: str
    value: bytes


class Running:
    """The digests of a body while it comes."""

    def __init__(self, expected: Sequence[Digest]) -> None:
        self._expected = [(digest, HASHES[digest.algorithm]()) for digest in expected]

    def update(self, data: bytes) -> None:
        for _, running in self._expected:
            running.update(data)

    def check(self) -> None:
        """Raise `DigestMismatch` unless every digest is what the client said."""
        for expected, running in self._expected:
            if (found := running.digest()) != expected.value:
                raise mismatch(expected, found, "Nothing of this body is kept: send it again.")


def base64_of(digest: bytes) -> str:
    """As S3 and HTTP's fields write digests."""
    return b64encode(digest).decode()


def mismatch(expected: Digest, found: bytes, consequence: str) -> DigestMismatch:
    """The error that names both."""
    return DigestMismatch(expected.algorithm, base64_of(expected.value), base64_of(found), consequence)
