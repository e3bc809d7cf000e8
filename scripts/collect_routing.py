"""Gather where the routers of all dictionaries send the samples of each component."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.base.errors import report_errors
from dbksvd.base.files import read_json, replace_file
from dbksvd.base.layout import expand_rows

KEYS = ("site", "method", "n_atoms", "k", "seed")
COLUMNS = [*KEYS, "component", "expert", "samples"]


def read_routing(row: dict[str, Any]) -> list[list[Any]]:
    """Return a row for each component and expert; none for a dictionary without a router."""
    counts = read_json(row["ground_truth"]).get("routing", []) if row["ground_truth"] else []
    keys = [row[key] for key in KEYS]
    return [
        [*keys, component, expert, samples]
        for component, experts in enumerate(counts)
        for expert, samples in enumerate(experts)
    ]


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    rows = [line for row in arguments.rows for line in read_routing(row)]
    with replace_file(arguments.output) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(temporary, index=False)


if __name__ == "__main__":
    main()
