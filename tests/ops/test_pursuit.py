"""Every pursuit against its definition, against scikit-learn, and on data that nobody likes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import try_examples
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import orthogonal_mp_gram

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.threads import count_workers, hold_torch_to_one_thread

FAST = ["batched", "cpu"]
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = [
    ("batched", "cpu"),
    ("cpu", "cpu"),
    pytest.param(("batched", "cuda"), marks=[pytest.mark.cuda, no_cuda]),
]
# n, d, m, k: odd sizes, the smallest ones, k = m, more atoms than a kernel's block or tile
SHAPES = [
    (50, 20, 37, 5),
    (1, 1, 1, 1),
    (63, 12, 300, 1),
    (30, 24, 8, 8),
    (100, 16, 129, 6),
    (10, 30, 2500, 11),
    (1, 33, 257, 7),
    (20, 1, 3, 1),
]
# A few roundings of coefficients and sums to the spacing of the smallest numbers.
DENORMAL_ERROR = 30 * 2.0**-149
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def fill_empty_memory():
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def make_problem(n, d, m, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(m, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.nn.functional.normalize(atoms, dim=1).to(dtype)


def assert_well_formed(codes: SparseCodes, nonnegative=False):
    used = codes.values != 0
    assert torch.isfinite(codes.values).all()
    assert (used.long().diff(dim=1) <= 0).all(), "used slots come first"
    assert (codes.indices[~used] == 0).all()
    assert not torch.signbit(codes.values[~used]).any()
    for row, mask in zip(codes.indices, used, strict=True):
        assert len(row[mask].unique()) == mask.sum()
    if nonnegative:
        assert (codes.values >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_reference(shape, method, nonnegative, where, dtype):
    n, d, m, k = shape
    implementation, device = where
    x, atoms = make_problem(n, d, m, dtype)
    for refit, rtol in ((True, 0.0), (False, 0.5)):
        options = {"method": method, "nonnegative": nonnegative, "refit": refit, "rtol": rtol}
        expected = sparse_encode(x, atoms, k, implementation="reference", **options)
        found = sparse_encode(
            x.to(device), atoms.to(device), k, implementation=implementation, **options
        ).to("cpu")
        assert found.values.dtype == dtype
        assert_well_formed(found, nonnegative)
        torch.testing.assert_close(found.indices, expected.indices)
        torch.testing.assert_close(
            found.values, expected.values, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_omp_agrees_with_scikit_learn(implementation):
    x, atoms = make_problem(40, 30, 90)
    expected = orthogonal_mp_gram(
        (atoms @ atoms.T).numpy(), (atoms @ x.T).numpy(), n_nonzero_coefs=6
    )
    found = sparse_encode(x, atoms, 6, method="omp", implementation=implementation)
    np.testing.assert_allclose(found.to_dense().numpy(), expected.T, atol=1e-10)


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_mp_of_two_atoms_by_hand(implementation):
    atoms = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    x = torch.tensor([[1.0, 1.0]])
    # products 1 and 1.4: the second atom first; then 1 − 1.4 · 0.8 = −0.12 for the first
    codes = sparse_encode(x, atoms, 2, refit=False, implementation=implementation)
    torch.testing.assert_close(codes.indices, torch.tensor([[1, 0]]))
    torch.testing.assert_close(codes.values, torch.tensor([[1.4, -0.12]]))
    codes = sparse_encode(x, atoms, 2, nonnegative=True, implementation=implementation)
    torch.testing.assert_close(codes.values, torch.tensor([[1.4, 0.0]]))


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_ties_go_to_the_lowest_atom(implementation):
    atoms = torch.eye(300)[torch.arange(300) % 3]
    codes = sparse_encode(torch.ones(2, 300), atoms, 3, implementation=implementation)
    assert codes.indices.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_mp_takes_at_most_4k_steps(implementation):
    # atoms 2° apart: the products fall slowly, and the third atom is never needed
    angle = torch.tensor([0.0, 2.0, 90.0]).deg2rad()
    atoms = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.tensor([[0.3, 1.0]])
    codes = sparse_encode(x, atoms, 3, refit=False, implementation=implementation)
    expected = sparse_encode(x, atoms, 3, refit=False, implementation="reference")
    torch.testing.assert_close(codes.values, expected.values)


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_refit_is_optimal_on_its_support(implementation, nonnegative, method):
    x, atoms = make_problem(60, 24, 100)
    codes = sparse_encode(
        x, atoms, 9, method=method, nonnegative=nonnegative, implementation=implementation
    )
    residual = x - codes.decode(atoms)
    slope = (atoms[codes.indices] * residual.unsqueeze(1)).sum(2)[codes.values != 0]
    assert slope.abs().max() < 1e-9


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_and_dependent_atoms(implementation, nonnegative, method, dtype):
    x, atoms = make_problem(40, 6, 12, dtype)
    nearly = torch.nn.functional.normalize(atoms[:6] + 1e-6 * atoms[6:], dim=1)
    atoms = torch.cat([atoms, atoms[:6], nearly, -atoms[:6]])
    codes = sparse_encode(
        x, atoms, 6, method=method, nonnegative=nonnegative, implementation=implementation
    )
    assert_well_formed(codes, nonnegative)
    error = (x - codes.decode(atoms)).norm(dim=1)
    assert (error <= x.norm(dim=1) * (1 + 1e-5)).all()
    if implementation != "reference" or not nonnegative:
        assert codes.values.abs().max() < 1e3


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_an_atom_gets_one_code_and_zero_none(implementation, method):
    _, atoms = make_problem(1, 20, 50, torch.float32)
    x = torch.cat([3 * atoms[7:8], torch.zeros(1, 20), -2 * atoms[9:10]])
    codes = sparse_encode(x, atoms, 4, method=method, implementation=implementation)
    assert codes.l0.tolist() == [1, 0, 1]
    assert codes.indices[:, 0].tolist() == [7, 0, 9]
    codes = sparse_encode(-atoms[:1], atoms[:1], 1, nonnegative=True, implementation=implementation)
    assert codes.l0.tolist() == [0]


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e-30, 1e37])
def test_scale_does_not_matter(implementation, scale):
    x, atoms = make_problem(30, 16, 40, torch.float32)
    x[3] *= 1e-8
    for nonnegative in (False, True):
        options = {"nonnegative": nonnegative, "implementation": implementation}
        plain = sparse_encode(x, atoms, 5, **options)
        scaled = sparse_encode((x.double() * scale).float(), atoms, 5, **options)
        torch.testing.assert_close(scaled.indices, plain.indices)
        # the scale is no power of two, so the samples themselves are rounded
        torch.testing.assert_close(
            scaled.values.double() / scale, plain.values.double(), rtol=1e-5, atol=1e-5
        )


finite = st.floats(-1e6, 1e6, width=32)


# scaled back, a coefficient underflows to −0
@example(x=np.full((1, 5), 1e-45, np.float32), k=4, nonnegative=False, method="mp")
@try_examples(25)
@given(
    x=st.one_of(
        arrays(np.float32, st.tuples(st.integers(1, 6), st.just(5)), elements=finite),
        st.integers(1, 5).map(lambda n: np.full((n, 5), 2.0, np.float32)),
        st.integers(1, 5).map(lambda n: np.zeros((n, 5), np.float32)),
    ),
    k=st.integers(1, 5),
    nonnegative=st.booleans(),
    method=st.sampled_from(["mp", "omp", "ols"]),
)
@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_degenerate_samples(implementation, x, k, nonnegative, method):
    atoms = make_problem(1, 5, 9, torch.float32)[1]
    options = {"method": method, "nonnegative": nonnegative}
    codes = sparse_encode(x, atoms, k, implementation=implementation, **options)
    assert_well_formed(codes, nonnegative)
    # in float64, where squares of denormal numbers do not vanish
    norms = torch.from_numpy(x).double().norm(dim=1)
    error = (torch.from_numpy(x) - codes.decode(atoms)).double().norm(dim=1)
    assert (error <= norms * (1 + 1e-5) + DENORMAL_ERROR).all()


@pytest.mark.parametrize("implementation", ["reference", *FAST])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients_that_underflow_leave_their_slots(implementation, method, nonnegative, dtype):
    x, atoms = make_problem(40, 6, 12, dtype)
    x *= torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    options = {"method": method, "nonnegative": nonnegative, "implementation": implementation}
    codes = sparse_encode(x, atoms, 5, **options)
    assert_well_formed(codes, nonnegative)
    scaled = sparse_encode(x * 2.0**120, atoms, 5, **options)
    assert_well_formed(scaled, nonnegative)
    assert (codes.l0 <= scaled.l0).all()
    assert 0 < codes.l0.sum() < scaled.l0.sum()
    # what is left is in the order of picking
    for row, l0, other in zip(codes.indices, codes.l0, scaled.indices, strict=True):
        kept = row[:l0].tolist()
        assert [j for j in other.tolist() if j in kept][:l0] == kept


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_threads_do_not_change_a_byte(implementation, method):
    x, atoms = make_problem(2100, 48, 333, torch.float32)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert count_workers() == threads
        codes = sparse_encode(x, atoms, 7, method=method, implementation=implementation)
        assert torch.get_num_threads() == threads
        results.append(codes)
    torch.set_num_threads(before)
    for codes in results[1:]:
        assert torch.equal(codes.indices, results[0].indices)
        assert torch.equal(codes.values, results[0].values)


def test_one_thread_is_held_and_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with hold_torch_to_one_thread() as workers:
        assert (workers, torch.get_num_threads(), count_workers()) == (2, 1, 2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_arrays_are_accepted_and_not_changed():
    x, atoms = (part.numpy() for part in make_problem(10, 8, 20, torch.float32))
    x.flags.writeable = False
    kept = x.copy()
    codes = sparse_encode(x, atoms, 3)
    np.testing.assert_array_equal(x, kept)
    assert codes.n_atoms == 20
    assert codes.values.shape == (10, 3)
    strided = sparse_encode(torch.from_numpy(kept).T.contiguous().T, atoms, 3)
    torch.testing.assert_close(strided.values, codes.values)


def bad(**changes):
    x, atoms = make_problem(4, 6, 10, torch.float32)
    return {"x": x, "atoms": atoms, "k": 2} | changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(x=torch.full((4, 6), torch.nan)), r"x: expected finite values, got NaN"),
        (bad(x=torch.full((4, 6), torch.inf)), r"x: expected finite values, got NaN or inf"),
        (bad(x=torch.zeros(4, 7)), r"x: expected width 6 .*, got 7"),
        (bad(x=torch.zeros(4, 6, dtype=torch.int64)), r"x: expected float32 .*, got int64"),
        (bad(x=np.zeros((4, 6), np.int32)), r"x: expected float32 or float64, got int32"),
        (bad(x=torch.zeros(4, 6).half()), r"x: expected float32 or float64, got float16"),
        (bad(x=torch.zeros(4, 0)), r"x: expected a non-empty matrix .*, got shape \(4, 0\)"),
        (bad(x=torch.zeros(6)), r"x: expected a non-empty matrix .*, got shape \(6,\)"),
        (bad(x=[[0.0] * 6]), r"x: expected a tensor or an array, got list"),
        (bad(atoms=2 * bad()["atoms"]), r"atoms: expected unit norm, got an atom that is 1 off"),
        (bad(atoms=torch.full((10, 6), torch.nan)), r"atoms: expected finite"),
        (bad(k=0), r"k: expected an integer from 1 to m=10, got 0"),
        (bad(k=11), r"k: expected an integer from 1 to m=10, got 11"),
        (bad(k=2.0), r"k: expected an integer from 1 to m=10, got 2.0"),
        (bad(k=7, method="omp"), r"k: expected at most the width d=6 for omp, got 7"),
        (bad(k=7, method="ols"), r"k: expected at most the width d=6 for ols, got 7"),
        (bad(method="lars"), r"method: expected 'mp', 'omp' or 'ols', got 'lars'"),
        (bad(rtol=-1.0), r"rtol: expected a number from 0 to below 1, got -1.0"),
        (bad(implementation="gpu"), r"implementation: expected auto, .*, got 'gpu'"),
        (bad(implementation="cuda"), r"implementation: expected one available on cpu .*'cuda'"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        sparse_encode(**arguments)
