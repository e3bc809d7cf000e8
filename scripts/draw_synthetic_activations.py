"""Draw one slice of the samples of a generative model, and keep the truth of the held-out ones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from dbksvd.activations.from_synthetic import draw_slice
from dbksvd.base.errors import report_errors
from dbksvd.base.provenance import choose_device


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--slice", type=int, required=True, help="from 0")
    parser.add_argument("--part", type=Path, required=True, help="activations (.h5)")
    parser.add_argument("--truth", type=Path, required=True, help="held-out codes (.safetensors)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    seal = draw_slice(
        arguments.model,
        arguments.settings,
        arguments.slice,
        arguments.part,
        arguments.truth,
        choose_device("auto", gpus=arguments.gpus),
    )
    print(f"rows: {seal['rows']}")


if __name__ == "__main__":
    main()
