"""Shuffle the parts of an extraction into shards."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from dbksvd.activations.sharding import write_shards
from dbksvd.base.errors import report_errors


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help='{"shards": {...}}')
    parser.add_argument("--parts", type=Path, nargs="+", required=True, help="all parts (.h5)")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    manifest = write_shards(
        arguments.parts, arguments.settings["shards"], arguments.output, threads=arguments.threads
    )
    for split, content in manifest["splits"].items():
        print(
            f"{split}: {content['rows']} rows in {len(content['files'])} shards, "
            f"{content['masked_rows']} masked"
        )


if __name__ == "__main__":
    main()
