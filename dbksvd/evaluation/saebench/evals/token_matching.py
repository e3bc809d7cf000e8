"""token_matching: SAEBench's autointerp procedure, judged by matching tokens. No language model.

The "explanation" of a latent is the list of the tokens it fired on most; an example is said to
activate if one of them occurs in it. It needs no key, is the same on every run, and finds only
latents that stand for certain tokens: its score is no autointerp score and has another name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from dbksvd.base.headline import Headline
from dbksvd.evaluation.saebench.data.settings import list_bundled_texts, list_hub_data
from dbksvd.evaluation.saebench.entry import Eval
from dbksvd.evaluation.saebench.evals.llm_judge import (
    LatentTextSettings,
    cost,
    prepare_texts,
    run_with_judge,
)

if TYPE_CHECKING:
    from dbksvd.evaluation.saebench.task import EvalTask

NAME = "token_matching"
TOKENS = 5  # of an explanation
_EXPLANATION = re.compile(r"fires on (\[.*?\])\.\n\nHere are the examples:\n\n(.*)", re.DOTALL)


class TokenMatchingSettings(LatentTextSettings):
    """SAEBench's autointerp procedure with a judge that matches tokens: needs no key."""


def run(task: EvalTask) -> None:
    """SAEBench's autointerp with the token-matching judge.

    The JSON says ``token_matching`` as its type, so that nothing takes it for an LLM's judgement.
    """
    from dbksvd.base.files import read_json, write_json
    from dbksvd.evaluation.saebench.results import CORRECTIONS, find_result

    run_with_judge(task, match_tokens)
    path = find_result(task.output)
    result = read_json(path)
    result["eval_type_id"] = NAME
    write_json(path, result)
    metrics = result["eval_result_metrics"]["autointerp"]
    write_json(
        task.output / CORRECTIONS,
        {
            "token_matching_score": metrics["autointerp_score"],
            **dict.fromkeys(metrics),  # an LLM's score has these names
        },
    )


def match_tokens(messages: list[dict[str, str]], _max_tokens: int) -> str:
    """Answer SAEBench's two kinds of prompt: explain marked documents, or choose examples."""
    text = messages[-1]["content"]
    found = _EXPLANATION.search(text)
    if found is None:
        counts = Counter(
            token.lower() for token in re.findall(r"<<(.*?)>>", text, re.DOTALL) if token.strip()
        )
        ranked = sorted(counts, key=lambda token: (-counts[token], token))[:TOKENS]
        return f"activates on {json.dumps(ranked)}"
    tokens = json.loads(found.group(1))
    examples = [line.split(". ", 1)[-1].lower() for line in found.group(2).split("\n")]
    chosen = [
        str(place)
        for place, example in enumerate(examples, start=1)
        if any(token in example for token in tokens)
    ]
    return ", ".join(chosen) or "None"


EVAL = Eval(
    settings=TokenMatchingSettings,
    prepare=prepare_texts,
    run=run,
    headlines=(Headline("token matching", NAME, "token_matching_score"),),
    cost=cost,
    datasets=list_bundled_texts,
    hub=list_hub_data,
    scores_places=True,
)
