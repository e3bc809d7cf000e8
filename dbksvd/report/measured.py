"""From ``scores.csv`` to the numbers of one score: a table of seeds and parts for each method."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd

from dbksvd.base.headline import Headline
from dbksvd.base.layout import KEYS
from dbksvd.report.noise import SeedNoise, pool_seeds

SIZES = [key for key in KEYS if key != "seed"]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Measured:
    """One score of one kind of dictionary.

    Parameters
    ----------
    whole : Series
        The score of each seed.
    parts : DataFrame
        Its parts: a row for each seed, a column for each part; empty where it has none.
    """

    whole: pd.Series
    parts: pd.DataFrame

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.whole)


def read_measured(
    scores: pd.DataFrame, headline: Headline
) -> dict[tuple[str, str, int, int], Measured]:
    """Return one score of every dictionary in its unit, by site, method, n_atoms and k."""
    parts = dict(list(headline.select_parts(scores).groupby(SIZES)))
    found = {}
    for key, rows in headline.select(scores).groupby(SIZES):
        whole = rows.set_index("seed")["value"].sort_index() / headline.unit
        table = pd.DataFrame(index=whole.index)
        if key in parts:
            table = parts[key].pivot(index="seed", columns="part", values="value")
            table = table.reindex(whole.index).dropna(axis="columns") / headline.unit
        found[key] = Measured(whole, table)
    return found


def pool_sites(
    measured: Mapping[tuple[str, str, int, int], Measured],
) -> dict[str, SeedNoise | None]:
    """Return the noise of seeds at each site, over all methods and sizes that have several."""
    sites: dict[str, list[np.ndarray]] = {}
    for (site, *_), each in measured.items():
        sites.setdefault(site, []).append(each.whole.to_numpy(float)[:, None])
    return {site: pool_seeds(tables) for site, tables in sites.items()}


def align(measured: Mapping[Name, Measured]) -> dict[Name, np.ndarray]:
    """Return float64 arrays of shape (seeds, parts) whose columns are the same for all.

    Without two parts that all have, there is one column: the score itself.
    """
    shared = [set(each.parts.columns) for each in measured.values()]
    columns = sorted(set.intersection(*shared)) if shared else []
    if len(columns) < 2:
        return {name: each.whole.to_numpy(float)[:, None] for name, each in measured.items()}
    return {name: each.parts[columns].to_numpy(float) for name, each in measured.items()}


def find_families(keys: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the sizes that stand beside each other, as groups of rows.

    Methods of one site, width and k are compared. A width that a method has alone, as raw neurons
    and principal components have, is compared with the width that has most methods at that k.

    Parameters
    ----------
    keys : DataFrame
        With ``site``, ``method``, ``n_atoms`` and ``k``, each row once.
    """
    families = []
    for _, group in keys.groupby(["site", "k"]):
        main = group.groupby("n_atoms").size().idxmax()
        elsewhere = ~group["method"].isin(group.loc[group["n_atoms"] == main, "method"])
        width = group["n_atoms"].where(~elsewhere, main)
        families += [rows for _, rows in group.groupby(width)]
    return families
