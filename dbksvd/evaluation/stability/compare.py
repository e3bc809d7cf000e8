"""Two dictionaries compared atom by atom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dbksvd.evaluation.stability.coactivation import CodeColumns, Correlations
from dbksvd.evaluation.stability.subspaces import measure_overlap
from dbksvd.ops.matching import Cosines, Matching, match

# Matched atoms of at least these cosines are shared (Paulo and Belrose 2025, arXiv:2501.16615).
SHARED = {"shared_07": 0.7, "shared_09": 0.9}
UNMATCHED_BELOW = SHARED["shared_07"]


@dataclass(frozen=True)
class Seed:
    """A dictionary of one seed, with its codes on the rows that all seeds code.

    Parameters
    ----------
    atoms : floating tensor of shape (m, d)
        Unit atoms.
    codes : CodeColumns
        Of n samples.
    """

    atoms: Tensor
    codes: CodeColumns


@dataclass(frozen=True)
class Comparison:
    """Two dictionaries, side 0 and side 1, with their matchings.

    Parameters
    ----------
    sides : tuple of Seed
        The dictionaries.
    by_atoms, by_codes : Matching
        The pairs by cosine of atoms, and by correlation of codes.
    overlap : (float, float), or None
        Of the spans of unmatched atoms, with its floor
        (:func:`dbksvd.evaluation.stability.subspaces.measure_overlap`).
    """

    sides: tuple[Seed, Seed]
    by_atoms: Matching
    by_codes: Matching
    overlap: tuple[float, float] | None

    def describe(self, side: int) -> dict[str, float | None]:
        """Return the scores of the dictionary on one side (0 or 1); docs/stability.md has them."""
        cosine, correlation = self.by_atoms.spread(side), self.by_codes.spread(side)
        is_used = self.sides[side].codes.is_used
        overlap, floor = self.overlap or (None, None)
        found: dict[str, float | None] = {
            "pw_mcc": _average(cosine),
            "mmcs": float(np.mean([near.mean(dtype=float) for near in self.by_atoms.nearest])),
            **{name: float((cosine >= least).mean()) for name, least in SHARED.items()},
            "used_pw_mcc": _average(cosine[is_used]),
            "coactivation": _average(correlation[is_used]),
        }
        for name, least in SHARED.items():
            found[f"coactivation_{name}"] = _average(correlation[is_used] >= least)
        return found | {
            "unused_atoms": float((~is_used).sum()),
            "unmatched_atoms": float((cosine < UNMATCHED_BELOW).sum()),
            "unmatched_overlap": overlap,
            "unmatched_overlap_floor": floor,
        }


def _average(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=float)) if len(values) else None


def compare(first: Seed, second: Seed, *, signed: bool) -> Comparison:
    """Compare two dictionaries of the same width.

    Parameters
    ----------
    first, second : Seed
        The dictionaries.
    signed : bool
        Whether codes have signs, so that an atom and its negative are the same.
    """
    by_atoms = match(Cosines(first.atoms, second.atoms, signed=signed))
    by_codes = match(Correlations(first.codes, second.codes, signed=signed))
    unmatched = [
        seed.atoms[torch.from_numpy(by_atoms.spread(side) < UNMATCHED_BELOW)]
        for side, seed in enumerate((first, second))
    ]
    overlap = measure_overlap(unmatched[0], unmatched[1])
    return Comparison((first, second), by_atoms, by_codes, overlap)


def match_random(
    n_atoms: int, width: int, *, signed: bool, draws: int, seed: int
) -> list[Matching]:
    """Match random dictionaries: what agreement of m atoms in d dimensions is chance.

    Parameters
    ----------
    n_atoms, width : int
        m, d.
    signed : bool
        Whether the absolute cosine counts.
    draws : int
        Pairs of dictionaries.
    seed : int
        Of the atoms, which are uniform on the sphere.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        atoms = torch.randn(2, n_atoms, width, generator=generator)
        found.append(match(Cosines(atoms[0], atoms[1], signed=signed)))
    return found
