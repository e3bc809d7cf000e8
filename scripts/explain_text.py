"""Write a page of which atoms fire on each token of a text, beside the pages of an experiment."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dbksvd.activations.settings import TextExtraction
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.errors import report_errors
from dbksvd.base.settings import SettingsError, parse
from dbksvd.base.site import Site
from dbksvd.features.explain import explain_text
from dbksvd.features.site import SiteFeatures
from dbksvd.models.loading import LoadedModel, load_model
from dbksvd.report.pages.explain import ExplainedText, list_fired, render_explanation
from workflow.experiment import Experiment
from workflow.layers import read_layers
from workflow.pages import Pages


def explain_at(
    text: str, site: str, pages: Pages, loaded: LoadedModel | None
) -> tuple[ExplainedText, LoadedModel]:
    """Explain the text at a site; also return the model, which the next site needs too."""
    experiment = pages.experiment
    extraction = json.loads(pages.extraction(site, Site.parse(site).layer))
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
        context_length=checked.context_length,
        dtype=checked.storage_dtype,
        norm_limit=ActivationShards.open(folder / "shards", split, verify=False).norm_limit,
    )
    fired = {name: list_fired(features, name) for name in features.names}
    return ExplainedText(site, explained, experiment.labels, fired), loaded


def check_text(text: str) -> str:
    """Return the text if it can be read."""
    if not text.strip():
        raise ValueError("--text: expected a text, got nothing (make explain TEXT='…')")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("--text: expected UTF-8, got other bytes")
    return text


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="a later one lies over the earlier"
    )
    parser.add_argument("--text", required=True, help="what is explained")
    parser.add_argument("--output", type=Path, help="file; default: site/explain.html")
    arguments = parser.parse_args()

    text = check_text(arguments.text)
    try:
        experiment = Experiment(read_layers(arguments.config, {}))
    except SettingsError as error:
        sys.exit(error.tell("error: config"))
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
            f"{first}: expected the pages of a finished run (make run), found none"
        )
    loaded, texts = None, []
    for site in pages.sites:
        if Site.parse(site).is_layer:
            one, loaded = explain_at(text, site, pages, loaded)
            texts.append(one)
    output = arguments.output or first.with_name("explain.html")
    render_explanation(texts, experiment.config.experiment, first.parent, output)
    print(f"page  {output}")


if __name__ == "__main__":
    main()
