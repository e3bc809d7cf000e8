"""A split on which no score means anything is refused where the shards are written."""

from pathlib import Path

import numpy as np
import pytest

from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.settings import FileActivations
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.split_checks import hash_rows
from dbksvd.base.settings import parse


def write_part(path: Path, dtype: str = "float32", **splits: np.ndarray) -> Path:
    attributes = {"model": "m", "layer": 4, "dtype": dtype, "slice": 0, "slices": 1}
    sizes = {split: len(rows) for split, rows in splits.items()}
    width = splits["train"].shape[1]
    with create_file(path, sizes, width, dtype, attributes) as file:
        for split, rows in splits.items():
            records = np.zeros(len(rows), record_dtype(width, dtype))
            records["activations"] = rows
            write_rows(file[split], 0, records)
    return path


def draw(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 8))


def shard(tmp_path: Path, *, dtype: str = "float32", multiple=None, **splits: np.ndarray):
    splits = {"train": draw(300), "heldout": draw(150, 1)} | splits
    part = write_part(tmp_path / "part-0.h5", dtype, **splits)
    settings = {"rows_per_shard": 100, "outlier_norm_multiple": multiple}
    return write_shards([part], settings, tmp_path / "shards", block_rows=70)


ZEROS = np.zeros((150, 8))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"heldout": draw(1)}, "heldout: expected at least 2 rows that differ, got 1 row:"),
        ({"heldout": ZEROS}, "heldout: .* got 150 rows, all zero: without variance no score"),
        ({"heldout": ZEROS + 3.25}, "heldout: .* got 150 rows, all the same: without variance"),
        ({"heldout": np.repeat(draw(1), 9, axis=0)}, "heldout: .* got 9 rows, all the same"),
        ({"train": np.repeat(draw(1), 9, axis=0)}, "train: .* got 9 rows, all the same"),
        # 1e-7 of the value is its last bit or two
        ({"heldout": 1 + 1e-7 * draw(150)}, "heldout: expected a variance above .* measure round"),
    ],
)
def test_a_split_without_variance_is_refused(splits, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        shard(tmp_path, **splits)
    assert not (tmp_path / "shards").exists()


def test_rounding_counts_in_the_dtype_that_is_stored(tmp_path):
    far = {"train": 3000 + draw(300), "heldout": 3000 + draw(150, 1)}
    shard(tmp_path, **far)
    with pytest.raises(ValueError, match=r"rounding to float16 makes of rows of norm 8.49e\+03"):
        shard(tmp_path, dtype="float16", **far)


def test_far_rows_of_unit_variance_are_taken(tmp_path):
    far = {"train": 1e5 + draw(300), "heldout": 1e5 + draw(150, 1)}
    manifest = shard(tmp_path, **far)
    variance = far["heldout"].astype(np.float32).astype(np.float64).var(axis=0).sum()
    assert manifest["splits"]["heldout"]["total_variance"] == pytest.approx(variance, rel=1e-9)


def test_a_median_norm_of_zero_has_no_multiple(tmp_path):
    train = draw(300)
    train[:210] = 0
    message = "outlier_norm_multiple: .* median norm .* got 0: 210 of 300 rows are zero"
    with pytest.raises(ValueError, match=message):
        shard(tmp_path, multiple=5, train=train)


def test_all_rows_left_out_are_counted(tmp_path):
    with pytest.raises(ValueError, match=r"heldout: .* got none: 150 rows, all left out"):
        shard(tmp_path, multiple=5, heldout=1000 + draw(150))
    heldout = np.vstack([1000 + draw(150), draw(1)])
    with pytest.raises(ValueError, match=r"got 1 row \(150 more left out as outliers\): without"):
        shard(tmp_path, multiple=5, heldout=heldout)


def test_zero_rows_copies_and_few_rows_are_counted_and_told(tmp_path, caplog):
    train = np.vstack([draw(300), np.repeat(draw(1, 7), 60, axis=0), np.zeros((40, 8))])
    train = np.random.default_rng(3).permutation(train)
    splits = shard(tmp_path, train=train, heldout=draw(20, 1))["splits"]
    assert (splits["train"]["zero_rows"], splits["train"]["distinct_rows"]) == (40, 302)
    assert (splits["heldout"]["zero_rows"], splits["heldout"]["distinct_rows"]) == (0, 20)
    assert caplog.messages == [
        "train: 40 of 400 rows are zero",
        "train: 98 of 400 rows are copies of others",
        "heldout: 20 rows: scores over so few say little",
    ]


def test_good_splits_are_not_remarked_on(tmp_path, caplog):
    shard(tmp_path, multiple=5)
    assert not caplog.messages


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_hashes_are_equal_for_equal_rows_only(dtype):
    rows = np.random.default_rng(0).choice([1.0, -1.0, 0.5, 0.0], size=(5000, 6)).astype(dtype)
    hashes, zero_rows = hash_rows(rows)
    assert len(np.unique(hashes)) == len(np.unique(rows, axis=0))
    assert zero_rows == (~rows.any(axis=1)).sum() > 0
    for zero in (np.zeros((2, 3), dtype), -np.zeros((2, 3), dtype)):
        np.testing.assert_array_equal(hash_rows(zero)[0], 0)
        assert hash_rows(zero)[1] == 2


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_single_row_is_refused_when_the_config_is_read(split):
    settings = {"source": "files", "files": {"path": "x.npy"}, f"n_{split}_tokens": 1}
    with pytest.raises(ValueError, match=rf"^activations\.n_{split}_tokens: expected at least 2, "):
        parse(FileActivations, settings, "activations")
