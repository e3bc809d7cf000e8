"""Token activations at sites of a model, for one slice of the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dbksvd.activations.from_files import extract_ready_slice
from dbksvd.activations.part_files import Part, check_part, seal_part, write_parts
from dbksvd.activations.rows import check_ids, extract_sites
from dbksvd.activations.settings import (
    ExtractionSettings,
    FileActivations,
    ImageExtraction,
    TextExtraction,
)
from dbksvd.activations.slices import locate_slice
from dbksvd.base.settings import parse
from dbksvd.base.site import PAIRS, RESIDUAL
from dbksvd.base.splits import SPLITS, Split
from dbksvd.models.families import name_hook
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
    return extract_slices([settings], slice_index, [output], text=text, gpus=gpus)[0]


def extract_slices(
    settings: Sequence[Mapping[str, Any] | TextExtraction | FileActivations],
    slice_index: int,
    outputs: Sequence[str | Path],
    *,
    text: str | Path | None = None,
    gpus: int | None = None,
) -> list[dict[str, Any]]:
    """Write the parts of one slice at several sites of a model, which reads the slice once.

    Each part has the bytes that :func:`extract_slice` gives it alone.

    Parameters
    ----------
    settings : sequence of TextExtraction, or of one FileActivations, or of such mappings
        What is extracted, one entry a site; only the sites differ.
    slice_index : int
        From 0.
    outputs : sequence of paths
        The parts, one a site.
    text, gpus
        As for :func:`extract_slice`.

    Returns
    -------
    list of dict
        The seals.

    Raises
    ------
    ValueError
        As for :func:`extract_slice`, or if the entries differ in more than their sites.
    """
    checked = [parse(ExtractionSettings, one, "activations") for one in settings]
    paths = [Path(output) for output in outputs]
    if not checked or len(checked) != len(paths):
        raise ValueError(f"outputs: expected one a site, {len(checked)}, got {len(paths)}")
    first = checked[0]
    ranges, attributes = locate_slice(first, slice_index)
    for path in paths:
        check_part(path)
    if isinstance(first, FileActivations) and len(checked) == 1:
        extract_ready_slice(first, ranges, paths[0], attributes)
    elif not isinstance(first, TextExtraction):
        raise ValueError(f"activations.source: expected model or files, got {first.source!r}")
    else:
        if text is None:
            raise ValueError("text: expected the folder of prepare_text, got none")
        _check_alike(checked)
        _extract_text_slice(checked, ranges, slice_index, paths, attributes, Path(text), gpus=gpus)
    return [seal_part(path, ranges) for path in paths]


def _check_alike(settings: Sequence[Any]) -> None:
    """Check that entries differ in their sites alone: they share a forward pass."""
    own = {"hook_module": None, "layer": None, "place": RESIDUAL}
    first, *others = [one.model_copy(update=own) for one in settings]
    for position, other in enumerate(others, 1):
        if other != first:
            raise ValueError(
                f"settings[{position}]: expected those of the first entry but for layer, place and "
                "hook_module, got others"
            )


def _extract_text_slice(
    settings: Sequence[TextExtraction],
    ranges: Mapping[str, tuple[int, int]],
    slice_index: int,
    outputs: Sequence[Path],
    shared: Mapping[str, Any],
    text: Path,
    *,
    gpus: int | None,
) -> None:
    manifest, first = check_documents(text), settings[0]
    loaded = load_model(first.model, gpus=gpus)
    hooks = [find_hook(loaded, one.layer, one.hook_module, one.place) for one in settings]
    if loaded.max_length is not None and first.context_length > loaded.max_length:
        raise ValueError(
            f"activations.context_length: expected at most {loaded.max_length} tokens for "
            f"{loaded.name}, got {first.context_length}"
        )
    tokenized = _tokenize_slice(first, ranges, slice_index, text, loaded)
    dtype = first.storage_dtype
    probe = next(extract_sites(loaded, hooks, tokenized["train"][:1], 1, dtype))
    parts = [
        Part(
            output,
            records["activations"].shape[1],
            {
                **shared,
                **describe_extraction(one, loaded, hook),
                "text_sha256": manifest["sha256"],
            },
        )
        for one, hook, output, records in zip(settings, hooks, outputs, probe, strict=True)
    ]
    rows_of: dict[str, Iterator[list[np.ndarray]]] = {
        split: extract_sites(loaded, hooks, tokenized[split], first.batch_size, dtype)
        for split in SPLITS
    }
    write_parts(parts, ranges, rows_of, dtype)


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
    described = {
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
    if settings.place == RESIDUAL:  # its parts name no place
        return described
    layer = settings.layer or 0
    if settings.place in PAIRS:
        source, target = (name_hook(layer, end) for end in PAIRS[settings.place])
        described |= {"hook_name_out": target, "input_width": loaded.width}
        return described | {"place": settings.place, "hook_name": source}
    hook_name = name_hook(layer, settings.place) or settings.hook_module
    return described | {"place": settings.place, "hook_name": hook_name}
