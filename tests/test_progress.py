"""What is shown of transfers: bars on a terminal, lines for programs, and hostile names as the text they are."""

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from streamup.client import progress as progress_module
from streamup.client.progress import Display, Json, Lines, Progress, State, choose, clock, numbers

CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves the cursor, colours, and clears lines."""


class Terminal:
    """A terminal of its own for whoever writes to stderr (and stdout). `shown` is what came there."""

    def __init__(self, monkeypatch, columns, *, both=False):
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._file = os.fdopen(follower, "w")
        monkeypatch.setattr(sys, "stderr", self._file)
        if both:
            monkeypatch.setattr(sys, "stdout", self._file)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))

    def shown(self):
        self._file.close()
        found = b""
        with suppress(OSError):  # EIO: nobody writes there any more
            while piece := os.read(self._leader, 65536):
                found += piece
        os.close(self._leader)
        return found.decode()


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(progress_module, "BAR_SECONDS", 0.001)
    monkeypatch.setattr(progress_module, "JSON_SECONDS", 0.001)


async def show(*names, whole=None, said=()):
    async with Display(choose(quiet=False, as_json=False), whole) as display:
        for name in names:
            display.begin(name, 200).add(50)
        await asyncio.sleep(0.02)
        for line in said:
            display._show.say(line)
            display._show.tell(line)


def pictures(shown):
    """The lines that were drawn, in order, without what moves the cursor."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", CURSOR.sub("", shown)) if line.strip()]


async def test_a_terminal_is_shown_a_bar_for_each_file_and_one_for_all(monkeypatch):
    terminal = Terminal(monkeypatch, 100)
    await show("film.mp4", "other.mp4", whole=Progress("2 files", 400, "sending"))
    first = pictures(terminal.shown())[:3]
    assert [line.split()[0] for line in first] == ["film.mp4", "other.mp4", "2"]
    assert re.search(r"━ +25%  50 B of 200 B  downloading  [0-9.]+ [KM]?i?B/s  0:00 left$", first[0])


async def test_when_all_is_over_the_terminal_is_as_it_was(monkeypatch):
    terminal = Terminal(monkeypatch, 100)
    await show("a")
    shown = terminal.shown()
    assert shown.rstrip("\r\n").endswith("\x1b[2K") or "\x1b[2K" in shown[-20:]
    # Killed at any moment after its start it leaves the cursor visible.
    assert shown.rfind("\x1b[?25l") < shown.find("\x1b[?25h") < shown.find("downloading")


@pytest.mark.parametrize("columns", [20, 40, 71, 72, 200])
async def test_a_line_for_each_file_whatever_the_width(monkeypatch, columns):
    terminal = Terminal(monkeypatch, columns)
    await show("x" * 300, "b")
    lines = pictures(terminal.shown())
    assert all(len(line) <= columns for line in lines)
    assert {line[0] for line in lines} == {"x", "b"}


@pytest.mark.parametrize("columns", [72, 80, 200])
async def test_ctrl_c_has_room_behind_the_last_line(monkeypatch, columns):
    """The terminal writes ^C where the cursor is: one line more, and those above would be left standing."""
    terminal = Terminal(monkeypatch, columns)
    await show("x" * 300, "b")
    assert {len(line) for line in pictures(terminal.shown())} == {columns - 2}


HOSTILE = "a\x1b[2J\x1b]0;title\x07\n[red]b[/red] :smile:\udcff\u202e"


async def test_a_hostile_name_is_text(monkeypatch):
    terminal = Terminal(monkeypatch, 300, both=True)
    await show(HOSTILE, said=[f"said {HOSTILE}"])
    shown = terminal.shown()
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    escaped = r"a\x1b[2J\x1b]0;title\x07\n[red]b[/red] :smile:\udcff\u202e"
    assert escaped in CURSOR.sub("", shown)
    assert f"said {escaped}" in pictures(shown)
    assert pictures(shown).count(f"said {escaped}") == 2  # stderr and stdout are this terminal


async def test_what_came_out_goes_to_stdout_if_that_is_not_the_terminal(monkeypatch, capsys):
    terminal = Terminal(monkeypatch, 100)
    await show("a", said=["said"])
    assert capsys.readouterr().out == "said\n"
    assert pictures(terminal.shown()).count("said") == 1


async def test_where_there_is_no_terminal_nothing_but_lines(capsys, monkeypatch):
    await show("a", said=[HOSTILE])
    captured = capsys.readouterr()
    assert captured.out == captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.isascii()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert type(choose(quiet=False, as_json=False)) is Lines
    assert type(choose(quiet=True, as_json=True)) is Lines


async def test_a_terminal_that_has_gone_stops_nobody(monkeypatch):
    terminal = Terminal(monkeypatch, 80)
    display = Display(choose(quiet=False, as_json=False))
    async with display:
        display.begin("a", 1)
        os.close(terminal._leader)
        await asyncio.sleep(0.01)
    with suppress(OSError):  # what was not written
        terminal._file.close()


def test_rich_is_loaded_for_a_terminal_only():
    code = (
        "import sys, streamup.cli, streamup.client.transfer as t; from streamup.client.progress import choose;"
        "choose(quiet=False, as_json=False); choose(quiet=False, as_json=True); assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE)


# Lines for programs


def test_one_transfer_is_a_line_and_several_are_one_line_with_each_file(capsys):
    one = State("a", "sending", 50, 200, 10.0)
    Json().draw([one], None)
    Json().draw([one, State("b", "comparing", 5, None, 0.0, "waiting: no answer")], State("2 files", "s", 1, 2, 0.5))
    single, several = map(json.loads, capsys.readouterr().out.splitlines())
    assert single == {"name": "a", "phase": "sending", "done": 50, "total": 200, "rate": 10, "left": 15.0}
    assert several["files"][0] == single
    assert (several["files"][1]["waiting"], several["files"][1]["left"]) == ("waiting: no answer", None)
    assert (several["name"], several["done"], several["left"]) == ("2 files", 1, 2.0)


# Numbers


def test_the_rate_is_that_of_the_last_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("streamup.client.progress.time.monotonic", lambda: now[0])
    progress = Progress("f", 10_000)
    rates = []
    for size in (1_000, 1_000, 0, 0, 0, 0, 0, 0, 0):
        now[0] += 1
        progress.add(size)
        rates.append(progress.state().rate)
    assert rates[0] == 1_000
    assert rates[-1] == 0


def test_what_was_there_already_is_no_rate_and_nor_is_a_step_back(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("streamup.client.progress.time.monotonic", lambda: now[0])
    progress = Progress("f", 10_000)
    progress.skip(5_000)
    now[0] += 1
    progress.add(100)
    assert (progress.state().done, progress.state().rate) == (5_100, 100)
    progress.add(-200)
    assert progress.state().rate == 0
    position = [7]
    progress.follow("checking", lambda: (position[0], 9))
    position[0] = 8
    now[0] += 1
    assert (progress.state().done, progress.state().total, progress.state().rate) == (8, 9, 1)


def test_numbers_as_people_read_them():
    assert numbers(State("f", "sending", 50, 200, 10.0)) == " 25%  50 B of 200 B  sending  10 B/s  0:15 left"
    assert numbers(State("f", "sending", 0, 0, 0.0)) == "100%  0 B of 0 B  sending  0 B/s"
    assert numbers(State("f", "sending", 2048, None, 0.0)) == "2.0 KiB  sending  0 B/s"
    assert numbers(State("f", "sending", 1, 2, 9.0, "again\nin 4 s")) == " 50%  1 B of 2 B  again\\nin 4 s"
    assert (clock(7), clock(3723)) == ("0:07", "1:02:03")
