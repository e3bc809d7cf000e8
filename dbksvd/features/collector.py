"""Statistics and examples of one dictionary, taken in batch by batch in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.features.kernels import ContextRows, FeatureState, add_contexts
from dbksvd.features.listing import list_coactive, list_examples, list_tokens
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.tables import PairTable


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
        Positions shown before and after a peak, and in all; by default those of the settings.
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
        window: tuple[int, int, int] | None = None,
        table_bytes: int = 2**28,
        has_tokens: bool = True,
    ) -> None:
        self.n_atoms, self.signed, self.settings = n_atoms, signed, settings
        self.n_features = n_atoms * (1 + signed)
        if window is None:
            window = (settings.tokens_before, settings.tokens_after, settings.window)
        self.before, self.after, size = window
        self.state = FeatureState.empty(self.n_features, settings.top, settings.slots, size)
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
        shown = (self.before, self.after)
        add_contexts(self.state, contexts, indices, values, s.top, *shown, s.seed, order)
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
            "count": state.fired,
            "context_count": state.context_count,
            "total": state.total,
            "maximum": state.maximum,
            "histogram_count": state.histogram,
            "histogram_top": state.histogram_top,
        }
        if self.tokens is not None:
            arrays |= list_tokens(self.tokens, self.n_features, self.settings.tokens_listed)
        arrays |= list_coactive(self.pairs, self.pair_rows, self.settings.coactive_listed)
        return arrays | list_examples(state, self.settings)

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
