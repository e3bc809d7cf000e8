"""One site in a transformer: found by layer or by name, and read in a forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbksvd.models.loading import LoadedModel


@dataclass(frozen=True)
class HookPoint:
    """A site in a model, as PyTorch hooks it: the output of `module`, or its first input."""

    module: nn.Module
    takes_input: bool
    name: str  # such as "layer 4 (encoder.layer.3)", for messages


class _ReachedHookError(Exception):
    """Ends a forward pass when the wanted tensor is there."""


def find_hook(loaded: LoadedModel, layer: int | None, hook_module: str | None = None) -> HookPoint:
    """Find the site where activations are taken.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    layer : int or None
        As in ``hidden_states[layer]``: 0 is the embeddings, L the output of block L counted from
        1. The last one is the block's output before a final norm, where the model has one.
    hook_module : str or None
        Name of any submodule (``"encoder.layer.3.mlp"``); it goes before `layer`, which then is
        a label only.

    Raises
    ------
    ValueError
        If `layer` is out of range, none of the two is given, or no module has the name.
    """
    if hook_module is not None:
        modules = dict(loaded.model.named_modules())
        if hook_module not in modules or hook_module == "":
            close = difflib.get_close_matches(hook_module, modules, n=3)
            hint = f", close names: {', '.join(close)}" if close else ""
            raise ValueError(
                f"hook_module: expected a submodule of {type(loaded.model).__name__}, "
                f"got {hook_module!r}{hint}"
            )
        return HookPoint(modules[hook_module], takes_input=False, name=hook_module)
    if layer is None:
        raise ValueError("layer, hook_module: expected one of the two, got none")
    if not 0 <= layer <= loaded.n_layers:
        raise ValueError(f"layer: expected 0 to {loaded.n_layers}, got {layer}")
    name, blocks = _find_blocks(loaded)
    if layer == 0:
        return HookPoint(blocks[0], takes_input=True, name=f"layer 0 (input of {name}.0)")
    return HookPoint(
        blocks[layer - 1], takes_input=False, name=f"layer {layer} ({name}.{layer - 1})"
    )


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


@torch.inference_mode()
def capture_activations(
    loaded: LoadedModel, hook: HookPoint, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """Run the model up to the site `hook` and return the activations there.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    hook : HookPoint
        From :func:`find_hook`.
    input_ids, attention_mask : integer tensors of shape (batch, length)
        Tokens, padded on the right, and 1 where a token is real.

    Returns
    -------
    floating tensor of shape (batch, length, d), on the model's device.

    Raises
    ------
    ValueError
        If the module gives something else than one vector for each token.
    """
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    got = run_to_hook(loaded, hook, inputs)
    if not isinstance(got, Tensor) or got.ndim != 3 or got.shape[:2] != input_ids.shape:
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        raise ValueError(
            f"{hook.name}: expected activations of shape {(*input_ids.shape, 'd')}, got {shape}"
        )
    return got


@torch.inference_mode()
def run_to_hook(loaded: LoadedModel, hook: HookPoint, inputs: Mapping[str, Tensor]) -> Any:
    """Run the model on named inputs up to a site; return whatever it gives, None if not reached.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    hook : HookPoint
        From :func:`find_hook`.
    inputs : mapping of str to Tensor
        Arguments of the model, on any device.
    """
    captured: list[Any] = []

    def stop_at_input(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        captured.append(args[0] if args else kwargs["hidden_states"])
        raise _ReachedHookError

    def stop_at_output(_module: nn.Module, _args: Any, output: Any) -> None:
        # Layers return a bare tensor in transformers 5, a tuple before.
        captured.append(output[0] if isinstance(output, (tuple, list)) else output)
        raise _ReachedHookError

    if hook.takes_input:
        handle = hook.module.register_forward_pre_hook(stop_at_input, with_kwargs=True)
    else:
        handle = hook.module.register_forward_hook(stop_at_output)
    try:
        loaded.model(**{name: tensor.to(loaded.device) for name, tensor in inputs.items()})
    except _ReachedHookError:
        pass  # the layers behind the site are not needed
    except torch.OutOfMemoryError:
        raise
    # what a model makes of a config or an input that does not suit it
    except (RuntimeError, IndexError, TypeError, KeyError, AttributeError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
        raise ValueError(
            f"{loaded.name}: expected {type(loaded.model).__name__} to run up to {hook.name} on "
            f"{shapes}, got {type(error).__name__}: {error}"
        ) from error
    finally:
        handle.remove()
    return captured[0] if captured else None
