"""A client that was told something notices when it is not so any more. Without this no campaign would find anything."""

import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import senders
from invariants import Broken, Invariant
from process import Answer
from resuming import Client, Kind, Refused, Sending, finish, live, ranges, small
from senders import Sent

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

    def ask(self, method, path, headers=None, body=b"", **_):
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
    return Sending(server, "key", DATA)


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


def test_an_offset_is_never_more_than_was_sent(sending):
    with pytest.raises(Broken, match="12 bytes, 13 is told"):
        sending.hear(13, before=0)


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
        ({"promised": True, "stored": True, "complete": True}, document("completing"), "completing again"),
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


def test_an_object_that_is_not_there_any_more_or_not_whole_is_noticed(server, sending):
    """By HEAD, when its client had been told that it is stored."""
    complete = {"Upload_Complete": "?1", "Upload_Offset": "12"}
    server.answers = [said(201, **complete), said(404), said(200, **complete, Content_Length="11")]
    sending.ask("PUT", "/objects/key")
    with pytest.raises(Broken, match="was complete, and HEAD answers 404"):
        sending.place()
    with pytest.raises(Broken, match="11 bytes of 12"):
        sending.place()


def test_an_upload_that_is_not_there_any_more_is_noticed_by_who_goes_on(server, sending):
    sending.announced = 7
    server.answers = [said(404)]
    with pytest.raises(Broken, match="is gone, 7 bytes were announced"):
        sending.place()


@pytest.mark.parametrize(("status", "invariant"), [(410, Invariant.RECEIVED), (409, Invariant.ENDS)])
def test_an_answer_that_leaves_no_way_on_is_noticed(server, sending, status, invariant):
    server.answers = [said(status)]
    with pytest.raises(Refused) as refused:
        sending.put(0, 5)
    assert refused.value.invariant is invariant


def test_an_object_that_is_there_may_belong_to_an_upload_that_has_not_ended(server, sending):
    """HEAD looks into the store, which is ahead of the record; an answer to what was sent is not."""
    sending.id, complete = "id", {"Upload_Complete": "?1", "Upload_Offset": "12", "Content_Length": "12"}
    server.answers = [said(200, **complete), completing := looked("completing"), said(201, **complete), completing]
    sending.place()
    sending.check()
    sending.ask("PUT", "/objects/key")
    with pytest.raises(Broken, match="completing again"):
        sending.check()


def test_where_it_ends_is_said_by_who_has_not_said_it(server, sending):
    """What a client has said already, it need not say again: the server must know."""
    sending.id, there = "id", [said(200, Upload_Offset="12"), said(308, Upload_Offset="12")]
    server.answers = [*there, said(201, Upload_Complete="?1"), *there]
    sending.unsaid = True
    sending.go_on(live)
    assert sending.stored
    assert server.asked[-1][2]["Upload-Complete"] == "?1"
    sending.stored = sending.unsaid = False
    with pytest.raises(Refused, match="308"):
        sending.go_on(ranges)


def test_a_client_goes_on_where_the_server_is_and_forgets_when_it_is_told_to(server):
    """Also when the connection breaks in between."""
    sent = []

    def breaks(_, offset):
        sent.append(offset)
        raise ConnectionResetError

    client = Client(server, "name", Kind(breaks, 5, 5), random.Random(1))
    client.begin()
    [sending] = client.sendings
    open_at_3, whole = (said(200, Upload_Offset=offset, Location="/uploads/id") for offset in ("3", "5"))
    server.answers = [open_at_3, said(503), whole, said(202)]
    client.finish(threading.Event())
    assert sent == [0, 3]
    assert (server.asked[-1][0], server.asked[-1][2]["Content-Range"]) == ("PUT", "bytes */5")
    assert sending.promised
    assert not sending.stored


def test_a_client_that_is_alone_takes_no_refusal(server):
    client = Client(server, "name", Kind(ranges, 5, 5), random.Random(1), again=())
    client.begin()
    server.answers = [said(409)]
    with pytest.raises(Refused):
        client.finish(threading.Event())


def test_a_client_without_an_end_is_noticed(server):
    def never(_, __):
        raise ConnectionResetError

    client = Client(server, "name", Kind(never, 5, 5), random.Random(1))
    client.begin()
    client.sendings[0].place = lambda: 0
    with pytest.raises(Broken, match="have not ended"):
        finish([client], 0.1)


# -- followed to its end ----------------------------------------------------------------------------------------------


@pytest.fixture
def sent(server):
    return Sent(server, "key", DATA)


def looked(state, reason=None):
    return Answer(200, {}, json.dumps(document(state, 12, reason)).encode())


def test_who_is_told_later_comes_again_and_sees_the_end(server, sent, monkeypatch):
    monkeypatch.setattr(senders, "LATER_SECONDS", 0.0)
    stored = said(201, Upload_Complete="?1", Upload_Offset="12", Location="/uploads/id")
    server.answers = [said(503), stored, looked("completing"), looked("complete")]
    sent.run(small)
    assert (sent.outcome, sent.delayed) == ("complete", 1)
    assert [method for method, *_ in server.asked] == ["PUT", "PUT", "GET", "GET"]


def test_why_it_has_failed_is_remembered(server, sent):
    sent.id = "id"
    server.answers = [looked("completing"), *[looked("failed", "the store says no")] * 2]
    sent.run(small)
    assert (sent.outcome, sent.reason) == ("failed", "the store says no")


@pytest.mark.parametrize(
    ("offset", "state", "invariant"), [("12", "failed", Invariant.FAIL_CLOSED), ("11", "complete", Invariant.CLEAN_END)]
)
def test_an_object_that_was_told_and_is_none_is_noticed(server, sent, offset, state, invariant):
    stored = said(201, Upload_Complete="?1", Upload_Offset=offset, Location="/uploads/id")
    server.answers = [stored, looked(state)]
    with pytest.raises(Broken) as broken:
        sent.run(small)
    assert broken.value.invariant is invariant
