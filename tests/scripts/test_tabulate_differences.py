"""On which scores the first method differs from the others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dbksvd.base.headline import PART
from dbksvd.report.differences import tabulate_differences
from dbksvd.report.tables import write_table

TPP = ("tpp", "tpp_threshold_10_total_metric")
EXPLAINED = ("heldout", "explained_variance")
LENGTH = ("mdl", "description_length")


def make_scores(values: dict[str, list], which: tuple[str, str], k: int = 2) -> pd.DataFrame:
    """Rows of a score: for each method a list over seeds, of numbers or of lists over parts."""
    rows = []
    for method, seeds in values.items():
        for seed, parts in enumerate(seeds):
            keys = {"site": "layer1", "method": method, "n_atoms": 8, "k": k, "seed": seed}
            row = {**keys, "eval": which[0], "metric": which[1], "value": np.mean(parts)}
            rows.append(row)
            if isinstance(parts, list):
                names = [f"{which[1]}{PART}{number}" for number in range(len(parts))]
                rows += [
                    {**row, "metric": name, "value": value}
                    for name, value in zip(names, parts, strict=True)
                ]
    return pd.DataFrame(rows)


def tabulate(scores: pd.DataFrame, *methods: str) -> pd.DataFrame:
    return tabulate_differences(scores, list(methods)).set_index("method")


def test_seeds_alone_give_the_interval_of_welch():
    one, two = [0.70, 0.71, 0.72], [0.60, 0.61, 0.65]
    row = tabulate(make_scores({"one": one, "two": two}, EXPLAINED), "one", "two").loc["two"]
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert float(row["difference"]) == pytest.approx(np.mean(one) - np.mean(two), abs=5e-5)
    assert float(row["low"]) == pytest.approx(expected.low, abs=1e-4)
    assert float(row["high"]) == pytest.approx(expected.high, abs=1e-4)
    assert row[["verdict", "seeds", "parts", "reference"]].tolist() == ["better", "3, 3", "", "one"]
    assert float(row["smallest"]) > float(row["high"]) - float(row["difference"])


def test_parts_are_paired():
    parts = np.array([0.5, 0.9, 0.7, 0.6])
    values = {"one": [list(parts)], "two": [list(parts - [0.05, 0.04, 0.06, 0.05])]}
    row = tabulate(make_scores(values, EXPLAINED), "one", "two").loc["two"]
    assert row[["verdict", "parts", "seeds"]].tolist() == ["better", 4, "1, 1"]


def test_verdicts():
    values = {
        "one": [[0.5, 0.6], [0.51, 0.61]],
        "near": [[0.505, 0.60], [0.50, 0.605]],
        "high": [[0.9, 1.0], [0.91, 1.01]],
    }
    table = tabulate(make_scores(values, EXPLAINED), "one", "near", "high")
    assert table["verdict"].to_dict() == {"near": "not told apart", "high": "worse"}
    lower = tabulate(make_scores(values, LENGTH), "one", "near", "high")
    assert lower["verdict"].to_dict() == {"near": "not told apart", "high": "better"}


def test_one_seed_without_parts_is_not_compared():
    row = tabulate(make_scores({"one": [0.5], "two": [0.9]}, EXPLAINED), "one", "two").loc["two"]
    assert row[["difference", "low", "high", "verdict"]].tolist() == [
        *("-0.4000", "", "", "not compared"),
    ]


def test_one_seed_takes_the_spread_of_others_also_at_another_k():
    scores = pd.concat(
        [
            make_scores({"one": [0.5], "two": [0.9]}, EXPLAINED),
            make_scores({"one": [0.500, 0.501, 0.502]}, EXPLAINED, k=4),
        ]
    )
    row = tabulate(scores, "one", "two").loc["two"]
    half = np.sqrt(2) * 0.001 * stats.t.isf(0.025, 2)
    assert float(row["high"]) == pytest.approx(-0.4 + half, abs=1e-4)
    assert row["verdict"] == "worse"


def test_the_first_method_that_has_scores_is_the_reference_and_scr_carries_its_warning(
    tmp_path: Path,
):
    scores = make_scores({"two": [0.5, 0.6], "one": [0.7, 0.9]}, TPP)
    table = tabulate_differences(scores, ["idle", "one", "two"])
    assert table["reference"].tolist() == ["one"]
    write_table(table, tmp_path / "d.csv", tmp_path / "d.md")
    assert "fail as measures" in (tmp_path / "d.md").read_text()


def test_nothing_to_compare_says_why(tmp_path: Path):
    table = tabulate_differences(make_scores({"one": [0.5]}, EXPLAINED), ["one", "two"])
    write_table(table, tmp_path / "d.csv", tmp_path / "d.md")
    assert "expected a score that two methods" in (tmp_path / "d.csv").read_text()
