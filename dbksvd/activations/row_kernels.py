"""Numba kernels that pass over rows once: norms, moments, hashes, copies of chosen rows.

Sums are in float64 and in NumPy's order (pairwise over up to 8,192 values, one such chunk after the
other; columns row after row), so that they have the bits that NumPy gives for float64 copies of the
rows, without the copies. All kernels release Python's lock.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

_CHUNK = 8192  # values in NumPy's buffer
_LEAF = 128  # up to so many values are added into 8 running sums; more are halved


def widen(rows: np.ndarray) -> np.ndarray:
    """Return rows of float16 as float32, which numba can read; any others as they are."""
    if rows.dtype != np.float16:
        return rows
    wide: np.ndarray = torch.from_numpy(np.ascontiguousarray(rows)).float().numpy()
    return wide


@njit(cache=True, nogil=True)
def _add_leaf(values):
    """Return the sum of at most `_LEAF` values."""
    if values.size < 8:
        total = -0.0
        for value in values:
            total += value
        return total
    sums = values[:8].copy()
    whole = values.size - values.size % 8
    for start in range(8, whole, 8):
        for place in range(8):
            sums[place] += values[start + place]
    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + (
        (sums[4] + sums[5]) + (sums[6] + sums[7])
    )
    for value in values[whole:]:
        total += value
    return total


@njit(cache=True, nogil=True)
def _add_pairwise(values):
    if values.size <= _LEAF:
        return _add_leaf(values)
    half = values.size // 2
    half -= half % 8
    return _add_pairwise(values[:half]) + _add_pairwise(values[half:])


@njit(cache=True, nogil=True)
def _add_all(values):
    total = 0.0
    for start in range(0, values.size, _CHUNK):
        total += _add_pairwise(values[start : start + _CHUNK])
    return total


@njit(cache=True, nogil=True)
def sum_rows(rows):
    """Return the sum of rows (n, d) over n, float64 of shape (d,)."""
    total = np.zeros(rows.shape[1])
    for row in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            total[column] += rows[row, column]
    return total


@njit(cache=True, nogil=True)
def sum_squares(rows, mean):
    """Return the sum of (rows − mean)² over all n · d values; `mean` is float64 of shape (d,)."""
    squares = np.empty(_CHUNK)
    total, filled = 0.0, 0
    for row in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            value = rows[row, column] - mean[column]
            squares[filled] = value * value
            filled += 1
            if filled == _CHUNK:
                total += _add_pairwise(squares)
                filled = 0
    return total + _add_pairwise(squares[:filled]) if filled else total


@njit(cache=True, nogil=True)
def find_norms(rows):
    """Return the norms of rows (n, d), float64 of shape (n,)."""
    norms = np.empty(rows.shape[0])
    squares = np.empty(rows.shape[1])
    for row in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            value = np.float64(rows[row, column])
            squares[column] = value * value
        norms[row] = np.sqrt(_add_all(squares))
    return norms


@njit(cache=True, nogil=True)
def hash_words(words, weights, shift, hashes):
    """Write Σ (w ⊕ (w ≫ shift)) · weight of each row into `hashes`, modulo 2⁶⁴; −0 counts as 0.

    Parameters
    ----------
    words : uint64, uint32 or uint16 array of shape (n, d)
        Bits of floating values.
    weights : uint64 array of shape (d,)
        One for each column.
    shift : int
        Half the bits of a word: the high ones are folded into the low ones.
    hashes : uint64 array of shape (n,)
        Output.

    Returns
    -------
    int
        How many rows are zero.
    """
    fold = np.uint64(shift)
    negative_zero = np.uint64(1) << np.uint64(2 * shift - 1)
    zero_rows = 0
    for row in range(words.shape[0]):
        total, seen = np.uint64(0), np.uint64(0)
        for column in range(words.shape[1]):
            word = np.uint64(words[row, column])
            if word == negative_zero:
                word = np.uint64(0)
            seen |= word
            total += (word ^ (word >> fold)) * weights[column]
        hashes[row] = total
        zero_rows += seen == 0
    return zero_rows


@njit(cache=True, nogil=True)
def copy_rows(source, order, target, start, first):
    """Copy rows of `source` to `target`, whose rows are records.

    Parameters
    ----------
    source : uint8 array of shape (n, b)
        Bytes of the rows.
    order : int64 array of shape (r,)
        Which rows, in the order that they get.
    target : uint8 array of shape (at least `start` + r, at least `first` + b)
        Bytes of the records.
    start, first : int
        First record, and first byte in each, that is written.
    """
    width = source.shape[1]
    for row in range(order.size):
        for place in range(width):
            target[start + row, first + place] = source[order[row], place]
