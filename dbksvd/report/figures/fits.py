"""Figures of the fits themselves: how fast they learn and how evenly atoms are used."""

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
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from dbksvd.report.figures.reconstruction import (
    find_shared_size,
    label_powers,
    list_sites,
    make_panels,
    place_legend,
)
from dbksvd.report.figures.styles import Styles


def draw_convergence(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Held-out error against seconds and against samples seen, one k, every seed a line."""
    curves = styles.present(tables["curves"].dropna(subset=["fve_heldout"]))
    curves = curves[~curves["method"].isin(styles.controls)]
    sites = list_sites(curves)
    curves = curves[curves["site"].isin(sites)]
    n_atoms, k = find_shared_size(curves)
    curves = curves[(curves["n_atoms"] == n_atoms) & (curves["k"] == k)].copy()
    curves["error"] = 1 - curves["fve_heldout"]
    figure, panels = plt.subplots(
        len(sites),
        2,
        figsize=(10.5, 4.2 * len(sites)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, site in zip(panels, sites, strict=True):
        for axes, column in zip(row, ("seconds", "samples_seen"), strict=True):
            _draw_curves(axes, curves[curves["site"] == site], column, styles)
        _label_error_axis(row[0], f", {site}" if len(sites) > 1 else "")
    for axes, label in zip(
        panels[-1], ("Fit time (seconds)", "Samples seen (tokens)"), strict=True
    ):
        axes.set_xlabel(label)
    place_legend(figure)
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _draw_curves(axes: Axes, curves: pd.DataFrame, column: str, styles: Styles) -> None:
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
    )
    axes.set(xlabel="", xscale="log", yscale="log")
    label_powers(axes)


def _label_error_axis(axes: Axes, where: str) -> None:
    axes.set_ylabel(f"Variance not explained,\nheld-out tokens{where}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_atom_usage(tables: dict[str, pd.DataFrame], styles: Styles) -> Figure:
    """Histogram of how many held-out tokens use an atom; unused atoms in a bin of their own."""
    usage = styles.present(tables["usage"])
    usage = usage[~usage["method"].isin(styles.controls)]
    usage = usage[usage["site"].isin(list_sites(usage))]
    n_atoms, k = find_shared_size(usage)
    usage = usage[(usage["n_atoms"] == n_atoms) & (usage["k"] == k)]
    usage = usage[usage["seed"] == usage["seed"].min()]
    figure, panels = make_panels(usage)
    for axes, rows in panels:
        _draw_usage(axes, rows, styles)
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
        )
        # The number of unused atoms is the panel's own.
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.axes[0].set_ylabel("Atoms")
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _draw_usage(axes: Axes, usage: pd.DataFrame, styles: Styles) -> None:
    lowest = 1 / usage["tokens"].max()
    edges = np.geomspace(lowest / 2, 1, 41)
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


FIT_FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], Styles], Figure]] = {
    "convergence": draw_convergence,
    "atom_usage": draw_atom_usage,
}
