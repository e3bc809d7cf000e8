"""What users give, made plain or refused: arrays of any strides, tensors, whole numbers.

Errors name the argument, what was expected and what came.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.shapes import Activations

HALF = (torch.float16, torch.bfloat16)
# Unit rows that were rounded to bfloat16 are off by less.
HALF_NORM_TOLERANCE = 5e-3


def as_matrix(
    x: Tensor | np.ndarray[Any, Any],
    argument: str,
    *,
    may_be_empty: bool = False,
    may_be_half: bool = False,
) -> Tensor:
    """Return `x` as a finite, non-empty floating tensor of two dimensions, or raise.

    Parameters
    ----------
    x : tensor or array
        In any layout that torch or numpy has for dense values.
    argument : str
        What the user calls it, for messages.
    may_be_empty : bool
        Whether there may be no rows.
    may_be_half : bool
        Whether float16 and bfloat16 are taken too; they are returned as float32.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    x = as_tensor(x, argument)
    if x.dtype in HALF and may_be_half:
        x = x.float()
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{argument}: expected float32 or float64, got {str(x.dtype).removeprefix('torch.')}"
        )
    if x.ndim != 2 or x.shape[1] == 0 or (len(x) == 0 and not may_be_empty):
        raise ValueError(
            f"{argument}: expected a non-empty matrix of two dimensions, got shape {tuple(x.shape)}"
        )
    if len(x):
        low, high = torch.aminmax(x)
        if not torch.isfinite(low) or not torch.isfinite(high):
            raise ValueError(f"{argument}: expected finite values, got NaN or infinity")
    return x


def as_tensor(x: Tensor | np.ndarray[Any, Any], argument: str) -> Tensor:
    """Return a dense tensor, or an array of any strides and byte order, as a tensor; or raise.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    if isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        if x.dtype.kind != "f" or x.dtype.itemsize > 8:
            raise ValueError(f"{argument}: expected float32 or float64, got {x.dtype}")
        # torch has neither negative strides nor other byte orders, and warns about read-only
        # arrays, since it has no read-only tensors: those are copied
        is_plain = x.flags.writeable and x.dtype.isnative and min(x.strides, default=0) >= 0
        x = torch.from_numpy(
            np.asarray(x) if is_plain else np.array(x, x.dtype.newbyteorder("="), order="C")
        )
    if not isinstance(x, Tensor):
        raise ValueError(f"{argument}: expected a tensor or an array, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_meta:
        kind = "meta" if x.is_meta else str(x.layout).removeprefix("torch.")
        raise ValueError(f"{argument}: expected a tensor with all its values, got a {kind} one")
    return x.detach()


def as_samples(x: Tensor | np.ndarray[Any, Any], atoms: Tensor) -> Activations:
    """Return what is to be encoded over `atoms` (m, d) as a finite floating tensor (n, d).

    Raises
    ------
    ValueError
        If it is not that, or of another width or device than the atoms.
    """
    x = as_matrix(x, "x", may_be_empty=True, may_be_half=True)
    check_width(x.shape[1], atoms.shape[1])
    if atoms.device != x.device:
        raise ValueError(f"x: expected device {atoms.device} (that of atoms), got {x.device}")
    return x


def restore_norms(atoms: Tensor) -> Tensor:
    """Return atoms of half precision as float32, of unit norm again where rounding changed it."""
    rows = atoms.float()
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where((norms - 1).abs() <= HALF_NORM_TOLERANCE, rows / norms, rows)


def check_width(width: int, expected: int) -> None:
    """Check that samples are as wide as atoms.

    Raises
    ------
    ValueError
        Naming both widths.
    """
    if width != expected:
        raise ValueError(f"x: expected width {expected} (that of atoms), got {width}")


def as_count(value: Any, argument: str, *, least: int = 1) -> int:
    """Return a whole number as an int, whichever type it has.

    Parameters
    ----------
    value : int, or another number without a fraction
        Such as 100, 100.0 or a numpy integer.
    argument : str
        What the user calls it, for messages.
    least : int
        The smallest number that is allowed, 0 or 1.

    Raises
    ------
    ValueError
        Naming the argument, what was expected and what came.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if is_number and math.isfinite(value) and value == int(value) and value >= least:
        return int(value)
    wanted = "a positive integer" if least else "an integer ≥ 0"
    raise ValueError(f"{argument}: expected {wanted}, got {value!r}")


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer, of Python or of numpy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device of a name, with "auto" for CUDA where there is one.

    Raises
    ------
    ValueError
        If there is no such device here.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: expected one of {torch.cuda.device_count()} CUDA devices, got {str(name)!r}"
        )
    return device
