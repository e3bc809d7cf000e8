"""autointerp: explanations of latents written and tested by a language model over an API."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dbksvd.base.files import hash_content, read_seal, write_json
from dbksvd.base.headline import Headline
from dbksvd.base.settings import NonNegative, Settings, Text, parse
from dbksvd.evaluation.saebench.data.settings import list_bundled_texts, list_hub_data
from dbksvd.evaluation.saebench.entry import ApiKey, Eval
from dbksvd.evaluation.saebench.evals.llm_judge import (
    LatentTextSettings,
    cost,
    prepare_texts,
    run_with_judge,
)

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.task import EvalTask

logger = logging.getLogger(__name__)

RESPONSES = "autointerp_responses"
# Per latent: 15 + 14 examples of 21 tokens, tokens split again by the judge, and two instructions.
INPUT_TOKENS, OUTPUT_TOKENS = 1500, 63


class JudgeSettings(Settings):
    """An OpenAI-compatible endpoint. It has no default: the user chooses whom to ask and pay."""

    url: Annotated[str, Field(pattern="^https?://")]
    """Address of the endpoint, such as https://api.openai.com/v1."""
    model: Text
    """Name of the language model that judges."""
    key_variable: Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]*$")]
    """Name of the environment variable that holds the key; the key itself is written nowhere."""
    input_price: NonNegative = 0.0
    """Price of a million tokens of prompts, in any currency; only the log's estimate needs it."""
    output_price: NonNegative = 0.0
    """Price of a million tokens of answers, in the same currency."""


class AutointerpSettings(LatentTextSettings):
    """SAEBench's autointerp with any OpenAI-compatible endpoint as judge."""

    judge: JudgeSettings
    """Who explains latents and tests the explanations."""


def list_keys(settings: AutointerpSettings) -> list[ApiKey]:
    """Return the judge's key."""
    return [ApiKey("judge", settings.judge.key_variable, settings.judge.url)]


def run(task: EvalTask) -> None:
    """SAEBench's autointerp; answers are kept beside the prepared folder and asked for once.

    Raises
    ------
    ValueError
        If the key is not set.
    """
    estimate_cost(task.settings)
    judge = CachedJudge(task.settings.judge, task.prepared.with_name(RESPONSES))
    run_with_judge(task, judge)


def estimate_cost(settings: AutointerpSettings) -> float:
    """Log and return what one dictionary costs at most, in the unit of the prices."""
    latents, judge = settings.n_latents, settings.judge
    price = INPUT_TOKENS * judge.input_price + OUTPUT_TOKENS * judge.output_price
    total = latents * price / 1e6
    logger.info(
        "judge %s: %d calls, about %d tokens in and %d out, about %.2f at the prices given",
        judge.model,
        2 * latents,
        latents * INPUT_TOKENS,
        latents * OUTPUT_TOKENS,
        total,
    )
    return float(total)


class CachedJudge:
    """Asks a chat endpoint, once for each question.

    Parameters
    ----------
    judge : JudgeSettings, or a mapping of them
        Whom to ask.
    folder : path
        One JSON file per question, named by its hash.
    """

    def __init__(self, judge: JudgeSettings | Mapping[str, Any], folder: Path) -> None:
        from openai import OpenAI

        asked: JudgeSettings = parse(JudgeSettings, judge, "evaluation.evals.autointerp.judge")
        key = os.environ.get(asked.key_variable)
        if not key:
            raise ValueError(
                f"evaluation.evals.autointerp: expected a key in {asked.key_variable}, "
                "which is not set"
            )
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            # they log what an endpoint answers, which may hold the key
            logging.getLogger(name).setLevel(logging.WARNING)
        self._model, self._folder = asked.model, folder
        self._url, self._key = asked.url, key
        self._client = OpenAI(api_key=key, base_url=asked.url)

    def __call__(self, messages: list[dict[str, str]], max_tokens: int) -> str:
        """Return the answer, from disk if the question was asked before.

        Raises
        ------
        ValueError
            If the endpoint gives none; the message never shows the key.
        """
        from openai import OpenAIError

        question: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": max_tokens,
        }
        path = self._folder / f"{hash_content(question)}.json"
        if path.is_file():
            return str(read_seal(path)["answer"])
        try:
            completion = self._client.chat.completions.create(**question, temperature=0)
        except OpenAIError as error:
            # without its cause, which a traceback would print
            raise ValueError(
                f"evaluation.evals.autointerp.judge: expected an answer of {self._url}, got: "
                f"{self._hide(str(error))}"
            ) from None
        answer = self._hide((completion.choices[0].message.content or "").strip())
        write_json(path, {**question, "answer": answer})
        return answer

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "(key)")


EVAL = Eval(
    settings=AutointerpSettings,
    prepare=prepare_texts,
    run=run,
    headlines=(Headline("autointerp", "autointerp", "autointerp_score"),),
    cost=cost,
    datasets=list_bundled_texts,
    hub=list_hub_data,
    keys=list_keys,
    scores_places=True,
)
