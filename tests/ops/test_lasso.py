"""The lasso against its optimality conditions and scikit-learn's own estimator."""

import pytest
import torch
from sklearn.linear_model import Lasso

from dbksvd.ops.lasso import find_penalty, lasso_encode


def make_data(n: int = 60, m: int = 40, d: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    codes = torch.zeros(n, m).scatter_(
        1, torch.rand(n, m, generator=generator).topk(4, dim=1).indices, 1.0
    )
    codes *= 1 + torch.rand(n, m, generator=generator)
    return codes @ atoms + 0.05 * torch.randn(n, d, generator=generator), atoms


@pytest.mark.parametrize("nonnegative", [True, False])
def test_codes_are_those_of_the_estimator(nonnegative: bool):
    x, atoms = make_data()
    found = lasso_encode(x, atoms, 0.2, nonnegative=nonnegative).to_dense().double()
    estimator = Lasso(alpha=0.2 / 16, fit_intercept=False, positive=nonnegative, tol=1e-10)
    estimator.fit(atoms.T.double().numpy(), x.T.double().numpy())
    torch.testing.assert_close(found, torch.from_numpy(estimator.coef_), atol=2e-3, rtol=0)
    assert (found < 0).any() != nonnegative


@pytest.mark.parametrize("nonnegative", [True, False])
def test_no_small_change_is_better(nonnegative: bool):
    x, atoms = make_data()
    codes = lasso_encode(x, atoms, 0.2, nonnegative=nonnegative).to_dense()
    slope = (x - codes @ atoms) @ atoms.T
    on = codes != 0
    assert on.any()
    torch.testing.assert_close(slope[on], 0.2 * codes[on].sign(), atol=5e-3, rtol=0)
    assert (slope if nonnegative else slope.abs()).max() < 0.2 + 5e-3


@pytest.mark.parametrize("nonnegative", [True, False])
def test_a_refit_is_least_squares_on_the_same_atoms(nonnegative: bool):
    x, atoms = make_data()
    shrunk = lasso_encode(x, atoms, 0.2, nonnegative=nonnegative).to_dense()
    fitted = lasso_encode(x, atoms, 0.2, nonnegative=nonnegative, refit=True).to_dense()
    assert not (fitted != 0)[shrunk == 0].any()
    assert (x - fitted @ atoms).square().sum() < (x - shrunk @ atoms).square().sum()
    for row, code in zip(x, fitted, strict=True):
        on = code != 0
        best = torch.linalg.lstsq(atoms[on].T.double(), row.double()).solution
        torch.testing.assert_close(code[on].double(), best, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("l0", [1.5, 4.0, 9.0])
@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_penalty_gives_the_wanted_mean(l0: float, nonnegative: bool):
    x, atoms = make_data(n=600)
    penalty = find_penalty(x, atoms, l0, nonnegative=nonnegative)
    codes = lasso_encode(x, atoms, penalty, nonnegative=nonnegative)
    assert float(codes.l0.double().mean()) == pytest.approx(l0, rel=0.02)


def test_no_samples_and_no_signal_have_no_codes():
    x, atoms = make_data()
    assert lasso_encode(x[:0], atoms, 0.2, nonnegative=True).indices.shape == (0, 1)
    assert int(lasso_encode(x, atoms, 1e6, nonnegative=True).l0.sum()) == 0
    assert int(lasso_encode(0 * x, atoms, 0.1, nonnegative=False, refit=True).l0.sum()) == 0
