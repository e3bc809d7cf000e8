"""From the folders of all dictionaries to tidy tables: scores, curves, usage, stability, routing.

Each dictionary is a row of :func:`dbksvd.base.layout.expand_rows`: its keys and its folders.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.base.files import DamagedFileError, check_folder, read_json, read_seal
from dbksvd.base.headline import PART
from dbksvd.base.layout import FAILED, KEYS, LOG_FILE, SEAL_FILE
from dbksvd.evaluation.saebench.results import SEAL, read_metrics, read_parts

SCORE_COLUMNS = [*KEYS, "eval", "metric", "value"]
STABILITY_COLUMNS = [*KEYS, "cosine", "atoms", "random_atoms"]
ROUTING_COLUMNS = [*KEYS, "component", "expert", "samples"]

Row = Mapping[str, Any]
logger = logging.getLogger(__name__)


def collect_scores(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the tidy table of all numbers; null and NaN are left out and counted in the log.

    The parts of a number (data sets, classes, groups of documents), whose mean it is, have rows of
    their own: ``metric@part``. A dictionary that could not be made or scored has one
    row without a value: the eval `FAILED`, and the reason as the metric.
    """
    table: list[list[Any]] = []
    left_out = 0
    for row in rows:
        keys = [row[key] for key in KEYS]
        if FAILED in row:
            table.append([*keys, FAILED, row[FAILED], math.nan])
            continue
        for name, metrics in read_scores(row):
            numbers, empty = list_metrics(metrics)
            table += [[*keys, name, metric, value] for metric, value in numbers]
            left_out += empty
    logger.info(
        "%d dictionaries, %d rows, %d empty values left out", len(rows), len(table), left_out
    )
    return pd.DataFrame(table, columns=SCORE_COLUMNS)


def list_metrics(metrics: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
    """Return the numbers among what a file says of a dictionary, and how many are null or NaN."""
    numbers, empty = [], 0
    for metric, value in metrics.items():
        if metric in KEYS or isinstance(value, bool):
            continue
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            empty += 1
        elif isinstance(value, int | float):
            numbers.append((metric, float(value)))
    return numbers, empty


def read_scores(row: Row) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (eval, metrics) of one dictionary, where it has them.

    They are ``heldout``, SAEBench's evals, ``ground_truth``, ``stability`` and ``fit``. An eval
    whose numbers have parts comes a second time, with these.
    """
    evaluation, dictionary = Path(row["evaluation"]), Path(row["dictionary"])
    heldout = read_seal(evaluation / "metrics.json")
    yield "heldout", heldout
    yield "heldout", name_parts(heldout.get("parts", {}))
    for folder in sorted(path for path in evaluation.iterdir() if path.is_dir()):
        if (folder / SEAL).is_file():
            try:
                check_folder(folder / SEAL)
            except DamagedFileError as error:  # without its metrics.json, an evaluation runs again
                raise DamagedFileError(error.reason, evaluation / "metrics.json") from error
        yield folder.name, read_metrics(folder)
        yield folder.name, name_parts(read_parts(folder))
    if row.get("ground_truth"):
        yield "ground_truth", read_seal(row["ground_truth"])
    if row.get("stability"):
        yield "stability", check_folder(row["stability"])["scores"][str(row["seed"])]
    if (dictionary / SEAL_FILE).is_file():
        yield "fit", read_seal(dictionary / SEAL_FILE)


def name_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the parts of numbers as tables call them: ``metric@part``."""
    return {
        f"{metric}{PART}{part}": value
        for metric, values in parts.items()
        for part, value in values.items()
    }


def collect_curves(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the logs of all fits, one below the other."""
    return pd.concat([read_curve(row) for row in rows], ignore_index=True)


def read_curve(row: Row) -> pd.DataFrame:
    """Return one fit's log with the fit's keys in front.

    A grown dictionary logs its number of atoms at the time: that column becomes ``n_atoms_now``.
    """
    log = pd.read_csv(Path(row["dictionary"]) / LOG_FILE)
    log = log.rename(columns={key: f"{key}_now" for key in KEYS})
    return pd.concat([_repeat_keys(row, len(log)), log], axis=1)


def collect_usage(rows: Sequence[Row]) -> pd.DataFrame:
    """Return how many held-out tokens use each atom, a row for each atom of all dictionaries."""
    return pd.concat([read_usage(row) for row in rows], ignore_index=True)


def read_usage(row: Row) -> pd.DataFrame:
    """Return how many held-out tokens use each atom of one dictionary."""
    metrics = read_seal(Path(row["evaluation"]) / "metrics.json")
    counts = pd.DataFrame({"count": metrics["usage"]})
    counts["tokens"] = metrics["samples"]
    return pd.concat([_repeat_keys(row, len(counts)), counts], axis=1)


def collect_stability(rows: Sequence[Row]) -> pd.DataFrame:
    """Return how the matched cosines of all dictionaries are spread over bins.

    ``cosine`` is the lower edge of a bin, ``atoms`` the number of pairs of matched atoms there,
    over all other seeds; ``random_atoms`` that of pairs of random atoms of the same sizes.
    """
    found = [read_stability(row) for row in rows if row.get("stability")]
    if not found:
        return pd.DataFrame(columns=STABILITY_COLUMNS)
    return pd.concat(found, ignore_index=True)


def read_stability(row: Row) -> pd.DataFrame:
    """Return how the matched cosines of one dictionary are spread over bins."""
    counts = read_seal(row["stability"])["histograms"]
    bins = counts["bins"]
    table = pd.DataFrame({"cosine": [place / bins for place in range(bins)]})
    table["atoms"], table["random_atoms"] = counts["seeds"][str(row["seed"])], counts["random"]
    return pd.concat([_repeat_keys(row, bins), table], axis=1)


def _repeat_keys(row: Row, times: int) -> pd.DataFrame:
    return pd.DataFrame([{key: row[key] for key in KEYS}] * times, columns=list(KEYS))


def collect_routing(rows: Sequence[Row]) -> pd.DataFrame:
    """Return where the routers of all dictionaries send the samples of each component."""
    lines = [line for row in rows for line in read_routing(row)]
    return pd.DataFrame(lines, columns=ROUTING_COLUMNS)


def read_routing(row: Row) -> list[list[Any]]:
    """Return a line for each component and expert; none for a dictionary without a router."""
    counts = read_json(row["ground_truth"]).get("routing", []) if row["ground_truth"] else []
    keys = [row[key] for key in KEYS]
    return [
        [*keys, component, expert, samples]
        for component, experts in enumerate(counts)
        for expert, samples in enumerate(experts)
    ]
