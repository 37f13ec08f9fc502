"""JSON Web Tokens (RFC 7519): what one allows, and how one is made. No I/O.

A token is signed by one of the operator's keys (`token_keys`); its header chooses among them, never how one is used
(RFC 8725, 3.1). What it says:

=================  ===================================================================================================
`sub`              on whose behalf; required
`exp`              until when; required. `nbf`, `iat`: from when. Unix seconds, with `LEEWAY_SECONDS` for clocks
`jti`              names the token in logs
`aud`, `iss`       must be the operator's, where the operator says what they are; a foreign `aud` is always refused
`key`, `prefix`    the one key, or what is below the prefix, that it is for; neither: every key
`methods`          those of HTTP, a list
`max_bytes`        of an upload
`overwrite`        false: it replaces no object
`content_types`    a list, `video/*` among them
`idle`             seconds without a byte after which its client is interrupted
`min_rate`         bytes a second below which it is; 0: none
=================  ===================================================================================================

Others are ignored (RFC 7519, 4). One of ours that is not of its type refuses the token, and so does one whose name only
looks like one of ours: a limit that is not understood must not become none. No message quotes anything of a token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jwt

from streamup.errors import Unauthorized
from streamup.grants import Grant
from streamup.routes import METHODS
from streamup.token_keys import SigningKey, TokenKey

T = TypeVar("T")

LEEWAY_SECONDS = 5.0
"""How far the clocks of who signs and of this server may be apart."""

MOST_TOKEN_BYTES = 6000
"""A longer one is not looked at. As a Basic password it would not fit into a header field of 8,190 bytes."""

SUBJECT = "jwt:"
"""Begins the subjects of tokens, so that none can be that of an API key, or anonymous."""

_MOST_NAME = 255
"""Characters of `sub` and `jti`: they go into logs and the checkpoint."""

_MOST_COUNT = 2**63 - 1
"""SQLite's largest integer: what a token allows is kept with its upload."""

_END_OF_TIME = 253_402_300_800
"""The year 10000. What comes later are milliseconds that somebody took for seconds."""


# --- from a token to a grant


@dataclass(frozen=True, slots=True)
class Verifier:
    """The keys that tokens may be signed with, and whom they must be for and from."""

    keys: tuple[TokenKey, ...] = ()
    audience: str | None = None
    issuer: str | None = None

    def grant(self, token: str, now: float) -> Grant:
        """What the token allows. Raises `Unauthorized`, with what is wrong with it."""
        key, claims = self.verify(token)
        require_time(claims, now)
        return grant_of(claims, key.id)

    def verify(self, token: str) -> tuple[TokenKey, Mapping[str, Any]]:
        """Who has signed it, and what it says, whether or not it holds now. Raises `Unauthorized`."""
        for key in self._chosen(token):
            if (claims := self._signed(token, key)) is not None:
                return key, claims
        raise Unauthorized("The token is not signed with a key that this server has.")

    def signer(self, token: str) -> TokenKey | None:
        """Who has signed it, for whomever it is and whatever it says; None if it is none of the keys."""
        with suppress(Unauthorized):
            for key in self._chosen(token):
                with suppress(jwt.PyJWTError):
                    jwt.PyJWS().decode(token, key.material, algorithms=[key.algorithm])
                    return key
        return None

    def _chosen(self, token: str) -> list[TokenKey]:
        """The keys that may have signed it, by its header. Raises `Unauthorized` if there is none."""
        header = _parsed(token, jwt.get_unverified_header)
        fitting = [key for key in self.keys if key.algorithm == header.get("alg")]
        if not fitting:
            raise Unauthorized(
                "The token is not signed with a key that this server has: it has no key for its algorithm (`alg`)."
            )
        chosen = [key for key in fitting if key.name is None or header.get("kid", key.name) == key.name]
        if not chosen:
            raise Unauthorized(
                "The token is not signed with a key that this server has: it has no key of that name (`kid`)."
            )
        return chosen

    def _signed(self, token: str, key: TokenKey) -> Mapping[str, Any] | None:
        """What the token says, if this key has signed it. Its other claims are looked at later, times by our clock."""
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                options={f"verify_{name}": False for name in ("exp", "nbf", "iat", "sub", "jti")},  # type: ignore[arg-type]
            )
        except jwt.InvalidSignatureError:
            return None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError):
            raise Unauthorized("The token is for another audience or from another issuer than this server's.") from None
        except jwt.PyJWTError:
            raise Unauthorized("The token's claims are not those of a JWT.") from None


def read(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims of a token, whoever has signed it, if anybody. Raises `Unauthorized`."""
    found = _parsed(token, partial(jwt.decode_complete, options={"verify_signature": False}))
    return found["header"], found["payload"]


def _parsed(token: str, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    if len(token) > MOST_TOKEN_BYTES:
        raise Unauthorized(f"The token is longer than {MOST_TOKEN_BYTES} bytes.")
    try:
        return parse(token)
    except (jwt.PyJWTError, UnicodeEncodeError):
        raise Unauthorized("The token is not a JWT, which is three parts of base64url with dots between.") from None


def require_time(claims: Mapping[str, Any], now: float) -> None:
    """Raises `Unauthorized` unless the claims hold now."""
    if now >= _time(claims, "exp") + LEEWAY_SECONDS:
        raise Unauthorized("The token has expired. Get a new one.")
    if any(now < _time(claims, name) - LEEWAY_SECONDS for name in ("nbf", "iat") if name in claims):
        raise Unauthorized("The token is not valid yet. If it should be: are the clocks right?")


def grant_of(claims: Mapping[str, Any], key_id: str) -> Grant:
    """What is allowed by these claims, which that key has signed. Raises `Unauthorized` if they are not good ones."""
    _require_names(claims)
    terms = {to: _value(claims, name, of) for name, (to, of) in _OURS.items() if name in claims}
    subject = _value(claims, "sub", _name)
    credential = f"{key_id}/{_value(claims, 'jti', _name)}" if "jti" in claims else key_id
    try:
        return Grant(subject=SUBJECT + subject, credential=credential, expires=_time(claims, "exp"), **terms)
    except ValueError as error:
        raise Unauthorized(f"The token is not valid: {error}") from None


def _require_names(claims: Iterable[str]) -> None:
    for name in claims:
        meant = _ALIKE.get(_letters(name), name)
        if meant != name:
            raise Unauthorized(f"The token has a claim that looks like `{meant}`, but is written otherwise.")


def _letters(name: str) -> str:
    """What is left of `maxBytes`, `max-bytes` and `max_byte`."""
    return re.sub(r"[^a-z]|e?s?$", "", name.lower())


def _value(claims: Mapping[str, Any], name: str, of: Callable[[Any], T]) -> T:
    try:
        return of(claims.get(name))
    except TypeError as error:
        raise Unauthorized(f"The token's claim `{name}` is not {error}.") from None


def _time(claims: Mapping[str, Any], name: str) -> float:
    return _value(claims, name, _unix_seconds)


# What a claim means. Each raises `TypeError`, with what it should have been.


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _name(value: Any) -> str:
    if not (isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MOST_NAME):
        raise TypeError(f"text of 1 to {_MOST_NAME} printable characters")
    return value


def _unix_seconds(value: Any) -> float:
    return _number(value, 0, _END_OF_TIME, "a time in unix seconds (they are no milliseconds)")


def _seconds(value: Any) -> float:
    return _number(value, 1, _END_OF_TIME, "a number of seconds, 1 at least")


def _rate(value: Any) -> float:
    return _number(value, 0, _MOST_COUNT, "a number of bytes a second, or 0")


def _number(value: Any, least: int, below: int, words: str) -> float:
    if type(value) not in (int, float) or not least <= value < below:  # JSON's true is an int, too
        raise TypeError(words)
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise TypeError("a whole number of bytes")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _methods(value: Any) -> frozenset[str]:
    return frozenset(_words(value, "|".join(METHODS), f"a list of {', '.join(METHODS)}"))


def _media_types(value: Any) -> tuple[str, ...]:
    return _words(value, r"[\w!#$&^.+-]+/([\w!#$&^.+-]+|\*)", "a list of media types such as video/mp4 or video/*")


def _words(value: Any, pattern: str, words: str) -> tuple[str, ...]:
    good = isinstance(value, list) and all(isinstance(w, str) and re.fullmatch(pattern, w, re.ASCII) for w in value)
    if not good or not value:
        raise TypeError(words)
    return tuple(value)


_OURS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "key": ("key", _text),
    "prefix": ("prefix", _text),
    "methods": ("methods", _methods),
    "max_bytes": ("max_bytes", _count),
    "overwrite": ("overwrite", _switch),
    "content_types": ("content_types", _media_types),
    "idle": ("idle_seconds", _seconds),
    "min_rate": ("min_rate", _rate),
}
"""Claim → field of `Grant`, and what it means."""

_ALIKE = {_letters(name): name for name in _OURS}


# --- from a grant's terms to a token


def mint(claims: Mapping[str, Any], key: SigningKey, name: str | None = None) -> str:
    """A token that says so; `name` is the key's `kid`. Raises `Unauthorized` if no server would take it."""
    grant_of(claims, "")
    token = jwt.encode(dict(claims), key.material, key.algorithm, headers={"kid": name} if name else None)
    read(token)
    return token
