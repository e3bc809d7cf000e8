"""Variance explained in parts: groups of held-out documents, from which its noise is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.shards import ActivationShards, RowLabels
from dbksvd.base.variance import ExplainedVariance

GROUPS = 32
DOCUMENTS = 2  # least of a group


def group_rows(labels: RowLabels) -> np.ndarray | None:
    """Return the number of the group of each row; None where there are too few documents.

    All rows of a document are in one group, and documents are dealt to `GROUPS` groups at random.
    Where documents are not known (−1), groups are stretches of the file, in which neighbours that
    may resemble each other stay together.

    Parameters
    ----------
    labels : RowLabels
        Where the rows come from.

    Returns
    -------
    int array of shape (n,), or None
        From 0 to at most ``GROUPS − 1``.
    """
    known = bool((labels.document >= 0).all())
    _, units = np.unique(labels.document if known else labels.position, return_inverse=True)
    count = int(units.max()) + 1
    groups = min(GROUPS, count // DOCUMENTS)
    if groups < 2:
        return None
    if known:
        return np.asarray(np.random.default_rng(0).permutation(count)[units] % groups)
    return np.asarray(units * groups // count)


def group_heldout(activations: object) -> np.ndarray | None:
    """Return the groups of the rows of shards; None for rows that nothing is known of."""
    if not isinstance(activations, ActivationShards):
        return None
    return group_rows(activations.read_labels(0, len(activations)))


class GroupedVariance:
    """Variance explained, split over groups of rows into parts whose mean it is.

    With E_g the squared error of a group, S_g its squared distance from the mean of all rows, G
    groups and r = 1 − ΣE/ΣS, the part of a group is ``r + G ((1 − r) S_g − E_g) / ΣS``: the
    linearised ratio (Cochran 1977, section 2.11; Woodruff 1971), so that the spread of the parts,
    divided by √G, is the standard error of r over documents. The difference of two dictionaries'
    parts does the same for their difference, paired.

    Parameters
    ----------
    groups : int array of shape (n,)
        Group of each row.
    width : int
        Width d of the rows.
    device : device
        Where sums are kept.
    """

    def __init__(self, groups: np.ndarray, width: int, device: torch.device | str = "cpu") -> None:
        self.groups = torch.from_numpy(groups)
        self.sums = [ExplainedVariance(width, device) for _ in range(int(groups.max()) + 1)]
        self._row = 0

    def add(self, x: Tensor, reconstruction: Tensor) -> None:
        """Take in the next rows (b, d) and their reconstructions."""
        here = self.groups[self._row : self._row + len(x)]
        self._row += len(x)
        for group in here.unique().tolist():
            chosen = here == group
            self.sums[group].add(x[chosen.to(x.device)], reconstruction[chosen.to(x.device)])

    def compute(self) -> list[float]:
        """Return the part of each group; their mean is the variance explained of all rows."""
        rows = torch.tensor([each.rows for each in self.sums], dtype=torch.float64)
        means = torch.stack([each.mean for each in self.sums]).cpu()
        away = (means - (rows @ means) / rows.sum()).square().sum(dim=1)
        squares = torch.tensor([each.squares for each in self.sums], dtype=torch.float64)
        squares += rows * away
        errors = torch.tensor([each.error for each in self.sums], dtype=torch.float64)
        left = errors.sum() / squares.sum()
        parts = 1 - left + len(rows) * (left * squares - errors) / squares.sum()
        return [float(part) for part in parts]
