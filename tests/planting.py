"""How a mistake is planted in streamup, and taken out again: as a patch of one function's source, in memory.

    Patch("spool:Spool.sync", '''
        -self.files.sync(file.path)
        +pass
    ''')

A patch that does not fit is an error: a mistake that is not there any more would be caught by nobody, and nobody would
know.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
import itertools
import pkgutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any
from unittest.mock import patch

COUNTER = "planted_in_"
"""What a patched function calls when it comes to the mistake: the product has no such names."""


class MisfitError(Exception):
    """The product is another one than that for which the mistake was written."""


@dataclass(frozen=True)
class Patch:
    """Changes of one function (`module:name`, below `streamup`), as a diff shows them; `@@` is between two of them.

    Lines that go or stay (`-` and a space) stand in the function exactly once, one after another. Their indentation
    counts among themselves only.
    """

    function: str
    diff: str

    @contextmanager
    def planted(self, reached: Callable[[], object]) -> Iterator[None]:
        """In here the function is the other one, and calls `reached` whenever it comes to a change."""
        function = _function(self.function)
        code, names = function.__code__, function.__globals__
        if code.co_filename.startswith("<planted"):
            raise MisfitError(f"two mistakes in {self.function}: one of them would be lost")
        counter = COUNTER + code.co_qualname.replace(".", "_")
        function.__code__ = self._patched(code, names, counter)
        names[counter] = reached
        try:
            yield
        finally:
            function.__code__ = code
            del names[counter]

    def _patched(self, code: CodeType, names: Collection[str], counter: str) -> CodeType:
        lines, changed = self._lines(textwrap.dedent(inspect.getsource(code)).splitlines())
        definition = ast.parse("\n".join(lines)).body[0]
        definition.decorator_list = []  # they hold the function whose code is exchanged
        for first, last in changed:
            block, index = _statement(definition, first, last)
            call = ast.parse(f"{counter}()").body[0]
            block.insert(index, ast.copy_location(ast.Expr(call.value), block[index]))
        around = ast.parse(f"def around({', '.join(code.co_freevars)}): ...")  # so that `super()` is what it was
        around.body[0].body = [definition]
        module = compile(
            ast.fix_missing_locations(around),
            f"<planted in {self.function}>",
            "exec",
            flags=__future__.annotations.compiler_flag,
            dont_inherit=True,
        )
        made = _first_code(_first_code(module))
        if unknown := _globals(made) - {*names, *vars(builtins), counter}:
            raise MisfitError(f"{self.function} does not know {', '.join(sorted(unknown))}")
        return made.replace(co_qualname=code.co_qualname, co_freevars=code.co_freevars)

    def _lines(self, source: list[str]) -> tuple[list[str], list[tuple[int, int]]]:
        """The source as it is after all changes, and the first and last line of each (from 1)."""
        lines: list[str] = []
        changed: list[tuple[int, int]] = []
        done = 0
        for start, hunk in sorted((self._find(source, hunk), hunk) for hunk in self._hunks()):
            lines += source[done:start]
            indent = _indent(source[start]) - _indent(hunk[0][1:])
            numbers = []
            for line in hunk:
                if not line.startswith(" "):
                    numbers.append(len(lines) + 1)  # of what is new, or of what follows on what is gone
                if not line.startswith("-"):
                    lines.append(" " * indent + line[1:])
            changed.append((numbers[0], numbers[-1]))
            done = start + sum(not line.startswith("+") for line in hunk)
        lines += source[done:]
        return lines, [(min(first, len(lines)), min(last, len(lines))) for first, last in changed]

    def _hunks(self) -> Iterator[list[str]]:
        lines = [line for line in textwrap.dedent(self.diff).splitlines() if line.strip()]
        for between, hunk in itertools.groupby(lines, lambda line: line == "@@"):
            if not between:
                yield list(hunk)

    def _find(self, source: Sequence[str], hunk: Sequence[str]) -> int:
        """The one place where a hunk fits."""
        former = [line[1:] for line in hunk if not line.startswith("+")]
        wanted = textwrap.dedent("\n".join(former))
        starts = range(len(source) - len(former) + 1)
        places = [at for at in starts if textwrap.dedent("\n".join(source[at : at + len(former)])) == wanted]
        if len(places) != 1:
            raise MisfitError(f"{self.function} has this {len(places)} times:\n{wanted}")
        return places[0]


@dataclass(frozen=True)
class Value:
    """A constant (`module:name`, below `streamup`) is another one."""

    name: str
    value: Any

    @contextmanager
    def planted(self, reached: Callable[[], object]) -> Iterator[None]:
        module, _, name = self.name.partition(":")
        with patch.object(pkgutil.resolve_name(f"streamup.{module}"), name, self.value):
            reached()
            yield


Change = Patch | Value


def _function(name: str) -> FunctionType:
    """What is behind a name, without what decorates it."""
    try:
        found = pkgutil.resolve_name(f"streamup.{name}")
    except (AttributeError, ImportError) as error:
        raise MisfitError(f"there is no {name}") from error
    found = inspect.unwrap(found.fget if isinstance(found, property) else found)
    if not isinstance(found, FunctionType):
        raise MisfitError(f"{name} is no function")
    return found


def _statement(definition: ast.stmt, first: int, last: int) -> tuple[list[ast.stmt], int]:
    """Of the statements that begin in these lines the first, or else the smallest around them: its block, its place."""
    blocks = [
        block
        for node in ast.walk(definition)
        for name in ("body", "orelse", "finalbody")
        if isinstance(block := getattr(node, name, None), list)
    ]
    places = [(statement, block, index) for block in blocks for index, statement in enumerate(block)]
    within = [place for place in places if first <= place[0].lineno <= last]
    around = [place for place in places if place[0].lineno <= first and last <= place[0].end_lineno]
    if within:
        _, block, index = min(within, key=lambda place: (place[0].lineno, place[0].col_offset))
    else:
        _, block, index = min(around, key=lambda place: place[0].end_lineno - place[0].lineno)
    return block, index


def _first_code(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _globals(code: CodeType) -> set[str]:
    """The names that it looks up in its module: an unknown one would be an error, and no mistake to be caught."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    return own.union(*map(_globals, inner))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
