"""What a config is checked for by the entries of its evals. Torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbksvd.base.settings import Settings
from dbksvd.base.site import PAIRS, RESIDUAL
from dbksvd.evaluation.saebench.data.names import find_repository, is_streamed
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.models.sizes import ModelKind


def list_datasets(evals: Mapping[str, Settings]) -> list[str]:
    """Return the bundled data sets that evals (name to settings) read: hold them out of fitting."""
    return sorted({each for name, own in evals.items() for each in find_eval(name).datasets(own)})


def list_hub_reads(evals: Mapping[str, Settings]) -> list[dict[str, Any]]:
    """Return what evals (name to settings) read from the hub.

    Returns
    -------
    list of dict
        ``key`` of the config, ``name`` of the repository, and whether it is read by ``streaming``,
        without a copy on disk.
    """
    reads = {}
    for name, settings in evals.items():
        for data_set in find_eval(name).hub(settings):
            repository = find_repository(data_set)
            reads[name, repository] = {
                "key": f"evaluation.evals.{name}",
                "name": repository,
                "streaming": is_streamed(data_set),
            }
    return list(reads.values())


def list_keys(evals: Mapping[str, Settings]) -> list[dict[str, str]]:
    """Return the keys that evals (name to settings) take from the environment.

    Returns
    -------
    list of dict
        Arguments of :func:`dbksvd.models.access.check_key`: ``variable`` of the environment,
        ``key`` of the config that names it, and ``url`` it is for.
    """
    return [
        {
            "variable": found.variable,
            "key": f"evaluation.evals.{name}.{found.setting}",
            "url": found.url,
        }
        for name, settings in evals.items()
        for found in find_eval(name).keys(settings)
    ]


def check_context(name: str, settings: Settings, most: int | None, model: str) -> None:
    """Check that a model has positions for the texts of an eval.

    Parameters
    ----------
    name : str
        The eval.
    settings : Settings
        Its settings; some have no ``context_length``.
    most : int or None
        Positions of the model; None where they are not known or not limited.
    model : str
        Its name, for messages.

    Raises
    ------
    ValueError
        If the texts may be longer.
    """
    length = getattr(settings, "context_length", None)
    if most is not None and length is not None and length > most:
        raise ValueError(
            f"evaluation.evals.{name}.context_length: expected at most {most}, the positions of "
            f"{model}, got {length}"
        )


def scores_place(name: str, place: str) -> bool:
    """Say whether an eval means something for dictionaries of a place (base.site)."""
    return place == RESIDUAL or (place not in PAIRS and find_eval(name).scores_places)


def check_eval_place(name: str, place: str) -> None:
    """Refuse an eval at a place where its numbers would mean nothing.

    Raises
    ------
    ValueError
        If it does not score dictionaries of the place.
    """
    if not scores_place(name, place):
        raise ValueError(
            f"evaluation.evals.{name}: expected the place {RESIDUAL}, where alone it can score a "
            f"dictionary, got {place}"
        )


def check_evals(evals: Mapping[str, Settings], kind: ModelKind | None) -> None:
    """Refuse evals that cannot run on a model, before anything long starts.

    Parameters
    ----------
    evals : mapping of str to Settings
        Settings of each eval, by name.
    kind : {"causal", "encoder"} or None
        What the model is; None where only loading it can tell.

    Raises
    ------
    ValueError
        For the first eval that cannot run, with the reason.
    """
    for name, settings in evals.items():
        check_eval(name, settings, kind)


def check_eval(name: str, settings: Settings, kind: ModelKind | None) -> None:
    """Refuse an eval that cannot run on a kind of model (None: not known yet).

    Raises
    ------
    ValueError
        With the reason.
    """
    entry, where = find_eval(name), f"evaluation.evals.{name}"
    if entry.refusal:
        raise ValueError(f"{where}: {entry.refusal}")
    if kind == "encoder" and entry.not_for_encoders:
        raise ValueError(
            f"{where}: expected a causal language model, got an encoder: {entry.not_for_encoders}"
        )
    try:
        entry.check(settings, kind)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error
