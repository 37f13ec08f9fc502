"""Bytes that no other name and no other position has, to be had anywhere without those before.

    stream = Keystream("a/key", 7 << 20)
    stream[100:200], list(stream.pieces(0, 300_000))

Whatever is lost, doubled, moved or another's is found by comparing, without a copy of what was sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

BLOCK = 64 << 10
TABLE = random.Random(0).randbytes((1 << 20) + BLOCK)
"""Each block is a stamp and a stretch of this, by name and position: as fast as memory is."""


@dataclass(frozen=True)
class Keystream:
    """As many bytes of one name."""

    name: str
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self.size)
        return b"".join(self.pieces(start, stop))

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, up to a block at once."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            number, at = divmod(start, BLOCK)
            piece = self._block(number)[at : at + stop - start]
            start += len(piece)
            yield piece

    def _block(self, number: int) -> bytes:
        stamp = blake2b(f"{self.name} {number}".encode(), digest_size=32).digest()
        start = int.from_bytes(stamp[:4], "big") % (1 << 20)
        return stamp + TABLE[start : start + BLOCK - len(stamp)]

    def differs(self, start: int, data: bytes) -> int | None:
        """Where `data`, which should be at `start`, is something else."""
        if data == self[start : start + len(data)]:
            return None
        wanted = self[start : start + len(data)]
        return start + next((n for n, (one, other) in enumerate(zip(data, wanted, strict=False)) if one != other), 0)
