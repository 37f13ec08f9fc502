"""routes.py: which route a path is."""

import pytest

from streamup.routes import (
    ADMIN,
    DESCRIPTION,
    EVENTS,
    FILE,
    OBJECT,
    PAGE,
    PUBLIC,
    UPLOAD,
    UPLOAD_EVENTS,
    UPLOADS,
    find,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/objects/a", (OBJECT, "a")),
        ("/objects/a/b%2Fc/", (OBJECT, "a/b%2Fc/")),
        ("/objects/", (OBJECT, "")),
        ("/objects//a", (OBJECT, "/a")),
        ("/objects", None),
        ("/objectsa", None),
        ("/uploads", (UPLOADS, "")),
        ("/uploads/", (UPLOADS, "")),
        ("/uploads/id", (UPLOAD, "id")),
        ("/uploads/i%2Fd", (UPLOAD, "i%2Fd")),
        ("/uploads/id/", None),
        ("/uploads//", None),
        ("/uploads//id", None),
        ("/uploads/id/more", None),
        ("/uploads/events", (EVENTS, "")),
        ("/uploads/id/events", (UPLOAD_EVENTS, "id")),
        ("/uploads/events/events", (UPLOAD_EVENTS, "events")),
        ("/uploads//events", None),
        ("/uploads/i/d/events", None),
        ("/uploads/id/events/", None),
        ("/uploads/myevents", (UPLOAD, "myevents")),
        ("/%75ploads", None),
        ("//uploads", None),
        ("/", (PAGE, "")),
        ("//", None),
        ("/static/page.js", (FILE, "page.js")),
        ("/static/../page.js", None),
        ("/static/", None),
        ("/openapi.json", (DESCRIPTION, "")),
        ("", None),
    ],
)
def test_a_path_is_one_route_or_none(path, expected):
    assert find(path) == expected


def test_no_path_is_there_twice_and_every_route_means_something():
    for routes in (PUBLIC, ADMIN):
        assert len({route.path for route in routes}) == len(routes)
        assert all(route.methods for route in routes)
    assert OBJECT.allowed == "PUT, POST, HEAD, GET, DELETE, OPTIONS"
