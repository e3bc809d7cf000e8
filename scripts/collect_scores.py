"""Gather all scores into one tidy table: a row for each dictionary and metric."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.base.errors import report_errors
from dbksvd.base.files import DamagedFileError, check_folder, read_seal, replace_file
from dbksvd.base.layout import expand_rows
from dbksvd.evaluation.saebench.results import SEAL, read_metrics

KEYS = ("site", "method", "n_atoms", "k", "seed")
COLUMNS = [*KEYS, "eval", "metric", "value"]

logger = logging.getLogger(__name__)


def read_scores(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (eval, metrics) of one dictionary: ``heldout``, evals, ``ground_truth``, ``fit``."""
    evaluation, dictionary = Path(row["evaluation"]), Path(row["dictionary"])
    yield "heldout", read_seal(evaluation / "metrics.json")
    for folder in sorted(path for path in evaluation.iterdir() if path.is_dir()):
        if (folder / SEAL).is_file():
            try:
                check_folder(folder / SEAL)
            except DamagedFileError as error:  # without its metrics.json, an evaluation runs again
                raise DamagedFileError(error.reason, evaluation / "metrics.json") from error
        yield folder.name, read_metrics(folder)
    if row.get("ground_truth"):
        yield "ground_truth", read_seal(row["ground_truth"])
    if (dictionary / "fit.json").is_file():
        yield "fit", read_seal(dictionary / "fit.json")


def collect_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the tidy table of all numbers; null and NaN are left out and counted in the log."""
    table, left_out = [], 0
    for row in rows:
        keys = [row[key] for key in KEYS]
        for name, metrics in read_scores(row):
            for metric, value in metrics.items():
                if metric in KEYS or isinstance(value, bool):
                    continue
                if value is None or (isinstance(value, float) and not math.isfinite(value)):
                    left_out += 1
                elif isinstance(value, int | float):
                    table.append([*keys, name, metric, float(value)])
    logger.info(
        "%d dictionaries, %d rows, %d empty values left out", len(rows), len(table), left_out
    )
    return pd.DataFrame(table, columns=COLUMNS)


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=expand_rows, required=True, help="keys and folders, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = collect_rows(arguments.rows)
    with replace_file(arguments.output) as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    main()
