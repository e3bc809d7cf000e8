"""Rows of activations: documents through a model, kept tokens as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from dbksvd.activations.hdf5 import record_dtype
from dbksvd.models.hooks import HookPoint, capture_activations
from dbksvd.models.loading import LoadedModel
from dbksvd.text.tokens import TokenizedDocument

WINDOW_BATCHES = 8


def extract_rows(
    loaded: LoadedModel,
    hook: HookPoint,
    documents: list[TokenizedDocument],
    batch_size: int,
    dtype: str,
) -> Iterator[np.ndarray]:
    """Yield the records of the kept tokens, in the order of the documents.

    Inside a window of a few batches, documents are batched by length, which saves padding; the
    order is restored before the window is given out.

    Parameters
    ----------
    loaded, hook
        Model and site.
    documents : list of TokenizedDocument
        What to run.
    batch_size : int
        Documents in a forward pass.
    dtype : {"float32", "float16"}
        Type of the activations given out.

    Yields
    ------
    array of :func:`dbksvd.activations.hdf5.record_dtype`, one record a kept token

    Raises
    ------
    ValueError
        If an activation is NaN, infinite, or too large for `dtype`, or the model has no embedding
        for a token.
    """
    check_ids(loaded, documents)
    window = WINDOW_BATCHES * batch_size
    for first in range(0, len(documents), window):
        chunk = documents[first : first + window]
        order = sorted(range(len(chunk)), key=lambda position: len(chunk[position].ids))
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            output = _run(loaded, hook, [chunk[position].ids for position in batch])
            for row, position in enumerate(batch):
                document = chunk[position]
                found[position] = make_records(
                    output[row, document.kept],
                    {
                        "document": document.index,
                        "position": document.kept,
                        "token": document.ids[document.kept],
                    },
                    f"document {document.index} at {hook.name}",
                    dtype,
                )
        yield np.concatenate([found[position] for position in range(len(chunk))])


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


def _run(loaded: LoadedModel, hook: HookPoint, sequences: list[np.ndarray]) -> torch.Tensor:
    """Run padded sequences; any valid id will do as padding, because the mask hides it."""
    length = max(map(len, sequences))
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
    return capture_activations(loaded, hook, ids, mask).float().cpu()


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
