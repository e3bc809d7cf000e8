"""Training rows that are never stored: the model runs again where they are read.

Rows are numbered through the training documents, in the order of ``documents.jsonl``, which is
random. A block of consecutive rows is extracted when one of its rows is read, and shuffled by a
seed of its own. So any row can be read at any time, by any process, with the same bytes: a fit goes
on from its checkpoint without reading what came before, and each rank extracts the blocks of its
own share of a batch. Memory holds `HELD_BLOCKS` blocks of block_rows · d float32, one more while it
is extracted, and 24 bytes a document, however long the stream is.

A row over the norm limit of the stored sample, such as an attention sink, gives its place to
another row of its block: fits see no row that stored shards would leave out.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.activations.from_text import describe_extraction
from dbksvd.activations.norms import measure_norms
from dbksvd.activations.rows import extract_rows
from dbksvd.activations.settings import TextExtraction
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.settings import parse
from dbksvd.base.shapes import Activations
from dbksvd.models.hooks import find_hook
from dbksvd.models.loading import load_model
from dbksvd.text.documents import DOCUMENTS_FILE, Document, check_documents
from dbksvd.text.tokens import tokenize_documents

HELD_BLOCKS = 2


@dataclass(frozen=True)
class DocumentIndex:
    """Where the training documents of a stream are, and which rows they give.

    Parameters
    ----------
    starts : int64 array of shape (documents,)
        Offset of each in the file, in bytes.
    ends : int64 array of shape (documents,)
        Rows given by it and all before it.
    lines : int64 array of shape (documents,)
        Its line in the file, from 0.
    """

    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray


class ActivationStream:
    """The rows of a stream; reads like :class:`dbksvd.activations.shards.ActivationShards`.

    Parameters
    ----------
    settings : TextExtraction, or a mapping of the same keys
        As for :func:`dbksvd.activations.from_text.extract_slice`, with ``stream``.
    text : path
        Folder written by :func:`dbksvd.text.documents.prepare_text`.
    sample : ActivationShards
        Stored training rows of the same site, for width and mean.
    gpus : int
        GPUs given to this job.

    Raises
    ------
    ValueError
        If a setting is not usable, there is too little text, or `sample` is of another model,
        site or text.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | TextExtraction,
        text: str | Path,
        sample: ActivationShards,
        *,
        gpus: int = 0,
    ) -> None:
        self.settings = parse(TextExtraction, settings, "activations")
        if self.settings.stream is None:
            raise ValueError("activations.stream: missing key")
        self.stream = self.settings.stream
        self.path = Path(text) / DOCUMENTS_FILE
        self.sample, self.mean, self.width = sample, sample.mean, sample.width
        self.norm_limit, self.input_width = sample.norm_limit, sample.input_width
        manifest = check_documents(text)
        self._loaded = load_model(self.settings.model, gpus=gpus)
        site = self.settings
        self._hook = find_hook(self._loaded, site.layer, site.hook_module, site.place)
        described = describe_extraction(self.settings, self._loaded, self._hook)
        self._check_sample(described | {"text_sha256": manifest["sha256"]})
        self._index = self._index_documents()
        parts = [self.settings.dump(), manifest["sha256"], described["model_sha256"]]
        identity = json.dumps([*parts, *([] if self.norm_limit is None else [self.norm_limit])])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        self._held: dict[int, Tensor] = {}
        # a fit reads ahead in a thread
        self._lock = threading.Lock()
        device = self._loaded.device
        self._queue = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def block_rows(self) -> int:
        """Rows of a block; reading along these is the least work."""
        return self.stream.block_rows

    def __len__(self) -> int:
        return self.stream.n_tokens

    def describe(self) -> dict[str, Any]:
        """Return where the activations come from, in SAELens's words for its metadata."""
        return self.sample.describe()

    def read(self, start: int, stop: int) -> Activations:
        """Return rows `start` to `stop` as a float32 tensor of shape (stop − start, d).

        Raises
        ------
        ValueError
            If the range is not inside the stream, or an activation is not finite.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows: expected a range inside 0 to {len(self)}, got {start}:{stop}")
        out = torch.empty(stop - start, self.width, dtype=torch.float32)
        with self._lock:
            for number in range(start // self.block_rows, -(-stop // self.block_rows)):
                first = number * self.block_rows
                low, high = max(start, first), min(stop, first + self.block_rows)
                out[low - start : high - start] = self._read_block(number)[
                    low - first : high - first
                ]
        return out

    def _read_block(self, number: int) -> Tensor:
        if number not in self._held:
            block = self._extract_block(number)
            while len(self._held) >= HELD_BLOCKS:
                del self._held[next(iter(self._held))]
            self._held[number] = block
        return self._held[number]

    def _extract_block(self, number: int) -> Tensor:
        low = number * self.block_rows
        high = min(low + self.block_rows, len(self))
        ends = self._index.ends
        first, last = np.searchsorted(ends, [low, high - 1], side="right")
        tokenized = [
            document
            for document in self._tokenize(self._read_documents(int(first), int(last) + 1))
            if len(document.kept)
        ]
        dtype = self.settings.storage_dtype  # the rows are rounded as stored ones are
        with self._work_aside():
            parts = extract_rows(
                self._loaded, self._hook, tokenized, self.settings.batch_size, dtype
            )
            rows = np.concatenate([records["activations"] for records in parts])
        before = int(ends[first - 1]) if first else 0
        rows = rows[low - before : high - before].astype(np.float32, copy=False)
        return torch.from_numpy(rows[self._order_block(number, rows)])

    def _work_aside(self) -> AbstractContextManager[Any]:
        """Give the model a queue of its own on a GPU: it does not wait for what a fit has there."""
        return nullcontext() if self._queue is None else torch.cuda.stream(self._queue)

    def _order_block(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Return the order of a block; a row over the norm limit gives its place to another."""
        generator = np.random.default_rng([self.stream.seed, number])
        order = generator.permutation(len(rows))
        if self.norm_limit is None:
            return order
        kept = np.flatnonzero(measure_norms(rows).astype(np.float32) <= self.norm_limit)
        if not len(kept):
            raise ValueError(
                f"activations.stream: expected rows of a norm of at most {self.norm_limit:g} in "
                f"block {number}, got {len(rows)} rows over it"
            )
        missing = len(rows) - len(kept)
        places = ~np.isin(order, kept)
        order[places] = generator.choice(kept, missing, replace=missing > len(kept))
        return order

    def _tokenize(self, documents: Iterator[Document]) -> Iterator[Any]:
        return tokenize_documents(
            documents,
            self._loaded.tokenizer,
            context_length=self.settings.context_length,
            tokens_per_document=self.settings.tokens_per_document,
        )

    def _read_documents(self, first: int, last: int) -> Iterator[Document]:
        with self.path.open("rb") as stream:
            for start, line in zip(
                self._index.starts[first:last], self._index.lines[first:last], strict=True
            ):
                stream.seek(start)
                yield Document(int(line), "train", json.loads(stream.readline())["text"])

    def _index_documents(self) -> DocumentIndex:
        """Tokenize documents once, to know which rows each of them gives."""
        starts: list[int] = []

        def iterate() -> Iterator[Document]:
            with self.path.open("rb") as stream:
                start = 0
                for number, line in enumerate(stream):
                    record = json.loads(line)
                    if record["split"] == "train":
                        starts.append(start)
                        yield Document(number, "train", record["text"])
                    start += len(line)

        ends, lines, total, wanted = [], [], 0, self.stream.n_tokens
        with tqdm(total=wanted, unit=" tokens", unit_scale=True, desc="index") as bar:
            for document in self._tokenize(iterate()):
                total += len(document.kept)
                ends.append(total)
                lines.append(document.index)
                bar.update(len(document.kept))
                if total >= wanted:
                    break
        if total < wanted:
            raise ValueError(
                f"activations.stream.n_tokens: expected at most {total}, the tokens of "
                f"{len(ends)} training documents, got {wanted}"
            )
        # documents are tokenized some at a time, so a few starts more than needed are known
        return DocumentIndex(*(np.array(part) for part in (starts[: len(ends)], ends, lines)))

    def _check_sample(self, described: Mapping[str, Any]) -> None:
        """Check that the stored sample is of the same model, site and text."""
        stored = self.sample.manifest["model"]
        for key, expected in described.items():
            if stored.get(key) != expected:
                raise ValueError(
                    f"{self.sample.folder}: {key}: expected {expected!r} as in the stream, "
                    f"got {stored.get(key)!r}"
                )
