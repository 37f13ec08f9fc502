"""The figures of bench/stream.py as a picture: bars of CPU, and of throughput beside them, by store.

python picture.py FILE.png < FIGURES.json    # in an environment that has matplotlib: bench/peers
"""

import json
import sys
from typing import Any

import matplotlib as mpl
from matplotlib.patches import Patch

mpl.use("Agg")

from matplotlib import pyplot as plt

KEEPS, SOME, LOSES = "#1f5fa8", "#8fb8de", "#b8b8b8"
TITLES = {"sink": "into a store that discards", "seaweedfs": "into SeaweedFS on the same disk"}
ROW_INCHES, HEAD_INCHES = 0.3, 0.9


def colour(row: dict[str, Any], whole: int) -> str:
    return KEEPS if row["kept"] == whole else SOME if row["kept"] else LOSES


def bars(axes: Any, rows: list[dict[str, Any]], field: str, title: str, colours: list[str]) -> None:
    values = [row[field] for row in rows]
    axes.barh(range(len(rows)), values, color=colours, height=0.7)
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.15)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    figures = json.load(sys.stdin)
    measured = [row for row in figures["rows"] if row["runs"]]
    kept = {row["row"]: row for row in measured if row["kept"] is not None}
    stores = list(dict.fromkeys(row["store"] for row in measured))
    groups = [[row for row in measured if row["store"] == store] for store in stores]
    heights = [ROW_INCHES * len(rows) + HEAD_INCHES for rows in groups]
    figure, grid = plt.subplots(
        len(groups), 2, figsize=(10, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for store, rows, (left, right) in zip(stores, groups, grid, strict=True):
        colours = [colour(kept.get(row["row"], row), figures["killed_bytes"]) for row in rows]
        bars(left, rows, "cpu_seconds_per_gib", f"CPU-seconds per GiB, {TITLES[store]}", colours)
        bars(right, rows, "gb_per_second", "GB/s", colours)
        right.set_yticklabels([])
    patches = [Patch(color=shade) for shade in (KEEPS, SOME, LOSES)]
    words = ["every byte is there after kill -9", "whole parts are", "nothing is"]
    figure.legend(patches, words, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(sys.argv[1], dpi=120)


if __name__ == "__main__":
    main()
