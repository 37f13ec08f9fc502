"""Requests that no honest client sends, as data: what goes over the socket, and what may come back.

`CORPUS` is the table. A case says what may be answered (`()`: the connection ends without a word) and what is then
under its key: None for nothing, which is what nearly all of them leave. KEY and UPLOAD stand for a key of its own and,
where `begins` says so, for an upload to that key which a good request began before.

What becomes of them on their way is in mutants.py; what may come of that, second_opinion.py says.
"""

from __future__ import annotations

import gzip
import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5, sha256
from typing import Literal

BODY = b"a good body"
SIZE = len(BODY)
WHOLE = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)

LENGTH = f"Content-Length: {SIZE}"
CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"
TUS = "Tus-Resumable: 1.0.0"
OFFSETS = "Content-Type: application/offset+octet-stream"
PARTIAL = "Content-Type: application/partial-upload"
SHA256 = b64encode(sha256(BODY).digest()).decode()
MD5 = b64encode(md5(BODY, usedforsecurity=False).digest()).decode()
NOTHING = b64encode(sha256(b"").digest()).decode()

Begins = Literal["tus", "ietf"]

Outcomes = Mapping[tuple[int, ...], bytes | None]
"""The statuses that may be answered, one after another, and what is then under the key."""


@dataclass(frozen=True)
class Case:
    name: str
    wire: bytes
    outcomes: Outcomes
    begins: Begins | None = None


def request(line: str, *lines: str, body: bytes = b"", host: str = "Host: 127.0.0.1", ends: str = "\r\n") -> bytes:
    """A request head of these lines, as they are (latin-1), and a body."""
    return ends.join([line, *([host] if host else []), *lines, "", ""]).encode("latin-1") + body


def _put(name: str, *lines: str, answer: int | None, body: bytes = BODY, target: str = "/objects/KEY") -> Case:
    """A PUT with these lines, a Content-Length and a good body."""
    return _case(name, request(f"PUT {target} HTTP/1.1", LENGTH, *lines, body=body), answer)


def _case(name: str, wire: bytes, *answers: int | None, begins: Begins | None = None) -> Case:
    """A case with one answer, which is one of these (None: none at all). 201 comes with the good body in the store."""
    outcomes = {() if status is None else (status,): BODY if status == 201 else None for status in answers}
    return Case(name, wire, outcomes, begins)


# -- the line that comes first ----------------------------------------------------------------------------------------


def _request_lines() -> Iterator[Case]:
    def line(text: str, *answers: int | None, host: str = "Host: 127.0.0.1") -> Case:
        return _case(f"line {text[:60]!r}", request(text, LENGTH, host=host, body=BODY), *answers)

    yield line("PUT /objects/KEY HTTP/1.1", 201)
    yield line("put /objects/KEY HTTP/1.1", 400)
    yield line("BREW /objects/KEY HTTP/1.1", 400)
    yield line("PATCH /objects/KEY HTTP/1.1", 405)
    yield line("TRACE /objects/KEY HTTP/1.1", 405)
    yield line("PUT /objects/KEY", 400)
    yield line("PUT /objects/KEY HTTP/0.9", 400)
    yield line("PUT /objects/KEY HTTP/2.0", 400)
    yield line("PUT /objects/KEY HTTP/1.2", 400)
    yield line("PUT /objects/KEY HTTP/3", 400)
    yield line("PUT /objects/KEY HTTP/01.1", 400)
    yield line("PUT /objects/KEY http/1.1", 400)
    yield line("PUT /objects/KEY HTTP/1.1 HTTP/1.1", 400)
    yield line("PUT /objects/KEY HTTPS/1.1", 400)
    yield line("PUT  /objects/KEY HTTP/1.1", 201)  # RFC 9112, 3: words may be told apart by any space
    yield line("PUT\t/objects/KEY\tHTTP/1.1", 400)
    yield line(" PUT /objects/KEY HTTP/1.1", 400)
    yield line("\r\n\r\nPUT /objects/KEY HTTP/1.1", 201)  # RFC 9112, 2.2: empty lines before it are ignored
    yield line("PUT /objects/KEY\x00 HTTP/1.1", 400)
    yield line("PUT /objects/KEY\x7f HTTP/1.1", 400)
    yield line("PUT /objects/KEY\x0b HTTP/1.1", 400)
    yield line("PUT /objects/KEY\xe9 HTTP/1.1", 400)
    yield line("PUT /objects/KEY\xc3\xa9 HTTP/1.1", 400)
    yield line("PUT /objects/KEY#fragment HTTP/1.1", 400)
    yield line("PUT objects/KEY HTTP/1.1", 400)
    yield line("PUT * HTTP/1.1", 400, 404)
    yield line("PUT 127.0.0.1:80 HTTP/1.1", 400, 404)
    # What follows CONNECT is no body (RFC 9110, 9.3.6). Byte by byte it may come after the connection has ended.
    for target in ("127.0.0.1:80", "/objects/KEY"):
        connect = request(f"CONNECT {target} HTTP/1.1", LENGTH, body=BODY)
        yield Case(f"CONNECT {target}", connect, {(404, 400): None, (404,): None, (400,): None})
    yield _case("CONNECT nowhere", b"CONNECT \r\n\r\n", 405)
    yield line("PRI * HTTP/2.0", 400)
    yield line("PUT http://127.0.0.1/objects/KEY HTTP/1.1", 201)
    yield line("PUT HTTP://127.0.0.1/objects/KEY HTTP/1.1", 201)
    yield line("PUT http://evil.example/objects/KEY HTTP/1.1", 403)
    yield line("PUT http://localhost/objects/KEY HTTP/1.1", 201, host="Host: evil.example")  # RFC 9112, 3.2.2
    yield line("PUT http://evil.example@127.0.0.1/objects/KEY HTTP/1.1", 400, 403)
    yield line("PUT http:///objects/KEY HTTP/1.1", 400, 403)
    yield line("PUT http://[::1/objects/KEY HTTP/1.1", 400, 403)
    yield line("PUT file:///objects/KEY HTTP/1.1", 400, 403)
    yield line("PUT //evil.example/objects/KEY HTTP/1.1", 404)
    yield line("PUT /objects/KEY?" + "q" * 9000 + " HTTP/1.1", 400)
    yield line("PUT /objects/KEY?" + "&".join(map(str, range(200))) + " HTTP/1.1", 400)
    yield line("PUT /objects/KEY?checksum=%ff HTTP/1.1", 400)
    yield line("PUT /objects/KEY?interrupted=%00 HTTP/1.1", 400)
    yield line("PUT " + "/" * 3000 + "KEY HTTP/1.1", 404)


# -- header fields ----------------------------------------------------------------------------------------------------


def _header(name: str, *lines: str, answer: int = 400, host: str = "Host: 127.0.0.1") -> Case:
    """A PUT with these lines."""
    return _case(name, request("PUT /objects/KEY HTTP/1.1", LENGTH, *lines, host=host, body=BODY), answer)


def _header_fields() -> Iterator[Case]:
    line = "PUT /objects/KEY HTTP/1.1"
    yield from (
        _header("obs-fold", "X-A: a\r\n b"),
        _header("obs-fold with a tab", "X-A: a\r\n\tb"),
        _header("obs-fold that hides a field", f"X-A: a\r\n {CHUNKED}"),
        _header("a space before the first field", host=" Host: 127.0.0.1"),
        _header("a space before a colon", "X-A : a"),
        _header("a tab before a colon", "X-A\t: a"),
        _header("a space in a name", "X A: a"),
        _header("no colon", "X-A"),
        _header("no name", ": a"),
        _header("NUL in a name", "X-\x00A: a"),
        _header("NUL in a value", "X-A: \x00"),
        _header("another control character", "X-A: a\x01b"),
        _header("DEL in a value", "X-A: a\x7fb"),
        _header("CR in a value", "X-A: a\rb"),
        _header("CR in a value that begins a field", "X-A: a\rContent-Length: 3"),
        _header("LF in a value", "X-A: a\nX-B: b"),
        _header("a name that is not ASCII", "X-\xe9: a"),
        _header("a value that is not ASCII", "X-A: \xe9", answer=201),
        _header("a delimiter in a name", "X(A): a"),
        _header("a name of 9000", "X-" + "a" * 9000 + ": a"),
        _header("a value of 9000", "X-A: " + "a" * 9000),
        _header("200 fields", *(f"X-{n}: a" for n in range(200))),
        _header("5000 fields", *(f"X-{n}: a" for n in range(5000))),
        _header("the same field 200 times", *["X-A: a"] * 200),
    )
    yield _header("1 MB of fields", *(f"X-{n}: {'a' * 8000}" for n in range(125)))
    yield _header("400 kB of fields", *(f"X-{n}: {'a' * 8000}" for n in range(50)), answer=201)
    yield _case("bare LF at every line", request(line, LENGTH, ends="\n", body=BODY), 400)
    yield _case("bare CR at every line", request(line, LENGTH, ends="\r", body=BODY), 400)
    yield _case("1 MB without an end of line", b"PUT /objects/KEY HTTP/1.1\r\nX-A: " + b"a" * (1 << 20), 400)
    yield _case("1 MB of a target", b"PUT /objects/KEY" + b"a" * (1 << 20), 400)


def _hosts_and_pages() -> Iterator[Case]:
    """Who is asked, and by whom."""
    yield from (
        _header("no host", host=""),
        _header("two hosts", "Host: evil.example"),
        _header("the same host twice", "Host: 127.0.0.1"),
        _header("an empty host", host="Host:", answer=403),
        _header("another host", host="Host: evil.example", answer=403),
        _header("a host with a path", host="Host: 127.0.0.1/evil", answer=403),
        _header("a host with a user", host="Host: 127.0.0.1@evil.example", answer=403),
        _header("hosts in a list", host="Host: 127.0.0.1, evil.example", answer=403),
        _header("a host that is not ASCII", host="Host: 127.0.0.1\xff", answer=403),
        _header("a foreign page", "Origin: https://evil.example", answer=403),
        _header("a page without an origin", "Origin: null", answer=403),
        _header("two origins", "Origin: http://127.0.0.1", "Origin: https://evil.example", answer=403),
        _header("a foreign page that says where it comes from", "Sec-Fetch-Site: cross-site", answer=403),
    )
    preflight = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: \xff")
    yield _case("a preflight that is not ASCII", request("OPTIONS /objects/KEY HTTP/1.1", *preflight), 204, 400)


def _other_talk() -> Iterator[Case]:
    """Other methods, other protocols, and noise."""
    yield from (
        _header("an upgrade", "Connection: Upgrade", "Upgrade: h2c", answer=201),
        _header("a websocket", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AA==", answer=201),
        _header("a hop that is no hop", "Connection: Content-Length", answer=201),
        _header("another expectation", "Expect: 200-ok"),
        _header("100-continue, and the body at once", EXPECT, answer=201),
        _header("100-continue twice", EXPECT, EXPECT, answer=201),
        _case("GET with a body", request("GET /uploads HTTP/1.1", LENGTH, body=BODY), 200),
        _case("GET with chunks", request("GET /uploads HTTP/1.1", CHUNKED, body=WHOLE), 200),
        _case("HEAD with a body", request("HEAD /objects/KEY HTTP/1.1", LENGTH, body=BODY), 404),
        _case("DELETE with a body", request("DELETE /objects/KEY HTTP/1.1", LENGTH, body=BODY), 404),
        _case("OPTIONS with a body", request("OPTIONS /objects/KEY HTTP/1.1", CHUNKED, body=WHOLE), 204),
        _case("nothing", b"", None),
        _case("empty lines", b"\r\n" * 50, None),
        _case("half a head", request("PUT /objects/KEY HTTP/1.1", LENGTH)[:40], None),
        _case("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
        _case("a greeting of TLS", bytes.fromhex("1603010200010001fc0303") + bytes(40), 400),
        _case("a greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        _case("a greeting of SMTP", b"EHLO example\r\n", 400),
        _case("noise", random.Random(1).randbytes(3000), 400),
        _case("zeros", bytes(3000), 400),
    )
    zipped = gzip.compress(bytes(5000))  # it is stored as it comes
    wire = request("PUT /objects/KEY HTTP/1.1", f"Content-Length: {len(zipped)}", "Content-Encoding: gzip", body=zipped)
    yield Case("gzip", wire, {(201,): zipped})
    yield _header("gzip that is none", "Content-Encoding: gzip", answer=201)


# -- framing ----------------------------------------------------------------------------------------------------------


def _framing() -> Iterator[Case]:
    line = "PUT /objects/KEY HTTP/1.1"

    def framed(name: str, *lines: str, body: bytes = BODY, answer: tuple[int | None, ...] = (400,)) -> Case:
        return _case(name, request(line, *lines, body=body), *answer)

    yield framed("no framing", body=b"", answer=(411,))
    yield framed("no framing, and a body", answer=(411, 400))
    yield framed("length and chunks", LENGTH, CHUNKED, body=WHOLE)
    yield framed("chunks and length", CHUNKED, LENGTH, body=WHOLE)
    yield framed("chunks and length 0", CHUNKED, "Content-Length: 0", body=WHOLE)
    yield framed("two lengths", "Content-Length: 3", LENGTH)
    yield framed("the same length twice", LENGTH, LENGTH)
    for text in ("-1", "+11", "11, 11", "11, 12", "0x0b", "11.0", "1e1", "11 11", "", "11;a=b", "\xb9\xb9", "0b1011"):
        yield framed(f"Content-Length {text!r}", f"Content-Length: {text}")
    for text in (str(1 << 63), str(1 << 64), str((1 << 64) + SIZE), "9" * 40):
        yield framed(f"Content-Length {text}", f"Content-Length: {text}", answer=(400, 413, 409))
    yield framed("Content-Length with zeros before it", f"Content-Length: 000{SIZE}", answer=(201,))
    yield framed("Content-Length with spaces around it", f"Content-Length:  {SIZE} \t", answer=(201,))
    yield framed("a body that is too short", f"Content-Length: {SIZE + 1}", answer=(409,))
    for coding in ("gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "xchunked", "chunked;q=1"):
        answers = (501, 400)
        yield framed(f"Transfer-Encoding {coding!r}", f"Transfer-Encoding: {coding}", body=WHOLE, answer=answers)
    for coding in ("", "\x0bchunked", "chunked\x00", '"chunked"', "chunke\x64\xa0", ", chunked", "chunked,"):
        answers = (400, 411, 501)
        yield framed(f"Transfer-Encoding {coding!r}", f"Transfer-Encoding: {coding}", body=WHOLE, answer=answers)
    yield framed("Transfer-Encoding in capitals", "TRANSFER-ENCODING: CHUNKED", body=WHOLE, answer=(201,))
    yield framed("Transfer-Encoding twice", "Transfer-Encoding: gzip", CHUNKED, body=WHOLE, answer=(400, 501))
    yield framed("chunked twice", CHUNKED, CHUNKED, body=WHOLE, answer=(400, 501))
    yield framed("a space before Transfer-Encoding's colon", "Transfer-Encoding : chunked", body=WHOLE)
    yield framed("an underscore", "Transfer_Encoding: chunked", body=WHOLE, answer=(411, 400))
    yield framed("a hidden coding", "X-A: a\nTransfer-Encoding: chunked", body=WHOLE)
    yield _case("HTTP/1.0", request("PUT /objects/KEY HTTP/1.0", LENGTH, body=BODY), 201)
    yield _case("HTTP/1.0 without a length", request("PUT /objects/KEY HTTP/1.0", body=BODY), 411, 400)
    # RFC 9112, 6.1: such a message was framed by somebody who cannot know.
    yield _case("HTTP/1.0 in chunks", request("PUT /objects/KEY HTTP/1.0", CHUNKED, body=WHOLE), 400)


def _chunks() -> Iterator[Case]:
    def chunked(name: str, body: bytes, *answers: int | None, lines: tuple[str, ...] = ()) -> Case:
        return _case(f"chunks: {name}", request("PUT /objects/KEY HTTP/1.1", CHUNKED, *lines, body=body), *answers)

    good, last = b"b\r\n%b\r\n" % BODY, b"0\r\n\r\n"
    wrong = (400, 409, None)  # what came before may be kept: 409 then says that it was interrupted
    yield chunked("good", good + last, 201)
    yield chunked("of one byte each", b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + last, 201)
    yield chunked("in capitals", b"B\r\n%b\r\n" % BODY + last, 201)
    yield chunked("zeros before the size", b"0000b\r\n%b\r\n" % BODY + last, 201)
    yield chunked("several zeros at the end", good + b"000\r\n\r\n", 201)
    yield chunked("extensions", b'b;a=b;c="d e"\r\n%b\r\n' % BODY + last, 201)
    yield chunked("nothing", b"", 409)
    yield chunked("without the last", good, 409)
    yield chunked("without the last line", good + b"0\r\n", 409)
    yield chunked("without the last byte", good + b"0\r\n\r", 409)
    yield chunked("a size without a chunk", b"b\r\n", 409)
    yield chunked("half a size", b"b", 409)
    yield chunked("half a chunk", good[:7], 409)
    for name, body in {
        "not hexadecimal": b"ZZ\r\n",
        "an empty size": b"\r\n",
        "0x": b"0xb\r\n%b\r\n" % BODY,
        "a negative size": b"-b\r\n%b\r\n" % BODY,
        "a positive size": b"+b\r\n%b\r\n" % BODY,
        "a space before the size": b" b\r\n%b\r\n" % BODY,
        "an underscore in the size": b"0_b\r\n%b\r\n" % BODY,
        "digits of another script": "\u0661\r\n".encode() + good,
        "bare LF after the size": b"b\n%b\r\n" % BODY,
        "bare LF after the chunk": b"b\r\n%b\n" % BODY,
        "bare CR after the size": b"b\r%b\r\n" % BODY,
        "no end of the chunk": b"b\r\n%b" % BODY,
        "a chunk that is too long": b"a\r\n%b\r\n" % BODY,
        "a chunk that is too short": b"c\r\n%b\r\n" % BODY,
        "2^64 + 11": b"1000000000000000b\r\n%b\r\n" % BODY,
        "2^63": b"8000000000000000\r\n%b\r\n" % BODY,
        "NUL": bytes(10),
        "LF in an extension": b"b;a\nc\r\n%b\r\n" % BODY,
        "NUL in an extension": b"b;a\x00c\r\n%b\r\n" % BODY,
        "an extension without an end": b"b;" + b"a" * 70_000,
    }.items():
        yield chunked(name, body + last, *wrong)
        yield chunked(f"good, then {name}", good + body + last, *wrong)
    yield chunked("bare LF at the end", good + b"0\r\n\n", *wrong)
    yield chunked("bare LF after the last size", good + b"0\n\r\n", *wrong)
    yield chunked("a trailer", good + b"0\r\nX-A: a\r\n\r\n", 201, lines=("Trailer: X-A",))
    yield chunked("a trailer that was not announced", good + b"0\r\nX-A: a\r\n\r\n", 201)
    yield chunked("a trailer that frames", good + b"0\r\nContent-Length: 5\r\n\r\n", *wrong)
    yield chunked("a trailer that frames otherwise", good + b"0\r\nTransfer-Encoding: gzip\r\n\r\n", *wrong)
    yield chunked("a trailer that authorizes", good + b"0\r\nAuthorization: Bearer x\r\nHost: x\r\n\r\n", 201)
    yield chunked("a trailer that is not one", good + b"0\r\nnonsense\r\n\r\n", *wrong)
    yield chunked("a trailer with a space before its colon", good + b"0\r\nX-A : a\r\n\r\n", *wrong)
    yield chunked("a trailer with NUL", good + b"0\r\nX-A: \x00\r\n\r\n", *wrong)
    yield chunked("a trailer of 1 MB", good + b"0\r\nX-A: " + b"a" * (1 << 20) + b"\r\n\r\n", *wrong)
    yield chunked("5000 trailers", good + b"0\r\n" + b"X-A: a\r\n" * 5000 + b"\r\n", *wrong)
    yield chunked("a guard in a trailer", good + last, 501, lines=("Trailer: Content-MD5",))


# -- one after another ------------------------------------------------------------------------------------------------


def _pipelines() -> Iterator[Case]:
    def put(target: str, *lines: str, body: bytes = BODY) -> bytes:
        return request(f"PUT {target} HTTP/1.1", *(lines or (LENGTH,)), body=body)

    good = put("/objects/KEY")
    yield Case("two good ones", good + good, {(201, 201): BODY})
    yield Case("one that asks, and a good one", request("GET /uploads HTTP/1.1") + good, {(200, 201): BODY})
    # What comes in one packet with something that is no request is thrown away with it.
    too_much = {(201, 400): BODY, (400,): None}
    yield Case("a body that is too long", good + b"!!", too_much)
    unsure = {(201,): b"", (409,): None}  # where the store does not say in time that there is nothing to replace
    yield Case("an empty body in chunks", put("/objects/KEY", CHUNKED, body=b"0\r\n\r\n"), unsure)
    yield Case("a good one, and noise", good + b"\x00noise\r\n\r\n", too_much)
    yield Case("a good one, and half a good one", good + good[:30], {(201,): BODY})
    last = {(201,): BODY, (400,): None}
    yield Case("Connection: close, and another", put("/objects/KEY", LENGTH, "Connection: close") * 2, last)
    yield Case("HTTP/1.0, and another", good.replace(b"/1.1", b"/1.0") * 2, last)
    refused = {
        "by its key": put("/objects/a//b"),
        "by its route": put("/nowhere"),
        "by its method": request("PATCH /objects/KEY HTTP/1.1", LENGTH, body=BODY),
        "by its guard": put("/objects/KEY", LENGTH, "Content-MD5: x"),
        "by its origin": put("/objects/KEY", LENGTH, "Origin: https://evil.example"),
        "by its coding": put("/objects/KEY", "Transfer-Encoding: gzip, chunked", body=WHOLE),
        "in chunks": put("/objects/a//b", CHUNKED, body=WHOLE),
        "with Expect": put("/objects/a//b", LENGTH, EXPECT),
    }
    for name, wire in refused.items():
        (status,) = {"by its route": (404,), "by its method": (405,), "by its origin": (403,)}.get(name, (400,))
        status = 501 if name == "by its coding" else status
        yield Case(f"refused {name}, and another", wire + good, {(status,): None})
    evil = put("/objects/KEY", body=BODY)
    yield Case("one in a refused body", put("/objects/a//b", f"Content-Length: {len(evil)}", body=evil), {(400,): None})
    yield Case(
        "one in a body that is too short",
        put("/objects/a//b", "Content-Length: 5", body=b"short" + evil),
        {(400,): None},
    )
    yield Case("one after two framings", put("/objects/KEY", LENGTH, CHUNKED, body=b"0\r\n\r\n" + evil), {(400,): None})
    yield Case(
        "one after a length that is none", put("/objects/KEY", "Content-Length: 0\x00", body=evil), {(400,): None}
    )


# -- what goes with an object -----------------------------------------------------------------------------------------


def _keys_and_metadata() -> Iterator[Case]:
    for target in (
        *("/", "//KEY", "/KEY/", "/KEY//a", "/.", "/..", "/../KEY", "/KEY/../a", "/KEY/./a", "/%2e%2e/KEY"),
        *("/KEY%2f..%2fa", "/%2fKEY", "/KEY%00", "/KEY%0d%0aX-A:%20a", "/KEY%7f", "/KEY%c2%85", "/KEY%5ca", "/KEY\\a"),
        *("/KEY%ff", "/KEY%c3", "/KEY%c0%af", "/KEY%ed%a0%80", "/KEY%f4%90%80%80", "/KEY%e2%80%a8"),
        *("/KEY%252e%252e%252fa", "/KEY%252Fa", "/%252e%252e/KEY", "/KEY%255ca"),
        *("/" + "KEY" + "a" * 1100, "/KEY" + "%F0%9F%98%80" * 300),
    ):
        yield _put(f"key {target[:40]!r}", answer=400, target=f"/objects{target}")
    for name, line, status in (
        ("our own", "x-amz-meta-streamup-token: mine", 400),
        ("our own, in capitals", "X-AMZ-META-STREAMUP-TOKEN: mine", 400),
        ("without a name", "x-amz-meta-: a", 400),
        ("too much", "x-amz-meta-a: " + "a" * 2048, 400),
        ("not ASCII", "x-amz-meta-a: \xe9", 400),
        ("UTF-8", "x-amz-meta-a: \xf0\x9f\x98\x80", 400),
        ("a tab", "x-amz-meta-a: a\tb", 400),
        ("escaped, and stored as it came", "x-amz-meta-a: %0d%0aX-B:%20b", 201),
        ("a field of S3's", "x-amz-copy-source: /bucket/other", 201),
        ("an access list of S3's", "x-amz-acl: public-read", 201),
        ("a redirect of S3's", "x-amz-website-redirect-location: https://evil.example", 201),
        ("a type that is none", "Content-Type: nonsense", 400),
        ("a type without an end", "Content-Type: text/", 400),
        ("two types", "Content-Type: text/plain, text/html", 400),
        ("a type that is not ASCII", "Content-Type: text/\xe9", 400),
        ("a type with parameters", 'Content-Type: text/plain; charset="utf-8"', 201),
        ("a type with broken parameters", 'Content-Type: text/plain; charset="utf-8', 400),
        ("a form", "Content-Type: multipart/form-data; boundary=a", 415),
        ("a form that curl invents", "Content-Type: application/x-www-form-urlencoded", 201),
        ("a coding that is none", "Content-Encoding: gz ip", 400),
        ("codings", "Content-Encoding: gzip, br", 201),
        ("a coding of S3's", "Content-Encoding: aws-chunked", 501),
        ("a disposition", 'Content-Disposition: attachment; filename="a b.mp4"', 201),
        ("a disposition that is none", "Content-Disposition: ;", 400),
        ("a disposition that is not ASCII", "Content-Disposition: attachment; filename=\xe9", 400),
        ("a disposition without an end", 'Content-Disposition: attachment; filename="a', 400),
        ("caching", "Cache-Control: max-age=3600, public", 201),
        ("caching that is none", "Cache-Control: max age", 400),
    ):
        yield _put(f"metadata: {name}", line, answer=status)
    yield _put("metadata: two types in two lines", "Content-Type: text/plain", "Content-Type: text/html", answer=400)
    yield _put("metadata: 100 of them", *(f"x-amz-meta-{n}: {'a' * 30}" for n in range(100)), answer=400)


def _guards() -> Iterator[Case]:
    for line, status in (
        (f"Content-MD5: {MD5}", 201),
        (f"Repr-Digest: sha-256=:{SHA256}:", 201),
        (f"Content-MD5: {b64encode(bytes(16)).decode()}", 400),
        (f"Repr-Digest: sha-256=:{NOTHING}:", 400),
        (f"Content-Digest: sha-256=:{NOTHING}:", 400),
        (f"Repr-Digest: sha-512=:{SHA256}:", 400),
        ("Content-MD5: x", 400),
        ("Content-MD5:", 400),
        (f"Content-MD5: {MD5}, {MD5}", 400),
        ("Repr-Digest:", 400),
        ("Repr-Digest: sha-256", 400),
        ("Repr-Digest: sha-256=::", 400),
        ("Repr-Digest: md5=:AAAA:", 400),
        ("Repr-Digest: \xff", 400),
        ("x-amz-checksum-crc64nvme: AAAAAAAAAAA=", 400),
        ("x-amz-checksum-sha256: x", 400),
        ("x-amz-checksum-xxhash3: AAAA", 501),
        ("Upload-Checksum: sha1 AAAA", 501),
        ("If-None-Match: *", 201),
        ('If-None-Match: "a"', 400),
        ("If-None-Match: *, *", 400),
        ("If-Match: *", 501),
    ):
        yield _put(f"guard {line[:50]!r}", line, answer=status)
    for value in (
        *("bytes", "bytes 0-10", "bytes 0-10/", "bytes 0-9/11", "bytes 5-4/*", "bytes 0-10/5", "bytes -5/11"),
        *(
            "bytes 0--1/*",
            "bytes 0-1e1/*",
            "bytes +0-10/11",
            "bytes 0-10/11, 0-10/11",
            "lines 0-10/11",
            "bytes=0-10/11",
        ),
        *("bytes */11", "bytes */*", "bytes 0-*/11x", f"bytes 0-{10**20}/*", f"bytes {10**20}-*/*", "bytes \xb9-*/*"),
        *("bytes 0-10/11\x0b", "bytes  0-10/11", ""),
    ):
        yield _put(f"Content-Range {value!r}", f"Content-Range: {value}", answer=400)
    yield _put("a range of an upload that is not there", "Content-Range: bytes 5-15/16", answer=409)
    yield _put("a range that is all", "Content-Range: bytes 0-10/11", answer=201)
    for value in ("-1", "+11", "1e1", "0x0b", "11.0", "?1", "", "ten", "9" * 16, "10", "12", "11, 11"):
        yield _put(f"Upload-Length {value!r}", f"Upload-Length: {value}", answer=400)
    yield _put("an offset by PUT", "Upload-Offset: 0", answer=400)
    for query in ("checksum=md5", "interrupted=maybe", "upload-complete=2", "upload-complete=", "interrupted=%ff"):
        yield _put(f"query {query!r}", answer=400, target=f"/objects/KEY?{query}")


# -- tus --------------------------------------------------------------------------------------------------------------


def _tus_creations() -> Iterator[Case]:
    def create(name: str, *lines: str, body: bytes = b"", answer: int = 400, query: str = "?key=KEY") -> Case:
        length = f"Content-Length: {len(body)}"
        return _case(f"tus: {name}", request(f"POST /uploads{query} HTTP/1.1", TUS, length, *lines, body=body), answer)

    def metadata(name: str, value: str, answer: int = 400, query: str = "?key=KEY") -> Case:
        made = create(f"metadata: {name}", "Upload-Length: 11", f"Upload-Metadata: {value}", answer=answer, query=query)
        return Case(made.name, made.wire, dict.fromkeys(made.outcomes))

    def encoded(text: bytes) -> str:
        return b64encode(text).decode()

    for value in (
        "-1",
        "+11",
        "1e3",
        "0x0b",
        "11.0",
        "",
        "9" * 16,
        "9" * 400,
        "\xb9\xb9",
        "11 11",
        "11,11",
        "11;a",
        "NaN",
    ):
        yield create(f"Upload-Length {value[:20]!r}", f"Upload-Length: {value}")
    yield create("no length")
    yield create("a length and none", "Upload-Length: 11", "Upload-Defer-Length: 1")
    yield create("two lengths", "Upload-Length: 11", "Upload-Length: 11")
    yield create("Upload-Defer-Length 0", "Upload-Defer-Length: 0")
    yield create("Upload-Defer-Length 2", "Upload-Defer-Length: 2")
    yield create("a body that is longer than its length", "Upload-Length: 5", OFFSETS, body=BODY)
    yield create("a body of another type", "Upload-Length: 11", body=BODY, answer=415)
    yield create(
        "a body that is a form", "Upload-Length: 11", "Content-Type: multipart/form-data", body=BODY, answer=415
    )
    yield create("all of it", "Upload-Length: 11", OFFSETS, body=BODY, answer=201)
    yield create("pieces to be joined", "Upload-Length: 11", "Upload-Concat: partial")
    yield create("the whole of pieces", "Upload-Concat: final;/uploads/a /uploads/b")
    yield create("a key that leaves its place", "Upload-Length: 11", query="?key=../KEY")
    yield create("a key with NUL", "Upload-Length: 11", query="?key=KEY%00")
    yield create("an empty key", "Upload-Length: 11", query="?key=")
    yield metadata("not base64", "filename !!!!")
    yield metadata("not padded", "filename YWI")
    yield metadata("a name twice", "a YQ==,a YQ==")
    yield metadata("a name in two spellings", "a YQ==,A YQ==")
    yield metadata("no name", ", YQ==")
    yield metadata("commas", ",,,,")
    yield metadata("three words", "a YQ== YQ==")
    yield metadata("a name that is not ASCII", "\xe9 YQ==")
    yield metadata("our own", f"streamup-token {encoded(b'mine')}")
    yield metadata("too much", f"a {encoded(b'a' * 3000)}")
    yield metadata("a key that leaves its place", f"key {encoded(b'../KEY')}", query="")
    yield metadata("a key with a line", f"key {encoded(b'KEY' + bytes([13, 10]))}", query="")
    yield metadata("a key that is not UTF-8", f"key {encoded(bytes([255]))}", query="")
    yield metadata("a type with a line", f"filetype {encoded(b'text/plain' + bytes([13, 10]) + b'X-A: a')}")
    yield metadata("a type that is none", f"filetype {encoded(b'nonsense')}")
    yield metadata("values that are no text", f"a {encoded(bytes(range(0, 256, 9)))}", 201)
    yield metadata("a line in a value", f"a {encoded(b'a' + bytes([13, 10]) + b'X-B: b')}", 201)
    yield metadata("a file name that leaves its place", f"filename {encoded(b'../../etc/passwd')}", 201)
    yield _case(
        "tus: no version", request("POST /uploads?key=KEY HTTP/1.1", "Upload-Length: 11", "Content-Length: 0"), 412
    )
    yield _case(
        "tus: another version", request("POST /uploads HTTP/1.1", "Tus-Resumable: 0.2", "Upload-Length: 1"), 412
    )


def _tus_appends() -> Iterator[Case]:
    def patch(name: str, *lines: str, body: bytes = BODY, answer: tuple[int | None, ...] = (400,)) -> Case:
        wire = request("PATCH /uploads/UPLOAD HTTP/1.1", TUS, *(lines or (OFFSETS, LENGTH)), body=body)
        return _case(f"tus: append {name}", wire, *answer, begins="tus")

    good = (OFFSETS, LENGTH, "Upload-Offset: 0")
    yield Case("tus: append", patch("", *good).wire, {(204,): BODY}, "tus")
    yield patch("nowhere")
    for value in ("-1", "+0", "0x0", "0.0", "", "0 0", "0, 0", "9" * 30):
        yield patch(f"at {value[:20]!r}", OFFSETS, LENGTH, f"Upload-Offset: {value}")
    yield patch("too far on", OFFSETS, LENGTH, "Upload-Offset: 1", answer=(409,))
    yield patch("too much", OFFSETS, "Content-Length: 13", "Upload-Offset: 0", body=BODY + b"!!", answer=(413,))
    yield patch("of another type", LENGTH, "Upload-Offset: 0", answer=(415,))
    yield patch("at another length", *good, "Upload-Length: 12")
    yield patch("with a wrong checksum", *good, "Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=", answer=(460,))
    yield patch("with an unknown checksum", *good, "Upload-Checksum: md9 AAAA")
    yield patch("with a checksum that is none", *good, "Upload-Checksum: sha1 !!!!")
    yield patch("with no checksum", *good, "Upload-Checksum: sha1", answer=(460, 400))
    yield patch("of less than it says", *good, body=BODY[:5], answer=(409,))
    yield _case(
        "tus: append in chunks, too much",
        request(
            "PATCH /uploads/UPLOAD HTTP/1.1", TUS, OFFSETS, CHUNKED, "Upload-Offset: 0", body=b"d\r\n%b!!\r\n" % BODY
        ),
        *(400, 409, 413),
        begins="tus",
    )
    yield _case("tus: append to nothing", request("PATCH /uploads/nobody HTTP/1.1", TUS, *good, body=BODY), 404)
    yield _case("tus: append to ..", request("PATCH /uploads/.. HTTP/1.1", TUS, *good, body=BODY), 404)
    yield _case("tus: append to %00", request("PATCH /uploads/%00 HTTP/1.1", TUS, *good, body=BODY), 404)
    yield _case("tus: append to %ff", request("PATCH /uploads/%ff HTTP/1.1", TUS, *good, body=BODY), 400)
    for method in ("PUT", "patch ", "BREW", "", "DELETE, PATCH"):
        wire = request("POST /uploads/UPLOAD HTTP/1.1", TUS, f"X-HTTP-Method-Override: {method}", *good, body=BODY)
        if method.strip() == "patch":
            yield Case("tus: override by 'patch '", wire, {(204,): BODY}, "tus")
        else:
            yield _case(f"tus: override by {method!r}", wire, 405, begins="tus")


# -- the IETF draft ---------------------------------------------------------------------------------------------------


def _ietf() -> Iterator[Case]:
    def put(name: str, *lines: str, answer: tuple[int | None, ...] = (400,)) -> Case:
        return _case(f"ietf: {name}", request("PUT /objects/KEY HTTP/1.1", LENGTH, *lines, body=BODY), *answer)

    for value in (
        *(
            "",
            "1",
            "?",
            "?2",
            "??1",
            "true",
            '"?1"',
            "?1, ?1",
            "?1 ?1",
            "?1;",
            "?1;A",
            "?1\t",
            "?1\x0b",
            "(?1)",
            ":AA==:",
        ),
        *("\xa0?1", "?\xb9", "@1", "?1;a=\xff"),
    ):
        yield put(
            f"Upload-Complete {value!r}", f"Upload-Complete: {value}", answer=(201,) if value == "?1\t" else (400,)
        )
    yield put("Upload-Complete twice", "Upload-Complete: ?1", "Upload-Complete: ?0")
    yield put("all of it", "Upload-Complete: ?1", answer=(201,))
    not_all = put("not all of it", "Upload-Complete: ?0", answer=(201,))
    yield Case(not_all.name, not_all.wire, {(201,): None})
    yield put("both fields", "Upload-Complete: ?1", "Upload-Incomplete: ?1", answer=(201,))  # its own field counts
    yield put("a beginning that is none", "Upload-Complete: ?1", "Upload-Offset: 5")
    yield put("a length that it is not", "Upload-Complete: ?1", "Upload-Length: 12")
    for value in ("-1", "9" * 16):
        yield put(f"Upload-Length {value!r}", "Upload-Complete: ?1", f"Upload-Length: {value}")
    for value in ("", "99", "-1", "?1", "9" * 30, "7;a=", "\xff"):
        yield put(f"version {value!r}", "Upload-Complete: ?1", f"Upload-Draft-Interop-Version: {value}", answer=(201,))
    yield put("a digest of something else", "Upload-Complete: ?1", f"Repr-Digest: sha-256=:{NOTHING}:")

    def patch(name: str, *lines: str, answer: tuple[int | None, ...] = (400,)) -> Case:
        wire = request("PATCH /uploads/UPLOAD HTTP/1.1", LENGTH, PARTIAL, *lines, body=BODY)
        return _case(f"ietf: append {name}", wire, *answer, begins="ietf")

    good = ("Upload-Offset: 0", "Upload-Complete: ?1")
    yield patch("all of it", *good, answer=(201,))
    yield patch("somewhere", "Upload-Complete: ?1")
    yield patch("without a word", "Upload-Offset: 0")
    for value in ("-1", "0.0", '"0"', "0, 0", "?0", "9" * 16, ":AA==:", "0;", "0;a=", "(0)", "\xb2"):
        yield patch(f"at {value!r}", f"Upload-Offset: {value}", "Upload-Complete: ?1")
    for value in ("1", "?2", "true", "?1;A", "?1, ?0", ""):
        yield patch(f"that says {value!r}", "Upload-Offset: 0", f"Upload-Complete: {value}")
    yield patch("too far on", "Upload-Offset: 5", "Upload-Complete: ?1", answer=(409,))
    yield patch("of another length", *good, "Upload-Length: 5")
    yield patch("with a wrong digest", *good, f"Content-Digest: sha-256=:{NOTHING}:")
    yield patch("with a wrong digest of the whole", *good, f"Repr-Digest: sha-256=:{NOTHING}:")
    yield patch("twice in one", *good, "Upload-Offset: 5")
    yield _case(
        "ietf: append of a type of its own",
        request("PATCH /uploads/UPLOAD HTTP/1.1", LENGTH, "Content-Type: text/plain", *good, body=BODY),
        415,
        begins="ietf",
    )
    yield _case(
        "ietf: a question with an answer",
        request("HEAD /uploads/UPLOAD HTTP/1.1", "Upload-Offset: 0"),
        400,
        begins="ietf",
    )
    yield _case("ietf: an upload without a word", request("POST /uploads HTTP/1.1", LENGTH, body=BODY), 400)
    yield _case(
        "ietf: an upload without framing", request("POST /uploads?key=KEY HTTP/1.1", "Upload-Complete: ?1"), 411
    )


CORPUS = (
    *_request_lines(),
    *_header_fields(),
    *_hosts_and_pages(),
    *_other_talk(),
    *_framing(),
    *_chunks(),
    *_pipelines(),
    *_keys_and_metadata(),
    *_guards(),
    *_tus_creations(),
    *_tus_appends(),
    *_ietf(),
)
