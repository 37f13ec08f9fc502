"""Uploads as text for people: aligned columns, sizes with units, nothing that could move a terminal's cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_KIB = 1024

_COLUMNS = ("id", "state", "writer", "received", "stored", "length", "rate", "expires", "key")
_SIZES = frozenset({"received", "offset", "stored", "length", "size"})


def printable(text: str) -> str:
    """`text` with control characters, line ends and lone surrogates escaped: one line, which forges nothing."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def sentence(text: object) -> str:
    """`text` with a full stop, if nothing ends it yet: others' words may follow, and ours may."""
    text = str(text)
    return text if text.endswith((".", "?", "!")) else f"{text}."


def human_size(size: float) -> str:
    """`size` bytes in the largest unit that keeps it above one."""
    if size < _KIB:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - used after the loop
        size /= _KIB
        if size < _KIB:
            break
    return f"{size:.1f} {unit}"


def uploads_table(uploads: Iterable[Mapping[str, Any]]) -> str:
    """One line for each upload, under a line of titles."""
    rows = [[_cell(name, upload.get(name)) for name in _COLUMNS] for upload in uploads]
    return _aligned([[name.upper() for name in _COLUMNS], *rows])


def upload_details(upload: Mapping[str, Any]) -> str:
    """One line for each field of one upload. Parts are counted; `--json` shows them all."""
    fields = {name: value for name, value in upload.items() if value not in (None, "")}
    fields["parts"] = f"{len(upload['parts'])} in the store"
    stored = fields.get("object")
    if stored:
        fields["object"] = _cell("object", stored)
    return _aligned([[name, _exactly(name, value)] for name, value in fields.items()])


def _exactly(name: str, value: object) -> str:
    """As in the table, and sizes to the byte: an offset is what one goes on with."""
    cell = _cell(name, value)
    return f"{cell} ({value} bytes)" if isinstance(value, int) and name in _SIZES else cell


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name in _SIZES:
        return human_size(value)
    if isinstance(value, int | float) and name == "rate":
        return f"{human_size(value)}/s"
    if isinstance(value, Mapping):
        return ", ".join(f"{inner} {_cell(inner, of)}" for inner, of in value.items()) or "-"
    return printable(str(value))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
