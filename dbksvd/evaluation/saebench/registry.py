"""The evals: a name in the config, its module, what it reads, which models it cannot run on.

Light to import: the check of a config needs neither torch nor SAEBench. Modules are imported when
their eval is used, so a rule depends on the sources of its own evals only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbksvd.models.sizes import ModelKind, find_kind

# sae-probes carries one set per class; its "rest" looks like source code, so class 3 is missing.
AG_NEWS_SOURCES = ("161_agnews_0", "162_agnews_1", "163_agnews_2")
# Reviews of films and of products, each of them positive and negative.
CROSSED_SOURCES = ("113_movie_sent", "157_amazon_5star")
# Values of the setting ``data``: texts that sae-probes carries, or those of SAEBench, on the hub.
BUNDLED, HUB = "bundled", "hub"
# Evals of SAEBench that this workflow does not run, and why.
REFUSED = {
    "unlearning": "expected an experiment without it: it needs google/gemma-2-2b-it on a GPU and "
    "WMDP-bio, which the hub gives out on request only; score the dictionary folders with "
    "SAEBench's own command"
}

# SAEBench's own, under its own names; it reads classes of one data set as three.
_AMAZON = "canrager/amazon_reviews_mcauley_1and5"
_CROSSED = ("LabHC/bias_in_bios_class_set1", _AMAZON)
_LABELLED = (
    *(f"LabHC/bias_in_bios_class_set{number}" for number in (1, 2, 3)),
    _AMAZON,
    f"{_AMAZON}_sentiment",
    "codeparrot/github-code",
    "fancyzhx/ag_news",
    "Helsinki-NLP/europarl",
)

_STREAMED = ("codeparrot/github-code", "Helsinki-NLP/europarl")

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
    hub : tuple of str
        Data sets of the hub that SAEBench reads; empty where it reads none. With ``data: hub`` the
        setting ``datasets`` chooses among them, or, where they are plain text, others.
    not_for_encoders : str
        Why an encoder cannot be scored; empty where it can.
    """

    module: str
    datasets: Callable[[Settings], list[str]] = _read_setting
    not_for_encoders: str = ""
    hub: tuple[str, ...] = ()


EVALS = {
    "core": EvalEntry("dbksvd.evaluation.saebench.evals.core", hub=("Skylion007/openwebtext",)),
    "sparse_probing_sae_probes": EvalEntry("dbksvd.evaluation.saebench.evals.sae_probes"),
    "sparse_probing": EvalEntry(
        "dbksvd.evaluation.saebench.evals.sparse_probing", _read_news, hub=_LABELLED
    ),
    "tpp": EvalEntry("dbksvd.evaluation.saebench.evals.tpp", _read_news, hub=_CROSSED),
    "scr": EvalEntry("dbksvd.evaluation.saebench.evals.scr", _read_crossed, hub=_CROSSED),
    "mdl": EvalEntry("dbksvd.evaluation.saebench.evals.mdl", hub=("HuggingFaceFW/fineweb",)),
    "meta_structure": EvalEntry("dbksvd.evaluation.saebench.evals.meta_structure"),
    "autointerp": EvalEntry(
        "dbksvd.evaluation.saebench.evals.autointerp", hub=("monology/pile-uncopyrighted",)
    ),
    "token_matching": EvalEntry(
        "dbksvd.evaluation.saebench.evals.token_matching", hub=("monology/pile-uncopyrighted",)
    ),
    "absorption": EvalEntry(
        "dbksvd.evaluation.saebench.evals.absorption",
        not_for_encoders="its prompts are made for a model that reads from left to right",
    ),
    "ravel": EvalEntry(
        "dbksvd.evaluation.saebench.evals.ravel",
        not_for_encoders="it lets the model continue prompts, which needs a language-model head",
        hub=("adamkarvonen/ravel_prompts",),
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
    return sorted(
        {
            name
            for key, own in settings.items()
            if not reads_hub(own)
            for name in find_eval(key).datasets(own)
        }
    )


def reads_hub(settings: Settings) -> bool:
    """Whether an eval reads SAEBench's own data sets from the hub."""
    return settings.get("data") == HUB


def list_hub_reads(evals: Mapping[str, Settings]) -> list[dict[str, Any]]:
    """Return what evals (name to settings) read from the hub.

    Returns
    -------
    list of dict
        ``key`` of the config, ``name`` of the repository, and whether it is read by ``streaming``,
        without a copy on disk.
    """
    reads = {}
    for key, settings in evals.items():
        for name in list_hub_names(key, settings):
            repository = name.split("_class_set")[0].removesuffix("_sentiment")
            reads[key, repository] = {
                "key": f"evaluation.evals.{key}",
                "name": repository,
                "streaming": name not in _LABELLED or name in _STREAMED,
            }
    return list(reads.values())


def list_hub_names(name: str, settings: Settings) -> list[str]:
    """Return the data sets of the hub that an eval reads, by SAEBench's names."""
    return list(settings.get("datasets") or find_eval(name).hub) if reads_hub(settings) else []


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
        _check_data(name, settings)


def _check_data(name: str, settings: Settings) -> None:
    where = f"evaluation.evals.{name}"
    if name == "ravel":
        if not reads_hub(settings) and not (Path(settings["data"]) / "base").is_dir():
            raise ValueError(
                f"{where}.data: expected {HUB!r} or a folder with RAVEL's files in base/, "
                f"found none at {settings['data']}"
            )
    elif find_eval(name).datasets is not _read_setting:  # SAEBench knows the labels of its own
        known = find_eval(name).hub if reads_hub(settings) else ()
        for dataset in settings.get("datasets", ()):
            if dataset not in known:
                choice = f"some of {', '.join(known)}" if known else f"none without data: {HUB}"
                raise ValueError(f"{where}.datasets: expected {choice}, got {dataset!r}")


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
