"""What has changed of the uploads, for all who watch: looked at once, however many they are, and only while one does.

Each change gets the next number, its revision, and a watcher remembers which one it has seen. So who watches uploads of
which nothing changes costs a comparison, and one that changes is written down once.

An end is told by the registry, when it is committed: an upload may begin and end between two looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from streamup.grants import Grant
from streamup.protocols.documents import event
from streamup.upload import LIVE, Upload
from streamup.uploads import Uploads
from streamup.writer import Live

LOOK_SECONDS = 0.5
"""Who asks sooner than this is told what was seen then. 10,000 open uploads take the loop some 15 ms each time."""

MOST_ENDINGS = 1000
"""Endings that are kept for those who have not read them yet (law 8): the whole of a busy second or two, 1 MB."""


class Notice:
    """The newest change of one upload."""

    __slots__ = ("_event", "_uploads", "live", "marks", "revision", "upload")

    def __init__(self, uploads: Uploads, upload: Upload, live: Live | None, marks: object, revision: int) -> None:
        self._uploads = uploads
        self.live = live
        self._event: bytes | None = None
        self.upload = upload
        self.marks = marks
        self.revision = revision
        if live is None:
            self._event = event("upload", uploads.document(upload))
            self.upload = replace(upload, receipts={}, hashes={})  # only whose it is will be asked

    @property
    def event(self) -> bytes | None:
        """It as an event, for all watchers the same; None where memory may not be told just now."""
        if self._event is None and self.live is not None and may_be_told(self.live):
            self._event = event("upload", self._uploads.document(self.upload))
        return self._event


class Board:
    """The newest change of each upload, in the order of revisions."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._watchers = 0
        self._notices: dict[str, Notice] = {}
        self._endings: deque[str] = deque()
        self._revision = 0
        self._looked = float("-inf")
        self.forgotten = 0
        """Who has seen no more than this revision may have missed an end."""
        uploads.registry.on_end = self._end

    def __repr__(self) -> str:
        return f"<Board {len(self._notices)} uploads, revision {self._revision}, {self._watchers} watchers>"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody watches; when nobody does, nothing is kept."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._notices.clear()
                self._endings.clear()
                self._looked = float("-inf")

    def look(self) -> int:
        """See what has changed. The newest revision."""
        now = asyncio.get_running_loop().time()
        if now >= self._looked + LOOK_SECONDS:
            self._looked = now
            for live in self._uploads.registry:
                if may_be_told(live):
                    marks, known = marks_of(live, self._uploads), self._notices.get(live.upload.id)
                    if known is None or known.marks != marks or known.live is not live:
                        self._put(live.upload, live, marks)
        return self._revision

    def notice(self, upload_id: str) -> Notice | None:
        """What is known of this upload, if it is live or has ended a moment ago."""
        return self._notices.get(upload_id)

    def since(self, revision: int, grant: Grant) -> list[Notice]:
        """What has changed after this revision of the uploads that are one's own, in that order."""
        found = []
        for notice in reversed(self._notices.values()):
            if notice.revision <= revision:
                break
            if grant.owns(notice.upload):
                found.append(notice)
        return found[::-1]

    def _end(self, upload: Upload) -> None:
        """It has ended, and that is committed."""
        if not self._watchers:
            return
        self._put(upload, None, None)
        self._endings.append(upload.id)
        if len(self._endings) > MOST_ENDINGS and (oldest := self._notices.pop(self._endings.popleft(), None)):
            self.forgotten = oldest.revision

    def _put(self, upload: Upload, live: Live | None, marks: object) -> None:
        self._revision += 1
        self._notices.pop(upload.id, None)  # so that it becomes the last one
        self._notices[upload.id] = Notice(self._uploads, upload, live, marks, self._revision)


def may_be_told(live: Live) -> bool:
    """Whether memory is true: no commit has failed (law 4), and no end waits for its commit."""
    return not live.stale and live.upload.state in LIVE


def marks_of(live: Live, uploads: Uploads) -> object:
    """What tells whether a live upload has changed, at a tenth of its document's cost. Not the rate: it is an average,
    and changes even when nothing comes.
    """
    upload = live.upload
    return (
        *(upload.state, upload.offset, upload.received, len(upload.receipts)),
        *(upload.length, upload.seal_at, upload.size, upload.touched),
        *(live.writer is None, uploads.held(upload.id)),
    )
