"""Packages of npm for tests, installed once into a directory of their own below the system's temporary one.

Use: `pytest_plugins = ["npm"]` in a test module, then the fixture `tus_js` or `axe`.
(PYTEST_DONT_REWRITE: it is imported too.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from process import run

TUS_JS = "tus-js-client@4.3.1"
AXE = "axe-core@4.14.1"
NODE = shutil.which("node") or ""
INSTALLED_WITHIN = 120


@pytest.fixture(scope="session")
def tus_js() -> Path:
    """A directory with tus-js-client in its `node_modules`."""
    return _installed(TUS_JS)


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, which finds what keeps people from using a page: a script that brings `axe` into one."""
    return (_installed(AXE) / "node_modules/axe-core/axe.min.js").read_text()


def _installed(package: str) -> Path:
    npm = shutil.which("npm")
    if not NODE or not npm:
        pytest.skip("node or npm is missing: apt install nodejs npm")
    # Other users cannot write there, and what they have prepared under that name is not used.
    ours = Path(tempfile.gettempdir()) / f"streamup-tests-{os.getuid()}"
    ours.mkdir(mode=0o700, exist_ok=True)
    assert ours.stat().st_uid == os.getuid(), f"{ours} belongs to somebody else"
    directory = ours / package
    with (ours / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the processes of a parallel run installs it, the others wait
        if not directory.exists():
            _install(npm, package, directory)
    return directory


def _install(npm: str, package: str, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        unfinished = Path(name) / "unfinished"
        unfinished.mkdir()
        (unfinished / "package.json").write_text('{"private": true}')
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        patient = ("--fetch-timeout=20000", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
        installed = run(npm, "install", *quiet, *patient, "--prefix", unfinished, package, seconds=INSTALLED_WITHIN)
        if installed.code:
            pytest.skip(f"npm cannot install {package} (is its registry reachable?): {installed.err[:500]}")
        unfinished.rename(directory)
