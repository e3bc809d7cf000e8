"""Methods two by two at one L0, read off their curves over k."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from dbksvd.report.budgets import compare
from dbksvd.report.matched import list_targets, match, read_curve, read_nearest, tabulate_fits
from dbksvd.report.summary import summarise
from dbksvd.report.tables import write_table

KEYS = {"site": "layer1", "n_atoms": 8}
PROBE = ("sparse_probing", "sae_top_1_test_accuracy")


def make_scores(*fits: tuple[str, int, int, float, float, float | None]) -> pd.DataFrame:
    rows = []
    for method, k, seed, l0, explained, probing in fits:
        values = {("heldout", "l0"): l0, ("heldout", "explained_variance"): explained}
        if probing is not None:
            values[PROBE] = probing
        rows += [
            {**KEYS, "method": method, "k": k, "seed": seed, "eval": e, "metric": m, "value": v}
            for (e, m), v in values.items()
        ]
    return pd.DataFrame(rows)


SCORES = make_scores(
    ("one", 4, 0, 4, 0.5, 0.60),
    ("one", 16, 0, 16, 0.7, 0.70),
    ("one", 16, 1, 16, 0.8, 0.72),
    ("two", 4, 0, 8, 0.4, 0.50),
    ("two", 16, 0, 24, 0.6, 0.50),
    ("two", 16, 1, 24, 0.6, 0.54),
    ("alone", 16, 0, 16, 0.1, None),
    ("far", 16, 0, 100, 0.9, None),
)
FITS = tabulate_fits(SCORES)


def split(text: str) -> list[float]:
    return [float(part) for part in text.removesuffix(" (noise)").split(" ± ")]


def of(method: str) -> pd.DataFrame:
    return FITS[FITS["method"] == method]


def test_curve_is_linear_in_log_l0_and_ends_where_it_was_measured():
    assert read_curve(of("one"), "variance explained", 8) == pytest.approx(0.625)
    assert read_curve(of("one"), "variance explained", 4) == pytest.approx(0.5)
    assert pd.isna(read_curve(of("one"), "variance explained", 3.9))
    assert pd.isna(read_curve(of("one"), "variance explained", 16.1))


def test_seeds_of_the_nearest_k_move_along_the_curve():
    moved = read_curve(of("one"), "variance explained", 11) - 0.75
    assert read_nearest(of("one"), "variance explained", 11) == (16, pytest.approx(moved))
    assert read_nearest(of("one"), "variance explained", 3) is None
    assert read_nearest(of("alone"), "AG News, 1", 16) is None


def test_l0_is_covered_by_both():
    assert list_targets(of("one"), of("two")) == [8, 16]  # √(4 · 8) and √(16 · 24) lie outside
    assert list_targets(of("alone"), of("one")) == [16]
    assert list_targets(of("far"), of("one")) == []


def test_row_is_the_difference_at_equal_l0():
    table = match(SCORES, ["two", "one", "alone", "far"]).set_index(["method", "other", "L0"])
    assert [pair[:2] for pair in table.index] == [
        ("two", "one"),
        ("two", "one"),
        ("two", "alone"),
        ("one", "alone"),
    ]
    row = table.loc["two", "one", "16.0"]
    # `two` is at log(16/8)/log(24/8) = .631 of the way to k = 16, whose seeds move: .6 to .526.
    moved = 0.4 + 0.2 * math.log(2) / math.log(3) - 0.6
    assert split(row["variance explained"])[0] == pytest.approx(0.6 + moved - 0.75, abs=5e-4)
    assert split(row["AG News, 1"])[0] == pytest.approx(-0.197)
    assert row["seeds"] == "2, 2"
    assert split(table.loc["one", "alone", "16.0"]["variance explained"])[0] == 0.65
    assert table.loc["one", "alone", "16.0"]["AG News, 1"] == ""
    assert table.loc["one", "alone", "16.0"]["seeds"] == "2, 1"
    assert "MCC" not in table.columns


def test_a_difference_within_its_interval_is_called_noise():
    scores = make_scores(*(
        (method, 16, seed, 16, explained + 0.001 * seed, probing + 0.01 * seed)
        for method, explained, probing in (("one", 0.7, 0.6), ("two", 0.5, 0.605))
        for seed in range(3)
    ))  # fmt: skip
    (row,) = match(scores, ["one", "two"]).to_dict("records")
    sem = stats.sem([0, 0.001, 0.002]) * math.sqrt(2)
    explained, half = split(row["variance explained"])
    assert explained == 0.2
    assert half == pytest.approx(sem * stats.t.isf(0.025, 4), abs=5e-4)
    assert "noise" not in row["variance explained"]
    assert row["AG News, 1"].startswith("-0.005 ± 0.0")
    assert row["AG News, 1"].endswith(" (noise)")


def test_methods_that_share_no_l0_make_an_empty_table():
    table = match(SCORES, ["one", "far"])
    assert table.empty
    assert table.columns.tolist() == ["site", "n_atoms", "L0", "method", "other", "seeds"]


def write(table: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, str]:
    write_table(table, folder / "a.csv", folder / "a.md")
    return pd.read_csv(folder / "a.csv"), (folder / "a.md").read_text()


@pytest.mark.parametrize("l0", [16.0, 16 * (1 + 1e-15), 7.3, 16.07])
def test_methods_of_one_k_are_compared_where_their_l0_is_equal(l0, tmp_path):
    scores = make_scores(
        ("one", 16, 0, l0, 0.5, 0.6), ("one", 16, 1, l0, 0.6, 0.6), ("two", 16, 0, l0 / 1.003, 0.3, 0.8),
        ("two", 16, 1, l0, 0.2, 0.9), ("off", 16, 0, 1.02 * l0, 0.9, 0.9),
    )  # fmt: skip
    table, _ = write(match(scores, ["one", "two", "off"]), tmp_path)
    assert table[["method", "other", "seeds"]].to_numpy().tolist() == [["one", "two", "2, 2"]]
    assert split(table["variance explained"][0])[0] == 0.3
    assert split(table["AG News, 1"][0])[0] == -0.25


def test_one_k_that_touches_the_end_of_a_curve_is_compared():
    scores = make_scores(
        ("one", 4, 0, 4, 0.5, None), ("one", 16, 0, 16, 0.7, None), ("two", 16, 0, 16.0001, 0.4, None)
    )  # fmt: skip
    table = match(scores, ["one", "two"])
    assert table["variance explained"].tolist() == ["+0.300"]
    assert table["L0"].tolist() == ["16.0"]


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (["one", "far"], "far 100.0, one 4.0 to 16.0; more k give curves that can be compared"),
        (["one", "none"], "expected two methods or more to compare, got 1 of 2"),
        ([], "expected two methods or more to compare, got 0 of 0"),
    ],
)
def test_a_table_without_pairs_says_why(methods, reason, tmp_path):
    table, text = write(match(SCORES, methods), tmp_path)
    assert table.columns.tolist() == ["no rows"]
    assert table["no rows"][0].endswith(reason)
    assert reason in text


def test_methods_of_other_widths_say_why(tmp_path):
    wide = SCORES[SCORES["method"] == "one"].assign(n_atoms=16, method="wide")
    table, _ = write(match(pd.concat([SCORES, wide]), ["one", "wide"]), tmp_path)
    assert table["no rows"].tolist() == [
        "expected two methods with as many atoms at one site, got none"
    ]


def test_tables_of_no_fits_say_why(tmp_path):
    curves = pd.DataFrame([{**KEYS, "method": "one", "k": 4, "seed": 0, "samples_seen": 1, "seconds": 1, "fve_heldout": None}])  # fmt: skip
    for made in (compare(curves, ["one"]), summarise(SCORES.iloc[:0], [])):
        table, text = write(made, tmp_path)
        assert table["no rows"][0].startswith("expected ")
        assert table["no rows"][0] in text
