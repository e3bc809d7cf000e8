"""Contexts of one row each, from shards: activations that come from no text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dbksvd.activations.shards import ActivationShards
from dbksvd.features.contexts import Contexts
from dbksvd.features.kernels import ContextRows
from dbksvd.features.settings import ExampleSettings


class RowContexts:
    """Rows of shards, each a context of its own: activations that come from no text.

    Parameters
    ----------
    shards : ActivationShards
        The rows. ``document`` of a row is its number in the shards, ``position`` that in the file
        or draw it comes from.
    """

    kind = "rows"
    window = 4096

    def __init__(self, shards: ActivationShards) -> None:
        self.shards = shards
        self.total: int | None = len(shards)

    def show_window(self, settings: ExampleSettings) -> tuple[int, int, int]:  # noqa: ARG002
        """Return a window of one row."""
        return 0, 0, 1

    def describe(self) -> dict[str, Any]:
        """Return model and data, as the manifest of a site says them."""
        manifest = self.shards.manifest
        data = {"sha256": manifest["sha256"], "split": self.shards.split}
        return {"model": manifest["model"], "data": data}

    def iterate(self, start: int) -> Iterator[Contexts]:
        """Yield windows of rows."""
        for first in range(start, len(self.shards), self.window):
            stop = min(first + self.window, len(self.shards))
            position = self.shards.read_labels(first, stop).position
            rows = ContextRows(
                starts=np.arange(stop - first + 1, dtype=np.int64),
                document=np.arange(first, stop, dtype=np.int32),
                tile=np.zeros(stop - first, np.int32),
                length=(position + 1).astype(np.int32),
                position=position,
                token=np.full(stop - first, -1, np.int32),
            )
            yield Contexts(self.shards.read(first, stop), rows)
