"""Pursuit on the CPU: products by torch, the greedy loop by numba, block by block in threads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dbksvd.ops.pursuit import kernels, orthogonal_kernels
from dbksvd.ops.pursuit.checks import has_safe_scale, restore_scale, scale_rows
from dbksvd.ops.pursuit.tolerances import find_floors, find_tolerances
from dbksvd.ops.threads import map_in_threads

# Samples whose products are made at once: enough for a fast matrix product, few enough for the
# products (4 MiB at m = 2048) to be still in cache when the pursuit reads them.
ROWS = 512
# Rows of the Gram matrix that are one piece of work.
GRAM_ROWS = 256


def encode(
    x: Tensor,
    atoms: Tensor,
    k: int,
    *,
    method: str,
    nonnegative: bool,
    refit: bool,
    rtol: float,
    threshold: float = 0.0,
    penalties: Tensor | None = None,
    gram: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    _, dependent = find_tolerances(x.dtype)
    indices = torch.empty(len(x), k, dtype=torch.int64)
    values = x.new_empty(len(x), k)
    cosines = (make_gram(atoms) if gram is None else gram).numpy()
    costs = np.empty(0) if penalties is None else penalties.numpy()

    def encode_rows(start: int) -> None:
        rows = slice(start, start + ROWS)
        scaled, exponents, norms = measure_rows(x[rows])
        products = (scaled @ atoms.T).numpy()
        # the kernels compare in the dtype of the products
        floors = round_down(find_floors(norms, x.dtype, threshold, exponents), x.dtype)
        out = indices[rows].numpy(), values[rows].numpy()
        common = (products, norms.numpy(), floors.numpy(), cosines, k)
        limits = (float(rtol), dependent)
        if method == "mp":
            kernels.match(*common, nonnegative, refit, *limits, costs, *out)
        else:
            recursive = method == "ols"
            orthogonal_kernels.match_orthogonally(*common, recursive, nonnegative, *limits, *out)
        if exponents is not None:
            indices[rows], values[rows] = restore_scale(indices[rows], values[rows], exponents)

    map_in_threads(encode_rows, range(0, len(x), ROWS))
    return indices, values


def measure_rows(x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return rows and exponents as :func:`.checks.scale_rows` does, and the norms in float64."""
    norms = torch.empty(len(x), dtype=torch.float64)
    least, largest = kernels.measure_rows(x.numpy(), norms.numpy())
    if has_safe_scale(least) and has_safe_scale(largest):
        return x, None, norms
    scaled, exponents = scale_rows(x)
    kernels.measure_rows(scaled.numpy(), norms.numpy())
    return scaled, exponents, norms


def round_down(limits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest numbers of a dtype that are at most `limits`.

    A number of that dtype is above the limit exactly if it is above the returned one.
    """
    rounded = limits.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.double() > limits, below, rounded)


def make_gram(atoms: Tensor) -> Tensor:
    """Return D Dᵀ (m, m), symmetric to the byte: the upper triangle in row blocks, mirrored."""
    gram = atoms.new_empty(len(atoms), len(atoms))

    def fill_rows(start: int) -> None:
        rows = slice(start, start + GRAM_ROWS)
        torch.matmul(atoms[rows], atoms[start:].T, out=gram[rows, start:])
        corner = gram[rows, rows]
        corner.copy_(corner.triu() + corner.triu(1).T)
        # square by square, for both sides to be in cache
        for low in range(start + GRAM_ROWS, len(atoms), GRAM_ROWS):
            other = slice(low, low + GRAM_ROWS)
            gram[other, rows] = gram[rows, other].T

    map_in_threads(fill_rows, range(0, len(atoms), GRAM_ROWS))
    return gram
