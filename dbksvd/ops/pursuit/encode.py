"""Sparse coding of samples over a dictionary by matching pursuit.

One definition (:mod:`dbksvd.ops.pursuit.reference`) and several implementations of it; the
derivation is in the README beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.defaults import with_usual_defaults
from dbksvd.ops.implementation import choose_implementation, load_implementation
from dbksvd.ops.inputs import as_matrix
from dbksvd.ops.memory import explain_memory
from dbksvd.ops.pursuit.checks import (
    check_atoms,
    check_gram,
    check_penalties,
    check_product_dtype,
    check_settings,
)

if TYPE_CHECKING:
    # Loaded by name; listed here for whoever follows imports (workflow/source_hash.py).
    from dbksvd.ops.pursuit import batched, cpu, cuda, reference  # noqa: F401

__all__ = ["sparse_encode"]


def choose_pursuit(
    implementation: str,
    device: torch.device,
    product_dtype: Literal["bfloat16"] | None = None,
) -> str:
    """Return the implementation that :func:`sparse_encode` takes on a device.

    Parameters
    ----------
    implementation : {"auto", "reference", "batched", "cpu", "cuda"}
        What was asked for.
    device : torch.device
        Where the samples are.
    product_dtype : {None, "bfloat16"}
        Dtype of the products; "auto" takes an implementation that has it.

    Raises
    ------
    ValueError
        If the implementation is not available there, or has no products of that dtype.
    """
    if product_dtype is not None and implementation == "auto" and device.type == "cpu":
        implementation = "batched"
    name = choose_implementation(__package__, implementation, device)
    if product_dtype is not None:
        check_product_dtype(product_dtype, name)
    return name


@with_usual_defaults
def make_gram(atoms: Tensor, implementation: str) -> Tensor | None:
    """Return the products (m, m) of atoms as an implementation makes them; None if it needs none.

    Parameters
    ----------
    atoms : float32 or float64 tensor of shape (m, d)
        Atoms.
    implementation : {"reference", "batched", "cpu", "cuda"}
        What :func:`choose_pursuit` returns.
    """
    if implementation == "reference":
        return None
    found: Tensor = load_implementation(__package__, implementation).make_gram(atoms)
    return found


@with_usual_defaults
def sparse_encode(
    x: Tensor | np.ndarray[Any, Any],
    atoms: Tensor | np.ndarray[Any, Any],
    k: int,
    *,
    method: Literal["mp", "omp", "ols"] = "mp",
    nonnegative: bool = False,
    refit: bool = True,
    rtol: float = 0.0,
    threshold: float = 0.0,
    penalties: Sequence[float] | None = None,
    product_dtype: Literal["bfloat16"] | None = None,
    implementation: str = "auto",
    gram: Tensor | None = None,
) -> SparseCodes:
    """Code each sample with at most k atoms: ``x ≈ Z @ atoms``, by greedy pursuit.

    Parameters
    ----------
    x : float32 or float64 tensor or array of shape (n, d)
        Samples, of which there may be none. No bias is subtracted here; the caller does that.
    atoms : float32 or float64 tensor or array of shape (m, d)
        Unit-norm atoms, on the device of `x`.
    k : int
        Most non-zeros a sample may have, from 1 to m (to min(m, d) for omp and ols).
    method : {"mp", "omp", "ols"}
        Matching pursuit with Gram updates; orthogonal matching pursuit; or orthogonal least
        squares, which picks the atom that lowers the error most after the fit.
    nonnegative : bool
        Whether coefficients must be ≥ 0; a sample may then end with fewer than k.
    refit : bool
        Whether coefficients become the least-squares fit on the final support (non-negative
        least squares where `nonnegative`). The orthogonal methods fit at every pick anyway.
    rtol : float
        The pursuit of a sample ends when the norm of the residual is at most `rtol` times the norm
        of the sample; 0 leaves this rule out. In float32, differences below about 1e-3 are not
        resolved.
    threshold : float
        An atom is picked only if its product with the residual is above this number, in the unit
        of `x`. The same threshold for all samples gives each sample as many atoms as it needs, up
        to `k`.
    penalties : sequence of m floats, optional
        Penalty of each atom, from 0 to 1, as a fraction of the squared norm of the sample. Among
        the atoms above the threshold, the pick is the one whose squared product with the residual
        exceeds the penalty most; the pursuit ends where no squared product does. A sample and its
        positive multiples get the same atoms. Only for mp.
    product_dtype : {None, "bfloat16"}
        Dtype in which samples are multiplied with atoms; None is that of `x`. With bfloat16,
        atoms are picked by rounded products, which a GPU multiplies faster; a refit (for omp and
        ols, the last fit) then takes exact products. Only "batched" and "cuda" have bfloat16, and
        "auto" is then one of these two.
    implementation : {"auto", "reference", "batched", "cpu", "cuda"}
        Code that computes: "auto" is numba on the CPU, Triton or batched torch on CUDA.
    gram : tensor of shape (m, m), optional
        Products of the atoms from :func:`make_gram`, where many calls share them; by default they
        are made anew, which takes m²d multiplications.

    Returns
    -------
    SparseCodes
        Indices (n, k) and values (n, k) on the device and in the dtype of `x`, in the order in
        which the pursuit picked them. A zero sample has no code.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names it.
    RuntimeError
        If the device runs out of memory, also in blocks of half the size.

    Notes
    -----
    Mallat and Zhang, "Matching pursuits with time-frequency dictionaries" (1993), eq. 13-18;
    Rubinstein, Zibulevsky and Elad, "Efficient implementation of the K-SVD algorithm using batch
    orthogonal matching pursuit" (2008), algorithm 2; Chen, Billings and Luo, "Orthogonal least
    squares methods and their application to non-linear system identification" (1989);
    Rebollo-Neira and Lowe, "Optimized orthogonal matching pursuit approach" (2002); Nguyen, Idier,
    Soussen and Djermoune, "Non-negative orthogonal greedy algorithms" (2019), algorithm 1.
    """
    x = as_matrix(x, "x", may_be_empty=True)
    atoms = check_atoms(as_matrix(atoms, "atoms"), x)
    check_settings(k, tuple(atoms.shape), method, rtol, threshold)
    name = choose_pursuit(implementation, x.device, product_dtype)
    options: dict[str, Any] = {} if product_dtype is None else {"product_dtype": product_dtype}
    if penalties is not None:
        options["penalties"] = check_penalties(penalties, len(atoms), method).to(x.device)
    if gram is not None and name != "reference":
        options["gram"] = check_gram(gram, atoms)
    if not len(x):
        none = torch.empty(0, k, dtype=torch.int64, device=x.device)
        return SparseCodes(none, none.to(x.dtype), len(atoms))
    module = load_implementation(__package__, name)
    with explain_memory(f"n={len(x)}, m={len(atoms)}, d={x.shape[1]}"):
        indices, values = module.encode(
            *(x, atoms, int(k)),
            method=method,
            nonnegative=nonnegative,
            refit=refit,
            rtol=float(rtol),
            threshold=float(threshold),
            **options,
        )
    return SparseCodes(indices, values, len(atoms))
