"""What a program sets for all of torch and numpy changes no byte of a fit; a fit sets nothing."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import Rows

from dbksvd import DBKSVD, KSVD, Dictionary, sparse_encode
from dbksvd.base.settings import parse
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask

IMPLEMENTATIONS = ("reference", "batched", "cpu")
OPTIONS = {"max_iter": 2, "polish_iter": 1, "device": "cpu"}


def make_samples(n: int = 300) -> torch.Tensor:
    drawn = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    return torch.from_numpy(drawn * 3 + 1)


def fit_all() -> dict[str, torch.Tensor]:
    """Return what the public functions compute, by name."""
    x = make_samples()
    found = {}
    for init in ("samples", "doubling", "random"):
        for sparsity in ("exact", "mean"):
            model = DBKSVD(40, 3, init=init, sparsity=sparsity, **OPTIONS).fit(x, heldout=x[:50])
            found[f"{init}, {sparsity}"] = model.dictionary_.atoms
            found[f"{init}, {sparsity}, codes"] = model.transform(x).values
    found["groups"] = DBKSVD(40, 4, groups=10, **OPTIONS).fit(x).dictionary_.atoms
    found["tiny"] = DBKSVD(20, 2, **OPTIONS).fit(x * 1e-25).dictionary_.atoms
    found["ksvd"] = KSVD(16, 2, max_iter=2, device="cpu").fit(x).dictionary_.atoms
    dictionary = model.dictionary_
    for implementation in IMPLEMENTATIONS:
        for method in ("mp", "omp", "ols"):
            for scale in (1.0, 1e-30):
                codes = sparse_encode(
                    *(x[:20] * scale, dictionary.atoms, 3),
                    method=method,
                    implementation=implementation,
                )
                found[f"{implementation}, {method}, {scale}"] = codes.values
    found["decoded"] = dictionary.decode(dictionary.encode(x))
    return found


@contextmanager
def change(setter: Callable, value: object, usual: object) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(usual)


STATES = {
    "float64": lambda: change(torch.set_default_dtype, torch.float64, torch.float32),
    "meta device": lambda: change(torch.set_default_device, "meta", None),
    "rounded products": lambda: change(torch.set_float32_matmul_precision, "medium", "highest"),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": lambda: change(torch.use_deterministic_algorithms, True, False),
    "numpy raises": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def usual() -> dict[str, torch.Tensor]:
    return fit_all()


@pytest.mark.parametrize("state", STATES)
def test_same_bytes_whatever_is_set(usual: dict[str, torch.Tensor], state: str):
    with STATES[state]():
        found = fit_all()
        assert torch.get_default_dtype() == (torch.float64 if state == "float64" else torch.float32)
    for name, expected in usual.items():
        assert found[name].dtype == expected.dtype, name
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("state", ["float64", "no gradients", "inference mode"])
@pytest.mark.parametrize("algorithm", ["random", "kmeans", "itda", "pca"])
def test_controls_do_not_depend_on_it(state: str, algorithm: str, tmp_path: Path):
    def fit() -> Dictionary:
        entry = find_method(algorithm)
        settings = parse(entry.settings, {"algorithm": algorithm})
        x = make_samples()
        n_atoms = 8 if algorithm == "pca" else 12
        device = torch.device("cpu")
        return entry.fit(FitTask(Rows(x), Rows(x), n_atoms, 2, 0, settings, device, tmp_path))

    expected = fit().dictionary
    with STATES[state]():
        found = fit().dictionary
    assert found.atoms.dtype == torch.float32
    assert torch.equal(found.atoms, expected.atoms)
    assert torch.equal(found.bias, expected.bias)


@pytest.mark.parametrize("state", ["float64", "no gradients", "inference mode"])
@pytest.mark.parametrize("architecture", ["topk", "switch", "kron"])
def test_saes_do_not_depend_on_it(state: str, architecture: str, tmp_path: Path):
    sizes = {
        "topk": {},
        "switch": {"n_experts": 2},
        "kron": {"base": 2, "extension": 4},
    }

    def fit(folder: Path) -> dict[str, torch.Tensor]:
        entry = find_method("sae")
        chosen = {"architecture": architecture, "batch_size": 64, "training_samples": 640}
        settings = parse(entry.settings, {"algorithm": "sae", **chosen, **sizes[architecture]})
        x = make_samples()
        before = torch.random.get_rng_state()
        task = FitTask(Rows(x), Rows(x), 16, 2, 0, settings, torch.device("cpu"), folder)
        state_dict = entry.fit(task).dictionary.sae.state_dict()
        assert torch.equal(torch.random.get_rng_state(), before)
        return state_dict

    expected = fit(tmp_path / "a")
    with STATES[state]():
        found = fit(tmp_path / "b")
    for name, weights in expected.items():
        assert found[name].dtype == weights.dtype == torch.float32
        assert torch.equal(found[name], weights), name


def test_no_generator_is_touched():
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    fit_all()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1][1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


POOL = """
import multiprocessing
import numpy as np
import torch
from dbksvd import DBKSVD

if __name__ == "__main__":
    torch.set_num_threads(4)
    x = np.random.default_rng(0).standard_normal((8000, 64)).astype(np.float32)
    model = DBKSVD(96, 4, max_iter=2, polish_iter=0, device="cpu").fit(x)
    torch.randn(500, 500) @ torch.randn(500, 500)
    expected = model.transform(x)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(model.transform, [x[:4000], x[4000:]])
        again = pool.apply(model.dictionary_.decode, [parts[0]])
        fitted = pool.apply(model.fit, [x]).dictionary_.atoms
    assert torch.equal(torch.cat([part.values for part in parts]), expected.values)
    assert torch.equal(torch.cat([part.indices for part in parts]), expected.indices)
    assert torch.equal(again, model.dictionary_.decode(expected[:4000]))
    assert torch.equal(fitted, model.dictionary_.atoms)
    assert torch.get_num_threads() == 4
    print("same")
"""


def test_a_forked_pool_works_after_the_parent_has(tmp_path: Path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )
    assert done.stdout == "same\n", done.stderr


def test_float32_products_are_not_rounded(monkeypatch: pytest.MonkeyPatch):
    """TF32 would change the Gram matrix, from which all coefficients follow."""
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    seen = []

    def look(*_args: object, **_options: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(each.fp32_precision for each in products)
        return torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)

    monkeypatch.setattr("dbksvd.ops.pursuit.reference.encode", look)
    with change(torch.set_float32_matmul_precision, "high", "highest"):
        sparse_encode(torch.randn(2, 4), torch.eye(4), 1, implementation="reference")
        assert [each.fp32_precision for each in products] == ["tf32", "tf32"]
        assert torch.get_float32_matmul_precision() == "high"
    assert seen == ["ieee", "ieee"]
