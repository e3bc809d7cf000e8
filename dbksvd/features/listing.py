"""Lists of each feature, as they are written, from what a pass has counted."""

from __future__ import annotations

import numpy as np

from dbksvd.features.kernels import FeatureState
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.tables import PairTable

COACTIVE_BLOCK = 1024


def _rank_in_groups(groups: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries of sorted groups are among the first `most` of theirs, and their rank.

    `groups` rises; equal numbers are one group.
    """
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else groups
    sizes = np.diff(np.r_[starts, len(groups)])
    rank = np.arange(len(groups)) - np.repeat(starts, sizes)
    return rank < most, rank


def list_tokens(table: PairTable, n_features: int, most: int) -> dict[str, np.ndarray]:
    """Return the tokens on which each feature fires most, by count, then by id."""
    feature, token, counts, sums = table.list_entries()
    order = np.lexsort((token, -counts, feature))
    kept, rank = _rank_in_groups(feature[order], most)
    chosen, place = order[kept], rank[kept]
    ids = np.full((n_features, most), -1, np.int32)
    arrays = {
        "token_id": ids,
        "token_count": np.zeros(ids.shape, np.int64),
        "token_total": np.zeros(ids.shape),
    }
    for array, values in zip(arrays.values(), (token, counts, sums), strict=True):
        array[feature[chosen], place] = values[chosen]
    return arrays


def list_coactive(table: PairTable, rows: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """Return the features most often active together with each, by Jaccard index, then number."""
    n_features = len(rows)
    features = np.full((n_features, most), -1, np.int32)
    counts = np.zeros(features.shape, np.int64)
    jaccards, conditionals = (np.zeros(features.shape, np.float32) for _ in range(2))
    low, high, count, _ = table.list_entries()
    # in blocks of features, since each pair counts for two and sorting takes several copies
    for start in range(0, n_features, COACTIVE_BLOCK):
        stop = start + COACTIVE_BLOCK
        first = slice(*np.searchsorted(low, [start, stop]))
        second = np.flatnonzero((high >= start) & (high < stop))
        own = np.concatenate([low[first], high[second]])
        other = np.concatenate([high[first], low[second]])
        both = np.concatenate([count[first], count[second]])
        jaccard = both / np.maximum(rows[own] + rows[other] - both, 1)
        order = np.lexsort((other, -jaccard, own))
        kept, rank = _rank_in_groups(own[order], most)
        chosen, place = order[kept], rank[kept]
        features[own[chosen], place] = other[chosen]
        counts[own[chosen], place] = both[chosen]
        jaccards[own[chosen], place] = jaccard[chosen]
        conditionals[own[chosen], place] = both[chosen] / rows[own[chosen]]
    return {
        "coactive_base": rows,
        "coactive_feature": features,
        "coactive_count": counts,
        "coactive_jaccard": jaccards,
        "coactive_conditional": conditionals,
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
    rows = order
    window = state.window.reshape(-1, state.window.shape[2])
    starts, places, values = [0], [], []
    for block in np.array_split(rows, max(len(rows) // 65536, 1)):
        shown = window[block]
        example, place = np.nonzero(shown)
        starts.append(np.bincount(example, minlength=len(block)))
        places.append(place + state.first.reshape(-1)[block[example]])
        values.append(shown[example, place])
    return {
        "example_start": np.r_[0, np.cumsum((~free).sum(axis=1))].astype(np.int64),
        "example_group": group,
        "example_document": state.document.reshape(-1)[rows],
        "example_tile": state.tile.reshape(-1)[rows],
        "example_position": state.position.reshape(-1)[rows],
        "example_peak": state.peak.reshape(-1)[rows],
        "example_first": state.first.reshape(-1)[rows],
        "example_length": state.length.reshape(-1)[rows],
        "value_start": np.cumsum(np.concatenate([np.atleast_1d(part) for part in starts])),
        "value_position": np.concatenate(places).astype(np.int32),
        "value": np.concatenate(values),
    }
