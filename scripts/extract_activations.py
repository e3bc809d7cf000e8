"""Extract the token activations of one slice of the documents, at one or several sites."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from dbksvd.activations.from_text import extract_slices
from dbksvd.base.errors import report_errors


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--settings", type=json.loads, required=True, help="section of a site, or a list of them"
    )
    parser.add_argument(
        "--text", type=Path, nargs="*", default=[], help="folder of prepare_text, or files in it"
    )
    parser.add_argument("--slice", type=int, required=True, help="from 0")
    parser.add_argument(
        "--output", type=Path, nargs="+", required=True, help="parts (.h5), each sealed by a .json"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    text = arguments.text[0] if arguments.text else None
    if text is not None and not text.is_dir():
        text = text.parent
    given = arguments.settings
    started = time.perf_counter()
    seals = extract_slices(
        given if isinstance(given, list) else [given],
        arguments.slice,
        arguments.output,
        text=text,
        gpus=arguments.gpus,
    )
    seconds = time.perf_counter() - started
    rows = seals[0]["rows"]
    print(f"sites: {len(seals)}, rows: {rows}, {sum(rows.values()) / seconds:.0f} tokens/s")


if __name__ == "__main__":
    main()
