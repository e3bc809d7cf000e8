"""The short table: means with intervals, in the order of the methods; what may be the best."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dbksvd.base.headline import PART
from dbksvd.report.headlines import list_headlines
from dbksvd.report.notes import read_notes
from dbksvd.report.summary import summarise
from dbksvd.report.tables import write_table


def make_scores() -> pd.DataFrame:
    rows = []
    for method, seed, value in [("b", 0, 0.5), ("b", 1, 0.7), ("a", 0, 0.25)]:
        keys = {"site": "layer1", "method": method, "n_atoms": 8, "k": 2, "seed": seed}
        rows.append({**keys, "eval": "heldout", "metric": "explained_variance", "value": value})
        rows.append({**keys, "eval": "fit", "metric": "seconds", "value": 3.0})
    return pd.DataFrame(rows)


def test_mean_and_interval_over_seeds():
    table = summarise(make_scores(), ["b", "a"])
    assert table["method"].tolist() == ["b", "a"]
    assert table["seeds"].tolist() == [2, 1]
    own = stats.t.interval(0.95, 1, 0.6, stats.sem([0.5, 0.7]))
    # a has one seed: its standard error is that of b's seeds, not of their mean
    lent = stats.t.interval(0.95, 1, 0.25, np.std([0.5, 0.7], ddof=1))
    assert table["variance explained"].tolist() == [
        f"0.600 ± {own[1] - 0.6:.3f} *",
        f"0.250 ± {lent[1] - 0.25:.3f} *",
    ]
    assert table["fit seconds"].tolist() == ["3 ± 0", "3"]
    assert "probing, 1 atom" not in table.columns  # nothing was probed


def add_parts(method: str, means: list[float], n_atoms: int = 8) -> pd.DataFrame:
    """Rows of one eval over five data sets, a mean for each seed."""
    away = np.random.default_rng(len(method)).normal(0, 0.01, 5)
    keys = {"site": "layer1", "method": method, "n_atoms": n_atoms, "k": 2}
    where = {"eval": "sparse_probing", "metric": "sae_top_1_test_accuracy"}
    rows = []
    for seed, mean in enumerate(means):
        values = mean + np.array([0.1, -0.1, 0.2, -0.2, 0]) + away - away.mean()
        rows.append({**keys, **where, "seed": seed, "value": values.mean()})
        rows += [
            {**keys, **where, "seed": seed, "value": value, "metric": f"{where['metric']}{PART}{i}"}
            for i, value in enumerate(values)
        ]
    return pd.DataFrame(rows)


def test_parts_give_an_interval_without_what_is_hard_for_all():
    scores = pd.concat([add_parts("a", [0.8]), add_parts("bb", [0.7]), add_parts("ccc", [0.79])])
    table = summarise(scores, ["a", "bb", "ccc"])
    texts = table.set_index("method")["AG News, 1 atom"]
    halves = texts.str.extract("± ([0-9.]+)")[0].astype(float)
    assert (halves < 0.05).all()  # data sets spread by .2, methods against each other by .01
    assert texts["a"].endswith(" *")
    assert texts["ccc"].endswith(" *")
    assert texts["bb"].startswith("0.700 ± ")
    assert not texts["bb"].endswith(" *")


def test_a_control_of_its_own_width_is_compared_with_the_others():
    scores = pd.concat(
        [add_parts("a", [0.8]), add_parts("bb", [0.79]), add_parts("pca", [0.5], n_atoms=4)]
    )
    texts = summarise(scores, ["a", "bb", "pca"]).set_index("method")["AG News, 1 atom"]
    assert texts.str.endswith(" *").to_dict() == {"a": True, "bb": True, "pca": False}


def test_nothing_is_bold_where_nothing_says_how_noisy_it_is():
    scores = make_scores()
    table = summarise(scores[scores["seed"] == 0], ["b", "a"])
    assert table["variance explained"].tolist() == ["0.500", "0.250"]


def test_what_is_below_the_table_says_what_can_be_told_apart(tmp_path: Path):
    scores = pd.concat([add_parts("a", [0.8, 0.81]), add_parts("bb", [0.7, 0.7])])
    scores = pd.concat([scores, scores.assign(eval="tpp", metric="tpp_threshold_10_total_metric")])
    write_table(summarise(scores, ["a", "bb"]), tmp_path / "t.csv", tmp_path / "t.md", ["last"])
    notes = read_notes(tmp_path / "t.md")
    (smallest,) = [note for note in notes if note.startswith("Smallest difference")]
    assert "(layer1, k = 2): AG News, 1 atom 0.0" in smallest
    assert any("2605.18229" in note for note in notes)
    assert notes[-1] == "last"
    assert "**0.805 ± " in (tmp_path / "t.md").read_text()
    assert read_notes(tmp_path / "none.md") == []


@pytest.mark.parametrize("title", ["L0", "unused atoms", "fit seconds"])
def test_what_is_no_merit_is_not_compared(title: str):
    assert not next(line for line in list_headlines() if line.title == title).is_compared
