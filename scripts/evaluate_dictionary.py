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
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.evaluation.saebench.shims.imports import import_quickly
from dbksvd.evaluation.score import score_on_model


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
    score_on_model(
        arguments.dictionary,
        arguments.settings,
        arguments.shards,
        arguments.prepared,
        arguments.output,
        code=arguments.code,
        gpus=arguments.gpus,
    )


def warm_up() -> None:
    """Import what every job of this script does, for the process that forks for them."""
    import_quickly()


if __name__ == "__main__":
    main()
