"""Log records as lines on stderr, for people or for machines: nothing that a client has sent can forge one.

A record may have fields: `log.info("…", extra={"fields": {…}})`, in JSON beside the message, in text behind it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from streamup.client.table import printable


class TextLines(logging.Formatter):
    """A line for each record. A traceback's lines are indented, so that no message can forge a record."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname.lower():8} {record.name}: {printable(record.getMessage())}"
        line = " ".join([line, *(f"{name}={_word(value)}" for name, value in _fields(record).items())])
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            line = "\n    ".join([line, *map(printable, traceback)])
        return line


class JsonLines(logging.Formatter):
    """A JSON object for each record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _word(value: object) -> str:
    """A value that cannot be taken for another field: in quotes unless it is a plain word."""
    text = str(value)
    return text if re.fullmatch(r"[\w./:@+-]+", text, re.ASCII) else json.dumps(text)


def start(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Faults of ours we log ourselves, and what clients do wrong is for them to know: anybody could fill the disk.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # It logs each search for credentials, and a traceback for each that fails. What came of it we say.
    logging.getLogger("aiobotocore.credentials").setLevel(logging.CRITICAL)
