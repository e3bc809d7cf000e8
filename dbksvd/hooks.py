"""One place inside a transformer: found by layer or by name, and read in a forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dbksvd.models import LoadedModel
from dbksvd.parts import record_dtype
from dbksvd.tokens import TokenizedDocument

WINDOW_BATCHES = 8


@dataclass(frozen=True)
class HookPoint:
    """A place inside a model: the output of `module`, or its first input."""

    module: nn.Module
    takes_input: bool
    name: str  # such as "layer 4 (encoder.layer.3)", for messages


class _ReachedHookError(Exception):
    """Ends a forward pass when the wanted tensor is there."""


def find_hook(loaded: LoadedModel, layer: int | None, hook_module: str | None = None) -> HookPoint:
    """Find where activations are taken.

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
    """Run the model up to `hook` and return what is there.

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
    """Run the model on named inputs up to `hook`; return whatever is there, None if not reached."""
    captured: list[Any] = []

    def stop_at_input(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        captured.append(args[0] if args else kwargs["hidden_states"])
        raise _ReachedHookError

    def stop_at_output(_module: nn.Module, _args: Any, output: Any) -> None:
        # Layers return a bare tensor in transformers 5, a tuple before.
        captured.append(output[0] if isinstance(output, tuple) else output)
        raise _ReachedHookError

    if hook.takes_input:
        handle = hook.module.register_forward_pre_hook(stop_at_input, with_kwargs=True)
    else:
        handle = hook.module.register_forward_hook(stop_at_output)
    try:
        loaded.model(**{name: tensor.to(loaded.device) for name, tensor in inputs.items()})
    except _ReachedHookError:
        pass  # the layers behind the site are not needed
    finally:
        handle.remove()
    return captured[0] if captured else None


def extract_rows(
    loaded: LoadedModel,
    hook: HookPoint,
    documents: list[TokenizedDocument],
    batch_size: int,
    dtype: str,
) -> Iterator[np.ndarray]:
    """Yield the records of the kept tokens, in the order of the documents.

    Inside a window of a few batches, documents are batched by length, which saves padding; the
    order is restored before the window is given out.

    Parameters
    ----------
    loaded, hook
        Model and place.
    documents : list of TokenizedDocument
        What to run.
    batch_size : int
        Documents in a forward pass.
    dtype : {"float32", "float16"}
        Type of the activations given out.

    Yields
    ------
    array of :func:`dbksvd.parts.record_dtype`, one record a kept token

    Raises
    ------
    ValueError
        If an activation is NaN, infinite, or too large for `dtype`.
    """
    window = WINDOW_BATCHES * batch_size
    for first in range(0, len(documents), window):
        chunk = documents[first : first + window]
        order = sorted(range(len(chunk)), key=lambda position: len(chunk[position].ids))
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            output = _run(loaded, hook, [chunk[position].ids for position in batch])
            for row, position in enumerate(batch):
                document = chunk[position]
                found[position] = make_records(
                    output[row, document.kept],
                    {
                        "document": document.index,
                        "position": document.kept,
                        "token": document.ids[document.kept],
                    },
                    f"document {document.index} at {hook.name}",
                    dtype,
                )
        yield np.concatenate([found[position] for position in range(len(chunk))])


def _run(loaded: LoadedModel, hook: HookPoint, sequences: list[np.ndarray]) -> torch.Tensor:
    """Run padded sequences; any valid id will do as padding, because the mask hides it."""
    length = max(map(len, sequences))
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence)
        mask[row, : len(sequence)] = 1
    return capture_activations(loaded, hook, ids, mask).float().cpu()


def make_records(
    activations: Tensor, labels: Mapping[str, np.ndarray | int], where: str, dtype: str
) -> np.ndarray:
    """Return rows (n, d) with their labels as records (:func:`dbksvd.parts.record_dtype`).

    Raises
    ------
    ValueError
        If a value is NaN, infinite, or too large for `dtype`; the message names `where`.
    """
    records = np.empty(len(activations), record_dtype(activations.shape[1], dtype))
    with np.errstate(over="ignore"):  # found by the check below, with a better message
        records["activations"] = activations.numpy()
    if not np.isfinite(records["activations"]).all():
        raise ValueError(
            f"activations: expected finite {dtype} values, got NaN or infinity in {where}"
        )
    for name, values in labels.items():
        records[name] = values
    return records
