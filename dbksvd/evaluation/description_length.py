"""How many bits a token takes when its codes are sent: the description length of a dictionary."""

from __future__ import annotations

import math

import torch
from scipy.special import entr
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.dictionary import SparseDictionary

DISTORTION = 0.005  # of the variance: how much less of it may be explained after rounding
BINS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096)


def measure_description(
    dictionary: SparseDictionary,
    x: Tensor,
    codes: SparseCodes,
    *,
    signed: bool,
    distortion: float = DISTORTION,
) -> dict[str, float]:
    """Return the description length of codes with the fewest bins that keep the distortion.

    Parameters
    ----------
    dictionary : SparseDictionary
        The dictionary; it is not sent.
    x : tensor of shape (n, d)
        Samples.
    codes : SparseCodes
        Their codes.
    signed : bool
        Whether a coefficient needs a sign bit.
    distortion : float
        Most that variance explained may fall by, ε.

    Returns
    -------
    dict
        ``description_length`` (bits a token, :func:`count_bits`), ``description_bins``,
        ``description_variance`` (variance explained by the rounded codes) and
        ``description_plain`` (:func:`count_plain_bits` with as many bins).

    References
    ----------
    Ayonrinde, Pearce and Sharkey (2024), arXiv:2410.11179: the shortest description among those of
    bounded distortion.
    """
    least = _explain(dictionary, x, codes) - distortion
    for bins in BINS:
        rounded, numbers = round_codes(codes, bins)
        explained = _explain(dictionary, x, rounded)
        if explained >= least:
            break
    l0 = float(codes.l0.double().mean())
    plain = count_plain_bits(l0, codes.n_atoms, math.log2(bins) + signed)
    return {
        "description_length": count_bits(codes, numbers, bins, signed=signed),
        "description_bins": bins,
        "description_variance": explained,
        "description_plain": plain,
    }


def round_codes(codes: SparseCodes, bins: int) -> tuple[SparseCodes, Tensor]:
    """Round magnitudes to the middles of equal bins; zeros and signs stay as they are.

    The bins of an atom reach from its smallest magnitude to its largest.

    Parameters
    ----------
    codes : SparseCodes
        Codes of n samples.
    bins : int
        Bins of each atom.

    Returns
    -------
    codes : SparseCodes
        Rounded.
    numbers : int64 tensor of shape (n, k)
        Bin of each slot; 0 where the slot is not used.
    """
    used, magnitudes = codes.values != 0, codes.values.abs().double()
    atoms = codes.indices[used]
    low = magnitudes.new_full((codes.n_atoms,), torch.inf)
    low = low.scatter_reduce(0, atoms, magnitudes[used], "amin")
    high = magnitudes.new_zeros(codes.n_atoms).scatter_reduce(0, atoms, magnitudes[used], "amax")
    step = ((high - low) / bins)[codes.indices]
    first = low[codes.indices]
    numbers = torch.where(step > 0, (magnitudes - first) / step, 0).nan_to_num().floor().long()
    numbers = numbers.clamp(0, bins - 1) * used
    middles = first + (numbers + 0.5) * step
    values = torch.where(used, middles * codes.values.sign(), 0).to(codes.values)
    return SparseCodes(codes.indices, values, codes.n_atoms), numbers


def count_bits(codes: SparseCodes, numbers: Tensor, bins: int, *, signed: bool) -> float:
    """Return ``Σⱼ [H(pⱼ) + pⱼ (H(bin | active) + sign)]`` in bits a sample.

    pⱼ is the share of samples in which atom j is not zero; entropies are those of the samples'
    own frequencies.

    Parameters
    ----------
    codes : SparseCodes
        Codes of n samples.
    numbers : int64 tensor of shape (n, k)
        Bin of each slot.
    bins : int
        Bins of an atom.
    signed : bool
        Whether an active coefficient takes one more bit, its sign.
    """
    used, m = codes.values != 0, codes.n_atoms
    cells = (codes.indices * bins + numbers)[used]
    counts = torch.bincount(cells, minlength=m * bins).view(m, bins).double().cpu().numpy()
    active = counts.sum(axis=1)
    chance = active / len(codes)
    # p H(bin | active) = Σ entr(p · share) − entr(p), in nats
    joint = entr(counts / len(codes)).sum() - entr(chance).sum()
    nats = entr(chance).sum() + entr(1 - chance).sum() + joint
    return float(nats / math.log(2) + signed * chance.sum())


def count_plain_bits(l0: float, n_atoms: int, bits: float) -> float:
    """Return bits a sample where each non-zero is sent as its atom's number and its value.

    Dense codes need no numbers of atoms: all values are sent where that is shorter.

    Parameters
    ----------
    l0 : float
        Mean number of non-zeros.
    n_atoms : int
        m.
    bits : float
        Of a value.
    """
    return min(l0 * (bits + math.log2(n_atoms)), n_atoms * bits if bits else math.inf)


def _explain(dictionary: SparseDictionary, x: Tensor, codes: SparseCodes) -> float:
    variance = ExplainedVariance(x.shape[1], dictionary.atoms.device)
    variance.add(x.to(dictionary.atoms.device), dictionary.decode(codes))
    return variance.compute()
