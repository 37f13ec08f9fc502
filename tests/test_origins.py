"""Pages of other origins, and names that are not ours: on every route and method of the table, and both listeners."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import BODY, START, Service
from documented import operations, resolved
from raw_client import Answer, Client, at, head, refused

from streamup import routes
from streamup.errors import ConfigError
from streamup.values import parse_origin

pytestmark = pytest.mark.usefixtures("impatient")

APP = "https://app.example"
HOST = "127.0.0.1:8080"
OWN = f"http://{HOST}"
MESSAGE = "Pages of other origins"


@dataclass(frozen=True)
class Place:
    """A route with a method, on one of the listeners."""

    route: routes.Route
    method: str
    admin: bool = False

    def target(self, upload_id: str = "no-such-upload") -> str:
        return self.route.path.replace("{key}", "a").replace("{id}", upload_id).replace("{name}", "page.js")


PLACES = [Place(route, method) for route in routes.PUBLIC for method in route.methods]
ADMIN_PLACES = [Place(route, method, admin=True) for route in routes.ADMIN for method in route.methods]

FOREIGN: dict[str, list[tuple[str, str]]] = {
    "another": [("Origin", "https://elsewhere.example")],
    "twice, ours first": [("Origin", OWN), ("Origin", "https://elsewhere.example")],
    "an embedded frame": [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "iframe"),
    ],
}
"""All that a foreign page may look like is in test_auth.py."""

NATIVE: dict[str, list[tuple[str, str]]] = {
    "no browser": [],
    "our page": [("Origin", OWN), ("Sec-Fetch-Site", "same-origin")],
    "behind TLS": [("Origin", f"https://{HOST}")],
    "typed": [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")],
}

LINKED = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
"""What comes with a click on a link that stands on another site's page."""


async def ask(service: Service, place: Place, fields: list[tuple[str, str]], host: str = HOST, **ids: str) -> Answer:
    """A request with these fields as they are: one may come twice."""
    client = await Client.connect(service.admin_address if place.admin else service.address)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    length = b"Content-Length: 0\r\n" if place.method in {"PUT", "POST", "PATCH"} else b""
    first = head(place.method, place.target(**ids), {"Host": host}).removesuffix(b"\r\n")
    try:
        client.methods.append(place.method)
        await client.send(first + lines + length + b"\r\n")
        return await client.answer()
    finally:
        client.close()


def named(place: Place) -> str:
    return f"{place.method} {place.route.path}"


# -- pages of other origins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_page_is_refused_on_every_route_and_method(service, fields):
    """... before anything happens, and cannot read the refusal."""
    client, upload_id = await service.begin()
    for place in [*PLACES, *ADMIN_PLACES]:
        answer = await ask(service, place, fields, upload_id=upload_id)
        assert answer.status == 403, named(place)
        assert not [name for name in answer.headers if name.startswith("access-control-")], named(place)
    found = await service.document("a")
    assert found["writer"], "nobody was stopped"
    assert found["received"] == len(START)
    assert not service.store.objects
    client.close()


@pytest.mark.parametrize("fields", NATIVE.values(), ids=NATIVE)
async def test_whoever_is_no_foreign_page_is_heard_on_every_route_and_method(service, fields):
    await service.ask("PUT", "/objects/a", BODY[:10])
    for place in [*PLACES, *ADMIN_PLACES]:
        assert (await ask(service, place, fields)).status != 403, named(place)


async def test_a_link_on_another_page_leads_to_the_page_and_to_nothing_else(service):
    await service.ask("PUT", "/objects/a", BODY[:10])
    for place in [*PLACES, *ADMIN_PLACES]:
        status = (await ask(service, place, LINKED)).status
        assert (status == 200) if place.route in routes.OPEN else (status == 403), named(place)


# -- names that are not ours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.rebound.example:8080", ""])
async def test_a_name_that_is_not_ours_is_refused_on_every_route_and_method(service, host):
    """DNS rebinding: the browser takes the page for one of ours, so there is neither Origin nor cross-site."""
    for place in [*PLACES, *ADMIN_PLACES]:
        for fields in ([], [("Sec-Fetch-Site", "same-origin"), ("Origin", f"http://{host}")]):
            assert (await ask(service, place, fields, host)).status == 403, named(place)


@pytest.mark.parametrize("host", ["LOCALHOST:1", "localhost.", "[::1]:8080"])
async def test_our_own_names_are_known_on_every_route(service, host):
    await service.ask("PUT", "/objects/a", BODY[:10])
    for place in PLACES:
        assert (await ask(service, place, [("Origin", f"http://{host.lower()}")], host)).status != 403, named(place)


# -- origins that the operator has named -----------------------------------------------------------------------------


@pytest.fixture
async def shared(start_service) -> Service:
    return await start_service(cors_origins=(APP,), downloads=True)


def from_app(**more: str) -> list[tuple[str, str]]:
    named = {"Origin": APP, "Sec-Fetch-Site": "cross-site"} | {name.replace("_", "-"): more[name] for name in more}
    return list(named.items())


async def test_a_named_origin_may_ask_everything_of_the_public_listener_and_read_the_answer(shared):
    for place in PLACES:
        answer = await ask(shared, place, from_app())
        assert answer.status != 403, named(place)
        readable(answer)
        assert "Origin" in answer.headers["vary"].split(", ")
        assert "access-control-allow-credentials" not in answer.headers, "there are no cookies to send"
    for place in ADMIN_PLACES:
        assert (await ask(shared, place, from_app())).status == 403, "numbers are not for pages"


def readable(answer: Answer) -> None:
    assert answer.headers["access-control-allow-origin"] == APP


async def test_its_preflight_is_answered_for_every_route_that_has_one(shared):
    for place in PLACES:
        if place.method == "OPTIONS":
            for method in place.route.methods:
                asked = from_app(Access_Control_Request_Method=method, Access_Control_Request_Headers="upload-offset")
                answer = await ask(shared, place, asked)
                readable(answer)
                assert answer.status == 204
                assert method in answer.headers["access-control-allow-methods"].split(", ")
                assert answer.headers["access-control-allow-headers"] == "upload-offset"


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("PUT", "/objects/a//b", {}, 400),
        ("PUT", "/objects/%FF", {}, 400),
        ("PUT", "/objects/a", {"Content-Range": "nonsense"}, 400),
        ("PUT", "/objects/a?checksum=nothing", {}, 400),
        ("PATCH", "/uploads/x", at(0, complete=True), 404),
        ("PATCH", "/objects/a", {}, 405),
        ("PUT", "/elsewhere", {}, 404),
        ("GET", "/static/nothing", {}, 404),
        ("POST", "/openapi.json", {}, 405),
        ("PUT", "/objects/a", {"Host": "rebound.example"}, 403),
    ],
)
async def test_a_page_can_read_what_was_wrong_with_its_request(shared, method, target, headers, status):
    readable(refused(await shared.ask(method, target, b"", dict(from_app()) | headers), status))


async def test_who_is_almost_a_named_origin_is_refused_everywhere(shared):
    for place in PLACES:
        answer = await ask(shared, place, [("Origin", f"{APP}:444")])
        assert (answer.status, answer.headers.get("access-control-allow-origin")) == (403, None), named(place)


async def test_it_may_read_every_field_that_tells_it_something(shared):
    """All that the protocols, the digests and the waiting need: by the document, so that no new one is forgotten."""
    answer = await shared.ask("GET", "/uploads", headers=dict(from_app()))
    exposed = {name.lower() for name in answer.headers["access-control-expose-headers"].split(", ")}
    assert {name for name in told() if name.startswith(SAID)} - exposed == set()


SAID = ("upload-", "tus-", "location", "etag", "repr-digest", "x-amz-checksum-", "range", "retry-after")


def told() -> Iterator[str]:
    for *_, operation in operations():
        for response in operation["responses"].values():
            yield from (name.lower() for name in resolved(response).get("headers", {}))


async def test_no_cookie_is_ever_set(shared):
    for place in [*PLACES, *ADMIN_PLACES]:
        for fields in ([], from_app(), [("Cookie", "a=b")]):
            assert "set-cookie" not in (await ask(shared, place, fields)).headers, named(place)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:80", "https://app.example:80"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_written_as_browsers_send_it(text, expected):
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text", ["*", "null", "https://*.example", "https://a.example/", "https://b\u00fccher.example", "a.example"]
)
def test_what_no_browser_sends_is_no_origin(text):
    with pytest.raises(ConfigError, match="is not an origin"):
        parse_origin(text)
