"""What is known from outside: what clients have sent, what they were told, and what follows from that.

It outlives every crash. Each request with a body is a `Claim` with bytes of its own: any byte of an object shows who
sent it. An upload's content is made of those claims that were let in, each from its start to the start of the next.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

from invariants import Broken, Invariant

_BLOCK = random.Random(7).randbytes(1 << 16)


def stream(number: int, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of what request `number` sends; no two requests send the same."""
    shift = number * 7919 % (len(_BLOCK) - 4096)
    return _BLOCK[shift + start : shift + end]


@dataclass(eq=False)
class Claim:
    """One request with a body: which bytes, and what its client says of them.

    `end`: where the upload ends, by its client's word, as far as that is said by now. `honest`: its digests are right.
    `taken` of its bytes have left the socket; `told` is how it was answered.
    """

    number: int
    size: int
    seals: bool = False
    honest: bool = True
    provisional: bool = False
    end: int | None = None
    start: int | None = None
    taken: int = 0
    told: str = ""

    def data(self) -> bytes:
        return stream(self.number, self.start or 0, (self.start or 0) + self.size)


@dataclass(eq=False)
class Model:
    """An upload as its clients know it.

    `announced` is the largest offset that anybody was told, `low` what had been received when a process was killed.
    `words` are the claims whose word where it ends may hold. `faults` is what was done to it. `known`: it was created,
    and somebody may know. `stored`: how often its object was; `rotten`: how the store keeps another one than was sent.
    """

    id: str
    key: str
    began: float
    claims: list[Claim] = field(default_factory=list)
    words: list[Claim] = field(default_factory=list)
    announced: int = 0
    low: int = 0
    state: str = "asked for"
    touched: float = 0.0
    clients: int = 0
    due_since: float | None = None
    stored: int = 0
    rotten: str | None = None
    promised: bool = False
    known: bool = False
    guards: set[int] = field(default_factory=set)
    subject: int = 0
    faults: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"{self.id} of {self.key}, {self.state}, {self.announced} announced"

    # -- what clients do ----------------------------------------------------------------------------------------------

    def asked(self, claim: Claim) -> None:
        """A request is on its way. From now on its word may be known to the server, whatever becomes of the request."""
        self.words.append(claim)

    def refused(self, claim: Claim) -> None:
        """It was not let in, and its word is none."""
        if claim in self.words:
            self.words.remove(claim)

    def entered(self, claim: Claim, start: int) -> None:
        """It was let in, and begins at `start`; whoever was there before is stopped, and said nothing."""
        self._require_possible(start, "where a writer begins")
        if self.claims and (last := self.claims[-1]).provisional:
            first = last.start or 0
            # Verified bytes are as any others: a power cut may have taken some that nobody was told of.
            whole_once = last.taken == last.size and "power cut" in self.faults
            if first < start < first + last.size and not whole_once:
                raise Broken(Invariant.FAIL_CLOSED, f"{self}: {start} is in the middle of an append with a digest")
        if self.guards - {claim.number}:  # what the whole must be was said for other bytes
            self.faults.add("wrong digest")
        claim.start = start
        self.claims = [one for one in self.claims if (one.start or 0) < start] + [claim]
        self.words = [one for one in self.words if one is claim or (not one.told and one.start is None)]

    def announce(self, offset: int, how: str) -> None:
        """Somebody is told this offset."""
        self._require_possible(offset, how)
        self.announced = offset

    def _require_possible(self, offset: int, how: str) -> None:
        if offset < self.announced:
            raise Broken(Invariant.OFFSET, f"{self}: {offset} is told ({how})")
        if offset > (reach := self.reach()):
            raise Broken(Invariant.OFFSET, f"{self}: {offset} is told ({how}), and {reach} bytes were sent")

    # -- what follows -------------------------------------------------------------------------------------------------

    def reach(self) -> int:
        """How many bytes may be there at most."""
        return max([(one.start or 0) + one.taken for one in self.claims], default=0)

    def content(self, size: int) -> bytes:
        """The first `size` bytes, as far as anybody has sent them."""
        pieces = []
        for place, claim in enumerate(self.claims):
            start = claim.start or 0
            end = self.claims[place + 1].start if place + 1 < len(self.claims) else start + claim.taken
            pieces.append(stream(claim.number, start, min(end or 0, start + claim.taken)))
        return b"".join(pieces)[:size]

    @property
    def ends(self) -> Collection[int]:
        """Where somebody says that it ends."""
        return {one.end for one in self.words if one.end is not None and one.honest}

    def require_content(self, data: bytes, what: str) -> None:
        """These are the bytes that were sent, from the first one on."""
        expected = self.content(len(data))
        if data == expected:
            return
        at = next((n for n, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b), len(expected))
        writer = next((one for one in reversed(self.claims) if (one.start or 0) <= at), None)
        others = [one.number for one in self.claims if stream(one.number, at, at + 4) == data[at : at + 4]]
        raise Broken(
            Invariant.ONE_WRITER if others else Invariant.CLEAN_END,
            f"{self}: {what} has {len(data)} bytes, and at {at} not those of request {writer and writer.number}, which "
            f"begins at {writer and writer.start}{f', but of request {others[0]}' if others else ''}",
        )

    def require_object(self, data: bytes) -> None:
        """These bytes become visible as the object."""
        self.require_content(data, "its object")
        if len(data) not in self.ends:
            raise Broken(Invariant.CLEAN_END, f"{self}: an object of {len(data)} bytes; ends: {sorted(self.ends)}")
