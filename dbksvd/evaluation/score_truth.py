"""One dictionary scored: on held-out samples, and against the features that made them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.files import write_json
from dbksvd.base.provenance import describe_run, seed_everything
from dbksvd.base.saving import check_replaceable
from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_sae
from dbksvd.evaluation.ground_truth import score_dictionary
from dbksvd.evaluation.ground_truth_entry import GroundTruthSettings
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.synthetic.models import load_model
from dbksvd.synthetic.truth import load_truth


def score_on_truth(
    dictionary: Path,
    param: Mapping[str, Any],
    model: Path,
    truth: Sequence[Path],
    shards: Path,
    *,
    scores: Path,
    metrics: Path,
) -> None:
    """Measure a dictionary on held-out samples, and score it against what made them.

    Parameters
    ----------
    dictionary : path
        Its folder.
    param : mapping
        ``seed``, and the settings of the eval ``ground_truth``.
    model : path
        Folder of the generative model.
    truth : list of path
        Codes of the held-out samples: slices in their order.
    shards : path
        Folder of the samples.
    scores, metrics : path
        Where the scores against the truth and those on the samples go, JSON.
    """
    values = {name: value for name, value in param.items() if name != "seed"}
    settings: GroundTruthSettings = parse(
        GroundTruthSettings, values, "evaluation.evals.ground_truth"
    )
    check_replaceable(metrics, ("explained_variance", "run"))
    check_replaceable(scores, ("scoring_seconds", "run"))
    seed_everything(param["seed"])
    run = describe_run(seed=param["seed"], device="cpu")
    heldout = ActivationShards.open(shards, split="heldout")
    started = time.perf_counter()
    measured = measure_folder(dictionary, heldout)
    seconds = {"heldout": time.perf_counter() - started}
    write_json(metrics, {**measured, "seconds": seconds, "run": run})

    started = time.perf_counter()
    found = score_dictionary(
        load_sae(dictionary),
        load_model(model),
        load_truth(truth),
        settings.batch_rows,
    )
    scoring_seconds = time.perf_counter() - started
    write_json(scores, {**found, "scoring_seconds": scoring_seconds, "run": run})
