"""The Triton kernels against the definitions: on the device, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.pursuit import batched, reference
from dbksvd.ops.pursuit.checks import scale_rows
from dbksvd.ops.pursuit.encode import sparse_encode

pytest.importorskip("triton")
from dbksvd.ops.atom_update import cuda as update
from dbksvd.ops.atom_update import reference as update_reference
from dbksvd.ops.pursuit import cuda as pursuit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    # of the interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
    *([pytest.mark.cuda] if DEVICE == "cuda" else []),
]
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-10}
METHODS = [(method, sign) for method in ("mp", "omp", "ols") for sign in (False, True)]


@pytest.fixture(autouse=True)
def fill_empty_memory():
    """Empty tensors hold NaN, so that a slot nobody writes shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def make_problem(n, d, m, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x.to(dtype), normalize(atoms, dim=1).to(dtype)


def encode(x, atoms, k, method="mp", nonnegative=False, refit=True, rtol=0.0, **options):
    settings = {"method": method, "nonnegative": nonnegative, "refit": refit, "rtol": rtol}
    found = pursuit.encode(x.to(DEVICE), atoms.to(DEVICE), k, **settings, **options)
    return found[0].cpu(), found[1].cpu()


def assert_agrees(x, atoms, k, method="mp", nonnegative=False, refit=True, rtol=0.0, threshold=0.0):
    settings = {"method": method, "nonnegative": nonnegative, "refit": refit, "rtol": rtol}
    settings["threshold"] = threshold
    expected = reference.encode(x, atoms, k, **settings)
    found = encode(x, atoms, k, **settings)
    assert found[1].dtype == x.dtype
    torch.testing.assert_close(found[0], expected[0])
    tolerance = TOLERANCE[x.dtype]
    torch.testing.assert_close(found[1], expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
@pytest.mark.parametrize(
    "shape", [(6, 20, 37, 5), (1, 1, 1, 1), (5, 3, 63, 1), (2, 24, 8, 8), (2, 100, 1000, 3)]
)
def test_pursuit_agrees_with_reference(shape, method, nonnegative):
    n, d, m, k = shape
    x, atoms = make_problem(n, d, m)
    assert_agrees(x, atoms, k, method, nonnegative)
    assert_agrees(x, atoms, k, method, nonnegative, refit=False, rtol=0.5)
    assert_agrees(x, atoms, k, method, nonnegative, threshold=1.5)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 20, 37, 5), (1, 1, 1, 1), (3, 24, 130, 8)])
def test_penalties_agree_with_reference(monkeypatch, shape, dtype, nonnegative):
    monkeypatch.setattr(pursuit, "SMALL_CHUNK_BYTES", 512)
    n, d, m, k = shape
    x, atoms = make_problem(n, d, m, dtype)
    penalties = 0.1 * torch.rand(m, generator=torch.Generator().manual_seed(1)).double()
    for options in ({}, {"threshold": 1.5, "refit": False}, {"rtol": 0.5}):
        settings = {"nonnegative": nonnegative, "refit": True, "rtol": 0.0, **options}
        expected = reference.encode(x, atoms, k, method="mp", penalties=penalties, **settings)
        found = encode(x, atoms, k, penalties=penalties.to(DEVICE), **settings)
        torch.testing.assert_close(found[0], expected[0])
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(found[1], expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
@pytest.mark.parametrize("k", [16, 33])
def test_long_supports_agree_with_batched_torch(method, nonnegative, k):
    # beyond 32 the factor of a support has 64 × 64 numbers
    x, atoms = make_problem(2, 48, 150, torch.float64)
    settings = {"method": method, "nonnegative": nonnegative, "refit": True, "rtol": 0.0}
    expected = batched.encode(x, atoms, k, **settings)
    found = encode(x, atoms, k, **settings)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["omp", "ols"])
def test_a_coefficient_that_a_later_pick_makes_negative_is_fitted_anew(method):
    # the third atom is nearly the sum of the first two: once all are picked, one would be negative
    generator = torch.Generator().manual_seed(5)
    atoms = normalize(torch.rand(30, 6, generator=generator).double() + 0.1, dim=1)
    x = torch.rand(40, 6, generator=generator).double()
    settings = {"method": method, "nonnegative": True, "refit": True, "rtol": 0.0}
    expected = reference.encode(x, atoms, 5, **settings)
    free = reference.encode(x, atoms, 5, **settings | {"nonnegative": False})
    assert (free[1] < 0).any()
    assert ((expected[1] != 0).sum(1) < 5).any()
    found = encode(x, atoms, 5, **settings)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floors_are_rounded_to_the_side_where_comparisons_stay_the_same(dtype):
    floors = torch.tensor([0.4, 0.5, 0.0, 1e-3, float(torch.tensor(0.4))], dtype=torch.float64)
    rounded = pursuit.round_down(floors, dtype)
    assert rounded.dtype == dtype
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    assert (rounded.double() <= floors).all()
    assert (above.double() > floors).all()


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
def test_pursuit_in_float64(method, nonnegative):
    x, atoms = make_problem(4, 12, 40, torch.float64)
    assert_agrees(x, atoms, 4, method, nonnegative)


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
@pytest.mark.parametrize("m", [3, 129])
def test_rows_of_products_that_do_not_fit_are_split(monkeypatch, m, method, nonnegative):
    monkeypatch.setattr(pursuit, "ON_CHIP_BYTES", 0)
    monkeypatch.setattr(pursuit, "CHUNK_BYTES", 64)
    monkeypatch.setattr(pursuit, "SMALL_CHUNK_BYTES", 64)
    x, atoms = make_problem(4, 16, m)
    assert_agrees(x, atoms, 3, method, nonnegative)


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
def test_large_systems_are_left_to_torch(monkeypatch, method, nonnegative):
    monkeypatch.setattr(pursuit, "LARGEST_K", 2)
    x, atoms = make_problem(5, 16, 40)
    assert_agrees(x, atoms, 4, method, nonnegative)


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
@pytest.mark.parametrize("on_chip", [1 << 17, 0])
def test_ties_go_to_the_lowest_atom(monkeypatch, method, on_chip):
    monkeypatch.setattr(pursuit, "ON_CHIP_BYTES", on_chip)
    monkeypatch.setattr(pursuit, "CHUNK_BYTES", 64)
    atoms = torch.eye(40)[torch.arange(40) % 3]
    indices, values = encode(torch.ones(2, 40), atoms, 3, method)
    assert indices.tolist() == [[0, 1, 2]] * 2
    torch.testing.assert_close(values, torch.ones(2, 3))
    indices, values = encode(-torch.ones(1, 40), atoms, 3, method, nonnegative=True)
    assert not values.any()


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_an_atom_gets_one_code_and_zero_none(method):
    _, atoms = make_problem(1, 20, 50)
    x = torch.cat([3 * atoms[7:8], torch.zeros(1, 20), -2 * atoms[9:10]])
    indices, values = encode(x, atoms, 4, method)
    assert (values != 0).sum(1).tolist() == [1, 0, 1]
    assert indices[:, 0].tolist() == [7, 0, 9]
    torch.testing.assert_close(values[:, 0], torch.tensor([3.0, 0.0, -2.0]))


@pytest.mark.parametrize("tilt", [1e-6, 1e-3])
@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
def test_dependent_atoms_and_any_scale(method, nonnegative, k, tilt):
    x, atoms = make_problem(4, 4, 6)
    nearly = normalize(atoms + tilt * atoms.flip(0), dim=1)
    atoms = torch.cat([atoms, nearly, -atoms])
    x[1] *= 1e-30
    x[2] *= 1e30
    indices, values = encode(x, atoms, k, method, nonnegative)
    assert torch.isfinite(values).all()
    settings = {"method": method, "nonnegative": nonnegative, "refit": True, "rtol": 0.0}
    scaled, exponents = scale_rows(x)
    expected = SparseCodes(*batched.encode(scaled, atoms, k, **settings), len(atoms))
    found = SparseCodes(indices, torch.ldexp(values, -exponents), len(atoms))
    assert found.values.norm(dim=1).lt(1e3).all()
    errors = [(scaled - codes.decode(atoms)).norm(dim=1) for codes in (found, expected)]
    assert (errors[0] <= scaled.norm(dim=1) * (1 + 1e-5)).all()
    # Where rounding, and so the device, decides a pick, the codes are not determined:
    # - mp may pick an atom and later one that is 1e-6 away, for the rest of the same direction;
    # - the residual of d − 1 atoms has one direction left, all of which any independent atom
    #   explains, so ols may take any as the d-th; near an atom it picks by the small rest.
    is_close = tilt == 1e-6
    if method != "mp" or not is_close:
        torch.testing.assert_close(*errors, rtol=1e-3, atol=1e-4)
    if {"mp": not is_close, "omp": True, "ols": is_close and k == 3}[method]:
        energies = [codes.values.square().sum(1) for codes in (found, expected)]
        torch.testing.assert_close(*energies, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("method", "nonnegative"), METHODS)
def test_coefficients_that_underflow_leave_their_slots(method, nonnegative):
    x, atoms = make_problem(4, 6, 12)
    x *= torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    indices, values = encode(x, atoms, 5, method, nonnegative)
    unused = values == 0
    assert unused.any()
    assert not unused.all()
    assert (unused.long().diff(dim=1) >= 0).all()
    assert (indices[unused] == 0).all()
    assert not torch.signbit(values[unused]).any()
    expected = reference.encode(
        *(x, atoms, 5), method=method, nonnegative=nonnegative, refit=True, rtol=0.0
    )
    torch.testing.assert_close((values != 0).sum(1), (expected[1] != 0).sum(1))


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_bfloat16_products_are_refitted_exactly(method):
    x, atoms = make_problem(5, 24, 60)
    settings = {"method": method, "nonnegative": False, "refit": True, "rtol": 0.0}
    expected = batched.encode(x, atoms, 4, product_dtype="bfloat16", **settings)
    indices, values = encode(x, atoms, 4, method, product_dtype="bfloat16")
    torch.testing.assert_close(indices, expected[0])
    torch.testing.assert_close(values, expected[1], rtol=1e-4, atol=1e-4)
    residual = x - (values.unsqueeze(2) * atoms[indices]).sum(1)
    assert (atoms[indices] @ residual.unsqueeze(2)).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_blocks_and_repetition_change_no_byte(monkeypatch, method):
    x, atoms = make_problem(7, 12, 30)
    whole = encode(x, atoms, 3, method, nonnegative=True)
    again = encode(x, atoms, 3, method, nonnegative=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    monkeypatch.setattr(pursuit, "BLOCK_BYTES", 3 * 30 * 4)
    parts = encode(x, atoms, 3, method, nonnegative=True)
    torch.testing.assert_close(parts, whole)


def make_codes(n, d, m, k, dtype, nonnegative):
    x, atoms = make_problem(n, d, m, torch.float64)
    codes = sparse_encode(x, atoms, k, nonnegative=nonnegative, refit=False)
    return x.to(dtype), codes.indices, codes.values.to(dtype), atoms.to(dtype)


def run_update(module, device, problem, atom_batch, power_iterations, nonnegative):
    x, indices, values, atoms = (part.clone().to(device) for part in problem)
    order = torch.randperm(len(atoms), generator=torch.Generator().manual_seed(3))
    residual = module.compute_residual(x, indices, values, atoms)
    module.update_(
        residual, indices, values, atoms, order, atom_batch, power_iterations, nonnegative
    )
    return residual.cpu(), values.cpu(), atoms.cpu()


UPDATES = [
    ((12, 20, 11, 3), 1, 1, torch.float32),
    ((20, 9, 23, 3), 7, 3, torch.float32),
    ((40, 100, 5, 2), 5, 2, torch.float32),
    ((8, 24, 8, 8), 3, 2, torch.float64),
    ((33, 1, 20, 1), 20, 2, torch.float64),
    ((1, 1, 1, 1), 1, 1, torch.float32),
]


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("shape", "atom_batch", "power_iterations", "dtype"), UPDATES)
@pytest.mark.parametrize("least_entries", [4, 32])
def test_update_agrees_with_reference(
    monkeypatch, shape, atom_batch, power_iterations, dtype, nonnegative, least_entries
):
    # few entries a program: the entries of an atom are then summed by several
    monkeypatch.setattr(update, "LEAST_ENTRIES", least_entries)
    problem = make_codes(*shape, dtype, nonnegative)
    settings = (atom_batch, power_iterations, nonnegative)
    expected = run_update(update_reference, "cpu", problem, *settings)
    found = run_update(update, DEVICE, problem, *settings)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    if nonnegative:
        assert (found[1] >= 0).all()
    assert all(
        torch.equal(a, b)
        for a, b in zip(found, run_update(update, DEVICE, problem, *settings), strict=True)
    )


def test_unused_atoms_and_samples_stay_as_they_are():
    x, indices, values, atoms = make_codes(80, 6, 12, 2, torch.float32, False)
    values[::2] = 0
    values[indices == indices[1, 0]] = 0
    problem = x, indices, values, atoms
    counts = torch.bincount(indices[values != 0], minlength=12)
    used = counts > 0
    # An atom whose samples are explained completely stays in place: so may one that shares its
    # only sample with an atom updated before. Here all used atoms move far, by definition.
    assert counts[used].min() > 2
    expected = run_update(update_reference, "cpu", problem, 5, 2, False)
    assert (expected[2] - atoms)[used].norm(dim=1).min() > 1e-2
    residual, new_values, new_atoms = run_update(update, DEVICE, problem, 5, 2, False)
    assert not used.all()
    assert torch.equal(new_atoms[~used], atoms[~used])
    assert not torch.isclose(new_atoms[used], atoms[used]).all(1).any()
    assert torch.equal(new_values != 0, values != 0)
    torch.testing.assert_close(residual[::2], x[::2])
    torch.testing.assert_close(new_atoms.norm(dim=1), torch.ones(12))
    found = residual, new_values, new_atoms
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_an_update_of_nothing_changes_nothing():
    x, indices, values, atoms = make_codes(6, 5, 8, 2, torch.float32, False)
    for problem in ((x, indices, 0 * values, atoms), (0 * x, indices, 0 * values, atoms)):
        found = run_update(update, DEVICE, problem, 3, 2, False)
        for before, after in zip((problem[0], *problem[2:]), found, strict=True):
            assert torch.equal(before, after)


def test_an_atom_whose_sum_vanishes_keeps_its_place():
    # E = [1, 0; −1, 0] and z = (1, 1): Eᵀz = 0
    atoms = torch.eye(2)[:1]
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    problem = x, torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1), atoms
    residual, values, new_atoms = run_update(update, DEVICE, problem, 1, 2, False)
    assert torch.equal(new_atoms, atoms)
    assert torch.equal(values, torch.ones(2, 1))
    torch.testing.assert_close(residual, x - atoms)


def test_rows_too_wide_for_a_program_are_left_to_torch(monkeypatch):
    problem = make_codes(20, 9, 12, 3, torch.float32, False)
    expected = run_update(update_reference, "cpu", problem, 4, 2, False)
    monkeypatch.setattr(update, "WIDEST_BYTES", 4 * 8)
    found = run_update(update, DEVICE, problem, 4, 2, False)
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_a_strided_residual_is_updated_in_place():
    x, indices, values, atoms = make_codes(10, 6, 8, 2, torch.float32, False)
    whole = torch.stack([x, x], 2).to(DEVICE)
    residual = whole[..., 0]
    parts = [part.clone().to(DEVICE) for part in (indices, values, atoms)]
    residual.copy_(update.compute_residual(residual, *parts))
    update.update_(residual, *parts, torch.arange(8), 3, 1, False)
    decoded = (parts[1].unsqueeze(2) * parts[2][parts[0]]).sum(1)
    torch.testing.assert_close(whole[..., 0], x.to(DEVICE) - decoded)
    torch.testing.assert_close(whole[..., 1].cpu(), x)
