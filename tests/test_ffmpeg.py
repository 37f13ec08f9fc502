"""The real ffmpeg against the real server. It reads no answers and waits for none: what it sends must be enough."""

import re
from pathlib import Path

import imageio_ffmpeg
import pytest
from process import CURL, MIB, Server, curl, digest, prefix_of, run, running, until

pytest_plugins = ["weed", "process"]

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RATE = 25
KEY = "0123456789abcdef"


def source(seconds: float, size: str = "320x180") -> tuple[str, ...]:
    """A moving picture with a tone, a key frame each second, encoded fast."""
    return (
        *("-f", "lavfi", "-i", f"testsrc=size={size}:rate={RATE}", "-f", "lavfi", "-i", "sine=frequency=440"),
        *("-t", str(seconds), "-map", "0:v", "-map", "1:a", "-pix_fmt", "yuv420p"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", str(RATE), "-c:a", "aac"),
    )


def ffmpeg(*words: str | Path, seconds: float = 60):
    return run(FFMPEG, "-nostdin", "-v", "error", *words, seconds=seconds)


def both(server: Server, key: str, local: Path, options: str = "") -> str:
    """A `tee` that writes the same stream into a file and to the server."""
    return f"[f=mpegts]{local}|[f=mpegts{options}]{server.object(key)}"


def frames(data: bytes, path: Path) -> int:
    """How many pictures ffmpeg decodes from it. It must come to the end."""
    path.write_bytes(data)
    decoded = run(FFMPEG, "-nostdin", "-i", path, "-map", "0:v", "-f", "null", "-")
    assert decoded.code == 0, decoded.err
    return int(re.findall(r"frame=\s*(\d+)", decoded.err)[-1])


@pytest.mark.parametrize(("options", "name"), [(":method=PUT", "put"), ("", "post"), (":multiple_requests=1", "kept")])
def test_a_transport_stream_equals_the_local_copy(server, bucket, tmp_path, options, name):
    """By PUT, by ffmpeg's own choice POST, and on a connection that it wants to keep."""
    local = tmp_path / "local.ts"
    sent = ffmpeg(*source(6), "-f", "tee", both(server, f"{name}.ts", local, options))
    assert (sent.code, sent.err) == (0, "")
    server.until_quiet(name)
    whole = bucket.read(f"{prefix_of(server)}{name}.ts")
    assert digest(whole) == digest(local.read_bytes())
    assert frames(whole, tmp_path / "whole.ts") == 6 * RATE


def test_a_stream_of_many_parts_loses_no_tail(server, bucket, tmp_path):
    """ffmpeg sends as fast as it can, closes without waiting, and has gone long before the store has all parts."""
    local = tmp_path / "local.ts"
    video = ("-f", "lavfi", "-i", "nullsrc=size=640x360:rate=25,noise=alls=100:allf=t", "-t", "4")
    code = ("-c:v", "mpeg2video", "-q:v", "2", "-map", "0:v", "-f", "tee")
    assert ffmpeg(*video, *code, both(server, "noise.ts", local, ":method=PUT")).code == 0
    server.until_quiet("noise")
    assert local.stat().st_size > 12 * MIB
    assert digest(bucket.read(f"{prefix_of(server)}noise.ts")) == digest(local.read_bytes())


def test_ffmpeg_is_told_when_it_is_refused(server):
    """By 409 here; with `-send_expect_100 1` it waits for the word, and fails. So do short streams only then."""
    assert server.ask("PUT", "/objects/open.ts", {"Upload-Complete": "?0"}, b"kept").status == 201
    put = ("-f", "mpegts", "-method", "PUT", "-send_expect_100", "1")
    refused = ffmpeg(*source(1), *put, server.object("open.ts"))
    assert refused.code != 0
    assert "4XX Client Error" in refused.err
    assert server.received("open.ts") == 4
    foreign = ffmpeg(*source(1), *put, "-headers", "Origin: https://elsewhere.example\r\n", server.object("foreign.ts"))
    assert foreign.code != 0
    assert "403" in foreign.err
    assert ffmpeg(*source(1), *put, f"{server.object('open.ts')}?interrupted=replace").code == 0


def test_a_refused_live_stream_fails_even_without_expect(server):
    """The connection is cut after the answer, so a stream that is longer than that cannot end well."""
    assert server.ask("PUT", "/objects/taken.ts", {"Upload-Complete": "?0"}, b"kept").status == 201
    sent = ffmpeg("-re", *source(8), "-f", "mpegts", "-method", "PUT", server.object("taken.ts"))  # real time matters
    assert sent.code != 0
    assert server.received("taken.ts") == 4


def test_ffmpeg_shows_its_key_as_basic_password(serve, bucket, tmp_path):
    server = serve(f"--api-key={KEY}").start()
    put = ("-f", "mpegts", "-method", "PUT")
    url = server.object("k.ts").replace("http://", "http://any:{}@")
    for wrong in (server.object("k.ts"), url.format("0123456789abcdeX")):
        refused = ffmpeg(*source(1), *put, "-send_expect_100", "1", wrong)
        assert refused.code != 0
        assert "401" in refused.err
    assert ffmpeg(*source(2), *put, url.format(KEY)).code == 0
    whole = until(lambda: bucket.read(f"{prefix_of(server)}k.ts"), what="the object")
    assert frames(whole, tmp_path / "whole.ts") == 2 * RATE


def test_a_playlist_that_is_overwritten_fifty_times_ends_with_the_last_one(server, bucket, tmp_path):
    """HLS: each segment by PUT, then the playlist over its predecessor, then DELETE of the oldest segment.

    All of it faster than the store takes it: a playlist comes while those before are still being read and sealed.
    """
    (tmp_path / "hls").mkdir()
    options = "hls_time=0.2:hls_list_size=5:hls_flags=delete_segments:hls_segment_filename={}/%03d.ts"
    at = server.object("hls")
    local = f"[f=hls:{options.format(tmp_path / 'hls')}]{tmp_path / 'hls' / 'live.m3u8'}"
    # In a tee, `:` separates options, so it is escaped in the URL.
    remote = f"[f=hls:method=PUT:{options.format(at.replace(':', chr(92) * 2 + ':'))}]{at}/live.m3u8"
    sent = ffmpeg(*source(11, "160x90"), "-g", "5", "-f", "tee", f"{local}|{remote}")
    assert sent.code == 0, sent.err
    server.until_quiet("hls/")
    written = {path.name: path.read_bytes() for path in (tmp_path / "hls").iterdir()}
    assert "054.ts" in written  # the fifty-fifth segment, and so the fifty-fifth playlist
    assert {upload["state"] for upload in server.uploads("hls/live.m3u8")} == {"complete"}
    prefix = f"{prefix_of(server)}hls/"
    until(lambda: set(bucket.keys(prefix)) == set(written), what=f"exactly {sorted(written)} in the store")
    assert {name: digest(bucket.read(prefix + name)) for name in written} == {
        name: digest(data) for name, data in written.items()
    }
    named = [Path(line).name for line in written["live.m3u8"].decode().split() if not line.startswith("#")]
    assert len(named) == 5
    assert frames(b"".join(written[name] for name in named), tmp_path / "window.ts") == 5 * 5


@pytest.mark.campaign
def test_dash_segments_that_stay_open_arrive_whole(server, bucket, tmp_path):
    """Each segment's PUT lasts as long as the segment; manifests and deletions come on other connections.

    In real time, which matters: what ffmpeg pipelines on a connection that it then closes may be lost (aiohttp).
    """
    put = ("-method", "PUT", "-http_persistent", "1", "-streaming", "1", "-window_size", "2", "-extra_window_size", "0")
    dash = ("-f", "dash", "-seg_duration", "1", "-ldash", "0", *put, server.object("dash/live.mpd"))
    sent = ffmpeg("-re", *source(4.5), *dash)
    assert sent.code == 0, sent.err
    server.until_quiet("dash/")
    prefix = f"{prefix_of(server)}dash/"
    manifest = bucket.read(f"{prefix}live.mpd").decode()
    assert 'type="static"' in manifest  # the last one
    kept = sorted(key for key in bucket.keys(prefix) if key.startswith("chunk-stream0"))
    init = bucket.read(f"{prefix}init-stream0.m4s")
    assert frames(init + b"".join(bucket.read(prefix + key) for key in kept), tmp_path / "d.mp4") > RATE


def test_ffmpeg_by_a_pipe_through_curl(server, bucket, tmp_path):
    """The README's way: curl tells whether it worked."""
    local = tmp_path / "local.ts"
    command = (FFMPEG, "-nostdin", "-v", "error", *source(3), "-f", "mpegts", "pipe:1")
    with (
        running(*command) as producer,
        running("tee", local, stdin=producer.stdout) as tee,
        running(CURL, "-q", "-sSf", "-T", "-", server.object("pipe.ts"), stdin=tee.stdout) as sender,
    ):
        _, err = sender.communicate(timeout=30)
        assert (sender.returncode, err) == (0, b"")
    assert digest(bucket.read(f"{prefix_of(server)}pipe.ts")) == digest(local.read_bytes())
    assert frames(local.read_bytes(), tmp_path / "f.ts") == 3 * RATE


def test_a_killed_ffmpeg_is_interrupted_and_the_next_one_appends(server, bucket, tmp_path):
    """SIGKILL sends no last chunk. MPEG-TS bears the seam."""
    command = (FFMPEG, "-nostdin", "-v", "error", "-re", *source(60), "-f", "mpegts", "-method", "PUT")
    with running(*command, "-flush_packets", "1", server.object("seam.ts")) as process:
        until(lambda: server.received("seam.ts") > 50_000, what="some of the stream")
        process.kill()
        process.communicate()
    upload = until(lambda: (found := server.open_upload("seam.ts")) and not found["writer"] and found)
    assert server.ask("GET", "/objects/seam.ts").status == 404
    append = ffmpeg(*source(2), "-f", "mpegts", "-method", "PUT", f"{server.object('seam.ts')}?interrupted=append")
    assert append.code == 0
    server.until_quiet("seam")
    whole = bucket.read(f"{prefix_of(server)}seam.ts")
    first, second = whole[: upload["offset"]], whole[upload["offset"] :]
    assert frames(second, tmp_path / "second.ts") == 2 * RATE
    assert frames(whole, tmp_path / "whole.ts") >= frames(first, tmp_path / "first.ts") + RATE
    assert curl("-f", "-o", tmp_path / "got.ts", "-L", server.object("seam.ts")).code == 0
    assert digest((tmp_path / "got.ts").read_bytes()) == digest(whole)


@pytest.mark.campaign
def test_a_live_stream_through_three_kills(serve, bucket, tmp_path):
    """`ffmpeg -re … | curl -T -`, in real time. Each time the server dies the pipeline is started again, to append.

    One object comes of it, with every byte the server had received, and ffmpeg decodes it to its end: of each piece
    at most one group of pictures is damaged.
    """
    server = serve().start()
    pieces, start = [], 0
    for piece in range(4):
        local = tmp_path / f"piece-{piece}.ts"
        last = piece == 3
        live = (
            FFMPEG,
            "-nostdin",
            "-v",
            "error",
            "-re",
            *source(4 if last else 60, "640x360"),
            "-f",
            "mpegts",
            "pipe:1",
        )
        append = f"{server.object('live.ts')}?interrupted=append"
        with (
            running(*live) as producer,
            running("tee", local, stdin=producer.stdout) as tee,
            running(CURL, "-q", "-sSf", "-T", "-", append, stdin=tee.stdout) as sender,
        ):
            if last:
                _, err = sender.communicate(timeout=60)
                assert (sender.returncode, err) == (0, b"")
                break
            received = until(lambda start=start: (now := server.received("live.ts")) > start + 150_000 and now)
            server.kill()
            assert sender.wait(20) != 0
        server.start()
        end = server.open_upload("live.ts")["received"]
        assert end >= received
        pieces.append((start, end, local))
        start = end
    server.until_quiet()
    whole = bucket.read(f"{prefix_of(server)}live.ts")
    pieces.append((start, len(whole), local))
    decoded = 0
    for start, end, local in pieces:
        assert digest(whole[start:end]) == digest(local.read_bytes()[: end - start])
        decoded += frames(whole[start:end], tmp_path / "piece.ts")
    assert len(whole[pieces[-1][0] :]) == local.stat().st_size
    assert frames(whole, tmp_path / "whole.ts") >= decoded - 3 * RATE
    assert not bucket.multiparts(prefix_of(server))
