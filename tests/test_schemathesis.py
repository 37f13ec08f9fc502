"""schemathesis asks a running server whatever `/openapi.json` makes it think of, and finds nothing unexplained.

It runs as a program: its plugin for pytest does not bear warnings that are errors. What it checks is in
schemathesis.toml, beside the reasons.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from process import run

pytest_plugins = ["weed", "process"]
pytestmark = pytest.mark.campaign

HERE = Path(__file__).parent
API_KEY = "0123456789abcdef"
ENDS_WITHIN = 180
"""A quiet machine needs 25 s."""

EXAMPLES = 6
"""Of the random ones, for each operation and way; beside those that cover each field's limits one by one."""


def test_schemathesis_finds_nothing_unexplained(serve, run_schemathesis):
    # Python's http.client takes an interim response that it does not know for the answer.
    server = serve(f"--api-key={API_KEY}", "--downloads", "--deletes", "--no-interim").start()
    ran, seen = run_schemathesis(server, "-H", f"Authorization: Bearer {API_KEY}")
    assert ran.code == 0, ran.text[-20_000:]
    successes = {line for line in seen if int(line.split()[-1]) < 400}
    assert sum(seen.values()) > 1000
    assert {
        "PUT /objects/{key} 201",
        "GET /objects/{key} 307",
        "POST /uploads 201",
        "HEAD /objects/{key} 200",
    } <= successes
    assert len(successes) >= 15


def test_it_would_find_a_server_that_lets_everybody_in(serve, run_schemathesis):
    """... so that the other test can fail."""
    ran, _ = run_schemathesis(serve().start(), "--phases=coverage", "--include-operation-id=listUploads")
    assert ran.code == 1
    assert "ST401" in ran.text, ran.text


@pytest.fixture
def run_schemathesis(tmp_path):
    """`run_schemathesis(server, *words)`: how it ended, and which answers it got how often."""

    def run_it(server, *words):
        seen = tmp_path / "seen"
        program = Path(sys.executable).with_name("schemathesis")
        environ = {"PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "ANSWERS_SEEN": str(seen)}
        ran = run(
            *(program, f"--config-file={HERE / 'schemathesis.toml'}", "run", f"{server.url}/openapi.json"),
            *(f"--max-examples={EXAMPLES}", "--no-color", *words),
            "--exclude-operation-id-regex=^watch",  # their answers do not end (test_events.py)
            seconds=ENDS_WITHIN,
            environ={**os.environ, **environ},
        )
        return ran, Counter(seen.read_text().splitlines())

    return run_it
