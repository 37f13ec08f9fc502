"""What else a process that may die must keep to: one at a time on a state directory, two signals, no failpoints.

`tests/test_kill.py` kills it.
"""

import signal
import socket

from process import MIB, content, digest, prefix_of, until
from resuming import Sending, small

pytest_plugins = ["weed", "process"]

KEY = "crash"


def test_a_failpoint_is_inert_without_its_variable(serve, bucket):
    """The names stand in every run; only the variable makes them kill."""
    server, body = serve().start("no_such_failpoint:1"), content(MIB)
    Sending(server, KEY, body).send(small)
    assert digest(bucket.read(prefix_of(server) + KEY)) == digest(body)
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
