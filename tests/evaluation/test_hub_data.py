"""Evals on SAEBench's own data sets, and one clear line where something is not to be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from hub_stand_in import save_tokenizer, write_hub

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.checks import check_evals, list_datasets, list_hub_reads
from dbksvd.evaluation.saebench.data import hub_data
from dbksvd.evaluation.saebench.registry import find_eval, parse_eval, parse_evals
from dbksvd.evaluation.saebench.results import find_result, read_metrics

ROOT = Path(__file__).parents[2]
PROBING = [
    "canrager/amazon_reviews_mcauley_1and5_sentiment",
    "codeparrot/github-code",
    "fancyzhx/ag_news",
    "Helsinki-NLP/europarl",
]
SIZES = {"train_size": 40, "test_size": 20, "context_length": 8}
TEXTS = {"total_tokens": 2048, "context_length": 32, "n_latents": 4, "dead_latent_threshold": 1}
EVALS = {
    "core": {"datasets": ["Skylion007/openwebtext"], "texts": 8, "context_length": 16, "batch_size": 4},
    "sparse_probing": {**SIZES, "datasets": PROBING, "k_values": [1, 2]},
    "scr": {**SIZES, "n_values": [2, 5], "probe_epochs": 1},
    "token_matching": {**TEXTS, "datasets": ["monology/pile-uncopyrighted"]},
    "ravel": {"entities": {"city": ["Country", "Language"]}, "batch_size": 4, "epochs": 1},
}  # fmt: skip


def run_python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        check=False,
    )


# --- evals on local folders of the hub's layout ---------------------------------------------------


def write_ravel(folder: Path) -> None:
    folder.mkdir(parents=True)
    cities = {"Paris": ("France", "French"), "Rome": ("Italy", "Italian")}
    prompts = {"Country": ["%s is in"], "Language": ["In %s they speak"]}
    for name, content in {
        "entity_attributes": {c: {"Country": n, "Language": s} for c, (n, s) in cities.items()},
        "attribute_to_prompts": prompts,
        "prompt_to_split": {prompt: "train" for each in prompts.values() for prompt in each},
        "entity_to_split": dict.fromkeys(cities, "train"),
    }.items():
        (folder / f"ravel_city_{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def scored(tmp_path_factory, make_sentences) -> Path:
    """Folder in which a random GPT-NeoX and 32 random atoms were scored on stand-ins."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path_factory.mktemp("hub data")
    sentences = make_sentences(300)
    hub = write_hub(folder / "hub", sentences)
    write_ravel(hub / "adamkarvonen/ravel_prompts")
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=save_tokenizer(folder / "lm", sentences),
        **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "max_position_embeddings": 64},
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder / "lm")
    atoms = torch.nn.functional.normalize(torch.randn(32, 16), dim=1)
    dictionary = folder / "pursuit" / "m32-k4-s0"
    Dictionary(atoms, torch.zeros(16), PursuitSettings(4, nonnegative=True)).save(dictionary)
    evals = {name: {**settings, "data": "hub"} for name, settings in EVALS.items()}
    job = json.dumps({"model": str(folder / "lm"), "hub": str(hub), "evals": evals})
    done = run_python("tests/evaluation/hub_driver.py", job, folder, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
def test_saebench_reads_its_own_names(scored):
    asked = json.loads((scored / "asked.json").read_text())
    assert asked["core"] == ["Skylion007/openwebtext"]
    assert asked["token_matching"] == ["monology/pile-uncopyrighted"]
    assert set(asked["ravel"]) == {"adamkarvonen/ravel_prompts"}
    assert set(asked["scr"]) == {"LabHC/bias_in_bios", "canrager/amazon_reviews_mcauley_1and5"}
    assert set(asked["sparse_probing"]) == {
        *("canrager/amazon_reviews_mcauley_1and5", "fancyzhx/ag_news"),
        *("codeparrot/github-code", "Helsinki-NLP/europarl"),
    }
    config = json.loads(find_result(scored / "scores" / "sparse_probing").read_text())
    assert config["eval_config"]["dataset_names"] == PROBING
    config = json.loads(find_result(scored / "scores" / "core").read_text())
    assert config["eval_config"]["dataset"] == "Skylion007/openwebtext"


@pytest.mark.slow
def test_scores_come_out(scored):
    core = read_metrics(scored / "scores" / "core")
    assert core["l0"] is not None
    assert 0 < core["l0"] <= 4
    assert core["ce_loss_score"] is not None
    probing = read_metrics(scored / "scores" / "sparse_probing")
    assert 0 < probing["sae_top_1_test_accuracy"] <= 1
    details = json.loads(find_result(scored / "scores" / "sparse_probing").read_text())
    assert {each["dataset_name"] for each in details["eval_result_details"]} == {
        f"{name}_results" for name in PROBING
    }
    pairs = json.loads(find_result(scored / "scores" / "scr").read_text())["eval_result_details"]
    assert len(pairs) == 8
    assert read_metrics(scored / "scores" / "ravel")["applicable"] == 0  # the model knows nothing


def test_code_is_told_by_its_ending_and_no_script_is_run(tmp_path, make_sentences, monkeypatch):
    hub = write_hub(tmp_path, make_sentences(20))
    (hub / "codeparrot/github-code/github-code.py").write_text("raise SystemExit('was run')")
    monkeypatch.setattr(hub_data, "locate", lambda name: f"{hub}/{name}")
    rows = hub_data.read_data_set(
        "codeparrot/github-code", streaming=True, split="train", trust_remote_code=True,
        languages=["C", "Python"],
    )  # fmt: skip
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["language"]] = counts.get(row["language"], 0) + 1
    assert counts == {"C": 80, "Python": 40}


def test_text_without_its_column_and_missing_data_are_named(tmp_path, make_sentences, monkeypatch):
    hub = write_hub(tmp_path, make_sentences(20))
    monkeypatch.setattr(hub_data, "locate", lambda name: f"{hub}/{name}")
    assert len(list(hub_data.stream_texts("monology/pile-uncopyrighted"))) == 20
    with pytest.raises(ValueError, match=r"LabHC/bias_in_bios: expected a column 'text', got hard"):
        next(hub_data.stream_texts("LabHC/bias_in_bios"))
    with pytest.raises(ValueError, match=r"^someone/none: expected it on the hub, got"):
        next(hub_data.stream_texts("someone/none"))


# --- settings -------------------------------------------------------------------------------------


def list_hub_names(name: str, settings: dict) -> list[str]:
    return find_eval(name).hub(parse_eval(name, settings))


def test_hub_data_need_not_be_held_out():
    settings = {"data": "hub", **SIZES}
    evals = {"sparse_probing": settings, "core": {"data": "hub", "datasets": ["a"]}}
    assert list_datasets(parse_evals(evals)) == []
    assert len(list_hub_names("sparse_probing", settings)) == 8
    assert list_hub_names("core", {"data": "hub"}) == ["Skylion007/openwebtext"]
    assert list_hub_names("scr", settings) == [
        "LabHC/bias_in_bios_class_set1",
        "canrager/amazon_reviews_mcauley_1and5",
    ]
    assert list_hub_names("scr", SIZES) == []
    chosen = ["LabHC/bias_in_bios_class_set1", *PROBING[:2]]
    reads = list_hub_reads(parse_evals({"sparse_probing": {**settings, "datasets": chosen}}))
    assert [(read["name"], read["streaming"]) for read in reads] == [
        ("LabHC/bias_in_bios", False),
        ("canrager/amazon_reviews_mcauley_1and5", False),
        ("codeparrot/github-code", True),
    ]
    assert {read["key"] for read in reads} == {"evaluation.evals.sparse_probing"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data": "hub", "datasets": ["a/b"]},
            r"scr\.datasets: expected some of LabHC/.*got 'a/b'",
        ),
        ({"datasets": ["a/b"]}, r"scr\.datasets: expected none without data: hub, got 'a/b'"),
    ],
)
def test_data_sets_that_saebench_cannot_read_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_evals(parse_evals({"scr": {**SIZES, **settings}}), "causal")


# --- one line for what is not to be had -----------------------------------------------------------

MODEL = {"name": "someone/model", "revision": "main"}
TEXT = {"key": "text.sources[0].name", "name": "someone/text", "streaming": True}
COPIED = {**TEXT, "streaming": False}
ASK = """
import json, sys
from dbksvd.models.access import check_access
for wanted in json.loads(sys.argv[1]):
    try:
        print(json.dumps(check_access(wanted)))
    except ValueError as error:
        assert "\\n" not in str(error)
        print(error)
"""


def ask(*wanted: dict, **environment: str) -> list[str]:
    done = run_python("-c", ASK, json.dumps(wanted), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_the_hub_nothing_is_waited_for(tmp_path):
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    lines = ask({"model": MODEL}, {"data_sets": [TEXT]}, {"data_sets": [COPIED]}, **home)
    what = r"which HF_HUB_OFFLINE=1 keeps from being asked"
    assert lines[0].startswith(f"model.name: expected someone/model from the hub, {what}")
    assert lines[1].startswith(f"text.sources[0].name: expected someone/text from the hub, {what}")
    assert lines[2] == lines[1]
    local = {"key": "k", "name": str(tmp_path), "streaming": True}
    assert json.loads(ask({"data_sets": [local]}, **home)[0])[1]["data_sets"][0]["name"]


def test_an_unreachable_hub_is_named(tmp_path):
    home = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    lines = ask({"model": MODEL}, {"data_sets": [TEXT]}, **home)
    assert lines[0].startswith("model.name: expected http://127.0.0.1:9 to give out someone/model")
    assert lines[1].startswith("text.sources[0].name: expected http://127.0.0.1:9 to give out")
    assert all("(without a network: a folder on this machine, or with HF" in line for line in lines)


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that access is checked by."""

    CONFIG = json.dumps(
        {"hidden_size": 8, "num_hidden_layers": 3, "architectures": ["XForCausalLM"]}
    )

    def do_GET(self):
        path = self.path.split("?")[0]
        if "/gated" in path:
            self._answer(403, "{}", {"X-Error-Code": "GatedRepo"})
        elif "/none" in path:
            self._answer(404, "{}", {"X-Error-Code": "RepoNotFound"})
        elif "/old" in path:
            self._answer(404, "{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.endswith("config.json"):
            self._answer(200, self.CONFIG, {"X-Repo-Commit": "c" * 40, "ETag": '"e"'})
        elif path.endswith("auth-check"):
            self._answer(200, "{}", {})
        else:
            self._answer(200, json.dumps({"id": "someone/text", "sha": "d" * 40}), {})

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _answer(self, status: int, content: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content.encode())

    def log_message(self, *_args):
        """Say nothing."""


def test_what_the_hub_refuses_is_named_and_what_it_gives_is_recorded(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    expect = {**MODEL, "expect": {"width": 8, "layers": 3, "parameters": 10**9}}
    wanted = [
        {"model": {**MODEL, "name": "someone/gated"}},
        {"model": {**MODEL, "name": "someone/none"}},
        {"model": {**MODEL, "revision": "old"}},
        {"model": {**MODEL, "expect": {"width": 16}}},
        {"model": expect, "layers": [1, 4]},
        {"data_sets": [{**TEXT, "name": "someone/none"}]},
        {"model": expect, "layers": [3], "data_sets": [TEXT]},
    ]
    home = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": where, "HF_HOME": str(tmp_path)}
    lines = ask(*wanted, **home)
    server.shutdown()
    server.server_close()
    assert lines[0] == (
        f"model.name: expected access to someone/gated, which is gated: accept its terms on {where} "
        "and set HF_TOKEN"
    )
    assert lines[1].startswith(f"model.name: expected a name on {where}, found no 'someone/none'")
    assert lines[2].startswith("model.name: someone/model has no such revision")
    assert lines[3] == "model.expect.width: expected 16 in someone/model, got 8"
    assert lines[4].startswith(
        "activations.layers: expected 0 to 3, the blocks of someone/model, got 4"
    )
    assert lines[5].startswith(f"text.sources[0].name: expected a name on {where}, found no")
    kind, facts = json.loads(lines[6])
    assert kind == "causal"
    assert facts["model"] == {**MODEL, "commit": "c" * 40, "width": 8, "layers": 3}
    assert facts["data_sets"] == [{"name": "someone/text", "revision": "d" * 40}]
