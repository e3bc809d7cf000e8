"""Orthogonal least squares: against exact search, against omp, and where numbers are hard."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import nnls

from dbksvd.ops.pursuit import batched_orthogonal, cpu
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.pursuit.tolerances import find_tolerances
from dbksvd.ops.threads import count_workers

ALL = ["reference", "batched", "cpu"]
FAST = ["batched", "cpu"]


def make_problem(n, d, m, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.nn.functional.normalize(atoms, dim=1).to(dtype)


def search_exactly(x, atoms, k):
    """Return the support of a sample: each atom the one that leaves the least error."""
    chosen: list[int] = []
    for _ in range(k):
        errors = []
        for j in range(len(atoms)):
            part = atoms[[*chosen, j]]
            errors.append(float((x - torch.linalg.lstsq(part.T, x).solution @ part).norm()))
        chosen.append(min(set(range(len(atoms))) - set(chosen), key=errors.__getitem__))
    return chosen


def measure_errors(x, atoms, codes):
    return (x - codes.decode(atoms)).square().sum(1)


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("shape", [(12, 10, 24, 4), (8, 5, 9, 4), (6, 30, 12, 6)])
def test_picks_are_those_of_an_exact_search(implementation, shape):
    n, d, m, k = shape
    x, atoms = make_problem(n, d, m)
    codes = sparse_encode(x, atoms, k, method="ols", implementation=implementation)
    assert codes.indices.tolist() == [search_exactly(sample, atoms, k) for sample in x]


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_explains_more_than_omp_and_picks_the_same_first_atom(implementation, nonnegative):
    x, atoms = make_problem(200, 24, 120)
    options = {"nonnegative": nonnegative, "implementation": implementation}
    ols, omp = (sparse_encode(x, atoms, 8, method=name, **options) for name in ("ols", "omp"))
    assert not torch.equal(ols.indices, omp.indices)
    assert measure_errors(x, atoms, ols).mean() < measure_errors(x, atoms, omp).mean()
    one = [sparse_encode(x, atoms, 1, method=name, **options) for name in ("ols", "omp")]
    assert torch.equal(one[0].indices, one[1].indices)
    torch.testing.assert_close(one[0].values, one[1].values)


@pytest.mark.parametrize("implementation", ALL)
def test_two_picks_by_hand(implementation):
    # After the first atom the rest is (0, 2, 1.5). Its products with the others are 1.2 and 1.5,
    # their distances to the first .6 and 1: omp takes the last (1.5), ols the second (1.2 / .6).
    atoms = torch.tensor([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    x = torch.tensor([[9, 2, 1.5]], dtype=torch.float64)
    options = {"implementation": implementation}
    codes = sparse_encode(x, atoms, 2, method="omp", **options)
    assert codes.indices.tolist() == [[0, 2]]
    codes = sparse_encode(x, atoms, 2, method="ols", **options)
    assert codes.indices.tolist() == [[0, 1]]
    expected = torch.tensor([[9 - 0.8 * 2 / 0.6, 2 / 0.6]], dtype=torch.float64)
    torch.testing.assert_close(codes.values, expected)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nonnegative_coefficients_are_the_fit_on_the_support(implementation, dtype):
    x, atoms = make_problem(40, 16, 60, dtype)
    codes = sparse_encode(
        x, atoms, 7, method="ols", nonnegative=True, implementation=implementation
    )
    for sample, row, values in zip(x.double(), codes.indices, codes.values, strict=True):
        used = values != 0
        expected = nnls(atoms[row[used]].double().T.numpy(), sample.numpy())[0]
        torch.testing.assert_close(
            values[used].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("nonnegative", [False, True])
def test_ties_go_to_the_lowest_atom(implementation, nonnegative):
    atoms = torch.eye(300)[torch.arange(300) % 3]
    codes = sparse_encode(
        *(torch.ones(2, 300), atoms, 3),
        method="ols",
        nonnegative=nonnegative,
        implementation=implementation,
    )
    assert codes.indices.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_atom_near_the_span_is_never_picked(implementation, dtype):
    # a thousandth of the zero distance away: its ratio would be that of any direction
    _, dependent = find_tolerances(dtype)
    tilt = (dependent / 1000) ** 0.5
    atoms = torch.eye(6, dtype=torch.float64)[:4]
    nearly = torch.nn.functional.normalize(atoms[0] + tilt * torch.eye(6)[5], dim=0)
    atoms = torch.cat([atoms, nearly[None]]).to(dtype)
    x = torch.tensor([[5.0, 1, 1, 1, 0, 4]], dtype=dtype)
    codes = sparse_encode(x, atoms, 5, method="ols", implementation=implementation)
    assert set(codes.indices[0].tolist()) in ({0, 1, 2, 3}, {4, 1, 2, 3, 0})
    assert codes.l0.tolist() == [4]
    assert codes.values.abs().max() < 6


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_does_not_matter(implementation, nonnegative, scale):
    x, atoms = make_problem(30, 16, 40, torch.float32)
    options = {"method": "ols", "nonnegative": nonnegative, "implementation": implementation}
    plain = sparse_encode(x, atoms, 5, **options)
    scaled = sparse_encode((x.double() * scale).float(), atoms, 5, **options)
    assert torch.equal(scaled.indices, plain.indices)
    torch.testing.assert_close(
        scaled.values.double() / scale, plain.values.double(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("implementation", FAST)
def test_long_supports_keep_their_digits(implementation):
    x, atoms = make_problem(20, 96, 400, torch.float32)
    options = {"method": "ols", "implementation": implementation}
    codes = sparse_encode(x, atoms, 64, **options)
    residual = (x - codes.decode(atoms)).double()
    slope = (atoms[codes.indices].double() * residual.unsqueeze(1)).sum(2)
    assert slope.abs().max() < 1e-4
    wide = sparse_encode(x.double(), atoms.double(), 64, **options)
    errors = [measure_errors(x, atoms, codes).sum(), measure_errors(x, atoms, wide.to("cpu")).sum()]
    assert errors[0] < 1.01 * errors[1]


def test_products_in_bfloat16_are_fitted_exactly():
    x, atoms = make_problem(100, 32, 100, torch.float32)
    exact = sparse_encode(x, atoms, 6, method="ols")
    rounded = sparse_encode(x, atoms, 6, method="ols", product_dtype="bfloat16")
    assert not torch.equal(rounded.indices, exact.indices)
    residual = x - rounded.decode(atoms)
    assert (atoms[rounded.indices] * residual.unsqueeze(1)).sum(2).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 255, 256, 257, 700])
def test_gram_matrix_is_symmetric_and_the_same_on_any_threads(m, dtype):
    _, atoms = make_problem(1, 33, m, dtype)
    before = torch.get_num_threads()
    grams = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert count_workers() == threads
        grams.append(cpu.make_gram(atoms))
    torch.set_num_threads(before)
    assert torch.equal(grams[0], grams[1])
    assert torch.equal(grams[0], grams[0].T)
    torch.testing.assert_close(grams[0], atoms @ atoms.T)


def test_rows_of_the_inverse_factor_are_the_orthonormal_vectors():
    _, atoms = make_problem(1, 8, 4)
    gram = atoms @ atoms.T
    factor = torch.zeros(1, 6, 6, dtype=torch.float64)
    factor[0, :4, :4] = torch.linalg.cholesky(gram)
    used = torch.arange(6)[None] < 4
    rows = [
        batched_orthogonal.invert_row(factor, used, torch.arange(6)[None] == i)[0, :4]
        for i in range(4)
    ]
    q = torch.stack(rows) @ atoms
    torch.testing.assert_close(q @ q.T, torch.eye(4, dtype=torch.float64))
