"""cli.py and client/: options by flag, environment and file; the commands against a server; the life of `serve`."""

import asyncio
import errno
import json
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import AsyncExitStack, contextmanager, suppress
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import ClientTimeout, web
from certificates import make_certificate
from click.testing import CliRunner
from moto.server import ThreadedMotoServer

from streamup import cli, logs, service
from streamup.client import Client, ClientError
from streamup.client import remote as remote_module
from streamup.client.table import human_size, printable, sentence
from streamup.config import OPTIONS, Config
from streamup.errors import CheckpointError, ConfigError, SpoolError, StateDirectoryError, StoreError
from streamup.metrics import Metrics
from streamup.spool import Files
from streamup.uploader import Uploader

KEY = "0123456789abcdef"
DIGEST = sha256(KEY.encode()).digest()
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("STREAMUP_")]:
        monkeypatch.delenv(name)


# --- serve: options


@pytest.fixture
def configure(monkeypatch):
    """Run `streamup serve LINE` up to where it would start; the Config, or what click says about it."""

    def run(line: str = "", env: dict[str, str] | None = None) -> Config | str:
        seen: list[Config] = []

        async def serve(config: Config, _reread: object) -> None:
            seen.append(config)

        monkeypatch.setattr(service, "serve", serve)
        monkeypatch.setattr(logs, "start", lambda _: None)
        result = CliRunner(env=env).invoke(cli.main, ["serve", *line.split()])
        if seen:
            assert result.exit_code == 0, result.output
            return seen[0]
        assert result.exit_code == 2, result.output
        return result.output

    return run


def test_defaults_are_those_of_config(configure):
    assert configure("s3://streamup") == Config()
    assert configure("--local") == Config(local=True, downloads=True, deletes=True)


def test_every_option_by_flag(configure):
    config = configure(
        "s3://bucket/some/prefix --listen [::1]:0 --admin-listen off --data /x --part-size 16MiB --layout equal "
        "--parallel-parts 3 --checksum sha256 --spool-size 1GiB --disk-floor 0 --expire 2d --idle 5s --grace 1s "
        "--interrupted append --store-timeout 1m --downloads --deletes --max-upload-size 1TB --max-open-uploads 5 "
        "--s3-endpoint-url http://minio:9000 --s3-public-endpoint-url https://s3.example.com --s3-path-style "
        "--sse aws:kms --sse-kms-key-id abc --storage-class STANDARD_IA --sse-kms-context a=b --no-sse-bucket-key "
        "--acl private --tag team=video --tag a=b=c --cache-control no-store --allowed-host a.example --allowed-host b "
        "--key-template in/{id} --trusted-proxy 10.0.0.0/8 --trusted-proxy ::1 --no-interim "
        f"--cors-origin https://app.example --tls-cert c.pem --tls-key k.pem --api-key {KEY} --log-format json"
    )
    assert config == Config(
        bucket="bucket",
        prefix="some/prefix/",
        listen=("::1", 0),
        admin_listen=None,
        data=Path("/x"),
        part_bytes=16 * MIB,
        layout="equal",
        parallel_parts=3,
        checksum="sha256",
        spool_bytes=1 << 30,
        disk_floor_bytes=0,
        expire_seconds=172800,
        idle_seconds=5,
        grace_seconds=1,
        interrupted="append",
        store_timeout_seconds=60,
        downloads=True,
        deletes=True,
        max_upload_bytes=10**12,
        max_open_uploads=5,
        s3_endpoint_url="http://minio:9000",
        s3_public_endpoint_url="https://s3.example.com",
        s3_path_style=True,
        sse="aws:kms",
        sse_kms_key_id="abc",
        storage_class="STANDARD_IA",
        sse_kms_context=(("a", "b"),),
        sse_bucket_key=False,
        acl="private",
        tags=(("team", "video"), ("a", "b=c")),
        cache_control="no-store",
        allowed_hosts=("a.example", "b"),
        cors_origins=("https://app.example",),
        key_template="in/{id}",
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")),
        no_interim=True,
        tls_cert=Path("c.pem"),
        tls_key=Path("k.pem"),
        api_key_sha256=(DIGEST,),
        log_format="json",
    )
    assert configure("--local --insecure-no-auth --no-downloads --no-deletes") == Config(
        local=True, insecure_no_auth=True
    )


def test_flag_before_environment_before_file_before_default(configure, tmp_path):
    file = tmp_path / "streamup.toml"
    file.write_text('store = "s3://bucket"\nexpire = "1h"\nidle = "1s"\npart-size = 5242880\ndownloads = true\n')
    env = {"STREAMUP_CONFIG": str(file), "STREAMUP_EXPIRE": "2h", "STREAMUP_IDLE": "2s", "STREAMUP_DELETES": "1"}
    config = configure("--expire 3h", env=env)
    assert (config.expire_seconds, config.idle_seconds, config.part_bytes) == (3 * 3600, 2, 5 * MIB)
    assert (config.bucket, config.downloads, config.deletes, config.parallel_parts) == ("bucket", True, True, 8)
    assert configure(f"--config {file} --no-downloads").downloads is False


def test_every_option_is_in_the_environment(configure):
    values = {"local": "1", "layout": "equal", "cors_origins": "https://a.example, https://b.example", "data": "/d"}
    env = {OPTIONS[name].variable: value for name, value in values.items()}
    config = configure(env=env)
    assert config.local
    assert config.layout == "equal"
    assert config.cors_origins == ("https://a.example", "https://b.example")
    assert config.data == Path("/d")
    assert configure(env={"STREAMUP_STORE": "s3://bucket/x"}).prefix == "x/"


def test_lists_in_the_file(configure, tmp_path):
    file = tmp_path / "streamup.toml"
    file.write_text(f'local = true\nallowed-host = ["a", "b"]\napi-key = "sha256:{DIGEST.hex()}"\n')
    config = configure(f"--config {file}")
    assert (config.allowed_hosts, config.api_key_sha256) == (("a", "b"), (DIGEST,))


def test_keys_from_a_file(configure, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{KEY}-the-second\n")
    env = {"STREAMUP_API_KEY_FILE": str(file)}
    assert configure("--local", env=env).api_key_sha256 == (DIGEST, sha256(f"{KEY}-the-second".encode()).digest())
    assert "Keep one of them" in configure("--local", env=env | {"STREAMUP_API_KEY": KEY})
    assert "cannot be read" in configure("--local", env={"STREAMUP_API_KEY_FILE": str(tmp_path / "none")})


def test_a_file_that_no_option_reads_is_not_overlooked(configure, tmp_path):
    file = tmp_path / "keys"
    file.write_text("short\n")
    for name, meant in (("TLS_KEY_FILE", "TLS_KEY"), ("API_KEYS_FILE", "API_KEY_FILE")):
        refusal = configure("--local", env={f"STREAMUP_{name}": str(file)})
        assert f"no variable STREAMUP_{name}. Did you mean STREAMUP_{meant}?" in refusal
    assert configure("--local", env={"STREAMUP_TOKEN_FILE": str(file), "STREAMUP_PORT": "tcp://10.0.0.1:80"}).local
    assert f"(from {file}, which STREAMUP_API_KEY_FILE names)" in configure(
        "--local", env={"STREAMUP_API_KEY_FILE": str(file)}
    )


def test_a_key_for_sse_c_from_a_file(configure, tmp_path):
    file = tmp_path / "key"
    file.write_text(b64encode(bytes(32)).decode() + "\n")
    config = configure("--local", env={"STREAMUP_SSE_C_KEY_FILE": str(file)})
    assert config.objects.of("a").sse_c_key == bytes(32)


def test_prefixes_in_the_file(configure, tmp_path):
    file = tmp_path / "streamup.toml"
    file.write_text('local = true\ntag = { a = "b" }\n[prefix."x/y"]\nacl = "private"\n')
    config = configure(f"--config {file} --storage-class GLACIER")
    options = config.objects.of("x/y/z")
    assert (options.acl, options.tags, options.storage_class) == ("private", (("a", "b"),), "GLACIER")
    file.write_text('local = true\n[prefix.x]\nacl = "open"\n')
    assert '[prefix."x/"] --acl open is no canned ACL' in configure(f"--config {file}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "Say where objects go"),
        ("--local s3://bucket", "Say where objects go"),
        ("bucket", "Write it as s3://bucket"),
        ("--local --part-size 8M", "Write it as 8MiB"),
        ("--local --part-size 4MiB", "Choose from 5MiB to 5GiB"),
        ("--local --part-size 2GiB", "Set --spool-size to 16384MiB"),
        ("--local --interrupted never", "none of reject, append, replace, new"),
        ("--local --listen 0.0.0.0:8080", "insist with"),
        ("--local --part-sise 8MiB", "Did you mean"),
        ("--local --config none.toml", "cannot be read"),
        ("--local --api-key short", "openssl rand"),
    ],
)
def test_a_wrong_option_is_refused_with_what_to_do(configure, line, message):
    output = " ".join(configure(line).split())
    assert message in output
    assert "Usage: main serve" in output


def test_a_wrong_value_in_the_file_or_the_environment_is_refused(configure, tmp_path):
    file = tmp_path / "streamup.toml"
    file.write_text('local = true\npart-size = "8M"\n')
    assert "(from the --config file) '8M' is not a size" in configure(f"--config {file}")
    assert "STREAMUP_PARALLEL_PARTS" in configure("--local", env={"STREAMUP_PARALLEL_PARTS": "many"})


def test_help_and_version():
    for args in (["--help"], ["serve", "-h"], ["--version"]):
        assert CliRunner().invoke(cli.main, args).exit_code == 0


# --- serve: its life

SERVE = """
import asyncio, sys, time, types
from streamup import cli, service
async def start(config, stack):
    stack.callback(print, "embedded store stopped", flush=True)
    stack.callback(print, "server stopped", flush=True)
    {start}
    return types.SimpleNamespace(addresses=[("127.0.0.1", 1)])
service._start = start
cli.main(["serve", "--local", "--data", "state"])
"""


@contextmanager
def serving(start: str = "pass"):
    code = SERVE.format(start=start)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.campaign)])
def test_a_signal_stops_the_server_first_and_the_embedded_store_last(number):
    with serving() as process:
        assert process.stdout.readline().startswith("streamup listens on http://127.0.0.1:1")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
    assert stdout.splitlines()[-2:] == ["server stopped", "embedded store stopped"]
    assert "stopping" in stderr
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("get s3://bucket/key /tmp", "choose"),
        (f"verify {__file__} s3://bucket/key", "choose"),
        ("doctor s3://bucket", "build"),
        ("sweep s3://bucket", "build"),
        ("ls", "_ask"),
    ],
)
def test_an_interruption_is_never_taken_for_a_failure(line, name, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt  # a signal would not do: who runs tests in the background ignores SIGINT

    monkeypatch.setattr(cli, name, interrupted)
    result = CliRunner().invoke(cli.main, line.split())
    assert (result.exit_code, result.stderr) == (3, "error: Interrupted.\n")


def test_a_second_signal_ends_it_at_once():
    with serving("stack.callback(time.sleep, 60); stack.callback(print, 'stopping', flush=True)") as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        while "stopping" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_signal_ends_a_start_that_waits():
    with serving("print('waiting', flush=True); await asyncio.sleep(60)") as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=10)
    assert stdout.splitlines() == ["server stopped", "embedded store stopped"]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        ("errors.ConfigError('no such bucket; create it')", 2, "Error: no such bucket; create it"),
        ("errors.StateDirectoryError('in use')", 1, "error: in use"),
    ],
)
def test_a_failed_start_says_why_and_leaves_nothing_behind(error, exit_code, message):
    with serving(f"from streamup import errors; raise {error}") as process:
        stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == exit_code
    assert message in stderr
    assert stdout.splitlines() == ["server stopped", "embedded store stopped"]


def test_the_welcome_says_what_to_try():
    local = service._welcome(Config(local=True), "http://127.0.0.1:8080")
    assert "curl -T FILE http://127.0.0.1:8080/objects/" in local
    assert "  http://127.0.0.1:8080/ in a browser" in local
    assert "| streamup push - http://127.0.0.1:8080/objects/live.ts" in local
    assert str(Path("streamup-data").resolve()) in local
    remote = service._welcome(Config(bucket="b", prefix="p/", api_key_sha256=(DIGEST,)), "https://[::]:8080")
    assert "s3://b/p/" in remote
    assert 'curl -H "Authorization: Bearer $KEY" -T FILE' in remote
    assert DIGEST.hex() not in remote


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:5"),
        ({"listen": ("", 0)}, "http://127.0.0.1:5"),
        ({"listen": ("::", 0)}, "http://[::1]:5"),
        ({"listen": ("up.example", 0), "tls_cert": Path("c")}, "https://up.example:5"),
    ],
)
def test_the_address_in_the_welcome_can_be_reached(changes, url):
    assert service._url(Config(**changes), 5) == url


async def test_a_store_that_is_away_does_not_stop_the_start(monkeypatch, caplog):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(service, "PROBE_AGAIN_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = Config(bucket="bucket", prefix="p/", s3_endpoint_url=f"http://127.0.0.1:{port}", s3_path_style=True)
    async with AsyncExitStack() as stack:
        store = await service._open_store(config, Metrics(), stack)
        uploader = Uploader(store, None, Files(), parallel_parts=1, clock=time.time, jitter=random.Random())
        await service._ask_store(store, uploader, "name", stack)
        assert "the store cannot be asked now" in caplog.text
        assert not uploader.opened.is_set(), "nothing is sent to a store that nobody knows"
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
        moto.start()
        stack.callback(moto.stop)
        async with asyncio.timeout(20):
            while not uploader.opened.is_set():
                with suppress(StoreError):
                    await store.create_bucket()
                await asyncio.sleep(0.05)


def test_the_data_directory_is_ours_alone(tmp_path):
    spool = service._state_directory(tmp_path / "a" / "b")
    assert spool.stat().st_mode & 0o777 == 0o700
    assert spool.parent.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Choose a directory"):
        service._state_directory(tmp_path / "file")


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("the checkpoint did not commit: database disk image is malformed"),
        SpoolError("reading id.1: Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
async def test_a_state_that_cannot_be_taken_up_ends_the_start_and_says_what_to_do(error):
    class Uploads:
        async def recover(self, _):
            raise error

    with pytest.raises(StateDirectoryError, match=r"cannot be taken up: .* mend that and start again"):
        await service._take_up(Config(), Uploads(), None)


def test_a_state_directory_across_the_network_is_refused_unless_somebody_insists(tmp_path, monkeypatch):
    mounted = f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / {tmp_path}/share/spool rw - nfs4 there:/x rw\n"
    monkeypatch.setattr(service, "MOUNTINFO", tmp_path / "mountinfo")
    service.MOUNTINFO.write_text(mounted)
    with pytest.raises(ConfigError, match=r"share/spool is on nfs4, .* insist with --any-file-system"):
        service._state_directory(tmp_path / "share")
    assert not (tmp_path / "share").exists()
    assert service._state_directory(tmp_path / "disk").is_dir()
    assert service._state_directory(tmp_path / "share", any_file_system=True).is_dir()
    monkeypatch.setattr(service, "MOUNTINFO", tmp_path / "none")  # as on macOS
    assert service._state_directory(tmp_path / "share").is_dir()


# --- logging


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_line_cannot_be_forged(log_format, capsys):
    logs.start(log_format)
    try:
        int("first\n2026-01-01 forged\x1b[2J\u2028")
    except ValueError:
        logging.getLogger("streamup.test").exception("key %s", "a\nb\x7f\u2028\x9b")
    written = capsys.readouterr().err
    assert not set(written) & set("\x1b\x7f\u2028\x9b")
    records = [line for line in written.splitlines() if not line.startswith("    ")]
    assert len(records) == 1
    if log_format == "json":
        entry = json.loads(records[0])
        assert entry["message"] == r"key a\nb\x7f\u2028\x9b"
        assert entry["level"] == "error"
        assert "ValueError: invalid" in entry["traceback"]
    else:
        assert r"error    streamup.test: key a\nb\x7f\u2028\x9b" in records[0]


# --- commands against a server


def upload(number: int, **changes) -> dict:
    return {
        "id": f"id{number}",
        "key": f"live/{number}.ts",
        "state": "open",
        "reason": None,
        "offset": 5 * MIB,
        "received": 6 * MIB,
        "stored": 5 * MIB,
        "length": None,
        "parts": [{"number": 1, "size": 5 * MIB, "etag": '"e"', "crc64nvme": "AAAAAAAAAAA="}],
        "rate": 1536.0,
        "writer": False,
        "created": "2026-01-01T00:00:00Z",
        "expires": "2026-01-02T00:00:00Z",
        "object": None,
    } | changes


def problem(status: int, title: str, detail: str) -> web.Response:
    body = json.dumps({"title": title, "detail": detail, "status": status})
    return web.Response(status=status, text=body, content_type="application/problem+json")


STORED = {"key": "live/1.ts", "size": 6 * MIB, "etag": '"e-2"', "checksum": {}, "parts": 2, "upload": "id1"}


class Routes:
    """The routes that the commands use, over a dictionary."""

    def __init__(self) -> None:
        self.uploads = {u["id"]: u for u in (upload(1), upload(2, writer=True), upload(3, state="complete"))}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.seal = lambda: web.json_response(STORED, status=201)
        self.head = {"Upload-Offset": str(6 * MIB)}
        self.token: str | None = None
        self.pages: list[list[str]] = []

    async def all(self, request: web.Request) -> web.Response:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "A credential is needed", "Send the API key.")
        found, place = list(self.uploads.values()), None
        if self.pages:
            number = int(request.query.get("before", "0"))
            found = [self.uploads[upload_id] for upload_id in self.pages[number]]
            place = str(number + 1) if number + 1 < len(self.pages) else None
        return web.json_response({"uploads": found, "left_out": 0, "next": place})

    async def one(self, request: web.Request) -> web.Response:
        found = self.uploads.get(request.match_info["id"])
        self.seen.append((request.method, dict(request.headers)))
        if found is None:
            return problem(404, "Not found", "No such upload.")
        if request.method == "DELETE":
            del self.uploads[found["id"]]
            return web.Response(status=204)
        if request.method == "PATCH":
            assert await request.read() == b""
            return self.seal()
        if request.method == "HEAD":
            return web.Response(status=204, headers=self.head)
        return web.json_response(found)


@pytest.fixture
async def routes():
    routes = Routes()
    app = web.Application()
    app.router.add_get("/uploads", routes.all)
    app.router.add_route("*", "/uploads/{id}", routes.one)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    routes.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield routes
    await runner.cleanup()


async def run(routes: Routes, *args: str, env: dict[str, str] | None = None):
    """`streamup ARGS` in a thread: the commands bring a loop of their own."""
    environment = {"STREAMUP_SERVER": routes.url} | (env or {})
    return await asyncio.to_thread(CliRunner(env=environment).invoke, cli.main, args)


async def test_ls_shows_what_is_unfinished(routes):
    routes.uploads["id4"] = upload(4, state="failed", reason="state lost", rate=None)
    result = await run(routes, "ls")
    assert result.exit_code == 0
    titles, first, second, failed = result.stdout.splitlines()
    assert titles == "ID   STATE   WRITER  RECEIVED  STORED   LENGTH  RATE       EXPIRES               KEY"
    assert first == "id1  open    no      6.0 MiB   5.0 MiB  -       1.5 KiB/s  2026-01-02T00:00:00Z  live/1.ts"
    assert second.split()[:3] == ["id2", "open", "yes"]
    assert failed.split()[:2] == ["id4", "failed"]
    assert "live/3.ts" in (await run(routes, "ls", "--all")).stdout


async def test_ls_as_json(routes):
    assert json.loads((await run(routes, "ls", "--json")).stdout) == [upload(1), upload(2, writer=True)]


async def test_ls_of_nothing(routes):
    routes.uploads.clear()
    result = await run(routes, "ls")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No unfinished uploads.\n")


async def test_a_list_of_several_pages_is_one(routes):
    routes.pages = [["id2", "id3"], ["id1"]]
    listed = json.loads((await run(routes, "ls", "--all", "--json")).stdout)
    assert [one["id"] for one in listed] == ["id1", "id2", "id3"]
    assert (await run(routes, "status", "live/1.ts")).exit_code == 0


async def test_the_credential_is_a_bearer_token(routes, tmp_path):
    routes.token = "secret-token"
    refused = await run(routes, "ls")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "error: A credential is needed: Set STREAMUP_TOKEN or STREAMUP_TOKEN_FILE to an API key or a token.\n",
    )
    unknown = await run(routes, "ls", env={"STREAMUP_TOKEN": "another-token"})
    assert unknown.stderr == "error: A credential is needed: Send the API key.\n", (
        "the server knows what is wrong with it"
    )
    assert (await run(routes, "ls", env={"STREAMUP_TOKEN": "secret-token"})).exit_code == 0
    file = tmp_path / "token"
    file.write_text("secret-token\n")
    assert (await run(routes, "ls", env={"STREAMUP_TOKEN_FILE": str(file)})).exit_code == 0
    wrong = await run(routes, "ls", env={"STREAMUP_TOKEN": "secret\ntoken"})
    assert wrong.exit_code == 2
    assert "secret" not in wrong.output


async def test_a_credential_without_a_method_is_told_what_the_commands_need(routes):
    routes.seal = lambda: problem(403, "Forbidden", "This credential does not allow PATCH. Use another one.")
    result = await run(routes, "finish", "id1")
    assert result.exit_code == 1
    assert "does not allow PATCH" in result.stderr
    assert "`ls` and `status` need GET" in result.stderr
    routes.seal = lambda: problem(403, "Forbidden", "This server does not go by that name.")
    assert "need GET" not in (await run(routes, "finish", "id1")).stderr


@pytest.mark.parametrize("name", ["id1", "live/1.ts"])
async def test_status_by_id_or_key_never_disturbs(routes, name):
    result = await run(routes, "status", name)
    assert result.exit_code == 0
    fields = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert fields["id"] == "id1"
    assert fields["received"] == "6.0 MiB (6291456 bytes)"
    assert fields["parts"] == "1 in the store"
    assert "reason" not in fields
    assert json.loads((await run(routes, "status", name, "--json")).stdout) == upload(1)
    assert {method for method, _ in routes.seen} == {"GET"}


async def test_status_shows_the_object(routes):
    routes.uploads["id3"]["object"] = {"size": 5 * MIB, "etag": '"e"', "checksum": None}
    assert 'size 5.0 MiB, etag "e", checksum -' in " ".join((await run(routes, "status", "id3")).stdout.split(" "))
    routes.uploads["id3"]["object"]["checksum"] = {"crc64nvme": "AbC=", "sha256": "d/E="}
    assert "checksum crc64nvme AbC=, sha256 d/E=" in (await run(routes, "status", "id3")).stdout


async def test_a_key_means_its_unfinished_upload(routes):
    routes.uploads["id4"] = upload(4, key="live/1.ts", state="complete")
    assert (await run(routes, "status", "live/1.ts")).stdout.split()[1] == "id1"
    routes.uploads["id5"] = upload(5, key="live/1.ts")
    result = await run(routes, "status", "live/1.ts")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Say which: id1, id5." in result.stderr


async def test_a_key_without_slashes(routes):
    routes.uploads["id4"] = upload(4, key="plain")
    assert (await run(routes, "status", "plain")).stdout.split()[1] == "id4"


@pytest.mark.parametrize("name", ["nothing", "no/such.ts", "..", "?x", "a%2Fb"])
async def test_an_unknown_name(routes, name):
    result = await run(routes, "status", name)
    assert result.exit_code == 1
    assert "No upload has the id or the key" in result.stderr


async def test_finish_seals_at_the_offset_that_head_tells(routes):
    result = await run(routes, "finish", "id1")
    assert (result.exit_code, result.stdout) == (0, 'live/1.ts is complete: 6.0 MiB, ETag "e-2"\n')
    assert [method for method, _ in routes.seen] == ["GET", "HEAD", "PATCH"]
    sent = routes.seen[-1][1]
    assert sent["Upload-Offset"] == str(6 * MIB)
    assert sent["Upload-Complete"] == "?1"
    assert sent["Content-Type"] == "application/partial-upload"
    assert sent["Content-Length"] == "0"


async def test_finish_while_the_store_has_not_confirmed(routes):
    routes.seal = lambda: web.Response(status=202, headers={"Location": "/uploads/id1", "Upload-Offset": "1"})
    result = await run(routes, "finish", "id1")
    assert result.exit_code == 0
    assert "streamup status id1" in result.stdout


async def test_finish_does_not_cut_a_live_client_off(routes):
    result = await run(routes, "finish", "id2")
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert [method for method, _ in routes.seen] == ["GET"]
    assert (await run(routes, "finish", "id2", "--force")).exit_code == 0


async def test_finish_makes_no_object_of_what_lacks_bytes(routes):
    routes.uploads["id1"].update(length=routes.uploads["id1"]["received"] + 1)
    result = await run(routes, "finish", "id1")
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert [method for method, _ in routes.seen] == ["GET"]
    assert (await run(routes, "finish", "id1", "--force")).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "exit_code", "message"),
    [
        ({"state": "failed", "reason": "state lost"}, 1, "is failed: state lost."),
        ({"state": "cancelled"}, 1, "is cancelled: nothing is left."),
        ({"state": "complete", "object": {"size": 7, "etag": '"x"', "checksum": None}}, 0, "complete: 7 B"),
        ({"state": "sealed", "writer": True}, 0, "is complete"),
    ],
)
async def test_finish_what_is_not_open(routes, changes, exit_code, message):
    routes.uploads["id1"].update(changes)
    result = await run(routes, "finish", "id1")
    assert result.exit_code == exit_code
    assert message in result.output


@pytest.mark.parametrize(
    ("answer", "exit_code", "message"),
    [
        (lambda: problem(409, "The offset does not match", "Continue at byte 7."), 1, "match: Continue at byte 7."),
        (lambda: problem(503, "Later", "Ask again."), 3, "error: Later: Ask again."),
        (lambda: problem(400, "Bad \x1b[2J", ""), 1, "error: Bad \\x1b[2J\n"),
        (lambda: web.Response(status=423), 3, "error: 423 Locked"),
        (lambda: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}), 1, "error: 307"),
        (
            lambda: web.Response(status=400, text="{", content_type="application/problem+json"),
            1,
            "error: 400 Bad Request",
        ),
        (lambda: web.Response(status=200, text="hello"), 1, "Is this a streamup server?"),
    ],
)
async def test_refusals_are_told_in_one_line(routes, answer, exit_code, message):
    routes.seal = answer
    result = await run(routes, "finish", "id1")
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


async def test_finish_without_an_offset_seals_nothing(routes):
    routes.head = {}
    result = await run(routes, "finish", "id1")
    assert result.exit_code == 1
    assert "tells no Upload-Offset" in result.stderr
    assert [method for method, _ in routes.seen] == ["GET", "HEAD"]


async def test_cancel(routes):
    result = await run(routes, "cancel", "live/1.ts")
    assert (result.exit_code, result.stdout) == (0, "id1 (live/1.ts) is cancelled.\n")
    assert "id1" not in routes.uploads


def test_a_server_that_is_not_there_may_come_back():
    result = CliRunner().invoke(cli.main, ["ls", "--server", "http://127.0.0.1:1"])
    assert result.exit_code == 3
    assert "cannot be reached" in result.stderr
    assert CliRunner().invoke(cli.main, ["ls", "--server", "127.0.0.1"]).exit_code == 2


async def test_a_certificate_that_nobody_vouches_for(routes, tmp_path):
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def never(_reader, _writer):
        pytest.fail("It must not be spoken with.")

    async with await asyncio.start_server(never, "127.0.0.1", 0, ssl=context) as server:
        routes.url = "https://127.0.0.1:{}".format(*server.sockets[0].getsockname()[1:])
        result = await run(routes, "ls")
    assert result.exit_code == 1
    assert "certificate of https://127.0.0.1" in result.stderr
    assert "cannot be verified: self" in result.stderr
    assert "SSL_CERT_FILE" in result.stderr


async def test_a_question_that_is_never_answered_has_an_end(routes, monkeypatch):
    assert remote_module._QUESTION.sock_read < remote_module._TIMEOUT.sock_read
    monkeypatch.setattr(remote_module, "_QUESTION", ClientTimeout(sock_read=0.1))
    held = asyncio.Event()

    async def hold(_reader, writer):
        await held.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        routes.url = "http://127.0.0.1:{}".format(*server.sockets[0].getsockname()[1:])
        result = await run(routes, "ls")
        held.set()
    assert (result.exit_code, "cannot be reached" in result.stderr) == (3, True)


async def test_something_else_that_listens_there(routes):
    routes.uploads = {}
    routes.all = None
    async with Client(f"{routes.url}/elsewhere") as client:
        with pytest.raises(ClientError, match="404 Not Found"):
            await client.uploads()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536.4, "1.5 KiB"),
        (5 << 40, "5.0 TiB"),
        (5 << 60, "5242880.0 TiB"),
    ],
)
def test_sizes_for_people(size, text):
    assert human_size(size) == text


@pytest.mark.parametrize(("text", "whole"), [("lost", "lost."), ("lost.", "lost."), ("Is it there?", "Is it there?")])
def test_what_others_say_ends_as_a_sentence(text, whole):
    assert sentence(text) == whole


def test_text_for_terminals():
    assert printable("käse\n\x1b\x85\udc80") == r"käse\n\x1b\x85\udc80"


def test_a_secret_file_that_is_empty_is_refused(configure, tmp_path):
    empty = tmp_path / "key"
    empty.touch()
    assert "is empty" in configure("--local", env={"STREAMUP_API_KEY_FILE": str(empty)})
