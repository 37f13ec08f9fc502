"""streamup with something wrong in it: mistakes that somebody who goes on with this code could make.

    with planted("no_fdatasync") as reached: ...      # in this process; `reached` counts how often streamup came there
    python tests/planted.py BUG,BUG serve …           # in one of its own; `push` as well

What does not notice such a bug would not notice the like. `caught_by` names the campaigns that catch a bug, and the
invariants by which: that is what `campaigns/planted_bugs.py` holds them to.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from invariants import Invariant
from planting import Change, Patch, Value


@dataclass(frozen=True)
class Bug:
    """A mistake, in a sentence, and the changes that make it."""

    mistake: str
    changes: tuple[Change, ...]
    caught_by: Mapping[str, tuple[Invariant, ...]]

    def __init__(self, mistake: str, *changes: Change, **caught_by: tuple[Invariant, ...]) -> None:
        object.__setattr__(self, "mistake", mistake)
        object.__setattr__(self, "changes", changes)
        object.__setattr__(self, "caught_by", caught_by)


@contextmanager
def planted(*names: str | None) -> Iterator[Counter[str]]:
    """In here streamup has these bugs (None is none). Raises `planting.MisfitError` if one does not fit its source."""
    reached = Counter[str]()
    with ExitStack() as stack:
        for name in filter(None, names):
            for change in BUGS[name].changes:
                stack.enter_context(change.planted(partial(reached.update, [name])))
        yield reached


LOSS = (Invariant.OFFSET, Invariant.RECEIVED, Invariant.CLEAN_END, Invariant.WHOLE, Invariant.ONE_WRITER)
"""Bytes are not those that were sent, or are none: by which of these that is noticed first, chance decides."""

NO_SUCCESS = (Invariant.FAIL_CLOSED, Invariant.CLEAN_END, Invariant.PATIENT)
"""There is no object, and it was told that there is; or, under a key that is written again, there is the one before."""


# -- what was received is on the disk, what was announced is durable (laws 1 and 2) -----------------------------------

DURABILITY = {
    "no_fdatasync": Bug(
        "Part files are not synced: the kernel writes them some time.",
        Patch(
            "spool:Spool.sync",
            """
            -self.files.sync(file.path)
            +pass
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "no_directory_sync": Bug(
        "Part files are synced, the directory that has their names is not.",
        Patch(
            "spool:Spool.sync",
            """
            -if new_names:
            +if False:
            """,
        ),
        simulation=LOSS,
    ),
    "forgets_new_names": Bug(
        "After a sync that was cancelled or failed, the directory is taken for synced.",
        Patch(
            "accumulator:Accumulator.sync",
            """
            -self._new_names |= new_names
            +pass
            """,
        ),
        simulation=LOSS,
    ),
    "synchronous_normal": Bug(
        "The checkpoint is written as fast as SQLite's documentation says that WAL allows.",
        Patch(
            "checkpoint:Checkpoint._prepare",
            """
            -self._db.execute("PRAGMA synchronous = FULL")
            +self._db.execute("PRAGMA synchronous = NORMAL")
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "commits_later": Bug(
        "An offset is announced while its commit is on its way.",
        Patch(
            "registry:Registry._announce",
            """
            -await commit(synced.offset, synced.files)
            +asyncio.ensure_future(commit(synced.offset, synced.files))
            """,
        ),
        simulation=(*LOSS, Invariant.KNOWN),  # nobody looks at a commit that fails
        power_cut=(Invariant.OFFSET,),
    ),
    "announces_what_was_received": Bug(
        "The offset is read after the sync, and not before it: bytes that came meanwhile are in it.",
        Patch(
            "accumulator:Accumulator.sync",
            """
            -return Synced(offset, sizes)
            +return Synced(self._upload.received, sizes)
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "claims_what_was_not_synced": Bug(
        "The sizes of the part files are read after the sync, and not before it.",
        Patch(
            "accumulator:Accumulator.sync",
            """
            -return Synced(offset, sizes)
            +return Synced(offset, [(file.part.number, file.size, file.crc64nvme) for file in files])
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "an_old_row_wins": Bug(
        "A row that was copied before an announcement takes it back.",
        Patch(
            "checkpoint:_replace",
            """
            -db.execute(f"{statement}, offset = max(offset, excluded.offset)", row)
            +db.execute(f"{statement}, offset = excluded.offset", row)
            """,
        ),
        simulation=LOSS,
    ),
    "ignores_a_failed_commit": Bug(
        "A commit that failed is logged, and that is all.",
        Patch(
            "registry:Registry.committing",
            """
            -raise
            +return
            """,
        ),
        simulation=LOSS,
    ),
    "syncs_again_after_a_failure": Bug(
        "A sync that failed is tried once more, and the kernel says that all is well.",
        Patch(
            "registry:Registry._announce",
            """
            -synced = await live.accumulator.sync()
            +try:
            +    synced = await live.accumulator.sync()
            +except SpoolError:
            +    synced = await live.accumulator.sync()
            """,
        ),
        simulation=LOSS,
        disk=(Invariant.FAIL_CLOSED,),
    ),
    "ignores_a_failed_sync": Bug(
        "A sync that failed is logged, and that is all.",
        Patch(
            "spool:Spool.sync",
            """
            -except FileNotFoundError:
            -    if not file.removed:
            -        raise
            +except OSError as error:
            +    log.warning("syncing %s: %s", file.path.name, error.strerror)
            """,
        ),
        simulation=LOSS,
    ),
    "a_full_disk_passes": Bug(
        "A sync that meets a full disk is made again later, and says then that all is well.",
        Patch(
            "spool:Spool.sync",
            """
            -if error.errno in BUSY:  # no sync has failed
            +if error.errno in PASSING:
            """,
        ),
        simulation=LOSS,
    ),
    "a_full_disk_is_a_failure": Bug(
        "A write that finds no room fails its upload, which could have waited.",
        Patch(
            "spool:Spool.append",
            """
            -if error.errno in PASSING:
            -    return 0
            """,
        ),
        simulation=LOSS,
        disk=(Invariant.SAID, Invariant.CLEAN_END),
    ),
    "a_missing_file_is_synced": Bug(
        "A part file that is not there must have been stored.",
        Patch(
            "spool:Spool.sync",
            """
            -if not file.removed:
            -    raise
            +continue
            """,
        ),
        disk=(Invariant.FAIL_CLOSED,),
    ),
    "a_refusal_tells_what_was_received": Bug(
        "An offset that does not match is refused with what is received, durable or not.",
        Patch(
            "uploads:Uploads._take_over",
            """
            -await self.registry.announce(live)
            +pass
            """,
        ),
        simulation=LOSS,
    ),
}

# -- position decides the part; store, then checkpoint, then spool (laws 3 and 4) -------------------------------------

PARTS = {
    "removes_before_the_receipt": Bug(
        "A part file is removed when the store has the part, and its receipt is committed afterwards.",
        Patch(
            "drain:Drain._store_part",
            """
            +self._parts.discard(file)
             await checkpoint.insist(partial(checkpoint.add_receipt, self._upload.id, receipt, hashes))
             self._upload.add_receipt(receipt, hashes)
             self._shared.stored_bytes += receipt.size
            -self._parts.discard(file)
            """,
        ),
        simulation=(*LOSS, Invariant.KNOWN),
        power_cut=(Invariant.OFFSET,),
    ),
    "receipt_before_the_answer": Bug(
        "The receipt is committed while the part is on its way: all of it but the ETag is known.",
        Patch(
            "drain:Drain._put_part",
            """
            -failpoint("before_put_part")
            +early = Receipt(file.part.number, body.size, "", file.crc64nvme, body.sha256)
            +await self._shared.checkpoint.add_receipt(self._upload.id, early)
            """,
        ),
        simulation=LOSS,
    ),
    "numbers_parts_by_counting": Bug(
        "A part's number is the number of those that the store has, and one.",
        Patch(
            "drain:Drain._put_part",
            """
            -self._upload.key, self._upload.multipart_id or "", file.part.number, body
            +self._upload.key, self._upload.multipart_id or "", len(self._upload.receipts) + 1, body
            """,
        ),
        simulation=(*LOSS, Invariant.KNOWN),
    ),
    "offset_is_a_sum": Bug(
        "A restart takes the sum of the parts in the store for the offset, though one may be missing between them.",
        Patch(
            "recovery:survey",
            """
            -position, number = 0, 1
            +position = sum(receipt.size for receipt in upload.receipts.values())
            +number = len(upload.receipts) + 1
            """,
        ),
        simulation=(*LOSS, Invariant.KNOWN),  # it counts on receipts that are not there
    ),
    "checksum_of_what_was_meant": Bug(
        "The checksum runs over the bytes that were to be written, not over those that the disk took.",
        Patch(
            "spool:Spool.append",
            """
            -file.crc64nvme = checksums.crc64nvme(data[:taken], file.crc64nvme)
            +file.crc64nvme = checksums.crc64nvme(data, file.crc64nvme)
            """,
        ),
        simulation=LOSS,
    ),
    "counts_what_was_meant": Bug(
        "A short write is taken for a whole one.",
        Patch(
            "spool:Spool.append",
            """
            -taken = self.files.write(file.fd, data)
            +self.files.write(file.fd, data)
            +taken = len(data)
            """,
        ),
        simulation=LOSS,
    ),
}

# -- an irreversible act is announced first, and believed when it is proven (law 5) -----------------------------------

STORE = {
    "creates_unannounced": Bug(
        "CreateMultipartUpload is called before it is committed that it will be.",
        Patch(
            "drain:Drain._try_to_create",
            """
            -await self._save()
             failpoint("before_create_multipart")
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
        kill_at_failpoints=(Invariant.NOTHING_LEFT,),
    ),
    "forgets_the_multipart_id": Bug(
        "Parts are sent before it is committed whose they are.",
        Patch(
            "drain:Drain._try_to_create",
            """
             self._upload.multipart_created(multipart_id, others=others)
            -await self._save()
            """,
        ),
        simulation=LOSS,
    ),
    "leaves_orphans": Bug(
        "Of a multipart upload whose creation was not answered nobody asks whether it is there.",
        Patch(
            "drain:Drain._abort_orphans",
            """
            -if self._upload.creating is None:
            +if True:
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
        kill_at_failpoints=(Invariant.NOTHING_LEFT,),
    ),
    "aborts_what_is_known": Bug(
        "Whatever was begun under the same key meanwhile is taken for an orphan, another upload's parts as well.",
        Patch(
            "drain:Drain._abort_orphans",
            """
            -if ours and found.multipart_id not in known:
            +if ours:
            """,
        ),
        simulation=LOSS,
    ),
    "does_not_abort": Bug(
        "A cancelled upload leaves its multipart upload in the store.",
        Patch(
            "registry:Registry._bury",
            """
            -await drain.abort()
             if late_seconds:
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
    ),
    "does_not_look_again": Bug(
        "A creation that was cancelled on its way is looked for at once, and not when it has had its time.",
        Patch(
            "registry:Registry._bury",
            """
             await asyncio.sleep(late_seconds)
            -await drain.abort()
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
    ),
    "believes_in_one_creation": Bug(
        "Once a creation is answered, those before it that were not are forgotten.",
        Patch(
            "drain:Drain._try_to_create",
            """
            -self._upload.multipart_created(multipart_id, others=others)
            +self._upload.multipart_created(multipart_id)
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
        store_faults=(Invariant.NOTHING_LEFT,),
    ),
    "no_such_upload_is_success": Bug(
        "A multipart upload that is gone must have been completed by the attempt before.",
        Patch(
            "completion:Completion.complete",
            """
            +except NoSuchMultipart:
            +    return StoredObject(key, self._upload.size or 0, "", self._upload.meta.token)
             except StoreError as error:
            """,
        ),
        simulation=LOSS,
        store_faults=NO_SUCCESS,
    ),
    "being_there_is_proof": Bug(
        "An object under the key is taken for ours, whoever made it.",
        Patch(
            "completion:Completion._ours",
            """
            -return await self._prove(found, error, body) if found else None
            +return found
            """,
        ),
        simulation=LOSS,
    ),
    "a_200_is_proof": Bug(
        "After a 200 the upload is complete, also if the store then has no object.",
        Patch(
            "completion:Completion._proven",
            """
            -raise UploadFailed("conflict: the object was completed, and then replaced or removed by somebody else")
            +return stored
            """,
        ),
        simulation=LOSS,
    ),
    "removes_at_first_sight": Bug(
        "An object of ours that looks damaged is removed, and nobody looks again.",
        Patch(
            "completion:Completion._keep_or_remove",
            """
            -if self._is_whole(again, ours, by_checksum=by_checksum):
            -    return again
            +pass
            """,
        ),
        store_faults=(Invariant.PATIENT, Invariant.WHOLE),
    ),
    "size_is_not_compared": Bug(
        "Our token is taken for proof, and the size is not looked at.",
        Patch(
            "completion:Completion._is_whole",
            """
            -same = found.size == self._upload.size and all(ours[name] == value for name, value in named.items())
            +same = all(ours[name] == value for name, value in named.items())
            """,
        ),
        simulation=LOSS,
    ),
    "checksums_are_not_compared": Bug(
        "Token and size are taken for proof, and checksums are not looked at.",
        Patch(
            "completion:Completion._is_whole",
            """
            -same = found.size == self._upload.size and all(ours[name] == value for name, value in named.items())
            -return same and (bool(named) or not by_checksum)
            +return found.size == self._upload.size
            """,
        ),
        simulation=LOSS,
    ),
    "an_error_within_200_is_success": Bug(
        "botocore's eye for errors that come with 200 is closed.",
        Patch(
            "stores.s3:S3Store._client",
            """
             client.meta.events.unregister("before-call.s3", add_expect_header)
            +from botocore.handlers import _handle_200_error
            +client.meta.events.unregister("before-parse.s3.*", _handle_200_error)
            """,
        ),
        Patch(
            "stores.s3:S3Store.complete_multipart",
            """
            -_field(answer, "ETag")
            +pass
            """,
        ),
        Patch(
            "stores.s3:_stored",
            """
            -answer["ETag"],
            +answer.get("ETag", ""),
            """,
        ),
        store_faults=NO_SUCCESS,
    ),
    "a_lost_answer_is_success": Bug(
        "A completion that is not answered is taken for done.",
        Patch(
            "completion:Completion.complete",
            """
            +except StoreUnavailable:
            +    return StoredObject(key, self._upload.size or 0, "", self._upload.meta.token)
             except StoreError as error:
            """,
        ),
        simulation=LOSS,
        store_faults=NO_SUCCESS,
    ),
    "completes_again_blindly": Bug(
        "A completion whose answer was lost is asked for again, and nobody looks whether the object is there.",
        Patch(
            "completion:Completion.complete",
            """
            -if found := await self._ours(error):
            -    return found
            +pass
            """,
        ),
        simulation=LOSS,
    ),
    "a_listing_is_the_truth": Bug(
        "An upload whose parts the store does not list has failed.",
        Patch(
            "completion:Completion._in_time",
            """
            -await asyncio.sleep(delay)
            +raise UploadFailed("the store does not list the parts")
            """,
        ),
        simulation=LOSS,
    ),
    "gives_up_in_an_outage": Bug(
        "A part that the store has not taken the third time is given up, and its upload with it.",
        Patch(
            "drain:Drain._store_part",
            """
             except StoreUnavailable as error:
            +    if attempt == 3:
            +        raise
            """,
        ),
        Patch(
            "drain:Drain.run",
            """
            -except (UploadFailed, StoreRefused, SpoolError) as error:
            +except (UploadFailed, StoreRefused, StoreUnavailable, SpoolError) as error:
            """,
        ),
        simulation=LOSS,
    ),
    "prefix_without_a_slash": Bug(
        "The prefix is put before keys as it is, without a slash between.",
        Patch(
            "stores.s3:S3Store.__init__",
            """
            -self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
            +self.prefix = prefix.strip("/")
            """,
        ),
        store_faults=(Invariant.INSIDE,),
    ),
    "puts_outside_the_prefix": Bug(
        "PutObject forgets the prefix.",
        Patch(
            "stores.s3:S3Store.put_object",
            """
            -answer = await self._send("put_object", body, checksum, Key=self.prefix + key, **options)
            +answer = await self._send("put_object", body, checksum, Key=key, **options)
            """,
        ),
        store_faults=(Invariant.INSIDE,),
    ),
}

# -- one writer, a clean end, one order per key (laws 6, 7 and 9) -----------------------------------------------------

WRITERS = {
    "no_fencing": Bug(
        "A newcomer does not stop the writer that is there.",
        Patch(
            "uploads:Uploads._take_over",
            """
            -await self.registry.stop_writer(live, "another request went on with this upload")
            """,
        ),
        simulation=LOSS,
    ),
    "does_not_wait_for_the_old_writer": Bug(
        "A newcomer stops the old writer, and does not wait until it has settled.",
        Patch(
            "registry:Registry.stop_writer",
            """
            -await writer.settled.wait()
            +pass
            """,
        ),
        simulation=LOSS,
    ),
    "a_stopped_writer_drains": Bug(
        "A stopped writer still takes what its body's buffer holds.",
        Patch(
            "writer:Writer.feed",
            """
             except TimeoutError:
            +    while chunk := await body.read():
            +        await self.live.accumulator.add(chunk, limit=self.terms.limit)
            """,
        ),
        simulation=(*LOSS, Invariant.ENDS),  # a stop waits for it
    ),
    "a_stopped_writer_ends_well": Bug(
        "A writer that was stopped after its last byte has ended cleanly.",
        Patch(
            "writer:Writer.feed",
            """
            -if (ending := self.stopped or body.interrupted) is None:
            +if (ending := body.interrupted) is None:
            @@
            -return self.stopped or "stopped"
            +return None
            """,
        ),
        simulation=LOSS,
    ),
    "completes_what_was_interrupted": Bug(
        "The end of the body is its end, whatever has ended it.",
        Patch(
            "writer:Writer.feed",
            """
            -if (ending := self.stopped or body.interrupted) is None:
            +if (ending := self.stopped) is None:
            """,
        ),
        endings=LOSS,
        simulation=LOSS,
    ),
    "cancellation_is_an_end": Bug(
        "A request that is cancelled has ended without an error.",
        Patch(
            "uploads:Uploads.write",
            """
            -ending: str | UploadError | SpoolError | None = "cancelled"
            +ending: str | UploadError | SpoolError | None = None
            """,
        ),
        simulation=LOSS,
    ),
    "a_reset_is_an_end": Bug(
        "A connection that was lost after the last byte that came has ended its body.",
        Patch(
            "body:RequestBody._drain",
            """
            -if not content.is_eof():
            +if False:
            """,
        ),
        endings=LOSS,
    ),
    "silence_is_an_end": Bug(
        "A body of which no byte came for a while is over.",
        Patch(
            "body:RequestBody.read",
            """
            -self.interrupted = f"no byte came for {self.idle_seconds:g} s"
            +pass
            """,
        ),
        endings=LOSS,
    ),
    "leaves_the_tail": Bug(
        "What the parser had when the connection was lost is left there.",
        Patch(
            "body:RequestBody.read",
            """
            -self._lost = True
            -return self._drain()
            +self.interrupted = "the connection was lost"
            """,
        ),
        endings=LOSS,
    ),
    "ignores_the_order_of_a_key": Bug(
        "An upload completes when its parts are there, whatever was sealed before it.",
        Patch(
            "drain:Drain.run",
            """
            -await self._turn()
            +pass
            """,
        ),
        simulation=(*LOSS, Invariant.ORDER),
    ),
    "orders_by_creation": Bug(
        "Completions of a key take effect in the order in which the uploads were begun.",
        Patch(
            "registry:Registry._key_turn",
            """
            -if other.upload.sealed_order is not None and other.upload.sealed_order < order
            +if other.upload.created < live.upload.created
            """,
        ),
        simulation=(*LOSS, Invariant.ORDER),
    ),
    "skips_the_digest": Bug(
        "The digest of an append is not compared.",
        Patch(
            "writer:Writer.feed",
            """
            -running.check()
            +pass
            """,
        ),
        simulation=LOSS,
    ),
    "keeps_what_has_the_wrong_digest": Bug(
        "What came with a wrong digest stays in the part file.",
        Patch(
            "accumulator:Accumulator.withdraw",
            """
            -self._spool.cut(self._upload.id, file, provisional.size, provisional.crc64nvme)
            +file.size, file.crc64nvme = provisional.size, provisional.crc64nvme
            """,
        ),
        kill_at_failpoints=(Invariant.RECEIVED, Invariant.OFFSET),  # the part may be sent before the kill, and fails
    ),
    "skips_the_digest_of_the_whole": Bug(
        "What the client says the whole is, is not compared with what came.",
        Patch(
            "drain:Drain._check_digests",
            """
            -if error := self._upload.mismatch:
            +if False:
            """,
        ),
        simulation=LOSS,
    ),
    "two_newcomers_enter": Bug(
        "Two newcomers at once stop the old writer, and both go on.",
        Patch(
            "uploads:Uploads._take_over",
            """
            -async with live.entry:
            +if True:
            """,
        ),
        simulation=(*LOSS, Invariant.BOUNDED),  # one gives back the budget in which the other writes
    ),
    "takes_more_than_the_length": Bug(
        "Bytes beyond the declared length are taken.",
        Patch(
            "accumulator:Accumulator._allowed",
            """
            -ends = [end for end in (self._upload.length, limit) if end is not None]
            +ends = [end for end in (limit,) if end is not None]
            """,
        ),
        Patch(
            "upload:Upload.receive",
            """
            -if self.length is not None and self.received + size > self.length:
            +if False:
            """,
        ),
        simulation=(*LOSS, Invariant.BOUNDED),
    ),
}

# -- nothing grows without a bound, and nothing is left (law 8) -------------------------------------------------------

BOUNDS = {
    "releases_twice": Bug(
        "A writer that leaves gives back its reserve, and the part file gives it back again.",
        Patch(
            "accumulator:Accumulator.suspend",
            """
            -rest, file.reserved = file.reserved - file.size, file.size
            +rest = file.reserved - file.size
            """,
        ),
        simulation=(Invariant.BOUNDED,),
    ),
    "never_releases": Bug(
        "The reserve of a part that was stored is not given back.",
        Patch(
            "spool:Spool.remove",
            """
            -self.budget.release(owner, file.reserved)
            +pass
            """,
        ),
        simulation=(Invariant.ENDS, Invariant.BOUNDED, Invariant.NOTHING_LEFT),
    ),
    "resumes_without_a_reserve": Bug(
        "Who comes back goes on with the part that was begun, and reserves nothing for its rest.",
        Patch(
            "accumulator:Accumulator.resume",
            """
            -await self._reserve(rest, resumed=True, begun=True)
            -file.reserved += rest
            +pass
            """,
        ),
        simulation=(Invariant.BOUNDED,),
    ),
    "slots_leak": Bug(
        "A part that fails, or is cancelled, keeps its slot.",
        Patch(
            "uploader:Slots.hold",
            """
            -try:
            -    yield
            -finally:
            -    self._release(owner)
            +yield
            +self._release(owner)
            """,
        ),
        simulation=(Invariant.ENDS, Invariant.BOUNDED, Invariant.NOTHING_LEFT),
    ),
    "expires_what_has_a_writer": Bug(
        "An upload expires some time after it was touched, though somebody is sending to it.",
        Patch(
            "upload:Upload.begin_append",
            """
            -self.length, self.seal_at, self.touched = total, seal_at, None
            +self.length, self.seal_at, self.touched = total, seal_at, self.touched or self.created
            """,
        ),
        Patch(
            "registry:Registry._upkeep",
            """
            -if live.writer is None and (at := live.upload.expires(expire)) is not None and at <= now:
            +if (at := live.upload.expires(expire)) is not None and at <= now:
            """,
        ),
        Patch(
            "registry:Registry._expire",
            """
            -if live.writer is None and at is not None and at <= now and not live.stale:
            +if at is not None and at <= now and not live.stale:
            """,
        ),
        simulation=LOSS,
    ),
    "never_expires": Bug(
        "Nobody looks for uploads that have expired.",
        Patch(
            "registry:Registry._upkeep",
            """
            -await self._attempt(self._expire(live, now))
            +pass
            """,
        ),
        simulation=(Invariant.ENDS,),
    ),
    "leaves_descriptors": Bug(
        "A part file that is handed out stays open.",
        Patch(
            "accumulator:Accumulator._hand_out",
            """
            -self._spool.close(file)
            """,
        ),
        Patch(
            "spool:Spool.remove",
            """
            -self.close(file)
            """,
        ),
        simulation=(Invariant.BOUNDED,),
    ),
}

# -- a restart (laws 1, 2 and 10) -------------------------------------------------------------------------------------

RESTARTS = {
    "trusts_lengths_after_another_boot": Bug(
        "After a power cut a part file is believed to be as long as it is.",
        Patch(
            "recovery:_verify",
            """
            -if not same_boot:
            +if False:
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "trusts_nothing_but_the_record": Bug(
        "A restart keeps only what was announced, though the kernel still has the rest.",
        Patch(
            "recovery:_verify",
            """
            -if not same_boot:
            +if True:
            """,
        ),
        simulation=LOSS,
        kill_at_failpoints=(Invariant.RECEIVED,),
    ),
    "does_not_cut": Bug(
        "What a part file has beyond what counts stays there, and more is appended to it.",
        Patch(
            "recovery:_cut",
            """
            -spool.files.truncate(file.path, file.size)
            +pass
            """,
        ),
        simulation=(*LOSS, Invariant.BOUNDED),
        power_cut=(Invariant.OFFSET,),
    ),
    "does_not_remove_beyond": Bug(
        "Part files beyond what counts stay there, and more is appended to them.",
        Patch(
            "recovery:_cut",
            """
            -spool.files.unlink(spool.directory / name)
            +pass
            """,
        ),
        simulation=(*LOSS, Invariant.BOUNDED),
    ),
    "notes_the_boot_first": Bug(
        "The boot is recorded before what it has left is looked at: who dies in between believes lengths.",
        Patch(
            "registry:Registry.recover",
            """
            +await self._checkpoint.settle_recovery([], boot_id, {})
             self._last_order = await self._checkpoint.last_order()
            """,
        ),
        simulation=LOSS,
    ),
    "removes_everything_as_strange": Bug(
        "A restart removes the part files of uploads that it has just taken up.",
        Patch(
            "registry:Registry.recover",
            """
            -await self._restore(record, names.pop(record.upload.id, []), same_boot=same_boot)
            +await self._restore(record, names.get(record.upload.id, []), same_boot=same_boot)
            """,
        ),
        simulation=LOSS,
        power_cut=(Invariant.OFFSET,),
    ),
    "opens_what_was_promised": Bug(
        "An upload that has lost announced bytes goes on, shorter.",
        Patch(
            "upload:Upload.recover",
            """
            -if received < self.offset:
            +if False:
            """,
        ),
        simulation=LOSS,
    ),
    "forgets_the_order": Bug(
        "After a restart, seals are counted from one again.",
        Patch(
            "registry:Registry.recover",
            """
            -self._last_order = await self._checkpoint.last_order()
            +pass
            """,
        ),
        simulation=LOSS,
    ),
    "forgets_the_cancelled": Bug(
        "A restart does not finish what was being buried.",
        Patch(
            "registry:Registry.recover",
            """
            -self.spawn(self._bury(record.upload), f"bury {record.upload.id}")
            +pass
            """,
        ),
        simulation=(Invariant.NOTHING_LEFT,),
        kill_at_failpoints=(Invariant.NOTHING_LEFT,),
    ),
    "a_provisional_append_counts": Bug(
        "A restart keeps what came with a digest that nobody has compared.",
        Patch(
            "recovery:survey",
            """
            -end = upload.provisional
            +pass
            """,
        ),
        kill_at_failpoints=(Invariant.CLEAN_END,),
    ),
}

# -- the client -------------------------------------------------------------------------------------------------------

PUSH = {
    "releases_what_was_sent": Bug(
        "The client forgets what it has sent, and not what is durable.",
        Patch(
            "client.sending:Sending._body",
            """
             self._account(position, piece)
            +self._supply.release(self._read)
            """,
        ),
    ),
    "goes_on_where_it_was": Bug(
        "The client goes on where it was, and not where the server is.",
        Patch(
            "client.sending:Sending._begin",
            """
            -return position
            +return max(position, self._sent)
            """,
        ),
    ),
    "believes_an_offset_that_fell": Bug(
        "The client goes on from an offset that is less than one it was told.",
        Patch(
            "client.sending:Sending._begin",
            """
            +self._durable = min(self._durable, position)
             if position < self._durable:
            """,
        ),
    ),
    "completes_whatever_the_command_says": Bug(
        "The end of a command's output makes an object, whether it has failed or not.",
        Patch(
            "client.live:Command.ended_well",
            """
            -return await self.code() in self._ok_codes
            +return True
            """,
        ),
    ),
    "does_not_wait_for_the_command": Bug(
        "A command that has closed its output has ended well, unless it has failed already.",
        Patch(
            "client.live:Command.ended_well",
            """
            -return await self.code() in self._ok_codes
            +return self._process.returncode in {None, 0}
            """,
        ),
    ),
    "knows_no_bound": Bug(
        "The backlog takes a thousand times the disk that it may.",
        Patch(
            "client.backlog:Backlog.__init__",
            """
            -self._file_bytes = file_bytes
            +self._file_bytes = 1000 * file_bytes
            """,
        ),
    ),
    "keeps_in_memory_what_is_in_files": Bug(
        "What is written to a file is kept in memory, too.",
        Patch(
            "client.backlog:_InFile.put",
            """
            +self.__dict__.setdefault('kept', []).append(bytes(data))
             return os.pwrite(self._descriptor, data, self.size)
            """,
        ),
    ),
    "leaves_its_files": Bug(
        "The backlog's files keep their names.",
        Patch(
            "client.backlog:_InFile.__init__",
            """
            -os.unlink(path)  # noqa: PTH108 - it is a string
            +pass
            """,
        ),
    ),
    "waits_for_ever": Bug(
        "A connection on which nothing happens is as good as any.",
        Value("client.sending:STALL_SECONDS", 10000.0),
    ),
}

IN_A_HURRY = Bug(
    "No bug: the client notices silence in two seconds, and not in fifteen.",
    Value("client.sending:STALL_SECONDS", 1.0),
    Value("client.sending:ANSWER_SECONDS", 1.0),
    Value("client.sending:OFFSET_SECONDS", 3.0),
)

IMPATIENT = Bug(
    "No bug: the server waits for its store for seconds, and not for minutes.",
    Patch(
        "stores.s3:S3Store.__aenter__",
        """
         session = AioSession()
        +self.deadlines = Deadlines(connect=2, control=3, complete=4, part=3, bytes_per_second=4 << 20, stall=4)
        """,
    ),
    Value("uploader:BACKOFF_FIRST_SECONDS", 0.05),
    Value("uploader:BACKOFF_MOST_SECONDS", 1.0),
    Value("completion:STALE_FIRST_SECONDS", 0.05),
    Value("completion:STALE_SECONDS", 2.0),
    Value("service:PROBE_AGAIN_SECONDS", 0.5),
    Value("drain:ANNOUNCED_SECONDS", 1.0),
    Value("drain:LATE_SECONDS", 8.0),
)

SERVER: Mapping[str, Bug] = DURABILITY | PARTS | STORE | WRITERS | BOUNDS | RESTARTS
BUGS: Mapping[str, Bug] = SERVER | PUSH | {"in_a_hurry": IN_A_HURRY, "impatient": IMPATIENT}


if __name__ == "__main__":
    from streamup import cli

    with planted(*sys.argv.pop(1).split(",")):
        cli.main()
