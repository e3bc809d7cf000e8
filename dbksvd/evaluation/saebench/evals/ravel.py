"""ravel: whether one attribute of an entity can be changed without the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, Settings, Text
from dbksvd.evaluation.saebench.data.names import HUB
from dbksvd.evaluation.saebench.data.ravel_files import (
    check_files,
    copy_files,
    find_folder,
    list_files,
    list_hub,
    locate,
    name_files,
)
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

logger = logging.getLogger(__name__)

PROMPT_TOKENS = 24  # roughly
FEWEST = 20  # prompts that the model continues right
COUNTS = "counts.json"
SKYLINE_FILE = "skyline.json"

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
    skyline: bool = False
    """Whether SAEBench's MDAS, a rotation learned without a dictionary, is scored once beside."""


def check(settings: RavelSettings, _kind: ModelKind | None) -> None:
    """Refuse a folder without RAVEL's files."""
    check_files(settings, settings.entities)


def cost(settings: RavelSettings, _kind: ModelKind) -> EvalTexts:
    """Count the pairs of prompts: read once, and with gradients in training the masks."""
    attributes = sum(map(len, settings.entities.values()))
    pairs = 2 * attributes * settings.pairs * PROMPT_TOKENS
    generated = settings.new_tokens / PROMPT_TOKENS
    # Each prompt once up to the site, then the blocks above it there and back for each epoch.
    trained = (0.5 + settings.epochs) * 0.7 * pairs
    scored = trained + 0.3 * pairs * (1 + generated)
    skyline = (2 * 3 * settings.epochs * 0.7 + 0.3 * (1 + generated)) * pairs  # whole passes
    return EvalTexts(pairs + skyline * settings.skyline, 0, 0, 2 * pairs, scored)


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
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.shims import causal

    model = SAEBenchModel(loaded, site.model_name)
    config = _configure(site, settings, to)
    needed = _count_needed(config)
    config.llm_batch_size = 64
    counts: dict[str, dict[str, int]] = {}
    data = find_folder(settings)
    for entity, attributes in settings.entities.items():
        copy_files(data, entity, to)
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
        entities = read_json(to / "base" / name_files(entity)[2])
        templates = read_json(to / "base" / name_files(entity)[0])
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
    elif settings.skyline:
        # the config above has the batches of generation
        write_json(to / SKYLINE_FILE, _measure_skyline(loaded, site, settings, to))


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
    skyline = read_json(task.prepared / SKYLINE_FILE) if task.settings.skyline else {}
    write_json(task.output / CORRECTIONS, {"applicable": 1, **known, **skyline})


def count_prompts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return how many prompts the model was asked and knows, in all and of each attribute.

    The names are those that :func:`dbksvd.report.eval_notes.list_eval_notes` reads.
    """
    found = {}
    for kind in ("known", "asked"):
        found[f"prompts_{kind}"] = sum(each[kind] for each in counts.values())
        found |= {f"prompts_{kind}/{name}": each[kind] for name, each in counts.items()}
    return found


def _count_needed(config: Any) -> int:
    """Return the prompts of an attribute that fill a batch for testing.

    They are of cause and isolation in equal number.
    """
    return int(config.llm_batch_size / (2 * (1 - config.train_test_split))) + 1


def _measure_skyline(
    loaded: LoadedModel, site: EvalSite, settings: RavelSettings, prepared: Path
) -> dict[str, float]:
    """Return the scores of SAEBench's MDAS: a mask over the coordinates of a learned rotation.

    It is given no dictionary, and changes positions over the norm limit too.
    """
    from tempfile import TemporaryDirectory

    from sae_bench.evals.ravel import main as eval_module

    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.random_dictionary import make_random_dictionary
    from dbksvd.evaluation.saebench.results import read_metrics
    from dbksvd.evaluation.saebench.shims import causal

    config = _configure(site, settings, prepared)
    config.train_mdas = True
    device = str(loaded.device)
    unused = make_random_dictionary(loaded.width, loaded.width, site, device)
    model = SAEBenchModel(loaded, site.model_name)
    with TemporaryDirectory() as folder, causal.use_transformers_model(eval_module, model):
        eval_module.run_eval(config, [("mdas", unused)], device, folder)
        metrics = read_metrics(Path(folder))
    names = ("disentanglement_score", "cause_score", "isolation_score")
    return {f"mdas_{name}": float(metrics[name] or 0) for name in names if name in metrics}


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
    headlines=(
        Headline("RAVEL", "ravel", "disentanglement_score", baseline="mdas_disentanglement_score"),
    ),
    cost=cost,
    hub=list_hub,
    files=list_files,
    locate=locate,
    check=check,
    not_for_encoders="it lets the model continue prompts, which needs a language-model head",
)
