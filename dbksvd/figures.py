"""Tidy tables in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from dbksvd.styles import Styles

SIZE = (7.0, 4.2)  # inches


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


def draw_variance_explained(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Held-out variance explained against L0, a line for each method.

    Seeds give the spread: the marker is their mean, the bar from the least to the greatest.
    """
    scores = tables["scores"]
    keys = ["site", "method", "n_atoms", "k", "seed"]
    table = pick_metric(scores, "heldout", "explained_variance").merge(
        pick_metric(scores, "heldout", "l0"), on=keys
    )
    table = styles.present(table)
    figure, axes = _new_figure()
    for label in styles.among(table):
        _draw_line(axes, table[table["label"] == label], label, styles)
    axes.set(
        xlabel="L0, mean non-zero coefficients per token",
        ylabel="Variance explained on held-out tokens",
        xscale="log",
    )
    ticks = sorted(table["k"].unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _place_legend(axes)
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, label: str, styles: Styles) -> None:
    """Draw one method, a line through each width it has."""
    for n_atoms, group in rows.groupby("n_atoms"):
        spread = group.groupby("k").agg(
            l0=("l0", "mean"),
            middle=("explained_variance", "mean"),
            low=("explained_variance", "min"),
            high=("explained_variance", "max"),
        )
        several = rows["n_atoms"].nunique() > 1
        axes.errorbar(
            spread["l0"],
            spread["middle"],
            yerr=[spread["middle"] - spread["low"], spread["high"] - spread["middle"]],
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
    keys = ["site", "method", "n_atoms", "k", "seed"]
    table = pick_metric(scores, "heldout", "explained_variance").merge(
        pick_metric(scores, "fit", "encoder_flops"), on=keys
    )
    table = styles.present(table)
    figure, axes = _new_figure()
    sns.lineplot(
        table,
        x="encoder_flops",
        y="explained_variance",
        hue="label",
        hue_order=styles.among(table),
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
    axes.set(
        xlabel="Encoding cost (floating-point operations per token)",
        ylabel="Variance explained on held-out tokens",
        xscale="log",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _place_legend(axes)
    return figure


def draw_convergence(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Held-out error against seconds and against samples seen, one k, every seed a line."""
    curves = styles.present(tables["curves"].dropna(subset=["fve_heldout"]))
    curves = curves[~curves["method"].isin(styles.controls)]
    n_atoms, k = _most_frequent(curves)
    curves = curves[(curves["n_atoms"] == n_atoms) & (curves["k"] == k)].copy()
    curves["error"] = 1 - curves["fve_heldout"]
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    for axes, column, label in (
        (panels[0], "seconds", "Fit time (seconds)"),
        (panels[1], "samples_seen", "Samples seen (tokens)"),
    ):
        sns.lineplot(
            curves,
            x=column,
            y="error",
            hue="label",
            hue_order=styles.among(curves),
            palette=styles.palette,
            style="label",
            style_order=styles.among(curves),
            markers=styles.markers,
            dashes=False,
            units="seed",
            estimator=None,
            markersize=5,
            linewidth=1.4,
            ax=axes,
            legend=axes is panels[1],
        )
        axes.set(xlabel=label, xscale="log", yscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _label_error_axis(panels[0])
    panels[1].legend(title=None, frameon=False)
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _label_error_axis(axes: Axes) -> None:
    axes.set_ylabel("Variance not explained, held-out tokens")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _most_frequent(table: pd.DataFrame) -> tuple[int, int]:
    """Return the (n_atoms, k) with most fits: the one that all methods and seeds share."""
    fits = table.drop_duplicates(["site", "method", "n_atoms", "k", "seed"])
    n_atoms, k = fits.groupby(["n_atoms", "k"]).size().idxmax()
    return int(n_atoms), int(k)


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
    n_atoms, k = _most_frequent(table[~table["method"].isin(styles.controls)])
    shared = (table["k"] == k) & (
        (table["n_atoms"] == n_atoms) | table["method"].isin(styles.controls)
    )
    figure, axes = _new_figure()
    sns.barplot(
        table[shared],
        x="probe",
        y="value",
        order=list(columns.values()),
        hue="label",
        hue_order=styles.among(table[shared]),
        palette=styles.palette,
        errorbar=("pi", 100),
        err_kws={"linewidth": 1.2},
        capsize=0.3,
        saturation=1,
        ax=axes,
    )
    raw = probing.loc[probing["metric"] == "llm_test_accuracy", "value"]
    if len(raw):
        axes.axhline(raw.mean(), color="0.2", linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(
            "probe on all raw activations",
            (1, raw.mean()),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize="small",
        )
    axes.set(xlabel="Probe on the best", ylabel="Probing accuracy, mean over data sets")
    axes.set_ylim(0.5, 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title(f"k = {k}", fontsize="medium")
    _place_legend(axes)
    return figure


def draw_atom_usage(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Histogram of how many held-out tokens use an atom; unused atoms in a bin of their own."""
    usage = styles.present(tables["usage"])
    usage = usage[~usage["method"].isin(styles.controls)]
    n_atoms, k = _most_frequent(usage)
    usage = usage[(usage["n_atoms"] == n_atoms) & (usage["k"] == k)]
    usage = usage[usage["seed"] == usage["seed"].min()]
    lowest = 1 / usage["tokens"].max()
    edges = np.geomspace(lowest / 2, 1, 41)
    figure, axes = _new_figure()
    for label in styles.among(usage):
        rows = usage[usage["label"] == label]
        share = (rows["count"] / rows["tokens"]).clip(lower=lowest / 1.9)
        unused = int((rows["count"] == 0).sum())
        axes.hist(
            share,
            bins=edges.tolist(),
            histtype="step",
            linewidth=1.6,
            color=styles.palette[label],
            label=f"{label} ({unused} unused)",
        )
    axes.axvline(k / n_atoms, color="0.5", linewidth=1, linestyle=":")
    axes.annotate(
        "all equal",
        (k / n_atoms, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -3),
        textcoords="offset points",
        va="top",
        fontsize="small",
        color="0.4",
    )
    axes.set(
        xscale="log",
        xlabel="Share of held-out tokens that use the atom\n(leftmost bin: no token)",
        ylabel="Atoms",
        title=f"{n_atoms} atoms, k = {k}",
    )
    axes.title.set_fontsize("medium")
    _place_legend(axes)
    return figure


def _new_figure() -> tuple[Figure, Axes]:
    return plt.subplots(figsize=SIZE, layout="constrained")


def _place_legend(axes: Axes) -> None:
    axes.legend(title=None, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], Styles], Figure]] = {
    "variance_explained": draw_variance_explained,
    "cost": draw_cost,
    "convergence": draw_convergence,
    "probing": draw_probing,
    "atom_usage": draw_atom_usage,
}
