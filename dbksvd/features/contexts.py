"""Contexts with their activations: what examples are collected from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dbksvd.features.kernels import ContextRows
from dbksvd.features.settings import ExampleSettings


@dataclass(frozen=True)
class Contexts:
    """Some contexts: activations (n, d) of their rows, and where these come from."""

    activations: Tensor
    rows: ContextRows

    def __len__(self) -> int:
        """Return the number of contexts."""
        return len(self.rows.document)


class ContextSource(Protocol):
    """What examples are collected from: ``kind`` is "text", "images" or "rows"."""

    kind: str
    total: int | None  # contexts in all, where known

    def show_window(self, settings: ExampleSettings) -> tuple[int, int, int]:
        """Return positions shown before and after a peak, and in all."""
        ...

    def iterate(self, start: int) -> Iterator[Contexts]:
        """Yield windows of contexts from context `start` on, which began a window before."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return ``model`` and ``data`` of the manifest, so far as they are known beforehand."""
        ...


def limit_norms(contexts: Contexts, norm_limit: float | None) -> Contexts:
    """Leave out the rows whose norm is above a limit, such as those of attention sinks.

    Parameters
    ----------
    contexts : Contexts
        Contexts; they keep their number and length.
    norm_limit : float or None
        Largest Euclidean norm, in the unit of the activations; None leaves out nothing.
    """
    if norm_limit is None:
        return contexts
    kept = torch.linalg.vector_norm(contexts.activations.double(), dim=1) <= norm_limit
    if kept.all():
        return contexts
    chosen, rows = kept.numpy(), contexts.rows
    before = np.r_[0, np.cumsum(chosen)]
    rows = rows._replace(
        starts=before[rows.starts],
        position=rows.position[chosen],
        token=rows.token[chosen],
    )
    return Contexts(contexts.activations[kept], rows)


def cut_contexts(contexts: Contexts, room: int) -> tuple[Contexts, bool]:
    """Leave out the contexts that begin after `room` rows; also return whether room is used up."""
    starts = contexts.rows.starts
    if starts[-1] < room:
        return contexts, False
    n = int(np.searchsorted(starts[:-1], room))
    rows, stop = contexts.rows, int(starts[n])
    cut = ContextRows(
        starts[: n + 1], rows.document[:n], rows.tile[:n], rows.length[:n],
        rows.position[:stop], rows.token[:stop],
    )  # fmt: skip
    return Contexts(contexts.activations[:stop], cut), True
