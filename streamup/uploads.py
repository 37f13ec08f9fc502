"""What a request may do with uploads: create, append, inspect, look, cancel; and one writer each (law 6).

Newcomers queue at `Live.entry`, stop the writer that is there, wait until it has settled, and go on from there.
What is let in is `door`'s business, what keeps uploads alive between requests `registry`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

from streamup import audit
from streamup.accumulator import Accumulator
from streamup.checkpoint import Checkpoint, Holdings
from streamup.config import Config
from streamup.door import Door
from streamup.errors import (
    AlreadyComplete,
    CheckpointDelayed,
    CheckpointError,
    DigestMismatch,
    EmptyBody,
    LengthExceeded,
    OffsetMismatch,
    PreconditionFailed,
    SpoolError,
    UploadBusy,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.grants import Grant, unknown_upload
from streamup.protocols import Append, BodyTerms, Cancel, Create, Inspect, Intent, Look, Watch
from streamup.protocols.documents import upload_document
from streamup.registry import Registry
from streamup.spool import Spool
from streamup.terms import begin_append, judged_whole, seal_at
from streamup.upload import LIVE, State, Upload
from streamup.uploader import Uploader
from streamup.writer import Body, Live, Writer

CLOSES_SECONDS = 0.8
"""How long all waits at the door may take together for who is hurried: of the second in `server.CONTINUE_SECONDS`.
Others have sent their body already: ffmpeg's playlists queue.
"""

SETTLE_SECONDS = 0.6
"""How long a newcomer that would be refused waits for the writer that is there, which may be at its end."""

PROMPT_SECONDS = 1.0
"""A sealed upload that the store confirms within this needs no sync of its own: its bytes are there (law 2)."""

MOST_LISTED = 300
"""Uploads in one list (law 8): each takes the loop 0.05 ms, and everybody's bytes wait meanwhile."""

ASKED = "If-None-Match: * asks for none"

SOMEBODY_ELSES = "Somebody else has an unfinished upload under this key. Use another key."


class Pressure(NamedTuple):
    """What all uploads share: bytes of the spool that are taken or promised, its size, and whether the store answers.

    The names are those that clients see.
    """

    spool_used: int
    spool_size: int
    store_available: bool


class Uploads:
    """Every upload of this process. All public coroutines may be cancelled; what they began is finished by itself."""

    def __init__(
        self,
        config: Config,
        uploader: Uploader,
        checkpoint: Checkpoint,
        spool: Spool,
        *,
        clock: Callable[[], float],
        random_token: Callable[[], str],
        still_known: Callable[[str], bool],
    ) -> None:
        """`random_token` gives names nobody can guess: upload ids, object tokens. `still_known` tells
        whether a credential, by its name, has not been revoked since.
        """
        self._config = config
        self._uploader = uploader
        self._store = uploader.store
        self._checkpoint = checkpoint
        self._spool = spool
        self._clock = clock
        self.still_known = still_known
        self.registry = Registry(
            uploader,
            checkpoint,
            spool,
            expire_seconds=config.expire_seconds,
            max_age_seconds=config.max_age_seconds,
            clock=clock,
            still_known=still_known,
        )
        self.door = Door(config, self.registry, uploader.store, spool, clock=clock, random_token=random_token)
        self._queues = WeakValueDictionary[str, asyncio.Lock]()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Uploads of {self.registry!r}>"

    async def recover(self, boot_id: str) -> None:
        """Take up what an earlier process left, before anything listens.

        Raises `CheckpointError`, `SpoolError`, `StateDirectoryError`.
        """
        await self.registry.recover(boot_id)

    async def stop(self, grace_seconds: float) -> None:
        """Let nobody in, settle every writer (its bytes are kept), and finish what can be finished in that time."""
        self._stopping = True
        await self.registry.stop(grace_seconds)

    def _require_running(self) -> None:
        if self._stopping:
            raise UploadBusy("The server is stopping. What has arrived is kept; go on when it is back.")

    # -- appends ------------------------------------------------------------------------------------------------

    async def create(self, intent: Create, grant: Grant, *, hurried: bool = False) -> Writer:
        """A new upload and its writer; or, by the policy `append`, the open upload of this key and a new writer.

        `hurried`: the client waits for `100 Continue`, and not for long.
        Raises `UploadExists` (policy `reject`), `PreconditionFailed`, `SpoolFull`, `TooLarge`.
        """
        closes = asyncio.get_running_loop().time() + CLOSES_SECONDS if hurried else None
        self._require_running()
        upload = self.door.upload(intent, grant)
        if upload.meta.if_none_match and await self.registry.exists(upload.key):
            raise _taken(upload.key, ASKED if upload.overwrite else "this credential may replace none")
        policy = intent.policy or self._config.interrupted
        if policy == "reject" and not intent.independent:
            await self._let_end(upload.key, grant, closes)
            self._require_running()
        existing = self.registry.open_upload(upload.key)
        if existing and not grant.owns(existing.upload):
            raise UploadExists(SOMEBODY_ELSES)
        if existing is None or intent.independent:
            return await self._begin(upload, intent)
        existing.require_fresh()
        if policy == "append":
            none = intent.description.if_none_match
            return await self._take_over(existing, None, intent.body, grant, if_none_match=none, may_be_empty=False)
        if policy == "reject":
            async with _until(closes):  # after that an older offset is told, which is durable, too (law 2)
                await self.announce(existing)
            raise _exists(existing)
        if policy == "new":
            await self.door.rename(upload, grant)
        return await self._begin(upload, intent, existing if policy == "replace" else None)

    async def append(self, intent: Append, grant: Grant) -> Writer:
        """A writer at `intent.offset`; stops the one before. Raises `OffsetMismatch`, `Gone`, `UploadBusy`, ...."""
        self._require_running()
        if intent.upload_id is not None:
            return await self._go_on(await self.find(intent.upload_id, grant), intent, grant)
        key = intent.key or ""
        if live := self.open_upload(key, grant):
            return await self._go_on(live, intent, grant)
        if intent.create:
            return await self.create(replace(intent.create, policy="reject"), grant)
        if self.registry.open_upload(key):
            raise UploadExists(SOMEBODY_ELSES)
        ended = await self.newest_ended(key, grant)
        if ended and ended.state is State.COMPLETE:
            raise already_complete(ended)
        raise OffsetMismatch(0, intent.offset, f"No upload of {key} is open. Begin at byte 0.")

    async def write(self, writer: Writer, body: Body) -> Live:
        """Feed the body, settle, seal where it ends. Returns the upload; its outcome is another question.

        Raises `WriterStopped` (interrupted, kept), `BadRequest`, `LengthExceeded` (failed, unless it came with a
        digest), `DigestMismatch`, `EmptyBody`, `SpoolError`, `CheckpointError`. Cancelled: settles all the same, as
        interrupted.
        """
        ending: str | UploadError | SpoolError | None = "cancelled"
        try:
            ending = await writer.feed(body, partial(self._arrived, writer))
        except (UploadError, SpoolError) as error:
            ending = error
        finally:
            settled = self.registry.spawn(self._settle(writer, ending), f"settle {writer.live.upload.id}")
        await asyncio.shield(settled)
        if isinstance(ending, Exception):
            raise ending
        upload = writer.live.upload
        if writer.live.stale:
            raise CheckpointError("the upload is being read again")
        if ending is not None and not writer.sealed:  # also if somebody else has sealed it since: not all of this body
            if upload.failure:
                raise upload.failure
            self.door.require_young(upload)
            raise WriterStopped(f"{ending[:1].upper()}{ending[1:]}. {_ways_on(upload)}", upload.offset)
        return writer.live

    async def outcome(self, live: Live, seconds: float) -> Upload:
        """The upload once it has ended, or as it is after `seconds` or when the server stops; then at least durable.

        Raises what it failed with: `PreconditionFailed`, `Gone`, ...; `CheckpointError` if memory cannot be trusted;
        `UploadBusy` if only the store knows.
        """
        await _within(min(seconds, PROMPT_SECONDS), live.ended, self.registry.released)
        if not live.ended.is_set():
            with suppress(CheckpointDelayed):  # there may be room before the time is over
                await self.registry.announce(live)
            await _within(max(0.0, seconds - PROMPT_SECONDS), live.ended, self.registry.released)
        if not live.ended.is_set():
            await self.registry.announce(live)
        if live.stale:
            raise CheckpointError("the upload is being read again")
        if error := live.upload.failure:
            raise error
        live.upload.require_certain()
        return live.upload

    async def announce(self, live: Live) -> int:
        """The offset that may be told now: what is received, made durable (law 2).

        May be cancelled, and goes on by itself: a sync that fails must have its consequence (law 10).
        """
        return await asyncio.shield(self.registry.spawn(self.registry.announce(live), f"announce {live.upload.id}"))

    # -- questions ----------------------------------------------------------------------------------------------

    async def addressed(self, intent: Intent) -> Upload | None:
        """The upload that an intent names, or the open one of its key that it goes on with, whoever's it is."""
        match intent:
            case Append() | Inspect() | Look() | Watch() | Cancel() if intent.upload_id is not None:
                return await self._find(intent.upload_id)
            case Append(key=str(key)) | Create(key=str(key), policy="append"):
                live = self.registry.open_upload(key)
            case Create(key=str(key), policy=None, independent=False) if self._config.interrupted == "append":
                live = self.registry.open_upload(key)
            case _:
                return None
        return live.upload if live else None

    async def _find(self, upload_id: str) -> Upload | None:
        if live := self.registry.get(upload_id):
            return live.upload
        record = await self._checkpoint.find(upload_id)
        return record.upload if record else None

    async def find(self, upload_id: str, grant: Grant) -> Live:
        """A live upload of one's own. Raises `NotFound`, `Gone` (it has ended), `UploadBusy`."""
        live = self.registry.get(upload_id)
        if live is None:
            upload = await self.look(upload_id, grant)
            raise upload.failure or already_complete(upload)
        if not grant.owns(live.upload):
            raise unknown_upload(upload_id)
        live.require_fresh()
        return live

    async def inspect(self, live: Live) -> Upload:
        """The upload with its writer stopped, so that its offset is the place to go on from (law 6)."""
        async with live.entry:
            await self.registry.stop_writer(live, "another client asked where to go on with this upload")
            live.require_fresh()
            if live.upload.state is State.OPEN:
                await self.registry.announce(live)
        return live.upload

    async def look(self, upload_id: str, grant: Grant) -> Upload:
        """An upload as it is, whatever its state; disturbs nobody. Raises `NotFound`."""
        upload = await self._find(upload_id)
        if upload is None or not grant.owns(upload):
            raise unknown_upload(upload_id)
        return upload

    async def holdings(self) -> Holdings:
        """What of any upload is left, here and in the store."""
        return await self._checkpoint.holdings()

    async def require_checkpoint(self) -> None:
        """Raises `CheckpointError` if what happens to uploads cannot be recorded now."""
        await self._checkpoint.require_writable()

    async def look_all(self, grant: Grant, before: tuple[float, str] | None = None) -> tuple[list[Upload], int]:
        """One's own live uploads, oldest first, then those that ended last; and how many live ones, the oldest, are
        left out because there are too many for one list. `before`: those live ones that are older than this.
        """
        lives = (live.upload for live in self.registry if grant.owns(live.upload))
        aged = sorted(((upload.created, upload.id), upload) for upload in lives)
        if before is not None:
            own = [upload for place, upload in aged if place < before]
        else:
            found = {upload.id: upload for _, upload in aged}
            for upload in await self._checkpoint.ended(grant.subject, 100):
                found.setdefault(upload.id, upload)  # one that has ended meanwhile is there already
            own = [upload for upload in found.values() if grant.owns(upload)]
        left_out = max(0, len(own) - MOST_LISTED)
        return own[left_out:], left_out

    def live(self, upload_id: str, grant: Grant) -> Live | None:
        """The upload if it is live and one's own."""
        live = self.registry.get(upload_id)
        return live if live and grant.owns(live.upload) else None

    def newest(self, key: str, grant: Grant) -> Live | None:
        """The newest live upload of one's own of this key, open ones first."""
        own = [live for live in reversed(self.registry[key]) if grant.owns(live.upload)]
        return next((live for live in own if live.upload.state is State.OPEN), own[0] if own else None)

    def open_upload(self, key: str, grant: Grant) -> Live | None:
        """The newest open upload of one's own of this key."""
        live = self.newest(key, grant)
        return live if live and live.upload.state is State.OPEN else None

    async def newest_ended(self, key: str, grant: Grant) -> Upload | None:
        """Of the uploads of this key that have ended, the one created last, if it is one's own and is still known."""
        record = await self._checkpoint.newest_ended(key)
        return record.upload if record and grant.owns(record.upload) else None

    def document(self, upload: Upload) -> dict[str, object]:
        """The upload as JSON for whoever looks."""
        rate = self._rate(upload.id) if upload.state in LIVE else None
        held, expire_seconds = self.held(upload.id), self._config.expire_seconds
        return upload_document(upload, writing=rate is not None, rate=rate, expire_seconds=expire_seconds, held=held)

    def _rate(self, upload_id: str) -> float | None:
        """Bytes a second of the writer that is there now; None if none is."""
        live = self.registry.get(upload_id)
        if live is None or live.writer is None:
            return None
        return live.writer.added / max(_elapsing() - live.writer.began, 0.001)

    def held(self, upload_id: str) -> str | None:
        """Why the store does not take this upload now, though it answers; None if it does."""
        return self._uploader.held(upload_id)

    def pressure(self) -> Pressure:
        """How it goes."""
        budget = self._spool.budget
        return Pressure(budget.reserved, budget.size, self._uploader.answering)

    # -- ends ---------------------------------------------------------------------------------------------------

    async def cancel(self, live: Live) -> None:
        """Give the upload up. Raises `UploadBusy` once completion was announced (then nobody knows yet)."""
        async with live.entry:
            await self.registry.stop_writer(live, "the upload was cancelled")
            live.require_fresh()
            if live.upload.state is State.COMPLETE:
                raise AlreadyComplete("There is nothing left to cancel; DELETE the object instead.")
            live.upload.cancel(self._clock())
            await asyncio.shield(self.registry.spawn(self.registry.end(live), f"end {live.upload.id}"))

    async def remove(self, key: str, grant: Grant) -> None:
        """Remove what is under a key: its open uploads, then its object once uploads sealed earlier have ended (law 9).

        Raises `UploadExists` (somebody else's is open), `StoreError`, `UploadBusy` when those take longer than the
        store's time.
        """
        for live in self.registry[key]:
            if live.upload.state is State.OPEN and not grant.owns(live.upload):
                raise UploadExists(SOMEBODY_ELSES)
        for live in self.registry[key]:
            if live.upload.state is State.OPEN:
                with suppress(UploadBusy):  # sealed meanwhile
                    await self.cancel(live)
        for live in self.registry[key]:
            if live.upload.state is not State.OPEN and not await _within(
                self._config.store_timeout_seconds, live.ended
            ):
                raise UploadBusy("An upload to this key is being completed. Delete it when that is done.")
        await self._store.delete(key)
        audit.deleted(key)

    # -- one writer ---------------------------------------------------------------------------------------------

    async def _begin(self, upload: Upload, intent: Create, replaces: Live | None = None) -> Writer:
        """From now on there is this upload, and its first writer."""
        body = judged_whole(intent.body)
        self.door.admit(upload, body)
        terms = replace(self.door.terms(body, 0, upload), creates=True, insists=intent.policy == "replace")
        begin_append(upload, None, body, seal_at(body, 0, body.length))
        live = Live(upload, Accumulator(upload, self._spool))
        self.registry.take_up(live)
        writer = await self._enter(Writer(live, terms, _elapsing(), replaces))
        audit.created(upload)
        return writer

    async def _go_on(self, live: Live, intent: Append, grant: Grant) -> Writer:
        upload, none = live.upload, intent.if_none_match
        if none and await self.registry.exists(upload.key) and upload.state is State.OPEN:  # else it may be its own
            raise _taken(upload.key, ASKED)
        return await self._take_over(live, intent.offset, intent.body, grant, if_none_match=none)

    async def _take_over(
        self,
        live: Live,
        offset: int | None,
        body: BodyTerms,
        grant: Grant,
        *,
        if_none_match: bool,
        may_be_empty: bool = True,
    ) -> Writer:
        """Stop the writer that is there, wait until it has settled, and be the writer (law 6).

        `offset` None is the policy `append`: wherever the upload is; an empty body then adds and seals nothing.
        """
        upload = live.upload
        self.door.readmit(upload, body, grant, if_none_match=if_none_match)
        async with live.entry:
            upload.require_open()
            await self.registry.stop_writer(live, "another request went on with this upload")
            live.require_fresh()
            start = upload.received
            if offset not in {None, start} or body.digests:
                # The refusal tells the offset; and a provisional append leaves nothing to announce before its end.
                await self.registry.announce(live)
                live.require_fresh()
            length = upload.length if body.length is None else body.length
            end = seal_at(body, start, length)
            if not may_be_empty and (end == start or body.content_length == 0):
                end = None  # what adds nothing must not end it: now, later, or after a crash
            guarded = dict(upload.guards)
            begin_append(upload, offset, body, end)
            upload.credential = grant.credential
            upload.narrow(max_bytes=grant.max_bytes, overwrite=grant.overwrite and not if_none_match)
            terms = replace(self.door.terms(body, start, upload), may_be_empty=may_be_empty, guarded=guarded)
            return await self._enter(Writer(live, terms, _elapsing()))

    async def _let_end(self, key: str, grant: Grant, closes: float | None) -> None:
        """Before a newcomer is refused: let a writer settle whose body has ended or may end at once. One after another.

        A playlist that is PUT again has a predecessor which is all here, but not sealed yet; its client has gone and
        reads no 409. Meanwhile the disk makes durable what a refusal will tell. Somebody else's is not waited for.
        """
        arrived = _elapsing()
        async with _until(closes), self._queues.setdefault(key, asyncio.Lock()):  # fair: who came first goes in first
            while (existing := self.open_upload(key, grant)) and (writer := existing.writer):
                if writer.feeding:
                    self.registry.spawn(self.registry.announce(existing), f"announce {existing.upload.id}")
                patience = SETTLE_SECONDS - (_elapsing() - max(arrived, writer.began))
                if not await _within(max(patience, 0.05), writer.settled) and writer.feeding:
                    return

    async def _enter(self, writer: Writer) -> Writer:
        """Be the writer, once the client's word is committed (law 5)."""
        writer.live.writer = writer
        try:
            async with self.registry.committing(writer.live):
                await self._checkpoint.save(writer.live.upload)
            writer.live.require_fresh()
        except BaseException:
            writer.live.upload.withdraw()  # it was never there
            writer.live.upload.end_append(self._clock())  # the upload may expire
            self._leave(writer)
            raise
        return writer

    def _leave(self, writer: Writer) -> None:
        if writer.live.writer is writer:
            writer.live.writer = None
            self.registry.received_bytes += writer.added
        writer.settled.set()

    async def _arrived(self, writer: Writer) -> None:
        """The first bytes of a body are here, and they count: now an upload that it replaces may go."""
        if (old := writer.replaces) and writer.live.upload.provisional is None:
            await asyncio.shield(self.registry.spawn(self._give_way(old), f"replace {old.upload.id}"))

    async def _give_way(self, old: Live) -> None:
        """Policy `replace`: an open upload is cancelled; one that has sealed meanwhile completes, before this one."""
        async with old.entry:
            await self.registry.stop_writer(old, "another request replaced this upload")
            if old.upload.state is State.OPEN and not old.stale:
                old.upload.cancel(self._clock())
                await self.registry.end(old)

    async def _settle(self, writer: Writer, ending: str | UploadError | SpoolError | None) -> None:
        """The writer has ended: seal, fail, or keep; commit that; let the next one in."""
        live, upload = writer.live, writer.live.upload
        try:
            live.accumulator.suspend()
            upload.end_append(self._clock())
            if _goes_on(live):
                await self._judge(writer, ending)
            if _goes_on(live):
                await self._seal_or_keep(writer, ending)
        finally:
            self._leave(writer)

    async def _judge(self, writer: Writer, ending: str | UploadError | SpoolError | None) -> None:
        """Whether the upload goes on after this append, and whether what was provisional counts."""
        live, terms = writer.live, writer.terms
        if isinstance(ending, SpoolError):
            await self.registry.fail(live, f"spool: {ending}")
        elif isinstance(ending, LengthExceeded) and not terms.digests:
            await self.registry.fail(live, f"length: {ending}")
        elif isinstance(ending, DigestMismatch) and terms.creates:  # nobody knows of this upload but who is told now
            live.upload.cancel(self._clock())
            await self.registry.end(live)
        elif terms.digests and ending is None:
            await self.registry.confirm(live, terms.guards)
            await self._arrived(writer)
        elif terms.digests:
            await self.registry.withdraw(live)

    async def _seal_or_keep(self, writer: Writer, ending: str | UploadError | SpoolError | None) -> None:
        live, upload = writer.live, writer.live.upload
        if isinstance(ending, UploadError):
            _take_back(writer)
        if ending is None and not writer.added:
            await self._check_empty(writer)
        if upload.due or (ending is None and _is_all(writer)):
            await self.registry.seal(live)
            writer.sealed = True
        if upload.state is State.OPEN:
            await self.registry.keep(live)

    async def _check_empty(self, writer: Writer) -> None:
        """A clean end without a byte. Raises `EmptyBody` where that would replace or end something by accident."""
        terms, live = writer.terms, writer.live
        if not terms.may_be_empty:
            _take_back(writer)
            await self.registry.keep(live)
            raise EmptyBody(f"An empty body appends nothing and ends nothing. {_ways_on(live.upload)}")
        if (
            (terms.creates and terms.seals and terms.chunked)
            and not terms.insists
            and (writer.replaces or await self.registry.exists(live.upload.key, unsure=True))
        ):
            live.upload.cancel(self._clock())
            await self.registry.end(live)
            raise EmptyBody(
                "An empty chunked body does not replace what is under this key. Send `Content-Length: 0` for an empty "
                "object, or insist with ?interrupted=replace."
            )
        await self._arrived(writer)


@asynccontextmanager
async def _until(deadline: float | None) -> AsyncIterator[None]:
    """At the deadline (the loop's time), if there is one, what is in the context is left, and that is no error."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            yield


def _elapsing() -> float:
    """Seconds that only pass: a wall clock may be set back."""
    return asyncio.get_running_loop().time()


async def _within(seconds: float, *events: asyncio.Event) -> bool:
    """Whether one of the events is set within this time."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return bool(done)


def _goes_on(live: Live) -> bool:
    return live.upload.state is State.OPEN and not live.stale


def _take_back(writer: Writer) -> None:
    """What was said of the upload with a body that is refused."""
    writer.live.upload.seal_at = None
    if not writer.terms.digests:  # else it does not count yet
        writer.live.upload.guards = dict(writer.terms.guarded)


def _is_all(writer: Writer) -> bool:
    """Whether a body that has ended cleanly was the last one."""
    limit = writer.terms.limit
    return writer.terms.seals and (limit is None or writer.live.upload.received == limit)


def _taken(key: str, why: str) -> PreconditionFailed:
    return PreconditionFailed(f"There is an object under {key}, and {why}. Use another key.")


def already_complete(upload: Upload) -> AlreadyComplete:
    """Nothing can be added to an object."""
    return AlreadyComplete(
        f"It is the object {upload.key}, with {upload.size} bytes. Begin at byte 0 for another.", upload.size
    )


def _exists(live: Live) -> UploadExists:
    warning = "Somebody is sending to this key now, and going on would stop them. " if live.writer else ""
    return UploadExists(warning + _ways_on(live.upload), live.upload.id, live.upload.offset)


def _ways_on(upload: Upload) -> str:
    at = upload.offset
    return (
        f"{at} bytes of an unfinished upload are kept. Go on with `Content-Range: bytes {at}-*/*` (curl -C {at} -T "
        f"FILE for a file) or ?interrupted=append; start afresh with ?interrupted=replace; give it up with DELETE "
        f"/uploads/{upload.id}."
    )
