"""A small site of feature pages with hostile text and labels, for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from features_helpers import SETTINGS, SIGNED, describe_activations, write_dictionary, write_sae

from dbksvd.features.collect import collect_examples
from dbksvd.features.text_contexts import TextContexts
from dbksvd.report.pages.render import PageInputs, render_pages
from dbksvd.text.documents import prepare_text

HOSTILE = [
    "</script><script>document.title='owned'</script> the cat",
    "\"quotes\" 'and' <b>tags</b> &amp; the dog",
    "right \u202eleft \u05d0\u05d1\u05d2 the bird",
    "emoji 👩‍👩‍👧 the tree",
    "w" * 100_000 + " the house",
    "${alert(1)} {{ 7 * 7 }} __proto__ constructor the river",
]
LABELS = {"dbksvd": "<img src=x onerror=alert(1)> DB-KSVD", "topk": "TopK \"SAE\" & 'more'"}
SOURCE = "file/<script>source</script>.txt"


def save_byte_model(folder: Path) -> Path:
    """Save a random language model whose tokens are bytes, so that any text is shown."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = GPTNeoXConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def make_features(base: Path, sentences: list[str]) -> Path:
    """Collect the examples of three dictionaries over plain and hostile text."""
    model = save_byte_model(base / "model")
    text = base / "source.txt"
    text.write_text("\n".join([*sentences, *HOSTILE]))
    sources = [{"kind": "file", "path": str(text)}]
    settings = {"sources": sources, "max_documents": 300, "heldout_fraction": 0.6, "seed": 1}
    prepare_text(settings, base / "text")
    folders = {}
    for number, (name, signed) in enumerate(SIGNED.items()):
        write = write_sae if name.startswith("topk") else write_dictionary
        options = {} if name.startswith("topk") else {"nonnegative": not signed}
        folders[name] = write(base / name, seed=number, **options)
    source = TextContexts(describe_activations(model, context_length=60), base / "text")
    shown = SETTINGS | {"top": 20, "tokens_before": 60, "tokens_after": 60}
    collect_examples(source, folders, shown, base / "features")
    return base / "features"


def write_tables(base: Path) -> tuple[Path, Path]:
    """Write a table and scores as the workflow has them."""
    rows, scores = [], []
    for number, name in enumerate(SIGNED):
        method = name.split("/")[0]
        key = {"site": "layer2", "method": method, "n_atoms": 50, "k": 6}
        rows.append({**key, "seeds": 1, "variance explained": f"0.{7 - number}50 ± 0.001"})
        for metric, value in {"explained_variance": 0.75 - 0.1 * number, "l0": 6.0}.items():
            scores.append({**key, "seed": 0, "eval": "heldout", "metric": metric, "value": value})
    pd.DataFrame(rows).to_csv(base / "table.csv", index=False)
    pd.DataFrame(scores).to_csv(base / "scores.csv", index=False)
    return base / "table.csv", base / "scores.csv"


def render(base: Path, features: Path, output: Path, **more: Any) -> None:
    """Render the site."""
    from PIL import Image

    table, scores = write_tables(base)
    Image.new("RGB", (40, 30), (200, 100, 0)).save(base / "variance_explained.png")
    inputs = PageInputs(
        "experiment <i>",
        LABELS,
        {"layer2": features},
        table,
        scores,
        [base / "variance_explained.png"],
        **more,
    )
    render_pages(inputs, output)
