"""Write a page of which atoms fire on each token of a text, beside the pages of an experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dbksvd.activations.settings import TextExtraction
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.settings import parse
from dbksvd.base.site import Site
from dbksvd.features.explain import explain_text
from dbksvd.features.site import SiteFeatures
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.report.pages.explain import ExplainedText, list_fired, render_explanation
from workflow.commands.loading import load_experiment
from workflow.pages import Pages


def explain_at(
    text: str, site: str, pages: Pages, loaded: LoadedModel | None
) -> tuple[ExplainedText, LoadedModel]:
    """Explain the text at a site; also return the model, which the next site needs too."""
    experiment = pages.experiment
    extraction = json.loads(pages.extraction(site))
    checked: TextExtraction = parse(TextExtraction, extraction, "activations")
    loaded = loaded or load_model(checked.model, gpus=0)
    folder = Path(experiment.folder) / site
    features = SiteFeatures.open(folder / "features")
    assert pages.settings is not None  # where a site has pages
    split = pages.settings.examples.split
    (explained,) = explain_text(
        [text],
        {name: folder / "dictionaries" / name for name in features.names},
        loaded,
        layer=checked.layer,
        hook_module=checked.hook_module,
        place=checked.place,
        context_length=checked.context_length,
        dtype=checked.storage_dtype,
        norm_limit=ActivationShards.open(folder / "shards", split, verify=False).norm_limit,
    )
    fired = {name: list_fired(features, name) for name in features.names}
    return ExplainedText(site, explained, experiment.labels, fired), loaded


def check_text(text: str) -> str:
    """Return the text if it can be read."""
    if not text.strip():
        raise ValueError("text: expected a text, got nothing (dbksvd explain 'the cat sat')")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("text: expected UTF-8, got other bytes")
    return text


def explain(configs: Sequence[Path], text: str, output: Path | None = None) -> None:
    """Write the page and print where it is.

    Parameters
    ----------
    configs : sequence of path
        Config files of a finished run with feature pages.
    text : str
        What is explained.
    output : path, optional
        The page; default: ``site/explain.html`` of the run.

    Raises
    ------
    SettingsError, ValueError, FileNotFoundError
        If the config is wrong, its experiment reads no texts, or its run has no pages yet.
    """
    text = check_text(text)
    experiment = load_experiment(configs)
    pages = Pages(experiment)
    if experiment.source != "model":
        raise ValueError(
            "activations.source: expected model, which reads texts, got " + experiment.source
        )
    if not pages.sites:
        raise ValueError("pages: expected feature pages, which a text is explained by, got null")
    first = Path(experiment.folder) / "site" / "index.html"
    if not first.is_file():
        raise FileNotFoundError(
            f"{first}: expected the pages of a finished run (dbksvd run), found none"
        )
    loaded, texts = None, []
    for site in pages.sites:
        if Site.parse(site).is_layer:
            one, loaded = explain_at(text, site, pages, loaded)
            texts.append(one)
    output = output or first.with_name("explain.html")
    render_explanation(texts, experiment.config.experiment, first.parent, output)
    print(f"page  {output}")
