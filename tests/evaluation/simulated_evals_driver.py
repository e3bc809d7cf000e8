"""Prepares and scores on a device, simulated where there is none, and says what happened.

A process of its own, because SAEBench needs jaxtyping switched off before it is imported.
"""

import os

os.environ["JAXTYPING_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import logging
import sys
import time
import traceback
from pathlib import Path

import sae_lens.loading.pretrained_sae_loaders  # noqa: F401  the simulation reaches what is there
import torch
from simulated_cuda import leave_out_kernels, use_cuda

from dbksvd.evaluation.saebench.model import EvalSite
from dbksvd.evaluation.saebench.preparation import name_model, prepare_eval
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.models.loading import load_model


def score(name: str, settings: dict, paths: dict, device: str) -> dict:
    """Return the metrics of one eval, prepared and scored on one device."""
    folder = Path(paths["folder"]) / device
    loaded = load_model({"name": paths["model"], "device": device})
    site = EvalSite(name_model(loaded.name), 1, 0, loaded.kind)
    (folder / "prepared" / name).mkdir(parents=True)
    prepare_eval(name, loaded, site, settings, folder / "prepared" / name)
    run_evals(
        *(Path(paths["dictionary"]), {name: settings}, folder / "prepared", folder / name),
        load_model=lambda: loaded,
        device=str(loaded.device),
    )
    return read_metrics(folder / name / name)


def main() -> None:
    """Read the job from the first argument; write the report where it says."""
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    job = json.loads(sys.argv[1])
    report = {}
    with leave_out_kernels():
        for name, settings in job["evals"].items():
            started = time.perf_counter()
            report[name] = {}
            try:
                with use_cuda():
                    report[name]["cuda"] = score(name, settings, job, "cuda")
                report[name]["seconds"] = time.perf_counter() - started
                if name in job["on_cpu"]:
                    report[name]["cpu"] = score(name, settings, job, "cpu")
            except Exception:  # noqa: BLE001
                report[name]["error"] = traceback.format_exc()
            Path(job["report"]).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
