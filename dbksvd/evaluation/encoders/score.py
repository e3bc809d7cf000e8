"""One dictionary, coded by each encoder of the config and scored."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.files import check_folder, write_json
from dbksvd.base.provenance import describe_run, seed_everything
from dbksvd.base.saving import check_replaceable
from dbksvd.dictionaries.dictionary import Dictionary, SparseDictionary
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.evaluation.encoders.dictionaries import LassoDictionary, RecodedSAE, Recoder
from dbksvd.evaluation.ground_truth import score_dictionary
from dbksvd.evaluation.heldout import measure_dictionary
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import MANIFEST, own_working_folder, read_manifest
from dbksvd.evaluation.saebench.registry import find_eval, parse_evals
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import place_sae
from dbksvd.evaluation.saebench.shims.imports import import_quickly
from dbksvd.evaluation.saebench.task import EvalTask
from dbksvd.evaluation.unseen import UNSEEN
from dbksvd.synthetic.models import load_model
from dbksvd.synthetic.truth import load_truth

PROBING = "sparse_probing_sae_probes"
MEASURED = ("explained_variance", "l0")
KNOWN = ("f1", "mcc", "precision", "recall", *UNSEEN)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownTruth:
    """What made the samples, where that is known.

    Parameters
    ----------
    model : path
        Folder of the generative model.
    truth : sequence of path
        Codes of the held-out samples: slices in their order.
    """

    model: Path
    truth: Sequence[Path]


def score_encoders(
    folder: Path,
    param: Mapping[str, Any],
    shards: Path,
    output: Path,
    *,
    k: int,
    known: KnownTruth | None = None,
    prepared: Path | None = None,
) -> None:
    """Score a dictionary with each encoder, and write a JSON of the scores.

    Parameters
    ----------
    folder : path
        Of the dictionary.
    param : mapping
        ``encoders`` and ``rows`` of the section ``encoders``, ``seed``, and ``probing``: the
        settings of sparse_probing_sae_probes, or None for no probes.
    shards : path
        Folder of the activations.
    output : path
        ``scores``: for each encoder its explained variance and L0 on the held-out rows, threshold
        or penalty where it has one, seconds; F1 and MCC where features are known, and scores of
        samples with unseen pairs where there are some; accuracies of probes. ``run``: what made it.
    k : int
        Non-zeros a sample.
    known : KnownTruth, optional
        What made the samples.
    prepared : path, optional
        Folder with the prepared folder of the eval, where ``probing`` is not None.
    """
    check_replaceable(output, ("scores", "run"))
    seed_everything(param["seed"])
    dictionary = load_dictionary(folder)
    heldout = ActivationShards.open(shards, split="heldout")
    samples = heldout.read(0, min(param["rows"], len(heldout)))
    if known is not None:
        model, truth = load_model(known.model), load_truth(known.truth).take_first(len(samples))
        # the same samples as below, in the order of their truth
        samples = model.embed(truth.read_dense(0, len(truth), len(model.features)))
    recoder = Recoder(dictionary, k, samples)
    scores = {}
    for name in param["encoders"]:
        started = time.perf_counter()
        coded = recoder.make(name)
        found = measure_dictionary(coded, samples)
        scores[name] = {metric: found[metric] for metric in MEASURED} | _describe(name, coded)
        sae = RecodedSAE(coded, signed=not recoder.nonnegative)
        if known is not None:
            against = score_dictionary(sae, model, truth)
            scores[name] |= {metric: against[metric] for metric in KNOWN if metric in against}
        if param["probing"] is not None and prepared is not None:
            scores[name] |= probe(sae, param["probing"], prepared)
        scores[name]["seconds"] = time.perf_counter() - started
        logger.info("%s: %s", name, scores[name])
    write_json(output, {"scores": scores, "run": describe_run(seed=param["seed"], device="cpu")})


def probe(sae: RecodedSAE, settings: Mapping[str, Any], prepared: Path) -> dict[str, float]:
    """Return SAEBench's accuracies of probes on few latents, from the prepared activations.

    Parameters
    ----------
    sae : RecodedSAE
        Its metadata is overwritten.
    settings : mapping
        Of the eval sparse_probing_sae_probes, as it was prepared.
    prepared : path
        Folder with the prepared folder of the eval.
    """
    folder = (prepared / PROBING).resolve()
    check_folder(folder / MANIFEST)
    site = EvalSite(**read_manifest(folder)["site"])
    place_sae(sae, site)
    parsed = parse_evals({PROBING: settings})[PROBING]
    import_quickly()
    with tempfile.TemporaryDirectory() as temporary, own_working_folder():
        task = EvalTask(sae, "recoded", site, parsed, folder, Path(temporary), _refuse_model)
        find_eval(PROBING).run(task)
        found = read_metrics(Path(temporary))
    return {name: value for name, value in found.items() if value is not None}


def _refuse_model() -> Any:
    raise AssertionError("probes read prepared activations")


def _describe(name: str, coded: SparseDictionary) -> dict[str, float]:
    """Return the one number that was chosen for the wanted L0."""
    if isinstance(coded, LassoDictionary):
        return {"penalty": coded.penalty}
    if name == "ols_mean" and isinstance(coded, Dictionary):
        return {"threshold": coded.settings.threshold}
    return {}
