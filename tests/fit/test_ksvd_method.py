"""DB-KSVD and K-SVD as methods: what they say of themselves, and settings told once."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import Rows

from dbksvd import DBKSVD, KSVD
from dbksvd.base.settings import SettingsError, parse
from dbksvd.fit.ksvd.method import DBKSVD_METHOD, KSVD_METHOD
from dbksvd.fit.ksvd.schedule import count_samples
from dbksvd.fit.ksvd.settings import DBKSVDSettings, KSVDSettings
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask

ROOT = Path(__file__).parents[2]
SMALL = {"pursuit": "mp", "init": "random", "refit": False, "polish_iter": 0, "batch_size": 100}


def make_samples(n: int = 900, d: int = 12) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) ** 3


def test_plan_by_hand():
    settings = DBKSVDSettings(**SMALL, max_iter=3, power_iterations=2)
    work = DBKSVD_METHOD.plan(settings, FitSizes(32, 4, 8, n_train=1000, n_heldout=10))
    # 3 batches of 100 samples, and one measurement of 10: 2·8·32 operations of products each.
    assert work.products == 310 * 512
    # Picks: 2·32·3 each; updates of 3·100·4 non-zeros: 8·(4·2 + 4) operations each.
    assert work.steps == 310 * 192 + 1200 * 96
    assert work.disk == 2 * 32 * 8 * 4
    # Batch and residual, codes, Gram matrix, three dictionaries.
    assert work.memory == 4 * (100 * (2 * 8 + 2 * 4) + 32 * 32 + 3 * 32 * 8)


def test_plan_of_matryoshka_groups_codes_each_group():
    settings = DBKSVDSettings(**SMALL, max_iter=1, groups=[8, 24])
    work = DBKSVD_METHOD.plan(settings, FitSizes(32, 4, 8, n_train=100, n_heldout=0))
    assert work.products == 100 * 2 * 8 * (8 + 24)
    assert work.steps == 100 * 2 * (8 + 24) + 100 * 4 * 8 * 16  # 1 step more a group; 3 power its.


@pytest.mark.parametrize(
    ("every", "measurements"), [(0, 1), (1, 7), (3, 3), (7, 1), (12, 1)]
)  # of 7 iterations
def test_plan_measures_as_often_as_the_fit(every, measurements, tmp_path):
    settings = KSVDSettings(max_iter=7, heldout_every=every)
    sizes = FitSizes(16, 2, 12, n_train=300, n_heldout=50)
    coded = [
        KSVD_METHOD.plan(settings, FitSizes(16, 2, 12, 300, n_heldout=n)).products for n in (0, 50)
    ]
    assert coded[1] - coded[0] == measurements * 50 * 2 * 12 * 16
    rows = Rows(make_samples(300))
    task = FitTask(
        *(rows, Rows(rows.x[:50]), sizes.n_atoms, sizes.k, 0, settings),
        *(torch.device("cpu"), tmp_path / "work"),
    )
    log = KSVD_METHOD.fit(task).log
    assert sum(row["fve_heldout"] is not None for row in log) == measurements


def test_plan_counts_the_samples_that_the_fit_sees():
    model = DBKSVD(24, 3).fit(make_samples(3000))
    assert model.log_[-1]["samples_seen"] == count_samples(24, 3, 3000)


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "DB-KSVD, signed"),
        ({"nonnegative": True}, "DB-KSVD"),
        ({"nonnegative": True, "sparsity": "mean"}, "DB-KSVD, mean L0"),
        ({"sparsity": "mean"}, "DB-KSVD, mean L0, signed"),
        ({"nonnegative": True, "groups": 64}, "Matryoshka DB-KSVD"),
        ({"groups": [8, 24]}, "Matryoshka DB-KSVD, signed"),
    ],
)
def test_labels(settings, label):
    assert DBKSVD_METHOD.label(DBKSVDSettings(**settings)) == label


def test_labels_of_ksvd():
    assert KSVD_METHOD.label(KSVDSettings()) == "K-SVD, signed"
    assert KSVD_METHOD.label(KSVDSettings(nonnegative=True)) == "K-SVD"


@pytest.mark.parametrize(
    ("settings", "n_atoms", "k", "message"),
    [
        ({}, 8, 9, "k: expected at most n_atoms=8, got 9"),
        ({"groups": 9}, 8, 2, "groups: expected a first size from 1 to 8, got 9"),
        ({"groups": [3, 4]}, 8, 2, "groups: expected positive sizes that add up to 8, got [3, 4]"),
        ({"groups": 1}, 8, 3, "k: expected at least one for each of 4 groups, got 3"),
        (
            {"groups": 4, "sparsity": "mean"},
            *(8, 4, "sparsity: expected 'exact' with groups=4, got 'mean'"),
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, n_atoms, k, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        DBKSVD_METHOD.check_sizes(DBKSVDSettings(**settings), n_atoms, k)
    assert str(caught.value) == message


def test_sizes_that_fit():
    DBKSVD_METHOD.check_sizes(DBKSVDSettings(groups=64), 512, 8)
    DBKSVD_METHOD.check_sizes(DBKSVDSettings(sparsity="mean", groups=8), 8, 2)
    KSVD_METHOD.check_sizes(KSVDSettings(), 8, 8)


@pytest.mark.parametrize(
    ("learner", "kind", "apart"),
    [(DBKSVD, DBKSVDSettings, {"heldout_every", "device"}), (KSVD, KSVDSettings, set())],
)
def test_defaults_of_the_estimators_are_those_of_the_settings(learner, kind, apart):
    told = {**kind().list_arguments(), "device": "auto"}
    parameters = inspect.signature(learner).parameters.values()
    found = {p.name: p.default for p in parameters if p.name in told and p.name not in apart}
    assert found == {name: told[name] for name in found}
    if learner is DBKSVD:
        assert set(found) == set(told) - apart


def test_arguments_become_one_frozen_object():
    model = DBKSVD(24, 3, method="mp", groups=(8, 16), max_seconds=5, init=torch.eye(24))
    assert model.settings == DBKSVDSettings(
        pursuit="mp", groups=[8, 16], max_seconds=5.0, heldout_every=0
    )
    assert (model.method, model.groups, model.max_iter) == ("mp", [8, 16], 60)
    assert torch.equal(model.init, torch.eye(24))
    with pytest.raises(AttributeError, match="max_iter: expected in the constructor"):
        model.max_iter = 3
    with pytest.raises(AttributeError, match="'DBKSVD' object has no attribute 'pursuits'"):
        _ = model.pursuits
    exact = KSVD(24, 3)
    assert exact.settings == KSVDSettings(heldout_every=0).to_dbksvd()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rtol": 1.0}, "rtol: expected less than 1, got 1.0"),
        ({"max_cosine": 0.0}, "max_cosine: expected more than 0, got 0.0"),
        ({"min_usage": 2.5}, "min_usage: expected integer, got 2.5"),
        ({"max_seconds": 0}, "max_seconds: expected more than 0, got 0"),
        ({"groups": [4, "x"]}, r"groups.*expected integer, got 'x'"),
        ({"doubling_samples": 0}, "doubling_samples: expected a positive integer, got 0"),
        ({"init": "grown"}, "init: expected doubling, samples, random or atoms, got 'grown'"),
    ],
)
def test_bad_arguments_are_refused_by_name(option, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DBKSVD(8, 2, **option)


def test_settings_refuse_old_names():
    with pytest.raises(
        SettingsError, match="init: expected one of 'doubling', 'samples', 'random'"
    ):
        parse(DBKSVDSettings, {"algorithm": "dbksvd", "init": "grown"}, "m")
    with pytest.raises(SettingsError, match="growth_samples: unknown key, did you mean"):
        parse(DBKSVDSettings, {"algorithm": "dbksvd", "growth_samples": 4}, "m")
    with pytest.raises(SettingsError, match="batch_size: unknown key"):
        parse(KSVDSettings, {"algorithm": "ksvd", "batch_size": 4}, "m")


@pytest.mark.parametrize("algorithm", ["dbksvd", "ksvd"])
def test_entries_name_their_algorithm_and_need_no_torch(algorithm):
    method = find_method(algorithm)
    assert method.settings().algorithm == algorithm
    code = (
        "import sys; from dbksvd.fit.registry import find_method\n"
        f"from dbksvd.fit.method import FitSizes; m = find_method({algorithm!r})\n"
        "m.plan(m.settings(), FitSizes(32, 4, 8, 100, 10)), m.label(m.settings())\n"
        "print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
