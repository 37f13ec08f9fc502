"""Every answer that a `Service` of the suite gives is held to `/openapi.json`: route, status, fields, and JSON.

    check("PUT", "/objects/a", answer)        # fails on what the document does not know

The document may say more than the server does (an example of its own tests that, test_openapi.py); never less.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Protocol

from jsonschema import Draft202012Validator

from streamup import routes
from streamup.openapi import document

ALWAYS = {
    *("connection", "content-length", "content-type", "date", "server", "transfer-encoding"),
    *("x-content-type-options", "cross-origin-resource-policy"),
    *("vary", "access-control-allow-origin", "access-control-expose-headers"),
}
"""Fields of all answers, which the document does not repeat."""

AT_THE_DOOR = {400, 401, 403, 404, 405}
"""What may be said of a route or a method that does not exist."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...


def closed(part: Any) -> Any:
    """The document without room for what it does not name: clients shall bear new members, we shall know of them."""
    if isinstance(part, dict):
        found = {name: closed(member) for name, member in part.items()}
        return found | ({"additionalProperties": False} if "properties" in part and part.get("type") else {})
    return [closed(member) for member in part] if isinstance(part, list) else part


DOCUMENT = document("0.0.0")
_COMPONENTS = closed(DOCUMENT["components"])


@cache
def validator(schema: str) -> Draft202012Validator:
    """For the JSON text of a schema or of a reference to one."""
    whole = json.loads(schema) | {"components": _COMPONENTS}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    while reference := part.get("$ref"):
        _, _, kind, name = reference.split("/")
        part = DOCUMENT["components"][kind][name]
    return part


def template_of(target: str) -> str:
    """The path of the document that a request target belongs to; "" if none."""
    found = routes.find(re.sub(r"^[a-z]+://[^/]*", "", re.split(r"[?#]", target)[0]))
    return found[0].path if found else ""


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation, for all there are."""
    for path, item in DOCUMENT["paths"].items():
        yield from ((name.upper(), path, operation) for name, operation in item.items() if name != "parameters")


def check(method: str, target: str, answer: Answer) -> None:
    template = template_of(target)
    operation = DOCUMENT["paths"].get(template, {}).get(method.lower())
    if operation is None:
        assert answer.status in AT_THE_DOOR, f"{method} {target}: {answer.status}, and no such operation is documented"
        return
    where = f"{method} {template} → {answer.status}"
    assert str(answer.status) in operation["responses"], f"{where} is not documented"
    response = resolved(operation["responses"][str(answer.status)])
    names = {name.lower() for name in response.get("headers", {})}
    unknown = {name.lower() for name in answer.headers} - names - ALWAYS
    if template == "/objects/{key}" and method == "HEAD":
        unknown = {name for name in unknown if not name.startswith("x-amz-meta-")}
    assert not unknown, f"{where}: these fields are not documented"
    if answer.body:
        _check_content(where, response, answer)


def _check_content(where: str, response: Mapping[str, Any], answer: Answer) -> None:
    media = answer.headers["content-type"].partition(";")[0]
    content = response.get("content", {})
    assert media in content, f"{where}: a body of {media} is not documented"
    if schema := content[media].get("schema"):
        for error in validator(json.dumps(schema)).iter_errors(json.loads(answer.body)):
            raise AssertionError(f"{where}: {error.json_path}: {error.message}")
