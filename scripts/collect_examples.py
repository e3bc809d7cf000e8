"""Collect what feature pages show of the dictionaries of one site, in one pass over its text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from dbksvd.base.errors import report_errors
from dbksvd.features.site_task import SiteFolders, collect_site


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="pages.examples")
    parser.add_argument(
        "--extraction",
        type=json.loads,
        required=True,
        help="how activations were extracted, or null",
    )
    parser.add_argument("--names", nargs="+", required=True, help="such as dbksvd/m512-k16-s0")
    for name in ("dictionaries", "shards", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder")
    for name in ("text", "images", "synthetic", "probes", "checkpoint"):
        parser.add_argument(f"--{name}", type=Path, help="folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    given = vars(arguments)
    places = ("shards", "dictionaries", "text", "images", "synthetic", "probes")
    manifest = collect_site(
        arguments.names,
        arguments.settings,
        arguments.extraction,
        SiteFolders(**{name: given[name] for name in places}),
        arguments.output,
        checkpoints=arguments.checkpoint,
        gpus=arguments.gpus,
    )
    print(f"{len(manifest['dictionaries'])} dictionaries, {manifest['data']['tokens']:,} tokens")


if __name__ == "__main__":
    main()
