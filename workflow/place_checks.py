"""What a config says of places in the model, against what the model is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbksvd.activations.site_settings import LayerSettings
from dbksvd.base.settings import SettingsError
from dbksvd.base.settings_errors import Problems
from dbksvd.base.site import RESIDUAL
from dbksvd.evaluation.saebench.checks import scores_place
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.models.families import IN_EVERY_MODEL, check_place


def check_places(activations: Any, model_type: str | None) -> None:
    """Check that the model has the places, as far as its files tell of what type it is.

    Parameters
    ----------
    activations : settings
        Section ``activations`` of a config.
    model_type : str or None
        Type of the model; None where it is not known yet.

    Raises
    ------
    SettingsError
        With a line for each place that it has not, or that ``hook_module`` leaves without effect.
    """
    if not isinstance(activations, LayerSettings):
        return
    hook_module = getattr(activations, "hook_module", None)
    if hook_module is not None and (len(activations.layers) > 1 or activations.sites != [RESIDUAL]):
        key = "layers" if len(activations.layers) > 1 else "sites"
        raise SettingsError(
            f"activations.{key}: expected one beside activations.hook_module, for which the number "
            f"of the layer is a label only, got {getattr(activations, key)}"
        )
    problems = Problems()
    for position, place in enumerate(activations.sites):
        if model_type is not None and place not in (*IN_EVERY_MODEL, *activations.modules):
            problems.catch(_check_place, f"activations.sites[{position}]", model_type, place)
    problems.tell()


def check_eval_places(activations: Any, evals: Iterable[str]) -> None:
    """Check that each eval can score the dictionaries of a site.

    Parameters
    ----------
    activations : settings
        Section ``activations`` of a config.
    evals : iterable of str
        Evals that the config asks for, those of known features left out.

    Raises
    ------
    SettingsError
        With a line for each that cannot: it would be run nowhere, or read another place.
    """
    hook_module, names = getattr(activations, "hook_module", None), list(evals)
    if not isinstance(activations, LayerSettings) or not names:
        return
    if hook_module is not None:
        raise SettingsError(
            "evaluation.evals: expected {} beside activations.hook_module, since evals read places "
            f"of activations.sites, got {', '.join(names)}"
        )
    own = [place for place in activations.sites if place not in activations.modules]
    anywhere = "a place of the tables"
    problems = [
        f"evaluation.evals.{name}: expected "
        f"{anywhere if find_eval(name).scores_places else RESIDUAL} in activations.sites, whose "
        f"dictionaries it can score, got {activations.sites}"
        for name in names
        if not any(scores_place(name, place) for place in own)
    ]
    if problems:
        raise SettingsError(*problems)


def _check_place(where: str, model_type: str, place: str) -> None:
    try:
        check_place(model_type, place)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
