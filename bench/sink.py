"""An S3 that keeps nothing: what streamup costs when the store costs nothing.

It speaks just enough S3 for one bucket: HeadBucket; Create-, List-, Complete- and AbortMultipartUpload; UploadPart,
PutObject, HeadObject, DeleteObject. Bodies are read into one buffer and forgotten. Their CRC64NVME is computed on the
way (0.1 CPU-s/GiB, in this process) and compared with what the client says of each part and of the whole object: a
benchmark that lost bytes would not count.

    python bench/sink.py    # prints its URL; SIGTERM ends it
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import signal
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from awscrt import checksums

BUFFER_BYTES = 256 << 10
INITIATED = "2000-01-01T00:00:00.000Z"


@dataclass
class Multipart:
    """What is remembered of an upload: per part its size and CRC64NVME."""

    key: str
    headers: dict[str, str]
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Request:
    """A request's head, and what has come of its body."""

    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    left: int
    size: int = 0
    crc: int = 0

    @classmethod
    def parse(cls, head: bytes) -> Request:
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in fields)}
        _, _, key = url.path.lstrip("/").partition("/")
        return cls(method, key, query, headers, int(headers.get("content-length", 0)))

    def take(self, view: memoryview) -> int:
        """Count and check what belongs to this body, and drop it."""
        taken = min(self.left, len(view))
        self.crc = checksums.crc64nvme(view[:taken], self.crc)
        self.size += taken
        self.left -= taken
        return taken


class Sink:
    """The bucket: open multipart uploads and the heads of objects."""

    def __init__(self) -> None:
        self.uploads: dict[str, Multipart] = {}
        self.objects: dict[str, dict[str, str]] = {}
        self._ids = itertools.count(1)

    def answer(self, request: Request) -> bytes:  # noqa: PLR0911 - one line for each operation
        """The whole response to a request whose body has come."""
        method, query = request.method, request.query
        upload_id = query.get("uploadId", "")
        if upload_id and upload_id not in self.uploads:
            return _response(404, _error("NoSuchUpload"))
        match method:
            case "PUT" if upload_id:
                return self._put_part(request, self.uploads[upload_id])
            case "PUT" if request.key:
                return self._store(request.key, request.headers, request.size, request.crc, request.headers)
            case "POST" if "uploads" in query:
                upload_id = str(next(self._ids))
                self.uploads[upload_id] = Multipart(request.key, request.headers)
                return _response(200, f"<R><UploadId>{upload_id}</UploadId></R>")
            case "POST" if upload_id:
                return self._complete(request, upload_id)
            case "GET" if upload_id:
                return _response(200, f"<R>{''.join(_listed(self.uploads[upload_id]))}</R>")
            case "GET":
                return _response(200, f"<R>{''.join(self._listed(query.get('prefix', '')))}</R>")
            case "HEAD" if request.key:
                found = self.objects.get(request.key)
                return _response(404) if found is None else _response(200, head=True, **found)
            case "DELETE":
                self.uploads.pop(upload_id, None) if upload_id else self.objects.pop(request.key, None)
                return _response(204)
        return _response(200)

    def _put_part(self, request: Request, upload: Multipart) -> bytes:
        if not _right(request.headers, request.crc):
            return _response(400, _error("BadDigest"))
        upload.parts[int(request.query["partNumber"])] = (request.size, request.crc)
        return _response(200, etag=_etag(request.crc), x_amz_checksum_crc64nvme=_base64(request.crc))

    def _complete(self, request: Request, upload_id: str) -> bytes:
        upload, size, crc = self.uploads[upload_id], 0, 0
        for _, (part_size, part_crc) in sorted(upload.parts.items()):
            size += part_size
            crc = checksums.combine_crc64nvme(crc, part_crc, part_size)
        answer = self._store(upload.key, request.headers, size, crc, upload.headers)
        if request.key in self.objects:
            del self.uploads[upload_id]
        return answer

    def _store(self, key: str, claimed: dict[str, str], size: int, crc: int, described: dict[str, str]) -> bytes:
        if not _right(claimed, crc):
            return _response(400, _error("BadDigest"))
        metadata = {name: value for name, value in described.items() if name.startswith("x-amz-meta-")}
        found = {"content-length": str(size), "etag": _etag(crc), "x-amz-checksum-crc64nvme": _base64(crc)}
        self.objects[key] = metadata | found
        xml = f"<R><ETag>{_etag(crc)}</ETag><ChecksumCRC64NVME>{_base64(crc)}</ChecksumCRC64NVME></R>"
        return _response(200, xml, etag=_etag(crc), x_amz_checksum_crc64nvme=_base64(crc))

    def _listed(self, prefix: str) -> list[str]:
        return [
            f"<Upload><Key>{upload.key}</Key><UploadId>{number}</UploadId><Initiated>{INITIATED}</Initiated></Upload>"
            for number, upload in self.uploads.items()
            if upload.key.startswith(prefix)
        ]


class Connection(asyncio.BufferedProtocol):
    """One connection, read into the buffer that all of them share: nothing stays in it between two calls."""

    _buffer: ClassVar = memoryview(bytearray(BUFFER_BYTES))

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head = b""
        self._request: Request | None = None
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def get_buffer(self, _: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        view = self._buffer[:nbytes]
        while view:
            if self._request is None:
                head, end, _ = (self._head + view).partition(b"\r\n\r\n")
                if not end:
                    self._head = head
                    return
                view = view[len(head) + len(end) - len(self._head) :]
                self._head = b""
                self._request = Request.parse(head)
            view = view[self._request.take(view) :]
            if not self._request.left:
                self._transport.write(self._sink.answer(self._request))
                self._request = None


def _listed(upload: Multipart) -> list[str]:
    return [
        f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>{_etag(crc)}</ETag></Part>"
        for number, (size, crc) in sorted(upload.parts.items())
    ]


def _right(claimed: dict[str, str], crc: int) -> bool:
    return claimed.get("x-amz-checksum-crc64nvme") in {None, _base64(crc)}


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def _etag(crc: int) -> str:
    return f'"{crc:016x}"'


def _error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>from the sink</Message></Error>"


def _response(status: int, xml: str = "", *, head: bool = False, **headers: str) -> bytes:
    body = xml.encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if not head and status != 204:  # noqa: PLR2004 - No Content
        fields["content-length"] = str(len(body))
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def main() -> None:
    loop, sink, stop = asyncio.get_running_loop(), Sink(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
