"""factual_knowledge: whether one fact of an entity can be changed and the others stay.

No eval of SAEBench. The procedure is that of Chaudhary and Geiger (arXiv 2409.04478), who ask it of
GPT-2 small: a mask over the latents of a dictionary, over neurons and over the coordinates of a
learned rotation (DAS), beside the whole activation patched in. Entities are split, not prompts.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, NonNegativeInt, Positive, Settings, Text, Unique
from dbksvd.evaluation.saebench.data.names import HUB
from dbksvd.evaluation.saebench.data.ravel_files import (
    check_files,
    find_folder,
    list_files,
    list_hub,
    locate,
    name_files,
)
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from dbksvd.evaluation.facts.interventions import Training
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

NAME = "factual_knowledge"
BASELINES_FILE = "baselines.json"
QUESTION_TOKENS = 10  # roughly, without the examples, which all questions share
EXAMPLE_TOKENS = 12

logger = logging.getLogger(__name__)


class FactualKnowledgeSettings(Settings):
    """Facts of entities, moved one at a time: RAVEL's entities and prompts, few-shot."""

    data: Text = HUB
    """The word hub, or a folder with RAVEL's JSON files in base/."""
    entity: Text = "city"
    """RAVEL's kind of entity."""
    attributes: Annotated[list[Text], Field(min_length=2), *Unique] = Field(
        default=["Country", "Continent"]
    )
    """What is asked for: one is moved, the others are to stay."""
    entities: Count = 500
    """Most entities that the model is asked about, drawn by the seed."""
    prompts: Count = 4
    """RAVEL's first prompts for each attribute, of which the one answered best is used."""
    shots: NonNegativeInt = 5
    """Entities whose answers are shown before each question."""
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Part of the known entities that masks are trained on; the rest are scored."""
    pairs: Count = 500
    """Most pairs of entities for each attribute, to train on and to score."""
    epochs: Count = 20
    """Passes over the pairs in training a mask."""
    batch_size: Count = 16
    """Pairs of a step: one half moves the attribute, the other keeps the others."""
    mask_rate: Positive = 1e-3
    """Adam's learning rate of a mask."""
    rotation_rate: Positive = 1e-3
    """Adam's learning rate of the rotation of DAS."""


def check(settings: FactualKnowledgeSettings, _kind: ModelKind | None) -> None:
    """Refuse a folder without RAVEL's files, or files without the attributes."""
    check_files(settings, [settings.entity])
    if settings.data != HUB:
        _read_ravel(settings)


def cost(settings: FactualKnowledgeSettings, _kind: ModelKind) -> EvalTexts:
    """Count the tokens of the questions: once as they are, and in training and scoring masks."""
    attributes = len(settings.attributes)
    asked = attributes * settings.prompts * settings.entities * QUESTION_TOKENS
    asked += attributes * settings.prompts * settings.shots * EXAMPLE_TOKENS
    pairs = attributes * settings.pairs * QUESTION_TOKENS
    masked = pairs * (2 * 3 * settings.epochs + attributes)
    return EvalTexts(
        prepared=asked + 2 * masked,
        stored=attributes * settings.entities * QUESTION_TOKENS,
        held=attributes * settings.entities * QUESTION_TOKENS,
        coded=2 * masked / QUESTION_TOKENS,
        forward=masked,
    )


def prepare(
    loaded: LoadedModel, site: EvalSite, settings: FactualKnowledgeSettings, to: Path
) -> None:
    """Ask the model, and score what needs no dictionary: neurons, DAS, the full patch.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : FactualKnowledgeSettings
        What it is asked.
    to : path
        An empty folder.
    """
    from dbksvd.base.files import write_json
    from dbksvd.evaluation.facts.bases import Neurons, Rotation
    from dbksvd.evaluation.facts.blocks import CutModel
    from dbksvd.evaluation.facts.known import read_known, record_known
    from dbksvd.evaluation.facts.scores import score_basis, score_full_patch, summarise

    entities, templates = _read_ravel(settings)
    cut = CutModel(loaded, site.layer, settings.batch_size)
    reason = record_known(
        cut,
        loaded.tokenizer,
        _draw_entities(entities, settings.entities, site.seed),
        {name: templates[name][: settings.prompts] for name in settings.attributes},
        to,
        shots=settings.shots,
        train_fraction=settings.train_fraction,
        seed=site.seed,
        norm_limit=site.norm_limit,
    )
    if reason:
        logger.warning("%s: does not apply: %s", NAME, reason)
        return
    known, width, training = read_known(to), loaded.width, _configure(settings, site.seed)
    found = {"full_patch": score_full_patch(cut, known, width, settings.pairs, site.seed)}
    for name, basis in (("neurons", Neurons), ("das", Rotation)):
        make = partial(basis, width)
        found[name] = score_basis(cut, known, make, training, settings.pairs)
        logger.info("%s, %s: %s", NAME, name, summarise(found[name]))
    write_json(to / BASELINES_FILE, found)


def run(task: EvalTask) -> None:
    """Train the masks over a dictionary's latents and score them."""
    from dbksvd.base.files import read_json, write_json
    from dbksvd.evaluation.facts.bases import Coded
    from dbksvd.evaluation.facts.blocks import CutModel
    from dbksvd.evaluation.facts.known import read_facts, read_known
    from dbksvd.evaluation.facts.scores import measure_spliced, score_basis, summarise
    from dbksvd.evaluation.saebench.results import RESULT_SUFFIX, write_not_applicable

    settings: FactualKnowledgeSettings = task.settings
    facts = read_facts(task.prepared)
    counts = {"entities_known": len(facts["entities"]), "entities_asked": facts["asked"]}
    if facts["reason"]:
        write_not_applicable(task.output, facts["reason"], {"applicable": 0, **counts})
        return
    known, basis = read_known(task.prepared), Coded(task.sae)
    cut = CutModel(task.load_model(), task.site.layer, settings.batch_size)
    training = _configure(settings, task.site.seed)
    scores = score_basis(cut, known, lambda: basis, training, settings.pairs)
    metrics = {"applicable": 1, **counts, **summarise(scores)}
    metrics["spliced_accuracy"] = measure_spliced(cut, known, basis)
    for name, own in read_json(task.prepared / BASELINES_FILE).items():
        metrics |= summarise(own, f"{name}_")
    result = {
        "eval_type_id": NAME,
        "eval_config": settings.dump(),
        "sae_lens_release_id": task.name,
        "eval_result_metrics": {NAME: metrics},
        "eval_result_details": [{"dataset_name": name, **own} for name, own in scores.items()],
    }
    write_json(task.output / f"{task.name}{RESULT_SUFFIX}", result)


def _read_ravel(
    settings: FactualKnowledgeSettings,
) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Return entities with their labels, and prompts by attribute, of RAVEL's files.

    Raises
    ------
    ValueError
        If an attribute is not in the files.
    """
    from dbksvd.base.files import read_json

    folder = find_folder(settings)
    prompts, _, entities, _ = name_files(settings.entity)
    templates = read_json(folder / prompts)
    for attribute in settings.attributes:
        if not templates.get(attribute):
            known = ", ".join(sorted(templates)) or "none"
            raise ValueError(f"attributes: expected some of {known}, got {attribute!r}")
    labels = {
        entity: {name: own[name] for name in settings.attributes}
        for entity, own in read_json(folder / entities).items()
        if all(own.get(name) for name in settings.attributes)
    }
    return labels, templates


def _draw_entities(
    entities: dict[str, dict[str, str]], most: int, seed: int
) -> dict[str, dict[str, str]]:
    """Return the first `most` entities in an order of the seed's, in the order of the file."""
    import random

    chosen = set(random.Random(seed).sample(sorted(entities), min(most, len(entities))))
    return {name: own for name, own in entities.items() if name in chosen}


def _configure(settings: FactualKnowledgeSettings, seed: int) -> Training:
    from dbksvd.evaluation.facts.interventions import Training

    rates: dict[str, Any] = {"mask_rate": settings.mask_rate, "basis_rate": settings.rotation_rate}
    return Training(settings.epochs, settings.batch_size, seed=seed, **rates)


EVAL = Eval(
    settings=FactualKnowledgeSettings,
    prepare=prepare,
    run=run,
    headlines=(
        Headline("facts", NAME, "disentanglement_score", baseline="das_disentanglement_score"),
    ),
    cost=cost,
    hub=list_hub,
    files=list_files,
    locate=locate,
    check=check,
    not_for_encoders="it asks the model for facts, which needs a language-model head",
    needs_norm_limit=True,
)
