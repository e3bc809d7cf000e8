"""Model folders as they come: pointers, cut files, missing shards, paths, positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_helpers import save_dinov2
from safetensors.torch import load_file, save_file

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import open_file
from dbksvd.base.local_files import is_path
from dbksvd.models.access import check_data_set, check_model
from dbksvd.models.loading import load_model
from dbksvd.models.settings import HubDataSet
from dbksvd.models.sizes import find_kind, find_sizes
from dbksvd.models.vision import load_image_model
from dbksvd.text.documents import iterate_documents, prepare_text

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


def load(folder: Path):
    return load_model({"name": str(folder), "device": "cpu"})


@pytest.fixture
def folder(tiny_causal, tmp_path) -> Path:
    return shutil.copytree(tiny_causal, tmp_path / "model")


def refuse(folder: Path, message: str, error: type[Exception] = ValueError, function=load) -> None:
    with pytest.raises(error, match=message) as caught:
        function(folder)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_told(folder, name):
    (folder / name).write_text(POINTER)
    refuse(folder, rf"^{folder}/{name}: expected .*, got a pointer of git-lfs \(git lfs pull")
    if name != "tokenizer.json":
        refuse(folder, "pointer", function=lambda each: find_sizes({"name": str(each)}))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]
)
@pytest.mark.parametrize("damage", ["cut", "no text", "empty", "list"])
def test_damaged_json_is_named(folder, tmp_path, name, damage):
    function = load
    if name == "preprocessor_config.json":
        folder = save_dinov2(tmp_path / "vision")
        function = lambda each: load_image_model({"name": str(each), "device": "cpu"})  # noqa: E731
    content = (folder / name).read_bytes()
    damaged = {"cut": content[: len(content) // 2], "no text": b"\xff\xfe\x00", "empty": b""}
    (folder / name).write_bytes(damaged.get(damage, b"[1, 2]"))
    refuse(folder, name if damage != "list" else "expected", function=function)
    if name == "config.json":
        for ask in (find_sizes, find_kind):
            refuse(folder, name, function=lambda each, ask=ask: ask({"name": str(each)}))


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_cut_weights_are_named(folder, kept):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 5 or not kept else int(kept * len(content))])
    message = rf"^{path}: expected whole safetensors weights, got {path.stat().st_size} bytes: "
    refuse(folder, message)
    refuse(folder, message, function=lambda each: find_sizes({"name": str(each)}))


def test_weights_in_several_files(folder):
    plain = load(folder)
    (folder / "model.safetensors").unlink()
    plain.model.save_pretrained(folder, max_shard_size="4KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    loaded = load(folder)
    assert loaded.sha256 is None
    for one, other in zip(plain.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(one, other)
    content = shards[0].read_bytes()
    shards[0].write_bytes(content[:-10])
    refuse(folder, rf"^{shards[0]}: expected whole safetensors weights")
    shards[0].unlink()
    shards[1].unlink()
    refuse(
        folder,
        rf"index\.json: expected {len(shards)} files of weights, found none named "
        rf"{shards[0].name}, {shards[1].name}$",
        OSError,
    )
    (folder / "model.safetensors.index.json").write_text("{}")
    refuse(folder, r"index\.json: expected a weight_map")


def test_weights_that_a_file_lacks_are_not_made_up(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    names = [name for name in weights if ".layers.1.attention." in name]
    save_file(
        {name: weights[name] for name in weights if name not in names}, path, {"format": "pt"}
    )
    refuse(folder, r"expected the weights of all blocks, found none for gpt_neox\.layers\.1\.")
    config = json.loads((folder / "config.json").read_text())
    save_file(weights, path, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    refuse(folder, rf"^{folder}: expected weights that fit config\.json, got RuntimeError")


def test_a_pooler_that_a_file_lacks_is_no_matter(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    path = folder / "model.safetensors"
    weights = {n: w for n, w in load_file(path).items() if not n.startswith("pooler")}
    save_file(weights, path, {"format": "pt"})
    assert load(folder).width == 16


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/data/model", True),
        ("./model", True),
        ("../model", True),
        ("~/model", True),
        ("models/tiny/final", True),
        (r"C:\models\tiny", True),
        ("model/", True),
        ("run/model.safetensors", True),
        ("openai-community/gpt2", False),
        ("gpt2", False),
        ("EleutherAI/pythia-70m.v2", False),
    ],
)
def test_a_path_is_a_path(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert is_path(name) == expected
    if not expected:
        return
    shown = str(Path(name).expanduser().absolute())
    message = r"^model\.name: expected a model folder, found none at "
    with pytest.raises(FileNotFoundError, match=message) as caught:
        load_model({"name": name})
    assert str(caught.value).endswith(shown)
    with pytest.raises(FileNotFoundError, match=message):
        check_model({"name": name}, [])
    assert find_sizes({"name": name}) is find_kind({"name": name}) is None
    with pytest.raises(ValueError, match=r"^text: expected a folder, found none at /"):
        check_data_set(HubDataSet(key="text", name=name))


def test_folders_that_are_no_model(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"1")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "weights.bin", r"got the file /.*weights\.bin$", FileNotFoundError)
    refuse(tmp_path / "empty", r"with config\.json, found none in /.*empty$", FileNotFoundError)
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "none such"}')
    refuse(tmp_path / "empty", "none such")


def test_a_vision_model_is_no_model_of_text(tmp_path):
    refuse(save_dinov2(tmp_path / "vision"), r"expected a model of text, got .* pixel_values$")


LIMITS = {
    "gpt2": 24,
    "roberta": 22,  # two rows of the table are for padding and what is before it
    "xlm-roberta": 22,
    "bert": 24,
    "opt": 24,
    "openai-gpt": 24,
    "bloom": None,
    "xlnet": None,
}


@pytest.fixture(params=list(LIMITS))
def limited(request, tiny_encoder, tmp_path) -> tuple[Path, int | None]:
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = request.param
    config_class = CONFIG_MAPPING[name]
    values = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
    values |= {"num_attention_heads": 2, "max_position_embeddings": 24, "pad_token_id": 1}
    values = {config_class.attribute_map.get(key, key): value for key, value in values.items()}
    sizes = {"opt": {"word_embed_proj_dim": 16, "ffn_dim": 32}, "xlnet": {"d_inner": 32}}
    if name in ("bloom", "xlnet"):
        values.pop("max_position_embeddings")
    values |= sizes.get(name, {"intermediate_size": 32})
    make = AutoModelForCausalLM if name in ("gpt2", "opt", "bloom") else AutoModel
    torch.manual_seed(0)
    make.from_config(config_class(**values)).save_pretrained(tmp_path / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_encoder / file, tmp_path / name / file)
    return tmp_path / name, LIMITS[name]


def test_the_context_ends_with_the_positions(limited, tmp_path, make_sentences):
    folder, limit = limited
    loaded = load(folder)
    assert loaded.max_length == limit
    if folder.name == "xlnet":
        return  # its blocks have the batch in the second place
    (tmp_path / "a.txt").write_text("\n".join(f"{line} cat" * 9 for line in make_sentences(80)))
    sources = [{"kind": "file", "path": str(tmp_path / "a.txt")}]
    prepare_text({"sources": sources, "heldout_fraction": 0.25}, tmp_path / "text")
    settings = {"model": {"name": str(folder), "device": "cpu"}, "layer": 1}
    settings |= {"n_train_tokens": 100, "n_heldout_tokens": 10, "context_length": limit or 40}
    extract_slice(settings, 0, tmp_path / "part.h5", text=tmp_path / "text")
    with open_file(tmp_path / "part.h5") as file:
        rows = file["train"]["activations"][:20]
    first = next(iterate_documents(tmp_path / "text", "train"))
    ids = loaded.tokenizer(
        first.text, truncation=True, max_length=limit or 40, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        states = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    np.testing.assert_allclose(rows, states[0, 1:21].numpy(), atol=1e-5)
    if limit is not None:
        settings["context_length"] = limit + 1
        with pytest.raises(
            ValueError,
            match=rf"context_length: expected at most {limit} tokens for .*got {limit + 1}",
        ):
            extract_slice(settings, 0, tmp_path / "part.h5", text=tmp_path / "text")
