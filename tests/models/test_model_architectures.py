"""Many architectures of transformers, tiny and random: rows are the model's own hidden states."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from dbksvd.activations.from_text import extract_slice
from dbksvd.models.attributes import read_attributes
from dbksvd.models.sizes import read_config, read_sizes
from dbksvd.text.documents import iterate_documents

LAYERS, WIDTH, ROWS = 2, 16, 40
COMMON = {
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
ENCODERS = {
    "bert": {},
    "big_bird": {},
    "camembert": {},
    "convbert": {"embedding_size": 16},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {},
    "distilbert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "ernie": {},
    "esm": {},
    "fnet": {},
    "ibert": {},
    "megatron-bert": {},
    "modernbert": {},
    "mpnet": {},
    "nystromformer": {},
    "rembert": {"input_embedding_size": 8, "output_embedding_size": 8},
    "roberta": {},
    "roformer": {},
    "xlm-roberta": {},
}
CAUSAL = {
    "biogpt": {},
    "bloom": {},
    "cohere": {},
    "ctrl": {"dff": 32},
    "falcon": {"head_dim": None},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "granite": {},
    "llama": {},
    "mamba": {"state_size": 4},
    "mistral": {},
    "mpt": {"expansion_ratio": 2},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "openai-gpt": {},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": WIDTH},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "qwen3": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "xglm": {"ffn_dim": 32},
}
# Transformers lists their states from the first block's output on.
WITHOUT_EMBEDDINGS = ("mamba",)


def make_config(name: str, changes: dict) -> object:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[name]
    names = config_class.attribute_map
    default = config_class()
    values = {names.get(key, key): value for key, value in COMMON.items()}
    values = {key: value for key, value in values.items() if hasattr(default, key)} | changes
    return config_class(**{key: value for key, value in values.items() if value is not None})


@pytest.fixture(scope="module", params=[*ENCODERS, *CAUSAL])
def saved(request, tiny_encoder, tmp_path_factory) -> tuple[str, Path, object]:
    """Name, folder and the model itself."""
    from transformers import AutoModel, AutoModelForCausalLM

    name = request.param
    config = make_config(name, ENCODERS.get(name, CAUSAL.get(name, {})))
    torch.manual_seed(0)
    make = AutoModelForCausalLM if name in CAUSAL else AutoModel
    model = make.from_config(config).eval()
    folder = tmp_path_factory.mktemp("models") / name
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_encoder / file, folder / file)
    return name, folder, model


def test_rows_are_the_hidden_states_of_transformers(saved, text_folder, tmp_path):
    name, folder, model = saved
    layer = 1
    settings = {"model": {"name": str(folder), "device": "cpu"}, "layer": layer}
    settings |= {"n_train_tokens": ROWS, "n_heldout_tokens": 5, "context_length": 10}
    extract_slice({**settings, "batch_size": 4}, 0, tmp_path / "part.h5", text=text_folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    wanted: list[np.ndarray] = []
    for document in iterate_documents(text_folder, "train"):
        ids = torch.tensor([tokenizer(document.text)["input_ids"]])
        if ids.shape[1] > 10:
            ids = torch.cat([ids[:, :9], ids[:, -1:]], dim=1)
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        state = states[layer - (name in WITHOUT_EMBEDDINGS)]
        wanted.extend(state[0, 1:-1].numpy())  # all but [CLS] and [SEP]
        if len(wanted) >= ROWS:
            break
    with h5py.File(tmp_path / "part.h5") as file:
        got = file["train"]["activations"][:]
        assert file.attrs["model_kind"] == ("causal" if name in CAUSAL else "encoder")
    np.testing.assert_allclose(got, np.stack(wanted[:ROWS]), atol=1e-5)
    assert got.std() > 1e-3


def test_sizes_are_read_without_torch_as_transformers_says(saved, monkeypatch):
    _, folder, model = saved
    config = model.config
    path = folder / "config.json"
    assert (config.hidden_size, config.num_hidden_layers) == (WIDTH, LAYERS)

    def refuse(_path):
        raise AssertionError("transformers was asked")

    monkeypatch.setattr("dbksvd.models.attributes._ask_transformers", refuse)
    assert read_attributes(read_config(path), path) == (WIDTH, LAYERS)


def test_sizes_that_only_the_class_knows(tmp_path):
    from transformers import FunnelConfig

    config = FunnelConfig(block_sizes=[2, 1], d_model=24)
    config.save_pretrained(tmp_path)
    sizes = read_sizes(tmp_path / "config.json")
    assert (sizes.width, sizes.layers) == (config.hidden_size, config.num_hidden_layers) == (24, 3)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # the rest is the default
    sizes = read_sizes(tmp_path / "config.json")
    assert (sizes.width, sizes.layers) == (768, 12)
    (tmp_path / "config.json").write_text('{"model_type": "none such"}')
    with pytest.raises(ValueError, match=r"config\.json: expected a width and a number of layers"):
        read_sizes(tmp_path / "config.json")
