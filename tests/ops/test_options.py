"""All combinations of the options of `sparse_encode`: every implementation against the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from examples import try_examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from dbksvd.base.codes import SparseCodes
from dbksvd.ops.pursuit import batched, reference
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.pursuit.tolerances import find_tolerances

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
on_cuda = [pytest.mark.cuda, no_cuda]
RUNS = [
    ("batched", "cpu"),
    ("cpu", "cpu"),
    pytest.param(("batched", "cuda"), marks=on_cuda),
    pytest.param(("cuda", "cuda"), marks=on_cuda),
]
METHODS = ["mp", "omp", "ols"]
ROWS = 3
# How far a problem is moved to see whether its codes hang on a tie: samples in units of their
# norm, limits as documented in `sparse_encode`.
NOISE, LIMIT_SHIFT, RTOL_SHIFT = 1e-5, 1e-4, 2e-3
# Coefficients per norm that a moved problem may change by, and whose order counts.
SMALL = 1e-3


@dataclass
class Problem:
    """Samples and atoms, and the options other than method and implementation where they are on.

    On a `grid` all products, Gram entries and penalties are small multiples of powers of two:
    matching pursuit makes no rounding error, so that ties go to the lowest atom everywhere.
    """

    x: Tensor
    atoms: Tensor
    k: int
    rtol: float
    threshold: float
    penalties: list[float]
    is_grid: bool = False

    def list_options(self) -> list[dict[str, Any]]:
        switches = {
            "nonnegative": (False, True),
            "refit": (True, False),
            "rtol": (0.0, self.rtol),
            "threshold": (0.0, self.threshold),
            "penalties": (None, self.penalties),
            "product_dtype": (None, "bfloat16"),
        }
        return [dict(zip(switches, values, strict=True)) for values in product(*switches.values())]


dtypes = st.sampled_from([torch.float32, torch.float64])
exponents = st.sampled_from([0, 0, -40, 40])  # within or beyond what pursuits scale
penalty = st.sampled_from([0.0, 0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])


@st.composite
def draw_problems(draw: st.DrawFn) -> Problem:
    # fewer atoms than d = 8 or more of them
    m, seed = draw(st.integers(2, 12)), draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    atoms = normalize(torch.randn(m, 8, generator=generator).double(), dim=1)
    # few digits, so that products of rounded atoms have no error
    x = torch.randn(ROWS, 8, generator=generator).mul(16).round() / 16
    return draw(finish_problems(x, atoms, most=6))


@st.composite
def draw_grids(draw: st.DrawFn) -> Problem:
    pattern = st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4)
    axis = st.integers(0, 3).map(lambda i: torch.eye(4)[i].tolist())
    atoms = torch.tensor(draw(st.lists(pattern | axis, min_size=2, max_size=8)))
    row = st.lists(st.integers(-4, 4), min_size=4, max_size=4)
    x = torch.tensor(draw(st.lists(row, min_size=ROWS, max_size=ROWS)))
    return draw(finish_problems(x, atoms, most=4, is_grid=True))


@st.composite
def finish_problems(
    draw: st.DrawFn, x: Tensor, atoms: Tensor, *, most: int, is_grid: bool = False
) -> Problem:
    dtype, exponent = draw(dtypes), draw(exponents)
    return Problem(
        x=x.to(dtype) * 2.0**exponent,
        atoms=atoms.to(dtype),
        # fewer than d for orthogonal pursuits: any atom would do as the last of d
        k=draw(st.integers(1, min(len(atoms), most))),
        rtol=draw(st.sampled_from([0.25, 0.5, 0.75])),
        threshold=draw(st.integers(1, 10)) / 4 * 2.0**exponent,
        penalties=draw(st.lists(penalty, min_size=len(atoms), max_size=len(atoms))),
        is_grid=is_grid,
    )


def find_refusal(method: str, options: dict[str, Any], implementation: str) -> str | None:
    """Return the message with which options are refused, as a pattern; None if they are not."""
    if options["product_dtype"] is not None and implementation in ("reference", "cpu"):
        return f"product_dtype: expected None for implementation '{implementation}', got 'bfloat16'"
    if options["penalties"] is not None and method != "mp":
        return f"penalties: expected method 'mp' with them, got '{method}'"
    return None


def lift(problem: Problem) -> tuple[Tensor, Tensor] | None:
    """Return samples and atoms with the Gram matrix and norms given, and with rounded products.

    There are such ones where atoms are independent: with G = A Aᵀ the rows of A, and A⁻¹ p.
    """
    x, atoms = problem.x.double(), problem.atoms.double()
    if len(atoms) >= atoms.shape[1]:
        return None
    unit = 2.0 ** float(torch.frexp(x.abs().max()).exponent)
    rounded = batched.multiply(problem.x / unit, problem.atoms, "bfloat16").double() * unit
    factor = torch.linalg.cholesky(atoms @ atoms.T)
    lifted = torch.linalg.solve_triangular(factor, rounded.T, upper=False).T
    rest = x.square().sum(1) - lifted.square().sum(1)
    if (rest < 0).any():
        return None
    zero = torch.zeros(len(factor), 1, dtype=torch.float64)
    return torch.cat([lifted, rest.sqrt()[:, None]], 1), torch.cat([factor, zero], 1)


def compute_expected(
    problem: Problem, method: str, options: dict[str, Any], direction: int = 0
) -> SparseCodes | None:
    """Return the codes by definition, of the problem moved in a direction; None if unknown."""
    x, atoms = problem.x, problem.atoms
    settings = {name: value for name, value in options.items() if name != "product_dtype"}
    is_rounded = options["product_dtype"] is not None and not problem.is_grid
    if is_rounded:
        pair = lift(problem)
        if pair is None:
            return None
        x, atoms = (part.to(problem.x.dtype) for part in pair)
    if direction:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        x = x + direction * NOISE * x.norm(dim=1, keepdim=True) * noise
        settings["threshold"] *= 1 + direction * LIMIT_SHIFT
        settings["rtol"] += direction * RTOL_SHIFT * (settings["rtol"] > 0)
    if settings["penalties"] is not None:
        shifted = torch.tensor(settings["penalties"]).double() + direction * LIMIT_SHIFT
        settings["penalties"] = shifted.clamp(0, 1)
    indices, values = reference.encode(x, atoms, problem.k, method=method, **settings)
    if is_rounded and (options["refit"] or method != "mp"):
        values = refit_exactly(problem, indices, values, options["nonnegative"])
    return SparseCodes(indices, values, len(problem.atoms))


def refit_exactly(problem: Problem, indices: Tensor, values: Tensor, nonnegative: bool) -> Tensor:
    """Return the fit to the samples themselves on supports that rounded products have chosen."""
    D, dependent = problem.atoms.double().numpy(), find_tolerances(problem.x.dtype)[1]
    values = values.clone()
    for row, sample in enumerate(problem.x.double().numpy()):
        support = indices[row, values[row] != 0].tolist()
        if support:
            z = reference.fit_support(sample, D, D @ D.T, support, nonnegative, dependent)
            values[row, : len(support)] = torch.from_numpy(z)
    return values


def order_large(codes: SparseCodes, sizes: Tensor) -> list[list[int]]:
    """Return the atoms of each sample in the order of its slots, only those of size above SMALL."""
    return [
        [j for j in row[value != 0].tolist() if sizes[i, j] > SMALL]
        for i, (row, value) in enumerate(zip(codes.indices, codes.values, strict=True))
    ]


def measure_sizes(codes: SparseCodes, norms: Tensor) -> Tensor:
    return codes.to_dense().double() / norms


def check_agreement(problem: Problem, method: str, options: dict[str, Any], encode: Any) -> int:
    """Compare codes with the definition, sample by sample, but for ties; return how many."""
    found = encode(problem, method, options)
    assert torch.isfinite(found.values).all()
    unused = found.values == 0
    assert (found.indices[unused] == 0).all()
    assert not torch.signbit(found.values[unused]).any()
    assert (unused.long().diff(dim=1) >= 0).all(), "used slots come first"
    assert not (options["nonnegative"] and (found.values < 0).any())
    expected, *moved = (compute_expected(problem, method, options, way) for way in (0, 1, -1))
    if expected is None:
        return 0
    norms = problem.x.double().norm(dim=1, keepdim=True)
    norms[norms == 0] = 1
    sizes = measure_sizes(expected, norms)
    order = order_large(expected, sizes.abs())
    is_exact = problem.is_grid and not options["refit"]
    compared = 0
    for row in range(len(problem.x)):
        is_tie = any(
            (measure_sizes(codes, norms)[row] - sizes[row]).abs().max() > SMALL
            or order_large(codes, sizes.abs())[row] != order[row]
            for codes in moved
        )
        if is_exact or not is_tie:
            tolerance = find_tolerances(problem.x.dtype)[1]
            torch.testing.assert_close(
                measure_sizes(found, norms)[row], sizes[row], rtol=0, atol=tolerance
            )
            assert order_large(found, sizes.abs())[row] == order[row]
            compared += 1
    return compared


def encode_by(problem: Problem, method: str, options: dict[str, Any], where: Any) -> SparseCodes:
    implementation, device = where
    x, atoms = problem.x.to(device), problem.atoms.to(device)
    settings = {"method": method, "implementation": implementation, **options}
    return sparse_encode(x, atoms, problem.k, **settings).to("cpu")


def check_all(problem: Problem, method: str, where: tuple[str, str]) -> list[int]:
    """Check all combinations of options; return how many samples of each could be compared."""
    compared = []
    for options in problem.list_options():
        message = find_refusal(method, options, where[0])
        if message is None:
            encode = partial(encode_by, where=where)
            compared.append(check_agreement(problem, method, options, encode))
            continue
        with pytest.raises(ValueError, match=message):
            encode_by(problem, method, options, where)
    return compared


@pytest.mark.parametrize("where", RUNS)
@pytest.mark.parametrize("method", METHODS)
@try_examples(6)
@given(problem=draw_problems())
def test_all_combinations_of_options_agree_with_reference(method, where, problem):
    check_all(problem, method, where)


@pytest.mark.parametrize("where", RUNS)
@try_examples(6)
@given(problem=draw_grids())
def test_ties_of_matching_pursuit_agree_with_reference(where, problem):
    check_all(problem, "mp", where)


def encode_in_interpreter(problem: Problem, method: str, options: dict[str, Any]) -> SparseCodes:
    cuda = pytest.importorskip("dbksvd.ops.pursuit.cuda")
    settings = dict(options)
    if settings["penalties"] is not None:
        settings["penalties"] = torch.tensor(settings["penalties"], dtype=torch.float64)
    codes = cuda.encode(problem.x, problem.atoms, problem.k, method=method, **settings)
    return SparseCodes(*codes, len(problem.atoms))


# On a device these kernels are among RUNS.
@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton does not interpret here")
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
@try_examples(3)
@given(problem=draw_problems(), grid=draw_grids())
def test_triton_kernels_agree_with_reference(method, problem, grid):
    pytest.importorskip("triton")
    for one in (problem, grid) if method == "mp" else (problem,):
        one = replace(one, x=one.x[-1:])  # the interpreter is slow
        for options in one.list_options():
            if options["penalties"] is None or method == "mp":
                check_agreement(one, method, options, encode_in_interpreter)


@pytest.mark.parametrize("method", METHODS)
def test_most_samples_can_be_compared(method):
    generator = torch.Generator().manual_seed(0)
    atoms = normalize(torch.randn(7, 8, generator=generator).double(), dim=1)
    x = torch.randn(ROWS, 8, generator=generator).mul(16).round().double() / 16
    problem = Problem(x, atoms, 4, 0.5, 1.0, [1 / 32] * 7)
    compared = check_all(problem, method, ("batched", "cpu"))
    assert sum(compared) > 0.9 * ROWS * len(compared)


def test_the_reference_refuses_too():
    x, atoms = torch.ones(1, 2), torch.eye(2)
    problem = Problem(x, atoms, 1, 0.5, 0.5, [0.5, 0.5])
    for method in METHODS:
        check_all(problem, method, ("reference", "cpu"))
