"""Published numbers, found only where model, layer and metric are the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dbksvd.base.site import Site

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ["source", "version", "model", "layer", "method", "width", "k", "metric", "value"]


def load_published(path: Path | None, model: str | None) -> pd.DataFrame:
    """Return the published numbers of a model; an empty table without a file or model.

    Parameters
    ----------
    path : Path or None
        CSV with `COLUMNS`; see ``results/reference/README.md``.
    model : str or None
        Folder or name on the hub; its last part is compared.

    Raises
    ------
    ValueError
        If the file has other columns.
    """
    if path is None or model is None:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path}: expected columns {COLUMNS}, got {list(table.columns)}")
    table = table.astype({"layer": "Int64", "width": "Int64", "k": "Int64"})
    return table[table["model"] == Path(model).name]


def find_published(table: pd.DataFrame, layer: int, metric: str) -> pd.DataFrame:
    """Return the published numbers of a metric at a layer, perhaps none.

    Parameters
    ----------
    table : DataFrame
        From :func:`load_published`: numbers of one model.
    layer : int
        Blocks that have run, as in the config: TransformerLens's ``blocks.12.hook_resid_post`` is
        layer 13. A number whose layer is not known matches none.
    metric : str
        Name in ``scores.csv``.
    """
    is_layer = (table["layer"] == layer).fillna(False).astype(bool)
    return table[is_layer & (table["metric"] == metric)]


def mark_published(axes: Axes, table: pd.DataFrame | None, site: str, metric: str) -> None:
    """Mark the published numbers of a metric at a site such as ``layer13``; often there are none.

    Parameters
    ----------
    axes : Axes
        With k or L0 on the x axis and the metric on the y axis.
    table : DataFrame or None
        From :func:`load_published`.
    site : str
        Where the activations come from; only a layer has published numbers.
    metric : str
        Name in ``scores.csv``.
    """
    layers = _list_trained([site])
    if table is not None and layers:
        draw_published(axes, find_published(table, layers[0], metric))


def has_published(table: pd.DataFrame | None, sites: Iterable[str], metric: str) -> bool:
    """Return whether there are published numbers of a metric at any of some sites."""
    return table is not None and any(
        not find_published(table, layer, metric).empty for layer in _list_trained(sites)
    )


def _list_trained(sites: Iterable[str]) -> list[int]:
    """Return the layers whose output is among sites, of the model as it was trained."""
    parsed = [site for site in map(Site.parse, sites) if site.is_residual and not site.is_random]
    return [site.layer for site in parsed if site.layer is not None]


def draw_published(axes: Axes, rows: pd.DataFrame) -> None:
    """Mark published numbers by k: one hollow black marker for each method and width.

    Nothing is drawn for no rows.
    """
    markers = ("o", "s", "^", "D", "v", "P", "X", "*")
    for position, ((source, method, width), group) in enumerate(
        rows.groupby(["source", "method", "width"], dropna=False)
    ):
        # Bars without length: legends list them behind the lines of the experiment's own methods.
        axes.errorbar(
            group["k"].astype(float),
            group["value"],
            fmt=markers[position % len(markers)],
            markersize=7,
            markerfacecolor="none",
            color="black",
            label=f"{method}, {width} atoms ({source.split(',')[0]})",
        )
