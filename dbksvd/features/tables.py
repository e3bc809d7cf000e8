"""Counts of pairs (feature, other) in bounded memory: exact until the table is full.

An open-addressing table. When it is full at its largest size, the rarest pairs are forgotten
(lossy counting, Manku and Motwani 2002); the error that any count can have is carried along.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

ENTRY_BYTES = 24
_SMALLEST = 2**12
_SHIFT = 32


class Slots(NamedTuple):
    """The arrays of a table: keys (−1: free), counts and sums, one entry a slot."""

    keys: np.ndarray
    counts: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Slots:
        """Return `size` free slots."""
        return cls(np.full(size, -1, np.int64), np.zeros(size, np.int64), np.zeros(size))


@njit(nogil=True, cache=True)
def add_entry(slots, key, count, value):
    """Add to the entry of `key`; return 1 if it is new, else 0."""
    mask = slots.keys.size - 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(20)) & mask
    while slots.keys[slot] != key:
        if slots.keys[slot] == -1:
            slots.keys[slot] = key
            slots.counts[slot] = count
            slots.sums[slot] = value
            return 1
        slot = (slot + 1) & mask
    slots.counts[slot] += count
    slots.sums[slot] += value
    return 0


@njit(nogil=True, cache=True)
def _move(old, new):
    for slot in range(old.keys.size):
        if old.keys[slot] != -1:
            add_entry(new, old.keys[slot], old.counts[slot], old.sums[slot])


@njit(nogil=True, cache=True)
def _add_tokens(slots, room, start, indices, values, token):
    """Count (feature, token) from row `start` on; return the next row and the new entries.

    Stops before a row for which the room might not do.
    """
    added = 0
    for row in range(start, indices.shape[0]):
        if added + indices.shape[1] > room:
            return row, added
        for s in range(indices.shape[1]):
            if values[row, s] != 0:
                key = (indices[row, s] << 32) | np.int64(token[row])
                added += add_entry(slots, key, 1, np.float64(values[row, s]))
    return indices.shape[0], added


@njit(nogil=True, cache=True)
def _add_pairs(slots, room, start, indices, values, _token):
    """Count pairs of features that are active in the same row, the lower one first."""
    added = 0
    width = indices.shape[1]
    for row in range(start, indices.shape[0]):
        if added + width * (width - 1) // 2 > room:
            return row, added
        for s in range(width):
            if values[row, s] != 0:
                for t in range(s):
                    if values[row, t] != 0:
                        low = min(indices[row, s], indices[row, t])
                        high = max(indices[row, s], indices[row, t])
                        added += add_entry(slots, (low << 32) | high, 1, 0.0)
    return indices.shape[0], added


class PairTable:
    """Counts, and sums of a value, of pairs of whole numbers below 2³¹.

    Parameters
    ----------
    most_bytes : int
        Memory of the table at its largest; half as much again while it grows.

    Attributes
    ----------
    error : int
        How many occurrences of a pair the table may have forgotten at most; 0 while it is exact.
    """

    def __init__(self, most_bytes: int) -> None:
        most = max(most_bytes // ENTRY_BYTES, _SMALLEST)
        self.most_slots = 1 << (most.bit_length() - 1)
        self.slots = Slots.empty(min(_SMALLEST, self.most_slots))
        self.entries = 0
        self.error = 0

    def add_tokens(self, indices: np.ndarray, values: np.ndarray, token: np.ndarray) -> None:
        """Count the token of each row for the features (n, k) that are not zero there."""
        self._add(_add_tokens, indices, values, token, indices.shape[1])

    def add_pairs(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Count the pairs of features that are not zero in the same row."""
        width = indices.shape[1]
        token = np.empty(0, np.int32)
        self._add(_add_pairs, indices, values, token, width * (width - 1) // 2)

    def list_entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return first and second number, count and sum of all pairs, in no order."""
        used = np.flatnonzero(self.slots.keys != -1)
        keys = self.slots.keys[used]
        second = keys & ((1 << _SHIFT) - 1)
        return keys >> _SHIFT, second, self.slots.counts[used], self.slots.sums[used]

    def save(self) -> dict[str, np.ndarray]:
        """Return the table as arrays."""
        first, second, counts, sums = self.list_entries()
        size = np.array([self.slots.keys.size, self.error])
        keys = (first << _SHIFT) | second
        return {"size": size, "keys": keys, "counts": counts, "sums": sums}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what :meth:`save` returned."""
        size, self.error = (int(number) for number in arrays["size"])
        self.slots = Slots.empty(size)
        _move(Slots(arrays["keys"], arrays["counts"], arrays["sums"]), self.slots)
        self.entries = len(arrays["keys"])

    def _add(self, kernel, indices, values, token, per_row: int) -> None:  # type: ignore[no-untyped-def]
        row = 0
        while row < len(indices):
            while self._room() < per_row:
                self._make_room(per_row)
            row, added = kernel(self.slots, self._room(), row, indices, values, token)
            self.entries += int(added)

    def _room(self) -> int:
        return self.slots.keys.size * 7 // 10 - self.entries

    def _make_room(self, per_row: int) -> None:
        """Double the table, or forget the rarest half where it may not grow."""
        size = self.slots.keys.size
        old = self.slots
        if size < self.most_slots or self.entries <= per_row:
            self.slots = Slots.empty(2 * size)
        else:
            counts = old.counts[old.keys != -1]
            least = int(np.partition(counts, len(counts) // 2)[len(counts) // 2])
            kept = (old.keys != -1) & (old.counts > least)
            old = Slots(*(array[kept] for array in old))
            self.error += least
            self.entries = len(old.keys)
            self.slots = Slots.empty(size)
        _move(old, self.slots)
