"""Kernels that pass over rows have the bits of NumPy in float64."""

import numpy as np
import pytest

from dbksvd.activations.moments import Moments
from dbksvd.activations.norms import measure_norms
from dbksvd.activations.row_kernels import copy_rows, sum_rows, sum_squares

SHAPES = [(1, 1), (5, 7), (3, 128), (100, 129), (777, 130), (40, 768), (9, 2304)]


def draw(shape: tuple[int, int], dtype: str) -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, shape).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_norms_and_moments_are_those_of_numpy_in_float64(shape, dtype):
    rows = draw(shape, dtype)
    wide = rows.astype(np.float64)
    np.testing.assert_array_equal(measure_norms(rows), np.linalg.norm(wide, axis=1))
    found, mean = Moments.of(rows), wide.mean(axis=0)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-15 if shape[1] > 1 else 1e-12)
    assert found.squares == pytest.approx(np.square(wide - found.mean).sum(), rel=1e-14)
    assert found.rows == len(rows)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_sums_have_the_bits_of_numpy(shape):
    rows = draw(shape, "float32")
    mean = rows.mean(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(sum_rows(rows) / len(rows), mean)
    assert sum_squares(rows, mean) == np.square(rows - mean).sum()


def test_moments_of_blocks_are_those_of_all_rows():
    rows = draw((1000, 13), "float32") + np.arange(1000, dtype=np.float32)[:, None]
    found = Moments.empty(13)
    for start in range(0, 1000, 170):
        found.add(rows[start : start + 170])
    found.add(rows[:0])
    whole = Moments.of(rows)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-13)
    assert found.squares == pytest.approx(whole.squares, rel=1e-13)
    assert found.rows == 1000


def test_rows_are_copied_into_records_in_order():
    rows = draw((6, 3), "float32")
    records = np.zeros(5, [("label", "i4"), ("activations", "f4", (3,))])
    source, target = rows.view(np.uint8), records.view(np.uint8).reshape(5, -1)
    copy_rows(source, np.array([4, 0, 4]), target, 1, 4)
    np.testing.assert_array_equal(records["activations"][1:4], rows[[4, 0, 4]])
    assert not records["label"].any()
    assert not records["activations"][[0, 4]].any()
