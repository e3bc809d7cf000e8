"""Score one dictionary on held-out samples, and against the features and codes that made them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.errors import report_errors
from dbksvd.base.files import write_json
from dbksvd.base.provenance import describe_run, seed_everything
from dbksvd.dictionaries.loading import load_sae
from dbksvd.evaluation.ground_truth import score_dictionary
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.synthetic.models import load_model
from dbksvd.synthetic.truth import load_truth


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="seed, batch_rows")
    parser.add_argument("--dictionary", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--truth", type=Path, nargs="+", required=True, help="slices in order")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True, help="against the truth (.json)")
    parser.add_argument("--metrics", type=Path, required=True, help="on the samples (.json)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    seed_everything(arguments.settings["seed"])
    run = describe_run(seed=arguments.settings["seed"], device="cpu")
    started = time.perf_counter()
    metrics = measure_folder(
        arguments.dictionary, ActivationShards.open(arguments.shards, split="heldout")
    )
    seconds = {"heldout": time.perf_counter() - started}
    write_json(arguments.metrics, {**metrics, "seconds": seconds, "run": run})

    started = time.perf_counter()
    scores = score_dictionary(
        load_sae(arguments.dictionary),
        load_model(arguments.model),
        load_truth(arguments.truth),
        arguments.settings["batch_rows"],
    )
    scoring_seconds = time.perf_counter() - started
    write_json(arguments.scores, {**scores, "scoring_seconds": scoring_seconds, "run": run})


if __name__ == "__main__":
    main()
