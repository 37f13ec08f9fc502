"""What the zygote forks behaves as `python ...` would."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import zygote


@pytest.fixture
def ran(tmp_path):
    """`code, output = ran(*arguments, **environ)`"""

    def run(*arguments, **environ):
        with (tmp_path / "log").open("wb") as log:
            code = zygote.spawn(arguments, environ, log).wait(20)
        return code, (tmp_path / "log").read_text()

    return run


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print(__name__)", (0, "__main__\n")),
        ("import sys; sys.exit(3)", (3, "")),
        ("import sys; sys.exit('no')", (1, "no\n")),
        ("import sys; print(sys.argv)", (0, "['-c', 'word']\n")),
        ("import os; print(sorted(os.environ.items()))", (0, "[('A', 'b')]\n")),
        ("import atexit; atexit.register(print, 'last'); print('first')", (0, "first\nlast\n")),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('all'))).start()",
            (0, "all\n"),
        ),
        ("import sys; print([name for name in sys.modules if name.startswith('streamup')])", (0, "[]\n")),
        ("import asyncio; print(asyncio.run(asyncio.to_thread(abs, -1)))", (0, "1\n")),
    ],
)
def test_a_script_runs_as_in_an_interpreter_of_its_own(ran, script, expected):
    assert ran("-c", script, "word", A="b") == expected


def test_an_exception_is_printed(ran):
    code, output = ran("-c", "raise ValueError('this')")
    assert (code, output.splitlines()[-1]) == (1, "ValueError: this")


def test_a_file_and_a_module_run_too(ran, tmp_path):
    (tmp_path / "beside.py").write_text("name = 'beside'")
    (tmp_path / "program.py").write_text("import sys, beside; print(beside.name, sys.argv[1:])")
    assert ran(str(tmp_path / "program.py"), "word") == (0, "beside ['word']\n")
    assert ran("-m", "json.tool", "--help")[0] == 0


def test_it_is_signalled_and_asked_like_any_other_process(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        process = zygote.spawn(["-c", "import signal; signal.pause()"], os.environ, log)
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        process.kill()  # it has gone: nobody else's number is meant
        assert process.returncode == -signal.SIGTERM


def test_random_numbers_are_not_the_same_in_each(ran):
    script = "import random, secrets, uuid; print(random.random(), secrets.token_hex(), uuid.uuid4())"
    assert len({ran("-c", script) for _ in range(3)}) == 3


def test_no_module_that_is_loaded_before_starts_a_thread(ran):
    assert (
        ran("-c", "import threading, os; print(len(os.listdir('/proc/self/task')))") == (0, "1\n")
        or sys.platform != "linux"
    )


def test_the_zygote_outlives_the_thread_that_needed_it_first(tmp_path):
    with ThreadPoolExecutor(1) as executor:
        made = executor.submit(zygote._Zygote).result()
    order = {"arguments": ["-c", "pass"], "environ": {}, "directory": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        assert zygote.Forked(made.ask(order, log.fileno())).pid > 0
    made._end()


def test_several_threads_can_wait_for_one_process(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        process = zygote.spawn(["-c", "import time; time.sleep(0.05); raise SystemExit(3)"], os.environ, log)
    with ThreadPoolExecutor(8) as executor:
        assert set(executor.map(lambda _: process.wait(20), range(8))) == {3}
