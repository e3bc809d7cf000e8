"""The job that collects the examples of one site of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbksvd.activations.settings import ExtractionSettings, ImageExtraction, TextExtraction
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.provenance import choose_device
from dbksvd.base.settings import parse
from dbksvd.features.collect import collect_examples
from dbksvd.features.contexts import ContextSource
from dbksvd.features.image_contexts import ImageContexts
from dbksvd.features.row_contexts import RowContexts
from dbksvd.features.settings import ExampleSettings
from dbksvd.features.text_contexts import TextContexts
from dbksvd.synthetic.models import load_model


@dataclass(frozen=True)
class SiteFolders:
    """Where a site's data are.

    Parameters
    ----------
    shards, dictionaries : path
        Shards, and the folder of all dictionaries.
    text, images, synthetic, probes : path, optional
        Documents; prepared images; the generative model; what was prepared for the eval
        ``sparse_probing_sae_probes``. None where the site has none.
    """

    shards: Path
    dictionaries: Path
    text: Path | None = None
    images: Path | None = None
    synthetic: Path | None = None
    probes: Path | None = None


def collect_site(
    names: Sequence[str],
    settings: Mapping[str, Any] | ExampleSettings,
    extraction: Mapping[str, Any] | None,
    folders: SiteFolders,
    output: Path,
    *,
    checkpoints: Path | None = None,
    gpus: int = 0,
) -> dict[str, Any]:
    """Collect the examples of a site's dictionaries from whatever its activations come from.

    Parameters
    ----------
    names : sequence of str
        Dictionaries, each as ``method/m512-k16-s0``.
    settings : ExampleSettings, or a mapping of the same keys
        How much is kept.
    extraction : mapping or None
        How the activations were extracted; None for samples of a generative model.
    folders : SiteFolders
        Where the data are.
    output : path
        Folder of the result.
    checkpoints : path, optional
        Folder of the checkpoint.
    gpus : int
        GPUs that the scheduler gave to this job.

    Returns
    -------
    dict
        The manifest.
    """
    checked: ExampleSettings = parse(ExampleSettings, settings, "pages.examples")
    shards = ActivationShards.open(folders.shards, checked.split, verify=False)
    source = _open_source(extraction, folders, shards, checked.split, gpus)
    truth = None
    if folders.synthetic is not None:
        truth = load_model(folders.synthetic).features
    named = (extraction or {}).get("model", {}).get("device", "auto")
    return collect_examples(
        source,
        {name: folders.dictionaries / name for name in names},
        checked,
        output,
        checkpoints=checkpoints,
        norm_limit=shards.norm_limit,
        device=choose_device(named, gpus=gpus),
        truth=truth,
        probes=folders.probes,
    )


def _open_source(
    extraction: Mapping[str, Any] | None,
    folders: SiteFolders,
    shards: ActivationShards,
    split: str,
    gpus: int,
) -> ContextSource:
    """Return the contexts of the site: rows of its shards where nothing of them can be shown."""
    if extraction is None:
        return RowContexts(shards)
    checked = parse(ExtractionSettings, extraction, "activations")
    if isinstance(checked, TextExtraction) and folders.text is not None:
        return TextContexts(checked, folders.text, split, gpus=gpus)
    if isinstance(checked, ImageExtraction) and folders.images is not None:
        return ImageContexts(checked, folders.images, split, gpus=gpus)
    return RowContexts(shards)
