"""Methods two by two at one L0, read off their curves over k."""

import pandas as pd
import pytest

from dbksvd.report.matched import list_targets, match, read_curve, read_seeds, tabulate_fits

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


def of(method: str) -> pd.DataFrame:
    return FITS[FITS["method"] == method]


def test_curve_is_linear_in_log_l0_and_ends_where_it_was_measured():
    assert read_curve(of("one"), "variance explained", 8) == pytest.approx(0.625)
    assert read_curve(of("one"), "variance explained", 4) == pytest.approx(0.5)
    assert pd.isna(read_curve(of("one"), "variance explained", 3.9))
    assert pd.isna(read_curve(of("one"), "variance explained", 16.1))


def test_seeds_of_the_nearest_k_move_along_the_curve():
    values = read_seeds(of("one"), "variance explained", 11)
    moved = read_curve(of("one"), "variance explained", 11) - 0.75
    assert values == pytest.approx({0: 0.7 + moved, 1: 0.8 + moved})
    assert read_seeds(of("alone"), "AG News, 1", 16) == {}


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
    assert row["variance explained"] == "-0.224 ± 0.050"
    assert row["AG News, 1"] == "-0.197 ± 0.010"
    assert row["seeds"] == 2
    assert table.loc["one", "alone", "16.0"]["variance explained"] == "+0.600"
    assert table.loc["one", "alone", "16.0"]["AG News, 1"] == ""
    assert "MCC" not in table.columns


def test_methods_that_share_no_l0_make_an_empty_table():
    table = match(SCORES, ["one", "far"])
    assert table.empty
    assert table.columns.tolist() == ["site", "n_atoms", "L0", "method", "other", "seeds"]
