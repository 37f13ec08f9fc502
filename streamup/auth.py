"""Who may do what: one function decides, for every route and method, before anything else is done.

Three questions, in this order:

1. Is it us whom the client meant? A web page can point a name of its own at 127.0.0.1 (DNS rebinding) and is then
   same-origin with this server in the browser's eyes; only the name in `Host` gives it away.
2. Does a foreign web page ask? A browser sends simple requests anywhere, without preflight, so a foreign `Origin` is
   refused on any method. What is not a browser sends neither `Origin` nor `Sec-Fetch-Site`.
3. Who asks? A static API key, as Bearer token or as Basic password (ffmpeg and OBS: `http://any:KEY@host/`).

No I/O, and nothing of a credential in any message.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Protocol, Self

from streamup.config import Config, is_loopback
from streamup.errors import Forbidden, Unauthorized

ANONYMOUS = "anonymous"
"""The subject of everybody where no API key is set, and of preflights."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not bound


class RequestHead(Protocol):
    """What is looked at. The names of `headers` are found in any case."""

    @property
    def method(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Authorizer:
    """The decision, with what it depends on."""

    key_hashes: tuple[bytes, ...] = ()
    origins: frozenset[str] = frozenset()
    host_names: frozenset[str] = frozenset()
    """Names this server answers to, beside those of loopback."""
    any_address: bool = False
    """Answer to any IP address: a page that was served from an address cannot have rebound a name."""
    any_name: bool = False

    @classmethod
    def of(cls, config: Config) -> Self:
        """Without an allow-list, any name will do where a key is asked for: a page that rebinds a name has no key."""
        listen = config.listen[0]
        return cls(
            key_hashes=config.api_key_sha256,
            origins=frozenset(config.cors_origins),
            host_names=frozenset(config.allowed_hosts).union([] if listen in _WILDCARDS else [listen.lower()]),
            any_address=not config.allowed_hosts,
            any_name=not config.allowed_hosts and bool(config.api_key_sha256),
        )

    def authorize(self, head: RequestHead) -> str:
        """The subject on whose behalf the request acts. Raises `Forbidden` or `Unauthorized`."""
        self._check_host(head)
        self._check_origin(head)
        if not self.key_hashes or _is_preflight(head):
            return ANONYMOUS
        return self._subject(head.headers.get("Authorization", ""))

    def _check_host(self, head: RequestHead) -> None:
        host = head.headers.get("Host")
        # HTTP/1.0 may leave it out. Browsers never do, and they are what this is about.
        if host is None or self.any_name:
            return
        name = _without_port(host.lower()).rstrip(".")
        if not (is_loopback(name) or name in self.host_names or (self.any_address and _is_address(name))):
            raise Forbidden("This server does not go by that name. Its operator can add it: --allowed-host NAME.")

    def _check_origin(self, head: RequestHead) -> None:
        origin = head.headers.get("Origin")
        if origin is not None and origin.lower() in self.origins:
            return
        cross_site = head.headers.get("Sec-Fetch-Site", "").lower() == "cross-site"
        if cross_site or (origin is not None and not _is_own(origin.lower(), head.headers.get("Host", "").lower())):
            raise Forbidden(
                "Pages of other origins may not use this server. Its operator can allow one: --cors-origin."
            )

    def _subject(self, authorization: str) -> str:
        credential = _credential(authorization)
        if credential is None:
            raise Unauthorized("Send the API key as `Authorization: Bearer KEY`, or as the password of a Basic one.")
        digest = sha256(credential).digest()
        # Every key is compared, and each in constant time: how long it takes tells nothing.
        if not any([hmac.compare_digest(digest, known) for known in self.key_hashes]):  # noqa: C419 - as said above
            raise Unauthorized("This server does not know that API key.")
        return f"key-{digest.hex()[:8]}"


def _is_preflight(head: RequestHead) -> bool:
    """Browsers never send credentials with a preflight (Fetch §4.8). Its answer only says what may be asked."""
    return head.method == "OPTIONS" and "Access-Control-Request-Method" in head.headers


def _is_own(origin: str, host: str) -> bool:
    """Whether `origin` is the page's own server. The scheme says nothing: TLS may end at a proxy in front of us."""
    scheme, _, authority = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    return default is not None and bool(host) and authority.removesuffix(default) == host.removesuffix(default)


def _without_port(host: str) -> str:
    """The name or address in a `Host` header; "" if it is neither."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::\d*)?", host)
    return match[1] or match[2] if match else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _credential(authorization: str) -> bytes | None:
    """The secret in an `Authorization` header: a Bearer token, or the password of Basic."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode(errors="surrogateescape") or None
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = b64decode(rest.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return password if colon and password else None
