"""Lists of each feature, as they are written, from what a pass has counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dbksvd.features.kernels import FeatureState
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.tables import PairTable


@njit(nogil=True, cache=True)
def _pick_best(owner, score, tie, best):
    """Put entries among the best of their owners: by falling score, then by rising tie.

    `best` holds the number of an entry (−1: none), its score and its tie, each of shape
    (features, most).
    """
    number, scores, ties = best
    most = number.shape[1]
    for entry in range(owner.size):
        f, own, tied = owner[entry], score[entry], tie[entry]
        place = most
        while place > 0 and (
            number[f, place - 1] < 0
            or own > scores[f, place - 1]
            or (own == scores[f, place - 1] and tied < ties[f, place - 1])
        ):
            place -= 1
            if place + 1 < most:
                number[f, place + 1] = number[f, place]
                scores[f, place + 1] = scores[f, place]
                ties[f, place + 1] = ties[f, place]
        if place < most:
            number[f, place] = entry
            scores[f, place] = own
            ties[f, place] = tied


def _make_best(n_features: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (n_features, most)
    return np.full(shape, -1, np.int64), np.zeros(shape), np.zeros(shape, np.int64)


def _gather(values: np.ndarray, number: np.ndarray, dtype: Any) -> np.ndarray:
    """Return the values of entries by their numbers, 0 where there is none."""
    found = np.zeros(number.shape, dtype)
    found[number >= 0] = values[number[number >= 0]]
    return found


def list_tokens(table: PairTable, n_features: int, most: int) -> dict[str, np.ndarray]:
    """Return the tokens on which each feature fires most, by count, then by id."""
    feature, token, counts, sums = table.list_entries()
    best = _make_best(n_features, most)
    _pick_best(feature, counts.astype(np.float64), token, best)
    number = best[0]
    return {
        "token_id": np.where(number < 0, -1, best[2]).astype(np.int32),
        "token_count": _gather(counts, number, np.int64),
        "token_total": _gather(sums, number, np.float64),
    }


def list_coactive(table: PairTable, rows: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """Return the features most often active together with each, by Jaccard index, then number.

    Parameters
    ----------
    table : PairTable
        Rows in which two features are active, the lower one first.
    rows : int64 array of shape (F,)
        Rows in which each feature is active.
    most : int
        How many are listed.
    """
    low, high, both, _ = table.list_entries()
    jaccard = both / np.maximum(rows[low] + rows[high] - both, 1)
    best = _make_best(len(rows), most)
    for owner, other in ((low, high), (high, low)):
        _pick_best(owner, jaccard, other, best)
    number, _, others = best
    return {
        "coactive_base": rows,
        "coactive_feature": np.where(number < 0, -1, others).astype(np.int32),
        "coactive_count": _gather(both, number, np.int64),
    }


def _number_groups(settings: ExampleSettings, size: int) -> np.ndarray:
    """Return the group, from 1, of each of `size` examples that are sorted by falling peak."""
    return np.arange(size) * settings.groups // max(size, 1) + 1


def list_examples(state: FeatureState, settings: ExampleSettings) -> dict[str, np.ndarray]:
    """Return the examples of all features in one list; see docs/pages.md."""
    n_features, slots = state.rank.shape
    free = np.isneginf(state.rank)
    in_sample = np.broadcast_to(np.arange(slots) >= settings.top, free.shape)
    # of each feature: the top, then the sample, both by falling peak, then free slots
    kind = np.where(free, 2, in_sample.astype(np.int64))
    feature = np.broadcast_to(np.arange(n_features)[:, None], free.shape)
    keys = (state.order, -state.peak, kind, feature)
    order = np.lexsort(tuple(key.reshape(-1) for key in keys))
    order = order[kind.reshape(-1)[order] < 2]
    group = np.zeros(len(order), np.int32)
    sampled = (~free & in_sample).sum(axis=1)
    numbers = {size: _number_groups(settings, size) for size in np.unique(sampled)}
    group[kind.reshape(-1)[order] == 1] = np.concatenate(
        [numbers[size] for size in sampled] or [np.empty(0, np.int64)]
    )
    window = state.window.reshape(-1, state.window.shape[2])
    starts, places, values = [np.zeros(1, np.int64)], [], []
    for block in np.array_split(order, max(len(order) // 65536, 1)):
        shown = window[block]
        example, place = np.nonzero(shown)
        starts.append(np.bincount(example, minlength=len(block)))
        places.append(place + state.first.reshape(-1)[block[example]])
        values.append(shown[example, place])
    return {
        "example_start": np.r_[0, np.cumsum((~free).sum(axis=1))].astype(np.int64),
        "example_group": group,
        "example_document": state.document.reshape(-1)[order],
        "example_tile": state.tile.reshape(-1)[order],
        "example_position": state.position.reshape(-1)[order],
        "example_first": state.first.reshape(-1)[order],
        "example_length": state.length.reshape(-1)[order],
        "value_start": np.cumsum(np.concatenate(starts)),
        "value_position": np.concatenate(places).astype(np.int32),
        "value": np.concatenate(values),
    }
