"""Byte position ↔ part. Pure arithmetic, and the only place that knows how large a part is.

The boundaries are a function of the position alone (law 3), never of how many parts exist, so a part that is sent a
second time carries the same bytes. A layout is stored with its upload and never changes.

- *equal*: all parts have one size (the last may be shorter). For lengths that are known, and for stores that insist.
- *growing*: the size doubles every `STEP` parts, up to `max_part_bytes`. For streams of unknown length: small parts
  while the stream is short, and yet many TiB within 10,000 parts.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from streamup.errors import TooLarge

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

STEP = 900
"""Parts between two doublings. 900, not 1,000: from S3's smallest part, 5 MiB, it still passes 5 TiB in 10,000 parts
(1,000 ends at 4.9), and so it does from 8 MiB with parts clamped at 1.25 GiB, an eighth of the default spool."""


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of the object: bytes `start` to `end` (half-open), part `number` (from 1)."""

    number: int
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Layout:
    """Where the parts of one upload lie. `step` 0 is the equal layout."""

    part_bytes: int
    step: int = 0
    max_part_bytes: int = 5 * GIB
    max_parts: int = 10_000

    def part(self, number: int) -> Part:
        """The part with this number. Raises `TooLarge` beyond the last one."""
        if not 1 <= number <= self.max_parts:
            raise TooLarge(
                f"This upload can hold {self.capacity} bytes in {self.max_parts} parts. Declare the length of larger "
                "ones (Upload-Length), or begin with larger parts (--part-size).",
                limit=self.capacity,
            )
        index = bisect_right(self._first_numbers, number) - 1
        size, start = self._sizes[index], self._starts[index]
        start += (number - self._first_numbers[index]) * size
        return Part(number, start, start + size)

    def part_at(self, position: int) -> Part:
        """The part that holds the byte at `position`. Raises `TooLarge` beyond the last one."""
        index = bisect_right(self._starts, position) - 1
        return self.part(self._first_numbers[index] + (position - self._starts[index]) // self._sizes[index])

    @property
    def capacity(self) -> int:
        """The largest object this layout can hold, in bytes."""
        return self.part(self.max_parts).end

    @cached_property
    def _sizes(self) -> list[int]:
        """Part size of each step."""
        if not self.step:
            return [self.part_bytes]
        steps = -(-self.max_parts // self.step)
        return [min(self.part_bytes << index, self.max_part_bytes) for index in range(steps)]

    @cached_property
    def _first_numbers(self) -> list[int]:
        """Number of each step's first part."""
        return [1 + index * self.step for index in range(len(self._sizes))]

    @cached_property
    def _starts(self) -> list[int]:
        """Position of each step's first byte."""
        starts = [0]
        for size in self._sizes[:-1]:
            starts.append(starts[-1] + self.step * size)
        return starts


def choose_layout(
    length: int | None,
    *,
    part_bytes: int,
    growing: bool = True,
    max_part_bytes: int = 5 * GIB,
    max_parts: int = 10_000,
) -> Layout:
    """The layout for a new upload of `length` bytes (None: unknown).

    `max_part_bytes` is the smaller of what the store takes and what the spool's budget bears; a declared length that
    would need larger parts raises `TooLarge`, a growing layout just stops growing there.
    """
    if length is None:
        return Layout(part_bytes, STEP if growing else 0, max_part_bytes, max_parts)
    needed = max(part_bytes, -(-length // max_parts))
    if needed > max_part_bytes:
        raise TooLarge(
            f"{length} bytes need parts of {needed} bytes, and this server takes parts of up to {max_part_bytes}. A "
            f"spool of {8 * needed} bytes (--spool-size) would do, where the store allows it.",
            limit=max_part_bytes * max_parts,
        )
    size = part_bytes if needed == part_bytes else min(-(-needed // MIB) * MIB, max_part_bytes)
    return Layout(size, 0, max_part_bytes, max_parts)
