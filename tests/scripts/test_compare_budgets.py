"""All methods at one budget, read off their curves."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dbksvd.report.budgets import compare, read_at


def make_curve(method: str, seed: int, points: list[tuple[float, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(points, columns=["samples_seen", "seconds", "fve_heldout"])
    return table.assign(site="layer1", method=method, n_atoms=8, k=2, seed=seed)


CURVES = pd.concat(
    [
        make_curve("fast", 0, [(100, 1.0, 0.4), (200, 2.0, 0.6)]),
        make_curve("fast", 1, [(100, 2.0, 0.5), (200, 4.0, 0.8)]),
        make_curve("slow", 0, [(100, 2.0, 0.2), (400, 6.0, 0.6)]),
        make_curve("late", 0, [(900, 9.0, 0.9)]),
        make_curve("control", 0, [(0, 0.1, 0.1)]),
    ]
)


def test_value_between_two_measurements():
    curve = CURVES[CURVES["method"] == "slow"]
    assert read_at(curve, "seconds", 3.0) == pytest.approx(0.3)
    assert read_at(curve, "seconds", 60.0) == pytest.approx(0.6)
    assert pd.isna(read_at(curve, "seconds", 1.0))


def test_budget_is_the_least_that_a_method_took():
    table = compare(CURVES, ["slow", "fast", "late"]).set_index("method")
    assert table.index.tolist() == ["slow", "fast", "late"]
    assert set(table["samples"]) == {"200"}
    assert set(table["seconds"]) == {"3"}  # the mean of fast's 2 and 4
    at_samples = table["variance explained at equal samples"]
    # the others' seeds spread as fast's .6 and .8 do: half an interval of one degree of freedom
    one, mean = (stats.t.isf(0.025, 1) * np.std([0.6, 0.8], ddof=1) / n for n in (1, 2**0.5))
    assert at_samples.tolist() == [
        f"0.333 ± {one:.3f} *",
        f"0.700 ± {mean:.3f} *",
        "not measured yet",
    ]
    at_seconds = table["variance explained at equal seconds"]
    assert [text.split(" ")[0] for text in at_seconds] == ["0.300", "0.625", "not"]


def test_measurements_left_out_by_a_fit_are_skipped():
    gap = make_curve("fast", 0, [(50, 0.5, float("nan")), (100, 1.0, 0.4)])
    table = compare(gap, ["fast"])
    assert table["variance explained at equal samples"].tolist() == ["0.400"]
