from __future__ import annotations

from pathlib import Path

import pytest
import torch
from features_helpers import (
    SETTINGS,
    SIGNED,
    PlainCodes,
    code_plainly,
    describe_activations,
    write_dictionary,
    write_sae,
)

from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.features.collect import collect_examples
from dbksvd.features.text_contexts import TextContexts


@pytest.fixture(scope="session")
def dictionaries(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dictionaries")
    makers = [
        lambda to: write_dictionary(to, nonnegative=True, seed=1),
        lambda to: write_dictionary(to, nonnegative=False, seed=2),
        lambda to: write_sae(to, seed=3),
    ]
    return {name: make(folder / name) for name, make in zip(SIGNED, makers, strict=True)}


@pytest.fixture(scope="session")
def source(tiny_causal, text_folder) -> TextContexts:
    source = TextContexts(describe_activations(tiny_causal), text_folder)
    draw = torch.Generator().manual_seed(5)  # a new model's final norm multiplies by 1
    source.loaded.model.gpt_neox.final_layer_norm.weight.data = torch.randn(16, generator=draw)
    source.loaded.model.gpt_neox.final_layer_norm.bias.data = torch.randn(16, generator=draw)
    return source


@pytest.fixture(scope="session")
def folder(source, dictionaries, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "features"
    collect_examples(source, dictionaries, SETTINGS, folder)
    return folder


@pytest.fixture(scope="session")
def plain(source, dictionaries) -> dict[str, PlainCodes]:
    return {
        name: code_plainly(source, load_dictionary(dictionaries[name]), signed=signed)
        for name, signed in SIGNED.items()
    }
