"""What is told of dictionaries that were trained on inside their model."""

import pandas as pd

from dbksvd.base.layout import FAILED, KEYS
from dbksvd.report.loss_notes import list_loss_notes

VALUES = {
    "ce_loss_original": 3.0,
    "ce_loss_before": 4.0,
    "ce_loss_after": 3.5,
    "kl_before": 1.01,
    "kl_after": 0.5,
    "l0_before": 32.0,
    "l0_after": 31.5,
    "fve_before": 0.531,
    "fve_after": -0.2,
}


def make_scores() -> pd.DataFrame:
    rows = []
    for seed, shift in ((0, -0.25), (1, 0.25)):
        keys = ["layer15", "topk-e2e", 1024, 32, seed]
        rows += [
            [*keys, "fit", name, value + shift * (name == "ce_loss_after")]
            for name, value in VALUES.items()
        ]
        rows.append([*keys[:1], "topk-sae", *keys[2:], "fit", "seconds", 3.0])
    rows.append(["layer15", "other", 1024, 32, 0, FAILED, "no reason", float("nan")])
    return pd.DataFrame(rows, columns=[*KEYS, "eval", "metric", "value"])


def test_before_and_after_stand_beside_the_model_itself():
    assert list_loss_notes(make_scores()) == [
        "layer15, topk-e2e: inside the model, whose CE loss on held-out text is 3.00, the "
        "dictionary it began from has a loss of 4.00 (KL 1.01, L0 32.0, variance explained .531), "
        "the trained one 3.50 (KL 0.50, L0 31.5, variance explained -.200)."
    ]


def test_experiments_without_such_methods_have_no_line():
    scores = make_scores()
    assert list_loss_notes(scores[scores["method"] != "topk-e2e"]) == []
    assert list_loss_notes(scores.iloc[:0]) == []
