"""A client that was told something notices when it is not so any more. Without this no campaign would find anything."""

import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from invariants import Broken, Invariant
from process import Answer
from promises import Client, Sending

DATA = b"what is sent"


@dataclass
class Tells:
    """In place of a server: tells what a test wants it to."""

    data: Path
    documents: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def uploads(self, key):
        return [document for document in self.documents if document["key"] == key]

    def ask(self, method, path, headers=None, body=b""):
        self.asked.append((method, path, dict(headers or {}), body if isinstance(body, bytes) else b"".join(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(status, **headers):
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


@pytest.fixture
def server(tmp_path):
    return Tells(tmp_path)


@pytest.fixture
def sending(server):
    return Sending(server, "key", DATA, lambda: None)


def document(state="open", offset=0, reason=None):
    return {"id": "id", "key": "key", "state": state, "offset": offset, "reason": reason}


def test_an_offset_is_remembered(server, sending):
    server.answers = [said(308, Upload_Offset="5", Location="/uploads/id"), said(204, Upload_Offset="7")]
    assert sending.ask("PUT", "/objects/key").status == 308
    sending.ask("PATCH", "/uploads/id")
    assert (sending.id, sending.announced, sending.announcements) == ("id", 7, 2)


def test_an_answer_that_was_overtaken_is_no_fall(sending):
    """Two ask at the same time. The answer to the one that asked first comes last."""
    sending.hear(7, before=0)
    sending.hear(5, before=0)
    assert sending.announced == 7


@pytest.mark.parametrize("status", [200, 204, 308, 409])
def test_an_offset_that_falls_is_noticed(server, sending, status):
    sending.announced = 7
    server.answers = [said(status, Upload_Offset="6")]
    with pytest.raises(Broken) as broken:
        sending.ask("HEAD", "/objects/key")
    assert broken.value.invariant is Invariant.OFFSET


def test_an_upload_that_is_gone_is_noticed(server, sending):
    sending.announced = 7
    server.answers = [said(410)]
    with pytest.raises(Broken, match="is gone, 7 bytes were announced"):
        sending.ask("HEAD", "/uploads/id")


@pytest.mark.parametrize(
    ("told", "found", "what"),
    [
        ({"announced": 7}, document(offset=6), "7 was announced, 6 is told now"),
        ({"announced": 7}, None, "not known"),
        ({}, None, "not known"),
        ({"announced": 7}, document("failed", 7, "state lost"), "7 announced bytes of key are lost"),
        ({"promised": True}, document("failed", 0, "state lost"), "is failed"),
        ({"promised": True}, document("open"), "open again"),
        ({"promised": True, "stored": True}, document("completing"), "completing again"),
        ({"announced": 7}, document("expired", 7), "expired"),
    ],
)
def test_what_is_not_so_any_more_is_noticed_after_a_restart(server, sending, told, found, what):
    for name, value in ({"id": "id"} | told).items():
        setattr(sending, name, value)
    server.answers = [Answer(200 if found else 404, {}, json.dumps(found).encode())]
    with pytest.raises(Broken, match=what):
        sending.check()


@pytest.mark.parametrize("told", [{"announced": 7}, {"promised": True}])
def test_an_upload_without_an_id_that_is_not_there_is_noticed_too(sending, told):
    for name, value in told.items():
        setattr(sending, name, value)
    with pytest.raises(Broken, match="not known"):
        sending.check()


def test_what_nobody_was_told_of_may_be_lost(server, sending):
    sending.check()
    sending.id = "id"
    server.answers = [Answer(200, {}, json.dumps(document("failed", 0, "state lost")).encode())]
    sending.check()
    assert sending.id == ""


def test_bytes_that_are_not_those_that_were_sent_are_noticed(server, sending):
    (server.data / "spool").mkdir()
    server.documents = [document(offset=4)]
    (server.data / "spool" / "id.1").write_bytes(DATA[:4])
    sending.check()
    (server.data / "spool" / "id.1").write_bytes(DATA[:3] + b"?")
    server.answers = [Answer(200, {}, json.dumps(document(offset=4)).encode())]
    with pytest.raises(Broken, match="does not hold what was sent"):
        sending.check()


def test_a_client_goes_on_where_the_server_is_and_forgets_when_it_is_told_to(server):
    """Also when the connection breaks in between, and when nobody has said yet that this is all."""
    sent = []

    def kind(_sending, offset, _rng, _stop):
        sent.append(offset)
        raise ConnectionResetError

    client = Client(server, "name", (kind, 5, 5), random.Random(1), lambda: None)
    client._begin()
    [sending] = client.sendings
    opened = Answer(200, {}, b'{"id": "id", "key": "name-0", "state": "open", "offset": 3}')
    server.documents = [{"id": "id", "key": "name-0", "state": "open", "offset": 3}]
    server.answers = [said(204, Upload_Offset="3"), opened, said(204, Upload_Offset="5"), said(202, Upload_Offset="5")]
    client.finish(threading.Event())
    assert sent == [3]
    assert (server.asked[-1][0], server.asked[-1][2]["Upload-Complete"]) == ("PATCH", "?1")
    assert sending.promised
    assert not sending.stored
