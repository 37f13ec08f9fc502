"""How many small appends one process takes: PATCH after PATCH, each durable before it is answered (law 2).

    python bench/appends.py [--appends 2000] [--size 1] [--size 1KiB] [--size 64KiB] [--clients 1] [--clients 8]

Each client has an upload and a connection of its own and sends its next append when it has the answer to the last, as
a recorder in a browser does. The store is bench/sink.py: until a part is full it is never asked. CPU is that of the
server process; the disk decides the rest, since each answer waits for a sync and two commits, which clients that wait
at the same time share.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from processes import cpu, machine
from rows import serving

from streamup.values import parse_size


class Client:
    """One keep-alive connection, and the upload that it appends to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        _, headers, _ = self.ask("POST", "/uploads?key=small", "Upload-Complete: ?0")
        self._target = headers["location"]
        self._offset = 0

    def ask(self, method: str, target: str, *fields: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *fields]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        status = int(self._answers.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self._answers.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self._answers.read(int(headers.get("content-length", 0)))

    def append(self, body: bytes, *, complete: bool = False) -> bytes:
        place = (f"Upload-Offset: {self._offset}", f"Upload-Complete: ?{complete:d}")
        status, _, answer = self.ask(
            "PATCH", self._target, *place, "Content-Type: application/partial-upload", body=body
        )
        if status not in {201, 204}:
            raise SystemExit(f"An append was answered {status}: {answer.decode()}")
        self._offset += len(body)
        return answer

    def run(self, body: bytes, times: int) -> None:
        for _ in range(times):
            self.append(body)

    def finish(self, size: int) -> None:
        found = json.loads(self.append(b"", complete=True))
        if found["size"] != size:
            raise SystemExit(f"The object has {found['size']} bytes, and {size} were sent.")
        self._socket.close()


def measure(url: str, pid: int, size: int, clients: int, appends: int) -> str:
    body = bytes(size)
    crowd = [Client(url) for _ in range(clients)]
    before, began = cpu(pid), time.monotonic()
    with ThreadPoolExecutor(clients) as threads:
        for done in [threads.submit(client.run, body, appends) for client in crowd]:
            done.result()
    seconds, used = time.monotonic() - began, cpu(pid) - before
    for client in crowd:
        client.finish(size * appends)
    every = appends * clients
    return f"{size:9} {clients:7} {every / seconds:9.0f} {1000 * used / every:13.2f} {1000 * seconds / appends:15.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--appends", type=int, default=2000, help="per client (2000)")
    parser.add_argument("--size", type=parse_size, action="append", help="bytes of each (1, 1KiB, 64KiB)")
    parser.add_argument("--clients", type=int, action="append", help="at the same time (1, 8)")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("This needs Linux (/proc).")
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("    bytes clients appends/s CPU-ms/append ms until answer", flush=True)
    with serving() as (pid, url):
        for size in options.size or [1, 1 << 10, 64 << 10]:
            for clients in options.clients or [1, 8]:
                print(measure(url, pid, size, clients, options.appends), flush=True)


if __name__ == "__main__":
    main()
