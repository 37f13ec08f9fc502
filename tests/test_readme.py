"""What the README names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", README))))
def test_a_test_that_it_names_is_one(name):
    assert re.search(rf"^(async )?def {name}\(", TESTS, re.MULTILINE)


def test_a_line_is_not_too_long_to_read_it_in_a_terminal():
    prose = re.sub(r"^```.*?^```$|^\|.*$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(?:python )?((?:tests|bench|streamup)/[\w./]*)", README))))
def test_a_file_that_it_names_is_there(path):
    assert (ROOT / path).exists()
