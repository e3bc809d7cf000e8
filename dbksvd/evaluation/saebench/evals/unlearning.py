"""unlearning: an eval of SAEBench that is known, and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict

from dbksvd.base.settings import Settings
from dbksvd.evaluation.saebench.entry import Eval

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.task import EvalTask

REFUSAL = (
    "expected an experiment without it: it needs google/gemma-2-2b-it on a GPU and "
    "WMDP-bio, which the hub gives out on request only; score the dictionary folders with "
    "SAEBench's own command"
)


class UnlearningSettings(Settings):
    """The eval is refused with any settings; the message says why."""

    model_config = ConfigDict(extra="allow")


def run(_task: EvalTask) -> None:
    """Refuse to score.

    Raises
    ------
    ValueError
        Always, with the reason.
    """
    raise ValueError(f"evaluation.evals.unlearning: {REFUSAL}")


EVAL = Eval(settings=UnlearningSettings, run=run, refusal=REFUSAL)
