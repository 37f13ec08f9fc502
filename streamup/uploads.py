"""All uploads: create, append, inspect, cancel, expire, recover; one writer each.

A `Live` upload is one that still holds bytes or promises, with what moves it: its part accumulator, its drain into
the store, and at most one `Writer` (law 6). Newcomers queue at `Live.turn`, stop the writer, wait until it has
settled, and go on from there. Ended uploads are rows of the checkpoint only.

Each change follows one pattern: a synchronous transition of `Upload`, then its commit. If the commit fails, the
upload is dropped from memory and read again, and nothing is answered from it (law 4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Protocol

from streamup.accumulator import Accumulator
from streamup.checkpoint import Checkpoint, Record
from streamup.config import Config
from streamup.errors import (
    BadRequest,
    CheckpointError,
    EmptyBody,
    LengthExceeded,
    NotFound,
    PreconditionFailed,
    SpoolError,
    SpoolFull,
    StoreError,
    StoreUnavailable,
    TooLarge,
    UploadBusy,
    UploadError,
    UploadExists,
    WriterStopped,
)
from streamup.layout import Layout, choose_layout
from streamup.protocols import Append, BodyTerms, Create
from streamup.recovery import remove_strangers, survey
from streamup.spool import Spool
from streamup.stores import Checksum, ObjectMeta
from streamup.upload import LIVE, State, Upload
from streamup.uploader import Drain, Uploader

DOOR_SECONDS = 0.6
"""How long the store may take to say whether a key exists before a body is let in. curl waits 1 s for 100 Continue."""

PROMPT_SECONDS = 1.0
"""A sealed upload that the store confirms within this needs no sync of its own: its bytes are there (law 2)."""

KEEP_SECONDS = 24 * 3600.0
"""How long the outcome of an upload can be asked for."""

UPKEEP_SECONDS = 30.0
"""How often expired uploads are looked for. An expiry that is shorter is looked for as often as itself."""

log = logging.getLogger(__name__)


class Body(Protocol):
    """The body of one request, as body.py reads it from a socket."""

    interrupted: str | None
    """Why the body ended, None after a clean end."""

    async def read(self) -> bytes:
        """The next bytes; none at the end, whatever the end was. May be cancelled without losing any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one append may do, in positions: `limit` it must not pass; `seals` if it ends cleanly (at `limit`)."""

    start: int
    limit: int | None
    seals: bool
    chunked: bool
    creates: bool = False
    insists: bool = False
    may_be_empty: bool = True
    ceiling: int | None = None


class Writer:
    """The one live append of an upload: feeds a body into the accumulator until it ends, or is stopped."""

    def __init__(self, live: Live, terms: Terms, now: float, replaces: Live | None = None) -> None:
        self.live = live
        self.terms = terms
        self.began = now
        self.replaces = replaces
        self.settled = asyncio.Event()
        self.stopped: str | None = None
        self._scope: asyncio.Timeout | None = None

    @property
    def added(self) -> int:
        """Bytes received from this writer."""
        return self.live.upload.received - self.terms.start

    def stop(self, reason: str) -> None:
        """End at once, wherever it waits: it drains nothing and seals nothing (law 6)."""
        self.stopped = self.stopped or reason
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def feed(self, body: Body, arrived: Callable[[], Coroutine[Any, Any, None]]) -> str | None:
        """Returns None after a clean end, else why it ended. `arrived` is awaited once, at the first bytes.

        Raises `BadRequest` (a byte too many) and `SpoolError`. It is cancelled by `stop` through its timeout only.
        """
        try:
            async with asyncio.timeout(None) as self._scope:
                if self.stopped:
                    return self.stopped
                await self.live.accumulator.resume()
                while chunk := await body.read():
                    if not self.added:
                        await arrived()
                    self._check_ceiling(len(chunk))
                    await self.live.accumulator.add(chunk, limit=self.terms.limit)
                return body.interrupted
        except TimeoutError:
            return self.stopped or "stopped"
        finally:
            self._scope = None

    def _check_ceiling(self, size: int) -> None:
        ceiling = self.terms.ceiling
        if ceiling is not None and self.live.upload.received + size > ceiling:
            raise TooLarge(f"An upload may have {ceiling} bytes here.", limit=ceiling)


class Live:
    """An upload in memory, and what moves it."""

    def __init__(self, upload: Upload, accumulator: Accumulator) -> None:
        self.upload = upload
        self.accumulator = accumulator
        self.writer: Writer | None = None
        self.turn = asyncio.Lock()
        self.syncing = asyncio.Lock()
        self.ended = asyncio.Event()
        self.stale = False
        self.drain: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Live {self.upload.id} {self.upload.state} {self.upload.received} writer={self.writer is not None}>"


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
    ) -> None:
        """`random_token` gives names nobody can guess: upload ids, object tokens."""
        self._config = config
        self._uploader = uploader
        self._store = uploader.store
        self._checkpoint = checkpoint
        self._spool = spool
        self._clock = clock
        self._random_token = random_token
        self._live: dict[str, Live] = {}
        self._by_key: dict[str, list[Live]] = {}
        self._tasks = set[asyncio.Task[Any]]()
        self._last_order = 0
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Uploads {len(self._live)} live, {self._spool.budget!r}, {self._uploader.slots!r}>"

    # -- start and stop -----------------------------------------------------------------------------------------

    async def recover(self, boot_id: str) -> None:
        """Take up what an earlier process left, before anything listens. Raises `CheckpointError`, `SpoolError`."""
        same_boot = await self._checkpoint.boot_id() == boot_id
        self._last_order = await self._checkpoint.last_order()
        records = await self._checkpoint.unfinished()
        live = [record for record in records if record.upload.state in LIVE]
        await asyncio.to_thread(remove_strangers, self._spool, {record.upload.id for record in live})
        found = [await self._restore(record, same_boot=same_boot) for record in live]
        known = {one.upload.id: synced for one, synced in found}
        await self._checkpoint.settle_recovery([one.upload for one, _ in found], boot_id, known)
        for one, _ in found:
            self._take_up(one)
        for record in records:
            if record.upload.state not in LIVE:
                self._spawn(self._bury(record.upload), f"bury {record.upload.id}")
        self._spawn(self._upkeep(), "upkeep")

    async def stop(self, grace_seconds: float) -> None:
        """Settle every writer (its bytes are kept), let what is sealed or in flight finish in the time given, and end."""
        self._stopping = True
        writers = [live.writer for live in self._live.values() if live.writer]
        for writer in writers:
            writer.stop("the server is stopping")
        await asyncio.gather(*(writer.settled.wait() for writer in writers))
        await self._finish_parts(grace_seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for live in self._live.values():
            live.accumulator.suspend()

    async def _finish_parts(self, grace_seconds: float) -> None:
        if not self._uploader.available:
            return
        sealed = [live.ended.wait() for live in self._live.values() if live.upload.state is not State.OPEN]
        in_flight = [self._uploader.slots.idle()]
        try:
            async with asyncio.timeout(grace_seconds):
                await asyncio.gather(*sealed, *in_flight)
        except TimeoutError:
            log.warning("stopped with parts in flight; they are kept, and go on at the next start")

    @property
    def writers(self) -> int:
        """Appends under way."""
        return sum(live.writer is not None for live in self._live.values())

    # -- appends ------------------------------------------------------------------------------------------------

    async def create(self, intent: Create, subject: str) -> Writer:
        """A new upload and its writer; or, by the policy `append`, the open upload of this key and a new writer.

        Raises `UploadExists` (policy `reject`), `PreconditionFailed`, `SpoolFull`, `TooLarge`.
        """
        self._require_running()
        if intent.description.if_none_match and await self._exists(intent.key):
            raise PreconditionFailed(f"There is an object under {intent.key}, and If-None-Match: * asks for none.")
        policy = intent.policy or self._config.interrupted
        existing = self._open(intent.key)
        if existing and existing.upload.subject != subject:
            raise UploadExists("Somebody else has an unfinished upload under this key. Use another key.")
        if existing and policy == "append":
            return await self._append_here(existing, intent)
        if existing and policy == "reject":
            await self.announce(existing)
            raise _exists(existing.upload)
        if existing and policy == "new":
            intent = await self._renamed(intent)
        return await self._create(intent, subject, existing if policy == "replace" else None)

    async def append(self, intent: Append, subject: str) -> Writer:
        """A writer at `intent.offset`; stops the one before. Raises `OffsetMismatch`, `NotFound`, `Gone`, `UploadBusy`."""
        self._require_running()
        if intent.upload_id is not None:
            return await self._continue(await self.find(intent.upload_id, subject), intent)
        key = intent.key or ""
        if live := self._open(key, subject):
            return await self._continue(live, intent)
        if intent.create:
            return await self.create(replace(intent.create, policy="reject"), subject)
        raise _nothing_open(key, intent.offset)

    async def write(self, writer: Writer, body: Body) -> Live:
        """Feed the body, settle, seal where it ends. Returns the upload; its outcome is another question.

        Raises `WriterStopped` (interrupted, kept), `BadRequest`, `LengthExceeded` (failed), `EmptyBody`, `SpoolError`,
        `CheckpointError`. Cancelled: settles all the same, as interrupted.
        """
        ending: str | UploadError | SpoolError | None = "cancelled"
        try:
            ending = await writer.feed(body, partial(self._arrived, writer))
        except (UploadError, SpoolError) as error:
            ending = error
        finally:
            settled = self._spawn(self._settle(writer, ending), f"settle {writer.live.upload.id}")
        await asyncio.shield(settled)
        if isinstance(ending, Exception):
            raise ending
        upload = writer.live.upload
        if ending is not None and upload.state is State.OPEN:
            raise WriterStopped(f"{ending}; {upload.offset} bytes are kept. {_ways_on(upload)}", upload.offset)
        return writer.live

    async def outcome(self, live: Live, seconds: float) -> Upload:
        """The upload once it has ended, or as it is after `seconds`; then at least durable.

        Raises what it failed with: `PreconditionFailed`, `Gone`, ...; `CheckpointError` if memory cannot be trusted.
        """
        if not await _within(min(seconds, PROMPT_SECONDS), live.ended):
            await self.announce(live)
            await _within(max(0.0, seconds - PROMPT_SECONDS), live.ended)
        if live.stale:
            raise CheckpointError("the upload is being read again")
        if error := live.upload.failure:
            raise error
        return live.upload

    async def announce(self, live: Live) -> int:
        """Make everything received so far durable (law 2). Returns the offset, which may be told.

        Raises `SpoolError` (the upload has failed: a failed sync is never retried) and `CheckpointError`.
        """
        upload = live.upload
        async with live.syncing:
            if upload.offset < upload.received and upload.state in LIVE:
                try:
                    synced = await live.accumulator.sync()
                except SpoolError as error:
                    await self._fail(live, f"spool: {error}")
                    raise
                async with self._committing(live):
                    await self._checkpoint.announce(upload.id, synced.offset, synced.files)
                live.accumulator.committed(synced)
                upload.announce(synced.offset)
        return upload.offset

    # -- questions ----------------------------------------------------------------------------------------------

    async def find(self, upload_id: str, subject: str) -> Live:
        """A live upload of this subject. Raises `NotFound`, `Gone` (it has ended), `UploadBusy`."""
        live = self._live.get(upload_id)
        if live is None:
            upload = await self.look(upload_id, subject)
            raise upload.failure or UploadBusy("This upload is complete.")
        if live.stale:
            raise UploadBusy("This upload is being read again after a fault. Ask again in a moment.")
        if live.upload.subject != subject:
            raise _unknown(upload_id)
        return live

    async def inspect(self, live: Live) -> Upload:
        """The upload with its writer stopped, so that its offset is the place to go on from (law 6)."""
        async with live.turn:
            await self._stop_writer(live, "a client asked for the offset, to go on with this upload")
            if live.upload.state is State.OPEN:
                await self.announce(live)
        return live.upload

    async def look(self, upload_id: str, subject: str) -> Upload:
        """An upload as it is, whatever its state; disturbs nobody. Raises `NotFound`."""
        live = self._live.get(upload_id)
        if live is not None:
            upload = live.upload
        else:
            record = await self._checkpoint.find(upload_id)
            if record is None:
                raise _unknown(upload_id)
            upload = record.upload
        if upload.subject != subject:
            raise _unknown(upload_id)
        return upload

    async def look_all(self, subject: str) -> list[Upload]:
        """This subject's live uploads, oldest first, then those that ended last."""
        live = [live.upload for live in self._live.values() if live.upload.subject == subject]
        ended = [record.upload for record in await self._checkpoint.ended(100)]
        return live + [upload for upload in ended if upload.subject == subject and upload.id not in self._live]

    def live(self, upload_id: str, subject: str) -> Live | None:
        """The upload if it is live and this subject's."""
        live = self._live.get(upload_id)
        return live if live and live.upload.subject == subject else None

    def newest(self, key: str, subject: str) -> Live | None:
        """The newest live upload of this key, open ones first."""
        return self._open(key, subject) or next(
            (live for live in reversed(self._by_key.get(key, [])) if live.upload.subject == subject), None
        )

    def open_upload(self, key: str, subject: str) -> Live | None:
        """The newest open upload of this key, if it is this subject's."""
        return self._open(key, subject)

    async def newest_ended(self, key: str, subject: str) -> Upload | None:
        """The upload of this key that ended last, within the time outcomes are kept."""
        record = await self._checkpoint.newest_ended(key)
        return record.upload if record and record.upload.subject == subject else None

    def rate(self, upload_id: str) -> float | None:
        """Bytes a second of the writer that is there now; None if none is."""
        live = self._live.get(upload_id)
        if live is None or live.writer is None:
            return None
        return live.writer.added / max(self._clock() - live.writer.began, 0.001)

    def room(self) -> None:
        """Raise `SpoolFull` if no newcomer can be let in now."""
        free = self._spool.files.free(self._spool.directory)
        if free < self._config.disk_floor_bytes:
            raise SpoolFull(f"The disk of the spool has {free} bytes left, and {self._config.disk_floor_bytes} are kept.")
        if len(self._live) >= self._config.max_open_uploads:
            raise SpoolFull(f"{len(self._live)} uploads are open, which is the limit. Come back later.")

    # -- ends ---------------------------------------------------------------------------------------------------

    async def cancel(self, live: Live) -> None:
        """Give the upload up. Raises `UploadBusy` once completion was announced (then nobody knows yet)."""
        async with live.turn:
            await self._stop_writer(live, "the upload was cancelled")
            live.upload.cancel(self._clock())
            await asyncio.shield(self._spawn(self._end(live), f"end {live.upload.id}"))

    async def remove(self, key: str, subject: str) -> None:
        """Remove what is under a key: its open uploads, then its object once uploads sealed earlier have ended (law 9).

        Raises `StoreError`, `UploadBusy` when those take longer than the store's time.
        """
        for live in list(self._by_key.get(key, [])):
            if live.upload.state is State.OPEN and live.upload.subject == subject:
                await self.cancel(live)
        for live in list(self._by_key.get(key, [])):
            if live.upload.state is not State.OPEN and not await _within(self._config.store_timeout_seconds, live.ended):
                raise UploadBusy("An upload to this key is being completed. Delete it when that is done.")
        await self._store.delete(key)

    # -- one writer ---------------------------------------------------------------------------------------------

    async def _create(self, intent: Create, subject: str, replaces: Live | None) -> Writer:
        description, body = intent.description, intent.body
        known = body.length if body.length is not None else body.content_length
        limit = self._config.max_upload_bytes
        if limit is not None and known is not None and known > limit:
            raise TooLarge(f"An upload may have {limit} bytes here.", limit=limit)
        layout = self._layout(known)
        self._admit(min(layout.part(1).size, known if known is not None else layout.part(1).size))
        upload = Upload(
            id=self._random_token(),
            key=intent.key,
            subject=subject,
            layout=layout,
            created=self._clock(),
            meta=ObjectMeta(
                token=self._random_token(),
                checksum=description.checksum or Checksum(self._config.checksum),
                if_none_match=description.if_none_match,
                content_type=description.content_type,
                content_encoding=description.content_encoding,
                content_disposition=description.content_disposition,
                cache_control=description.cache_control,
                user=dict(description.user),
            ),
        )
        live = Live(upload, Accumulator(upload, self._spool))
        terms = replace(self._terms(body, 0), creates=True, insists=intent.policy == "replace")
        upload.begin_append(offset=None, length=body.length, seal_at=_seal_at(body, 0))
        self._take_up(live)
        return await self._enter(Writer(live, terms, self._clock(), replaces))

    async def _append_here(self, live: Live, intent: Create) -> Writer:
        """Policy `append`: the body goes on wherever the upload is; an empty one adds nothing and seals nothing."""
        return await self._take_over(live, None, intent.body, may_be_empty=False)

    async def _continue(self, live: Live, intent: Append) -> Writer:
        return await self._take_over(live, intent.offset, intent.body, may_be_empty=True)

    async def _take_over(self, live: Live, offset: int | None, body: BodyTerms, *, may_be_empty: bool) -> Writer:
        """Stop the writer that is there, wait until it has settled, and be the writer (law 6)."""
        upload = live.upload
        async with live.turn:
            upload.require_open()
            await self._stop_writer(live, "another request went on with this upload")
            start = upload.received
            upload.begin_append(offset=offset, length=body.length, seal_at=_seal_at(body, start))
            terms = replace(self._terms(body, start), may_be_empty=may_be_empty)
            return await self._enter(Writer(live, terms, self._clock()))

    async def _enter(self, writer: Writer) -> Writer:
        """Be the writer, once the client's word is committed (law 5)."""
        writer.live.writer = writer
        try:
            async with self._committing(writer.live):
                await self._checkpoint.save(writer.live.upload)
        except BaseException:
            self._leave(writer)
            raise
        return writer

    def _leave(self, writer: Writer) -> None:
        if writer.live.writer is writer:
            writer.live.writer = None
        writer.settled.set()

    async def _stop_writer(self, live: Live, reason: str) -> None:
        if writer := live.writer:
            writer.stop(reason)
            await writer.settled.wait()

    async def _arrived(self, writer: Writer) -> None:
        """The first bytes of a body are here: now an upload that it replaces may go."""
        if (old := writer.replaces) and old.upload.state is State.OPEN:
            await asyncio.shield(self._spawn(self.cancel(old), f"replace {old.upload.id}"))

    async def _settle(self, writer: Writer, ending: str | UploadError | SpoolError | None) -> None:
        """The writer has ended: seal, fail, or keep; commit that; let the next one in."""
        live, upload = writer.live, writer.live.upload
        try:
            live.accumulator.suspend()
            upload.end_append(self._clock())
            if upload.state is not State.OPEN or live.stale:
                return
            if isinstance(ending, LengthExceeded | SpoolError):
                await self._fail(live, f"length: {ending}" if isinstance(ending, LengthExceeded) else f"spool: {ending}")
                return
            if isinstance(ending, UploadError):
                upload.seal_at = None
            if ending is None and not writer.added:
                await self._check_empty(writer)
            if upload.due or (ending is None and _is_all(writer)):
                await self._seal(live)
            if upload.state is State.OPEN:
                await self._settle_open(live)
        finally:
            self._leave(writer)

    async def _settle_open(self, live: Live) -> None:
        await self.announce(live)
        async with self._committing(live):
            await self._checkpoint.save(live.upload)

    async def _seal(self, live: Live) -> None:
        """No more bytes come: the last part leaves the accumulator in the same breath."""
        try:
            live.upload.seal(self._last_order + 1)
        except BadRequest:
            await self._settle_open(live)
            raise
        self._last_order += 1
        live.accumulator.seal()
        async with self._committing(live):
            await self._checkpoint.save(live.upload)

    async def _check_empty(self, writer: Writer) -> None:
        """A clean end without a byte. Raises `EmptyBody` where that would replace or end something by accident."""
        terms, live = writer.terms, writer.live
        if not terms.may_be_empty:
            await self._settle_open(live)
            raise EmptyBody(f"An empty body appends nothing and ends nothing. {_ways_on(live.upload)}")
        if not (terms.creates and terms.seals):
            return
        if terms.chunked and not terms.insists and (writer.replaces or await self._exists(live.upload.key, unsure=True)):
            live.upload.cancel(self._clock())
            await self._end(live)
            raise EmptyBody(
                "An empty chunked body does not replace what is under this key. Send `Content-Length: 0` for an empty "
                "object, or insist with ?interrupted=replace."
            )
        await self._arrived(writer)

    # -- the life of a live upload ------------------------------------------------------------------------------

    def _take_up(self, live: Live) -> None:
        """From now on this upload is known, and drains."""
        upload = live.upload
        self._live[upload.id] = live
        self._by_key.setdefault(upload.key, []).append(live)
        if upload.state in LIVE:
            live.drain = self._spawn(self._drain(live), f"drain {upload.id}")
            if upload.due:
                self._spawn(self._seal(live), f"seal {upload.id}")
        else:
            self._spawn(self._end(live), f"end {upload.id}")

    async def _drain(self, live: Live) -> None:
        drain = Drain(self._uploader, live.upload, live.accumulator, partial(self._key_turn, live))
        async with self._committing(live):
            await drain.run()
        self._retire(live)
        if live.upload.state is not State.COMPLETE:
            await self._bury(live.upload)

    async def _key_turn(self, live: Live) -> None:
        """Wait until every upload of this key that was sealed earlier has ended (law 9)."""
        order = live.upload.sealed_order or 0
        while ahead := [
            other
            for other in self._by_key.get(live.upload.key, [])
            if other.upload.sealed_order is not None and other.upload.sealed_order < order
        ]:
            await ahead[0].ended.wait()

    async def _fail(self, live: Live, reason: str) -> None:
        live.upload.fail(reason, self._clock())
        log.error("upload %s failed: %s", live.upload.id, reason)
        await self._end(live)

    async def _end(self, live: Live) -> None:
        """An upload that was cancelled, has expired or failed: stop its drain, commit, leave nothing behind."""
        if live.drain:
            live.drain.cancel()
            await asyncio.wait([live.drain])
        async with self._committing(live):
            await self._checkpoint.save(live.upload)
        self._retire(live)
        self._spawn(self._bury(live.upload), f"bury {live.upload.id}")

    def _retire(self, live: Live) -> None:
        """It has ended, and that is committed: only its row remains."""
        self._drop(live)
        live.accumulator.clear()

    def _drop(self, live: Live) -> None:
        if self._live.get(live.upload.id) is live:
            del self._live[live.upload.id]
        same_key = self._by_key.get(live.upload.key, [])
        if live in same_key:
            same_key.remove(live)
            if not same_key:
                del self._by_key[live.upload.key]
        live.ended.set()

    async def _bury(self, upload: Upload) -> None:
        """Leave nothing of an ended upload in the store, however long that takes."""
        if upload.creating is None and upload.multipart_id is None:
            return
        drain = Drain(self._uploader, upload, Accumulator(upload, self._spool), _no_turn)
        try:
            await drain.abort()
            upload.multipart_gone()
            await self._checkpoint.save(upload)
        except (StoreError, CheckpointError) as error:
            log.warning("upload %s: what is left of it in the store will be aborted later: %s", upload.id, error)

    @asynccontextmanager
    async def _committing(self, live: Live) -> AsyncIterator[None]:
        """A commit of this upload. If it fails, memory is wrong: drop the upload and read it again (law 4)."""
        try:
            yield
        except CheckpointError as error:
            if not live.stale:
                log.exception("upload %s: %s", live.upload.id, error)
                live.stale = True
                self._spawn(self._read_again(live), f"read again {live.upload.id}")
            raise

    async def _read_again(self, live: Live) -> None:
        """Build the upload anew from the checkpoint and the spool, as a restart on the same boot would."""
        await self._stop_writer(live, "the checkpoint cannot be written")
        if live.drain and live.drain is not asyncio.current_task():
            live.drain.cancel()
            await asyncio.wait([live.drain])
        live.accumulator.release()
        delay = 0.5
        while True:
            try:
                record = await self._checkpoint.find(live.upload.id)
                if record is not None and record.upload.state in LIVE:
                    fresh, _ = await self._restore(record, same_boot=True)
                    await self._checkpoint.save(fresh.upload)
                    self._drop(live)
                    self._take_up(fresh)
                self._drop(live)
            except CheckpointError:
                await asyncio.sleep(delay)
                delay = min(2 * delay, UPKEEP_SECONDS)
            else:
                return

    async def _restore(self, record: Record, *, same_boot: bool) -> tuple[Live, Sequence[Any]]:
        """A live upload from its row and its part files."""
        found = await asyncio.to_thread(survey, record, self._spool, same_boot=same_boot)
        upload = record.upload
        upload.recover(found.received, self._clock())
        live = Live(upload, Accumulator(upload, self._spool))
        for file in found.files:
            live.accumulator.adopt(file)
        if not same_boot:
            upload.announce(found.received)
        return live, found.synced

    async def _upkeep(self) -> None:
        """Expire what nobody came back for, and forget what nobody needs to ask for any more."""
        expire = self._config.expire_seconds
        while True:
            await asyncio.sleep(min(UPKEEP_SECONDS, expire / 2))
            now = self._clock()
            for live in list(self._live.values()):
                if live.writer is None and (at := live.upload.expires(expire)) is not None and at <= now:
                    await self._expire(live, now)
            try:
                await self._checkpoint.forget(now - KEEP_SECONDS)
            except CheckpointError as error:
                log.warning("%s", error)

    async def _expire(self, live: Live, now: float) -> None:
        async with live.turn:
            at = live.upload.expires(self._config.expire_seconds)
            if live.writer is None and at is not None and at <= now:
                live.upload.expire(now)
                log.info("upload %s of %s has expired", live.upload.id, live.upload.key)
                await self._end(live)

    # -- the door -----------------------------------------------------------------------------------------------

    def _require_running(self) -> None:
        if self._stopping:
            raise UploadBusy("The server is stopping. What has arrived is kept; go on when it is back.")

    def _admit(self, first_reserve: int) -> None:
        """Refuse at the door what would only wait inside (law 8)."""
        self.room()
        if not self._spool.budget.has_room(first_reserve):
            raise SpoolFull("The spool is full: uploads come in faster than the store takes them. Come back later.")

    def _open(self, key: str, subject: str | None = None) -> Live | None:
        for live in reversed(self._by_key.get(key, [])):
            if live.upload.state is State.OPEN and not live.stale and subject in {None, live.upload.subject}:
                return live
        return None

    def _terms(self, body: BodyTerms, start: int) -> Terms:
        return Terms(
            start=start,
            limit=body.limit,
            seals=body.seals,
            chunked=body.content_length is None,
            ceiling=self._config.max_upload_bytes,
        )

    def _layout(self, length: int | None) -> Layout:
        limits = self._store.limits
        return choose_layout(
            length,
            part_bytes=self._config.part_bytes,
            growing=self._config.layout == "growing" and not limits.equal_parts,
            max_part_bytes=min(limits.max_part_bytes, self._spool.budget.headroom),
            max_parts=limits.max_parts,
        )

    async def _exists(self, key: str, *, unsure: bool = False) -> bool:
        """Whether there is an object now; `unsure` if the store does not say so in time."""
        try:
            async with asyncio.timeout(DOOR_SECONDS):
                return await self._store.head(key) is not None
        except (TimeoutError, StoreUnavailable):
            return unsure

    async def _renamed(self, intent: Create) -> Create:
        """Policy `new`: the first numbered name that is free, created so that it cannot replace anything."""
        path = PurePosixPath(intent.key)
        for number in range(1, 10_000):
            key = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
            if key not in self._by_key and not await self._exists(key):
                description = replace(intent.description, if_none_match=True)
                return replace(intent, key=key, description=description)
        raise UploadExists(f"There are too many numbered versions of {intent.key}.")

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that outlives the request that began it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, UploadError | CheckpointError):
            log.error("%s ended with an error", task.get_name(), exc_info=error)


async def _no_turn() -> None:
    """An upload that will never complete waits for nobody."""


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether the event is set within this time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _seal_at(body: BodyTerms, start: int) -> int | None:
    """The client's word where the upload ends, as far as it is known before the body (law 5)."""
    if not body.seals:
        return None
    if body.content_length is not None:
        return start + body.content_length
    return body.limit if body.limit is not None else body.length


def _is_all(writer: Writer) -> bool:
    """Whether a body that has ended cleanly was the last one."""
    limit = writer.terms.limit
    return writer.terms.seals and (limit is None or writer.live.upload.received == limit)


def _exists(upload: Upload) -> UploadExists:
    return UploadExists(_ways_on(upload), upload.id, upload.offset)


def _ways_on(upload: Upload) -> str:
    at = upload.offset
    return (
        f"{at} bytes of an unfinished upload are kept. Go on with `Content-Range: bytes {at}-*/*` (curl -C {at} -T FILE "
        f"for a file) or ?interrupted=append; start afresh with ?interrupted=replace; give it up with DELETE "
        f"/uploads/{upload.id}."
    )


def _unknown(upload_id: str) -> NotFound:
    return NotFound(f"There is no upload {upload_id[:80]}, or it ended more than a day ago.")


def _nothing_open(key: str, offset: int) -> UploadError:
    return NotFound(f"No upload of {key} is open at byte {offset}. Begin at byte 0.")
