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

from dbksvd.base.errors import report_errors
from dbksvd.base.files import replace_folder
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import name_model, prepare_eval
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.models.loading import load_model


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eval", required=True, help="name of the eval")
    parser.add_argument(
        "--settings", type=json.loads, required=True, help="model, layer, seed, settings"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    settings = arguments.settings
    find_eval(arguments.eval)
    loaded = load_model(settings["model"], gpus=arguments.gpus)
    site = EvalSite(name_model(loaded.name), settings["layer"], settings["seed"], loaded.kind)
    with replace_folder(arguments.output) as folder:
        prepare_eval(arguments.eval, loaded, site, settings["settings"], folder)


if __name__ == "__main__":
    main()
