"""Which rows a slice has: the work of an extraction is divided into slices."""

from __future__ import annotations

from typing import Any

from dbksvd.activations.settings import RowSettings
from dbksvd.base.splits import SPLITS


def share_range(total: int, slice_index: int, slices: int) -> tuple[int, int]:
    """Return the rows [start, stop) of slice `slice_index`: equal shares, the first get the rest.

    Examples
    --------
    >>> [share_range(10, i, 3) for i in range(3)]
    [(0, 4), (4, 7), (7, 10)]
    """
    share, rest = divmod(total, slices)
    start = slice_index * share + min(slice_index, rest)
    return start, start + share + (slice_index < rest)


def locate_slice(
    settings: RowSettings, slice_index: int
) -> tuple[dict[str, tuple[int, int]], dict[str, Any]]:
    """Return the rows of each split that a slice has, and the attributes that say so.

    Raises
    ------
    ValueError
        If there is no such slice.
    """
    check_slice(settings, slice_index)
    ranges: dict[str, tuple[int, int]] = {
        split: share_range(settings.count(split), slice_index, settings.slices) for split in SPLITS
    }
    attributes: dict[str, Any] = {"slice": slice_index, "slices": settings.slices}
    attributes |= {f"{split}_range": ranges[split] for split in SPLITS}
    return ranges, attributes


def check_slice(settings: RowSettings, slice_index: int) -> None:
    """Raise a ValueError where there is no slice of this number."""
    if not 0 <= slice_index < settings.slices:
        raise ValueError(f"slice: expected 0 to {settings.slices - 1}, got {slice_index}")
