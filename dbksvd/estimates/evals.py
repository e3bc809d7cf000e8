"""How much text an eval reads, as its entry counts it from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import Settings
from dbksvd.evaluation.saebench.entry import EvalTexts
from dbksvd.evaluation.saebench.registry import find_eval, parse_eval
from dbksvd.models.sizes import ModelKind


def count_eval(name: str, settings: Settings | Mapping[str, Any], kind: ModelKind) -> EvalTexts:
    """Return what an eval costs; one that reads no text costs nothing here.

    Parameters
    ----------
    name : str
        The eval.
    settings : Settings, or a mapping of them
        Its settings.
    kind : {"causal", "encoder"}
        Whether the model has a language-model head, and core so a loss.
    """
    return find_eval(name).cost(parse_eval(name, settings), kind)
