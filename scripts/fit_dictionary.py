"""Fit one dictionary to the training shards, in one process or in several under torchrun."""

from __future__ import annotations

import argparse
import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dbksvd.activations.shards import SPLITS, ActivationShards
from dbksvd.base.checkpoint_files import remove_checkpoint
from dbksvd.base.errors import report_errors
from dbksvd.base.files import check_folder
from dbksvd.base.layout import SEAL_FILE
from dbksvd.base.provenance import choose_device, describe_run, seed_everything
from dbksvd.base.settings import parse
from dbksvd.fit.method import Method
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FIT_FOLDER, FitTask
from dbksvd.ops.ranks import ALONE, Ranks, choose_gpu, count_local_ranks, join_ranks


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--n-atoms", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument(
        "--bases", type=Path, nargs="+", default=[], help="dictionary folders that it begins from"
    )
    parser.add_argument("--truth", type=Path, help="folder of the model with known features")
    parser.add_argument(
        "--stream", type=json.loads, help="section of the config: extract the training rows here"
    )
    parser.add_argument(
        "--model", type=json.loads, help="section of the config: the model is needed by the fit"
    )
    parser.add_argument("--text", type=Path, help="folder of prepare_text, for both of these")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    method = find_method(arguments.settings["algorithm"])
    settings = parse(method.settings, arguments.settings, "method")
    FIT_FOLDER.check(arguments.output)
    with join_ranks() as ranks:
        if method.is_data_parallel:
            fit(method, settings, arguments, ranks)
        elif ranks.is_first:
            fit(method, settings, arguments, ALONE)


def fit(method: Method, settings: Any, arguments: argparse.Namespace, ranks: Ranks) -> None:
    """Fit as one of several ranks; the first one writes."""
    logging.basicConfig(
        level=logging.INFO if ranks.is_first else logging.WARNING, format="%(message)s"
    )
    torch.set_num_threads(max(1, arguments.threads // count_local_ranks()))
    seed_everything(arguments.seed)
    device = choose_device(settings.device, gpus=arguments.gpus)
    if device.type == "cuda" and ranks.size > 1:
        device = torch.device("cuda", choose_gpu())
    for base in arguments.bases:
        check_folder(base / SEAL_FILE)
    train, heldout = (open_shards(arguments.shards, split, ranks) for split in SPLITS)
    if arguments.stream is not None:
        # by name: the fit of stored rows does not depend on how they were extracted
        streams = import_module("dbksvd.activations.stream")
        train = streams.ActivationStream(
            arguments.stream, arguments.text, train, gpus=arguments.gpus
        )
    task = FitTask(
        train=train,
        heldout=heldout,
        n_atoms=arguments.n_atoms,
        k=arguments.k,
        seed=arguments.seed,
        settings=settings,
        device=device,
        checkpoint=arguments.checkpoint,
        metadata=train.describe(),
        bases=tuple(arguments.bases),
        truth=arguments.truth,
        extraction=arguments.model,
        text=arguments.text,
        gpus=arguments.gpus,
        ranks=ranks,
    )
    result = method.fit(task)
    if not ranks.is_first:
        return
    result.summary |= describe_run(seed=arguments.seed, device=device)
    if arguments.stream is not None:
        result.summary["stream"] = arguments.stream["stream"]
    if ranks.size > 1:
        result.summary |= {"ranks": ranks.size, "summed_bytes": ranks.summed_bytes}
    result.save(arguments.output)
    remove_checkpoint(arguments.checkpoint)


def open_shards(folder: Path, split: str, ranks: Ranks) -> ActivationShards:
    """Open one split; ranks share the check of its files."""
    shards = ActivationShards.open(folder, split=split, verify=False)
    shards.verify(ranks.rank, ranks.size)
    return shards


if __name__ == "__main__":
    main()
