"""Every end that a body can have, on real sockets: cut after any byte of it, closed, reset, fallen silent, nonsense.

What ended cleanly becomes an object, even if its sender left before anybody read it. What did not becomes none, keeps
each byte that came, and is finished by the next request. A streamup on each event loop takes all of them, side by side.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import planted as bugs
from conftest import DEFAULTS, LOOPS, PART_BYTES, Service, strict_store
from figures import Figures
from invariants import Broken, Invariant
from raw_client import CHUNKED, LAST_CHUNK, Client, chunk, head, place

from campaigns import Size
from streamup import listeners
from streamup.spool import Files

ENDINGS = {Size.CI: 500, Size.RELEASE: 10_000}
"""On each event loop."""

AT_ONCE = 32
IDLE_SECONDS = 0.5
ENDS_WITHIN = 20.0
"""Seconds until a body whose sender does nothing any more has ended; most do within milliseconds."""

SIZES = (1, 2, 300, PART_BYTES - 1, PART_BYTES, PART_BYTES + 100, 2 * PART_BYTES + 5)
LATE = ("closed", "half closed", "silent")
"""Ends that take nothing back of what is on its way."""

NONSENSE = b"ZZ\r\nneither a length nor a line"


@dataclass(frozen=True)
class Ending:
    """A request whose first `cut` bytes behind its head are sent, and then `how` it ends.

    `late`: they come together with the end, before anybody reads them.
    """

    number: int
    body: bytes
    framing: str
    cut: int
    how: str
    late: bool

    @property
    def key(self) -> str:
        return f"ending-{self.number}"

    @property
    def chunks(self) -> list[bytes]:
        third = len(self.body) // 3
        pieces = [self.body[:third], self.body[third : 2 * third], self.body[2 * third :]]
        return [chunk(piece) for piece in pieces if piece]

    @property
    def wire(self) -> bytes:
        return b"".join([*self.chunks, LAST_CHUNK]) if self.framing == "chunked" else self.body

    @property
    def whole(self) -> bool:
        return self.cut == len(self.wire)

    @property
    def arrives(self) -> int:
        """How many bytes of the body are in what is sent."""
        if self.framing != "chunked":
            return self.cut
        found = position = 0
        for framed in self.chunks:
            size = int(framed.split(b"\r\n")[0], 16)
            start = position + len(framed) - size - 2
            found += max(0, min(size, self.cut - start))
            position += len(framed)
        return found

    def head(self) -> bytes:
        size = len(self.body)
        framing = {
            "chunked": CHUNKED,
            "length": {"Content-Length": str(size)},
            "range": {"Content-Length": str(size), **place(0, size, size - 1)},
        }
        return head("PUT", f"/objects/{self.key}", framing[self.framing])

    def __str__(self) -> str:
        """As it is told when something is wrong."""
        when = "before it is read" if self.late else "after it is read"
        return f"{self.cut} of {len(self.wire)} bytes ({self.framing}), {self.how} {when}"


def endings(random_: random.Random, number: int) -> Iterator[Ending]:
    """As many of them. Half are cut near the end, where a mistake is likeliest; a fifth are whole."""
    for n in range(number):
        body = random_.randbytes(random_.choice(SIZES))
        framing = random_.choice(["chunked", "chunked", "length", "range"])
        whole = Ending(n, body, framing, 0, "", late=False)
        size = len(whole.wire)
        cuts = [size, random_.randrange(size), random_.randrange(size), *[max(0, size - random_.randint(1, 8))] * 2]
        how = random_.choice(["closed", "half closed", "reset", "silent", "nonsense"])
        cut = random_.choice(cuts)
        if how == "nonsense":  # anywhere else it would be bytes of the body, or of the next request
            framing, cut = "chunked", len(b"".join(whole.chunks))
        yield replace(whole, framing=framing, cut=cut, how=how, late=how in LATE and random_.random() < 0.5)


def run(size: Size, seed: int, planted: str | None = None) -> Figures:
    """All endings on each event loop."""
    figures = Figures("endings of bodies", size, seed)
    with bugs.planted(planted):
        for name, new_loop in LOOPS.items():
            wanted = list(endings(random.Random(f"{seed} {name}"), ENDINGS[size]))
            with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=new_loop) as runner:
                try:
                    runner.run(_all(wanted, Path(directory), figures))
                except Broken as broken:
                    again = " --release" if size is Size.RELEASE else ""
                    broken.add_note(f"on {name}; again: python tests/campaign.py endings{again} --seed {seed}")
                    raise
    return figures


async def _all(wanted: list[Ending], directory: Path, figures: Figures) -> None:
    config = replace(DEFAULTS, data=directory / "state", idle_seconds=IDLE_SECONDS, spool_bytes=1 << 30)
    service = Service(config, strict_store(), Files())
    listeners.LINGER_SECONDS = listeners.SHUTDOWN_SECONDS = 0.1  # nobody waits for the connections of the dead
    await service.start()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(ending: Ending) -> None:
        async with places:
            await _one(service, ending, figures)

    try:
        async with asyncio.TaskGroup() as tasks:
            for ending in wanted:
                tasks.create_task(one(ending))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    else:
        await _until(lambda: _nothing_left(service), Invariant.NOTHING_LEFT, repr(service.uploads.registry))
    finally:
        service.hang_up()
        await service.stop()


async def _one(service: Service, ending: Ending, figures: Figures) -> None:
    """One request to its end, what it has left, and another that finishes it."""
    client = await service.connect()
    await _send(service, client, ending)
    await _until(lambda: _at_rest(service, ending.key), Invariant.ENDS, ending)
    received = _received(service, ending.key)
    data = service.data(ending.key)
    if data is not None and not ending.whole:
        raise Broken(Invariant.CLEAN_END, f"{ending}: an object of {len(data)} bytes is visible")
    if received is not None and (ending.whole or received != ending.arrives):
        raise Broken(Invariant.RECEIVED, f"{ending}: {received} of {ending.arrives} bytes are kept")
    figures.count("endings")
    figures.count("clean ones", ending.whole)
    if received is not None:
        await _finish(service, ending, received)
    if service.data(ending.key) != ending.body:
        raise Broken(Invariant.CLEAN_END, f"{ending}: the object is not what was sent")
    client.close()


async def _send(service: Service, client: Client, ending: Ending) -> None:
    await client.send(ending.head() + ending.wire[: ending.cut])
    if not ending.late:
        await _until(lambda: _has_arrived(service, ending), Invariant.RECEIVED, ending)
    match ending.how:
        case "closed":
            client.close()
        case "half closed":
            client.half_close()
        case "reset":
            client.reset()
        case "nonsense":
            await client.send(NONSENSE)


async def _finish(service: Service, ending: Ending, received: int) -> None:
    """Another client has the whole body, and goes on."""
    rest, size = ending.body[received:], len(ending.body)
    where = place(received, size, size - 1) if rest else {"Content-Range": f"bytes */{size}", "Upload-Complete": "?1"}
    answer = await service.ask("PUT", f"/objects/{ending.key}", rest, where)
    if answer.status != 201:
        raise Broken(Invariant.OFFSET, f"{ending}: it cannot be finished at byte {received}: {answer}")


def _received(service: Service, key: str) -> int | None:
    """What an upload has that is still open; None if it has ended."""
    live = next(iter(service.uploads.registry[key]), None)
    return live and live.upload.received


def _at_rest(service: Service, key: str) -> bool:
    """Whether nobody writes any more, and what is all there is an object."""
    live = next(iter(service.uploads.registry[key]), None)
    if live is None:
        return service.data(key) is not None
    return live.writer is None and live.upload.sealed_order is None


def _has_arrived(service: Service, ending: Ending) -> bool:
    return _received(service, ending.key) == ending.arrives or service.data(ending.key) is not None


def _nothing_left(service: Service) -> bool:
    spool = service.spooled() or service.spool.budget.reserved
    return not (len(service.uploads.registry) or spool or service.store.multiparts)


async def _until(condition: Callable[[], bool], invariant: Invariant, what: object) -> None:
    """Sockets are the subject, so this waits in real time; and not for ever."""
    deadline = asyncio.get_running_loop().time() + ENDS_WITHIN
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise Broken(invariant, f"{what}: nothing more happens within {ENDS_WITHIN:g} s")
        await asyncio.sleep(0.002)
