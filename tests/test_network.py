"""The bad network of the tests does what it says, and counts right."""

import contextlib
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from network import Fate, chaos
from process import curl, until

pytest_plugins = ["network"]

BODY = random.Random(1).randbytes(300_000)
RESET = {52, 55, 56}
"""What curl says: nothing came, could not be sent, broke off."""


class _Sink(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PATCH(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.acted += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@pytest.fixture
def sink():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # connections break here
    server.acted = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def network(sink, between):
    return between(sink.server_port)


def patch(network, *words, offset=7):
    """What curl says of it: its exit code, and the bytes of the answer."""
    fields = ("-X", "PATCH", "-H", f"Upload-Offset: {offset}", "-H", "Expect:", "--data-binary", "@-", *words)
    done = curl(*fields, network.url, stdin=BODY)
    return done.code, done.out


def test_a_good_network_changes_nothing_and_counts(network):
    assert patch(network) == (0, BODY)
    assert patch(network, offset=8) == (0, BODY)
    assert network.appends() == [(7, len(BODY)), (8, len(BODY))]
    assert network.bodies == 2 * len(BODY)
    assert network.did == {"connections": 2}


def test_chunks_are_counted_without_their_framing(network):
    with socket.create_connection(("127.0.0.1", int(network.url.rpartition(":")[2]))) as client:
        client.sendall(b"PATCH / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUpload-Offset: 3\r\n\r\n5\r\nab")
        client.sendall(
            b"cde\r\n1\r\nf\r\n0\r\n\r\nPATCH / HTTP/1.1\r\nUpload-Offset: 9\r\nContent-Length: 4\r\n\r\nabc"
        )
        until(lambda: network.appends() == [(3, 6), (9, 3)], 5, "two requests")


@pytest.mark.parametrize(("fate", "acted", "passed"), [
    (Fate("reset", "up", 100_000), 0, 100_000),
    (Fate("reset", "down", 0), 1, None),
    (Fate("reset", "down", 150_000), 1, None),
])  # fmt: skip
def test_a_connection_is_reset_where_its_fate_says(network, sink, fate, acted, passed):
    network.fate = lambda number: fate if number == 0 else None
    code, out = patch(network)
    assert code in RESET
    until(lambda: sink.acted == acted, 5, "the server's part")
    assert len(out) <= (fate.after if fate.way == "down" else 0)
    assert network.passed[fate.way] == fate.after
    assert network.bodies < (passed or len(BODY) + 1)
    assert patch(network) == (0, BODY)
    assert network.did == {"connections": 2, f"reset {fate.way}": 1}


def test_what_stalls_goes_on_and_what_dies_does_not(network):
    network.fate = lambda number: Fate("stall", "up", 50_000, 0.3) if number == 0 else Fate("die", "up", 50_000)
    began = time.monotonic()
    assert patch(network) == (0, BODY)
    assert time.monotonic() - began > 0.3
    assert patch(network, "--max-time", "0.5") == (28, b"")
    assert network.passed["up"] < len(BODY) + 51_000


def test_a_cable_is_pulled_and_plugged_in_again(network):
    network.rate = 400_000
    with ThreadPoolExecutor() as clients:
        dead = clients.submit(patch, network, "--max-time", "1.5")
        until(lambda: network.passed["up"], 5, "a first byte")
        with network.unplugged():
            waiting = clients.submit(patch, network)
            until(lambda: network.did["connections"] == 2, 5, "a second connection")
        assert waiting.result() == (0, BODY)
        assert dead.result() == (28, b"")


def test_nobody_listens_for_a_while(network):
    with network.refusing():
        assert patch(network)[0] == 7
    assert patch(network) == (0, BODY)


def test_a_network_can_be_stalled_and_all_of_it_reset(network):
    with network.stalled():
        assert patch(network, "--max-time", "0.3") == (28, b"")
    network.rate = 100_000
    with ThreadPoolExecutor() as clients:
        sending = clients.submit(patch, network)
        until(lambda: [one for one in network.requests if one.connection == 1 and one.passed > 20_000], 5, "some bytes")
        network.reset_all()
        assert sending.result()[0] in RESET


def test_chaos_is_the_same_for_the_same_seed():
    fates = [[fate(n) for n in range(50)] for fate in (chaos(random.Random(3), 1e6), chaos(random.Random(3), 1e6))]
    assert fates[0] == fates[1]
    assert {fate and fate.act for fate in fates[0]} == {None, "reset", "stall"}
