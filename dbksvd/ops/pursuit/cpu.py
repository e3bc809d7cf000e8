"""Pursuit on the CPU: products by torch, the greedy loop by numba, block by block in threads."""

from __future__ import annotations

import torch
from torch import Tensor

from dbksvd.ops.pursuit import kernels, orthogonal_kernels
from dbksvd.ops.pursuit.checks import scale_rows
from dbksvd.ops.pursuit.reference import find_tolerances
from dbksvd.ops.threads import hold_torch_to_one_thread, map_in_threads

# Samples whose products are made at once: enough for a fast matrix product, few enough for the
# products (4 MiB at m = 2048) to be still in cache when the pursuit reads them.
ROWS = 512


def encode(
    x: Tensor, atoms: Tensor, k: int, *, method: str, nonnegative: bool, refit: bool, rtol: float
) -> tuple[Tensor, Tensor]:
    """Return indices and values (n, k); see :func:`dbksvd.sparse_encode`."""
    zero, dependent = find_tolerances(x.dtype)
    indices = torch.empty(len(x), k, dtype=torch.int64)
    values = x.new_empty(len(x), k)
    with hold_torch_to_one_thread():
        gram = (atoms @ atoms.T).numpy()

    def encode_rows(start: int) -> None:
        rows = slice(start, start + ROWS)
        scaled, exponents = scale_rows(x[rows])
        products = (scaled @ atoms.T).numpy()
        norms = torch.linalg.vector_norm(scaled, dim=1, dtype=torch.float64).numpy()
        out = indices[rows].numpy(), values[rows].numpy()
        common = (products, norms, gram, k, nonnegative)
        if method == "mp":
            kernels.match(*common, refit, float(rtol), zero, dependent, *out)
        else:
            orthogonal_kernels.match_orthogonally(*common, float(rtol), zero, dependent, *out)
        if exponents is not None:
            values[rows] = torch.ldexp(values[rows], exponents)

    map_in_threads(encode_rows, range(0, len(x), ROWS))
    return indices, values
