"""absorption: whether a first-letter latent is silent where a more special one takes its part."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dbksvd.base.files import write_json
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.results import CORRECTIONS, NOT_APPLICABLE, RESULT_SUFFIX
from dbksvd.evaluation.saebench.shims import causal as shims_causal
from dbksvd.evaluation.saebench.shims import common as shims
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel

logger = logging.getLogger(__name__)

TEMPLATE = "{word} has the first letter:"


def prepare(loaded: LoadedModel, site: EvalSite, _settings: Mapping[str, Any], to: Path) -> None:
    """Train the first-letter probes on raw activations of every word of the vocabulary.

    Saves a forward pass per word and the training per dictionary: 10 s of 22 s for 1,700 words.
    """
    from sae_bench.evals.absorption import common

    model = SAEBenchModel(loaded, site.model_name)
    with shims_causal.filter_words(TEMPLATE):
        common.load_or_train_probe(
            model,
            base_template=TEMPLATE,
            pos_idx=find_word_position(model.tokenizer),
            layer=site.layer - 1,
            probes_dir=to,
            device=str(loaded.device),
        )


def run(task: EvalTask) -> None:
    """SAEBench's absorption. Settings: min_letters, min_probe_f1, max_k, probe_epochs.

    Where fewer than `min_letters` letters have a probe on raw activations with an F1 above
    `min_probe_f1`, SAEBench stops without a result: it then is `NOT_APPLICABLE`.
    """
    from sae_bench.evals.absorption import main as eval_module
    from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig

    if missing := _find_missing_letters(task):
        reason = f"no word of the vocabulary that the probes learn from begins with {missing}"
        _refuse(task, reason, {"applicable": 0})
        return
    model = SAEBenchModel(task.load_model(), task.site.model_name)
    settings = task.settings
    config = AbsorptionEvalConfig(
        model_name=task.site.model_name,
        random_seed=task.site.seed,  # stated only: the seed itself is set before every eval
        max_k_value=settings.get("max_k", 10),
        min_feats_for_eval=settings.get("min_letters", 20),
        min_GT_probe_f1=settings.get("min_probe_f1", 0.6),
        k_sparse_probe_num_epochs=settings.get("probe_epochs", 50),
        prompt_template=TEMPLATE,
        prompt_token_pos=find_word_position(model.tokenizer),
        llm_batch_size=64,
        precalc_k_sparse_probe_sae_acts=True,
    )
    with (
        shims.use_model(eval_module, model),
        shims_causal.filter_words(TEMPLATE),
        shims_causal.place_absorption(eval_module, task.prepared, Path("absorption")),
    ):
        eval_module.run_eval(config, [(task.name, task.sae)], task.device, str(task.output))
    table = pd.read_json(next(Path("artifacts/absorption").glob("*_k_sparse_probing.json")))
    letters = int((table["f1_probe"] > config.min_GT_probe_f1).sum())
    if list(task.output.glob(f"*{RESULT_SUFFIX}")):
        write_json(task.output / CORRECTIONS, {"applicable": 1, "letters_with_probe": letters})
        return
    reason = (
        f"only {letters} of 26 letters have a probe with F1 above {config.min_GT_probe_f1} on raw "
        f"activations, {config.min_feats_for_eval} are needed"
    )
    _refuse(task, reason, {"applicable": 0, "letters_with_probe": letters})


def _find_missing_letters(task: EvalTask) -> str:
    """Return the letters without a word to learn from, at which SAEBench would break off."""
    folder = task.prepared / task.site.model_name / f"layer_{task.site.layer - 1}"
    with np.load(folder / "data.npz") as data:
        found = set(data["y_train"].tolist())
    return ", ".join(letter for i, letter in enumerate(ascii_lowercase) if i not in found)


def _refuse(task: EvalTask, reason: str, metrics: dict[str, int]) -> None:
    logger.warning("absorption does not apply: %s", reason)
    write_json(task.output / NOT_APPLICABLE, {"reason": reason, "metrics": metrics})


def find_word_position(tokenizer: Any) -> int:
    """Return the place of the word in a prompt, counted from its end; -6 where words are tokens."""
    rest = TEMPLATE.replace("{word}", "")
    return -1 - len(tokenizer(rest, add_special_tokens=False)["input_ids"])
