"""Files of ready activations: read as NumPy and h5py read them, or refused in one line."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dbksvd.activations.from_files import extract_ready_slice, list_files
from dbksvd.activations.settings import FileActivations
from dbksvd.base.files import hash_file
from dbksvd.base.settings import parse

N = 100
ROWS, WIDTH = 70, 5
X = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


def extract(path: Path, **files) -> np.ndarray:
    """Return all rows of a file as the stage writes them, and the hash that it gives the file."""
    settings = {"source": "files", "n_train_tokens": ROWS - 10, "n_heldout_tokens": 10}
    settings["files"] = {"path": str(path), **files}
    part = path.parent / "out" / "part.h5"
    ranges = {"train": (0, ROWS - 10), "heldout": (0, 10)}
    parsed = parse(FileActivations, settings, "activations")
    extract_ready_slice(parsed, ranges, part, {"slice": 0})
    with h5py.File(part) as file:
        assert len(file.attrs["model_sha256"]) == 64
        return np.concatenate([file[f"{split}/activations"][:] for split in ranges])


def refuse(path: Path, message: str, **files) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        extract(path, **files)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (path.parent / "out" / "part.h5").exists()


# --- .npy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_any_byte_order_and_layout(tmp_path, dtype, order):
    x = np.asarray(X.astype(dtype), order=order)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(extract(tmp_path / "x.npy"), np.load(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((70, 5), "<i8"), "floating dtype, got int64"),
        (np.zeros((70, 5), bool), "floating dtype, got bool"),
        (np.zeros((70, 5), "c8"), "floating dtype, got complex64"),
        (np.zeros((70, 5), np.longdouble), "floating dtype, got float128"),
        (np.zeros(70, [("a", "f4"), ("b", "f4")]), r"floating dtype, got \[\('a', '<f4'\)"),
        (np.full((70, 5), "a"), "floating dtype, got str32"),
        (np.array([[{}]]), "Python objects"),
        (np.zeros((0, 5), "f4"), r"\(rows, d\), got \(0, 5\)$"),
        (np.zeros((70, 0), "f4"), r"\(rows, d\), got \(70, 0\)$"),
        (np.zeros((), "f4"), r"\(rows, d\), got \(\)$"),
        (np.zeros(70, "f4"), r"\(rows, d\), got \(70,\)$"),
        (np.zeros((10, 7, 5), "f4"), r"got \(10, 7, 5\); reshape it to \(70, 5\) first$"),
        (np.zeros((2, 5, 7, 3), "f4"), r"got \(2, 5, 7, 3\); reshape it to \(70, 3\) first$"),
    ],
)
def test_npy_of_another_shape_or_type(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    refuse(tmp_path / "x.npy", message)


def write_kinds(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return contents of files of other kinds, and what each is called."""
    np.save(folder / "a.npy", X)
    np.savez(folder / "a.npz", X)
    torch.save(torch.from_numpy(X), folder / "a.pt")
    with h5py.File(folder / "a.h5", "w") as file:
        file["activations"] = X
    save_file({"activations": torch.from_numpy(X)}, folder / "a.safetensors")
    npy = (folder / "a.npy").read_bytes()
    return {
        "npy": (npy, "a .npy array"),
        "npz": ((folder / "a.npz").read_bytes(), "a zip archive"),
        "pt": ((folder / "a.pt").read_bytes(), "a zip archive"),
        "h5": ((folder / "a.h5").read_bytes(), "an HDF5 file"),
        "safetensors": ((folder / "a.safetensors").read_bytes(), "a safetensors file"),
        "gzip": (gzip.compress(npy), "a gzip file, which must be unpacked first"),
        "pickle": (pickle.dumps(X), "a Python pickle, which is never opened"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        "empty": (b"", "an empty file"),
        "text": (b"0.1 0.2 0.3\n" * 70, ""),
        "short": (b"\x93NUM", ""),
    }


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors", ".pt", ".npz"])
def test_a_file_under_the_name_of_another_kind_is_called_what_it_is(tmp_path, suffix):
    for name, (content, kind) in write_kinds(tmp_path).items():
        path = tmp_path / f"x-{name}{suffix}"
        path.write_bytes(content)
        if name == suffix[1:] and suffix in (".npy", ".h5", ".safetensors"):
            np.testing.assert_array_equal(extract(path), X)
            (tmp_path / "out" / "part.h5").unlink()
        else:
            refuse(path, f"expected a.*{kind}")


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors"])
def test_damaged_files_are_refused_or_read_as_they_are(tmp_path, suffix):
    """Bytes at random in a file that is right: one line that names it, whatever they hit."""
    content = bytearray(write_kinds(tmp_path)[suffix[1:]][0])
    draw = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    messages = []
    for number in range(N):
        damaged = bytearray(content)
        if number % 3:
            for place in draw.integers(0, min(600, len(content)), 3):
                damaged[place] = draw.integers(256)
        else:
            damaged = damaged[: draw.integers(len(content))]
        path.write_bytes(damaged)
        try:
            extract(path)
        except (ValueError, OSError) as error:
            messages.append(str(error))
    assert len(messages) > 40
    assert [message for message in messages if path.name not in message] == []


# --- HDF5: filters, links, virtual datasets, external storage --------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "lzf", "shuffle": True},
        {"fletcher32": True, "chunks": (7, 2)},
        {"maxshape": (None, WIDTH)},
        {"dtype": ">f8"},
    ],
)
def test_hdf5_layouts(tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b", data=X, **options)
        file["activations"] = h5py.SoftLink("/a/b")
    for tensor in ("activations", "a/b", "/a/b"):
        np.testing.assert_array_equal(extract(tmp_path / "x.h5", tensor=tensor), X)


def write_source(path: Path, x: np.ndarray = X) -> Path:
    with h5py.File(path, "w") as file:
        file["rows"] = x
    return path


def write_virtual(path: Path, sources: list[str], rows: int = 35) -> Path:
    layout = h5py.VirtualLayout((ROWS, WIDTH), "f4")
    for number, name in enumerate(sources):
        start = number * 35
        source = h5py.VirtualSource(name, "rows", shape=(rows, WIDTH))
        layout[start : start + rows] = source
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("activations", layout)
    return path


def test_a_virtual_dataset_is_read_with_its_sources(tmp_path):
    (tmp_path / "below").mkdir()
    sources = [
        write_source(tmp_path / "one.h5", X[:35]),
        write_source(tmp_path / "below" / "two.h5", X[35:]),
    ]
    path = write_virtual(tmp_path / "x.h5", ["one.h5", str(sources[1])])
    np.testing.assert_array_equal(extract(path), X)
    assert list_files(path, "activations") == [path, *sources]
    refuse_after = tmp_path / "out" / "part.h5"
    refuse_after.unlink()
    refuse(path, "files.sha256: expected a file that holds .*one.h5", sha256=hash_file(path))
    sources[1].unlink()
    refuse(path, r"expected 'activations' from .*two\.h5, no such file|/activations.*two\.h5")


@pytest.mark.parametrize(
    ("sources", "rows", "message"),
    [
        (["one.h5"], 35, "expected a source for each of 350 values once, got 175"),
        (["one.h5", "gone.h5"], 35, "from .*gone.h5, no such file"),
        (
            ["one.h5", "short.h5"],
            35,
            r"175 values from .*short.h5, got an array of shape \(30, 5\)",
        ),
        (["one.h5", "other.h5"], 35, "other.h5: expected a dataset 'rows', found .'else'."),
        (["one.h5", "text.h5"], 35, "text.h5: expected a whole HDF5 file"),
    ],
)
def test_a_virtual_dataset_with_a_hole_is_refused(tmp_path, sources, rows, message):
    write_source(tmp_path / "one.h5", X[:35])
    write_source(tmp_path / "short.h5", X[:30])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["else"] = X
    (tmp_path / "text.h5").write_text("no HDF5")
    path = write_virtual(tmp_path / "x.h5", sources, rows)
    with pytest.raises(ValueError, match=message) as caught:
        extract(path)
    assert "\n" not in str(caught.value)


def test_an_external_link_is_followed_and_named(tmp_path):
    write_source(tmp_path / "one.h5")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["group"] = h5py.ExternalLink("one.h5", "/")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["activations"] = h5py.ExternalLink("two.h5", "/group/rows")
        file["circle"] = h5py.SoftLink("/circle")
        file["lost"] = h5py.SoftLink("/nowhere")
    path = tmp_path / "x.h5"
    np.testing.assert_array_equal(extract(path), X)
    names = [file.name for file in list_files(path, "activations")]
    assert names == ["x.h5", "two.h5", "one.h5"]
    (tmp_path / "out" / "part.h5").unlink()
    refuse(path, "expected a dataset '/circle', got a circle of links", tensor="circle")
    refuse(path, "expected a dataset '/nowhere', found", tensor="lost")
    (tmp_path / "one.h5").unlink()
    with pytest.raises(ValueError, match=r"two\.h5: expected the link .* to .*one\.h5, no such"):
        extract(path)


def test_external_storage_must_be_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where HDF5 looks for it
    path, raw = tmp_path / "x.h5", tmp_path / "raw.bin"
    with h5py.File(path, "w") as file:
        storage = [("raw.bin", 8, h5py.h5f.UNLIMITED)]
        file.create_dataset("activations", X.shape, "f4", external=storage)[:] = X
    np.testing.assert_array_equal(extract(path), X)
    assert list_files(path, "activations") == [path, raw]
    (tmp_path / "out" / "part.h5").unlink()
    os.truncate(raw, 500)
    refuse(path, r"expected 1400 bytes of data at byte 8 of raw\.bin, got a file of 500 bytes")
    raw.unlink()
    refuse(path, r"expected its data in raw\.bin, no such file")


@pytest.mark.parametrize(
    ("chunks", "written", "message"),
    [
        ((10, 5), 20, "expected data, 2 of 7 chunks are written: HDF5 would read 0.0"),
        (None, 0, "expected data, nothing is written: HDF5 would read 0.0"),
    ],
)
def test_rows_that_were_never_written_are_not_zeros(tmp_path, chunks, written, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("activations", X.shape, "f4", chunks=chunks)
        if written:
            dataset[:written] = X[:written]
    refuse(tmp_path / "x.h5", message)


def test_what_is_no_array_of_rows_is_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["null"] = h5py.Empty("f4")
        file["scalar"] = np.float32(1)
        file["group/rows"] = X
        file["table"] = np.zeros(70, [("a", "f4")])
    for tensor, message in {
        "null": r"got \(\)",
        "scalar": r"got \(\)",
        "group": r"expected a dataset 'group', found",
        "table": r"floating dtype, got \[\('a', '<f4'\)\]",
        "null/rows": r"expected a dataset 'null/rows', found",
    }.items():
        refuse(tmp_path / "x.h5", message, tensor=tensor)
