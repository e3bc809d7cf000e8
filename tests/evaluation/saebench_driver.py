"""Prepares and scores with every eval in one process, as the scripts do, and says what happened.

A process of its own, because SAEBench needs jaxtyping switched off before it is imported.
"""

import os

os.environ["JAXTYPING_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TEST_JUDGE_KEY"] = "key"

import contextlib
import json
import logging
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest.mock import patch

import torch

from dbksvd.evaluation.saebench import memoise
from dbksvd.evaluation.saebench.evals import absorption
from dbksvd.evaluation.saebench.evals.absorption_prompts import ReplayingModel
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel
from dbksvd.evaluation.saebench.preparation import name_model, prepare_eval
from dbksvd.evaluation.saebench.registry import parse_eval
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import place_sae, run_evals
from dbksvd.evaluation.saebench.shims import ravel_passes
from dbksvd.evaluation.saebench.task import EvalTask
from dbksvd.models.loading import load_model

ASKED: list[dict] = []


class Judge(BaseHTTPRequestHandler):
    """A chat endpoint that says the same to every question of a kind."""

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(question)
        explains = "activating documents" in question["messages"][-1]["content"]
        answer = "This neuron activates on words." if explains else "1, 2"
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "0", "object": "chat.completion", "created": 0, "model": "m"}
        body["choices"] = [choice]
        payload = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_args):
        """Say nothing."""


def run(job: dict, dictionary: Path, folder: Path) -> dict:
    """Return what the tests look at."""
    loaded = load_model({"name": job["model"], "device": "cpu"})
    site = EvalSite(name_model(loaded.name), 1, 0, loaded.kind)
    evals, prepared = job["evals"], folder / "prepared"
    for name, settings in evals.items():
        (prepared / name).mkdir(parents=True)
        prepare_eval(name, loaded, site, settings, prepared / name)

    def score(asked: dict, output: Path) -> dict:
        return run_evals(dictionary, asked, prepared, output, load_model=lambda: loaded)

    report: dict = {"seals": score(evals, folder / "scores")}
    report["questions"] = len(ASKED)
    # A removal of more latents than there are fails; what was scored before stays.
    times = {path: path.stat().st_mtime_ns for path in (folder / "scores" / "core").iterdir()}
    manifest = json.loads((prepared / "tpp" / "manifest.json").read_text())
    too_many = parse_eval("tpp", {**evals["tpp"], "n_values": [500]}).dump()
    manifest["settings"] = too_many
    (prepared / "tpp" / "manifest.json").write_text(json.dumps(manifest))
    try:
        score({**evals, "tpp": too_many}, folder / "scores")
    except ValueError as error:
        report["failure"] = str(error)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "scores" / "core").iterdir()}
    report["kept"] = kept == times
    manifest["settings"] = parse_eval("tpp", evals["tpp"]).dump()
    (prepared / "tpp" / "manifest.json").write_text(json.dumps(manifest))
    with patch.object(memoise, "memoise_encode", contextlib.nullcontext):
        score({"tpp": evals["tpp"], "scr": evals["scr"]}, folder / "unmemoised")
    score({"autointerp": evals["autointerp"]}, folder / "asked again")
    report["questions again"] = len(ASKED)
    with patch.object(ReplayingModel, "run_with_cache", SAEBenchModel.run_with_cache):
        score({"absorption": evals["absorption"]}, folder / "long absorption")
    whole = patch.object(ravel_passes, "shorten_passes", lambda *_: contextlib.nullcontext())
    with whole:
        score({"ravel": evals["ravel"]}, folder / "long ravel")
    report["passes"] = {}
    for name in ("absorption", "ravel"):
        with count_passes(loaded.model) as passes:
            score({name: evals[name]}, folder / "short")
        report["passes"][name] = passes
    report["not applicable"] = run_absorption(loaded, site, dictionary, folder)
    report["site"] = asdict(site)
    return report


@contextlib.contextmanager
def count_passes(model):
    """Yield a list that gets the tokens of each forward pass of a model."""
    passes: list[int] = []

    def look(_module, _args, kwargs):
        passes.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


def run_absorption(loaded, site: EvalSite, dictionary: Path, folder: Path) -> dict:
    """Return the metrics of absorption where no letter passes the gate."""
    from dbksvd.dictionaries.loading import load_sae

    sae = load_sae(dictionary)
    place_sae(sae, site)
    output = folder / "none" / "absorption"
    output.mkdir(parents=True)
    settings = absorption.AbsorptionSettings(min_probe_f1=1.0, max_k=1, probe_epochs=1)
    prepared = folder / "prepared" / "absorption"
    with contextlib.chdir(folder / "none"):
        absorption.run(EvalTask(sae, "d", site, settings, prepared, output, lambda: loaded))
    return read_metrics(output)


def main() -> None:
    """Read the job from the first argument, write the report beside the scores."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    job, dictionary, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    job["evals"]["autointerp"]["judge"]["url"] = f"http://127.0.0.1:{server.server_port}/v1"
    report = run(job, dictionary, folder)
    server.shutdown()
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
