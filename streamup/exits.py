"""How commands end that do not end well: one line on stderr, and the exit code that `cli` tells."""

from __future__ import annotations

from typing import Any

import click

from streamup.client.table import printable


class Failure(click.ClickException):
    """What went wrong, in one line on stderr."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {printable(self.message)}", file=file, err=file is None)


class Refusal(Failure):
    """It was not begun, because something must be said or set first."""

    exit_code = 2


class Interruption(Failure):
    """It did not work now, and nothing is lost by that."""

    exit_code = 3
