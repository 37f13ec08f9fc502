"""Named places where a test may kill this process: `STREAMUP_FAILPOINT=after_commit:3` dies at the third passage.

Inert without the variable: `failpoint` is then an empty function. The names stand in the code beside the step they
belong to; `tests/test_kill.py` goes through all of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def _ignore(_name: str, /) -> None:
    """No failpoint is set."""


def _killer(setting: str) -> Callable[[str], None]:
    wanted, _, nth = setting.partition(":")
    left = int(nth or 1)

    def hit(name: str, /) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hit


failpoint: Callable[[str], None] = (
    _killer(os.environ["STREAMUP_FAILPOINT"]) if os.environ.get("STREAMUP_FAILPOINT") else _ignore
)
