from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dbksvd import language_model_steps
from dbksvd.base.files import hash_file
from dbksvd.evaluation.saebench.evals.absorption import find_word_position
from dbksvd.facts import read_facts
from dbksvd.language_model import build_model, train_language_model
from dbksvd.language_model_data import LETTERS, choose_rows, train_tokenizer
from dbksvd.language_model_settings import LanguageModelSettings
from dbksvd.language_model_steps import choose_precision, measure_loss, scale_rate
from dbksvd.models.loading import load_model
from dbksvd.models.sizes import find_kind

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "layers": 1,
    "width": 32,
    "heads": 2,
    "vocabulary": 300,
    "context_length": 16,
    "batch_size": 8,
    "tokens": 16 * 8 * 60,
    "heldout_tokens": 512,
    "lr": 0.01,
    "measure_every": 20,
    "device": "cpu",
    "precision": "float32",
}


def read_progress(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["state"])["progress"]


def test_trained_model_is_a_plain_folder(text_folder, tmp_path):
    seal = train_language_model(SETTINGS, text_folder, tmp_path / "lm", tmp_path / "checkpoint")
    assert json.loads((tmp_path / "lm.json").read_text()) == seal
    assert seal["files"] == {path.name: hash_file(path) for path in (tmp_path / "lm").iterdir()}
    assert [row["step"] for row in seal["log"]] == [20, 40, 60]
    assert seal["heldout_loss"] < seal["log"][0]["heldout_loss"] < math.log(300)
    assert seal["sample"].startswith("The")
    assert seal["precision"] == "float32"
    loaded = load_model({"name": str(tmp_path / "lm"), "device": "cpu"})
    assert (loaded.kind, loaded.n_layers, loaded.width, loaded.max_length) == (
        "causal",
        1,
        32,
        1024,
    )
    assert find_kind({"name": str(tmp_path / "lm")}) == "causal"
    assert loaded.tokenizer.pad_token_id is not None


def test_tokenizer_has_every_letter_as_one_token():
    texts = ["the word has the first letter: x"] * 50
    tokenizer = train_tokenizer(texts, 306)
    assert len(tokenizer) == 306
    for letter in LETTERS:
        assert len(tokenizer(letter)["input_ids"]) == 1
        assert tokenizer.decode(tokenizer(letter)["input_ids"]) == letter
    assert find_word_position(tokenizer) == -6
    with pytest.raises(ValueError, match="expected 5000 tokens with all of"):
        train_tokenizer(texts, 5000)


@pytest.mark.slow
def test_training_goes_on_to_the_same_weights(text_folder, tmp_path, monkeypatch):
    whole = {**SETTINGS, "checkpoint_seconds": 0}
    train_language_model(whole, text_folder, tmp_path / "whole", tmp_path / "a")
    job = json.dumps(whole | {"tokens": whole["tokens"]})
    command = [sys.executable, ROOT / "scripts" / "train_language_model.py"]
    command += ["--settings", job, "--text", text_folder]
    command += ["--output", tmp_path / "killed", "--checkpoint", tmp_path / "b"]
    process = subprocess.Popen(
        list(map(str, command)), env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "b" / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed").exists()
    before = read_progress(tmp_path / "b" / "checkpoint.safetensors")
    assert 0 < before["step"] < 60
    steps = []

    def choose_rows_noting(count, step, size, seed):
        steps.append(step)
        return choose_rows(count, step, size, seed)

    monkeypatch.setattr(language_model_steps, "choose_rows", choose_rows_noting)
    seal = train_language_model(whole, text_folder, tmp_path / "killed", tmp_path / "b")
    assert steps == list(range(before["step"], 60))  # none is done again
    assert seal["seconds"] > before["seconds"] > 0
    assert [row["step"] for row in seal["log"]] == [20, 40, 60]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-4)


def test_checkpoint_of_another_training_is_left_alone(text_folder, tmp_path, caplog):
    train_language_model(
        {**SETTINGS, "checkpoint_seconds": 0}, text_folder, tmp_path / "lm", tmp_path / "c"
    )
    with caplog.at_level("WARNING"):
        train_language_model({**SETTINGS, "seed": 1}, text_folder, tmp_path / "lm", tmp_path / "c")
    assert "it is of another settings" in caplog.text


def test_loss_is_that_of_the_library_in_both_precisions():
    tokenizer = train_tokenizer(["the word has the first letter: x"] * 50, 306)
    settings = LanguageModelSettings(tokens=4096, layers=1, width=32, heads=2, vocabulary=306)
    model = build_model(settings, tokenizer, torch.device("cpu"))
    rows = np.random.default_rng(0).integers(306, size=(5, 256))  # more than one block of logits
    ids = torch.from_numpy(rows)
    wanted = model(input_ids=ids, labels=ids).loss
    wanted.backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    loss = measure_loss(model, rows)
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)
    rough = measure_loss(model, rows, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < abs(float(rough.detach() - wanted.detach())) < 0.01


def test_precision_is_looked_up_only_where_it_is_left_open(monkeypatch):
    cpu = torch.device("cpu")
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert choose_precision("float32", cpu) == torch.float32
    for feature, wanted in (("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=feature: {name: True})
        assert choose_precision("auto", cpu) == wanted


def test_an_epoch_sees_every_row_once():
    rows = np.concatenate([choose_rows(10, step, 4, seed=3) for step in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert list(rows[:10]) != list(rows[10:])
    assert [round(scale_rate(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 99)] == [
        *(0.1, 1.0, 1.0, 0.55, 0.1),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 33}, "width: expected a multiple of heads = 2, got 33"),
        ({"vocabulary": 200}, "vocabulary: expected at least 284, got 200"),
        ({"tokens": 100}, "tokens: expected at least 128, got 100"),
        (
            {"precision": "half"},
            "precision: expected one of 'auto', 'float32', 'bfloat16', got 'half'",
        ),
        ({"max_positions": 8}, "max_positions: expected at least 16, got 8"),
        ({"facts": {"data": "nowhere", "repeats": 1}}, "facts.data: expected nowhere/base"),
    ],
)
def test_bad_settings_are_named(text_folder, tmp_path, change, message):
    with pytest.raises((ValueError, OSError), match=rf"model\.train\.{message}"):
        train_language_model({**SETTINGS, **change}, text_folder, tmp_path / "lm", tmp_path / "c")


def test_facts_are_stated_in_many_orders():
    documents = read_facts(ROOT / "experiments" / "ravel", 3)
    assert len(set(documents)) == len(documents) == 3 * 86
    oslo = [document for document in documents if "Oslo" in document]
    assert len(oslo) == 3
    assert all("Oslo is a city in the country of Norway." in document for document in oslo)
