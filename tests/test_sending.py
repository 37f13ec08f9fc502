"""client/remote.py and client/sending.py: one upload on its way, over connections that break and servers that lie."""

import asyncio

import pytest
from conftest import BODY
from network import Fate

from streamup.client import Client
from streamup.client import sending as sending_module
from streamup.client.sending import Sending

pytest_plugins = ["network"]


class Bytes:
    """A supply of bytes that are all there."""

    def __init__(self, data, length=None, piece=7_000):
        self.data, self.length, self.piece, self.released = data, length, piece, 0

    async def read(self, position):
        assert position >= self.released
        return self.data[position : position + self.piece]

    def release(self, position):
        assert position >= self.released
        self.released = position


class Live(Bytes):
    """One that grows, until `end`."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.changed = asyncio.Condition()
        self.ended = False

    async def add(self, data):
        async with self.changed:
            self.data += data
            self.changed.notify_all()

    async def end(self):
        async with self.changed:
            self.ended = True
            self.changed.notify_all()

    async def read(self, position):
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended or position < len(self.data))
            return await super().read(position)


def url(service):
    return "http://127.0.0.1:{}".format(*service.address[1:])


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(sending_module, "MOST_DELAY_SECONDS", 0.2)
    monkeypatch.setattr(sending_module, "MOST_OBEYED_SECONDS", 0.2)
    monkeypatch.setattr(sending_module, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(sending_module, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(sending_module, "LOOK_SECONDS", 0.05)


async def test_bytes_of_unknown_length_become_an_object(service):
    async with Client(url(service)) as client:
        sending = Sending(client, supply := Bytes(BODY), "a/b c.ts", content_type="video/mp2t", metadata={"team": "x"})
        assert await sending.deliver() == len(BODY)
        assert service.data("a/b c.ts") is None
        stored = await sending.seal()
        assert (stored["key"], stored["size"], stored["upload"]) == ("a/b c.ts", len(BODY), sending.upload_id)
        assert await sending.seal() == stored
    assert service.data("a/b c.ts") == BODY
    assert service.store.objects["a/b c.ts"].meta.content_type == "video/mp2t"
    assert service.store.objects["a/b c.ts"].meta.user["team"] == "x"
    assert supply.released == len(BODY)


async def test_a_known_length_is_declared(service):
    async with Client(url(service)) as client:
        sending = Sending(client, Bytes(BODY, len(BODY)), "a")
        await sending.deliver()
        found = await client.look(sending.upload_id)
        assert (found["length"], found["state"]) == (len(BODY), "open")
        assert (await sending.seal())["size"] == len(BODY)
    assert service.data("a") == BODY


async def test_nothing_is_an_object_too(service):
    async with Client(url(service)) as client:
        sending = Sending(client, Bytes(b""), "a")
        assert await sending.deliver() == 0
        assert (await sending.seal())["size"] == 0
    assert service.data("a") == b""


async def test_connections_that_break_again_and_again(service, between):
    network = between(service.address[1])
    network.fate = lambda number: Fate("reset", "up", 20_000) if number < 20 else None
    states = []
    async with Client(network.url) as client:
        sending = Sending(client, Bytes(BODY), "a", tell=lambda progress: states.append(progress.state))
        assert await sending.deliver() == len(BODY)
        await sending.seal()
    assert service.data("a") == BODY
    assert "waiting" in states
    assert network.did["reset up"] > 3


async def test_a_seal_whose_answer_is_lost_is_asked_again(service, between):
    network = between(service.address[1])
    async with Client(network.url) as client:
        sending = Sending(client, Bytes(BODY), "a")
        await sending.deliver()
        network.reset_all()
        lost = network.did["connections"]
        network.fate = lambda number: Fate("reset", "down") if number <= lost + 2 else None
        assert (await sending.seal())["size"] == len(BODY)
    assert network.did["reset down"] >= 2
    assert service.data("a") == BODY
