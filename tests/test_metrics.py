"""metrics.py: numbers that are true, that never fall where they are counters, and that name nobody."""

import asyncio
import re
import time
from pathlib import Path

from conftest import BODY, PART_BYTES, REST, START
from prometheus_client.parser import text_string_to_metric_families
from raw_client import CHUNKED, chunk, eventually, head

from streamup import metrics
from streamup.errors import StoreUnavailable
from streamup.metrics import Metrics
from streamup.values import parse_api_key


def numbers(service) -> dict[str, float]:
    """By name, and the values of its labels behind it."""
    families = text_string_to_metric_families(service.metrics.text().decode())
    return {
        " ".join([sample.name.removeprefix("streamup_"), *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def test_bytes_and_uploads_are_counted_while_they_come_and_after(service):
    client, _ = await service.begin("a", START)
    await eventually(lambda: numbers(service)["stored_bytes_total"] == PART_BYTES)
    found = numbers(service)
    assert found["received_bytes_total"] == len(START)
    assert found["uploads open"] == found["uploads_receiving"] == 1
    assert found["connections"] >= 1
    assert 0 < found["spool_reserved_bytes"] <= found["spool_limit_bytes"] == 64 * PART_BYTES
    assert found["spool_disk_free_bytes"] > 0
    await client.send(chunk(REST) + b"0\r\n\r\n")
    assert (await client.answer()).status == 201
    await service.ask("PUT", "/objects/small", b"in one part")
    found = numbers(service)
    assert found["received_bytes_total"] == found["stored_bytes_total"] == len(BODY) + len(b"in one part")
    assert found["uploads_ended_total complete"] == 2
    assert found["uploads open"] == found["uploads_receiving"] == found["spool_reserved_bytes"] == 0


async def test_uploads_are_counted_by_how_they_ended(service):
    upload_id = await service.leave("a")
    assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204
    await service.ask("PUT", "/objects/b", b"body", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    found = numbers(service)
    assert found["uploads_ended_total cancelled"] + found["uploads_ended_total failed"] == 2
    assert found["uploads_ended_total expired"] == found["uploads_ended_total complete"] == 0


async def test_bytes_that_are_taken_back_are_never_counted(service):
    """A counter that fell would look like a restart."""
    headers = {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": "8"}
    created = await service.ask("POST", "/uploads?key=a", b"", headers)
    wrong = {"Content-Digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "Upload-Offset": "0"}
    fields = headers | wrong | CHUNKED | {"Content-Type": "application/partial-upload"}
    client = await service.connect()
    await client.send(head("PATCH", created.headers["location"], fields) + chunk(b"12345"))
    await eventually(lambda: numbers(service)["uploads_receiving"] == 1)
    assert numbers(service)["received_bytes_total"] == 0
    await client.send(b"0\r\n\r\n")
    assert (await client.answer()).status == 400
    assert numbers(service)["received_bytes_total"] == 0


async def test_refusals_are_counted_by_reason_and_name_nobody(start_service):
    service = await start_service(api_key_sha256=(parse_api_key("0123456789abcdef"),))
    for _ in range(3):
        await service.ask("GET", "/uploads/secret-id?token=secret")
    await service.ask("PUT", "/objects/secret", b"x", {"Origin": "https://secret.example"})
    found = numbers(service)
    assert found["requests_refused_total unauthorized"] == 3
    assert found["requests_refused_total forbidden"] == 1
    assert b"secret" not in service.metrics.text()


async def test_an_outage_can_be_seen(service):
    assert numbers(service)["store_available"] == 1
    gate = asyncio.Event()

    async def plan(operation, _):
        if operation == "put_part" and not gate.is_set():
            raise StoreUnavailable("away")

    service.store.plan = plan
    await service.leave("a")
    await eventually(lambda: numbers(service)["store_available"] == 0)
    assert numbers(service)["parts_in_flight_limit"] == 4
    gate.set()
    await eventually(lambda: numbers(service)["store_available"] == 1)


def test_calls_of_the_store_have_a_duration_and_perhaps_an_error():
    measured = Metrics()
    measured.observe("upload_part", 0.03, None)
    measured.observe("upload_part", 700, StoreUnavailable("no answer"))
    text = measured.text().decode()
    assert 'streamup_store_request_duration_seconds_bucket{le="0.05",operation="upload_part"} 1.0' in text
    assert 'streamup_store_request_duration_seconds_count{operation="upload_part"} 2.0' in text
    assert 'streamup_store_errors_total{kind="store_unavailable",operation="upload_part"} 1.0' in text


async def test_an_event_loop_that_is_held_up_can_be_seen(monkeypatch):
    monkeypatch.setattr(metrics, "LAG_SECONDS", 0.01)
    measured = Metrics()
    watch = asyncio.create_task(measured.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.15)  # noqa: ASYNC251 - this is what holds it up
    await eventually(lambda: "lag_seconds_count 0" not in measured.text().decode())
    watch.cancel()
    late = measured.registry.get_sample_value("streamup_event_loop_lag_seconds_sum")
    assert late > 0.1


async def test_names_and_units_are_by_the_conventions(service):
    text = service.metrics.text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ours = {name: family for name, family in families.items() if name.startswith("streamup_")}
    assert {"process_resident_memory_bytes", "process_open_fds", "streamup_build_info"} <= families.keys()
    for name, family in ours.items():
        assert family.documentation.endswith("."), name
        assert name.endswith(("_bytes", "_seconds")) or not any(unit in name for unit in ("byte", "second")), name
        for sample in family.samples:
            assert sample.labels.keys() <= {
                "state",
                "outcome",
                "reason",
                "operation",
                "kind",
                "le",
                "version",
                "python",
            }
    assert "_created" not in text, "a series for each counter that nobody asks for"


def test_the_readme_names_what_there_is(service):
    """Its table without the prefix, its alerts with it."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (section,) = re.findall(r"^## Watching it$.*?^(?=## )", readme, re.MULTILINE | re.DOTALL)
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", row)}
    named |= set(re.findall(r"streamup_([a-z_]+)", section)) - {""}
    service.metrics.observe("head_object", 0.1, StoreUnavailable("away"))
    known = {name.split(" ")[0].removesuffix("_count") for name in numbers(service)}
    assert len(named) > 15
    assert named - known == {"requests_refused_total"}, "which has no series before the first refusal"
