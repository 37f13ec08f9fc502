"""`streamup push - URL` and `streamup push URL -- CMD`: how a live stream ends, and what becomes of it then."""

import asyncio
import json
import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import BODY
from process import MODULE, run, running, until
from raw_client import eventually

from streamup import cli, push_command
from streamup.client import live, sending
from streamup.client.backlog import Backlog
from streamup.client.destination import Destination
from streamup.client.progress import Lines
from streamup.client.progress import Progress as Shown
from streamup.exits import Failure, Interruption
from streamup.options import renewable, token_option
from streamup.push_command import Terms

pytest_plugins = ["weed", "process", "network"]

PUSH = (sys.executable, "-m", "streamup", "push")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(sending, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(sending, "MOST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(live, "TERM_SECONDS", 1)


@pytest.fixture
def stream(service):
    """`stream(key, …)`: how one is pushed to the service."""

    def make(key="a", url=None, patience=10.0, *, allow_empty=False, as_json=False):
        server = url or "http://127.0.0.1:{}".format(*service.address[1:])
        terms = Terms(None, "video/mp2t", {}, patience, as_json=as_json, quiet=False)
        return push_command._Stream(Destination(server, key), terms, 1 << 20, None, allow_empty)

    return make


@pytest.fixture
def stdin(monkeypatch):
    """The writing end of standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ours, os.fdopen(writing, "wb", buffering=0) as producer:
        monkeypatch.setattr(sys, "stdin", ours)
        yield producer


def shell(script):
    return ("sh", "-c", script)


# --- a pipe


async def test_the_end_of_a_pipe_completes(service, stream, stdin, capsys):
    work = asyncio.create_task(push_command._piped(stream("a")))
    await asyncio.to_thread(stdin.write, BODY)
    await eventually(lambda: service.uploads.registry)
    assert service.data("a") is None
    stdin.close()
    assert await work == 0
    assert service.data("a") == BODY
    assert capsys.readouterr().out.startswith("a: 193.2 KiB in ")


async def test_as_json(service, stream, stdin, capsys):
    stdin.write(b"x")
    stdin.close()
    assert await push_command._piped(stream("a", as_json=True)) == 0
    ended = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (ended["phase"], ended["size"], ended["etag"]) == ("done", 1, service.store.objects["a"].etag)


async def test_a_pipe_that_closes_at_once_leaves_nothing(service, stream, stdin):
    stdin.close()
    with pytest.raises(Failure, match="Nothing came"):
        await push_command._piped(stream("a"))
    assert not service.uploads.registry
    assert await push_command._piped(stream("a", allow_empty=True)) == 0
    assert service.data("a") == b""


async def test_a_closed_standard_input_is_told(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Failure, match="is closed"):
        await push_command._piped(stream("a"))


async def test_a_pipe_that_cannot_be_read_leaves_nothing(service, stream, monkeypatch, tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)

    class Stdin:
        fileno = staticmethod(lambda: directory)

    monkeypatch.setattr(sys, "stdin", Stdin)
    with pytest.raises(Failure, match="cannot be read: Is a directory"):
        await push_command._piped(stream("a"))
    os.close(directory)
    assert not service.uploads.registry


async def test_a_server_that_is_not_there_is_told_at_once_and_waited_for(stream, stdin, capsys):
    stdin.write(b"x")
    stdin.close()
    with pytest.raises(Interruption, match="cannot be reached"):
        await push_command._piped(stream("a", url="http://127.0.0.1:1", patience=0.2))
    assert capsys.readouterr().err.count("Trying again; what comes meanwhile is kept.") == 1


async def test_a_server_that_was_never_there_is_not_waited_for_without_room(stream, stdin, monkeypatch):
    monkeypatch.setattr("streamup.client.backlog.MEMORY_BYTES", 1000)
    found = stream("a", url="http://127.0.0.1:1")
    writing = asyncio.create_task(asyncio.to_thread(stdin.write, bytes((1 << 20) + 1001)))
    with pytest.raises(Interruption, match="no room to keep more"):
        await push_command._piped(found)
    await writing


async def test_a_connection_that_comes_back_is_told(service, stream, stdin, between, capsys):
    network = between(service.address[1])
    work = asyncio.create_task(push_command._piped(stream("a", url=network.url)))
    stdin.write(b"one")
    await eventually(lambda: any(live.upload.received == 3 for live in service.uploads.registry))
    await asyncio.to_thread(network.reset_all)
    stdin.write(b"two")
    await eventually(lambda: any(live.upload.received == 6 for live in service.uploads.registry))
    stdin.close()
    assert await work == 0
    assert service.data("a") == b"onetwo"
    told = capsys.readouterr().err
    assert ("Trying again" in told, "Connected again" in told) == (True, True)


@pytest.fixture(params=["full", "closed"])
def lost_stderr(request, monkeypatch):
    """A log whose disk is full; or there is none."""
    with suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full if request.param == "full" else None)
        yield
        monkeypatch.undo()


@pytest.mark.usefixtures("lost_stderr")
async def test_a_stream_outlives_the_terminal_it_was_started_from(service, stream, stdin, between):
    network = between(service.address[1])
    work = asyncio.create_task(push_command._piped(stream("a", url=network.url)))
    stdin.write(b"one")
    await eventually(lambda: any(live.upload.received == 3 for live in service.uploads.registry))
    await asyncio.to_thread(network.reset_all)
    stdin.write(b"two")
    stdin.close()
    assert await work == 0
    assert service.data("a") == b"onetwo"


async def test_a_pipe_that_breaks_makes_no_object_and_ends_its_command(service, stream, monkeypatch):
    """The end of what was read is not the end of what was written."""

    class Breaking(Backlog):
        def add(self, data):
            if self.end:
                raise MemoryError
            return super().add(data)

    monkeypatch.setattr("streamup.client.backlog.Backlog", Breaking)
    with pytest.raises(Failure, match="Cannot allocate memory"):
        await push_command._produced(stream("a"), shell("echo one; sleep 0.2; echo two"), (), "keep")
    with pytest.raises(Failure, match="Cannot allocate memory"):
        await push_command._produced(stream("b"), shell("echo one; sleep 0.2; echo two; sleep 60"), (), "keep")
    assert (service.data("a"), service.data("b")) == (None, None)


async def test_a_reason_that_changes_is_told(capsys, monkeypatch):
    monkeypatch.setattr(live, "SAY_SECONDS", 0)

    class Pipe:
        full, backlog = False, Backlog(0, 0)

    words = live._Words(Lines(), Pipe())
    words.progress = Shown("a", None)
    for reason in ("gone", "gone", "expired"):
        words.tell(sending.Progress("waiting", 0, 0, 0, reason))
    assert [line.partition(".")[0] for line in capsys.readouterr().err.splitlines()] == ["gone", "expired"]


# --- a command


async def test_a_command_that_ends_well_completes(service, stream):
    assert await push_command._produced(stream("a"), shell("echo one; echo two"), (), "keep") == 0
    assert service.data("a") == b"one\ntwo\n"


async def test_a_command_that_fails_does_not(service, stream, capsys):
    assert await push_command._produced(stream("a"), shell("echo one; exit 7"), (), "keep") == 7
    assert service.data("a") is None
    left = await service.becomes("a", state="open", received=4)
    assert f"{left['id']} makes an object of them" in capsys.readouterr().err
    assert await push_command._produced(stream("b"), shell("echo one; exit 7"), (), "cancel") == 7
    await service.becomes("b", state="cancelled")
    assert await push_command._produced(stream("c"), shell("echo one; exit 7"), (7,), "keep") == 7
    assert service.data("c") == b"one\n"
    assert await push_command._produced(stream("d"), shell("echo one; kill -9 $$"), (), "keep") == 137
    assert service.data("d") is None


async def test_a_command_that_cannot_be_started_leaves_nothing(service, stream, capsys, tmp_path):
    assert await push_command._produced(stream("a"), ("streamup-no-such-command",), (), "keep") == 127
    assert await push_command._produced(stream("a"), (str(tmp_path),), (), "keep") == 126
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in told] == [
        "streamup-no-such-command cannot be started: No such file or directory.",
        f"{tmp_path} cannot be started: Permission denied.",
    ]
    assert not service.uploads.registry


async def test_a_command_that_writes_nothing_leaves_nothing(service, stream):
    with pytest.raises(Failure, match=r"has written nothing\. --allow-empty"):
        await push_command._produced(stream("a"), shell("exit 0"), (), "keep")
    assert await push_command._produced(stream("a"), shell("exit 5"), (), "cancel") == 5
    assert not service.uploads.registry
    assert await push_command._produced(stream("a", allow_empty=True), shell("exit 0"), (), "keep") == 0
    assert service.data("a") == b""


@pytest.mark.parametrize("trap", ["touch asked; exit", ""])
async def test_an_upload_that_fails_ends_its_command(stream, trap, tmp_path):
    script = f"cd {tmp_path}; echo $$ > pid; trap '{trap}' TERM; echo one; while :; do sleep 0.05; done"
    with pytest.raises(Failure, match="A key has at most"):
        await push_command._produced(stream("x/" * 600 + "a"), shell(script), (), "keep")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert (tmp_path / "asked").exists() is bool(trap)


async def test_signals_that_are_ignored_stay_so_and_the_others_are_as_before():
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, handler) for number, handler in zip(numbers, (signal.SIG_IGN, print), strict=True)]
    seen = []
    with live._first_of(numbers, seen.append):
        for number in numbers:
            os.kill(os.getpid(), number)
        await eventually(lambda: seen)
        assert (seen, signal.getsignal(numbers[1])) == ([numbers[1]], signal.SIG_DFL)
    assert [signal.getsignal(number) for number in numbers] == [signal.SIG_IGN, print]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


# --- the command line


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "Where to?"),
        ("-", "Standard input goes alone: streamup push - URL"),
        ("- key", "'key' is no URL"),
        ("- http://h/objects/", "needs a key behind it"),
        ("- http://h/objects/a/../b", "no `..`"),
        ("- s3://bucket/key", "sends to a streamup server"),
        ("http://h/objects/a --", "With a command it is"),
        ("- http://h/objects/a -- cat", "With a command it is"),
        ("- http://h/objects/a --content-type x", "not written as HTTP has it"),
        ("- http://h/objects/a --meta x", "NAME=VALUE"),
        ("- http://h/objects/a --backlog-dir /nowhere", "does not exist"),
    ],
)
def test_wrong_usage(line, says):
    result = CliRunner().invoke(cli.main, ["push", *line.split()])
    assert result.exit_code == 2
    assert says in result.output


def test_a_token_in_a_file_is_read_again(tmp_path, monkeypatch):
    seen = []

    @click.command()
    @token_option
    @click.pass_context
    def probe(ctx, token):
        seen.append(renewable(ctx, token))

    file = tmp_path / "token"
    file.write_text("one\n")
    assert CliRunner().invoke(probe, [], env={"STREAMUP_TOKEN_FILE": str(file)}).exit_code == 0
    (token,) = seen
    found = [token()]
    for text in ("two\n", "", "no token\n", "three"):
        file.write_text(text)
        found.append(token())
    file.unlink()
    assert [*found, token()] == ["one", "two", "two", "two", "three", "three"]
    monkeypatch.setenv("STREAMUP_TOKEN_FILE", str(file))
    CliRunner().invoke(probe, ["--token", "mine"])
    monkeypatch.delenv("STREAMUP_TOKEN_FILE")
    CliRunner().invoke(probe, [], env={"STREAMUP_TOKEN": "yours"})
    CliRunner().invoke(probe, [])
    assert seen[1:] == ["mine", "yours", None]


# --- processes of their own


@contextmanager
def pushing(server, key, script, *options):
    """A producer and its `push`, in one process group, as a shell starts them."""
    url = f"http://127.0.0.1:{server.ports[0]}/objects/{key}"
    with running("sh", "-c", script, process_group=0) as producer:
        command = (*PUSH, *options, "-", url)
        with running(*command, stdin=producer.stdout, process_group=producer.pid) as push:
            producer.stdout.close()
            yield producer, push


FLUSHES = "trap 'echo last; exit 0' INT TERM; while :; do echo x; sleep 0.1; done"


@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_pipe_that_is_interrupted_is_delivered_and_left_open(server, number):
    """Ctrl-C is for all of a pipeline: the producer still flushes, and what it brings then arrives, too."""
    key = f"interrupted-{number:d}"
    with pushing(server, key, FLUSHES) as (producer, push):
        until(lambda: server.received(key) > 4, what="a stream")
        if number == signal.SIGINT:
            os.killpg(producer.pid, number)
        else:
            push.send_signal(number)
        said = push.stderr.read().decode()
        assert push.wait() == 3
    left = server.open_upload(key)
    assert f"{left['id']} makes an object of them" in said
    assert run(sys.executable, *MODULE, "finish", f"--server={server.url}", left["id"]).code == 0
    assert server.ask("GET", f"/uploads/{left['id']}").json()["object"]["size"] == left["received"]
    if number == signal.SIGINT:
        assert left["received"] % 2 == 1, "the producer's last words are there"


@pytest.mark.campaign
def test_a_second_signal_ends_at_once(server):
    with pushing(server, "twice", "trap '' INT; while :; do echo x; sleep 0.1; done") as (_, push):
        until(lambda: server.received("twice") > 4, what="a stream")
        push.send_signal(signal.SIGINT)
        so_far = server.received("twice")
        until(lambda: server.received("twice") > so_far + 4, what="the rest of the stream")
        push.send_signal(signal.SIGTERM)
        assert push.wait(10) == -signal.SIGTERM


@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_gets_our_signals_and_its_code_decides(server, number):
    key = f"signalled-{number:d}"
    url = f"http://127.0.0.1:{server.ports[0]}/objects/{key}"
    script = "trap 'echo last; exit 255' INT TERM HUP; while :; do echo x; sleep 0.1; done"
    with running(*PUSH, url, "--ok-code=255", "--", "sh", "-c", script, start_new_session=True) as push:
        until(lambda: server.received(key) > 4, what="a stream")
        push.send_signal(number)
        assert push.wait(20) == 255
    assert server.open_upload(key) is None
    assert server.uploads(key)[0]["object"]["size"] % 2 == 1
