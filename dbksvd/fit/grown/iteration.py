"""One iteration of DB-KSVD on the state of a growth, with all atoms free or with some held."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.base.shapes import Activations
from dbksvd.fit.grown.plan import POWER_ITERATIONS
from dbksvd.fit.grown.state import GrowthState, encode, move_bias_
from dbksvd.fit.measure import sum_squares
from dbksvd.ops.atom_update.update import compute_residual, update_atoms_


def iterate_(state: GrowthState, x: Activations, seed: int) -> SparseCodes:
    """Code centred samples, update atoms and bias, and log it; return the codes.

    Parameters
    ----------
    state : GrowthState
        Changed in place.
    x : tensor of shape (n, d)
        Centred samples.
    seed : int
        Seed of the fit.
    """
    codes = encode(state, x)
    l0 = float(codes.l0.double().mean())
    residual = compute_residual(x, codes, state.atoms)
    update_atoms_(
        *(x, codes, state.atoms),
        atom_batch=max(1, int(len(state.atoms) / max(1.0, l0))),
        power_iterations=POWER_ITERATIONS,
        nonnegative=True,
        seed=seed + len(state.log),
        residual=residual,
    )
    left, total = sum_squares(residual), sum_squares(x)
    move_bias_(state, residual)
    state.log.append(
        {
            "iteration": len(state.log) + 1,
            "n_atoms": len(state.atoms),
            "samples_seen": state.seen,
            "l0": l0,
            "threshold": state.pursuit.threshold,
            "fve_train": 1 - left / total if total else 1.0,
            "fve_heldout": None,
            "seconds": state.seconds,
        }
    )
    return codes


def iterate_held_(
    state: GrowthState, x: Activations, seed: int, *, held: slice | Tensor, damping: float
) -> None:
    """Do an iteration in which held atoms follow only a fraction of their update.

    Parameters
    ----------
    state : GrowthState
        Changed in place.
    x : tensor of shape (n, d)
        Centred samples.
    seed : int
        Seed of the fit.
    held : slice or bool tensor of shape (m,)
        Which atoms are held.
    damping : float
        The fraction.
    """
    before = state.atoms[held].clone()
    iterate_(state, x, seed)
    step = damping * (state.atoms[held] - before)
    state.atoms[held] = normalize(before + step, dim=1)
