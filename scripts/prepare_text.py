"""Collect, deduplicate and split the documents that activations are taken from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.text.documents import prepare_text


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help='{"text": {...}}')
    parser.add_argument("--output", type=Path, required=True, help="folder")
    arguments = parser.parse_args()

    manifest = prepare_text(arguments.settings["text"], arguments.output)
    print(f"documents: {manifest['documents']}, characters: {manifest['characters']}")


if __name__ == "__main__":
    main()
