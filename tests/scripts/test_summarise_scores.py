"""The short table: mean and half the range over seeds, in the order of the methods."""

import pandas as pd

from dbksvd.report.summary import summarise


def make_scores() -> pd.DataFrame:
    rows = []
    for method, seed, value in [("b", 0, 0.5), ("b", 1, 0.7), ("a", 0, 0.25)]:
        keys = {"site": "layer1", "method": method, "n_atoms": 8, "k": 2, "seed": seed}
        rows.append({**keys, "eval": "heldout", "metric": "explained_variance", "value": value})
        rows.append({**keys, "eval": "fit", "metric": "seconds", "value": 3.0})
    return pd.DataFrame(rows)


def test_mean_and_spread_over_seeds():
    table = summarise(make_scores(), ["b", "a"])
    assert table["method"].tolist() == ["b", "a"]
    assert table["seeds"].tolist() == [2, 1]
    assert table["variance explained"].tolist() == ["0.600 ± 0.100", "0.250"]
    assert table["fit seconds"].tolist() == ["3 ± 0", "3"]
    assert "probing, 1 atom" not in table.columns  # nothing was probed
