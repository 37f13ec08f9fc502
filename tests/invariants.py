"""What must be so whatever breaks: checked after each step, at each restart, and at the end of every campaign.

    raise Broken(Invariant.OFFSET, "4096 was announced, 1000 is told now")

A campaign that finds nothing has shown something only if it finds what `planted` breaks, and by one of these names.
"""

from __future__ import annotations

from enum import Enum


class Invariant(Enum):
    """The laws in `streamup/__init__.py`, as they look from outside."""

    OFFSET = "an offset is never less than one that was announced, and what was announced is there, byte for byte"
    RECEIVED = "what had been received is there after the process was killed"
    CLEAN_END = "an object is visible only if its client said that this is all, and it is exactly the bytes sent"
    WHOLE = "a key shows the old object, none, or the whole new one"
    ONCE = "an upload is completed at most once"
    ONE_WRITER = "the bytes of a writer that was stopped never appear"
    ORDER = "completions of one key take effect in the order in which they were sealed"
    FAIL_CLOSED = "a failed sync, or a lost answer, is never taken for success"
    PATIENT = "an upload fails for what somebody has destroyed or refused for good, and for nothing else"
    ENDS = "when the faults have stopped, every upload ends within a bound"
    NOTHING_LEFT = "nothing is left over: multipart uploads, part files, rows, tasks, descriptors"
    BOUNDED = "memory, disk and descriptors stay within what was configured"
    SAID = "whoever cannot be served is told so, with a reason and what to do, and so is who probes"
    INSIDE = "nothing outside the prefix is touched"
    KNOWN = "what goes wrong has a name: no exception that nobody expected, nor one that nobody looked at"

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class Broken(AssertionError):
    """An invariant does not hold. `what` says where, in numbers."""

    def __init__(self, invariant: Invariant, what: str) -> None:
        super().__init__(f"{invariant} ({invariant.value}): {what}")
        self.invariant = invariant
        self.what = what

    def __reduce__(self) -> tuple[type[Broken], tuple[Invariant, str], dict[str, object]]:
        """Campaigns in several processes tell theirs, with all notes, to the one that began them."""
        return Broken, (self.invariant, self.what), self.__dict__
