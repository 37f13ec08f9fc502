"""Files to a server: each is one upload, which goes on where it was, whatever happened in between.

    LocalFile.open → Notes.open → (known: look it up, compare) → Sending.deliver → seal, with the checksum of the whole

- What the server has is compared with the file before anything is added to it, part by part, by CRC64NVME.
- A byte is read once: what was compared need not be read again for the checksum of the whole.
- A file that is not as it was when it was opened is never completed.
"""

from __future__ import annotations

import asyncio
import mimetypes
import random
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from streamup.client.destination import Destination
from streamup.client.hashing import PIECE_BYTES, Hashing, combined
from streamup.client.local_file import AFRESH, LocalFile
from streamup.client.progress import Progress
from streamup.client.remote import Client, ClientError, Upload
from streamup.client.sending import OFFSET_SECONDS, PATIENCE_SECONDS, Sending, within
from streamup.client.sending import Progress as Position
from streamup.client.table import human_size, sentence
from streamup.client.unfinished import Begun, Forgetful, Note, Notes
from streamup.errors import Interrupted, TransferError

T = TypeVar("T")

Span = tuple[tuple[int, int], bytes | None]
"""Bytes of a file, from where to where, and their CRC64NVME at the server, if that is known."""

SETTLE_SECONDS = 90.0
"""How long an upload that is all at the server is waited for, until the store has confirmed it."""

LOOK_SECONDS = 1.0

NOT_THERE = (404, 410)
ENDED = {"failed": "has failed", "cancelled": "was cancelled", "expired": "has expired"}


@dataclass(frozen=True, slots=True)
class Pushed:
    """A file that is an object, or (`etag` None) will be as soon as the store takes it.

    `resumed`: bytes that were there before. `checksum`: the object's, in base64, by algorithm.
    """

    upload_id: str
    size: int
    resumed: int
    seconds: float
    checksum: Mapping[str, str]
    etag: str | None


class Push:
    """One file on its way to its destination.

    `patience`: how many seconds without progress are waited for a server. One that was never `met` is not waited for:
    that may be a mistyped address. `one_of_several`: what is remembered stays when it is done, for `Pushes` to forget.
    `say` tells people what is worth a line.
    """

    def __init__(
        self,
        client: Client,
        notes: Notes,
        path: str,
        destination: Destination,
        *,
        afresh: bool = False,
        one_of_several: bool = False,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        patience: float = PATIENCE_SECONDS,
        met: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.resumed = 0
        self._client = client
        self._notes = notes
        self._path = path
        self._destination = destination
        self._afresh = afresh
        self._one_of_several = one_of_several
        self._content_type = content_type or _content_type(destination.key)
        self._metadata = metadata
        self._patience = patience
        self._first_patience = patience if met else 0.0
        self._say_anything = say
        self._sending: Sending | None = None
        self._told = False

    @property
    def position(self) -> int:
        """How far it is, in bytes."""
        return max(self.resumed, self._sending.progress.sent if self._sending else 0)

    @property
    def reached(self) -> bool:
        """Whether the server has answered."""
        return self._sending is not None and self._sending.reached

    async def run(self, progress: Progress, skip: Callable[[int], None] = lambda _: None) -> Pushed:
        """Until it is an object. `skip` is told how many bytes need not be sent.

        Raises `ClientError`, `TransferError`, and `Interrupted` if another process is at it. Cancelled at any moment,
        it can go on.
        """
        began = time.monotonic()
        with ExitStack() as stack:
            file = stack.enter_context(LocalFile.open(self._path))
            note = self._open_note(stack)
            upload = await self._known(note, progress)
            if upload and upload["state"] == "complete":
                if await self._is_that(file, upload, progress):
                    self._done(note)
                    self.resumed = file.length
                    skip(file.length)
                    return _pushed(file, upload["object"], file.length, began)
                upload = None
            crc = await self._compare(file, note, upload, progress) if upload else 0
            skip(self.resumed)
            stored = await self._send(file, note, upload["id"] if upload else None, crc, progress)
            self._done(note)
            return _pushed(file, stored, self.resumed, began)

    def _done(self, note: Note) -> None:
        if not self._one_of_several:
            note.remove()

    def _say(self, text: str) -> None:
        self._say_anything(f"{self._path}: {text}")

    # -- what is remembered -------------------------------------------------------------------------------------

    def _open_note(self, stack: ExitStack) -> Note:
        try:
            note = stack.enter_context(self._notes.open(self._path, self._destination))
        except OSError as error:
            self._forgetful(error)
            return Forgetful()
        if note.damaged:
            self._say("what was noted of an earlier push cannot be read. A new upload begins.")
        return note

    def _forgetful(self, error: OSError) -> None:
        if not self._notes.complained:
            self._notes.complained = True
            self._say(
                f"nothing can be noted in {self._notes.directory} ({error.strerror}): once interrupted, this push "
                "begins anew. XDG_STATE_HOME names another place."
            )

    async def _known(self, note: Note, progress: Progress) -> Upload | None:
        """The upload of an earlier push, open or complete, if there is one."""
        if note.known is None:
            return None
        upload_id = note.known.upload_id
        if self._afresh:
            await self._give_up(upload_id, progress)
            note.remove()
            return None
        try:
            upload = await self._settled(upload_id, progress)
        except ClientError as error:
            if error.status not in NOT_THERE:
                raise
            self._say("what an earlier push has sent is gone from the server. A new upload begins.")
            return None
        if upload["state"] in ENDED or upload["key"] != self._destination.key:
            self._say(
                f"the upload of an earlier push {ENDED.get(upload['state'], 'is another one')}. A new one begins."
            )
            return None
        return upload

    async def _settled(self, upload_id: str, progress: Progress) -> Upload:
        """The upload, once it is known whether it completes."""
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            upload = await self._insist(lambda: self._client.look(upload_id), progress)
            if _checked(upload)["state"] not in ("sealed", "completing"):
                return upload
            progress.waiting = "waiting for the store"
            if time.monotonic() > until:
                raise Interrupted(
                    "Every byte is safe at the server, and the store has not confirmed it yet. It completes by itself: "
                    f"streamup status {upload_id}"
                )
            await asyncio.sleep(LOOK_SECONDS)
            progress.waiting = None

    async def _give_up(self, upload_id: str, progress: Progress) -> None:
        try:
            await self._insist(lambda: self._client.cancel(upload_id), progress)
        except ClientError as error:
            if error.status not in (*NOT_THERE, 409):  # 409: it is complete
                raise
        self._say("what was sent before is given up. A new upload begins.")

    async def _insist(self, ask: Callable[[], Awaitable[T]], progress: Progress) -> T:
        """The answer, as soon as there is one; with the patience of `Sending`."""
        began = time.monotonic()
        while True:
            try:
                answer = await within(OFFSET_SECONDS, ask())
            except ClientError as error:
                patience = self._first_patience if error.status is None else self._patience
                if not error.again or time.monotonic() > began + patience:
                    raise
                progress.waiting = f"waiting: {error}"
                await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - spreads retries
            else:
                self._first_patience = self._patience  # it is there: what breaks now is the connection
                progress.waiting = None
                return answer

    # -- what the server has ------------------------------------------------------------------------------------

    async def _is_that(self, file: LocalFile, upload: Upload, progress: Progress) -> bool:
        """Whether the object of a complete upload is the file, and is there still."""
        etag = await self._insist(lambda: self._client.etag(upload["key"]), progress)
        if etag != upload["object"]["etag"]:
            self._say("an earlier push of it is complete, and its object is no longer there. A new upload begins.")
            return False
        expected = _crc_of(upload)
        if upload["object"]["size"] == file.length and expected is not None:
            with Hashing(file.descriptor) as hashing:
                progress.follow("comparing", lambda: (hashing.done, hashing.planned))
                found = await _crc(hashing, [(span, None) for span in _pieces(0, file.length)])
            file.check()
            if found == expected:
                return True
        self._say("an earlier push of it is complete, and has other bytes. A new upload begins.")
        return False

    async def _compare(self, file: LocalFile, note: Note, upload: Upload, progress: Progress) -> int:
        """Compare what the server has with the file. The CRC64NVME of that; `resumed` is how much it is."""
        sent = f"It has changed since the first {human_size(upload['offset'])} of it were sent. {AFRESH}"
        if note.known is None or not note.known.identity.same(file.identity):
            raise TransferError(sent)
        offset = await self._insist(lambda: self._client.offset(upload["id"]), progress)
        spans = _spans(upload["parts"], offset)
        with Hashing(file.descriptor) as hashing:
            progress.follow("comparing", lambda: (hashing.done, hashing.planned))
            crc = await _crc(hashing, spans)
        if crc is None:
            raise TransferError(sent)
        self.resumed = offset
        return crc

    # -- what it has not ----------------------------------------------------------------------------------------

    async def _send(self, file: LocalFile, note: Note, upload_id: str | None, crc: int, progress: Progress) -> Upload:
        """Send the rest. The object, as far as it is known: the store may not have confirmed it yet."""

        def tell(position: Position) -> None:
            progress.waiting = None
            if position.state == "waiting":
                progress.waiting = f"waiting {position.seconds:.0f} s: {position.reason}"
                if not self._told:
                    self._say(f"{sentence(position.reason)} Trying again.")
            self._told = position.state == "waiting" or (self._told and position.state != "connected")
            if sending.upload_id is not None:
                self._note_once(note, Begun(file.identity, sending.upload_id))

        self._sending = sending = Sending(
            self._client,
            file,
            self._destination.key,
            upload_id=upload_id,
            content_type=self._content_type,
            metadata=self._metadata,
            patience=self._patience,
            checked=(self.resumed, crc),
            first_patience=self._first_patience,
            tell=tell,
        )
        progress.follow("sending", lambda: (self.position, file.length))
        await sending.deliver()
        file.check()
        progress.follow("completing", lambda: (self.position, file.length))
        try:
            return await sending.seal() or {"upload": sending.upload_id}
        except ClientError as error:
            if error.status != 400:  # noqa: PLR2004 - Bad Request: the checksum is another one
                raise
            raise TransferError(f"What the server has is not this file ({error}). {AFRESH}") from error

    def _note_once(self, note: Note, begun: Begun) -> None:
        """Before the first byte goes out, so that nothing is sent twice."""
        if note.known != begun:
            try:
                note.write(begun)
            except OSError as error:
                self._forgetful(error)


# -- what the server tells


def _checked(upload: Upload) -> Upload:
    """Raises `ClientError` if it lacks what is read of it here."""
    if (
        not isinstance(upload, Mapping)
        or not isinstance(upload.get("state"), str)
        or not isinstance(upload.get("key"), str)
        or not isinstance(upload.get("offset"), int)
        or not isinstance(upload.get("parts"), list)
        or (upload["state"] == "complete" and not isinstance(upload.get("object"), Mapping))
    ):
        raise ClientError("The server answers what streamup does not. Is this a streamup server?")
    return upload


def _spans(parts: Sequence[Mapping[str, Any]], offset: int) -> list[Span]:
    """The parts up to `offset`, with their CRCs where they are told, and then the rest up to it."""
    spans: list[Span] = []
    position = 0
    try:
        for number, part in enumerate(parts, 1):
            end = position + part["size"]
            if part["number"] != number or end > offset:  # parts behind a gap
                break
            told = part.get("crc64nvme")
            spans.append(((position, end), None if told is None else b64decode(told)))
            position = end
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError("The server tells no parts as streamup does. Is this a streamup server?") from error
    return [*spans, *((span, None) for span in _pieces(position, offset))]


def _pieces(start: int, end: int) -> list[tuple[int, int]]:
    return [(position, min(position + PIECE_BYTES, end)) for position in range(start, end, PIECE_BYTES)]


async def _crc(hashing: Hashing, spans: Sequence[Span]) -> int | None:
    """The CRC64NVME of all; None as soon as one of them is not as it should be."""
    found: list[tuple[bytes, int]] = []
    digests = [hashing.begin("crc64nvme", start, end) for (start, end), _ in spans]
    for ((start, end), expected), digest in zip(spans, digests, strict=True):
        crc = await digest
        if expected not in (None, crc):
            return None
        found.append((crc, end - start))
    return int.from_bytes(combined("crc64nvme", found), "big")


def _crc_of(upload: Upload) -> int | None:
    """The CRC64NVME of a complete upload's object, if it is told."""
    try:
        told = (upload["object"]["checksum"] or {}).get("crc64nvme")
        if told is not None:
            return int.from_bytes(b64decode(told), "big")
        parts = [(b64decode(part["crc64nvme"]), part["size"]) for part in upload["parts"]]
        return int.from_bytes(combined("crc64nvme", parts), "big") if parts else None
    except (KeyError, TypeError, ValueError):
        return None


def _pushed(file: LocalFile, stored: Upload, resumed: int, began: float) -> Pushed:
    return Pushed(
        str(stored.get("upload", "")),
        file.length,
        resumed,
        time.monotonic() - began,
        stored.get("checksum") or {},
        stored.get("etag"),
    )


def _content_type(key: str) -> str | None:
    """What a browser should take it for. Of what is compressed there is none: it would be taken for its content."""
    kind, encoding = mimetypes.guess_type(f"/{key}")
    return None if encoding else kind
