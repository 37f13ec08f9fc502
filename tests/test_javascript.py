"""The JavaScript module in node: against our server, and against one that misbehaves as it is told."""

import asyncio
import json
import shutil
from base64 import b64encode
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from conftest import BODY, PART_BYTES
from npm import NODE
from wire import answer

import streamup

pytest_plugins = ["wire"]
pytestmark = pytest.mark.skipif(not NODE, reason="node is missing: apt install nodejs")

WEB = Path(streamup.__file__).parent / "web"
ENDS_WITHIN = 20
SLICE = PART_BYTES + 100
"""What a request sends here: slices and parts have no boundary in common."""

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
        assert not complained, complained.decode()
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


async def test_connections_that_tell_nothing_are_begun_less_and_less_often(wire, node):
    wire.answers.extend([streaming()] * 4)
    said = await node(
        """
        const { setTimeout } = globalThis;
        const soon = (after) => (after < 20_000 ? after / 100 : after);
        globalThis.setTimeout = (action, after, ...given) => setTimeout(action, soon(after), ...given);
        for await (const { name, wait } of new streamup.Server({ url }).watch()) {
          if (name === "lost") say(wait);
          if (wait >= 2000) break;
        }
        """,
        url=wire.url,
    )
    assert len(said) == 4


def checksum(data):
    return b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


def url(service):
    return f"http://127.0.0.1:{service.address[1]}/"


async def test_the_checksum_is_that_of_awscrt(node, tmp_path):
    """Pieces of any length, from any place in a buffer; and two of them combined."""
    (tmp_path / "web" / "body").write_bytes(BODY)
    places = [0, 1, 7, 8, 9, 16, 1000, 65_537, len(BODY)]
    said = await node(
        """
        import { readFileSync } from "node:fs";
        import { base64, combine, Crc64Nvme } from "./crc64nvme.js";
        const body = new Uint8Array(readFileSync("body"));
        const value = (bytes) => { const crc = new Crc64Nvme(); crc.add(bytes); return crc.value; };
        for (const place of places) {
          const [one, two] = [value(body.subarray(0, place)), value(body.subarray(place))];
          const both = new Crc64Nvme(one);
          both.add(body.subarray(place));
          say([one, two, combine(one, two, body.length - place), both.value].map(base64));
        }
        """,
        places=places,
    )
    whole = checksum(BODY)
    assert said == [[checksum(BODY[:place]), checksum(BODY[place:]), whole, whole] for place in places]


SEND = """
    import { readFileSync } from "node:fs";
    const unfinished = {
      records: [...remembered],
      async find(server, key) { return this.records.find((one) => one.server === server && one.key === key); },
      async keep(record) { this.records.push(record); },
      async forget(server, key) { this.records = this.records.filter((one) => one.key !== key); },
    };
    const file = new Blob([readFileSync("body")], { type: "video/mp4" });
    Object.assign(file, { name: "talk.mp4", lastModified: 1 });
    const server = new streamup.Server({ url });
    const sending = new streamup.Sending(server, file, { key: "a/talk.mp4", metadata: { by: "ü" }, slice, unfinished });
    const states = [];
    sending.addEventListener("state", () => states.push(sending.state));
    const ended = () => ({
      states, error: sending.error?.constructor.name, message: sending.error?.message,
      crc64nvme: sending.crc64nvme, durable: sending.durable, remembered: unfinished.records.map(({ key }) => key),
    });
"""


@pytest.fixture
def sent(node, tmp_path):
    """How a file fares that is sent from node, with a script of its own in place of just starting it."""

    async def run(url, script="await sending.start().catch(() => {});", *, body=BODY, remembered=()):
        (tmp_path / "web" / "body").write_bytes(body)
        *told, last = await node(f"{SEND}{script}\nsay(ended());", url=url, slice=SLICE, remembered=[*remembered])
        return {**last, "told": told}

    return run


def record(service, upload_id, **other):
    values = {"server": url(service), "key": "a/talk.mp4", "id": upload_id, "name": "talk.mp4", "size": len(BODY)}
    return {**values, "modified": 1, **other}


@pytest.mark.parametrize("size", [0, 1, SLICE, len(BODY)])
async def test_a_file_is_sent_in_slices_and_proven(service, sent, size):
    ended = await sent(url(service), body=BODY[:size])
    assert ended["states"][-1] == "complete"
    assert (ended["crc64nvme"], ended["durable"], ended["remembered"]) == (checksum(BODY[:size]), size, ["a/talk.mp4"])
    assert service.data("a/talk.mp4") == BODY[:size]
    meta = service.store.objects["a/talk.mp4"].meta
    assert (meta.content_type, meta.user["by"]) == ("video/mp4", "%C3%BC")


async def test_what_a_page_before_has_sent_is_not_sent_again(service, sent):
    upload_id = await service.leave("a/talk.mp4", BODY[: 2 * PART_BYTES + 50], **{"Upload-Length": str(len(BODY))})
    await service.becomes("a/talk.mp4", stored=2 * PART_BYTES)
    before = received(service)
    ended = await sent(url(service), remembered=[record(service, upload_id)])
    assert ended["states"] == ["sending", "comparing", "sending", "complete"]
    assert ended["crc64nvme"] == checksum(BODY)
    assert service.data("a/talk.mp4") == BODY
    assert received(service) - before == len(BODY) - 2 * PART_BYTES - 50


@pytest.mark.parametrize(
    "other",
    [{"body": b"x" + BODY[1:]}, {"size": len(BODY) + 1}, {"modified": 2}, {"name": "b.mp4"}],
    ids=["bytes", "size", "date", "name"],
)
async def test_a_changed_file_is_refused_and_may_begin_anew(service, sent, other):
    body = other.get("body", BODY)
    other = {name: value for name, value in other.items() if name != "body"}
    upload_id = await service.leave("a/talk.mp4", BODY[: 2 * PART_BYTES])
    await service.becomes("a/talk.mp4", stored=2 * PART_BYTES)
    anew = "await sending.start().catch((error) => say(error.message)); await sending.start({ anew: true });"
    ended = await sent(url(service), anew, body=body, remembered=[record(service, upload_id, **other)])
    assert any(word in ended["told"][0] for word in ("has changed", "another version"))
    assert ended["states"][-1] == "complete"
    assert service.data("a/talk.mp4") == body
    assert (await service.ask("GET", f"/uploads/{upload_id}")).json["state"] == "cancelled"


AGAIN = """
    await sending.start();
    const again = new streamup.Sending(server, other, { key: "a/talk.mp4", slice, unfinished });
    const seen = [];
    again.addEventListener("state", () => seen.push(again.state));
    if (replaced) await fetch(`${url}objects/a/talk.mp4`, { method: "PUT", body: "x" });
    await again.start();
    say([seen, again.crc64nvme, again.sent]);
"""
CHANGED = "const other = new Blob([readFileSync('body').fill(1)]);"
NAMED = "Object.assign(other, { name: 'talk.mp4', lastModified: 1 });"


async def test_what_is_there_is_not_sent_again(service, sent):
    ended = await sent(url(service), f"const [other, replaced] = [file, false]; {AGAIN}")
    assert ended["told"] == [[["sending", "comparing", "complete"], checksum(BODY), len(BODY)]]
    assert received(service) == len(BODY)


async def test_unless_it_is_another_object_by_now_or_another_file(service, sent):
    ended = await sent(url(service), f"const [other, replaced] = [file, true]; {AGAIN}")
    assert ended["told"][0][0] == ["sending", "complete"]
    assert service.data("a/talk.mp4") == BODY
    ended = await sent(url(service), f"const replaced = false; {CHANGED} {NAMED} {AGAIN}")
    assert ended["told"][0][0] == ["sending", "comparing", "sending", "complete"]
    assert service.data("a/talk.mp4") == b"\1" * len(BODY)


async def test_what_has_expired_is_sent_from_its_beginning(service, sent):
    ended = await sent(url(service), remembered=[record(service, "0" * 32)])
    assert ended["states"][-1] == "complete"
    assert service.data("a/talk.mp4") == BODY


async def test_what_somebody_ends_is_not_raised_again(service, sent):
    """Not by itself; who starts it again means it."""
    script = """
        let asked = false;
        sending.addEventListener("progress", () => {
          if (asked || !sending.durable) return;
          asked = true;
          server.cancel(sending);
        });
        await sending.start().catch((error) => say([error.constructor.name, sending.state]));
        await sending.start();
    """
    ended = await sent(url(service), script)
    assert ended["told"] == [["Ended", "failed"]]
    assert service.data("a/talk.mp4") == BODY


async def test_pause_resume_and_cancel(service, sent):
    script = """
        let pauses = 0;
        sending.addEventListener("progress", () => sending.durable > pauses * slice && (pauses++, sending.pause()));
        sending.addEventListener("state", () => sending.state === "paused" && setTimeout(() => sending.resume(), 20));
        await sending.start();
        say(pauses);
        const other = new streamup.Sending(server, file, { key: "other", slice, unfinished });
        other.addEventListener("progress", () => other.durable && other.state === "sending" && other.cancel());
        await other.start().catch((error) => say([error.name, other.state, other.id]));
    """
    ended = await sent(url(service), script)
    pauses, [error, state, upload_id] = ended["told"]
    assert pauses >= 3
    assert service.data("a/talk.mp4") == BODY
    assert (error, state, ended["remembered"]) == ("AbortError", "cancelled", ["a/talk.mp4"])
    assert (await service.ask("GET", f"/uploads/{upload_id}")).json["state"] == "cancelled"


async def test_a_signal_ends_it_and_keeps_what_arrived(service, sent):
    script = """
        const stop = new AbortController();
        const other = new streamup.Sending(server, file, { key: "other", slice, unfinished, signal: stop.signal });
        other.addEventListener("progress", () => other.durable && stop.abort(new Error("enough")));
        await other.start().catch((error) => say([error.message, other.state, unfinished.records.length]));
    """
    assert (await sent(url(service), script))["told"] == [["enough", "failed", 1]]
    assert (await service.becomes("other", state="open"))["received"] >= SLICE


async def test_it_tries_again_what_may_succeed_later_and_nothing_else(wire, sent):
    wire.answers.extend([answer(503, "{}"), answer(403, json.dumps({"detail": "Not this key."}))])
    ended = await sent(wire.url)
    assert ended["states"] == ["sending", "waiting", "failed"]
    assert (ended["error"], ended["message"]) == ("Refused", "Not this key.")
    assert [request.method for request in wire.requests] == ["POST", "POST"]


async def test_it_goes_on_where_the_server_says(sent, wire):
    """A server that has taken less than was sent, and then says so by a 409."""
    told = {"Location": "/uploads/a", "Upload_Offset": "0"}
    done = {"key": "a/talk.mp4", "upload": "a"}
    wire.answers.extend(
        [
            answer(201, **told),
            answer(409, "{}"),
            answer(204, Upload_Offset="100"),
            answer(204, Upload_Offset=str(100 + SLICE)),
            answer(204, Upload_Offset=str(100 + 2 * SLICE)),
            answer(204, Upload_Offset=str(100 + 3 * SLICE)),
            answer(202, Upload_Offset=str(len(BODY))),
            answer(201, json.dumps(done), Upload_Offset=str(len(BODY))),
        ]
    )
    ended = await sent(wire.url)
    assert ended["states"] == ["sending", "waiting", "sending", "storing", "complete"]
    bodies = [request.body for request in wire.requests if request.method == "PATCH"]
    assert bodies == [BODY[:SLICE], *(BODY[100 + n * SLICE :][:SLICE] for n in range(4)), b""]
    assert [request.headers.get("x-amz-checksum-crc64nvme") for request in wire.requests][-2:] == [checksum(BODY)] * 2


async def test_a_server_that_takes_other_bytes_completes_nothing(service, sent):
    script = """
        const { append } = streamup.Server.prototype;
        server.append = function (id, offset, body, options) {
          const bytes = body.slice();
          bytes[0] ^= 1;
          return append.call(this, id, offset, bytes, options);
        };
        await sending.start().catch(() => {});
    """
    ended = await sent(url(service), script)
    assert (ended["states"][-1], ended["error"]) == ("failed", "Refused")
    assert "crc64nvme" in ended["message"].lower()
    assert service.data("a/talk.mp4") is None


CUT = answer(200, json.dumps({"uploads": []}))[:-3]
PORTAL = "<!doctype html><title>Welcome to the hotel</title>"


def cut_off(data):
    """The connection ends within the answer."""

    async def act(_reader, writer):
        writer.write(data)
        writer.close()

    return act


@pytest.mark.parametrize("ask", ["uploads()", "look('a')", "location('a')"])
async def test_an_answer_that_breaks_or_is_not_the_servers_may_be_asked_for_again(wire, node, ask):
    wire.answers.extend(
        [cut_off(CUT), answer(200, PORTAL), answer(302, Location="/sign-in"), cut_off(answer(404, "x" * 9)[:-3])]
    )
    script = f"""
        const server = new streamup.Server({{ url }});
        for (let i = 0; i < 4; i++) await server.{ask}.catch((error) => say([error.constructor.name, error.again]));
    """
    assert await node(script, url=wire.url) == [["Refused", True]] * 4


async def test_who_does_not_answer_is_given_up(wire, node):
    async def silent(reader, _writer):
        await reader.read()

    async def halting(reader, writer):
        writer.write(CUT)
        await reader.read()

    wire.answers.extend([silent, halting])
    script = """
        const { setTimeout } = globalThis;
        globalThis.setTimeout = (action, after, ...given) => setTimeout(action, after > 60_000 ? 200 : after, ...given);
        const server = new streamup.Server({ url });
        for (let i = 0; i < 2; i++) await server.uploads().catch((error) => say([error.constructor.name, error.again]));
    """
    assert await node(script, url=wire.url) == [["Refused", True]] * 2


async def test_a_page_in_the_servers_place_completes_nothing(wire, sent):
    done = answer(201, json.dumps({"key": "a/talk.mp4"}), Upload_Offset="9")
    wire.answers.extend([answer(200, PORTAL), answer(201, Location="/uploads/a"), answer(200, PORTAL)])
    wire.answers.extend([answer(204, Upload_Offset="0"), done])
    ended = await sent(wire.url, body=BODY[:9])
    assert ended["states"] == ["sending", *["waiting", "sending"] * 2, "complete"]
    assert [request.method for request in wire.requests] == ["POST", "POST", "PATCH", "HEAD", "PATCH"]


async def test_a_file_that_gives_less_than_it_has_is_not_sent(service, sent):
    """Some browsers read on in a file that has become shorter."""
    script = """
        const whole = file.slice();
        file.slice = (start, end) => whole.slice(start, Math.min(end, 1000));
        await sending.start().catch(() => {});
    """
    ended = await sent(url(service), script)
    assert (ended["error"], ended["states"][-1]) == ("Unreadable", "failed")
    assert service.data("a/talk.mp4") is None


async def test_what_a_browser_has_no_room_for_can_be_had_as_a_whole(node):
    said = await node(
        """
        import { Outbox } from "./outbox.js";
        const record = { id: "a", bytes: 0, milliseconds: 0, crc: 0n, safe: 0, upload: null, type: "video/webm" };
        const box = new Outbox({ recordings: null, record, changed() {} });
        for (let second = 0; second < 100; second++) await box.add(new Uint8Array([second]).buffer, 1000 * second);
        say([...new Uint8Array(await (await box.remains()).arrayBuffer())]);
        """
    )
    assert said == [[*range(100)]]


async def test_the_end_of_what_is_discarded_does_not_bring_it_back(node):
    """MediaRecorder gives its last bytes after it has been stopped."""
    said = await node(
        """
        import { Outbox } from "./outbox.js";
        const kept = new Set();
        const recordings = {
          async keep({ id }) { kept.add(id); },
          async save({ id }) { kept.add(id); },
          async remove(id) { kept.delete(id); },
        };
        const record = { id: "a", bytes: 0, milliseconds: 0, crc: 0n, safe: 0, upload: null, type: "video/webm" };
        const box = new Outbox({ recordings, record, changed() {} });
        await box.add(new Uint8Array(9).buffer, 1000);
        say([...kept]);
        await box.discard();
        await box.add(new Uint8Array(9).buffer, 1500);
        await box.end();
        say([...kept]);
        """
    )
    assert said == [["a"], []]


async def test_what_is_no_token_is_told_apart_from_a_server_that_is_away(wire, node):
    script = """
        const server = new streamup.Server({ url, token: "abc…xyz" });
        await server.uploads().catch((error) => say(error.status));
        await server.append("a", 0, "x").catch((error) => say(error.status));
    """
    assert await node(script, url=wire.url) == [401, 401]
    assert wire.requests == []


@pytest.mark.parametrize(("stored", "state"), [(BODY[:9], "complete"), (BODY[:8], "lost")])
async def test_a_recording_whose_upload_is_forgotten_may_be_an_object_all_the_same(wire, node, stored, state):
    """The answer was lost, and the browser comes back after the server has forgotten how the upload ended."""
    wire.answers.extend([answer(404, "{}"), answer(200, x_amz_checksum_crc64nvme=checksum(stored))])
    said = await node(
        """
        import { Crc64Nvme } from "./crc64nvme.js";
        import { Outbox } from "./outbox.js";
        const crc = new Crc64Nvme();
        crc.add(Uint8Array.from(bytes));
        const all = { bytes: 9, safe: 9, crc: crc.value, ended: true };
        const record = { id: "a", key: "talk.webm", type: "video/webm", upload: "a", milliseconds: 0, ...all };
        const server = new streamup.Server({ url });
        const box = new Outbox({ server, recordings: null, record, changed() {} });
        await box.run();
        say([box.state, box.object?.size ?? null]);
        """,
        url=wire.url,
        bytes=[*BODY[:9]],
    )
    assert said == [[state, 9 if state == "complete" else None]]
    assert [request.target for request in wire.requests] == ["/uploads/a", "/objects/talk.webm"]


def received(service):
    return service.metrics.registry.get_sample_value("streamup_received_bytes_total")
