"""Prepares and scores evals on the hub's data sets, read from local folders of their layout.

A process of its own, because SAEBench needs jaxtyping switched off before it is imported.
"""

import os

os.environ["JAXTYPING_DISABLE"] = "1"

import json
import sys
from pathlib import Path
from unittest.mock import patch

import huggingface_hub
import torch

from dbksvd.evaluation.saebench.data import hub_data
from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import name_model, prepare_eval
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import load_model


def main() -> None:
    """Read the job from the first argument, write what was read and asked beside the scores."""
    torch.set_num_threads(1)
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    asked: list[str] = []

    def locate(name: str) -> str:
        asked.append(name)
        return f"{job['hub']}/{name}"

    def download(name: str, **_options: object) -> str:
        return locate(name)

    loaded = load_model({"name": job["model"], "device": "cpu"})
    site = EvalSite(name_model(loaded.name), 1, 0, loaded.kind)
    report: dict[str, list[str]] = {}
    for name, settings in job["evals"].items():
        asked.clear()
        (folder / "prepared" / name).mkdir(parents=True)
        with (
            patch.object(hub_data, "locate", locate),
            patch.object(huggingface_hub, "snapshot_download", download),
        ):
            prepare_eval(name, loaded, site, settings, folder / "prepared" / name)
        report[name] = list(asked)
    # Scoring finds everything prepared: the hub's names lead nowhere now.
    run_evals(
        *(folder / "pursuit" / "m32-k4-s0", job["evals"], folder / "prepared", folder / "scores"),
        load_model=lambda: loaded,
    )
    (folder / "asked.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
