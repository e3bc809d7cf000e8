"""Score one dictionary: on held-out activations, and by the evals of SAEBench."""

from __future__ import annotations

import os

# SAEBench's run-time checks of array shapes accept its own model class only, and crash under
# beartype 0.18 and newer; jaxtyping reads this when it is first imported.
os.environ["JAXTYPING_DISABLE"] = "1"
# All data were prepared: whatever asks a hub here is a mistake and must fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import json
import logging
import time
from functools import cache
from pathlib import Path

import torch

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.errors import report_errors
from dbksvd.base.files import write_json
from dbksvd.base.provenance import describe_run, seed_everything
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import LoadedModel, load_model


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="model, seed, evals")
    parser.add_argument("--code", type=json.loads, default={}, help="hash of each eval's sources")
    parser.add_argument("--dictionary", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True, help="folder of the evals' folders")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    settings = arguments.settings
    for name in settings["evals"]:
        find_eval(name)
    seed_everything(settings["seed"])
    heldout = ActivationShards.open(arguments.shards, split="heldout")
    start = time.perf_counter()
    metrics = measure_folder(arguments.dictionary, heldout)
    seconds = {"heldout": time.perf_counter() - start}

    model = settings["model"] or {}
    if "name" in model and Path(model["name"]).is_dir():
        # Evals run in working folders of their own, where a relative path leads nowhere.
        model = {**model, "name": str(Path(model["name"]).resolve())}

    @cache
    def load() -> LoadedModel:
        return load_model(model, gpus=arguments.gpus)

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "metrics.json").unlink(missing_ok=True)
    device = "cuda" if arguments.gpus and torch.cuda.is_available() else "cpu"
    seals = run_evals(
        arguments.dictionary,
        settings["evals"],
        arguments.prepared,
        arguments.output,
        load_model=load,
        device=device,
        code=arguments.code,
    )
    for name, seal in seals.items():
        seconds[name] = seal["seconds"]
        metrics["saebench_width"] = seal["width"]  # twice n_atoms where codes are sign-split
    run = describe_run(seed=settings["seed"], device=device)
    write_json(arguments.output / "metrics.json", {**metrics, "seconds": seconds, "run": run})


if __name__ == "__main__":
    main()
