"""Products in bfloat16: who has them, what they change, and what they must not."""

from __future__ import annotations

import json

import pytest
import torch

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.ops.pursuit.encode import sparse_encode


def make_problem(n=200, d=32, m=100):
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    return torch.randn(n, d, generator=generator), atoms


@pytest.mark.parametrize("method", ["mp", "omp"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_coefficients_are_exact_on_rounded_picks(method, nonnegative):
    x, atoms = make_problem()
    options = {"method": method, "nonnegative": nonnegative}
    exact = sparse_encode(x, atoms, 6, **options)
    rounded = sparse_encode(x, atoms, 6, product_dtype="bfloat16", **options)
    assert not torch.equal(rounded.indices, exact.indices)
    residual = x - rounded.decode(atoms)
    slope = (atoms[rounded.indices] * residual.unsqueeze(1)).sum(2)[rounded.values != 0]
    assert slope.abs().max() < 1e-4
    errors = [(x - codes.decode(atoms)).square().sum() for codes in (exact, rounded)]
    assert errors[1] < 1.01 * errors[0]


def test_without_refit_coefficients_are_rounded():
    x, atoms = make_problem()
    exact = sparse_encode(x, atoms, 1, refit=False)
    rounded = sparse_encode(x, atoms, 1, refit=False, product_dtype="bfloat16")
    same = exact.indices == rounded.indices
    assert same.float().mean() > 0.95
    assert not torch.equal(exact.values[same], rounded.values[same])
    torch.testing.assert_close(rounded.values[same], exact.values[same], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_who_does_not_have_it_refuses_it(implementation):
    with pytest.raises(ValueError, match=f"product_dtype: expected None for .*'{implementation}'"):
        sparse_encode(*make_problem(), 2, product_dtype="bfloat16", implementation=implementation)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="product_dtype: expected None or 'bfloat16', got 'half'"):
        sparse_encode(*make_problem(), 2, product_dtype="half")


def test_a_dictionary_keeps_it_and_old_files_mean_none(tmp_path):
    x, atoms = make_problem()
    dictionary = Dictionary(atoms, x[0], PursuitSettings(4, product_dtype="bfloat16"))
    dictionary.save(tmp_path / "new")
    loaded = Dictionary.load(tmp_path / "new")
    assert loaded.settings == dictionary.settings
    expected = sparse_encode(x - x[0], atoms, 4, product_dtype="bfloat16")
    assert torch.equal(loaded.encode(x).values, expected.values)
    path = tmp_path / "new/cfg.json"
    config = json.loads(path.read_text())
    del config["product_dtype"]
    path.write_text(json.dumps(config))
    assert Dictionary.load(tmp_path / "new").settings == PursuitSettings(4)
