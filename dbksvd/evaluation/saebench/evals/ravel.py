"""ravel: whether one attribute of an entity can be changed without the others."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dbksvd.base.headline import Headline
from dbksvd.base.local_files import expand_user, require_file, tell_path
from dbksvd.base.settings import Count, Settings, Text
from dbksvd.evaluation.saebench.data.names import HUB
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

logger = logging.getLogger(__name__)

HUB_FOLDER = "adamkarvonen/ravel_prompts"
PROMPT_TOKENS = 24  # roughly
FEWEST = 20  # prompts that the model continues right
COUNTS = "counts.json"

# The attribute that is changed, and one at least that is to stay.
Attributes = Annotated[list[Text], Field(min_length=2)]


class RavelSettings(Settings):
    """SAEBench's ravel, on RAVEL's prompts from the hub or from a folder of their format."""

    data: Text = HUB
    """The word hub, or a folder with RAVEL's JSON files in base/."""
    entities: dict[str, Attributes] = Field(
        {
            "city": ["Country", "Continent", "Language"],
            "nobel_prize_winner": ["Country of Birth", "Field", "Gender"],
        },
        min_length=1,
    )
    """Attributes of each kind of entity, two at least; by default SAEBench's."""
    batch_size: Count = 32
    """Prompts in a batch; of each attribute, the model must know so many that they fill one."""
    pairs: Count = 5000
    """Pairs of prompts for each attribute."""
    epochs: Count = 2
    """Passes over the pairs in training the mask of an attribute's latents."""
    new_tokens: Count = 6
    """Tokens that the model continues a prompt by."""


def list_hub(settings: RavelSettings) -> list[str]:
    """Return the repository of RAVEL's prompts, where they come from the hub."""
    return [HUB_FOLDER] if settings.data == HUB else []


def list_files(settings: RavelSettings) -> list[str]:
    """Return RAVEL's files, where they are in a folder."""
    if settings.data == HUB:
        return []
    return sorted(map(str, expand_user(settings.data).glob("base/*.json")))


def locate(settings: RavelSettings) -> RavelSettings:
    """Return the settings with the folder as an absolute path."""
    if settings.data == HUB:
        return settings
    return settings.model_copy(update={"data": str(expand_user(settings.data).resolve())})


def check(settings: RavelSettings, _kind: ModelKind | None) -> None:
    """Refuse a folder without RAVEL's files."""
    if settings.data == HUB:
        return
    folder = expand_user(settings.data) / "base"
    if not folder.is_dir():
        raise ValueError(
            f"data: expected {HUB!r} or a folder with RAVEL's files in base/, "
            f"found none at {tell_path(settings.data)}"
        )
    for entity in settings.entities:
        for name in _name_files(entity):
            require_file(folder / name, "data", f"the file {name} of RAVEL")


def cost(settings: RavelSettings, _kind: ModelKind) -> EvalTexts:
    """Count the pairs of prompts: read once, and with gradients in training the masks."""
    attributes = sum(map(len, settings.entities.values()))
    pairs = 2 * attributes * settings.pairs * PROMPT_TOKENS
    generated = settings.new_tokens / PROMPT_TOKENS
    # Each prompt once up to the site, then the blocks above it there and back for each epoch.
    trained = (0.5 + settings.epochs) * 0.7 * pairs
    return EvalTexts(pairs, 0, 0, 2 * pairs, trained + 0.3 * pairs * (1 + generated))


def prepare(loaded: LoadedModel, site: EvalSite, settings: RavelSettings, to: Path) -> None:
    """Let the model continue every prompt, and keep those it continues right.

    Saves that generation per dictionary. How many of how many prompts of each attribute are right
    is written too.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : RavelSettings
        Where RAVEL's files are, and which attributes.
    to : path
        An empty folder.

    Raises
    ------
    FileNotFoundError
        If a file of RAVEL is missing.
    """
    from sae_bench.evals.ravel.instance import RAVELInstance

    from dbksvd.base.files import read_json, write_json
    from dbksvd.evaluation.saebench.data.hub_data import fetch_folder
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.shims import causal

    model = SAEBenchModel(loaded, site.model_name)
    config = _configure(site, settings, to)
    needed = _count_needed(config)
    config.llm_batch_size = 64
    counts: dict[str, dict[str, int]] = {}
    if settings.data == HUB:
        data = fetch_folder(HUB_FOLDER, "*.json")
    else:
        data = expand_user(settings.data) / "base"
    for entity, attributes in settings.entities.items():
        _copy_files(data, entity, to)
        with causal.read_entity_end(model.tokenizer), causal.sort_by_length():
            instance = RAVELInstance.create_from_files(
                config=config,
                entity_type=entity,
                tokenizer=model.tokenizer,
                data_dir=str(to),
                model=loaded.model,
                model_name=site.model_name,
                attribute_types=attributes,
            )
        chosen = instance.create_and_save_filtered_dataset(str(to), config.top_n_entities)
        entities = read_json(to / "base" / _name_files(entity)[2])
        templates = read_json(to / "base" / _name_files(entity)[0])
        for attribute in attributes:
            prompts = chosen.get_prompts_by_attribute(attribute)
            counts[f"{entity}: {attribute}"] = {
                "known": len(prompts),
                "asked": len(entities) * len(templates[attribute]),
                "answers": len({prompt.attribute_label for prompt in prompts}),
            }
    write_json(to / COUNTS, counts)
    if reason := tell_unknown(counts, needed):
        logger.warning("ravel does not apply: %s", reason)


def tell_unknown(counts: Mapping[str, Mapping[str, int]], needed: int) -> str:
    """Return in a line why a model knows too little, or an empty text.

    Parameters
    ----------
    counts : mapping of str to mapping
        Of each attribute the prompts that were ``asked``, those ``known`` (continued right), and
        the different right ``answers`` among them.
    needed : int
        Prompts of each attribute that have to be known.
    """
    known = sum(each["known"] for each in counts.values())
    is_poor = any(each["known"] < needed or each["answers"] < 2 for each in counts.values())
    if known >= FEWEST and not is_poor:
        return ""
    found = "; ".join(
        f"{each['known']} of {each['asked']} with {each['answers']} answers for {name}"
        for name, each in counts.items()
    )
    return (
        f"expected at least {FEWEST} prompts that the model continues right, {needed} or more of "
        f"each attribute, with 2 answers or more, got {found}"
    )


def _count_needed(config: Any) -> int:
    """Return how many prompts of each attribute the model must know."""
    # Prompts of cause and isolation in equal number; some of them must fill a batch for testing.
    return int(config.llm_batch_size / (2 * (1 - config.train_test_split))) + 1


def run(task: EvalTask) -> None:
    """SAEBench's ravel; does not apply where the model knows too little of an attribute."""
    from sae_bench.evals.ravel import main as eval_module

    from dbksvd.base.files import read_json, write_json
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.results import CORRECTIONS, write_not_applicable
    from dbksvd.evaluation.saebench.shims import causal, ravel_passes
    from dbksvd.evaluation.saebench.shims.norm_limit import keep_over

    config = _configure(task.site, task.settings, task.prepared)
    counts = read_json(task.prepared / COUNTS)
    known = count_prompts(counts)
    if reason := tell_unknown(counts, _count_needed(config)):
        logger.warning("ravel does not apply: %s", reason)
        write_not_applicable(task.output, reason, {"applicable": 0, **known})
        return
    loaded = task.load_model()
    model = SAEBenchModel(loaded, task.site.model_name)
    with (
        causal.use_transformers_model(eval_module, model),
        ravel_passes.shorten_passes(loaded, model, task.site.layer),
        keep_over(task.site.norm_limit),
    ):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
    write_json(task.output / CORRECTIONS, {"applicable": 1, **known})


def count_prompts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return how many prompts the model was asked and knows, in all and of each attribute.

    The names are those that :func:`dbksvd.report.eval_notes.list_eval_notes` reads.
    """
    found = {}
    for kind in ("known", "asked"):
        found[f"prompts_{kind}"] = sum(each[kind] for each in counts.values())
        found |= {f"prompts_{kind}/{name}": each[kind] for name, each in counts.items()}
    return found


def _copy_files(data: Path, entity: str, to: Path) -> None:
    (to / "base").mkdir(exist_ok=True)
    for name in _name_files(entity):
        path = data / name
        if not path.is_file():
            raise FileNotFoundError(f"evaluation.evals.ravel.data: expected {path}, no such file")
        shutil.copy(path, to / "base")


def _name_files(entity: str) -> list[str]:
    """Return the names of RAVEL's files of one kind of entity."""
    parts = ("attribute_to_prompts", "prompt_to_split", "entity_attributes", "entity_to_split")
    return [f"ravel_{entity}_{part}.json" for part in parts]


def _configure(site: EvalSite, settings: RavelSettings, folder: Path) -> Any:
    from sae_bench.evals.ravel.eval_config import RAVELEvalConfig

    return RAVELEvalConfig(
        entity_attribute_selection={key: list(names) for key, names in settings.entities.items()},
        num_pairs_per_attribute=settings.pairs,
        num_epochs=settings.epochs,
        n_generated_tokens=settings.new_tokens,
        llm_batch_size=settings.batch_size,
        llm_dtype="float32",
        model_name=site.model_name,
        random_seed=site.seed,
        artifact_dir=str(folder),
    )


EVAL = Eval(
    settings=RavelSettings,
    prepare=prepare,
    run=run,
    headlines=(Headline("RAVEL", "ravel", "disentanglement_score"),),
    cost=cost,
    hub=list_hub,
    files=list_files,
    locate=locate,
    check=check,
    not_for_encoders="it lets the model continue prompts, which needs a language-model head",
)
