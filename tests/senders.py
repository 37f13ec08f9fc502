"""Clients of every kind that send to a server, do as each is meant to, and remember all they were told.

    sent = Sent("a/key", Keystream("a/key", 7 << 20))
    await Sender(address).tus(sent)
    sent.outcome, sent.reason, sent.announced

Their connections are good. Who is told "later" comes again later; who is told anything that cannot be is an end of the
campaign (`Broken`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from invariants import Broken, Invariant
from keystream import Keystream
from raw_client import CHUNKED, LAST_CHUNK, OCTETS, PARTIAL, TUS, Answer, Client, chunk, head, metadata, place

PATIENCE_SECONDS = 120.0
"""No answer takes so long, whatever the store does: an upload that has not ended by then never will."""

GUARDED_BYTES = 16 << 20
LATER = frozenset({423, 503, 507})
LATER_SECONDS = 0.2
ENDED = frozenset({"complete", "failed", "cancelled", "expired"})

Outcome = Literal["", "complete", "failed", "cancelled"]


@dataclass
class Sent:
    """One upload, as its client knows it."""

    key: str
    stream: Keystream
    fields: Mapping[str, str] = field(default_factory=dict)
    """What is said of the whole: digests, conditions."""

    query: str = ""
    said_all: bool = False
    """Its client is saying that this is all, or has said so: from now on there may be an object."""

    wrong: bool = False
    """What is said of the whole is not so."""

    upload_id: str = ""
    announced: int = 0
    outcome: Outcome = ""
    reason: str = ""
    delayed: int = 0
    """How often it was told to come later."""

    def told(self, offset: int) -> int:
        if not self.announced <= offset <= self.stream.size:
            raise Broken(Invariant.OFFSET, f"{self.key}: {self.announced} was announced, {offset} is told now")
        self.announced = offset
        return offset

    def ends(self, outcome: Outcome, reason: str = "") -> None:
        if self.outcome and outcome != self.outcome:
            raise Broken(Invariant.FAIL_CLOSED, f"{self.key} was {self.outcome}, and now is {outcome} ({reason})")
        self.outcome, self.reason = outcome, self.reason or reason


def sha256_of(stream: Keystream) -> str:
    running = hashlib.sha256()
    for piece in stream.pieces():
        running.update(piece)
    return base64.b64encode(running.digest()).decode()


class Sender:
    """Sends to one server. `numbers` decides where bodies are cut, and how fast a live one is."""

    def __init__(self, address: tuple[str, int], numbers: random.Random) -> None:
        self._address = address
        self._numbers = numbers

    # -- ways to send

    async def sized(self, sent: Sent) -> None:
        """PUT of a known length."""
        await self._put(sent, {"Content-Length": str(sent.stream.size)}, sent.stream.pieces)

    async def live(self, sent: Sent) -> None:
        """PUT of chunks, some of them after a while."""
        await self._put(sent, CHUNKED, lambda: map(chunk, sent.stream.pieces()), LAST_CHUNK)

    async def _put(
        self, sent: Sent, framing: Mapping[str, str], body: Callable[[], Iterable[bytes]], end: bytes = b""
    ) -> None:
        target, fields = f"/objects/{sent.key}{sent.query}", {**framing, **sent.fields}
        while True:
            sent.said_all = True
            answer = await self._ask("PUT", target, fields, body(), end)
            if answer.status not in LATER:
                return await self._conclude(sent, answer)
            await self._later(sent)

    async def ranges(self, sent: Sent) -> None:
        """PUT with Content-Range, piece by piece."""
        size, at = sent.stream.size, 0
        while True:
            end = self._cut(at, size)
            sent.said_all = sent.said_all or end == size
            fields = {**place(at, size, end - 1), "Content-Length": str(end - at)}
            fields |= sent.fields if at == 0 else {}
            answer = await self._ask("PUT", f"/objects/{sent.key}", fields, sent.stream.pieces(at, end))
            while answer.status in LATER:
                await self._later(sent)
                answer = await self._ask("PUT", f"/objects/{sent.key}", {**place_of(size), "Content-Length": "0"})
                if answer.status == 404:  # it was not let in
                    answer = Answer(308, {})
            if answer.status != 308:
                return await self._conclude(sent, answer)
            known = answer.headers.get("range", "bytes=0--1").rpartition("-")[2]
            at = sent.told(int(known or 1) + 1 if "range" in answer.headers else 0)

    async def tus(self, sent: Sent) -> None:
        """tus, with a checksum on some of its appends."""
        size = sent.stream.size
        fields = {**TUS, "Upload-Length": str(size), **metadata({"key": sent.key}), **sent.fields}
        await self._create(sent, "/uploads", fields)
        at = 0
        while sent.announced < size:
            end = self._cut(at, size)
            sent.said_all = sent.said_all or end == size
            piece = sent.stream[at:end]
            guard = {}
            if self._guards(piece):
                guard = {"Upload-Checksum": f"sha1 {base64.b64encode(hashlib.sha1(piece).digest()).decode()}"}
            fields = {**TUS, **OCTETS, **guard, "Upload-Offset": str(at), "Content-Length": str(len(piece))}
            answer = await self._ask("PATCH", f"/uploads/{sent.upload_id}", fields, [piece])
            if answer.status == 204:
                at = sent.told(answer.offset)
                continue
            if answer.status not in LATER:
                return await self._conclude(sent, answer)
            answer = await self._where(sent, TUS)
            if answer.status != 200:
                return await self._conclude(sent, answer)
            at = sent.told(answer.offset)
        return await self.follow(sent)

    async def ietf(self, sent: Sent) -> None:
        """The IETF's resumable uploads, with a digest on some of its appends."""
        await self._create(sent, f"/uploads?key={sent.key}", {"Upload-Complete": "?0", **sent.fields})
        at, size = 0, sent.stream.size
        while True:
            end = self._cut(at, size)
            last = end == size
            sent.said_all = sent.said_all or last
            piece = sent.stream[at:end]
            fields = {"Content-Type": PARTIAL, "Upload-Offset": str(at), "Upload-Complete": f"?{last:d}"}
            if self._guards(piece):
                fields["Content-Digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(piece).digest()).decode()}:"
            answer = await self._ask(
                "PATCH", f"/uploads/{sent.upload_id}", {**fields, "Content-Length": str(len(piece))}, [piece]
            )
            if answer.status in {200, 201, 204} and not last:
                at = sent.told(answer.offset)
                continue
            if answer.status not in LATER:
                return await self._conclude(sent, answer)
            answer = await self._where(sent, {})
            if answer.status not in {200, 204}:
                return await self._conclude(sent, answer)
            at = sent.told(answer.offset)
            if answer.headers.get("upload-complete") == "?1":
                return await self.follow(sent)

    async def cancelled(self, sent: Sent) -> None:
        """A part of it, and then the client gives it up."""
        await self._create(sent, f"/uploads?key={sent.key}", {"Upload-Complete": "?0"})
        end = self._numbers.randrange(sent.stream.size)
        fields = {"Content-Type": PARTIAL, "Upload-Offset": "0", "Upload-Complete": "?0", "Content-Length": str(end)}
        await self._ask("PATCH", f"/uploads/{sent.upload_id}", fields, sent.stream.pieces(0, end))
        while (answer := await self._ask("DELETE", f"/uploads/{sent.upload_id}")).status in LATER:
            await self._later(sent)
        if answer.status not in {204, 410}:
            raise Broken(Invariant.ENDS, f"{sent.key} cannot be cancelled: {answer.status} {answer.body!r}")
        await self.follow(sent)

    # -- what they have in common

    async def _create(self, sent: Sent, target: str, fields: Mapping[str, str]) -> None:
        while (answer := await self._ask("POST", target, {**fields, "Content-Length": "0"})).status in LATER:
            await self._later(sent)
        if answer.status != 201:
            raise Broken(Invariant.ENDS, f"{sent.key} cannot be begun: {answer.status} {answer.body!r}")
        sent.upload_id = answer.headers["location"].rpartition("/")[2]

    async def _where(self, sent: Sent, fields: Mapping[str, str]) -> Answer:
        """Where to go on with what was not taken whole."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await self._later(sent)
                answer = await self._ask("HEAD", f"/uploads/{sent.upload_id}", fields)
                if answer.status not in LATER:
                    return answer

    async def _conclude(self, sent: Sent, answer: Answer) -> None:
        """The last answer: an object, a promise of one, or why there is none."""
        if answer.status in {200, 201, 202, 204}:
            sent.told(answer.offset)
        if answer.status in {200, 201} and answer.body:
            document = answer.json
            if document["size"] != sent.stream.size:
                raise Broken(Invariant.CLEAN_END, f"{sent.key} has {sent.stream.size} bytes; told is {document}")
            sent.upload_id = document["upload"]
            sent.ends("complete")
        elif answer.status < 300:
            sent.upload_id = sent.upload_id or answer.headers["location"].rpartition("/")[2]
        elif answer.status in {400, 409, 410, 412, 460} or (answer.status == 404 and sent.upload_id):
            sent.ends("failed", answer.json["detail"] if answer.body else "")
        else:
            raise Broken(Invariant.ENDS, f"{sent.key}: {answer.status} {answer.body!r}")
        await self.follow(sent)

    async def follow(self, sent: Sent) -> None:
        """Wait for the end of what is stored by itself."""
        if not sent.upload_id:
            return
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = await self.document(sent)
                if found["state"] in ENDED:
                    break
                await asyncio.sleep(LATER_SECONDS)
        sent.ends(found["state"], found["reason"] or "")

    async def document(self, sent: Sent) -> dict[str, Any]:
        """The upload as GET tells it, which disturbs nobody."""
        return (await self._ask("GET", f"/uploads/{sent.upload_id}")).json

    async def _later(self, sent: Sent) -> None:
        sent.delayed += 1
        await asyncio.sleep(LATER_SECONDS)

    def _guards(self, piece: bytes) -> bool:
        """Whether this append comes with a digest: sometimes, and never what a server with a small spool refuses."""
        return len(piece) <= GUARDED_BYTES and self._numbers.random() < 0.3

    def _cut(self, at: int, size: int) -> int:
        """Where the next body ends: mostly somewhere, sometimes at the end."""
        return size if self._numbers.random() < 0.3 else self._numbers.randint(min(at + 1, size), size)

    async def _ask(
        self,
        method: str,
        target: str,
        fields: Mapping[str, str] | None = None,
        body: Iterable[bytes] = (),
        end: bytes = b"",
    ) -> Answer:
        client = await Client.connect(self._address)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                with suppress(ConnectionError):  # a refusal may come before all of the body has gone
                    client.writer.write(head(method, target, fields))
                    for piece in body:
                        client.writer.write(piece)
                        await client.writer.drain()
                        if end and self._numbers.random() < 0.02:
                            await asyncio.sleep(self._numbers.uniform(0, 0.1))  # a live stream
                    client.writer.write(end)
                client.methods.append(method)
                return await client.answer(PATIENCE_SECONDS)
        finally:
            client.close()


def place_of(size: int) -> dict[str, str]:
    """The question where an upload is."""
    return {"Content-Range": f"bytes */{size}"}
