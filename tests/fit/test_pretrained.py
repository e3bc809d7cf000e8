"""Published SAEs join as a method: loaded, checked, folded to unit rows, saved as every fit is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows import Rows
from sae_lens import SAE

from dbksvd.base.files import read_json
from dbksvd.base.registry import find_source
from dbksvd.base.settings import parse
from dbksvd.dictionaries.loading import load_dictionary, load_sae
from dbksvd.fit.baselines.pretrained import METHOD, fit
from dbksvd.fit.baselines.pretrained_loading import WEIGHTS_ONLY
from dbksvd.fit.baselines.pretrained_releases import (
    PretrainedSettings,
    check_published,
    find_layer,
)
from dbksvd.fit.registry import METHODS
from dbksvd.fit.task import FitResult, FitTask

D, M = 12, 24
METADATA = {
    "model_name": "google/gemma-2-2b",
    "hook_name": "blocks.12.hook_resid_post",
    "layer": 13,
    "context_size": 128,
}


def parse_sae(settings: dict[str, Any]) -> PretrainedSettings:
    return parse(METHOD.settings, settings)


def make_task(settings: dict[str, Any], n_atoms: int = M, **metadata: Any) -> FitTask:
    x = torch.randn(300, D, generator=torch.Generator().manual_seed(5))
    return FitTask(
        Rows(x), Rows(x), n_atoms, 4, 0, parse_sae(settings),
        torch.device("cpu"), Path("unused"), METADATA | metadata,
    )  # fmt: skip


def make_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights whose decoder rows have norms from .5 to 3."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(M, D, generator=generator), dim=1)
    return {
        "W_enc": torch.randn(D, M, generator=generator) / D**0.5,
        "W_dec": decoder * torch.linspace(0.5, 3, M)[:, None],
        "b_enc": torch.randn(M, generator=generator) / 10,
        "b_dec": torch.randn(D, generator=generator) / 10,
    }


def make_sae(architecture: str, metadata: dict[str, Any], **changes: Any) -> SAE:
    weights = make_weights()
    extra: dict[str, Any] = {}
    if architecture == "topk":
        extra = {"k": 4}
        weights["W_dec"] = torch.nn.functional.normalize(weights["W_dec"], dim=1)
    elif architecture == "jumprelu":
        weights["threshold"] = torch.linspace(0.1, 0.6, M)
    elif architecture == "gated":
        weights |= {"b_gate": weights.pop("b_enc"), "b_mag": torch.ones(M) / 20}
        weights["r_mag"] = torch.linspace(-0.3, 0.3, M)
    config = {"architecture": architecture, "d_in": D, "d_sae": M, "metadata": metadata}
    sae = SAE.from_dict(config | extra | changes)
    sae.load_state_dict(weights)
    return sae


def save_sae(folder: Path, architecture: str, **changes: Any) -> SAE:
    hook = {"model_name": "gemma-2-2b", "hook_name": "blocks.12.hook_resid_post"}
    sae = make_sae(architecture, hook | changes.pop("metadata", {}), **changes)
    sae.save_model(folder)
    return sae


# SAELens saves BatchTopK and Matryoshka SAEs as jumprelu.
@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
def test_saved_fit_does_what_the_published_sae_does(tmp_path, architecture):
    sae = save_sae(tmp_path / "published", architecture)
    task = make_task({"path": str(tmp_path / "published")})
    result = fit(task)
    result.save(tmp_path / "fit")
    names = {path.name for path in (tmp_path / "fit").iterdir()}
    assert names == {"cfg.json", "sae_weights.safetensors", "fit.json", "log.csv"}
    dictionary = load_dictionary(tmp_path / "fit")
    torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(M))
    x = task.heldout.x
    with torch.no_grad():
        expected = sae.encode(x)
        norms = sae.W_dec.norm(dim=1)
        codes = dictionary.encode(x)
        torch.testing.assert_close(codes.to_dense(), expected * norms, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dictionary.decode(codes), sae.decode(expected))
    seal = read_json(tmp_path / "fit/fit.json")
    assert seal["l0"] == pytest.approx(float((expected != 0).sum()) / len(x))
    assert 0 < seal["l0"] < M
    assert seal["encoder_flops"] >= 2 * D * M
    assert seal["compared"] == ["width", "model", "place"]
    metadata = read_json(tmp_path / "fit/cfg.json")["metadata"]
    assert metadata["context_size"] == 128
    assert metadata["published"] == {"path": str(tmp_path / "published")}


def test_training_batchtopk_is_saved_and_taken_as_its_inference_form(tmp_path):
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    torch.manual_seed(0)
    trained = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=M, k=4))
    trained.topk_threshold.fill_(0.05)
    trained.save_inference_model(str(tmp_path / "published"))
    result = fit(make_task({"path": str(tmp_path / "published")}))
    original = SAE.load_from_disk(tmp_path / "published")
    x = torch.randn(50, D)
    sae = result.dictionary.sae
    assert sae.cfg.architecture() == "jumprelu"
    torch.testing.assert_close(sae(x), original(x))
    assert result.summary["compared"] == ["width"]  # it does not say what it was trained on


def store(tmp_path: Path, monkeypatch, files: dict[str, Path]) -> None:
    """Answer downloads from `files`, by repository and path: a hub that holds nothing else."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders

    def hf_hub_download(repo_id, filename, subfolder=None, **_):
        key = "/".join(filter(None, (repo_id, subfolder, filename)))
        if key not in files:
            raise LocalEntryNotFoundError(f"Cannot find {key}.\nCheck your connection.")
        return str(files[key])

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", hf_hub_download)


def save_and_load(result: FitResult, folder: Path) -> SAE:
    """Return what scoring reads of a fit."""
    result.save(folder)
    return load_sae(folder)


GEMMA = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}


def test_gemma_scope_layout(tmp_path, monkeypatch):
    """params.npz as in google/gemma-scope-2b-pt-res, whose sizes SAELens takes from names."""
    from sae_lens.loading import pretrained_sae_loaders
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    weights = make_weights()
    arrays = {name.lower().replace("w_", "w_"): t.numpy() for name, t in weights.items()}
    arrays["threshold"] = np.full(M, 0.2, np.float32)
    np.savez(tmp_path / "params.npz", **arrays)
    repo_id, folder = get_repo_id_and_folder_name(GEMMA["release"], GEMMA["id"])
    assert repo_id == "google/gemma-scope-2b-pt-res"
    store(tmp_path, monkeypatch, {f"{repo_id}/{folder}/params.npz": tmp_path / "params.npz"})
    loader = pretrained_sae_loaders.gemma_2_sae_huggingface_loader

    def load_small(**arguments):  # the stand-in is 12 x 24, not 2304 x 16384
        arguments["cfg_overrides"] = arguments["cfg_overrides"] | {"d_in": D, "d_sae": M}
        return loader(**arguments)

    loaders = pretrained_sae_loaders.NAMED_PRETRAINED_SAE_LOADERS
    monkeypatch.setitem(loaders, "gemma_2", load_small)
    task = make_task(GEMMA)
    sae = save_and_load(fit(task), tmp_path / "fit")
    x = task.heldout.x
    before = x @ weights["W_enc"] + weights["b_enc"]
    expected = before * (before > 0.2) @ weights["W_dec"] + weights["b_dec"]
    torch.testing.assert_close(sae(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(M))
    message = r"canonical: expected an SAE for the place blocks\.11\.hook_resid_post, got one for blocks\.12"
    with pytest.raises(ValueError, match=message):
        fit(make_task(GEMMA, hook_name="blocks.11.hook_resid_post"))


def write_saebench(folder: Path, content: Any, **trainer: Any) -> None:
    """ae.pt and config.json as dictionary_learning writes them and SAEBench publishes them."""
    torch.save(content, folder / "ae.pt")
    described = {
        "layer": 12, "dict_class": "AutoEncoderTopK", "k": 4, "activation_dim": D, "dict_size": M,
        "lm_name": "google/gemma-2-2b",
    }  # fmt: skip
    config = {"trainer": described | trainer, "buffer": {"ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))


SAEBENCH = {
    "release": "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
    "id": "blocks.12.hook_resid_post__trainer_0",
}


@pytest.fixture
def saebench(tmp_path, monkeypatch) -> Path:
    """Folder that stands for the SAE of SAEBench in the hub."""
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name

    repo_id, folder = get_repo_id_and_folder_name(SAEBENCH["release"], SAEBENCH["id"])
    files = {f"{repo_id}/{folder}/{name}": tmp_path / name for name in ("ae.pt", "config.json")}
    store(tmp_path, monkeypatch, files)
    return tmp_path


def test_saebench_layout_with_rows_rounded_in_bfloat16(saebench, monkeypatch):
    weights = make_weights()
    rows = torch.nn.functional.normalize(weights["W_dec"], dim=1).bfloat16().float()
    assert (rows.norm(dim=1) - 1).abs().max() > 1e-4
    content = {
        "encoder.weight": weights["W_enc"].T, "encoder.bias": weights["b_enc"],
        "decoder.weight": rows.T, "b_dec": weights["b_dec"], "k": torch.tensor(4),
    }  # fmt: skip
    write_saebench(saebench, content)
    monkeypatch.delenv(WEIGHTS_ONLY, raising=False)
    task = make_task(SAEBENCH)
    result = fit(task)
    sae, x = save_and_load(result, saebench / "fit"), task.heldout.x
    assert sae.cfg.architecture() == "topk"
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(M), atol=1e-6, rtol=0)
    before = torch.relu((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    top = before.topk(4, dim=1)
    codes = torch.zeros_like(before).scatter(1, top.indices, top.values)
    expected = codes @ rows + weights["b_dec"]
    assert ((sae(x) - expected).abs().amax(dim=1) < 1e-4).float().mean() > 0.98  # but for ties
    assert 1e-4 < result.summary["decoder_norm_deviation"] < 5e-3


def test_code_in_a_pt_file_is_refused_not_run(saebench, monkeypatch):
    ran = saebench / "ran"

    class Trap:
        def __reduce__(self):
            return (ran.touch, ())

    write_saebench(saebench, {"encoder.weight": Trap()})
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(ValueError, match=r"trainer_0: expected a file of tensors only, got: "):
        fit(make_task(SAEBENCH))
    assert not ran.exists()


def test_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    store(tmp_path, monkeypatch, {})
    with pytest.raises(ValueError, match=r"canonical: expected an SAE on the hub or in its cache, got LocalEntryNotFoundError: Cannot find \S+\.$"):  # fmt: skip
        fit(make_task(GEMMA))


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({}, {"n_atoms": 30}, r"^n_atoms: expected 24, the width of .*published, got 30$"),
        ({}, {"model_name": "google/gemma-2-9b"}, r"published: expected an SAE for the model google/gemma-2-9b, got one for gemma-2-2b$"),
        ({}, {"hook_name": "blocks.13.hook_resid_post"}, r"published: expected an SAE for the place blocks\.13\.hook_resid_post, got one for blocks\.12\.hook_resid_post$"),
        ({}, {"hook_name": "model.layers.12.mlp"}, r"published: expected an SAE for the place model\.layers\.12\.mlp, got one for blocks\.12"),
        ({"normalize_activations": "layer_norm"}, {}, r"published: expected an SAE whose normalize_activations is none, got 'layer_norm'"),
    ],
)  # fmt: skip
def test_wrong_sae_is_refused_in_one_line(tmp_path, changes, task, message):
    save_sae(tmp_path / "published", "standard", **changes)
    with pytest.raises(ValueError, match=message):
        fit(make_task({"path": str(tmp_path / "published")}, **task))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"architecture": "standard"}', "{'a': 1}"])
def test_a_broken_config_is_named(tmp_path, content):
    save_sae(tmp_path / "published", "standard")
    (tmp_path / "published" / "cfg.json").write_text(content)
    with pytest.raises(ValueError, match=r"published/cfg\.json: .*expected .*, got ") as caught:
        fit(make_task({"path": str(tmp_path / "published")}))
    assert "\n" not in str(caught.value)


def test_wrong_width_is_refused(tmp_path):
    save_sae(tmp_path / "published", "standard")
    task = make_task({"path": str(tmp_path / "published")})
    task.train = Rows(torch.randn(9, D + 1))
    message = r"published: expected an SAE for activations of width 13, got one for 12$"
    with pytest.raises(ValueError, match=message):
        fit(task)


def test_topk_over_rows_of_other_norms_is_refused(tmp_path):
    sae = make_sae("topk", {})
    sae.W_dec.data *= torch.linspace(0.9, 1.1, M)[:, None]
    sae.save_model(tmp_path / "published")
    with pytest.raises(ValueError, match=r"expected decoder rows of unit norm, got one that is 0\.1"):  # fmt: skip
        fit(make_task({"path": str(tmp_path / "published")}))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("openai-community/gpt2", "gpt2-small"),
        ("EleutherAI/pythia-160m-deduped", "pythia-160m-deduped"),
        ("/models/gemma-2-2b", "gemma-2-2b"),
        ("results/small/language_model", "language_model"),
    ],
)
def test_models_and_places_go_by_several_names(tmp_path, ours, theirs):
    hook = {"model_name": theirs, "hook_name": "blocks.13.hook_resid_pre"}
    save_sae(tmp_path / "published", "standard", metadata=hook)
    result = fit(make_task({"path": str(tmp_path / "published")}, model_name=ours))
    assert result.summary["compared"] == ["width", "model", "place"]


def test_ready_activations_are_compared_by_width_only(tmp_path):
    save_sae(tmp_path / "published", "standard")
    task = make_task({"path": str(tmp_path / "published")}, model_name="a.npy", hook_name=None)
    assert fit(task).summary["compared"] == ["width"]


def test_what_is_known_before_anything_is_fetched(tmp_path):
    save_sae(tmp_path / "published", "standard")
    check_published(parse_sae({"path": str(tmp_path / "published")}), M)
    check_published(parse_sae(GEMMA), 16384)
    check_published(parse_sae({"release": "someone/sae", "id": "any"}), 5)
    assert find_layer(parse_sae({"path": str(tmp_path / "published")})) == 13
    assert find_layer(parse_sae(GEMMA)) == 13
    assert find_layer(parse_sae(SAEBENCH)) == 13
    assert (
        find_layer(parse_sae({"release": "gpt2-small-res-jb", "id": "blocks.8.hook_resid_pre"}))
        == 8
    )
    assert find_layer(parse_sae({"release": "someone/sae", "id": "any"})) is None
    for settings, message in (
        ({"release": "gemma-scope-2b-pt-res-canonica", "id": "x"}, r"^release: expected a release .*, did you mean 'gemma-scope-2b-pt-res-canonical'\?, got"),
        (GEMMA | {"id": "layer_12/width_16k/canonica"}, r"^id: expected one of the 58 SAEs of gemma-scope-2b-pt-res-canonical, did you mean 'layer_12/width_16k/canonical'\?, got 'layer_12/width_16k/canonica'$"),
        ({"path": str(tmp_path)}, r"^path: expected a folder with cfg\.json, found none in"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check_published(parse_sae(settings), 5)


def test_the_check_needs_no_torch_and_the_fit_no_other_method():
    code = "import sys, dbksvd.fit.baselines.pretrained; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    from workflow.source_hash import _reach

    reached = _reach(Path.cwd(), [find_source(METHODS, "pretrained")])
    assert "dbksvd/fit/baselines/pretrained.py" in reached
    assert (
        not {
            "dbksvd/fit/sae/method.py",
            "dbksvd/fit/sae/train.py",
            "dbksvd/fit/ksvd/dbksvd.py",
            "dbksvd/dictionaries/kron.py",
        }
        & reached
    )
    assert not any("ops/pursuit" in path for path in reached)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"^published: expected exactly one of the keys path or release, got none$"),
        ({"path": "a", "release": "b"}, r"^published: expected exactly one of the keys path or"),
        ({"path": "a", "id": "b"}, r"^published: expected exactly one of the keys path or"),
        ({"release": "a/b"}, r"^published\.id: missing key$"),
        ({"id": "x"}, r"^published\.release: missing key$"),
    ],
)
def test_one_source_is_named(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        parse(METHOD.settings, settings, "published")
