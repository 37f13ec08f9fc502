"""An S3 that keeps nothing: what a client of S3 costs when the store costs nothing.

It speaks just enough S3 for one bucket and the clients of bench/peers: HeadBucket; Create-, List-, Complete- and
AbortMultipartUpload; UploadPart, PutObject, Head-, Get- and DeleteObject. Bodies may be chunked, by HTTP and by AWS.
They are read into one buffer for each connection and forgotten, but for small ones, which can be read back. Their
CRC64NVME is computed on the way (0.1 CPU-s/GiB, in this process), compared with what a client says of each part and of
the whole object, and told of each object: a benchmark that lost bytes would not count. A SHA-256 is only compared for
small bodies, which is enough for a client that tries whether we do: it would cost more than all the rest.

    python bench/sink.py [CERTIFICATE]    # prints its URL; SIGTERM ends it. A PEM file with its key: then by TLS

A thread for each connection: blocking reads are the cheapest there are, by TLS, too.
"""

from __future__ import annotations

import base64
import io
import itertools
import socket
import ssl
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

from awscrt import checksums

BUFFER_BYTES = 256 << 10
HEAD_BYTES = 16 << 10
"""Read ahead for heads. What is asked for beyond goes into the buffer of the body without a copy."""

KEPT_BYTES = 64 << 10
"""Objects up to this size can be read back: @tus/s3-store keeps its notes in some, and asks for them when it was
started again."""

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
    size: int = 0
    crc: int = 0
    start: bytes = b""
    """Of the body, so much as may be kept."""

    @classmethod
    def parse(cls, head: list[bytes]) -> Request:
        line, *fields = (entry.decode("latin-1").strip() for entry in head)
        method, target, _ = line.split(" ")
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in fields)}
        _, _, key = unquote(url.path).lstrip("/").partition("/")
        return cls(method, key, query, headers)

    def read(self, source: io.BufferedReader, buffer: memoryview) -> None:
        """Count and check the body, and drop it."""
        chunked = self.headers.get("transfer-encoding") == "chunked"
        left = int(self.headers.get("content-length", 0))
        if not chunked and not left:
            return
        body = Chunks(source) if chunked else Slice(source, left)
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            body = Chunks(io.BufferedReader(body, HEAD_BYTES))
        while taken := body.readinto(buffer):
            self.start += buffer[: max(0, min(taken, KEPT_BYTES - self.size))]
            self.crc = checksums.crc64nvme(buffer[:taken], self.crc)
            self.size += taken
        while body.source is not source:  # what AWS's chunks left of HTTP's
            body = body.source.raw
            while body.readinto(buffer):
                pass

    @property
    def whole(self) -> bytes | None:
        """The body, if it is small."""
        return self.start if self.size <= KEPT_BYTES else None

    @property
    def right(self) -> bool:
        """Whether the body is what its sender says that it is."""
        crc, sha = (self.headers.get(f"x-amz-checksum-{name}") for name in ("crc64nvme", "sha256"))
        if sha and self.whole is not None:
            return base64.b64decode(sha) == sha256(self.whole).digest()
        return crc in {None, _base64(self.crc)}


class Slice(io.RawIOBase):
    """So many bytes of a source."""

    def __init__(self, source: io.BufferedReader, left: int) -> None:
        self.source = source
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:
        taken = self.source.readinto1(into[: self._left]) if self._left else 0
        if not taken and self._left:
            raise EOFError
        self._left -= taken
        return taken


class Chunks(io.RawIOBase):
    """The content of chunks, as HTTP/1.1 frames them, and AWS: a line with the size, the bytes, an empty line."""

    def __init__(self, source: io.BufferedReader) -> None:
        self.source = source
        self._left: int | None = 0  # of the chunk; None: there are no more

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:
        if self._left == 0:
            self._left = int(self._line().partition(b";")[0], 16) or None
            if self._left is None:
                while self.source.readline().strip():  # trailers
                    pass
        if self._left is None:
            return 0
        taken = self.source.readinto1(into[: self._left])
        if not taken:
            raise EOFError
        self._left -= taken
        if not self._left:
            self._line()
        return taken

    def _line(self) -> bytes:
        if not (line := self.source.readline()):
            raise EOFError
        return line


class Sink:
    """The bucket: open multipart uploads and the heads of objects."""

    def __init__(self) -> None:
        self.uploads: dict[str, Multipart] = {}
        self.objects: dict[str, tuple[dict[str, str], bytes]] = {}
        self._ids = itertools.count(1)
        self._lock = Lock()

    def answer(self, request: Request) -> bytes:
        """The whole response to a request whose body has come."""
        with self._lock:
            return self._answer(request)

    def _answer(self, request: Request) -> bytes:  # noqa: C901, PLR0911 - one line for each operation
        method, query = request.method, request.query
        upload_id = query.get("uploadId", "")
        if upload_id and upload_id not in self.uploads:
            return _response(404, _error("NoSuchUpload"))
        match method:
            case "PUT" if upload_id:
                return self._put_part(request, self.uploads[upload_id])
            case "PUT" if request.key:
                return self._put_object(request)
            case "POST" if "uploads" in query:
                upload_id = str(next(self._ids))
                self.uploads[upload_id] = Multipart(request.key, request.headers)
                return _response(200, f"<R><UploadId>{upload_id}</UploadId></R>")
            case "POST" if upload_id:
                return self._complete(request, upload_id)
            case "GET" if upload_id:
                return _response(200, f"<R>{''.join(_listed(self.uploads[upload_id]))}</R>")
            case "GET" | "HEAD" if request.key:
                if request.key not in self.objects:
                    return _response(404, "" if method == "HEAD" else _error("NoSuchKey"))
                headers, kept = self.objects[request.key]
                return _response(200, **headers) + (kept if method == "GET" else b"")
            case "GET":
                return _response(200, f"<R>{''.join(self._listed(query.get('prefix', '')))}</R>")
            case "DELETE":
                self.uploads.pop(upload_id, None) if upload_id else self.objects.pop(request.key, None)
                return _response(204)
        return _response(200)

    def _put_part(self, request: Request, upload: Multipart) -> bytes:
        if not request.right:
            return _response(400, _error("BadDigest"))
        upload.parts[int(request.query["partNumber"])] = (request.size, request.crc)
        return _response(200, etag=_etag(request.crc), x_amz_checksum_crc64nvme=_base64(request.crc))

    def _put_object(self, request: Request) -> bytes:
        if not request.right:
            return _response(400, _error("BadDigest"))
        return self._store(request.key, request.headers, request.size, request.crc, kept=request.whole or b"")

    def _complete(self, request: Request, upload_id: str) -> bytes:
        upload, size, crc = self.uploads[upload_id], 0, 0
        for _, (part_size, part_crc) in sorted(upload.parts.items()):
            size += part_size
            crc = checksums.combine_crc64nvme(crc, part_crc, part_size)
        if request.headers.get("x-amz-checksum-crc64nvme") not in {None, _base64(crc)}:
            return _response(400, _error("BadDigest"))
        del self.uploads[upload_id]
        return self._store(upload.key, upload.headers, size, crc)

    def _store(self, key: str, described: dict[str, str], size: int, crc: int, *, kept: bytes = b"") -> bytes:
        metadata = {name: value for name, value in described.items() if name.startswith("x-amz-meta-")}
        found = {"content_length": str(size), "etag": _etag(crc), "x_amz_checksum_crc64nvme": _base64(crc)}
        self.objects[key] = metadata | found, kept
        xml = f"<R><ETag>{_etag(crc)}</ETag><ChecksumCRC64NVME>{_base64(crc)}</ChecksumCRC64NVME></R>"
        return _response(200, xml, etag=_etag(crc), x_amz_checksum_crc64nvme=_base64(crc))

    def _listed(self, prefix: str) -> list[str]:
        return [
            f"<Upload><Key>{upload.key}</Key><UploadId>{number}</UploadId><Initiated>{INITIATED}</Initiated></Upload>"
            for number, upload in self.uploads.items()
            if upload.key.startswith(prefix)
        ]


def serve(connection: socket.socket, sink: Sink, tls: ssl.SSLContext | None) -> None:
    """One connection, until its client ends it."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with tls.wrap_socket(connection, server_side=True) if tls else connection as peer:
            source = peer.makefile("rb", HEAD_BYTES)
            while True:
                head = [source.readline()]
                if not head[0]:
                    return
                while (line := source.readline()).strip():
                    head.append(line)
                request = Request.parse(head)
                if "expect" in request.headers:
                    peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.read(source, buffer)
                peer.sendall(sink.answer(request))
    except (EOFError, OSError):
        pass  # it was killed, as some are in this benchmark


def _listed(upload: Multipart) -> list[str]:
    return [
        f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>{_etag(crc)}</ETag></Part>"
        for number, (size, crc) in sorted(upload.parts.items())
    ]


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def _etag(crc: int) -> str:
    return f'"{crc:016x}"'


def _error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>from the sink</Message></Error>"


def _response(status: int, xml: str = "", **headers: str) -> bytes:
    body = xml.encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if status != 204:  # noqa: PLR2004 - No Content
        fields.setdefault("content-length", str(len(body)))
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def main() -> None:
    tls = None
    if certificate := sys.argv[1:]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate[0])
    sink = Sink()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        host, port = server.getsockname()
        print(f"http{'s' if tls else ''}://{host}:{port}", flush=True)
        while True:
            connection, _ = server.accept()
            Thread(target=serve, args=(connection, sink, tls), daemon=True).start()


if __name__ == "__main__":
    main()
