"""Lines below the table on what the model knows."""

from __future__ import annotations

import pandas as pd

from dbksvd.report.eval_notes import list_eval_notes
from dbksvd.report.summary import summarise

KEYS = {"site": "layer15", "method": "a", "n_atoms": 8, "k": 2}


def make_scores(applicable: int) -> pd.DataFrame:
    known = {
        "applicable": applicable,
        "prompts_known": 30,
        "prompts_asked": 64,
        "prompts_known/city: Country": 20,
        "prompts_asked/city: Country": 32,
        "prompts_known/city: Language": 10,
        "prompts_asked/city: Language": 32,
    }
    rows = [
        {**KEYS, "seed": seed, "eval": "ravel", "metric": metric, "value": value}
        for seed in (0, 1)
        for metric, value in known.items()
    ]
    rows.append({**KEYS, "seed": 0, "eval": "core", "metric": "l0", "value": 2.0})
    return pd.DataFrame(rows)


def test_a_line_says_what_the_model_knows():
    line = (
        "layer15: the model continues 30 of 64 prompts of ravel right (city: Country 20 of 32, "
        "city: Language 10 of 32)"
    )
    assert list_eval_notes(make_scores(1)) == [f"{line}."]
    assert list_eval_notes(make_scores(0)) == [f"{line}; too few for a score."]
    assert f"{line}." in summarise(make_scores(1), ["a"]).attrs["notes"]


def test_evals_that_ask_for_no_facts_have_no_line():
    scores = make_scores(1)
    assert list_eval_notes(scores[scores["eval"] == "core"]) == []
    absorption = pd.DataFrame(
        [{**KEYS, "seed": 0, "eval": "absorption", "metric": "applicable", "value": 0.0}]
    )
    assert list_eval_notes(absorption) == []
    assert list_eval_notes(scores.iloc[:0]) == []
