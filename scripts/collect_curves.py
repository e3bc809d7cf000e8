"""Gather the logs of all fits, and the atom usage of all dictionaries, into two tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.base.errors import report_errors
from dbksvd.base.files import read_seal, replace_file
from dbksvd.base.layout import expand_rows

KEYS = ("site", "method", "n_atoms", "k", "seed")


def read_curve(row: dict[str, Any]) -> pd.DataFrame:
    """Return one fit's log with the fit's keys in front.

    A grown dictionary logs its number of atoms at the time: that column becomes ``n_atoms_now``.
    """
    log = pd.read_csv(Path(row["dictionary"]) / "log.csv")
    log = log.rename(columns={key: f"{key}_now" for key in KEYS})
    return pd.concat([_repeat_keys(row, len(log)), log], axis=1)


def read_usage(row: dict[str, Any]) -> pd.DataFrame:
    """Return how many held-out tokens use each atom of one dictionary."""
    metrics = read_seal(Path(row["evaluation"]) / "metrics.json")
    counts = pd.DataFrame({"count": metrics["usage"]})
    counts["tokens"] = metrics["samples"]
    return pd.concat([_repeat_keys(row, len(counts)), counts], axis=1)


def _repeat_keys(row: dict[str, Any], times: int) -> pd.DataFrame:
    return pd.DataFrame([{key: row[key] for key in KEYS}] * times, columns=list(KEYS))


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True)
    parser.add_argument("--curves", type=Path, required=True)
    parser.add_argument("--usage", type=Path, required=True)
    arguments = parser.parse_args()

    for path, read in ((arguments.curves, read_curve), (arguments.usage, read_usage)):
        table = pd.concat([read(row) for row in arguments.rows], ignore_index=True)
        with replace_file(path) as temporary:
            table.to_csv(temporary, index=False)


if __name__ == "__main__":
    main()
