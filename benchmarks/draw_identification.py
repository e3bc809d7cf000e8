"""Draw F1 and MCC against explained variance from docs/identification.csv.

    PYTHONPATH=. python benchmarks/draw_identification.py

The rows are measurements that docs/identification.md explains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).parents[1] / "docs"
TARGETS = {"explained_variance": 0.85, "mcc": 0.80, "f1": 0.77}
LABELS = {"explained_variance": "explained variance", "mcc": "MCC", "f1": "F1"}
MARKERS = {"SAE": "s", "DB-KSVD": "o", "grown": "D"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=DOCS / "identification.csv")
    parser.add_argument("--output", type=Path, default=DOCS / "images" / "identification.png")
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.table)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), sharex=True, layout="constrained")
    for axis, score in zip(axes, ("mcc", "f1"), strict=True):
        draw_score(axis, table, score)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(arguments.output, dpi=150)


def draw_score(axis: Axes, table: pd.DataFrame, score: str) -> None:
    """Draw one score of all rows; a row keeps its number and colour in both panels."""
    colours = plt.get_cmap("tab20")
    for number, row in enumerate(table.itertuples(), 1):
        x, y = row.explained_variance, getattr(row, score)
        axis.scatter(
            *(x, y),
            marker=MARKERS[row.kind],
            color=colours((number - 1) % colours.N),
            label=f"{number} {row.method}",
        )
        axis.annotate(str(number), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axis.axvline(TARGETS["explained_variance"], color="0.7", linewidth=0.8, linestyle="--")
    axis.axhline(TARGETS[score], color="0.7", linewidth=0.8, linestyle="--")
    axis.set_xlabel(LABELS["explained_variance"])
    axis.set_ylabel(LABELS[score])


if __name__ == "__main__":
    main()
