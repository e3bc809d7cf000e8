"""Fit one dictionary to the training shards."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path

import torch

from dbksvd.commands import report_errors
from dbksvd.fit.registry import FitTask, find_method
from dbksvd.provenance import choose_device, describe_run, seed_everything
from dbksvd.shards import ActivationShards


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--n-atoms", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="dictionary folder that the fit begins from")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    seed_everything(arguments.seed)
    settings = dict(arguments.settings)
    device = choose_device(settings.pop("device", "auto"), gpus=arguments.gpus)
    train = ActivationShards.open(arguments.shards, split="train")
    task = FitTask(
        train=train,
        heldout=ActivationShards.open(arguments.shards, split="heldout"),
        n_atoms=arguments.n_atoms,
        k=arguments.k,
        seed=arguments.seed,
        settings=settings,
        device=device,
        checkpoint=arguments.checkpoint,
        metadata=train.describe(),
        base=arguments.base,
    )
    result = find_method(settings["algorithm"])(task)
    result.summary |= describe_run(seed=arguments.seed, device=device)
    result.save(arguments.output)
    shutil.rmtree(arguments.checkpoint, ignore_errors=True)


if __name__ == "__main__":
    main()
