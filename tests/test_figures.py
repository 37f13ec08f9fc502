"""A campaign's figures, as a line and as a file."""

import json
import subprocess
import sys

import figures
import pytest
from campaigns import Size
from figures import Figures
from invariants import Broken, Invariant


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Figures, "seconds", 0.0)
    found = Figures("power cuts", Size.CI, seed=7)
    found.count("images", 1200)
    found.count("GiB", 0.5)
    found.count("GiB", 0.75)
    found.count("stops", 0)
    return found


def test_the_line_can_be_read(counted):
    assert str(counted) == "power cuts: 1,200 images, 1.25 GiB, 0 stops; ci, 0 s, seed 7"


def test_the_file_says_on_which_machine_it_was(counted, tmp_path):
    saved = json.loads(counted.save(tmp_path / "new").read_text())
    assert (saved["counts"]["images"], saved["size"], saved["line"]) == (1200, "ci", str(counted))
    assert saved["machine"].keys() == {"cores", "processor", "system", "python"}


def test_a_table_is_in_the_file_and_not_in_the_line(counted, tmp_path):
    assert "table" not in json.loads(counted.save(tmp_path).read_text())
    line = str(counted)
    counted.table.append({"bug": "no_fdatasync", "attempts": 6})
    assert str(counted) == line
    assert json.loads(counted.save(tmp_path).read_text())["table"] == [{"bug": "no_fdatasync", "attempts": 6}]


def test_files_are_saved_where_one_has_asked_for_them_and_printed(counted, tmp_path, monkeypatch):
    monkeypatch.delenv("FIGURES", raising=False)
    counted.save_if_wanted()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("FIGURES", str(tmp_path))
    counted.save_if_wanted()
    printed = subprocess.run([sys.executable, figures.__file__, tmp_path], capture_output=True, text=True, check=True)
    assert printed.stdout == f"{counted}\n"


def test_what_is_broken_is_named():
    assert str(Broken(Invariant.ONE_WRITER, "byte 7")).startswith("one writer (the bytes of a writer that was stopped")
