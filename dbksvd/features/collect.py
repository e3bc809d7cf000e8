"""Everything that the feature pages of a site show, collected in one pass over its text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dbksvd.base.checkpoint_files import CHECKPOINT_FILE, read_content, write_content
from dbksvd.base.files import hash_file
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import SparseDictionary, is_signed
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.collector import Collector
from dbksvd.features.contexts import Contexts, ContextSource, cut_contexts, limit_norms
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.site_files import SITE_FOLDER
from dbksvd.features.writing import SiteParts, write_site

CHECKPOINT_SECONDS = 120.0


@dataclass
class _Progress:
    """How far a pass has come."""

    contexts: int = 0
    tokens: int = 0
    left_out_tokens: int = 0
    done: bool = False


@dataclass
class _Pass:
    """One pass over the contexts of a site for all its dictionaries."""

    source: ContextSource
    dictionaries: Mapping[str, SparseDictionary]
    collectors: Mapping[str, Collector]
    settings: ExampleSettings
    norm_limit: float | None
    progress: _Progress = field(default_factory=_Progress)

    def run(self) -> Iterator[None]:
        """Go on from where the pass is; yields after each window of contexts."""
        bar = tqdm(
            total=self.source.total,
            initial=self.progress.contexts,
            unit=" contexts",
            desc="collect examples",
        )
        with bar:
            if not self.progress.done:
                for contexts in self.source.iterate(self.progress.contexts):
                    self._take(contexts)
                    bar.update(len(contexts))
                    yield
                    if self.progress.done:
                        return
            self.progress.done = True

    def _take(self, contexts: Contexts) -> None:
        progress, limit = self.progress, self.settings.n_tokens
        read = len(contexts.activations)
        contexts = limit_norms(contexts, self.norm_limit)
        if limit is not None:
            contexts, progress.done = cut_contexts(contexts, limit - progress.tokens)
        n, width = contexts.activations.shape
        for name, dictionary in self.dictionaries.items() if n else ():
            if dictionary.atoms.shape[1] != width:
                raise ValueError(
                    f"{name}: expected atoms of width {width}, the activations', got "
                    f"{dictionary.atoms.shape[1]}"
                )
            codes = dictionary.encode(contexts.activations.to(dictionary.atoms))
            self.collectors[name].add(contexts.rows, codes, progress.contexts, progress.tokens)
        progress.left_out_tokens += read - n
        progress.contexts += len(contexts)
        progress.tokens += n


def collect_examples(
    source: ContextSource,
    dictionaries: Mapping[str, str | Path],
    settings: Mapping[str, Any] | ExampleSettings,
    output: str | Path,
    *,
    checkpoints: str | Path | None = None,
    norm_limit: float | None = None,
    device: torch.device | str = "cpu",
    truth: Tensor | None = None,
    probes: str | Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Write all that feature pages show of the dictionaries of a site; docs/pages.md has the files.

    Contexts are read once for all dictionaries. Memory holds K examples of W coefficients for each
    feature, two tables of bounded size for each dictionary, and one window of activations; nothing
    of size tokens × atoms. A job that was killed goes on from its checkpoint and writes the same
    bytes.

    Parameters
    ----------
    source : ContextSource
        Text, images or rows: :mod:`dbksvd.features.contexts`.
    dictionaries : mapping of str to path
        Name of each dictionary (such as ``dbksvd/m512-k16-s0``) and its folder. The names name
        files too.
    settings : ExampleSettings, or a mapping of the same keys
        How much is kept.
    output : path
        Folder; replaced as a whole when everything is written.
    checkpoints : path, optional
        Folder of the checkpoint; None writes none. It is removed when all is done.
    norm_limit : float, optional
        Rows of a larger norm are left out, as they were from the shards.
    device : torch.device or str
        Where samples are coded.
    truth : tensor of shape (n_features, d), optional
        True features of a generative model.
    probes : path, optional
        Folder prepared for the eval ``sparse_probing_sae_probes``: labelled activations.
    checkpoint_seconds : float
        Least time between two checkpoints; results do not depend on it.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If there is no dictionary, one is of another width than the activations, or `output` holds
        files of someone else.
    """
    checked = parse(ExampleSettings, settings, "pages.examples")
    if not dictionaries:
        raise ValueError("dictionaries: expected at least 1, got none")
    SITE_FOLDER.check(output)  # before the long pass
    loaded = {name: load_dictionary(folder, device) for name, folder in dictionaries.items()}
    table_bytes = checked.table_megabytes * 2**20 // (2 * len(loaded))
    collectors = {
        name: Collector(
            len(dictionary.atoms),
            is_signed(dictionary),
            checked,
            window=source.show_window(checked),
            table_bytes=table_bytes,
            has_tokens=source.kind == "text",
        )
        for name, dictionary in loaded.items()
    }
    weights = {
        name: [hash_file(Path(folder) / file) for file in (CONFIG_FILE, WEIGHTS_FILE)]
        for name, folder in dictionaries.items()
    }
    job = _Pass(source, loaded, collectors, checked, norm_limit)
    path = None if checkpoints is None else Path(checkpoints) / CHECKPOINT_FILE
    identity = {
        "source": source.describe(),
        "settings": checked.dump(),
        "norm_limit": norm_limit,
        "dictionaries": weights,
    }
    if path is not None:
        _restore(job, path, identity)
    saved = time.monotonic()
    for _ in job.run():
        if path is not None and time.monotonic() - saved >= checkpoint_seconds:
            _save(job, path, identity)
            saved = time.monotonic()
    parts = SiteParts(
        source=source,
        dictionaries=loaded,
        collectors=collectors,
        weights={name: hashes[1] for name, hashes in weights.items()},
        settings=checked,
        counts={
            "contexts": job.progress.contexts,
            "tokens": job.progress.tokens,
            "left_out_tokens": job.progress.left_out_tokens,
        },
        norm_limit=norm_limit,
        truth=truth,
        probes=None if probes is None else Path(probes),
    )
    manifest = write_site(parts, output)
    if path is not None:
        path.unlink(missing_ok=True)
    return manifest


def _save(job: _Pass, path: Path, identity: Mapping[str, Any]) -> None:
    tensors = {
        f"{number}/{key}": tensor
        for number, collector in enumerate(job.collectors.values())
        for key, tensor in collector.save().items()
    }
    write_content(path, {"identity": dict(identity), "progress": vars(job.progress)}, tensors)


def _restore(job: _Pass, path: Path, identity: Mapping[str, Any]) -> None:
    found = read_content(path, identity)
    if found is None:
        return
    content, tensors = found
    job.progress = _Progress(**content["progress"])
    for number, collector in enumerate(job.collectors.values()):
        prefix = f"{number}/"
        collector.restore(
            {
                key.removeprefix(prefix): tensor
                for key, tensor in tensors.items()
                if key.startswith(prefix)
            }
        )
