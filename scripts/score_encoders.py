"""Code one dictionary by several encoders at equal L0, and score each."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.evaluation.encoders.score import KnownTruth, score_encoders


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--dictionary", type=Path, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of the model with known features")
    parser.add_argument("--truth", type=Path, nargs="+", help="its codes: slices in order")
    parser.add_argument("--prepared", type=Path, help="folder of the prepared evals, for probes")
    parser.add_argument("--output", type=Path, required=True, help="scores (.json)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    known = None
    if arguments.model is not None:
        known = KnownTruth(arguments.model, arguments.truth)
    score_encoders(
        arguments.dictionary,
        arguments.settings,
        arguments.shards,
        arguments.output,
        k=arguments.k,
        known=known,
        prepared=arguments.prepared,
    )


if __name__ == "__main__":
    main()
