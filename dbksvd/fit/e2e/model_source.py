"""The model and the documents that the activations of a fit are of."""

from __future__ import annotations

from pathlib import Path

from dbksvd.activations.settings import TextExtraction
from dbksvd.base.settings import parse
from dbksvd.base.site import RESIDUAL
from dbksvd.fit.task import FitTask
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.text.documents import check_documents


def load_causal(task: FitTask) -> tuple[LoadedModel, TextExtraction, Path]:
    """Return the model of a task, how its activations were extracted, and its documents.

    Raises
    ------
    ValueError
        If there is none, it has no language-model head, or the site is not behind a block.
    """
    algorithm = task.settings.algorithm
    if task.extraction is None or task.text is None:
        raise ValueError(f"{algorithm}: expected the model and its documents, got none")
    extraction = parse(TextExtraction, task.extraction, "activations")
    if extraction.place != RESIDUAL or extraction.hook_module or not extraction.layer:
        raise ValueError(
            f"activations: expected the residual stream behind a block for {algorithm}, got "
            f"{extraction.hook_module or f'{extraction.place} of layer {extraction.layer}'}"
        )
    loaded = load_model(extraction.model, gpus=task.gpus)
    if loaded.kind != "causal":
        raise ValueError(
            f"model: expected a causal language model for {algorithm}, got {loaded.name}, an "
            "encoder without a language-model head"
        )
    return loaded, extraction, task.text


def check_source(task: FitTask, loaded: LoadedModel, text: Path) -> str:
    """Check that model and documents are those of the activations; return the documents' hash.

    Raises
    ------
    ValueError
        If they are not.
    """
    found = {"model_sha256": loaded.sha256, "text_sha256": check_documents(text)["sha256"]}
    shards = getattr(task.train, "sample", task.train)  # of a stream, what is stored
    stored = shards.manifest["model"]
    for key, got in found.items():
        if stored.get(key) != got:
            raise ValueError(
                f"{shards.folder}: {key}: expected {got!r} as of the model and text that are "
                f"read, got {stored.get(key)!r}"
            )
    return str(found["text_sha256"])
