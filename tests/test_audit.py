"""audit.py and logs.py: who has done what, in records that cannot be forged, that give nothing away, and that end."""

import asyncio
import json
import logging
from ipaddress import ip_network

import pytest
from conftest import BODY, START
from raw_client import eventually

from streamup import audit, logs
from streamup.errors import StoreUnavailable
from streamup.values import parse_api_key

ALICE = "alice-has-a-long-key"
MARKER = "MARKER-4f1c"


@pytest.fixture
def records(caplog):
    """The audit trail so far: (act, fields)."""
    caplog.set_level(logging.INFO, logger="streamup.audit")

    def told(act: str | None = None) -> list[tuple[str, dict]]:
        mine = [record for record in caplog.records if record.name == "streamup.audit"]
        return [(record.message, record.fields) for record in mine if act in (None, record.message)]

    return told


@pytest.fixture
async def guarded(start_service):
    return await start_service(api_key_sha256=(parse_api_key(ALICE),), deletes=True)


BEARER = {"Authorization": f"Bearer {ALICE}"}


async def test_an_upload_is_told_of_when_it_is_created_and_when_it_is_an_object(guarded, records):
    answer = await guarded.ask("PUT", "/objects/a/b", BODY, BEARER)
    key = f"key-{parse_api_key(ALICE).hex()[:16]}"
    whose = {"remote": "127.0.0.1", "subject": key, "upload": answer.json["upload"], "key": "a/b"}
    (created, first), (complete, second) = records()
    assert (created, complete) == ("created", "complete")
    assert first.items() >= whose.items()
    assert second.items() >= (whose | {"size": len(BODY), "received": len(BODY)}).items()
    assert first["credential"]


async def test_an_interrupted_upload_is_told_of_once_however_often_it_goes_on(service, records):
    await service.leave("a", START)
    await service.ask("PUT", "/objects/a?interrupted=append", BODY[len(START) :])
    assert [act for act, _ in records()] == ["created", "interrupted", "complete"]


async def test_what_is_given_up_is_told_of_with_its_size_and_reason(guarded, records):
    answer = await guarded.ask("POST", "/uploads?key=a", b"1234", BEARER | {"Upload-Complete": "?0"})
    assert (await guarded.ask("DELETE", answer.headers["location"], None, BEARER)).status == 204
    wrong = {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert (await guarded.ask("PUT", "/objects/b", b"body", BEARER | wrong)).status == 400
    ended = {act: fields for act, fields in records() if act in {"cancelled", "failed"}}
    assert ended["cancelled"].items() >= {"received": 4, "key": "a", "remote": "127.0.0.1"}.items()
    assert ended["failed"]["key"] == "b"
    assert "digest" in ended["failed"]["reason"]


async def test_what_ends_by_itself_has_nobody_behind_it(start_service, records):
    service = await start_service(expire_seconds=0.1)
    client, _ = await service.begin("a")
    client.close()
    await eventually(lambda: records("expired"))
    assert "remote" not in records("expired")[0][1]


async def test_an_object_that_is_removed_is_told_of(guarded, records):
    await guarded.ask("PUT", "/objects/a", b"x", BEARER)
    assert (await guarded.ask("DELETE", "/objects/a", None, BEARER)).status == 204
    assert records("deleted")[0][1].items() >= {"key": "a", "remote": "127.0.0.1"}.items()


async def test_behind_a_trusted_proxy_the_client_is_told_of(start_service, records):
    service = await start_service(trusted_proxies=(ip_network("127.0.0.0/8"),))
    await service.ask("PUT", "/objects/a", b"x", {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"})
    assert {fields["remote"] for _, fields in records()} == {"203.0.113.9"}


# -- refusals --------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_of(guarded, records):
    await guarded.ask("PUT", "/objects/a", b"x")
    await guarded.ask("GET", "/uploads/nothing", None, BEARER)
    (_, first), (_, second) = records("refused")
    assert first == {"remote": "127.0.0.1", "key": "a", "method": "PUT", "status": 401, "reason": "unauthorized"}
    assert second.items() >= {"upload": "nothing", "status": 404, "reason": "not_found"}.items()
    assert second["subject"].startswith("key-")


async def test_a_page_that_is_refused_is_told_of_without_who_asked_before(guarded, records):
    client = await guarded.connect()
    await client.ask("GET", "/uploads", headers=BEARER)
    assert (await client.ask("POST", "/", b"")).status == 405
    assert records("refused") == [
        ("refused", {"remote": "127.0.0.1", "method": "POST", "status": 405, "reason": "not_allowed"})
    ]


async def test_a_fault_of_the_store_is_told_to_the_operator_only(service, records):
    service.store.fail("head", StoreUnavailable(f"head_object: {MARKER}"))
    answer = await service.ask("HEAD", "/objects/a")
    assert answer.status == 503
    assert records("refused")[0][1]["error"] == f"head_object: {MARKER}"


async def test_a_flood_of_refusals_ends_up_as_a_number(service, records, monkeypatch):
    monkeypatch.setattr(audit, "WINDOW_SECONDS", 1.5)  # longer than 51 requests take
    client = await service.connect()
    for _ in range(50):
        await client.ask("GET", "/uploads/nothing")
    await client.ask("GET", "/nowhere")
    await eventually(lambda: records("more were refused"))
    assert len(records("refused")) == audit.MOST_REFUSALS
    assert records("more were refused") == [
        ("more were refused", {"reason": "not_found", "left_out": 51 - audit.MOST_REFUSALS})
    ]
    await client.ask("GET", "/uploads/nothing")
    assert len(records("refused")) == audit.MOST_REFUSALS + 1, "the next window begins anew"
    for _ in range(audit.MOST_REFUSALS):
        await client.ask("GET", "/uploads/nothing")
    await service.stop()
    assert records("more were refused")[-1][1] == {"reason": "not_found", "left_out": 1}


# -- nothing is given away, nothing is forged ------------------------------------------------------------------------

HOSTILE = 'a/b\u001b[2J\u009b\u2028\u202e name=x "q" \U0001f600'


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_field_can_hold_anything_and_stays_one(log_format, capsys):
    logs.start(log_format)
    logging.getLogger("streamup.audit").info("refused", extra={"fields": {"key": HOSTILE, "size": 7, "method": "PUT"}})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isascii()
    assert line.isprintable()
    if log_format == "json":
        entry = json.loads(line)
        assert (entry["message"], entry["key"], entry["size"], entry["method"]) == ("refused", HOSTILE, 7, "PUT")
    else:
        head, _, rest = line.partition(" key=")
        assert head.endswith("streamup.audit: refused")
        key, end = json.JSONDecoder().raw_decode(rest)
        assert (key, rest[end:]) == (HOSTILE, " size=7 method=PUT")


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_nothing_of_a_secret_is_in_any_line(guarded, log_format, capsys):
    logs.start(log_format)
    logging.getLogger("streamup").setLevel(logging.DEBUG)
    secret = {"Authorization": f"Bearer {MARKER}", "Cookie": MARKER, "X-Amz-Meta-Secret": MARKER}
    basic = {"Authorization": "Basic eDpNQVJLRVItNGYxYw=="}
    for headers in (secret, basic, BEARER | {"X-Amz-Meta-A": MARKER}):
        for method, target in [
            ("PUT", f"/objects/a?token={MARKER}&interrupted={MARKER}"),
            ("PUT", f"/objects/a//b?{MARKER}"),
            ("GET", f"/uploads?x={MARKER}"),
            ("PATCH", f"/uploads/nothing?token={MARKER}"),
            ("GET", f"/nowhere/{MARKER}"),
            ("PUT", f"/objects/%ff{MARKER}"),
        ]:
            await guarded.ask(method, target, b"body", headers)
    assert (await guarded.ask("PUT", "/objects/a", b"body", BEARER | {"X-Amz-Meta-A": MARKER})).status == 201
    guarded.store.fail("head", StoreUnavailable("away"))
    await guarded.ask("HEAD", f"/objects/a?token={MARKER}", None, BEARER)
    written = capsys.readouterr().err
    assert "refused" in written
    assert "created" in written
    assert "bad_request" in written
    for hidden in (MARKER, ALICE, "eDpNQVJLRVItNGYxYw"):
        assert hidden not in written


async def test_a_name_that_never_was_does_not_fill_the_disk(service, records):
    await service.ask("GET", f"/uploads/{'x' * 7000}")
    assert len(records("refused")[0][1]["upload"]) == audit.MOST_CHARACTERS


async def test_contexts_do_not_mix():
    audit.asks("192.0.2.1")
    asker = await asyncio.create_task(_another())
    assert asker.remote == "192.0.2.2"
    assert audit._asker.get().remote == "192.0.2.1"


async def _another():
    return audit.asks("192.0.2.2")
