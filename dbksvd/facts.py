"""Sentences that state the facts in RAVEL's files, for a language model to learn."""

from __future__ import annotations

import random
from pathlib import Path

from dbksvd.base.files import read_json

_SUFFIX, _PROMPTS = "_entity_attributes.json", "_attribute_to_prompts.json"


def read_facts(data: Path, repeats: int) -> list[str]:
    """Return documents, each with all facts of one entity in an order of its own.

    A fact is a prompt of RAVEL with its answer: "Oslo is a city in the country of Norway."

    Parameters
    ----------
    data : path
        Folder with RAVEL's files in ``base/``.
    repeats : int
        Documents of each entity.

    Raises
    ------
    FileNotFoundError
        If the folder has no such files.
    """
    paths = sorted((data / "base").glob(f"ravel_*{_SUFFIX}"))
    if not paths:
        raise FileNotFoundError(f"model.train.facts.data: expected {data}/base/ravel_*{_SUFFIX}")
    documents = []
    for path in paths:
        prompts = read_json(path.with_name(path.name.replace(_SUFFIX, _PROMPTS)))
        for entity, attributes in sorted(read_json(path).items()):
            facts = [
                f"{template % entity} {attributes[attribute]}."
                for attribute, templates in sorted(prompts.items())
                for template in templates
            ]
            for repeat in range(repeats):
                draw = random.Random(f"{entity}/{repeat}")
                documents.append(" ".join(draw.sample(facts, len(facts))))
    return documents
