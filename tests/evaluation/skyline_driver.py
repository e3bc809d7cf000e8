"""Scores the planted directions by ravel with its skyline, in a process of its own.

SAEBench needs jaxtyping switched off before it is imported.
"""

import os

os.environ["JAXTYPING_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import sys
from pathlib import Path

import torch
from planted_facts import LAYER, WIDTH, save_planted_model, write_ravel

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import prepare_eval
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import load_model


def main() -> None:
    """Work in the folder of the first argument; write the metrics there."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    directions = save_planted_model(folder / "lm")
    settings = {
        "data": str(write_ravel(folder / "ravel")),
        "entities": {"city": ["Country", "Continent"]},
        **{"batch_size": 8, "pairs": 100, "epochs": 8, "new_tokens": 2, "skyline": True},
    }
    Dictionary(directions, torch.zeros(WIDTH), PursuitSettings(WIDTH)).save(folder / "d" / "m32")
    loaded = load_model({"name": str(folder / "lm"), "device": "cpu"})
    prepared = folder / "prepared" / "ravel"
    prepared.mkdir(parents=True)
    prepare_eval("ravel", loaded, EvalSite("planted", LAYER, 0, loaded.kind), settings, prepared)
    run_evals(
        *(folder / "d" / "m32", {"ravel": settings}, folder / "prepared", folder / "scores"),
        load_model=lambda: loaded,
    )
    metrics = read_metrics(folder / "scores" / "ravel")
    (folder / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
