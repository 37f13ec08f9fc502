"""What a campaign has done, in one line and in a JSON file. Of what it looks for there is no count: that is `Broken`.

    figures = Figures("power cuts", Size.CI, seed=7)
    figures.count("images", 1)
    print(figures)        # power cuts: 40 images, 900 offsets announced; ci, 61 s, seed 7
    figures.save(directory)

`$FIGURES` names a directory into which tests save theirs; `python tests/figures.py DIRECTORY` prints what is there, as
`.ci/run` does at its end.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns import Size


@dataclass
class Figures:
    """Counts, by words that can be read after a number, in the order in which they came."""

    campaign: str
    size: Size
    seed: int
    counts: dict[str, float] = field(default_factory=dict)
    table: list[dict[str, Any]] = field(default_factory=list)
    """What does not fit into a line: its rows are in the JSON file only."""

    began: float = field(default_factory=time.monotonic)

    def count(self, what: str, more: float = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + more

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def __str__(self) -> str:
        counts = ", ".join(
            f"{number:,.4g} {what}" if number % 1 else f"{number:,.0f} {what}" for what, number in self.counts.items()
        )
        return f"{self.campaign}: {counts}; {self.size.value}, {self.seconds:.0f} s, seed {self.seed}"

    def save(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", f"{self.campaign} {self.size.value} {self.seed}")
        path = directory / f"{name}.json"
        path.write_text(json.dumps(self._document(), indent=2) + "\n")
        return path

    def save_if_wanted(self) -> None:
        if directory := os.environ.get("FIGURES"):
            self.save(Path(directory))

    def _document(self) -> dict[str, Any]:
        return {
            "campaign": self.campaign,
            "size": self.size.value,
            "seed": self.seed,
            "counts": self.counts,
            **({"table": self.table} if self.table else {}),
            "seconds": round(self.seconds, 1),
            "line": str(self),
            "machine": machine(),
        }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (named := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        processor = named[1]
    return {
        "cores": os.cpu_count(),
        "processor": processor,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    for saved in sorted(Path(sys.argv[1]).glob("*.json")):
        sys.stdout.write(json.loads(saved.read_text())["line"] + "\n")
