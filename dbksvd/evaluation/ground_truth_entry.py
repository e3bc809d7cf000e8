"""ground_truth: whether a dictionary has found the features that made the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, Settings
from dbksvd.evaluation.saebench.entry import Eval

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.task import EvalTask


class GroundTruthSettings(Settings):
    """Scores against known features and codes, at the site synthetic; no text is read."""

    batch_rows: Count = 1024
    """Samples that are coded at a time: bounds the memory."""


def run(_task: EvalTask) -> None:
    """Refuse a language model's activations, whose features nobody knows.

    Raises
    ------
    ValueError
        Always; :mod:`dbksvd.evaluation.score_truth` scores samples with known features.
    """
    raise ValueError(
        "evaluation.evals.ground_truth: expected samples with known features, got a model"
    )


EVAL = Eval(
    settings=GroundTruthSettings,
    run=run,
    headlines=(
        Headline("F1", "ground_truth", "f1", in_overview=False),
        *(
            Headline(
                f"{title}, {rows} pairs", "ground_truth", f"{rows}_{metric}", in_overview=False
            )
            for title, metric in (("variance", "explained_variance"), ("F1", "f1"))
            for rows in ("seen", "unseen")
        ),
        Headline("MCC", "ground_truth", "mcc", in_overview=False),
        Headline("RV", "ground_truth", "rv_modified", in_overview=False),
        Headline("router AMI", "ground_truth", "router_ami", in_overview=False),
    ),
    needs_truth=True,
)
