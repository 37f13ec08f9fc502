"""Clients that remember everything they are told, and hold the server to it.

    client = Client(server, "name", KINDS[0], random.Random(7), heard)
    client.run(stop)                   # sends one object after another; `heard()` at each announcement
    for sending in client.sendings:
        sending.check()                # after a restart: what it was told is so

What they do is what the README says. A server that dies under them is no error: they ask again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from invariants import Broken, Invariant
from process import MIB, PART, Answer, Server, content

GONE = (OSError, http.client.HTTPException)
"""What a client gets from a server that has died."""


@dataclass
class Sending:
    """One object on its way, and everything that its client was told: there is such an upload (its `id`), so many bytes
    of it are kept (`announced`), it completes by itself (`promised`), it is stored (`stored`).
    """

    server: Server
    key: str
    data: bytes
    heard: Callable[[], None]
    id: str = ""
    announced: int = 0
    announcements: int = 0
    promised: bool = False
    stored: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = b"") -> Answer:
        """One request, and what its answer promises."""
        before = self.announced
        answer = self.server.ask(method, path, headers, body)
        if answer.status == 410 and before:
            raise Broken(Invariant.OFFSET, f"{self.key} is gone, {before} bytes were announced: {answer.body!r}")
        if (location := answer.headers.get("Location", "")).rpartition("/")[0].endswith("/uploads"):
            self.id = location.rpartition("/")[2]
        if "Upload-Offset" in answer.headers:
            self.hear(int(answer.headers["Upload-Offset"]), before)
        if answer.status in {200, 201} and answer.headers.get("Upload-Complete") == "?1":
            self.promised = self.stored = True
        elif answer.status == 202:
            self.promised = True
        return answer

    def hear(self, offset: int, before: int) -> None:
        """An announcement, and what had been announced when it was asked for."""
        if offset < before:
            raise Broken(Invariant.OFFSET, f"{self.key}: {before} was announced, {offset} is told now")
        with self.lock:
            new, self.announced = offset > self.announced, max(offset, self.announced)
            self.announcements += new
        if new:
            self.heard()

    def look(self) -> dict[str, Any] | None:
        """The upload as it is, without disturbing it. None if there is none, or if it has failed and no client was told
        of a byte of it: it was being stored when the server died, and is sent again.
        """
        before = self.announced
        if self.id:
            answer = self.server.ask("GET", f"/uploads/{self.id}")
            found = answer.json() if answer.status == 200 else None
        else:
            found = next((one for one in self.server.uploads(self.key) if one["state"] != "failed"), None)
        if found:
            self.id = found["id"]
            self.hear(found["offset"], before)
            if found["state"] == "failed" and not self.announced and not self.promised:
                self.id = ""
                return None
        return found

    def check(self) -> None:
        """After a restart: what we were told is so."""
        found = self.look()
        if found is None:
            if self.id or self.announced or self.promised:
                raise Broken(Invariant.OFFSET, f"{self.key} is not known, and {self.announced} bytes were announced")
            return
        if found["state"] not in {"open", "sealed", "completing", "complete"}:
            raise Broken(
                Invariant.OFFSET,
                f"{self.announced} announced bytes of {self.key} are lost: it is {found['state']} ({found['reason']})",
            )
        if self.promised and found["state"] == "open":
            raise Broken(Invariant.OFFSET, f"{self.key} was to complete by itself, and is open again")
        if self.stored and found["state"] != "complete":
            raise Broken(Invariant.OFFSET, f"{self.key} was stored, and is {found['state']} again")
        for path in self.server.data.glob(f"spool/{self.id}.*"):
            start = (int(path.suffix[1:]) - 1) * PART
            with contextlib.suppress(FileNotFoundError):  # it has been stored meanwhile
                there = path.read_bytes()
                if there != self.data[start : start + len(there)]:
                    raise Broken(Invariant.OFFSET, f"{path.name} of {self.key} does not hold what was sent")

    # -- what its client does next -----------------------------------------------------------------------------------

    def place(self) -> int | None:
        """Where to go on; None if all has been sent, and only the outcome is not known."""
        found = self.look()
        if found is None:
            return 0
        if found["state"] == "open":
            head = self.ask("HEAD", f"/uploads/{self.id}")
            return int(head.headers["Upload-Offset"]) if head.status < 300 and not self.promised else None
        self.ask("PUT", f"/objects/{self.key}", {"Content-Range": f"bytes */{len(self.data)}"})
        return None

    def put(self, start: int, end: int, body: Any = None, **headers: str) -> Answer:
        """A range of it; the last one is the last."""
        total = len(self.data) if end == len(self.data) else "*"
        where = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        return self.ask("PUT", f"/objects/{self.key}", where | headers, self.data[start:end] if body is None else body)

    def seal(self) -> None:
        """All bytes are there, and nobody has said that they are all."""
        words = {"Upload-Offset": str(len(self.data)), "Upload-Complete": "?1"}
        self.ask("PATCH", f"/uploads/{self.id}", words | {"Content-Type": "application/partial-upload"})


Send = Callable[[Sending, int, random.Random, threading.Event], None]


def live(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """A stream of small pieces, without a known end."""

    def pieces() -> Iterator[bytes]:
        position = offset
        while position < len(sending.data):
            if stop.wait(0.004):  # real time: it is slower than the disk
                raise ConnectionAbortedError
            end = position + rng.randint(1, 80_000)
            yield sending.data[position:end]
            position = end

    where = {"Content-Range": f"bytes {offset}-*/*"} if offset or sending.id else {}
    sending.ask("PUT", f"/objects/{sending.key}", where, pieces())


def ranges(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """Range after range, each answered with what is kept."""
    while offset < len(sending.data) and not stop.wait(0.002):
        end = min(len(sending.data), offset + rng.choice([rng.randint(1, 5000), rng.randint(1, 3 * MIB)]))
        if sending.put(offset, end).status not in {201, 202, 308}:
            return
        offset = end


def digests(sending: Sending, offset: int, rng: random.Random, stop: threading.Event) -> None:
    """Appends that count once their digest has matched; now and then it does not."""
    if not sending.id:
        sending.ask("PUT", f"/objects/{sending.key}", {"Upload-Complete": "?0"})
    while offset < len(sending.data) and not stop.wait(0.002):
        end = min(len(sending.data), offset + rng.randint(1, 2 * MIB))
        piece = sending.data[offset:end]
        digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        words = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == len(sending.data) else "?0"}
        words |= {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/partial-upload"}
        wrong = rng.random() < 0.2
        answer = sending.ask("PATCH", f"/uploads/{sending.id}", words, piece[::-1] if wrong else piece)
        if answer.status not in ({400} if wrong else {200, 201, 202, 204}):
            return
        offset = offset if wrong else end


def small(sending: Sending, offset: int, _rng: random.Random, _stop: threading.Event) -> None:
    """All of it in one request, and one PutObject."""
    if sending.id:
        sending.put(offset, len(sending.data))
    else:
        sending.ask("PUT", f"/objects/{sending.key}", {}, sending.data)


def promised(sending: Sending, offset: int, _rng: random.Random, _stop: threading.Event) -> None:
    """... whose client does not wait until it is stored: it is told that it will be."""
    prefer = {"Prefer": "respond-async"}
    if sending.id:
        sending.put(offset, len(sending.data), **prefer)
    else:
        sending.ask("PUT", f"/objects/{sending.key}", prefer, sending.data)


KINDS: tuple[tuple[Send, int, int], ...] = (
    (live, 3 * MIB, 14 * MIB),
    (live, 1, 6 * MIB),
    (ranges, 1, 12 * MIB),
    (digests, 1, 8 * MIB),
    (small, 1, 400_000),
    (promised, 1, 7 * MIB),
)
"""Who sends, and how small and how large an object."""


@dataclass
class Client:
    """Sends one object after another."""

    server: Server
    name: str
    kind: tuple[Send, int, int]
    rng: random.Random
    heard: Callable[[], None]
    sendings: list[Sending] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Until the power is cut."""
        while not stop.is_set():
            self.finish(stop)
            if not stop.is_set():
                self._begin()

    def finish(self, stop: threading.Event) -> None:
        """The object on its way, until its client may forget it."""
        while self.sendings and not self.sendings[-1].promised and not stop.is_set():
            try:
                self._go_on(self.sendings[-1], stop)
            except GONE:
                stop.wait(0.01)  # somebody else went on with it, or nobody is there: ask again

    def _begin(self) -> None:
        _, least, most = self.kind
        data = content(self.rng.randint(least, most), self.rng.getrandbits(32))
        self.sendings.append(Sending(self.server, f"{self.name}-{len(self.sendings)}", data, self.heard))

    def _go_on(self, sending: Sending, stop: threading.Event) -> None:
        offset = sending.place()
        if offset is not None and offset == len(sending.data) and sending.id:
            sending.seal()
        elif offset is not None:
            self.kind[0](sending, offset, self.rng, stop)
