"""Scores of a few dictionaries before any of them is evaluated: held-out samples and the fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dbksvd.base.files import read_seal
from dbksvd.base.layout import KEYS, SEAL_FILE
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.report.collect import SCORE_COLUMNS, Row, list_metrics, name_parts

if TYPE_CHECKING:
    import torch

    from dbksvd.activations.shards import ActivationShards


def measure_first(
    rows: Sequence[Row], heldout: ActivationShards, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Return the scores that :func:`dbksvd.report.collect.collect_scores` will have of the fits.

    Parameters
    ----------
    rows : sequence of mappings
        Keys and folders of each dictionary (:func:`dbksvd.base.layout.expand_rows`).
    heldout : ActivationShards
        Held-out samples.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    DataFrame
        Columns site, method, n_atoms, k, seed, eval (``heldout`` or ``fit``), metric, value.
    """
    table = []
    for row in rows:
        folder = Path(row["dictionary"])
        measured = measure_folder(folder, heldout, device)
        parts = name_parts(measured.get("parts", {}))
        found = {"heldout": {**measured, **parts}, "fit": read_seal(folder / SEAL_FILE)}
        keys = [row[key] for key in KEYS]
        for name, metrics in found.items():
            numbers, _ = list_metrics(metrics)
            table += [[*keys, name, metric, value] for metric, value in numbers]
    return pd.DataFrame(table, columns=SCORE_COLUMNS)
