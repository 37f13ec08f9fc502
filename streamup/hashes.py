"""Hashes of a whole upload: they run over its parts in order, and their state survives a restart.

hashlib cannot give its state away, so MD5 and the SHAs are OpenSSL's own functions (`SHA256_Init(3)` and its like, or
CommonCrypto's twins on macOS), whose context is a plain structure that may be copied and kept. Where Python was built
without a shared OpenSSL, hashlib does it, and `state` is None: such a hash does not survive.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol, Self

from awscrt import checksums

from streamup.digests import SIZES

CONTEXT_BYTES = 256
"""More than any of these contexts takes; the largest, of SHA-512, has 216 bytes."""

_CRCS: Mapping[str, Callable[[bytes, int], int]] = MappingProxyType(
    {"crc32": checksums.crc32, "crc32c": checksums.crc32c, "crc64nvme": checksums.crc64nvme}
)


class _Hash(Protocol):
    @property
    def state(self) -> bytes | None: ...
    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class _Crc:
    """Its value is its state; big-endian, as S3 writes it."""

    def __init__(self, algorithm: str, state: bytes = b"") -> None:
        self._algorithm = algorithm
        self._value = int.from_bytes(state, "big")

    @property
    def state(self) -> bytes:
        return self.digest()

    def update(self, data: bytes) -> None:
        self._value = _CRCS[self._algorithm](data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(SIZES[self._algorithm], "big")


class _Exported:
    """A hash of OpenSSL's, whose context is a string of bytes."""

    def __init__(self, algorithm: str, state: bytes = b"") -> None:
        self._algorithm = algorithm
        self._context = ctypes.create_string_buffer(state, CONTEXT_BYTES)
        if not state:
            self._call("Init", self._context)

    @property
    def state(self) -> bytes:
        return self._context.raw

    def update(self, data: bytes) -> None:
        self._call("Update", self._context, data, ctypes.c_size_t(len(data)))

    def digest(self) -> bytes:
        digest = ctypes.create_string_buffer(SIZES[self._algorithm])
        self._call("Final", digest, ctypes.create_string_buffer(self.state, CONTEXT_BYTES))  # it destroys the context
        return digest.raw

    def _call(self, function: str, *arguments: Any) -> None:
        if not getattr(LIBRARY, f"{PREFIX}{self._algorithm.upper()}_{function}")(*arguments):
            raise OSError(f"{self._algorithm} {function} failed")


class _Kept:
    """hashlib's, where there is nothing better: it cannot be saved."""

    state = None

    def __init__(self, algorithm: str) -> None:
        running = hashlib.new(algorithm, usedforsecurity=False)
        self.update, self.digest = running.update, running.digest


def _library() -> tuple[ctypes.CDLL | None, str]:
    """OpenSSL as Python's own hashlib has loaded it, or what macOS has, and what the names of functions begin with."""
    if sys.platform == "darwin":
        return ctypes.CDLL(None), "CC_"
    module = sys.modules.get("_hashlib")
    path = getattr(module, "__file__", None)  # none where it is built into the interpreter
    library = ctypes.CDLL(path) if path else None
    return (library, "") if hasattr(library, "SHA256_Init") else (None, "")


LIBRARY, PREFIX = _library()


class Hashes:
    """Hashes of the same bytes, `position` of them so far."""

    def __init__(self, running: Mapping[str, _Hash], position: int = 0) -> None:
        self.position = position
        self._running = running

    @classmethod
    def begun(cls, algorithms: Collection[str]) -> Self:
        return cls({name: _hash(name) for name in algorithms})

    @classmethod
    def resumed(cls, algorithms: Collection[str], state: str | None, position: int) -> Self | None:
        """As they were after `position` bytes; None if one of them cannot be taken up from there."""
        saved = json.loads(state) if state else {}
        if any(name not in saved or not _saveable(name) for name in algorithms):
            return None
        return cls({name: _hash(name, b64decode(saved[name])) for name in algorithms}, position)

    def update(self, data: bytes) -> None:
        self.position += len(data)
        for running in self._running.values():
            running.update(data)

    @property
    def state(self) -> str | None:
        """To be given to `resumed`; None if one of them cannot be saved."""
        states = {name: running.state for name, running in self._running.items()}
        if None in states.values():
            return None
        return json.dumps({name: b64encode(state or b"").decode() for name, state in states.items()})

    def digests(self) -> dict[str, bytes]:
        return {name: running.digest() for name, running in self._running.items()}


def _saveable(name: str) -> bool:
    return name in _CRCS or LIBRARY is not None


def _hash(name: str, state: bytes = b"") -> _Hash:
    if name in _CRCS:
        return _Crc(name, state)
    return _Exported(name, state) if LIBRARY is not None else _Kept(name)
