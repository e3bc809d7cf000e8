"""A small site for the tests of feature pages, and its codes as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings, SparseDictionary
from dbksvd.features.site_files import STORED_BITS
from dbksvd.features.text_contexts import TextContexts

N_ATOMS = 50
# the bits of a number that a site keeps: more than the three digits of a page
STORED = 1.01 * 2.0 ** -(STORED_BITS + 1)
# the dictionaries of the site, and whether their codes may be negative
SIGNED = {"dbksvd/m50-k6-s0": False, "signed/m50-k6-s0": True, "topk/m50-k6-s0": False}
SETTINGS: dict[str, Any] = {
    "top": 6,
    "groups": 3,
    "per_group": 2,
    "tokens_before": 3,
    "tokens_after": 2,
    "tokens_listed": 5,
    "coactive_listed": 4,
    "coactive_tokens": 150,
    "nearest": 3,
}


def write_dictionary(
    folder: Path, *, nonnegative: bool, seed: int, k: int = 6, d: int = 16
) -> Path:
    draw = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(N_ATOMS, d, generator=draw), dim=1)
    settings = PursuitSettings(k=k, method="omp", nonnegative=nonnegative)
    Dictionary(atoms, torch.randn(d, generator=draw) * 0.1, settings).save(folder)
    return folder


def write_sae(folder: Path, *, seed: int, d: int = 16) -> Path:
    """Write a TopK SAE of SAELens with random weights."""
    from sae_lens import TopKSAE, TopKSAEConfig

    draw = torch.Generator().manual_seed(seed)
    sae = TopKSAE(TopKSAEConfig(d_in=d, d_sae=N_ATOMS, k=6, dtype="float32", device="cpu"))
    sae.W_dec.data = torch.nn.functional.normalize(torch.randn(N_ATOMS, d, generator=draw), dim=1)
    sae.W_enc.data = sae.W_dec.data.T.contiguous()
    sae.save_model(folder)
    return folder


def describe_activations(model: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of an extraction from a tiny model."""
    settings = {"model": {"name": str(model)}, "layer": 2, "batch_size": 3, "context_length": 10}
    return settings | {"n_train_tokens": 200, "n_heldout_tokens": 50, "slices": 1} | changes


@dataclass
class PlainCodes:
    """Coefficients of one dictionary at every position: F features, magnitudes.

    ``dense[i]`` is (positions, F) for document ``documents[i]``, zero at special tokens.
    """

    documents: list[int]
    ids: list[np.ndarray]
    kept: list[np.ndarray]
    dense: list[np.ndarray]

    def stack(self) -> np.ndarray:
        """Return the coefficients of all kept tokens, (tokens, F)."""
        pairs = zip(self.dense, self.kept, strict=True)
        return np.concatenate([values[kept] for values, kept in pairs])

    def stack_tokens(self) -> np.ndarray:
        pairs = zip(self.ids, self.kept, strict=True)
        return np.concatenate([ids[kept] for ids, kept in pairs])


def code_plainly(
    source: TextContexts, dictionary: SparseDictionary, *, signed: bool, norm_limit: float = np.inf
) -> PlainCodes:
    """Run one document at a time through the model's own call and code its tokens."""
    model = source.loaded.model
    codes = PlainCodes([], [], [], [])
    for document in source.tokenize():
        with torch.no_grad():
            out = model(torch.from_numpy(document.ids).long()[None], output_hidden_states=True)
        x = out.hidden_states[source.settings.layer][0].float()
        kept = [p for p in document.kept if x[p].double().norm() <= norm_limit]
        values = np.zeros((len(document.ids), len(dictionary.atoms)), np.float32)
        if kept:
            values[kept] = dictionary.encode(x[kept]).to_dense().numpy()
        if signed:
            values = np.concatenate([values.clip(0), (-values).clip(0)], axis=1)
        codes.documents.append(document.index)
        codes.ids.append(document.ids)
        codes.kept.append(np.array(kept, int))
        codes.dense.append(values)
    return codes
