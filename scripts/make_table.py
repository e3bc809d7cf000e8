"""Make one table for people from a table of all dictionaries, as CSV and as Markdown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from dbksvd.base.errors import report_errors
from dbksvd.report.norm_notes import list_norm_notes
from dbksvd.report.registry import TABLES, find_table
from dbksvd.report.tables import NOTES, write_table


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=list(TABLES), required=True)
    parser.add_argument("--source", type=Path, required=True, help="scores.csv or curves.csv")
    parser.add_argument("--methods", type=json.loads, required=True, help="JSON, in order of rows")
    parser.add_argument(
        "--manifests", type=Path, nargs="*", default=[], help="of the shards, for lines below"
    )
    parser.add_argument("--note", default="", help="a line below the table, before all others")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()

    table = find_table(arguments.table)(pd.read_csv(arguments.source), arguments.methods)
    if arguments.note:
        table.attrs[NOTES] = [f"**{arguments.note}**", *table.attrs.get(NOTES, ())]
    notes = list_norm_notes(arguments.manifests)
    write_table(table, arguments.csv, arguments.markdown, notes)


if __name__ == "__main__":
    main()
