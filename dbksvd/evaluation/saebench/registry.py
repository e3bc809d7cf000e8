"""The evals: a name in the config (``evaluation.evals``), and the module that holds its entry.

An entry is a :class:`dbksvd.evaluation.saebench.entry.Eval`. The order is that of columns in tables
and of panels in figures. This table does not decide whether an eval runs again
(workflow/source_hash.py): the entry does, with all that its module imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dbksvd.base.headline import Headline
from dbksvd.base.registry import find_entry
from dbksvd.base.settings import Settings, parse
from dbksvd.evaluation.saebench.entry import Eval

EVALS = {
    "ground_truth": "dbksvd.evaluation.ground_truth_entry:EVAL",
    "sparse_probing_sae_probes": "dbksvd.evaluation.saebench.evals.sae_probes:EVAL",
    "sparse_probing": "dbksvd.evaluation.saebench.evals.sparse_probing:EVAL",
    "core": "dbksvd.evaluation.saebench.evals.core:EVAL",
    "tpp": "dbksvd.evaluation.saebench.evals.tpp:EVAL",
    "scr": "dbksvd.evaluation.saebench.evals.scr:EVAL",
    "absorption": "dbksvd.evaluation.saebench.evals.absorption:EVAL",
    "ravel": "dbksvd.evaluation.saebench.evals.ravel:EVAL",
    "factual_knowledge": "dbksvd.evaluation.saebench.evals.factual_knowledge:EVAL",
    "autointerp": "dbksvd.evaluation.saebench.evals.autointerp:EVAL",
    "token_matching": "dbksvd.evaluation.saebench.evals.token_matching:EVAL",
    "mdl": "dbksvd.evaluation.saebench.evals.mdl:EVAL",
    "meta_structure": "dbksvd.evaluation.saebench.evals.meta_structure:EVAL",
    "unlearning": "dbksvd.evaluation.saebench.evals.unlearning:EVAL",
}


def find_eval(name: str) -> Eval:
    """Return the entry of an eval.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists those there are.
    """
    found: Eval = find_entry(EVALS, name, "evaluation.evals")
    return found


def parse_eval(name: str, values: Mapping[str, Any] | Settings) -> Settings:
    """Return the settings of an eval; those that are parsed already are returned as they are.

    Raises
    ------
    ValueError
        If there is no such eval, or a setting cannot be used.
    """
    settings: Settings = parse(find_eval(name).settings, values, f"evaluation.evals.{name}")
    return settings


def parse_evals(evals: Mapping[str, Mapping[str, Any] | Settings]) -> dict[str, Settings]:
    """Return the settings of evals, by name; see :func:`parse_eval`."""
    return {name: parse_eval(name, values) for name, values in evals.items()}


def list_headlines(names: Iterable[str] = tuple(EVALS)) -> list[Headline]:
    """Return the numbers that stand for evals in tables and figures, in the table's order."""
    chosen = set(names)
    return [headline for name in EVALS if name in chosen for headline in find_eval(name).headlines]
