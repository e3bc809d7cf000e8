"""Every eval, end to end, on a small language model that the tests train."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from trained_model import save_trained_model

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.saebench.evals.token_matching import match_tokens
from dbksvd.evaluation.saebench.results import find_result, read_metrics
from dbksvd.text.documents import iterate_documents, prepare_text

ROOT = Path(__file__).parents[2]
DATASETS = ["96_spam_is"]
PERTURBATION = {"train_size": 80, "test_size": 40, "context_length": 24, "n_values": [2, 5, 10]}
TEXTS = {"datasets": DATASETS, "total_tokens": 4096, "context_length": 32, "n_latents": 8}
EVALS = {
    "core": {"datasets": DATASETS, "texts": 16, "context_length": 32, "batch_size": 8},
    "mdl": {"datasets": DATASETS, "texts": 16, "context_length": 32, "num_bins": [8], "tokens": 256},
    "meta_structure": {"train_steps": 10, "batch_size": 64},
    "tpp": PERTURBATION,
    "scr": PERTURBATION,
    "token_matching": TEXTS,
    "autointerp": {**TEXTS, "judge": {"model": "m", "key_variable": "TEST_JUDGE_KEY"}},
    "absorption": {"min_letters": 2, "min_probe_f1": 0.02, "max_k": 2, "probe_epochs": 2},
    "ravel": {"data": "", "entities": {"city": ["Country", "Language"]}, "batch_size": 4, "epochs": 1},
}  # fmt: skip
SCHEMAS = {
    "core": "core.eval_output:CoreEvalOutput",
    "meta_structure": "meta_structure.eval_output:MetaStructureEvalOutput",
    "tpp": "scr_and_tpp.eval_output:TppEvalOutput",
    "scr": "scr_and_tpp.eval_output:ScrEvalOutput",
    "token_matching": "autointerp.eval_output:AutoInterpEvalOutput",
    "autointerp": "autointerp.eval_output:AutoInterpEvalOutput",
    "absorption": "absorption.eval_output:AbsorptionEvalOutput",
    "ravel": "ravel.eval_output:RAVELEvalOutput",
}
CITIES = [
    *(("Paris", "France", "French"), ("Lyon", "France", "French")),
    *(("Berlin", "Germany", "German"), ("Munich", "Germany", "German")),
    *(("Rome", "Italy", "Italian"), ("Milan", "Italy", "Italian")),
    *(("Madrid", "Spain", "Spanish"), ("Seville", "Spain", "Spanish")),
]
PROMPTS = {
    "Country": ["%s is a city in the country of", "Those who live in %s live in the country of"],
    "Language": ["Those who live in %s speak", "In %s most people speak"],
}


def write_ravel(folder: Path) -> Path:
    """Write RAVEL's four files for eight cities."""
    (folder / "base").mkdir(parents=True)
    cities = [city for city, _, _ in CITIES]
    for name, content in {
        "entity_attributes": {c: {"Country": n, "Language": s} for c, n, s in CITIES},
        "attribute_to_prompts": PROMPTS,
        "prompt_to_split": {prompt: "train" for prompts in PROMPTS.values() for prompt in prompts},
        "entity_to_split": dict.fromkeys(cities, "train"),
    }.items():
        (folder / "base" / f"ravel_city_{name}.json").write_text(json.dumps(content))
    return folder


def state_facts(repeats: int) -> list[str]:
    """Return documents, each with all facts of one city in an order of its own."""
    draw, documents = random.Random(0), []
    for city, *answers in CITIES:
        facts = [
            f"{prompt % city} {answer}."
            for prompts, answer in zip(PROMPTS.values(), answers, strict=True)
            for prompt in prompts
        ]
        documents += [" ".join(draw.sample(facts, len(facts))) for _ in range(repeats)]
    return documents


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """Folder of a run of every eval: a model of 2 layers, d = 64, and 128 random atoms."""
    folder = tmp_path_factory.mktemp("causal")
    text = {
        "sources": [{"kind": "sae_probes", "datasets": ["94_ai_gen", "100_news_fake"]}],
        "max_documents": 150,
        "heldout_fraction": 0.05,
    }
    prepare_text(text, folder / "text")
    ravel = write_ravel(folder / "ravel")
    texts = [document.text for document in iterate_documents(folder / "text", "train")]
    save_trained_model(folder / "lm", texts + state_facts(100))
    atoms = torch.nn.functional.normalize(
        torch.randn(128, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    dictionary = folder / "pursuit" / "m128-k4-s0"
    Dictionary(atoms, torch.zeros(64), PursuitSettings(4, nonnegative=True)).save(dictionary)
    evals = {**EVALS, "ravel": {**EVALS["ravel"], "data": str(ravel)}}
    job = json.dumps({"model": str(folder / "lm"), "evals": evals})
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tests" / "evaluation" / "saebench_driver.py",
            job,
            dictionary,
            folder,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def read(scored: Path, name: str) -> dict[str, float | None]:
    return read_metrics(scored / "scores" / name)


def read_report(scored: Path) -> dict:
    return json.loads((scored / "report.json").read_text())


@pytest.mark.slow
def test_jsons_follow_saebench_schemas(scored):
    assert set(read_report(scored)["seals"]) == set(EVALS)
    for name, place in SCHEMAS.items():
        module, schema = place.split(":")
        result = json.loads(find_result(scored / "scores" / name).read_text())
        output = getattr(import_module(f"sae_bench.evals.{module}"), schema)
        kind = TypeAdapter(output).validate_python(result).eval_type_id
        assert kind.startswith(name)
        assert result["sae_lens_release_id"] == "pursuit_m128-k4-s0"


@pytest.mark.slow
def test_core_costs_of_the_dictionary(scored):
    metrics = read(scored, "core")
    without, ablated = metrics["ce_loss_without_sae"], metrics["ce_loss_with_ablation"]
    assert 0 < without < math.log(1024) + 2
    score = (ablated - metrics["ce_loss_with_sae"]) / (ablated - without)
    assert metrics["ce_loss_score"] == pytest.approx(score, rel=1e-4)
    assert metrics["kl_div_with_sae"] > 0
    assert metrics["l0"] == pytest.approx(4, abs=0.5)
    assert metrics["explained_variance_corrected"] < 1


@pytest.mark.slow
def test_memoised_numbers_are_the_same(scored):
    for name in ("tpp", "scr"):
        memoised = read(scored, name)
        assert any(memoised.values())
        assert memoised == read_metrics(scored / "unmemoised" / name)


@pytest.mark.slow
def test_a_failing_eval_leaves_the_others(scored):
    report = read_report(scored)
    assert "did not: tpp (ValueError: n_values: expected at most 128" in report["failure"]
    assert report["failure"].count("ValueError") == 1
    assert report["kept"]


@pytest.mark.slow
def test_a_judge_is_asked_once(scored):
    report = read_report(scored)
    assert report["questions"] > 2
    assert report["questions again"] == report["questions"]
    answers = list((scored / "prepared" / "autointerp_responses").glob("*.json"))
    assert len(answers) == report["questions"]
    assert 0 <= read(scored, "autointerp")["autointerp_score"] <= 1


@pytest.mark.slow
def test_token_matching_has_a_name_of_its_own(scored):
    metrics = read(scored, "token_matching")
    assert 0.2 < metrics["token_matching_score"] <= 1
    assert metrics["autointerp_score"] is None


@pytest.mark.slow
def test_absorption_applies_or_says_why_not(scored):
    metrics = read(scored, "absorption")
    assert metrics["applicable"] == 1
    assert metrics["letters_with_probe"] >= 2
    assert 0 <= metrics["mean_full_absorption_score"] <= 1
    assert read_report(scored)["not applicable"] == {"applicable": 0, "letters_with_probe": 0}
    reason = json.loads((scored / "none" / "absorption" / "not_applicable.json").read_text())
    assert reason["reason"].startswith("only 0 of 26 letters")


@pytest.mark.slow
def test_ravel_asks_what_the_model_knows(scored):
    metrics = read(scored, "ravel")
    assert metrics["applicable"] == 1
    assert 16 <= metrics["prompts_known"] <= 32 == metrics["prompts_asked"]
    known = [metrics[f"prompts_known/city: {name}"] for name in ("Country", "Language")]
    assert sum(known) == metrics["prompts_known"]
    assert 0 <= metrics["disentanglement_score"] <= 1


@pytest.mark.slow
def test_shorter_passes_give_the_same_numbers(scored):
    for name in ("absorption", "ravel"):
        short, long = read(scored, name), read_metrics(scored / f"long {name}" / name)
        assert short == pytest.approx(long, rel=1e-5, abs=1e-5)
    assert read_report(scored)["passes"]["absorption"] == []
    assert read_report(scored)["passes"]["ravel"]


@pytest.mark.slow
def test_remaining_metrics_are_read(scored):
    assert read(scored, "mdl")["num_bins"] == 8
    assert read(scored, "mdl")["description_length"] > 0
    assert read(scored, "meta_structure")["decoder_fraction_variance_explained"] < 1


def test_matching_explains_and_chooses():
    ask = [
        {
            "role": "user",
            "content": "The activating documents ...:\n\n1. a<< cat>> and<< Cat>>\n2. b<<x>>",
        }
    ]
    explanation = match_tokens(ask, 30)
    assert explanation == 'activates on [" cat", "x"]'
    content = (
        'Here is the explanation: this neuron fires on [" cat", "q."].\n\n'
        "Here are the examples:\n\n1. the Cat\n2. a dog\n3. faq. page"
    )
    assert match_tokens([{"role": "user", "content": content}], 30) == "1, 3"
    assert match_tokens([{"role": "user", "content": content.replace("Cat", "cow").replace("q. p", "")}], 30) == "None"  # fmt: skip


@pytest.mark.slow
def test_results_hold_no_path_of_the_machine(scored):
    found = {}
    for part in ("scores", "prepared", "none"):
        for path in (scored / part).rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            # what the user writes in the config stays as it is
            content = content.replace(json.dumps(str(scored / "ravel")).encode(), b"")
            for root in (scored, ROOT, Path.home(), "/tmp/saebench-"):
                if f"{root}".encode() in content:
                    found[str(path.relative_to(scored))] = str(root)
    assert found == {}
