"""Machines by name and address: as `Host` and `Origin` carry them, and as we listen on them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

USUAL_PORTS = {"http": ":80", "https": ":443"}
"""By scheme: what browsers leave out."""

WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
"""Who listens on one of these listens on every interface, and is reached by this machine at the address beside it."""


def reachable(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    return WILDCARDS.get(host, host)


def is_address(name: str) -> bool:
    """Whether it is an IP address (no brackets)."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, no brackets) can only be this machine."""
    if is_address(host):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def can_mean_us(host: str | None, names: Collection[str], *, addresses: bool, words: bool = False) -> bool:
    """Whether no page can have pointed the name in this `Host` field at us (DNS rebinding): it is one of loopback, one
    of ours (`names`, in lower case), with `addresses` any address, with `words` any name without a dot, which no public
    domain is (`streamup:9464` in a container's network).
    """
    if host is None:  # HTTP/1.0 may leave it out. Browsers never do, and they are what this is about.
        return True
    name = _without_port(host.lower()).rstrip(".")
    return (
        is_loopback(name)
        or name in names
        or (addresses and is_address(name))
        or (words and name != "" and "." not in name)
    )


def _without_port(host: str) -> str:
    """The name or address in a `Host` field; "" if it is neither."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::\d*)?", host)
    return match[1] or match[2] if match else ""
