"""Clients of `Uploads`: each is a task that asks, sends, is told, and writes down in the ledger what that was."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from invariants import Broken, Invariant

from sim.ledger import Claim, Model
from streamup.digests import Digest, base64_of
from streamup.errors import (
    CheckpointError,
    DigestMismatch,
    OffsetMismatch,
    SpoolError,
    StoreError,
    UploadBusy,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.grants import Grant
from streamup.protocols import Append, BodyTerms, Create, Description
from streamup.stores import Checksum
from streamup.upload import LIVE, State, Upload
from streamup.uploads import Uploads
from streamup.writer import Live, Writer

if TYPE_CHECKING:
    from sim.process import Process
    from sim.world import World

NAMED = (UploadError, StoreError, CheckpointError, SpoolError)
"""Everything that a request may end with."""

PATIENCE_SECONDS = 8.0
"""How long a client waits for the outcome (`--store-timeout`)."""


FOLLOWS = (0.001, 0.01, 0.2, 1.5)
"""Seconds between two looks at how far it is."""


class SlowBody:
    """A body whose chunks come with time between them. `cut` ends it, in the middle or before its end is known."""

    def __init__(self, claim: Claim, chunks: Sequence[int], pauses: Sequence[float], ending: str | None) -> None:
        self.claim = claim
        self.chunks = list(chunks)
        self.pauses = list(pauses)
        self.ending = ending
        self.interrupted: str | None = None
        self.changed = asyncio.Event()
        self.lost = False

    @property
    def left(self) -> int:
        return self.claim.size - self.claim.taken

    def cut(self) -> None:
        """The connection is reset: nothing more comes."""
        self.lost = True
        self.changed.set()

    async def read(self) -> bytes:
        if not self.lost and (pause := self.pauses.pop(0) if self.pauses else 0.0):
            try:
                async with asyncio.timeout(None if pause < 0 else pause):  # a negative one lasts until somebody cuts it
                    await self.changed.wait()
            except TimeoutError:
                pass
        if self.lost:
            self.interrupted = "reset by the client"
            return b""
        claim = self.claim
        if self.chunks:
            start = (claim.start or 0) + claim.taken
            size = self.chunks.pop(0)
            claim.taken += size
            offset = start - (claim.start or 0)
            return claim.data()[offset : offset + size]
        self.interrupted = self.ending
        if self.ending is None and claim.seals and claim.end is None and not claim.provisional:
            claim.end = (claim.start or 0) + claim.taken
        return b""


@dataclass
class Client:
    """One request with a body, from its head to its answer."""

    world: World
    model: Model
    claim: Claim
    prepare: Callable[[int], Create | Append]
    grant: Grant
    body: SlowBody
    offset: int | None = None
    """Where it goes on; None: where the server says."""
    task: asyncio.Task[None] | None = None
    intent: Create | Append | None = None
    process: Process | None = None

    async def run(self) -> None:
        process = self.process = self.world.process
        entered = False
        try:
            writer = await self._begin(process.uploads)
            if writer is None or process.dead:
                return
            self._enter(writer.live.upload, writer.terms.start)
            entered = True
            following = process.loop.create_task(self._follow(writer.live), name=f"follow {self.model.id}")
            try:
                live = await process.uploads.write(writer, self.body)
            finally:
                following.cancel()
            upload = await process.uploads.outcome(live, PATIENCE_SECONDS)
            if not process.dead:
                self._outcome(upload)
        except NAMED as error:
            if not process.dead:
                self._refused(error, entered=entered)
        finally:
            if not process.dead:
                self._over(entered=entered)

    async def _begin(self, uploads: Uploads) -> Writer | None:
        """Ask to be let in; where an append does not know its offset, after it was told."""
        if self.offset is None:
            upload = await uploads.inspect(await uploads.find(self.model.id, self.grant))
            if self.process.dead or upload.state is not State.OPEN:
                return None
            self.model.announce(upload.offset, "inspect")
            self.offset = upload.offset
        self.intent = self.prepare(self.offset)
        if isinstance(self.intent, Create):
            return await uploads.create(self.intent, self.grant)
        return await uploads.append(self.intent, self.grant)

    async def _follow(self, live: Live) -> None:
        """What it is told while it sends, as by `streamup.reports`: bytes come while others are made durable."""
        with suppress(*NAMED):
            while True:
                await asyncio.sleep(self.world.choices.choice(FOLLOWS))
                offset = await self.process.uploads.announce(live)
                if self.process.dead or live.upload.state is not State.OPEN:
                    return
                self.model.announce(offset, "progress")

    def _enter(self, upload: Upload, start: int) -> None:
        model = self.world.models.get(upload.id)
        if model is None:
            raise Broken(Invariant.KNOWN, f"{upload.id} is nobody's")
        if model is not self.model:  # the policy `append` has gone on with another one
            self.model.refused(self.claim)
            model.faults |= self.model.faults
            model.guards |= self.model.guards
            if start:  # its digests were made for other bytes
                self.claim.honest &= not (self.claim.provisional or self.model.guards)
                model.guards.add(-1)
            self.model = model
            model.asked(self.claim)
        model.known = True
        if upload.length is not None and start + self.claim.size > upload.length:
            model.faults.add("too long")
        model.entered(self.claim, start)
        assert self.intent
        terms = self.intent.body
        if terms.seals_at_length:
            self.claim.end = upload.length
        elif terms.seals and terms.content_length is not None:
            self.claim.end = start + terms.content_length
        elif terms.seals:
            self.claim.end = terms.limit if terms.limit is not None else upload.length
        if self.claim.provisional and not self.claim.honest:
            self.claim.end = None
        model.clients += 1
        model.touched = self.world.now()
        self.world.trace(f"{model.id}: request {self.claim.number} writes from {start}")

    def _outcome(self, upload: Upload) -> None:
        if upload.state in LIVE:
            self.model.announce(upload.offset, "outcome")
        if upload.state is not State.OPEN:
            self.model.promised = True
        if upload.state is State.COMPLETE:
            self.world.judge.require_stored(self.model)
        self.claim.told = str(upload.state)

    def _refused(self, error: Exception, *, entered: bool) -> None:
        self.claim.told = type(error).__name__
        if not entered and not isinstance(error, CheckpointError | UploadBusy):
            self.model.refused(self.claim)
        if isinstance(error, DigestMismatch):
            own = self.claim.provisional and error.numbers["expected-digest"] == _of_body(self.claim)
            others = "wrong digest" in self.model.faults  # have said what the whole must be
            if entered and self.claim.honest and (own or not others):
                raise Broken(Invariant.CLEAN_END, f"{self.model}: {error}")
            self.model.refused(self.claim)
        if isinstance(error, OffsetMismatch):
            target = self.model if entered or not isinstance(self.intent, Append) else self.world.addressed(self.intent)
            if target:
                target.announce(error.expected, "offset mismatch")
        elif isinstance(error, WriterStopped):
            self.model.announce(error.offset, "writer stopped")
        elif isinstance(error, UploadExists) and error.upload_id and error.offset is not None:
            self.world.models[error.upload_id].announce(error.offset, "upload exists")
        self.world.trace(f"{self.model.id}: request {self.claim.number} is told {self.claim.told}")

    def _over(self, *, entered: bool) -> None:
        self.claim.told = self.claim.told or "nothing"
        if entered:
            self.model.clients -= 1
            self.model.touched = self.world.now()
        self.world.clients.remove(self)


SHAPES = (
    "put",
    "chunked",
    "part",
    "chunked part",
    "tus",
    "tus, length later",
    "declared",
    "range",
    "last range",
    "digest",
    "last digest",
    "wrong digest",
    "guard",
    "wrong guard",
    "too long",
)
"""What clients say of their bodies, by which protocol they say it."""


def shaped(shape: str, claim: Claim, model: Model, start: int) -> BodyTerms:
    """What is said of a body that begins at `start`, and written down: from now on the server may know it."""
    claim.start = start
    claim.seals = shape in {"put", "chunked", "declared", "last range", "last digest", "guard", "wrong guard"}
    claim.provisional = "digest" in shape and not (claim.seals and start == 0)
    claim.honest = "wrong" not in shape
    if "guard" in shape or shape == "last digest":
        model.guards.add(claim.number)
    model.faults |= {"too long": {"too long"}, "wrong guard": {"wrong digest"}}.get(shape, set())
    terms = _terms(shape, claim, model.content(start) + claim.data())
    if claim.honest and not claim.provisional:
        if terms.seals_at_length and terms.length is not None:
            claim.end = terms.length
        elif terms.seals and terms.content_length is not None:
            claim.end = start + claim.size
    claim.start = None
    return terms


def _terms(shape: str, claim: Claim, whole: bytes) -> BodyTerms:  # noqa: PLR0911 - one for each shape
    end, seals, size = len(whole), claim.seals, claim.size
    match shape:
        case "chunked" | "chunked part":
            return BodyTerms(content_length=None, seals=seals)
        case "too long":  # its framing does not tell that before the byte that is too many
            return BodyTerms(content_length=None, seals=False, length=max(end - 1, end - size), seals_at_length=True)
        case "tus":
            length = end + claim.number % 3 * 11 if claim.start == 0 else None
            return BodyTerms(content_length=size, seals=False, seals_at_length=True, length=length)
        case "tus, length later":
            return BodyTerms(content_length=size, seals=False, seals_at_length=True)
        case "range" | "last range":
            return BodyTerms(content_length=size, seals=seals, limit=end, length=end if seals else None)
        case "digest" | "wrong digest" | "last digest":
            digests = (_digest(claim.data(), right=claim.honest),)
            return BodyTerms(content_length=size, seals=seals, digests=digests)
        case "guard" | "wrong guard":
            return BodyTerms(content_length=size, seals=True, guards=(_digest(whole, right=claim.honest),))
        case _:
            return BodyTerms(content_length=size, seals=seals, declares=shape == "declared")


def _of_body(claim: Claim) -> str:
    """The right digest of what one request sends."""
    return base64_of(_digest(claim.data(), right=True).value)


def _digest(data: bytes, *, right: bool) -> Digest:
    return Digest("sha256", hashlib.sha256(data if right else data + b"!").digest())


def described(choices: random.Random, kept: Collection[Checksum], *, conditional: bool) -> Description:
    """What is to be stored beside the bytes."""
    return Description(
        checksum=choices.choice((None, *sorted(kept))),
        if_none_match=conditional and choices.random() < 0.15,
        wanted=("sha256",) if choices.random() < 0.2 else (),
    )
