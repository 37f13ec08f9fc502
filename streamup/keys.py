"""What a good object key is, and the name of an upload that was created without one.

A key comes from the client's path, or from the operator's template and the client's file name. Either way it passes
`validate_key` before it is used. It is kept as it came: S3's keys are bytes, and who sends one in another Unicode
normalization (a file name on macOS is NFD) finds it again by the same bytes.
"""

from __future__ import annotations

import re

from streamup.errors import BadRequest

MOST_KEY_BYTES = 1024
"""S3's limit for a key, prefix included."""

MOST_NAME_BYTES = 255
"""The limit of file systems for one name. Whoever downloads the object wants to save it."""

UNNAMED = "unnamed"
"""Where no usable file name was sent."""

_MOST_EXTENSION_BYTES = 32
"""What follows the last dot of a long name and is longer, is text rather than an extension."""

_LONGEST_ID = "0" * 32

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
_ENCODED = re.compile(r"%(?=2[ef]|5c)", re.IGNORECASE)
"""A dot, a slash or a backslash that is still percent-encoded: whoever decodes once more finds another path."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def validate_key(key: str, prefix: str) -> str:
    """A key that is safe below `prefix`, or `BadRequest` with the reason."""
    if not key:
        raise BadRequest("The key is empty: PUT /objects/some/name.")
    if _UNSAFE.search(key):
        raise BadRequest("A key is valid UTF-8 without control characters and without backslash.")
    if _ENCODED.search(key):
        raise BadRequest("A key is percent-encoded once: this one still has a %2E, %2F or %5C after that.")
    if len((prefix + key).encode()) > MOST_KEY_BYTES:
        raise BadRequest(
            f"A key has at most {MOST_KEY_BYTES} bytes of UTF-8, the prefix included.", limit=MOST_KEY_BYTES
        )
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise BadRequest("A key has no empty segments, no `.` and no `..`.")
    return key


def check_template(template: str, prefix: str = "") -> None:
    """Raise `ValueError`, with the reason, unless every expansion of `template` is a valid key below `prefix`."""
    names = _PLACEHOLDER.findall(template)
    for name in names:
        if name not in {"id", "filename"}:
            raise ValueError(f"{template!r} has an unknown placeholder {{{name}}}. There are {{id}} and {{filename}}.")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
        raise ValueError(f"{template!r} has a brace without its partner. Braces are for {{id}} and {{filename}} only.")
    if "id" not in names:
        raise ValueError(f"{template!r} lacks {{id}}: two people's video.mp4 would meet under one key.")
    try:
        validate_key(expand(template, upload_id=_LONGEST_ID, filename="x" * MOST_NAME_BYTES), prefix)
    except BadRequest as refusal:
        raise ValueError(
            f"{template!r} makes no valid key of a file name of {MOST_NAME_BYTES} bytes. {refusal.detail}"
        ) from None


def expand(template: str, *, upload_id: str, filename: str | None) -> str:
    """The key of an upload for which the client sent `filename`, whatever that is. `check_template` comes first."""
    values = {"id": upload_id, "filename": _segment(filename or "")}
    return _ENCODED.sub("_", _PLACEHOLDER.sub(lambda found: values[found[1]], template))


def _segment(filename: str) -> str:
    """One safe segment of a key. Browsers on Windows send whole paths, with backslashes."""
    name = _UNSAFE.sub("_", re.split(r"[/\\]", filename)[-1]).strip()
    return UNNAMED if name in {"", ".", ".."} else _shortened(name)


def _shortened(name: str) -> str:
    """At most `MOST_NAME_BYTES`. The extension stays, and no character is split."""
    if len(name.encode()) <= MOST_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    tail = dot + extension
    if len(tail.encode()) > _MOST_EXTENSION_BYTES:
        stem, tail = name, ""
    return stem.encode()[: MOST_NAME_BYTES - len(tail.encode())].decode(errors="ignore") + tail
