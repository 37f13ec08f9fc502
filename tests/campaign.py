"""One campaign as one command; `campaigns` says what there is. It ends with one line of figures, and a JSON file.

python tests/campaign.py NAME [--release] [--seed N] [--json DIRECTORY]
python tests/campaign.py planted_bugs --release --share 2/6        # the second of six shares of them
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
from pathlib import Path

import campaigns
import click
from campaigns import Size
from invariants import Broken


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(campaigns.__path__))
    parser = argparse.ArgumentParser(description="Put streamup through a campaign.")
    parser.add_argument("name", choices=names)
    parser.add_argument("--release", action="store_true", help="as large as before a release, not as in CI")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another campaign; the same one replays it")
    parser.add_argument("--json", type=Path, metavar="DIRECTORY", help="where to save the figures")
    parser.add_argument("--share", metavar="N/M", help="of planted_bugs: the Nth of M shares of the bugs")
    asked = parser.parse_args()
    share = (tuple(map(int, asked.share.split("/"))),) if asked.share else ()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # what was begun is tidied up all the same
    try:
        figures = importlib.import_module(f"campaigns.{asked.name}").run(
            Size.RELEASE if asked.release else Size.CI, asked.seed, *share
        )
    except Broken as broken:
        click.echo("\n".join([f"BROKEN: {broken}", *getattr(broken, "__notes__", ())]), err=True)
        return 1
    click.echo(figures)
    if asked.json:
        figures.save(asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
