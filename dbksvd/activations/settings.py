"""What activations are extracted, and which rows of them a slice has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbksvd.activations.hdf5 import STORAGE_DTYPES
from dbksvd.base.old_settings import check_at_least
from dbksvd.base.splits import SPLITS, Split


@dataclass(frozen=True)
class ActivationSettings:
    """What is extracted.

    Parameters
    ----------
    n_train_tokens, n_heldout_tokens : int
        Tokens (rows) of each split, over all slices.
    slices : int
        Parts the work is divided into.
    source : {"model", "files", "images"}
        Extract from text, take ready activations from ``files``, or extract from images
        (:func:`dbksvd.activations.from_images.extract_image_slice`).
    layer, hook_module
        Place in the model; see :func:`dbksvd.models.loading.find_hook`.
    context_length : int
        Tokens of a document that the model sees, special ones counted; the rest is not used.
    batch_size : int
        Documents, or tiles of images, in a forward pass.
    tokens_per_document : int, optional
        Most tokens kept of a document or tile, drawn at random without replacement; None keeps
        all.
    image_tokens : {"cls", "patches", "all"}, optional
        Which tokens of a tile are kept: the class token, the patches, or these and any registers.
    storage_dtype : {"float32", "float16"}
        Type on disk.
    model : dict, optional
        See :class:`dbksvd.models.loading.ModelSettings`.
    files : dict, optional
        See :class:`dbksvd.activations.from_files.ReadySettings`.
    """

    n_train_tokens: int
    n_heldout_tokens: int
    slices: int = 1
    source: str = "model"
    layer: int | None = None
    hook_module: str | None = None
    context_length: int = 128
    batch_size: int = 32
    tokens_per_document: int | None = None
    image_tokens: str | None = None
    storage_dtype: str = "float32"
    model: dict[str, Any] | None = None
    files: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.storage_dtype not in STORAGE_DTYPES:
            raise ValueError(
                f"activations.storage_dtype: expected one of {', '.join(STORAGE_DTYPES)}, "
                f"got {self.storage_dtype!r}"
            )
        counts = {
            name: getattr(self, name)
            for name in ("slices", "context_length", "batch_size", "tokens_per_document")
        }
        tokens = {f"n_{split}_tokens": self.count(split) for split in SPLITS}
        check_at_least(1, "activations", **counts)
        check_at_least(self.slices, "activations", **tokens)

    def count(self, split: Split) -> int:
        """Return the tokens of a split over all slices."""
        return self.n_train_tokens if split == "train" else self.n_heldout_tokens


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


def place_slice(
    settings: ActivationSettings, slice_index: int
) -> tuple[dict[str, tuple[int, int]], dict[str, Any]]:
    """Return the rows of each split that a slice has, and the attributes that say so.

    Raises
    ------
    ValueError
        If there is no such slice.
    """
    if not 0 <= slice_index < settings.slices:
        raise ValueError(f"slice: expected 0 to {settings.slices - 1}, got {slice_index}")
    ranges: dict[str, tuple[int, int]] = {
        split: share_range(settings.count(split), slice_index, settings.slices) for split in SPLITS
    }
    place: dict[str, Any] = {"slice": slice_index, "slices": settings.slices}
    place |= {f"{split}_range": ranges[split] for split in SPLITS}
    return ranges, place
