"""How far dictionaries separate what a language model knows, beside what needs no dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

EVALS = ("factual_knowledge", "ravel")


@dataclass(frozen=True)
class _Panel:
    """A score, and the scores of the same eval that a line is drawn at, by label."""

    evaluation: str
    metric: str
    title: str
    lines: dict[str, str]


def _list_panels() -> list[_Panel]:
    rivals = {"DAS": "das", "neurons": "neurons", "full patch": "full_patch"}
    facts = [
        _Panel(
            "factual_knowledge",
            metric,
            title,
            {label: f"{name}_{metric}" for label, name in rivals.items()},
        )
        for metric, title in (
            ("disentanglement_score", "facts: mean of cause\nand isolation"),
            ("cause_score", "facts: cause"),
            ("isolation_score", "facts: isolation"),
        )
    ]
    own = {"MDAS": "mdas_disentanglement_score"}
    return [
        *facts,
        _Panel("ravel", "disentanglement_score", "RAVEL: mean of cause\nand isolation", own),
    ]


GAP = 0.1  # between the names of two lines, in units of the axis
LINES = {"DAS": "-", "MDAS": "-", "neurons": "--", "full patch": ":"}


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Scores of each method: mean and range over seeds, a line for what needs no dictionary."""
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import keep_shared_size, list_sites

    scores = styles.present(tables["scores"])
    known = scores[scores["eval"].isin(EVALS)]
    sites = {
        site: [
            panel
            for panel in _list_panels()
            if not _select(known, site, panel.evaluation, panel.metric).empty
        ]
        for site in list_sites(scores)
    }
    sites = {site: panels for site, panels in sites.items() if panels}
    if not sites:
        raise ValueError(f"scores: expected rows of {' or '.join(EVALS)}, got none")
    kept, title = keep_shared_size(known[known["site"].isin(list(sites))], styles)
    labels = styles.among(kept)
    n_columns = max(map(len, sites.values()))
    figure, grid = plt.subplots(
        len(sites),
        n_columns,
        figsize=(2.2 + 2.6 * n_columns, len(sites) * (1.8 + 0.27 * len(labels))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, (site, panels) in zip(grid, sites.items(), strict=True):
        for axes in row[len(panels) :]:
            axes.remove()
        for axes, panel in zip(row, panels, strict=False):
            values = _select(kept, site, panel.evaluation, panel.metric)
            _draw_panel(axes, panel, values, labels, styles)
            found = {
                label: _select(known, site, panel.evaluation, metric)["value"]
                for label, metric in panel.lines.items()
            }
            _draw_lines(axes, {label: v.mean() for label, v in found.items() if not v.empty})
        if len(sites) > 1:
            row[0].set_ylabel(site)
    grid[0, 0].set_yticks(range(len(labels)), labels)
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(title, fontsize="medium")
    return figure


def _select(table: pd.DataFrame, site: str, evaluation: str, metric: str) -> pd.DataFrame:
    here = (table["site"] == site) & (table["eval"] == evaluation)
    return table[here & (table["metric"] == metric)]


def _draw_panel(
    axes: Axes, panel: _Panel, rows: pd.DataFrame, labels: list[str], styles: Styles
) -> None:
    """Draw one score: a marker at the mean of each method's seeds, a bar over their range."""
    from dbksvd.report.figures.dots import draw_range

    for height, label in enumerate(labels):
        values = rows.loc[rows["label"] == label, "value"]
        if len(values):
            draw_range(axes, values, height, label, styles)
    axes.set(xlabel=panel.title, xlim=(-0.03, 1.03), xticks=[0, 0.5, 1])
    axes.grid(axis="both", color="0.92")
    axes.set_axisbelow(True)


def _draw_lines(axes: Axes, values: dict[str, float]) -> None:
    """Draw a line at each score without a dictionary; names stand side by side above."""
    place = -1.0
    for label, value in sorted(values.items(), key=lambda pair: pair[1]):
        axes.axvline(value, color="0.2", linewidth=1.2, linestyle=LINES[label], zorder=0)
        place = max(value, place + GAP)
        axes.annotate(
            label,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(place, 1.01),
            textcoords=("data", "axes fraction"),
            rotation=45,
            ha="left",
            va="bottom",
            color="0.3",
            fontsize="x-small",
        )


def applies(facts: Facts) -> bool:
    """Say whether one of the evals is run."""
    return bool(facts.evals & set(EVALS))


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "One fact of an entity is moved to that of another, the others are to stay. Cause: how "
        "often the moved one becomes the other's; isolation: how often the others stay. A mask "
        "that does nothing has 0 and 1, the whole activation patched in about 1 and 0, so that a "
        "mean of 0.5 says nothing. Facts: factual_knowledge, on entities that no mask was trained "
        "on; lines are the full patch (dotted), a mask over neurons (dashed) and one over a "
        "learned rotation (DAS, solid). RAVEL is SAEBench's; its line, where it was measured, is "
        "SAEBench's skyline MDAS. Markers are means over seeds, bars reach from the lowest to the "
        "highest seed."
    ),
)
