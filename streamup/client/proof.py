"""What a store says of an object's bytes, and what follows from it. Pure: the hashing is done elsewhere.

A `Claim` is one value of the store's that the bytes can be compared with: a checksum or the ETag, of the whole or, as
a composite, of its parts. A `Finding` is what came of one. Who computes a composite must know where the parts end (a
`Cut`); where the store does not tell, likely cuts are tried: a hit proves the bytes, a miss proves nothing.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, islice, pairwise

from streamup.digests import SIZES
from streamup.layout import MIB, STEP, Layout
from streamup.stores import StoredObject, StoredPart

KINDS = ("crc64nvme", "sha256", "sha1", "sha512", "md5", "crc32c", "crc32")
"""What is compared, the strongest first, by S3's names in lower case. S3 has others (XXHASH3 and its like): they are
passed over, which is said."""

NO_MD5 = ("aws:kms", "aws:kms:dsse", "aws:fsx", "SSE-C")
"""Encryptions under which S3's ETag is not made of the bytes that a reader sees."""

MAX_CUTS = 12
"""Likely cuts that are tried. Each costs a pass over the whole file (MD5: 2 CPU-s/GiB)."""

USUAL_PART_BYTES = tuple(
    MIB * size for size in (8, 5, 16, 50, 64, 10, 15, 32, 100, 128, 6, 7, 12, 20, 24, 25, 40, 48, 256, 512, 1024)
)
"""What tools cut objects into: aws and boto3 8, rclone and lib-storage 5, mc 16, s5cmd and s3fs 50, s3cmd 15."""


Cut = tuple[int, ...]
"""Where each part ends; the last number is the object's size."""


class Verdict(Enum):
    """What a claim's comparison says about the bytes."""

    PROVEN = "proven"
    DIFFERENT = "different"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Claim:
    """One value of the store's. `parts` is the N of a composite's `-N`; 0 where the store leaves it out."""

    name: str
    algorithm: str
    value: bytes
    composite: bool = False
    parts: int = 0

    def write(self, value: bytes) -> str:
        """`value` as the store would write it."""
        text = value.hex() if self.name == ETAG else b64encode(value).decode()
        return f"{text}-{self.parts}" if self.composite and self.parts else text

    @property
    def text(self) -> str:
        return self.write(self.value)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one claim: its words are for people."""

    verdict: Verdict
    words: str


ETAG = "ETag"


def claims_of(stored: StoredObject) -> tuple[list[Claim], list[Finding]]:
    """What can be compared, the strongest proof first and the ETag last; and what cannot be, with the reason."""
    claims, findings = [], []
    for algorithm, text in stored.checksums.items():
        claim = _checksum(algorithm, text, composite=stored.checksum_type == "COMPOSITE")
        if isinstance(claim, Claim):
            claims.append(claim)
        else:
            findings.append(claim)
    claims.sort(key=lambda claim: KINDS.index(claim.algorithm))
    etag = _etag(stored)
    if isinstance(etag, Claim):
        claims.append(etag)
    else:
        findings.append(etag)
    return claims, findings


def _checksum(algorithm: str, text: str, *, composite: bool) -> Claim | Finding:
    name = algorithm.upper()
    digest, dash, count = text.partition("-")
    try:
        value = b64decode(digest, validate=True)
        parts = int(count) if dash else 0
    except (binascii.Error, ValueError):
        return Finding(Verdict.OPEN, f"{name} {text}: this is not written as S3 writes a checksum")
    if algorithm not in KINDS:
        return Finding(Verdict.OPEN, f"{name} {text}: this kind of checksum is not known here")
    if len(value) != SIZES[algorithm]:
        return Finding(Verdict.OPEN, f"{name} {text}: this is not the length of such a checksum")
    return Claim(name, algorithm, value, composite or bool(dash), parts)


def _etag(stored: StoredObject) -> Claim | Finding:
    """The ETag is the bytes' MD5, or of several parts the MD5 of their MD5s, unless the store says otherwise."""
    if stored.encryption in NO_MD5:
        return Finding(
            Verdict.OPEN, f"{ETAG} {stored.etag}: under {stored.encryption} it is not made of the bytes that are read"
        )
    match = re.fullmatch(r'"?([0-9a-f]{32})(?:-([1-9]\d{0,4}))?"?', stored.etag)
    if match is None:
        return Finding(Verdict.OPEN, f"{ETAG} {stored.etag}: it is no MD5")
    return Claim(ETAG, "md5", bytes.fromhex(match[1]), match[2] is not None, int(match[2] or 0))


# --- where the parts end


def cut_of(parts: Sequence[StoredPart] | None, size: int) -> Cut | None:
    """The cut that the store tells; None if it tells none, or one that is not this object's."""
    cut = tuple(accumulate(part.size for part in parts or ()))
    return cut if cut and cut[-1] == size else None


def likely_cuts(size: int, count: int) -> list[Cut]:
    """How `size` bytes may have been cut into `count` parts, the likeliest first; at most `MAX_CUTS`."""
    if count <= 1 or size < count:
        return [(size,)] if count == 1 else []
    cuts = (cut for cut in _every_cut(size, count) if len(cut) == count)
    return list(islice(dict.fromkeys(cuts), MAX_CUTS))


def _every_cut(size: int, count: int) -> Iterator[Cut]:
    least, most = -(-size // count), (size - 1) // (count - 1)
    fitting = [part_bytes for part_bytes in USUAL_PART_BYTES if least <= part_bytes <= most]
    yield from (_equal(size, part_bytes) for part_bytes in fitting)
    # Our own streams grow (layout.py). Up to its first step that is the equal cut, which came before.
    if count > STEP:
        yield from (_growing(size, part_bytes) for part_bytes in USUAL_PART_BYTES if part_bytes < least)
    # Whoever knows the length divides it, and rounds up to a MiB or to nothing.
    for part_bytes in (-(-least // MIB) * MIB, least):
        if part_bytes <= most:
            yield _equal(size, part_bytes)
    decimal = 1_000_000
    for unit in (MIB, decimal):
        yield from (_equal(size, part_bytes) for part_bytes in range(-(-least // unit) * unit, most + 1, unit))


def _equal(size: int, part_bytes: int) -> Cut:
    return (*range(part_bytes, size, part_bytes), size)


def _growing(size: int, part_bytes: int) -> Cut:
    layout = Layout(part_bytes, STEP)
    if size > layout.capacity:
        return ()
    last = layout.part_at(size - 1).number
    return (*(layout.part(number).end for number in range(1, last)), size)


def spans_of(cut: Cut) -> list[tuple[int, int]]:
    """Start and end of each part."""
    return list(pairwise((0, *cut)))


# --- what follows


def compare(claim: Claim, found: bytes, *, certain: bool = True) -> Finding:
    """What a computed value says about a claim. `certain`: it was computed of the right parts."""
    kind = f"of {claim.parts or 'its'} parts" if claim.composite else "of the whole"
    if found == claim.value:
        return Finding(Verdict.PROVEN, f"{claim.name} {claim.text} ({kind})")
    if certain:
        return Finding(
            Verdict.DIFFERENT, f"{claim.name}: the store has {claim.text}, these bytes have {claim.write(found)}"
        )
    return Finding(
        Verdict.OPEN, f"{claim.name} {claim.text}: the store does not tell where the parts end, and no usual size fits"
    )


def conclude(findings: Iterable[Finding]) -> Verdict:
    """One claim that differs is enough, whatever others say; otherwise one that holds."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in (Verdict.DIFFERENT, Verdict.PROVEN) if verdict in verdicts), Verdict.OPEN)


def part_claims(parts: Sequence[StoredPart]) -> list[tuple[StoredPart, Claim]]:
    """Each part with the strongest checksum that the store keeps of it; parts without one are left out."""
    found = []
    for part in parts:
        claims = (_checksum(name, text, composite=False) for name, text in part.checksums.items())
        known = [claim for claim in claims if isinstance(claim, Claim) and not claim.composite]
        if known:
            found.append((part, min(known, key=lambda claim: KINDS.index(claim.algorithm))))
    return found
