"""Compute what one eval needs of a model and no dictionary changes: activations, raw probes."""

from __future__ import annotations

import os

# SAEBench's run-time checks of array shapes accept its own model class only, and crash under
# beartype 0.18 and newer; jaxtyping reads this when it is first imported.
os.environ["JAXTYPING_DISABLE"] = "1"

import argparse
import json
import logging
from pathlib import Path

import torch

from dbksvd.activations.norms import read_norm_limit
from dbksvd.base.errors import report_errors
from dbksvd.evaluation.saebench.preparation import prepare_folder


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eval", required=True, help="name of the eval")
    parser.add_argument(
        "--settings", type=json.loads, required=True, help="model, layer, seed, settings"
    )
    parser.add_argument("--text", type=Path, help="folder of prepare_text, for held-out documents")
    parser.add_argument(
        "--norm-limit", type=Path, nargs="*", default=[], help="the shards' norm_limit.json"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    limits = [read_norm_limit(path) for path in arguments.norm_limit]
    prepare_folder(
        arguments.eval,
        arguments.settings,
        arguments.output,
        gpus=arguments.gpus,
        text=arguments.text,
        norm_limit=limits[0] if limits else None,
    )


if __name__ == "__main__":
    main()
