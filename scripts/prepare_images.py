"""Check, hash and split the images that activations are taken from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.images.prepare import prepare_images


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help='{"images": {...}}')
    parser.add_argument("--output", type=Path, required=True, help="folder")
    arguments = parser.parse_args()

    manifest = prepare_images(arguments.settings["images"], arguments.output)
    print(f"images: {manifest['images']}, tiles: {manifest['tiles']}")
    print(f"not used: {manifest['not_used']}")


if __name__ == "__main__":
    main()
