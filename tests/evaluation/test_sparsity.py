"""What is said of k: projections, coherence, description length, each against plain counting."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from dbksvd import DBKSVD
from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation import sparsity
from dbksvd.evaluation.description_length import (
    count_bits,
    count_plain_bits,
    measure_description,
    round_codes,
)
from dbksvd.evaluation.heldout import measure_dictionary
from dbksvd.evaluation.sparsity import find_projections, measure_coherence


def draw_unit(m: int, d: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(m, d, generator=draw), dim=1)


def draw_codes(n: int, m: int, k: int, *, signed: bool, seed: int = 0) -> SparseCodes:
    draw = torch.Generator().manual_seed(seed)
    indices = torch.stack([torch.randperm(m, generator=draw)[:k] for _ in range(n)])
    values = 0.5 + torch.rand(n, k, generator=draw)
    if signed:
        values *= torch.where(torch.rand(n, k, generator=draw) < 0.3, -1.0, 1.0)
    values[torch.rand(n, k, generator=draw) < 0.2] = 0
    return SparseCodes(indices.masked_fill(values == 0, 0), values, m)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_projections_are_the_entries_of_a_full_sort(signed, scale, monkeypatch):
    monkeypatch.setattr(sparsity, "BLOCK_BYTES", 4 * 40 * 7)  # blocks of 7 rows
    atoms, bias = draw_unit(40, 9), scale * torch.ones(9)
    x = scale * torch.randn(101, 9, generator=torch.Generator().manual_seed(1))
    products = torch.cat([(block - bias) @ atoms.T for block in x.split(7)])
    entries = (products.abs() if signed else products).flatten().sort(descending=True).values
    places = [1, 5, 20, 39, 400]
    found = find_projections(x, 3 * atoms, bias, places, signed=signed)
    expected = [float(entries[min(n * 101, len(entries) - 1)]) for n in places]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale)


def test_projections_tell_equal_and_special_entries():
    atoms = torch.eye(3)
    x = torch.tensor([[2.0, 0.0, -0.0], [2.0, -1.0, -3.0]])
    found = find_projections(x, atoms, torch.zeros(3), [1, 2], signed=False)
    assert found == [0.0, -1.0]  # sorted: 2, 2, 0, 0, -1, -3
    assert find_projections(x, atoms, torch.zeros(3), [1], signed=True) == [2.0]  # 3, 2, 2, 1, 0, 0


def test_coherence_is_the_mean_over_pairs():
    atoms = draw_unit(33, 8)
    cosines = np.abs((atoms @ atoms.T).double().numpy())[np.triu_indices(33, 1)]
    assert measure_coherence(2 * atoms, block=7) == pytest.approx(cosines.mean(), rel=1e-5)
    assert measure_coherence(torch.eye(4)) == 0
    assert measure_coherence(torch.eye(1)) is None


def test_plain_bits_are_the_published_numbers():
    # 65 of 25,000 latents with 7 bits each, and 768 neurons with 7 bits each
    assert count_plain_bits(65, 25_000, 7) == pytest.approx(1404.6, abs=0.05)
    assert count_plain_bits(768, 768, 7) == 5376


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bins", [1, 2, 5])
def test_bits_are_those_of_a_plain_count(signed, bins):
    codes = draw_codes(200, 12, 3, signed=signed)
    rounded, numbers = round_codes(codes, bins)
    dense, made = codes.to_dense().numpy(), rounded.to_dense().numpy()
    assert ((dense != 0) == (made != 0)).all()
    assert (np.sign(dense) == np.sign(made)).all()
    bits = 0.0
    for column, shown in zip(dense.T, made.T, strict=True):
        on = column != 0
        magnitudes = np.abs(column[on])
        low, step = magnitudes.min(), (magnitudes.max() - magnitudes.min()) / bins
        places = np.minimum((magnitudes - low) / step, bins - 1).astype(int)
        np.testing.assert_allclose(np.abs(shown[on]), low + (places + 0.5) * step, rtol=1e-5)
        p = on.mean()
        bits += -p * math.log2(p) - (1 - p) * math.log2(1 - p) + p * signed
        shares = np.array(list(Counter(places.tolist()).values())) / on.sum()
        bits -= p * (shares * np.log2(shares)).sum()
    assert count_bits(codes, numbers, bins, signed=signed) == pytest.approx(bits, rel=1e-6)


def test_atoms_that_never_or_always_fire_cost_nothing():
    values = torch.full((50, 1), 2.0)
    codes = SparseCodes(torch.zeros(50, 1, dtype=torch.int64), values, 8)
    rounded, numbers = round_codes(codes, 4)
    assert torch.equal(rounded.values, values)
    assert count_bits(codes, numbers, 4, signed=False) == 0


def test_the_fewest_bins_that_keep_the_distortion_are_taken():
    atoms = draw_unit(12, 16)
    codes = draw_codes(400, 12, 3, signed=False)
    x = codes.decode(atoms) + 0.05 * torch.randn(400, 16)
    dictionary = Dictionary(atoms, torch.zeros(16), PursuitSettings(3))

    def explain(bins: int | None) -> float:
        made = (codes if bins is None else round_codes(codes, bins)[0]).decode(atoms)
        return float(1 - ((x - made) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())

    for distortion in (0.1, 0.01, 0.001):
        found = measure_description(dictionary, x, codes, signed=False, distortion=distortion)
        bins = int(found["description_bins"])
        assert explain(bins) >= explain(None) - distortion - 1e-6
        assert bins == 1 or explain(bins - 1) < explain(None) - 0.5 * distortion
        assert found["description_variance"] == pytest.approx(explain(bins), abs=1e-5)
        assert 0 < found["description_length"] < found["description_plain"] + 12


def test_projection_and_coherence_are_least_at_the_true_k():
    """Samples of 4 of 64 features in 32 dimensions; neighbours fire together, so k matters."""
    draw = torch.Generator().manual_seed(0)
    features = draw_unit(64, 32, seed=3)
    first = torch.rand(6000, 64, generator=draw)
    indices = (first + 0.3 * first.roll(1, dims=1)).topk(4, dim=1).indices
    values = 1 + 0.3 * torch.rand(6000, 4, generator=draw)
    x = SparseCodes(indices, values, 64).decode(features)
    found = {}
    for k in (2, 4, 8):
        model = DBKSVD(64, k, max_iter=8, polish_iter=2, nonnegative=True, seed=0)
        dictionary = model.fit(x[:5000]).dictionary_
        found[k] = measure_dictionary(dictionary, x[5000:])
    for name in ("decoder_projection", "decoder_projection_far", "coherence"):
        assert found[4][name] < found[2][name], name
        assert found[4][name] < found[8][name], name
    assert found[4]["description_variance"] > 0.9
    assert found[2]["description_length"] < found[8]["description_length"]
