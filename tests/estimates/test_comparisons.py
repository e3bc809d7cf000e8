"""The cost of comparing seeds, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dbksvd.base.site import Site
from dbksvd.base.work import Work
from dbksvd.estimates.stability import count_comparisons
from dbksvd.estimates.stages import SiteRows
from dbksvd.evaluation.stability.settings import StabilitySettings

ROWS = SiteRows(Site("layer", 1), width=8, n_train=1000, n_heldout=100, slices=1, row_bytes=44)


def count(settings: Any, *seeds: int) -> list[Work]:
    config = SimpleNamespace(evaluation=SimpleNamespace(stability=settings))
    fits = [SimpleNamespace(site="layer1", method="a", n_atoms=2048, k=4, seed=s) for s in seeds]
    fits.append(SimpleNamespace(site="layer1", method="b", n_atoms=2048, k=4, seed=0))
    return count_comparisons(config, [(ROWS, fit, Work(products=10, steps=1)) for fit in fits])


def test_one_job_for_each_kind_with_several_seeds():
    [work] = count(StabilitySettings(rows=50, draws=2), 0, 1, 2)
    assert work.steps == 3 * 50  # rows coded
    assert work.products == 3 * 50 * 10 + 2 * 2048**2 * 8 * (3 + 2)  # three pairs, two draws
    assert work.host_seconds == pytest.approx(0.4 * (2 * 3 + 2))
    assert work.disk == 3 * 2048 * 4
    [fewer] = count(StabilitySettings(rows=500, draws=2), 0, 1)
    assert fewer.steps == 2 * 100  # as many as there are


def test_single_seeds_and_null_cost_nothing():
    assert count(StabilitySettings(), 0) == []
    assert count(None, 0, 1) == []
