"""What users give: every form of the same numbers is coded the same, the rest is named."""

import numpy as np
import pandas as pd
import pytest
import torch

from dbksvd import DBKSVD, KSVD, Dictionary, sparse_encode
from dbksvd.base.codes import SparseCodes
from dbksvd.dictionaries.dictionary import PursuitSettings

IMPLEMENTATIONS = ("auto", "reference", "batched", "cpu")
OPTIONS = {"max_iter": 1, "polish_iter": 0, "device": "cpu"}


def make_samples() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((60, 6)).astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> DBKSVD:
    return DBKSVD(12, 3, **OPTIONS).fit(make_samples())


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "array": lambda x: x,
    "tensor": torch.from_numpy,
    "negative strides": lambda x: x[::-1].copy()[::-1],
    "negative columns": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "big-endian": lambda x: x.astype(">f4"),
    "float16": lambda x: x.astype(np.float16),
    "half tensor": lambda x: torch.from_numpy(x).half(),
    "requires grad": lambda x: torch.from_numpy(x).requires_grad_(),
    "transposed tensor": lambda x: torch.from_numpy(x.T.copy()).T,
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_coded_the_same(model: DBKSVD, form: str):
    x = make_samples()
    dictionary = model.dictionary_
    expected, codes = dictionary.encode(torch.from_numpy(x)), dictionary.encode(FORMS[form](x))
    assert torch.equal(codes.indices, expected.indices)
    if form == "float64":
        torch.testing.assert_close(codes.values.float(), expected.values)
    else:
        assert torch.equal(codes.values, expected.values)
    assert not codes.values.requires_grad
    assert torch.equal(model.transform(FORMS[form](x)).values, expected.values)
    refitted = DBKSVD(12, 3, **OPTIONS).fit(FORMS[form](x)).dictionary_
    assert torch.equal(refitted.atoms, dictionary.atoms)


@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_no_samples_have_no_codes(model: DBKSVD, method: str, implementation: str, form):
    nothing = form(make_samples()[:0])
    atoms = model.dictionary_.atoms
    codes = sparse_encode(
        nothing, form(atoms.numpy()), 3, method=method, implementation=implementation
    )
    assert codes.indices.shape == codes.values.shape == (0, 3)
    assert codes.indices.dtype == torch.int64
    assert codes.values.dtype == torch.float32
    assert codes.n_atoms == 12
    assert codes.to_dense().shape == (0, 12)
    dictionary = Dictionary(atoms, model.dictionary_.bias, PursuitSettings(3, method))
    codes = dictionary.encode(nothing, implementation=implementation)
    assert dictionary.decode(codes).shape == (0, 6)


def test_transform_of_no_samples(model: DBKSVD):
    assert model.transform(make_samples()[:0]).values.shape == (0, 3)
    grouped = DBKSVD(12, 4, groups=6, **OPTIONS).fit(make_samples())
    assert grouped.transform(make_samples()[:0], grouped=True).values.shape == (0, 4)


REFUSED = [
    (lambda x: x.astype(int), "expected float32 or float64, got int64"),
    (lambda x: x > 0, "expected float32 or float64, got bool"),
    (lambda x: x.astype(complex), "expected float32 or float64, got complex128"),
    (lambda x: x.astype(object), "expected float32 or float64, got object"),
    (lambda x: x.astype(np.longdouble), "expected float32 or float64, got float128"),
    (lambda x: torch.from_numpy(x).int(), "expected float32 or float64, got int32"),
    (lambda x: torch.from_numpy(x) > 0, "expected float32 or float64, got bool"),
    (lambda x: torch.from_numpy(x).to(torch.complex64), "expected .*got complex64"),
    (lambda x: torch.from_numpy(x).to_sparse(), "expected .*got a sparse_coo one"),
    (lambda x: torch.from_numpy(x).to("meta"), "expected .*got a meta one"),
    (lambda x: x[0], r"expected a non-empty matrix of two dimensions, got shape \(6,\)"),
    (lambda x: x[None], r"expected a non-empty matrix .*, got shape \(1, 60, 6\)"),
    (lambda x: x[:, :0], r"expected a non-empty matrix .*, got shape \(60, 0\)"),
    (lambda x: np.where(x > 2, np.nan, x), "expected finite values, got NaN or infinity"),
    (lambda x: np.where(x > 2, np.inf, x), "expected finite values, got NaN or infinity"),
    (lambda x: x.tolist(), "expected a tensor.*, got list"),
    (lambda x: pd.DataFrame(x), "expected a tensor.*, got DataFrame"),
    (lambda x: np.ma.masked_array(x), "expected a tensor.*, got MaskedArray"),
    (lambda _x: "activations.npy", "expected a tensor.*, got str"),
    (lambda _x: None, "expected a tensor.*, got NoneType"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_coded_is_named_in_one_line(model: DBKSVD, make, message: str):
    bad = make(make_samples())
    calls = (model.transform, model.dictionary_.encode, DBKSVD(12, 3, **OPTIONS).fit)
    for call in calls:
        with pytest.raises(ValueError, match=f"^x: {message}") as caught:
            call(bad)
        assert "\n" not in str(caught.value)


def test_both_widths_are_named(model: DBKSVD):
    x = make_samples()[:, :4]
    for call in (model.transform, model.dictionary_.encode):
        with pytest.raises(ValueError, match=r"^x: expected width 6 \(that of atoms\), got 4$"):
            call(x)
    with pytest.raises(ValueError, match="heldout: expected width 6, got 4"):
        DBKSVD(12, 3, **OPTIONS).fit(make_samples(), heldout=x)
    with pytest.raises(ValueError, match=r"y: expected labels or None, got shape .*; .* heldout="):
        DBKSVD(12, 3, **OPTIONS).fit(make_samples(), make_samples())
    codes = model.transform(make_samples())
    with pytest.raises(ValueError, match="codes: expected codes over 12 atoms, got 13"):
        model.dictionary_.decode(SparseCodes(codes.indices, codes.values, 13))


def test_whole_numbers_of_any_type_are_the_same():
    x = make_samples()
    expected = DBKSVD(12, 3, batch_size=50, groups=[4, 8], seed=2, **OPTIONS).fit(x).dictionary_
    for kind in (float, np.int64, np.int8, np.float32):
        model = DBKSVD(
            kind(12), kind(3), batch_size=kind(50), groups=[kind(4), kind(8)], seed=kind(2),
            max_iter=kind(1), polish_iter=kind(0), device="cpu",
        )  # fmt: skip
        assert torch.equal(model.fit(x).dictionary_.atoms, expected.atoms)
    assert KSVD(12.0, 3.0, max_iter=1.0, device="cpu").fit(x).dictionary_.settings.k == 3
    atoms = expected.atoms
    assert torch.equal(
        sparse_encode(x, atoms, np.int64(3)).values, sparse_encode(x, atoms, 3).values
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_atoms": 100.5}, "n_atoms: expected a positive integer, got 100.5"),
        ({"n_atoms": "100"}, "n_atoms: expected a positive integer, got '100'"),
        ({"n_atoms": float("nan")}, "n_atoms: expected a positive integer, got nan"),
        ({"n_atoms": float("inf")}, "n_atoms: expected a positive integer, got inf"),
        ({"n_atoms": True}, "n_atoms: expected a positive integer, got True"),
        ({"k": 0}, "k: expected a positive integer, got 0"),
        ({"k": None}, "k: expected a positive integer, got None"),
        ({"k": 13}, "k: expected at most n_atoms=12, got 13"),
        ({"seed": -1}, "seed: expected an integer ≥ 0, got -1"),
        ({"seed": None}, "seed: expected an integer ≥ 0, got None"),
        ({"groups": "4"}, "groups: expected .*integer.*, got '4'"),
        ({"min_usage": -1}, "min_usage: expected at least 0, got -1"),
        ({"device": "gpu"}, "device: expected auto, cpu or cuda, got 'gpu'"),
        ({"device": None}, "device: expected auto, cpu or cuda, got None"),
        ({"device": "cuda:99"}, "device: expected one of .* CUDA devices, got 'cuda:99'"),
        ({"init": 3}, "init: expected doubling, samples, random or atoms, got int"),
        ({"init": [[1.0]]}, "init: expected doubling, samples, random or atoms, got list"),
        ({"rtol": "small"}, "rtol: expected number, got 'small'"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(arguments: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        DBKSVD(**{"n_atoms": 12, "k": 3, "device": "cpu"} | arguments)
    assert "\n" not in str(caught.value)


def test_first_atoms_may_be_an_array():
    x = make_samples()
    atoms = np.random.default_rng(1).standard_normal((12, 6)).astype(np.float32)
    expected = DBKSVD(12, 3, init=torch.from_numpy(atoms), **OPTIONS).fit(x).dictionary_.atoms
    assert torch.equal(DBKSVD(12, 3, init=atoms, **OPTIONS).fit(x).dictionary_.atoms, expected)
    assert not torch.equal(DBKSVD(12, 3, **OPTIONS).fit(x).dictionary_.atoms, expected)
    dictionary = Dictionary(expected.numpy(), np.zeros(6, np.float32), PursuitSettings(3))
    assert torch.equal(dictionary.atoms, expected)


@pytest.mark.parametrize("penalties", [[], 5, "abc", [[0.1] * 12], [0.1] * 11, [2.0] * 12, [None]])
def test_wrong_penalties_are_named(model: DBKSVD, penalties):
    with pytest.raises(ValueError, match="penalties: expected 12 numbers from 0 to 1"):
        sparse_encode(make_samples(), model.dictionary_.atoms.numpy(), 2, penalties=penalties)


def test_a_model_that_is_not_fitted_says_so():
    with pytest.raises(AttributeError, match=r"dictionary_: expected a model after fit\(\)"):
        DBKSVD(12, 3, device="cpu").transform(make_samples())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_named(model: DBKSVD, tmp_path):
    model.dictionary_.save(tmp_path)
    for call in (
        lambda: model.dictionary_.to("cuda"),
        lambda: Dictionary.load(tmp_path, "cuda"),
        lambda: DBKSVD(12, 3, device="cuda"),
    ):
        with pytest.raises(ValueError, match="device: expected one of 0 CUDA devices, got 'cuda'"):
            call()
