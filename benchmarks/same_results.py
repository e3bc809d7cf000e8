"""Whether two runs of an experiment ended with the same results.

Everything is compared byte by byte, except what is time by nature, which is left out by name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from dbksvd.activations.shards import SEEN

# Folders of what happened during a run.
RECORDS = ("logs", "benchmarks")
# Entries of JSON files and columns of tables: seconds of a fit or a score, and what SAEBench notes
# of the day of its run.
TIMES = (
    *("seconds", "seconds_iteration", "scoring_seconds", "fit seconds"),
    *("datetime_epoch_millis", "eval_id"),
)
# Files that are made of such columns: equal seconds, error over seconds, and table.csv as text.
TIMED_FILES = (
    *("budgets.csv", "budgets.md", "figures/convergence.png", "figures/convergence.svg"),
    "table.md",
)


def digest_results(folder: Path) -> dict[str, str]:
    """Return a sha256 for every file below the results of an experiment, without its times.

    Parameters
    ----------
    folder : Path
        ``results/<experiment>``.

    Returns
    -------
    dict
        Path relative to `folder` and 64 hexadecimal digits, or ``"timed"`` for a file of which
        only the presence counts.
    """
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in RECORDS or name.endswith((".damaged", SEEN)):
            continue
        digests[name] = "timed" if name in TIMED_FILES else _digest_file(path)
    return digests


def compare_results(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """Return a line for each file that is missing, new or another."""
    return [
        f"{name}: {'missing' if name not in got else 'new' if name not in expected else 'differs'}"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    ]


def _digest_file(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        value = _drop_times(json.loads(content))
        if path.name == "seal.json":  # hashes of SAEBench's files, which hold the day of their run
            value.pop("sha256", None)
        content = json.dumps(value).encode()
    elif path.suffix == ".csv":
        content = _drop_columns(pd.read_csv(path, dtype=str)).to_csv().encode()
    return hashlib.sha256(content).hexdigest()


def _drop_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_times(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_drop_times(item) for item in value]
    return value


def _drop_columns(table: pd.DataFrame) -> pd.DataFrame:
    if "metric" in table:
        table = table[~table["metric"].isin(TIMES)]
    return table.drop(columns=[name for name in TIMES if name in table])
