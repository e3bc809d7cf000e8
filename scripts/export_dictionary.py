"""Write a DB-KSVD dictionary in a form that other tools take as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.dictionaries.exports import EXPORTS


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dictionary", type=Path, required=True, help="folder of a DB-KSVD fit")
    parser.add_argument("--format", choices=sorted(EXPORTS), required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()

    EXPORTS[arguments.format](Dictionary.load(arguments.dictionary), arguments.output)


if __name__ == "__main__":
    main()
