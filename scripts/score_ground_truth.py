"""Score one dictionary on held-out samples, and against the features and codes that made them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.evaluation.score_truth import score_on_truth


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
    score_on_truth(
        arguments.dictionary,
        arguments.settings,
        arguments.model,
        arguments.truth,
        arguments.shards,
        scores=arguments.scores,
        metrics=arguments.metrics,
    )


if __name__ == "__main__":
    main()
