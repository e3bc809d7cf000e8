from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dbksvd.activations import rows
from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.slices import share_range
from dbksvd.base.files import hash_file, read_json
from dbksvd.models.loading import load_model
from dbksvd.text.documents import iterate_documents, prepare_text
from dbksvd.text.tokens import TokenizedDocument

ROOT = Path(__file__).parents[2]


def settings_for(model: Path, **changes):
    return {
        "model": {"name": str(model), "device": "cpu"},
        "layer": 2,
        "n_train_tokens": 101,
        "n_heldout_tokens": 41,
        "context_length": 16,
        "batch_size": 3,
        **changes,
    }


def read_part(path: Path, split: str = "train") -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[split][name][:] for name in file[split]}


def test_shares_are_exact():
    for total in (7, 12, 100):
        ranges = [share_range(total, i, 5) for i in range(5)]
        assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]]
        sizes = [stop - start for start, stop in ranges]
        assert sum(sizes) == total
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_rows_are_the_model_s_own_for_every_word_in_order(kind, request, text_folder, tmp_path):
    folder = request.getfixturevalue(f"tiny_{kind}")
    extract_slice(settings_for(folder), 0, tmp_path / "part.h5", text=text_folder)
    loaded = load_model({"name": str(folder), "device": "cpu"})
    shift = 1 if kind == "encoder" else 0  # [CLS] stands first
    for split, quota in {"train": 101, "heldout": 41}.items():
        part = read_part(tmp_path / "part.h5", split)
        row = 0
        for document in iterate_documents(text_folder, split):
            ids = loaded.tokenizer(document.text, return_tensors="pt")["input_ids"]
            n_words = len(document.text.split())
            assert ids.shape[1] == n_words + 2 * shift
            with torch.no_grad():
                states = loaded.model(ids, output_hidden_states=True).hidden_states[2][0]
            take = slice(row, min(row + n_words, quota))
            n_taken = take.stop - take.start
            expected = states[shift : shift + n_taken].numpy()
            np.testing.assert_allclose(part["activations"][take], expected, atol=1e-5)
            assert (part["document"][take] == document.index).all()
            assert (part["position"][take] == np.arange(shift, shift + n_taken)).all()
            assert (part["token"][take] == ids[0, shift : shift + n_taken].numpy()).all()
            row = take.stop
            if row == quota:
                break
        assert row == quota == len(part["activations"])


def test_slices_share_quota_and_documents(tiny_encoder, text_folder, tmp_path):
    settings = settings_for(tiny_encoder, slices=3)
    seals = [
        extract_slice(settings, i, tmp_path / f"part-{i}.h5", text=text_folder) for i in range(3)
    ]
    assert [seal["rows"]["train"] for seal in seals] == [34, 34, 33]
    assert [seal["rows"]["heldout"] for seal in seals] == [14, 14, 13]
    documents: dict[str, list[set[int]]] = {"train": [], "heldout": []}
    for i in range(3):
        part = tmp_path / f"part-{i}.h5"
        assert read_json(part.with_suffix(".json")) == seals[i]
        assert seals[i]["sha256"] == hash_file(part)
        for split, found in documents.items():
            found.append(set(read_part(part, split)["document"].tolist()))
    everything = [*documents["train"], *documents["heldout"]]
    assert len(set().union(*everything)) == sum(map(len, everything))
    with h5py.File(tmp_path / "part-1.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["complete"]
    assert attributes["train_range"].tolist() == [34, 68]
    assert (attributes["slice"], attributes["slices"], attributes["layer"]) == (1, 3, 2)
    assert attributes["model_sha256"] == hash_file(tiny_encoder / "model.safetensors")
    assert attributes["text_sha256"] == hash_file(text_folder / "documents.jsonl")


def test_same_settings_give_the_same_bytes(tiny_encoder, text_folder, tmp_path):
    settings = settings_for(tiny_encoder, n_train_tokens=500)
    hashes = set()
    for name in ("a.h5", "b.h5", "c.h5"):
        # Fill freed memory with something else each time: it must not get into the file.
        np.full(2_000_000, ord(name[0]), dtype=np.uint8)
        hashes.add(extract_slice(settings, 0, tmp_path / name, text=text_folder)["sha256"])
    assert len(hashes) == 1


def test_batch_size_changes_rounding_only(tiny_encoder, text_folder, tmp_path):
    for batch_size in (1, 7):
        settings = settings_for(tiny_encoder, batch_size=batch_size)
        extract_slice(settings, 0, tmp_path / f"{batch_size}.h5", text=text_folder)
    one, seven = read_part(tmp_path / "1.h5"), read_part(tmp_path / "7.h5")
    np.testing.assert_allclose(one["activations"], seven["activations"], atol=1e-5)
    assert (one["token"] == seven["token"]).all()


def test_small_documents_are_sorted_by_length_in_larger_windows(
    tiny_encoder, text_folder, tmp_path, monkeypatch
):
    run, lengths = rows._run, []

    def watch(loaded, hooks, sequences):
        lengths.append([len(each) for each in sequences])
        return run(loaded, hooks, sequences)

    monkeypatch.setattr(rows, "_run", watch)
    monkeypatch.setattr(rows, "WINDOW_BATCHES", 2)
    settings = settings_for(tiny_encoder, batch_size=2)
    padding, parts = [], []
    for size in (1, 1 << 26):
        monkeypatch.setattr(rows, "WINDOW_BYTES", size)
        lengths.clear()
        extract_slice(settings, 0, tmp_path / f"{size}.h5", text=text_folder)
        padding.append(sum(len(batch) * max(batch) - sum(batch) for batch in lengths))
        parts.append(read_part(tmp_path / f"{size}.h5"))
    assert padding[1] < 0.7 * padding[0]
    for name in ("document", "position", "token"):
        assert np.array_equal(parts[0][name], parts[1][name])
    np.testing.assert_allclose(parts[0]["activations"], parts[1]["activations"], atol=1e-5)


def test_windows_hold_all_documents_once():
    documents = [
        TokenizedDocument(i, np.zeros(n + 2, np.int32), np.arange(n))
        for i, n in enumerate((5, 5, 1, 1, 1, 9, 2))
    ]
    for least, most, expected in ((2, 0, [2, 2, 2, 1]), (2, 6, [2, 4, 1]), (1, 100, [7])):
        windows = list(rows._make_windows(documents, least, most))
        assert [len(window) for window in windows] == expected
        assert [document for window in windows for document in window] == documents


def test_context_length_cuts_documents(tiny_encoder, text_folder, tmp_path):
    settings = settings_for(tiny_encoder, context_length=5)
    extract_slice(settings, 0, tmp_path / "part.h5", text=text_folder)
    part = read_part(tmp_path / "part.h5")
    assert part["position"].max() == 3  # [CLS], three words, [SEP]
    assert np.bincount(part["document"]).max() == 3


def test_tokens_per_document_draws_positions(tiny_encoder, text_folder, tmp_path):
    settings = settings_for(tiny_encoder, tokens_per_document=2)
    extract_slice(settings, 0, tmp_path / "part.h5", text=text_folder)
    part = read_part(tmp_path / "part.h5")
    assert np.bincount(part["document"]).max() == 2
    assert part["position"].max() > 2
    assert len(set(zip(part["document"], part["position"], strict=True))) == 101


def test_float16_storage(tiny_encoder, text_folder, tmp_path):
    for dtype in ("float16", "float32"):
        settings = settings_for(tiny_encoder, storage_dtype=dtype)
        extract_slice(settings, 0, tmp_path / f"{dtype}.h5", text=text_folder)
    half = read_part(tmp_path / "float16.h5")["activations"]
    assert half.dtype == np.float16
    full = read_part(tmp_path / "float32.h5")["activations"]
    np.testing.assert_array_equal(half, full.astype(np.float16))


def damage(folder: Path, to: Path, value: float) -> Path:
    """Copy a model, with `value` in the embedding of the word cat."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = load_file(to / "model.safetensors")
    weights["encoder.layer.0.output.LayerNorm.bias"][0] = value
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (1e6, "float16")])
def test_values_that_are_not_finite(tiny_encoder, text_folder, tmp_path, value, dtype):
    model = damage(tiny_encoder, tmp_path / "model", value)
    settings = settings_for(model, layer=1, storage_dtype=dtype)
    message = rf"expected finite {dtype} values, got NaN or infinity in document \d+ at layer 1 \("
    with pytest.raises(ValueError, match=message):
        extract_slice(settings, 0, tmp_path / "out" / "part.h5", text=text_folder)
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 9}, r"layer: expected 0 to 3, got 9"),
        ({"context_length": 33}, r"context_length: expected at most 32 tokens for .*, got 33"),
        (
            {"n_train_tokens": 10**6},
            r"text: expected 1000000 train tokens in slice 0, got \d{3,4} f",
        ),
        (
            {"n_heldout_tokens": 10**5},
            r"text: expected 100000 heldout tokens in slice 0, got \d+ f",
        ),
        ({"n_heldout_tokens": 0}, r"n_heldout_tokens: expected at least 1, got 0"),
        ({"slices": 0}, r"activations\.slices: expected at least 1, got 0"),
        ({"storage_dtype": "int8"}, r"storage_dtype: expected one of 'float32', 'float16'"),
        ({"source": "web"}, r"activations\.source: expected one of 'model', 'files', .* got 'web'"),
        ({"source": "files"}, r"activations\.context_length: a length of text, unknown for files"),
        ({"batch": 3}, r"activations\.batch: unknown key, did you mean 'batch_size'"),
    ],
)
def test_bad_settings_are_named(tiny_encoder, text_folder, tmp_path, changes, message):
    settings = settings_for(tiny_encoder, **changes)
    with pytest.raises(ValueError, match=message):
        extract_slice(settings, 0, tmp_path / "part.h5", text=text_folder)
    assert list(tmp_path.iterdir()) == []


def test_what_a_source_needs_is_named(tiny_encoder, tmp_path):
    for settings, message in (
        ({"source": "files"}, r"^activations\.files: missing key$"),
        ({"source": "files", "files": {}}, r"^activations\.files\.path: missing key$"),
        ({"layer": 1}, r"^activations\.model: missing key$"),
        (
            {"source": "images", "image_tokens": "all", "model": {"name": str(tiny_encoder)}},
            r"^activations\.source: expected model or files, got 'images'$",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            extract_slice(settings, 0, tmp_path / "part.h5")


def test_slice_out_of_range_and_missing_text(tiny_encoder, text_folder, tmp_path):
    with pytest.raises(ValueError, match=r"slice: expected 0 to 0, got 1"):
        extract_slice(settings_for(tiny_encoder), 1, tmp_path / "part.h5", text=text_folder)
    with pytest.raises(ValueError, match="expected the folder of prepare_text, got none"):
        extract_slice(settings_for(tiny_encoder), 0, tmp_path / "part.h5")
    with pytest.raises(FileNotFoundError):
        extract_slice(settings_for(tiny_encoder), 0, tmp_path / "part.h5", text=tmp_path / "none")


# Ready activations


def write_ready(path: Path, values: torch.Tensor) -> Path:
    if path.suffix == ".npy":
        np.save(path, values.numpy())
    elif path.suffix == ".safetensors":
        save_file({"activations": values}, path)
    else:
        with h5py.File(path, "w") as file:
            file["activations"] = values.numpy()
    return path


def extract_ready(path: Path, output: Path, *, slices: int = 1, index: int = 0, **files):
    settings = {"source": "files", "n_train_tokens": 50, "n_heldout_tokens": 11, "slices": slices}
    settings |= {"files": {"path": str(path), **files}}
    return extract_slice(settings, index, output)


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_ready_rows_come_through(tmp_path, suffix, dtype, monkeypatch):
    if dtype == torch.bfloat16 and suffix != ".safetensors":
        pytest.skip("NumPy and HDF5 have no bfloat16")
    monkeypatch.setattr("dbksvd.activations.from_files.BLOCK_BYTES", 8 * 5 * 4)  # 4 rows a block
    values = torch.randn(70, 5).to(dtype)
    path = write_ready(tmp_path / f"x{suffix}", values)
    for index in range(3):
        extract_ready(path, tmp_path / f"part-{index}.h5", slices=3, index=index)
    parts = [tmp_path / f"part-{index}.h5" for index in range(3)]
    train = np.concatenate([read_part(part)["activations"] for part in parts])
    heldout = np.concatenate([read_part(part, "heldout")["activations"] for part in parts])
    np.testing.assert_array_equal(train, values[:50].float().numpy())
    np.testing.assert_array_equal(heldout, values[-11:].float().numpy())
    position = np.concatenate([read_part(part, "heldout")["position"] for part in parts])
    np.testing.assert_array_equal(position, np.arange(59, 70))


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".safetensors"])
def test_ready_files_that_cannot_be_used(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"

    def refuse(values, message, **files):
        if values is not None:
            write_ready(path, values)
        with pytest.raises(ValueError, match=message):
            extract_ready(path, tmp_path / "out" / "part.h5", **files)

    refuse(torch.ones(70, 5, dtype=torch.int32), r"expected a floating dtype, got (int32|I32)")
    refuse(torch.ones(70), r"expected an array of shape \(rows, d\), got \(70,\)")
    refuse(torch.ones(60, 5), r"expected at least 61 rows, got 60")
    bad = torch.ones(70, 5)
    bad[63, 2] = float("nan")
    refuse(bad, r"x\..*: expected finite float32 values, got NaN or infinity in row 63")
    refuse(torch.ones(70, 5), r"expected sha256 00.*, got ", sha256="0" * 64)
    if suffix != ".npy":
        refuse(None, r"'other', found \['activations'\]", tensor="other")
    path.write_bytes(path.read_bytes()[:-64])
    refuse(None, r"expected (a whole|an array)")
    assert not list((tmp_path / "out").rglob("*"))


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x\.npy: .*Python objects"):
        extract_ready(tmp_path / "x.npy", tmp_path / "part.h5")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected a file of kind \.npy"):
        extract_ready(tmp_path / "x.pt", tmp_path / "part.h5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        extract_ready(tmp_path / "none.npy", tmp_path / "part.h5")


# The script


SCRIPT = str(ROOT / "scripts" / "extract_activations.py")


def make_arguments(settings: dict, output: Path, *text: Path) -> list[str]:
    arguments = ["--slice", "0", "--settings", json.dumps(settings), "--output", str(output)]
    return [*arguments, "--text", *map(str, text)]


def test_script_takes_files_of_the_text_folder(tiny_encoder, text_folder, tmp_path, monkeypatch):
    output = tmp_path / "a b" / "part.h5"
    files = [text_folder / "manifest.json", text_folder / "documents.jsonl"]
    arguments = make_arguments(settings_for(tiny_encoder), output, *files)
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    runpy.run_path(SCRIPT, run_name="__main__")
    assert len(read_part(output)["activations"]) == 101


def test_script_says_what_is_wrong_in_one_line(
    tiny_encoder, text_folder, tmp_path, monkeypatch, capsys
):
    settings = settings_for(tiny_encoder, layer=9)
    arguments = make_arguments(settings, tmp_path / "part.h5", text_folder)
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(SCRIPT, run_name="__main__")
    assert stop.value.code == 1
    assert "error: layer: expected 0 to 3, got 9\n" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tiny_encoder, tmp_path, make_sentences):
    (tmp_path / "a.txt").write_text("\n".join(make_sentences(60_000)))
    source = {"kind": "file", "path": str(tmp_path / "a.txt")}
    prepare_text(
        {"sources": [source], "max_documents": 60_000, "heldout_fraction": 0.1}, tmp_path / "text"
    )
    # long enough that a lost Ctrl-C is pressed again before the end
    settings = settings_for(tiny_encoder, n_train_tokens=300_000, batch_size=1)
    output = tmp_path / "out" / "part.h5"
    command = [sys.executable, SCRIPT, *make_arguments(settings, output, tmp_path / "text")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".part*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    # Python may lose one Ctrl-C, where it arrives inside a destructor: people press again.
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)  # a busy machine is slow to leave
            break
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in stderr
    assert list((tmp_path / "out").iterdir()) == []
