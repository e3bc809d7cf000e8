"""The products of the atoms are made once for calls that share them, and never of other atoms."""

import pytest
import torch

from dbksvd import Dictionary, sparse_encode
from dbksvd.dictionaries.dictionary import PursuitSettings
from dbksvd.ops.pursuit import gram as kept
from dbksvd.ops.pursuit.encode import make_gram


@pytest.fixture
def made(monkeypatch):
    """Forget what is kept, and list the atoms of which products are made."""
    monkeypatch.setattr(kept, "_kept", None)
    calls = []

    def count(atoms, implementation):
        calls.append(len(atoms))
        return make_gram(atoms, implementation)

    monkeypatch.setattr(kept, "make_gram", count)
    return calls


def draw_dictionary(m: int = 40, **settings) -> Dictionary:
    atoms = torch.nn.functional.normalize(torch.randn(m, 12), dim=1)
    return Dictionary(atoms, torch.randn(12), PursuitSettings(4, **settings))


@pytest.mark.parametrize("implementation", ["auto", "batched", "reference"])
@pytest.mark.parametrize("settings", [{}, {"method": "ols", "nonnegative": True}])
def test_codes_are_the_same_and_products_are_made_once(made, implementation, settings):
    dictionary, x = draw_dictionary(**settings), torch.randn(30, 12)
    arguments = (x - dictionary.bias, dictionary.atoms, 4)
    expected = sparse_encode(*arguments, **settings, implementation=implementation)
    for _ in range(3):
        codes = dictionary.encode(x, implementation=implementation)
        assert torch.equal(codes.indices, expected.indices)
        assert torch.equal(codes.values, expected.values)
    assert made == [40]


def test_changed_atoms_are_noticed(made):
    first, second, x = draw_dictionary(), draw_dictionary(50), torch.randn(9, 12)
    for dictionary in (first, second, first):
        dictionary.encode(x)
    first.atoms.numpy()[0] *= -1  # which torch does not count as a change
    codes = first.encode(x)
    assert made == [40, 50, 40, 40]
    assert torch.equal(codes.values, sparse_encode(x - first.bias, first.atoms, 4).values)


def test_large_products_are_not_kept(made, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_BYTES", 4 * 40**2 - 1)
    draw_dictionary().encode(torch.randn(3, 12))
    assert not made


def test_products_of_another_shape_are_refused():
    atoms = torch.eye(4)
    with pytest.raises(ValueError, match=r"gram: expected shape, dtype and device \(\(4, 4\)"):
        sparse_encode(torch.randn(3, 4), atoms, 2, gram=torch.eye(3))
