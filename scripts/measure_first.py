"""Measure the first dictionaries of a run on held-out activations, for an early table."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.errors import report_errors
from dbksvd.base.layout import expand_rows
from dbksvd.base.provenance import choose_device, seed_everything
from dbksvd.report.first_look import measure_first
from dbksvd.report.tables import write_csv


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True, help="keys and folders, as JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    seed_everything(arguments.seed)
    heldout = ActivationShards.open(arguments.shards, split="heldout")
    device = choose_device("auto", gpus=arguments.gpus)
    write_csv(measure_first(arguments.rows, heldout, device), arguments.output)


if __name__ == "__main__":
    main()
