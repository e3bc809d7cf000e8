"""Few-shot prompts that ask a language model for an attribute of an entity, as token ids."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A prompt that ends where the model is to name the attribute.

    Parameters
    ----------
    entity : str
        Whom it asks about.
    ids : tuple of int
        Tokens of examples and question.
    position : int
        The last token of the entity in the question, from 0.
    answer : int
        First token of the right answer.
    """

    entity: str
    ids: tuple[int, ...]
    position: int
    answer: int


def choose_examples(
    entities: Mapping[str, Mapping[str, str]], attributes: Sequence[str], count: int, seed: int
) -> list[str]:
    """Return entities whose answers are shown, with as many different answers as there are.

    Parameters
    ----------
    entities : mapping of str to mapping of str to str
        Label of each attribute, by entity.
    attributes : sequence of str
        What is asked for.
    count : int
        How many are shown.
    seed : int
        Decides between those that are as good.
    """
    waiting = sorted(entities)
    random.Random(seed).shuffle(waiting)
    chosen: list[str] = []
    for _ in range(min(count, len(waiting))):
        seen = {(name, entities[entity][name]) for entity in chosen for name in attributes}
        best = max(
            waiting,
            key=lambda entity: sum(
                (name, entities[entity][name]) not in seen for name in attributes
            ),
        )
        waiting.remove(best)
        chosen.append(best)
    return chosen


def write_prompts(
    tokenizer: Any,
    template: str,
    labels: Mapping[str, str],
    examples: Sequence[str],
) -> list[Prompt]:
    """Return the prompts of one template for all entities that are no examples.

    An entity is left out where the prompt's tokens change as the answer follows.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        One that knows the place of its tokens in the text (a fast one).
    template : str
        Question with ``%s`` for the entity, such as ``"%s lies in the country of"``.
    labels : mapping of str to str
        The right answer, by entity.
    examples : sequence of str
        Entities of `labels` that are shown with their answers before the question.

    Raises
    ------
    ValueError
        If the template has no place for the entity, or the tokenizer does not know the places of
        its tokens.
    """
    if template.count("%s") != 1:
        raise ValueError(f"prompts: expected one %s for the entity, got {template!r}")
    if not tokenizer.is_fast:
        raise ValueError("model: expected a tokenizer that knows the places of its tokens")
    shown = "".join(f"{template.replace('%s', each)} {labels[each]}.\n" for each in examples)
    before = len(shown) + template.index("%s")
    prompts = []
    for entity in labels:
        if entity in examples:
            continue
        text = shown + template.replace("%s", entity)
        asked = tokenizer(text, return_offsets_mapping=True)
        ids, end = asked["input_ids"], before + len(entity)
        answered = tokenizer(f"{text} {labels[entity]}")["input_ids"]
        if answered[: len(ids)] != ids or len(answered) == len(ids):
            continue
        position = max(
            place for place, (start, _) in enumerate(asked["offset_mapping"]) if start < end
        )
        prompts.append(Prompt(entity, tuple(ids), position, answered[len(ids)]))
    return prompts


def count_shared(prompts: Sequence[Prompt]) -> int:
    """Return how many first tokens all prompts share, the entity's last token not among them."""
    shared = min(prompt.position for prompt in prompts)
    first = prompts[0].ids
    for prompt in prompts[1:]:
        while prompt.ids[:shared] != first[:shared]:
            shared -= 1
    return shared
