"""Clients of a server whose store fails: who is told "later" comes again later, and each upload is followed to its end.

    sent = Sent(server, "a/key", Keystream("a/key", 7 << 20), rng=random.Random(1))
    sent.run(tus)
    sent.outcome, sent.reason, sent.announced

Their connections are good. Who is told anything that cannot be is an end of the campaign (`Broken`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from invariants import Broken, Invariant
from process import Answer
from raw_client import PARTIAL
from resuming import Refused, Sending, Way

PATIENCE_SECONDS = 120.0
"""No answer takes so long, whatever the store does: an upload that has not ended by then never will."""

LATER = frozenset({423, 503, 507})
LATER_SECONDS = 0.2
ENDED = frozenset({"complete", "failed", "cancelled", "expired"})

Outcome = Literal["", "complete", "failed", "cancelled"]


@dataclass
class Sent(Sending):
    """One upload, as its client knows it."""

    wrong: bool = False
    """What is said of the whole is not so."""

    outcome: Outcome = ""
    reason: str = ""
    delayed: int = 0
    """How often it was told to come later."""

    def run(self, way: Way) -> None:
        """To its end, whatever that is. Raises `TimeoutError`."""
        while not self.outcome:
            try:
                self.go_on(way)
            except Refused as refused:
                if refused.answer.status in LATER:
                    self.delayed += 1
                    self.wait(LATER_SECONDS)
                else:
                    self._conclude(refused.answer)
            if self.stored:
                if self.announced != self.size:
                    raise Broken(Invariant.CLEAN_END, f"{self.key} has {self.size} bytes, told is {self.announced}")
                self._ends("complete")
        self.end()

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
        return self.server.ask(method, path, headers, body, seconds=PATIENCE_SECONDS)

    def gone(self, why: str) -> None:
        """It may fail, for what its store does."""

    def place(self) -> int:
        """By its id: under its key there may be somebody else's object, or a former one."""
        if not self.id:
            return 0
        if self._document()["state"] != "open":
            return self.size
        return int(self.ask("HEAD", f"/uploads/{self.id}", {}, b"", 200, 204).headers["Upload-Offset"])

    def end(self) -> None:
        """Wait for the end of what is stored by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.id:
            found = self._document()
            if found["state"] in ENDED:
                return self._ends(found["state"], found["reason"] or "")
            if time.monotonic() > deadline:
                raise TimeoutError
            self.wait(LATER_SECONDS)
        return None

    def _conclude(self, answer: Answer) -> None:
        """The last answer: a promise of an object, or why there is none."""
        if answer.status in {400, 409, 410, 412, 460} or (answer.status == 404 and self.id):
            self._ends("failed", answer.json()["detail"] if answer.body else "")
        elif answer.status >= 300:
            raise Broken(Invariant.ENDS, f"{self.key}: {answer.status} {answer.body!r}")
        else:
            self.end()

    def _ends(self, outcome: Outcome, reason: str = "") -> None:
        if self.outcome and outcome != self.outcome:
            raise Broken(Invariant.FAIL_CLOSED, f"{self.key} was {self.outcome}, and now is {outcome} ({reason})")
        self.outcome, self.reason = outcome, self.reason or reason

    def _document(self) -> dict[str, Any]:
        """The upload as GET tells it, which disturbs nobody."""
        return self.server.ask("GET", f"/uploads/{self.id}").json()


def cancelled(sending: Sending, offset: int) -> None:
    """A part of it, and then the client gives it up."""
    if not sending.id:
        sending.ask("POST", f"/uploads?key={sending.key}", {"Upload-Complete": "?0"}, b"", 201)
    if offset == 0:
        words = {"Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?0"}
        end = sending.rng.randrange(sending.size)
        sending.ask("PATCH", f"/uploads/{sending.id}", words, sending.data[:end])
    sending.ask("DELETE", f"/uploads/{sending.id}", {}, b"", 204, 410)
