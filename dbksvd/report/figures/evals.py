"""Figures of SAEBench's scores: tidy tables in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dbksvd.report.figures.reconstruction import (
    find_shared_size,
    list_sites,
    make_panels,
    place_legend,
)
from dbksvd.report.figures.styles import Styles
from dbksvd.report.tables import HEADLINES, Headline

BASELINE = "llm_test_accuracy"  # SAEBench's name for a probe on all raw activations
COLUMNS = 5  # panels side by side


def keep_shared_size(table: pd.DataFrame, styles: Styles) -> tuple[pd.DataFrame, str]:
    """Return the rows of the (n_atoms, k) that most fits share, controls of any width with them.

    Returns
    -------
    table : DataFrame
        The rows.
    title : str
        The size in words.
    """
    n_atoms, k = find_shared_size(table[~table["method"].isin(styles.controls)])
    is_control = table["method"].isin(styles.controls)
    kept = table[(table["k"] == k) & ((table["n_atoms"] == n_atoms) | is_control)]
    return kept, f"{n_atoms} atoms, k = {k}"


def draw_probing(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Accuracy of probes on few atoms, mean over data sets; bars over seeds from least to most."""
    scores = styles.present(tables["scores"])
    probing = scores[scores["eval"] == "sparse_probing_sae_probes"]
    columns = {
        f"sae_top_{count}_test_accuracy": f"{count} atom{'s' if count > 1 else ''}"
        for count in (1, 2, 5)
    }
    table = probing[probing["metric"].isin(columns)].copy()
    if table.empty:
        raise ValueError("scores: expected rows of sparse_probing_sae_probes, got none")
    table["probe"] = table["metric"].map(columns)
    table, title = keep_shared_size(table, styles)
    figure, panels = make_panels(table)
    for axes, rows in panels:
        sns.barplot(
            rows,
            x="probe",
            y="value",
            order=list(columns.values()),
            hue="label",
            hue_order=styles.among(rows),
            palette=styles.palette,
            errorbar=("pi", 100),
            err_kws={"linewidth": 1.2},
            capsize=0.3,
            saturation=1,
            ax=axes,
        )
        here = probing["site"] == rows["site"].iloc[0]
        _draw_raw(axes, probing.loc[here & (probing["metric"] == BASELINE), "value"])
        axes.set(xlabel="Probe on the best", ylabel="", ylim=(0.5, 1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.axes[0].set_ylabel("Probing accuracy, mean over data sets")
    place_legend(figure)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_raw(axes: Axes, values: pd.Series) -> None:
    if values.empty:
        return
    axes.axhline(values.mean(), color="0.2", linewidth=1.2, linestyle="--", zorder=0)
    axes.annotate(
        "probe on all raw activations",
        (1, values.mean()),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize="small",
    )


def draw_evals(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Headline metric of every eval that was run, a panel each: mean and range over seeds.

    Where an eval has one, a dashed line is a probe on all raw activations.
    """
    scores = styles.present(tables["scores"])
    scores = scores[scores["site"].isin(list_sites(scores))]
    kept, title = keep_shared_size(scores, styles)
    panels = [
        (site, headline, rows)
        for site in list_sites(kept)
        for headline in HEADLINES
        if headline.in_overview and not (rows := headline.select(kept[kept["site"] == site])).empty
    ]
    if not panels:
        raise ValueError("scores: expected rows of an eval, got none")
    labels = styles.among(kept)
    n_columns = min(COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.2 + 2.6 * n_columns, n_rows * (1.2 + 0.27 * len(labels))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    several = len({site for site, *_ in panels}) > 1
    for axes, (site, headline, rows) in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, headline, rows, labels, styles)
        if several:
            axes.set_title(site, fontsize="medium")
        if headline.baseline is not None:
            raw = scores[(scores["site"] == site) & (scores["eval"] == headline.evaluation)]
            values = raw.loc[raw["metric"] == headline.baseline, "value"]
            if len(values):
                axes.axvline(values.mean(), color="0.2", linewidth=1.2, linestyle="--", zorder=0)
                axes.margins(x=0.12)  # the line counts too
    grid[0, 0].set_yticks(range(len(labels)), labels)
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_panel(
    axes: Axes, headline: Headline, rows: pd.DataFrame, labels: list[str], styles: Styles
) -> None:
    """Draw one metric: a marker at the mean of each method's seeds, a bar over their range."""
    for height, label in enumerate(labels):
        values = rows.loc[rows["label"] == label, "value"] / headline.unit
        if values.empty:
            continue
        spread = [[values.mean() - values.min()], [values.max() - values.mean()]]
        axes.errorbar(
            values.mean(),
            height,
            xerr=spread if len(values) > 1 else None,
            color=styles.palette[label],
            marker=styles.markers[label],
            markersize=6,
            capsize=3,
            linewidth=1.6,
        )
    direction = "\n(lower is better)" if headline.lower_is_better else ""
    axes.set_xlabel(f"{headline.title}{direction}")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.12)
    if headline.floor is not None:
        axes.set_xlim(left=max(axes.get_xlim()[0], headline.floor))
    axes.grid(axis="both", color="0.92")
    axes.set_axisbelow(True)


EVAL_FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], Styles], Figure]] = {
    "probing": draw_probing,
    "evals": draw_evals,
}
