"""What the image is built from: the lock, the Dockerfile, and the compose file that the README shows.

No test runs a container engine: what can go out of date is compared.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

ENTRY = re.compile(r"^([a-z0-9.-]+)==(\S+)(?: ;[^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
LOCKED = ENTRY.findall(LOCK)
VERSIONS = {name: version for name, version, _ in LOCKED}

IN_THE_IMAGE = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(text for extra in ("fast", "local") for text in PROJECT["project"]["optional-dependencies"][extra]),
]


@pytest.mark.parametrize("text", IN_THE_IMAGE)
def test_the_lock_has_what_the_project_asks_for(text):
    """Else: run the command in the lock's first lines."""
    wanted = Requirement(text)
    assert wanted.specifier.contains(VERSIONS[canonicalize_name(wanted.name)])


def test_everything_in_the_lock_has_a_hash_and_nothing_says_where_from():
    lines = [line for line in LOCK.splitlines() if line.strip() and not line.startswith("#")]
    assert sum(1 + entry[2].count("--hash=") for entry in LOCKED) == len(lines)
    assert not re.search(r"://|--index|--extra-index|--find-links|^-|@ ", LOCK, re.MULTILINE)


def test_what_the_image_copies_is_let_into_the_build():
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert "requirements.lock" in names
    assert ignored[0] != "*" or all(f"!{name}" in ignored for name in names)
    assert all((ROOT / name).exists() for name in names)


def test_the_image_takes_nothing_from_an_index_but_by_its_hash():
    commands = re.findall(r"pip (?:download|install|wheel)(?:[^&\n]|\\\n)*", DOCKERFILE.replace("\\\n", ""))
    assert len(commands) == 4
    assert all("--no-index" in command or "--require-hashes" in command for command in commands)
