"""Clients that take places and give nothing: a program of its own, so that their cost is not the server's.

    python tests/attacker.py PORT COUNT [HEADER]

A third of them say nothing, a third drip a request head, a third drip a body (`HEADER` is their credential), a byte a
second each. Who is closed comes back a second later. SIGTERM ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys

PORT, COUNT = int(sys.argv[1]), int(sys.argv[2])
CREDENTIAL = sys.argv[3] if len(sys.argv) > 3 else "X-Nothing: 0"
TURNS = 20
"""Bytes are spread over the second, as they would be from a thousand machines."""

numbers = itertools.count()


class Attacker(asyncio.Protocol):
    """One connection, and those that follow when it is closed."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.kind == 1:
            transport.write(b"PUT /objects/a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Drip: ")
        if self.kind == 2:
            head = f"PUT /objects/attack/{next(numbers)} HTTP/1.1\r\nHost: 127.0.0.1\r\n{CREDENTIAL}\r\n"
            transport.write(f"{head}Content-Length: 1000000000\r\n\r\n".encode())

    def drip(self) -> None:
        if self.kind and self.transport:
            self.transport.write(b"x")

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(self.connect()))

    async def connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", PORT)
        except OSError:
            self.connection_lost(None)


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    attackers = [Attacker(number % 3) for number in range(COUNT)]
    for attacker in attackers:
        await attacker.connect()
    for turn in itertools.count():
        if stop.is_set():
            return
        for attacker in attackers[turn % TURNS :: TURNS]:
            attacker.drip()
        await asyncio.sleep(1 / TURNS)


asyncio.run(main())
