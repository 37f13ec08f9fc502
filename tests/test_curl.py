"""The real curl against the real server: what was sent is what is stored, and what was not all sent is never whole."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from process import CURL, MIB, Server, content, curl, digest, prefix_of, run, running, until

pytest_plugins = ["weed", "process"]
pytestmark = pytest.mark.skipif(run(CURL, "--version").code != 0, reason="there is no curl")

STATUS = ("-o", os.devnull, "-w", "%{http_code} %{size_upload}")
PATIENT = ("--expect100-timeout", "30")
"""curl waits one second for `100 Continue`, or for what comes in its place: too short for a machine that is busy."""
"""Makes curl print the status, and how many bytes of body it sent."""


def stored(server: Server, key: str) -> str | None:
    """What a download of this key gives, by the 307 that GET answers."""
    got = curl("-f", "-L", server.object(key))
    return digest(got.out) if got.code == 0 else None


def offset_of(server: Server, key: str) -> int:
    """The offset as a person finds it: `curl -I`."""
    return int(re.search(r"(?im)^upload-offset: (\d+)", curl("-I", server.object(key)).text)[1])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def sending(server: Server, key: str, data: bytes, *words: str, **options):
    """A curl that sends `data` from a pipe which stays open, once the server has received all of it."""
    command = (CURL, "-q", "-sS", *words, "-T", "-", server.object(key))
    before = server.received(key)
    with running(*command, stdin=subprocess.PIPE, **options) as process:
        process.stdin.write(data)
        process.stdin.flush()
        until(lambda: server.received(key) == before + len(data), what=f"{len(data)} bytes at the server")
        yield process


# -- whole objects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 23 * MIB])
def test_a_pipe_becomes_an_object(server, size):
    data = content(size, size)
    sent = curl("-f", "-T", "-", f"{server.object(f'pipe-{size}')}", stdin=data)
    assert sent.code == 0
    assert json.loads(sent.out)["size"] == size
    assert stored(server, f"pipe-{size}") == digest(data)


def test_a_slow_pipe_in_many_small_pieces(server):
    script = "for i in $(seq 200); do printf 'line %d\\n' $i; done"
    with (
        running("sh", "-c", script) as producer,
        running(CURL, "-sS", "-T", "-", server.object("log"), stdin=producer.stdout) as sender,
    ):
        assert json.loads(sender.communicate(timeout=30)[0])["key"] == "log"
    assert stored(server, "log") == digest(b"".join(b"line %d\n" % i for i in range(1, 201)))


def test_a_url_that_ends_in_a_slash_gets_the_files_name(server, tmp_path):
    file = write(tmp_path / "a film.mp4", content(6 * MIB))
    assert curl("-f", "-T", file, f"{server.url}/objects/films/").code == 0
    assert stored(server, "films/a%20film.mp4") == digest(file.read_bytes())


def test_an_object_is_replaced_by_the_next_one(server):
    for seed in (1, 2):
        assert curl("-f", "-T", "-", server.object("twice"), stdin=content(6 * MIB, seed)).code == 0
    assert stored(server, "twice") == digest(content(6 * MIB, 2))


def test_an_empty_pipe_does_not_replace_an_object(server):
    assert curl("-f", "-T", "-", server.object("kept"), stdin=b"kept").code == 0
    assert curl("-f", "-T", "-", server.object("kept"), stdin=b"").code == 22
    assert stored(server, "kept") == digest(b"kept")


def test_no_bytes_are_sent_after_a_refusal(server):
    """curl says `Expect: 100-continue`, and the refusal stands in its place."""
    send = (*STATUS, *PATIENT, "-T", "-")
    with sending(server, "busy", b"first"):
        assert curl(*send, server.object("busy"), stdin=b"second").text == "409 0"
        assert server.received("busy") == len(b"first")
    assert curl(*send, server.object("../up"), "--path-as-is", stdin=b"second").text == "400 0"
    foreign = ("-H", "Origin: https://elsewhere.example")
    assert curl(*send, *foreign, server.object("k"), stdin=b"second").text == "403 0"


def test_no_bytes_are_sent_without_the_key(serve):
    server = serve("--api-key=0123456789abcdef").start()
    send = (*STATUS, *PATIENT, "-T", "-", server.object("k"))
    assert curl(*send, stdin=b"body").text == "401 0"
    assert curl(*send, "-u", "any:0123456789abcdeX", stdin=b"body").text == "401 0"
    for right in (("-u", "any:0123456789abcdef"), ("-H", "Authorization: Bearer 0123456789abcdef")):
        assert curl(*STATUS, *right, "-T", "-", server.object("k"), stdin=b"body").text.startswith("201 ")


# -- interrupted -----------------------------------------------------------------------------------------------------


def interrupt(server: Server, key: str, data: bytes) -> None:
    """Leave an interrupted upload of exactly `data`: its curl is killed."""
    with sending(server, key, data) as process:
        process.kill()
    until(lambda: not server.open_upload(key)["writer"], what="the writer's end")


def test_a_killed_curl_leaves_an_upload_that_says_how_to_go_on(server):
    interrupt(server, "cut", b"0123456789")
    refused = curl("-T", "-", server.object("cut"), stdin=b"other")
    assert json.loads(refused.out)["status"] == 409
    assert "Content-Range: bytes 10-*/*" in json.loads(refused.out)["detail"]
    assert offset_of(server, "cut") == 10
    on = ("-H", "Content-Range: bytes 10-*/*", "-T", "-")
    assert curl("-f", *on, server.object("cut"), stdin=b"abc").code == 0
    assert stored(server, "cut") == digest(b"0123456789abc")


def test_append_goes_on_where_the_stream_broke(server):
    first, second = content(7 * MIB, 1), content(8 * MIB, 2)
    interrupt(server, "append", first)
    assert curl("-f", "-T", "-", f"{server.object('append')}?interrupted=append", stdin=second).code == 0
    assert stored(server, "append") == digest(first + second)


def test_append_takes_over_from_a_curl_that_still_sends(server):
    """Its bytes up to then are kept, and none of those that it sends afterwards."""
    with sending(server, "take-over", b"first ") as old:
        new = curl("-f", "-T", "-", f"{server.object('take-over')}?interrupted=append", stdin=b"second")
        assert new.code == 0
        with contextlib.suppress(BrokenPipeError):
            old.stdin.write(b"too late")
            old.stdin.close()
        old.stdin = None
        assert b"409" in old.communicate(timeout=20)[0] or old.returncode != 0
    assert stored(server, "take-over") == digest(b"first second")


def test_an_empty_append_ends_nothing(server):
    interrupt(server, "tail", b"kept")
    assert curl("-f", "-T", "-", f"{server.object('tail')}?interrupted=append", stdin=b"").code == 22
    assert server.received("tail") == 4


def test_replace_begins_afresh_and_new_goes_elsewhere(server):
    interrupt(server, "take.wav", b"abandoned")
    new = curl("-f", "-T", "-", f"{server.object('take.wav')}?interrupted=new", stdin=b"beside")
    assert json.loads(new.out)["key"] == "take-1.wav"
    assert server.received("take.wav") == len(b"abandoned")
    assert curl("-f", "-T", "-", f"{server.object('take.wav')}?interrupted=replace", stdin=b"afresh").code == 0
    assert [stored(server, key) for key in ("take.wav", "take-1.wav")] == [digest(b"afresh"), digest(b"beside")]


def test_content_range_asks_for_the_offset(server):
    def ask(key: str) -> tuple[str, str]:
        words = ("-o", os.devnull, "-w", "%{http_code} %header{range}", "-X", "PUT", "-H", "Content-Range: bytes */*")
        status, _, range_ = curl(*words, server.object(key)).text.partition(" ")
        return status, range_

    assert ask("unknown")[0] == "404"
    interrupt(server, "asked", content(6 * MIB))
    assert ask("asked") == ("308", f"bytes=0-{6 * MIB - 1}")
    on = ("-H", f"Content-Range: bytes {6 * MIB}-*/*", "-T", "-")
    assert curl("-f", *on, server.object("asked"), stdin=b"z").code == 0
    assert ask("asked") == ("200", "")


def test_a_wrong_offset_is_refused_with_the_right_one(server, tmp_path):
    data = content(6 * MIB)
    file = write(tmp_path / "file", data)
    interrupt(server, "file", data[:1000])
    refused = curl("-C", "999", "-T", file, server.object("file"))
    assert json.loads(refused.out)["expected-offset"] == 1000
    assert curl("-f", "-C", "1000", "-T", file, server.object("file")).code == 0
    assert stored(server, "file") == digest(data)


def test_not_yet_the_end(server):
    """`--max-time` and a dying producer end a pipe as if it were all: curl sends the last chunk. `?0` says: not all."""
    words = ("--max-time", "1", "-H", "Upload-Complete: ?0")
    with sending(server, "live", b"so far", *words) as process:  # stdin stays open: the time is curl's own
        process.wait(20)
        assert process.returncode == 28
    assert server.ask("GET", "/objects/live").status == 404
    until(lambda: not server.open_upload("live")["writer"], what="the writer's end")
    seal = ("-X", "PUT", "-H", "Content-Range: bytes */6", "-H", "Upload-Complete: ?1")
    assert curl("-f", *seal, server.object("live")).code == 0
    assert stored(server, "live") == digest(b"so far")


def test_max_time_on_a_file_never_completes(server, tmp_path):
    file = write(tmp_path / "slow", content(6 * MIB))
    assert curl("--max-time", "1", "--limit-rate", "2M", "-T", file, server.object("slow")).code == 28
    until(lambda: (found := server.open_upload("slow")) and not found["writer"], what="the writer's end")
    assert server.ask("GET", "/objects/slow").status == 404
    assert curl("-f", "-C", str(offset_of(server, "slow")), "-T", file, server.object("slow")).code == 0
    assert stored(server, "slow") == digest(file.read_bytes())


# -- with the server killed ------------------------------------------------------------------------------------------


def test_a_file_goes_on_after_kill_9(serve, tmp_path):
    server = serve("--downloads").start()
    file = write(tmp_path / "film", content(24 * MIB))
    with running(CURL, "-sS", "--limit-rate", "40M", "-T", file, server.object("film")) as process:
        received = until(lambda: (now := server.received("film")) > 8 * MIB and now)
        server.kill()
        assert process.wait(20) != 0
    server.start()
    offset = offset_of(server, "film")
    assert received <= offset < 24 * MIB
    assert curl("-f", "-C", str(offset), "-T", file, server.object("film")).code == 0
    assert stored(server, "film") == digest(file.read_bytes())
    server.until_quiet()


@pytest.mark.parametrize(
    "existing", [pytest.param(None, id="new", marks=pytest.mark.campaign), pytest.param(b"older", id="existing")]
)
def test_a_retry_on_stdin_never_replaces_and_never_truncates(serve, bucket, existing):
    """After a reset `curl --retry-all-errors` sends the rest of its stdin as if that were the whole: 409, it fails."""
    server = serve().start()
    if existing:
        assert curl("-f", "-T", "-", server.object("pipe"), stdin=existing).code == 0
    words = ("-f", "--retry", "4", "--retry-all-errors", "--retry-delay", "1")
    with sending(server, "pipe", content(6 * MIB), *words) as process:
        received = server.received("pipe")
        server.kill()
        server.start()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"the tail")
            process.stdin.close()
        process.stdin = None
        _, err = process.communicate(timeout=60)
        assert process.returncode == 22
        assert b"409" in err
    assert server.received("pipe") >= received
    assert digest(bucket.read(prefix_of(server) + "pipe")) == digest(existing)


@pytest.mark.campaign
def test_a_retry_after_503_in_place_of_100_sends_everything(serve, tmp_path):
    """Only a refusal that took no byte may be one that curl retries."""
    server = serve("--downloads", "--disk-floor=1000TiB").start(ready="/healthz")  # no disk has that: nobody is let in
    data = content(6 * MIB)
    words = ("-sSfv", "--retry", "30", "--retry-connrefused", "--retry-delay", "1", "-T", "-", server.object("k"))
    with (
        (tmp_path / "err").open("w+b") as err,
        running(CURL, "-q", *words, stdin=subprocess.PIPE, stderr=err) as sender,
    ):
        feeding = threading.Thread(target=sender.communicate, args=(data,))
        feeding.start()
        until(lambda: b" 503" in (tmp_path / "err").read_bytes(), what="503")
        server.kill()
        server.options = (*server.options[:-1], "--disk-floor=1MiB")
        server.start()
        feeding.join(60)
        assert sender.returncode == 0
    assert stored(server, "k") == digest(data)


def test_retries_on_stdin_see_no_status_that_curl_retries(serve):
    """Cut after some bytes, by us: whatever the server says then, curl must not send the rest as a whole."""
    server = serve("--idle=500ms").start()
    words = ("-f", "--retry", "5", "--retry-delay", "1")
    with sending(server, "idle", b"some bytes, and then nothing", *words) as process:
        until(lambda: not server.open_upload("idle")["writer"], what="the idle limit")
        process.stdin.close()
        process.stdin = None
        process.communicate(timeout=30)
        assert process.returncode not in {0, None}
    assert server.received("idle") == len(b"some bytes, and then nothing")


def test_sigterm_keeps_every_byte(serve, tmp_path):
    server = serve("--downloads").start()
    data = content(9 * MIB)
    with sending(server, "kept", data) as process:
        server.stop()
        process.stdin.close()
        process.stdin = None
        process.communicate(timeout=20)
    server.start()
    assert offset_of(server, "kept") == len(data)
    assert curl("-f", "-C", str(len(data)), "-T", write(tmp_path / "f", data + b"!"), server.object("kept")).code == 0
    assert stored(server, "kept") == digest(data + b"!")


def test_a_client_that_vanishes_is_interrupted(serve):
    """No FIN, no RST: only the idle limit tells."""
    server = serve("--idle=1s").start()
    with socket.create_connection(("127.0.0.1", server.ports[0])) as client:
        client.sendall(b"PUT /objects/gone HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"4\r\nfour\r\n")
        until(lambda: server.received("gone") == 4, what="four bytes")
        began = time.monotonic()
        until(lambda: not server.open_upload("gone")["writer"], what="the idle limit")
        assert time.monotonic() - began < 5


@pytest.mark.campaign
def test_a_large_file_through_three_kills(serve, tmp_path):
    """256 MiB by `curl -T`, killed three times, each time continued by `curl -I` for the offset and `curl -C`."""
    server = serve("--downloads").start()
    file = write(tmp_path / "film", content(256 * MIB))
    offset = 0
    for fourth in (1, 2, 3):
        target = fourth * 64 * MIB - 7 * MIB
        words = ("--limit-rate", "150M", "-C", str(offset), "-T", file, server.object("film"))
        with running(CURL, "-q", "-sSf", *words) as process:
            received = until(lambda target=target: (now := server.received("film")) > target and now)
            server.kill()
            assert process.wait(20) != 0
        server.start()
        offset = offset_of(server, "film")
        assert received <= offset < 256 * MIB
    assert curl("-f", "-C", str(offset), "-T", file, server.object("film")).code == 0
    assert curl("-f", "-L", "-o", tmp_path / "got", server.object("film")).code == 0
    assert digest((tmp_path / "got").read_bytes()) == digest(file.read_bytes())
    server.until_quiet()
