"""What schemathesis has to know of us: media types whose bytes are any bytes, and our own check of every answer."""

import os
from pathlib import Path

import documented
import schemathesis
from raw_client import Answer

SEEN = Path(os.environ["ANSWERS_SEEN"])
"""A line for each answer, so that the test knows what was reached."""

schemathesis.serializer.alias(
    ["application/partial-upload", "application/offset+octet-stream", "video/mp4"], "application/octet-stream"
)


@schemathesis.check
def documented_answer(_context, response, case) -> None:
    """As for the suite's own requests (documented.py): status, fields, media type and a closed schema."""
    headers = {name.lower(): ", ".join(values) for name, values in response.headers.items()}
    with SEEN.open("a") as seen:
        seen.write(f"{case.method} {case.path} {response.status_code}\n")
    documented.check(case.method.upper(), case.formatted_path, Answer(response.status_code, headers, response.content))
