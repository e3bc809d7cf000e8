"""Places inside a block: TransformerLens's names for them, and their modules in each family."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dbksvd.base.site import PAIRS, RESIDUAL

# TransformerLens counts blocks from 0: our layer L is the output of its block L − 1. The name of
# the MLP's input is SAELens's for what the MLP reads, its norm applied.
HOOK_NAMES = {
    RESIDUAL: "blocks.{block}.hook_resid_post",
    "residual_before": "blocks.{block}.hook_resid_pre",
    "attention": "blocks.{block}.hook_attn_out",
    "mlp": "blocks.{block}.hook_mlp_out",
    "mlp_input": "blocks.{block}.mlp.hook_in",
}
BLOCK = "{block}"  # in a module's path: its number, from 0
# Nothing is written to the residual stream there: an atom has no effect on the logits of its own.
READ_ONLY = ("mlp_input",)
# Places of the residual stream are found in every model with a list of blocks.
IN_EVERY_MODEL = (RESIDUAL, "residual_before")


class BlockModules(NamedTuple):
    """Paths inside a block of the modules whose outputs are the places.

    What attention and MLP add to the residual stream: where a norm follows them (Gemma-2 and 3) it
    is that norm's output, as TransformerLens has it. The input of the MLP is a norm's output.
    """

    attention: str
    mlp: str
    mlp_input: str


_LLAMA = BlockModules("self_attn", "mlp", "post_attention_layernorm")
_GEMMA_2 = BlockModules(
    "post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm"
)
_BERT = BlockModules("attention.output.dense", "output.dense", "attention.output")

# By `model_type` in config.json, that of the text model where it has several parts.
FAMILIES: Mapping[str, BlockModules] = {
    "gpt2": BlockModules("attn", "mlp", "ln_2"),
    "gpt_neox": BlockModules("attention", "mlp", "post_attention_layernorm"),
    "llama": _LLAMA,  # SmolLM and SmolLM2 too
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3": _GEMMA_2,  # as a GGUF file calls it
    "gemma3_text": _GEMMA_2,
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}


def name_hook(layer: int, place: str = RESIDUAL) -> str | None:
    """Return TransformerLens's name of a place at a layer counted from 1; None where it has none.

    Examples
    --------
    >>> name_hook(15), name_hook(15, "mlp")
    ('blocks.14.hook_resid_post', 'blocks.14.hook_mlp_out')
    """
    name = HOOK_NAMES.get(place)
    return None if name is None else name.format(block=layer - 1)


def parse_hook(name: str) -> tuple[int, str] | None:
    """Return layer and place of TransformerLens's name; None for a name of no place.

    Examples
    --------
    >>> parse_hook("blocks.14.hook_mlp_out"), parse_hook("blocks.14.hook_mlp_ou")
    ((15, 'mlp'), None)
    """
    for place, hook in HOOK_NAMES.items():
        found = re.fullmatch(re.escape(hook).replace(re.escape(BLOCK), r"(\d+)"), name)
        if found:
            return int(found[1]) + 1, place
    return None


def check_place(model_type: str, place: str) -> None:
    """Check that the tables know a place, or both ends of a pair, in such a model.

    Raises
    ------
    ValueError
        As :func:`find_module`.
    """
    for end in PAIRS.get(place, (place,)) if model_type in FAMILIES else (place,):
        find_module(model_type, end)


def find_module(model_type: str, place: str) -> str:
    """Return the path inside a block of the module whose output a place is.

    Raises
    ------
    ValueError
        If the tables do not know the place of such a model.
    """
    family = FAMILIES.get(model_type)
    if place in PAIRS and family is None:
        raise ValueError(
            f"expected a model of a type that the tables know for {place}, {', '.join(FAMILIES)}, "
            f"got {model_type!r}"
        )
    if family is None or place not in BlockModules._fields:
        known = [*IN_EVERY_MODEL, *((*BlockModules._fields, *PAIRS) if family is not None else ())]
        raise ValueError(
            f"expected one of {', '.join(known)} for a model of type {model_type}, or the path of "
            f"a module in activations.modules.{place}, got {place!r}"
        )
    return str(getattr(family, place))


def list_close(name: str, names: Iterable[str]) -> str:
    """Return the names nearest to one that is not among them, as the end of a message."""
    close = difflib.get_close_matches(name, names, n=3)
    return f", close names: {', '.join(close)}" if close else ""


def list_close_places(name: str, places: Iterable[str]) -> str:
    """As :func:`list_close`, for a place; the name may resemble TransformerLens's of it.

    Examples
    --------
    >>> list_close_places("attn_out", ["attention", "mlp"])
    ', close names: attention'
    """
    words = {place: place for place in places}
    words |= {hook.partition(f"{BLOCK}.")[2]: place for place, hook in HOOK_NAMES.items()}
    close = difflib.get_close_matches(name, words, n=3)
    found = dict.fromkeys(words[word] for word in close)
    return f", close names: {', '.join(found)}" if found else ""
