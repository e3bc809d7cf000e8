"""The shapes in signatures are checked while tests run (shape_checks.py)."""

import pytest
import torch
from jaxtyping import TypeCheckError

from dbksvd.base.codes import SparseCodes
from dbksvd.fit.ksvd.groups import encode_groups


def make_codes(values: torch.Tensor) -> SparseCodes:
    return SparseCodes(torch.zeros(3, 2, dtype=torch.int64), values, 5)


def test_sizes_of_one_name_must_agree():
    codes = make_codes(torch.ones(3, 2))
    assert codes.decode(torch.ones(5, 4)).shape == (3, 4)
    for values in (torch.ones(4, 2), torch.ones(3), torch.ones(3, 2, dtype=torch.int64)):
        with pytest.raises(TypeCheckError, match=r"SparseCodes\.__init__"):
            make_codes(values)
    with pytest.raises(TypeCheckError, match=r"SparseCodes\.decode"):
        codes.decode(torch.ones(5))


def test_samples_and_atoms_must_have_one_width():
    with pytest.raises(TypeCheckError, match=r"groups\.encode_groups"):
        encode_groups(torch.ones(3, 2), torch.ones(4, 3), (4,), None)
