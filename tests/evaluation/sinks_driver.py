"""Prepares and scores one model by evals, with a norm limit or with positions left out by hand.

A process of its own, because SAEBench needs jaxtyping switched off before it is imported.
"""

import os

os.environ["JAXTYPING_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import contextlib
import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import prepare_eval
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import load_model

LAYER = 2


def leave_out(ids: list[int]):
    """Zero position 0 and the tokens `ids` by hand where SAEBench zeroes special tokens."""
    from sae_bench.sae_bench_utils import activation_collection

    collect = activation_collection.get_llm_activations

    def collect_zeroed(tokens, *args, **kwargs):
        activations = collect(tokens, *args, **kwargs)
        activations[torch.isin(tokens, torch.tensor(ids))] = 0
        activations[:, 0] = 0
        return activations

    return patch.object(activation_collection, "get_llm_activations", collect_zeroed)


def main() -> None:
    """Read the job from the first argument; write what was found beside the scores."""
    torch.set_num_threads(1)
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    loaded = load_model({"name": job["model"], "device": "cpu"})
    dictionary = Path(job["dictionary"])
    for name, settings in job["evals"].items():
        limit = job["norm_limit"] if find_eval(name).needs_norm_limit else None
        site = EvalSite("planted", LAYER, 0, loaded.kind, limit)
        (folder / "prepared" / name).mkdir(parents=True)
        with leave_out(job["left_out"]) if "left_out" in job else contextlib.nullcontext():
            prepare_eval(name, loaded, site, settings, folder / "prepared" / name)
    run_evals(
        dictionary,
        job["evals"],
        folder / "prepared",
        folder / "scores",
        load_model=lambda: loaded,
        norm_limit=job["norm_limit"],
    )
    report = {name: read_metrics(folder / "scores" / name) for name in job["evals"]}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
