"""Attention sinks: rows of massive norm, left out by the fit and left alone by every eval.

A random GPT-2 gets them planted: at position 0, and at every period. With attention switched off
no other position sees them, so that fits and scores must be those of the model without them, over
the same positions.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import create_file, open_file, read_rows, write_rows
from dbksvd.activations.norm_notes import describe_norms
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.evaluation.heldout import measure_folder
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.report.norm_notes import list_norm_notes
from dbksvd.text.documents import iterate_documents, prepare_text

ROOT = Path(__file__).parents[2]
LAYER, WIDTH, CONTEXT, PLANTED = 2, 24, 48, 3000.0
TOKENS = {"n_train_tokens": 3000, "n_heldout_tokens": 600}
CORE = {"datasets": ["96_spam_is"], "texts": 24, "context_length": CONTEXT, "batch_size": 8}
PROBING = {"train_size": 200, "test_size": 100, "context_length": CONTEXT}
REMOVING = {"train_size": 80, "test_size": 40, "context_length": CONTEXT, "n_values": [2, 5]}
POOLED = {"sparse_probing": PROBING, "tpp": REMOVING, "scr": REMOVING}


def make_tokenizer(texts: list[str]) -> Any:
    """Return a byte-level BPE tokenizer without a token in front of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def save_models(folder: Path, tokenizer: Any) -> int:
    """Save the models "without", "with" and "attending"; return the id of the period."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=WIDTH,
        n_layer=3,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        tie_word_embeddings=False,  # the period's embedding must not be its logit too
    )
    model = GPT2LMHeadModel(config).eval()
    period = tokenizer.convert_tokens_to_ids(".")
    embeddings = (model.transformer.wpe.weight, model.transformer.wte.weight)
    whole = {name: value.clone() for name, value in model.state_dict().items()}

    def save(name: str, *, planted: bool, attending: bool) -> None:
        model.load_state_dict(whole)
        with torch.no_grad():
            if planted:
                direction = torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
                embeddings[0][0] += PLANTED * direction
                embeddings[1][period] += PLANTED * direction.flip(0)
            if not attending:
                for block in model.transformer.h:
                    block.attn.c_proj.weight.zero_()
                    block.attn.c_proj.bias.zero_()
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)

    save("without", planted=False, attending=False)
    save("with", planted=True, attending=False)
    save("attending", planted=True, attending=True)
    return int(period)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[str, Any]:
    """Return folder, id of the period and the parts of the three models."""
    folder = tmp_path_factory.mktemp("sinks")
    text = {
        "sources": [{"kind": "sae_probes", "datasets": ["94_ai_gen", "100_news_fake"]}],
        "max_documents": 200,
        "heldout_fraction": 0.2,
    }
    prepare_text(text, folder / "text")
    texts = [document.text for document in iterate_documents(folder / "text", "train")]
    period = save_models(folder, make_tokenizer(texts))
    for name in ("without", "with", "attending"):
        settings = {
            "model": {"name": str(folder / name), "device": "cpu"},
            **{"layer": LAYER, "context_length": CONTEXT, "batch_size": 8, **TOKENS},
        }
        extract_slice(settings, 0, folder / f"{name}.h5", text=folder / "text")
    return {"folder": folder, "period": period}


def read_part(path: Path) -> dict[str, np.ndarray]:
    """Return the records of both splits of a part."""
    with open_file(path) as file:
        return {split: read_rows(file[split], 0, len(file[split]["token"])) for split in TOKENS_OF}


TOKENS_OF = {"train": TOKENS["n_train_tokens"], "heldout": TOKENS["n_heldout_tokens"]}


def find_sinks(records: np.ndarray, period: int) -> np.ndarray:
    return (records["position"] == 0) | (records["token"] == period)


def drop_sinks(path: Path, output: Path, period: int) -> Path:
    """Write a part without the rows at position 0 and at periods."""
    kept = {split: rows[~find_sinks(rows, period)] for split, rows in read_part(path).items()}
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
    tables = {split: len(rows) for split, rows in kept.items()}
    with create_file(output, tables, WIDTH, "float32", attributes) as file:
        for split, rows in kept.items():
            write_rows(file[split], 0, rows)
    return output


@pytest.fixture(scope="module")
def fitted(planted) -> dict[str, Any]:
    """Shards and dictionaries of the model with sinks, and of the one without over their rows."""
    folder, period = planted["folder"], planted["period"]
    clean = drop_sinks(folder / "without.h5", folder / "clean.h5", period)
    shards = {}
    settings = {"rows_per_shard": 1000, "seed": 3}
    for name, part in (("with", folder / "with.h5"), ("without", clean)):
        write_shards([part], settings, folder / f"shards-{name}")
        shards[name] = ActivationShards.open(folder / f"shards-{name}")
        model = DBKSVD(48, 4, max_iter=3, polish_iter=1, nonnegative=True, seed=0)
        model.fit(shards[name]).dictionary_.save(folder / f"dbksvd-{name}")
    return {**planted, "shards": shards}


def score(fitted: dict[str, Any], model: str, evals: dict[str, Any], **job: Any) -> dict[str, Any]:
    """Return what the driver found for a model, by the dictionary of the model with sinks."""
    folder, output = fitted["folder"], fitted["folder"] / f"scored-{model}-{len(evals)}"
    output.mkdir()
    content = {
        "model": str(folder / model),
        "dictionary": str(folder / "dbksvd-with"),
        "norm_limit": fitted["shards"]["with"].norm_limit,
        "evals": evals,
        **job,
    }
    done = subprocess.run(
        [sys.executable, ROOT / "tests/evaluation/sinks_driver.py", json.dumps(content), output],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    return {**report, "folder": output}


@torch.no_grad()
def score_plainly(
    model: Path, ids: torch.Tensor, period: int, dictionary: Path
) -> dict[str, float]:
    """Return core's scores by transformers alone: position 0, periods and <|endoftext|> stay."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    learned = Dictionary.load(dictionary)
    mask = (ids != period) & (ids != 0)
    mask[:, 0] = False

    def run(change: Any) -> torch.Tensor:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            changed = change(hidden)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = plain.transformer.h[LAYER - 1].register_forward_hook(hook)
        logits = plain(ids).logits
        handle.remove()
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
        )
        return loss[mask[:, :-1]].mean()

    found: dict[str, float] = {}

    def replace(hidden: torch.Tensor) -> torch.Tensor:
        codes = learned.encode(hidden.flatten(0, 1))
        rebuilt = learned.decode(codes).unflatten(0, ids.shape)
        scored = hidden[mask].double()
        error = (scored - rebuilt[mask]).square().sum()
        total = (scored - scored.mean(0)).square().sum()
        found["explained_variance_corrected"] = float(1 - error / total)
        dense = codes.to_dense().unflatten(0, ids.shape)[mask]
        found["l0"] = float((dense != 0).sum(1).double().mean())
        return torch.where(mask[..., None], rebuilt, hidden)

    without, ablated = run(lambda hidden: hidden), run(torch.zeros_like)
    changed = run(replace)
    found["ce_loss_without_sae"], found["ce_loss_with_sae"] = float(without), float(changed)
    found["ce_loss_score"] = float((ablated - changed) / (ablated - without))
    return found


def test_the_fit_of_a_model_with_sinks_is_that_of_the_model_without(fitted):
    folder, shards = fitted["folder"], fitted["shards"]
    for split, rows in read_part(folder / "with.h5").items():
        sinks = find_sinks(rows, fitted["period"])
        described = shards["with"].manifest["splits"][split]
        assert described["masked_rows"] == described["left_out"]["rows"] == sinks.sum() > 12
        assert described["rows_over_10_medians"] == sinks.sum()
        norms = np.linalg.norm(rows["activations"].astype(np.float64), axis=1)
        assert norms[sinks].min() > 10 * np.median(norms) > norms[~sinks].max()
    manifest = shards["with"].manifest
    assert manifest["norms"]["multiple"] == 10
    assert (
        shards["with"].norm_limit == manifest["norms"]["limit"] == 10 * manifest["norms"]["median"]
    )
    assert json.loads((folder / "shards-with/norm_limit.json").read_text()) == {
        "limit": shards["with"].norm_limit
    }
    n = len(shards["without"])
    assert torch.equal(shards["with"].read(0, n), shards["without"].read(0, n))
    weights = [
        load_file(folder / f"dbksvd-{name}" / "sae_weights.safetensors")
        for name in ("with", "without")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    measured = [
        measure_folder(
            folder / f"dbksvd-{name}", ActivationShards.open(folder / f"shards-{name}", "heldout")
        )
        for name in ("with", "without")
    ]
    assert measured[0] == measured[1]
    assert 0.3 < measured[0]["explained_variance"] < 0.99


@pytest.mark.slow
def test_scores_of_a_model_with_sinks_are_those_of_the_model_without(fitted):
    folder, period = fitted["folder"], fitted["period"]
    found = score(fitted, "with", {"core": CORE, **POOLED})
    ids = load_file(found["folder"] / "prepared/core/record.safetensors")["ids"]
    assert (ids == period).sum() > 10
    expected = score_plainly(folder / "without", ids, period, folder / "dbksvd-with")
    for name, value in expected.items():
        assert found["core"][name] == pytest.approx(value, abs=2e-5), name
    by_hand = score(fitted, "without", POOLED, norm_limit=None, left_out=[period])
    for name in POOLED:
        assert found[name] == pytest.approx(by_hand[name], abs=1e-6), name
        assert len(found[name]) > 3


@pytest.mark.slow
def test_core_leaves_sinks_alone_in_a_model_that_attends_to_them(fitted):
    folder, period = fitted["folder"], fitted["period"]
    found = score(fitted, "attending", {"core": CORE})
    ids = load_file(found["folder"] / "prepared/core/record.safetensors")["ids"]
    expected = score_plainly(folder / "attending", ids, period, folder / "dbksvd-with")
    for name, value in expected.items():
        assert found["core"][name] == pytest.approx(value, abs=2e-5), name


def list_norm_warnings(caplog) -> list[logging.LogRecord]:
    """Return the warnings of norms: the rows of a tiny model are also many copies."""
    own = "dbksvd.activations.sharding"
    return [r for r in caplog.records if r.levelname == "WARNING" and r.name == own]


def test_kept_sinks_are_warned_of_with_their_numbers(planted, tmp_path, caplog):
    path = planted["folder"] / "with.h5"
    rows = read_part(path)
    norms = np.linalg.norm(rows["train"]["activations"].astype(np.float64), axis=1)
    x = rows["train"]["activations"].astype(np.float64)
    sinks = find_sinks(rows["train"], planted["period"])
    squares = np.square(x - x.mean(0)).sum(1)
    share = squares[sinks].sum() / squares.sum()
    for number, multiple in enumerate((None, 10_000)):
        output = tmp_path / f"layer{number}" / "shards"
        caplog.clear()
        with caplog.at_level(logging.INFO):
            manifest = write_shards([path], {"outlier_norm_multiple": multiple}, output)
        train = manifest["splits"]["train"]
        assert train["masked_rows"] == train["left_out"]["rows"] == 0
        assert train["kept_outliers"]["rows"] == sinks.sum()
        assert train["kept_outliers"]["variance_share"] == pytest.approx(share, rel=1e-9)
        assert train["kept_outliers"]["largest_norm"] == pytest.approx(norms.max(), rel=1e-6)
        positions = dict(train["kept_outliers"]["positions"])
        assert positions[0] == (rows["train"]["position"] == 0).sum()
        tokens = dict(train["kept_outliers"]["tokens"])
        assert tokens[planted["period"]] == (rows["train"]["token"] == planted["period"]).sum()
        (warning,) = list_norm_warnings(caplog)
        expected = (
            f"kept {sinks.sum()} of 3,000 tokens ({100 * sinks.mean():.3g} %) whose norm is over "
            f"10 times the median {np.median(norms):.3g}; they hold {100 * share:.3g} % of the total"
        )
        assert expected in warning.getMessage()
        assert f"{norms.max() / np.median(norms):,.0f} times the median" in warning.getMessage()
        assert list_norm_notes([output / "manifest.json"]) == [
            f"Warning, layer{number}: {describe_norms(manifest)[1]}."
        ]


def test_what_is_left_out_is_said(planted, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        manifest = write_shards([planted["folder"] / "with.h5"], {}, tmp_path / "layer2" / "shards")
    count, told = manifest["splits"]["train"]["left_out"]["rows"], caplog.text
    assert f"left out {count} of 3,000 tokens ({count / 30:.3g} %)" in told
    assert "at position 0" in told
    assert list_norm_warnings(caplog) == []
    (note,) = list_norm_notes([tmp_path / "layer2/shards/manifest.json", tmp_path / "none.json"])
    assert note.startswith(f"layer2: left out {count} of 3,000 tokens")


def test_rows_of_an_encoder_are_all_kept(planted, tmp_path):
    part = tmp_path / "encoder.h5"
    shutil.copy(planted["folder"] / "with.h5", part)
    with h5py.File(part, "r+") as file:
        file.attrs["model_kind"] = "encoder"
    default = write_shards([part], {}, tmp_path / "a")
    kept = write_shards([part], {"outlier_norm_multiple": None}, tmp_path / "b")
    for split in ("train", "heldout"):
        assert default["splits"][split] == kept["splits"][split]
        assert default["splits"][split]["rows"] == TOKENS_OF[split]
    assert ActivationShards.open(tmp_path / "a").norm_limit is None
