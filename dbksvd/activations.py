"""Token activations of one place in a model, for one slice of the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.files import hash_file, write_json
from dbksvd.hooks import HookPoint, extract_rows, find_hook
from dbksvd.models import LoadedModel, load_model
from dbksvd.parts import SCHEMA_VERSION, STORAGE_DTYPES, create_file, write_rows
from dbksvd.ready_activations import extract_ready_slice
from dbksvd.settings import build_settings, check_at_least
from dbksvd.splits import SPLITS, Split
from dbksvd.text import check_documents, iterate_documents
from dbksvd.tokens import select_tokens


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
        (:func:`dbksvd.image_activations.extract_image_slice`).
    layer, hook_module
        Place in the model; see :func:`dbksvd.models.find_hook`.
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
        See :class:`dbksvd.models.ModelSettings`.
    files : dict, optional
        See :class:`dbksvd.ready_activations.ReadySettings`.
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


def extract_slice(
    settings: Mapping[str, Any],
    slice_index: int,
    output: str | Path,
    *,
    text: str | Path | None = None,
    gpus: int = 1,
) -> dict[str, Any]:
    """Write the part of one slice (HDF5) and its seal (JSON beside it, with the part's hash).

    Slice i of S takes the documents i, i + S, … of each split, in order, until its share of the
    tokens is full. Special tokens and padding are dropped.

    Parameters
    ----------
    settings : mapping
        See :class:`ActivationSettings`.
    slice_index : int
        From 0.
    output : path
        The part; the seal gets the suffix ``.json``.
    text : path, optional
        Folder written by :func:`dbksvd.text.prepare_text`; needed for source ``"model"``.
    gpus : int
        GPUs given to this job.

    Returns
    -------
    dict
        The seal.

    Raises
    ------
    ValueError
        If a setting is not usable, there is too little text, or an activation is not finite.
    """
    checked = build_settings(ActivationSettings, settings, "activations")
    if checked.source not in ("model", "files"):
        raise ValueError(f"activations.source: expected model or files, got {checked.source!r}")
    ranges, place = place_slice(checked, slice_index)
    output = Path(output)
    if checked.source == "files":
        extract_ready_slice(
            checked.files or {},
            ranges,
            output,
            place,
            totals={split: checked.count(split) for split in SPLITS},
            storage_dtype=checked.storage_dtype,
        )
    else:
        if text is None:
            raise ValueError("text: expected the folder of prepare_text, got none")
        _extract_text_slice(checked, ranges, slice_index, output, place, Path(text), gpus)
    return seal_part(output, ranges)


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


def seal_part(output: Path, ranges: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Write the JSON beside a finished part: its rows and its hash."""
    seal = {
        "schema_version": SCHEMA_VERSION,
        "file": output.name,
        "sha256": hash_file(output),
        "rows": {split: stop - start for split, (start, stop) in ranges.items()},
    }
    write_json(output.with_suffix(".json"), seal)
    return seal


def _extract_text_slice(
    settings: ActivationSettings,
    ranges: Mapping[str, tuple[int, int]],
    slice_index: int,
    output: Path,
    place: dict[str, Any],
    text: Path,
    gpus: int,
) -> None:
    manifest = check_documents(text)
    loaded = load_model(settings.model or {}, gpus=gpus)
    hook = find_hook(loaded, settings.layer, settings.hook_module)
    if loaded.max_length is not None and settings.context_length > loaded.max_length:
        raise ValueError(
            f"activations.context_length: expected at most {loaded.max_length} tokens for "
            f"{loaded.name}, got {settings.context_length}"
        )
    # All text is tokenized before the first forward pass: too little text is found at once.
    tokenized = {
        split: select_tokens(
            iterate_documents(text, split, slice_index=slice_index, slices=settings.slices),
            loaded.tokenizer,
            quota=ranges[split][1] - ranges[split][0],
            context_length=settings.context_length,
            tokens_per_document=settings.tokens_per_document,
            what=f"{split} tokens in slice {slice_index}",
        )
        for split in SPLITS
    }
    dtype = settings.storage_dtype
    width = next(extract_rows(loaded, hook, tokenized["train"][:1], 1, dtype))["activations"].shape[
        1
    ]
    attributes = place | describe_extraction(settings, loaded, hook)
    attributes["text_sha256"] = manifest["sha256"]
    rows_of: dict[str, Iterator[np.ndarray]] = {
        split: extract_rows(loaded, hook, tokenized[split], settings.batch_size, dtype)
        for split in SPLITS
    }
    write_part(output, ranges, rows_of, width, dtype, attributes)


def write_part(
    output: Path,
    ranges: Mapping[str, tuple[int, int]],
    rows_of: Mapping[str, Iterator[np.ndarray]],
    width: int,
    dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    """Write the part of one slice from an iterator of records for each split, with progress."""
    tables: dict[str, int] = {split: stop - start for split, (start, stop) in ranges.items()}
    with create_file(output, tables, width, dtype, attributes) as file:
        for split in SPLITS:
            start = 0
            with tqdm(total=tables[split], unit=" tokens", unit_scale=True, desc=split) as bar:
                for rows in rows_of[split]:
                    write_rows(file[split], start, rows)
                    start += len(rows)
                    bar.update(len(rows))


def describe_extraction(
    settings: ActivationSettings, loaded: LoadedModel, hook: HookPoint
) -> dict[str, Any]:
    """Return the attributes that all parts of an extraction from text share."""
    first = loaded.tokenizer("a")["input_ids"][:1]
    return describe_place(settings, loaded, hook) | {
        "context_length": settings.context_length,
        "prepend_bos": first == [loaded.tokenizer.bos_token_id],
    }


def describe_place(
    settings: ActivationSettings, loaded: LoadedModel, hook: HookPoint
) -> dict[str, Any]:
    """Return the attributes that say of which model and where in it activations are."""
    return {
        "model": loaded.name,
        "model_kind": loaded.kind,
        "revision": loaded.revision,
        "model_sha256": loaded.sha256,
        "model_dtype": str(loaded.model.dtype).removeprefix("torch."),
        "layer": -1 if settings.layer is None else settings.layer,
        "hook_module": settings.hook_module,
        "site": hook.name,
        "dtype": settings.storage_dtype,
    }
