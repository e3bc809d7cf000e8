"""absorption: whether a first-letter latent is silent where a more special one takes its part."""

from __future__ import annotations

import logging
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dbksvd.base.headline import Headline
from dbksvd.base.settings import Count, Fraction, Settings
from dbksvd.evaluation.saebench.entry import Eval, EvalTexts

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.model import EvalSite
    from dbksvd.evaluation.saebench.task import EvalTask
    from dbksvd.models.loading import LoadedModel
    from dbksvd.models.sizes import ModelKind

logger = logging.getLogger(__name__)

TEMPLATE = "{word} has the first letter:"
# Roughly: tokens of a word with its prompt; words of a vocabulary that begin with a letter.
WORD_TOKENS, WORDS = 12, 20_000


class AbsorptionSettings(Settings):
    """SAEBench's absorption, on words of the model's own vocabulary; defaults are SAEBench's."""

    min_letters: Annotated[int, Field(ge=2, le=26)] = 20
    """Letters that need a good probe on raw activations; with fewer the eval does not apply."""
    min_probe_f1: Fraction = 0.6
    """F1 score above which a probe on raw activations is good."""
    max_k: Count = 10
    """Most latents that a sparse probe of a letter sees."""
    probe_epochs: Count = 50
    """Passes over the words in training a sparse probe."""


def cost(_settings: AbsorptionSettings, _kind: ModelKind) -> EvalTexts:
    """Count the words of a vocabulary of usual size."""
    words = WORDS * WORD_TOKENS
    return EvalTexts(words, WORDS, WORDS, WORDS + words, words, 120, 60)


def prepare(loaded: LoadedModel, site: EvalSite, _settings: AbsorptionSettings, to: Path) -> None:
    """Train the first-letter probes on raw activations of every word of the vocabulary.

    Saves a forward pass per word and the training per dictionary: 10 s of 22 s for 1,700 words.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    _settings : AbsorptionSettings
        None of them concerns these probes.
    to : path
        An empty folder.
    """
    from sae_bench.evals.absorption.common import load_or_train_probe

    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.shims import causal

    model = SAEBenchModel(loaded, site.model_name)
    with causal.filter_words(TEMPLATE):
        load_or_train_probe(
            model,
            base_template=TEMPLATE,
            pos_idx=find_word_position(model.tokenizer),
            layer=site.layer - 1,
            probes_dir=to,
            device=str(loaded.device),
        )


def run(task: EvalTask) -> None:
    """SAEBench's absorption.

    Where fewer than ``min_letters`` letters have a probe on raw activations with an F1 above
    ``min_probe_f1``, SAEBench stops without a result: ``not_applicable.json`` then says why.
    """
    import pandas as pd
    from sae_bench.evals.absorption import main as eval_module
    from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig

    from dbksvd.base.files import write_json
    from dbksvd.evaluation.saebench.model import SAEBenchModel
    from dbksvd.evaluation.saebench.results import CORRECTIONS, RESULT_SUFFIX
    from dbksvd.evaluation.saebench.shims import causal, common
    from dbksvd.evaluation.saebench.shims.norm_limit import silence_over

    if missing := _find_missing_letters(task):
        reason = f"no word of the vocabulary that the probes learn from begins with {missing}"
        _refuse(task, reason, {"applicable": 0})
        return
    model = SAEBenchModel(task.load_model(), task.site.model_name)
    settings: AbsorptionSettings = task.settings
    config = AbsorptionEvalConfig(
        model_name=task.site.model_name,
        random_seed=task.site.seed,  # stated only: the seed itself is set before every eval
        max_k_value=settings.max_k,
        min_feats_for_eval=settings.min_letters,
        min_GT_probe_f1=settings.min_probe_f1,
        k_sparse_probe_num_epochs=settings.probe_epochs,
        prompt_template=TEMPLATE,
        prompt_token_pos=find_word_position(model.tokenizer),
        llm_batch_size=64,
        precalc_k_sparse_probe_sae_acts=True,
    )
    with (
        common.use_model(eval_module, model),
        causal.filter_words(TEMPLATE),
        causal.place_absorption(eval_module, task.prepared, Path("absorption")),
        silence_over(task.sae, task.site.norm_limit),
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
    import numpy as np

    folder = task.prepared / task.site.model_name / f"layer_{task.site.layer - 1}"
    with np.load(folder / "data.npz") as data:
        found = set(data["y_train"].tolist())
    return ", ".join(letter for i, letter in enumerate(ascii_lowercase) if i not in found)


def _refuse(task: EvalTask, reason: str, metrics: dict[str, int]) -> None:
    from dbksvd.evaluation.saebench.results import write_not_applicable

    logger.warning("absorption does not apply: %s", reason)
    write_not_applicable(task.output, reason, metrics)


def find_word_position(tokenizer: Any) -> int:
    """Return the place of the word in a prompt, counted from its end; -6 where words are tokens."""
    rest = TEMPLATE.replace("{word}", "")
    return -1 - len(tokenizer(rest, add_special_tokens=False)["input_ids"])


EVAL = Eval(
    settings=AbsorptionSettings,
    prepare=prepare,
    run=run,
    headlines=(
        Headline(
            "absorption", "absorption", "mean_absorption_fraction_score", lower_is_better=True
        ),
    ),
    cost=cost,
    not_for_encoders="its prompts are made for a model that reads from left to right",
)
