"""`/openapi.json`: a valid document, of every route and method. That it is true, all tests see (documented.py)."""

import json
from importlib import metadata

import documented
import pytest
from documented import DOCUMENT, closed, operations, resolved, validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from raw_client import CHUNKED, Answer, at, chunk, head

from streamup import answers, openapi, routes
from streamup.protocols.tus import MISMATCH

COMPONENTS = DOCUMENT["components"]


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_knows_every_route_and_every_method_of_the_public_listener():
    """And no others. A method that the table of routes has and the document has not would be a secret."""
    assert [(path, set(item) - {"parameters"}) for path, item in DOCUMENT["paths"].items()] == [
        (route.path, {method.lower() for method in route.methods}) for route in routes.PUBLIC
    ]


def test_what_needs_no_credential_is_what_the_routes_call_open():
    free = {path for _, path, operation in operations() if operation.get("security") == []}
    assert free == {route.path for route in routes.OPEN}


def test_every_refusal_that_there_is_has_its_description():
    assert set(openapi.PROBLEMS) == {*answers.STATUS.values(), MISMATCH}


def test_every_component_is_used_and_every_name_is_once():
    text = json.dumps(DOCUMENT)
    unused = [
        f"{kind}/{name}"
        for kind, components in COMPONENTS.items()
        for name in components
        if f'"#/components/{kind}/{name}"' not in text and kind != "securitySchemes"
    ]
    assert unused == []
    names = [operation["operationId"] for *_, operation in operations()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COMPONENTS["schemas"])
def test_the_examples_of_schemas_are_of_them(name):
    for example in COMPONENTS["schemas"][name]["examples"]:
        assert list(validator(json.dumps(openapi_reference(name))).iter_errors(example)) == []


def openapi_reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize("kind", ["parameters", "headers"])
def test_the_examples_of_fields_are_of_their_schemas(kind):
    for name, field in COMPONENTS[kind].items():
        if "example" in field:
            assert list(validator(json.dumps(field["schema"])).iter_errors(field["example"])) == [], name


def test_no_number_beside_a_problems_detail_can_go_undocumented():
    """What errors put there (`numbers`) is held against the closed schema whenever the suite gets it."""
    assert "additionalProperties" not in COMPONENTS["schemas"]["Problem"], "clients bear what comes later"
    assert closed(COMPONENTS["schemas"]["Problem"])["additionalProperties"] is False, "the suite does not"


async def test_it_is_served_to_everybody_with_the_programs_version(start_service):
    service = await start_service(api_key_sha256=(b"x" * 32,))
    answer = await service.ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == openapi.document(metadata.version("streamup"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(299, {}), "299 is not documented"),
        (Answer(201, {"x-new": "1"}), "fields are not documented"),
        (Answer(201, {"content-type": "text/plain"}, b"x"), "body of text/plain"),
        (Answer(201, {"content-type": "application/json"}, b'{"key": 1}'), "is a required property"),
        (Answer(404, {"content-type": "application/problem+json"}, b"{}"), "is a required property"),
    ],
)
def test_an_answer_that_is_not_documented_is_noticed(answer, told):
    with pytest.raises(AssertionError, match=told):
        documented.check("PUT", "/objects/a", answer)


def test_a_member_that_is_not_documented_is_noticed():
    (example,) = COMPONENTS["schemas"]["Object"]["examples"]
    documented.check("PUT", "/objects/a", in_json(example))
    with pytest.raises(AssertionError, match="'new' was unexpected"):
        documented.check("PUT", "/objects/a", in_json(example | {"new": 1}))
    with pytest.raises(AssertionError, match="no such operation"):
        documented.check("TRACE", "/objects/a", in_json(example))


def in_json(document: dict) -> Answer:
    return Answer(201, {"content-type": "application/json"}, json.dumps(document).encode())


async def test_an_upload_is_documented_at_every_age(service):
    """`Service.ask` holds each answer to the document; this one sees to it that there is something in each member."""
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED) + chunk(b"x" * 100_000))
    found = await service.becomes("a", writer=True, stored=65536)
    assert (await service.ask("GET", f"/uploads/{found['id']}")).json["parts"]
    client.close()
    await service.becomes("a", writer=False)
    await service.ask("PATCH", f"/uploads/{found['id']}", b"", {"Upload-Offset": "100000", "Upload-Complete": "?1"})
    assert (await service.document("a"))["object"]["parts"] == 2


async def test_that_no_place_is_left_is_documented_for_every_operation(start_service):
    service = await start_service(max_connections=1)
    await service.connect()
    for method, path, _ in operations():
        sends = method in {"PUT", "POST", "PATCH"}
        body, fields = (b"", at(0, complete=True)) if sends else (None, {})
        answer = await service.ask(method, path.format(key="a", id="unknown", name="page.js"), body, fields)
        assert answer.status in {503, 423 if method == "HEAD" else 507}, (method, path, answer.status)


def test_every_operation_says_what_it_refuses_in_problem_json():
    for method, path, operation in operations():
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(resolved(answer)["content"]) == ["application/problem+json"], (method, path, status)
