"""Token activations at one site of a model, for one slice of the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dbksvd.activations.from_files import extract_ready_slice
from dbksvd.activations.hdf5 import SCHEMA_VERSION, create_file, write_rows
from dbksvd.activations.rows import check_ids, extract_rows
from dbksvd.activations.settings import (
    ExtractionSettings,
    FileActivations,
    ImageExtraction,
    TextExtraction,
)
from dbksvd.activations.slices import locate_slice
from dbksvd.base.files import hash_file, write_json
from dbksvd.base.saving import check_replaceable
from dbksvd.base.settings import parse
from dbksvd.base.splits import SPLITS, Split
from dbksvd.models.hooks import HookPoint, find_hook
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.models.tokenizer import check_unknown, compare_ids
from dbksvd.text.documents import check_documents, iterate_documents
from dbksvd.text.tokens import TokenizedDocument, select_tokens

# Documents by which the tokenizer is judged before a long run.
CHECKED_DOCUMENTS = 64


def extract_slice(
    settings: Mapping[str, Any] | TextExtraction | FileActivations,
    slice_index: int,
    output: str | Path,
    *,
    text: str | Path | None = None,
    gpus: int | None = None,
) -> dict[str, Any]:
    """Write the part of one slice (HDF5) and its seal (JSON beside it, with the part's hash).

    Slice i of S takes the documents i, i + S, … of each split, in order, until its share of the
    tokens is full. Special tokens and padding are dropped.

    Parameters
    ----------
    settings : TextExtraction or FileActivations, or a mapping of the same keys
        What is extracted.
    slice_index : int
        From 0.
    output : path
        The part; the seal gets the suffix ``.json``.
    text : path, optional
        Folder written by :func:`dbksvd.text.documents.prepare_text`; needed for source ``"model"``.
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
    checked = parse(ExtractionSettings, settings, "activations")
    ranges, attributes = locate_slice(checked, slice_index)
    output = Path(output)
    check_part(output)
    if isinstance(checked, FileActivations):
        extract_ready_slice(checked, ranges, output, attributes)
    elif not isinstance(checked, TextExtraction):
        raise ValueError(f"activations.source: expected model or files, got {checked.source!r}")
    else:
        if text is None:
            raise ValueError("text: expected the folder of prepare_text, got none")
        _extract_text_slice(checked, ranges, slice_index, output, attributes, Path(text), gpus)
    return seal_part(output, ranges)


def check_part(output: Path) -> None:
    """Check that the seal of a part would replace nothing but an older seal.

    Raises
    ------
    ValueError
        If another file has its name.
    """
    check_replaceable(output.with_suffix(".json"), ("schema_version", "sha256"))


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
    settings: TextExtraction,
    ranges: Mapping[str, tuple[int, int]],
    slice_index: int,
    output: Path,
    attributes: dict[str, Any],
    text: Path,
    gpus: int | None,
) -> None:
    manifest = check_documents(text)
    loaded = load_model(settings.model, gpus=gpus)
    hook = find_hook(loaded, settings.layer, settings.hook_module)
    if loaded.max_length is not None and settings.context_length > loaded.max_length:
        raise ValueError(
            f"activations.context_length: expected at most {loaded.max_length} tokens for "
            f"{loaded.name}, got {settings.context_length}"
        )
    tokenized = _tokenize_slice(settings, ranges, slice_index, text, loaded)
    dtype = settings.storage_dtype
    width = next(extract_rows(loaded, hook, tokenized["train"][:1], 1, dtype))["activations"].shape[
        1
    ]
    attributes |= describe_extraction(settings, loaded, hook)
    attributes["text_sha256"] = manifest["sha256"]
    rows_of: dict[str, Iterator[np.ndarray]] = {
        split: extract_rows(loaded, hook, tokenized[split], settings.batch_size, dtype)
        for split in SPLITS
    }
    write_part(output, ranges, rows_of, width, dtype, attributes)


def _tokenize_slice(
    settings: TextExtraction,
    ranges: Mapping[str, tuple[int, int]],
    slice_index: int,
    text: Path,
    loaded: LoadedModel,
) -> dict[Split, list[TokenizedDocument]]:
    """Tokenize all text before the first forward pass: what is wrong with it is found at once."""
    first = islice(iterate_documents(text, "train"), CHECKED_DOCUMENTS)
    texts = (document.text for document in first)
    compare_ids(loaded.tokenizer, loaded.tokenizer_file, texts, loaded.name)
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
    for documents in tokenized.values():
        check_ids(loaded, documents)
    judged = tokenized["train"][:CHECKED_DOCUMENTS]
    kept = np.concatenate([document.ids[document.kept] for document in judged])
    check_unknown(loaded.tokenizer, kept, loaded.name)
    return tokenized


def write_part(
    output: Path,
    ranges: Mapping[str, tuple[int, int]],
    rows_of: Mapping[str, Iterator[np.ndarray]],
    width: int,
    dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    """Write the part of one slice from an iterator of records for each split, with progress.

    Parameters
    ----------
    output : Path
        The part (HDF5).
    ranges : mapping of split to (start, stop)
        Rows of this slice inside the rows of the split.
    rows_of : mapping of split to iterator of arrays
        Records (:func:`dbksvd.activations.hdf5.record_dtype`), as many as `ranges` say.
    width : int
        Width d of the activations.
    dtype : {"float32", "float16"}
        Type on disk.
    attributes : mapping
        Attributes of the part.
    """
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
    settings: TextExtraction, loaded: LoadedModel, hook: HookPoint
) -> dict[str, Any]:
    """Return the attributes that all parts of an extraction from text share."""
    first = loaded.tokenizer("a")["input_ids"][:1]
    return describe_site(settings, loaded, hook) | {
        "context_length": settings.context_length,
        "prepend_bos": first == [loaded.tokenizer.bos_token_id],
    }


def describe_site(
    settings: TextExtraction | ImageExtraction, loaded: LoadedModel, hook: HookPoint
) -> dict[str, Any]:
    """Return the attributes that say of which model and which site activations are."""
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
