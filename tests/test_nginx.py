"""Behind a real nginx: with its buffering of requests off and on, and with the addresses that its clients see."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from process import CURL, MIB, Answer, Fresh, Server, content, curl, digest, free_ports, prefix_of, running, until
from raw_client import OCTETS, PARTIAL, TUS
from tusclient.client import TusClient

pytest_plugins = ["weed", "process"]

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is missing: apt install nginx")

SIZE = 12 * MIB + 345
HOST = "up.example.org"
IETF = {"Upload-Draft-Interop-Version": "6"}
APPEND = IETF | {"Content-Type": PARTIAL}

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {directory}/pid;
lock_file {directory}/lock;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_buffering off;
    {servers}
}}
"""

SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location {location} {{
            {settings}
            proxy_pass http://127.0.0.1:{upstream}{strip};
        }}
    }}
"""

UNBUFFERED = "proxy_request_buffering off;"
X_FORWARDED = f"""{UNBUFFERED}
            proxy_set_header Host {HOST};
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host {HOST};
            proxy_set_header X-Forwarded-Proto https;"""
FORWARDED = f"""{UNBUFFERED}
            proxy_set_header Forwarded "for=$remote_addr;host={HOST};proto=https";"""
PREFIX = "proxy_set_header X-Forwarded-Prefix /files;"


@dataclass(frozen=True)
class Front:
    """One of nginx's ports, and the streamup behind it."""

    port: int
    back: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def object(self, key: str) -> str:
        return f"{self.url}/objects/{key}"

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())


@pytest.fixture(scope="module")
def fronts(bucket, tmp_path_factory) -> Iterator[dict[str, Front]]:
    """One nginx for all tests. Behind some of its ports is a streamup that believes what nginx says of its clients."""
    fresh = Fresh(bucket, tmp_path_factory.mktemp("server"))
    words = ("--no-interim", f"--allowed-host={HOST}")
    plain, trusting = fresh(*words).start(), fresh(*words, "--trusted-proxy=127.0.0.1").start()
    places = {
        "unbuffered": (plain, UNBUFFERED, "/"),
        "buffered": (plain, "proxy_request_buffering on;", "/"),
        "collecting": (plain, "proxy_buffering on; proxy_http_version 1.0;", "/"),
        "not trusted": (plain, X_FORWARDED + PREFIX, "/files/"),
        "x-forwarded": (trusting, X_FORWARDED, "/"),
        "x-forwarded, prefix": (trusting, X_FORWARDED + PREFIX, "/files/"),
        "forwarded": (trusting, FORWARDED, "/"),
        "forwarded, prefix": (trusting, FORWARDED + PREFIX, "/files/"),
        "silent": (trusting, UNBUFFERED, "/"),
    }
    ports = dict(zip(places, free_ports(len(places)), strict=True))
    servers = [
        SERVER.format(
            port=ports[name],
            settings=settings,
            location=location,
            upstream=back.ports[0],
            strip="" if location == "/" else "/",
        )
        for name, (back, settings, location) in places.items()
    ]
    with _nginx(tmp_path_factory.mktemp("nginx"), "".join(servers), ports.values()):
        yield {name: Front(ports[name], back) for name, (back, _, _) in places.items()}
    fresh.kill_all()


@contextlib.contextmanager
def _nginx(directory: Path, servers: str, ports) -> Iterator[None]:
    """An nginx with all that it writes in one directory; it ends with its worker."""
    user = "user root;" if os.geteuid() == 0 else ""
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(user=user, directory=directory, servers=servers))
    with (
        (directory / "log").open("w+b") as log,
        running(NGINX, "-p", directory, "-e", "stderr", "-c", file, stdout=log, stderr=log) as process,
    ):
        for port in ports:
            until(lambda port=port: process.poll() is not None or _listens(port), what="nginx")
        assert process.poll() is None, (directory / "log").read_text()
        yield
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["unbuffered", "buffered"])
def front(fronts, request) -> Front:
    return fronts[request.param]


@pytest.fixture
def key(request) -> str:
    """The two nginxes have one streamup behind them."""
    return request.node.name.translate(str.maketrans("[]", "--"))


def stored(bucket, front: Front, key: str) -> str | None:
    return digest(bucket.read(prefix_of(front.back) + key))


def film(tmp_path: Path) -> Path:
    file = tmp_path / "film.mp4"
    file.write_bytes(content(SIZE))
    return file


# -- whole uploads ---------------------------------------------------------------------------------------------------


def test_a_pipe_of_unknown_length(front, bucket, key):
    data = content(SIZE)
    sent = curl("-f", "-T", "-", front.object(key), stdin=data)
    assert sent.code == 0, sent.err
    assert json.loads(sent.out)["size"] == SIZE
    assert stored(bucket, front, key) == digest(data)


def test_tus_by_tuspy(front, bucket, key, tmp_path):
    """`Location` begins with the path, so it is nginx's address to which the chunks go."""
    file = film(tmp_path)
    with file.open("rb") as stream:
        client = TusClient(f"{front.url}/uploads")
        sender = client.uploader(file_stream=stream, chunk_size=5_000_000, metadata={"key": key})
        sender.upload()
    assert sender.url.startswith(f"{front.url}/uploads/")
    assert stored(bucket, front, key) == digest(content(SIZE))


@pytest.mark.parametrize("step", [0, 5_000_000], ids=["at-once", "in-steps"])
def test_ietf_without_interim_answers(front, bucket, key, step):
    """nginx 1.22 takes a 104 for the answer, so `--no-interim` has none, whatever version the client says."""
    data = content(SIZE)
    headers = IETF | {"Upload-Complete": "?0" if step else "?1", "Upload-Length": str(SIZE)}
    answer = front.ask("POST", f"/uploads?key={key}", headers, data[: step or SIZE])
    assert answer.status == 201
    location = answer.headers["Location"]
    offset = int(answer.headers["Upload-Offset"])
    assert offset == (step or SIZE)
    while offset < SIZE:
        end = min(SIZE, offset + step)
        headers = APPEND | {"Upload-Offset": str(offset), "Upload-Complete": f"?{int(end == SIZE)}"}
        answer = front.ask("PATCH", location, headers, data[offset:end])
        assert answer.status // 100 == 2
        offset = int(answer.headers["Upload-Offset"])
        assert offset == end
    assert answer.headers["Upload-Complete"] == "?1"
    assert json.loads(answer.body)["size"] == SIZE
    assert stored(bucket, front, key) == digest(data)


def test_a_refusal_is_seen_while_the_body_still_comes(front, key, tmp_path):
    """And not as 502, which curl would repeat: streamup closes, but reads on until nginx has seen the answer."""
    assert front.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, b"kept").status == 201
    refused = curl("-w", "%{http_code}", "-o", os.devnull, "-T", film(tmp_path), front.object(key))
    assert (refused.code, refused.text) == (0, "409")
    assert front.back.received(key) == 4


# -- interrupted -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sending(front: Front, key: str, data: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A curl that has sent all of `data` to nginx, and whose pipe stays open."""
    with running(CURL, "-q", "-sSv", "-T", "-", front.object(key), stdin=subprocess.PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        yield process


def test_a_killed_curl_keeps_its_bytes_without_buffering(fronts, bucket, key, tmp_path):
    front, data = fronts["unbuffered"], content(SIZE)
    with sending(front, key, data[: 7 * MIB]) as process:
        until(lambda: front.back.received(key) == 7 * MIB, what="seven MiB behind nginx")
        process.kill()
    until(lambda: not front.back.open_upload(key)["writer"], what="the writer's end")
    head = front.ask("HEAD", f"/objects/{key}")
    assert (head.status, head.headers["Upload-Offset"]) == (200, str(7 * MIB))
    assert stored(bucket, front, key) is None
    on = curl("-f", "-C", str(7 * MIB), "-T", film(tmp_path), front.object(key))
    assert on.code == 0, on.err
    assert stored(bucket, front, key) == digest(data)


def test_a_killed_curl_leaves_nothing_behind_a_buffer(fronts, bucket, key, tmp_path):
    """What nginx has buffered is lost with its client, as is said of it; it is never taken for the whole."""
    front = fronts["buffered"]
    with sending(front, key, content(7 * MIB)) as process:
        process.kill()
    assert curl("-f", "-T", film(tmp_path), front.object(key)).code == 0
    assert stored(bucket, front, key) == digest(content(SIZE))
    assert len(front.back.uploads(key)) == 1


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_a_client_killed_within_an_append_goes_on(fronts, bucket, key, protocol):
    """Without buffering. HEAD through nginx stops what is left of the writer, and tells the offset."""
    front, data = fronts["unbuffered"], content(SIZE)
    terms = {"Upload-Length": str(SIZE)} | (TUS if protocol == "tus" else IETF | {"Upload-Complete": "?0"})
    created = front.ask("POST", f"/uploads?key={key}", terms)
    assert created.status == 201
    location = created.headers["Location"]
    fields = TUS | OCTETS if protocol == "tus" else APPEND | {"Upload-Complete": "?1"}
    lines = [f"PATCH {location} HTTP/1.1", "Host: localhost", f"Content-Length: {SIZE}", "Upload-Offset: 0"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), "\r\n"])
    with socket.create_connection(("127.0.0.1", front.port)) as client:
        client.sendall(head.encode() + data[: 6 * MIB])
        until(lambda: front.back.received(key) > 5 * MIB, what="five MiB behind nginx")
    where = front.ask("HEAD", location, TUS if protocol == "tus" else IETF)
    assert where.status in {200, 204}
    offset = int(where.headers["Upload-Offset"])
    assert 5 * MIB < offset <= 6 * MIB
    answer = front.ask("PATCH", location, fields | {"Upload-Offset": str(offset)}, data[offset:])
    assert answer.status // 100 == 2
    assert answer.headers["Upload-Offset"] == str(SIZE)
    assert stored(bucket, front, key) == digest(data)


# -- watching --------------------------------------------------------------------------------------------------------


def test_events_are_passed_on_as_they_come(fronts, key):
    """Also by an nginx that asks by HTTP/1.0 and collects answers, as it does unless it is told not to."""
    front = fronts["collecting"]
    assert front.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, b"kept").status == 201
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", f"/uploads/{front.back.open_upload(key)['id']}/events")
        answer = connection.getresponse()
        assert answer.readline() == b"event: upload\n"
        assert json.loads(answer.readline().removeprefix(b"data: "))["offset"] == 4
        on = front.ask("PUT", f"/objects/{key}", {"Content-Range": "bytes 4-8/9"}, b" more")
        assert on.status == 201
        last = json.loads(answer.read().splitlines()[-2].removeprefix(b"data: "))
        assert (last["state"], last["object"]["size"]) == ("complete", 9)


# -- addresses -------------------------------------------------------------------------------------------------------


def location(front: Front, protocol: str, key: str, path: str = "/uploads", **more: str) -> str:
    """The address of an upload that has been created there."""
    terms = {"Upload-Length": "5"} | (TUS if protocol == "tus" else IETF | {"Upload-Complete": "?0"})
    created = front.ask("POST", f"{path}?key={key}", terms | more)
    assert created.status == 201
    return created.headers["Location"]


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
@pytest.mark.parametrize("name", ["x-forwarded", "x-forwarded, prefix", "forwarded", "forwarded, prefix"])
def test_an_address_is_the_one_that_clients_see(fronts, bucket, name, protocol):
    """Its path leads there again."""
    front = fronts[name]
    uploads = "/files/uploads" if "prefix" in name else "/uploads"
    key = f"{name.replace(', ', '-')}-{protocol}"
    address = location(front, protocol, key, uploads)
    assert address.startswith(f"https://{HOST}{uploads}/")
    path = address.removeprefix(f"https://{HOST}")
    assert path.rpartition("/")[2] in [upload["id"] for upload in front.back.uploads(key)]
    if protocol == "tus":
        fields = TUS | OCTETS | {"Upload-Offset": "0"}
    else:
        fields = APPEND | {"Upload-Offset": "0", "Upload-Complete": "?1"}
    assert front.ask("PATCH", path, fields, b"whole").status // 100 == 2
    assert stored(bucket, front, key) == digest(b"whole")


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_nobody_who_is_not_trusted_says_what_clients_see(fronts, key, protocol):
    """A client could send these fields itself, and have others sent elsewhere."""
    address = location(fronts["not trusted"], protocol, key, "/files/uploads")
    assert address.startswith("/uploads/")


@pytest.mark.parametrize("protocol", ["tus", "ietf"])
def test_a_trusted_proxy_that_says_nothing_changes_nothing(fronts, key, protocol):
    address = location(fronts["silent"], protocol, key)
    assert address.startswith("/uploads/")


def test_the_last_proxy_counts(fronts, key):
    """nginx puts its own value in the place of what its client sends."""
    sent = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher", "X-Forwarded-Prefix": "/evil"}
    address = location(fronts["x-forwarded, prefix"], "tus", key, "/files/uploads", **sent)
    assert address.startswith(f"https://{HOST}/files/uploads/")
