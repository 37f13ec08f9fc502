"""What those cost who watch uploads as they change: server-sent events for many, of many uploads.

    python bench/watch.py [--watchers 100] [--uploads 300] [--seconds 10]

All watch the list of all uploads. First nothing changes, then every upload receives 2 KB a second, so that each watcher
is told of each of them once a second. CPU is that of the server process. The store is bench/sink.py.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from urllib.parse import urlsplit

from processes import cpu, machine
from rows import serving

PIECE = b"7d0\r\n" + bytes(2000) + b"\r\n"


async def ask(url: str, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("\r\n".join([*lines, "Host: 127.0.0.1", "", ""]).encode())
    await writer.drain()
    return reader, writer


async def read(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 20):
        pass


async def send(writers: list[asyncio.StreamWriter]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 1
        for writer in writers:
            writer.write(PIECE)
        await asyncio.sleep(max(0.0, due - loop.time()))


async def share(pid: int, seconds: float) -> float:
    """CPU-seconds a second."""
    before = cpu(pid)
    await asyncio.sleep(seconds)
    return (cpu(pid) - before) / seconds


async def measure(url: str, pid: int, options: argparse.Namespace) -> None:
    put = [
        ask(url, f"PUT /objects/{n}/talk.webm HTTP/1.1", "Transfer-Encoding: chunked") for n in range(options.uploads)
    ]
    uploads = [await one for one in put]
    watchers = [await ask(url, "GET /uploads/events HTTP/1.1") for _ in range(options.watchers)]
    tasks = [asyncio.create_task(read(reader)) for reader, _ in watchers]
    await asyncio.sleep(3)
    print(f"nothing changes: {await share(pid, options.seconds):.3f} CPU-seconds a second", flush=True)
    tasks.append(asyncio.create_task(send([writer for _, writer in uploads])))
    await asyncio.sleep(2)
    print(f"everything does: {await share(pid, options.seconds):.3f}", flush=True)
    for task in tasks:
        task.cancel()
    for _, writer in [*uploads, *watchers]:
        writer.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--uploads", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("This needs Linux (/proc).")
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    with serving() as (pid, url):
        asyncio.run(measure(url, pid, options))


if __name__ == "__main__":
    main()
