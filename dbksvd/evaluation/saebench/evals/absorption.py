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
# Roughly: tokens of a prompt with ten solved examples; words of a vocabulary of letters alone.
PROMPT_TOKENS, WORDS = 90, 30_000
TEST_SHARE = 0.2  # of the words, SAEBench's
RANDOM_ATOMS = 16  # SAEBench looks at ten latents of each code


class AbsorptionSettings(Settings):
    """SAEBench's absorption, on words of the model's own vocabulary; defaults are SAEBench's."""

    words_per_letter: Annotated[int, Field(ge=20)] | None = None
    """Words that begin with each letter, at most, drawn by the seed; null reads all there are."""
    min_letters: Annotated[int, Field(ge=2, le=26)] = 20
    """Letters that need a good probe on raw activations; with fewer the eval does not apply."""
    min_probe_f1: Fraction = 0.6
    """F1 score above which a probe on raw activations is good."""
    max_k: Count = 10
    """Most latents that a sparse probe of a letter sees."""
    probe_epochs: Count = 50
    """Passes over the words in training a sparse probe."""


def cost(settings: AbsorptionSettings, _kind: ModelKind) -> EvalTexts:
    """Count the prompts of a vocabulary of usual size: one a word, and one more a word tested."""
    bound = settings.words_per_letter
    words = WORDS if bound is None else min(WORDS, bound * len(ascii_lowercase))
    prompts = (1 + TEST_SHARE) * words
    # A probe of each letter for each number of latents; the probe on raw activations.
    seconds = 0.005 * words + 2.0 * settings.max_k
    return EvalTexts(prompts * PROMPT_TOKENS, prompts, words, prompts, 0, seconds, 0.01 * words)


def prepare(loaded: LoadedModel, site: EvalSite, settings: AbsorptionSettings, to: Path) -> None:
    """Train the first-letter probes on raw activations of the words, and record the test prompts.

    Saves every forward pass and the training of those probes per dictionary. SAEBench draws the
    test prompts on the way to a dictionary's score, by the seed alone: it is run once on a random
    dictionary.

    Parameters
    ----------
    loaded : LoadedModel
        The model.
    site : EvalSite
        Its name and the layer.
    settings : AbsorptionSettings
        How many words are read.
    to : path
        An empty folder.
    """
    from sae_bench.evals.absorption import main as eval_module
    from sae_bench.evals.absorption.common import load_or_train_probe

    from dbksvd.base.provenance import seed_everything
    from dbksvd.evaluation.saebench.evals.absorption_prompts import RecordingModel
    from dbksvd.evaluation.saebench.random_dictionary import make_random_dictionary
    from dbksvd.evaluation.saebench.shims import causal, common

    position = find_word_position(loaded.tokenizer)
    model = RecordingModel(loaded, site.model_name, position)
    device = str(loaded.device)
    with causal.filter_words(TEMPLATE, settings.words_per_letter, site.seed):
        load_or_train_probe(
            model,
            base_template=TEMPLATE,
            pos_idx=position,
            layer=site.layer - 1,
            probes_dir=to,
            device=device,
        )
        model.forget()
        if not _find_missing_letters(site, to):
            sae = make_random_dictionary(loaded.width, RANDOM_ATOMS, site, device)
            small = settings.model_copy(update={"max_k": 1, "probe_epochs": 1})
            seed_everything(site.seed)  # as before the score of a dictionary
            with (
                common.use_model(eval_module, model),
                causal.place_absorption(eval_module, to, Path("random")),
            ):
                eval_module.run_eval(
                    _configure(site, small, position), [("random", sae)], device, "."
                )
    model.write(to)


def run(task: EvalTask) -> None:
    """SAEBench's absorption.

    Where fewer than ``min_letters`` letters have a probe on raw activations with an F1 above
    ``min_probe_f1``, SAEBench stops without a result: ``not_applicable.json`` then says why.
    """
    import pandas as pd
    from sae_bench.evals.absorption import main as eval_module

    from dbksvd.base.files import write_json
    from dbksvd.evaluation.saebench.evals.absorption_prompts import ReplayingModel
    from dbksvd.evaluation.saebench.results import CORRECTIONS, RESULT_SUFFIX
    from dbksvd.evaluation.saebench.shims import causal, common
    from dbksvd.evaluation.saebench.shims.norm_limit import silence_over

    if missing := _find_missing_letters(task.site, task.prepared):
        reason = f"no word of the vocabulary that the probes learn from begins with {missing}"
        _refuse(task, reason, {"applicable": 0})
        return
    loaded, settings = task.load_model(), task.settings
    position = find_word_position(loaded.tokenizer)
    model = ReplayingModel(loaded, task.site.model_name, position, task.prepared)
    config = _configure(task.site, settings, position)
    with (
        common.use_model(eval_module, model),
        causal.filter_words(TEMPLATE, settings.words_per_letter, task.site.seed),
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


def _configure(site: EvalSite, settings: AbsorptionSettings, position: int) -> Any:
    """Return SAEBench's config; `position` of the word is counted from a prompt's end."""
    from sae_bench.evals.absorption.eval_config import AbsorptionEvalConfig

    return AbsorptionEvalConfig(
        model_name=site.model_name,
        random_seed=site.seed,  # stated only: the seed itself is set before every eval
        max_k_value=settings.max_k,
        min_feats_for_eval=settings.min_letters,
        min_GT_probe_f1=settings.min_probe_f1,
        k_sparse_probe_num_epochs=settings.probe_epochs,
        prompt_template=TEMPLATE,
        prompt_token_pos=position,
        llm_batch_size=64,
        precalc_k_sparse_probe_sae_acts=True,
    )


def _find_missing_letters(site: EvalSite, prepared: Path) -> str:
    """Return the letters without a word to learn from, at which SAEBench would break off."""
    import numpy as np

    folder = prepared / site.model_name / f"layer_{site.layer - 1}"
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
