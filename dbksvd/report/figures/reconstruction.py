"""Tidy tables in, matplotlib figures out: reconstruction against sparsity and cost.

A figure with one panel for each site shows the model's layers; samples with known features, beside
them, have figures of their own (:mod:`dbksvd.report.figures.ground_truth`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import mark_published

KEYS = ["site", "method", "n_atoms", "k", "seed"]
SIZE = (7.0, 4.2)  # inches, of one panel with its legend
WIDTH = 5.2  # inches, of each further panel
MARGIN = 1.15  # of a logarithmic axis, on both sides; a single k does not fill it


def pick_metric(scores: pd.DataFrame, evaluation: str, metric: str) -> pd.DataFrame:
    """Return the rows of one metric, its value in a column named after it.

    Raises
    ------
    ValueError
        If the table holds no such metric.
    """
    rows = scores[(scores["eval"] == evaluation) & (scores["metric"] == metric)]
    if rows.empty:
        raise ValueError(f"scores: expected rows of {evaluation} {metric}, got none")
    return rows.drop(columns=["eval", "metric"]).rename(columns={"value": metric})


def list_sites(table: pd.DataFrame) -> list[str]:
    """Return the model's sites in order; the synthetic one only where there is no other."""
    sites = sorted(table["site"].unique(), key=lambda site: (len(site), site))
    return [site for site in sites if site != "synthetic"] or sites


def find_shared_size(table: pd.DataFrame) -> tuple[int, int]:
    """Return the (n_atoms, k) with most fits: the one that all methods and seeds share."""
    fits = table.drop_duplicates(KEYS)
    n_atoms, k = fits.groupby(["n_atoms", "k"]).size().idxmax()
    return int(n_atoms), int(k)


def make_panels(table: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Return a figure with one panel for each site, and the rows of each."""
    sites = list_sites(table)
    figure, panels = plt.subplots(
        1,
        len(sites),
        figsize=(SIZE[0] + WIDTH * (len(sites) - 1), SIZE[1]),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, site in zip(panels[0], sites, strict=True):
        if len(sites) > 1:
            axes.set_title(site, fontsize="medium")
    rows = [table[table["site"] == site] for site in sites]
    return figure, list(zip(panels[0], rows, strict=True))


def place_legend(figure: Figure, names: Mapping[str, str] | None = None) -> None:
    """Put one legend with the labels of all panels on the right of the last one, renamed."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()
    figure.axes[-1].legend(
        list(handles.values()),
        [(names or {}).get(label, label) for label in handles],
        title=None,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )


def draw_variance_explained(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Held-out variance explained against L0, a line for each method.

    Seeds give the spread: the marker is their mean, the bar from the least to the greatest.
    """
    figure = _draw_against_l0(tables, styles, "heldout", "explained_variance")
    figure.axes[0].set_ylabel("Variance explained on held-out tokens")
    return figure


def draw_loss_recovered(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Cross entropy that a dictionary inside the model recovers, against L0; see above."""
    figure = _draw_against_l0(tables, styles, "core", "ce_loss_score")
    figure.axes[0].set_ylabel("Cross-entropy loss recovered")
    return figure


def _draw_against_l0(
    tables: dict[str, pd.DataFrame], styles: Styles, evaluation: str, metric: str
) -> Figure:
    """Draw a metric against L0, with what others have published for the same model and layer."""
    scores = tables["scores"]
    table = pick_metric(scores, evaluation, metric).merge(
        pick_metric(scores, "heldout", "l0"), on=KEYS
    )
    figure, panels = make_panels(styles.present(table))
    for axes, rows in panels:
        for label in styles.among(rows):
            _draw_line(axes, rows[rows["label"] == label], label, styles, metric)
        mark_published(axes, tables.get("published"), rows["site"].iloc[0], metric)
        axes.set(xlabel="L0, mean non-zero coefficients per token", xscale="log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, rows["l0"].min() / MARGIN), max(high, rows["l0"].max() * MARGIN))
        ticks = sorted(rows["k"].unique())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        _label_shares(axes)
    place_legend(figure, _name_hidden(styles.present(table), metric))
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, label: str, styles: Styles, metric: str) -> None:
    """Draw one method, a line through each width it has."""
    for n_atoms, group in rows.groupby("n_atoms"):
        spread = group.groupby("k").agg(
            l0=("l0", "mean"),
            middle=(metric, "mean"),
            low=(metric, "min"),
            high=(metric, "max"),
        )
        several = rows["n_atoms"].nunique() > 1
        axes.errorbar(
            spread["l0"],
            spread["middle"],
            yerr=(spread[["middle", "high"]].to_numpy() - spread[["low", "middle"]].to_numpy()).T,
            label=f"{label}, {n_atoms} atoms" if several else label,
            color=styles.palette[label],
            marker=styles.markers[label],
            markersize=6,
            capsize=3,
            linewidth=1.6,
        )


def draw_cost(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Held-out variance explained against what encoding a token costs, a line over k."""
    scores = tables["scores"]
    table = pick_metric(scores, "heldout", "explained_variance").merge(
        pick_metric(scores, "fit", "encoder_flops"), on=KEYS
    )
    figure, panels = make_panels(styles.present(table))
    for axes, rows in panels:
        sns.lineplot(
            rows,
            x="encoder_flops",
            y="explained_variance",
            hue="label",
            hue_order=styles.among(rows),
            palette=styles.palette,
            style="label",
            markers=styles.markers,
            dashes=False,
            units="seed",
            estimator=None,
            markersize=7,
            linewidth=1.2,
            ax=axes,
        )
        axes.set(xlabel="Encoding cost (floating-point operations per token)", xscale="log")
        label_powers(axes)
        _label_shares(axes)
    figure.axes[0].set_ylabel("Variance explained on held-out tokens")
    place_legend(figure, _name_hidden(styles.present(table), "explained_variance"))
    return figure


def _name_hidden(table: pd.DataFrame, metric: str) -> dict[str, str]:
    """Return legend entries for what lies below the axis, with the value that is not seen."""
    highest = table.groupby("label", observed=True)[metric].max()
    return {label: f"{label} ({value:.0%})" for label, value in highest.items() if value < 0}


def _label_shares(axes: Axes) -> None:
    """Label a y axis in percent; it ends at 0, below which only a control can lie."""
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def label_powers(axes: Axes) -> None:
    """Label a logarithmic x axis at 1, 2 and 5 times powers of ten, as 200k or 1M."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], Styles], Figure]] = {
    "variance_explained": draw_variance_explained,
    "loss_recovered": draw_loss_recovered,
    "cost": draw_cost,
}
