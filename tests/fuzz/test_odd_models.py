"""Odd model folders: refused in one line, or extracted as transformers itself would compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import transformers
from damaging import damage_file
from examples import try_examples
from front_door import knock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from dbksvd.activations.from_text import extract_slice
from dbksvd.text.documents import iterate_documents, prepare_text

WORDS = [
    "the",
    "a",
    "small",
    "cat",
    "dog",
    "runs",
    "sleeps",
    "under",
    "over",
    "red",
    "blue",
    "tree",
    "house",
    "river",
    ".",
    ",",
    "[SEP]",
]
VOCABULARY = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
SIZES = {
    "vocab_size": len(VOCABULARY), "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 24,
}  # fmt: skip
# Other names for the sizes, which transformers maps to the usual ones.
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {}, "DistilBert": {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
    "GPT2": {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 24}, "GPTNeoX": {},
    "Llama": {"num_key_value_heads": 1}, "Qwen2": {"num_key_value_heads": 1},
    "Mpt": {"d_model": 8, "n_layers": 2, "n_heads": 2, "max_seq_len": 24},
    "Bloom": {"n_layer": 2, "n_head": 2}, "OPT": {"ffn_dim": 16, "word_embed_proj_dim": 8},
    "Electra": {"embedding_size": 8}, "Roberta": {"pad_token_id": 0},
}  # fmt: skip
HOSTILE = [None, 0, -1, 3, 1.5, "8", "", [], {}, True, 10**7]
KEYS = [
    "model_type", "architectures", "hidden_size", "n_embd", "dim", "num_hidden_layers", "n_layer",
    "n_layers", "vocab_size", "max_position_embeddings", "dtype", "pad_token_id", "auto_map",
    "quantization_config", "tie_word_embeddings", "of nothing",
]  # fmt: skip
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
DAMAGES = ["cut", "empty", "pointer", "missing", "folder", "list"]
LINES = [
    " ".join(np.random.default_rng(number).choice(WORDS[:-1], size=3 + number % 5))
    for number in range(60)
] + ["the [SEP] cat", "[PAD] runs", "unknown words here"]


def save_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """Folders of a random model of each family, and the text."""
    base = tmp_path_factory.mktemp("odd models")
    (base / "text.txt").write_text("\n".join(dict.fromkeys(LINES)))
    source = {"kind": "file", "path": str(base / "text.txt")}
    prepare_text(
        {"sources": [source], "max_documents": 100, "heldout_fraction": 0.3}, base / "text"
    )
    found = {"text": base / "text"}
    for name, more in FAMILIES.items():
        torch.manual_seed(len(found))
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
        model = transformers.AutoModel.from_config(config)
        model.save_pretrained(base / name)
        save_tokenizer(base / name, VOCABULARY)
        found[name] = base / name
    return found


@st.composite
def oddities(draw: st.DrawFn) -> tuple[str, Any]:
    """Return what is odd about a folder."""
    kind = draw(st.sampled_from(["nothing", "key", "key", "file", "file", "tokenizer", "weights"]))
    if kind == "key":
        return kind, (draw(st.sampled_from(KEYS)), draw(st.sampled_from(["drop", *HOSTILE])))
    if kind == "file":
        return kind, (draw(st.sampled_from(FILES)), draw(st.sampled_from(DAMAGES)))
    if kind == "tokenizer":
        return kind, draw(st.sampled_from(["larger", "another", "no words", "added", "none"]))
    if kind == "weights":
        return kind, draw(st.sampled_from(["nan", "float16", "bfloat16", "missing", "shape"]))
    return kind, None


def make_odd(folder: Path, kind: str, what: Any) -> None:
    """Change a model folder in one way."""
    if kind == "key":
        config = json.loads((folder / "config.json").read_text())
        if what[1] == "drop":
            config.pop(what[0], None)
        else:
            config[what[0]] = what[1]
        (folder / "config.json").write_text(json.dumps(config))
    elif kind == "file":
        damage_file(folder / what[0], what[1])
        if what[1] == "list":
            (folder / what[0]).write_text("[]")
    elif kind == "tokenizer":
        change_tokenizer(folder, what)
    elif kind == "weights":
        path = folder / "model.safetensors"
        weights = load_file(path)
        name = sorted(weights)[len(weights) // 2]
        if what == "nan":
            weights[name].fill_(torch.nan)
        elif what in ("float16", "bfloat16"):
            weights = {key: value.to(getattr(torch, what)) for key, value in weights.items()}
        elif what == "missing":
            del weights[name]
        else:
            weights[name] = weights[name][..., :1].clone()
        save_file(weights, path, metadata={"format": "pt"})


def change_tokenizer(folder: Path, kind: str) -> None:
    words = list(VOCABULARY)
    if kind == "larger":
        save_tokenizer(folder, VOCABULARY | {f"new{i}": len(words) + i for i in range(9)})
    elif kind == "another":
        save_tokenizer(folder, {word: number for number, word in enumerate(reversed(words))})
    elif kind == "no words":
        save_tokenizer(folder, {"[PAD]": 0, "[UNK]": 1, "elsewhere": 2})
    elif kind == "added":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["cat", "sleeping", "river"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["dog"]})
        tokenizer.save_pretrained(folder)
    else:
        for path in folder.glob("tokenizer*"):
            path.unlink()


def recompute(folder: Path, rows: h5py.Group, layer: int, text: Path, split: str) -> None:
    """Check rows against the model's own hidden states, document by document."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = {document.index: document.text for document in iterate_documents(text, split)}
    documents = rows["document"][:]
    assert len(set(documents)) > 1
    for index in dict.fromkeys(documents):
        mine = documents == index
        positions, tokens = rows["position"][:][mine], rows["token"][:][mine]
        ids = np.array(tokenizer.encode(texts[index]).ids[:16])
        if "[SEP]" not in texts[index] and "[PAD]" not in texts[index]:
            np.testing.assert_array_equal(tokens, ids[positions])
        whole = ids.copy()
        whole[positions] = tokens
        with torch.no_grad():
            states = model(
                input_ids=torch.tensor(whole)[None], output_hidden_states=True
            ).hidden_states
        wanted = states[layer][0][positions].float().numpy()
        np.testing.assert_allclose(rows["activations"][:][mine], wanted, atol=2e-5, rtol=1e-4)


@given(family=st.sampled_from(sorted(FAMILIES)), oddity=oddities())
@try_examples(70)
def test_odd_model_folders(saved, tmp_path_factory, family, oddity):
    kind, what = oddity
    folder = tmp_path_factory.mktemp("case") / "model"
    shutil.copytree(saved[family], folder)
    make_odd(folder, kind, what)
    settings = {
        "model": {"name": str(folder), "device": "cpu"}, "layer": 1, "context_length": 16,
        "n_train_tokens": 60, "n_heldout_tokens": 20, "batch_size": 4,
    }  # fmt: skip
    part = folder.parent / "part.h5"
    _, refusal = knock(
        lambda: extract_slice(settings, 0, part, text=saved["text"]),
        str(folder), folder.name, "model", "layer", "activations", "tokenizer",
    )  # fmt: skip
    if refusal is not None:
        assert not part.exists()
        # transformers rebuilds Qwen2's tokenizer as another kind than the file is of
        assert kind != "nothing" or family == "Qwen2", refusal
        return
    assert (kind, what) not in [("tokenizer", name) for name in ("larger", "no words", "none")]
    assert (kind, what) not in [("weights", "nan"), ("weights", "shape")]
    assert kind != "file" or what[0] == "tokenizer_config.json"
    with h5py.File(part) as file:
        assert np.isfinite(file["train"]["activations"][:]).all()
        for split in ("train", "heldout"):
            recompute(folder, file[split], 1, saved["text"], split)
