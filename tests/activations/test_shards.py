from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dbksvd import ActivationShards
from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.moments import Moments
from dbksvd.activations.sharding import write_shards
from dbksvd.base.files import DamagedFileError, hash_file, hash_files, read_json, write_json
from dbksvd.base.splits import SPLITS

ROOT = Path(__file__).parents[2]
SETTINGS = {"rows_per_shard": 64, "seed": 0}
SIZES = {"train": 100, "heldout": 30}
N_SLICES = 3
D = 6


def write_part(path: Path, index: int, *, dtype="float32", d=D, values=None, **changes) -> Path:
    """Write a part whose rows are told apart by `document`."""
    attributes = {"model": "m", "revision": None, "layer": 4, "dtype": dtype, "slice": index}
    attributes |= {"slices": N_SLICES, "context_length": 128, "train_range": (0, 1)}
    attributes |= {"prepend_bos": False, "hook_module": None, **changes}
    draw = np.random.default_rng(index)
    with create_file(path, SIZES, d, dtype, attributes) as file:
        for number, (split, rows) in enumerate(SIZES.items()):
            records = np.zeros(rows, record_dtype(d, dtype))
            records["activations"] = draw.normal(3, 2, size=(rows, d))
            records["document"] = np.arange(rows) + 1000 * index + 10_000 * number
            records["position"], records["token"] = draw.integers(0, 99, size=(2, rows))
            for row, value in (values or {}).items():
                records["activations"][row] = value
            write_rows(file[split], 0, records)
    return path


@pytest.fixture
def parts(tmp_path) -> list[Path]:
    return [write_part(tmp_path / "parts" / f"part-{i}.h5", i) for i in range(N_SLICES)]


def read_all(files) -> dict[str, np.ndarray]:
    """Return the tables of several HDF5 groups, one after another."""
    names = ("activations", "document", "position", "token")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path, group in files:
        with h5py.File(path) as file:
            for name in names:
                found[name].append(file[group][name][:])
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


def read_shards(folder: Path, split: str) -> dict[str, np.ndarray]:
    files = read_json(folder / "manifest.json")["splits"][split]["files"]
    return read_all((folder / entry["file"], "/") for entry in files)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shards_have_the_same_bytes_with_any_number_of_threads(tmp_path, dtype):
    parts = [write_part(tmp_path / f"part-{i}.h5", i, dtype=dtype) for i in range(N_SLICES)]
    for threads in (1, 3):
        write_shards(parts, SETTINGS, tmp_path / str(threads), block_rows=9, threads=threads)
    assert hash_files(tmp_path / "1") == hash_files(tmp_path / "3")


def test_a_shard_is_read_again_only_where_it_has_changed(parts, tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    write_shards(parts, SETTINGS, folder)
    hashed: list[str] = []

    def spy(path) -> str:
        hashed.append(Path(path).name)
        return hash_file(path)

    monkeypatch.setattr("dbksvd.base.files.hash_file", spy)
    for _ in range(3):
        ActivationShards.open(folder)
    assert hashed == [f"train-{i:05d}.h5" for i in range(5)]
    damaged = folder / "train-00002.h5"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"train-00002\.h5: expected sha256"):
        ActivationShards.open(folder)
    assert hashed[5:] == ["train-00002.h5"]
    write_shards(parts, SETTINGS, folder)  # what was seen of the old shards goes with them
    assert not list(folder.glob("*.seen.json"))


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize("rows_per_shard", [25, 64, 150, 10_000])
def test_every_row_comes_out_once_with_its_labels(parts, tmp_path, block_rows, rows_per_shard):
    settings = {**SETTINGS, "rows_per_shard": rows_per_shard}
    manifest = write_shards(parts, settings, tmp_path / "shards", block_rows=block_rows)
    for split, rows in SIZES.items():
        before = read_all((part, split) for part in parts)
        after = read_shards(tmp_path / "shards", split)
        assert (before["document"] != after["document"]).any()
        order_before, order_after = np.argsort(before["document"]), np.argsort(after["document"])
        for name in before:
            np.testing.assert_array_equal(before[name][order_before], after[name][order_after])
        sizes = [entry["rows"] for entry in manifest["splits"][split]["files"]]
        assert sum(sizes) == manifest["splits"][split]["rows"] == N_SLICES * rows
        assert all(size == rows_per_shard for size in sizes[:-1])
    names = {path.name for path in (tmp_path / "shards").iterdir()}
    assert {name.rsplit(".", 1)[1] for name in names} == {"h5", "json"}


@pytest.mark.parametrize("rows_per_shard", [25, 10_000])
def test_labels_are_those_of_the_rows(parts, tmp_path, rows_per_shard):
    """Each row is the one that a part holds under its document; ranges cross shards."""
    write_shards(parts, {**SETTINGS, "rows_per_shard": rows_per_shard}, tmp_path / "shards")
    for split in SPLITS:
        before = read_all((part, split) for part in parts)
        row_of = {document: row for row, document in enumerate(before["document"].tolist())}
        with contextlib.closing(ActivationShards.open(tmp_path / "shards", split)) as shards:
            for start, stop in [(0, len(shards)), (20, 61), (7, 8), (5, 5), (len(shards),) * 2]:
                labels, x = shards.read_labels(start, stop), shards.read(start, stop)
                assert [array.dtype for array in labels] == [np.int32] * 3
                rows = [row_of[document] for document in labels.document.tolist()]
                np.testing.assert_array_equal(before["activations"][rows], x.numpy())
                np.testing.assert_array_equal(before["position"][rows], labels.position)
                np.testing.assert_array_equal(before["token"][rows], labels.token)
            for start, stop in [(-1, 3), (4, 3), (0, len(shards) + 1)]:
                with pytest.raises(ValueError, match=f"expected a range .* got {start}:{stop}"):
                    shards.read_labels(start, stop)


def test_same_seed_same_bytes_whatever_the_order_of_the_parts(parts, tmp_path):
    first = write_shards(parts, SETTINGS, tmp_path / "a")
    assert write_shards(parts[::-1], SETTINGS, tmp_path / "b") == first
    other = write_shards(parts, {**SETTINGS, "seed": 1}, tmp_path / "c")
    assert other["splits"]["train"]["files"] != first["splits"]["train"]["files"]
    a, c = read_shards(tmp_path / "a", "train"), read_shards(tmp_path / "c", "train")
    assert sorted(a["document"]) == sorted(c["document"])


def test_every_row_is_equally_likely_in_every_place(tmp_path):
    """300 rows, 50 seeds: rows of each part land in each third of the order as often."""
    parts = [write_part(tmp_path / f"part-{i}.h5", i, d=1) for i in range(N_SLICES)]
    counts: Counter[tuple[int, int]] = Counter()
    n_seeds = 50
    for seed in range(n_seeds):
        settings = {"rows_per_shard": 200, "seed": seed}
        write_shards(parts, settings, tmp_path / "shards", block_rows=50)
        order = read_shards(tmp_path / "shards", "train")["document"] // 1000
        for third in range(3):
            counts.update((third, part) for part in order[100 * third : 100 * (third + 1)].tolist())
    # Hypergeometric: mean 100/3, variance 100·(1/3)(2/3)·(200/299) = 14.9 for each seed.
    deviation = (14.9 / n_seeds) ** 0.5
    for place, count in counts.items():
        assert abs(count / n_seeds - 100 / 3) < 4 * deviation, place


def test_manifest_describes_the_rows(parts, tmp_path):
    manifest = write_shards(parts, SETTINGS, tmp_path / "shards", block_rows=13)
    for split in SPLITS:
        rows = read_all((part, split) for part in parts)["activations"].astype(np.float64)
        described = manifest["splits"][split]
        assert described["total_variance"] == pytest.approx(rows.var(axis=0).sum(), rel=1e-9)
        norms = np.linalg.norm(rows, axis=1)
        assert list(described["norm_quantiles"]) == [
            *("0", "0.001", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "0.999", "1")
        ]
        assert described["norm_quantiles"]["0.5"] == pytest.approx(np.median(norms), rel=1e-6)
        assert described["norm_quantiles"]["1"] == pytest.approx(norms.max(), rel=1e-6)
        if split == "train":
            np.testing.assert_allclose(manifest["mean"], rows.mean(axis=0), rtol=1e-9)
            scale = np.sqrt(((rows - rows.mean(axis=0)) ** 2).mean())
            assert manifest["scale"] == pytest.approx(scale, rel=1e-9)
    assert (manifest["d"], manifest["dtype"]) == (D, "float32")
    assert manifest["model"]["layer"] == 4
    assert manifest["model"]["revision"] is None
    assert read_json(tmp_path / "shards" / "manifest.json") == manifest


def test_moments_hold_far_from_zero():
    rows = np.random.default_rng(0).normal(1e6, 1e-2, size=(1000, 3))
    moments = Moments.empty(3)
    for block in np.split(rows, [1, 10, 10, 400]):
        moments.add(block)
    assert moments.variance == pytest.approx(rows.var(axis=0).sum(), rel=1e-6)


def test_outlier_norms_are_dropped_and_counted(tmp_path):
    values = {3: 100.0, 7: -1000.0}
    parts = [write_part(tmp_path / f"part-{i}.h5", i, values=values) for i in range(N_SLICES)]
    settings = {**SETTINGS, "outlier_norm_multiple": 5}
    manifest = write_shards(parts, settings, tmp_path / "shards", block_rows=9)
    for split, rows in SIZES.items():
        assert manifest["splits"][split]["masked_rows"] == 2 * N_SLICES
        assert manifest["splits"][split]["rows"] == (rows - 2) * N_SLICES
        documents = read_shards(tmp_path / "shards", split)["document"]
        assert not set((documents % 1000).tolist()) & {3, 7}
    off = write_shards(parts, SETTINGS, tmp_path / "off")
    assert off["splits"]["train"]["masked_rows"] == 0


def test_reading_crosses_shards(parts, tmp_path):
    write_shards(parts, SETTINGS, tmp_path / "shards")
    for split in SPLITS:
        expected = torch.from_numpy(read_shards(tmp_path / "shards", split)["activations"])
        shards = ActivationShards.open(tmp_path / "shards", split)
        n = len(expected)
        assert (len(shards), shards.width) == (n, D)
        for start, stop in ((0, n), (0, 0), (n, n), (10, 11), (60, 70), (3, n - 1), (63, 64)):
            got = shards.read(start, stop)
            assert got.dtype == torch.float32
            assert torch.equal(got, expected[start:stop])
        batches = list(shards.iterate(17, start=5))
        assert [len(batch) for batch in batches[:-1]] == [17] * (len(batches) - 1)
        assert torch.equal(torch.cat(batches), expected[5:])
        shards.close()
        assert torch.equal(shards.read(1, 3), expected[1:3])
        for bad in ((-1, 2), (0, n + 1), (5, 4)):
            with pytest.raises(ValueError, match="rows: expected a range inside"):
                shards.read(*bad)
        with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
            next(shards.iterate(0))


def test_mean_scale_and_origin(parts, tmp_path):
    write_shards(parts, SETTINGS, tmp_path / "shards")
    train = ActivationShards.open(tmp_path / "shards")
    heldout = ActivationShards.open(tmp_path / "shards", "heldout")
    rows = train.read(0, len(train))
    torch.testing.assert_close(train.mean, rows.mean(dim=0))
    assert torch.equal(train.mean, heldout.mean)
    assert train.mean.dtype == torch.float32
    assert train.scale == pytest.approx((rows - train.mean).square().mean().sqrt().item())
    described = train.describe()
    assert described["hook_name"] == "blocks.3.hook_resid_post"
    assert (described["model_name"], described["hook_layer"]) == ("m", 3)
    assert (described["context_size"], described["prepend_bos"]) == (128, False)
    json.dumps(described)


def test_float16_shards_are_read_as_float32(tmp_path):
    parts = [write_part(tmp_path / f"part-{i}.h5", i, dtype="float16") for i in range(N_SLICES)]
    write_shards(parts, SETTINGS, tmp_path / "shards")
    stored = read_shards(tmp_path / "shards", "train")["activations"]
    assert stored.dtype == np.float16
    got = ActivationShards.open(tmp_path / "shards").read(0, len(stored))
    assert torch.equal(got, torch.from_numpy(stored.astype(np.float32)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, r"part-1\.h5: model: expected 'm' as in .*part-0\.h5, got 'other'"),
        ({"layer": 5}, r"part-1\.h5: layer: expected 4 as in .*part-0\.h5, got 5"),
        ({"d": 7}, r"part-1\.h5: width: expected 6 as in .*part-0\.h5, got 7"),
        ({"dtype": "float16"}, r"part-1\.h5: dtype: expected 'float32' .* got 'float16'"),
        ({"revision": "abc"}, r"part-1\.h5: revision: expected None as in .* got 'abc'"),
        ({"values": {5: np.nan}}, r"part-1\.h5: expected finite .* infinity in train row 5"),
        ({"values": {5: -np.inf}}, r"part-1\.h5: expected finite .* infinity in train row 5"),
        ({"slice": 0}, r"part-1\.h5: slice 0 is in .*part-0\.h5 already"),
    ],
)
def test_parts_that_do_not_fit(parts, tmp_path, changes, message):
    write_part(parts[1], 1, **changes)
    with pytest.raises(ValueError, match=message):
        write_shards(parts, SETTINGS, tmp_path / "out" / "shards", block_rows=4)
    assert not list((tmp_path / "out").rglob("*"))


def test_parts_that_are_damaged(parts, tmp_path):
    def refuse(message, error=ValueError):
        with pytest.raises(error, match=message):
            write_shards(parts, SETTINGS, tmp_path / "out" / "shards")
        assert not list((tmp_path / "out").rglob("*"))

    whole = parts[2].read_bytes()
    parts[2].write_bytes(whole[: len(whole) // 2])
    refuse(r"part-2\.h5: expected a whole HDF5 file, got: .*truncated")
    parts[2].write_bytes(b"")
    refuse(r"part-2\.h5: expected a whole HDF5 file")
    parts[2].unlink()
    refuse(r"part-2\.h5: no such file", FileNotFoundError)
    parts[2].write_bytes(whole)
    with h5py.File(parts[2], "a") as file:
        file.attrs["complete"] = False
    refuse(r"part-2\.h5: expected a complete file .* complete False")
    with h5py.File(parts[2], "a") as file:
        file.attrs["complete"], file.attrs["schema_version"] = True, 99
    refuse(r"part-2\.h5: expected .* schema_version 1, got schema_version 99")
    parts[2].write_bytes(whole)
    write_json(parts[2].with_suffix(".json"), {"sha256": "0" * 64})
    refuse(r"part-2\.h5: expected sha256 000.*; delete .*part-2\.json and run again")
    parts[2].with_suffix(".json").unlink()
    del parts[1]
    refuse(r"parts: expected slices 0 to 2, missing \[1\]")
    parts.clear()
    refuse("parts: expected at least 1 file")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows_per_shard": 0}, r"shards\.rows_per_shard: expected at least 1, got 0"),
        (
            {**SETTINGS, "outlier_norm_multiple": 0.5},
            r"outlier_norm_multiple: expected more than 1, got 0\.5",
        ),
        ({"rows": 5}, r"shards\.rows: unknown key, expected one of .*, rows_per_shard, seed"),
        ({"rows_per_shard": 1.5}, r"shards\.rows_per_shard: expected integer, got 1\.5"),
    ],
)
def test_bad_settings_are_named(parts, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_shards(parts, settings, tmp_path / "shards")


def damage_file(path: Path, kind: str, other: Path) -> None:
    content = path.read_bytes()
    match kind:
        case "first byte":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        case "last byte":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "truncated":
            path.write_bytes(content[:-100])
        case "deleted":
            path.unlink()
        case "swapped":
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)


@pytest.mark.parametrize("damage", ["first byte", "last byte", "truncated", "deleted", "swapped"])
def test_every_damaged_shard_is_named(parts, tmp_path, damage):
    folder = tmp_path / "shards"
    manifest = write_shards(parts, SETTINGS, folder)
    for split in SPLITS:
        names = [entry["file"] for entry in manifest["splits"][split]["files"]]
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            whole = {each: (folder / each).read_bytes() for each in (name, other)}
            damage_file(folder / name, damage, folder / other)
            with pytest.raises(DamagedFileError) as caught:
                ActivationShards.open(folder, split)
            named = min(name, other) if damage == "swapped" else name
            assert str(caught.value).startswith(f"{folder / named}: ")
            assert str(caught.value).endswith(f"; delete {folder / 'manifest.json'} and run again")
            assert caught.value.seal == folder / "manifest.json"
            for sound in set(SPLITS) - {split}:
                assert len(ActivationShards.open(folder, sound)) > 0
            for each, content in whole.items():
                (folder / each).write_bytes(content)
            assert len(ActivationShards.open(folder, split)) > 0


def test_unverified_shards_are_checked_as_they_are_read(parts, tmp_path):
    folder = tmp_path / "shards"
    write_shards(parts, SETTINGS, folder)
    shard = folder / "train-00001.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    shards = ActivationShards.open(folder, verify=False)
    with pytest.raises(ValueError, match=r"train-00001\.h5: expected a whole HDF5 file"):
        shards.read(0, 300)
    shard.write_bytes((folder / "train-00004.h5").read_bytes())
    with pytest.raises(DamagedFileError, match=r"shape \(64, 6\), got \(44, 6\)"):
        shards.read(0, 300)


def test_an_edited_manifest_is_named(parts, tmp_path):
    folder = tmp_path / "shards"
    manifest = write_shards(parts, SETTINGS, folder)
    path = folder / "manifest.json"

    def refuse(message, error=DamagedFileError, **options):
        with pytest.raises(error, match=message):
            ActivationShards.open(folder, **options)

    refuse("split: expected one of train, heldout, got 'test'", ValueError, split="test")
    edits = {
        "mean": [0.0] * D,
        "scale": 2 * manifest["scale"],
        "splits": {},
        "model": {},
        "sha256": None,
        "new": 1,
    }
    for key, value in edits.items():
        write_json(path, {**manifest, key: value})
        refuse(rf"manifest\.json: expected content of sha256 .*; delete {path} and run again")
    write_json(path, {**manifest, "schema_version": 2})
    refuse(r"manifest\.json: expected schema_version 1, got 2", ValueError)
    path.write_text("{")
    refuse(r"manifest\.json: expected JSON")
    path.write_text("[]")
    refuse(r"manifest\.json: expected a JSON object, got list")
    path.unlink()
    refuse(r"manifest\.json", FileNotFoundError)
    write_json(path, dict(reversed(manifest.items())))
    assert len(ActivationShards.open(folder)) == 300


def test_read_notices_values_that_are_not_finite(parts, tmp_path):
    write_shards(parts, SETTINGS, tmp_path / "shards")
    with h5py.File(tmp_path / "shards" / "train-00001.h5", "a") as file:
        file["activations"][9, 2] = np.nan
    shards = ActivationShards.open(tmp_path / "shards", verify=False)
    assert len(shards.read(0, 64 + 9)) == 73
    with pytest.raises(ValueError, match=r"train-00001\.h5: .* NaN or infinity in row 9$"):
        shards.read(60, 80)


# A full disk, on a small tmpfs


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_full_disk_while_sharding(small_disk, tmp_path):
    parts = [write_part(tmp_path / f"part-{i}.h5", i, d=256) for i in range(N_SLICES)]
    script = ROOT / "scripts" / "shard_activations.py"
    settings = json.dumps({"shards": SETTINGS})
    arguments = ["--settings", settings, "--output", small_disk / "shards", "--parts", *parts]
    done = run_python(script, *arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert "Traceback" not in done.stderr
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("rows", [10, 200, 100_000])
def test_full_disk_while_writing_hdf5(small_disk, rows):
    """HDF5 ends the process with a segmentation fault after a failed write: none may fail."""
    program = f"""
from dbksvd.base.errors import report_errors
from dbksvd.activations.hdf5 import create_file
from pathlib import Path
with report_errors(), create_file(Path({str(small_disk)!r}) / "x.h5", {{"/": {rows}}}, 384,
                                  "float32", {{}}) as file:
    file["activations"][:] = 1
"""
    (small_disk / "filler").write_bytes(bytes(100_000))
    done = run_python("-c", program)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip() == "error: [Errno 28] No space left on device"
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
