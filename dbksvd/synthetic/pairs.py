"""Pairs of features that are kept apart in training: compositions never seen together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, triu, vstack
from torch import Tensor

from dbksvd.base.splits import SPLITS
from dbksvd.synthetic.base import GenerativeModel, mix_seed
from dbksvd.synthetic.settings import HeldOutPairs

BLOCKS, BLOCK_ROWS = 16, 1024  # samples that pairs are chosen on, drawn for that alone
TOGETHER = 10  # of them, at the least, on which a pair fires
OFTEN = 20  # of them on which a feature fires that has to go on firing without the pairs
OVERSHOOT = 1.25  # most of the wanted share


def choose_pairs(model: GenerativeModel[Any], settings: HeldOutPairs) -> Tensor:
    """Draw pairs of features until the wanted share of samples holds at least one of them.

    Pairs come in random order from all that fire together often enough. One is left out if it
    would take a feature more than half of the samples on which that fires (so a child is not kept
    from the parent that it needs), or bring the share above `OVERSHOOT` times the wanted one.

    Parameters
    ----------
    model : GenerativeModel
        The model.
    settings : HeldOutPairs
        Share and seed.

    Returns
    -------
    int64 tensor of shape (pairs, 2)
        Numbers of the features, on the CPU; the lower one first.

    Raises
    ------
    ValueError
        If no features fire together, or their pairs do not make up the share.
    """
    fires = _draw_fires(model, settings.seed)
    n = fires.shape[0]
    together = triu(fires.T @ fires, k=1, format="coo")
    often = together.data >= TOGETHER
    candidates = np.stack([together.row[often], together.col[often]], axis=1)
    if not len(candidates):
        raise ValueError(
            f"held_out_pairs: expected features that fire together on {TOGETHER} of {n} samples, "
            "got none"
        )
    order = np.random.default_rng(settings.seed).permutation(len(candidates))
    chosen, held = _take(fires, candidates[order], settings.share * n)
    if held < settings.share * n:
        raise ValueError(
            "held_out_pairs.share: expected a share that pairs make up, or exceed by less than "
            f"{OVERSHOOT - 1:.0%}, while each feature goes on firing without them; {len(chosen)} "
            f"of {len(candidates)} pairs came to {held / n:.3f}, got {settings.share}"
        )
    return torch.from_numpy(np.array(chosen, dtype=np.int64))


def _draw_fires(model: GenerativeModel[Any], seed: int) -> csr_array:
    """Return 1 where a feature fires on a sample; the samples are in no split."""
    blocks = []
    for block in range(BLOCKS):
        with torch.random.fork_rng():
            torch.manual_seed(mix_seed(seed, len(SPLITS), block))
            codes, _ = model.draw_codes(BLOCK_ROWS)
        blocks.append(csr_array((codes > 0).cpu().numpy().astype(np.int32)))
    return vstack(blocks, format="csr")


def _take(fires: csr_array, candidates: np.ndarray, wanted: float) -> tuple[list[Any], int]:
    """Return the pairs that are taken in their order, and how many samples hold one of them."""
    columns, held = csc_array(fires), np.zeros(fires.shape[0], dtype=bool)
    total = fires.sum(axis=0)
    kept, often, chosen = total.copy(), total >= OFTEN, []
    for pair in candidates:
        if held.sum() >= wanted:
            break
        first, second = (
            columns.indices[columns.indptr[each] : columns.indptr[each + 1]] for each in pair
        )
        both = np.intersect1d(first, second, assume_unique=True)
        new = both[~held[both]]
        left = kept - fires[new].sum(axis=0)
        if held.sum() + len(new) > OVERSHOOT * wanted or (2 * left < total)[often].any():
            continue
        held[new], kept = True, left
        chosen.append(pair)
    return chosen, int(held.sum())


def hold_pair(codes: Tensor, pairs: Tensor) -> Tensor:
    """Return whether both features of a pair fire on each sample.

    Parameters
    ----------
    codes : tensor of shape (n, n_features)
        Dense, ≥ 0.
    pairs : int64 tensor of shape (pairs, 2)
        Numbers of the features.

    Returns
    -------
    bool tensor of shape (n,)
        On the device of the codes.
    """
    fires, pairs = codes > 0, pairs.to(codes.device)
    return (fires[:, pairs[:, 0]] & fires[:, pairs[:, 1]]).any(dim=1)


def draw_without(
    model: GenerativeModel[Any], n: int, pairs: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Draw `n` samples as ``model.draw_codes`` does, and draw anew those that hold a pair.

    Samples without a pair are those of ``model.draw_codes`` from the same state of torch's global
    generator. Further draws of `n` fill the other places in order.

    Returns
    -------
    codes, component
        As of :meth:`dbksvd.synthetic.base.GenerativeModel.draw_codes`.
    """
    codes, component = model.draw_codes(n)
    wrong = hold_pair(codes, pairs).nonzero()[:, 0]
    while len(wrong):
        more, parts = model.draw_codes(n)
        good = (~hold_pair(more, pairs)).nonzero()[: len(wrong), 0]
        places, wrong = wrong[: len(good)], wrong[len(good) :]
        codes[places] = more[good]
        if component is not None and parts is not None:
            component[places] = parts[good]
    return codes, component
