"""The live uploads of this process: taken up, drained, sealed, ended, read again, recovered, expired.

Each change follows one pattern: a synchronous transition of `Upload`, then its commit. If the commit fails, the
upload is dropped from memory and read again, and nothing is answered from it (law 4). Ended uploads are rows of the
checkpoint only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from streamup import audit
from streamup.accumulator import Accumulator
from streamup.checkpoint import Checkpoint, Record, SyncedFile
from streamup.digests import Digest
from streamup.drain import Drain
from streamup.errors import (
    BadRequest,
    CheckpointDelayed,
    CheckpointError,
    Forbidden,
    PreconditionFailed,
    SpoolError,
    StateDirectoryError,
    StoreError,
    StoreUnavailable,
    UploadError,
)
from streamup.failpoints import failpoint
from streamup.recovery import part_names, survey
from streamup.spool import Spool
from streamup.upload import LIVE, State, Upload
from streamup.uploader import Uploader
from streamup.writer import Live

KEEP_SECONDS = 24 * 3600.0
"""How long the outcome of an upload can be asked for."""

KEEP_MOST = 10_000
"""... and of how many (law 8). A row is about 1 KB: some 10 MB."""

ANNOUNCE_SECONDS = 1.0
"""While a writer is there, its upload is synced for those who ask at most this often (law 2)."""

LOOK_SECONDS = 0.6
"""How long the store may take to say whether there is an object: of the second in `server.CONTINUE_SECONDS`."""

REREAD_SECONDS = 0.25

UPKEEP_SECONDS = 30.0
"""How often expired uploads are looked for. An expiry that is shorter is looked for as often as itself."""

log = logging.getLogger(__name__)


class Registry:
    """Every live upload, by id and by key, and the tasks that move them."""

    def __init__(
        self,
        uploader: Uploader,
        checkpoint: Checkpoint,
        spool: Spool,
        *,
        expire_seconds: float,
        max_age_seconds: float | None,
        clock: Callable[[], float],
        still_known: Callable[[str], bool],
    ) -> None:
        self._uploader = uploader
        self._checkpoint = checkpoint
        self._spool = spool
        self._expire_seconds = expire_seconds
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._still_known = still_known
        self._live: dict[str, Live] = {}
        self._by_key: dict[str, list[Live]] = {}
        self._by_subject = Counter[str]()
        self._tasks = set[asyncio.Task[Any]]()
        self._last_order = 0
        self.released = asyncio.Event()
        """Set when this process will complete nothing more: whoever waits for an outcome need not."""
        self.received_bytes = 0
        """What writers that have left had added since the start."""
        self.ended = Counter[State]()
        """Uploads that have ended since the start, by outcome."""
        self.on_end: Callable[[Upload], None] = _nobody_asks
        """Is told of each upload that has ended, once that is committed."""

    def __repr__(self) -> str:
        return f"<Registry {len(self._live)} live, {self._spool.budget!r}, {self._uploader.slots!r}>"

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Live]:
        """Oldest first."""
        return iter(list(self._live.values()))

    def __getitem__(self, key: str) -> Sequence[Live]:
        """The live uploads of a key, oldest first."""
        return tuple(self._by_key.get(key, ()))

    def count(self, subject: str) -> int:
        """How many live uploads are this subject's."""
        return self._by_subject[subject]

    def get(self, upload_id: str) -> Live | None:
        return self._live.get(upload_id)

    def open_upload(self, key: str) -> Live | None:
        """The newest open upload of a key."""
        return next((live for live in reversed(self[key]) if live.upload.state is State.OPEN), None)

    def received(self) -> int:
        """Bytes received since the start that were kept."""
        # What is provisional may still be taken back, and what is counted must not fall.
        adding = (live.writer.added for live in self if live.writer and not live.writer.terms.digests)
        return self.received_bytes + sum(adding)

    # -- start and stop -----------------------------------------------------------------------------------------

    async def recover(self, boot_id: str) -> None:
        """Take up what an earlier process left, before anything listens.

        Raises `CheckpointError`, `SpoolError`, `StateDirectoryError`.
        """
        last_boot = await self._checkpoint.boot_id()
        same_boot = last_boot == boot_id
        self._last_order = await self._checkpoint.last_order()
        records = await self._checkpoint.unfinished()
        names = await asyncio.to_thread(part_names, self._spool)
        if names and last_boot is None:
            raise StateDirectoryError(
                f"{self._spool.directory} has part files, and the checkpoint beside it knows nothing: it is new, empty "
                "or without its -wal. Put back the one that belongs to them; or move these files away, and streamup "
                "starts without their uploads."
            )
        found = [
            await self._restore(record, names.pop(record.upload.id, []), same_boot=same_boot)
            for record in records
            if record.upload.state in LIVE
        ]
        await self._remove_strangers(names)
        known = {live.upload.id: synced for live, synced in found}
        await self._checkpoint.settle_recovery([live.upload for live, _ in found], boot_id, known)
        for live, _ in found:
            self.take_up(live)
            self._seal_due(live)
        if found:
            log.info("%d unfinished uploads of an earlier process go on", len(found))
        for record in records:
            if record.upload.state not in LIVE:
                self.spawn(self._bury(record.upload), f"bury {record.upload.id}")
        self.spawn(self._upkeep(), "upkeep")

    async def _remove_strangers(self, names: dict[str, list[str]]) -> None:
        """What ended uploads have left is nobody's. What no row knows may be wanted: the checkpoint may be an older one
        than these files, or they are none of ours.
        """
        ended = await self._checkpoint.known(list(names))
        for name in (name for upload_id in ended for name in names[upload_id]):
            self._spool.files.unlink(self._spool.directory / name)
        if unknown := sum(len(group) for upload_id, group in names.items() if upload_id not in ended):
            log.warning(
                "%d files in %s belong to no upload that is known here. They are left there, and count for nothing: "
                "`streamup sweep` lists them",
                *(unknown, self._spool.directory),
            )

    async def stop(self, grace_seconds: float) -> None:
        """Settle every writer (its bytes are kept), let what is sealed or in flight finish in that time, and end."""
        await asyncio.gather(*(self.stop_writer(live, "the server is stopping") for live in self))
        await self._finish_parts(grace_seconds)
        self.released.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for live in self:
            live.accumulator.suspend()

    async def _finish_parts(self, grace_seconds: float) -> None:
        if not self._uploader.available:
            return
        ending = [live for live in self if live.upload.state is not State.OPEN and not live.stale]
        sealed = [live.ended.wait() for live in ending if self._uploader.held(live.upload.id) is None]
        in_flight = [self._uploader.slots.idle()]
        try:
            async with asyncio.timeout(grace_seconds):
                await asyncio.gather(*sealed, *in_flight)
        except TimeoutError:
            log.warning("stopped with parts in flight; they are kept, and go on at the next start")

    # -- a live upload ------------------------------------------------------------------------------------------

    def _seal_due(self, live: Live) -> None:
        """All that the client announced was there when the process died: the upload seals itself (law 5)."""
        if live.upload.due:
            self.spawn(self._seal_if_due(live), f"seal {live.upload.id}")

    async def _seal_if_due(self, live: Live) -> None:
        async with live.entry:
            try:
                if live.upload.due:
                    await self.seal(live)
            except UploadError as error:
                log.warning("upload %s of %s stays open: %s", live.upload.id, live.upload.key, error)

    def take_up(self, live: Live) -> None:
        """From now on this upload is known, and drains."""
        upload = live.upload
        self._live[upload.id] = live
        self._by_key.setdefault(upload.key, []).append(live)
        self._by_subject[upload.subject] += 1
        if upload.state in LIVE:
            live.drain = self.spawn(self._drain(live), f"drain {upload.id}")
        else:
            self.spawn(self.end(live), f"end {upload.id}")

    async def announce(self, live: Live) -> int:
        """Make everything received so far durable (law 2). Returns the offset, which may be told.

        Raises `SpoolError` (the upload has failed: a failed sync is never retried) and `CheckpointError`.
        """
        upload = live.upload
        async with live.syncing:
            live.require_fresh()
            feeding = live.writer is not None and live.writer.feeding
            recent = feeding and asyncio.get_running_loop().time() < live.announced + ANNOUNCE_SECONDS
            if upload.offset < upload.received and upload.state in LIVE and not recent:
                await self._announce(live, partial(self._checkpoint.announce, upload.id))
        return upload.offset

    async def keep(self, live: Live) -> None:
        """The upload stays open: what it holds is made durable, and that its writer has gone is committed with that."""
        await self._commit_end(live, partial(self._keep, live))

    async def _keep(self, live: Live) -> None:
        upload = live.upload
        async with live.syncing:
            live.require_fresh()
            if live.writer:  # its client waits for room meanwhile: the time until it expires begins with the answer
                upload.end_append(self._clock())
            if upload.offset < upload.received and upload.state in LIVE:
                await self._announce(live, partial(self._checkpoint.keep, upload))
                return
        await self._checkpoint.save(upload)

    async def _announce(
        self, live: Live, commit: Callable[[int, Sequence[tuple[int, int, int]]], Awaitable[None]]
    ) -> None:
        """Sync what is received (hold `syncing`), commit that, and only then say so."""
        upload = live.upload
        live.announced = asyncio.get_running_loop().time()
        try:
            synced = await live.accumulator.sync()
        except SpoolError as error:
            if upload.state is not State.COMPLETING:  # then the store may have the bytes already
                await self.fail(live, f"spool: {error}")
            raise
        live.require_fresh()
        async with self.committing(live, ahead=False):
            await commit(synced.offset, synced.files)
        live.require_fresh()
        live.accumulator.committed(synced)
        upload.announce(synced.offset)

    async def confirm(self, live: Live, guards: Sequence[Digest]) -> None:
        """The digest has matched. Only once that is committed may a part of what was provisional leave for the store:
        its receipt would lead the record (law 4).
        """
        live.upload.confirm(guards)
        await self._commit_end(live, partial(self._checkpoint.save, live.upload))
        failpoint("before_confirm")
        if live.upload.state is State.OPEN and not live.stale:
            live.accumulator.confirm()

    async def withdraw(self, live: Live) -> None:
        """Nothing of a provisional append stays. The bytes go first: a restart would go on with what the record allows.

        Raises `SpoolError`; the upload has failed then.
        """
        try:
            live.accumulator.withdraw()
        except SpoolError as error:
            await self.fail(live, f"spool: {error}")
            raise
        live.upload.withdraw()

    async def seal(self, live: Live) -> None:
        """No more bytes come. The last part, which is short, leaves the accumulator only when that is committed.

        Raises `LengthConflict`, and what `_decide_again` does; the upload stays open then.
        """
        try:
            await self._decide_again(live.upload)
            live.require_fresh()
            live.upload.seal(self._last_order + 1)
        except (BadRequest, Forbidden, PreconditionFailed):
            await self.keep(live)
            raise
        self._last_order += 1
        await self._commit_end(live, partial(self._checkpoint.save, live.upload))
        live.accumulator.seal()

    async def _decide_again(self, upload: Upload) -> None:
        """Whether it may still become an object: a body can take days, and this is the last moment to keep it open.
        Once sealed it is a promise that no later change takes back.

        A store that does not answer decides by its own condition. Raises `Forbidden`, `PreconditionFailed`.
        """
        if upload.credential is not None and not self._still_known(upload.credential):
            raise Forbidden(
                "The credential of this upload has been revoked. Its bytes are kept until it expires: end it with "
                "another one of the same subject (a token with the same `sub`; an API key is a subject of its own)."
            )
        if upload.overwrite:
            return
        with suppress(StoreError):
            if await self.exists(upload.key):
                raise PreconditionFailed(
                    f"There is an object under {upload.key} by now, and this upload may replace none. What has arrived "
                    "is kept: end the upload again when that object has gone."
                )

    async def exists(self, key: str, *, unsure: bool = False) -> bool:
        """Whether there is an object now; `unsure` if the store does not say so in time. Raises `StoreRefused`."""
        try:
            return await self.certainly_exists(key)
        except StoreUnavailable:
            return unsure

    async def certainly_exists(self, key: str) -> bool:
        """... where a guess would do harm. Raises `StoreUnavailable`, too."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._uploader.store.head(key) is not None
        except TimeoutError as error:
            raise StoreUnavailable(f"head_object: no answer within {LOOK_SECONDS} s") from error

    async def fail(self, live: Live, reason: str) -> None:
        """Fail closed (law 10)."""
        live.upload.fail(reason, self._clock())
        log.error("upload %s failed: %s", live.upload.id, reason)
        await self.end(live)

    async def end(self, live: Live) -> None:
        """An upload that was cancelled, has expired or failed: stop what moves it, commit, leave nothing behind."""
        if live.writer:
            live.writer.stop("the upload has ended")
            if live.writer.feeding:
                await live.writer.settled.wait()
        if live.drain:
            live.drain.cancel()
            await asyncio.wait([live.drain])
        if live.accumulator.distrusted:  # the next process may find no verdict: it would sync the files again (law 10)
            live.accumulator.clear()
        async with self.committing(live):
            await self._checkpoint.save(live.upload)
        self._retire(live)
        self.spawn(self._bury(live.upload), f"bury {live.upload.id}")

    async def stop_writer(self, live: Live, reason: str) -> None:
        """Stop the writer, if there is one, and wait until it has settled (law 6)."""
        if writer := live.writer:
            writer.stop(reason)
            await writer.settled.wait()

    async def _commit_end(self, live: Live, commit: Callable[[], Awaitable[None]]) -> None:
        """What the end of a body means. Its client waits for a full disk, until somebody comes to go on with it."""
        async with self.committing(live):
            await self._checkpoint.insist(commit, lambda: live.writer is not None and live.writer.stopped is None)

    @asynccontextmanager
    async def committing(self, live: Live, *, ahead: bool = True) -> AsyncIterator[None]:
        """A commit of this upload. If it fails, memory is wrong: drop the upload and read it again (law 4).

        `ahead`: memory has changed before it was committed. If not, a full disk does no harm.
        """
        try:
            yield
        except CheckpointError as error:
            if not live.stale and (ahead or not isinstance(error, CheckpointDelayed)):
                log.error("upload %s is read again: %s", live.upload.id, error)  # noqa: TRY400 - as said
                live.stale = True
                self.spawn(self._read_again(live), f"read again {live.upload.id}")
            raise

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that outlives the request that began it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    # -- its drain and its end -----------------------------------------------------------------------------------

    async def _drain(self, live: Live) -> None:
        drain = Drain(self._uploader, live.upload, live.accumulator, partial(self._key_turn, live))
        try:
            async with self.committing(live):
                with self._uploader.on_behalf_of(live.upload.id):
                    await drain.run()
        except CheckpointError:
            return  # it is being read again
        except Exception as error:
            if isinstance(error, UploadError) and live.upload.state not in LIVE:
                return  # it has ended otherwise in this very turn, and who has ended it waits for us
            log.exception("upload %s: its drain died; it is read again", live.upload.id)
            live.stale = True
            self.spawn(self._read_again(live), f"read again {live.upload.id}")
            return
        await self.stop_writer(live, "the upload has failed")
        self._retire(live)
        await self._bury(live.upload)

    async def _key_turn(self, live: Live) -> None:
        """Wait until every upload of this key that was sealed earlier has ended (law 9), and what was being announced
        of this one when it was sealed: that is less than all, and how the object is stored depends on it (law 2).
        """
        async with live.syncing:
            pass
        order = live.upload.sealed_order or 0
        while ahead := [
            other
            for other in self[live.upload.key]
            if other.upload.sealed_order is not None and other.upload.sealed_order < order
        ]:
            await ahead[0].ended.wait()

    def _retire(self, live: Live) -> None:
        """It has ended, and that is committed: only its row remains."""
        if not live.ended.is_set():
            self.ended[live.upload.state] += 1
            audit.ended(live.upload)
            self.on_end(live.upload)
        self._drop(live)
        live.accumulator.clear()

    def _drop(self, live: Live) -> None:
        if self._live.get(live.upload.id) is live:
            del self._live[live.upload.id]
            self._by_subject[live.upload.subject] -= 1
            if not self._by_subject[live.upload.subject]:
                del self._by_subject[live.upload.subject]
        same_key = self._by_key.get(live.upload.key, [])
        if live in same_key:
            same_key.remove(live)
            if not same_key:
                del self._by_key[live.upload.key]
        live.ended.set()

    async def _bury(self, upload: Upload) -> None:
        """Leave nothing of an ended upload in the store, however long that takes: also not what a creation that nobody
        waits for makes there when all that was seen is gone.
        """
        if upload.creating is None and upload.multipart_id is None:
            return
        drain = Drain(self._uploader, upload, Accumulator(upload, self._spool), _no_turn)
        try:
            with self._uploader.on_behalf_of(upload.id):
                late_seconds = drain.late_seconds
                await drain.abort()
                if late_seconds:
                    await asyncio.sleep(late_seconds)
                    await drain.abort()
            upload.buried()
            await self._checkpoint.insist(partial(self._checkpoint.save, upload))
        except (StoreError, CheckpointError) as error:
            log.warning("upload %s: what is left of it in the store will be aborted later: %s", upload.id, error)

    # -- memory and time ----------------------------------------------------------------------------------------

    async def _read_again(self, live: Live) -> None:
        """Build the upload anew from the checkpoint and the spool, as a restart on the same boot would."""
        await self.stop_writer(live, "the checkpoint cannot be written")
        if live.drain and live.drain is not asyncio.current_task():
            live.drain.cancel()
            await asyncio.wait([live.drain])
        async with live.syncing:
            pass  # a sync on its way may fail yet, and the upload that is read then would sync again (law 10)
        while True:
            if live.rereads:  # a fault that lasts: the first attempt is made at once, the others ever further apart
                await asyncio.sleep(min(REREAD_SECONDS * 2 ** min(live.rereads, 10), UPKEEP_SECONDS))
            live.rereads += 1
            try:
                await self._replace(live)
            except Exception as error:  # noqa: BLE001 - whatever it is, this upload must not stay as it is
                log.warning("upload %s cannot be read again yet: %s", live.upload.id, error)
            else:
                return

    async def _replace(self, live: Live) -> None:
        """A stale upload gives way to what the checkpoint says of it, once that can be written again."""
        if live.upload.state not in LIVE:  # a verdict stands, whatever the checkpoint still says (law 10)
            await self._checkpoint.insist(partial(self._checkpoint.save, live.upload))
            self._retire(live)
            await self._bury(live.upload)
            return
        live.accumulator.release()
        record = await self._checkpoint.find(live.upload.id)
        names = (await asyncio.to_thread(part_names, self._spool)).get(live.upload.id, [])
        if record is None or record.upload.state not in LIVE:
            for name in names:  # its end was committed, whatever was said of that
                self._spool.discard(name)
            self._drop(live)
            if record:
                self.on_end(record.upload)
                await self._bury(record.upload)
            return
        fresh, _ = await self._restore(record, names, same_boot=True)
        try:
            await self._checkpoint.insist(partial(self._checkpoint.save, fresh.upload))
        except BaseException:
            fresh.accumulator.release()
            raise
        fresh.rereads = live.rereads
        self._drop(live)
        self.take_up(fresh)
        self._seal_due(fresh)

    async def _restore(
        self, record: Record, names: Sequence[str], *, same_boot: bool
    ) -> tuple[Live, Sequence[SyncedFile]]:
        """A live upload from its row and its part files."""
        found = await asyncio.to_thread(survey, record, self._spool, names, same_boot=same_boot)
        upload = record.upload
        upload.recover(found.received, self._clock())
        live = Live(upload, Accumulator(upload, self._spool))
        for file in found.files:
            live.accumulator.adopt(file)
        if not same_boot:
            upload.announce(found.received)
        return live, found.synced

    async def _upkeep(self) -> None:
        """Expire what nobody came back for, stop who adds for too long, forget what nobody asks for any more."""
        expire, max_age = self._expire_seconds, self._max_age_seconds
        while True:
            await asyncio.sleep(min(UPKEEP_SECONDS, expire / 2, UPKEEP_SECONDS if max_age is None else max_age / 2))
            now = self._clock()
            for live in self:
                if live.writer and live.upload.aged(max_age, now):
                    live.writer.stop("this upload has been open for as long as one may be (--max-age)")
                if live.writer is None and (at := live.upload.expires(expire)) is not None and at <= now:
                    await self._attempt(self._expire(live, now))
            self._spool.tidy()
            await self._attempt(self._checkpoint.forget(now - KEEP_SECONDS, KEEP_MOST))

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> None:
        """A piece of upkeep: what fails now is tried again at the next round, and must not end the rounds."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - as said
            log.warning("upkeep: %s", error)

    async def _expire(self, live: Live, now: float) -> None:
        async with live.entry:
            at = live.upload.expires(self._expire_seconds)
            if live.writer is None and at is not None and at <= now and not live.stale:
                live.upload.expire(now)
                await self.end(live)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception())
            and not isinstance(error, UploadError | CheckpointError | SpoolError)
        ):
            log.error("%s ended with an error", task.get_name(), exc_info=error)


def _nobody_asks(_: Upload) -> None:
    """Until somebody does."""


async def _no_turn() -> None:
    """An upload that will never complete waits for nobody."""
