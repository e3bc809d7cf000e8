"""What a language model knows of entities: the prompts that it answers right, recorded once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.base.files import read_json, write_json
from dbksvd.evaluation.facts.blocks import CutModel, Recorded
from dbksvd.evaluation.facts.prompts import choose_examples, write_prompts

RECORD_FILE, FACTS_FILE = "record.safetensors", "facts.json"
NEEDED = 20  # entities that the model must know
_PARTS = ("shared", "ids", "lengths", "positions", "answers", "activations")


@dataclass(frozen=True)
class Known:
    """What a model knows, split by entity.

    Parameters
    ----------
    prompts : dict of str to Recorded
        For each attribute, the prompts of all known entities, in the same order.
    train, test : list of int
        Places of the entities that masks are trained and tested on.
    """

    prompts: dict[str, Recorded]
    train: list[int]
    test: list[int]


def record_known(
    cut: CutModel,
    tokenizer: Any,
    entities: Mapping[str, Mapping[str, str]],
    templates: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    shots: int,
    train_fraction: float,
    seed: int,
    norm_limit: float | None = None,
) -> str:
    """Ask the model for each attribute of all entities; write what it knows.

    Of each attribute's templates the one that it answers right most often is kept. An entity is
    known if all attributes are answered right by their first token, and its activation at the site
    is within the norm limit.

    Parameters
    ----------
    cut : CutModel
        The model and the site.
    tokenizer : transformers tokenizer
        The model's.
    entities : mapping of str to mapping of str to str
        Label of each attribute, by entity.
    templates : mapping of str to sequence of str
        Questions that ask for each attribute, with ``%s`` for the entity.
    folder : path
        Where `FACTS_FILE` goes, and `RECORD_FILE` where the model knows enough.
    shots : int
        Entities whose answers are shown before a question; they are not asked for.
    train_fraction : float
        Part of the known entities that masks are trained on.
    seed : int
        Decides the examples and the split.
    norm_limit : float, optional
        Largest norm that dictionaries were fitted on.

    Returns
    -------
    str, why the model knows too little; empty where it knows enough.
    """
    examples = choose_examples(entities, list(templates), shots, seed)
    kept: dict[str, dict[str, int]] = {}
    recorded: dict[str, Recorded] = {}
    chosen: dict[str, str] = {}
    for attribute, questions in templates.items():
        labels = {entity: own[attribute] for entity, own in entities.items()}
        for template in questions:
            right, found = _ask(cut, tokenizer, template, labels, examples, norm_limit)
            if found is not None and len(right) > len(kept.get(attribute, {})):
                kept[attribute], recorded[attribute], chosen[attribute] = right, found, template
    counts = {attribute: len(kept.get(attribute, {})) for attribute in templates}
    names = [entity for entity in entities if all(entity in kept.get(a, {}) for a in templates)]
    random.Random(seed).shuffle(names)
    middle = round(train_fraction * len(names))
    prompts = {
        attribute: recorded[attribute].select(torch.tensor([kept[attribute][n] for n in names]))
        for attribute in (templates if names else ())
    }
    splits = {"train": list(range(middle)), "test": list(range(middle, len(names)))}
    reason = _tell_lack(prompts, splits, counts, len(names), len(entities) - len(examples))
    facts = {
        **{"reason": reason, "asked": len(entities) - len(examples), "right": counts},
        **{"templates": chosen, "examples": examples, "entities": names, **splits},
    }
    write_json(folder / FACTS_FILE, facts)
    if not reason:
        tensors = {
            f"{attribute}.{part}": getattr(own, part).contiguous()
            for attribute, own in prompts.items()
            for part in _PARTS
        }
        save_file(tensors, folder / RECORD_FILE)
    return reason


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the content of `FACTS_FILE`: counts, templates, entities, splits, ``reason``."""
    return dict(read_json(folder / FACTS_FILE))


def read_known(folder: Path) -> Known:
    """Return what :func:`record_known` wrote, where the model knows enough."""
    facts, tensors = read_facts(folder), load_file(folder / RECORD_FILE)
    prompts = {
        attribute: Recorded(*(tensors[f"{attribute}.{part}"] for part in _PARTS))
        for attribute in facts["templates"]
    }
    return Known(prompts, facts["train"], facts["test"])


def _ask(
    cut: CutModel,
    tokenizer: Any,
    template: str,
    labels: Mapping[str, str],
    examples: Sequence[str],
    norm_limit: float | None,
) -> tuple[dict[str, int], Recorded | None]:
    """Return the row of each entity that is answered right, and all rows; None without any."""
    prompts = write_prompts(tokenizer, template, labels, examples)
    if not prompts:
        return {}, None
    recorded, predicted = cut.record(prompts)
    right: Tensor = predicted == recorded.answers
    if norm_limit is not None:
        norms = torch.linalg.vector_norm(recorded.entities, dim=1, dtype=torch.float64)
        right &= norms <= norm_limit
    rows = right.nonzero()[:, 0].tolist()
    return {prompts[row].entity: row for row in rows}, recorded


def _tell_lack(
    prompts: Mapping[str, Recorded],
    splits: Mapping[str, Sequence[int]],
    counts: Mapping[str, int],
    known: int,
    asked: int,
) -> str:
    """Return in one line what was looked for and what is there; empty where it is enough."""
    if known < NEEDED:
        each = ", ".join(f"{name} of {count}" for name, count in counts.items())
        return (
            f"expected a model that names {' and '.join(counts)} of {NEEDED} entities at least, "
            f"got {known} of {asked} ({each})"
        )
    for attribute, own in prompts.items():
        for split, rows in splits.items():
            answers = len(set(own.answers[list(rows)].tolist()))
            if answers < 2:
                return (
                    f"expected two answers to {attribute} at least among the {split} entities, "
                    f"got {answers} in {len(rows)} entities"
                )
    return ""
