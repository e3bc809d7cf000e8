"""Which labels of the sae-probes data sets an atom predicts on its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from dbksvd.base.files import check_folder
from dbksvd.dictionaries.dictionary import SparseDictionary

LISTED = 3
BLOCK = 2048
EVAL = "sparse_probing_sae_probes"


@dataclass(frozen=True)
class Probes:
    """Labelled activations: of each data set, rows (n, d) and their labels 0 or 1 (n,)."""

    names: list[dict[str, Any]]
    sets: list[tuple[Tensor, np.ndarray]]

    @classmethod
    def open(cls, prepared: str | Path) -> Probes:
        """Read the folder that was prepared for the eval ``sparse_probing_sae_probes``.

        Raises
        ------
        FileNotFoundError, DamagedFileError, ValueError
            If the folder is not there, not what its manifest says, or of another eval.
        """
        from sae_probes.utils_data import get_yvals, read_numbered_dataset_df

        from dbksvd.evaluation.saebench.shims.common import limit_rows

        manifest_file = Path(prepared) / "manifest.json"
        manifest = check_folder(manifest_file)
        if manifest.get("eval") != EVAL:
            raise ValueError(f"{manifest_file}: eval: expected {EVAL}, got {manifest.get('eval')}")
        names, sets = [], []
        settings = manifest["settings"]
        with limit_rows(settings["rows"]):
            for name in settings["datasets"]:
                files = list(Path(prepared).glob(f"model_activations_*/{name}_*.pt"))
                if len(files) != 1:
                    raise ValueError(
                        f"{prepared}: expected one file of activations of {name}, got {len(files)}"
                    )
                rows = torch.load(files[0], map_location="cpu", weights_only=True)
                labels = get_yvals(name)
                if len(rows) != len(labels):
                    raise ValueError(
                        f"{files[0]}: expected {len(labels)} rows, one a label, got {len(rows)}"
                    )
                classes = np.unique(read_numbered_dataset_df(name)["target"].to_numpy())
                names.append({"dataset": name, "positive": str(classes[-1])})
                sets.append((rows.float(), labels.astype(bool)))
        return cls(names, sets)


def score_probes(dictionary: SparseDictionary, probes: Probes) -> dict[str, np.ndarray]:
    """Return the labels that each atom's coefficient separates best.

    Returns
    -------
    dict
        ``probe_label`` int32 and ``probe_auc`` float32 (m, p): data sets by falling |AUC − ½|, and
        the area under the curve of the coefficient, with its sign: below ½ the atom speaks against
        the label. Nothing is fitted, so all rows count.
    """
    areas = np.stack([measure_areas(dictionary, *one) for one in probes.sets], axis=1)
    # rounded, so that as much above ½ as another is below it is a tie
    distance = np.abs(areas - 0.5).round(12)
    order = np.argsort(-distance, axis=1, kind="stable")[:, :LISTED]
    return {
        "probe_label": order.astype(np.int32),
        "probe_auc": np.take_along_axis(areas, order, axis=1).astype(np.float32),
    }


def measure_areas(dictionary: SparseDictionary, rows: Tensor, labels: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each atom's coefficient, float64 of shape (m,)."""
    codes = dictionary.encode(rows.to(dictionary.atoms)).to("cpu")
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    m = codes.n_atoms
    areas = np.full(m, 0.5)
    dense = np.zeros((len(rows), min(m, BLOCK)), np.float32)
    indices, values = codes.indices.numpy(), codes.values.float().numpy()
    for start in range(0, m, BLOCK):
        inside = (values != 0) & (indices >= start) & (indices < start + BLOCK)
        row, slot = np.nonzero(inside)
        dense[:] = 0
        dense[row, indices[row, slot] - start] = values[row, slot]
        active = np.flatnonzero(np.bincount(indices[row, slot] - start, minlength=1))
        if len(active) and pairs:
            ranks = rankdata(dense[:, active], axis=0)[labels].sum(axis=0)
            areas[start + active] = (ranks - positives * (positives + 1) / 2) / pairs
    return areas
