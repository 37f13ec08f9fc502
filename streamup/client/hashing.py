"""Digests of a local file, in threads, and what they are made into.

A digest is computed once: who asks again for the same bytes gets the same answer, so they may be asked for as soon as
they are there. CRCs of neighbours combine into that of both; all other digests take one pass from start to end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Protocol, Self

from awscrt import checksums

from streamup.client.proof import (
    Claim,
    Cut,
    Finding,
    Verdict,
    compare,
    likely_cuts,
    part_claims,
    spans_of,
)
from streamup.digests import SIZES
from streamup.errors import TransferError
from streamup.stores import StoredPart

READ_BYTES = 1 << 20
"""What a thread reads at a time: hashlib and awscrt let other threads run meanwhile, and 1 MiB stays in the cache."""

PIECE_BYTES = 64 << 20
"""A CRC of the whole is computed in pieces of this size, so that all cores take part."""

CRCS: Mapping[str, tuple[Callable[..., int], Callable[[int, int, int], int]]] = MappingProxyType(
    {
        "crc32": (checksums.crc32, checksums.combine_crc32),
        "crc32c": (checksums.crc32c, checksums.combine_crc32c),
        "crc64nvme": (checksums.crc64nvme, checksums.combine_crc64nvme),
    }
)
"""What continues a CRC, and what joins those of neighbours."""


class _Running(Protocol):
    def update(self, data: memoryview | bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A CRC in hashlib's dress."""

    def __init__(self, algorithm: str) -> None:
        self._crc, self._size, self._value = CRCS[algorithm][0], SIZES[algorithm], 0

    def update(self, data: memoryview | bytes, /) -> None:
        self._value = self._crc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def _running(algorithm: str) -> _Running:
    return _Crc(algorithm) if algorithm in CRCS else hashlib.new(algorithm, usedforsecurity=False)


def digest(algorithm: str, data: bytes) -> bytes:
    running = _running(algorithm)
    running.update(data)
    return running.digest()


def combined(algorithm: str, pieces: Iterable[tuple[bytes, int]]) -> bytes:
    """The CRC of bytes that lie one behind another, from the CRC and the size of each."""
    combine, value = CRCS[algorithm][1], 0
    for crc, size in pieces:
        value = combine(value, int.from_bytes(crc, "big"), size)
    return value.to_bytes(SIZES[algorithm], "big")


class Passing:
    """Digests of bytes as they pass, in order. `wanted`: of which algorithm, from where to where."""

    def __init__(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        self._running = {one: _running(one[0]) for one in wanted}

    def update(self, position: int, data: memoryview) -> None:
        for (_, start, end), running in self._running.items():
            first, last = max(start - position, 0), min(end - position, len(data))
            if first < last:
                running.update(data[first:last])

    def found(self) -> Iterator[tuple[str, int, int, bytes]]:
        """What they are, once all have passed."""
        return ((*one, running.digest()) for one, running in self._running.items())


class Hashing:
    """The digests of the file behind `descriptor`. A context manager; at its end threads stop within a read.

    Of `planned` bytes so far `done` have been read.
    """

    def __init__(self, descriptor: int) -> None:
        self.planned = 0
        self.done = 0
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "hashing")
        self._digests: dict[tuple[str, int, int], asyncio.Future[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)

    def begin(self, algorithm: str, start: int, end: int) -> asyncio.Future[bytes]:
        """The digest of these bytes, which must be there and not change any more."""
        key = (algorithm, start, end)
        if key not in self._digests:
            self.planned += end - start
            loop = asyncio.get_running_loop()
            count = partial(loop.call_soon_threadsafe, self._count)  # type: ignore[arg-type]
            job = loop.run_in_executor(self._threads, self._digest, algorithm, start, end, count)
            job.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waits for it learns it
            self._digests[key] = job
        return self._digests[key]

    def know(self, algorithm: str, start: int, end: int, value: bytes) -> None:
        """A digest that was computed elsewhere."""
        self._digests[algorithm, start, end] = future = asyncio.get_running_loop().create_future()
        future.set_result(value)

    def _count(self, size: int) -> None:
        self.done += size

    def _digest(self, algorithm: str, start: int, end: int, count: Callable[[int], object]) -> bytes:
        running, buffer = _running(algorithm), memoryview(bytearray(min(READ_BYTES, max(end - start, 1))))
        while start < end and not self._stopped.is_set():
            try:
                size = os.preadv(self._descriptor, [buffer[: end - start]], start)
            except OSError as error:
                raise TransferError(f"The file cannot be read at byte {start}: {error}") from error
            if not size:
                raise TransferError(f"The file ends at byte {start}, before {end}.")
            running.update(buffer[:size])
            start += size
            count(size)
        return running.digest()

    # --- claims

    async def examine(
        self, claim: Claim, size: int, cut: Cut | None, pieces: Iterable[tuple[int, int]] | None = None
    ) -> Finding:
        """Compare the file with a claim. `cut` is what the store tells of the parts; `pieces` are spans, one after
        another, whose CRCs are known.
        """
        if not claim.composite:
            return compare(claim, await self._whole(claim.algorithm, size, pieces))
        told = cut if cut and claim.parts in (0, len(cut)) else None
        finding = Finding(Verdict.OPEN, f"{claim.name} {claim.text}: the store does not tell where the parts end")
        for tried in [told] if told else likely_cuts(size, claim.parts):
            found = await self._composite(claim.algorithm, tried)
            finding = compare(claim, found, certain=told is not None)
            if finding.verdict is Verdict.PROVEN:
                break
        return finding

    async def _whole(self, algorithm: str, size: int, pieces: Iterable[tuple[int, int]] | None) -> bytes:
        if algorithm not in CRCS:
            return await self.begin(algorithm, 0, size)
        starts = range(0, size, PIECE_BYTES)
        spans = list(pieces or ((start, min(start + PIECE_BYTES, size)) for start in starts))
        crcs = await asyncio.gather(*(self.begin(algorithm, start, end) for start, end in spans))
        return combined(algorithm, [(crc, end - start) for crc, (start, end) in zip(crcs, spans, strict=True)])

    async def _composite(self, algorithm: str, cut: Cut) -> bytes:
        """The digest of the parts' digests, as S3 makes it."""
        digests = await asyncio.gather(*(self.begin(algorithm, start, end) for start, end in spans_of(cut)))
        return digest(algorithm, b"".join(digests))

    async def bad_part(self, parts: Sequence[StoredPart], cut: Cut) -> str | None:
        """The first part that is not as the store has it, in words, if the store keeps checksums of parts."""
        spans = dict(zip((part.number for part in parts), spans_of(cut), strict=True))
        for part, claim in part_claims(parts):
            start, end = spans[part.number]
            found = await self.begin(claim.algorithm, start, end)
            if found != claim.value:
                return (
                    f"part {part.number} (bytes {start} to {end}): the store has {claim.name} {claim.text}, these "
                    f"bytes have {claim.write(found)}"
                )
        return None
