"""ravel: whether one attribute of an entity can be changed without the others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.base.files import read_json, write_json
from dbksvd.evaluation.saebench.data.hub_data import fetch_folder
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.registry import list_hub_names, reads_hub
from dbksvd.evaluation.saebench.results import CORRECTIONS, NOT_APPLICABLE
from dbksvd.evaluation.saebench.shims import causal as shims_causal
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Let the model continue every prompt, and keep those it continues right.

    Saves that generation per dictionary. Settings: data (``hub``, or a folder with RAVEL's files in
    base/), entities (attributes of each kind of entity).

    Raises
    ------
    FileNotFoundError
        If a file of RAVEL is missing.
    """
    from sae_bench.evals.ravel.instance import RAVELInstance

    model = SAEBenchModel(loaded, site.model_name)
    config = _configure(site, settings, to)
    config.llm_batch_size = 64
    counts: dict[str, int] = {}
    data = Path(settings["data"]) / "base"
    if reads_hub(settings):
        data = fetch_folder(list_hub_names("ravel", settings)[0], "*.json")
    for entity, attributes in settings["entities"].items():
        _copy_files(data, entity, to)
        with shims_causal.read_entity_end(model.tokenizer):
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
        for attribute in attributes:
            prompts = chosen.get_prompts_by_attribute(attribute)
            two_labels = len({prompt.attribute_label for prompt in prompts}) > 1
            counts[f"{entity}: {attribute}"] = len(prompts) if two_labels else 0
    write_json(to / "counts.json", counts)


def run(task: EvalTask) -> None:
    """SAEBench's ravel. Settings: batch_size, pairs (per attribute), epochs, new_tokens.

    Where the model knows too little of an attribute, the result is `NOT_APPLICABLE`.
    """
    from sae_bench.evals.ravel import main as eval_module

    config = _configure(task.site, task.settings, task.prepared)
    counts = read_json(task.prepared / "counts.json")
    # Prompts of cause and isolation in equal number; some of them must fill a batch for testing.
    needed = int(config.llm_batch_size / (2 * (1 - config.train_test_split))) + 1
    poor = {name: count for name, count in counts.items() if count < needed}
    if poor:
        write_json(
            task.output / NOT_APPLICABLE,
            {
                "reason": f"the model continues too few prompts right, {needed} are needed of "
                f"each attribute, with two answers at least: {poor}",
                "metrics": {"applicable": 0, "prompts_known": sum(counts.values())},
            },
        )
        return
    model = SAEBenchModel(task.load_model(), task.site.model_name)
    with shims_causal.use_transformers_model(eval_module, model):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
    write_json(task.output / CORRECTIONS, {"applicable": 1, "prompts_known": sum(counts.values())})


def _copy_files(data: Path, entity: str, to: Path) -> None:
    (to / "base").mkdir(exist_ok=True)
    for part in ("attribute_to_prompts", "prompt_to_split", "entity_attributes", "entity_to_split"):
        path = data / f"ravel_{entity}_{part}.json"
        if not path.is_file():
            raise FileNotFoundError(f"evaluation.evals.ravel.data: expected {path}, no such file")
        shutil.copy(path, to / "base")


def _configure(site: EvalSite, settings: Mapping[str, Any], folder: Path) -> Any:
    from sae_bench.evals.ravel.eval_config import RAVELEvalConfig

    return RAVELEvalConfig(
        entity_attribute_selection={
            key: list(names) for key, names in settings["entities"].items()
        },
        num_pairs_per_attribute=settings.get("pairs", 5000),
        num_epochs=settings.get("epochs", 2),
        n_generated_tokens=settings.get("new_tokens", 6),
        llm_batch_size=settings["batch_size"],
        llm_dtype="float32",
        model_name=site.model_name,
        random_seed=site.seed,
        artifact_dir=str(folder),
    )
