"""Clients that do what the README says, whatever happens to the server, and remember all that they were told.

    ledger = Ledger()
    send_ranges(server, "a/key", body, ledger)      # raises one of GONE if the server is killed: call it again

Each goes on where the server says that it is. Being told less than before, or anything else that a client could not go
on from, is `Broken`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from invariants import Broken, Invariant
from process import MIB, Answer, Server, until

RANGE = 9 * MIB // 2
"""What a client that sends ranges sends at once: parts of 5 MiB are cut within, each time elsewhere."""

GONE = (OSError, http.client.HTTPException)
"""What a client gets from a server that is killed."""


@dataclass
class Ledger:
    """What a client knows for sure."""

    announced: int = 0
    done: bool = False
    offsets: int = 0
    """How often it was told more than before."""

    def told(self, offset: int, key: str, size: int) -> None:
        """What is announced never falls (law 2), and never is more than was sent."""
        if not self.announced <= offset <= size:
            raise Broken(Invariant.OFFSET, f"{key}: {self.announced} of {size} was announced, {offset} is told now")
        self.offsets += offset > self.announced
        self.announced = offset


Send = Callable[[Server, str, bytes, Ledger], None]


def expect(answer: Answer, *statuses: int) -> Answer:
    """One of these, or there is no way on. 410: streamup has given the upload up."""
    if answer.status not in statuses:
        invariant = Invariant.RECEIVED if answer.status == 410 else Invariant.ENDS
        raise Broken(invariant, f"a client that does as it was told gets {answer.status}: {answer.body.decode()}")
    return answer


def offset_of(server: Server, key: str, ledger: Ledger, size: int) -> int:
    """By HEAD, as `curl -I` asks."""
    head = expect(server.ask("HEAD", f"/objects/{key}"), 200, 404)
    complete = head.headers.get("Upload-Complete") == "?1"
    if ledger.done and not complete:
        raise Broken(Invariant.WHOLE, f"{key} was complete, and HEAD answers {head.status} now")
    if complete and int(head.headers["Content-Length"]) != size:
        raise Broken(Invariant.CLEAN_END, f"{key} has {head.headers['Content-Length']} bytes of {size}")
    ledger.done = complete
    ledger.told(size if complete else int(head.headers.get("Upload-Offset", "0")), key, size)
    return ledger.announced


def confirm(server: Server, key: str, ledger: Ledger, size: int) -> None:
    """Nothing more is to be sent: `bytes */N` waits for the outcome."""
    if not ledger.done:
        expect(server.ask("PUT", f"/objects/{key}", {"Content-Range": f"bytes */{size}"}), 200, 201)
    ledger.done = True
    offset_of(server, key, ledger, size)


@functools.lru_cache(8)
def whole(body: bytes) -> dict[str, str]:
    """What the object must be, said with every request: no kill may lose the hash that runs over it."""
    return {"Repr-Digest": f"sha-256=:{_sha256(body)}:"}


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _next_cut(offset: int, size: int) -> int:
    return min(size, offset - offset % RANGE + RANGE)


# -- plain -----------------------------------------------------------------------------------------------------------


def send_ranges(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """`Content-Range` after `Content-Range`, each where the offset is; the last one completes."""
    while (offset := offset_of(server, key, ledger, len(body))) < len(body):
        send_range(server, key, body, ledger, _next_cut(offset, len(body)))
    confirm(server, key, ledger, len(body))


def send_range(server: Server, key: str, body: bytes, ledger: Ledger, end: int) -> None:
    """From the offset that was told last."""
    offset = ledger.announced
    total = len(body) if end == len(body) else "*"
    where = {"Content-Range": f"bytes {offset}-{end - 1}/{total}"}
    answer = server.ask("PUT", f"/objects/{key}", where | whole(body), body[offset:end])
    expect(answer, 201 if end == len(body) else 308)
    ledger.told(end, key, len(body))
    ledger.done = end == len(body)


def send_stream(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """A stream in chunks; when it breaks, the rest of it as `bytes N-*/*`."""
    offset = offset_of(server, key, ledger, len(body))
    if not ledger.done and (offset < len(body) or server.open_upload(key)):
        pieces = (body[start : start + 200_000] for start in range(offset, len(body), 200_000))
        where = {"Content-Range": f"bytes {offset}-*/*"} if server.open_upload(key) else {}
        answer = server.ask("PUT", f"/objects/{key}", where | whole(body), pieces)
        ledger.done = expect(answer, 201, 404, 423).status == 201  # the last two: it was sealed already
    confirm(server, key, ledger, len(body))


def send_slowly(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """A live stream: some hundred KB at a time, as `?interrupted=append` would go on after each crash."""

    def live() -> Iterator[bytes]:
        for start in range(offset, len(body), 100_000):
            yield body[start : start + 100_000]
            time.sleep(0.004)  # real time: a stream that takes longer than the server lives

    offset = offset_of(server, key, ledger, len(body))
    if not ledger.done and offset < len(body):
        where = {"Content-Range": f"bytes {offset}-*/*"} if server.open_upload(key) else {}
        expect(server.ask("PUT", f"/objects/{key}", where, live()), 201, 404, 423)
    elif not ledger.done and server.open_upload(key):
        seal = {"Content-Range": f"bytes */{len(body)}", "Upload-Complete": "?1"}
        expect(server.ask("PUT", f"/objects/{key}", seal), 201, 202)
    confirm(server, key, ledger, len(body))


def send_small(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """An object that fits into one part."""
    if offset_of(server, key, ledger, len(body)) < len(body):
        send_range(server, key, body, ledger, len(body))
    confirm(server, key, ledger, len(body))


def send_and_give_up(server: Server, key: str, body: bytes, _: Ledger) -> None:
    """More than one part, then DELETE: nothing may be left, in the store neither."""
    if found := server.uploads(key):
        state = found[0]["state"]
    else:
        state = "open"
        expect(server.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, body[: 7 * MIB]), 201)
        until(lambda: server.uploads(key)[0]["stored"], what="a part in the store, which must not be left there")
    if state == "open":
        expect(server.ask("DELETE", f"/objects/{key}"), 204)


# -- resumable -------------------------------------------------------------------------------------------------------


def send_with_digests(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """Appends that come with their digests, each a first time with a wrong one."""
    while (offset := offset_of(server, key, ledger, len(body))) < len(body):
        found = server.open_upload(key)
        if found is None:
            expect(server.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, b""), 201)
            continue
        end = _next_cut(offset, len(body))
        piece = body[offset:end]
        where = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == len(body) else "?0"}
        words = {"Content-Digest": f"sha-256=:{_sha256(piece)}:", "Content-Type": "application/partial-upload"}
        expect(server.ask("PATCH", f"/uploads/{found['id']}", where | words, piece[::-1]), 400)
        expect(server.ask("PATCH", f"/uploads/{found['id']}", where | words, piece), 200, 201, 204)
        ledger.told(end, key, len(body))
        ledger.done = end == len(body)
    confirm(server, key, ledger, len(body))


def send_by_tus(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """tus in pieces of 3 MiB. An upload whose creation was not answered is found by its key."""
    tus = {"Tus-Resumable": "1.0.0"}
    while offset_of(server, key, ledger, len(body)) < len(body):
        if (found := server.open_upload(key)) is None:
            expect(server.ask("POST", f"/uploads?key={key}", tus | {"Upload-Length": str(len(body))}), 201)
            continue
        head = expect(server.ask("HEAD", f"/uploads/{found['id']}", tus), 200, 423)
        offset = int(head.headers.get("Upload-Offset", str(len(body))))
        ledger.told(offset, key, len(body))
        while offset < len(body):
            where = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            piece = body[offset : offset + 3 * MIB]
            answer = expect(server.ask("PATCH", f"/uploads/{found['id']}", tus | where, piece), 204)
            offset = int(answer.headers["Upload-Offset"])
            ledger.told(offset, key, len(body))
    confirm(server, key, ledger, len(body))
