"""admin.py: what probes, monitoring and the operator's commands are told, and what strangers are not."""

import asyncio

import pytest
from conftest import START
from raw_client import Client, eventually

from streamup import admin
from streamup.errors import CheckpointError, StoreUnavailable
from streamup.values import parse_api_key

FOR_PROBES = ("/healthz", "/readyz", "/metrics")
KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(admin, "KEPT_SECONDS", 0.0)


async def test_probes_and_monitoring_send_no_credential(start_service):
    service = await start_service(api_key_sha256=(parse_api_key(KEY),), admin_listen=("0.0.0.0", 0))
    for path in FOR_PROBES:
        assert (await service.ask_admin(path)).status == 200
        assert (await service.ask_admin(path, "HEAD")).status == 200


async def test_what_is_for_the_operator_is_on_no_other_listener_and_the_other_way_round(service):
    for path in (*FOR_PROBES, "/holdings"):
        assert (await service.ask("GET", path)).status == 404
        assert (await service.ask_admin(path, "POST")).status == 405
    for path in ("/objects/a", "/uploads"):
        assert (await service.ask_admin(path)).status == 404


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("localhost", 200),
        ("10.1.2.3:9464", 200),  # a pod's address, as probes have it
        ("[fd00::1]:9464", 200),
        ("streamup:9464", 200),  # a name in a container's network
        ("metrics.example.com", 200),
        ("rebound.example", 403),
        ("metrics.example.com.evil.example", 403),
        ("", 403),
        ("a b", 403),
        ("user@10.1.2.3", 403),
    ],
)
async def test_a_page_cannot_read_it_under_a_name_that_it_has_rebound(start_service, host, status):
    service = await start_service(allowed_hosts=("metrics.example.com",))
    for path in FOR_PROBES:
        assert (await service.ask_admin(path, Host=host)).status == status


async def test_the_name_in_the_target_goes_before_that_of_the_field(service):
    for path in FOR_PROBES:
        assert (await service.ask_admin(f"http://rebound.example{path}", Host="127.0.0.1")).status == 403
        assert (await service.ask_admin(f"http://127.0.0.1{path}", Host="rebound.example")).status == 200


async def test_a_probe_of_http_1_0_need_not_say_whom_it_means(service):
    client = await Client.connect(service.admin_address)
    await client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 OK\r\n" in await client.ended()
    client.close()


@pytest.mark.parametrize(("host", "status"), [("localhost:9464", 200), ("127.0.0.1", 200), ("rebound.example", 403)])
async def test_holdings_are_for_this_machine_and_for_no_page(service, host, status):
    found = await service.ask_admin("/holdings", Host=host)
    assert found.status == status
    assert (b"multiparts" in found.body) == (status == 200)


async def test_holdings_are_not_for_other_machines(service, monkeypatch):
    monkeypatch.setattr(admin, "is_loopback", lambda host: host != "127.0.0.1")
    assert (await service.ask_admin("/holdings", Host="localhost")).status == 403


# -- readiness -------------------------------------------------------------------------------------------------------


async def test_ready_is_who_can_take_an_upload_now(service, caplog):
    caplog.set_level("INFO", logger="streamup.admin")
    assert (await service.ask_admin("/readyz")).status == 200
    for _ in range(2):
        service.store.fail("ready", StoreUnavailable("the bucket has gone"))
        answer = await service.ask_admin("/readyz")
        assert (answer.status, answer.body) == (503, b"not ready: the bucket has gone\n")
    assert (await service.ask_admin("/healthz")).status == 200
    assert (await service.ask_admin("/readyz")).status == 200
    assert caplog.messages == ["not ready: the bucket has gone", "ready again"], "each change is said once"


async def test_a_disk_below_its_floor_is_not_ready(start_service):
    service = await start_service(disk_floor_bytes=1 << 60)
    assert (await service.ask_admin("/readyz")).status == 503


async def test_a_disk_with_no_byte_left_is_not_ready_whatever_its_floor(service, monkeypatch):
    monkeypatch.setattr(service.files, "free", lambda _: 0)
    assert (await service.ask_admin("/readyz")).body.startswith(b"not ready: The disk of the spool has 0 bytes left")


async def test_a_spool_that_has_gone_is_not_ready_and_refuses_at_the_door(service):
    service.spool.directory.rename(service.spool.directory.with_name("gone"))
    answer = await service.ask_admin("/readyz")
    assert (503, b"No such file") == (answer.status, answer.body.partition(b"now: ")[2][:12])
    refused = await service.ask("PUT", "/objects/new", b"abc")
    assert (507, "No room for another upload now") == (refused.status, refused.json["title"])
    assert b"streamup_spool_disk_free_bytes 0.0" in (await service.ask_admin("/metrics")).body
    service.spool.directory.with_name("gone").rename(service.spool.directory)
    assert (await service.ask("PUT", "/objects/new", b"abc")).status == 201


async def test_a_checkpoint_that_takes_no_commit_is_not_ready(service):
    await asyncio.wrap_future(service.executor.submit(service.checkpoint._db.execute, "PRAGMA query_only = ON"))
    assert (await service.ask_admin("/readyz")).body.startswith(b"not ready: the checkpoint did not commit")
    with pytest.raises(CheckpointError):
        await service.checkpoint.require_writable()
    await asyncio.wrap_future(service.executor.submit(service.checkpoint._db.execute, "PRAGMA query_only = OFF"))
    assert (await service.ask_admin("/readyz")).status == 200


async def test_a_store_that_does_not_answer_is_not_waited_for(service, monkeypatch):
    monkeypatch.setattr(admin, "READY_SECONDS", 0.05)

    async def plan(operation, _):
        await asyncio.sleep(0 if operation != "ready" else 60)

    service.store.plan = plan
    assert b"did not answer within 0.05 s" in (await service.ask_admin("/readyz")).body


async def test_strangers_are_not_told_why(service, monkeypatch):
    monkeypatch.setattr(admin, "is_loopback", lambda _: False)
    service.store.fail("ready", StoreUnavailable("s3://bucket does not answer"))
    assert (await service.ask_admin("/readyz")).body == b"not ready\n"


async def test_the_store_is_asked_once_however_many_ask(service, monkeypatch):
    monkeypatch.setattr(admin, "KEPT_SECONDS", 60.0)
    asked, gate = [], asyncio.Event()

    async def plan(operation, _):
        asked.append(operation)
        await gate.wait()

    service.store.plan = plan
    waiting = [await Client.connect(service.admin_address) for _ in range(5)]
    for client in waiting:
        await client.start("GET", "/readyz")
    await eventually(lambda: asked)
    waiting[0].close()
    gate.set()
    assert [(await client.answer()).status for client in waiting[1:]] == [200] * 4
    assert (await service.ask_admin("/readyz")).status == 200
    assert asked == ["ready"]
    for client in waiting[1:]:
        client.close()


# -- metrics ---------------------------------------------------------------------------------------------------------


async def test_metrics_come_as_prometheus_takes_them(service):
    await service.leave("secret/key", START)
    answer = await service.ask_admin("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert f"streamup_received_bytes_total {float(len(START))}".encode() in answer.body
    assert b"secret" not in answer.body
