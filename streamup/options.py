"""Options as click takes them: a flag goes before the environment, that before the TOML file, that before the default.

What options there are, how each is written and what it means is the table in `config`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from streamup.config import Option
from streamup.config_file import read_secret, read_toml
from streamup.errors import ConfigError
from streamup.values import parse_token, parse_url


class Written(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A value as `values` parses it, wherever it was written."""

    def __init__(self, parse: Callable[[str], Any], metavar: str = "TEXT") -> None:
        self.name = metavar
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(str(value))
        except ConfigError as error:
            self.fail(f"{_whence(param, ctx)}{error}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Several values in one variable stand apart by commas or white space."""
        return rv.replace(",", " ").split()


def _whence(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Where a wrong value is to be mended, if not on the command line."""
    source = ctx.get_parameter_source(param.name) if param and param.name and ctx else None
    if param and source is ParameterSource.ENVIRONMENT:
        file_variable = f"{param.envvar}_FILE"
        if isinstance(param, SecretOption) and (path := os.environ.get(file_variable)):
            return f"(from {path}, which {file_variable} names) "
        return f"(from {param.envvar} in the environment) "
    return "(from the --config file) " if source is ParameterSource.DEFAULT_MAP else ""


class SecretOption(click.Option):
    """An option that is found in a file, too, whose path is in `STREAMUP_…_FILE`: an environment is easily shown."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        file_variable = f"{self.envvar}_FILE"
        path = os.environ.get(file_variable)
        value = super().resolve_envvar_value(ctx)
        if not path:
            return value
        if value:
            raise click.UsageError(f"Both {self.envvar} and {file_variable} are set. Keep one of them.", ctx)
        try:
            return read_secret(Path(path), file_variable)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from error


class TokenFile:
    """The token in a file, as it is there now: what a command does may last longer than one token.

    The last one, while there is none: the file is being written.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token

    def __call__(self) -> str:
        with suppress(ConfigError):
            self._token = parse_token(read_secret(self._path, "the token"))
        return self._token


def renewable(ctx: click.Context, token: str | None) -> str | TokenFile | None:
    """The `--token` of a command, to be asked for again if it is in a file."""
    in_environment = ctx.get_parameter_source("token") is ParameterSource.ENVIRONMENT
    path = os.environ.get("STREAMUP_TOKEN_FILE")
    return TokenFile(Path(path), token) if token and path and in_environment else token


def require_known_files(environ: Mapping[str, str], options: Collection[Option]) -> None:
    """A variable that names a file for what is no secret, or for nothing, would be overlooked, and somebody would think
    that there is a key. Raises `click.UsageError`.

    Other variables may well be somebody else's: an orchestrator sets STREAMUP_PORT for a service of that name.
    """
    known = {f"{option.variable}_FILE" for option in options if option.secret} | {"STREAMUP_TOKEN_FILE"}
    for name in environ:
        if re.fullmatch("STREAMUP_.+_FILE", name) and name not in known:
            close = get_close_matches(name, [*known, *(option.variable for option in options)], n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"There is no variable {name}.{hint}")


def parameter(field: str, option: Option, *, hidden: bool = False) -> click.Option:
    """One row of the table in `config.py` as click wants it."""
    kind = SecretOption if option.secret else click.Option
    flag = f"--{option.name}/--no-{option.name}" if option.negatable else f"--{option.name}"
    if option.parse is None:
        return kind(
            [flag, field], is_flag=True, default=option.default, envvar=option.variable, help=option.help, hidden=hidden
        )
    return kind(
        [flag, field],
        type=Written(option.parse, option.metavar),
        metavar=option.metavar,
        multiple=option.multiple,
        default=option.default,
        show_default=option.default is not None,
        envvar=option.variable,
        help=option.help,
        hidden=hidden,
    )


def _read_config_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Any:
    """Eager, so that what the file says is there as defaults when the other options are looked at. Its value is what
    only the file can say: the options of prefixes.
    """
    if path is None:
        return {}
    try:
        values = read_toml(path)
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from error
    prefixes = values.pop("prefixes", {})
    ctx.default_map = values
    return prefixes


CONFIG_FILE = click.Option(
    ["--config", "prefixes"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="STREAMUP_CONFIG",
    is_eager=True,
    callback=_read_config_file,
    help='Options by their names, as TOML: part-size = "16MiB". What goes with objects may differ by prefix: '
    '[prefix."recordings/"]',
)


# --- how commands reach a running server

DEFAULT_SERVER = "http://127.0.0.1:8080"

token_option = click.option(
    "--token",
    cls=SecretOption,
    type=Written(parse_token, "TOKEN"),
    envvar="STREAMUP_TOKEN",
    help="Credential. A command line is visible to other users: better STREAMUP_TOKEN or STREAMUP_TOKEN_FILE.",
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--server` and `--token`."""
    server = click.option(
        "--server",
        type=Written(parse_url, "URL"),
        metavar="URL",
        default=DEFAULT_SERVER,
        show_default=True,
        envvar="STREAMUP_SERVER",
        help="The streamup server.",
    )
    return server(token_option(command))
