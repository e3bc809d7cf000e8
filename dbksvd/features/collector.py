"""Statistics and examples of one dictionary, taken in batch by batch in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import Dictionary, SparseDictionary
from dbksvd.features.kernels import ContextRows, FeatureState, add_contexts
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.tables import PairTable

COACTIVE_BLOCK = 1024


def is_signed(dictionary: SparseDictionary) -> bool:
    """Return whether a dictionary's codes may be negative."""
    if isinstance(dictionary, Dictionary):
        return not dictionary.settings.nonnegative
    return bool(getattr(getattr(dictionary, "sae", None), "is_signed", False))


def split_sides(codes: SparseCodes, signed: bool) -> SparseCodes:
    """Return codes over features ≥ 0: atoms, or both sides of each atom where codes are signed.

    Raises
    ------
    ValueError
        If codes that are not signed hold a negative coefficient.
    """
    if signed:
        return codes.split_signs()
    if len(codes) and float(codes.values.min()) < 0:
        raise ValueError(
            "codes: expected coefficients ≥ 0 of a dictionary that is not signed, got "
            f"{float(codes.values.min()):.3g}"
        )
    return codes


class Collector:
    """What feature pages show of one dictionary, as far as it needs a pass over the text.

    Parameters
    ----------
    n_atoms : int
        m.
    signed : bool
        Whether codes may be negative: each atom then has two features.
    settings : ExampleSettings
        How much is kept.
    window : tuple of int, optional
        Positions shown before a peak, and in all; by default those of the settings.
    table_bytes : int
        Most memory for the counts of tokens, and as much for those of pairs.
    has_tokens : bool
        Whether rows have tokens worth counting; those of images do not.
    """

    def __init__(
        self,
        n_atoms: int,
        signed: bool,
        settings: ExampleSettings,
        *,
        window: tuple[int, int] | None = None,
        table_bytes: int = 2**28,
        has_tokens: bool = True,
    ) -> None:
        self.n_atoms, self.signed, self.settings = n_atoms, signed, settings
        self.n_features = n_atoms * (1 + signed)
        self.before, size = window or (settings.tokens_before, settings.window)
        self.state = FeatureState.empty(self.n_features, settings.slots, size)
        self.tokens = PairTable(table_bytes) if has_tokens else None
        self.pairs = PairTable(table_bytes)
        self.pair_rows = np.zeros(self.n_features, np.int64)  # rows with each feature, of those

    def add(self, contexts: ContextRows, codes: SparseCodes, order: int, rows_before: int) -> None:
        """Take in the codes of contexts.

        Parameters
        ----------
        contexts : ContextRows
            Where the n rows come from.
        codes : SparseCodes
            Of the rows, with the dictionary's own signs.
        order : int
            Contexts that came before.
        rows_before : int
            Rows that came before.
        """
        split = split_sides(codes, self.signed)
        indices = np.ascontiguousarray(split.indices.numpy(force=True))
        values = np.ascontiguousarray(split.values.float().numpy(force=True))
        s = self.settings
        add_contexts(self.state, contexts, indices, values, s.top, self.before, s.seed, order)
        if self.tokens is not None:
            self.tokens.add_tokens(indices, values, contexts.token)
        counted = slice(0, max(s.coactive_tokens - rows_before, 0))
        self.pairs.add_pairs(indices[counted], values[counted])
        active = indices[counted][values[counted] != 0]
        self.pair_rows += np.bincount(active, minlength=self.n_features)

    def save(self) -> dict[str, Tensor]:
        """Return all that has been taken in, by name."""
        arrays = {f"state.{name}": array for name, array in self.state._asdict().items()}
        for name, table in self._tables():
            arrays |= {f"{name}.{key}": array for key, array in table.save().items()}
        arrays["pair_rows"] = self.pair_rows
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what :meth:`save` returned."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.state = FeatureState(*(arrays[f"state.{name}"] for name in FeatureState._fields))
        for name, table in self._tables():
            keys = ("size", "keys", "counts", "sums")
            table.restore({key: arrays[f"{name}.{key}"] for key in keys})
        self.pair_rows = arrays["pair_rows"]

    def finish(self) -> dict[str, np.ndarray]:
        """Return the arrays of docs/pages.md that come from the text."""
        state = self.state
        arrays = {
            "count": state.count,
            "context_count": state.context_count,
            "total": state.total,
            "maximum": state.maximum,
            "histogram_count": state.histogram,
            "histogram_top": state.histogram_top,
        }
        if self.tokens is not None:
            arrays |= _list_tokens(self.tokens, self.n_features, self.settings.tokens_listed)
        arrays |= _list_coactive(self.pairs, self.pair_rows, self.settings.coactive_listed)
        return arrays | _list_examples(state, self.settings)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the dictionary's numbers."""
        return {
            "n_atoms": self.n_atoms,
            "signed": self.signed,
            "n_features": self.n_features,
            "token_error": None if self.tokens is None else self.tokens.error,
            "coactive_error": self.pairs.error,
        }

    def _tables(self) -> list[tuple[str, PairTable]]:
        named = [("tokens", self.tokens), ("pairs", self.pairs)]
        return [(name, table) for name, table in named if table is not None]


def _rank_in_groups(groups: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which entries of sorted groups are among the first `most` of theirs, and their rank.

    `groups` rises; equal numbers are one group.
    """
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else groups
    sizes = np.diff(np.r_[starts, len(groups)])
    rank = np.arange(len(groups)) - np.repeat(starts, sizes)
    return rank < most, rank


def _list_tokens(table: PairTable, n_features: int, most: int) -> dict[str, np.ndarray]:
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


def _list_coactive(table: PairTable, rows: np.ndarray, most: int) -> dict[str, np.ndarray]:
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
        "coactive_feature": features,
        "coactive_count": counts,
        "coactive_jaccard": jaccards,
        "coactive_conditional": conditionals,
    }


def _number_groups(settings: ExampleSettings, size: int) -> np.ndarray:
    """Return the group, from 1, of each of `size` examples that are sorted by falling peak."""
    return np.arange(size) * settings.groups // max(size, 1) + 1


def _list_examples(state: FeatureState, settings: ExampleSettings) -> dict[str, np.ndarray]:
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
