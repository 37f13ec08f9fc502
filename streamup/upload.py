"""One upload: its state, its numbers, and what is allowed next. Pure.

Rule 1: everything that decides whether an upload may change, and how, is in this file.
Rule 2: a transition is a plain method: it changes the upload, or raises an `UploadError` and changes nothing.
Rule 3: nobody answers from a transition before it is committed (checkpoint.py); if the commit fails, the object is
        thrown away and read again.

```
          create              seal                  announce_completion        finish
 (nothing) ────► open ───────────────► sealed ─────────────────────► completing ─────► complete
                 │ ▲                   │ │ ▲                             │
                 │ └── recover: never ─┘ │ └ a power cut took bytes      └─► failed
                 │     answered, short   │   that nobody was told of
                 └─► cancelled · expired · failed ◄─┘
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from streamup.digests import Digest, mismatch
from streamup.errors import (
    BadRequest,
    DigestMismatch,
    Gone,
    KeyConflict,
    LengthConflict,
    LengthExceeded,
    OffsetMismatch,
    PreconditionFailed,
    TooLarge,
    UploadBusy,
    UploadError,
)
from streamup.layout import Layout
from streamup.stores import ObjectMeta, Receipt, StoredObject


class State(StrEnum):
    OPEN = "open"
    SEALED = "sealed"
    COMPLETING = "completing"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


ALLOWED: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.OPEN: frozenset({State.SEALED, State.CANCELLED, State.EXPIRED, State.FAILED}),
        State.SEALED: frozenset({State.OPEN, State.COMPLETING, State.CANCELLED, State.FAILED}),
        State.COMPLETING: frozenset({State.COMPLETE, State.FAILED}),
        State.COMPLETE: frozenset(),
        State.CANCELLED: frozenset(),
        State.EXPIRED: frozenset(),
        State.FAILED: frozenset(),
    }
)
"""From each state, the states that may follow. No other change exists."""

ALWAYS_RUNNING = "crc64nvme"
"""This one can be told of every upload: it is combined from those of its parts."""

LIVE = frozenset({State.OPEN, State.SEALED, State.COMPLETING})
"""States in which bytes or promises are still held; the others are outcomes."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the receipts of an upload come to: `parts` of them, and `stored` bytes without a gap from the beginning."""

    parts: int
    stored: int


@dataclass(slots=True)
class Upload:
    """One resumable transfer to one key. Positions and sizes in bytes, times in unix seconds.

    `length` is the total the client declared; `seal_at` is the client's word where this upload ends (law 5): when
    `received` reaches it, the upload seals itself. A plain PUT with Content-Length gives only the word, so a later
    append may go beyond it. `received` counts what the spool and the receipts hold; `offset` the part of it that is
    durable, the only number a client is ever told. `touched` is when a writer was last there (None: one is there now).
    `provisional`: an append with a digest began here, and its bytes are not received before the digest has matched.
    `guards` are digests of the whole, by algorithm: what the client says it is, None where it only wants to be told;
    `digests` is what they were found to be, and `hashes` the state of those that run, at the end of each stored part.
    `metadata` is the client's own text, told again as it came. `credential` is whose word is the last one here, and
    `max_bytes` and `overwrite` are what every credential that had one allows. `replaces` is the ETag the key had when
    `completing` was announced, for the one request that must not be repeated blindly (PutObject). `creating` is since
    when there may be multipart uploads of ours in the store whose ids are not known. `told` stands for the receipts of
    one that has ended and is only told about: there may be thousands.
    """

    id: str
    key: str
    subject: str
    layout: Layout
    meta: ObjectMeta
    created: float
    length: int | None = None
    seal_at: int | None = None
    state: State = State.OPEN
    reason: str | None = None
    received: int = 0
    offset: int = 0
    size: int | None = None
    touched: float | None = None
    ended: float | None = None
    sealed_order: int | None = None
    creating: float | None = None
    multipart_id: str | None = None
    replaces: str | None = None
    provisional: int | None = None
    metadata: str | None = None
    credential: str | None = None
    max_bytes: int | None = None
    overwrite: bool = True
    stored_object: StoredObject | None = None
    receipts: dict[int, Receipt] = field(default_factory=dict)
    guards: dict[str, bytes | None] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    told: Tally | None = None

    # -- appends ------------------------------------------------------------------------------------------------

    def begin_append(
        self,
        *,
        offset: int | None,
        length: int | None,
        seal_at: int | None,
        end: int | None = None,
        provisional: bool = False,
        guards: Sequence[Digest] = (),
    ) -> None:
        """A writer takes over at `offset` (None: wherever we are), with its word where the upload ends.

        `end`: where a body ends that must not go beyond the length. `provisional`: nothing of it counts before its
        digest has matched. `guards`: what the whole must be. Raises `OffsetMismatch`, `LengthConflict`, `TooLarge`,
        `BadRequest`, `Gone`, `UploadBusy`.
        """
        self.require_open()
        if offset is not None and offset != self.received:
            raise OffsetMismatch(self.received, offset)
        if length is not None and self.length is not None and length != self.length:
            raise LengthConflict(
                f"This upload was declared to have {self.length} bytes; {length} contradicts that.",
                expected_length=self.length,
                provided_length=length,
            )
        total = self.length if length is None else length
        if total is not None and max(self.received, seal_at or 0) > total:
            raise LengthConflict(
                f"{max(self.received, seal_at or 0)} bytes do not fit into the declared length of {total}.",
                expected_length=total,
            )
        if total is not None and end is not None and end > total:
            raise TooLarge(f"The body ends at byte {end}, and the upload has {total} bytes.", limit=total)
        guarded = self._guarded(guards)
        self.guards = self.guards if provisional else guarded
        self.length, self.seal_at, self.touched = total, seal_at, None
        self.provisional = self.received if provisional else None

    def _guarded(self, given: Sequence[Digest]) -> dict[str, bytes | None]:
        """The guards and these. One that has not run from byte 0 can be verified no more; and each has one value."""
        guards, running = dict(self.guards), {*self.guards, ALWAYS_RUNNING}
        for guard in given:
            if self.received and guard.algorithm not in running:
                raise BadRequest(
                    f"The {guard.algorithm} of this upload has not been running from its first byte, so it cannot be "
                    f"verified any more. These can: {', '.join(sorted(running))}."
                )
            if guards.get(guard.algorithm) not in {None, guard.value}:
                raise BadRequest(f"Two different {guard.algorithm} digests were given for the whole of this upload.")
            guards[guard.algorithm] = guard.value
        return guards

    def narrow(self, *, max_bytes: int | None, overwrite: bool) -> None:
        """A credential has a word here that allows no more than this, and none can take that back.

        Who replaces nothing leaves that to the store to decide: at completion, and by itself.
        """
        self.max_bytes = smallest(self.max_bytes, max_bytes)
        self.overwrite = self.overwrite and overwrite
        self.meta = replace(self.meta, if_none_match=self.meta.if_none_match or not self.overwrite)

    def confirm(self, guards: Sequence[Digest] = ()) -> None:
        """The digest of the provisional append has matched. Its bytes are received once that is committed, and what it
        said of the whole counts.
        """
        self.guards = self._guarded(guards)
        self.provisional = None

    def withdraw(self) -> None:
        """Nothing of the provisional append is in the spool any more, if there was one, nor its word where it ends."""
        if self.provisional is not None:
            self.provisional = self.seal_at = None

    def require_open(self) -> None:
        """Raise `Gone` or `UploadBusy` unless bytes may be added."""
        if failure := self.failure:
            raise failure
        if self.state is not State.OPEN:
            raise UploadBusy(f"All bytes of this upload have arrived; it is {self.state}.")

    def require_certain(self) -> None:
        """Raise `UploadBusy` while only the store knows whether these bytes are kept: the power failed while the object
        was being stored, and took what nobody had been told of. Told to go on at byte 0, a client would send it again.
        """
        if self.state is State.COMPLETING and self.received != self.size:
            raise UploadBusy("The power failed while this was being stored. The store has not said yet whether it was.")

    def aged(self, seconds: float | None, now: float) -> bool:
        """Whether it began so long ago (None: it never has). Then it takes no more bytes, and may still be sealed."""
        return seconds is not None and now - self.created >= seconds

    @property
    def failure(self) -> UploadError | None:
        """Why there is no object, for an upload that has ended without one."""
        if self.state in LIVE or self.state is State.COMPLETE:
            return None
        reason = self.reason or ""
        if reason.startswith("digest:") and (mismatched := self.mismatch):
            return mismatched
        kind = {"precondition": PreconditionFailed, "conflict": KeyConflict}.get(reason.partition(":")[0], Gone)
        return kind(f"This upload is {self.state}{f' ({reason})' if reason else ''}. Create a new one.")

    def receive(self, size: int) -> None:
        """`size` more bytes are in the spool (law 1). The only place where `received` grows."""
        self.require_open()
        if self.length is not None and self.received + size > self.length:
            raise LengthExceeded(f"More than the declared {self.length} bytes were sent.", limit=self.length)
        self.received += size

    def end_append(self, now: float) -> None:
        """The writer has settled."""
        self.touched = now

    def announce(self, offset: int) -> None:
        """Everything up to `offset` is synced and committed (law 2). Never falls."""
        self.offset = max(self.offset, offset)

    # -- the way to the object ----------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether what is received has reached the end that the client announced (law 5).

        Never during a provisional append: its word counts no more than its bytes before its digest has matched.
        """
        return self.state is State.OPEN and self.received == self.seal_at and self.provisional is None

    def seal(self, order: int) -> None:
        """No more bytes will come. `order` is this seal's place among all seals (law 9).

        Raises `LengthConflict` when fewer bytes came than were declared; the upload stays open.
        """
        self.require_open()
        if self.length is not None and self.received != self.length:
            raise LengthConflict(
                f"{self.received} of the declared {self.length} bytes have arrived. They are kept: "
                f"continue at byte {self.received}, or cancel.",
                expected_length=self.length,
                expected_offset=self.received,
            )
        self._become(State.SEALED)
        self.size, self.sealed_order = self.received, order

    @property
    def hashed(self) -> frozenset[str]:
        """The digests of the whole that must be computed from its bytes."""
        return frozenset(self.guards) - {ALWAYS_RUNNING}

    @property
    def mismatch(self) -> DigestMismatch | None:
        """What is wrong with the whole, if the client's digests say so."""
        for algorithm, expected in sorted(self.guards.items()):
            found = self.digests.get(algorithm)
            if expected is not None and found is not None and found != expected:
                consequence = "Nothing was stored: this upload has failed. Begin another one."
                return mismatch(Digest(algorithm, expected), found, consequence)
        return None

    def check_again(self, guards: Sequence[Digest]) -> None:
        """An ending is repeated, and with it what the whole is. Raises `DigestMismatch`, `BadRequest`, `UploadBusy`."""
        for guard in guards:
            found = self.digests.get(guard.algorithm)
            if found is None and self.state is not State.COMPLETE:
                raise UploadBusy("The digest of this upload is not known yet. Ask again.")
            if found is None:
                raise BadRequest(f"The {guard.algorithm} of this upload was not computed; it is complete without it.")
            if found != guard.value:
                raise mismatch(guard, found, "The upload has been completed with those bytes.")

    @property
    def single(self) -> bool:
        """Whether the whole object is known to fit in part 1, so that one PutObject does it."""
        end = self.size if self.size is not None else self.seal_at if self.seal_at is not None else self.length
        return self.multipart_id is None and end is not None and end <= self.layout.part(1).size

    @property
    def tally(self) -> Tally:
        """The parts that the store has confirmed."""
        return self.told or Tally(len(self.receipts), self._contiguous())

    @property
    def stored(self) -> int:
        """Bytes of the contiguous run of parts that the store has confirmed."""
        return self.tally.stored

    def _contiguous(self) -> int:
        end, number = 0, 1
        while receipt := self.receipts.get(number):
            end += receipt.size
            number += 1
        return end

    def announce_creation(self, now: float) -> None:
        """CreateMultipartUpload is about to be called (law 5). `now` is the store's, which tells when it began."""
        self.creating = now

    def multipart_created(self, multipart_id: str, *, others: bool = False) -> None:
        """`others`: earlier creations, which were given up, may still come."""
        self.creating = self.creating if others else None
        self.multipart_id = multipart_id

    def multipart_gone(self) -> None:
        """The multipart upload is not there any more."""
        self.multipart_id = None

    def buried(self) -> None:
        """No multipart upload of ours is left in the store, and none can come."""
        self.creating = self.multipart_id = None

    def add_receipt(self, receipt: Receipt, hashes: str | None = None) -> None:
        """The store has this part and the checkpoint knows it (law 4), and the state of the running hashes after it."""
        number = receipt.number
        self.receipts[number] = receipt
        if hashes is not None:
            self.hashes[number] = hashes
        for earlier in (number - 1, number):  # its successor has its own: nobody goes on from there any more
            if earlier + 1 in self.receipts:
                self.hashes.pop(earlier, None)

    def announce_completion(self, replaces: str | None = None) -> None:
        """The store is about to be asked for the object (law 5)."""
        if self.state is not State.COMPLETING:
            self._become(State.COMPLETING)
            self.replaces = replaces

    def finish(self, stored_object: StoredObject, now: float) -> None:
        """The object is visible, and it is ours."""
        self._become(State.COMPLETE)
        self.stored_object, self.ended, self.offset = stored_object, now, stored_object.size
        self.multipart_gone()

    # -- the other ends -----------------------------------------------------------------------------------------

    def cancel(self, now: float) -> None:
        """Raises `UploadBusy` once completion was announced: nobody knows then whether there is an object."""
        self._end(State.CANCELLED, now, None)

    def expire(self, now: float) -> None:
        self._end(State.EXPIRED, now, None)

    def fail(self, reason: str, now: float) -> None:
        """Fail closed (law 10), with a reason for the person who asks."""
        self._end(State.FAILED, now, reason)

    @property
    def unconfirmed(self) -> bool:
        """Whether every byte is here, as far as anybody has said how many there are, and the object is not.

        That is also an open upload whose last byte came without the word that it is the last, or whose completion was
        refused. There are clients that take such an offset for success.
        """
        return self.state in LIVE and (self.state is not State.OPEN or self.offset == self.length)

    def expires(self, seconds: float) -> float | None:
        """When it will expire: only an open upload without a writer does."""
        return self.touched + seconds if self.state is State.OPEN and self.touched is not None else None

    def recover(self, received: int, now: float) -> None:
        """What a restart found: `received` bytes under receipts and in verified part files (law 10)."""
        self.withdraw()
        self.received = received
        self.receipts = {n: r for n, r in self.receipts.items() if self.layout.part(n).start < received}
        if self.touched is None:
            self.touched = now
        if self.state is State.COMPLETING:
            return  # the store may have the object already: only it can tell what is lost
        if received < self.offset:
            self.fail("state lost: bytes that were promised are not on the disk any more", now)
        elif self.state is State.SEALED and received != self.size:
            self._become(State.OPEN)
            self.size = self.sealed_order = None

    def _end(self, state: State, now: float, reason: str | None) -> None:
        self._become(state)
        self.reason, self.ended = reason, now

    def _become(self, state: State) -> None:
        if state not in ALLOWED[self.state]:
            if self.state in LIVE:
                raise UploadBusy(f"This upload is {self.state}; it cannot become {state} now.")
            raise self.failure or Gone(f"This upload is {self.state}.")
        self.state = state


def smallest(*limits: int | None) -> int | None:
    """Of limits that hold together; None if there is none."""
    return min((limit for limit in limits if limit is not None), default=None)
