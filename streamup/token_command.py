"""`streamup token`: makes tokens, and tells what is in one. No secret is printed, and no token but a new one.

What is read and decided here, is read and decided as by the server: by `tokens` and `grants`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamup.client.table import human_size, printable
from streamup.config import OPTIONS, Config
from streamup.errors import ConfigError, Unauthorized, UploadError
from streamup.exits import Failure, Interruption, Refusal
from streamup.grants import Grant, decide
from streamup.keys import validate_key
from streamup.options import Written, parameter
from streamup.protocols import Append, BodyTerms, Cancel, Create, Description, Fetch, Intent, Look, fields
from streamup.routes import METHODS
from streamup.values import parse_duration, parse_size

if TYPE_CHECKING:
    from streamup.token_keys import SigningKey
    from streamup.tokens import Verifier

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def token() -> None:
    """Make tokens for clients, and look into them.

    The secret and the keys are those of `streamup serve`, by the same options and variables.
    """


def _server_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        options = [parameter(name, OPTIONS[name]) for name in names]
        for name, option in zip(names, options, strict=True):
            option.help = _HELP[name]
        known = getattr(command, "__click_params__", [])
        command.__click_params__ = [*known, *options]  # type: ignore[attr-defined]  # as click's decorators do it
        return command

    return add


_HELP = {
    "jwt_secret": "The secret of HS256. A command line is visible to other users: better STREAMUP_JWT_SECRET_FILE.",
    "jwt_keys": "Public keys, Ed25519 or RSA, in PEM or a JWKS.",
    "jwt_audience": "The audience (`aud`).",
    "jwt_issuer": "The issuer (`iss`).",
}
"""Options of `serve` that have another side here."""


# --- mint


@token.command()
@click.option("--sub", metavar="NAME", required=True, help="On whose behalf: uploads belong to this name.")
@click.option("--key", metavar="KEY", help="For this key only. Without --key and --prefix: for every key.")
@click.option("--prefix", metavar="PREFIX", help="For keys below this prefix.")
@click.option(
    "--for",
    "lifetime",
    type=Written(parse_duration, "TIME"),
    metavar="TIME",
    default="1h",
    show_default=True,
    help="Until when requests may begin.",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(METHODS, case_sensitive=False),
    metavar="METHOD",
    multiple=True,
    help="Only this one, such as PUT. Repeatable.",
)
@click.option("--max-bytes", type=Written(parse_size, "SIZE"), metavar="SIZE", help="The largest upload.")
@click.option("--no-overwrite", is_flag=True, help="It replaces and removes no object.")
@click.option("--content-type", "content_types", metavar="TYPE", multiple=True, help="video/mp4, video/*. Repeatable.")
@click.option("--idle", type=Written(parse_duration, "TIME"), metavar="TIME", help="In place of the server's --idle.")
@click.option(
    "--min-rate", type=Written(parse_size, "SIZE"), metavar="SIZE", help="In place of the server's, a second; 0: none."
)
@click.option("--jti", metavar="NAME", help="Names the token in logs.")
@click.option("--private-key", type=_FILE, metavar="FILE", help="Sign with this Ed25519 or RSA key (PEM).")
@click.option("--kid", metavar="NAME", help="The key's name in the server's JWKS.")
@_server_options("jwt_secret", "jwt_audience", "jwt_issuer")
def mint(*, lifetime: float, no_overwrite: bool, private_key: Path | None, kid: str | None, **values: Any) -> None:
    """Print a new token: TOKEN=$(streamup token mint --sub alice --key video.mp4).

    It is signed with the secret, or with --private-key.
    """
    from streamup import tokens  # noqa: PLC0415 - as `cli` says

    if lifetime < 1:
        raise click.UsageError("--for is less than a second: the token would have ended before it is used.")
    key = _signing_key(private_key, values.pop("jwt_secret"))
    renamed = {"jwt_audience": "aud", "jwt_issuer": "iss"}
    said = {renamed.get(name, name): value for name, value in values.items() if value not in (None, ())}
    now = int(time.time())
    claims = {**said, "iat": now, "exp": now + int(lifetime)} | ({"overwrite": False} if no_overwrite else {})
    try:
        click.echo(tokens.mint(_as_json(claims), key, kid))
    except Unauthorized as error:
        raise click.UsageError(_with_options(error.detail)) from error


def _with_options(detail: str) -> str:
    """With the names of options in place of those of claims."""
    for option in mint.params:
        detail = detail.replace(f"The token's claim `{option.name}`", option.opts[0])
    return detail


def _signing_key(file: Path | None, secret: bytes | None) -> SigningKey:
    from streamup import token_keys  # noqa: PLC0415 - as `cli` says

    if file is not None:
        try:
            return token_keys.private_key(file.read_bytes())
        except (OSError, ConfigError) as error:
            raise click.UsageError(f"--private-key {file}: {error}") from error
    if secret is None:
        raise click.UsageError("What is it signed with? Set STREAMUP_JWT_SECRET_FILE, or --private-key FILE.")
    return token_keys.SigningKey("HS256", secret)


def _as_json(claims: Mapping[str, Any]) -> dict[str, Any]:
    """As the token will say it."""
    return dict(json.loads(json.dumps(claims)))


# --- inspect and explain


@dataclass(frozen=True)
class Reading:
    """A token that was looked at. `signature` tells what is known of that; `problem`, why a server would refuse it."""

    claims: Mapping[str, Any]
    algorithm: str
    signature: str
    checked: bool
    grant: Grant | None = None
    problem: str | None = None


_verifying = _server_options("jwt_secret", "jwt_keys", "jwt_audience", "jwt_issuer")
_token_argument = click.argument("text", metavar="[TOKEN|FILE|-]", default="-")


@token.command()
@_token_argument
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
@_verifying
def inspect(text: str, *, as_json: bool, **keys: Any) -> None:
    """Tell what is in a token: given as it is, in a file, or on standard input (better than in a history).

    Exit code: 0 a server with this secret or these keys would take it, 1 it would not, 2 wrong usage, 3 that cannot be
    found out, because there is neither and its signature was not checked.
    """
    reading = _read(text, keys)
    if as_json:
        click.echo(json.dumps({"claims": reading.claims, "signature": reading.signature, "problem": reading.problem}))
    else:
        click.echo("\n".join(f"{name:14}{printable(words)}" for name, words in _rows(reading)))
    if reading.problem:
        raise Failure(reading.problem)
    _require_checked(reading)


@token.command()
@click.argument("text", metavar="TOKEN|FILE|-")
@click.argument("method", type=click.Choice([name for name in METHODS if name != "OPTIONS"], case_sensitive=False))
@click.argument("key")
@click.option("--size", type=Written(parse_size, "SIZE"), metavar="SIZE", help="Of the body.")
@click.option("--content-type", metavar="TYPE", help="Of the body.")
@_verifying
def explain(text: str, method: str, key: str, *, size: int | None, content_type: str | None, **keys: Any) -> None:
    """Would this token allow METHOD on KEY? Says yes or no, and why.

    By the server's own rules, with --deletes. Exit code: 0 yes, 1 no, 2 wrong usage, 3 that cannot be found out,
    because there is neither secret nor keys and its signature was not checked.
    """
    if key.startswith("/") or "://" in key:
        raise click.UsageError("KEY is that of an object, without an address or a leading slash: movies/a.mp4.")
    reading = _read(text, keys)
    try:
        if reading.grant is None or reading.problem:
            raise Failure(f"no: {reading.problem}")
        decide(reading.grant, method, _intent(method, validate_key(key, ""), size, content_type), None, deletes=True)
    except UploadError as refusal:
        raise Failure(f"no: {refusal.detail}") from refusal
    conditions = [] if reading.checked else ["if its signature is right"]
    if method in ("PUT", "POST") and not reading.grant.overwrite:
        conditions.append("if there is no object of that key: it replaces none")
    click.echo(", ".join(["yes", *conditions]))
    _require_checked(reading)


def _require_checked(reading: Reading) -> None:
    """Who asks only for the exit code must not believe what anybody can have written. Raises `Interruption`."""
    if not reading.checked:
        raise Interruption("The signature was not checked. Set STREAMUP_JWT_SECRET_FILE, or give --jwt-keys FILE.")


def _intent(method: str, key: str, size: int | None, content_type: str | None) -> Intent:
    body = BodyTerms(content_length=size, seals=True)
    match method:
        case "GET":
            return Fetch(key=key)
        case "HEAD":
            return Look(key=key)
        case "DELETE":
            return Cancel(key=key)
        case "PATCH":
            return Append(key=key, offset=0, body=body)
    described = fields.described_type("--content-type", content_type)
    return Create(key=key, body=body, description=Description(content_type=described))


def _token_text(text: str) -> str:
    try:
        is_file = os.path.isfile(text)  # noqa: PTH113 - a Path of a whole token is an error
        found = sys.stdin.read() if text == "-" else Path(text).read_text(encoding="utf-8") if is_file else text
    except (OSError, ValueError) as error:
        raise Refusal("The token cannot be read: it is in a file that is not text, or not for you.") from error
    if not found.strip():
        raise Refusal("Nothing came. Give a token, a file with one, or one on standard input.")
    return found.strip()


def _read(given: str, keys: Mapping[str, Any]) -> Reading:
    """Raises `Failure` if it is no token at all."""
    from streamup import tokens  # noqa: PLC0415 - as `cli` says

    text, verifier = _token_text(given), _verifier(keys)
    try:
        header, claims = tokens.read(text)
    except Unauthorized as error:
        no_file = " And there is no such file." if text == given.strip() else ""
        raise Failure(f"{error.detail}{no_file}") from error
    algorithm, checked = str(header.get("alg")), bool(verifier.keys)
    signature, key_id, grant = "not checked", "", None
    try:
        if checked:
            signer = verifier.signer(text)
            signature = f"good, by {signer.id}" if signer else "by none of the keys"
            key, claims = verifier.verify(text)
            key_id = key.id
        grant = tokens.grant_of(claims, key_id)
        tokens.require_time(claims, time.time())
    except Unauthorized as error:
        return Reading(claims, algorithm, signature, checked, grant, error.detail)
    return Reading(claims, algorithm, signature, checked, grant)


def _verifier(keys: Mapping[str, Any]) -> Verifier:
    from streamup.credentials import Credentials  # noqa: PLC0415 - as `cli` says

    try:
        return Credentials.of(Config(**keys)).verifier
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _rows(reading: Reading) -> list[tuple[str, str]]:
    """What it says, in words; or its claims as they are, if they make no sense."""
    grant, claims = reading.grant, reading.claims
    rows = [("signature", f"{reading.algorithm}, {reading.signature}")]
    if grant is None:
        return [*rows, *((str(name), json.dumps(value)) for name, value in claims.items())]
    times = [("not before", claims.get("nbf")), ("issued", claims.get("iat")), ("expires", claims["exp"])]
    return [
        *rows,
        ("subject", grant.subject),
        ("for", grant.key or (f"{grant.prefix.removesuffix('/')}/..." if grant.prefix else "every key")),
        ("methods", ", ".join(sorted(grant.methods)) if grant.methods else "all"),
        ("upload size", "any" if grant.max_bytes is None else f"up to {human_size(grant.max_bytes)}"),
        ("content types", ", ".join(grant.content_types) if grant.content_types else "all"),
        ("overwrites", "yes" if grant.overwrite else "no"),
        ("idle", "as the server has it" if grant.idle_seconds is None else f"{grant.idle_seconds:g} s"),
        ("least rate", "as the server has it" if grant.min_rate is None else f"{human_size(grant.min_rate)}/s"),
        *((name, datetime.fromtimestamp(when, UTC).isoformat(" ", "seconds")) for name, when in times if when),
        *((name, json.dumps(claims[name])) for name in ("aud", "iss", "jti") if name in claims),
    ]
