"""Numba kernels that take the codes of contexts into the statistics of features."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

BINS = 64


class FeatureState(NamedTuple):
    """Statistics and examples of F features, K examples each, W tokens shown of each.

    Of the K examples the first are the top contexts, the others the sample that becomes the
    quantile groups. A slot with ``length`` 0 is free. ``rank`` decides which example goes when a
    better one comes: the peak for the top, minus a random number for the sample.

    Parameters
    ----------
    fired, context_count : int64 arrays of shape (F,)
        Tokens and contexts in which the feature fires.
    total : float64 array of shape (F,)
        Sum of its coefficients.
    maximum : float32 array of shape (F,)
        Largest coefficient.
    histogram : int64 array of shape (F, BINS)
        Coefficients in equal bins of [0, histogram_top).
    histogram_top : float64 array of shape (F,)
        Powers of 2; 0 where nothing has come.
    document, tile, position, first, length : int32 arrays of shape (F, K)
        Where an example is, and the positions that are shown.
    peak : float32 array of shape (F, K)
        Its largest coefficient.
    rank : float64 array of shape (F, K)
        −inf where the slot is free.
    order : int64 array of shape (F, K)
        Number of the context in the stream: among equal ranks the later one goes.
    window : float32 array of shape (F, K, W)
        Coefficients at the shown positions.
    worst : int64 array of shape (F, 2)
        Slot of the top, and of the sample, whose example goes next.
    """

    fired: np.ndarray
    context_count: np.ndarray
    total: np.ndarray
    maximum: np.ndarray
    histogram: np.ndarray
    histogram_top: np.ndarray
    document: np.ndarray
    tile: np.ndarray
    position: np.ndarray
    first: np.ndarray
    length: np.ndarray
    peak: np.ndarray
    rank: np.ndarray
    order: np.ndarray
    window: np.ndarray
    worst: np.ndarray

    @classmethod
    def empty(cls, n_features: int, top: int, slots: int, window: int) -> FeatureState:
        """Return the state before anything has come."""
        table = (n_features, slots)
        return cls(
            fired=np.zeros(n_features, np.int64),
            context_count=np.zeros(n_features, np.int64),
            total=np.zeros(n_features),
            maximum=np.zeros(n_features, np.float32),
            histogram=np.zeros((n_features, BINS), np.int64),
            histogram_top=np.zeros(n_features),
            document=np.zeros(table, np.int32),
            tile=np.zeros(table, np.int32),
            position=np.zeros(table, np.int32),
            first=np.zeros(table, np.int32),
            length=np.zeros(table, np.int32),
            peak=np.zeros(table, np.float32),
            rank=np.full(table, -np.inf),
            order=np.zeros(table, np.int64),
            window=np.zeros((*table, window), np.float32),
            worst=np.full((n_features, 2), (0, top), np.int64),
        )


class ContextRows(NamedTuple):
    """Where the n rows of c contexts come from.

    Parameters
    ----------
    starts : int64 array of shape (c + 1,)
        Rows of context i are ``starts[i] … starts[i + 1] − 1``, by rising position.
    document, tile, length : int32 arrays of shape (c,)
        Document or image; tile in the image (0 for text); positions in all.
    position, token : int32 arrays of shape (n,)
        Of each row.
    """

    starts: np.ndarray
    document: np.ndarray
    tile: np.ndarray
    length: np.ndarray
    position: np.ndarray
    token: np.ndarray


@njit(nogil=True, cache=True)
def draw_priority(seed, document, tile, feature):
    """Return a number in [0, 1) that depends on its arguments only (SplitMix64)."""
    z = np.uint64(seed)
    for part in (np.int64(document), np.int64(tile), np.int64(feature)):
        z = z + np.uint64(part + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) / 2.0**53


@njit(nogil=True, cache=True)
def _count_value(state, f, v):
    state.fired[f] += 1
    state.total[f] += v
    if v > state.maximum[f]:
        state.maximum[f] = v
    if v >= state.histogram_top[f]:
        top = 2.0 ** math.frexp(v)[1]
        if state.histogram_top[f] > 0:
            shift = int(math.log2(top / state.histogram_top[f]))
            for b in range(1, BINS):  # equal bins of twice the width are pairs of the old ones
                moved = state.histogram[f, b]
                state.histogram[f, b] = 0
                state.histogram[f, b >> min(shift, 62)] += moved
        state.histogram_top[f] = top
    state.histogram[f, int(v * (BINS / state.histogram_top[f]))] += 1


@njit(nogil=True, cache=True)
def _find_worst(state, f, low, high):
    """Return the slot whose example goes first: of the lowest rank, among these the latest."""
    worst = low
    for slot in range(low + 1, high):
        lower = state.rank[f, slot] < state.rank[f, worst]
        later = state.order[f, slot] > state.order[f, worst]
        if lower or (state.rank[f, slot] == state.rank[f, worst] and later):
            worst = slot
    return worst


@njit(nogil=True, cache=True)
def _keep(state, f, slot, rank, order, contexts, c, row, indices, values, before, after):
    """Write the context c with its peak at `row` into a slot."""
    place, size = contexts.position[row], state.window.shape[2]
    first = max(place - before, 0)
    stop = min(place + after + 1, first + size, contexts.length[c])
    state.rank[f, slot] = rank
    state.order[f, slot] = order
    state.document[f, slot] = contexts.document[c]
    state.tile[f, slot] = contexts.tile[c]
    state.position[f, slot] = place
    state.first[f, slot] = first
    state.length[f, slot] = stop - first
    state.window[f, slot] = 0
    low = row
    while low > contexts.starts[c] and contexts.position[low - 1] >= first:
        low -= 1
    for other in range(low, contexts.starts[c + 1]):
        if contexts.position[other] >= stop:
            break
        for s in range(indices.shape[1]):
            if indices[other, s] == f and values[other, s] != 0:
                state.window[f, slot, contexts.position[other] - first] = values[other, s]
    state.peak[f, slot] = state.window[f, slot, place - first]


@njit(nogil=True, cache=True)
def add_contexts(state, contexts, indices, values, top, before, after, seed, order):
    """Take the codes of contexts into the statistics; see :class:`FeatureState`.

    Parameters
    ----------
    state : FeatureState
        Changed in place.
    contexts : ContextRows
        Where the rows come from.
    indices, values : int64 and float32 arrays of shape (n, k)
        Codes, values ≥ 0; a slot of value 0 is not used.
    top : int
        Slots of the top contexts; the others are the sample.
    before, after : int
        Positions shown around a peak, as far as the windows are wide enough.
    seed : int
        Of the sample.
    order : int
        Number of the first context in the stream.
    """
    n_features, slots = state.rank.shape
    seen = np.full(n_features, -1, np.int64)
    peak_row = np.zeros(n_features, np.int64)
    peak = np.zeros(n_features, np.float32)
    found = np.zeros(n_features, np.int64)
    for c in range(contexts.starts.size - 1):
        n_found = 0
        for row in range(contexts.starts[c], contexts.starts[c + 1]):
            for s in range(indices.shape[1]):
                v = values[row, s]
                if v == 0:
                    continue
                f = indices[row, s]
                _count_value(state, f, v)
                if seen[f] != c:
                    seen[f] = c
                    found[n_found] = f
                    n_found += 1
                    peak[f] = v
                    peak_row[f] = row
                elif v > peak[f]:
                    peak[f] = v
                    peak_row[f] = row
        for i in range(n_found):
            f = found[i]
            state.context_count[f] += 1
            chance = -draw_priority(seed, contexts.document[c], contexts.tile[c], f)
            for part in range(2):
                rank = np.float64(peak[f]) if part == 0 else chance
                slot = state.worst[f, part]
                if rank > state.rank[f, slot]:
                    _keep(
                        state, f, slot, rank, order + c, contexts, c, peak_row[f], indices, values,
                        before, after,
                    )  # fmt: skip
                    low, high = (0, top) if part == 0 else (top, slots)
                    state.worst[f, part] = _find_worst(state, f, low, high)
