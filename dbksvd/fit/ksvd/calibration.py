"""Thresholds at which samples have a wanted number of non-zeros on average.

A fixed number of non-zeros is the same for simple and for complex samples. A pursuit with one
threshold for all samples gives each sample as many as it needs. This is BatchTopK (Bussmann et al.
2024, arXiv 2412.06410) for pursuits. The dictionary keeps the threshold and encodes new samples
with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dbksvd.base.shapes import Activations, Atoms
from dbksvd.dictionaries.dictionary import PursuitSettings, encode_with

# A sample may have this many times the non-zeros it has on average.
MOST_TIMES_MEAN = 3
# Samples on which a scale is set, and most steps of the search.
CALIBRATION_ROWS = 4096
MOST_STEPS = 40
# The search ends at this fraction of the wanted mean, or at this ratio of the two scales around it.
CLOSE_L0 = 0.997
CLOSE = 1.005
# Ratio of successive scales until the wanted one lies between two of them: where nothing is known,
# and where the search begins near.
FAR, NEAR = 2.0, 1.1
# The next threshold is this one times (mean found / mean wanted) to this power.
CORRECTION = 0.3
# A found mean counts as at least this fraction of the wanted one.
FEWEST = 0.1


def find_scale(
    x: Activations,
    atoms: Atoms,
    l0: float,
    high: float,
    with_scale: Callable[[float], PursuitSettings],
    *,
    near: float | None = None,
    implementation: str = "auto",
) -> PursuitSettings:
    """Return the pursuit of about the smallest scale at which samples have at most `l0` non-zeros.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples, of which the first `CALIBRATION_ROWS` are coded.
    atoms : tensor of shape (m, d)
        Unit atoms.
    l0 : float
        Non-zeros a sample, on average.
    high : float
        A scale at which nothing is picked.
    with_scale : callable
        Returns the pursuit of a scale; a larger one picks less.
    near : float, optional
        A scale to begin from.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    rows = x[:CALIBRATION_ROWS]
    step = FAR if near is None else NEAR
    scale = high / FAR if near is None else min(near, high)
    low, top = 0.0, high
    for _ in range(MOST_STEPS):
        codes = encode_with(rows, atoms, with_scale(scale), implementation=implementation)
        found = float(codes.l0.double().mean())
        if CLOSE_L0 * l0 <= found <= l0:
            return with_scale(scale)
        if found > l0:
            low = scale
        else:
            high = scale
        if low == 0:
            scale = high / step
        elif high == top:
            scale = min(low * step, top)
        else:
            scale = (low * high) ** 0.5
        if low > 0 and high / low < CLOSE:
            break
    return with_scale(high)


class Calibration:
    """Thresholds for a mean number of non-zeros, found on the same samples throughout a fit.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Centred samples, of which the first `CALIBRATION_ROWS` are held.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """

    def __init__(self, x: Activations, implementation: str = "auto") -> None:
        self.x = x[:CALIBRATION_ROWS].clone()
        self.implementation = implementation

    def set_threshold(self, atoms: Atoms, l0: float, settings: PursuitSettings) -> PursuitSettings:
        """Return `settings` with the threshold at which samples have `l0` non-zeros on average."""
        settings = self.limit(settings)
        # no product of a unit atom is larger than the sample
        high = float(self.x.double().square().sum(1).max().sqrt())
        return find_scale(
            *(self.x, atoms, l0, high, lambda scale: replace(settings, threshold=scale)),
            implementation=self.implementation,
        )

    def follow(
        self,
        log: Sequence[Mapping[str, Any]],
        atoms: Atoms,
        l0: float,
        settings: PursuitSettings,
    ) -> PursuitSettings:
        """Return `settings` with a threshold for the next iteration.

        With as many atoms as in the last iteration, its threshold is corrected by how far the
        number of non-zeros was off, which costs nothing. With more atoms, the threshold is set
        anew.

        Parameters
        ----------
        log : sequence of mappings
            Rows of the iterations so far.
        atoms : tensor of shape (m, d)
            Unit atoms.
        l0 : float
            Non-zeros a sample, on average.
        settings : PursuitSettings
            The pursuit; its threshold is not read.
        """
        if not log or log[-1]["n_atoms"] != len(atoms):
            return self.set_threshold(atoms, l0, settings)
        settings = self.limit(settings)
        found = max(log[-1]["l0"], FEWEST * l0)
        return replace(settings, threshold=log[-1]["threshold"] * (found / l0) ** CORRECTION)

    def limit(self, settings: PursuitSettings) -> PursuitSettings:
        """Return `settings` with no more non-zeros than an orthogonal pursuit can have."""
        if settings.method == "mp":
            return settings
        return replace(settings, k=min(settings.k, self.x.shape[1]))
