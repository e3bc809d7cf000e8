"""Accuracy of probes that see a few atoms only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

EVAL = "sparse_probing_sae_probes"
CHANCE = 0.5  # accuracy of a guess: the data sets have two classes of one size
BASELINE = "llm_test_accuracy"  # SAEBench's name for a probe on all raw activations


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Accuracy of probes on few atoms, mean over data sets; bars over seeds from least to most."""
    import seaborn as sns

    from dbksvd.report.figures.panels import keep_shared_size, make_panels, place_legend
    from dbksvd.report.figures.shares import ShareFormatter

    scores = styles.present(tables["scores"])
    probing = scores[scores["eval"] == EVAL]
    columns = {
        f"sae_top_{count}_test_accuracy": f"{count} atom{'s' if count > 1 else ''}"
        for count in (1, 2, 5)
    }
    table = probing[probing["metric"].isin(columns)].copy()
    if table.empty:
        raise ValueError(f"scores: expected rows of {EVAL}, got none")
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
        _draw_floors(axes, table, rows["site"].iloc[0], list(columns.values()), styles)
        here = probing["site"] == rows["site"].iloc[0]
        _draw_raw(axes, probing.loc[here & (probing["metric"] == BASELINE), "value"])
        axes.set(xlabel="Probe on the best", ylabel="", ylim=(0, 1))
        axes.axhline(CHANCE, color="0.4", linewidth=1, linestyle=":", zorder=0)
        axes.yaxis.set_major_formatter(ShareFormatter())
    figure.axes[0].set_ylabel("Probing accuracy, mean over data sets")
    place_legend(figure)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_floors(
    axes: Axes, table: pd.DataFrame, site: str, probes: list[str], styles: Styles
) -> None:
    """Draw the floor of each group of bars across it."""
    from dbksvd.report.figures.floors import find_floor

    for place, probe in enumerate(probes):
        floor = find_floor(table[table["probe"] == probe], site, styles, "value")
        if floor is None:
            continue
        ends = (place - 0.46, place + 0.46)
        axes.hlines(floor.value, *ends, color="0.35", linewidth=1, linestyle="--", zorder=4)
        axes.annotate(
            floor.short,
            (ends[1], floor.value),
            xytext=(0, 1),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="0.3",
            fontsize="xx-small",
        )


def _draw_raw(axes: Axes, values: pd.Series) -> None:
    """Draw the line of a probe on all raw activations, the mean of `values`."""
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


def applies(facts: Facts) -> bool:
    """Say whether the eval is run."""
    return EVAL in facts.evals


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    applies=applies,
    caption=(
        "SAEBench's sparse_probing_sae_probes: test accuracy of a logistic probe that sees only "
        "the 1, 2 or 5 most telling atoms, mean over the data sets of the config, none of whose "
        "texts were fitted. Bars reach from the lowest to the highest seed. The dashed line is a "
        "probe that sees all raw activations, the dotted one is chance; the short dashed one over "
        "a group is its floor, the best of the controls that learn nothing of the data. A permuted "
        "decoder keeps the latents of its SAE and so its scores."
    ),
)
