"""The evals: a name in the config, its module, what it reads, which models it cannot run on.

Light to import: the check of a config needs neither torch nor SAEBench. Modules are imported when
their eval is used, so a rule depends on the sources of its own evals only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbksvd.model_files import ModelKind, find_kind

# sae-probes carries one set per class; its "rest" looks like source code, so class 3 is missing.
AG_NEWS_SOURCES = ("161_agnews_0", "162_agnews_1", "163_agnews_2")
# Reviews of films and of products, each of them positive and negative.
CROSSED_SOURCES = ("113_movie_sent", "157_amazon_5star")
# Evals of SAEBench that this workflow does not run, and why.
REFUSED = {
    "unlearning": "expected an experiment without it: it needs google/gemma-2-2b-it on a GPU and "
    "WMDP-bio, which the hub gives out on request only; score the dictionary folders with "
    "SAEBench's own command"
}

Settings = Mapping[str, Any]


def _read_setting(settings: Settings) -> list[str]:
    return list(settings.get("datasets", ()))


def _read_news(_settings: Settings) -> list[str]:
    return list(AG_NEWS_SOURCES)


def _read_crossed(_settings: Settings) -> list[str]:
    return list(CROSSED_SOURCES)


@dataclass(frozen=True)
class EvalEntry:
    """One eval.

    Parameters
    ----------
    module : str
        It offers ``prepare(loaded, site, settings, folder)`` and ``run(task)``.
    datasets : callable
        ``datasets(settings)`` lists the bundled data sets it reads.
    not_for_encoders : str
        Why an encoder cannot be scored; empty where it can.
    """

    module: str
    datasets: Callable[[Settings], list[str]] = _read_setting
    not_for_encoders: str = ""


EVALS = {
    "core": EvalEntry("dbksvd.saebench.core"),
    "sparse_probing_sae_probes": EvalEntry("dbksvd.saebench.sae_probes"),
    "sparse_probing": EvalEntry("dbksvd.saebench.sparse_probing", _read_news),
    "tpp": EvalEntry("dbksvd.saebench.tpp", _read_news),
    "scr": EvalEntry("dbksvd.saebench.scr", _read_crossed),
    "mdl": EvalEntry("dbksvd.saebench.mdl"),
    "meta_structure": EvalEntry("dbksvd.saebench.meta_structure"),
    "autointerp": EvalEntry("dbksvd.saebench.autointerp"),
    "token_matching": EvalEntry("dbksvd.saebench.token_matching"),
    "absorption": EvalEntry(
        "dbksvd.saebench.absorption",
        not_for_encoders="its prompts are made for a model that reads from left to right",
    ),
    "ravel": EvalEntry(
        "dbksvd.saebench.ravel",
        not_for_encoders="it lets the model continue prompts, which needs a language-model head",
    ),
}


def find_eval(name: str) -> EvalEntry:
    """Return the eval called `name`.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    if name not in EVALS:
        raise ValueError(f"evals: expected some of {sorted(EVALS)}, got {name!r}")
    return EVALS[name]


def list_datasets(settings: Mapping[str, Settings]) -> list[str]:
    """Return the bundled data sets that evals (name to settings) read: hold them out of fitting."""
    return sorted({name for key in settings for name in find_eval(key).datasets(settings[key])})


def check_evals(evals: Mapping[str, Settings], model: Settings) -> None:
    """Refuse evals that cannot run on a model, before anything long starts.

    Parameters
    ----------
    evals : mapping of str to mapping
        Settings of each eval, by name.
    model : mapping
        Section ``model`` of the config.

    Raises
    ------
    ValueError
        For the first eval that cannot run, with the reason.
    """
    kind = find_kind(model)
    for name, settings in evals.items():
        if name in REFUSED:
            raise ValueError(f"evaluation.evals.{name}: {REFUSED[name]}")
        check_kind(name, settings, kind)
        if name == "autointerp":
            variable = settings["judge"]["key_variable"]
            if not os.environ.get(variable):
                raise ValueError(
                    f"evaluation.evals.autointerp: expected the key of {settings['judge']['url']} "
                    f"in the environment variable {variable}, which is not set"
                )
        if name == "ravel" and not (Path(settings["data"]) / "base").is_dir():
            raise ValueError(
                "evaluation.evals.ravel.data: expected a folder with RAVEL's files in base/, "
                f"found none at {settings['data']}"
            )


def check_kind(name: str, settings: Settings, kind: ModelKind | None) -> None:
    """Refuse an eval for a kind of model (None: not known yet, nothing is refused).

    Raises
    ------
    ValueError
        With the reason.
    """
    entry = find_eval(name)
    if kind != "encoder":
        return
    if entry.not_for_encoders:
        raise ValueError(
            f"evaluation.evals.{name}: expected a causal language model, got an encoder: "
            f"{entry.not_for_encoders}"
        )
    if settings.get("ce_loss"):
        raise ValueError(
            f"evaluation.evals.{name}.ce_loss: expected a causal language model, got an encoder, "
            "which has no language-model head and so no CE loss"
        )
