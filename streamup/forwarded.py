"""Whom the client thinks it is talking to, and where it is, when a reverse proxy stands between.

`Forwarded` (RFC 7239) and `X-Forwarded-Host`, `-Proto`, `-Prefix` are believed from trusted proxies only, and of a list
only the last element: that one our own proxy has written, and everything left of it may be the client's invention.
Addresses are believed as far to the left as trusted proxies have written them.

What `Forwarded` says about scheme and host is the whole of it, since X-Forwarded-* beside it may come from elsewhere.
If it cannot be read, neither is believed: an unclosed quote from a client swallows what the proxy appended.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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


def client(peer: str | None, headers: Mapping[str, str], trusted: Collection[IPv4Network | IPv6Network]) -> str | None:
    """The address that the request came from: the last that is no trusted proxy's; `peer` where none says more.

    A proxy writes one of `Forwarded` and `X-Forwarded-For` and may pass a client's other one on: where both name an
    address they must agree, or neither is believed.
    """
    if not _is_trusted(peer, trusted):
        return peer
    told = {_walk(peer, hops, trusted) for hops in (_forwarded_for(headers), _x_forwarded_for(headers)) if hops}
    return told.pop() if len(told) == 1 else peer


def _walk(peer: str | None, hops: Sequence[str], trusted: Collection[IPv4Network | IPv6Network]) -> str | None:
    for hop in reversed(hops):
        if not _is_trusted(peer, trusted) or (address := _address(hop)) is None:
            break
        peer = address
    return peer


def _forwarded_for(headers: Mapping[str, str]) -> Sequence[str]:
    elements = _elements(", ".join(_lines(headers, "Forwarded")))
    return [element["for"] for element in elements or () if "for" in element]


def _x_forwarded_for(headers: Mapping[str, str]) -> Sequence[str]:
    return [hop for hop in ",".join(_lines(headers, "X-Forwarded-For")).split(",") if hop.strip(" \t")]


def _address(text: str) -> str | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None of a name or nonsense."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+)(?::\d+)?|([0-9A-Fa-f:.]+)", text.strip(" \t"))
    try:
        return str(ip_address(found[1] or found[2] or found[3])) if found else None
    except ValueError:
        return None


def _is_trusted(peer: str | None, trusted: Collection[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    # A socket for both families shows 10.0.0.1 as ::ffff:10.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any(address in network or (mapped is not None and mapped in network) for network in trusted)


def _lines(headers: Mapping[str, str], name: str) -> Sequence[str]:
    """A header may come in several lines (a multidict's `items` has them all); `headers[name]` is the client's."""
    return [value for key, value in headers.items() if key.lower() == name.lower()]


def _last_line(headers: Mapping[str, str], name: str) -> str:
    return next(reversed(_lines(headers, name)), "")


def _last_element(headers: Mapping[str, str], name: str) -> str:
    return _last_line(headers, name).rpartition(",")[2].strip(" \t")


def _forwarded(line: str) -> dict[str, str] | None:
    """The pairs of the last element. None if the line is malformed."""
    elements = _elements(line)
    return None if elements is None else elements[-1]


def _elements(line: str) -> Sequence[dict[str, str]] | None:
    """The pairs of each element (RFC 7239, 4), names in lower case. None if the line is malformed."""
    elements: list[dict[str, str]] = []
    position, separator = 0, ","
    while separator:
        found = _PAIR.match(line, position)
        if found is None:
            return None
        if separator == ",":
            elements.append({})
        name, quoted, plain, separator = found.groups()
        position = found.end()
        if name and name.lower() in elements[-1]:
            return None
        if name:
            elements[-1][name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return elements


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
