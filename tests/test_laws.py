"""The ten laws of `streamup/__init__.py`, each by a test that carries its name, on a whole service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import BODY, PART_BYTES, REST, START, Service, strict_store
from fake_store import DROP, FakeStore, Keeps, flipped, shortened
from raw_client import (
    CHUNKED,
    EXPECT,
    LAST_CHUNK,
    PATIENCE_SECONDS,
    Client,
    at,
    chunk,
    eventually,
    head,
    place,
    refused,
)

from streamup.auth import ANONYMOUS
from streamup.errors import CheckpointError, StoreUnavailable
from streamup.spool import Files
from streamup.stores import PartBody, Receipt, StoreLimits
from streamup.upload import State, Upload

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("impatient"),
]


# -- 1 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, PART_BYTES, PART_BYTES + 1, len(BODY)])
async def test_law_1_received_means_on_disk(start_service, tmp_path, size):
    service = await start_service()
    service.store.hold("put_part")  # so that nothing leaves the disk
    await service.begin(data=BODY[:size])
    assert sum(service.spooled().values()) == size
    restarted = await start_service(data=service.killed(tmp_path / "killed"), store=strict_store())
    assert (await restarted.document("a"))["received"] == size
    assert (await restarted.ask("PUT", "/objects/a", BODY[size:] + b"!", place(size))).status == 201
    assert restarted.data("a") == BODY + b"!"


# -- 2 --------------------------------------------------------------------------------------------------------------


class Disk(Files):
    """Knows what a power cut would leave: of each file what was synced, and no name that was not."""

    def __init__(self) -> None:
        self.durable_sizes: dict[str, int] = {}
        self.durable_names: set[str] = set()
        self.syncs = 0

    def sync(self, path: Path) -> None:
        self.syncs += 1
        size = path.stat().st_size
        super().sync(path)
        self.durable_sizes[path.name] = size

    def sync_directory(self, path: Path) -> None:
        names = {file.name for file in path.iterdir()}
        super().sync_directory(path)
        self.durable_names |= names

    def after_power_cut(self, service: Service, directory: Path) -> Path:
        """A copy of the state directory as a power cut would leave it now."""
        left = service.killed(directory)
        for file in (left / "spool").iterdir():
            if file.name in self.durable_names:
                os.truncate(file, self.durable_sizes.get(file.name, 0))
            else:
                file.unlink()
        return left


async def by_head_of_the_upload(service: Service) -> int:
    _, upload_id = await service.begin()
    return (await service.ask("HEAD", f"/uploads/{upload_id}")).offset


async def by_head_of_the_object(service: Service) -> int:
    await service.begin()
    return (await service.ask("HEAD", "/objects/a")).offset


async def by_json(service: Service) -> int:
    await service.leave()
    return (await service.document("a"))["offset"]


async def by_308(service: Service) -> int:
    answer = await service.ask("PUT", "/objects/a", START, place(0, end=len(START) - 1))
    assert answer.status == 308
    return answer.offset


async def by_201(service: Service) -> int:
    answer = await service.ask("PUT", "/objects/a", START, {"Upload-Complete": "?0"})
    assert answer.status == 201
    return answer.offset


async def by_204(service: Service) -> int:
    _, upload_id = await service.begin(data=b"")
    return (await service.ask("PATCH", f"/uploads/{upload_id}", START, at(0, complete=False))).offset


async def by_a_policy_409(service: Service) -> int:
    await service.begin()
    return refused(await service.ask("PUT", "/objects/a", b"x"), 409).offset


async def by_an_offset_409(service: Service) -> int:
    await service.begin()
    return refused(await service.ask("PUT", "/objects/a", b"x", place(7)), 409).offset


async def by_an_interruption(service: Service) -> int:
    client, upload_id = await service.begin()
    stopping = asyncio.create_task(service.ask("HEAD", f"/uploads/{upload_id}"))
    offset = refused(await client.answer(), 409).offset
    await stopping
    return offset


async def by_202(service: Service) -> int:
    service.store.hold("complete_multipart")
    return (await service.ask("PUT", "/objects/a", BODY, {"Prefer": "respond-async"})).offset


WAYS: tuple[Callable[[Service], Awaitable[int]], ...] = (
    by_head_of_the_upload,
    by_head_of_the_object,
    by_json,
    by_308,
    by_201,
    by_204,
    by_a_policy_409,
    by_an_offset_409,
    by_an_interruption,
    by_202,
)


@pytest.mark.parametrize("announced", WAYS, ids=lambda way: way.__name__)
async def test_law_2_announced_means_durable(start_service, tmp_path, announced):
    disk = Disk()
    store = strict_store()
    store.hold("put_part")  # so that the disk alone has the bytes
    service = await start_service(files=disk, store=store)
    offset = await announced(service)
    assert offset in {len(START), len(BODY)}
    left = disk.after_power_cut(service, tmp_path / "cut")
    restarted = await start_service(data=left, store=strict_store(), boot_id="another boot")
    if offset < len(BODY):
        answer = await restarted.ask("HEAD", "/objects/a")
        assert (answer.status, answer.offset) == (200, offset)
        assert (await restarted.ask("PUT", "/objects/a", REST, place(offset))).status == 201
    await eventually(lambda: restarted.data("a") == BODY)


async def test_law_2_announced_means_durable_also_after_a_kill(start_service, tmp_path):
    service = await start_service()
    service.store.hold("put_part")
    await service.begin()
    disk = Disk()
    killed = await start_service(data=service.killed(tmp_path / "killed"), store=strict_store(), files=disk)
    killed.store.hold("put_part")
    offset = refused(await killed.ask("PUT", "/objects/a", b"x", place(7)), 409).offset
    assert offset == len(START)
    left = disk.after_power_cut(killed, tmp_path / "cut")
    restarted = await start_service(data=left, store=strict_store(), boot_id="another boot")
    assert (await restarted.ask("HEAD", "/objects/a")).offset == offset


async def test_law_2_no_offset_is_told_while_only_the_store_knows(start_service, tmp_path):
    """The power fails while an object is being stored: what nobody was told of is gone, and may be in the store."""
    disk = Disk()
    service = await start_service(files=disk)
    putting = service.store.hold("put_object")
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", {"Content-Length": "5"}) + b"small")
    await putting.reached()
    left = disk.after_power_cut(service, tmp_path / "cut")
    away = strict_store()
    away.fail("head", *[StoreUnavailable("no answer")] * 1000)
    restarted = await start_service(data=left, store=away, boot_id="another boot", store_timeout_seconds=0.1)
    upload = await restarted.becomes("a", state="completing")
    for path in ("/objects/a", f"/uploads/{upload['id']}"):
        answer = await restarted.ask("HEAD", path)
        assert (answer.status, "retry-after" in answer.headers, "upload-offset" in answer.headers) == (423, True, False)


async def test_law_2_nobody_is_told_of_an_end_that_is_not_committed(start_service):
    """A crash may take it back, and then an offset would fall."""
    service = await start_service()
    save, saving, saved = service.checkpoint.save, asyncio.Event(), asyncio.Event()

    async def save_slowly(upload: Upload) -> None:
        if upload.state is State.COMPLETE:
            saving.set()
            await saved.wait()
        await save(upload)

    service.checkpoint.save = save_slowly
    asking = asyncio.create_task(service.ask("PUT", "/objects/a", START))
    await saving.wait()
    told = await service.document("a")
    saved.set()
    assert (told["state"], told["offset"]) == ("completing", 0)
    assert (await asking).status == 201
    assert await service.document("a", state="complete", offset=len(START))


async def test_law_2_nobody_waits_for_a_sync_that_nobody_asked_for(start_service):
    disk = Disk()
    service = await start_service(files=disk)
    client, _ = await service.begin()  # looked at all the while, by GET
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert (await service.ask("PUT", "/objects/b", BODY)).status == 201
    assert disk.syncs == 0


# -- 3 --------------------------------------------------------------------------------------------------------------


class Recorder(FakeStore):
    """Remembers all that was ever sent as a part of this number."""

    def __init__(self) -> None:
        super().__init__(limits=StoreLimits(min_part_bytes=PART_BYTES))
        self.sent: defaultdict[int, set[bytes]] = defaultdict(set)

    async def put_part(self, key: str, multipart_id: str, number: int, body: PartBody) -> Receipt:
        assert body.path is not None
        self.sent[number].add(body.path.read_bytes()[: body.size])
        return await super().put_part(key, multipart_id, number, body)


async def test_law_3_position_decides_the_part(start_service):
    store = Recorder()
    store.fail("put_part", DROP, StoreUnavailable, None, DROP)
    data = BODY * 2
    positions = [0, 1, PART_BYTES - 7, PART_BYTES, 3 * PART_BYTES + 5, len(data) - 1]
    for start, end in pairwise(positions):  # appends that end anywhere, each by another process
        service = await start_service(store=store)
        answer = await service.ask("PUT", "/objects/a", data[start:end], place(start, end=end - 1))
        assert (answer.status, answer.offset) == (308, end)
        await service.stop()
    service = await start_service(store=store)
    assert (await service.ask("PUT", "/objects/a", data[-1:], place(len(data) - 1))).status == 201
    assert service.data("a") == data
    cuts = range(0, len(data), PART_BYTES)
    assert store.sent == {number: {data[i : i + PART_BYTES]} for number, i in enumerate(cuts, 1)}


# -- 4 --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def held_checkpoint(service: Service) -> AsyncIterator[None]:
    """No commit happens inside."""
    release, reached = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        release.wait(PATIENCE_SECONDS)

    service.executor.submit(wait)
    assert await asyncio.to_thread(reached.wait, PATIENCE_SECONDS)
    try:
        yield
    finally:
        release.set()


async def test_law_4_store_then_checkpoint_then_spool(service):
    gate = service.store.hold("put_part")
    _, upload_id = await service.begin()
    await gate.reached()
    assert set(service.spooled().values()) == {PART_BYTES, 100}, "not stored yet: the file is all there is"
    live = service.uploads.live(upload_id, ANONYMOUS)
    async with held_checkpoint(service):
        gate.release()
        await eventually(lambda: service.store.multiparts[live.upload.multipart_id].parts)
        with pytest.raises(TimeoutError):  # the longest that anything here may take to get it wrong
            async with asyncio.timeout(0.1):
                await eventually(lambda: live.upload.receipts or len(service.spooled()) < 2)
    await eventually(lambda: list(service.spooled().values()) == [100])
    assert 1 in (await service.checkpoint.find(upload_id)).upload.receipts


async def test_law_4_what_could_not_be_committed_is_not_known(start_service, monkeypatch, caplog):
    service = await start_service()
    committed = service.checkpoint.add_receipt

    async def failing(*_: Any) -> None:
        monkeypatch.setattr(service.checkpoint, "add_receipt", committed)
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(service.checkpoint, "add_receipt", failing)
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(START))
    assert "upload-offset" not in refused(await client.answer(), 507).headers, "nothing is told from such a memory"
    found = await eventually(lambda: service.document("a", stored=PART_BYTES, writer=False))
    assert (await service.ask("PUT", "/objects/a", BODY[found["received"] :], place(found["received"]))).status == 201
    assert service.data("a") == BODY
    caplog.clear()


# -- 5 --------------------------------------------------------------------------------------------------------------


async def test_law_5_an_irreversible_act_is_announced_first(service):
    seen: dict[str, Any] = {}

    async def look(operation: str, number: int) -> None:
        if number == 1 and operation in {"create_multipart", "put_part", "complete_multipart"}:
            seen[operation] = (await service.checkpoint.find(upload_id)).upload

    service.store.plan = look
    client, upload_id = await service.begin(data=b"")
    await client.send(chunk(BODY) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert seen["create_multipart"].creating is not None
    assert seen["put_part"].multipart_id == service.store.objects["a"].multipart_id
    assert seen["complete_multipart"].state is State.COMPLETING
    assert service.store.objects["a"].meta.token == seen["create_multipart"].meta.token


async def test_law_5_so_is_a_put(service):
    gate = service.store.hold("put_object")
    client = await service.connect()
    await client.start("PUT", "/objects/a", b"body")
    await gate.reached()
    (record,) = await service.checkpoint.unfinished()
    assert record.upload.state is State.COMPLETING
    gate.release()
    assert (await client.answer()).status == 201


async def test_law_5_the_clients_word_comes_before_its_body(start_service, tmp_path):
    service = await start_service()
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", {"Content-Length": str(len(BODY))} | EXPECT))
    assert await client.interim() == 100
    (record,) = await service.checkpoint.unfinished()
    assert record.upload.seal_at == len(BODY)
    service.store.hold("create_multipart")
    async with held_checkpoint(service):
        await client.send(BODY)
        await eventually(lambda: sum(service.spooled().values()) == len(BODY))
        left = service.killed(tmp_path / "killed")  # everything was received, and nobody has noted it
    restarted = await start_service(data=left, store=strict_store())
    await eventually(lambda: restarted.data("a") == BODY)


# -- 6 --------------------------------------------------------------------------------------------------------------


class SlowSync(Files):
    """Its syncs wait while `go` is not set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.waiting = threading.Event()

    def sync(self, path: Path) -> None:
        self.waiting.set()
        assert self.go.wait(PATIENCE_SECONDS)
        super().sync(path)


async def test_law_6_one_writer_per_upload(start_service):
    """The old writer waits for room with its last chunk in the buffer, and takes its time to settle."""
    disk = SlowSync()
    service = await start_service(files=disk, spool_bytes=8 * PART_BYTES)
    gate = service.store.hold("put_part")
    old = await service.connect()
    await old.send(head("PUT", "/objects/a", CHUNKED) + chunk(BODY * 3) + LAST_CHUNK)
    offset = 7 * PART_BYTES
    upload_id = (await service.becomes("a", received=offset))["id"]
    newcomer = await service.connect()
    await newcomer.send(head("PATCH", f"/uploads/{upload_id}", CHUNKED | EXPECT | at(offset, complete=True)))
    assert await asyncio.to_thread(disk.waiting.wait, PATIENCE_SECONDS), "the old one settles"
    gate.release()  # now the old one could go on, and the newcomer begin
    with pytest.raises(TimeoutError):
        await newcomer.interim(seconds=0.2)
    disk.go.set()
    refused(await old.answer(), 409, expected_offset=offset)
    assert await newcomer.interim() == 100
    await newcomer.send(chunk(b"the newcomer's") + LAST_CHUNK)
    assert (await newcomer.answer()).status == 201
    assert service.data("a") == (BODY * 3)[:offset] + b"the newcomer's"


async def test_law_6_nothing_comes_after_the_offset_that_was_told(service):
    old, upload_id = await service.begin(data=b"")
    sending = asyncio.create_task(send_all(old, chunk(b"old") * 200_000))
    await eventually(lambda: service.uploads.live(upload_id, ANONYMOUS).upload.received)
    told = (await service.ask("HEAD", f"/uploads/{upload_id}")).offset
    assert told > 0
    await sending
    for size in (told, told + 3):
        answer = await service.ask("HEAD", f"/uploads/{upload_id}")
        assert (answer.status, answer.offset) == (204, size)
        answer = await service.ask("PATCH", f"/uploads/{upload_id}", b"new", at(size, complete=False))
        assert answer.status == 204
    assert (await service.ask("PATCH", f"/uploads/{upload_id}", b"", at(told + 6, complete=True))).status == 201
    assert service.data("a") == (b"old" * 200_000)[:told] + b"newnew"


async def send_all(client: Client, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await client.send(data)


@pytest.mark.parametrize("stopped_at", [1, 2, 3])
async def test_law_6_a_stopped_writer_seals_nothing(start_service, stopped_at):
    """The newcomer comes while the last bytes, and the end, are on their way from the buffer to the disk."""

    class Stopping(Files):
        writes = 0

        def write(self, fd: int, data: memoryview) -> int:
            self.writes += 1
            if self.writes == stopped_at:
                service.uploads.open_upload("a", ANONYMOUS).writer.stop("a newcomer came")
            return super().write(fd, data)

    service = await start_service(files=Stopping())
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(BODY) + LAST_CHUNK)
    offset = refused(await client.answer(), 409).offset
    assert not service.store.objects
    assert (await service.document("a"))["state"] == "open"
    assert (await service.ask("PUT", "/objects/a", BODY[offset:], place(offset))).status == 201
    assert service.data("a") == BODY


# -- 7 --------------------------------------------------------------------------------------------------------------


async def _close(_: Service, client: Client) -> None:
    client.close()


async def _half_close(_: Service, client: Client) -> None:
    client.half_close()


async def _reset(_: Service, client: Client) -> None:
    client.reset()


async def _idle(_service: Service, _client: Client) -> None:
    pass


async def _malformed(_: Service, client: Client) -> None:
    await client.send(b"ZZ\r\n" + LAST_CHUNK)


async def _almost(_: Service, client: Client) -> None:
    await client.send(LAST_CHUNK[:-1])
    client.close()


async def _stop(service: Service, _: Client) -> None:
    await service.stop()


UNCLEAN = (_close, _half_close, _reset, _idle, _malformed, _almost, _stop)


@pytest.mark.parametrize("end", UNCLEAN, ids=lambda end: end.__name__.strip("_"))
@pytest.mark.parametrize("headers", [CHUNKED, {"Content-Length": str(len(BODY))}], ids=["chunked", "length"])
async def test_law_7_only_a_clean_end_completes(start_service, end, headers):
    service = await start_service(idle_seconds=0.3)
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", headers) + (chunk(START) if headers is CHUNKED else START))
    await service.becomes("a", received=len(START))
    await end(service, client)
    if end is _stop:
        service = await start_service(store=service.store)
    found = await service.becomes("a", writer=False)
    assert found["state"] == "open"
    assert not service.store.objects
    offset = found["offset"]
    assert offset >= len(START), "and it is kept"
    if offset == len(START):  # `_malformed` with a length is just more bytes
        assert (await service.ask("PUT", "/objects/a", REST, place(offset))).status == 201
        assert service.data("a") == BODY


# -- 8 --------------------------------------------------------------------------------------------------------------


async def test_law_8_nothing_grows_without_a_bound(start_service):
    service = await start_service(spool_bytes=16 * PART_BYTES, max_open_uploads=6, idle_seconds=2.0)
    gate = service.store.hold("put_part")
    clients = [await service.connect() for _ in range(6)]
    for number, client in enumerate(clients):
        await client.send(head("PUT", f"/objects/{number}", CHUNKED) + chunk(b"x"))
        await service.becomes(str(number), received=1)
    refused(await service.ask("PUT", "/objects/one-too-many", b"x"), 507)
    senders = [asyncio.create_task(send_all(client, chunk(BODY) * 20 + LAST_CHUNK)) for client in clients]
    await eventually(lambda: service.spool.budget.reserved > 13 * PART_BYTES)
    await gate.reached(service.config.parallel_parts)
    with pytest.raises(TimeoutError):
        await clients[0].answer(seconds=2.3)  # waiting for room is not idleness
    assert sum(service.spooled().values()) <= 16 * PART_BYTES
    assert service.store.in_flight["put_part"] == service.config.parallel_parts
    gate.release()
    clients[0].methods.append("PUT")
    assert [(await client.answer()).status for client in clients] == [201] * 6
    await asyncio.gather(*senders)
    for number in range(6):
        assert service.data(str(number)) == b"x" + BODY * 20
    assert service.store.peak["put_part"] <= service.config.parallel_parts
    idle, _ = await service.begin("idle")
    refused(await idle.answer(), 409)


async def test_law_8_what_nobody_comes_back_for_expires(start_service):
    service = await start_service(expire_seconds=0.2)
    await service.begin("live")
    upload_id = await service.leave("left")
    await service.becomes("left", state="expired")
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    assert (await service.document("live"))["state"] == "open"
    await eventually(lambda: len(service.store.multiparts) == 1)
    assert len(service.spooled()) == 1


# -- 9 --------------------------------------------------------------------------------------------------------------


async def test_law_9_one_order_per_key(service):
    parts = service.store.hold("put_part")
    bodies = [BODY, b"second", b"third", BODY + b"fourth", b"fifth"]
    clients = []
    for number, body in enumerate(bodies, 1):
        clients.append(await service.connect())
        await clients[-1].start("PUT", "/objects/a", body)
        await eventually(lambda number=number, body=body: sealed(service, number, len(body)))
    assert not service.store.objects, "those behind could have gone ahead"
    parts.release()
    for client, body in zip(clients, bodies, strict=True):
        answer = await client.answer()
        assert (answer.status, answer.json["size"]) == (201, len(body))
    assert service.data("a") == b"fifth"
    ends = [operation for operation, _, _ in service.store.effects if operation in {"put_object", "complete_multipart"}]
    assert ends == ["complete_multipart", "put_object", "put_object", "complete_multipart", "put_object"]


async def sealed(service: Service, count: int, length: int) -> bool:
    """Whether so many uploads have been sealed, the last with this length."""
    uploads = (await service.ask("GET", "/uploads")).json["uploads"]
    done = [upload for upload in uploads if upload["state"] in {"sealed", "completing"}]
    return len(done) == count and done[-1]["length"] == length


# -- 10 -------------------------------------------------------------------------------------------------------------


class FailingDisk(Files):
    """Its next sync fails; those after it succeed, as the kernel's do, which has dropped the bytes by then."""

    failing = False

    def sync(self, path: Path) -> None:
        if self.failing:
            self.failing = False
            raise OSError(5, "Input/output error")
        super().sync(path)


@pytest.mark.parametrize("how", ["HEAD", "disconnect"])
async def test_law_10_a_failed_sync_is_never_retried_into_success(start_service, how):
    disk = FailingDisk()
    service = await start_service(files=disk)
    client, upload_id = await service.begin()
    disk.failing = True
    if how == "HEAD":
        assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status in {410, 507}
    else:
        client.close()
    await service.becomes("a", state="failed")
    for _ in range(2):
        assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    refused(await service.ask("PUT", "/objects/a", REST, place(len(START))), 409, expected_offset=0)
    assert not service.store.objects


@pytest.mark.parametrize("damage", ["gone", "short"])
async def test_law_10_state_that_is_lost_fails_the_upload(start_service, damage):
    service = await start_service()
    upload_id = await service.leave()
    await service.becomes("a", stored=PART_BYTES)
    (name,) = service.spooled()
    await service.stop()
    file = service.spool.directory / name
    file.unlink() if damage == "gone" else os.truncate(file, 99)
    service = await start_service(store=service.store)
    assert (await service.ask("HEAD", f"/uploads/{upload_id}")).status == 410
    assert "state lost" in (await service.document("a"))["reason"]


async def test_law_10_a_part_that_the_store_loses_never_becomes_an_object(service):
    client, _ = await service.begin()
    found = await service.becomes("a", stored=PART_BYTES)
    service.store.multiparts.clear()  # a lifecycle rule, or somebody with aws s3api
    await client.send(chunk(REST) + LAST_CHUNK)
    refused(await client.answer(), 410)
    assert not service.store.objects
    assert (await service.ask("HEAD", f"/uploads/{found['id']}")).status == 410


@pytest.mark.parametrize("data", [BODY, START[:1000]], ids=["parts", "one part"])
@pytest.mark.parametrize("damage", [flipped, shortened])
async def test_law_10_what_the_store_has_damaged_is_not_presented(service, data, damage):
    for operation in ("complete_multipart", "put_object"):
        service.store.fail(operation, (Keeps(damage), DROP))
    answer = await service.ask("PUT", "/objects/a", data)
    assert (410, None) == (answer.status, service.data("a"))
    assert "not what was sent" in answer.detail


async def test_law_10_what_the_spool_still_has_is_sent_again(service):
    gate = service.store.hold("put_part")
    client, _ = await service.begin()
    await gate.reached()
    service.store.multiparts.clear()
    gate.release()
    await client.send(chunk(REST) + LAST_CHUNK)
    assert (await client.answer()).status == 201
    assert service.data("a") == BODY
