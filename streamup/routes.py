"""The routes of both listeners, and the methods that mean something on them: the one table. Pure.

Whoever dispatches, refuses, documents or tests reads it here; `tests/test_authority.py` asks every method of every
route who may do it, so that a route without a rule fails the suite.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """`path` as OpenAPI writes it, with one name or none: `{key}`, at its end, takes all that follows, slashes too, any
    other name one segment.
    """

    path: str
    methods: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """As the field `Allow` says it (RFC 9110, 10.2.1)."""
        return ", ".join(self.methods)

    def without(self, method: str) -> str:
        """... where this one means nothing just now."""
        return ", ".join(name for name in self.methods if name != method)

    def match(self, path: str) -> str | None:
        """What stands in the name's place, undecoded ("" where it has none); None if this path is another's."""
        before, _, named = self.path.partition("{")
        if not named:
            return "" if path in {before, before.rstrip("/") + "/"} else None
        name, _, after = named.partition("}")
        rest = path.removeprefix(before)
        if rest == path or not rest.endswith(after):
            return None
        value = rest.removesuffix(after)
        return value if name == "key" or (value and "/" not in value) else None


OBJECT = Route("/objects/{key}", ("PUT", "POST", "HEAD", "GET", "DELETE", "OPTIONS"))
UPLOADS = Route("/uploads", ("POST", "GET", "OPTIONS"))
EVENTS = Route("/uploads/events", ("GET", "OPTIONS"))
UPLOAD_EVENTS = Route("/uploads/{id}/events", ("GET", "OPTIONS"))
UPLOAD = Route("/uploads/{id}", ("HEAD", "GET", "PATCH", "POST", "DELETE", "OPTIONS"))
PAGE = Route("/", ("GET", "HEAD"))
FILE = Route("/static/{name}", ("GET", "HEAD"))
DESCRIPTION = Route("/openapi.json", ("GET", "HEAD"))

OPEN = (PAGE, FILE, DESCRIPTION)
"""They are the same for everybody, tell nothing of any upload, and ask for no credential."""

PUBLIC = (OBJECT, UPLOADS, EVENTS, UPLOAD_EVENTS, UPLOAD, *OPEN)
"""Where a path fits several, the first counts."""

METHODS = tuple(dict.fromkeys(method for route in PUBLIC for method in route.methods))
"""Each of them once."""

HEALTH = Route("/healthz", ("GET", "HEAD"))
READINESS = Route("/readyz", ("GET", "HEAD"))
METRICS = Route("/metrics", ("GET", "HEAD"))
HOLDINGS = Route("/holdings", ("GET", "HEAD"))

ADMIN = (HEALTH, READINESS, METRICS, HOLDINGS)


def is_open(path: str) -> bool:
    """Whether this undecoded path is one of those for everybody."""
    found = find(path)
    return found is not None and found[0] in OPEN


def find(path: str) -> tuple[Route, str] | None:
    """The public route of an undecoded path, and what stands in its name's place."""
    for route in PUBLIC:
        if (value := route.match(path)) is not None:
            return route, value
    return None
