"""Uploads against a model: whatever clients do, in whatever protocol and order, through crashes and power cuts, what
was announced is there, and the object is the bytes that were sent.

Every step is HTTP over real sockets; between steps the server's loop stands still. A failure is printed as the shortest
way to it.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from conftest import DEFAULTS, PART_BYTES, Service, strict_store
from fake_store import DROP, FakeStore, Gate
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from raw_client import CHUNKED, EXPECT, LAST_CHUNK, OCTETS, TUS, Answer, Client, chunk, eventually, head, place
from test_laws import Disk, held_checkpoint
from test_resumable import DEFERRED, VERSION, VERSIONS, checksum, content_digest, ietf, tus

from streamup.auth import ANONYMOUS
from streamup.errors import StoreUnavailable

T = TypeVar("T")

MOST_OPEN = 3
"""More uploads at once would find nothing more."""

Protocol = str | int | None
"""`tus`; `range` is PUT with Content-Range; a number is an interop version of the draft, None the draft without one."""

SIZES = st.sampled_from([0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5]) | st.integers(0, 3000)
OFFSET_IS_SUCCESS = ("tus", 3, 5, 6)
"""Clients of these take an offset that equals the length for success."""

PROTOCOLS = st.sampled_from(["tus", "range", None, *VERSIONS])
WHICH = st.integers(0, MOST_OPEN - 1)


@dataclass
class Body:
    """One append: its bytes, and what is said of them. A `digest` is right, wrong, or not there."""

    protocol: Protocol
    data: bytes
    seals: bool
    chunked: bool
    digest: bool | None = None


@dataclass
class Writer:
    """A client in the middle of a body."""

    client: Client
    body: Body
    rest: bytes


@dataclass
class Model:
    """An upload as its clients know it.

    `sent` is all that may be there, and its first `low` bytes are. What came with a digest, from `provisional` on, is
    there as a whole or not at all. `told` is the largest offset that was announced, `ends` holds the places where
    somebody has said that the upload ends, `due` the one that the last head has named: there it ends by itself.
    `late`: it is sealed; `promised`: that was answered.
    """

    key: str
    location: str
    length: int | None
    sent: bytes = b""
    low: int = 0
    provisional: int | None = None
    told: int = 0
    state: Literal["open", "late", "complete", "cancelled"] = "open"
    promised: bool = False
    ends: set[int] = field(default_factory=set)
    due: int | None = None
    writer: Writer | None = None

    @property
    def id(self) -> str:
        return self.location.rpartition("/")[2]

    def announced(self, offset: int) -> None:
        """The server says that this much is there, and has been made durable."""
        assert self.told <= offset <= len(self.sent), f"{offset} is told, {self.told} was, {len(self.sent)} were sent"
        if self.provisional is not None:
            assert offset <= self.provisional or offset == len(self.sent), "a part of what counts as a whole"
        self.told = offset

    def settled(self, offset: int) -> None:
        """Nobody writes any more."""
        assert offset >= self.low, f"{offset} is all that is left of {self.low}"
        assert offset != self.due, "that was all"
        self.announced(offset)
        self.sent, self.low, self.provisional = self.sent[:offset], offset, None

    def ended(self, state: Literal["late", "complete"]) -> None:
        """All of it is there, and that is known to be all."""
        assert len(self.sent) in self.ends, "nobody has said that this is the end"
        self.state, self.low, self.provisional = state, len(self.sent), None


def where(condition: Callable[[Machine], Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule that does nothing where there is nothing to do it with.

    Not a precondition: what a server has done by now depends on time, and Hypothesis must draw the same data each time.
    """

    def guarded(rule: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(rule)
        def run(self: Machine, **drawn: Any) -> None:
            if condition(self):
                rule(self, **drawn)

        return run

    return guarded


class Machine(RuleBasedStateMachine):
    """Its rules are what clients, operators and the weather do."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.random = random.Random(1)
        self.disk = Disk()
        self.gates: list[Gate] = []
        self.models: list[Model] = []
        self.starts = self.boots = 0
        self.broken = False
        self.run(self.start(strict_store()))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.runner.run(work)
        except BaseException:
            self.broken = True
            raise

    def open_ones(self) -> list[Model]:
        return [model for model in self.models if model.state == "open"]

    def writing(self) -> list[tuple[Model, Writer]]:
        return [(model, model.writer) for model in self.open_ones() if model.writer]

    @staticmethod
    def one_of(found: list[T], which: int) -> T:
        return found[which % len(found)]

    # -- rules: clients ---------------------------------------------------------------------------------------------

    @initialize(kind=st.sampled_from(["put", "ietf", "tus"]))
    def begin_with_one(self, *, kind: str) -> None:
        self.run(self.create(kind, None, 0))

    @rule(kind=st.sampled_from(["put", "ietf", "tus"]), length=st.none() | st.integers(0, 3 * PART_BYTES), size=SIZES)
    @where(lambda self: len(self.open_ones()) < MOST_OPEN)
    def create_another(self, *, kind: str, length: int | None, size: int) -> None:
        self.run(self.create(kind, length, size))

    @rule(
        which=WHICH,
        protocol=PROTOCOLS,
        size=SIZES,
        seals=st.sampled_from([False, False, True]),
        chunked=st.booleans(),
        digest=st.sampled_from([None, None, True, False]),
    )
    @where(lambda self: self.open_ones())
    def append_to_one(
        self, *, which: int, protocol: Protocol, size: int, seals: bool, chunked: bool, digest: bool | None
    ) -> None:
        model = self.one_of(self.open_ones(), which)
        self.run(self.append(model, protocol, size, seals=seals, chunked=chunked, digest=digest))

    @rule(
        which=WHICH,
        protocol=PROTOCOLS,
        wrong=st.sampled_from([-PART_BYTES, -1, 1, PART_BYTES, 10**9]),
        seals=st.booleans(),
        chunked=st.booleans(),
    )
    @where(lambda self: self.open_ones())
    def append_at_a_wrong_place(
        self, *, which: int, protocol: Protocol, wrong: int, seals: bool, chunked: bool
    ) -> None:
        model = self.one_of(self.open_ones(), which)
        self.run(self.append_beside(model, protocol, wrong, seals=seals, chunked=chunked))

    @rule(
        which=WHICH,
        protocol=PROTOCOLS,
        size=SIZES,
        held_back=st.sampled_from([1, 1000, PART_BYTES]),
        seals=st.booleans(),
        chunked=st.booleans(),
        digest=st.sampled_from([None, None, True]),
        then=st.sampled_from([None, None, "kill", "kill at the end", "power cut"]),
    )
    @where(lambda self: self.open_ones())
    def begin_a_body(
        self,
        *,
        which: int,
        protocol: Protocol,
        size: int,
        held_back: int,
        seals: bool,
        chunked: bool,
        digest: bool | None,
        then: str | None,
    ) -> None:
        """And stop a writer that is there. A crash may come in the middle, or when the last byte has been written."""
        model = self.one_of(self.open_ones(), which)
        self.run(self.begin(model, protocol, size, held_back, seals=seals, chunked=chunked, digest=digest))
        if then and (writer := model.writer):
            last = (model, writer) if then == "kill at the end" else None
            self.run(self.crash(last, power=then == "power cut"))

    @rule(which=WHICH, reads=st.booleans())
    @where(lambda self: self.writing())
    def finish_a_body(self, *, which: int, reads: bool) -> None:
        model, writer = self.one_of(self.writing(), which)
        self.run(self.finish(model, writer, reads=reads))

    @rule(which=WHICH, how=st.sampled_from(["close", "reset", "half_close"]))
    @where(lambda self: self.writing())
    def lose_a_connection(self, *, which: int, how: str) -> None:
        model, writer = self.one_of(self.writing(), which)
        self.run(self.lose(model, writer, how))

    @rule(which=WHICH, protocol=PROTOCOLS)
    @where(lambda self: self.open_ones())
    def ask_where_to_go_on(self, *, which: int, protocol: Protocol) -> None:
        """This stops a writer that is there."""
        self.run(self.settle(self.one_of(self.open_ones(), which), protocol))

    @rule(which=WHICH, protocol=PROTOCOLS)
    @where(lambda self: len(self.open_ones()) > 1)
    def cancel_one(self, *, which: int, protocol: Protocol) -> None:
        self.run(self.cancel(self.one_of(self.open_ones(), which), protocol))

    # -- rules: the weather, and the operator -----------------------------------------------------------------------

    @rule(
        operation=st.sampled_from(["create_multipart", "put_part", "complete_multipart", "put_object", "head"]),
        fault=st.sampled_from([DROP, StoreUnavailable, None]),
    )
    def trouble_the_store(self, *, operation: str, fault: Any) -> None:
        """One call fails; or it completes nothing until it is released."""
        if fault is not None:
            self.service.store.fail(operation, fault)
        elif self.gates:
            self.run(self.release())
        else:
            self.gates = [self.service.store.hold(name) for name in ("complete_multipart", "put_object")]

    @rule(end=st.sampled_from(["stop", "kill", "power cut"]))
    def start_again(self, *, end: str) -> None:
        self.run(self.restart() if end == "stop" else self.crash(None, power=end == "power cut"))

    # -- what is always so ------------------------------------------------------------------------------------------

    @invariant()
    def nothing_that_was_told_is_lost(self) -> None:
        if not self.broken:
            self.run(self.look())

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.run(self.finish_all())
        finally:
            with suppress(Exception):
                self.service.hang_up()
                self.runner.run(self.service.stop())
            self.runner.close()
            shutil.rmtree(self.directory)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def start(self, store: FakeStore, data: Path | None = None) -> None:
        config = replace(
            DEFAULTS,
            data=data or self.directory / f"{self.starts}",
            idle_seconds=600.0,
            store_timeout_seconds=0.2,
            grace_seconds=0.02,
        )
        self.starts += 1
        self.service = Service(config, store, self.disk)
        await self.service.start(f"boot {self.boots}")

    async def ask(self, method: str, target: str, *args: Any, **options: Any) -> Answer:
        answer = await self.service.ask(method, target, *args, **options)
        assert answer.status < 500, (method, target, answer)
        return answer

    async def create(self, kind: str, length: int | None, size: int) -> None:
        key = f"key-{len(self.models)}"
        data = self.random.randbytes(size if length is None else min(size, length))
        if kind == "tus":
            headers = TUS | OCTETS | (DEFERRED if length is None else {"Upload-Length": str(length)})
            answer = await self.ask("POST", f"/uploads?key={key}", data, headers)
        elif kind == "ietf":
            answer = await self.ask("POST", f"/uploads?key={key}", data, ietf(complete=False, length=length))
        else:
            answer = await self.ask("PUT", f"/objects/{key}", data, ietf(None, complete=False, length=length))
        assert answer.status == 201, answer
        model = Model(key, answer.headers["location"], length, data, len(data))
        self.models.append(model)
        if kind == "tus" and length == len(data):
            model.ends.add(len(data))
            self.sealed(model, answer, complete="upload-offset" in answer.headers)
        else:
            assert answer.offset == len(data)
            model.settled(answer.offset)

    def body(
        self, model: Model, protocol: Protocol, size: int, *, seals: bool, chunked: bool, digest: bool | None
    ) -> Body:
        """A body that fits the upload."""
        if model.length is not None:
            room = model.length - len(model.sent)
            size = room if seals else min(size, room)
            seals = seals or (protocol == "tus" and size == room)
        chunked = chunked and size > 0
        data = self.random.randbytes(size)
        return Body(protocol, data, seals, chunked, digest if data and protocol != "range" else None)

    def request(self, model: Model, body: Body, offset: int) -> tuple[str, str, dict[str, str]]:
        end = offset + len(body.data)
        total = end if body.seals else None
        signed = body.data if body.digest else body.data + b"!"
        if body.protocol == "tus":
            digest = {} if body.digest is None else checksum("sha1", signed)
            return "PATCH", model.location, tus(offset, total) | digest
        if body.protocol != "range":
            digest = {} if body.digest is None else content_digest(signed)
            return "PATCH", model.location, ietf(body.protocol, complete=body.seals, offset=offset) | digest
        if body.data:
            return "PUT", f"/objects/{model.key}", place(offset, "*" if total is None else total, end - 1)
        complete = {"Upload-Complete": "?1"} if body.seals else {}
        return "PUT", f"/objects/{model.key}", {"Content-Range": f"bytes */{offset}"} | complete

    async def append(
        self, model: Model, protocol: Protocol, size: int, *, seals: bool, chunked: bool, digest: bool | None
    ) -> None:
        """A whole body, and its answer."""
        await self.settle(model, protocol)
        if model.state != "open":
            return
        body = self.body(model, protocol, size, seals=seals, chunked=chunked, digest=digest)
        offset = len(model.sent)
        if protocol == "range" and not body.data and not body.seals:
            return
        method, target, headers = self.request(model, body, offset)
        half = len(body.data) // 2
        pieces = [piece for piece in (body.data[:half], body.data[half:]) if piece]
        content: dict[str, Any] = {"chunks": pieces} if body.chunked else {"body": body.data}
        answer = await self.ask(method, target, headers=headers, **content)
        if body.digest is False:
            assert answer.status == (460 if protocol == "tus" else 400), answer
            await self.settle(model, protocol)
            assert (model.state, len(model.sent)) == ("open", offset)
        else:
            self.appended(model, body, answer, offset)

    def appended(self, model: Model, body: Body, answer: Answer, offset: int) -> None:
        model.sent, model.due = model.sent[:offset] + body.data, None
        if body.seals:
            model.ends.add(len(model.sent))
            assert answer.status in {201, 204, 202, 423}, answer
            self.sealed(model, answer, complete=answer.status in {201, 204})
        elif body.protocol in OFFSET_IS_SUCCESS and len(model.sent) == model.length:
            assert (answer.status, "upload-offset" in answer.headers) == (423, False), answer
        else:
            assert answer.status in {201, 204, 308}, answer
            assert answer.offset == len(model.sent)
            model.settled(answer.offset)

    def sealed(self, model: Model, answer: Answer, *, complete: bool) -> None:
        model.ended("complete" if complete else "late")
        model.promised = True
        if "upload-offset" in answer.headers:
            assert answer.offset == len(model.sent)
            model.announced(answer.offset)

    async def append_beside(self, model: Model, protocol: Protocol, wrong: int, *, seals: bool, chunked: bool) -> None:
        await self.settle(model, protocol)
        offset = len(model.sent)
        if model.state != "open" or offset + wrong < 0:
            return
        body = Body(protocol, b"wrong", seals, chunked)
        method, target, headers = self.request(model, body, offset + wrong)
        content: dict[str, Any] = {"chunks": [body.data]} if chunked else {"body": body.data}
        answer = await self.ask(method, target, headers=headers, **content)
        assert (answer.status, answer.offset) == (409, offset), answer
        await self.settle(model, protocol)
        assert (model.state, len(model.sent)) == ("open", offset)

    async def begin(
        self,
        model: Model,
        protocol: Protocol,
        size: int,
        held_back: int,
        *,
        seals: bool,
        chunked: bool,
        digest: bool | None,
    ) -> None:
        """A body of which the last bytes do not come yet."""
        await self.settle(model, protocol)
        if model.state != "open":
            return
        body = self.body(model, protocol, size + held_back, seals=seals, chunked=chunked, digest=digest)
        if not body.data:
            return
        offset = len(model.sent)
        method, target, headers = self.request(model, body, offset)
        framing = CHUNKED if body.chunked else {"Content-Length": str(len(body.data))}
        client = await self.service.connect()
        await client.send(head(method, target, headers | framing | EXPECT))
        while (told := await client.told()).status != 100:
            assert told.status == 104
        sent = body.data[:-held_back]
        if sent:
            await client.send(chunk(sent) if body.chunked else sent)
        model.writer = Writer(client, body, body.data[len(sent) :])
        if body.digest is None:
            model.sent += sent
        if body.seals:
            model.ends.add(offset + len(body.data))
        named = body.seals and (not body.chunked or protocol in {"tus", "range"})
        model.due = offset + len(body.data) if named else None

    async def finish(self, model: Model, writer: Writer, *, reads: bool) -> None:
        """The rest of the body, and perhaps its answer."""
        model.writer, body = None, writer.body
        rest = chunk(writer.rest) + LAST_CHUNK if body.chunked else writer.rest
        await writer.client.send(rest)
        offset = len(model.sent) - (0 if body.digest else len(body.data) - len(writer.rest))
        if reads:
            self.appended(model, body, await writer.client.answer(), offset)
        else:
            model.sent = model.sent[:offset] + body.data
            model.provisional = offset if body.digest else None
        writer.client.close()

    async def lose(self, model: Model, writer: Writer, how: str) -> None:
        getattr(writer.client, how)()
        model.writer = None
        await asyncio.sleep(0)  # so that it happens before the next step, or after it

    async def settle(self, model: Model, protocol: Protocol) -> None:
        """Ask for the offset, which stops a writer. What is known afterwards is how it is."""
        if protocol == "tus":
            answer = await self.ask("HEAD", model.location, None, TUS)
        elif protocol == "range":
            answer = await self.ask("PUT", f"/objects/{model.key}", None, {"Content-Range": "bytes */*"})
        else:
            answer = await self.ask("HEAD", model.location, None, {VERSION: str(protocol)} if protocol else {})
        if model.writer:
            await self.stopped(model.writer)
            model.writer = None
        document = await self.ask("GET", model.location)
        state = document.json["state"]
        if state == "open":
            offset = int(document.headers["upload-offset"])
            model.length = int(document.headers["upload-length"]) if "upload-length" in document.headers else None
            if protocol in OFFSET_IS_SUCCESS and offset == model.length:  # nobody said that this is the end
                assert answer.status == 423, answer
            else:
                assert answer.status == {"tus": 200, "range": 308}.get(str(protocol), 204), answer
                assert answer.offset == offset
            model.settled(offset)
        else:
            assert state in {"sealed", "completing", "complete"}, state
            assert answer.status in {200, 201, 202, 423}, answer
            if answer.status == 200:
                assert answer.offset == len(model.sent)
            model.ended("complete" if state == "complete" else "late")

    async def stopped(self, writer: Writer) -> None:
        """Whoever was stopped is told so, or nothing; never of a success."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            assert (await writer.client.answer()).status in {409, 410}
        writer.client.close()

    async def cancel(self, model: Model, protocol: Protocol) -> None:
        by_key = protocol == "range"
        headers = TUS if protocol == "tus" else {}
        await self.settle(model, None)
        if model.state != "open":
            return
        answer = await self.ask("DELETE", f"/objects/{model.key}" if by_key else model.location, None, headers)
        assert answer.status == 204, answer
        model.state = "cancelled"

    # -- the server -------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        for gate in self.gates:
            gate.release()
        self.gates = []
        for model in self.models:
            if model.state == "late":
                await eventually(lambda model=model: self.is_complete(model))

    async def is_complete(self, model: Model) -> bool:
        if (await self.ask("GET", model.location)).json["state"] == "complete":
            model.ended("complete")
        return model.state == "complete"

    async def crash(self, last: tuple[Model, Writer] | None, *, power: bool) -> None:
        """The process dies, and with the power all that no disk had; the store keeps what it has heard."""
        directory = self.directory / f"{self.starts}"
        async with held_checkpoint(self.service):
            if last and last[1].body.digest is None:
                await self.finish(*last, reads=False)
                await eventually(lambda: self.received(last[0]) == len(last[0].sent))
            for model in self.models:
                self.hit(model, power=power)
            data = self.disk.after_power_cut(self.service, directory) if power else self.service.killed(directory)
            store = strict_store(seed=1 + self.starts)
            store.objects, store.multiparts, store.completed = copy.deepcopy(
                (self.service.store.objects, self.service.store.multiparts, self.service.store.completed)
            )
        self.service.hang_up()
        await self.service.stop()
        self.gates = []
        self.boots += power
        await self.start(store, data)

    def received(self, model: Model) -> int:
        live = self.service.uploads.live(model.id, ANONYMOUS)
        assert live
        return live.upload.received

    def hit(self, model: Model, *, power: bool) -> None:
        """What must be left of an upload after this moment."""
        model.writer = None
        live = self.service.uploads.live(model.id, ANONYMOUS)
        if power and model.state == "late" and not model.promised:
            model.state = "open"
        if live and not power:
            upload = live.upload
            model.low = max(model.low, upload.received if upload.provisional is None else upload.provisional)
        elif power and model.state == "open":
            model.low = model.told

    async def restart(self) -> None:
        store, data = self.service.store, self.service.config.data
        for model in self.models:
            self.hit(model, power=False)
        for gate in self.gates:
            gate.release()
        self.gates = []
        await self.service.stop()
        self.service.hang_up()
        await self.start(store, data)

    # -- what must be so --------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """By GET, which disturbs nobody."""
        documents = {document["id"]: document for document in (await self.ask("GET", "/uploads")).json["uploads"]}
        for model in self.models:
            document = documents[model.id]
            state, offset = document["state"], document["offset"]
            if model.state == "cancelled":
                assert state == "cancelled"
                assert model.key not in self.service.store.objects
            elif state == "open":
                assert model.state == "open"
                model.announced(offset)
            else:
                assert state in {"sealed", "completing", "complete"}, document
                if model.state == "open":
                    model.ended("late")
                assert offset <= len(model.sent)
                if state == "complete":
                    model.ended("complete")
                assert model.state in {state, "late"}
            if model.state == "complete":
                assert self.service.data(model.key) == model.sent, model.key

    async def finish_all(self) -> None:
        """Whatever is still open can be finished by somebody who knows the protocol."""
        await self.release()
        protocols: list[Protocol] = ["tus", "range", None, *VERSIONS]
        for model in self.models:
            protocol = self.random.choice(protocols)
            if model.state == "open":
                await self.append(model, protocol, 10, seals=True, chunked=False, digest=None)
            if model.state == "late":
                await eventually(lambda model=model: self.is_complete(model))
            if model.state == "cancelled":
                assert (await self.ask("HEAD", model.location)).status == 410
            else:
                answer = await self.ask("HEAD", model.location, None, TUS)
                assert (answer.status, answer.offset) == (200, len(model.sent))
        await self.look()
        assert not self.service.spooled()


@pytest.fixture(autouse=True)
def hurried(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it is needed, not used
    """Nobody waits as long as in real life."""
    monkeypatch.setattr("streamup.uploader.BACKOFF_FIRST_SECONDS", 0.01)
    monkeypatch.setattr("streamup.uploader.BACKOFF_MOST_SECONDS", 0.05)


LIVELY = settings(
    max_examples=20,
    stateful_step_count=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_clients_do_the_object_is_what_they_sent(caplog):
    run_state_machine_as_test(Machine, settings=LIVELY)
    assert not [record for record in caplog.records if record.exc_info]
