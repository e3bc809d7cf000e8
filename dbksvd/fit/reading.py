"""Where a fit reads its samples from: a tensor, an array, or shards larger than memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.source import ActivationSource
from dbksvd.base.shapes import Activations, Bias
from dbksvd.ops.inputs import as_matrix, as_tensor

# Rows read at once where a result is accumulated; 24 MiB at d = 384.
READ_ROWS = 1 << 14


class TensorSource:
    """A tensor or array in memory (or memory-mapped) as an :class:`ActivationSource`."""

    def __init__(
        self,
        x: Tensor | np.ndarray[Any, Any],
        argument: str = "x",
        *,
        may_be_empty: bool = False,
    ) -> None:
        if not isinstance(x, Tensor | np.ndarray):
            raise ValueError(
                f"{argument}: expected a tensor, an array or an object with len(), width and "
                f"read(), got {type(x).__name__}"
            )
        if x.ndim != 2 or x.shape[1] == 0 or (len(x) == 0 and not may_be_empty):
            raise ValueError(
                f"{argument}: expected a non-empty matrix of two dimensions, "
                f"got shape {tuple(x.shape)}"
            )
        if isinstance(x, Tensor):
            x = as_tensor(x, argument)
        as_matrix(x[:1], argument, may_be_empty=True, may_be_half=True)
        self._x = x
        self.width = int(x.shape[1])

    def __len__(self) -> int:
        return len(self._x)

    def read(self, start: int, stop: int) -> Activations:
        """Return rows ``start … stop − 1`` as float32 on the CPU."""
        rows = self._x[start:stop]
        if isinstance(rows, np.ndarray):
            return torch.from_numpy(np.array(rows, np.float32))
        return rows.to("cpu", torch.float32)


def as_source(x: Any, argument: str = "x", *, may_be_empty: bool = False) -> ActivationSource:
    """Return `x` as a source of samples, or raise a ValueError that names the argument."""
    if hasattr(x, "tocsr"):
        raise ValueError(
            f"{argument}: expected a dense array, since sparse input is not supported, got "
            f"{type(x).__name__}"
        )
    if isinstance(x, Tensor | np.ndarray) or not isinstance(x, ActivationSource):
        return TensorSource(x, argument, may_be_empty=may_be_empty)
    if len(x) == 0 and not may_be_empty:
        raise ValueError(f"{argument}: expected at least one sample, got none")
    return x


def read_rows(source: ActivationSource, start: int, stop: int, argument: str = "x") -> Activations:
    """Return rows ``start … stop − 1``.

    Parameters
    ----------
    source : ActivationSource
        Samples.
    start, stop : int
        First row, and the row after the last one.
    argument : str
        What the user calls the source, for messages.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    return as_matrix(source.read(start, stop), argument, may_be_empty=start == stop)


def check_differ(source: ActivationSource, argument: str) -> None:
    """Check that no score on samples would be one on nothing, before hours are spent on a fit.

    Rows are read up to the first that differs from the first of all.

    Raises
    ------
    ValueError
        If all samples are the same.
    """
    first = read_rows(source, 0, 1, argument)
    for start in range(0, len(source), READ_ROWS):
        rows = read_rows(source, start, min(start + READ_ROWS, len(source)), argument)
        if bool((rows != first).any()):
            return
    raise ValueError(
        f"{argument}: expected at least 2 samples that differ, got {len(source)} that do not: "
        "without variance no score means anything"
    )


def read_cycle(source: ActivationSource, position: int, size: int) -> Activations:
    """Return `size` consecutive rows from `position` on, beginning again after the last row."""
    n = len(source)
    parts = []
    while size > 0:
        start = position % n
        stop = min(n, start + size)
        parts.append(read_rows(source, start, stop))
        position, size = position + stop - start, size - (stop - start)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def find_mean(source: ActivationSource, argument: str = "x") -> Bias:
    """Return the mean of all samples, float32 of shape (d,); a source may know its own."""
    known = getattr(source, "mean", None)
    if isinstance(known, Tensor | np.ndarray):
        return torch.as_tensor(known, dtype=torch.float32, device="cpu").clone()
    total = np.zeros(source.width)
    for start in range(0, len(source), READ_ROWS):
        rows = read_rows(source, start, min(start + READ_ROWS, len(source)), argument)
        # numpy sums in one fixed order, whatever the number of threads
        total += rows.numpy().sum(axis=0, dtype=np.float64)
    return torch.from_numpy(total / len(source)).float()
