"""Every atom update against its definition, and what an update must never do."""

from __future__ import annotations

import pytest
import torch
from examples import try_examples
from hypothesis import given
from hypothesis import strategies as st

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.atom_update.reference import improve_atom
from dbksvd.ops.atom_update.update import compute_residual, update_atoms_
from dbksvd.ops.pursuit.encode import sparse_encode

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FAST = ["batched", "cpu"]
DEVICES = [
    ("batched", "cpu"),
    ("cpu", "cpu"),
    pytest.param(("batched", "cuda"), marks=[pytest.mark.cuda, no_cuda]),
]
SHAPES = [(50, 20, 37, 5), (1, 1, 1, 1), (63, 12, 130, 1), (30, 24, 8, 8), (300, 16, 129, 4)]
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def fill_empty_memory():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def make_problem(n, d, m, k, dtype=torch.float64, *, nonnegative=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=generator, dtype=torch.float64)
    atoms = torch.nn.functional.normalize(atoms, dim=1)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    codes = sparse_encode(x, atoms, k, nonnegative=nonnegative, refit=False)
    return (
        x.to(dtype),
        SparseCodes(codes.indices, codes.values.to(dtype), m),
        atoms.to(dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_reference(shape, nonnegative, where, dtype):
    implementation, device = where
    for atom_batch, power_iterations in ((1, 1), (7, 3), (shape[2], 2)):
        results = []
        for name, place in (("reference", "cpu"), (implementation, device)):
            x, codes, atoms = make_problem(*shape, dtype, nonnegative=nonnegative)
            x, codes, atoms = x.to(place), codes.to(place), atoms.to(place)
            residual = update_atoms_(
                x,
                codes,
                atoms,
                atom_batch=atom_batch,
                power_iterations=power_iterations,
                nonnegative=nonnegative,
                seed=3,
                implementation=name,
            )
            results.append((residual.cpu(), codes.values.cpu(), atoms.cpu()))
        for found, expected in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(
                found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
            )


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("atom_batch", [1, 10])
def test_invariants(implementation, nonnegative, atom_batch):
    x, codes, atoms = make_problem(200, 16, 60, 4, nonnegative=nonnegative)
    unused = torch.nn.functional.normalize(torch.ones(1, 16, dtype=x.dtype), dim=1)
    atoms = torch.cat([atoms, unused])
    codes = SparseCodes(codes.indices, codes.values, 61)
    before = SparseCodes(codes.indices.clone(), codes.values.clone(), 61)
    old_atoms = atoms.clone()
    error = (x - codes.decode(atoms)).square().sum()
    for seed in range(3):
        residual = update_atoms_(
            x,
            codes,
            atoms,
            atom_batch=atom_batch,
            power_iterations=2,
            nonnegative=nonnegative,
            seed=seed,
            implementation=implementation,
        )
        torch.testing.assert_close(residual, x - codes.decode(atoms))
        torch.testing.assert_close(atoms.norm(dim=1), torch.ones(61, dtype=x.dtype))
        now = residual.square().sum()
        if atom_batch == 1:
            assert now <= error * (1 + 1e-12)
        error = now
    assert torch.equal(codes.indices, before.indices)
    assert (codes.values[before.values == 0] == 0).all()
    if nonnegative:
        assert (codes.values >= 0).all()
    else:
        assert torch.equal(codes.values != 0, before.values != 0)
    assert torch.equal(atoms[60], old_atoms[60])
    assert ((atoms * old_atoms).sum(1) > -1e-9)[codes.count_usage() > 0].all() or nonnegative


def test_power_iterations_reach_the_leading_singular_vector():
    generator = torch.Generator().manual_seed(0)
    R = torch.randn(40, 9, generator=generator, dtype=torch.float64).numpy()
    z = torch.randn(40, generator=generator, dtype=torch.float64).numpy()
    d = torch.nn.functional.normalize(torch.ones(9, dtype=torch.float64), dim=0).numpy()
    new_d, new_z = improve_atom(R, z, d, 500, False)
    _U, S, Vh = torch.linalg.svd(torch.from_numpy(R + z[:, None] * d))
    assert abs(float(Vh[0] @ torch.from_numpy(new_d))) == pytest.approx(1, abs=1e-6)
    assert float(torch.from_numpy(new_z).norm()) == pytest.approx(float(S[0]), rel=1e-6)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("atom_batch", [1, 16])
def test_threads_do_not_change_a_byte(implementation, atom_batch):
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        # 12 000 · 8 entries: a batch of 16 of the 40 atoms has more than one chunk of them
        x, codes, atoms = make_problem(12000, 24, 40, 8, torch.float32)
        residual = update_atoms_(
            x,
            codes,
            atoms,
            atom_batch=atom_batch,
            power_iterations=2,
            implementation=implementation,
        )
        results.append((residual, codes.values, atoms))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_a_given_residual_is_carried_in_place(implementation):
    x, codes, atoms = make_problem(80, 12, 30, 3)
    residual = compute_residual(x, codes, atoms, implementation=implementation)
    torch.testing.assert_close(residual, x - codes.decode(atoms))
    returned = update_atoms_(
        x,
        codes,
        atoms,
        atom_batch=4,
        power_iterations=1,
        residual=residual,
        implementation=implementation,
    )
    assert returned is residual
    torch.testing.assert_close(residual, x - codes.decode(atoms))


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_does_not_matter(implementation, scale):
    results = []
    for factor in (1.0, scale):
        x, codes, atoms = make_problem(60, 12, 30, 3)
        x, atoms = (x * factor).float(), atoms.float()
        codes = SparseCodes(codes.indices, (codes.values * factor).float(), 30)
        update_atoms_(
            x, codes, atoms, atom_batch=4, power_iterations=2, implementation=implementation
        )
        results.append((atoms, codes.values.double() / factor))
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@try_examples(25)
@given(
    kind=st.sampled_from(["zeros", "repeats", "constant column", "one sample", "explained"]),
    nonnegative=st.booleans(),
    atom_batch=st.integers(1, 9),
)
@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_degenerate_samples(implementation, kind, nonnegative, atom_batch):
    x, _, atoms = make_problem(12, 5, 9, 2, torch.float32)
    if kind == "zeros":
        x[::2] = 0
    elif kind == "repeats":
        x = x[:1].repeat(12, 1)
    elif kind == "constant column":
        x[:, 0] = 7
    elif kind == "one sample":
        x = x[:1]
    else:
        x = atoms[:5] * torch.tensor([[1.0], [2.0], [3.0], [0.5], [1.0]])
    codes = sparse_encode(x, atoms, 2, nonnegative=nonnegative)
    error = (x - codes.decode(atoms)).norm()
    residual = update_atoms_(
        x,
        codes,
        atoms,
        atom_batch=atom_batch,
        power_iterations=3,
        nonnegative=nonnegative,
        implementation=implementation,
    )
    assert torch.isfinite(residual).all()
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(9))
    if atom_batch == 1:
        assert residual.norm() <= error * (1 + 1e-5) + 1e-5


def test_an_update_of_no_codes_changes_nothing():
    x, codes, atoms = make_problem(10, 6, 12, 2, torch.float32)
    empty = SparseCodes(torch.zeros_like(codes.indices), torch.zeros_like(codes.values), 12)
    for implementation in ("reference", *FAST):
        kept = atoms.clone()
        residual = update_atoms_(
            x, empty, atoms, atom_batch=5, power_iterations=2, implementation=implementation
        )
        assert torch.equal(residual, x)
        assert torch.equal(atoms, kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atom_batch": 0}, "atom_batch: expected a positive integer, got 0"),
        ({"power_iterations": 1.5}, "power_iterations: expected a positive integer, got 1.5"),
        ({"x": torch.full((10, 6), torch.nan)}, "x: expected finite values"),
        ({"x": torch.zeros(9, 6)}, "codes: expected codes of 9 samples over 12 atoms, got 10"),
        ({"x": torch.zeros(10, 7)}, "x: expected width 6"),
        ({"atoms": torch.zeros(12, 6)}, "atoms: expected unit norm"),
        ({"x": torch.zeros(10, 6).double()}, "atoms: expected a contiguous torch.float64 tensor"),
        ({"implementation": "cuda"}, "implementation: expected one available on cpu"),
    ],
)
def test_bad_input_is_refused_by_name(changes, message):
    x, codes, atoms = make_problem(10, 6, 12, 2, torch.float32)
    arguments = {"x": x, "codes": codes, "atoms": atoms, "atom_batch": 4, "power_iterations": 1}
    with pytest.raises(ValueError, match=message):
        update_atoms_(**(arguments | changes))
