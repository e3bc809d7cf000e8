"""Quick l1 probes: the same bits as scikit-learn's class."""

import warnings

import numpy as np
import pytest
import torch
from sae_probes import utils_training
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dbksvd.evaluation.saebench.shims.common import quiet_probes
from dbksvd.evaluation.saebench.shims.probes import (
    L1Probe,
    make_probe,
    measure_auc,
    quick_probes,
)


def draw(rows: int, latents: int, seed: int, dtype: type = np.float32):
    """Sparse latents ≥ 0 that tell something of the labels, with many equal rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    on = rng.random((rows, latents)) < 0.15 + 0.3 * y[:, None]
    return (on * rng.exponential(size=(rows, latents))).astype(dtype), y


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "latents", "c"), [(300, 1, 1e5), (301, 5, 1e-2), (64, 2, 1e-5)])
def test_probes_have_the_same_bits(rows: int, latents: int, c: float, dtype: type, make):
    x, y = draw(rows, latents, seed=rows, dtype=dtype)
    options = {"C": c, "penalty": "l1", "solver": "saga", "random_state": 3, "max_iter": 1000}
    ours = make_probe(**options)
    assert isinstance(ours, L1Probe)
    with warnings.catch_warnings(), quiet_probes():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours.fit(make(x), y)
        theirs = LogisticRegression(**options).fit(make(x), y)
    np.testing.assert_array_equal(ours.weights, theirs.coef_[0])
    np.testing.assert_array_equal(ours.intercept, theirs.intercept_)
    new = make(draw(200, latents, seed=0, dtype=dtype)[0])
    ours_p, theirs_p = ours.predict_proba(new), theirs.predict_proba(new)
    assert ours_p.dtype == theirs_p.dtype
    np.testing.assert_array_equal(ours_p, theirs_p)
    np.testing.assert_array_equal(ours.predict(new), theirs.predict(new))


@pytest.mark.parametrize("rows", [2, 3, 50, 1000])
def test_the_area_has_the_same_bits(rows: int):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.append([0, 1], rng.integers(0, 2, rows - 2))
        score = np.round(rng.random(rows) + 0.3 * y, seed % 4 + 1).astype(np.float32)
        assert measure_auc(y, score) == roc_auc_score(y, score)
        assert measure_auc(torch.as_tensor(y), score) == roc_auc_score(y, score)


def test_what_is_no_usual_probe_is_left_to_scikit_learn():
    x, y = draw(40, 2, seed=1)
    options = {"C": 1.0, "penalty": "l1", "solver": "saga", "random_state": 3, "max_iter": 1000}
    assert isinstance(make_probe(C=1.0, random_state=3, max_iter=10), LogisticRegression)
    x[0, 0] = np.nan
    with quiet_probes(), pytest.raises(ValueError, match="NaN"):
        make_probe(**options).fit(x, y)
    with quiet_probes(), pytest.raises(ValueError, match="2 classes"):
        make_probe(**options).fit(np.nan_to_num(x), np.zeros(40))


@pytest.mark.parametrize("rows", [300, 100])
def test_the_best_probe_of_sae_probes_is_the_same(rows: int):
    x, y = draw(rows, 3, seed=5)
    given = {"X_train": torch.as_tensor(x[:-50]), "y_train": torch.as_tensor(y[:-50])}
    given |= {"X_test": torch.as_tensor(x[-50:]), "y_test": torch.as_tensor(y[-50:])}
    with warnings.catch_warnings(), quiet_probes():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = utils_training.find_best_reg(**given, penalty="l1", seed=2)
        with quick_probes():
            ours = utils_training.find_best_reg(**given, penalty="l1", seed=2)
    assert isinstance(ours.classifier, L1Probe)
    assert ours.metrics == theirs.metrics
    assert utils_training.LogisticRegression is LogisticRegression
