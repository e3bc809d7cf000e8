from __future__ import annotations

import numpy as np
import pytest
from features_helpers import STORED

from dbksvd.features.site_files import read_arrays, write_arrays


@pytest.fixture
def examples() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    sizes = np.array([2, 1, 0, 3])
    return {
        "count": np.array([5, 0, 2**40]),
        "maximum": draw.lognormal(0, 3, 3).astype(np.float32),
        "total": draw.random(3),
        "example_start": np.array([0, 2, 2, 3]),
        "example_position": np.array([4, 9, 0]),
        "value_start": np.r_[0, np.cumsum(sizes[[0, 1, 3]])],
        "value_position": np.array([3, 4, 9, 0, 1, 2]),
        "value": np.array([0.1, 0.7, 1e-30, 3e38, 1 / 3, 70000.0], np.float32),
        "coactive_base": np.array([6, 4, 2]),
        "coactive_feature": np.array([[1, 2], [0, -1], [0, -1]]),
        "coactive_count": np.array([[3, 2], [3, 0], [2, 0]]),
        "nearest_cosine": np.zeros((0, 2, 3), np.float32),
    }


def test_arrays_come_back_and_what_follows_from_them(examples, tmp_path):
    write_arrays(tmp_path / "a.h5", examples)
    found = read_arrays(tmp_path / "a.h5")
    for name, array in examples.items():
        if name == "value":
            np.testing.assert_allclose(found[name], array, rtol=STORED)
        else:
            np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.kind == array.dtype.kind
        assert found[name].dtype == (np.int64 if array.dtype.kind == "i" else array.dtype)
    np.testing.assert_array_equal(found["example_peak"], found["value"][[1, 2, 3]])
    jaccard = [[3 / 7, 2 / 6], [3 / 7, 0], [2 / 6, 0]]
    np.testing.assert_allclose(found["coactive_jaccard"], jaccard, rtol=1e-6)
    conditional = [[3 / 6, 2 / 6], [3 / 4, 0], [2 / 2, 0]]
    np.testing.assert_allclose(found["coactive_conditional"], conditional, rtol=1e-6)


def test_same_arrays_same_bytes_and_less_room(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {
        "value": draw.lognormal(0, 1, 30_000).astype(np.float32),
        "value_position": draw.integers(0, 48, 30_000),
        "value_start": np.arange(0, 30_001, 3),
        "example_position": np.zeros(10_000, np.int64),
    }
    for name in ("a.h5", "b.h5"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    plain = 4 * 30_000 + 30_000 + 2 * 10_000 + 10_000
    assert (tmp_path / "a.h5").stat().st_size < 0.5 * plain
