"""An object into a file: ranges in parallel into a temporary file, verified, and only then under its name.

    Partial.open → what an earlier attempt left, compared with its journal → the gaps → prove → Partial.finish

- Spans begin and end where parts do, as far as parts are known: stores read a part at a time.
- Digests are made of the bytes as they come. Those of parts that came in several spans are begun as soon as the part is
  whole: its bytes are still in the page cache.
- The bytes are all of one object: each request says which (If-Match).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awscrt.checksums import crc64nvme

from streamup.client.hashing import CRCS, Hashing, Passing
from streamup.client.known import Known, prove
from streamup.client.partial import BLOCK_BYTES, Claimed, Partial, block
from streamup.client.progress import Progress
from streamup.client.proof import Finding, Verdict, conclude, likely_cuts, spans_of
from streamup.client.reading import PARALLEL, Patience, in_parallel, read_span, span_bytes, spans_between
from streamup.client.source import Source
from streamup.errors import Different

NOTE_SECONDS = 5.0
"""How much of a slow span `kill -9` may cost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A file that is there. `resumed` bytes were there before."""

    size: int
    findings: Sequence[Finding]
    resumed: int
    seconds: float

    @property
    def proven(self) -> bool:
        return conclude(self.findings) is Verdict.PROVEN


class Download:
    """One object on its way into one file."""

    def __init__(
        self,
        source: Source,
        known: Known,
        target: Path,
        patience: Patience,
        *,
        parallel: int = PARALLEL,
        etag: bool = False,
    ) -> None:
        self._source = source
        self._known = known
        self._target = target
        self._patience = patience
        self._parallel = parallel
        self._etag = etag

    async def run(self, progress: Progress, say: Callable[[str], None]) -> Outcome:
        """Until the file is there. Raises `Interrupted`, `Different` and other `TransferError`s and `StoreError`s."""
        began, stored = time.monotonic(), self._known.stored
        identity = {"source": self._source.name, "etag": stored.etag, "size": stored.size}
        with Partial.open(self._target, identity) as partial, Hashing(partial.descriptor) as hashing:
            if partial.afresh:
                say(f"What is there of {self._target} is of no use: {partial.afresh}. It begins afresh.")
            arrivals = Arrivals(self._known, hashing, etag=self._etag)
            resumed = await self._resume(partial, hashing, arrivals, progress)
            await self._fetch_gaps(partial, arrivals, progress)
            progress.follow("verifying", lambda: (hashing.done, hashing.planned))
            try:
                findings = await prove(self._known, hashing, etag=self._etag, pieces=arrivals.spans())
            except Different:
                partial.discard()
                raise
            await asyncio.to_thread(partial.finish)
        return Outcome(stored.size, findings, resumed, time.monotonic() - began)

    async def _resume(self, partial: Partial, hashing: Hashing, arrivals: Arrivals, progress: Progress) -> int:
        """Keep what an earlier attempt left, as far as the file bears it out. Returns the number of bytes."""
        claimed = _disjoint(partial.claimed)
        progress.follow("checking", lambda: (hashing.done, hashing.planned))
        # A claim beyond the file's end is as wrong as one that does not match: a power cut took the bytes.
        digests = (hashing.begin("crc64nvme", one.start, one.end) for one in claimed)
        found = await asyncio.gather(*digests, return_exceptions=True)
        pairs = zip(claimed, found, strict=True)
        kept = [one for one, crc in pairs if isinstance(crc, bytes) and int.from_bytes(crc, "big") == one.crc64nvme]
        partial.begin(kept)
        for one in kept:
            arrivals.add(one)
        return sum(one.end - one.start for one in kept)

    async def _fetch_gaps(self, partial: Partial, arrivals: Arrivals, progress: Progress) -> None:
        size, gaps = self._known.stored.size, arrivals.gaps()
        partial.check_room(size)
        progress.turn("downloading", size, size - sum(end - start for start, end in gaps))
        spans = iter(spans_between(gaps, self._known.cut or (size,), span_bytes(size, self._parallel)))

        async def work() -> None:
            for span in spans:  # shared: each worker takes the next one
                await self._fetch(span, partial, arrivals, progress)

        await in_parallel(self._parallel, work)

    async def _fetch(self, span: tuple[int, int], partial: Partial, arrivals: Arrivals, progress: Progress) -> None:
        """One span. What has come of it when it ends otherwise is remembered."""
        arriving = Arriving(span, arrivals.wanted(span), partial)

        def take(position: int, piece: memoryview) -> None:
            arriving.take(position, piece)
            progress.add(len(piece))

        try:
            await read_span(self._source, span, self._known.stored.etag, self._patience, take)
        finally:
            arriving.note()
        arrivals.add(arriving.claimed, arriving.digests())


class Arriving:
    """A span on its way into the file, and through its digests: nothing is read again for them. Threads take turns.

    Pieces that are smaller than a block are gathered to one: a copy costs less than the page cache (`BLOCK_BYTES`).
    """

    def __init__(self, span: tuple[int, int], wanted: Iterable[tuple[str, int, int]], partial: Partial) -> None:
        self.claimed = Claimed(span[0], span[0], 0)
        self._end = span[1]
        self._passing = Passing(wanted)
        self._partial = partial
        self._block = block()
        self._gathered = 0
        self._noted = time.monotonic()

    def take(self, position: int, piece: memoryview) -> None:
        self._passing.update(position, piece)
        while piece:
            room = BLOCK_BYTES - self.claimed.end % BLOCK_BYTES - self._gathered
            if not self._gathered and len(piece) >= room:
                self._write(piece[:room])
            else:
                start, self._gathered = self._gathered, self._gathered + min(room, len(piece))
                self._block[start : self._gathered] = piece[:room]
                if self._gathered == start + room or self.claimed.end + self._gathered == self._end:
                    self._flush()
            piece = piece[room:]
        if time.monotonic() - self._noted > NOTE_SECONDS:
            self.note()

    def _flush(self) -> None:
        self._write(self._block[: self._gathered])
        self._gathered = 0

    def _write(self, data: memoryview) -> None:
        position = self.claimed.end
        self._partial.write(data, position)
        self.claimed = Claimed(self.claimed.start, position + len(data), crc64nvme(data, self.claimed.crc64nvme))

    def note(self) -> None:
        """So that an attempt which comes after this one need not ask for it again."""
        self._noted = time.monotonic()
        self._flush()
        if self.claimed.end > self.claimed.start:
            self._partial.note(self.claimed)

    def digests(self) -> Iterator[tuple[str, int, int, bytes]]:
        return self._passing.found()


class Arrivals:
    """The bytes that are there, and which parts are whole by now: their digests are begun."""

    def __init__(self, known: Known, hashing: Hashing, *, etag: bool) -> None:
        self._size = known.stored.size
        self._hashing = hashing
        self._there: list[Claimed] = []
        chosen = known.chosen(etag=etag)[0]
        claims = [claim for claim in chosen if claim.composite]
        self._of_parts = [claim.algorithm for claim in claims]
        crcs = CRCS.keys() - {"crc64nvme"}  # which is made of every span anyway
        self._of_spans = [claim.algorithm for claim in chosen if not claim.composite and claim.algorithm in crcs]
        cut = known.cut or next((cut for claim in claims for cut in likely_cuts(self._size, claim.parts)[:1]), ())
        self._parts = spans_of(cut) if claims else []
        self._starts = [start for start, _ in self._parts]
        self._missing = [end - start for start, end in self._parts]

    def wanted(self, span: tuple[int, int]) -> list[tuple[str, int, int]]:
        """The digests that can be made of a span while it comes."""
        start, end = span
        parts = self._parts[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
        whole = [(algorithm, *part) for part in parts if part[1] <= end for algorithm in self._of_parts]
        return [*((algorithm, start, end) for algorithm in self._of_spans), *whole]

    def add(self, claimed: Claimed, digests: Iterable[tuple[str, int, int, bytes]] = ()) -> None:
        """These bytes are there, and these are `digests` of some of them."""
        self._there.append(claimed)
        self._hashing.know("crc64nvme", claimed.start, claimed.end, claimed.crc64nvme.to_bytes(8, "big"))
        for digest in digests:
            self._hashing.know(*digest)
        first = bisect_right(self._starts, claimed.start) - 1
        for index in range(max(first, 0), bisect_left(self._starts, claimed.end)):
            start, end = self._parts[index]
            self._missing[index] -= min(end, claimed.end) - max(start, claimed.start)
            if not self._missing[index]:
                for algorithm in self._of_parts:
                    self._hashing.begin(algorithm, start, end)

    def spans(self) -> list[tuple[int, int]]:
        """What is there, in order."""
        return sorted((one.start, one.end) for one in self._there)

    def gaps(self) -> list[tuple[int, int]]:
        """What is not there, in order."""
        gaps, position = [], 0
        for start, end in [*self.spans(), (self._size, self._size)]:
            if position < start:
                gaps.append((position, start))
            position = end
        return gaps


def _disjoint(claimed: Sequence[Claimed]) -> list[Claimed]:
    """In order, the longest of those that begin together, and none that overlaps its predecessor."""
    longest = {one.start: one for one in sorted(claimed, key=lambda one: one.end)}
    found: list[Claimed] = []
    for _, one in sorted(longest.items()):
        if 0 <= one.start < one.end and (not found or found[-1].end <= one.start):
            found.append(one)
    return found
