"""Odd dictionary folders and samples: refused in one line, or coded as plain NumPy would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damaging import damage_file
from examples import try_examples
from front_door import knock
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.ops.pursuit.encode import sparse_encode

WIDTH, ATOMS, K = 5, 9, 2
HOSTILE = [
    None,
    True,
    0,
    -1,
    2,
    2.0,
    1.5,
    10**9,
    float("nan"),
    "",
    "2",
    "relu",
    [],
    [1],
    {},
    {"a": 1},
]
ODD_TENSORS = ["none", "none", "nan", "transposed", "missing", "extra", "float16", "bfloat16",
               "float64", "int64", "zero row", "scaled row", "one atom"]  # fmt: skip
DAMAGES = ["none", "none", "none", "none", "cut", "empty", "pointer", "missing", "folder"]


def make_pursuit(folder: Path, *, nonnegative: bool) -> None:
    torch.manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, WIDTH), dim=1)
    Dictionary(atoms, torch.randn(WIDTH), PursuitSettings(k=K, nonnegative=nonnegative)).save(
        folder
    )


def make_topk(folder: Path) -> None:
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(1)
    sae = TopKSAE(TopKSAEConfig(d_in=WIDTH, d_sae=ATOMS, k=K, dtype="float32", device="cpu"))
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(ATOMS, WIDTH), dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc.copy_(0.1 * torch.randn(ATOMS))
        sae.b_dec.copy_(torch.randn(WIDTH))
    sae.save_model(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("dictionaries")
    make_pursuit(base / "signed", nonnegative=False)
    make_pursuit(base / "nonnegative", nonnegative=True)
    make_topk(base / "topk")
    return {name: base / name for name in ("signed", "nonnegative", "topk")}


def change_weights(path: Path, kind: str) -> None:
    """Change the tensors of a safetensors file in one way."""
    weights = load_file(path)
    atoms = weights["W_dec"]
    if kind == "nan":
        atoms[0, 0] = torch.nan
    elif kind == "transposed":
        weights["W_dec"] = atoms.T.contiguous()
    elif kind == "missing":
        del weights["b_dec"]
    elif kind == "extra":
        weights["threshold_of_another"] = torch.zeros(3)
    elif kind in ("float16", "bfloat16", "float64", "int64"):
        weights = {name: tensor.to(getattr(torch, kind)) for name, tensor in weights.items()}
    elif kind == "zero row":
        atoms[1] = 0
    elif kind == "scaled row":
        atoms[1] *= 2
    elif kind == "one atom":
        weights["W_dec"] = atoms[:1].clone()
    save_file(weights, path)


def encode_topk(x: np.ndarray, sae: Any) -> np.ndarray:
    """Return the dense latents of a TopK SAE by its definition."""
    weights = {name: value.detach().double().numpy() for name, value in sae.state_dict().items()}
    centred = x - weights["b_dec"] * bool(sae.cfg.apply_b_dec_to_input)
    latents = centred @ weights["W_enc"] + weights["b_enc"]
    kept = np.argsort(-latents, axis=1)[:, : sae.cfg.k]
    mask = np.zeros_like(latents, dtype=bool)
    np.put_along_axis(mask, kept, values=True, axis=1)
    return np.where(mask, np.maximum(latents, 0), 0)


@given(
    kind=st.sampled_from(["signed", "nonnegative", "topk"]),
    changes=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "k",
                    "d_in",
                    "d_sae",
                    "dtype",
                    "architecture",
                    "method",
                    "nonnegative",
                    "refit",
                    "rtol",
                    "threshold",
                    "penalties",
                    "metadata",
                    "apply_b_dec_to_input",
                    "normalize_activations",
                    "reshape_activations",
                    "device",
                    "of nothing",
                ]
            ),
            st.sampled_from(["drop", *HOSTILE]),
        ),
        max_size=1,
    ),
    tensors=st.sampled_from(ODD_TENSORS),
    damages=st.tuples(st.sampled_from(DAMAGES), st.sampled_from(DAMAGES)),
)
@try_examples(90, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_dictionary_folders(folders, tmp_path_factory, kind, changes, tensors, damages):
    folder = tmp_path_factory.mktemp("case") / "dictionary"
    shutil.copytree(folders[kind], folder)
    config = json.loads((folder / "cfg.json").read_text())
    for key, value in changes:
        if value == "drop":
            config.pop(key, None)
        else:
            config[key] = value
    (folder / "cfg.json").write_text(json.dumps(config))
    change_weights(folder / "sae_weights.safetensors", tensors)
    damage_file(folder / "cfg.json", damages[0])
    damage_file(folder / "sae_weights.safetensors", damages[1])
    torch.manual_seed(2)
    x = torch.randn(6, WIDTH)

    def code() -> tuple[Any, torch.Tensor, torch.Tensor]:
        dictionary = load_dictionary(folder)
        codes = dictionary.encode(x)
        return dictionary, codes.to_dense(), dictionary.decode(codes)

    found, refusal = knock(code, "cfg.json", "sae_weights", str(folder))
    if refusal is not None:
        return
    dictionary, codes, decoded = found
    assert damages == ("none", "none")
    assert decoded.shape == x.shape
    assert torch.isfinite(decoded.float()).all()
    tolerance = {"float16": 2e-2, "bfloat16": 1e-1}.get(tensors, 1e-4)
    atoms, bias = dictionary.atoms.double(), dictionary.bias.double()
    torch.testing.assert_close(
        decoded.double(), codes.double() @ atoms + bias, atol=tolerance, rtol=tolerance
    )
    if kind == "topk" and tensors not in ("float16", "bfloat16"):
        wanted = encode_topk(x.double().numpy(), dictionary.sae)
        np.testing.assert_allclose(codes.double().numpy(), wanted, atol=1e-4)
    elif (
        kind != "topk" and tensors not in ("float16", "bfloat16") and dictionary.settings.rtol == 0
    ):
        wanted = dictionary.settings
        plain = sparse_encode(
            (x.double() - bias), torch.nn.functional.normalize(atoms, dim=1), wanted.k,
            method=wanted.method, nonnegative=wanted.nonnegative, refit=wanted.refit,
            threshold=wanted.threshold, penalties=wanted.penalties, implementation="reference",
        ).to_dense()  # fmt: skip
        torch.testing.assert_close(codes.double(), plain, atol=1e-3, rtol=1e-3)


def make_samples(draw: Callable[..., Any]) -> Any:
    """Return samples as users hand them over: arrays and tensors of many kinds."""
    rows = draw(st.sampled_from([0, 1, 3, 30, 30, 30]))
    width = draw(st.sampled_from([WIDTH] * 8 + [WIDTH + 1, 1, 0]))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    values = random.normal(size=(rows, width)) + draw(st.sampled_from([0, 0, 1, 1e4]))
    values *= 10.0 ** draw(st.integers(-8, 8))
    if rows and width and draw(st.integers(0, 9)) == 0:
        values[0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    dtype = draw(st.sampled_from(["float32"] * 6 + ["float64", "float16", ">f4", "int32", "bool"]))
    with np.errstate(all="ignore"):
        array = values.astype(dtype)
    form = draw(
        st.sampled_from(
            ["array"] * 4 + ["reversed", "columns", "fortran", "readonly", "list", "tensor"] * 2
            + ["requires grad", "bfloat16", "three", "one", "frame", "none"]
        )
    )  # fmt: skip
    return give_form(array, form)


def give_form(array: np.ndarray, form: str) -> Any:
    """Return the array in another form."""
    native = array.astype(array.dtype.newbyteorder("="))
    match form:
        case "reversed":
            return array[::-1]
        case "columns":
            return np.repeat(array, 2, axis=1)[:, ::2]
        case "fortran":
            return np.asfortranarray(array)
        case "readonly":
            array.flags.writeable = False
            return array
        case "list":
            return array.tolist()
        case "tensor":
            return torch.from_numpy(native)
        case "requires grad":
            return torch.from_numpy(native.astype(np.float32)).requires_grad_()
        case "bfloat16":
            return torch.from_numpy(native.astype(np.float32)).bfloat16()
        case "three":
            return array[None]
        case "one":
            return array[0] if len(array) else array.reshape(-1)
        case "frame":
            import pandas as pd

            return pd.DataFrame(native)
        case "none":
            return None
    return array


def as_float64(samples: Any) -> np.ndarray:
    if isinstance(samples, torch.Tensor):
        return samples.detach().double().numpy()
    return np.asarray(samples, dtype=np.float64)


@given(
    data=st.data(),
    method=st.sampled_from(["mp", "omp", "ols"]),
    nonnegative=st.booleans(),
    k=st.sampled_from([1, 2, 2, 2, 3, np.int64(2), 2.0, 0, -1, ATOMS + 1, True, None, "2"]),
)
@try_examples(120)
def test_odd_samples(data, method, nonnegative, k):
    samples = make_samples(data.draw)
    torch.manual_seed(3)
    atoms = torch.nn.functional.normalize(torch.randn(ATOMS, WIDTH), dim=1)

    def code() -> Any:
        dictionary = Dictionary(
            atoms, torch.zeros(WIDTH), PursuitSettings(k=k, method=method, nonnegative=nonnegative)
        )
        return dictionary.encode(samples)

    codes, refusal = knock(code, "x:", "k:", "samples", "settings")
    if refusal is not None:
        return
    x = as_float64(samples)
    assert x.ndim == 2
    assert x.shape[1] == WIDTH
    assert np.isfinite(x).all()
    assert codes.l0.shape == (len(x),)
    if not len(x):
        return
    wanted = sparse_encode(
        torch.from_numpy(x.copy()), atoms.double(), int(k),
        method=method, nonnegative=nonnegative, implementation="reference",
    )  # fmt: skip
    got = codes.to_dense().double() @ atoms.double()
    plain = wanted.to_dense() @ atoms.double()
    scale = np.abs(x).max()
    rounding = 5e-2 if torch.is_tensor(samples) and samples.dtype == torch.bfloat16 else 1e-4
    errors = [np.square(x - value.numpy()).sum() for value in (got, plain)]
    assert abs(errors[0] - errors[1]) <= rounding * np.square(x).sum() + 1e-12 * scale**2


@given(data=st.data(), init=st.sampled_from(["random", "samples", "doubling"]))
@try_examples(30)
def test_odd_samples_to_fit(data, init):
    samples = make_samples(data.draw)

    def fit() -> tuple[DBKSVD, Any]:
        model = DBKSVD(4, 2, max_iter=2, init=init, seed=1, device="cpu")
        model.fit(samples)
        return model, model.transform(samples)

    found, refusal = knock(
        fit, "x:", "n_atoms:", "k:", "samples", "init", "activations", "d:", "rows"
    )
    if refusal is not None:
        return
    model, codes = found
    x = as_float64(samples)
    atoms = model.dictionary_.atoms.double().numpy()
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, atol=1e-4)
    decoded = codes.to_dense().double().numpy() @ atoms + model.dictionary_.bias.double().numpy()
    centre = x - x.mean(axis=0)
    # No code is worse than none, up to the rounding of float32.
    rounding = 1e-5 * np.square(x).sum()
    assert np.square(x - decoded).sum() <= np.square(centre).sum() * (1 + 1e-4) + rounding
