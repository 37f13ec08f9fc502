"""The JavaScript module in node: against our server, and against one that misbehaves as it is told."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from npm import NODE
from wire import answer

import streamup

pytest_plugins = ["wire"]
pytestmark = pytest.mark.skipif(not NODE, reason="node is missing: apt install nodejs")

WEB = Path(streamup.__file__).parent / "web"
ENDS_WITHIN = 20
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def node(tmp_path):
    """`await node(script, **given)`: what a script says by `say(…)`. It finds the module's names, and what is given."""
    directory = tmp_path / "web"
    shutil.copytree(WEB, directory)
    (directory / "package.json").write_text('{"type": "module"}')

    async def run(script, **given):
        values = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
        say = "const say = (word) => console.log(JSON.stringify(word));\n"
        (directory / "script.js").write_text(f'import * as streamup from "./streamup.js";\n{say}{values}{script}')
        command = (NODE, "--no-warnings", "script.js")
        pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(*command, cwd=directory, **pipes)
        try:
            said, complained = await asyncio.wait_for(process.communicate(), ENDS_WITHIN)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert (process.returncode, complained.decode()) == (0, ""), said.decode()
        return [json.loads(line) for line in said.splitlines()]

    return run


def streaming(*pieces, ends=True):
    """A stream of events in these pieces; cut off, unless it ends."""

    async def act(_reader, writer):
        writer.write(STREAM)
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        if ends:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return act


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


WATCH = """
    const server = new streamup.Server({ url, token: "secret" });
    const stop = new AbortController();
    let left = most;
    try {
      for await (const { name, data } of server.watch({ id, signal: stop.signal })) {
        say([name, name === "lost" ? data.message : data]);
        if (!--left) stop.abort();
      }
      say("end");
    } catch (error) {
      say([error.constructor.name, error.status, error.message]);
    }
"""


async def test_watching_begins_anew_when_the_connection_breaks(wire, node):
    first, second = {"id": "ü", "state": "open"}, {"id": "ü", "state": "open", "offset": 1}
    # In pieces that respect neither lines nor characters; the last event is cut off, and is none.
    text = b": hello\r\nid: 1\n" + event("upload", first).replace(b"\n", b"\r\n") + b"event: upload\ndata: {"
    text = text.replace(b"\\u00fc", "ü".encode())
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    wire.answers.extend([streaming(*pieces, ends=False), streaming(event("upload", second))])
    said = await node(WATCH, url=wire.url, id="null", most=5)
    assert said == [
        ["open", None],
        ["upload", first],
        ["lost", "The connection broke."],
        ["open", None],
        ["upload", second],
        "end",
    ]
    assert [request.target for request in wire.requests] == ["/uploads/null/events"] * 2
    assert wire.requests[0].headers["authorization"] == "Bearer secret"


async def test_watching_one_upload_ends_with_it(wire, node):
    documents = [{"id": "a/b", "state": state} for state in ("open", "sealed", "completing", "complete")]
    stream = streaming(*(event("upload", document) for document in documents), event("upload", {"state": "open"}))
    wire.answers.append(stream)
    said = await node(WATCH, url=wire.url, id="a/b", most=0)
    assert said == [["open", None], *(["upload", document] for document in documents), "end"]
    assert [request.target for request in wire.requests] == ["/uploads/a%2Fb/events"]


async def test_watching_tells_what_it_may_not(wire, node):
    wire.answers.extend([answer(503, "{}"), answer(403, json.dumps({"detail": "Not you."}))])
    said = await node(WATCH, url=wire.url, id="a", most=0)
    assert said == [["lost", "The server said 503."], ["Refused", 403, "Not you."]]
