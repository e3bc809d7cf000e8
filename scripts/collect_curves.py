"""Gather the logs of all fits, and the atom usage of all dictionaries, into two tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.layout import expand_rows
from dbksvd.report.collect import collect_curves, collect_usage
from dbksvd.report.tables import write_csv


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True, help="keys and folders, as JSON")
    parser.add_argument("--curves", type=Path, required=True)
    parser.add_argument("--usage", type=Path, required=True)
    arguments = parser.parse_args()

    write_csv(collect_curves(arguments.rows), arguments.curves)
    write_csv(collect_usage(arguments.rows), arguments.usage)


if __name__ == "__main__":
    main()
