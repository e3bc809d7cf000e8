"""Kernels count no references to the arrays they are lent, and cannot make arrays of their own."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import NumbaError

from dbksvd.ops.compiling import compile_kernel


def add_rows(rows):
    total = rows[0]
    for i in range(1, len(rows)):
        row = rows[i]
        if row[0] > 0:
            total = row
    for j in range(total.size):
        total[j] += 1


def make_rows(rows):
    return np.empty(len(rows))


def test_kernels_count_no_references():
    """By plain numba the row that is kept is counted, so that the check can fail."""
    for compiler, is_counted in ((compile_kernel(cache=False), False), (njit, True)):
        rows = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        compiled = compiler(add_rows)
        compiled(rows)
        assert rows.tolist() == [[0, 0], [2, 1], [-1, 0]]
        (code,) = compiled.inspect_llvm().values()
        assert ("@NRT_incref" in code) == is_counted


def test_a_kernel_that_makes_an_array_is_refused():
    rows = np.zeros((3, 2))
    with pytest.raises(NumbaError):
        compile_kernel(cache=False)(make_rows)(rows)
    assert njit(make_rows)(rows).shape == (3,)
