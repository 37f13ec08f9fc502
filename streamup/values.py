"""Values as people write them, on a command line, in the environment or in a file. Each raises `ConfigError`, with the
way to write it. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from streamup.errors import ConfigError
from streamup.hosts import USUAL_PORTS
from streamup.keys import check_template
from streamup.object_options import CUSTOMER_KEY_BYTES, tag_objection

MIN_API_KEY_LENGTH = 16
"""Too long to be guessed over a network, so that a plain SHA-256 of it is safe to keep."""

MIN_JWT_SECRET_BYTES = 32
"""As long as the hash (RFC 7518, 3.2): who has one token can try secrets without asking us."""


def parse_size(text: str) -> int:
    """Bytes: `8MiB`, `1.5 GiB`, `5 MB`, `1048576`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B|B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{text!r} is not a size. Write it as 8MiB, 5MB or 1048576.")
    number, unit, binary = match.groups()
    factor = (1024 if binary else 1000) ** (" KMGT".index(unit.upper()) if unit else 0)
    return int(number) * factor if number.isdecimal() else int(float(number) * factor)


_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds: `24h`, `1h30m`, `500ms`, `30`."""
    written = text.replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", written, re.ASCII):
        return float(written)
    if re.fullmatch(r"(\d+(\.\d+)?(ms|[smhd]))+", written, re.ASCII) is None:
        raise ConfigError(f"{text!r} is not a duration. Write it as 24h, 1h30m or 30s.")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", written))


def parse_address(text: str) -> tuple[str, int]:
    """A host and a port: `127.0.0.1:8080`, `[::1]:8080`, and `:8080` for every interface."""
    match = re.fullmatch(r"(?:\[([0-9A-Za-z:.%]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})", text.strip(), re.ASCII)
    if match is None or int(match[3]) > 65535:  # noqa: PLR2004 - the largest port there is
        raise ConfigError(f"{text!r} is not an address. Write it as 127.0.0.1:8080 or [::1]:8080.")
    return match[1] or match[2], int(match[3])


def parse_store(text: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`. The prefix is empty, or ends in `/`: prefixes compare there."""
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/(.*))?", text)
    segments = (match[2] or "").removesuffix("/").split("/") if match else []
    plain = all(segment not in ("", ".", "..") and segment.isprintable() for segment in segments)
    if match is None or not (plain or segments == [""]):
        raise ConfigError(f"{text!r} is not a place for objects. Write it as s3://bucket or s3://bucket/prefix.")
    return match[1], "/".join([*segments, ""]) if plain else ""


def parse_api_key(text: str) -> bytes:
    """The SHA-256 of an API key, which is given plain or as `sha256:` and 64 hex digits. Never quotes what is given."""
    if text.startswith("sha256:"):
        if re.fullmatch(r"sha256:[0-9A-Fa-f]{64}", text) is None:
            raise ConfigError("After sha256: come the 64 hex digits of the key's SHA-256 (printf %s KEY | sha256sum).")
        return bytes.fromhex(text[7:])
    if len(text) < MIN_API_KEY_LENGTH or re.fullmatch(r"[!-+\--~]+", text) is None:
        raise ConfigError(
            f"An API key has at least {MIN_API_KEY_LENGTH} visible ASCII characters and no comma or space; "
            "`openssl rand -hex 32` makes a good one."
        )
    return sha256(text.encode()).digest()


def parse_jwt_secret(text: str) -> bytes:
    """A secret for HS256. Never quotes what is given."""
    if len(text) < MIN_JWT_SECRET_BYTES or re.fullmatch(r"[!-~]+", text) is None:
        raise ConfigError(
            f"A secret for tokens has at least {MIN_JWT_SECRET_BYTES} visible ASCII characters and no space; "
            "`openssl rand -hex 32` makes a good one."
        )
    return text.encode()


def parse_token(text: str) -> str:
    """A credential as it goes into a header. Never quotes what is given."""
    if re.fullmatch(r"[!-~]+", text) is None:
        raise ConfigError("A token is visible ASCII characters, without spaces.")
    return text


def parse_origin(text: str) -> str:
    """An origin as browsers send it: `https://app.example.com`, no path, no wildcard, no port that is the usual one."""
    if re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+", text.lower()) is None:
        raise ConfigError(f"{text!r} is not an origin. Write it as https://app.example.com, without a path or *.")
    origin = text.lower()
    return origin.removesuffix(USUAL_PORTS.get(origin.partition("://")[0], ""))


def parse_host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", text) is None:
        raise ConfigError(f"{text!r} is not a host name. Write it as up.example.com, without scheme, port or *.")
    return text.strip("[]").rstrip(".").lower()


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """An address or a network. Bits beside the mask are refused: whoever wrote 10.0.0.5/8 may not mean 10.0.0.0/8."""
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is neither an address nor a network. Write it as 10.0.0.5, 10.0.0.0/8 or fd00::/8."
        ) from error
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"{text!r} has bits beside its mask. Write {network} for all of the network, or the address alone."
        ) from error


def parse_template(text: str) -> str:
    try:
        check_template(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return text


def parse_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{text!r} is not a URL. Write it as http://minio:9000.")
    return text


def parse_pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"{text!r} is not NAME=VALUE. Write it as team=video.")
    return name, value


def parse_tag(text: str) -> tuple[str, str]:
    name, value = parse_pair(text)
    if objection := tag_objection(name, value):
        raise ConfigError(f"{objection}. {name[:60]}={value[:60]} is another.")
    return name, value


def parse_field_value(text: str) -> str:
    """The value of a header field, as S3 keeps it."""
    if re.fullmatch(r"[!-~]([ -~]*[!-~])?", text) is None:
        raise ConfigError(f"{text!r} is not the value of a header field. Write it as max-age=86400.")
    return text


def parse_sse_c_key(text: str) -> bytes:
    """A customer's key (SSE-C), in base64. Never quotes what is given."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != CUSTOMER_KEY_BYTES:
        raise ConfigError(
            f"A key for SSE-C is the base64 of {CUSTOMER_KEY_BYTES} bytes; `openssl rand -base64 32` makes a good one."
        )
    return key


def parse_count(text: str) -> int:
    if re.fullmatch(r"\d+", text, re.ASCII) is None:
        raise ConfigError(f"{text!r} is not a whole number.")
    return int(text)


def parse_percent(text: str) -> int:
    match = re.fullmatch(r"(\d{1,3})%?", text.strip(), re.ASCII)
    if match is None or not 1 <= int(match[1]) <= 100:  # noqa: PLR2004 - what percent means
        raise ConfigError(f"{text!r} is not a share. Write it as 50%, from 1% to 100%.")
    return int(match[1])


def unless(word: str, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse`, and `word` for None."""
    return lambda text: None if text == word else parse(text)
