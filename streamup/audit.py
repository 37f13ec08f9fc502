"""The audit trail: a record for each upload that is created or ends, each object that is removed, and each request that
is refused: who, from where, what, and with what outcome.

Records go to the log under the name of this room, with fields as fields (`logs` writes them down). Nothing that opens
anything is among them: no credential but its name, no header, no query.

Who is behind an act is found by context: what a request begins, also the task in which its upload completes much later,
inherits its `Asker`. What this process does by itself (an expiry, whatever was begun before a restart) has none.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass

from streamup.errors import StreamupError, UploadError, WriterStopped
from streamup.grants import Grant
from streamup.protocols import RequestHead
from streamup.upload import State, Upload

WINDOW_SECONDS = 60.0
MOST_REFUSALS = 10
"""Of each reason, in a window: anybody can be refused a thousand times a second, and the disk is finite. Some thirty
reasons of 300 bytes make at most 130 MB a day.
"""

MOST_CHARACTERS = 1024
"""Of a field. An object's key fits; the name of an upload that never was may be as long as a request's head."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Asker:
    """Who sent a request: an address, and what their credential allows, as far as that is known by now."""

    remote: str | None = None
    grant: Grant | None = None

    @property
    def credential(self) -> str | None:
        return self.grant.credential if self.grant else None

    @property
    def subject(self) -> str | None:
        return self.grant.subject if self.grant else None


_NOBODY = Asker()
_asker = ContextVar("_asker", default=_NOBODY)


def asks(remote: str | None) -> Asker:
    """From here on, in this context, this client is behind what is done. What is learnt of it later goes in there."""
    asker = Asker(remote)
    _asker.set(asker)
    return asker


def created(upload: Upload) -> None:
    """An upload is new, and that is committed."""
    _tell("created", credential=_asker.get().credential, **_of(upload))


def ended(upload: Upload) -> None:
    """An upload has become its object or has been given up, and that is committed."""
    credential = upload.credential
    if upload.state is State.CANCELLED:  # by whoever asks now, the last word on its bytes may have been another's
        credential = _asker.get().credential
    _tell(str(upload.state), credential=credential, size=upload.size, received=upload.received, **_of(upload))


def deleted(key: str) -> None:
    """The object under this key was removed."""
    asker = _asker.get()
    _tell("deleted", subject=asker.subject, credential=asker.credential, key=key)


class Refusals:
    """Refused requests, counted by reason; the first of a window are told one by one, the others as a number."""

    def __init__(self) -> None:
        self.counted = Counter[str]()
        """By reason, since the start."""
        self._recent = Counter[str]()

    def add(self, error: StreamupError, status: int, method: str, head: RequestHead | None) -> None:
        """A request was answered with `status`; `head` None: it could not be read. What a fault here or in the store
        says is for the operator; what a client did wrong it was told itself.
        """
        reason = reason_of(error)
        self.counted[reason] += 1
        self._recent[reason] += 1
        if self._recent[reason] == 1:
            asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._end_window, reason)
        if self._recent[reason] > MOST_REFUSALS:
            return
        asker = _asker.get()
        whose = {"subject": asker.subject, "credential": asker.credential}
        what = {"upload": head and head.upload_id, "key": head and head.key, "method": method, "status": status}
        fault = None if isinstance(error, UploadError) else str(error)
        act = "interrupted" if isinstance(error, WriterStopped) else "refused"
        _tell(act, **whose, **what, reason=reason, error=fault)

    def finish(self) -> None:
        """Tell what was left out until now: there is no later."""
        for reason in list(self._recent):
            self._end_window(reason)

    def _end_window(self, reason: str) -> None:
        left_out = self._recent.pop(reason, 0) - MOST_REFUSALS
        if left_out > 0:
            log.warning("more were refused", extra={"fields": {"reason": reason, "left_out": left_out}})


def reason_of(error: StreamupError) -> str:
    """An error's name as metrics and logs write it: `OffsetMismatch` is `offset_mismatch`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _of(upload: Upload) -> dict[str, object]:
    return {"subject": upload.subject, "upload": upload.id, "key": upload.key, "reason": upload.reason}


def _tell(act: str, **fields: object) -> None:
    given = {"remote": _asker.get().remote, **fields}
    told = {name: value[:MOST_CHARACTERS] if isinstance(value, str) else value for name, value in given.items()}
    log.info(act, extra={"fields": {name: value for name, value in told.items() if value is not None}})
