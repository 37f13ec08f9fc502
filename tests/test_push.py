"""`push` of files over the strict fake store: nothing is sent twice, and what has changed is not completed."""

import asyncio
import base64
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from conftest import BODY, PART_BYTES
from network import Fate
from raw_client import eventually

from streamup.client import local_file, unfinished
from streamup.client import push as push_module
from streamup.client import sending as sending_module
from streamup.client.destination import Destination
from streamup.client.local_file import LocalFile
from streamup.client.progress import Lines, Progress
from streamup.client.push import Push
from streamup.client.pushes import Pushes
from streamup.client.remote import Client, ClientError
from streamup.client.unfinished import Begun, Identity, Note, Notes, state_directory
from streamup.errors import Interrupted, TransferError

pytest_plugins = ["wire", "network"]

PIECE = 10_000


@pytest.fixture(autouse=True)
def _small_and_hurried(monkeypatch):
    monkeypatch.setattr(local_file, "READ_BYTES", PIECE)
    monkeypatch.setattr(push_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(push_module, "PIECE_BYTES", PART_BYTES // 3)
    monkeypatch.setattr(sending_module, "FIRST_DELAY_SECONDS", 0.01)


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(BODY)
    return path


class Site:
    """One server, one user, and what was said to them."""

    def __init__(self, service, notes):
        self.url = "http://127.0.0.1:{}".format(*service.address[1:])
        self.service, self.notes, self.said = service, notes, []

    def to(self, key):
        return Destination(self.url, key)

    def push(self, client, path, key="k", **options):
        return Push(client, self.notes, str(path), self.to(key), say=self.said.append, **options)

    async def run(self, path, key="k", **options):
        self.said.clear()
        async with Client(self.url) as client:
            return await self.push(client, path, key, **options).run(Progress("f", None))

    async def interrupted(self, path, key="k", least=PART_BYTES + PIECE):
        """A push that is cancelled, as Ctrl-C does it, when the server has so many bytes. How many that were then."""

        async def slow(one, position):
            await eventually(lambda: arrived(position - PIECE))
            return await read(one, position)

        async def arrived(size):
            found = await self.service.document(key, state="open")
            return found and found["received"] >= size

        read = LocalFile.read
        LocalFile.read = slow
        try:
            task = asyncio.create_task(self.run(path, key))
            await eventually(lambda: arrived(least))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            LocalFile.read = read
        found = await self.service.becomes(key, state="open", writer=False)
        assert found["received"] < len(BODY)
        return found["received"]

    def noted(self):
        """The notes, as they are on the disk."""
        return [path for path in self.notes.directory.iterdir() if path.suffix == ".json"]


@pytest.fixture
def site(service, notes):
    return Site(service, notes)


def crc(data):
    return base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


# What arrives


@pytest.mark.parametrize("size", [0, 1, PIECE, PART_BYTES, len(BODY)])
async def test_a_file_becomes_an_object(site, file, size):
    file.write_bytes(BODY[:size])
    pushed = await site.run(file, "dir/k")
    assert site.service.data("dir/k") == BODY[:size]
    assert (pushed.size, pushed.resumed, pushed.checksum["crc64nvme"]) == (size, 0, crc(BODY[:size]))
    assert pushed.etag == site.service.store.objects["dir/k"].etag
    assert (site.said, list(site.notes.directory.iterdir())) == ([], [])


async def test_what_was_sent_is_not_sent_twice_and_every_byte_is_read_once(site, file, monkeypatch):
    sent = await site.interrupted(file)
    [note] = site.noted()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    read = []
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda *a: (read.append(len(data := pread(*a))), data)[1])
    monkeypatch.setattr(os, "preadv", lambda *a: (read.append(size := preadv(*a)), size)[1])
    pushed = await site.run(file)
    assert site.service.data("k") == BODY
    assert pushed.resumed == sent
    assert sum(read) == len(BODY)
    assert (site.noted(), site.said) == ([], [])


async def test_resuming_compares_each_part_that_the_server_has(site, file):
    sent = await site.interrupted(file)
    same = file.stat()
    changed = bytearray(BODY)
    changed[PART_BYTES // 2] ^= 1
    file.write_bytes(changed)
    os.utime(file, ns=(same.st_atime_ns, same.st_mtime_ns))  # as if nothing had happened
    with pytest.raises(TransferError, match=r"changed since the first .* were sent\. --afresh"):
        await site.run(file)
    assert (await site.service.document("k"))["received"] == sent
    pushed = await site.run(file, afresh=True)
    assert (site.service.data("k"), pushed.resumed) == (bytes(changed), 0)
    assert "given up" in site.said[0]


async def test_a_change_behind_the_parts_is_found_by_the_checksum_of_the_whole(site, file):
    sent = await site.interrupted(file)
    same = file.stat()
    changed = bytearray(BODY)
    changed[sent - 1] ^= 1  # received, and in no part that is stored
    file.write_bytes(changed)
    os.utime(file, ns=(same.st_atime_ns, same.st_mtime_ns))
    with pytest.raises(TransferError, match=r"not this file .* --afresh"):
        await site.run(file)
    assert site.service.data("k") is None
    await site.run(file, afresh=True)
    assert site.service.data("k") == changed


@pytest.mark.parametrize("change", ["longer", "shorter", "touched", "another"])
async def test_a_file_that_is_another_one_by_now_is_refused(site, file, change):
    await site.interrupted(file)
    match change:
        case "longer":
            file.write_bytes(BODY + b"more")
        case "shorter":
            file.write_bytes(BODY[:100])
        case "touched":
            os.utime(file, (1, 1))
        case "another":
            other = file.with_name("other")
            other.write_bytes(BODY)
            same = file.stat()
            os.utime(other, ns=(same.st_atime_ns, same.st_mtime_ns))
            other.replace(file)
    with pytest.raises(TransferError, match="--afresh"):
        await site.run(file)
    assert len(site.noted()) == 1


async def test_a_push_that_was_complete_is_compared_and_not_sent_again(site, file, monkeypatch):
    monkeypatch.setattr(Note, "remove", lambda _: None)  # killed before it could
    await site.run(file)
    objects = dict(site.service.store.objects)
    pushed = await site.run(file)
    assert (pushed.resumed, pushed.etag) == (len(BODY), objects["k"].etag)
    assert len((await site.service.ask("GET", "/uploads")).json["uploads"]) == 1
    file.write_bytes(BODY[::-1])
    assert (await site.run(file)).resumed == 0
    assert "has other bytes" in site.said[0]
    assert site.service.data("k") == BODY[::-1]


def meets(fate, network, method, monkeypatch):
    """The next connection on which this is asked."""
    ask, met = Client._request, []

    def asking(client, asked, url, **options):
        if asked == method and not met:
            met.append(network.did["connections"])
            network.reset_all()
            network.fate = lambda number: fate if number == met[0] else None
        return ask(client, asked, url, **options)

    monkeypatch.setattr(Client, "_request", asking)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_connection_that_dies_before_anything_is_sent_is_given_up(site, file, between, monkeypatch, method):
    monkeypatch.setattr(push_module, "OFFSET_SECONDS", 0.3)
    network = between(site.service.address[1])
    site.url = network.url
    await site.interrupted(file)
    meets(Fate("die", "down"), network, method, monkeypatch)
    async with asyncio.timeout(5):
        pushed = await site.run(file, patience=5.0, met=True)
    assert network.did["die down"] == 1
    assert (pushed.size, site.service.data("k")) == (len(BODY), BODY)


async def test_a_server_that_has_answered_is_waited_for(site, file, between, monkeypatch):
    """It was there a moment ago: what breaks then is the connection."""
    network = between(site.service.address[1])
    site.url = network.url
    await site.interrupted(file)
    meets(Fate("reset", "down"), network, "HEAD", monkeypatch)
    await site.run(file)
    assert network.did["reset down"] == 1
    assert site.service.data("k") == BODY


async def test_an_upload_that_is_gone_begins_anew_and_that_is_said(site, file):
    await site.interrupted(file)
    [upload] = (await site.service.ask("GET", "/uploads")).json["uploads"]
    await site.service.ask("DELETE", f"/uploads/{upload['id']}")
    await site.run(file)
    assert ("cancelled" in site.said[0] or "gone" in site.said[0], site.service.data("k")) == (True, BODY)
    with site.notes.open(str(file), site.to("k")) as note:
        note.write(Begun(Identity.of(file.stat()), "0" * 32))
    await site.run(file)
    assert "gone from the server" in site.said[0]


async def test_another_destination_is_another_upload(site, file):
    await site.interrupted(file)
    assert (await site.run(file, "other")).resumed == 0
    assert len(site.noted()) == 1


async def test_what_is_all_at_the_server_is_waited_for(site, file, monkeypatch):
    monkeypatch.setattr(Note, "remove", lambda _: None)
    await site.run(file)
    look, states = Client.look, ["sealed", "completing"]

    async def slow(client, upload_id):
        return await look(client, upload_id) | ({"state": states.pop(0)} if states else {})

    monkeypatch.setattr(Client, "look", slow)
    assert (await site.run(file)).resumed == len(BODY)
    states += ["sealed"] * 9
    monkeypatch.setattr(push_module, "SETTLE_SECONDS", 0)
    with pytest.raises(Interrupted, match=r"Every byte is safe at the server.*streamup status"):
        await site.run(file)


async def test_what_the_server_refuses_is_no_reason_to_begin_anew(site, file, monkeypatch):
    await site.interrupted(file)

    async def refuse(*_):
        raise ClientError("no", status=403)

    for name, options in (("look", {}), ("cancel", {"afresh": True})):
        with monkeypatch.context() as patch:
            patch.setattr(Client, name, refuse)
            with pytest.raises(ClientError, match="no"):
                await site.run(file, **options)
    with monkeypatch.context() as patch:
        patch.setattr("streamup.client.sending.Sending.seal", refuse)
        with pytest.raises(ClientError, match="no"):
            await site.run(file)
    assert len(site.noted()) == 1
    assert (await site.run(file)).resumed


def part(number, size, data=None):
    return {"number": number, "size": size} | ({} if data is None else {"crc64nvme": crc(data)})


def test_what_the_server_tells_of_parts():
    spans = push_module._spans([part(1, 10, b"a"), part(2, 5), part(4, 1)], 30)
    assert [span for span, _ in spans] == [(0, 10), (10, 15), (15, 30)]
    assert [told is not None for _, told in spans] == [True, False, False]
    assert [span for span, _ in push_module._spans([part(1, 10)], 9)] == [(0, 9)]
    for wrong in ([1], [{}], [{"number": 1, "size": "x"}], [part(1, 1) | {"crc64nvme": 1}]):
        with pytest.raises(ClientError, match="Is this a streamup server"):
            push_module._spans(wrong, 9)


def test_what_the_server_tells_of_an_object():
    parts = [part(1, 3, b"abc"), part(2, 2, b"de")]
    whole = {"checksum": {"crc64nvme": crc(b"abcde")}}
    for told in (whole | {"size": 5}, {"checksum": {"sha256": "x-2"}}, {"checksum": None}):
        assert push_module._crc_of({"object": told, "parts": parts}) == crc64nvme(b"abcde")
    for parts in ([], [part(1, 3)], [1]):
        assert push_module._crc_of({"object": {"checksum": None}, "parts": parts}) is None


# What changes meanwhile


@pytest.mark.parametrize("change", ["written", "shrunk", "removed", "replaced"])
async def test_a_file_that_changes_while_it_is_sent_is_not_completed(site, file, monkeypatch, change):
    read = LocalFile.read

    async def meddle(one, position):
        if position == 2 * PIECE:
            match change:
                case "written":
                    with file.open("r+b") as writer:
                        writer.write(b"x")
                    os.utime(file, (1, 1))  # a clock of the kernel may not have ticked
                case "shrunk":
                    os.truncate(file, PIECE)
                case "removed":
                    file.unlink()
                case "replaced":
                    (other := file.with_name("other")).write_bytes(BODY)
                    other.replace(file)
        return await read(one, position)

    monkeypatch.setattr(LocalFile, "read", meddle)
    with pytest.raises(TransferError, match="nothing was completed"):
        await site.run(file)
    assert site.service.data("k") is None


async def test_a_file_that_ends_early_is_noticed(file):
    with LocalFile.open(str(file)) as opened:
        opened.length += 1
        with pytest.raises(TransferError, match="ends at byte"):
            await opened.read(len(BODY))


async def test_what_is_no_file_is_told_the_way(site, tmp_path):
    with pytest.raises(TransferError, match=r"It is a directory.*tar c"):
        await site.run(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TransferError, match="push - URL"):
        await site.run(tmp_path / "fifo")
    with pytest.raises(TransferError, match="push - URL"):
        await site.run(Path("/dev/null"))
    with pytest.raises(TransferError, match="No such file"):
        await site.run(tmp_path / "missing")
    (tmp_path / "secret").touch(0)
    if os.geteuid():
        with pytest.raises(TransferError, match="Permission denied"):
            await site.run(tmp_path / "secret")
    with pytest.raises(TransferError, match="cannot be read at byte 0"):
        await site.run(Path("/proc/self/mem"))
    (tmp_path / "plain").touch()
    with LocalFile.open(str(tmp_path / "plain")) as file:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        os.dup2(memory, file.descriptor)
        os.close(memory)
        file.length = 1
        with pytest.raises(TransferError, match="cannot be read at byte 0"):
            await file.read(0)


# What is remembered


def begun(file, upload_id="u"):
    return Begun(Identity.of(file.stat()), upload_id)


def test_a_note_is_of_one_file_and_one_destination(notes, file, monkeypatch):
    here, there = Destination("http://h", "k"), Destination("http://h", "l")
    with notes.open(str(file), here) as note:
        assert note.known is None
        note.write(begun(file))
    monkeypatch.chdir(file.parent)
    with notes.open(file.name, Destination("http://h", "k", "secret")) as note, notes.open(str(file), there) as other:
        assert (note.known, other.known) == (begun(file), None)
        note.write(begun(file, "v"))
    assert "secret" not in "".join(path.read_text() for path in notes.directory.iterdir())
    with notes.open(str(file), here) as note:
        assert note.known == begun(file, "v")
        note.remove()
        note.remove()
    assert list(notes.directory.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"path": 1}', '{"identity": {"a": 1}}', '{"identity": []}', "\0\xff", "[" * 9999]
)
def test_a_damaged_note_is_a_new_upload(notes, file, text):
    with notes.open(str(file), Destination("http://h", "k")) as note:
        note.write(begun(file))
    [path] = notes.directory.iterdir()
    told = json.loads(path.read_text())
    path.write_text(text, encoding="latin-1")
    with notes.open(str(file), Destination("http://h", "k")) as note:
        assert (note.known, note.damaged) == (None, True)
    path.write_text(json.dumps(told | {"key": "another"}))
    with notes.open(str(file), Destination("http://h", "k")) as note:
        assert (note.known, note.damaged) == (None, True)


async def test_a_damaged_note_is_said(site, file):
    await site.interrupted(file)
    site.noted()[0].write_text("{")
    assert (await site.run(file)).resumed == 0
    assert "cannot be read" in site.said[0]


def test_the_second_one_is_told_who_is_at_it(notes, file):
    destination = Destination("http://h", "k")
    with (
        notes.open(str(file), destination),
        pytest.raises(Interrupted, match=f"Process {os.getpid()} is pushing it to http://h/objects/k"),
        notes.open(str(file), destination),
    ):
        pass
    with notes.open(str(file), destination):
        pass


def test_notes_are_bounded(notes, file, monkeypatch):
    monkeypatch.setattr(unfinished, "MOST_NOTES", 3)
    for number in range(5):
        with notes.open(str(file), Destination("http://h", str(number))) as note:
            note.write(begun(file))
        os.utime(note._path, (number, number))
    old = notes.directory / "killed.new"
    old.touch()
    os.utime(old, (1, 1))
    monkeypatch.setattr("streamup.client.unfinished.time.time", lambda: unfinished.OLDEST_SECONDS + 3.5)
    notes.bound()
    assert [json.loads(path.read_text())["key"] for path in notes.directory.iterdir()] == ["4"]
    Notes(file / "nowhere").bound()


async def test_without_a_place_for_notes_it_is_sent_and_that_is_said_once(site, file):
    site.notes = Notes(file / "state")  # below a file
    await site.run(file)
    assert (len(site.said), "XDG_STATE_HOME" in site.said[0]) == (1, True)
    assert site.service.data("k") == BODY
    await site.run(file, "l")
    assert site.said == []


async def test_a_full_disk_for_notes_is_no_full_disk_for_files(site, file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unfinished, "_sync", full)
    await site.run(file)
    assert (len(site.said), "No space left" in site.said[0]) == (1, True)
    assert site.service.data("k") == BODY


async def test_a_file_system_without_locks_is_no_place_for_notes(site, file, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(unfinished.fcntl, "flock", refuse)
    await site.run(file)
    assert (len(site.said), "No locks available" in site.said[0]) == (1, True)


def test_the_place_for_notes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_directory() == Path("/state/streamup")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_directory() == Path("/home/me/.local/state/streamup")
    monkeypatch.setattr(unfinished.sys, "platform", "darwin")
    assert state_directory() == Path("/home/me/Library/Application Support/streamup")


# Several


async def push_all(site, pairs, **options):
    outcomes = []
    options.setdefault("parallel", 2)
    pushes = Pushes(
        [(str(path), destination) for path, destination in pairs],
        options.pop("token", None),
        site.notes,
        Lines(),
        outcomes.append,
        **options,
    )
    return outcomes, await pushes.run()


async def test_each_file_has_its_outcome(site, tmp_path):
    others = [tmp_path / f"{number}" for number in range(5)]
    for number, path in enumerate(others):
        path.write_bytes(BODY[number:])
    missing = tmp_path / "missing"
    pairs = [(path, site.to(f"d/{path.name}")) for path in [*others, missing, tmp_path]]
    outcomes, left = await push_all(site, pairs, parallel=3)
    ended = {Path(one.path).name: one for one in outcomes}
    assert (len(ended), left) == (7, 0)
    assert [site.service.data(f"d/{number}") for number in range(5)] == [BODY[number:] for number in range(5)]
    assert "No such file" in ended["missing"].error
    assert [one.again for one in outcomes if one.error] == [False, False]


async def test_what_is_done_is_not_sent_again_for_the_sake_of_others(site, tmp_path):
    """The same command goes on: not only with the file that it was at."""
    done, missing = tmp_path / "a b#1", tmp_path / "missing"
    done.write_bytes(BODY)
    pairs = [(path, site.to(f"d/{path.name}")) for path in (done, missing)]
    await push_all(site, pairs)
    assert len(site.noted()) == 1
    missing.write_bytes(BODY[1:])
    outcomes, _ = await push_all(site, pairs)
    assert {one.path: one.pushed.resumed for one in outcomes} == {str(done): len(BODY), str(missing): 0}
    assert list(site.notes.directory.iterdir()) == []
    outcomes, _ = await push_all(site, pairs)  # whoever pushes again what is all done, means it
    assert [one.pushed.resumed for one in outcomes] == [0, 0]


async def test_what_was_done_is_sent_again_if_it_is_no_longer_there(site, tmp_path, file):
    pairs = [(file, site.to("d/k")), (tmp_path / "missing", site.to("d/missing"))]
    await push_all(site, pairs)
    await site.service.ask("PUT", "/objects/d/k", body=b"another one")
    outcomes, _ = await push_all(site, pairs[:1])
    assert (outcomes[0].pushed.resumed, site.service.data("d/k")) == (0, BODY)
    assert site.noted() == []


async def test_a_file_that_somebody_else_pushes_may_go_later(site, file):
    with site.notes.open(str(file), site.to("k")):
        outcomes, _ = await push_all(site, [(file, site.to("k"))])
    assert [(one.again, "is pushing it" in one.error) for one in outcomes] == [(True, True)]


async def test_what_holds_for_all_is_asked_once(start_service, notes, file):
    service = await start_service(api_key_sha256=(hashlib.sha256(b"k" * 16).digest(),))
    site = Site(service, notes)
    pairs = [(file, site.to(f"{number}")) for number in range(9)]
    outcomes, left = await push_all(site, pairs, token="wrong", parallel=2)
    assert (len(outcomes) + left, len(outcomes) <= 2) == (9, True)
    assert not outcomes[0].again
    nowhere = Destination("http://127.0.0.1:9", "k")
    outcomes, left = await push_all(site, [(file, nowhere)] * 9, parallel=1)
    assert (len(outcomes), left, outcomes[0].again) == (1, 8, True)


async def test_a_credential_that_expires_interrupts(site, file, monkeypatch):
    async def expired(*_, **__):
        raise ClientError("The token has expired.", status=401, refused=True)

    monkeypatch.setattr(Client, "append", expired)
    outcomes, left = await push_all(site, [(file, site.to(f"{number}")) for number in range(9)], parallel=1)
    assert ([one.again for one in outcomes], left) == ([True], 8)


async def test_a_file_that_goes_on_after_its_end_is_no_file(site):
    """Procfs says of every file that it is empty."""
    with pytest.raises(TransferError, match=r"goes on there.*streamup push - URL < /proc/version"):
        await site.run("/proc/version")
    assert site.service.data("k") is None


async def test_a_note_is_written_once(site, file, monkeypatch):
    written = []
    write = Note.write
    monkeypatch.setattr(Note, "write", lambda note, begun: (written.append(begun), write(note, begun)))
    await site.run(file)
    assert len(written) == 1


async def test_a_server_that_says_later_is_asked_again(site, file, monkeypatch):
    answers = [ClientError("later", again=True, status=503)] * 3
    for name in ("create", "look"):
        ask = getattr(Client, name)

        async def busy(client, *args, _ask=ask, **options):
            if answers:
                raise answers.pop()
            return await _ask(client, *args, **options)

        monkeypatch.setattr(Client, name, busy)
    await site.run(file)
    assert (answers, site.service.data("k")) == ([], BODY)
    with site.notes.open(str(file), site.to("k")) as note:
        note.write(begun(file, (await site.service.ask("GET", "/uploads")).json["uploads"][0]["id"]))
    answers += [ClientError("later", again=True, status=503)] * 3
    assert (await site.run(file)).resumed == len(BODY)
    with site.notes.open(str(file), site.to("k")) as note:
        note.write(begun(file))
    answers += [ClientError("nobody there", again=True)] * 3
    with pytest.raises(ClientError, match="nobody"):  # who has never answered is not waited for
        await site.run(file)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            "405 Method Not Allowed\r\nContent-Type: text/html",
            "405 .*: That is no answer of streamup's. Is the address",
        ),
        ("301 Moved Permanently\r\nLocation: https://up.example.org/uploads", "sends us to https://up.example.org/upl"),
        ("503 Service Unavailable", "503 Service Unavailable$"),
    ],
)
async def test_a_refusal_that_is_not_streamups_says_what_to_look_at(wire, head, said):
    wire.reply = lambda _: f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode()
    async with Client(wire.url) as client:
        with pytest.raises(ClientError, match=said):
            await client.create("k")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 cannot be reached: Connection refused$"),
        ("http://host.invalid", "http://host.invalid cannot be reached: [A-Z][a-z ]+$"),
        ("https://{}", "cannot be reached: [a-z ]+. Does it speak HTTPS there[?]$"),
    ],
)
async def test_why_nobody_can_be_reached_is_told_in_few_words(site, url, said):
    async with Client(url.format(site.url.removeprefix("http://"))) as client:
        with pytest.raises(ClientError, match=said):
            await client.create("k")


async def test_a_server_that_is_not_streamup_is_called_that(wire, notes, file):
    wire.reply = lambda _: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
    async with Client(wire.url) as client:
        with pytest.raises(ClientError, match="Is this a streamup server"):
            await Push(client, notes, str(file), Destination(wire.url, "k")).run(Progress("f", None))
        with notes.open(str(file), Destination(wire.url, "k")) as note:
            note.write(begun(file))
        for said in (b"[]", b"{}", b'{"state": 1}', b'{"state":"open","key":"k","offset":1,"parts":1}'):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
            wire.reply = lambda _, answer=head + said: answer
            with pytest.raises(ClientError, match="Is this a streamup server"):
                await Push(client, notes, str(file), Destination(wire.url, "k")).run(Progress("f", None))
