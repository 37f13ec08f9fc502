"""The proxy before the store does what it says, changes nothing else, and counts right."""

import contextlib
import http.client
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from process import until
from store_proxy import Answer, Fault, error, flipped, no, on, operation_of, proxy_to, says

BODY = random.Random(1).randbytes(700_000)
PART = "/bucket/a%20key?partNumber=3&uploadId=u"
BROKEN = (OSError, http.client.HTTPException)


class _Store(BaseHTTPRequestHandler):
    """Keeps what has come whole; answers its size, in chunks if it is asked with GET."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        size = int(self.headers["Content-Length"])
        self.server.came += 1
        body = self.rfile.read(size)
        if len(body) < size:
            return
        self.server.kept.append(body)
        self._say(b"%d" % size)

    def do_HEAD(self):
        self._say(b"1234")

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (BODY[:5], BODY[5:300_000], BODY[300_000:]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _say(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(data)


@pytest.fixture
def store():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # connections break here
    server.kept, server.came = [], 0
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(store):
    with proxy_to(f"http://127.0.0.1:{store.server_port}") as found:
        yield found


@pytest.fixture
def ask(proxy):
    """Requests on one connection, until that breaks."""
    connection = http.client.HTTPConnection("127.0.0.1", int(proxy.url.rpartition(":")[2]), timeout=10)

    def asking(method="PUT", target=PART, body=BODY):
        try:
            connection.request(method, target, body if method == "PUT" else None)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except BROKEN:
            connection.close()
            raise

    with contextlib.closing(connection):
        yield asking


WHOLE = (200, b"%d" % len(BODY))


def test_without_a_rule_nothing_changes(proxy, store, ask):
    assert ask() == WHOLE
    assert ask("HEAD", "/bucket/b") == (200, b"")
    assert ask("GET", "/bucket/b") == (200, BODY)
    assert ask(target="/bucket/c", body=b"") == (200, b"0")
    assert store.kept == [BODY, b""]
    assert proxy.operations == ["UploadPart", "HeadObject", "GetObject", "PutObject"]
    part = proxy.requests[0]
    assert (part.path, part.query["partNumber"], part.size, part.status) == ("bucket/a key", "3", len(BODY), 200)
    assert part.came < part.answered <= part.told
    assert not proxy.did


@pytest.mark.parametrize(("fault", "kept"), [
    (Fault(reaches=False), 0),
    (Fault(tear=500_000), 0),
    (Fault(cut=0), 1),
    (Fault(cut=50), 1),
    (Fault(cut=-1), 1),
])  # fmt: skip
def test_a_connection_breaks_where_the_fault_says(proxy, store, ask, fault, kept):
    proxy.rule = on("UploadPart", fault, 1)
    with pytest.raises(BROKEN):
        ask()
    assert ask() == WHOLE
    assert store.kept == [BODY] * (kept + 1)
    assert store.came == kept + 1 + (fault.tear is not None)
    assert proxy.did == {("fault", "UploadPart"): 1}
    until(lambda: [request.told is None for request in proxy.requests] == [True, False], 5, "the second one told")


def test_an_answer_comes_in_the_place_of_the_stores(proxy, store, ask):
    proxy.rule = on("UploadPart", Fault(instead=no(503, "SlowDown")), 1)
    assert ask() == (503, error("SlowDown").encode())
    assert ask() == WHOLE
    assert store.kept == [BODY]


def test_an_early_answer_leaves_the_body_unread(proxy, store):
    proxy.rule = on("UploadPart", Fault(instead=no(503, "SlowDown"), early=True))
    with socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(f"PUT {PART} HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 503"
    assert store.came == 0


def test_a_bit_turns_in_the_body_and_the_answer_is_changed(proxy, store, ask):
    tail = lambda answer: Answer(answer.status, answer.fields, answer.body[-1:])  # noqa: E731
    proxy.rule = on("UploadPart", Fault(flip=600_000), 1)
    assert ask() == WHOLE
    proxy.rule = on("GetObject", Fault(change=lambda answer: says(201, tail(answer).body.hex())))
    assert ask("GET", "/bucket/b") == (201, BODY[-1:].hex().encode())
    assert store.kept == [flipped(BODY, 600_000)]


@pytest.mark.parametrize(("fault", "answer"), [(Fault(again=0.05), WHOLE), (Fault(late=0.05), None)])
def test_a_request_arrives_later(proxy, store, ask, fault, answer):
    proxy.rule = on("UploadPart", fault, 1)
    if answer:
        assert ask() == answer
    else:
        with pytest.raises(BROKEN):
            ask()
    proxy.settle()
    assert store.kept == [BODY] * (2 if answer else 1)
    assert [request.echo for request in proxy.requests] == [False, True]
    assert proxy.requests[-1].status == 200


def test_pauses_and_rates_take_their_time(proxy, ask):
    """Real time is the subject."""
    for fault in (Fault(wait=0.2), Fault(after=0.2), Fault(rate=3_500_000), Fault(stall=(9, 0.2))):
        proxy.rule = on("UploadPart", fault)
        began = time.monotonic()
        assert ask() == WHOLE
        assert 0.19 < time.monotonic() - began < 2
    said = threading.Event()
    proxy.rule = on("UploadPart", Fault(wait=said))
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: proxy.seen["UploadPart"] == 5, 5, "a request that is held")
    assert proxy.requests[-1].status is None
    said.set()
    asking.join()
    assert proxy.requests[-1].status == 200


def test_somebody_else_acts_before_the_request_goes_on(proxy, store, ask):
    kept = []
    proxy.rule = on("UploadPart", Fault(act=lambda request: kept.append((request.path, len(store.kept)))))
    assert ask() == WHOLE
    assert kept == [("bucket/a key", 0)]


def test_nobody_listens_for_a_while(proxy, ask):
    assert ask() == WHOLE
    with proxy.away():
        with pytest.raises(BROKEN):
            ask()
        with pytest.raises(ConnectionRefusedError):
            ask()
    assert ask() == WHOLE


@pytest.mark.parametrize(("method", "target", "name"), [
    ("HEAD", "/bucket", "HeadBucket"),
    ("GET", "/bucket?uploads&prefix=a", "ListMultipartUploads"),
    ("GET", "/bucket?list-type=2", "ListObjectsV2"),
    ("POST", "/bucket/a/b?uploads", "CreateMultipartUpload"),
    ("PUT", "/bucket/a/b?partNumber=1&uploadId=2", "UploadPart"),
    ("GET", "/bucket/a?uploadId=2", "ListParts"),
    ("POST", "/bucket/a?uploadId=2", "CompleteMultipartUpload"),
    ("DELETE", "/bucket/a?uploadId=2", "AbortMultipartUpload"),
    ("DELETE", "/bucket/a", "DeleteObject"),
    ("GET", "/bucket/a?attributes", "GetObjectAttributes"),
])  # fmt: skip
def test_operations_have_their_names(method, target, name):
    assert operation_of(method, target) == name
