"""Tokenizers: what the files say, what transformers makes of them, and what the model knows."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizer_families import FAMILIES, SPELLED
from tokenizers import Tokenizer

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.hdf5 import open_file
from dbksvd.evaluation.saebench.model import SAEBenchModel
from dbksvd.models.loading import load_model
from dbksvd.models.tokenizer import compare_ids, load_tokenizer
from dbksvd.text.documents import Document, prepare_text
from dbksvd.text.tokens import tokenize_documents

TYPES = {"words": "gpt_neox"}
ODD = [
    "Hello World! 12345 £ über naïve 你好 x\ty\nz two spaces",
    "don't, (really) stop... <a> [b] 3.14",
    "a\n\nb\r\nc  d",
]


def save_family(folder: Path, family: str, texts: list[str]) -> int:
    size = FAMILIES[family](folder, texts)
    (folder / "config.json").write_text(json.dumps({"model_type": TYPES.get(family, family)}))
    return size


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory, make_sentences):
    folder = tmp_path_factory.mktemp("tokenizers") / request.param
    save_family(folder, request.param, make_sentences(200))
    tokenizer, file = load_tokenizer(str(folder), {})
    return request.param, tokenizer, file


def test_usual_families_are_as_their_files_say(family, make_sentences):
    name, tokenizer, file = family
    texts = make_sentences(50, seed=3)
    compare_ids(tokenizer, file, texts if name == "t5" else [*texts, *ODD], name)


def test_special_tokens_in_a_text_are_text(family):
    name, tokenizer, file = family
    plain = Tokenizer.from_file(str(file))
    special = {tokenizer.convert_tokens_to_ids(word) for word in SPELLED[name]}
    for number, word in enumerate(SPELLED[name]):
        text = f"the cat {word} runs{word}"
        (got,) = tokenize_documents(
            [Document(number, "train", text)], tokenizer,
            context_length=64, tokens_per_document=None,
        )  # fmt: skip
        assert len(got.kept)
        assert not special & set(got.ids[got.kept].tolist())
        inside = got.ids[got.kept[0] : got.kept[-1] + 1].tolist()
        if name == "t5":  # its vocabulary has them as pieces: left out, and counted
            assert got.spelled == 2
        else:
            assert got.spelled == 0
            assert not special & set(inside)
            assert inside == tokenizer(text, add_special_tokens=False)["input_ids"]
        # without the setting, the tokenizers library reads a special token here
        assert special & set(plain.encode(text, add_special_tokens=False).ids)


def test_evals_read_special_tokens_as_text_too(tiny_encoder):
    loaded = load_model({"name": str(tiny_encoder), "device": "cpu"})
    model = SAEBenchModel(loaded, "tiny")
    tokens = model.to_tokens(["the [SEP] cat [PAD]", "the"])
    unknown = loaded.tokenizer.unk_token_id
    the, cat = loaded.tokenizer.convert_tokens_to_ids(["the", "cat"])
    assert tokens[0].tolist() == [2, the, *[unknown] * 3, cat, *[unknown] * 3, 3]
    assert model.mask_text(tokens).sum(dim=1).tolist() == [8, 1]


@pytest.mark.parametrize("length", [8, 33, 128])
def test_long_texts_are_cut_where_no_token_changes(family, length, make_sentences):
    _, tokenizer, _ = family
    words = " ".join(make_sentences(1200, seed=7))
    texts = [words, words.replace(" ", "\n", 2000), words.replace(" ", ". "), words + " naïve 你好",
             words.replace(" ", ""), "  ".join(words.split()), words.replace("the ", "the\t12345 "),
             "a" * 20_000 + " " + words, words[:20_000]]  # fmt: skip
    documents = [Document(index, "train", text.strip()) for index, text in enumerate(texts)]
    got = tokenize_documents(documents, tokenizer, context_length=length, tokens_per_document=None)
    for document, tokens in zip(documents, got, strict=True):
        whole = tokenizer(
            document.text, truncation=True, max_length=length, return_special_tokens_mask=True
        )
        assert tokens.ids.tolist() == whole["input_ids"], document.index
        around = np.asarray(whole["special_tokens_mask"], dtype=bool)
        assert (len(tokens.kept) + tokens.spelled) == (~around).sum()


def test_a_line_of_many_words_costs_what_is_read_of_it(family):
    name, tokenizer, _ = family
    text = "the small cat runs under " * 400_000  # 2 million words, 10 MB
    start = time.perf_counter()
    (got,) = tokenize_documents(
        [Document(0, "train", text)], tokenizer, context_length=32, tokens_per_document=None
    )
    assert time.perf_counter() - start < 1, name  # all of it takes ten times as long
    assert len(got.ids) == 32


def copy_model(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def extract(model: Path, text: Path, tmp_path: Path, **changes):
    settings = {"model": {"name": str(model), "device": "cpu"}, "layer": 1, "context_length": 16}
    settings |= {"n_train_tokens": 50, "n_heldout_tokens": 10, **changes}
    extract_slice(settings, 0, tmp_path / "part.h5", text=text)
    with open_file(tmp_path / "part.h5") as file:
        return file["train"]["token"][:], file["train"]["activations"][:]


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_a_model_without_tokenizer_files_is_refused(kind, request, tmp_path):
    folder = copy_model(request.getfixturevalue(f"tiny_{kind}"), tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"model: expected .*tokenizer.* \(?.*tokenizer\.json"):
        load_model({"name": str(folder), "device": "cpu"})


def test_other_files_of_a_tokenizer_do_too(tiny_encoder, tmp_path):
    folder = copy_model(tiny_encoder, tmp_path / "model")
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ValueError, match=r"\(BertTokenizer\): tokenizer\.json or vocab\.txt, foun"):
        load_model({"name": str(folder), "device": "cpu"})
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    loaded = load_model({"name": str(folder), "device": "cpu"})
    assert loaded.tokenizer_file is None
    words = loaded.tokenizer("the cat")["input_ids"]
    assert words == [2, vocabulary["the"], vocabulary["cat"], 3]


def test_a_tokenizer_that_transformers_builds_otherwise_is_refused(
    tiny_causal, text_folder, tmp_path
):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path / "model"
    config = Qwen2Config(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_causal / name, folder / name)
    with pytest.raises(
        ValueError, match=r"Qwen2Tokenizer the ids that .*tokenizer\.json gives, \[\d.*, got \[5, 5"
    ) as caught:
        extract(folder, text_folder, tmp_path)
    assert "\n" not in str(caught.value)


def test_text_of_unknown_words_is_refused(tiny_encoder, tmp_path, make_sentences):
    for share, ends_well in ((0.4, True), (0.7, False)):
        lines = [
            " ".join("zzz" if i < share * 10 else "cat" for i in range(10)) + f" {'the ' * number}"
            for number in range(1, 60)
        ]
        lines = [line.replace("the ", "zzz " if not ends_well else "cat ") for line in lines]
        (tmp_path / "a.txt").write_text("\n".join(lines))
        sources = [{"kind": "file", "path": str(tmp_path / "a.txt")}]
        prepare_text({"sources": sources, "heldout_fraction": 0.25}, tmp_path / "text")
        if ends_well:
            extract(tiny_encoder, tmp_path / "text", tmp_path)
            continue
        with pytest.raises(ValueError, match=r"got the unknown token \[UNK\] for \d+ of the first"):
            extract(tiny_encoder, tmp_path / "text", tmp_path)


def add_word(folder: Path, number: int, word: str, *, to: str) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    if to == "vocabulary":
        content["model"]["vocab"][word] = number
    else:
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        content["added_tokens"].append(
            {"id": number, "content": word} | dict.fromkeys(names, False)
        )
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_the_tokenizer_of_another_model_is_refused(tiny_encoder, tmp_path, caplog):
    rows = load_model({"name": str(tiny_encoder), "device": "cpu"}).embeddings
    assert rows is not None
    folder = copy_model(tiny_encoder, tmp_path / "larger")
    add_word(folder, rows, "bird-like", to="vocabulary")
    with pytest.raises(
        ValueError, match=rf"ids below {rows}, .* got {rows} for 'bird-like' and 0 more"
    ):
        load_model({"name": str(folder), "device": "cpu"})
    folder = copy_model(tiny_encoder, tmp_path / "smaller")
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {word: words[word] for word in words if words[word] < rows // 2}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        load_model({"name": str(folder), "device": "cpu"})
    assert f"has {rows // 2} tokens and the model's embedding {rows}" in caplog.text


def test_added_tokens_beyond_the_embedding(tiny_causal, text_folder, tmp_path):
    rows = load_model({"name": str(tiny_causal), "device": "cpu"}).embeddings
    folder = copy_model(tiny_causal, tmp_path / "unused")
    # the next free id, which the tokenizers library gives an added token
    number = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert number == rows
    add_word(folder, number, "<image>", to="added")
    tokens, activations = extract(folder, text_folder, tmp_path)
    plain = extract(tiny_causal, text_folder, tmp_path)
    np.testing.assert_array_equal(tokens, plain[0])
    np.testing.assert_array_equal(activations, plain[1])
    folder = copy_model(tiny_causal, tmp_path / "used")
    add_word(folder, number, "cat sees", to="added")
    (tmp_path / "a.txt").write_text("\n".join(f"the cat sees {'tree ' * i}" for i in range(1, 80)))
    sources = [{"kind": "file", "path": str(tmp_path / "a.txt")}]
    prepare_text({"sources": sources, "heldout_fraction": 0.25}, tmp_path / "text")
    with pytest.raises(
        ValueError, match=rf"ids below {rows}, .* got {number} for 'cat sees' in document \d+"
    ):
        extract(folder, tmp_path / "text", tmp_path)


def test_an_unknown_token_that_is_not_there_is_one_line(tiny_causal, text_folder, tmp_path):
    folder = copy_model(tiny_causal, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["model"]["vocab"]["cat"]
    content["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"token|unknown") as caught:
        extract(folder, text_folder, tmp_path)
    assert "\n" not in str(caught.value)


def test_texts_are_cut_at_their_end_whatever_the_tokenizer_says(
    tiny_encoder, text_folder, tmp_path
):
    folder = copy_model(tiny_encoder, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"truncation_side": "left", "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    plain = extract(tiny_encoder, text_folder, tmp_path, context_length=5)
    got = extract(folder, text_folder, tmp_path, context_length=5)
    for one, other in zip(plain, got, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.is_tensor(SAEBenchModel(load_model({"name": str(folder)}), "t").to_tokens("the"))
