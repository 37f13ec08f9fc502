"""Whom the client thinks it is talking to, when a reverse proxy stands between.

`Forwarded` (RFC 7239) and `X-Forwarded-Host`, `-Proto`, `-Prefix` are believed from trusted proxies only, and of a list
only the last element: that one our own proxy has written, and everything left of it may be the client's invention.

What `Forwarded` says about scheme and host is the whole of it, since X-Forwarded-* beside it may come from elsewhere.
If it cannot be read, neither is believed: an unclosed quote from a client swallows what the proxy appended.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

# Possessive quantifiers (`*+`): nothing that was matched is tried again, so the time is linear whatever is sent.
_PAIR = re.compile(
    r"""[ \t]*+ (?: ([!#$%&'*+.^_`|~0-9A-Za-z-]++) = (?: "((?:[^"\\]|\\.)*+)" | ([^\s",;]*+) ) [ \t]*+ )?+ ([;,]|\Z)""",
    re.VERBOSE,
)
"""A pair of `Forwarded`, or nothing, and what separates it from the next. Some proxies do not quote `host:80`."""

_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?=.{1,253}(?::|\Z))(?!-)[0-9A-Za-z_-]{1,63}+(?:\.[0-9A-Za-z_-]{1,63}+)*+\.?)"
    r"(?::([0-9]{1,5}))?"
)

_PREFIX = re.compile(r"(?:/(?:[0-9A-Za-z._~!$&'()*+;=:@-]|%[0-9A-Fa-f]{2})++)*+/?")
"""Segments as RFC 3986 (3.3) has them, none of them empty."""


@dataclass(frozen=True, slots=True)
class Front:
    """What the client sees of us, as far as the proxy has said it."""

    scheme: str | None = None
    host: str | None = None
    """With its port, as in `Host`."""
    prefix: str = ""
    """What the proxy takes off the path: empty, or from `/`, with no `/` at its end."""

    def location(self, path: str, *, host: str | None) -> str:
        """Where the client finds our `path` (quoted, from `/`); `host` is the request's own.

        Absolute if the proxy told scheme or host: then it takes care of what the client sees, and some clients cannot
        resolve a path. A path alone is right wherever the client came from.
        """
        outside = self.prefix + path
        authority = self.host or _host(host or "")
        if authority is None or (self.scheme is None and self.host is None):
            return outside
        return f"{self.scheme or 'http'}://{authority}{outside}"


def front(peer: str | None, headers: Mapping[str, str], trusted: Collection[IPv4Network | IPv6Network]) -> Front:
    """What the proxy `peer` says in `headers`; nothing unless it is `trusted`. A Unix socket has no peer address."""
    if not _is_trusted(peer, trusted):
        return Front()
    prefix = _prefix(_last_element(headers, "X-Forwarded-Prefix"))
    forwarded = _forwarded(_last_line(headers, "Forwarded"))
    if forwarded is None:
        return Front(prefix=prefix)
    if not forwarded.keys() & {"host", "proto"}:
        forwarded = {
            "host": _last_element(headers, "X-Forwarded-Host"),
            "proto": _last_element(headers, "X-Forwarded-Proto"),
        }
    return Front(_scheme(forwarded.get("proto", "")), _host(forwarded.get("host", "")), prefix)


def _is_trusted(peer: str | None, trusted: Collection[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    # A socket for both families shows 10.0.0.1 as ::ffff:10.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any(address in network or (mapped is not None and mapped in network) for network in trusted)


def _last_line(headers: Mapping[str, str], name: str) -> str:
    """A header may come in several lines (a multidict's `items` has them all); `headers[name]` is the client's."""
    lines = [value for key, value in headers.items() if key.lower() == name.lower()]
    return lines[-1] if lines else ""


def _last_element(headers: Mapping[str, str], name: str) -> str:
    return _last_line(headers, name).rpartition(",")[2].strip(" \t")


def _forwarded(line: str) -> dict[str, str] | None:
    """The pairs of the last element (RFC 7239, 4), names in lower case. None if the line is malformed."""
    pairs: dict[str, str] = {}
    position, separator = 0, ","
    while separator:
        found = _PAIR.match(line, position)
        if found is None:
            return None
        if separator == ",":
            pairs = {}
        name, quoted, plain, separator = found.groups()
        position = found.end()
        if name and name.lower() in pairs:
            return None
        if name:
            pairs[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return pairs


# --- plausible values


def _scheme(text: str) -> str | None:
    return text.lower() if text.lower() in {"http", "https"} else None


def _host(text: str) -> str | None:
    """A name, an IPv4 address or an IPv6 address in brackets, perhaps with a port."""
    found = _HOST.fullmatch(text)
    if found is None or int(found[2] or 0) > 65535:  # noqa: PLR2004 - the largest port there is
        return None
    return text if found[1] is None or _is_ipv6(found[1]) else None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _prefix(text: str) -> str:
    """Browsers take `%2e%2e` for `..`, too."""
    return "" if _PREFIX.fullmatch(text) is None or ".." in unquote(text) else text.removesuffix("/")
