"""Where routers send the samples of each component of a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Facts, Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles

MOST_ANNOTATED = 16  # experts or components in a panel with numbers in its cells


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Where the samples of each component go: a panel for each kind of dictionary with a router.

    A row is a component and sums to 1; experts stand in the order of the components they serve.
    The first seed is shown, and the agreement of all.
    """
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import pick_metric

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
    """Draw the shares of each component's samples, a colour bar beside the last panel."""
    import seaborn as sns

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


def applies(facts: Facts) -> bool:
    """Say whether a router was fitted to samples of a mixture."""
    return facts.ground_truth == "expert_mixture" and "switch" in facts.architectures


FIGURE = Figure(
    draw=draw,
    tables=("scores", "routing"),
    applies=applies,
    caption=(
        "Where a router sends the samples of each component of the mixture, first seed; a row sums "
        "to 1. One expert for each component would be a diagonal of ones. Adjusted mutual "
        "information of expert and component is 0 for chance and 1 for a perfect match, mean over "
        "seeds (lowest to highest)."
    ),
)
