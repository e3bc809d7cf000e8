"""Sites in a transformer: found by layer and place or by name, and read in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dbksvd.base.site import PAIRS, RESIDUAL
from dbksvd.models.families import check_place, find_module, list_close
from dbksvd.models.loading import LoadedModel


@dataclass(frozen=True)
class HookPoint:
    """A site in a model, as PyTorch hooks it: the output of `module`, or its first input.

    `target` is the second end of a pair of places: its activations stand behind those of the first.
    """

    module: nn.Module
    takes_input: bool
    name: str  # such as "layer 4 (encoder.layer.3)", for messages
    target: HookPoint | None = None

    @property
    def ends(self) -> tuple[HookPoint, ...]:
        """The tensors that are read: one, or the two of a pair."""
        return (self,) if self.target is None else (self, self.target)


class _ReachedHookError(Exception):
    """Ends a forward pass when the wanted tensor is there."""


def find_hook(
    loaded: LoadedModel, layer: int | None, hook_module: str | None = None, place: str = RESIDUAL
) -> HookPoint:
    """Find the site where activations are taken.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    layer : int or None
        As in ``hidden_states[layer]``: 0 is the embeddings, L the output of block L counted from
        1. The last one is the block's output before a final norm, where the model has one.
    hook_module : str or None
        Name of any submodule (``"encoder.layer.3.mlp"``); it goes before `layer` and `place`, which
        then are labels only.
    place : str
        Where in block `layer`, by a name of :data:`dbksvd.models.families.HOOK_NAMES`, or a pair of
        them (:data:`dbksvd.base.site.PAIRS`); the default is the block's output.

    Raises
    ------
    ValueError
        If `layer` is out of range, neither it nor `hook_module` is given, no module has the name,
        or the model has no such place.
    """
    if hook_module is not None:
        modules = dict(loaded.model.named_modules())
        if hook_module not in modules or hook_module == "":
            raise ValueError(
                f"hook_module: expected a submodule of {type(loaded.model).__name__}, "
                f"got {hook_module!r}{list_close(hook_module, modules)}"
            )
        return HookPoint(modules[hook_module], takes_input=False, name=hook_module)
    if layer is None:
        raise ValueError("layer, hook_module: expected one of the two, got none")
    first = 0 if place == RESIDUAL else 1
    if not first <= layer <= loaded.n_layers:
        where = "" if place == RESIDUAL else f" for {place}"
        raise ValueError(f"layer: expected {first} to {loaded.n_layers}{where}, got {layer}")
    name, blocks = _find_blocks(loaded)
    if layer == 0:
        return HookPoint(blocks[0], takes_input=True, name=f"layer 0 (input of {name}.0)")
    block, name = blocks[layer - 1], f"{name}.{layer - 1}"
    if place in PAIRS:
        return _find_pair(loaded, block, name, place, layer)
    if place == RESIDUAL:
        return HookPoint(block, takes_input=False, name=f"layer {layer} ({name})")
    where = f"{place} of layer {layer}"
    if place == "residual_before":
        return HookPoint(block, takes_input=True, name=f"{where} (input of {name})")
    return _find_inside(loaded, block, name, place, where)


def _find_pair(
    loaded: LoadedModel, block: nn.Module, name: str, place: str, layer: int
) -> HookPoint:
    """Return the hook of two places whose rows stand side by side."""
    try:
        check_place(loaded.model.config.get_text_config().model_type, place)
    except ValueError as error:
        raise ValueError(f"activations.sites: {error}") from error
    source, target = (
        _find_inside(loaded, block, name, end, f"{end} of layer {layer}") for end in PAIRS[place]
    )
    return replace(source, target=target)


def _find_inside(
    loaded: LoadedModel, block: nn.Module, name: str, place: str, where: str
) -> HookPoint:
    """Return the hook of a place inside a block, by the table of the model's family."""
    try:
        path = find_module(loaded.model.config.get_text_config().model_type, place)
    except ValueError as error:
        raise ValueError(f"activations.sites: {error}") from error
    modules = dict(block.named_modules())
    if path not in modules:
        inside = ", ".join(child for child, _ in block.named_children())
        raise ValueError(
            f"activations.sites: expected the module {name}.{path} for {where}, found {inside} in "
            f"{name}; name the module in activations.modules.{place}"
        )
    return HookPoint(modules[path], takes_input=False, name=f"{where} ({name}.{path})")


def _find_blocks(loaded: LoadedModel) -> tuple[str, nn.ModuleList]:
    """Return the outermost module list with one entry for each layer."""
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in loaded.model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and len(module) == loaded.n_layers and not inside:
            found.append((name, module))
    if len(found) != 1:
        raise ValueError(
            f"layer: expected one list of {loaded.n_layers} blocks in the model, found "
            f"{[name for name, _ in found]}; name the module with hook_module"
        )
    return found[0]


def capture_activations(
    loaded: LoadedModel, hook: HookPoint, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """Run the model up to one site and return the activations there; see :func:`capture_sites`."""
    return capture_sites(loaded, [hook], input_ids, attention_mask)[0]


def capture_sites(
    loaded: LoadedModel, hooks: Sequence[HookPoint], input_ids: Tensor, attention_mask: Tensor
) -> list[Tensor]:
    """Run the model once, until it has reached all sites, and return the activations there.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    hooks : sequence of HookPoint
        From :func:`find_hook`.
    input_ids, attention_mask : integer tensors of shape (batch, length)
        Tokens, padded on the right, and 1 where a token is real.

    Returns
    -------
    list of floating tensors of shape (batch, length, d), one a site, on the model's device. At a
    pair, d is the sum of both widths.

    Raises
    ------
    ValueError
        If a module gives something else than one vector for each token.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    ends = [end for hook in hooks for end in hook.ends]
    found = run_to_hooks(loaded, ends, inputs)
    for hook, got in zip(ends, found, strict=True):
        if not isinstance(got, Tensor) or got.ndim != 3 or got.shape[:2] != input_ids.shape:
            shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(
                f"{hook.name}: expected activations of shape {(*input_ids.shape, 'd')}, got {shape}"
            )
    tensors = iter(found)
    return [
        next(tensors) if hook.target is None else torch.cat([next(tensors), next(tensors)], dim=-1)
        for hook in hooks
    ]


def run_to_hook(loaded: LoadedModel, hook: HookPoint, inputs: Mapping[str, Tensor]) -> Any:
    """Run the model on named inputs up to a site; see :func:`run_to_hooks`."""
    return run_to_hooks(loaded, [hook], inputs)[0]


@torch.inference_mode()
def run_to_hooks(
    loaded: LoadedModel, hooks: Sequence[HookPoint], inputs: Mapping[str, Tensor]
) -> list[Any]:
    """Run the model on named inputs until all sites are reached; return whatever they give.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    hooks : sequence of HookPoint
        From :func:`find_hook`; at least one.
    inputs : mapping of str to Tensor
        Arguments of the model, on any device.

    Returns
    -------
    list
        One entry a site, in the order of `hooks`; None for one that is not reached.
    """
    captured: dict[int, Any] = {}

    def keep(position: int, value: Any) -> None:
        # Layers return a bare tensor in transformers 5, a tuple before.
        value = value[0] if isinstance(value, (tuple, list)) else value
        if position not in captured and len(captured) < len(hooks) - 1:
            # the model goes on, and may write into it
            value = value.clone() if isinstance(value, Tensor) else value
        captured.setdefault(position, value)
        if len(captured) == len(hooks):
            raise _ReachedHookError

    handles = [_register(hook, keep, position) for position, hook in enumerate(hooks)]
    try:
        loaded.model(**{name: tensor.to(loaded.device) for name, tensor in inputs.items()})
    except _ReachedHookError:
        pass  # the layers behind the sites are not needed
    except torch.OutOfMemoryError:
        raise
    # what a model makes of a config or an input that does not suit it
    except (RuntimeError, IndexError, TypeError, KeyError, AttributeError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
        raise ValueError(
            f"{loaded.name}: expected {type(loaded.model).__name__} to run up to "
            f"{' and '.join(hook.name for hook in hooks)} on {shapes}, got "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [captured.get(position) for position in range(len(hooks))]


def _register(hook: HookPoint, keep: Callable[[int, Any], None], position: int) -> Any:
    """Let a module tell its input or output to `keep`, with the position of its site."""
    if hook.takes_input:

        def tell_input(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            keep(position, args[0] if args else kwargs["hidden_states"])

        return hook.module.register_forward_pre_hook(tell_input, with_kwargs=True)
    return hook.module.register_forward_hook(lambda _module, _args, out: keep(position, out))
