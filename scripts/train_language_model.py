"""Pretrain a small language model on the prepared text."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from dbksvd.base.checkpoint_files import remove_checkpoint
from dbksvd.base.errors import report_errors
from dbksvd.language_model import train_language_model


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="model.train")
    parser.add_argument("--text", type=Path, required=True, help="folder of prepare_text")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder, unfinished work")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the model, sealed by a .json"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    train_language_model(
        arguments.settings,
        arguments.text,
        arguments.output,
        arguments.checkpoint,
        gpus=arguments.gpus,
    )
    remove_checkpoint(arguments.checkpoint)


if __name__ == "__main__":
    main()
