"""The paper's experiments: planned without a network, refused in one line, and run on stand-ins.

A stand-in has the files of the hub's model or data set, and tiny or random contents.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from hub_stand_in import save_tokenizer, write_hub
from running import ROOT, copy_project, run_fork, run_snakemake

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import open_file
from dbksvd.base.files import read_json
from dbksvd.base.settings import SettingsError
from dbksvd.evaluation.saebench.model import name_hook
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.models.hooks import capture_activations, find_hook
from dbksvd.models.loading import load_model
from dbksvd.text.documents import prepare_text
from workflow.experiment import Experiment

NAMES = ["gemma-2-2b", "pythia-160m", "gpt2-small"]
WIDTH, LAYERS, POSITIONS = 16, 3, 64


def read_config(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text())


# --- before anything long -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("paper") / "clone")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_asks_no_hub_and_no_key(clone: Path, name: str):
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "OPENAI_API_KEY": "",
    }
    config = f"experiments/{name}.yaml"
    status, output = run_fork(clone, "--dry-run", config=config, environment=environment)
    assert status == 0, output
    jobs = output.split("Job stats:")[1]
    assert "check_access" in jobs
    assert "evaluate_dictionary" in jobs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "environment", "line"),
    [
        (
            "gemma-2-2b",
            {"HF_HUB_OFFLINE": "0", "OPENAI_API_KEY": ""},
            "error: evaluation.evals.autointerp.judge: expected the key of "
            "https://api.openai.com/v1 in the environment variable OPENAI_API_KEY",
        ),
        (
            "gpt2-small",
            {"HF_HUB_OFFLINE": "1"},
            "error: model.name: expected openai-community/gpt2 from the hub, which "
            "HF_HUB_OFFLINE=1 keeps from being asked",
        ),
    ],
)
def test_what_is_not_to_be_had_ends_the_run_at_once(
    clone: Path, tmp_path: Path, name: str, environment: dict[str, str], line: str
):
    done = run_snakemake(
        clone,
        *("--cores", "1"),
        config=f"experiments/{name}.yaml",
        environment={"HF_HOME": str(tmp_path), **environment},
    )
    assert done.returncode != 0
    results = clone / "results" / name
    assert (results / "logs" / "check_access.log").read_text().startswith(line)
    assert [path.name for path in results.iterdir() if path.name != "logs"] in ([], ["benchmarks"])


def test_layers_and_widths_that_the_model_has_not_are_named(tmp_path: Path):
    config = read_config("gpt2-small")
    config["activations"]["layers"] = [9, 13]
    with pytest.raises(
        SettingsError, match=r"^activations\.layers\[1\]: expected at most 12, .* got 13$"
    ):
        Experiment(config)
    sizes = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_layer": 12}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    config = read_config("gpt2-small")
    config["model"]["name"] = str(tmp_path)
    with pytest.raises(SettingsError, match=r"^model\.expect\.width: expected 768 in .*, got 8$"):
        Experiment(config)


def test_scored_documents_are_not_fitted():
    config = read_config("gpt2-small")
    del config["text"]["sources"][0]["skip"]
    with pytest.raises(
        SettingsError,
        match=r"^text\.sources\[0\]\.skip: expected a number .* evaluation\.evals\.core, which",
    ):
        Experiment(config)


# --- on stand-ins ---------------------------------------------------------------------------------


def make_gemma(folder: Path, vocabulary: int) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        sliding_window=8,
        **{"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 2},
    )
    Gemma2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_pythia(folder: Path, vocabulary: int) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()


def make_gpt2(folder: Path, vocabulary: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": POSITIONS}
    config = GPT2Config(vocab_size=vocabulary, **sizes, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path, int], None]] = dict(
    zip(NAMES, (make_gemma, make_pythia, make_gpt2), strict=True)
)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory, make_sentences) -> Path:
    """Folder of stand-ins: ``hub/`` with data sets, and a model for each experiment."""
    folder = tmp_path_factory.mktemp("stand-ins")
    sentences = make_sentences(300)
    write_hub(folder / "hub", sentences)
    torch.manual_seed(0)
    for name, make in MAKERS.items():
        make(folder / name, save_tokenizer(folder / name, sentences, bos=name == "gemma-2-2b"))
    return folder


def shrink(name: str, stand_ins: Path) -> dict[str, Any]:
    """Return an experiment on stand-ins: names and sizes differ, everything else is as shipped."""
    config = copy.deepcopy(read_config(name))
    source = config["text"]["sources"][0]
    source |= {"name": f"{stand_ins}/hub/{source['name']}", "limit": 200}
    if "skip" in source:
        source["skip"] = 50
    config["text"]["heldout_fraction"] = 0.2
    parameters = sum(
        weight.numel()
        for weight in load_model(
            {"name": str(stand_ins / name), "device": "cpu"}
        ).model.parameters()
    )
    expect = {"width": WIDTH, "layers": LAYERS, "parameters": parameters}
    config["model"] |= {"name": str(stand_ins / name), "expect": expect}
    sizes = {"layers": [2], "n_train_tokens": 400, "n_heldout_tokens": 60, "slices": 1}
    config["activations"] |= {**sizes, "context_length": 16, "batch_size": 8}
    config["shards"]["rows_per_shard"] = 150
    for settings in config["methods"].values():
        if settings["algorithm"] == "dbksvd":
            settings |= {"max_iter": 2, "batch_size": 200}
        if "groups" in settings:
            settings["groups"] = 8
    config["fits"] = [{"methods": ["dbksvd-signed"], "n_atoms": [32], "k": [4], "seeds": [0]}]
    core = config["evaluation"]["evals"]["core"]
    core |= {"texts": 8, "context_length": 16, "batch_size": 4}
    core["datasets"] = [f"{stand_ins}/hub/{each}" for each in core["datasets"]]
    config["evaluation"]["evals"] = {"core": core}
    return config


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_extracted_from_the_hubs_files(name: str, stand_ins: Path, tmp_path: Path):
    config = shrink(name, stand_ins)
    experiment = Experiment(config)
    manifest = prepare_text(config["text"], tmp_path / "text")
    (source,) = manifest["sources"]
    assert source == f"hub/{config['text']['sources'][0]['name']}"
    assert sum(manifest["documents"].values()) == 200
    settings = experiment.extraction("layer2")
    extract_slice(settings, 0, tmp_path / "part-0.h5", text=tmp_path / "text", gpus=0)
    with open_file(tmp_path / "part-0.h5") as file:
        assert file["train/activations"].shape == (400, WIDTH)
        assert file.attrs["model_kind"] == "causal"
        assert file.attrs["model_dtype"] == config["model"].get("dtype", "float32")
        assert bool(file.attrs["prepend_bos"]) == (name == "gemma-2-2b")
        tokens = file["train/token"][:]
    if name == "gemma-2-2b":
        assert 1 not in tokens  # its BOS token is dropped
    settings["model"]["expect"]["width"] = 768
    with pytest.raises(
        ValueError, match=rf"^model\.expect\.width: expected 768 in .*, got {WIDTH}$"
    ):
        extract_slice(settings, 0, tmp_path / "other.h5", text=tmp_path / "text", gpus=0)


@pytest.mark.filterwarnings("ignore:HookedTransformer:DeprecationWarning")
def test_layer_n_is_what_transformerlens_calls_n_minus_one(stand_ins: Path):
    import transformer_lens
    from transformer_lens import loading_from_pretrained

    folder = str(stand_ins / "pythia-160m")
    with (
        patch.object(loading_from_pretrained, "OFFICIAL_MODEL_NAMES", [folder]),
        patch.dict(loading_from_pretrained.MODEL_ALIASES, {folder: ["stand-in"]}),
    ):
        model = transformer_lens.HookedTransformer.from_pretrained_no_processing(
            folder, device="cpu"
        )
    loaded = load_model({"name": folder, "device": "cpu"})
    ids = torch.tensor([[3, 5, 7, 9, 11]])
    _, cache = model.run_with_cache(ids)
    got = capture_activations(loaded, find_hook(loaded, 2), ids, torch.ones_like(ids))
    assert name_hook(2) == "blocks.1.hook_resid_post"
    torch.testing.assert_close(got, cache["blocks.1.hook_resid_post"])
    assert not torch.allclose(got, cache["blocks.2.hook_resid_post"], atol=1e-3)
    for name, layer in zip(NAMES, (13, 9, 9), strict=True):  # the papers' 12, 8 and 8
        assert read_config(name)["activations"]["layers"] == [layer]


@pytest.mark.slow
def test_an_experiment_runs_on_stand_ins_from_text_to_scores(
    clone: Path, stand_ins: Path, tmp_path: Path
):
    config = shrink("gemma-2-2b", stand_ins)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    folder = "results/gemma-2-2b/layer2/evaluations/dbksvd-signed/m32-k4-s0"
    done = run_snakemake(
        clone,
        *("--cores", "2", f"{folder}/metrics.json"),
        config=str(tmp_path / "config.yaml"),
        environment={"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = clone / "results" / "gemma-2-2b"
    found = read_json(results / "access.json")["data_sets"]
    assert {Path(each["name"]).name for each in found} == {"pile-uncopyrighted", "openwebtext"}
    assert read_json(clone / folder / "metrics.json")["samples"] == 60
    core = read_metrics(clone / folder / "core")
    assert core["l0"] is not None
    assert 0 < core["l0"] <= 4
    assert core["ce_loss_without_sae"] is not None
