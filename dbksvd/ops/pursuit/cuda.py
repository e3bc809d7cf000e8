"""Pursuit on CUDA: products by torch, the greedy loop and the fit by Triton, a program a sample.

The host does not wait for the device inside a block, except once, in :func:`scale_rows`, to learn
whether any row needs scaling. The systems of supports of more than `LARGEST_K` atoms do not fit on
chip: batched torch fits them, and runs omp and ols with that many atoms. Batched torch waits for
the device a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import triton
from torch import Tensor

from dbksvd.ops.memory import map_blocks
from dbksvd.ops.pursuit import (
    batched,
    batched_orthogonal,
    triton_kernels,
    triton_least_squares,
    triton_orthogonal,
)
from dbksvd.ops.pursuit.batched import make_gram
from dbksvd.ops.pursuit.checks import pack_codes, restore_scale, scale_rows
from dbksvd.ops.pursuit.least_squares import fit_block
from dbksvd.ops.pursuit.tolerances import STEPS_PER_ATOM, find_floors, find_tolerances

# Products made at once.
BLOCK_BYTES = 1 << 30
# Longest row of products that stays in registers: 16 warps of 32 threads with 64 words each, of
# 128 registers a thread, so that a multiprocessor holds a row of 128 KiB or two of 64 KiB.
ON_CHIP_BYTES = 1 << 17
BYTES_PER_WARP = 1 << 13
REGISTERS = 128
REGISTERS_AT_ALL = 1 << 16
# Bytes of a longer row that a program of `CHUNK_WARPS` warps has in hand at once.
CHUNK_BYTES = 1 << 14
CHUNK_WARPS = 8
# The same of omp and ols, whose factor is on chip too, and with penalties, where gains are float64.
SMALL_CHUNK_BYTES = 1 << 13
LARGEST_K = 128


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
    rows = max(1, BLOCK_BYTES // (m * x.element_size()))
    if k > LARGEST_K:  # the work of batched torch
        rows = min(rows, batched.count_systems(k, x.device))
    with torch.cuda.device_of(x):
        cosines = make_gram(atoms) if gram is None else gram
        blocks = map_blocks(
            lambda block: encode_block(
                *(x[block], atoms, cosines, k, method, nonnegative, refit, rtol),
                product_dtype,
                threshold,
                penalties,
            ),
            len(x),
            rows,
            f"n={len(x)}, m={m}, d={d}",
        )
    return torch.cat([block[0] for block in blocks]), torch.cat([block[1] for block in blocks])


def encode_block(
    x: Tensor,
    atoms: Tensor,
    gram: Tensor,
    k: int,
    method: str,
    nonnegative: bool,
    refit: bool,
    rtol: float,
    product_dtype: str | None,
    threshold: float,
    penalties: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return indices and values of a block of samples.

    Parameters
    ----------
    x, atoms, k, method, nonnegative, refit, rtol, product_dtype, threshold
        As of :func:`dbksvd.sparse_encode`.
    gram : tensor of shape (m, m)
        Products of the atoms.
    penalties : float64 tensor of shape (m,), or None
        Penalties of the atoms, for mp.
    """
    scaled, exponents = scale_rows(x)
    products = batched.multiply(scaled, atoms, product_dtype)
    norm = torch.linalg.vector_norm(scaled, dim=1, dtype=torch.float64)
    pursuits: dict[str, Callable[..., tuple[Tensor, Tensor]]]
    pursuits = {"mp": match, "omp": match_orthogonally, "ols": match_optimally}
    pursue = pursuits[method] if penalties is None else partial(match, penalties=penalties)
    floors = find_floors(norm, x.dtype, threshold, exponents)
    support, z = pursue(products, gram, norm, floors, k, nonnegative, rtol)
    b = z
    if refit := batched.needs_fit(method, refit, product_dtype):
        places = support.long().clamp_(min=0)
        b = batched.multiply_support(scaled, atoms, products, places, product_dtype)
    indices, values = fit_codes(support, z, b, gram, norm, refit, nonnegative)
    return restore_scale(indices, values, exponents)


def find_limits(norm: Tensor, rtol: float) -> tuple[Tensor, Tensor]:
    """Return energies and goals of the samples; see :mod:`triton_kernels`."""
    goals = (rtol * norm) ** 2 if rtol > 0 else torch.full_like(norm, -torch.inf)
    return norm**2, goals


def match(
    products: Tensor,
    gram: Tensor,
    norm: Tensor,
    floors: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
    penalties: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pursue a block of samples by mp.

    Parameters
    ----------
    products : tensor of shape (n, m)
        Products of the samples with the atoms.
    gram : tensor of shape (m, m)
        Products of the atoms.
    norm, floors : float64 tensors of shape (n,)
        Norms of the samples, and the largest products that are not picked.
    k, nonnegative, rtol
        As of :func:`dbksvd.sparse_encode`.
    penalties : float64 tensor of shape (m,), optional
        Penalties of the atoms. The products then stay in memory, whatever their number.

    Returns
    -------
    tuple
        Support (int32, −1 where unused) and float64 coefficients, both (n, k).
    """
    n, m = products.shape
    block = triton.next_power_of_2(m)
    row_bytes = block * products.element_size()
    is_penalised = penalties is not None
    on_chip = row_bytes <= ON_CHIP_BYTES and not is_penalised
    if not on_chip:
        products = products.clone()
        block = (SMALL_CHUNK_BYTES if is_penalised else CHUNK_BYTES) // products.element_size()
    support = torch.empty(n, k, dtype=torch.int32, device=products.device)
    z = torch.empty(n, k, dtype=torch.float64, device=products.device)
    triton_kernels.match[(n,)](
        products,
        gram,
        floors,
        *find_limits(norm, rtol),
        support,
        z,
        norm if penalties is None else penalties,
        m,
        k,
        STEPS_PER_ATOM * k,
        NONNEGATIVE=nonnegative,
        PENALISED=is_penalised,
        ON_CHIP=on_chip,
        BLOCK=block,
        BLOCK_K=triton.next_power_of_2(k),
        num_warps=max(1, row_bytes // BYTES_PER_WARP) if on_chip else CHUNK_WARPS,
        maxnreg=REGISTERS,
    )
    return support, z


def match_orthogonally(
    products: Tensor,
    gram: Tensor,
    norm: Tensor,
    floors: Tensor,
    k: int,
    nonnegative: bool,
    rtol: float,
    is_recursive: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pursue by omp, or by ols where `is_recursive`; the others are those of :func:`match`."""
    if k > LARGEST_K:
        support, used, z = batched_orthogonal.match_orthogonally(
            *(products, gram, norm.unsqueeze(1), floors.unsqueeze(1), k, nonnegative, rtol),
            is_recursive,
        )
        return support.masked_fill(~used, -1).int(), z
    n, m = products.shape
    support = torch.full((n, k), -1, dtype=torch.int32, device=products.device)
    z = torch.zeros(n, k, dtype=torch.float64, device=products.device)
    size = triton.next_power_of_2(k)
    warps = max(count_warps(size), CHUNK_WARPS)
    triton_orthogonal.match_orthogonally[(n,)](
        # omp marks in its products which atoms are picked, ols in its distances
        products if is_recursive else products.clone(),
        gram,
        gram.diagonal().contiguous(),
        round_down(floors, products.dtype),
        *find_limits(norm, rtol),
        support,
        z,
        torch.empty_like(z),
        torch.empty_like(products) if is_recursive else products,
        m,
        k,
        STEPS_PER_ATOM * k,
        find_tolerances(products.dtype)[1],
        RECURSIVE=is_recursive,
        NONNEGATIVE=nonnegative,
        BLOCK=min(triton.next_power_of_2(m), SMALL_CHUNK_BYTES // products.element_size()),
        BLOCK_K=size,
        num_warps=warps,
        # where non-negative, a fit has another matrix in hand, which is large beyond k = 32
        maxnreg=min(count_registers(warps), 255 if nonnegative and size > 32 else REGISTERS),
    )
    return support, z


match_optimally = partial(match_orthogonally, is_recursive=True)


def round_down(floors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest numbers of `dtype` that are at most `floors`: p > both or p > neither."""
    rounded = floors.to(dtype)
    below = torch.nextafter(rounded, rounded.new_full((), -torch.inf))
    return torch.where(rounded.to(floors.dtype) > floors, below, rounded)


def fit_codes(
    support: Tensor,
    z: Tensor,
    b: Tensor,
    gram: Tensor,
    norm: Tensor,
    refit: bool,
    nonnegative: bool,
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k): fitted where `refit`, the used slots first.

    Parameters
    ----------
    support : int32 tensor of shape (n, k)
        Atoms of the slots, −1 where unused.
    z : float64 tensor of shape (n, k)
        Coefficients of the pursuit.
    b : tensor of shape (n, k)
        Products of the samples with their supports; not read without `refit`.
    gram : tensor of shape (m, m)
        Products of the atoms.
    norm : float64 tensor of shape (n,)
        Norms of the samples.
    refit, nonnegative : bool
        Whether to fit, and whether coefficients must be at least 0.
    """
    n, k = support.shape
    _, dependent = find_tolerances(gram.dtype)
    if refit and k > LARGEST_K:
        used = support >= 0
        places = support.long().clamp_(min=0)
        z = fit_block(b, gram, places, used, z, nonnegative, dependent, norm.unsqueeze(1))
        return pack_codes(places, z.to(gram.dtype))
    indices = torch.empty(n, k, dtype=torch.int64, device=z.device)
    values = torch.empty(n, k, dtype=gram.dtype, device=z.device)
    size = triton.next_power_of_2(k)
    warps = count_warps(size) if refit else 1
    triton_least_squares.fit_codes[(n,)](
        support,
        z,
        b,
        gram,
        norm**2,
        indices,
        values,
        len(gram),
        k,
        dependent,
        REFIT=refit,
        NONNEGATIVE=nonnegative,
        BLOCK_K=size,
        num_warps=warps,
        maxnreg=count_registers(warps),
    )
    return indices, values


def count_warps(size: int) -> int:
    """Return warps for a float64 system of `size` unknowns: 16 of its numbers a thread."""
    return max(1, size * size // 512)


def count_registers(warps: int) -> int:
    """Return the registers that each thread of so many warps may have, if they are alone.

    Said aloud, for ptxas may take half of them for a program of 1,024 threads.
    """
    return min(255, REGISTERS_AT_ALL // (32 * warps)) // 8 * 8
