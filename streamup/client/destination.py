"""Where files go: from what was typed to a server and a key for each of them (pure).

    http://HOST[:PORT][/BELOW]/objects/KEY      one file, under this key
    http://HOST[:PORT][/BELOW]/objects/DIR/     any number of files, by their names
    http://HOST[:PORT][/BELOW]/                 the same, without a directory

A key in a URL is decoded once. The name of a file is taken as it is, whatever it holds: nothing decodes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import quote, unquote, urlsplit

from streamup.client.table import printable
from streamup.errors import BadRequest, ConfigError
from streamup.keys import validate_key

OBJECTS = "/objects/"


@dataclass(frozen=True, slots=True)
class Destination:
    """A server and the `key` there; one that is empty or ends in `/` takes the names of files.

    `server` is a URL without user and without `/` at its end. `token` is what stood in the URL as password.
    """

    server: str
    key: str
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The URL, without a credential."""
        return f"{self.server}{OBJECTS}{quote(self.key)}"

    @property
    def takes_names(self) -> bool:
        return not self.key or self.key.endswith("/")


def parse_destination(text: str) -> Destination:
    """The destination that a URL names. Raises `ConfigError`."""
    shown = printable(_without_password(text))
    if text.lower().startswith("s3://"):
        raise ConfigError(
            f"`push` sends to a streamup server, and that stores in {shown}. Start one (streamup serve s3://BUCKET), "
            "and push to http://127.0.0.1:8080/objects/KEY."
        )
    try:
        url = urlsplit(text)
        port = url.port
        path = unquote(url.path, errors="strict")
        token = unquote(url.password or "", errors="strict")
    except ValueError as error:
        raise ConfigError(f"{shown} is no URL: {error}.") from error
    if url.scheme not in {"http", "https"} or not url.hostname or re.search(r"[\x00-\x20\x7f]", text):
        raise ConfigError(f"{shown!r} is no destination. Write it as http://127.0.0.1:8080/objects/KEY.")
    if "?" in text or "#" in text:
        raise ConfigError(f"{shown}: a destination has no ? and no #. In a key they are written %3F and %23.")
    if url.username is not None and not token:
        raise ConfigError(f"{shown}: a credential in a URL is written as password: http://any:TOKEN@HOST/…")
    below, key = _divided(path, shown)
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    where = host if port in (None, {"http": 80, "https": 443}[url.scheme]) else f"{host}:{port}"
    return Destination(f"{url.scheme}://{where}{quote(below)}", key, token or None)


def _divided(path: str, shown: str) -> tuple[str, str]:
    """What lies before `/objects/`, and the key behind it."""
    below, found, key = path.partition(OBJECTS)
    if found:
        return below, key
    if path.endswith("/objects"):
        return path.removesuffix("/objects"), ""
    if path.endswith("/") or not path:
        return path.rstrip("/"), ""
    raise ConfigError(f"{shown} has no /objects/ before its key. Write it as http://127.0.0.1:8080/objects/KEY.")


def _without_password(text: str) -> str:
    """What may be shown of a URL."""
    return re.sub(r"(?<=://)[^/@]*@", "", text)


def is_url(word: str) -> bool:
    """Whether a word of a command line is meant as a destination, rather than as a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", word) is not None


def pair(sources: Sequence[str], destination: Destination) -> list[tuple[str, Destination]]:
    """Each of the files with a destination of its own. Raises `ConfigError` before anything could be sent."""
    if len(sources) > 1 and not destination.takes_names:
        raise ConfigError(f"{len(sources)} files cannot have one key. End the URL with a /: {destination}/")
    pairs: dict[str, str] = {}
    for source in sources:
        name = PurePath(source).name
        if name in {"", ".."}:
            shown = printable(source)
            raise ConfigError(f"{shown} is a directory. Push its files: streamup push {shown}/* URL/")
        key = destination.key + name if destination.takes_names else destination.key
        try:
            validate_key(key, "")
        except BadRequest as error:
            raise ConfigError(
                f"{printable(source)} cannot go to the key {printable(key)!r}. {error.detail} Give it another one: "
                f"{destination.server}{OBJECTS}KEY"
            ) from error
        if key in pairs:
            raise ConfigError(
                f"{printable(pairs[key])} and {printable(source)} would both go to {printable(key)!r}. Push them one "
                "by one, to keys of their own."
            )
        pairs[key] = source
    return [(source, Destination(destination.server, key, destination.token)) for key, source in pairs.items()]
