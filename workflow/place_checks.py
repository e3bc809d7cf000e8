"""What a config says of places in the model, against what the model is."""

from __future__ import annotations

from typing import Any

from dbksvd.activations.site_settings import LayerSettings
from dbksvd.base.settings import SettingsError
from dbksvd.base.settings_errors import Problems
from dbksvd.base.site import RESIDUAL
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


def _check_place(where: str, model_type: str, place: str) -> None:
    try:
        check_place(model_type, place)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
