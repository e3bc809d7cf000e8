"""Updates of the atoms of a dictionary at fixed supports: K-SVD's rank-1 steps, in batches.

One definition (:mod:`dbksvd.ops.atom_update.reference`) and several implementations of it; the
derivation is in the README beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.defaults import with_usual_defaults
from dbksvd.ops.implementation import choose_implementation, load_implementation
from dbksvd.ops.inputs import as_matrix, is_whole
from dbksvd.ops.memory import explain_memory
from dbksvd.ops.pursuit.checks import (
    LARGEST_SHIFT,
    SAFE_EXPONENT,
    check_atoms,
    shift_exponents,
)
from dbksvd.ops.ranks import ALONE, Ranks

if TYPE_CHECKING:
    # Loaded by name; listed here for whoever follows imports (workflow/source_hash.py).
    from dbksvd.ops.atom_update import batched, cpu, cuda, reference  # noqa: F401

__all__ = ["compute_residual", "update_atoms_"]


@with_usual_defaults
def update_atoms_(
    x: Tensor,
    codes: SparseCodes,
    atoms: Tensor,
    *,
    atom_batch: int,
    power_iterations: int,
    nonnegative: bool = False,
    seed: int = 0,
    residual: Tensor | None = None,
    implementation: str = "auto",
    ranks: Ranks = ALONE,
) -> Tensor:
    """Improve atoms and coefficients in place, each atom by rank-1 power iterations.

    With E_j = X[Ω_j] − Z[Ω_j] D + z_j d_jᵀ on the samples Ω_j that use atom j, repeat
    ``d_j ← E_jᵀ z_j / ‖E_jᵀ z_j‖, z_j ← E_j d_j``.

    Parameters
    ----------
    x : float32 or float64 tensor of shape (n, d)
        Samples; read only where `residual` is None.
    codes : SparseCodes
        Codes of `x`, whose values change in place. Where `nonnegative`, a value may become 0; its
        slot then keeps its index.
    atoms : tensor of shape (m, d), dtype of `x`
        Unit-norm atoms, changed in place. An unused atom stays as it is.
    atom_batch : int
        Atoms updated from the same old dictionary (Jacobi) before the residual is brought up to
        date (Gauss-Seidel). With 1 the total error never rises; the result depends on this
        number, never on the number of threads.
    power_iterations : int
        Repetitions; 1 is approximate K-SVD, about 10 practically the truncated SVD.
    nonnegative : bool
        Whether coefficients must stay ≥ 0: then ``z_j ← max(E_j d_j, 0)``.
    seed : int
        Seed of the order in which atoms are drawn into batches.
    residual : tensor of shape (n, d), optional
        ``x − Z D``, brought up to date in place; by default computed from `x`.
    implementation : {"auto", "reference", "batched", "cpu", "cuda"}
        Code that computes: "auto" is numba on the CPU, Triton or batched torch on CUDA.
    ranks : Ranks
        The processes that hold the other samples. All have the same atoms, and ``E_jᵀ z_j`` is
        summed over them: b · (d + 1) floats a batch of b atoms and power iteration, at most.

    Returns
    -------
    tensor of shape (n, d)
        The residual after the update (`residual` itself where given).

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.
    RuntimeError
        If the device runs out of memory.

    Notes
    -----
    Aharon, Elad and Bruckstein, "K-SVD" (2006), fig. 2; Rubinstein, Zibulevsky and Elad (2008),
    section 3 (one power step); Valentin et al., "DB-KSVD" (arXiv 2505.18441), algorithm 1
    (batches of atoms).
    """
    target = as_matrix(x if residual is None else residual, "x" if residual is None else "residual")
    _check_update(target, codes, atoms, atom_batch, power_iterations)
    name = choose_implementation(__package__, implementation, target.device)
    if residual is None:
        residual = compute_residual(target, codes, atoms, implementation=name)
    order = torch.randperm(len(atoms), generator=torch.Generator().manual_seed(seed))
    shift = _find_shift(residual, codes.values, ranks)
    if shift:
        residual.copy_(shift_exponents(residual, -shift))
        codes.values.copy_(shift_exponents(codes.values, -shift))
    module = load_implementation(__package__, name)
    with explain_memory(_describe(codes, atoms) + f" and atom_batch={atom_batch}"):
        module.update_(
            *(residual, codes.indices, codes.values, atoms),
            *(order, atom_batch, power_iterations, nonnegative, ranks),
        )
    if shift:
        residual.copy_(shift_exponents(residual, shift))
        codes.values.copy_(shift_exponents(codes.values, shift))
    return residual


@with_usual_defaults
def compute_residual(
    x: Tensor, codes: SparseCodes, atoms: Tensor, *, implementation: str = "auto"
) -> Tensor:
    """Return ``x − Z D``, shape (n, d), in the dtype of `x`.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Samples.
    codes : SparseCodes
        Codes of the samples.
    atoms : floating tensor of shape (m, d)
        Atoms.
    implementation : str
        As in :func:`update_atoms_`.
    """
    name = choose_implementation(__package__, implementation, x.device)
    module = load_implementation(__package__, name)
    with explain_memory(_describe(codes, atoms)):
        return module.compute_residual(x, codes.indices, codes.values, atoms)


def _describe(codes: SparseCodes, atoms: Tensor) -> str:
    return f"n={len(codes)}, m={len(atoms)}, d={atoms.shape[1]}"


def _check_update(
    target: Tensor, codes: SparseCodes, atoms: Tensor, atom_batch: int, power_iterations: int
) -> None:
    if check_atoms(as_matrix(atoms, "atoms"), target).data_ptr() != atoms.data_ptr():
        raise ValueError(
            f"atoms: expected a contiguous {target.dtype} tensor (it changes in place), "
            f"got {atoms.dtype}"
        )
    if len(codes) != len(target) or codes.n_atoms != len(atoms):
        raise ValueError(
            f"codes: expected codes of {len(target)} samples over {len(atoms)} atoms, "
            f"got {len(codes)} over {codes.n_atoms}"
        )
    if codes.values.dtype != target.dtype or not codes.values.is_contiguous():
        raise ValueError(
            f"codes: expected contiguous {target.dtype} values, got {codes.values.dtype}"
        )
    for name, value in (("atom_batch", atom_batch), ("power_iterations", power_iterations)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def _find_shift(residual: Tensor, values: Tensor, ranks: Ranks) -> int:
    """Return the power of two to take out so that squares neither over- nor underflow."""
    largest = max(abs(float(bound)) for part in (residual, values) for bound in part.aminmax())
    largest = ranks.find_largest(largest)
    limit = LARGEST_SHIFT[residual.dtype]
    exponent = int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent)
    exponent = max(-limit, min(exponent, limit))
    return exponent if largest > 0 and abs(exponent) > SAFE_EXPONENT else 0
