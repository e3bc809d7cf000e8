"""Codes that minimise half the squared error plus an L1 penalty (lasso), by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.base.shapes import Activations, Atoms
from dbksvd.ops.pursuit.least_squares import fit_block

ROWS_PER_BLOCK = 1024
MOST_SWEEPS = 1000
# Squared distance to the span of the others up to which an atom is dependent, as in the pursuits.
DEPENDENT = 1e-10
# The search for a penalty: first on few rows, then on all; most steps of each; how near is enough.
FIRST_ROWS, STEPS, CLOSE = 250, 20, 0.004
# A sample's largest product over the penalty to begin with. The next penalty is this one times
# (mean found / mean wanted) to a power; a found mean counts as at least a fraction of the wanted.
FIRST_RATIO, CORRECTION, FEWEST = 6.0, 0.6, 0.1


def lasso_encode(
    x: Activations, atoms: Atoms, penalty: float, *, nonnegative: bool, refit: bool = False
) -> SparseCodes:
    """Return argmin over z of ½ ‖x − z D‖² + penalty · ‖z‖₁, for each sample.

    Computed in float64 by coordinate descent (scikit-learn's ``sparse_encode``), until the duality
    gap is scikit-learn's default.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Centred samples.
    atoms : floating tensor of shape (m, d)
        Unit atoms.
    penalty : float
        In the unit of `x`: no atom whose product with the sample is below it is used first.
    nonnegative : bool
        Whether coefficients must be ≥ 0.
    refit : bool
        Whether coefficients become the (non-negative) least-squares fit on the atoms found, which
        takes back how the penalty shrinks them.

    References
    ----------
    Tibshirani (1996), "Regression shrinkage and selection via the lasso"; Friedman, Hastie and
    Tibshirani (2010), "Regularization paths for generalized linear models via coordinate descent".
    """
    from sklearn.decomposition import sparse_encode
    from sklearn.exceptions import ConvergenceWarning

    atoms64 = atoms.detach().double()
    gram = atoms64 @ atoms64.T
    blocks = []
    for rows in x.detach().double().split(ROWS_PER_BLOCK) if len(x) else ():
        with warnings.catch_warnings():
            # a sample whose gap is a little wider than asked for is no reason to stop
            warnings.simplefilter("ignore", ConvergenceWarning)
            dense = sparse_encode(
                rows.cpu().numpy(),
                atoms64.cpu().numpy(),
                gram=gram.cpu().numpy(),
                algorithm="lasso_cd",
                alpha=penalty,
                positive=nonnegative,
                max_iter=MOST_SWEEPS,
            )
        codes = SparseCodes.from_dense(torch.from_numpy(np.ascontiguousarray(dense)).to(x.device))
        blocks.append(_refit(rows, atoms64, gram, codes, nonnegative) if refit else codes)
    if not blocks:
        none = torch.empty(0, 1, dtype=torch.int64, device=x.device)
        return SparseCodes(none, none.to(x.dtype), len(atoms))
    codes = concatenate_codes(blocks)
    return SparseCodes(codes.indices, codes.values.to(x.dtype), codes.n_atoms)


def _refit(
    x: Tensor, atoms: Tensor, gram: Tensor, codes: SparseCodes, nonnegative: bool
) -> SparseCodes:
    """Return the least-squares fit on the atoms of the codes."""
    used = codes.values != 0
    products = (x @ atoms.T).gather(1, codes.indices)
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    start = codes.values.clamp(min=0) if nonnegative else codes.values
    values = fit_block(products, gram, codes.indices, used, start, nonnegative, DEPENDENT, norms)
    return SparseCodes(codes.indices.masked_fill(values == 0, 0), values, codes.n_atoms)


def find_penalty(x: Activations, atoms: Atoms, l0: float, *, nonnegative: bool) -> float:
    """Return the penalty at which samples have `l0` non-zeros on average.

    The first steps take `FIRST_ROWS` samples, the last ones all of them. A penalty is corrected by
    how far the mean number of non-zeros was off; where that leaves the interval known to hold the
    wanted one, the interval is bisected.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Centred samples.
    atoms : floating tensor of shape (m, d)
        Unit atoms.
    l0 : float
        Non-zeros a sample.
    nonnegative : bool
        Whether coefficients must be ≥ 0.
    """
    products = x.double() @ atoms.double().T
    largest = products.max(dim=1).values if nonnegative else products.abs().max(dim=1).values
    penalty = float(largest.mean()) / FIRST_RATIO
    for rows in (x[:FIRST_ROWS], x):
        low, high = 0.0, float("inf")
        for _ in range(STEPS):
            codes = lasso_encode(rows, atoms, penalty, nonnegative=nonnegative)
            found = float(codes.l0.double().mean())
            if abs(found / l0 - 1) < CLOSE:
                break
            low, high = (penalty, high) if found > l0 else (low, penalty)
            penalty *= (max(found, FEWEST * l0) / l0) ** CORRECTION
            if not low < penalty < high:
                penalty = (low * high) ** 0.5
    return penalty
