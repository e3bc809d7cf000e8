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
from pathlib import Path

import torch

from dbksvd.architectures.loading import load_dictionary, load_sae
from dbksvd.commands import report_errors
from dbksvd.files import replace_folder, write_json
from dbksvd.metrics import measure_dictionary
from dbksvd.provenance import describe_run, seed_everything
from dbksvd.saebench import find_eval, read_manifest, run_evals
from dbksvd.shards import ActivationShards


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--dictionary", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    evaluation = arguments.settings["evaluation"]
    for name in evaluation["evals"]:
        find_eval(name)
    read_manifest(arguments.prepared)
    seed_everything(evaluation["seed"])
    heldout = ActivationShards.open(arguments.shards, split="heldout")
    start = time.perf_counter()
    metrics = measure_dictionary(load_dictionary(arguments.dictionary), heldout)
    seconds = {"heldout": time.perf_counter() - start}
    with replace_folder(arguments.output) as folder:
        if evaluation["evals"]:
            sae = load_sae(arguments.dictionary)
            metrics["saebench_width"] = sae.cfg.d_sae  # twice n_atoms where codes are sign-split
            name = "_".join(arguments.dictionary.resolve().parts[-2:])  # method and sizes
            seconds |= run_evals(sae, name, evaluation["evals"], arguments.prepared, folder)
        run = describe_run(seed=evaluation["seed"], device="cpu")
        write_json(folder / "metrics.json", {**metrics, "seconds": seconds, "run": run})


if __name__ == "__main__":
    main()
