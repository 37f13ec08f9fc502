"""What must be so in the world, whatever happens: looked at when an object is stored, and between any two steps."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from fake_store import FakeObject, checksums_of
from invariants import Broken, Invariant

from sim.ledger import Model
from sim.loop import THREAD_SECONDS
from sim.process import DIRECTORY
from streamup.upload import LIVE, State, Upload
from streamup.writer import Live

if TYPE_CHECKING:
    from sim.world import World

KEYS = ("a/key", "b/key")
EXPIRE_SECONDS = 240.0
ANSWER_SECONDS = 30.0
"""How long after its writer has gone a client may still wait for its answer."""

SEALS_SECONDS = 60.0
"""By then an upload that has all its bytes is sealed: its seal waits for disk and checkpoint, and for no store."""

EXPLAINED = (
    ("spool:", "disk"),
    ("writing", "disk"),
    ("syncing", "disk"),
    ("reading", "disk"),
    ("the spool's bytes", "disk"),
    ("state lost: bytes that were promised", "read"),
    ("state lost: bytes are not on the disk any more", "power cut"),
    ("state lost: bytes are not on the disk any more", "read"),
    ("state lost", "sync"),
    ("length:", "too long"),
    ("digest:", "wrong digest"),
    ("precondition:", "taken"),
    ("conflict:", "meddled"),
    ("conflict: another request", "conflict"),
    ("conflict: the object was completed", "not kept"),
    ("the store has lost", "aborted"),
    ("the store has lost the multipart upload, and there is no object", "not kept"),  # its 200 died with a process
    ("the store has lost the multipart upload, and there is no object of ours", "meddled"),
    ("the store refused", "damaged"),
    ("the store refused: the answer names another checksum", "rotten"),  # and by now the key is a stranger's
    ("the object in the store is not what was sent", "rotten"),
)
"""Why an upload may have failed, and what must have been done to it then."""


class Judge:
    """It knows what clients were told (`ledger`) and what was done to whom, and looks at what there is."""

    def __init__(self, world: World) -> None:
        self.world = world

    # -- the bucket ---------------------------------------------------------------------------------------------------

    def stored(self, key: str, made: FakeObject, sent: bytes) -> None:
        """An object becomes visible."""
        try:
            self._require_right(key, made, sent)
        except Broken as broken:
            self.world.fail(broken)

    def _require_right(self, key: str, made: FakeObject, sent: bytes) -> None:
        lives = [live for live in self.world.process.uploads.registry[key] if live.upload.meta.token == made.meta.token]
        if not lives:
            raise Broken(Invariant.WHOLE, f"an object of no upload is stored under {key}")
        upload = lives[0].upload
        model = self.world.models[upload.id]
        self.world.trace(f"{model.id}: its object of {len(sent)} bytes is stored")
        model.key = upload.key
        if key != upload.key or not re.fullmatch(f"({'|'.join(KEYS)})(-[0-9]+)?", key):
            raise Broken(Invariant.INSIDE, key)
        if upload.state is not State.COMPLETING:
            raise Broken(Invariant.CLEAN_END, f"{model}: it is {upload.state}, and its object is stored")
        model.require_object(sent)
        if model.stored and "meddled" not in model.faults and not model.rotten:
            raise Broken(Invariant.ONCE, f"{model}: its object is stored again")
        for live in self.world.process.uploads.registry[key]:
            other = live.upload.sealed_order
            if other is not None and other < (upload.sealed_order or 0):
                raise Broken(Invariant.ORDER, f"{model}: {live.upload.id} was sealed before it")
        model.stored += 1
        self.world.tokens[made.meta.token] = model
        self.world.keys_written.add(key)
        model.rotten = None
        if made.data != sent:
            told = made.checksums
            shows = len(made.data) != len(sent) and not told
            model.rotten = "and nobody can see it" if not (shows or _differs(made, sent)) else "visibly"
            model.faults.add("rotten")

    def removed(self, key: str, before: FakeObject) -> None:
        model = self.world.tokens.get(before.meta.token)
        self.world.trace(f"the object under {key} is removed")
        if not (model and model.rotten):  # a DELETE may take its time: it meets what was begun since, too
            for other in self.world.models.values():
                if other.key == key:
                    other.faults.add("meddled")
        if key in self.world.may_remove or (model and model.rotten):
            return
        self.world.fail(Broken(Invariant.WHOLE, f"the object under {key} was removed, {model or 'of a stranger'}"))

    def not_kept(self, key: str) -> None:
        """The store says that it has stored an object, and has not."""
        for live in self.world.process.uploads.registry[key]:
            if live.upload.state is State.COMPLETING:
                self.world.models[live.upload.id].faults.add("not kept")

    def require_stored(self, model: Model) -> None:
        """Somebody is told that it is complete."""
        if not model.stored or model.rotten == "visibly":
            raise Broken(Invariant.WHOLE, f"{model} is complete, and there is no such object ({model.rotten})")

    # -- what must be so ----------------------------------------------------------------------------------------------

    def hurt(self, model: Model, *acts: str) -> bool:
        """Whether the disk has failed a file of this upload, or the directory, in one of these acts (none: in any)."""
        return any(
            (not acts or act in acts)
            and (name.partition(".")[0] == model.id or (name == DIRECTORY.name and when >= model.began))
            for (act, name), when in self.world.process.disk.hurt.items()
        )

    def unheard(self, model: Model) -> bool:
        """Whether a sync of this upload has failed just now. A process that is killed before its loop knows of that
        cannot see to it that no later one, on the same boot, syncs these files with success and believes it.
        """
        disk, since = self.world.process.disk, self.world.now() - THREAD_SECONDS - self.world.slow_seconds
        return any(
            act in {"sync", "sync_directory"} and when >= since and name.partition(".")[0] in {model.id, DIRECTORY.name}
            for (act, name), when in disk.hurt.items()
        )

    def look(self, *, bytes_too: bool) -> None:
        """All that can be seen between two steps."""
        try:
            self._look(bytes_too=bytes_too)
        except Broken as broken:
            self.world.fail(broken)
        self.world.raise_if_broken()

    def _look(self, *, bytes_too: bool) -> None:
        process = self.world.process
        budget, slots = process.spool.budget, process.uploader.slots
        most = budget.size if not process.database.happened else 2 * budget.size
        if budget.reserved > most or budget.reserved < 0:
            raise Broken(Invariant.BOUNDED, f"{budget}")
        # What is read again after a commit that failed is not in the budget for as long as that takes.
        steady = not any(live.stale for live in process.uploads.registry)
        if steady and process.disk.used > budget.reserved and "disk unlink" not in process.disk.happened:
            raise Broken(Invariant.BOUNDED, f"{process.disk.used} bytes are on the disk, {budget}")
        if slots.in_flight.total() > slots.most:
            raise Broken(Invariant.BOUNDED, f"{slots}")
        if len(process.disk.open) > len(self.world.clients) + 2:
            raise Broken(
                Invariant.BOUNDED, f"{len(process.disk.open)} files are open, of {len(self.world.clients)} clients"
            )
        rows = {row[0]: row for row in process.database.rows()}
        for model in self.world.models.values():
            if row := rows.get(model.id):
                self._look_at_row(model, *row[1:])
            elif model.known:
                raise Broken(Invariant.OFFSET, f"{model} is not known any more")
        for live in process.uploads.registry:
            if (model := self.world.models.get(live.upload.id)) and not live.stale:
                self._look_at_live(model, live, bytes_too=bytes_too)

    def _look_at_row(self, model: Model, key: str, state: str, offset: int, reason: str | None) -> None:
        model.known, model.key = True, key
        if offset < model.announced:
            raise Broken(Invariant.OFFSET, f"{model}: {offset} is committed")
        if state == model.state:
            return
        before, model.state = model.state, state
        self.world.trace(f"{model.id} is {state} ({reason})")
        self.world.counts[f"{state} uploads"] += state not in {"open", "sealed", "completing"}
        if before in {"complete", "cancelled", "expired", "failed"}:
            raise Broken(Invariant.FAIL_CLOSED, f"{model}, and it was {before}")
        match state:
            case "complete":
                self.require_stored(model)
            case "failed":
                self._require_explained(model, reason or "")
            case "cancelled" if "cancelled" not in model.faults and model.key not in self.world.keys_replaced:
                raise Broken(Invariant.OFFSET, f"{model}, and nobody has asked for that")
            case "expired" if model.clients or self.world.now() - model.touched < EXPIRE_SECONDS - ANSWER_SECONDS:
                raise Broken(Invariant.OFFSET, f"{model}: a client was there {self.world.now() - model.touched} s ago")
        if model.promised and state in {"open", "expired"}:
            raise Broken(Invariant.FAIL_CLOSED, f"{model}, and a client was told that it would be an object")

    def _look_at_live(self, model: Model, live: Live, *, bytes_too: bool) -> None:
        upload = live.upload
        if upload.state is State.OPEN and not upload.offset <= upload.received:
            raise Broken(Invariant.OFFSET, f"{model}: {upload.offset} may be told, {upload.received} are there")
        if (
            upload.state in {State.OPEN, State.SEALED}
            and upload.received < model.announced
            and not self.hurt(model, "read")
        ):
            raise Broken(Invariant.OFFSET, f"{model}: {upload.received} are there")
        self._look_at_word(model, live)
        if upload.state in LIVE:
            model.announce(max(upload.offset, model.announced), "GET")
            if not self.hurt(model, "read") and "unheard" not in model.faults:
                self._require_durable(model, upload)
        if bytes_too and upload.state is State.OPEN:
            model.require_content(self._held(live), "what is received")

    def _look_at_word(self, model: Model, live: Live) -> None:
        """All that its client announced has come: then it seals itself, also after a crash (law 5). Unless that was
        refused, and the client was told.
        """
        upload = live.upload
        refused = (
            upload.meta.if_none_match
            or upload.credential in self.world.doubted
            or upload.length not in {None, upload.received}
            or "cut harshly" in model.faults
            or (model.claims and model.claims[-1].told == "CheckpointError")
        )
        if not upload.due or live.writer or refused:
            model.due_since = None
        elif model.due_since is None:
            model.due_since = self.world.now()
        elif self.world.now() - model.due_since > SEALS_SECONDS:
            raise Broken(Invariant.ENDS, f"{model}: all of its {upload.received} bytes have come, and it is not sealed")

    def _require_durable(self, model: Model, upload: Upload) -> None:
        """What may be told is in the store, or on a disk that loses its power now."""
        disk, position = self.world.process.disk, 0
        while position < upload.offset:
            part = upload.layout.part_at(position)
            size = min(part.end, upload.offset) - part.start
            if part.number not in upload.receipts:
                path = self.world.process.spool.path(upload.id, part.number)
                there, durable = (disk.bytes_of(path) or b"")[:size], disk.durable(path)
                if len(there) < size or durable[:size] != there:
                    what = f"{model}: {upload.offset} may be told, and {path.name} is not synced"
                    raise Broken(Invariant.OFFSET, what)
            position += size

    def _held(self, live: Live) -> bytes:
        """The bytes of an upload, from the bucket and the disk, as far as they are there."""
        upload, pieces, size = live.upload, [], 0
        multipart = self.world.process.store.multiparts.get(upload.multipart_id or "")
        while size < upload.received:
            part = upload.layout.part_at(size)
            if part.number in upload.receipts:
                stored = multipart and multipart.parts.get(part.number)
                if not stored:
                    break  # it was aborted behind our back
                piece = stored.data
            else:
                file = live.accumulator.file(part.number)
                data = file and self.world.process.disk.bytes_of(file.path)
                if not data:
                    raise Broken(Invariant.RECEIVED, f"{upload.id}: byte {size} is received, and nowhere")
                piece = data[: min(part.size, upload.received - size)]
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _require_explained(self, model: Model, reason: str) -> None:
        """It has failed: by something that was really done to it."""
        for beginning, fault in EXPLAINED:
            if reason.startswith(beginning):
                known = self.hurt(model) if fault == "disk" else fault in model.faults
                known |= fault == "read" and self.hurt(model, "read")
                known |= fault == "sync" and self.hurt(model, "sync", "sync_directory")
                known |= fault in {"conflict", "damaged"} and any(fault in kind for kind in self.world.weather.happened)
                known |= fault == "taken" and model.key in self.world.keys_written
                known |= fault == "wrong digest" and self._said_of_others(model)
                known |= fault == "power cut" and self.hurt(model)
                if known and not (fault == "power cut" and model.announced):
                    if "; remove it: " in reason and any("denied" in kind for kind in self.world.weather.happened):
                        model.faults.add("not removed")  # it may not, and says so
                    return
        raise Broken(Invariant.OFFSET, f"{model}, and nothing was done to it that explains: {reason}")

    def _said_of_others(self, model: Model) -> bool:
        """Whether what the whole must be was said with one request, and another one may have been let in and died, or
        its commit failed after its effect: its word holds, and nobody was told.
        """
        return any(model.guards - {word.number} for word in model.words if model.guards and word.start is None)

    def require_nothing_left(self) -> None:
        process = self.world.process
        process.store.arrive(math.inf)
        left: dict[str, Any] = {
            "multipart uploads": sorted(process.store.multiparts),
            "part files": sorted(process.disk.names_now),
            "open files": len(process.disk.open),
            "rows": process.database.rows("multipart_id IS NOT NULL OR creating IS NOT NULL"),
            "live uploads": len(process.uploads.registry),
            "budget": process.spool.budget.reserved,
            "slots": process.uploader.slots.in_flight.total(),
            "tasks": [task.get_name() for task in process.loop.unfinished() if task.get_name() != "upkeep"],
            "objects that are not whole": [
                key
                for key, one in process.store.objects.items()
                if (model := self.world.tokens.get(one.meta.token))
                and model.rotten == "visibly"
                and "not removed" not in model.faults
            ],
        }
        if found := {what: them for what, them in left.items() if them}:
            raise Broken(Invariant.NOTHING_LEFT, f"{found}")


def _differs(made: FakeObject, sent: bytes) -> bool:
    """Whether the store tells checksums that are not those of what was sent."""
    return (
        bool(made.checksums)
        and "-" not in str(made.checksums)
        and made.checksums != checksums_of(sent, made.meta, adds="crc64nvme" in made.checksums)
    )
