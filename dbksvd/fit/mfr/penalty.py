"""The penalty of mutual feature regularisation, and what decides whether an SAE begins anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.ops.matching import match_exactly


def match_rows(first: Tensor, second: Tensor) -> Tensor:
    """Return the row of `second` that is matched to each row of `first`, int64 of shape (m,).

    The sum of cosines of all pairs is as large as it can be.

    Parameters
    ----------
    first, second : tensors of shape (m, d)
        Weights of two SAEs; no gradient flows through the choice.
    """
    return torch.from_numpy(match_exactly(first, second)[:, 1].copy()).to(first.device)


def match_pairs(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the matching of each pair of SAEs, in the order of `itertools.combinations`."""
    return [match_rows(first, second) for first, second in combinations(weights, 2)]


def find_penalty(weights: Sequence[Tensor], matchings: Sequence[Tensor]) -> Tensor:
    """Return the mean over pairs of SAEs of 1 − the mean cosine of matched rows, a scalar.

    Parameters
    ----------
    weights : sequence of tensors of shape (m, d)
        Of each SAE; gradients flow to all.
    matchings : sequence of int64 tensors of shape (m,)
        As `match_pairs` returns them.
    """
    atoms = [normalize(rows, dim=1) for rows in weights]
    shared = [
        (first * second[places]).sum(dim=1).mean()
        for (first, second), places in zip(combinations(atoms, 2), matchings, strict=True)
    ]
    return 1 - torch.stack(shared).mean()


def ramp(step: int, n_steps: int) -> float:
    """Return ½ (1 + cos(π (T − t) / T)) for step t of T = `n_steps`; 1 after those."""
    return 0.5 * (1 + math.cos(math.pi * max(0, n_steps - step) / n_steps))


def measure_imbalance(usage: Tensor, n_samples: int, k: int) -> float:
    """Return (mean over atoms of |r − r*| / r*)³ for rates r and r* = k / m.

    Parameters
    ----------
    usage : tensor of shape (m,)
        Samples that each atom fires on.
    n_samples, k : int
        Samples there were; non-zeros of each.
    """
    expected = k / len(usage)
    rates = usage.double() / n_samples
    return float((rates - expected).abs().mean() / expected) ** 3
