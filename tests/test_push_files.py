"""`streamup push SRC... URL` as a process, against a real server and store: killed, interrupted, misused."""

import base64
import json
import os
import signal
import sys
from contextlib import contextmanager

import pytest
from awscrt.checksums import crc64nvme
from click.testing import CliRunner
from process import MIB, PART, Ran, content, digest, prefix_of, running, until

from streamup import cli

pytest_plugins = ["weed", "process", "network"]

STREAMUP = (sys.executable, "-m", "streamup")
NAMES = ("plain.bin", "a%20b #?&.mp4", "[bold]red :smile:", "käse 🎥", "-q", " ")
"""Of files, each with what shells, URLs, terminals or click could take for something else."""


class User:
    """Who types commands, in a directory of their own and with a state directory."""

    def __init__(self, directory):
        self.home = directory / "home"
        self.home.mkdir()
        self.environ = {name: None for name in os.environ if name.startswith("STREAMUP_")}
        self.environ["XDG_STATE_HOME"] = str(directory / "state")
        self.state = directory / "state" / "streamup"

    def file(self, name, data):
        path = self.home / name
        path.write_bytes(data)
        return path

    def push(self, *words, **environ):
        """To its end, in this process: starting one takes half a second."""
        words = [os.fspath(word) for word in words]
        result = CliRunner(env=self.environ | environ).invoke(cli.main, ["push", *words], catch_exceptions=False)
        return Ran(result.exit_code, result.stdout_bytes, result.stderr)

    @contextmanager
    def pushing(self, *words):
        environ = {name: value for name, value in (os.environ | self.environ).items() if value is not None}
        with running(*STREAMUP, "push", *words, env=environ) as process:
            yield process

    def notes(self):
        return sorted(path.name for path in self.state.iterdir()) if self.state.exists() else []


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


def stored(server, bucket, key):
    return bucket.read(prefix_of(server) + key)


def lines(ran):
    return [json.loads(line) for line in ran.text.splitlines()]


def checksum(data):
    return base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


DATA = content(4 * PART + 12_345, seed=7)


def test_files_go_by_their_names_and_each_has_a_line(server, bucket, user):
    files = {name: content(1000 * index + 7, seed=index) for index, name in enumerate(NAMES)}
    paths = [user.file(name, data) for name, data in files.items()]
    ran = user.push(*paths, server.object("names/"))
    assert ran.code == 0, ran.err
    assert {name: stored(server, bucket, f"names/{name}") for name in NAMES} == files
    assert len(ran.text.splitlines()) == len(NAMES)
    assert (ran.err, user.notes()) == ("", [])


def test_one_file_has_the_key_of_the_url_and_json_tells_all_of_it(server, bucket, user):
    path = user.file("film.mp4", DATA)
    told = lines(user.push(path, server.object("one/caf%C3%A9.mp4"), "--json"))[-1]
    assert stored(server, bucket, "one/café.mp4") == DATA
    found = {name: told[name] for name in ("phase", "file", "key", "size", "resumed", "checksum")}
    expected = {"phase": "done", "file": str(path), "key": "one/café.mp4", "size": len(DATA), "resumed": 0}
    assert found == {**expected, "checksum": {"crc64nvme": checksum(DATA)}}
    assert told["etag"] == server.ask("HEAD", "/objects/one/caf%C3%A9.mp4").headers["ETag"]
    assert told["seconds"] > 0


def test_quietly_to_the_server_of_the_environment(server, bucket, user):
    path = user.file("empty", b"")
    ran = user.push(path, "-q", STREAMUP_SERVER=server.url)
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert stored(server, bucket, "empty") == b""


def begin_and_stop(user, network, words, number, key_bytes=2 * PART):
    """A push that gets a signal when so many bytes have passed. Its exit code and what it said."""
    network.rate = 40 * MIB
    with user.pushing(*words) as process:
        until(lambda: network.bodies > key_bytes, what="a part of the file at the server")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    network.rate = None
    return process.returncode, out, err.decode()


def test_killed_it_goes_on_and_what_was_sent_is_not_sent_twice(server, bucket, user, between):
    network = between(server.ports[0])
    path = user.file("film.mp4", DATA)
    words = (path, f"{network.url}/objects/killed")
    code, _, _ = begin_and_stop(user, network, words, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert any(name.endswith(".json") for name in user.notes())
    until(lambda: not server.open_upload("killed")["writer"], what="the end of its writer")
    offset = server.received("killed")
    assert offset >= PART
    before = network.bodies
    told = lines(user.push(*words, "--json"))[-1]
    assert (told["phase"], told["resumed"], told["size"]) == ("done", offset, len(DATA))
    assert digest(stored(server, bucket, "killed")) == digest(DATA)
    assert network.bodies - before == len(DATA) - offset
    assert user.notes() == []


@pytest.mark.campaign
def test_ctrl_c_ends_in_order_and_the_same_command_goes_on(server, bucket, user, between):
    network = between(server.ports[0])
    paths = [user.file(f"{number}.bin", content(3 * PART, seed=number)) for number in range(3)]
    words = (*paths, f"{network.url}/objects/stopped/")
    code, out, err = begin_and_stop(user, network, (*words, "--json"), signal.SIGINT)
    told = [json.loads(line) for line in out.splitlines()][-3:]
    assert (code, [(line["file"], line["again"]) for line in told]) == (3, [(str(path), True) for path in paths])
    assert err == "error: Interrupted. The same command goes on where this ended.\n"
    assert len(user.notes()) == 2
    ran = user.push(*words)
    assert ran.code == 0, ran.err
    assert sum("of it earlier" in line for line in ran.text.splitlines()) == 2
    assert [digest(stored(server, bucket, f"stopped/{path.name}")) for path in paths] == [
        digest(path.read_bytes()) for path in paths
    ]
    assert user.notes() == []


@pytest.mark.campaign
def test_a_changed_file_is_refused_and_afresh_begins_anew(server, bucket, user, between):
    network = between(server.ports[0])
    path = user.file("film.mp4", DATA)
    words = (path, f"{network.url}/objects/changed")
    begin_and_stop(user, network, words, signal.SIGINT)
    path.write_bytes(DATA[::-1])
    ran = user.push(*words)
    assert ran.code == 1
    assert "has changed since" in ran.err
    assert "--afresh" in ran.err
    assert stored(server, bucket, "changed") is None
    ran = user.push(*words, "--afresh")
    assert (ran.code, digest(stored(server, bucket, "changed"))) == (0, digest(DATA[::-1])), ran.err
    assert [upload["state"] for upload in server.uploads("changed")].count("cancelled") == 1


@pytest.mark.campaign
def test_two_of_the_same_file_do_not_fight(server, user, between):
    network = between(server.ports[0])
    path = user.file("film.mp4", DATA)
    words = (path, f"{network.url}/objects/twice")
    network.rate = 4 * MIB
    with user.pushing(*words) as process:
        until(lambda: network.bodies, what="its beginning")
        ran = user.push(*words)
        assert (ran.code, f"Process {process.pid} is pushing it" in ran.err) == (3, True), ran.err
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_each_kind_of_end_has_its_code(server, bucket, user):
    good, missing = user.file("good", b"x"), user.home / "missing"
    ran = user.push(good, missing, server.object("ends/"), "--json")
    told = {line["file"]: line for line in lines(ran)[-2:]}
    assert (ran.code, told[str(good)]["phase"], told[str(missing)]["again"]) == (1, "done", False)
    assert stored(server, bucket, "ends/good") == b"x"
    ran = user.push(good, server.object("ends/good"))
    assert ran.text == f"{good}: all 1 B of it were sent earlier\n"
    ran = user.push(good, "http://127.0.0.1:9/objects/k")
    assert (ran.code, "cannot be reached" in ran.err) == (3, True)
    ran = user.push(*[user.file(f"{n}", b"") for n in range(9)], "http://127.0.0.1:9/objects/", "-j", "1")
    assert (ran.code, "8 more files were not begun" in ran.err) == (3, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Where to?"),
        (["http://h/objects/k"], "Which files?"),
        (["a", "-", "http://h/objects/"], "Standard input goes alone"),
        (["-"], "Standard input goes alone"),
        (["http://h/objects/k", "http://g/objects/k"], "One destination"),
        (["a", "b", "http://h/objects/k"], "End the URL with a /"),
        (["x/a", "y/a", "http://h/objects/"], "would both go to 'a'"),
        (["x/a", "h:8080/objects/b"], "Write it as http://h:8080/objects/b"),
        ([".", "http://h/objects/"], ". is a directory"),
        (["a", "s3://bucket/key"], "streamup serve s3://"),
        (["a\x1b[2J", "http://h/objects/"], r"a\x1b[2J cannot go"),
        (["a", "http://h/objects/k", "--on-failure", "cancel"], "--on-failure is for streams only"),
        (["-", "http://h/objects/k", "--afresh"], "--afresh is for files only"),
        (["a", "http://h/objects/k", "-j", "0"], "not in the range"),
        (["a", "http://h/objects/k", "--content-type", "no"], "--content-type"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(user, words, said):
    ran = user.push(*words)
    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert ran.err.replace("\n", "").isprintable()


@pytest.mark.campaign
def test_a_credential_in_the_url_is_used_and_kept_nowhere(serve, bucket, user, between):
    key = "sixteen-and-more-characters"
    server = serve()
    server.environ = {**server.environ, "STREAMUP_API_KEY": key}
    server.start()
    network = between(server.ports[0])
    path = user.file("film.mp4", DATA)
    ran = user.push(path, server.object("k"))
    assert (ran.code, "STREAMUP_TOKEN" in ran.err) == (1, True), ran.err
    ran = user.push(path, server.object("k"), STREAMUP_TOKEN="x" * 20)
    assert (ran.code, ran.out) == (1, b""), ran.err
    words = (path, network.url.replace("//", f"//any:{key}@") + "/objects/k")
    code, _, err = begin_and_stop(user, network, words, signal.SIGINT)
    assert (code, key in err) == (3, False)
    assert key not in "".join(path.read_text() for path in user.state.iterdir())
    ran = user.push(*words)
    assert (ran.code, digest(stored(server, bucket, "k"))) == (0, digest(DATA)), ran.err
    assert "of it earlier" in ran.text


@pytest.mark.campaign
def test_over_a_bad_network_and_a_server_that_is_killed(serve, bucket, user, between):
    server = serve().start()
    network = between(server.ports[0])
    network.rate = 25 * MIB
    paths = [user.file(f"{number}", content(5 * PART + number, seed=number)) for number in range(4)]
    words = (*paths, f"{network.url}/objects/fire/", "-j", "3", "--json")
    for round_ in range(1, 4):
        with user.pushing(*words) as process:
            target = network.bodies + 3 * PART
            until(lambda at=target: network.bodies > at or process.poll() is not None, 60, "some progress")
            server.kill()
            server.start()
            network.reset_all()
            if round_ < 3:
                process.kill()
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert digest(b"".join(stored(server, bucket, f"fire/{path.name}") for path in paths)) == digest(
        b"".join(path.read_bytes() for path in paths)
    )
    assert user.notes() == []
    assert out
