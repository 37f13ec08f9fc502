"""A real store, with one thing changed on the way: a relay before it, on the server of `wire`."""

import asyncio
import http.client
from contextlib import closing
from urllib.parse import parse_qs, urlsplit


def operation(method, target):
    """S3's name of what a request asks for, as far as a start and a doctor ask for it."""
    path, _, query = target.partition("?")
    asked = parse_qs(query, keep_blank_values=True).keys()
    settings = {
        "lifecycle": "GetBucketLifecycleConfiguration",
        "cors": "GetBucketCors",
        "versioning": "GetBucketVersioning",
        "encryption": "GetBucketEncryption",
        "object-lock": "GetObjectLockConfiguration",
        "uploads": "ListMultipartUploads",
    }
    if path.count("/") < 2:
        return next((name for word, name in settings.items() if word in asked), f"{method.title()}Bucket")
    if "attributes" in asked:
        return "GetObjectAttributes"
    if "uploads" in asked:
        return "CreateMultipartUpload"
    if "uploadId" in asked:
        return {
            "PUT": "UploadPart",
            "GET": "ListParts",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }[method]
    return f"{method.title()}Object"


class Relay:
    """Passes every request to the store, but those for which `refuse(operation, request)` has an answer of its own.

    `change` may alter what the store says: it gets the operation, the header fields and the body. `seen`: what was
    asked, by operation.
    """

    def __init__(self, wire, url):
        self.url = wire.url
        self.seen = []
        self.refuse = lambda _operation, _request: None
        self.change = lambda _operation, headers, body: (headers, body)
        self._store = urlsplit(url)
        wire.reply = self._reply

    def _reply(self, request):
        async def act(reader, writer):
            body = await reader.readexactly(int(request.headers.get("content-length", 0)))
            name = operation(request.method, request.target)
            self.seen.append(name)
            said = self.refuse(name, request)
            if asyncio.iscoroutine(said):
                said = await said
            said = said or await asyncio.to_thread(self._pass_on, name, request, body)
            writer.write(said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else said)

        return act

    def _pass_on(self, name, request, body):
        with closing(http.client.HTTPConnection(self._store.hostname, self._store.port, timeout=20)) as connection:
            connection.request(request.method, request.target, body, request.headers)
            response = connection.getresponse()
            data = response.read()
        headers = {k: v for k, v in response.getheaders() if k.lower() not in {"connection", "transfer-encoding"}}
        headers, data = self.change(name, headers, data)
        length = headers["Content-Length"] if request.method == "HEAD" else len(data)
        lines = [f"{k}: {v}" for k, v in (headers | {"Content-Length": length}).items()]
        return "\r\n".join([f"HTTP/1.1 {response.status} X", *lines, "", ""]).encode() + data
