"""One dictionary scored: on held-out activations, and by the evals of SAEBench."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.files import write_json
from dbksvd.base.provenance import choose_device, describe_run, seed_everything
from dbksvd.base.saving import check_replaceable
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.evaluation.saebench.registry import parse_evals
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import LoadedModel, load_model

METRICS_FILE = "metrics.json"


def score_on_model(
    dictionary: Path,
    param: Mapping[str, Any],
    shards: Path,
    prepared: Path,
    output: Path,
    *,
    code: Mapping[str, str],
    gpus: int,
) -> None:
    """Measure a dictionary on held-out activations, and score it by the evals of SAEBench.

    Parameters
    ----------
    dictionary : path
        Its folder.
    param : mapping
        ``model`` (section of the config, or None), ``seed`` and ``evals`` (name to settings).
    shards : path
        Folder of the activations.
    prepared : path
        Folder with the prepared folder of each eval.
    output : path
        Folder for `METRICS_FILE` and a folder for each eval; finished evals are kept.
    code : mapping of str to str
        Hash of each eval's sources.
    gpus : int
        GPUs that the scheduler gave to this job.

    Raises
    ------
    ValueError
        If a setting cannot be used or an eval failed; see
        :func:`dbksvd.evaluation.saebench.runner.run_evals`.
    """
    evals = parse_evals(param["evals"])
    check_replaceable(output / METRICS_FILE, ("explained_variance", "run"))
    seed_everything(param["seed"])
    heldout = ActivationShards.open(shards, split="heldout")
    model = _locate_model(param["model"])
    device = choose_device(model.get("device", "auto"), gpus=gpus)
    start = time.perf_counter()
    metrics = measure_folder(dictionary, heldout, device)
    seconds = {"heldout": time.perf_counter() - start}

    @cache
    def load() -> LoadedModel:
        return load_model(model, gpus=gpus)

    output.mkdir(parents=True, exist_ok=True)
    (output / METRICS_FILE).unlink(missing_ok=True)
    seals = run_evals(
        dictionary,
        evals,
        prepared,
        output,
        load_model=load,
        device=str(device),
        code=code,
        norm_limit=heldout.norm_limit,
    )
    for name, seal in seals.items():
        seconds[name] = seal["seconds"]
        metrics["saebench_width"] = seal["width"]  # twice n_atoms where codes are sign-split
    run = describe_run(seed=param["seed"], device=device)
    write_json(output / METRICS_FILE, {**metrics, "seconds": seconds, "run": run})


def _locate_model(model: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a section ``model`` with an absolute path: evals run in folders of their own."""
    if model is None:  # activations from files: no eval asks for it
        return {}
    name = model.get("name")
    if name is not None and Path(name).is_dir():
        return {**model, "name": str(Path(name).resolve())}
    return model
