"""Clients that do what the README says, whatever happens to the server, and hold it to all that they were told.

    sending = Sending(server, "a/key", body)
    sending.send(ranges)               # raises one of GONE if the server is killed: call it again
    sending.check()                    # after a restart: what it was told is so

    client = Client(server, "name", Kind(live, 1, 6 * MIB), random.Random(7))
    client.run(stop)                   # one object after another

Each goes on where the server says that it is. Being told less than before, or anything else that a client could not go
on from, is `Broken`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from invariants import Broken, Invariant
from keystream import Keystream
from process import MIB, PART, Answer, Server, content
from raw_client import OCTETS, PARTIAL, TUS

RANGE = 9 * MIB // 2
"""What a client without a `rng` sends at once: parts of 5 MiB are cut within, each time elsewhere."""

GONE = (OSError, http.client.HTTPException)
"""What a client gets from a server that is killed."""


class Refused(Broken):
    """The answer is none that a client gets who does as it was told, and has nobody beside it who does the same."""

    def __init__(self, sending: Sending, answer: Answer) -> None:
        # 410: streamup has given the upload up.
        invariant = Invariant.RECEIVED if answer.status == 410 else Invariant.ENDS
        told = f"{answer.status} {answer.body!r}"
        super().__init__(invariant, f"{sending.key}: a client that does as it was told gets {told}")
        self.answer = answer


AGAIN = (*GONE, Refused)
"""After which a client that is not alone asks again how far it is."""


@dataclass
class Sending:
    """One object on its way, and everything that its client was told: there is such an upload (its `id`), so many bytes
    of it are kept (`announced`), it completes by itself (`promised`), the object is there (`stored`), and its upload
    has ended with that (`complete`).

    Several may ask about it at the same time; one of them sends.
    """

    server: Server
    key: str
    data: bytes | Keystream
    words: Mapping[str, str] = field(default_factory=dict)
    """Said of the whole with each request that sends some of it."""

    rng: random.Random | None = None
    """Decides where bodies are cut; without it they are as long as each other."""

    query: str = ""
    """Asks for more, with the request that creates it."""

    heard: Callable[[], None] = lambda: None
    """Called at each announcement."""

    stop: threading.Event = field(default_factory=threading.Event)
    id: str = ""
    announced: int = 0
    announcements: int = 0
    begun: bool = False
    unsaid: bool = False
    """It may be that nobody knows where it ends, when all bytes are there."""

    promised: bool = False
    stored: bool = False
    complete: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        return len(self.data)

    # -- what it is told ---------------------------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = b"", *expected: int
    ) -> Answer:
        """One request, and what its answer promises. Raises `Refused` if it is none of the `expected`."""
        before = self.announced
        answer = self.exchange(method, path, headers or {}, body)
        if answer.status == 410 and before:
            self.gone(f"{answer.body!r}")
        if (location := answer.headers.get("Location", "")).rpartition("/")[0].endswith("/uploads"):
            self.id = location.rpartition("/")[2]
        if "Upload-Offset" in answer.headers:
            self.hear(int(answer.headers["Upload-Offset"]), before)
        if answer.status in {200, 201} and answer.headers.get("Upload-Complete") == "?1":
            self.promised = self.stored = True
            self.complete = self.complete or method != "HEAD"  # which only looks into the store
        elif answer.status == 202:
            self.promised = True
        if expected and answer.status not in expected:
            raise Refused(self, answer)
        return answer

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
        return self.server.ask(method, path, headers, body)

    def gone(self, why: str) -> None:
        """There is no upload any more, and bytes of it were announced."""
        raise Broken(Invariant.OFFSET, f"{self.key} is gone, {self.announced} bytes were announced: {why}")

    def hear(self, offset: int, before: int) -> None:
        """An announcement, and what had been announced when it was asked for: it never falls (law 2), unless the upload
        was begun anew since then, and never is more than was sent.
        """
        if offset < before <= self.announced:
            raise Broken(Invariant.OFFSET, f"{self.key}: {before} was announced, {offset} is told now")
        if offset > self.size:
            raise Broken(Invariant.OFFSET, f"{self.key} has {self.size} bytes, {offset} is told")
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
            if not (self.stored and found["state"] == "completing"):  # HEAD has told of the object, not of its upload
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
        if self.complete and found["state"] != "complete":
            raise Broken(Invariant.OFFSET, f"{self.key} was complete, and is {found['state']} again")
        for path in self.server.data.glob(f"spool/{self.id}.*"):
            start = (int(path.suffix[1:]) - 1) * PART
            with contextlib.suppress(FileNotFoundError):  # it has been stored meanwhile
                there = path.read_bytes()
                if there != self.data[start : start + len(there)]:
                    raise Broken(Invariant.OFFSET, f"{path.name} of {self.key} does not hold what was sent")

    # -- what its client does next -----------------------------------------------------------------------------------

    def place(self) -> int:
        """Where to go on, as `curl -I` asks."""
        stored = self.stored
        answer = self.ask("HEAD", f"/objects/{self.key}", {}, b"", 200, 404)
        complete = answer.headers.get("Upload-Complete") == "?1"
        if stored and not complete:
            raise Broken(Invariant.WHOLE, f"{self.key} was complete, and HEAD answers {answer.status} now")
        if complete and int(answer.headers["Content-Length"]) != self.size:
            raise Broken(Invariant.CLEAN_END, f"{self.key} has {answer.headers['Content-Length']} bytes of {self.size}")
        if answer.status == 200:
            return int(answer.headers["Upload-Offset"])
        if self.announced:
            self.gone("404")
        self.id = ""
        return 0

    def go_on(self, way: Way) -> None:
        """From where it is, at first from its beginning. Raises one of `AGAIN`."""
        offset = self.place() if self.begun or self.id else 0
        self.begun = True
        if not self.stored:
            if offset < self.size or not self.id:
                way(self, offset)
            else:
                self.end()

    def send(self, way: Way) -> None:
        """Until it is stored, and HEAD says so."""
        while not self.stored:
            self.go_on(way)
        self.place()

    def put(self, start: int, end: int) -> None:
        """A range of it; the last one is the last."""
        total, expected = (self.size, 201) if end == self.size else ("*", 308)
        where = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
        self.ask("PUT", f"/objects/{self.key}", {**where, **self.words}, self.data[start:end], expected)

    def end(self) -> None:
        """All bytes are there. Wait for the outcome; if nobody has said that they are all, say so."""
        path, where = f"/objects/{self.key}", {"Content-Range": f"bytes */{self.size}"}
        if self.ask("PUT", path, where, b"", 200, 201, *([308] * self.unsaid)).status == 308:
            self.ask("PUT", path, where | {"Upload-Complete": "?1"}, b"", 201)

    def cut(self, start: int) -> int:
        """Where a body that begins at `start` ends."""
        size = RANGE - start % RANGE
        if self.rng:
            size = self.rng.choice([self.rng.randint(1, 5000), self.rng.randint(1, 3 * MIB)])
        return min(self.size, start + size)

    def wait(self, seconds: float) -> None:
        """Real time, between two pieces. As if the connection broke when the client is stopped."""
        if self.stop.wait(seconds):
            raise ConnectionAbortedError


def sha256(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def whole(data: bytes) -> dict[str, str]:
    """What the object must be, as `words`: nothing may lose the hash that runs over it."""
    return {"Repr-Digest": sha256(data)}


# -- ways to send: from an offset, to the end or to the first answer that is none -------------------------------------

Way = Callable[[Sending, int], None]


def live(sending: Sending, offset: int) -> None:
    """A stream of small pieces, without a known end; the rest of it as `bytes N-*/*`."""

    def pieces() -> Iterator[bytes]:
        position = offset
        while position < sending.size:
            sending.wait(0.004)  # it is slower than the disk
            end = position + (sending.rng.randint(1, 80_000) if sending.rng else 100_000)
            yield sending.data[position:end]
            position = end

    sending.unsaid = True
    where = {"Content-Range": f"bytes {offset}-*/*"} if sending.id else {}
    path = f"/objects/{sending.key}{'' if sending.id else sending.query}"
    sending.ask("PUT", path, {**where, **sending.words}, pieces(), 201)


def ranges(sending: Sending, offset: int) -> None:
    """Range after range, each answered with what is kept."""
    while offset < sending.size:
        end = sending.cut(offset)
        sending.put(offset, end)
        offset = end
        sending.wait(0.002)


def digests(sending: Sending, offset: int) -> None:
    """Appends that count once their digest has matched; each a first time with a wrong one, or some of them."""
    if not sending.id:
        sending.ask("PUT", f"/objects/{sending.key}", {"Upload-Complete": "?0"}, b"", 201)
    while offset < sending.size:
        end = sending.cut(offset)
        piece = sending.data[offset:end]
        words = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == sending.size else "?0"}
        words |= {"Content-Digest": sha256(piece), "Content-Type": PARTIAL}
        if (sending.rng is None or sending.rng.random() < 0.2) and piece[::-1] != piece:
            sending.ask("PATCH", f"/uploads/{sending.id}", words, piece[::-1], 400)
        sending.ask("PATCH", f"/uploads/{sending.id}", words, piece, 200, 201, 204)
        offset = end
        sending.wait(0.002)


def tus(sending: Sending, offset: int) -> None:
    """tus in pieces of 3 MiB. An upload whose creation was not answered is found by its key."""
    _tus(sending, offset, checked=0.0)


def checked_tus(sending: Sending, offset: int) -> None:
    """... some with a checksum: what is in their part files counts only when that has matched."""
    _tus(sending, offset, checked=0.3)


def _tus(sending: Sending, offset: int, *, checked: float) -> None:
    if not sending.id:
        length = {"Upload-Length": str(sending.size)}
        sending.ask("POST", f"/uploads?key={sending.key}", TUS | length, b"", 201)
    path = f"/uploads/{sending.id}"
    offset = int(sending.ask("HEAD", path, TUS, b"", 200).headers["Upload-Offset"])
    while offset < sending.size:
        piece = sending.data[offset : offset + 3 * MIB]
        words = {**TUS, **OCTETS, "Upload-Offset": str(offset)}
        if sending.rng and sending.rng.random() < checked:
            words["Upload-Checksum"] = f"sha1 {base64.b64encode(hashlib.sha1(piece).digest()).decode()}"
        answer = sending.ask("PATCH", path, words, piece, 204)
        offset = int(answer.headers["Upload-Offset"])


def small(sending: Sending, offset: int) -> None:
    """All of it in one request, and one PutObject."""
    if sending.id:
        sending.put(offset, sending.size)
    else:
        sending.ask("PUT", f"/objects/{sending.key}{sending.query}", sending.words, sending.data[:], 201)


def promised(sending: Sending, offset: int) -> None:
    """... whose client does not wait until it is stored: it is told that it will be."""
    where = {"Content-Range": f"bytes {offset}-{sending.size - 1}/{sending.size}"} if sending.id else {}
    words = {"Prefer": "respond-async", **where, **sending.words}
    sending.ask("PUT", f"/objects/{sending.key}", words, sending.data[offset:], 201, 202)


# -- one object after another -----------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """Who sends, and how small and how large an object."""

    way: Way
    least: int
    most: int


@dataclass
class Client:
    """Sends one object after another, and asks again after each of `again`."""

    server: Server
    name: str
    kind: Kind
    rng: random.Random
    heard: Callable[[], None] = lambda: None
    again: tuple[type[Exception], ...] = AGAIN
    most: float = math.inf
    """How many objects it remembers: then it waits until somebody has taken one out of `sendings`."""

    sendings: list[Sending] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, stop: threading.Event) -> None:
        """Until it is stopped, in the middle of an object."""
        while not stop.is_set():
            self.finish(stop)
            while len(self.sendings) >= self.most and not stop.wait(0.01):
                pass
            if not stop.is_set():
                self.begin()

    def finish(self, stop: threading.Event) -> None:
        """The object on its way, until its client may forget it."""
        while self.sendings and not self.sendings[-1].promised and not stop.is_set():
            self.sendings[-1].stop = stop
            try:
                self.sendings[-1].go_on(self.kind.way)
            except self.again:
                stop.wait(0.01)  # somebody else went on with it, or nobody is there: ask again

    def begin(self) -> None:
        """Another object."""
        data = content(self.rng.randint(self.kind.least, self.kind.most), self.rng.getrandbits(32))
        key = f"{self.name}-{next(self._numbers)}"
        words = whole(data) if self.rng.random() < 0.5 else {}
        self.sendings.append(Sending(self.server, key, data, words, self.rng, heard=self.heard))


def finish(clients: Sequence[Client], seconds: float) -> None:
    """All of them bring what they have begun to its end, with nothing in their way."""
    stop = threading.Event()
    alarm = threading.Timer(seconds, stop.set)
    alarm.start()
    try:
        with ThreadPoolExecutor(len(clients)) as pool:
            for running in [pool.submit(client.finish, stop) for client in clients]:
                running.result()
    finally:
        alarm.cancel()
        stop.set()
    if late := [client.sendings[-1] for client in clients if client.sendings and not client.sendings[-1].promised]:
        found = [late[0].server.uploads(sending.key) for sending in late]
        raise Broken(Invariant.ENDS, f"{[one.key for one in late]} have not ended in {seconds:g} s: {found}")
