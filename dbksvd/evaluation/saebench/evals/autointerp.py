"""autointerp: explanations of latents written and tested by a language model over an API."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbksvd.base.files import hash_content, read_seal, write_json
from dbksvd.evaluation.saebench.evals.llm_judge import prepare_texts, run_judged
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.task import EvalTask

if TYPE_CHECKING:
    from dbksvd.models.loading import LoadedModel

logger = logging.getLogger(__name__)

RESPONSES = "autointerp_responses"
# Per latent: 15 + 14 examples of 21 tokens, tokens split again by the judge, and two instructions.
INPUT_TOKENS, OUTPUT_TOKENS = 1500, 63


def prepare(loaded: LoadedModel, site: EvalSite, settings: Mapping[str, Any], to: Path) -> None:
    """Record activations; see `judged.prepare_texts`."""
    prepare_texts(loaded, site, settings, to)


def run(task: EvalTask) -> None:
    """SAEBench's autointerp with any OpenAI-compatible endpoint.

    Settings: see `judged.run_judged`, and ``judge``: url, model, key_variable (name of the
    environment variable with the key), input_price and output_price (per million tokens).
    Answers are kept beside the prepared folder and asked for once.

    Raises
    ------
    ValueError
        If the key is not set.
    """
    judge = task.settings["judge"]
    estimate_cost(task.settings)
    run_judged(task, CachedJudge(judge, task.prepared.with_name(RESPONSES)))


def estimate_cost(settings: Mapping[str, Any]) -> float:
    """Log and return what one dictionary costs at most, in the unit of the prices."""
    latents, judge = settings["n_latents"], settings["judge"]
    cost = (
        latents
        * (
            INPUT_TOKENS * judge.get("input_price", 0)
            + OUTPUT_TOKENS * judge.get("output_price", 0)
        )
        / 1e6
    )
    logger.info(
        "judge %s: %d calls, about %d tokens in and %d out, about %.2f at the prices given",
        judge["model"],
        2 * latents,
        latents * INPUT_TOKENS,
        latents * OUTPUT_TOKENS,
        cost,
    )
    return float(cost)


class CachedJudge:
    """Asks a chat endpoint, once for each question.

    Parameters
    ----------
    judge : mapping
        url, model, key_variable.
    folder : path
        One JSON file per question, named by its hash.
    """

    def __init__(self, judge: Mapping[str, Any], folder: Path) -> None:
        from openai import OpenAI

        key = os.environ.get(judge["key_variable"])
        if not key:
            raise ValueError(
                f"evaluation.evals.autointerp: expected a key in {judge['key_variable']}, "
                "which is not set"
            )
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            # they log what an endpoint answers, which may hold the key
            logging.getLogger(name).setLevel(logging.WARNING)
        self._model, self._folder = judge["model"], folder
        self._url, self._key = judge["url"], key
        self._client = OpenAI(api_key=key, base_url=judge["url"])

    def __call__(self, messages: list[dict[str, str]], max_tokens: int) -> str:
        """Return the answer, from disk if the question was asked before.

        Raises
        ------
        ValueError
            If the endpoint gives none; the message never shows the key.
        """
        from openai import OpenAIError

        question = {"model": self._model, "messages": messages, "max_tokens": max_tokens}
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
