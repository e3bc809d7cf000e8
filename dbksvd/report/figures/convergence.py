"""How fast the fits learn: held-out error against seconds and against samples seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Held-out error against seconds and against samples seen, one k, every seed a line."""
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import find_shared_size, list_sites, place_legend

    curves = styles.present(tables["curves"].dropna(subset=["fve_heldout"]))
    whole = curves
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
            _draw_floor(axes, whole[whole["k"] == k], site, styles, label=column == "seconds")
        _label_error_axis(row[0], f", {site}" if len(sites) > 1 else "")
    for axes, label in zip(
        panels[-1], ("Fit time (seconds)", "Samples seen (tokens)"), strict=True
    ):
        axes.set_xlabel(label)
    place_legend(figure)
    figure.suptitle(f"{n_atoms} atoms, k = {k}", fontsize="medium")
    return figure


def _draw_curves(axes: Axes, curves: pd.DataFrame, column: str, styles: Styles) -> None:
    """Draw the errors of one site against a column: seconds or samples."""
    import seaborn as sns

    from dbksvd.report.figures.panels import label_powers

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


def _draw_floor(
    axes: Axes, curves: pd.DataFrame, site: str, styles: Styles, *, label: bool
) -> None:
    """Draw the least error that is left at the end by what learns nothing."""
    from dbksvd.base.layout import KEYS
    from dbksvd.report.figures.floors import draw_floor, find_floor

    ends = curves.groupby(list(KEYS), as_index=False).last()
    ends["error"] = 1 - ends["fve_heldout"]
    floor = find_floor(ends, site, styles, "error", lower_is_better=True)
    draw_floor(axes, floor, label=label)


def _label_error_axis(axes: Axes, where: str) -> None:
    """Label the axis of the errors, a logarithmic one, in percent."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from dbksvd.report.figures.shares import ShareFormatter

    axes.set_ylabel(f"Variance not explained,\nheld-out tokens{where}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(ShareFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


FIGURE = Figure(
    draw=draw,
    tables=("curves",),
    caption=(
        "Share of held-out variance not yet explained, against the seconds spent fitting and "
        "against the training samples seen (a sample counts every time it is used). Down and left "
        "is better. Each line is one seed; the dashed one is what the best of the controls that "
        "learn nothing of the data leaves at its end. Seconds are processor time unless the fit's "
        "``fit.json`` names another device."
    ),
)
