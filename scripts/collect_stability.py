"""Gather how the matched cosines of all dictionaries are spread."""

from __future__ import annotations

import argparse
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.layout import expand_rows
from dbksvd.report.collect import collect_stability
from dbksvd.report.tables import write_csv


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True, help="keys and folders, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    write_csv(collect_stability(arguments.rows), arguments.output)


if __name__ == "__main__":
    main()
