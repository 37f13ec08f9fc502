"""What is known of an object before its bytes are read, and the proof of a file that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamup.client.hashing import Hashing
from streamup.client.proof import ETAG, Claim, Cut, Finding, Verdict, claims_of, conclude, cut_of
from streamup.client.reading import Patience
from streamup.client.source import Source
from streamup.errors import Different
from streamup.stores import StoredObject, StoredPart


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the object before its bytes are read."""

    stored: StoredObject
    parts: Sequence[StoredPart] | None
    cut: Cut | None
    claims: Sequence[Claim]
    passed_over: Sequence[Finding]

    @classmethod
    async def of(cls, source: Source, patience: Patience) -> Known:
        stored = await patience.insist(source.head)
        claims, passed_over = claims_of(stored)
        several = any(claim.composite for claim in claims)
        parts = await patience.insist(source.parts) if several else None
        return cls(stored, parts, cut_of(parts, stored.size), claims, passed_over)

    def chosen(self, *, etag: bool) -> tuple[list[Claim], list[Finding]]:
        """The claims to compare with. MD5 costs 2 CPU-s/GiB and proves no more than a checksum does, so the ETag is
        left out where there is one, unless somebody insists.
        """
        checksums = [claim for claim in self.claims if claim.name != ETAG]
        if not checksums or etag:
            return list(self.claims), list(self.passed_over)
        left = [claim for claim in self.claims if claim not in checksums]
        words = "not computed, because a checksum is there (--etag insists)"
        return checksums, [*self.passed_over, *(Finding(Verdict.OPEN, f"{c.name} {c.text}: {words}") for c in left)]


async def prove(known: Known, hashing: Hashing, *, etag: bool, pieces: Sequence[tuple[int, int]] = ()) -> list[Finding]:
    """Compare the file with what the store says. Raises `Different`, naming the part where that is known."""
    claims, passed_over = known.chosen(etag=etag)
    found = [await hashing.examine(claim, known.stored.size, known.cut, pieces) for claim in claims]
    if conclude(found) is Verdict.OPEN and len(claims) < len(known.claims):
        return await prove(known, hashing, etag=True, pieces=pieces)  # what was computed is not computed again
    wrong = [finding.words for finding in found if finding.verdict is Verdict.DIFFERENT]
    if not wrong:
        return [*found, *passed_over]
    part = await hashing.bad_part(known.parts, known.cut) if known.parts and known.cut else None
    raise Different("; ".join([*wrong, *([f"it is {part}"] if part else [])]))
