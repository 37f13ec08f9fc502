"""What is the same for everybody: the page at `/` with its files, and `/openapi.json`.

None of it asks for a credential: it tells nothing of any upload, and a browser that follows a link has no way to show
one. What the page then asks for goes with its user's token.

The files are named one by one here and read at the start, so no request decides about a path on the disk. They are in
`web/`: ES modules and a style sheet as browsers take them, without a build step, and nothing from other hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, resources
from json import dumps
from types import MappingProxyType

from aiohttp import web

from streamup import openapi, routes
from streamup.errors import NotAllowed, NotFound

FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("index.html", "text/html"),
        "/static/page.css": ("page.css", "text/css"),
        "/static/page.js": ("page.js", "text/javascript"),
        "/static/dashboard.js": ("dashboard.js", "text/javascript"),
        "/static/recorder.js": ("recorder.js", "text/javascript"),
        "/static/capture.js": ("capture.js", "text/javascript"),
        "/static/outbox.js": ("outbox.js", "text/javascript"),
        "/static/recordings.js": ("recordings.js", "text/javascript"),
        "/static/uploader.js": ("uploader.js", "text/javascript"),
        "/static/upload-row.js": ("upload-row.js", "text/javascript"),
        "/static/words.js": ("words.js", "text/javascript"),
        "/static/streamup.js": ("streamup.js", "text/javascript"),
        "/static/event-stream.js": ("event-stream.js", "text/javascript"),
        "/static/patience.js": ("patience.js", "text/javascript"),
        "/static/sending.js": ("sending.js", "text/javascript"),
        "/static/unfinished.js": ("unfinished.js", "text/javascript"),
        "/static/crc64nvme.js": ("crc64nvme.js", "text/javascript"),
        "/static/rate.js": ("rate.js", "text/javascript"),
        "/static/icon.svg": ("icon.svg", "image/svg+xml"),
    }
)
"""By path: the file's name in `web/`, and its type."""

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""What a page may load and do (Content Security Policy 3): a key or a file name that is markup stays without effect."""

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Cache-Control": "no-cache",  # after an update the old files must not meet the new ones
        "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in POLICY.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        # What the recorder needs, and nothing else; whether a camera is used, the browser asks its user each time.
        "Permissions-Policy": "camera=(self), display-capture=(self), microphone=(self), geolocation=(), payment=()",
        "Referrer-Policy": "no-referrer",
    }
)


class Pages:
    """The files, in memory."""

    def __init__(self) -> None:
        web_files = resources.files("streamup") / "web"
        self._files = {path: ((web_files / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        described = dumps(openapi.document(metadata.version("streamup")), indent=1) + "\n"
        self._files[routes.DESCRIPTION.path] = (described.encode(), "application/json")

    def answer(self, method: str, path: str) -> web.Response:
        """The file, for GET and HEAD. `path` is undecoded. Raises `NotFound`, `NotAllowed`."""
        if path not in self._files:
            raise NotFound("There is no such file. The page is at /, and what can be asked is in /openapi.json.")
        if method not in routes.PAGE.methods:
            raise NotAllowed(f"{method} means nothing on a page. Use {routes.PAGE.allowed}.", routes.PAGE.allowed)
        body, kind = self._files[path]
        charset = None if kind == "application/json" else "utf-8"  # JSON is UTF-8 (RFC 8259, 8.1)
        return web.Response(body=body, headers=HEADERS, content_type=kind, charset=charset)
