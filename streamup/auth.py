"""Who asks, and whether they are heard: one function, for every route and method, before anything else is done. What
they may do is decided by `grants`.

Three questions, in this order:

1. Is it us whom the client meant? A web page can point a name of its own at 127.0.0.1 (DNS rebinding) and is then
   same-origin with this server in the browser's eyes; only the name in `Host` gives it away.
2. Does a foreign web page ask? A browser sends simple requests anywhere, without preflight, so a foreign `Origin` is
   refused on any method. What is not a browser sends neither `Origin` nor `Sec-Fetch-Site`.
3. Who asks? `credentials` knows.

No I/O, and nothing of a credential in any message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from streamup.config import Config
from streamup.credentials import Credentials
from streamup.errors import Forbidden
from streamup.grants import Grant
from streamup.hosts import USUAL_PORTS, WILDCARDS, can_mean_us
from streamup.protocols import RequestHead

ANONYMOUS = Grant(subject="anonymous")
"""Everybody where no credential is asked for, and preflights."""


@dataclass(slots=True)
class Authorizer:
    """Whom the server is for."""

    credentials: Credentials = field(default_factory=Credentials)
    """Exchanged as a whole while the server runs."""
    origins: frozenset[str] = frozenset()
    host_names: frozenset[str] = frozenset()
    """Names this server answers to, beside those of loopback."""
    any_host: bool = False
    """There is no allow-list. Then any IP address will do: a page that was served from one cannot have rebound a name;
    and where a credential is asked for, any name: a page that has rebound one has no credential.
    """

    @classmethod
    def of(cls, config: Config) -> Self:
        """Raises `ConfigError`."""
        listen = config.listen[0]
        return cls(
            credentials=Credentials.of(config),
            origins=frozenset(config.cors_origins),
            host_names=frozenset(config.allowed_hosts).union([] if listen in WILDCARDS else [listen.lower()]),
            any_host=not config.allowed_hosts,
        )

    def authorize(self, head: RequestHead) -> Grant:
        """What the request's credential allows, and on whose behalf. Raises `Forbidden` or `Unauthorized`."""
        self.admit(head)
        if not self.credentials or _is_preflight(head):
            return ANONYMOUS
        return self.credentials.grant(head.headers.get("Authorization", ""), head.url_token, head.arrived)

    def still_known(self, credential: str) -> bool:
        """Whether what goes by this name (`Grant.credential`) has not been revoked since."""
        return self.credentials.knows(credential)

    def admit(self, head: RequestHead, *, linked: bool = False) -> None:
        """Whether it is us whom the client meant, and no foreign page asks. Raises `Forbidden`.

        `linked`: what is asked for may be the target of a link on any page. The browser shows it instead of that page.
        """
        self._check_host(head)
        if not (linked and _is_navigation(head)):
            self._check_origin(head)

    def _check_host(self, head: RequestHead) -> None:
        if self.any_host and self.credentials:
            return
        if not can_mean_us(head.headers.get("Host"), self.host_names, addresses=self.any_host):
            raise Forbidden("This server does not go by that name. Its operator can add it: --allowed-host NAME.")

    def _check_origin(self, head: RequestHead) -> None:
        if asked_by_foreign_page(head.headers, self.origins):
            raise Forbidden(
                "Pages of other origins may not use this server. Its operator can allow one: --cors-origin."
            )


def asked_by_foreign_page(headers: Mapping[str, str], allowed: Collection[str] = ()) -> bool:
    """Whether a browser says that a page of another origin asks, and none of those that are `allowed`.

    A page of another origin of the same site is foreign, too, but its requests without an Origin only look, and it
    cannot embed their answers (`listeners.WHERE_SOMETHING_IS_READ`).
    """
    origin = headers.get("Origin")
    if origin is not None and origin.lower() in allowed:
        return False
    if "cross-site" in headers.get("Sec-Fetch-Site", "").lower():
        return True
    return origin is not None and not _is_own(origin.lower(), headers.get("Host", "").lower())


def _is_preflight(head: RequestHead) -> bool:
    """Browsers never send credentials with a preflight (Fetch §4.8). Its answer only says what may be asked."""
    return head.method == "OPTIONS" and "Access-Control-Request-Method" in head.headers


def _is_navigation(head: RequestHead) -> bool:
    """Whether the browser's own window is to go there (Fetch Metadata): no script of the page it leaves reads it."""
    fetched = (head.headers.get("Sec-Fetch-Mode"), head.headers.get("Sec-Fetch-Dest"))
    return fetched == ("navigate", "document") and "Origin" not in head.headers


def _is_own(origin: str, host: str) -> bool:
    """Whether `origin` is the page's own server. The scheme says nothing: TLS may end at a proxy in front of us."""
    scheme, _, authority = origin.partition("://")
    default = USUAL_PORTS.get(scheme)
    return default is not None and bool(host) and authority.removesuffix(default) == host.removesuffix(default)
