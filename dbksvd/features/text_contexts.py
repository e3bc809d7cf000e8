"""Contexts of text: documents through a model, a window of them at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dbksvd.activations.from_text import describe_extraction
from dbksvd.activations.rows import WINDOW_BATCHES, extract_rows
from dbksvd.activations.settings import TextExtraction
from dbksvd.base.settings import parse
from dbksvd.features.contexts import Contexts
from dbksvd.features.kernels import ContextRows
from dbksvd.features.settings import ExampleSettings
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.text.documents import DOCUMENTS_FILE, check_documents, iterate_documents
from dbksvd.text.tokens import TokenizedDocument, tokenize_documents

# Activations of a window: 32,768 tokens of width 512 in float32.
WINDOW_BYTES = 2**26


class TextContexts:
    """Documents of a text folder through a model; one document is one context.

    Parameters
    ----------
    settings : TextExtraction, or a mapping of the same keys
        Model, site, context length and batch size, as the activations were extracted.
    text : path
        Folder written by :func:`dbksvd.text.documents.prepare_text`.
    split : {"heldout", "train"}
        Which documents.
    loaded : LoadedModel, optional
        The model, where it is loaded already.
    gpus : int
        GPUs given to this job.
    """

    kind = "text"

    def __init__(
        self,
        settings: Mapping[str, Any] | TextExtraction,
        text: str | Path,
        split: str = "heldout",
        *,
        loaded: LoadedModel | None = None,
        gpus: int = 0,
    ) -> None:
        self.settings = parse(TextExtraction, settings, "activations")
        self.text, self.split = Path(text), split
        self.manifest = check_documents(text)
        self.loaded = loaded or load_model(self.settings.model, gpus=gpus)
        site = self.settings
        self.hook = find_hook(self.loaded, site.layer, site.hook_module, site.place)
        self.total: int | None = self.manifest["documents"][split]
        row_bytes = 4 * self.loaded.width * self.settings.context_length
        batch = self.settings.batch_size
        self.window = batch * min(max(WINDOW_BYTES // (row_bytes * batch), 1), WINDOW_BATCHES)

    def show_window(self, settings: ExampleSettings) -> tuple[int, int, int]:
        """Return the window of the settings."""
        return settings.tokens_before, settings.tokens_after, settings.window

    def describe(self) -> dict[str, Any]:
        """Return model and data, as the manifest of a site says them."""
        model = describe_extraction(self.settings, self.loaded, self.hook)
        return {
            "model": model,
            "data": {"sha256": self.manifest["sha256"], "split": self.split},
        }

    def tokenize(self, start: int = 0) -> Iterator[TokenizedDocument]:
        """Yield the documents from number `start` of the split on, all their tokens kept."""
        return tokenize_documents(
            islice(iterate_documents(self.text, self.split), start, None),  # type: ignore[arg-type]
            self.loaded.tokenizer,
            context_length=self.settings.context_length,
            tokens_per_document=None,
        )

    def list_sources(self) -> dict[int, str]:
        """Return the name of the source of each document of the split, by its line."""
        found = {}
        with (self.text / DOCUMENTS_FILE).open() as stream:
            for index, line in enumerate(stream):
                record = json.loads(line)
                if record["split"] == self.split:
                    found[index] = record["source"]
        return found

    def iterate(self, start: int) -> Iterator[Contexts]:
        """Yield windows of documents; their activations are rounded as stored ones are."""
        documents = self.tokenize(start)
        while window := list(islice(documents, self.window)):
            yield extract_contexts(
                self.loaded,
                self.hook,
                window,
                self.settings.batch_size,
                self.settings.storage_dtype,
            )


def extract_contexts(
    loaded: LoadedModel,
    hook: Any,
    documents: list[TokenizedDocument],
    batch_size: int = 32,
    dtype: str = "float32",
) -> Contexts:
    """Run documents through a model and return them as contexts.

    Parameters
    ----------
    loaded, hook
        Model and site.
    documents : list of TokenizedDocument
        What to run.
    batch_size : int
        Documents in a forward pass.
    dtype : {"float32", "float16"}
        Type to which activations are rounded.
    """
    used = [document for document in documents if len(document.kept)]
    parts = list(extract_rows(loaded, hook, used, batch_size, dtype))
    width = loaded.width
    values = [part["activations"] for part in parts] or [np.empty((0, width), np.float32)]
    lengths = np.array([len(document.kept) for document in documents], np.int64)
    token = [document.ids[document.kept] for document in documents]
    position = [document.kept for document in documents]
    rows = ContextRows(
        starts=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        document=np.array([document.index for document in documents], np.int32),
        tile=np.zeros(len(documents), np.int32),
        length=np.array([len(document.ids) for document in documents], np.int32),
        position=np.concatenate(position).astype(np.int32),
        token=np.concatenate(token).astype(np.int32),
    )
    activations = np.concatenate(values).astype(np.float32, copy=False)
    return Contexts(torch.from_numpy(activations), rows)
