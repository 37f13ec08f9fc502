"""No secret needs to be on a command line, or in an environment: each can be in a file."""

import re

import click
import pytest

from streamup import cli
from streamup.config import OPTIONS
from streamup.options import SecretOption

SECRETS = {
    ("serve", "api-key"): "0123456789abcdef",
    ("serve", "jwt-secret"): "0123456789abcdef0123456789abcdef",
    ("serve", "sse-c-key"): "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    ("get", "sse-c-key"): "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    ("get", "token"): "a-token",
    ("ls", "token"): "a-token",
}
"""A good value of each secret of a command. A new one has to be added here."""

NO_SECRETS = {"sse-kms-key-id", "sse-bucket-key", "key-template", "tls-key", "jwt-keys"}
"""Names, switches, and what is a file anyway."""


def options(command: str) -> dict[str, click.Option]:
    found = cli.main.commands[command].params
    return {param.opts[0].removeprefix("--"): param for param in found if isinstance(param, click.Option)}


@pytest.mark.parametrize("command", ["serve", "get", "ls"])
def test_what_sounds_like_a_secret_is_one(command):
    sounds = {name for name in options(command) if re.search("key|token|secret|password", name)} - NO_SECRETS
    assert sounds == {name for of, name in SECRETS if of == command}
    assert sounds >= {option.name for option in OPTIONS.values() if option.secret and command == "serve"}


@pytest.mark.parametrize(("command", "name"), SECRETS, ids=":".join)
def test_it_can_be_in_a_file_and_its_help_says_so(command, name, tmp_path, monkeypatch):
    option, value = options(command)[name], SECRETS[command, name]
    assert isinstance(option, SecretOption)
    assert f"{option.envvar}_FILE" in option.help
    (tmp_path / "secret").write_text(f"{value}\n")
    monkeypatch.setenv(f"{option.envvar}_FILE", str(tmp_path / "secret"))
    with click.Context(cli.main.commands[command]) as context:
        assert option.value_from_envvar(context) in (value, [value], (value,))
