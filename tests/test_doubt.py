"""Completion under doubt: whatever the store answers, and wherever the process dies, an upload ends as one of two.

Complete, perhaps after it was tried again: the object is there, and whole (or somebody has replaced or removed it since
it was). Failed, with a reason: nothing of this upload is under the key. Each case is gone through for an object that is
one PutObject and for one of several parts; then once more for every call to the store, with the process killed there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import test_uploader as base
from fake_store import DROP, Arrives, FakeObject, FakeStore, Keeps, Tells, flipped, lost, shortened
from store_proxy import HELD_SECONDS, Answer, Fault, no, on
from store_proxy import says as answers
from test_uploader import DATA, Clock, World

from streamup.errors import (
    AccessDenied,
    BadDigest,
    InvalidPart,
    NoSuchMultipart,
    StoreConflict,
    StorePrecondition,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from streamup.stores import Checksum, ObjectMeta
from streamup.stores.s3 import Deadlines
from streamup.upload import LIVE, State

pytest_plugins = ["weed", "store_proxy"]

no_waiting = base.no_waiting
store = base.store
world = base.world


@pytest.fixture
def clock():
    """A listing that disagrees is asked for a minute: it soon passes."""
    return Clock(step=15.0)


SMALL = b"abcdefg"
FOREIGN = ObjectMeta("a stranger's")
END = "end"
"""In the cases below: the one request that makes the object, PutObject or CompleteMultipartUpload."""

COMPLETE = None
LOST = "the store has lost the multipart upload"
DAMAGED = "the object in the store is not what was sent"


def says(error):
    """The effect happens, and the answer is this error."""

    def instead(_):
        raise error(f"{error.__name__} after the effect")

    return Tells(instead)


def shows(**fields):
    """A HEAD that shows the object so."""
    return Tells(lambda found: found and replace(found, **fields))


def foreign(store):
    """Somebody writes the key."""
    store.objects["key"] = FakeObject(b"x" * len(DATA), FOREIGN, '"foreign"', {}, datetime.now(UTC))


def meanwhile(act):
    """Somebody does this after the effect, and before we look. The answer is lost."""

    def arrange(store, end):
        after_a_200(act)(store, end)
        store.fail(end, DROP)

    return arrange


def after_a_200(act):
    """Somebody does this when the answer is there, and before we look."""

    def arrange(store, end):
        async def plan(operation, _):
            if operation == "head" and store.calls[end] == 1 and not store.meddled:
                store.meddled = True
                act(store)

        store.plan = plan

    return arrange


def late(store, end):
    """The first attempt has taken the parts, its object appears while we ask for the third time."""
    taken = []

    async def plan(operation, number):
        if operation == end and number == 1:
            return StoreUnavailable
        if operation == end and number == 2:
            taken.append(store.multiparts.popitem()[1])
        if operation == end and number == 3:
            data = b"".join(part.data for _, part in sorted(taken[0].parts.items()))
            store.objects["key"] = FakeObject(data, taken[0].meta, '"late"', {}, datetime.now(UTC))
        return None

    store.plan = plan


def late_after(refusal):
    """The first attempt gets no answer, the next ones this one; the object of the first appears with the third."""

    def arrange(store, end):
        async def plan(operation, number):
            if operation != end:
                return None
            if number == 3:
                store.multiparts.clear()
                data = SMALL if end == "put_object" else DATA
                store.objects["key"] = FakeObject(data, ObjectMeta("token of u"), '"late"', {}, datetime.now(UTC))
            return StoreUnavailable if number == 1 else refusal

        store.plan = plan

    return arrange


def faults(**operations):
    """These calls meet these faults, one each."""

    def arrange(store, end):
        for operation, them in operations.items():
            store.fail(end if operation == END else operation, *(them if isinstance(them, list) else [them]))

    return arrange


@dataclass(frozen=True)
class Case:
    """`put`, `multipart`: how the upload ends: COMPLETE, or the beginning of its reason. `only` one of them, where the
    other makes no sense. `before`: a stranger's object is under the key until ours replaces it. `gone`: ours is removed
    by somebody. `stays`: what is damaged cannot be removed. `told_once`: nobody who has not heard the answer can know.
    """

    arrange: Callable[[FakeStore, str], None]
    put: str | None = COMPLETE
    multipart: str | None = COMPLETE
    only: str = ""
    if_none_match: bool = False
    checksums: tuple[Checksum, ...] = (Checksum.CRC64NVME,)
    options: tuple[tuple[str, bool], ...] = ()
    before: bool = False
    gone: bool = False
    stays: bool = False
    told_once: bool = False


ANY = tuple(Checksum)

CASES = {
    # No effect, and no answer or one that says "later".
    "reset before the effect": Case(faults(end=StoreUnavailable)),
    "throttled": Case(faults(end=[StoreThrottled] * 3)),
    "forbidden for a while": Case(faults(end=[AccessDenied] * 3)),
    # The effect, and another answer than 200: a reset, a time-out, a 500, a 200 cut short or with an error in it.
    "no answer after the effect": Case(faults(end=DROP), checksums=ANY),
    "no answer after the effect, at the third attempt": Case(faults(end=[StoreUnavailable, StoreThrottled, DROP])),
    "no answer, and no HEAD for a while": Case(faults(end=DROP, head=[None, *[StoreUnavailable] * 4])),
    "no answer, replayed": Case(faults(end=DROP), options=(("idempotent_complete", True),)),
    "our own 412": Case(faults(end=says(StorePrecondition)), if_none_match=True),
    "409 after the effect": Case(faults(end=says(StoreConflict))),
    "NoSuchUpload after the effect": Case(faults(end=says(NoSuchMultipart)), only="multipart"),
    "InvalidPart after the effect": Case(faults(end=says(InvalidPart)), only="multipart"),
    "a refusal after the effect": Case(faults(end=says(StoreRefused))),
    "BadDigest after a whole effect": Case(faults(end=says(BadDigest))),
    "the effect comes late": Case(late, only="multipart"),
    "the effect comes late, after a refusal": Case(late_after(StoreRefused)),
    "the effect comes late, after a 412": Case(late_after(StorePrecondition), if_none_match=True),
    "the effect comes late, after InvalidPart": Case(late_after(InvalidPart), only="multipart"),
    # No effect, and an answer that says no.
    "a refusal": Case(faults(end=StoreRefused), put="the store refused", multipart="the store refused"),
    "a doubt, and refusals for ever": Case(
        faults(end=[StoreUnavailable, *[StoreRefused] * 9]), put="the store refused", multipart="the store refused"
    ),
    "NoSuchUpload": Case(faults(end=[NoSuchMultipart]), multipart=LOST, only="multipart"),
    "InvalidPart": Case(faults(end=InvalidPart), multipart="the store does not take a part", only="multipart"),
    "a part that the store has lost": Case(
        faults(put_part=Keeps(lost)), multipart="the store does not take a part", only="multipart"
    ),
    "a part that the store has shortened": Case(
        faults(put_part=Keeps(shortened)), multipart="the store refused", only="multipart", checksums=ANY
    ),
    "a part that the store has damaged": Case(
        faults(put_part=Keeps(flipped)), multipart="the store refused", only="multipart"
    ),
    "a receipt that was not the store's": Case(
        faults(put_part=shows(etag='"other"')), multipart="the store does not take a part", only="multipart"
    ),
    "BadDigest": Case(faults(end=BadDigest), multipart="the store refused"),
    "BadDigest for ever": Case(faults(end=[BadDigest] * 9), put="the store refused", multipart="the store refused"),
    "409 once": Case(faults(end=StoreConflict)),
    "409 for ever": Case(faults(end=[StoreConflict] * 9), put="the store refused", multipart="conflict:"),
    "409, and a listing that is behind": Case(
        faults(end=StoreConflict, list_parts=[None, Tells(lambda _: [])]), only="multipart"
    ),
    "409, and the parts are gone": Case(
        faults(end=StoreConflict, list_parts=[None, *[Tells(lambda _: [])] * 9]),
        multipart="conflict:",
        only="multipart",
    ),
    "409, and the multipart upload is gone": Case(
        faults(end=[StoreConflict, NoSuchMultipart, *[NoSuchMultipart] * 3], list_parts=[None, NoSuchMultipart]),
        multipart=LOST,
        only="multipart",
    ),
    "412 of a stranger's": Case(
        lambda store, _: foreign(store),
        put="precondition:",
        multipart="precondition:",
        if_none_match=True,
        before=True,
    ),
    # Somebody else.
    "a stranger's of the same size, before it": Case(lambda store, _: foreign(store), before=True),
    "a stranger's, and no answer": Case(
        lambda store, end: (foreign(store), faults(end=StoreUnavailable)(store, end)), before=True
    ),
    "replaced before we look": Case(meanwhile(foreign), put="conflict:", multipart=LOST, before=True),
    "replaced before we look, replayed": Case(
        meanwhile(foreign),
        multipart="conflict:",
        only="multipart",
        options=(("idempotent_complete", True),),
        before=True,
    ),
    "removed before we look": Case(meanwhile(lambda store: store.objects.clear()), multipart=LOST),
    "removed before we look, replayed": Case(
        meanwhile(lambda store: store.objects.clear()),
        multipart="conflict:",
        only="multipart",
        options=(("idempotent_complete", True),),
    ),
    "removed after a 200": Case(faults(end=Keeps(lost)), gone=True),
    "removed after a 200 that proves nothing": Case(
        faults(end=Keeps(lost)), put="conflict:", multipart="conflict:", checksums=(Checksum.NONE,)
    ),
    "replaced after a 200 that proves nothing": Case(
        after_a_200(foreign), put="conflict:", multipart="conflict:", checksums=(Checksum.NONE,), before=True
    ),
    "not seen for a while after a 200 that proves nothing": Case(
        faults(head=[None, *[Tells(lambda _: None)] * 2]), only="put", checksums=(Checksum.NONE,)
    ),
    "not seen for a while after a 200 that proves nothing, of parts": Case(
        faults(head=[Tells(lambda _: None)] * 2), only="multipart", checksums=(Checksum.NONE,)
    ),
    # Ours, and not whole.
    "damaged, and said so": Case(faults(end=Keeps(flipped)), put=DAMAGED, multipart=DAMAGED),
    "damaged, and only the answer says so": Case(
        faults(end=Keeps(flipped), head=[shows(checksums={})] * 2), put=DAMAGED, multipart=DAMAGED, told_once=True
    ),
    "damaged, no answer": Case(faults(end=(Keeps(flipped), DROP)), put=DAMAGED, multipart=DAMAGED),
    "shortened, no answer": Case(faults(end=(Keeps(shortened), DROP)), put=DAMAGED, multipart=DAMAGED, checksums=ANY),
    "shortened, and nobody says so": Case(
        faults(end=Keeps(shortened)), put=DAMAGED, multipart=DAMAGED, checksums=(Checksum.NONE,)
    ),
    "looks damaged, once": Case(faults(end=DROP, head=[None, shows(checksums={"crc64nvme": "AAAA"})]), only="put"),
    "looks damaged, once, after parts": Case(
        faults(end=DROP, head=shows(checksums={"crc64nvme": "AAAA"})), only="multipart"
    ),
    "looks shorter, once": Case(faults(end=DROP, head=[None, shows(size=3)]), only="put", checksums=ANY),
    "looks shorter, once, after parts": Case(faults(end=DROP, head=shows(size=3)), only="multipart", checksums=ANY),
    "looks damaged, and then like nothing": Case(
        faults(end=DROP, head=[shows(checksums={"crc64nvme": "AAAA"}), *[shows(checksums={})] * 9]),
        multipart=DAMAGED,
        only="multipart",
    ),
    "a SHA-256 that is another": Case(
        faults(end=DROP, head=[None, *[shows(checksums={"sha256": "AAAA"})] * 2]),
        put=DAMAGED,
        only="put",
        checksums=(Checksum.SHA256,),
    ),
    "a composite that is another": Case(
        faults(end=DROP, head=[shows(checksums={"sha256": "AAAA-3"})] * 2),
        multipart=DAMAGED,
        only="multipart",
        checksums=(Checksum.SHA256,),
    ),
    "a checksum of a kind that cannot be compared": Case(
        faults(end=DROP, head=[shows(checksums={"sha256": "AAAA-9", "crc64nvme": "AAAA-9", "md5": "AAAA"})] * 2),
    ),
    "damaged on its way, where only the store has computed a checksum": Case(
        faults(put_part=Arrives(flipped), put_object=Arrives(flipped)),
        put=DAMAGED,
        multipart=DAMAGED,
        checksums=(Checksum.NONE,),
        options=(("adds_crc64nvme", True),),
    ),
    "damaged, and not removed for a while": Case(
        faults(end=(Keeps(flipped), DROP), delete=[StoreUnavailable, DROP]), put=DAMAGED, multipart=DAMAGED
    ),
    "damaged, and not to be removed": Case(
        faults(end=(Keeps(flipped), DROP), delete=[AccessDenied] * 9), put=DAMAGED, multipart=DAMAGED, stays=True
    ),
}

TABLE = [
    pytest.param(case, kind, checksum, id=f"{name}, {kind}, {checksum}")
    for name, case in CASES.items()
    for kind in ("put", "multipart")
    for checksum in case.checksums
    if case.only in {"", kind}
]


RESTARTS = [row for row in TABLE if row.values[2] is row.values[0].checksums[0] and not row.values[0].told_once]


class Store(FakeStore):
    meddled = False
    """Whether somebody else has written or removed the object."""


def trouble(world, case, kind, checksum):
    """A store in which this case will happen; what is uploaded, and its metadata."""
    world.store = Store(clock=world.clock.date, **dict(case.options))
    case.arrange(world.store, {"put": "put_object", "multipart": "complete_multipart"}[kind])
    meta = ObjectMeta("token of u", checksum, if_none_match=case.if_none_match)
    return SMALL if kind == "put" else DATA, meta


def check(world, upload, case, data):
    """What holds whatever has happened."""
    found = world.store.objects.get("key")
    ours = found is not None and found.meta.token == "token of u"
    assert case.stays or not ours or found.data == data, "what is not whole is presented as whole"
    if upload.state is State.COMPLETE:
        assert upload.stored_object.size == len(data)
        assert ours or case.gone or world.store.meddled, "complete, and there is no object"
    else:
        assert (State.FAILED, True) == (upload.state, bool(upload.reason))
        assert case.stays or not ours, "failed, and there is an object"
    assert ours or not case.before or found.meta == FOREIGN, "a stranger's object has gone"


@pytest.mark.parametrize(("case", "kind", "checksum"), TABLE)
async def test_every_answer_ends_in_one_of_two(world, case, kind, checksum):
    data, meta = trouble(world, case, kind, checksum)
    upload, drain = await world.upload(data, meta=meta)
    await drain.run()
    check(world, upload, case, data)
    assert (await world.row()) == upload
    expected = getattr(case, kind)
    assert (expected is COMPLETE) == (upload.state is State.COMPLETE), upload.reason
    assert expected is COMPLETE or upload.reason.startswith(expected)
    assert case.stays == ("remove it" in (upload.reason or ""))


class Killer:
    """Kills the process in the nth call of the second half, before its effect or when it is answered."""

    OPERATIONS = ("list_parts", "head", "put_object", "complete_multipart", "delete")

    def __init__(self, store, nth, when):
        self.left = nth
        self.when = when
        self.store = store
        self.plan = store.plan
        self.victim = None
        store.plan = self

    async def __call__(self, operation, number):
        fault = await self.plan(operation, number) if self.plan else None
        if fault is None and self.store._faults[operation]:
            fault = self.store._faults[operation].popleft()
        self.left -= operation in self.OPERATIONS
        if self.left or self.victim.cancelling():
            return fault
        if self.when == "before":
            self.victim.cancel()
            await asyncio.sleep(0)
        return (*(fault if isinstance(fault, tuple) else (fault,)), Tells(self.kill))

    def kill(self, answer):
        self.victim.cancel()
        return answer


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.campaign), "after"])
@pytest.mark.parametrize(("case", "kind", "checksum"), RESTARTS)
async def test_so_does_every_restart(tmp_path, *, case, kind, checksum, when):
    for nth in range(1, 30):
        directory = tmp_path / str(nth)
        directory.mkdir()
        async with opened(World(directory, None, Clock(step=15.0))) as world:
            data, meta = trouble(world, case, kind, checksum)
            upload, drain = await world.upload(data, meta=meta)
            killer = Killer(world.store, nth, when)
            killer.victim = asyncio.create_task(drain.run())
            await asyncio.wait([killer.victim])
            if not killer.victim.cancelled():
                killer.victim.result()
                assert nth > 1
                return
            world.store.plan = killer.plan
            upload, drain = await world.again()
            if upload.state in LIVE:
                await drain.run()
            check(world, upload, case, data)
            if getattr(case, kind) is COMPLETE and not case.gone:
                assert upload.state is State.COMPLETE, upload.reason
    pytest.fail("it never ended by itself")


@contextlib.asynccontextmanager
async def opened(world):
    await world.checkpoint.open()
    try:
        yield world
    finally:
        await world.checkpoint.close()
        world.executor.shutdown()


# -- the same by a real store, on the wire ------------------------------------------------------------------------


def instead(answer: Answer) -> Fault:
    """The effect, and another answer."""
    return Fault(change=lambda _: answer)


LIES = {
    "reset before the effect": Fault(reaches=False),
    "503 before the effect": Fault(instead=no(503, "SlowDown")),
    "409 before the effect": Fault(instead=no(409, "ConditionalRequestConflict")),
    "200 with an error in it, before the effect": Fault(instead=no(200, "InternalError")),
    "reset": Fault(cut=0),
    "cut short": Fault(cut=-10),
    "500": instead(no(500, "InternalError")),
    "200 with an error in it": instead(no(200, "InternalError")),
    "200 with white space in it": instead(answers(200, "        ")),
    "a proxy's own page": instead(answers(502, "<html>no</html>")),
    "NoSuchUpload": instead(no(404, "NoSuchUpload")),
    "InvalidPart": instead(no(400, "InvalidPart")),
    "409": instead(no(409, "ConditionalRequestConflict")),
    "412": instead(no(412, "PreconditionFailed")),
    "silence": Fault(after=HELD_SECONDS),
}
"""What happens to the first request that would make the object. All of these leave the truth to be found out."""


@pytest.fixture
async def real(weed, store_proxy, tmp_path, clock):
    """A world over a real store, and its bucket without anything in between."""
    deadlines = Deadlines(complete=0.5, part=0.5)
    name = tmp_path.name
    async with weed.store(name) as behind, weed.store(name, endpoint_url=store_proxy.url, deadlines=deadlines) as store:
        profile = await behind.recognise()
        behind.adopt(profile)
        store.adopt(profile)
        async with opened(World(tmp_path, store, clock)) as world:
            yield world, behind


@pytest.mark.parametrize("kind", ["put", "multipart"])
async def test_whatever_is_said_about_it_a_real_object_is_found_and_there_is_one(real, store_proxy, kind):
    world, behind = real
    operation = {"put": "PutObject", "multipart": "CompleteMultipartUpload"}[kind]
    for lie, fault in LIES.items():
        store_proxy.forget()
        store_proxy.rule = on(operation, fault, 1)
        meta = ObjectMeta(f"token of {lie}", if_none_match=True)
        upload, drain = await world.upload(SMALL, upload_id=lie, key=lie, meta=meta)
        if kind == "multipart":
            upload.multipart_created(await behind.create_multipart(lie, meta))
            await world.checkpoint.save(upload)
        await drain.run()
        assert (State.COMPLETE, None) == (upload.state, upload.reason), lie
        found = await behind.head(lie)
        assert (len(SMALL), meta.token, upload.stored_object.etag) == (found.size, found.token, found.etag), lie
        assert store_proxy.seen[operation] == 1 + ("before" in lie), lie
    assert [] == [one async for one in behind.list_multiparts("")]
