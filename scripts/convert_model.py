"""Unpack a GGUF file into a model folder that every later job loads."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.models.conversion import convert_model


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="section model")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the model, sealed by a .json"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    convert_model(arguments.settings, arguments.output)


if __name__ == "__main__":
    main()
