"""A store's address at which something happens to requests and answers: bytes change, connections break, time passes.

    with meddling(weed.endpoint_url) as meddler:
        meddler.rule = lambda operation, number: Meddling(body=flipped) if operation == "UploadPart" else None

Nothing is signed again: our client signs no body, so a body may change on its way. It runs in threads, for tests with a
loop and without. Use: `pytest_plugins = ["weed", "meddler"]` and the fixture `meddler`. (PYTEST_DONT_REWRITE: it is
imported too.)
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from relay import operation


def unchanged(data: bytes) -> bytes:
    return data


def reset(_: bytes) -> None:
    """The connection breaks instead of an answer."""
    return


def cut(answer: bytes) -> bytes:
    """The answer breaks off in its body."""
    return answer[:-10]


def says(status: int, body: str = "") -> Callable[[bytes], bytes]:
    """This answer instead."""
    fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}"
    return lambda _: f"HTTP/1.1 {status} X\r\n{fields}\r\n\r\n{body}".encode()


@dataclass(frozen=True)
class Meddling:
    """What happens to one request. `wait` before anything else; `body` is what reaches the store, if `reaches`;
    `answer` what becomes of its answer (None: the connection is reset), after `silence`.
    """

    wait: threading.Event | None = None
    body: Callable[[bytes], bytes] = unchanged
    reaches: bool = True
    silence: threading.Event | None = None
    answer: Callable[[bytes], bytes | None] = unchanged


@dataclass
class Meddler:
    """`rule` is asked with each request's operation and its number among those; None passes it on."""

    url: str
    store: str
    rule: Callable[[str, int], Meddling | None] = lambda _operation, _number: None
    seen: Counter[str] = field(default_factory=Counter)
    """What was asked for, by operation."""

    lock: threading.Lock = field(default_factory=threading.Lock)

    def meddling(self, name: str) -> Meddling:
        with self.lock:
            self.seen[name] += 1
            return self.rule(name, self.seen[name]) or Meddling()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    meddler: Meddler

    def log_message(self, *_):
        pass

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        meddling = self.meddler.meddling(operation(self.command, self.path))
        if meddling.wait:
            meddling.wait.wait(20)
        said = self._pass_on(meddling.body(body), size) if meddling.reaches else b""
        if meddling.silence:
            meddling.silence.wait(20)
        answer = meddling.answer(said)
        if answer is None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        else:
            self.close_connection = answer != said and said.startswith(answer)  # cut
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - the library's names

    def _pass_on(self, body: bytes, size: int) -> bytes:
        store = urlsplit(self.meddler.store)
        connection = http.client.HTTPConnection(store.hostname, store.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, dict(self.headers))
            if len(body) < size:  # the client has gone in its middle, and now so do we
                return b""
            response = connection.getresponse()
            data = response.read()
        fields = {k: v for k, v in response.getheaders() if k.lower() not in {"connection", "transfer-encoding"}}
        if self.command != "HEAD":
            fields["Content-Length"] = str(len(data))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {response.status} X\r\n{lines}\r\n".encode() + data


@contextlib.contextmanager
def meddling(store: str) -> Iterator[Meddler]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    found = Meddler(f"http://127.0.0.1:{server.server_port}", store)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"meddler": found})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def meddler(weed) -> Iterator[Meddler]:
    with meddling(weed.endpoint_url) as found:
        yield found
