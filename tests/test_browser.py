"""Chromium: tus-js-client in a page of another origin, and pages that may not."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import LOOPBACK, PROGRAM
from process import MIB, Fresh, Server, content, digest, prefix_of

pytest_plugins = ["weed", "process", "npm"]

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(PROGRAM is None, reason="chromium is missing: apt install chromium"),
]

HERE = Path(__file__).parent
BODY = content(12 * MIB + 345)
CHUNK = 5_000_000
API_KEY = "0123456789abcdef"
ENDS_WITHIN = 60


class Page(ThreadingHTTPServer):
    """Serves upload.html and what it needs, and takes what became of it."""

    daemon_threads = True

    def __init__(self, packages: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.results: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.settings: dict[str, Any] = {}
        script = packages / "node_modules" / "tus-js-client" / "dist" / "tus.min.js"
        self.files = {
            "/": ("text/html", (HERE / "js" / "upload.html").read_bytes()),
            "/tus.js": ("text/javascript", script.read_bytes()),
            "/body": ("application/octet-stream", BODY),
        }

    def origin(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Page

    def do_GET(self) -> None:
        settings = ("application/json", json.dumps(self.server.settings).encode())
        kind, data = {**self.server.files, "/settings": settings}.get(self.path, ("text/plain", b""))
        self._answer(kind, data)

    def do_POST(self) -> None:
        result = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("text/plain", b"")
        self.server.results.put(json.loads(result))

    def _answer(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Not into the test's output."""


@pytest.fixture
def page(tus_js) -> Iterator[Page]:
    with Page(tus_js) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Browser:
    """Opens pages in Chromiums of their own."""

    directory: Path
    opened: list[Path] = field(default_factory=list)

    def open(self, page: Page, host: str = "127.0.0.1", **settings: Any) -> dict[str, Any]:
        """What became of the page's upload."""
        page.settings = settings
        profile = self.directory / f"profile-{len(self.opened)}"
        self.opened.append(profile)
        options = [
            *("--headless", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
            # It asks nobody but this machine, and listens for nobody.
            *("--disable-features=MediaRouter", f"--host-resolver-rules=MAP * ~NOTFOUND, {LOOPBACK}"),
            *("--disable-breakpad", "--enable-logging=stderr", f"--user-data-dir={profile}"),
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        log = profile.with_suffix(".log")
        environ = {**os.environ, "HOME": str(self.directory)}
        with log.open("wb") as out, _chromium(*options, page.origin(host), env=environ, stdout=out, stderr=out):
            try:
                return page.results.get(timeout=ENDS_WITHIN)
            except queue.Empty:
                pytest.fail(f"no result in {ENDS_WITHIN} s:\n{log.read_text(errors='replace')[-5000:]}")


@contextlib.contextmanager
def _chromium(*words: str, **options: Any) -> Iterator[None]:
    """A Chromium with all its processes: they are a group of their own, and what does not end is ended."""
    with subprocess.Popen([PROGRAM, *words], stdin=subprocess.DEVNULL, start_new_session=True, **options) as process:
        try:
            yield
            process.terminate()
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def browser(tmp_path) -> Browser:
    return Browser(tmp_path)


def options(server: Server, key: str, **more: Any) -> dict[str, Any]:
    metadata = {"key": key, "filename": "aus dem Browser ü.bin"}
    return {"endpoint": f"{server.url}/uploads", "metadata": metadata, "retryDelays": [], "chunkSize": CHUNK, **more}


def check(server: Server, bucket, key: str) -> None:
    assert digest(bucket.read(prefix_of(server) + key)) == digest(BODY)


def allowing(serve: Fresh, page: Page, *words: str) -> Server:
    return serve(f"--cors-origin={page.origin()}", *words).start()


def test_a_page_of_another_origin_uploads(serve, bucket, page, browser):
    """In chunks. It reads `Location` and `Upload-Offset`, which are exposed to it, and PATCH is allowed."""
    server = allowing(serve, page)
    outcome = browser.open(page, options=options(server, "blob"))
    assert outcome.get("success"), outcome
    assert [method for method, _ in outcome["answers"]] == ["POST", "PATCH", "PATCH", "PATCH"]
    assert outcome["url"].startswith(f"{server.url}/uploads/")
    check(server, bucket, "blob")


@pytest.mark.parametrize("protocol", ["tus-v1", "ietf-draft-03", "ietf-draft-05"])
def test_a_page_goes_on_with_nothing_but_the_url(serve, bucket, page, browser, protocol):
    """As after a reload: HEAD is allowed, and `Upload-Length` can be read. (tus metadata come in any protocol.)"""
    server = allowing(serve, page)
    found = options(server, "again", protocol=protocol, endpoint=f"{server.url}/uploads?key=again")
    outcome = browser.open(page, options=found, abortFirst=True)
    assert outcome.get("success"), outcome
    assert outcome["first"] == CHUNK
    assert ["HEAD", 200] in outcome["answers"] or ["HEAD", 204] in outcome["answers"]
    assert [method for method, _ in outcome["answers"]].count("POST") == 1
    check(server, bucket, "again")


def test_a_page_shows_its_key(serve, bucket, page, browser):
    """A preflight carries no credential and must pass without; the request behind it must not."""
    server = allowing(serve, page, f"--api-key={API_KEY}")
    wrong = options(server, "key", headers={"Authorization": f"Bearer {API_KEY[:-1]}X"})
    outcome = browser.open(page, options=wrong)
    assert outcome["status"] == 401, outcome  # and not "the network failed": the page can tell its user
    right = options(server, "key", headers={"Authorization": f"Bearer {API_KEY}"})
    outcome = browser.open(page, options=right)
    assert outcome.get("success"), outcome
    check(server, bucket, "key")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_an_origin_that_is_not_named_is_refused(serve, page, browser, host):
    """Not even what needs no preflight gets in: a POST whose answer the page cannot see."""
    server = serve("--cors-origin=https://elsewhere.example").start()
    outcome = browser.open(page, host, options=options(server, "foreign"), blind=server.object("blind"))
    assert "success" not in outcome
    assert (outcome["status"], outcome["answers"]) == (None, [])
    assert server.uploads() == []
    assert server.ask("HEAD", "/objects/blind").status == 404


def test_a_page_cannot_reach_a_server_without_origins(serve, page, browser):
    server = serve().start()
    outcome = browser.open(page, options=options(server, "foreign"), blind=server.object("blind"))
    assert (outcome["status"], outcome["answers"]) == (None, [])
    assert server.uploads() == []
