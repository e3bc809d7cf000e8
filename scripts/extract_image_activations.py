"""Extract the token activations of one slice of the images."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from dbksvd.activations.from_images import extract_image_slice
from dbksvd.base.errors import report_errors


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section of the config")
    parser.add_argument("--images", type=Path, required=True, help="folder of prepare_images")
    parser.add_argument("--slice", type=int, required=True, help="from 0")
    parser.add_argument("--output", type=Path, required=True, help="part (.h5), sealed by a .json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    seal = extract_image_slice(
        arguments.settings,
        arguments.slice,
        arguments.output,
        images=arguments.images,
        gpus=arguments.gpus,
    )
    seconds = time.perf_counter() - started
    print(f"rows: {seal['rows']}, {sum(seal['rows'].values()) / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
