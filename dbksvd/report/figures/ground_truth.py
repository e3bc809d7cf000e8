"""Figures of scores against a known ground truth: tidy tables in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dbksvd.report.figures.reconstruction import pick_metric
from dbksvd.report.figures.styles import Styles

KEYS = ["site", "method", "n_atoms", "k", "seed"]
MOST_ANNOTATED = 16  # experts or components in a panel with numbers in its cells


def draw_identification(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """F1 and MCC against held-out variance explained: a small point for each dictionary.

    The large marker is the mean over seeds; its bars reach from the lowest to the highest seed.
    """
    names = {"f1": "F1 of latents as detectors", "mcc": "MCC of atoms and true features"}
    table = _join_metrics(tables["scores"], ["explained_variance", *names], styles)
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.4), sharex=True, layout="constrained")
    for axes, (metric, title) in zip(panels, names.items(), strict=True):
        for label in styles.among(table):
            rows = table[table["label"] == label]
            _draw_points(axes, rows, metric, label, styles)
        axes.set(xlabel="Variance explained on held-out samples", ylabel=title)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(0, 1)
    handles, labels = panels[1].get_legend_handles_labels()
    panels[1].legend(
        handles, labels, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title=None
    )
    return figure


def _draw_points(axes: Axes, rows: pd.DataFrame, metric: str, label: str, styles: Styles) -> None:
    colour, marker = styles.palette[label], styles.markers[label]
    axes.scatter(
        rows["explained_variance"], rows[metric], s=10, color=colour, marker=marker, alpha=0.4
    )
    for position, (_, group) in enumerate(rows.groupby(["n_atoms", "k"])):
        x, y = group["explained_variance"], group[metric]
        axes.errorbar(
            x.mean(),
            y.mean(),
            xerr=[[x.mean() - x.min()], [x.max() - x.mean()]],
            yerr=[[y.mean() - y.min()], [y.max() - y.mean()]],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            linestyle="none",
            label=label if position == 0 else None,
        )


def draw_correlation_recovery(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """RV coefficient of the recovered correlations, and variance explained, of each method.

    The marker is the mean over seeds, the bar reaches from the lowest to the highest seed.
    """
    names = {
        "rv_modified": "Modified RV coefficient of the\ncorrelations among codes",
        "mcc": "MCC of atoms and\ntrue features",
        "explained_variance": "Variance explained on\nheld-out samples",
    }
    table = _join_metrics(tables["scores"], list(names), styles)
    figure, panels = plt.subplots(
        1, 3, figsize=(10.5, 1.4 + 0.45 * len(styles.among(table))), sharey=True
    )
    figure.set_layout_engine("constrained")
    labels = styles.among(table)
    for axes, (metric, title) in zip(panels, names.items(), strict=True):
        for height, label in enumerate(labels):
            values = table.loc[table["label"] == label, metric]
            middle = values.mean()
            axes.errorbar(
                middle,
                height,
                xerr=[[middle - values.min()], [values.max() - middle]],
                color=styles.palette[label],
                marker=styles.markers[label],
                markersize=5,
                capsize=4,
                linewidth=1.6,
            )
        axes.set(xlabel=title, xlim=(0, 1))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.tick_params(left=axes is panels[0])
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    return figure


def draw_routing(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Where the samples of each component go: a panel for each kind of dictionary with a router.

    A row is a component and sums to 1; experts stand in the order of the components they serve.
    The first seed is shown, and the agreement of all.
    """
    routing = styles.present(tables["routing"])
    if routing.empty:
        raise ValueError("routing: expected rows of a dictionary with a router, got none")
    agreement = pick_metric(tables["scores"], "ground_truth", "router_ami")
    groups = list(routing.groupby(["method", "n_atoms", "k"], sort=False))
    figure, panels = plt.subplots(
        1, len(groups), figsize=(5.2 * len(groups), 4.6), squeeze=False, layout="constrained"
    )
    for axes, ((method, n_atoms, k), rows) in zip(panels[0], groups, strict=True):
        first = rows[rows["seed"] == rows["seed"].min()]
        counts = first.pivot_table("samples", "component", "expert", fill_value=0)
        _draw_shares(axes, counts, last=axes is panels[0][-1])
        chosen = (agreement[["method", "n_atoms", "k"]] == (method, n_atoms, k)).all(axis=1)
        ami = agreement.loc[chosen, "router_ami"]
        spread = f" ({ami.min():.2f} to {ami.max():.2f})" if len(ami) > 1 else ""
        axes.set_title(
            f"{styles.label(method)}: adjusted mutual\ninformation {ami.mean():.2f}{spread}",
            fontsize="medium",
        )
    return figure


def _draw_shares(axes: Axes, counts: pd.DataFrame, *, last: bool) -> None:
    shares = counts.div(counts.sum(axis=1), axis=0)
    centre = shares.mul(range(len(shares)), axis=0).sum() / shares.sum()
    shares = shares[centre.sort_values().index]  # experts without samples come last
    sns.heatmap(
        shares,
        vmin=0,
        vmax=1,
        cmap="Blues",
        square=True,
        annot=shares.map(_format_share) if max(shares.shape) <= MOST_ANNOTATED else None,
        fmt="",
        annot_kws={"fontsize": "xx-small"},
        cbar=last,
        cbar_kws={"label": "Share of the component's samples"},
        ax=axes,
    )
    axes.set(xlabel="Expert chosen by the router", ylabel="Component that made the sample")
    axes.tick_params(axis="y", rotation=0)


def _format_share(share: float) -> str:
    return f"{share:.2f}" if share >= 0.005 else ""


def _join_metrics(scores: pd.DataFrame, metrics: list[str], styles: Styles) -> pd.DataFrame:
    """Return a row for each dictionary with a known truth, its metrics in columns."""
    table = pick_metric(scores, "ground_truth", metrics[0])
    for metric in metrics[1:]:
        table = table.merge(pick_metric(scores, "ground_truth", metric), on=KEYS)
    return styles.present(table)


SYNTHETIC_FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], Styles], Figure]] = {
    "identification": draw_identification,
    "correlation_recovery": draw_correlation_recovery,
    "routing": draw_routing,
}
