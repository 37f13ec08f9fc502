"""tus-js-client in node against the real server: files and streams, and either of the two killed under way."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from npm import NODE
from process import MIB, Bucket, Server, content, digest, prefix_of, running, until

pytest_plugins = ["weed", "process", "npm"]

SCRIPT = Path(__file__).parent / "js" / "upload.mjs"
PATIENT = [100] * 150
"""`retryDelays` in milliseconds, for longer than a server takes to come back."""

IETF = ("ietf-draft-03", "ietf-draft-05")
SIZE = 12 * MIB + 345
"""Three parts, and no multiple of a chunk: then tus-js-client waits for ever for the end of a stream."""

FILM = content(SIZE)


@dataclass
class Node:
    """A node that runs upload.mjs."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Those it has told so far, without a line that is not finished."""
        lines = self.out.read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in told if event["event"] == name]

    def answers(self, method: str) -> list[int]:
        return [event["status"] for event in self.events("answer") if event["method"] == method]

    @property
    def told(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def ends(self, event: str = "success") -> None:
        """Wait for its end, and that it is this one."""
        code = self.process.wait(60)
        assert self.events(event), self.told
        assert code == (event == "error")


@dataclass(frozen=True)
class Uploading:
    """Starts nodes. `uploading(server, key)` is one in the background, `uploading.whole(…)` one to its success."""

    packages: Path
    bucket: Bucket
    directory: Path

    @property
    def film(self) -> Path:
        """What is uploaded unless something else is said."""
        return self.directory / "film.mp4"

    @contextlib.contextmanager
    def __call__(self, server: Server, key: str, **settings: Any) -> Iterator[Node]:
        """`options` are tus-js-client's, `stdin` is Popen's, the others those of upload.mjs."""
        given = {"metadata": {"key": key}, **settings.pop("options", {})}
        if given.get("protocol") in IETF:  # whose clients have only the address to say the key
            given = {"endpoint": f"{server.url}/uploads?key={key}", **given, "metadata": {}}
        options = {"endpoint": f"{server.url}/uploads", "retryDelays": PATIENT, **given}
        stdin = settings.pop("stdin", subprocess.DEVNULL)
        words = json.dumps({"input": str(self.film), "options": options, **settings})
        name = len(list(self.directory.glob("*.out")))
        out, err = self.directory / f"{name}.out", self.directory / f"{name}.err"
        with (
            out.open("wb") as stdout,
            err.open("wb") as stderr,
            running(NODE, SCRIPT, words, cwd=self.packages, stdin=stdin, stdout=stdout, stderr=stderr) as process,
        ):
            yield Node(process, out, err)

    def stream(self, server: Server, key: str, **settings: Any) -> contextlib.AbstractContextManager[Node]:
        """Of what its stdin gets, as long as that is open."""
        return self(server, key, input=None, stdin=subprocess.PIPE, **settings)

    def whole(self, server: Server, key: str, **settings: Any) -> Node:
        with self(server, key, **settings) as node:
            node.ends()
        return node

    def check(self, server: Server, key: str, data: bytes = FILM) -> None:
        """The object is what was sent, and it came of exactly one upload: none other was made on the way."""
        assert digest(self.bucket.read(prefix_of(server) + key)) == digest(data)
        assert [upload["state"] for upload in server.uploads(key)] == ["complete"]


@pytest.fixture
def uploading(tus_js, bucket, tmp_path) -> Uploading:
    found = Uploading(tus_js, bucket, tmp_path)
    found.film.write_bytes(FILM)
    return found


def write(node: Node, data: bytes) -> None:
    """Give a stream more. A node that does not read it is ended."""
    deadline = threading.Timer(60, node.process.kill)
    deadline.start()
    try:
        node.process.stdin.write(data)
        node.process.stdin.flush()
    except BrokenPipeError:
        pytest.fail(f"it does not read to the end:\n{node.told}")
    finally:
        deadline.cancel()


def close(node: Node) -> None:
    node.process.stdin.close()
    node.process.stdin = None


# -- whole uploads ---------------------------------------------------------------------------------------------------


def test_a_file_in_chunks(server, uploading):
    node = uploading.whole(server, "chunks", options={"chunkSize": 5_000_000})
    assert [event["offset"] for event in node.events("chunk")] == [5_000_000, 10_000_000, SIZE]
    assert (node.answers("POST"), node.answers("PATCH")) == ([201], [204] * 3)
    uploading.check(server, "chunks")


WAYS = {
    "one-request": {},
    "with-creation": {"uploadDataDuringCreation": True},
    "with-creation-in-chunks": {"uploadDataDuringCreation": True, "chunkSize": 5 * MIB},
    "method-override": {"overridePatchMethod": True, "chunkSize": 5 * MIB},
    "small-chunks": {"chunkSize": 700_000},
}


@pytest.mark.campaign
@pytest.mark.parametrize("way", WAYS)
def test_a_file_in_other_ways(server, uploading, way):
    uploading.whole(server, way, options=WAYS[way])
    uploading.check(server, way)


@pytest.mark.campaign
def test_an_empty_file(server, uploading):
    uploading.film.write_bytes(b"")
    uploading.whole(server, "empty")
    uploading.check(server, "empty", b"")


@pytest.mark.campaign
def test_the_name_and_the_type_of_a_file(server, bucket, uploading):
    """Without a key the object is named after the file, and so that nobody else's has the same name."""
    metadata = {"filename": "Überblick 1.mp4", "filetype": "video/mp4"}
    before = {upload["id"] for upload in server.uploads()}
    uploading.whole(server, "", options={"metadata": metadata})
    (upload,) = [upload for upload in server.uploads() if upload["id"] not in before]
    assert upload["key"] == f"{upload['id']}/Überblick 1.mp4"
    uploading.check(server, upload["key"])
    head = bucket.client.head_object(Bucket=bucket.name, Key=prefix_of(server) + upload["key"])
    assert head["ContentType"] == "video/mp4"


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", ["tus-v1", *IETF])
def test_a_stream_of_unknown_length(server, uploading, protocol):
    """Chunks go while the stream is still open. Its length comes with the last one, or with an empty one."""
    key = f"stream-{protocol}"
    options = {"uploadLengthDeferred": True, "chunkSize": 3 * MIB, "protocol": protocol}
    with uploading.stream(server, key, options=options) as node:
        write(node, FILM[: 7 * MIB])
        until(lambda: server.received(key) == 6 * MIB, what="two chunks of an open stream")
        write(node, FILM[7 * MIB :])
        close(node)
        node.ends()
    uploading.check(server, key)


@pytest.mark.campaign
def test_a_cancelled_upload_is_gone(server, bucket, uploading):
    """`abort(true)` says DELETE."""
    with uploading(server, "cancelled", cancelAt=5 * MIB, options={"chunkSize": 5 * MIB}) as node:
        node.ends("cancelled")
    assert node.answers("DELETE") == [204]
    assert server.open_upload("cancelled") is None
    assert bucket.read(prefix_of(server) + "cancelled") is None


# -- the IETF drafts, as tus-js-client speaks them -------------------------------------------------------------------


IETF_WAYS = {
    "one-request": {},
    "with-creation": {"uploadDataDuringCreation": True},
    "in-chunks": {"chunkSize": 5 * MIB},
}


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", IETF)
@pytest.mark.parametrize("way", IETF_WAYS)
def test_a_file_by_an_ietf_draft(server, uploading, protocol, way):
    key = f"{protocol}-{way}"
    uploading.whole(server, key, buffer=True, options={"protocol": protocol, **IETF_WAYS[way]})
    uploading.check(server, key)


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", IETF)
def test_a_client_that_never_says_complete_loses_nothing_and_hears_of_no_success(server, bucket, uploading, protocol):
    """In node, tus-js-client says `Upload-Complete: ?0` of a file's last chunk as well (its issue 820).

    The drafts leave such an upload open, whatever its length. All of it is there, and one word makes it an object.
    """
    key = f"{protocol}-unsaid"
    with uploading(server, key, options={"protocol": protocol, "chunkSize": 5 * MIB, "retryDelays": [100]}) as node:
        node.ends("error")
    upload = server.open_upload(key)
    assert upload["offset"] == SIZE
    assert bucket.read(prefix_of(server) + key) is None
    word = {"Upload-Offset": str(SIZE), "Upload-Complete": "?1"}
    assert server.ask("PATCH", f"/uploads/{upload['id']}", word).status == 201
    uploading.check(server, key)


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", IETF)
def test_an_empty_file_by_an_ietf_draft_is_an_object_or_an_error(server, bucket, uploading, protocol):
    """It is created with `Upload-Complete: ?0`, and no other request follows: that makes no object."""
    uploading.film.write_bytes(b"")
    key = f"{protocol}-empty"
    with uploading(server, key, buffer=True, options={"protocol": protocol}) as node:
        node.ends("error")
    assert bucket.read(prefix_of(server) + key) is None
    assert node.answers("POST") == [400]


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", IETF)
def test_an_ietf_draft_at_the_address_of_the_object(server, uploading, protocol):
    key = f"at-its-address-{protocol}"
    uploading.whole(server, key, options={"protocol": protocol, "endpoint": server.object(key)})
    uploading.check(server, key)


# -- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.parametrize("protocol", ["tus-v1", *IETF])
def test_a_killed_client_finds_its_upload_again(server, uploading, protocol):
    """SIGKILL in the middle of a request. The next process has the URL from a file, and asks how far it came."""
    key = f"client-{protocol}"
    settings = {
        "urls": str(uploading.directory / "urls.json"),
        "buffer": protocol
        in IETF,  # see `test_a_client_that_never_says_complete_loses_nothing_and_hears_of_no_success`
        "options": {"protocol": protocol},
    }
    with uploading(server, key, slowAt=5 * MIB, **settings) as node:
        until(lambda: server.received(key) > 5 * MIB, what="five MiB")
        node.process.kill()
        node.process.wait()
    again = uploading.whole(server, key, **settings)
    assert [event["count"] for event in again.events("previous")] == [1]
    assert (again.answers("POST"), len(again.answers("HEAD"))) == ([], 1)
    uploading.check(server, key)


GOES = {"kill -9": Server.kill, "SIGTERM": Server.stop}


@pytest.mark.campaign
@pytest.mark.parametrize("goes", GOES)
@pytest.mark.parametrize(
    "options",
    [{}, {"chunkSize": 3 * MIB}, {"protocol": "ietf-draft-05"}],
    ids=["tus", "tus-chunks", "ietf-draft-05"],
)
def test_the_server_goes_and_comes_back(serve, uploading, goes, options):
    """Only the client's `retryDelays` bring it back. No answer on the way makes it begin a second upload."""
    server = serve().start()
    with uploading(server, "film", slowAt=5 * MIB, buffer="protocol" in options, options=options) as node:
        until(lambda: server.received("film") > 5 * MIB, what="five MiB")
        GOES[goes](server)
        server.start()
        node.ends()
    assert node.events("broken")
    assert node.answers("POST") == [201]
    uploading.check(server, "film")
    server.until_quiet()


@pytest.mark.campaign
@pytest.mark.parametrize("goes", GOES)
def test_a_stream_lives_through_the_loss_of_its_server(serve, uploading, goes):
    """A stream steps back only within its last chunk: an offset before that would be the end of it."""
    server = serve().start()
    options = {"uploadLengthDeferred": True, "chunkSize": 3 * MIB}
    with uploading.stream(server, "stream", slowAt=4 * MIB, options=options) as node:
        write(node, FILM[: 7 * MIB])
        until(lambda: server.received("stream") > 4 * MIB, what="the middle of the second chunk")
        GOES[goes](server)
        server.start()
        write(node, FILM[7 * MIB :])
        close(node)
        node.ends()
    assert node.events("broken")
    assert node.answers("POST") == [201]
    uploading.check(server, "stream")


@pytest.mark.campaign
def test_a_server_that_dies_at_the_last_step(serve, uploading):
    """All bytes are there, and the store has not said yes: the client must not take that for success."""
    server = serve().start("before_complete_multipart:1")
    with uploading(server, "last", options={"chunkSize": 5 * MIB}) as node:
        until(server.killed, what="the failpoint")
        assert not node.events("success")
        server.start()
        node.ends()
    assert node.answers("POST") == [201]
    uploading.check(server, "last")


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_a_wrong_key_is_refused_and_the_right_one_is_not(serve, bucket, uploading):
    server = serve("--api-key=0123456789abcdef").start()
    with uploading(server, "k", options={"headers": {"Authorization": "Bearer 0123456789abcdeX"}}) as node:
        node.ends("error")
    assert node.answers("POST") == [401]
    uploading.whole(server, "k", options={"headers": {"Authorization": "Bearer 0123456789abcdef"}})
    assert digest(bucket.read(prefix_of(server) + "k")) == digest(FILM)


@pytest.mark.campaign
def test_a_file_that_is_too_large_is_refused_at_once(serve, uploading):
    server = serve("--max-upload-size=10MiB").start()
    with uploading(server, "large") as node:
        node.ends("error")
    assert node.answers("POST") == [413]
    assert server.uploads() == []
    assert server.spooled() == {}


@pytest.mark.campaign
def test_parallel_parts_are_refused_before_a_byte(server, uploading):
    """Concatenation is not among the extensions that OPTIONS lists: nobody is left with halves."""
    assert "concatenation" not in server.ask("OPTIONS", "/uploads").headers["Tus-Extension"]
    before = server.uploads()
    with uploading(server, "parallel", options={"parallelUploads": 2}) as node:
        node.ends("error")
    assert server.uploads() == before
