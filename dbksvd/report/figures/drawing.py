"""From the tables of an experiment to the files of a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from dbksvd.base.files import replace_file
from dbksvd.report.figures.entry import Figure
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import load_published
from dbksvd.report.settings import DrawingSettings

# A line of a note, at most: about the width of a figure of one panel.
NOTE_CHARACTERS = 90


def draw_files(
    figure: Figure,
    tables: Iterable[Path],
    settings: DrawingSettings,
    outputs: Sequence[Path],
    *,
    note: str = "",
) -> None:
    """Draw a figure and write it in several formats, each file atomically.

    Parameters
    ----------
    figure : Figure
        The entry of the figure.
    tables : iterable of Path
        CSV files, each called as the table it holds: ``scores.csv``, ``published.csv``.
    settings : DrawingSettings
        How methods look, the resolution, and the model.
    outputs : sequence of Path
        Files to write; their suffixes say the formats.
    note : str
        A line below the figure.
    """
    styles = Styles(
        settings.methods,
        {**settings.labels, **settings.figures.labels},
        settings.controls,
        settings.floors,
    )
    # Nothing of the day of drawing goes into the SVG: equal data give an equal file.
    plt.rcParams.update({"svg.hashsalt": "dbksvd", "svg.fonttype": "none"})
    sns.set_theme(context=settings.figures.context, style="ticks")
    drawn = figure.draw({path.stem: _read_table(path, settings.model) for path in tables}, styles)
    sns.despine(drawn)
    if note:
        text = textwrap.fill(note, NOTE_CHARACTERS)
        drawn.text(0, -0.02, text, va="top", fontsize="small", color="firebrick")
    for path in outputs:
        date = {"Date": None} if path.suffix == ".svg" else None
        with replace_file(path) as temporary:
            drawn.savefig(temporary, dpi=settings.figures.dpi, bbox_inches="tight", metadata=date)


def _read_table(path: Path, model: str | None) -> pd.DataFrame:
    return load_published(path, model) if path.stem == "published" else pd.read_csv(path)
