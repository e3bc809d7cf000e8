from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sae_lens.registry import get_sae_class

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import SAEDictionary
from dbksvd.dictionaries.registration import register
from dbksvd.evaluation.heldout import measure_dictionary, measure_nearest_atom_cosine
from dbksvd.fit.measure import measure_explained
from dbksvd.fit.reading import TensorSource


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


def test_metrics_are_json_even_for_one_atom_that_no_sample_uses():
    dictionary = make_dictionary(m=1, k=1, threshold=1e-4)
    across = torch.linalg.svd(dictionary.atoms).Vh[1:]  # directions orthogonal to the atom
    metrics = measure_dictionary(dictionary, dictionary.bias + across)
    json.dumps(metrics, allow_nan=False)
    assert metrics["nearest_atom_cosine"] is None
    assert metrics["l0"] == 0
    assert metrics["dead_atoms"] == 1


@pytest.mark.parametrize("rows", [1, 5, 5000])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e5])
def test_samples_without_variance_are_refused(rows, value):
    with pytest.raises(ValueError, match=f"activations: .* differ, got {rows} that do not"):
        measure_dictionary(make_dictionary(), torch.full((rows, 16), value))


def test_arrays_are_measured_as_tensors():
    dictionary, x = make_dictionary(), make_activations(101)
    expected = measure_dictionary(dictionary, x)
    assert measure_dictionary(dictionary, x.numpy()) == expected
    assert measure_dictionary(dictionary, x.flip(0).contiguous().numpy()[::-1]) == expected


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


def make_far_samples(
    offset: float, n: int = 3000, d: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of unit variance with one constant column far away, and their mean."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, d, generator=generator)
    x[:, 3] += offset
    return x, x.double().mean(dim=0).float()


def explain_plainly(x: torch.Tensor, codes: torch.Tensor, atoms, bias) -> float:
    a, z = x.double().numpy(), codes.double().numpy()
    made = z @ atoms.detach().double().numpy() + bias.detach().double().numpy()
    deviation = (a - a[0]) - (a - a[0]).mean(axis=0)
    return 1 - float(((a - made) ** 2).sum() / (deviation**2).sum())


@pytest.mark.parametrize("offset", [0.0, 3000.0, 1e5])
def test_a_constant_column_leaves_the_variance_explained_right(offset):
    x, mean = make_far_samples(offset)
    first = make_dictionary()
    dictionary = Dictionary(first.atoms, mean, first.settings)
    metrics = measure_dictionary(dictionary, x, block=700)
    expected = explain_plainly(x, dictionary.encode(x).to_dense(), first.atoms, mean)
    assert 0.3 < expected < 1
    assert metrics["explained_variance"] == pytest.approx(expected, abs=1e-9)
    in_the_log = measure_explained(dictionary, TensorSource(x))
    assert in_the_log == pytest.approx(metrics["explained_variance"], abs=1e-12)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu", "gated", "switch"])
def test_a_sae_is_measured_without_the_rounding_of_its_decoder(architecture, carried):
    register()
    x, mean = make_far_samples(1e5)
    kind, config = get_sae_class(architecture)
    own = {"topk": {"k": 4}, "switch": {"k": 4, "n_experts": 2}}.get(architecture, {})
    sae = kind(config(d_in=16, d_sae=24, apply_b_dec_to_input=True, **own))
    generator = torch.Generator().manual_seed(3)
    for name, weight in sae.named_parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
        if name == "b_dec":  # else the codes carry the offset
            weight.data = mean if carried else torch.zeros(16)
    sae.W_dec.data = torch.nn.functional.normalize(sae.W_dec.data, dim=1)
    codes = SAEDictionary(sae).encode(x)
    metrics = measure_dictionary(SAEDictionary(sae), x)
    expected = explain_plainly(x, codes.to_dense(), sae.W_dec, sae.b_dec)
    assert metrics["explained_variance"] == pytest.approx(expected, rel=1e-9, abs=1e-6)
