"""Whether k is right, from a dictionary and samples alone: docs/sparsity.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.evaluation.description_length import measure_description

ROWS = 8192  # samples that are looked at: shards are shuffled, so the first are a fair sample
BLOCK_BYTES = 2**26  # of products, float32
# The entry n·B of the sorted projections of B samples, n as this fraction of the atoms.
PLACES = {"decoder_projection": 8, "decoder_projection_far": 4}
KEY_BITS = 16  # of a float32, which one pass over the projections decides


class SparsitySample:
    """The first samples of a measurement with their codes, for all that is said of k.

    Parameters
    ----------
    rows : int
        Most samples kept.
    """

    def __init__(self, rows: int = ROWS) -> None:
        self.room = rows
        self.samples: list[Tensor] = []
        self.codes: list[SparseCodes] = []

    def add(self, x: Tensor, codes: SparseCodes) -> None:
        """Take in samples (n, d) and their codes, as many as there is room for."""
        kept = min(len(x), self.room)
        if kept:
            self.samples.append(x[:kept])
            self.codes.append(codes[:kept])
            self.room -= kept

    def measure(self, dictionary: SparseDictionary) -> dict[str, float | None]:
        """Return the scores.

        Returns
        -------
        dict
            ``decoder_projection``, ``decoder_projection_far`` (:func:`find_projections`, at n =
            m / 8 and m / 4), ``coherence`` (:func:`measure_coherence`), and those of
            :func:`dbksvd.evaluation.description_length.measure_description`.
        """
        x, codes = torch.cat(self.samples), concatenate_codes(self.codes)
        signed = bool((codes.values < 0).any())
        m = len(dictionary.atoms)
        places = [max(m // part, 1) for part in PLACES.values()]
        found = find_projections(x, dictionary.atoms, dictionary.bias, places, signed=signed)
        scores: dict[str, Any] = dict(zip(PLACES, found, strict=True))
        scores["coherence"] = measure_coherence(dictionary.atoms)
        return scores | measure_description(dictionary, x, codes, signed=signed)


def find_projections(
    x: Tensor, atoms: Tensor, bias: Tensor, places: Sequence[int], *, signed: bool
) -> list[float]:
    """Return the entries n·B of ``(X − b) W_decᵀ``, sorted from the largest on, for B samples.

    Atoms that mix several features project on many samples a little, so that this entry rises
    when k is too low or too high. The entry is exact: two passes over the products count the high
    and the low half of their bits, and nothing of size B × m is kept.

    Parameters
    ----------
    x : tensor of shape (B, d)
        Samples.
    atoms, bias : tensors of shape (m, d) and (d,)
        The decoder; atoms are taken at unit norm.
    places : sequence of int
        Each n, in atoms: from 1 to below m.
    signed : bool
        Whether an atom also stands for its opposite: magnitudes are sorted, which are the upper
        half of the entries of the 2m atoms ``[D; −D]``.

    Returns
    -------
    list of float
        In the unit of the samples; the last entry where n·B is beyond it.

    References
    ----------
    Chanin and Garriga-Alonso (2025), arXiv:2508.16560, the n-th decoder projection.
    """
    unit = normalize(atoms.float(), dim=1).T.contiguous()
    rows = max(BLOCK_BYTES // (4 * unit.shape[1]), 1)

    def list_keys() -> Any:
        for block in x.split(rows):
            products = (block.to(unit) - bias.to(unit)) @ unit
            yield _order_bits(products.abs() if signed else products)

    wanted = [min(n * len(x), len(x) * len(atoms) - 1) for n in places]
    size = 1 << KEY_BITS
    counts = np.zeros(size, np.int64)
    for keys in list_keys():
        counts += np.bincount(keys >> KEY_BITS, minlength=size)
    above = counts.sum() - np.cumsum(counts)  # entries in higher bins
    highs = [int(np.flatnonzero(above <= place)[0]) for place in wanted]
    lows = {high: np.zeros(size, np.int64) for high in highs}
    for keys in list_keys():
        for high, low in lows.items():
            low += np.bincount(keys[keys >> KEY_BITS == high] & (size - 1), minlength=size)
    found = []
    for place, high in zip(wanted, highs, strict=True):
        before = above[high] + lows[high].sum() - np.cumsum(lows[high])
        found.append(_read_bits(high << KEY_BITS | int(np.flatnonzero(before <= place)[0])))
    return found


def _order_bits(values: Tensor) -> np.ndarray:
    """Return int64 keys in the order of float32 values."""
    bits = values.reshape(-1).cpu().numpy().view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def _read_bits(key: int) -> float:
    """Return the float32 of a key."""
    bits = key ^ (1 << 31) if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))


def measure_coherence(atoms: Tensor, block: int = 1024) -> float | None:
    """Return the mean of |cos| over all pairs of atoms; None for a single atom.

    References
    ----------
    Chanin and Garriga-Alonso (2025), arXiv:2508.16560, c_dec.
    """
    m = len(atoms)
    if m < 2:
        return None
    unit = normalize(atoms.float(), dim=1)
    total = math.fsum(
        float((rows @ unit.T).abs().sum(dtype=torch.float64)) for rows in unit.split(block)
    )
    own = float(unit.square().sum(dtype=torch.float64))
    return (total - own) / (m * (m - 1))
