"""A mistake that is planted is there, is counted, and is taken out again; one that does not fit is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import planted
import pytest
from planting import MisfitError, Patch, Value
from process import run

from streamup import spool
from streamup.layout import Layout
from streamup.spool import Files
from streamup.stores import ObjectMeta
from streamup.upload import Upload

THREE_TIMES = Patch(
    "spool:Files.size",
    """
    -return path.stat().st_size
    +return 3 * path.stat().st_size
    """,
)


def of(path: Path, change: Patch | Value) -> tuple[int, int]:
    """The size of a file while there is a change, and how often that was reached."""
    reached = []
    with change.planted(lambda: reached.append(1)):
        return Files().size(path), len(reached)


@pytest.fixture
def ten(tmp_path):
    path = tmp_path / "ten"
    path.write_bytes(bytes(10))
    return path


def test_a_patch_is_there_and_is_counted_and_is_taken_out_again(ten):
    code = Files.size.__code__
    assert of(ten, THREE_TIMES) == (30, 1)
    assert Files.size.__code__ is code
    assert Files().size(ten) == 10
    assert not [name for name in vars(spool) if name.startswith("planted")]


def test_it_is_taken_out_after_an_error_as_well(ten):
    with pytest.raises(ZeroDivisionError), THREE_TIMES.planted(lambda: None):
        raise ZeroDivisionError
    assert Files().size(ten) == 10


def test_it_is_counted_where_it_is_reached_only(tmp_path):
    otherwise = Patch("spool:Files.size", "-    return 0\n+    return 7")
    assert of(tmp_path / "nothing", otherwise) == (7, 1)
    assert of(tmp_path, otherwise)[1] == 0


def test_it_is_counted_where_only_something_is_gone():
    upload = Upload("id", "key", "subject", Layout(5), ObjectMeta("token"), created=0.0)
    reached = []
    with Patch("upload:Upload.end_append", "-self.touched = now").planted(lambda: reached.append(1)):
        upload.end_append(7.0)
    assert (upload.touched, len(reached)) == (None, 1)


def test_a_function_that_calls_super_can_be_patched(tmp_path):
    with planted.planted("leaves_its_files") as reached:
        from streamup.client.backlog import _InFile  # noqa: PLC0415 - as late as a command would

        _InFile(0, 10, str(tmp_path)).close()
    assert [path.name.startswith("streamup-") for path in tmp_path.iterdir()] == [True]
    assert reached == {"leaves_its_files": 1}


@pytest.mark.parametrize(
    "misfit",
    [
        Patch("spool:Files.size", "-return path.stat().st_blocks\n+return 1"),
        Patch("spool:Files.sync", "-os.close(fd)\n+pass\n@@\n-os.open(path)\n+pass"),
        Patch("spool:Budget.reserve", "-raise\n+pass\n@@\n-granted\n+pass"),
        Patch("spool:Files.length", "-return 0\n+return 1"),
        Patch("spools:Files.size", "-return 0\n+return 1"),
        Patch("spool:PASSING", "-return 0\n+return 1"),
        Patch("spool:Budget._fits", "-return 0\n+return 1"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(misfit):
    with pytest.raises(MisfitError), misfit.planted(lambda: None):
        pytest.fail("it was planted")


def test_a_line_that_is_there_twice_fits_nowhere():
    twice = Patch("completion:Completion.complete", "-return found\n+return None")
    with pytest.raises(MisfitError, match="2 times"), twice.planted(lambda: None):
        pytest.fail("it was planted")


def test_two_mistakes_in_one_function_are_refused():
    again = Patch("spool:Files.size", "-return 0\n+return 1")
    with THREE_TIMES.planted(lambda: None), pytest.raises(MisfitError, match="two"), again.planted(lambda: None):
        pytest.fail("both were planted")


def test_a_constant_that_is_not_there_is_refused():
    with pytest.raises(AttributeError), Value("spool:NO_SUCH_BYTES", 1).planted(lambda: None):
        pytest.fail("it was planted")


@pytest.mark.parametrize("bug", planted.BUGS)
def test_each_bug_fits_the_source(bug):
    with planted.planted(bug):
        pass


def test_a_program_has_the_bug_it_is_told():
    program = str(Path(planted.__file__))
    assert run(sys.executable, program, "no_fdatasync,in_a_hurry", "--version").code == 0
    unknown = run(sys.executable, program, "no_such_bug", "--version")
    assert (unknown.code, "no_such_bug" in unknown.err) == (1, True)
