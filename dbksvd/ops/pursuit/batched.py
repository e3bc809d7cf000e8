"""Pursuit in plain torch, many samples at once; runs on the CPU and on CUDA.

Legend: see :mod:`dbksvd.ops.pursuit.reference`. Every sample of a block takes each step; a
sample that has ended takes it with coefficient 0. The host asks whether all samples have ended
(and waits for the device) only from step k on, and then every few steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dbksvd.ops.memory import map_blocks
from dbksvd.ops.pursuit.batched_matching import match
from dbksvd.ops.pursuit.batched_orthogonal import match_optimally, match_orthogonally
from dbksvd.ops.pursuit.checks import pack_codes, restore_scale, scale_rows
from dbksvd.ops.pursuit.least_squares import fit_block
from dbksvd.ops.pursuit.tolerances import find_floors, find_tolerances

# Products held at once (elements): bounds the memory, and on the CPU keeps them in cache.
BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
# Bytes of the samples' least-squares systems held at once, of which a fit has up to six float64
# copies (k, k); and most systems that CUDA's batched solvers take.
SYSTEM_BYTES = {"cpu": 1 << 30, "cuda": 1 << 33}
MOST_SYSTEMS = 65535


def encode(
    x: Tensor,
    atoms: Tensor,
    k: int,
    *,
    method: str,
    nonnegative: bool,
    refit: bool,
    rtol: float,
    product_dtype: str | None = None,
    threshold: float = 0.0,
    penalties: Tensor | None = None,
    gram: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    m, d = atoms.shape
    cosines = make_gram(atoms) if gram is None else gram
    pursuits: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]]
    pursuits = {"mp": match, "omp": match_orthogonally, "ols": match_optimally}
    pursue = pursuits[method]
    if penalties is not None:
        pursue = partial(match, costs=penalties)
    refit = needs_fit(method, refit, product_dtype)
    _, dependent = find_tolerances(x.dtype)

    def encode_block(rows: slice) -> tuple[Tensor, Tensor]:
        scaled, exponents = scale_rows(x[rows])
        start = multiply(scaled, atoms, product_dtype)
        norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True, dtype=torch.float64)
        floor = find_floors(norm.squeeze(1), x.dtype, threshold, exponents).unsqueeze(1)
        support, used, z = pursue(start, cosines, norm, floor, k, nonnegative, rtol)
        if refit:
            b = multiply_support(scaled, atoms, start, support, product_dtype)
            z = fit_block(b, cosines, support, used, z, nonnegative, dependent, norm)
        return restore_scale(*pack_codes(support, z.to(x.dtype)), exponents)

    block = max(16, BLOCK_ELEMENTS.get(x.device.type, 1 << 20) // m)
    if refit or method != "mp":
        block = min(block, count_systems(k, x.device))
    parts = map_blocks(encode_block, len(x), block, f"n={len(x)}, m={m}, d={d}")
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def make_gram(atoms: Tensor) -> Tensor:
    """Return D Dᵀ (m, m)."""
    return atoms @ atoms.T


def count_systems(k: int, device: torch.device) -> int:
    """Return for how many samples at once systems of k unknowns fit into memory."""
    held = SYSTEM_BYTES.get(device.type, SYSTEM_BYTES["cpu"]) // (6 * 8 * k * k)
    return max(1, min(held, MOST_SYSTEMS))


def multiply(x: Tensor, atoms: Tensor, product_dtype: str | None) -> Tensor:
    """Return X Dᵀ in the dtype of `x`, multiplied in bfloat16 where `product_dtype` says so."""
    if product_dtype is None:
        return x @ atoms.T
    return (x.bfloat16() @ atoms.bfloat16().T).to(x.dtype)


def multiply_support(
    x: Tensor, atoms: Tensor, products: Tensor, support: Tensor, product_dtype: str | None
) -> Tensor:
    """Return the products D_S x of samples with their supports, never rounded to bfloat16.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Samples.
    atoms : tensor of shape (m, d)
        Atoms.
    products : tensor of shape (n, m)
        ``x @ atoms.T``, from which the result is taken where they are not rounded.
    support : int64 tensor of shape (n, k)
        Atoms of the supports.
    product_dtype : {None, "bfloat16"}
        Dtype in which `products` were multiplied.
    """
    if product_dtype is None:
        return products.gather(1, support)
    return torch.stack([(atoms[column] * x).sum(1) for column in support.T], 1)


def needs_fit(method: str, refit: bool, product_dtype: str | None) -> bool:
    """Return whether a fit follows the pursuit.

    omp and ols fit while they pick, so a fit follows only where their products were rounded.
    """
    return refit if method == "mp" else product_dtype is not None
