"""Measure how far dictionaries agree that differ in their seed only."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.errors import report_errors
from dbksvd.base.provenance import choose_device
from dbksvd.evaluation.stability.measure import measure_stability


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="evaluation.stability")
    parser.add_argument("--seed", type=int, default=0, help="of the random atoms")
    parser.add_argument("--dictionaries", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one a dictionary")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="stability.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    found = measure_stability(
        dict(zip(arguments.seeds, arguments.dictionaries, strict=True)),
        ActivationShards.open(arguments.shards, split="heldout"),
        arguments.settings,
        arguments.output,
        seed=arguments.seed,
        device=choose_device(gpus=arguments.gpus),
    )
    for pair in found["pairs"]:
        print(f"seeds {pair['seeds']}: PW-MCC {pair['pw_mcc']:.3f}, MMCS {pair['mmcs']:.3f}")


if __name__ == "__main__":
    main()
