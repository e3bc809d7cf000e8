"""Rows of activations: documents through a model, kept tokens as records."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.hdf5 import record_dtype
from dbksvd.models.hooks import HookPoint, capture_sites
from dbksvd.models.loading import LoadedModel
from dbksvd.text.tokens import TokenizedDocument

# Documents are sorted by length in windows of at least so many batches, more while they are small.
WINDOW_BATCHES = 8
WINDOW_BYTES = 1 << 26
PROBED_DOCUMENTS = 64
# Largest change by padding that is rounding, of the largest coordinate.
PADDING_TOLERANCE = {torch.float32: 5e-5, torch.float16: 0.1, torch.bfloat16: 0.1}

logger = logging.getLogger(__name__)
_IGNORES_PADDING: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def extract_rows(
    loaded: LoadedModel,
    hook: HookPoint,
    documents: list[TokenizedDocument],
    batch_size: int,
    dtype: str,
) -> Iterator[np.ndarray]:
    """Yield the records of the kept tokens at one site; see :func:`extract_sites`."""
    for (records,) in extract_sites(loaded, [hook], documents, batch_size, dtype):
        yield records


def extract_sites(
    loaded: LoadedModel,
    hooks: Sequence[HookPoint],
    documents: list[TokenizedDocument],
    batch_size: int,
    dtype: str,
) -> Iterator[list[np.ndarray]]:
    """Yield the records of the kept tokens at each site, in the order of the documents.

    A document is run once for all sites. Inside a window, documents are batched by length, which
    saves padding; the order is restored before the window is given out.

    Parameters
    ----------
    loaded, hooks
        Model and sites.
    documents : list of TokenizedDocument
        What to run.
    batch_size : int
        Documents in a forward pass.
    dtype : {"float32", "float16"}
        Type of the activations given out.

    Yields
    ------
    list of arrays of :func:`dbksvd.activations.hdf5.record_dtype`
        One array a site, one record a kept token.

    Raises
    ------
    ValueError
        If an activation is NaN, infinite, or too large for `dtype`, or the model has no embedding
        for a token.
    """
    check_ids(loaded, documents)
    mixes = ignores_padding(loaded, hooks, documents)
    row_bytes = 4 * loaded.width * sum(len(hook.ends) for hook in hooks)
    for chunk in _make_windows(documents, WINDOW_BATCHES * batch_size, WINDOW_BYTES // row_bytes):
        order = sorted(range(len(chunk)), key=lambda position: len(chunk[position].ids))
        found: list[dict[int, np.ndarray]] = [{} for _ in hooks]
        lengths = [len(chunk[position].ids) for position in order]
        for start, stop in _divide(lengths, batch_size, mixes=mixes):
            batch = order[start:stop]
            outputs = _run(loaded, hooks, [chunk[position].ids for position in batch])
            for hook, output, records in zip(hooks, outputs, found, strict=True):
                for row, position in enumerate(batch):
                    document = chunk[position]
                    records[position] = make_records(
                        output[row, document.kept],
                        {
                            "document": document.index,
                            "position": document.kept,
                            "token": document.ids[document.kept],
                        },
                        f"document {document.index} at {hook.name}",
                        dtype,
                    )
        places = range(len(chunk))
        yield [np.concatenate([records[position] for position in places]) for records in found]


def _make_windows(
    documents: list[TokenizedDocument], least: int, most_rows: int
) -> Iterator[list[TokenizedDocument]]:
    """Yield windows of at least `least` documents, and of more up to `most_rows` kept tokens."""
    first = 0
    while first < len(documents):
        last, rows = first, 0
        while last < len(documents) and (last - first < least or rows < most_rows):
            rows += len(documents[last].kept)
            last += 1
        yield documents[first:last]
        first = last


def _divide(lengths: list[int], batch_size: int, *, mixes: bool) -> Iterator[tuple[int, int]]:
    """Yield the batches of documents in order of length; of one length each if not `mixes`."""
    start = 0
    while start < len(lengths):
        stop = min(start + batch_size, len(lengths))
        if not mixes:
            stop = min(stop, bisect_right(lengths, lengths[start]))
        yield start, stop
        start = stop


def ignores_padding(
    loaded: LoadedModel, hooks: Sequence[HookPoint], documents: list[TokenizedDocument]
) -> bool:
    """Return whether padding leaves a model's activations as they are; measured once a model.

    Most models do that by their attention mask. Some mix all positions (FNet), or hash or
    convolve over the padding: their documents are run with others of the same length.

    Raises
    ------
    ValueError
        If the model gives other activations each time.
    """
    if (known := _IGNORES_PADDING.get(loaded.model)) is not None:
        return known
    some = sorted((document.ids for document in documents[:PROBED_DOCUMENTS]), key=len)
    if not some or len(some[0]) == len(some[-1]):
        return True
    short, long = some[0], some[-1]
    runs = [_run(loaded, hooks, rows) for rows in ([short], [short], [short, long])]
    found = True
    for hook, *outputs in zip(hooks, *runs, strict=True):
        alone, again, padded = (output[0, : len(short)] for output in outputs)
        limit = PADDING_TOLERANCE[loaded.model.dtype] * float(alone.abs().max())
        if float((alone - again).abs().max()) > limit:
            raise ValueError(
                f"{loaded.name}: expected a model that gives the same activations each time, got "
                f"others from {type(loaded.model).__name__} at {hook.name}"
            )
        found &= not float((alone - padded).abs().max()) > limit
    _IGNORES_PADDING[loaded.model] = found
    if not found:
        logger.warning("%s: padding changes its activations: run by length", loaded.name)
    return found


def check_ids(loaded: LoadedModel, documents: list[TokenizedDocument]) -> None:
    """Check that the model has an embedding for every token.

    Raises
    ------
    ValueError
        If it has none for one; the message names token and document.
    """
    if loaded.embeddings is None:
        return
    for document in documents:
        largest = int(document.ids.max(initial=0))
        if largest >= loaded.embeddings:
            word = loaded.tokenizer.convert_ids_to_tokens(largest)
            raise ValueError(
                f"{loaded.name}: expected token ids below {loaded.embeddings}, the rows of the "
                f"model's embedding, got {largest} for {word!r} in document {document.index}"
            )


def _run(
    loaded: LoadedModel, hooks: Sequence[HookPoint], sequences: list[np.ndarray]
) -> list[torch.Tensor]:
    """Run padded sequences; any valid id will do as padding, because the mask hides it."""
    length = max(map(len, sequences))
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
    return [found.float().cpu() for found in capture_sites(loaded, hooks, ids, mask)]


def make_records(
    activations: Tensor, labels: Mapping[str, np.ndarray | int], where: str, dtype: str
) -> np.ndarray:
    """Return rows (n, d) with their labels, as records of ``record_dtype``.

    Parameters
    ----------
    activations : tensor of shape (n, d)
        On the CPU.
    labels : mapping of str to int or array of shape (n,)
        ``document``, ``position`` and ``token``.
    where : str
        Where the rows are from, for messages.
    dtype : {"float32", "float16"}
        Type of the activations in the records.

    Raises
    ------
    ValueError
        If a value is NaN, infinite, or too large for `dtype`; the message names `where`.
    """
    records = np.empty(len(activations), record_dtype(activations.shape[1], dtype))
    with np.errstate(over="ignore"):  # found by the check below, with a better message
        records["activations"] = activations.numpy()
    if not np.isfinite(records["activations"]).all():
        raise ValueError(
            f"activations: expected finite {dtype} values, got NaN or infinity in {where}"
        )
    for name, values in labels.items():
        records[name] = values
    return records
