"""The store's prefix is never left: whatever the key and however it comes, as the store sees it.

`fake_store` refuses any key that could leave a prefix, in every test that uses it; here is what goes over the wire.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, quote, unquote

from conftest import START, StartService
from raw_client import eventually, metadata, place
from test_authority import SECRET, TUS_BODY, token
from wire import Request, Wire, answer, store_at

pytest_plugins = ["wire"]

PREFIX = "some/prefix/"
DATA = b"data"

HOSTILE = [
    *("../a", "a/../../b", "..", "a/.", "a//b", "/a", "//bucket/a", "a/", "../prefix-of-others/a", "..;/a", "a/.../b"),
    *("..\\a", "a\\..\\..\\b", "a\x00b", "a\r\nHost: elsewhere", "a\u2028b", "%2e%2e/a", "%2e%2e%2fa"),
    *("a?b=c", "a#b", "a&uploads", "\u2025/a", "\uff0e\uff0e/a", "é" * 600, "a" * 1024, "a b", "\U0001f600"),
]


CHECKSUM = "x-amz-checksum-crc64nvme"
INITIATED = "<InitiateMultipartUploadResult><UploadId>m</UploadId></InitiateMultipartUploadResult>"
COMPLETED = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


def as_s3(request: Request) -> bytes:
    """A store where nothing is there yet, and all goes well: what it gets it names by its checksum."""
    if request.method == "POST":
        return answer(200, INITIATED if request.target.endswith("?uploads") else COMPLETED)
    if request.method == "PUT":
        return answer(200, "", **{"ETag": '"e"', CHECKSUM: request.headers.get(CHECKSUM, "")})
    status = {"HEAD": 404, "DELETE": 204}.get(request.method, 200)
    return answer(status, "<List></List>" if request.method == "GET" else "")


def outside(request: Request) -> str | None:
    """Where a request of ours goes, if that is not below the prefix: as it is, decoded, or tidied by somebody."""
    path, _, query = request.target.partition("?")
    if path == "/bucket":
        asked = parse_qs(query, keep_blank_values=True).get("prefix", [""])[0]
        return None if asked.startswith(PREFIX) else f"a list of {asked!r}"
    root = f"/bucket/{PREFIX}"
    for seen in (path, unquote(path), posixpath.normpath(unquote(path))):
        if not seen.startswith(root):
            return seen
    return None


def escaped(key: str, kept: str = "") -> str:
    return quote(key, safe=kept)


UNESCAPED = "/%.;~\\"
"""What clients send as it is, if they are made to."""

WAYS: Mapping[str, Callable[[str], tuple[str, str, dict[str, str]]]] = {
    "path": lambda key: ("PUT", f"/objects/{escaped(key)}", {}),
    "path as it is": lambda key: ("PUT", f"/objects/{escaped(key, UNESCAPED)}", {}),
    "absolute form": lambda key: ("PUT", f"http://127.0.0.1/objects/{escaped(key, UNESCAPED)}", {}),
    "range": lambda key: ("PUT", f"/objects/{escaped(key)}", place(0)),
    "new": lambda key: ("PUT", f"/objects/{escaped(key)}?interrupted=new", {}),
    "head": lambda key: ("HEAD", f"/objects/{escaped(key)}", {}),
    "get": lambda key: ("GET", f"/objects/{escaped(key)}", {}),
    "delete": lambda key: ("DELETE", f"/objects/{escaped(key)}", {}),
    "query": lambda key: ("POST", f"/uploads?key={escaped(key)}", {"Upload-Complete": "?1"}),
    "metadata": lambda key: ("POST", "/uploads", TUS_BODY | LENGTH | metadata({"key": key})),
    "template": lambda key: ("POST", "/uploads", TUS_BODY | LENGTH | metadata({"filename": key})),
    "disposition": lambda key: ("POST", "/uploads", {"Upload-Complete": "?1"} | named(key)),
}
LENGTH = {"Upload-Length": str(len(DATA))}


def named(key: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{escaped(key)}"}


async def test_no_request_to_the_store_leaves_the_prefix(start_service: StartService, wire: Wire) -> None:
    wire.reply = as_s3
    options = {"jwt_secret": SECRET, "deletes": True, "downloads": True, "key_template": "a/{id}/{filename}"}
    async with store_at(wire) as store:
        service = await start_service(store=store, prefix=PREFIX, **options)
        for way, made in WAYS.items():
            before = len(wire.requests)
            for key in ("a/b", *HOSTILE):
                method, target, fields = made(key)
                body = DATA if method in {"PUT", "POST"} else None
                answered = await service.ask(method, target, body, token() | fields)
                assert answered.status in {200, 201, 204, 307, 400, 404}, (way, key, answered)
            assert len(wire.requests) > before, f"nothing came to the store by {way}"
        await service.stop()
    assert [found for found in map(outside, wire.requests) if found] == []


async def test_neither_do_parts_and_what_is_aborted(start_service: StartService, wire: Wire) -> None:
    wire.reply = as_s3
    async with store_at(wire) as store:
        service = await start_service(store=store, prefix=PREFIX)
        upload = (await service.ask("PUT", "/objects/a/..b", START, {"Upload-Complete": "?0"})).headers["location"]
        await eventually(lambda: any("partNumber=1" in request.target for request in wire.requests))
        assert (await service.ask("DELETE", f"/uploads/{upload[-32:]}")).status == 204
        await eventually(lambda: any(request.method == "DELETE" for request in wire.requests))
        await service.stop()
    assert [found for found in map(outside, wire.requests) if found] == []
    assert {"POST", "PUT", "DELETE"} <= {request.method for request in wire.requests}
