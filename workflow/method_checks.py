"""What a config says of its methods: where they begin, which sizes they take, what is unused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbksvd.base.settings import SettingsError, show, suggest
from dbksvd.base.site import RESIDUAL
from dbksvd.fit.baselines.pretrained import find_layer
from dbksvd.fit.registry import find_method
from dbksvd.models.sizes import find_kind

if TYPE_CHECKING:
    from workflow.config import ExperimentConfig


def check_unused(name: str, settings: Any) -> None:
    """Refuse keys of a method that its other keys leave without effect.

    Raises
    ------
    SettingsError
        With a line for each; a key that states its default is accepted.
    """
    fields = type(settings).model_fields
    problems = [
        f"methods.{name}.{key}: no effect without {needed}, got {show(getattr(settings, key))}"
        for key, needed in find_method(settings.algorithm).find_unused(settings).items()
        if key in settings.model_fields_set and getattr(settings, key) != fields[key].default
    ]
    if problems:
        raise SettingsError(*problems)


def check_published(name: str, config: ExperimentConfig) -> None:
    """Check that a published SAE is for the one layer there is, as far as is known of it."""
    activations, settings = config.activations, config.methods[name]
    layers = getattr(activations, "layers", [])
    hook_module = getattr(activations, "hook_module", None)
    is_residual = getattr(activations, "sites", [RESIDUAL]) == [RESIDUAL]
    if settings.algorithm != "pretrained" or hook_module is not None or not is_residual:
        return
    try:
        layer = find_layer(settings)
    except ValueError as error:
        raise SettingsError(f"methods.{name}.{error}") from error
    if layer is not None and layers and layers != [layer]:
        raise SettingsError(
            f"methods.{name}: expected activations.layers: [{layer}] for an SAE of this place "
            f"(SAELens counts blocks from 0, layers count them from 1), got {layers}"
        )


def check_model(name: str, config: ExperimentConfig) -> None:
    """Check that a method which runs the model finds a causal one, and sites to splice into."""
    activations, settings = config.activations, config.methods[name]
    if not find_method(settings.algorithm).needs_model:
        return
    if activations.source != "model":
        raise SettingsError(
            f"methods.{name}: expected activations.source: model for {settings.algorithm}, which "
            f"runs the model, got {activations.source}"
        )
    if config.model is not None and find_kind(config.model) == "encoder":
        raise SettingsError(
            f"methods.{name}: expected a causal language model for {settings.algorithm}, got "
            f"{config.model.shown_name}, an encoder without a language-model head"
        )
    if activations.sites != [RESIDUAL] or activations.hook_module or 0 in activations.layers:
        raise SettingsError(
            f"methods.{name}: expected the residual stream behind blocks for "
            f"{settings.algorithm}, got {_tell_place(activations)}"
        )


def _tell_place(activations: Any) -> str:
    if activations.hook_module:
        return f"activations.hook_module: {activations.hook_module}"
    if activations.sites != [RESIDUAL]:
        return f"activations.sites: {activations.sites}"
    return f"activations.layers: {activations.layers}"


def check_base(name: str, methods: dict[str, Any]) -> None:
    """Check that a method which begins from another's fit names one, and not in a circle."""
    settings = methods[name]
    seen, found = [name], find_method(settings.algorithm).find_base(settings)
    while found is not None:
        base, where = found.method, f"methods.{seen[-1]}.{found.key}"
        if base not in methods:
            raise SettingsError(
                f"{where}: expected a name from methods{suggest(base, methods)}, got {base!r}"
            )
        if base in seen:
            raise SettingsError(
                f"{where}: expected a method that does not begin from this one, got {base!r}"
            )
        if find_method(methods[base].algorithm).takes_pairs(methods[base]):
            raise SettingsError(
                f"{where}: expected a method that reconstructs what it encodes, got {base!r}"
            )
        seen.append(base)
        found = find_method(methods[base].algorithm).find_base(methods[base])
    if len(seen) > 1:
        try:
            find_method(settings.algorithm).check_base(settings, methods[seen[1]])
        except ValueError as error:
            raise SettingsError(f"methods.{name}.{error}") from error


def check_sizes(settings: Any, n_atoms: int, k: int, where: str, grid: str) -> None:
    """Check a method against the sizes of one of its fits: experts, heads, groups.

    Parameters
    ----------
    settings : Settings
        Of the method.
    n_atoms, k : int
        Sizes of the fit.
    where, grid : str
        Where the method and the grid stand in the config.

    Raises
    ------
    SettingsError
        If they do not fit; the message names a key of the method or of the grid.
    """
    try:
        find_method(settings.algorithm).check_sizes(settings, n_atoms, k)
    except ValueError as error:
        message = str(error)
        place = grid if message.startswith(("k:", "n_atoms:")) else where
        raise SettingsError(f"{place}.{message}") from error
