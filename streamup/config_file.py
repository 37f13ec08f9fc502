"""Options in a TOML file, and secrets in files of their own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamup.config import OPTIONS, PREFIX, Option
from streamup.errors import BadRequest, ConfigError
from streamup.keys import validate_key

STORE = Option(name="store", help="Where objects go.")
UNSET = "none"
"""Takes back, for a prefix, what holds for the others."""


def read_toml(path: Path) -> dict[str, Any]:
    """The options in a TOML file, by their field in `Config` (`store` for the argument). Not parsed yet, but for
    `prefixes`, which nothing else can say.
    """
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    tables = written.pop(PREFIX, None)
    known = {option.name: (name, option) for name, option in OPTIONS.items()} | {"store": ("store", STORE)}
    values = _named(f"{path}: ", written, known, "`streamup serve --help` lists the options, without the --.")
    return values if tables is None else values | {"prefixes": _read_prefixes(path, tables)}


def _named(
    where: str, written: Mapping[str, Any], known: Mapping[str, tuple[str, Option]], options: str
) -> dict[str, Any]:
    """What is written, by field: one value, or a list of them. A secret may be in a file of its own (`NAME-file`)."""
    named = {}
    for key, value in _with_secrets(where, written, known).items():
        if key not in known:
            close = get_close_matches(key, [*known, PREFIX], n=1)
            raise ConfigError(f"{where}there is no option {key!r}. {f'Did you mean {close[0]}?' if close else options}")
        name, option = known[key]
        several = _pairs(where, key, value) if option.pairs and isinstance(value, dict) else value
        if isinstance(several, dict) or (isinstance(several, list) and not option.multiple):
            raise ConfigError(f'{where}{key} takes one value, for example {key} = "…".')
        named[name] = [several] if option.multiple and not isinstance(several, list) else several
    return named


def _with_secrets(where: str, written: Mapping[str, Any], known: Mapping[str, tuple[str, Option]]) -> Mapping[str, Any]:
    found = dict(written)
    for name, (_, option) in known.items():
        if option.secret and (path := found.pop(f"{name}-file", None)) is not None:
            if name in written:
                raise ConfigError(f"{where}has both {name} and {name}-file. Keep one of them.")
            secret = read_secret(Path(str(path)), f"{where}{name}-file")
            found[name] = secret.split() if option.multiple else secret
    return found


def _pairs(where: str, key: str, table: Mapping[str, Any]) -> list[str]:
    """A table as on the command line."""
    for name, value in table.items():
        if "=" in name or not isinstance(value, str):
            raise ConfigError(f'{where}{key} is written as {{ team = "video" }}: text, and no = in the names.')
    return [f"{name}={value}" for name, value in table.items()]


def _read_prefixes(path: Path, tables: Any) -> dict[str, dict[str, Any]]:
    """The tables `[prefix."…"]`, by prefix (which ends in `/`) and field."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f'{path}: options of keys below a prefix are a table, [{PREFIX}."recordings/"].')
    found: dict[str, dict[str, Any]] = {}
    for written, table in tables.items():
        where = f'{path}: [{PREFIX}."{written}"] '
        try:
            prefix = validate_key(written.removesuffix("/"), "") + "/"
        except BadRequest as refusal:
            raise ConfigError(f"{where}is no prefix of keys. {refusal.detail}") from refusal
        if prefix in found:
            raise ConfigError(f"{where}is there twice, with and without a / at its end.")
        found[prefix] = _read_prefix(where, table)
    return found


def _read_prefix(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    known = {option.name: (name, option) for name, option in OPTIONS.items() if option.per_prefix}
    named = _named(where, table, known, f"There are {', '.join(known)}.")
    return {name: _parsed(where, OPTIONS[name], value) for name, value in named.items()}


def _parsed(where: str, option: Option, value: Any) -> Any:
    """A value that is not on the command line; `none` takes back what holds for the others."""
    if value in (UNSET, [UNSET]):
        return () if option.multiple else None
    try:
        if option.parse is None:
            return _parse_switch(value)
        return tuple(map(option.parse, map(str, value))) if option.multiple else option.parse(str(value))
    except ConfigError as error:
        raise ConfigError(f"{where}{option.name}: {error}") from error


def _parse_switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError("It takes true or false, without quotes.")
    return value


def read_secret(path: Path, where: str) -> str:
    """A secret that is in a file of its own."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error}") from error
    if not secret:  # who names a file for a key does not want to run without one
        raise ConfigError(f"{where}: {path} is empty. Write the secret into it, or take this out.")
    return secret
