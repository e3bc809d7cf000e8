"""Atoms are paired one to one with the greatest sum of similarities, also by candidates only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dbksvd.ops.matching import Cosines, match


def draw_atoms(m: int, d: int, seed: int = 0) -> Tensor:
    atoms = torch.randn(m, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(atoms, dim=1)


def draw_crowded(m: int, d: int, seed: int) -> Tensor:
    """Return atoms that lie near few directions, so that many want the same partners."""
    centres = draw_atoms(m // 20, d, seed=99)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randint(len(centres), (m,), generator=generator)
    return centres[kept] + torch.randn(m, d, generator=generator) * 1.5 / d**0.5


class Table:
    """A similarity that is a ready matrix."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape = matrix, tuple(matrix.shape)

    def read(self, start: int, stop: int) -> Tensor:
        return self.matrix[start:stop]


def list_partners(found) -> dict[int, int]:
    return dict(found.pairs.tolist())


@pytest.mark.parametrize("exact_atoms", [200, 0])
@pytest.mark.parametrize("signed", [True, False])
def test_permuted_copy_is_found(signed: bool, exact_atoms: int):
    atoms = draw_atoms(150, 24)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    signs = torch.where(torch.arange(150) % 2 == 0, 1.0, -1.0)[:, None] if signed else 1.0
    found = match(
        Cosines(atoms, 3 * (atoms * signs)[order], signed=signed), exact_atoms=exact_atoms
    )
    assert {order[second].item(): first for first, second in found.pairs} == {
        i: i for i in range(150)
    }
    for side in (0, 1):
        np.testing.assert_allclose(found.spread(side), 1, atol=1e-6)
        np.testing.assert_allclose(found.nearest[side], 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 63), (1100, 900), (30, 1)])
def test_pairs_are_those_of_the_hungarian_method(shape: tuple[int, int]):
    cosines = Cosines(draw_atoms(shape[0], 12), draw_atoms(shape[1], 12, seed=1), signed=False)
    matrix = cosines.read(0, shape[0]).numpy()
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    found = match(cosines)
    assert list_partners(found) == dict(zip(rows.tolist(), columns.tolist(), strict=True))
    np.testing.assert_array_equal(found.similarity, matrix[rows, columns])
    np.testing.assert_array_equal(found.nearest[0], matrix.max(axis=1))
    np.testing.assert_array_equal(found.nearest[1], matrix.max(axis=0))
    assert found.spread(0).sum() == pytest.approx(found.spread(1).sum(), rel=1e-5)
    assert (found.spread(0) != 0).sum() == min(shape)


@pytest.mark.parametrize(
    ("m", "draw", "error"),
    [
        (600, draw_atoms, 1e-6),
        (600, draw_crowded, 1e-4),
        pytest.param(2048, draw_crowded, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_candidates_lose_little(m: int, draw, error: float):
    """Mean similarity by candidates, against all pairs weighed."""
    cosines = Cosines(draw(m, 96, seed=0), draw(m, 96, seed=1), signed=False)
    exact, found = match(cosines, exact_atoms=m), match(cosines, exact_atoms=0)
    assert sorted(found.pairs[:, 0]) == sorted(found.pairs[:, 1]) == list(range(m))
    lost = exact.similarity.mean(dtype=float) - found.similarity.mean(dtype=float)
    assert -1e-7 <= lost < error
    for side in (0, 1):
        np.testing.assert_array_equal(found.nearest[side], exact.nearest[side])


def test_candidates_of_sides_of_two_lengths():
    cosines = Cosines(draw_atoms(90, 12), draw_atoms(70, 12, seed=1), signed=True)
    exact, found = match(cosines), match(cosines, exact_atoms=80)
    assert list_partners(found) == list_partners(exact)
    turned = match(
        Cosines(draw_atoms(70, 12, seed=1), draw_atoms(90, 12), signed=True), exact_atoms=80
    )
    assert {a: b for b, a in turned.pairs.tolist()} == list_partners(exact)


def test_atoms_whose_candidates_are_all_taken_are_paired_among_themselves():
    """All first atoms want the same two second ones; the rest is found by weighing all pairs."""
    generator = torch.Generator().manual_seed(0)
    matrix = 0.1 * torch.rand(60, 60, generator=generator)
    matrix[:, :2] += 0.8
    matrix[:2, :] += 0.05
    found = match(Table(matrix), exact_atoms=59, candidates=2)
    rows, columns = linear_sum_assignment(matrix.numpy(), maximize=True)
    assert sorted(found.pairs[:, 1]) == list(range(60))
    best = matrix.numpy()[rows, columns].sum()
    assert found.similarity.sum() > 0.98 * best
    assert found.similarity.sum() > matrix.diagonal().sum() + 0.5


def test_bad_similarities_are_named():
    with pytest.raises(ValueError, match="at least one atom on each side, got 0 and 3"):
        match(Cosines(torch.zeros(0, 4), draw_atoms(3, 4), signed=False))
    matrix = torch.eye(4)
    matrix[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in rows from 0 on"):
        match(Table(matrix))
