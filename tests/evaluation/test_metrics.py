from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.heldout import measure_dictionary, measure_nearest_atom_cosine


def make_dictionary(m: int = 24, d: int = 16, k: int = 4, **settings) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    return Dictionary(atoms, torch.randn(d, generator=generator), PursuitSettings(k, **settings))


def make_activations(n: int = 501, d: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + 2


@pytest.mark.parametrize("block", [1, 63, 4096])
def test_metrics_equal_numpy(block):
    dictionary, x = make_dictionary(), make_activations(101)
    metrics = measure_dictionary(dictionary, x, block=block)

    codes = dictionary.encode(x)
    z = codes.to_dense().double().numpy()
    a = x.double().numpy()
    b = z @ dictionary.atoms.double().numpy() + dictionary.bias.double().numpy()
    expected = {
        "explained_variance": 1 - ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(),
        "mse": ((a - b) ** 2).mean(),
        "cosine_similarity": np.mean(
            (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        ),
        "l0": (z != 0).sum(1).mean(),
        "l0_std": (z != 0).sum(1).std(),
        "dead_fraction": ((z != 0).sum(0) == 0).mean(),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert metrics["usage"] == (z != 0).sum(0).tolist()
    assert metrics["dead_atoms"] == metrics["usage"].count(0)
    assert (metrics["n_atoms"], metrics["samples"]) == (24, 101)


def test_explained_variance_does_not_depend_on_scale():
    dictionary, x = make_dictionary(), make_activations()
    scaled = Dictionary(dictionary.atoms, 10 * dictionary.bias, dictionary.settings)
    here = measure_dictionary(dictionary, x)["explained_variance"]
    there = measure_dictionary(scaled, 10 * x)["explained_variance"]
    assert here == pytest.approx(there, rel=1e-4)


def test_shards_and_tensor_give_the_same():
    class Shards:
        def __len__(self) -> int:
            return 101

        def read(self, start: int, stop: int) -> torch.Tensor:
            return x[start:stop]

    dictionary, x = make_dictionary(), make_activations(101)
    assert measure_dictionary(dictionary, Shards(), 7) == measure_dictionary(dictionary, x, 7)


def test_metrics_are_json_even_for_constant_data_and_one_atom():
    dictionary = make_dictionary(m=1, k=1)
    metrics = measure_dictionary(dictionary, dictionary.bias.expand(5, 16))
    json.dumps(metrics, allow_nan=False)
    assert metrics["nearest_atom_cosine"] is None
    assert metrics["l0"] == 0
    assert metrics["dead_atoms"] == 1


@pytest.mark.parametrize("block", [1, 5, 1024])
def test_nearest_atom_cosine(block):
    atoms = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    assert measure_nearest_atom_cosine(atoms, block) == pytest.approx(1.0)
    assert measure_nearest_atom_cosine(torch.eye(4), block) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 16), "at least one sample"),
        (torch.zeros(3, 15), "expected width 16"),
        (torch.full((3, 16), float("nan")), "NaN or infinity in rows 0 to 3"),
    ],
)
def test_bad_activations_are_named(x, message):
    with pytest.raises(ValueError, match=message):
        measure_dictionary(make_dictionary(), x)
