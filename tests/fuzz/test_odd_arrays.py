"""Odd files of ready activations: refused in one line, or stored and scored as NumPy would."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from damaging import damage_file
from examples import try_examples
from front_door import knock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.evaluation.heldout import measure_dictionary

FLOATS = ["float16", "float32", "float64", ">f4", ">f8"]
OTHERS = ["int32", "bool", "complex64", "object", "U3", "int64", "uint8"]


@dataclass(frozen=True)
class Case:
    """An array, how it is written, and what is asked of it."""

    array: np.ndarray
    suffix: str
    layout: str
    damage: str
    name: str
    n_train: int
    n_heldout: int
    slices: int
    storage: str


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Return an array, mostly of two dimensions and floating."""
    rows, width = draw(st.integers(0, 60)), draw(st.integers(0, 5))
    shape = draw(
        st.sampled_from([(rows, width)] * 8 + [(rows,), (rows, width, 2), (), (1, rows, width)])
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.normal(size=shape) * 10.0 ** draw(st.integers(-6, 6))
    values = values + draw(st.sampled_from([0, 0, 0, 1, 3000, 1e5]))
    kind = draw(st.sampled_from(["plain"] * 8 + ["constant", "zeros", "many zeros", "nan", "inf"]))
    if kind == "constant":
        values = np.full(shape, draw(st.sampled_from([1.0, 0.1, 1e5])))
    elif kind == "zeros":
        values = np.zeros(shape)
    elif values.ndim == 2 and values.size:
        row = draw(st.integers(0, len(values) - 1))
        if kind == "many zeros":
            values[: int(0.7 * len(values))] = 0
        elif kind in ("nan", "inf"):
            values[row, 0] = float(kind)
    dtype = draw(st.sampled_from(FLOATS * 3 + OTHERS))
    with np.errstate(all="ignore"):
        array = values.astype(dtype)
    order = draw(st.sampled_from(["C", "F", "reversed", "strided"]))
    if order == "reversed" and array.ndim:
        return array[::-1]
    if order == "strided" and array.ndim == 2:
        return np.repeat(array, 2, axis=1)[:, ::2]
    return np.asfortranarray(array) if order == "F" else array


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return an array with its file and its settings."""
    array = draw(arrays())
    rows = len(array) if array.ndim else 0
    fits = draw(st.integers(0, 3)) > 0
    n_heldout = draw(st.integers(1, max(1, rows // 3 if fits else rows + 5)))
    n_train = draw(st.integers(1, max(1, rows - n_heldout if fits else rows + 5)))
    return Case(
        array,
        suffix=draw(st.sampled_from([".npy", ".h5", ".hdf5", ".safetensors"])),
        layout=draw(st.sampled_from(["plain", "gzip", "virtual", "link", "bfloat16"])),
        damage=draw(
            st.sampled_from(
                ["none"] * 8
                + ["cut", "empty", "pointer", "folder", "missing", "npz", "other", "source gone"]
            )
        ),
        name=draw(st.sampled_from(["activations"] * 8 + ["other", "group/activations"])),
        n_train=n_train,
        n_heldout=n_heldout,
        slices=draw(st.sampled_from([1, 1, 2, 3])),
        storage=draw(st.sampled_from(["float32", "float32", "float16"])),
    )


def write(case: Case, folder: Path) -> Path | None:
    """Write the file of a case; None where its format cannot hold the array."""
    path = folder / f"rows{case.suffix}"
    try:
        if case.suffix == ".npy":
            np.save(path, case.array)
        elif case.suffix == ".safetensors":
            tensor = torch.from_numpy(case.array.astype(case.array.dtype.newbyteorder("=")))
            if case.layout == "bfloat16" and tensor.is_floating_point():
                tensor = tensor.bfloat16()
            save_file({"activations": tensor.contiguous()}, path)
        else:
            write_hdf5(case, path)
    except (TypeError, ValueError):
        return None
    return damage(path, case.damage)


def write_hdf5(case: Case, path: Path) -> None:
    """Write the array in the layout of the case."""
    if case.layout in ("virtual", "link"):
        with h5py.File(path.with_name("source.h5"), "w") as file:
            file["data"] = case.array
    with h5py.File(path, "w") as file:
        if case.layout == "gzip" and case.array.ndim and case.array.size:
            file.create_dataset("activations", data=case.array, compression="gzip", shuffle=True)
        elif case.layout == "virtual" and case.array.ndim:
            layout = h5py.VirtualLayout(case.array.shape, case.array.dtype)
            layout[...] = h5py.VirtualSource("source.h5", "data", case.array.shape)
            file.create_virtual_dataset("activations", layout)
        elif case.layout == "link":
            file["activations"] = h5py.ExternalLink("source.h5", "data")
        else:
            file["activations"] = case.array


def damage(path: Path, kind: str) -> Path:
    """Damage a file in one of several ways; return its path, which may be another."""
    damage_file(path, kind)
    if kind == "npz":
        with path.open("wb") as stream:
            np.savez(stream, activations=np.zeros((3, 2)))
    elif kind == "other":
        path = path.rename(path.with_suffix(".npy" if path.suffix != ".npy" else ".h5"))
    elif kind == "source gone":
        path.with_name("source.h5").unlink(missing_ok=True)
    return path


def store(case: Case, path: Path, folder: Path) -> ActivationShards:
    """Extract and shard the rows of a case."""
    settings: dict[str, Any] = {
        "source": "files",
        "files": {"path": str(path), "tensor": case.name},
        "n_train_tokens": case.n_train,
        "n_heldout_tokens": case.n_heldout,
        "slices": case.slices,
        "storage_dtype": case.storage,
    }
    parts = [folder / f"part-{number}.h5" for number in range(case.slices)]
    for number, part in enumerate(parts):
        extract_slice(settings, number, part)
    write_shards(parts, {"rows_per_shard": 7}, folder / "shards")
    return ActivationShards.open(folder / "shards", "heldout")


def read_all(shards: ActivationShards) -> np.ndarray:
    return shards.read(0, len(shards)).numpy()


def sort_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T[::-1])]


@given(case=cases())
@try_examples(110)
def test_odd_arrays(case: Case):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(case, folder)
        if path is None:
            return
        names = (
            path.name,
            "files.",
            "rows",
            "train",
            "heldout",
            "n_train",
            "n_heldout",
            "source.h5",
        )
        shards, refusal = knock(lambda: store(case, path, folder), *names)
        if refusal is not None:
            return
        with np.errstate(over="ignore"):
            rows = np.asarray(case.array, dtype=np.float64)
            if case.suffix == ".safetensors" and case.layout == "bfloat16":
                rows = torch.from_numpy(rows.astype(np.float32)).bfloat16().double().numpy()
            stored = rows.astype(case.storage).astype(np.float32)
        assert rows.ndim == 2
        assert case.array.dtype.kind == "f"
        assert case.damage in ("none", "source gone", "other") or path.is_file()
        assert len(rows) >= case.n_train + case.n_heldout
        train = ActivationShards.open(folder / "shards", "train")
        np.testing.assert_array_equal(sort_rows(read_all(train)), sort_rows(stored[: case.n_train]))
        wanted = stored[len(stored) - case.n_heldout :]
        heldout = read_all(shards)
        np.testing.assert_array_equal(sort_rows(heldout), sort_rows(wanted))
        check_variance(shards, heldout.astype(np.float64))


def check_variance(shards: ActivationShards, rows: np.ndarray) -> None:
    """Check the variance explained by the bias and one atom against float64."""
    width = rows.shape[1]
    mean = shards.mean
    # Quarter of the first coordinate: an atom along it, whose codes are its own projections.
    atoms = torch.eye(width)[:1]
    dictionary = Dictionary(atoms, mean, PursuitSettings(k=1))
    got, refusal = knock(lambda: measure_dictionary(dictionary, shards), "activations", "variance")
    total = np.square(rows - rows.mean(axis=0)).sum()
    if refusal is not None:
        return
    assert total > 0
    centred = rows - mean.double().numpy()
    residual = centred.copy()
    residual[:, 0] = 0
    expected = 1 - np.square(residual).sum() / total
    # What float32 can hold of a reconstruction: half a unit in the last place of each value.
    rounding = np.square(np.spacing(np.abs(rows).max().astype(np.float32))).item() * rows.size
    tolerance = 1e-6 * max(1, abs(expected)) + 20 * np.sqrt(rounding / total)
    assert abs(got["explained_variance"] - expected) <= tolerance
