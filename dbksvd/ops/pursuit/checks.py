"""Checks of the arguments of a pursuit, and the scale of samples and coefficients."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dbksvd.base.shapes import Activations, Atoms
from dbksvd.ops.inputs import check_width, is_whole

# Squares and products of numbers within these powers of two stay far from over- and underflow.
SAFE_EXPONENT = 20
# Largest power of two that is a normal number itself, with its inverse.
LARGEST_SHIFT = {torch.float32: 120, torch.float64: 1000}
NORM_TOLERANCE = 1e-3


def check_atoms(atoms: Tensor, x: Tensor) -> Atoms:
    """Return `atoms` in the dtype of `x` if they are unit atoms of its width, or raise.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    check_width(x.shape[1], atoms.shape[1])
    if atoms.device != x.device:
        raise ValueError(f"atoms: expected device {x.device} (that of x), got {atoms.device}")
    off = (torch.linalg.vector_norm(atoms, dim=1) - 1).abs().max().item()
    if not off <= NORM_TOLERANCE:
        raise ValueError(f"atoms: expected unit norm, got an atom that is {off:.3g} off")
    return atoms.to(x.dtype).contiguous()


def check_gram(gram: Tensor, atoms: Tensor) -> Tensor:
    """Return the products of the atoms if they can be theirs, or raise.

    Raises
    ------
    ValueError
        If shape, dtype or device are not.
    """
    expected = (len(atoms), len(atoms)), atoms.dtype, atoms.device
    found = tuple(gram.shape), gram.dtype, gram.device
    if found != expected:
        raise ValueError(f"gram: expected shape, dtype and device {expected}, got {found}")
    return gram


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_settings(
    k: int, shape: tuple[int, ...], method: str, rtol: float, threshold: float
) -> None:
    """Raise unless k, method, rtol and threshold make sense for atoms of `shape` (m, d).

    Parameters
    ----------
    k : int
        Most non-zeros of a sample.
    shape : tuple of two ints
        Number of atoms m and width d.
    method : str
        Name of the pursuit.
    rtol : float
        Norm of the residual, relative to that of the sample, at which a pursuit ends.
    threshold : float
        Largest product that is not picked, in the unit of the samples.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    if method not in ("mp", "omp", "ols"):
        raise ValueError(f"method: expected 'mp', 'omp' or 'ols', got {method!r}")
    if not is_whole(k) or not 1 <= k <= shape[0]:
        raise ValueError(f"k: expected an integer from 1 to m={shape[0]}, got {k!r}")
    if method != "mp" and k > shape[1]:
        raise ValueError(f"k: expected at most the width d={shape[1]} for {method}, got {k}")
    if not _is_number(rtol) or not 0 <= rtol < 1:
        raise ValueError(f"rtol: expected a number from 0 to below 1, got {rtol!r}")
    if not _is_number(threshold) or not 0 <= threshold < math.inf:
        raise ValueError(f"threshold: expected a finite number of at least 0, got {threshold!r}")


def check_penalties(penalties: Sequence[float], n_atoms: int, method: str) -> Tensor:
    """Return penalties as a float64 tensor of shape (m,), or raise.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    if method != "mp":
        raise ValueError(f"penalties: expected method 'mp' with them, got {method!r}")
    try:
        costs = torch.as_tensor(penalties, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        costs = torch.empty(0)
    if costs.ndim != 1 or not len(costs):
        raise ValueError(f"penalties: expected {n_atoms} numbers from 0 to 1, got {penalties!r}")
    if costs.shape != (n_atoms,) or not ((costs >= 0) & (costs <= 1)).all():
        raise ValueError(
            f"penalties: expected {n_atoms} numbers from 0 to 1, one for each atom, "
            f"got {len(costs)} from {costs.min().item():.3g} to {costs.max().item():.3g}"
        )
    return costs


def check_product_dtype(product_dtype: str, implementation: str) -> str:
    """Return `product_dtype` if it is known and the implementation has it, or raise.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    if product_dtype != "bfloat16":
        raise ValueError(f"product_dtype: expected None or 'bfloat16', got {product_dtype!r}")
    if implementation not in ("batched", "cuda"):
        raise ValueError(
            f"product_dtype: expected None for implementation {implementation!r}, "
            f"got {product_dtype!r}"
        )
    return product_dtype


def shift_exponents(x: Tensor, exponents: Tensor | int) -> Tensor:
    """Return ``x · 2 ** exponents`` in the dtype of `x`, whatever torch's default dtype is."""
    powers = torch.as_tensor(exponents, device=x.device).to(x.dtype)
    return torch.ldexp(x, powers)


def has_safe_scale(largest: float) -> bool:
    """Return whether rows with this largest |x_i| stay as they are in :func:`scale_rows`."""
    return abs(math.frexp(largest)[1]) <= SAFE_EXPONENT


def scale_rows(x: Activations) -> tuple[Activations, Tensor | None]:
    """Return rows of a safe scale, and the exponents (n, 1) of the powers of two taken out.

    A power of two changes no digit, so a pursuit of the scaled rows takes the same steps. If all
    rows have a safe scale already, they are returned unchanged, with None.
    """
    largest = x.abs().amax(dim=1, keepdim=True)
    limit = LARGEST_SHIFT[x.dtype]
    exponents = torch.frexp(largest).exponent.clamp_(-limit, limit)
    exponents.masked_fill_(largest == 0, 0)
    if not (exponents.abs() > SAFE_EXPONENT).any():
        return x, None
    return shift_exponents(x, -exponents), exponents


def pack_codes(support: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes with the non-zero slots of each row first, in their order.

    The other slots, those of value −0 too, become index 0 and value 0.
    """
    unused = values == 0
    order = unused.to(torch.int8).argsort(dim=1, stable=True)
    unused = unused.gather(1, order)
    support, values = support.gather(1, order), values.gather(1, order)
    return support.masked_fill(unused, 0), values.masked_fill(unused, 0)


def restore_scale(
    support: Tensor, values: Tensor, exponents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return packed codes multiplied by the powers of two that :func:`scale_rows` took out.

    A coefficient that underflows to 0 leaves its slot unused.

    Parameters
    ----------
    support : int64 tensor of shape (n, k)
        Atoms of the slots; packed already where `exponents` is None.
    values : floating tensor of shape (n, k)
        Coefficients of the slots.
    exponents : integer tensor of shape (n, 1), or None
        What :func:`scale_rows` returned.
    """
    if exponents is None:
        return support, values
    return pack_codes(support, shift_exponents(values, exponents))
