"""Build the generative model of an experiment once: its features are the known ground truth."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.base.provenance import choose_device
from dbksvd.synthetic.models import make_model, save_model


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="kind and its settings")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    model = make_model(arguments.settings, choose_device("auto", gpus=arguments.gpus))
    manifest = save_model(model, arguments.settings, arguments.output)
    print(
        f"{manifest['n_features']} features in {manifest['d']} dimensions, "
        f"{time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
