"""SIGKILL at every named step of an upload, and at random moments. Afterwards a client goes on as the README tells it.

Every time: no byte that the server had received is lost, nothing truncated is visible, nothing is left over.
"""

import ast
import base64
import contextlib
import hashlib
import http.client
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from process import MIB, PART, Bucket, Fresh, Server, content, digest, prefix_of, until

import streamup

pytest_plugins = ["weed", "process"]

CUTS = (4 * MIB, 9 * MIB, 12 * MIB + 345)
"""Where a client that sends three ranges makes its cuts: an upload of three parts, announced twice on the way."""

BODY = content(CUTS[-1])
SMALL = BODY[:MIB]
KEY = "crash"
GONE = (OSError, http.client.HTTPException)
"""What a client gets from a server that is killed."""


# -- every failpoint there is ----------------------------------------------------------------------------------------


def failpoints() -> list[str]:
    """Their names, from the source: whoever adds one has it tested."""
    plain, families, transactions = set[str](), set[str](), set[str]()
    for path in Path(streamup.__file__).parent.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name.endswith("_transact"):
                transactions.add(call.args[0].value)
            elif name == "failpoint" and isinstance(call.args[0], ast.Constant):
                plain.add(call.args[0].value)
            elif name == "failpoint":
                start, end = call.args[0].values  # f"before_commit_{name}"
                assert ast.unparse(end.value) == "name"
                families.add(start.value)
    return sorted(plain | {family + transaction for family in families for transaction in transactions})


# -- clients that do what the README says ----------------------------------------------------------------------------


@dataclass
class Ledger:
    """What a client knows for sure."""

    announced: int = 0
    done: bool = False


def offset_of(server: Server, key: str, ledger: Ledger, size: int) -> int:
    """By HEAD, as `curl -I` asks. It must never be less than was announced before."""
    head = server.ask("HEAD", f"/objects/{key}")
    assert head.status in {200, 404}
    assert not (ledger.done and head.headers["Upload-Complete"] != "?1")
    if head.status == 404:
        offset = 0
    elif head.headers["Upload-Complete"] == "?1":
        ledger.done, offset = True, size
        assert int(head.headers["Content-Length"]) == size
    else:
        offset = int(head.headers["Upload-Offset"])
    assert ledger.announced <= offset <= size
    ledger.announced = offset
    return offset


def whole(body: bytes) -> dict[str, str]:
    """What the object must be, said with every request: no kill may lose the hash that runs over it."""
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"}


def send_ranges(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """`Content-Range` after `Content-Range`, each where the offset is; the last one completes."""
    while (offset := offset_of(server, key, ledger, len(body))) < len(body):
        end = next((cut for cut in CUTS if offset < cut < len(body)), len(body))
        total = len(body) if end == len(body) else "*"
        where = {"Content-Range": f"bytes {offset}-{end - 1}/{total}"}
        answer = server.ask("PUT", f"/objects/{key}", where | whole(body), body[offset:end])
        assert answer.status == (201 if end == len(body) else 308), answer
        ledger.announced, ledger.done = end, end == len(body)
    confirm(server, key, ledger, len(body))


def send_stream(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """A stream in chunks; when it breaks, the rest of it as `bytes N-*/*`."""
    offset = offset_of(server, key, ledger, len(body))
    if not ledger.done and (offset < len(body) or server.open_upload(key)):
        pieces = (body[start : start + 200_000] for start in range(offset, len(body), 200_000))
        where = {"Content-Range": f"bytes {offset}-*/*"} if server.open_upload(key) else {}
        answer = server.ask("PUT", f"/objects/{key}", where | whole(body), pieces)
        assert answer.status in {201, 404, 423}, answer  # the last two: it was sealed already
        ledger.done = answer.status == 201
    confirm(server, key, ledger, len(body))


def send_small(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """An object that fits into one part."""
    offset = offset_of(server, key, ledger, MIB)
    if offset < MIB:
        where = {"Content-Range": f"bytes {offset}-{MIB - 1}/{MIB}"}
        assert server.ask("PUT", f"/objects/{key}", where | whole(body[:MIB]), body[offset:MIB]).status == 201
    confirm(server, key, ledger, MIB)


def confirm(server: Server, key: str, ledger: Ledger, size: int) -> None:
    """Nothing more is to be sent: `bytes */N` waits for the outcome."""
    if not ledger.done:
        answer = server.ask("PUT", f"/objects/{key}", {"Content-Range": f"bytes */{size}"})
        assert answer.status in {200, 201}, answer
    ledger.done = False
    offset_of(server, key, ledger, size)
    assert ledger.done


def send_and_give_up(server: Server, key: str, body: bytes, _: Ledger) -> None:
    """Seven MiB, then DELETE: nothing may be left, in the store neither."""
    if found := server.uploads(key):
        state = found[0]["state"]
    else:
        state = "open"
        assert server.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, body[: 7 * MIB]).status == 201
        until(lambda: server.uploads(key)[0]["stored"], what="a part in the store")
    if state == "open":
        assert server.ask("DELETE", f"/objects/{key}").status == 204


def send_with_digests(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """Appends that come with their digests, each a first time with a wrong one."""
    while (offset := offset_of(server, key, ledger, len(body))) < len(body):
        found = server.open_upload(key)
        if found is None:
            assert server.ask("PUT", f"/objects/{key}", {"Upload-Complete": "?0"}, b"").status == 201
            continue
        end = next((cut for cut in CUTS if offset < cut < len(body)), len(body))
        piece = body[offset:end]
        where = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if end == len(body) else "?0"}
        for data, status in ((piece[::-1], {400}), (piece, {200, 201, 204})):
            digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
            words = {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/partial-upload"}
            answer = server.ask("PATCH", f"/uploads/{found['id']}", where | words, data)
            assert answer.status in status, answer
        ledger.announced, ledger.done = end, end == len(body)
    confirm(server, key, ledger, len(body))


def send_nothing(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """The server is killed while it starts, and has an interrupted upload to take up."""
    send_ranges(server, key, body, ledger)


def send_and_wait(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """An object, and then the time after which its row is looked at (real time matters: `--expire` is short)."""
    send_small(server, key, body, ledger)
    if server.process and server.failpoint:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            server.ask("GET", "/uploads")
            time.sleep(0.05)


Send = Callable[[Server, str, bytes, Ledger], None]

SPECIAL: dict[str, tuple[Send, ...]] = {
    "before_put_object": (send_small,),
    "after_put_object": (send_small,),
    "before_abort_multipart": (send_and_give_up,),
    "after_abort_multipart": (send_and_give_up,),
    "after_resume_provisionally": (send_with_digests,),
    "after_cut": (send_with_digests,),
    "before_confirm": (send_with_digests,),
    "before_commit_recovery": (send_nothing,),
    "after_commit_recovery": (send_nothing,),
    "before_commit_forget": (send_and_wait,),
    "after_commit_forget": (send_and_wait,),
    "before_commit_save": (send_ranges, send_stream, send_small, send_and_give_up),
    "after_commit_save": (send_ranges, send_stream, send_small, send_and_give_up),
    "before_unlink": (send_ranges, send_stream, send_small, send_and_give_up),
}
"""Who passes a failpoint, where it is not `send_ranges` alone."""

OFTEN = {"before_write": (25,), "after_write": (25,)}
"""Further passages of those that are passed more often than three times."""

CASES = [(name, send) for name in failpoints() for send in SPECIAL.get(name, (send_ranges,))]


@pytest.mark.campaign
@pytest.mark.parametrize(("name", "send"), CASES, ids=[f"{name}-{send.__name__}" for name, send in CASES])
def test_killed_at_a_failpoint(serve, bucket, name, send):
    """At its first, second and third passage (as long as there are so many), side by side."""
    passages = (1, 2, 3, *OFTEN.get(name, ()))
    with ThreadPoolExecutor(3) as executor:
        killed = list(executor.map(lambda nth: killed_at(serve, bucket, f"{name}:{nth}", send), passages))
    assert killed[0], f"{name} is never passed"
    assert killed == sorted(killed, reverse=True)


def test_every_failpoint_has_its_case():
    assert set(SPECIAL) | set(OFTEN) <= set(failpoints())
    assert {name for name, _ in CASES} == set(failpoints())
    steps = ("write", "sync", "unlink", "create_multipart", "put_part", "put_object", "complete_multipart")
    assert {f"{when}_{step}" for step in (*steps, "abort_multipart") for when in ("before", "after")} <= set(
        failpoints()
    )


def test_killed_at_a_step(serve, bucket):
    """One of the failpoints; the campaign goes through all."""
    assert killed_at(serve, bucket, "before_commit_receipt:2", send_ranges)


def killed_at(serve: Fresh, bucket: Bucket, failpoint: str, send: Send) -> bool:
    """One upload, through one kill, to its end. Whether there was a kill."""
    server, ledger = serve("--expire=2s" if send is send_and_wait else "--expire=1h"), Ledger()
    size = MIB if send in {send_small, send_and_wait} else len(BODY)
    if send is send_nothing:
        server.start()
        where = {"Content-Range": f"bytes 0-{CUTS[1] - 1}/*"}
        server.ask("PUT", f"/objects/{KEY}", where | whole(BODY), BODY[: CUTS[1]])
        server.kill()
    server.spawn(failpoint)
    if server.answers():
        with contextlib.suppress(*GONE):
            send(server, KEY, BODY, ledger)
    killed = until_killed(server, bucket)
    evidence = received_at_least(server)
    check_visible(bucket, server, BODY[:size])
    if killed:
        server.start()
        if send is not send_with_digests:  # whose part files prove nothing
            check_received(server, evidence)
        send(server, KEY, BODY, ledger)
    server.until_quiet()
    expected = None if send is send_and_give_up else BODY[:size]
    assert digest(bucket.read(prefix_of(server) + KEY)) == digest(expected)
    until(lambda: not bucket.multiparts(prefix_of(server)), what="no multipart upload left in the store")
    server.kill()
    return killed


def until_killed(server: Server, bucket: Bucket) -> bool:
    """What it dies of may come after its answer. So wait until it is killed, or has nothing more to do."""

    def state() -> str | None:
        if server.killed():
            return "killed"
        with contextlib.suppress(*GONE):
            busy = [u for u in server.uploads() if u["state"] in {"open", "sealed", "completing"}]
            return None if busy or server.spooled() or bucket.multiparts(prefix_of(server)) else "quiet"
        return None

    until(state, what="an end")
    time.sleep(0.05)  # what it does last, after the store has answered, can be seen nowhere
    return server.process is None or server.killed()


def received_at_least(server: Server) -> dict[str, int]:
    """What a dead server had received of each upload, as its part files prove: part N is there up to its size."""
    ends: dict[str, int] = {}
    for (upload_id, number), size in server.spooled().items():
        ends[upload_id] = max(ends.get(upload_id, 0), (number - 1) * PART + size)
    return ends


def check_received(server: Server, evidence: dict[str, int]) -> int:
    """No byte of it is lost. An upload that was never committed had no client that was told anything, and no body."""
    lost = 0
    for upload_id, end in evidence.items():
        received = server.ask("GET", f"/uploads/{upload_id}").json()["received"]
        lost += max(0, end - received)
    assert lost == 0
    return sum(evidence.values())


def check_visible(bucket: Bucket, server: Server, whole: bytes) -> None:
    assert digest(bucket.read(prefix_of(server) + KEY)) in {None, digest(whole)}


# -- random moments --------------------------------------------------------------------------------------------------


@dataclass
class Client:
    """Sends one body to one key through every crash, and remembers all it was told."""

    server: Server
    key: str
    body: bytes
    send: Send
    ledger: Ledger = field(default_factory=Ledger)
    error: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """Until it is all there, or `stop`."""
        try:
            while not stop.is_set() and not self.ledger.done:
                try:
                    self.send(self.server, self.key, self.body, self.ledger)
                except GONE:
                    time.sleep(0.01)  # the server is being started again: ask until it answers
        except BaseException as error:
            self.error = error
            raise


def send_slowly(server: Server, key: str, body: bytes, ledger: Ledger) -> None:
    """A live stream: some hundred KB at a time, as `?interrupted=append` would go on after each crash."""

    def live():
        for start in range(offset, len(body), 100_000):
            yield body[start : start + 100_000]
            time.sleep(0.004)  # real time: a stream that takes longer than the server lives

    offset = offset_of(server, key, ledger, len(body))
    if not ledger.done and offset < len(body):
        where = {"Content-Range": f"bytes {offset}-*/*"} if server.open_upload(key) else {}
        answer = server.ask("PUT", f"/objects/{key}", where, live())
        assert answer.status in {201, 404, 423}, answer
    elif not ledger.done and server.open_upload(key):
        seal = {"Content-Range": f"bytes */{len(body)}", "Upload-Complete": "?1"}
        assert server.ask("PUT", f"/objects/{key}", seal).status in {201, 202}
    confirm(server, key, ledger, len(body))


def kill_at_random(serve: Fresh, bucket: Bucket, *, kills: int, seed: int) -> tuple[int, int]:
    """Four clients and one server that dies again and again. How many kills, and bytes in its spool just then."""
    rng = random.Random(seed)
    server = serve().start()
    prefix = prefix_of(server)
    stop, survived, done = threading.Event(), 0, 0
    bodies = {
        f"{kind}-{n}": content(size, seed + n)
        for n, (kind, size) in enumerate(
            [("live", 40 * MIB + 1), ("ranges", 23 * MIB), ("live", 33 * MIB), ("small", MIB)]
        )
    }
    senders = {"live": send_slowly, "ranges": send_ranges, "small": send_small}
    clients = [Client(server, key, body, senders[key.partition("-")[0]]) for key, body in bodies.items()]
    threads = [threading.Thread(target=client.run, args=(stop,), name=client.key) for client in clients]
    for thread in threads:
        thread.start()
    try:
        while done < kills and any(thread.is_alive() for thread in threads):
            time.sleep(rng.uniform(0.0, 0.2))  # real time: the moment is the subject
            server.kill()
            done += 1
            evidence = received_at_least(server)
            for key, body in bodies.items():
                assert digest(bucket.read(prefix + key)) in {None, digest(body)}
            server.start()
            survived += check_received(server, evidence)
        for thread in threads:
            thread.join(60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert [client.error for client in clients] == [None] * len(clients)
    assert all(client.ledger.done for client in clients)
    server.until_quiet()
    assert {key: digest(bucket.read(prefix + key)) for key in bodies} == {k: digest(body) for k, body in bodies.items()}
    until(lambda: not bucket.multiparts(prefix), what="no multipart upload left in the store")
    server.stop()
    return done, survived


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(serve, bucket, seed, record_testsuite_property):
    kills, survived = kill_at_random(serve, bucket, kills=12, seed=seed)
    record_testsuite_property(f"kills at random, seed {seed}", kills)
    record_testsuite_property(f"bytes in the spool then, seed {seed}", survived)
    assert kills > 3


def test_a_failpoint_is_inert_without_its_variable(serve, bucket):
    """The names stand in every run; only the variable makes them kill."""
    server, ledger = serve().start("no_such_failpoint:1"), Ledger()
    send_ranges(server, KEY, BODY, ledger)
    assert digest(bucket.read(prefix_of(server) + KEY)) == digest(BODY)
    server.stop()


def test_a_second_process_on_the_same_state_is_refused(serve):
    server = serve().start()
    other = serve(data=server.data)
    other.spawn()
    assert other.process.wait(20) == 1 or other.process.returncode == 2
    other.process = None
    assert "in use by another streamup" in server.log
    assert server.ask("GET", "/uploads").status == 200


def test_a_second_signal_ends_at_once_and_loses_nothing(serve):
    """The first lets parts finish, the second does not wait for them."""
    server = serve("--grace=60s").start()
    with socket.create_connection(("127.0.0.1", server.ports[0])) as client:
        client.sendall(b"PUT /objects/crash HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n")
        client.sendall(bytes(7 * MIB))
        until(lambda: server.received(KEY) == 7 * MIB, what="seven MiB")
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) in {0, -signal.SIGINT, -signal.SIGTERM}
    server.process = None
    server.start()
    assert server.received(KEY) == 7 * MIB
