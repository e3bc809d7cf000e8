"""Small tokenizers of the usual families, in the files that transformers reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

BOUND = ["<unk>", "<s>", "</s>"]


def _save(tokenizer: Tokenizer, folder: Path, tokenizer_class: str, **special: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class, "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def save_wordpiece(folder: Path, texts: list[str]) -> int:
    """Save one as BERT's; return the size of the vocabulary, as the others do."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    tokenizer.train_from_iterator(texts, trainer)
    around = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=around
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    return _save(tokenizer, folder, "BertTokenizer", **names)


def _train_bytes(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_gpt2(folder: Path, texts: list[str]) -> int:
    """Save a byte-level BPE as GPT-2's."""
    end = "<|endoftext|>"
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    return _save(_train_bytes(texts), folder, "GPT2Tokenizer", **special)


def save_neox(folder: Path, texts: list[str]) -> int:
    """Save a byte-level BPE as GPT-NeoX's, with runs of spaces as added tokens."""
    tokenizer = _train_bytes(texts)
    tokenizer.add_tokens(["    ", "  "])
    end = "<|endoftext|>"
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    return _save(tokenizer, folder, "GPTNeoXTokenizer", **special)


def save_llama(folder: Path, texts: list[str]) -> int:
    """Save a BPE over the whole text with bytes for what it lacks, as Llama 2's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # trained on words, since the trainer would make tokens of whole sentences
    words = sorted({word for text in texts for word in text.split()})
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=BOUND)
    tokenizer.train_from_iterator(words, trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for name in alphabet:
        vocabulary[name] = len(vocabulary)
    content["decoder"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _save(tokenizer, folder, "LlamaTokenizer", **special)


def save_t5(folder: Path, texts: list[str]) -> int:
    """Save a unigram model as T5's, whose vocabulary has the special tokens as pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _save(tokenizer, folder, "T5Tokenizer", **names, extra_ids=0)


def save_words(folder: Path, texts: list[str]) -> int:
    """Save a table of words, of no family."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    return _save(tokenizer, folder, "PreTrainedTokenizerFast", unk_token="[UNK]")


FAMILIES: dict[str, Callable[[Path, list[str]], int]] = {
    "bert": save_wordpiece,
    "gpt2": save_gpt2,
    "gpt_neox": save_neox,
    "llama": save_llama,
    "t5": save_t5,
    "words": save_words,
}
# What no text may turn into, however the family writes it.
SPELLED = {
    "bert": ["[SEP]", "[PAD]", "[CLS]", "[MASK]"],
    "gpt2": ["<|endoftext|>"],
    "gpt_neox": ["<|endoftext|>"],
    "llama": ["<s>", "</s>"],
    "t5": ["<pad>", "</s>"],
    "words": [],
}
