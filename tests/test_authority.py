"""Who may do what, over HTTP: every route and method with every kind of credential, and what a token allows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import BODY, PART_BYTES, Service, StartService, strict_store
from fake_store import FakeObject
from raw_client import (
    CHUNKED,
    EXPECT,
    LAST_CHUNK,
    OCTETS,
    TUS,
    Answer,
    Client,
    at,
    chunk,
    eventually,
    head,
    metadata,
    place,
    refused,
)

from streamup import routes
from streamup.credentials import Credentials
from streamup.stores import ObjectMeta
from streamup.token_keys import SigningKey, secret_key
from streamup.tokens import Verifier, mint

pytestmark = pytest.mark.usefixtures("impatient")

SECRET = b"a secret of thirty-two bytes or more"
NEXT_SECRET = b"the secret that comes after that one"


def token(*, secret: bytes = SECRET, **claims: Any) -> dict[str, str]:
    """A request's field with a token: ann's, for an hour, unless it says otherwise."""
    made = mint({"sub": "ann", "exp": time.time() + 3600} | claims, SigningKey("HS256", secret))
    return {"Authorization": f"Bearer {made}"}


TUS_BODY = TUS | OCTETS


@pytest.fixture
async def guarded(start_service: StartService) -> Service:
    return await start_service(jwt_secret=SECRET, downloads=True, key_template="own/{id}/{filename}")


# -- the matrix -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """The statuses of who has a credential, but not for this key, not for this method, not for so many bytes. None: it
    is allowed. Without a good credential it is 401, unless `anybody`.
    """

    key: int | None
    method: int | None
    size: int | None = None
    anybody: bool = False


SENDS = Rule(403, 403, 413)
ASKS = Rule(403, 403)
ADDS = Rule(404, 403, 413)  # an upload out of reach is as unknown as one that never was
OWNS = Rule(404, 403)
LISTS = Rule(None, 403)
FREE = Rule(None, None)  # what the server can do is told to everybody with a credential
OPEN = Rule(None, None, anybody=True)

RULES: Mapping[tuple[str, str], Rule] = {
    ("/objects/{key}", "PUT"): SENDS,
    ("/objects/{key}", "POST"): SENDS,
    ("/objects/{key}", "HEAD"): ASKS,
    ("/objects/{key}", "GET"): ASKS,
    ("/objects/{key}", "DELETE"): ASKS,
    ("/objects/{key}", "OPTIONS"): FREE,
    ("/uploads", "POST"): SENDS,
    ("/uploads", "GET"): LISTS,
    ("/uploads", "OPTIONS"): FREE,
    ("/uploads/events", "GET"): LISTS,
    ("/uploads/events", "OPTIONS"): FREE,
    ("/uploads/{id}/events", "GET"): OWNS,
    ("/uploads/{id}/events", "OPTIONS"): FREE,
    ("/uploads/{id}", "HEAD"): OWNS,
    ("/uploads/{id}", "GET"): OWNS,
    ("/uploads/{id}", "PATCH"): ADDS,
    ("/uploads/{id}", "POST"): ADDS,
    ("/uploads/{id}", "DELETE"): OWNS,
    ("/uploads/{id}", "OPTIONS"): FREE,
    ("/", "GET"): OPEN,
    ("/", "HEAD"): OPEN,
    ("/static/{name}", "GET"): OPEN,
    ("/static/{name}", "HEAD"): OPEN,
    ("/openapi.json", "GET"): OPEN,
    ("/openapi.json", "HEAD"): OPEN,
    ("/healthz", "GET"): OPEN,
    ("/healthz", "HEAD"): OPEN,
    ("/readyz", "GET"): OPEN,
    ("/readyz", "HEAD"): OPEN,
    ("/metrics", "GET"): OPEN,
    ("/metrics", "HEAD"): OPEN,
    ("/holdings", "GET"): OPEN,
    ("/holdings", "HEAD"): OPEN,
}


@dataclass(frozen=True)
class Ask:
    """A good request. In its target, `{key}` and `{id}` are those of an open upload, `{new}` is a key without one, and
    `{object}` an object's. `size`: of its body. `effective`: its method is another one than it says.
    """

    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    effective: str = ""


CREATES = [
    Ask("/objects/{new}", size=10),
    Ask("/objects/{new}", {"Upload-Complete": "?1"}, size=10),
    Ask("/objects/{new}", {"Upload-Complete": "?0", "Upload-Length": "10"}, size=0),
    Ask("/objects/{key}?interrupted=append", size=10),
    Ask("/objects/{key}?interrupted=replace", size=10),
    Ask("/objects/{key}?interrupted=new", size=10),
]
ASKED: Mapping[tuple[str, str], list[Ask]] = {
    ("/objects/{key}", "PUT"): [
        *CREATES,
        Ask("/objects/{new}", place(0), size=10),
        Ask("/objects/{key}", place(10), size=10),
        Ask("/objects/{key}", {"Content-Range": "bytes */*"}),
    ],
    ("/objects/{key}", "POST"): [
        *CREATES,
        Ask("/objects/{new}", TUS_BODY | {"Upload-Length": "10"}, size=10),
    ],
    ("/objects/{key}", "HEAD"): [Ask("/objects/{key}"), Ask("/objects/{object}")],
    ("/objects/{key}", "GET"): [Ask("/objects/{object}"), Ask("/objects/{object}", {"Accept": "application/json"})],
    ("/objects/{key}", "DELETE"): [Ask("/objects/{key}")],
    ("/objects/{key}", "OPTIONS"): [Ask("/objects/{key}")],
    ("/uploads", "POST"): [
        Ask("/uploads?key={new}", TUS | {"Upload-Length": "10"}, size=0),
        Ask("/uploads", TUS_BODY | {"Upload-Length": "10"} | metadata({"key": "own/meta"}), size=10),
        Ask("/uploads", TUS | {"Upload-Length": "10"} | metadata({"filename": "a.ts"}), size=0),
        Ask("/uploads?key={new}", {"Upload-Complete": "?1"}, size=10),
        Ask("/uploads", {"Upload-Complete": "?1", "Content-Disposition": 'attachment; filename="a.ts"'}, size=10),
    ],
    ("/uploads", "GET"): [Ask("/uploads")],
    ("/uploads", "OPTIONS"): [Ask("/uploads")],
    ("/uploads/events", "GET"): [Ask("/uploads/events")],
    ("/uploads/events", "OPTIONS"): [Ask("/uploads/events")],
    ("/uploads/{id}/events", "GET"): [Ask("/uploads/{id}/events")],
    ("/uploads/{id}/events", "OPTIONS"): [Ask("/uploads/{id}/events")],
    ("/uploads/{id}", "HEAD"): [Ask("/uploads/{id}"), Ask("/uploads/{id}", TUS)],
    ("/uploads/{id}", "GET"): [Ask("/uploads/{id}")],
    ("/uploads/{id}", "PATCH"): [
        Ask("/uploads/{id}", at(10, complete=True), size=10),
        Ask("/uploads/{id}", TUS_BODY | {"Upload-Offset": "10"}, size=10),
    ],
    ("/uploads/{id}", "POST"): [
        Ask("/uploads/{id}", at(10, complete=True), size=10),
        Ask("/uploads/{id}", TUS_BODY | {"Upload-Offset": "10", "X-HTTP-Method-Override": "PATCH"}, 10, "PATCH"),
        Ask("/uploads/{id}", TUS | {"X-HTTP-Method-Override": "DELETE"}, effective="DELETE"),
    ],
    ("/uploads/{id}", "DELETE"): [Ask("/uploads/{id}")],
    ("/uploads/{id}", "OPTIONS"): [Ask("/uploads/{id}")],
    **{(path, method): [Ask(path.format(name="page.js"))] for (path, method), rule in RULES.items() if rule.anybody},
}


def credentials(rule: Rule, method: str, one: Ask) -> Mapping[str, tuple[Mapping[str, str], int | None]]:
    """Every kind of credential that does not do, and the status it gets; and one that does."""
    unknown = None if rule.anybody else 401
    return {
        "no": ({}, unknown),
        "wrong": (token(secret=NEXT_SECRET), unknown),
        "expired": (token(exp=time.time() - 3600), unknown),
        "foreign-key": (token(prefix="elsewhere"), rule.key),
        "wrong-method": (token(methods=[m for m in routes.METHODS if m != (one.effective or method)]), rule.method),
        "over-size": (token(max_bytes=5), None if one.size is None else rule.size),
        "right": (token(prefix="own", max_bytes=20, methods=[one.effective or method]), None),
    }


def test_every_route_and_method_has_a_rule():
    """A new route is one of them."""
    known = {(route.path, method) for route in (*routes.PUBLIC, *routes.ADMIN) for method in route.methods}
    assert known == RULES.keys() == ASKED.keys()


class Matrix:
    """Asks everything of one service, each with an open upload of its own, and remembers what was not as it should."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cells = 0
        self.wrong: list[str] = []

    async def fill(self, place: tuple[str, str]) -> None:
        rule, (path, method) = RULES[place], place
        for one in ASKED[place]:
            named: dict[str, str] = {}
            for kind, (headers, status) in credentials(rule, method, one).items():
                self.cells += 1
                if status is None or not named:  # whoever was refused has changed nothing
                    named = await self.opened(f"own/{self.cells}")
                calls = self.service.store.calls.copy()
                found = await self.ask(path, method, one, headers, named, body=status is None)
                good = found.status < 400
                if status is not None:  # before the body and before the store is asked
                    good = (found.status, found.interim, self.service.store.calls) == (status, (), calls)
                    good = good and (status == 413 or "upload-offset" not in found.headers)
                    good = good and (status != 401 or "www-authenticate" in found.headers)
                if not good:
                    self.wrong.append(f"{method} {one}, {kind} credential: {found}, not {status or 'let in'}")

    async def opened(self, key: str) -> dict[str, str]:
        """An open upload of ten bytes under this key."""
        found = await self.service.ask("PUT", f"/objects/{key}", b"0123456789", token() | {"Upload-Complete": "?0"})
        return {"key": key, "new": f"{key}/new", "object": "own/object", "id": found.headers["location"][-32:]}

    async def ask(
        self, path: str, method: str, one: Ask, headers: Mapping[str, str], named: Mapping[str, str], *, body: bool
    ) -> Answer:
        """A client that waits for 100 Continue, and sends its `body` or does not: who is refused need not."""
        admin = path in {route.path for route in routes.ADMIN}
        client = await Client.connect(self.service.admin_address if admin else self.service.address)
        fields = {**one.headers, **headers} | (EXPECT | {"Content-Length": str(one.size)} if one.size else {})
        if one.size == 0:
            fields["Content-Length"] = "0"
        try:
            return await client.ask(method, one.target.format(**named), b"x" * (one.size or 0) if body else b"", fields)
        finally:
            client.close()


async def test_every_route_and_method_with_every_kind_of_credential(guarded):
    """Plain pytest shows the count with -rA."""
    assert (await guarded.ask("PUT", "/objects/own/object", BODY, token())).status == 201
    matrix = Matrix(guarded)
    for row in RULES:
        await matrix.fill(row)
    print(f"{len(RULES)} routes with a method, {matrix.cells} requests with every kind of credential")  # noqa: T201 - it is asked for
    assert matrix.wrong == []


@pytest.mark.parametrize("route", routes.PUBLIC, ids=lambda route: route.path)
async def test_a_method_that_a_route_does_not_have_is_405_for_who_may_ask(guarded, route):
    target = route.path.format(key="own/a", id="unknown", name="page.js")
    for method in {*routes.METHODS, "TRACE"} - set(route.methods):
        answer = await guarded.ask(method, target, None, token())
        assert (answer.status, answer.headers.get("allow")) == (405, route.allowed), method
        assert (await guarded.ask(method, target)).status == (405 if route in routes.OPEN else 401)


# -- which keys -----------------------------------------------------------------------------------------------------


async def test_a_refusal_does_not_tell_what_is_there(guarded):
    await guarded.ask("PUT", "/objects/own/object", b"there", token())
    await left(guarded, "own/open", b"some")
    stranger = token(prefix="elsewhere")
    for method, headers in [("HEAD", {}), ("GET", {}), ("PUT", {}), ("PUT", place(4)), ("DELETE", {})]:
        body = b"x" if method == "PUT" else None
        answers = [
            await guarded.ask(method, f"/objects/own/{name}", body, stranger | headers)
            for name in ("object", "open", "nothing")
        ]
        told = [(one.status, one.body, one.headers | {"date": ""}) for one in answers]
        assert told[0] == told[1] == told[2], method
        assert told[0][0] == 403


async def test_who_may_not_ask_is_not_told_what_is_wrong_with_the_question(guarded):
    for target in ("/objects/a//b", "/objects/..%2Fa", "/uploads?key=%ff", "/nowhere"):
        assert (await guarded.ask("POST", target, b"x")).status == 401


async def test_a_list_shows_what_is_within_reach(guarded):
    for key in ("own/a", "own/ab/c", "other"):
        await left(guarded, key, b"x")

    async def listed(**claims: Any) -> set[str]:
        return {one["key"] for one in (await guarded.ask("GET", "/uploads", None, token(**claims))).json["uploads"]}

    assert await listed() == {"own/a", "own/ab/c", "other"}
    assert await listed(prefix="own") == {"own/a", "own/ab/c"}
    assert await listed(prefix="own/a") == set()
    assert await listed(key="own/a") == {"own/a"}
    assert await listed(sub="bob") == set()


async def test_a_new_name_must_be_within_reach_too(guarded):
    one = token(key="own/a.ts")
    await left(guarded, "own/a.ts", b"old")
    calls = guarded.store.calls.copy()
    refused(await guarded.ask("PUT", "/objects/own/a.ts?interrupted=new", b"new", one), 403)
    assert guarded.store.calls == calls, "before anybody asks whether the name is free"
    answer = await guarded.ask("PUT", "/objects/own/a.ts?interrupted=new", b"new", token(prefix="own"))
    assert answer.json["key"] == "own/a-1.ts"
    assert guarded.store.objects["own/a-1.ts"].meta.if_none_match
    answer = await guarded.ask("PUT", "/objects/own/b.ts?interrupted=new", b"new", token(key="own/b.ts"))
    assert answer.json["key"] == "own/b.ts", "nothing was open, so it is no new name"


async def test_a_key_that_the_template_makes_is_authorised_like_any_other(guarded):
    creation = TUS | {"Upload-Length": "0"} | metadata({"filename": "../../elsewhere/a"})
    assert (await guarded.ask("POST", "/uploads", b"", creation | token(prefix="own"))).status == 201
    assert (await guarded.ask("POST", "/uploads", b"", creation | token(prefix="elsewhere"))).status == 403
    key = creation | metadata({"key": "elsewhere/a", "filename": "own/a"})
    assert (await guarded.ask("POST", "/uploads", b"", key | token(prefix="own"))).status == 403
    # The query goes before the metadata, and only what counts is decided upon.
    both = await guarded.ask("POST", "/uploads?key=own/b", b"", key | token(prefix="own"))
    assert both.status == 201
    assert set(guarded.store.objects) == {"own/b", *(k for k in guarded.store.objects if k.startswith("own/"))}


async def test_a_url_for_a_download_lives_no_longer_than_the_credential(guarded):
    await guarded.ask("PUT", "/objects/own/a", b"there", token())
    for seconds, expected in [(7200, 3600), (600, 600)]:
        who = token(exp=time.time() + seconds)
        answer = await guarded.ask("GET", "/objects/own/a", None, who)
        assert expected - 20 <= int(answer.headers["location"].rpartition("=")[2]) <= expected
        answer = await guarded.ask("GET", "/objects/own/a", None, who | {"Accept": "application/json"})
        assert expected - 20 <= answer.json["seconds"] <= expected


# -- whose uploads --------------------------------------------------------------------------------------------------


async def test_a_right_to_the_key_is_no_right_to_somebody_elses_upload(guarded):
    """With every protocol; test_server.py asks the same with API keys."""
    hers, her_id = await guarded_writer(guarded, "own/a")
    his = token(sub="bob")
    tus = TUS_BODY | {"Upload-Length": "1"} | metadata({"key": "own/a"})
    creations: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/uploads", tus),
        ("POST", "/uploads?key=own/a", {"Upload-Complete": "?1"}),
        ("POST", "/objects/own/a", tus),
        ("PUT", "/objects/own/a", {"Upload-Complete": "?0"}),
        ("PUT", "/objects/own/a", place(0)),
        ("PUT", "/objects/own/a", place(4)),
        *(("PUT", f"/objects/own/a?interrupted={policy}", {}) for policy in ("append", "replace", "new", "reject")),
    ]
    for method, target, headers in creations:
        answer = refused(await guarded.ask(method, target, b"x", his | headers), 409)
        assert "upload-offset" not in answer.headers
        assert her_id not in str(answer)
    for method, headers in [("HEAD", TUS), ("PATCH", TUS_BODY | {"Upload-Offset": "4"}), ("DELETE", TUS), ("GET", {})]:
        body = b"x" if method == "PATCH" else None
        answer = await guarded.ask(method, f"/uploads/{her_id}", body, his | headers)
        unknown = await guarded.ask(method, f"/uploads/{'0' * 32}", body, his | headers)
        assert (answer.status, answer.body.replace(her_id.encode(), b"0" * 32)) == (404, unknown.body)
        assert "upload-offset" not in answer.headers
    assert (await guarded.ask("HEAD", "/objects/own/a", None, his)).status == 404
    assert not guarded.store.effects
    await hers.send(chunk(b"rest") + LAST_CHUNK)
    assert (await hers.answer()).status == 201, "nobody has stopped her"
    assert guarded.data("own/a") == b"somerest"


async def guarded_writer(service: Service, key: str, data: bytes = b"some", **claims: Any) -> tuple[Client, str]:
    """A connected writer of ann's whose bytes have been received, and its upload's id."""
    client = await service.connect()
    await client.send(head("PUT", f"/objects/{key}", CHUNKED | token(**claims)) + chunk(data))

    async def received() -> str | None:
        found = (await service.ask("GET", "/uploads", None, token())).json["uploads"]
        return next((one["id"] for one in found if (one["key"], one["received"]) == (key, len(data))), None)

    return client, await eventually(received)


# -- how much, and what ---------------------------------------------------------------------------------------------


async def test_max_bytes_bounds_the_sum_of_all_appends_whoever_makes_them(start_service):
    service = await start_service(jwt_secret=SECRET)
    small = token(max_bytes=100)
    created = await service.ask("PUT", "/objects/a", b"x" * 60, small | {"Upload-Complete": "?0"})
    upload = "/uploads/" + created.headers["location"][-32:]
    refused(await service.ask("PATCH", upload, b"x" * 41, small | at(60, complete=True)), 413, limit=100)
    refused(
        await service.ask(
            "PATCH", upload, None, small | at(60, complete=True) | CHUNKED | EXPECT | {"Upload-Length": "101"}
        ),
        413,
        limit=100,
    )
    waits = small | EXPECT | {"Content-Length": "41"}
    answer = refused(await service.ask("PUT", "/objects/a?interrupted=append", b"", waits), 413, limit=100)
    assert answer.interim == (), "it is known before the body"
    refused(await service.ask("PATCH", upload, chunks=[b"x" * 40, b"x"], headers=small | at(60, complete=True)), 413)
    await service.stop()
    service = await start_service(jwt_secret=SECRET)
    large = token(max_bytes=1000)
    offset = (await service.ask("HEAD", upload, None, large)).offset
    assert 60 <= offset <= 100
    refused(await service.ask("PATCH", upload, b"x" * 41, large | at(offset, complete=True)), 413, limit=100)
    rest = 100 - offset
    assert (await service.ask("PATCH", upload, b"x" * rest, large | at(offset, complete=True))).status == 201
    assert service.data("a") == b"x" * 100


async def test_a_stream_ends_where_its_credential_does(guarded):
    answer = await guarded.ask("PUT", "/objects/own/a", chunks=[b"x" * 60, b"x" * 41], headers=token(max_bytes=100))
    refused(answer, 413, limit=100)
    [upload] = (await guarded.ask("GET", "/uploads", None, token())).json["uploads"]
    assert (upload["state"], guarded.data("own/a")) == ("open", None)


async def test_who_comes_later_with_less_is_bound_by_that(guarded):
    upload_id = await left(guarded, "own/a", b"x" * 50)
    small = token(max_bytes=60)
    refused(
        await guarded.ask("PATCH", f"/uploads/{upload_id}", b"x" * 11, small | at(50, complete=True)), 413, limit=60
    )
    await guarded.ask("PATCH", f"/uploads/{upload_id}", b"x" * 5, small | at(50, complete=False))
    answer = await guarded.ask("PATCH", f"/uploads/{upload_id}", b"x" * 6, token() | at(55, complete=True))
    refused(answer, 413, limit=60)


async def left(service: Service, key: str, data: bytes, **claims: Any) -> str:
    """An open upload without a writer; its id."""
    found = await service.ask("PUT", f"/objects/{key}", data, token(**claims) | {"Upload-Complete": "?0"})
    return found.headers["location"][-32:]


@pytest.mark.parametrize(
    ("content_type", "status"), [("video/mp4", 201), ("audio/ogg;codecs=opus", 201), ("text/html", 403), (None, 403)]
)
async def test_the_content_type_is_decided_at_creation(guarded, content_type, status):
    headers = token(content_types=["video/mp4", "audio/*"])
    plain = headers | ({"Content-Type": content_type} if content_type else {})
    assert (await guarded.ask("PUT", "/objects/own/a", b"x", plain)).status == status
    assert (await guarded.ask("PUT", "/objects/own/b", b"x", plain | {"Upload-Complete": "?1"})).status == status
    filetype = metadata({"key": "own/c"} | ({"filetype": content_type} if content_type else {}))
    tus = headers | TUS_BODY | {"Upload-Length": "1"} | filetype
    assert (await guarded.ask("POST", "/uploads", b"x", tus)).status == status


# -- overwrite ------------------------------------------------------------------------------------------------------

NEVER = {"overwrite": False}


async def test_who_may_not_overwrite_creates_with_if_none_match(guarded):
    assert (await guarded.ask("PUT", "/objects/own/a", BODY, token(**NEVER))).status == 201
    assert guarded.store.objects["own/a"].meta.if_none_match
    client = await guarded.connect()
    answer = await client.ask("PUT", "/objects/own/a", None, token(**NEVER) | CHUNKED | EXPECT)
    assert (refused(answer, 412).interim, guarded.data("own/a")) == ((), BODY)
    assert "credential" in answer.detail


async def test_an_upload_that_meets_an_object_at_its_end_is_kept(guarded):
    client, upload_id = await guarded_writer(guarded, "own/a", **NEVER)
    guarded.store.objects["own/a"] = theirs = stranger_object()
    await client.send(chunk(b"rest") + LAST_CHUNK)
    refused(await client.answer(), 412)
    assert guarded.store.objects["own/a"] is theirs
    seals = token() | at(8, complete=True)
    refused(await guarded.ask("PATCH", f"/uploads/{upload_id}", b"", seals), 412)
    del guarded.store.objects["own/a"]
    assert (await guarded.ask("PATCH", f"/uploads/{upload_id}", b"", seals)).status == 201
    assert (guarded.data("own/a"), guarded.store.objects["own/a"].meta.if_none_match) == (b"somerest", True)


TAKES_THE_OFFSET = {
    "tus": (TUS, {}, TUS_BODY),
    **{
        f"interop {number}": (
            version,
            version | {"Upload-Complete": "?0"},
            version | {"Upload-Complete": "?1", "Content-Type": "application/partial-upload"},
        )
        for number in (3, 5, 6)
        for version in [{"Upload-Draft-Interop-Version": str(number)}]
    },
}
"""Of clients that take an offset equal to the length for success: any request, a creation, the last append."""


@pytest.mark.parametrize("refused_with", [403, 412])
@pytest.mark.parametrize("protocol", TAKES_THE_OFFSET)
async def test_who_comes_again_after_a_refusal_at_the_end_hears_of_no_success(guarded, protocol, refused_with):
    """tus-js-client asks HEAD, and is content with an offset that equals the length."""
    asks, creates, appends = TAKES_THE_OFFSET[protocol]
    creates = token(**NEVER) | asks | creates | {"Upload-Length": "5"}
    answer = await guarded.ask("POST", "/uploads?key=own/a", b"", creates)
    location, fresh = answer.headers["location"], token(**NEVER, secret=NEXT_SECRET if refused_with == 403 else SECRET)
    client = await guarded.connect()
    last = token(**NEVER) | appends | CHUNKED | {"Upload-Offset": "0"}
    await client.send(head("PATCH", location, last) + chunk(b"hel"))
    await eventually(lambda: received(guarded, 3))
    if refused_with == 403:
        revoke(guarded)
    else:
        guarded.store.objects["own/a"] = stranger_object()
    await client.send(chunk(b"lo") + LAST_CHUNK)
    assert "upload-offset" not in refused(await client.answer(), refused_with).headers
    asked = await guarded.ask("HEAD", location, None, fresh | asks)
    assert (asked.status, asked.headers.get("upload-offset")) == (423, None)
    guarded.store.objects.pop("own/a", None)
    again = await guarded.ask("PATCH", location, b"", fresh | appends | {"Upload-Offset": "5"})
    assert (again.status, guarded.data("own/a")) == (204 if protocol == "tus" else 201, b"hello")


def stranger_object() -> Any:
    return FakeObject(b"theirs", ObjectMeta("another"), '"e"', {}, datetime.now(UTC))


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
async def test_one_who_may_not_overwrite_binds_an_upload_of_one_who_may(guarded, size):
    """Also when its multipart upload has long been created."""
    upload_id = await left(guarded, "own/a", b"x" * size)
    headers = token(**NEVER) | at(size, complete=True)
    assert (await guarded.ask("PATCH", f"/uploads/{upload_id}", b"y", headers)).status == 201
    assert guarded.store.objects["own/a"].meta.if_none_match, "the store decides, too"
    await guarded.ask("PUT", "/objects/own/b", b"there", token())
    upload_id = await left(guarded, "own/b", b"x" * size)
    refused(await guarded.ask("PATCH", f"/uploads/{upload_id}", b"y", headers), 412)
    assert guarded.data("own/b") == b"there"


async def test_where_the_store_cannot_promise_that_it_is_refused(start_service):
    service = await start_service(jwt_secret=SECRET, store=strict_store(conditional_writes=False))
    refused(await service.ask("PUT", "/objects/a", b"x", token(**NEVER)), 501)
    upload_id = await left(service, "a", b"some")
    refused(await service.ask("PATCH", f"/uploads/{upload_id}", b"x", token(**NEVER) | at(4, complete=True)), 501)
    assert not service.store.effects


async def test_who_may_not_overwrite_may_not_remove(start_service):
    service = await start_service(jwt_secret=SECRET, deletes=True)
    await service.ask("PUT", "/objects/a", b"there", token())
    refused(await service.ask("DELETE", "/objects/a", None, token(**NEVER)), 403)
    assert service.data("a") == b"there"
    assert (await service.ask("DELETE", "/objects/a", None, token())).status == 204


# -- time -----------------------------------------------------------------------------------------------------------


async def test_a_body_that_has_begun_goes_on_beyond_the_tokens_end(start_service, monkeypatch):
    service = await start_service(jwt_secret=SECRET)
    client, _ = await guarded_writer(service, "a", exp=time.time() + 60)
    monkeypatch.setattr("streamup.exchange.time", Later)
    assert (await service.ask("GET", "/uploads", None, token())).status == 401, "it would be too late to begin"
    await client.send(chunk(b"rest") + LAST_CHUNK)
    assert (await client.answer()).status == 201


class Later:
    @staticmethod
    def time() -> float:
        return time.time() + 7200


async def test_a_tokens_patience_goes_before_the_servers(start_service):
    service = await start_service(jwt_secret=SECRET, idle_seconds=0.05)
    patient, _ = await guarded_writer(service, "patient", idle=60)
    hasty = await service.connect()
    await hasty.send(head("PUT", "/objects/hasty", CHUNKED | token()) + chunk(b"some"))
    refused(await hasty.answer(), 409)
    await patient.send(chunk(b"rest") + LAST_CHUNK)
    assert (await patient.answer()).status == 201


# -- and again at completion ----------------------------------------------------------------------------------------


def revoke(service: Service) -> None:
    """From now on tokens are signed with the next secret only, as after a new configuration."""
    service.server._authorizer.credentials = Credentials(verifier=Verifier((secret_key(NEXT_SECRET),)))


async def test_what_was_revoked_meanwhile_does_not_complete_and_is_kept(guarded):
    client, upload_id = await guarded_writer(guarded, "own/a")
    revoke(guarded)
    await client.send(chunk(b"rest") + LAST_CHUNK)
    answer = refused(await client.answer(), 403)
    assert "kept" in answer.detail
    assert guarded.data("own/a") is None
    fresh = token(secret=NEXT_SECRET)
    assert (await guarded.ask("HEAD", f"/uploads/{upload_id}", None, fresh)).offset == 8
    assert (await guarded.ask("PATCH", f"/uploads/{upload_id}", b"", fresh | at(8, complete=True))).status == 201
    assert guarded.data("own/a") == b"somerest"


async def test_a_takeover_does_not_complete_what_was_revoked(guarded):
    """All that was announced is here, and whoever asks where to go on ends the writer (law 5)."""
    client = await guarded.connect()
    await client.send(head("PUT", "/objects/own/a", CHUNKED | token() | {"Upload-Length": "4"}) + chunk(b"some"))
    upload_id = await eventually(lambda: received(guarded, 4))
    revoke(guarded)
    fresh = token(secret=NEXT_SECRET)
    answer = await guarded.ask("HEAD", f"/uploads/{upload_id}", None, fresh)
    assert (answer.offset, answer.headers["upload-complete"], guarded.data("own/a")) == (4, "?0", None)
    answer = await guarded.ask("PATCH", f"/uploads/{upload_id}", b"", fresh | at(4, complete=True))
    assert (answer.status, guarded.data("own/a")) == (201, b"some")


def received(service: Service, size: int) -> str | None:
    return next((live.upload.id for live in service.uploads.registry if live.upload.received == size), None)


@pytest.mark.parametrize("revoked", [False, True])
async def test_recovery_does_not_complete_what_was_revoked(start_service, tmp_path, revoked):
    """All that was announced is on the disk when the process dies."""
    first = await start_service(jwt_secret=SECRET)
    client = await first.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | token() | {"Upload-Length": "4"}) + chunk(b"some"))
    upload_id = await eventually(lambda: received(first, 4))
    secret = NEXT_SECRET if revoked else SECRET
    second = await start_service(jwt_secret=secret, data=first.killed(tmp_path / "killed"))
    fresh = token(secret=secret)
    wanted = "open" if revoked else "complete"
    document = await eventually(lambda: ended_as(second, upload_id, fresh, wanted))
    assert (document["received"], second.data("a")) == (4, None if revoked else b"some")
    if revoked:
        answer = await second.ask("PATCH", f"/uploads/{upload_id}", b"", fresh | at(4, complete=True))
        assert (answer.status, second.data("a")) == (201, b"some")


async def ended_as(service: Service, upload_id: str, headers: Mapping[str, str], state: str) -> dict[str, Any] | None:
    document = (await service.ask("GET", f"/uploads/{upload_id}", None, headers)).json
    return document if document["state"] == state else None
