"""DBKSVD and KSVD are estimators of scikit-learn: its own checks, pipelines, clones, searches."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array, issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from dbksvd import DBKSVD, KSVD, SparseCodes

FAST = {"max_iter": 2, "polish_iter": 0}
# What of scikit-learn's checks does not apply, and why.
OWN_WORDS = "errors have the words of this package: what was expected, and what came"
EXCLUDED = {
    "check_no_attributes_set_in_init": "arguments are checked and made settings at once",
    "check_do_not_raise_errors_in_init_or_set_params": "a wrong argument is refused at once",
    "check_parameters_default_constructible": "ranks, of a fit in several processes, is an object",
    "check_estimators_dtypes": "integers are refused and never converted in silence",
    "check_transformer_data_not_an_array": "lists and frames are refused: take their values",
    "check_dtype_object": "objects are refused, as all that is not floating",
    "check_complex_data": OWN_WORDS,
    "check_n_features_in_after_fitting": OWN_WORDS,
    "check_estimators_empty_data_messages": OWN_WORDS,
    "check_fit2d_predict1d": OWN_WORDS,
}


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Draw samples (300, 12) whose label is whether one of 16 planted atoms is active."""
    generator = np.random.default_rng(0)
    atoms = generator.normal(size=(16, 12))
    codes = generator.random((300, 16)) * (generator.random((300, 16)) < 0.15)
    labels = (codes[:, 0] > 0).astype(int)
    x = codes @ atoms + 3 * labels[:, None] * atoms[0]
    return x.astype(np.float32), labels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model",
    [DBKSVD(4, 1, output="dense", **FAST), KSVD(4, 1, max_iter=1, output="dense")],
    ids=["DBKSVD", "KSVD"],
)
def test_checks_of_scikit_learn(model):
    found = check_estimator(model, expected_failed_checks=EXCLUDED, on_fail=None, on_skip=None)
    failed = {each["check_name"] for each in found if each["status"] == "failed"}
    assert not failed
    assert sum(each["status"] == "passed" for each in found) >= 36
    # an exclusion that is no longer one goes
    needed = {each["check_name"] for each in found if each["status"] == "xfail"}
    assert needed >= EXCLUDED.keys() - {"check_parameters_default_constructible"}


def test_pipeline_with_labels(labelled):
    x, labels = labelled
    dictionary = DBKSVD(24, 3, nonnegative=True, output="dense", **FAST)
    model = make_pipeline(StandardScaler(), dictionary, LogisticRegression())
    assert model.fit(x, labels).score(x, labels) > labels.mean().clip(0.5) + 0.1
    assert list(model[:-1].get_feature_names_out()[:2]) == ["dbksvd0", "dbksvd1"]


def test_search_finds_the_k_that_explains_more(labelled):
    search = GridSearchCV(DBKSVD(24, 1, **FAST), {"k": [1, 4], "method": ["mp", "ols"]}, cv=2)
    search.fit(labelled[0])
    assert search.best_params_["k"] == 4
    assert 0.5 < search.best_score_ <= 1


def test_clones_and_parameters():
    init = np.eye(5, dtype=np.float32)
    model = DBKSVD(5, 2, init=init, groups=[2, 3], **FAST)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert copy.get_params()["init"] is init
    assert copy.set_params(k=3, tol=0.1) is copy
    assert (copy.k, copy.tol, copy.groups_, model.k) == (3, 0.1, (2, 3), 2)
    with pytest.raises(ValueError, match=r"params: expected some of n_atoms, k, .*, got atoms$"):
        copy.set_params(atoms=3)
    with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
        copy.set_params(k=0)
    assert copy.k == 3
    assert KSVD(6, 2, nonnegative=True).get_params()["nonnegative"] is True
    assert repr(KSVD(6, 2, nonnegative=True)) == "KSVD(n_atoms=6, k=2, nonnegative=True)"


def test_fitted_or_not(labelled):
    model = DBKSVD(8, 2, **FAST)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(labelled[0]))
    assert (model.n_features_in_, model.n_iter_) == (12, 2)
    with pytest.raises(NotFittedError):
        check_is_fitted(model.set_params(seed=1))


def test_outputs_hold_the_same_codes(labelled):
    x = labelled[0]
    codes = DBKSVD(24, 3, **FAST).fit(x).transform(x)
    assert isinstance(codes, SparseCodes)
    dense = DBKSVD(24, 3, output="dense", **FAST).fit_transform(x)
    sparse = DBKSVD(24, 3, output="csr", **FAST).fit_transform(x)
    assert isinstance(dense, np.ndarray)
    assert dense.dtype == np.float32
    assert issparse(sparse)
    np.testing.assert_array_equal(dense, codes.to_dense().numpy())
    np.testing.assert_array_equal(dense, sparse.toarray())
    with pytest.raises(ValueError, match="output: expected codes, dense, csr, got 'sparse'"):
        DBKSVD(24, 3, output="sparse")


def test_sparse_input_is_refused(labelled):
    with pytest.raises(ValueError, match="x: expected a dense array, since sparse input is not"):
        DBKSVD(8, 2, **FAST).fit(csr_array(labelled[0]))


def test_pickled_models_code_alike(labelled):
    x = labelled[0]
    model = DBKSVD(8, 2, output="dense", **FAST).fit(x)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    assert again.get_params()["k"] == 2
