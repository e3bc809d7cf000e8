"""Local folders with the layout of what the experiments read from the hub: tiny, made at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
import zstandard

SPLITS = ("train", "test")
ROWS = 24
PAIRS = ("en-fr", "fr-it", "de-en", "es-fr", "nl-pt")
ENDINGS = (".c", ".h", ".html", ".java", ".php", ".py", ".js")


def write_hub(folder: Path, sentences: list[str]) -> Path:
    """Write stand-ins for all data sets of SAEBench and the corpora; return `folder`."""
    texts = _repeat(sentences)
    _write_jsonl(
        folder / "monology/pile-uncopyrighted/train/00.jsonl.zst", sentences, {"meta": {"set": "x"}}
    )
    for name in ("val", "test"):
        _write_jsonl(folder / f"monology/pile-uncopyrighted/{name}.jsonl.zst", ["held out"], {})
    web = folder / "Skylion007/openwebtext/plain_text/train-00000-of-00001.parquet"
    _write_parquet(web, [{"text": text} for text in sentences])
    for split in SPLITS:
        _write_labelled(folder, split, texts)
    _write_code(folder, texts)
    _write_europarl(folder / "Helsinki-NLP/europarl", texts)
    return folder


def _repeat(sentences: list[str]) -> Iterator[str]:
    number = 0
    while True:
        for sentence in sentences:
            yield f"{sentence} {number}"
            number += 1


def _write_labelled(folder: Path, split: str, texts: Iterator[str]) -> None:
    part = f"data/{split}-00000-of-00001.parquet"
    bios = [
        {"hard_text": next(texts), "profession": profession, "gender": gender}
        for profession, gender, _ in product(range(28), range(2), range(ROWS))
    ]
    _write_parquet(folder / "LabHC/bias_in_bios" / part, bios)
    reviews = [
        {"text": next(texts), "category": category, "rating": rating}
        for category, rating, _ in product(
            (1, 2, 3, 5, 6, 11, 18, 24, 26, 30), (1.0, 5.0), range(ROWS)
        )
    ]
    _write_parquet(folder / "canrager/amazon_reviews_mcauley_1and5" / part, reviews)
    news = [{"text": next(texts), "label": label} for label, _ in product(range(4), range(ROWS))]
    _write_parquet(folder / "fancyzhx/ag_news" / part, news)


def _write_code(folder: Path, texts: Iterator[str]) -> None:
    rows = [
        {"content": " ".join(next(texts) for _ in range(40)), "path": f"src/file{number}{ending}"}
        for number, ending in product(range(40), ENDINGS)
    ]
    _write_parquet(folder / "codeparrot/github-code/data/train-00000-of-01126.parquet", rows)


def _write_europarl(folder: Path, texts: Iterator[str]) -> None:
    lines = ["---", "configs:"]
    for pair in PAIRS:
        rows = [{"translation": {code: next(texts) for code in pair.split("-")}} for _ in range(40)]
        _write_parquet(folder / pair / "train-00000-of-00001.parquet", rows)
        lines += [f"- config_name: {pair}", "  data_files:", "  - split: train"]
        lines += [f"    path: {pair}/train-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def _write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False)


def _write_jsonl(path: Path, texts: list[str], extra: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text, **extra}) + "\n" for text in texts)
    path.write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))


def save_tokenizer(folder: Path, sentences: list[str], *, bos: bool = False) -> int:
    """Save a byte-level BPE tokenizer made of `sentences`; return the size of its vocabulary."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(sentences, 600, special_tokens=["<eos>", "<bos>", "<pad>"])
    special: dict[str, str] = {"eos_token": "<eos>"}
    if bos:  # as Gemma's
        special |= {"bos_token": "<bos>", "pad_token": "<pad>"}
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, **special)
    fast.save_pretrained(folder)
    return len(fast)
