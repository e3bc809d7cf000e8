"""Variance explained in groups of documents: parts, whose mean it is and whose spread its noise."""

import numpy as np
import pytest
import torch

from dbksvd.activations.shards import RowLabels
from dbksvd.base.variance import ExplainedVariance
from dbksvd.evaluation.heldout_groups import GROUPS, GroupedVariance, group_rows


def make_labels(documents: np.ndarray) -> RowLabels:
    rows = np.arange(len(documents), dtype=np.int32)
    return RowLabels(documents.astype(np.int32), rows, rows)


def test_a_document_is_in_one_group_and_groups_have_as_many_documents():
    documents = np.random.default_rng(0).integers(0, 100, 1000)
    groups = group_rows(make_labels(documents))
    assert all(len(set(groups[documents == document])) == 1 for document in set(documents))
    counts = [len(set(documents[groups == group])) for group in range(GROUPS)]
    assert max(counts) - min(counts) <= 1
    assert (groups == group_rows(make_labels(documents))).all()


@pytest.mark.parametrize(("documents", "groups"), [(1, None), (3, None), (4, 2), (9, 4)])
def test_few_documents_make_few_groups(documents, groups):
    found = group_rows(make_labels(np.arange(40) % documents))
    assert (None if found is None else found.max() + 1) == groups


def test_rows_of_no_document_are_grouped_by_stretches_of_the_file():
    groups = group_rows(make_labels(np.full(320, -1)))
    assert (np.diff(groups) >= 0).all()
    assert (np.bincount(groups) == 10).all()


def measure(x: torch.Tensor, made: torch.Tensor, groups: np.ndarray, block: int) -> np.ndarray:
    grouped = GroupedVariance(groups, x.shape[1])
    for start in range(0, len(x), block):
        grouped.add(x[start : start + block], made[start : start + block])
    return np.array(grouped.compute())


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_parts_have_the_score_as_their_mean(block, offset):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=generator, dtype=torch.float64) + offset
    made = x + 0.3 * torch.randn(500, 6, generator=generator, dtype=torch.float64)
    groups = np.arange(500) % 9
    whole = ExplainedVariance(6)
    whole.add(x, made)
    parts = measure(x, made, groups, block)
    assert parts.mean() == pytest.approx(whole.compute(), abs=1e-9)
    # by hand, from rows
    squares = (x - x.mean(0)).square().sum(1).numpy()
    errors = (x - made).square().sum(1).numpy()
    left = errors.sum() / squares.sum()
    first = 1 - left + 9 * (left * squares - errors)[groups == 0].sum() / squares.sum()
    assert parts[0] == pytest.approx(first, abs=1e-9)


def test_the_spread_of_parts_is_the_spread_over_drawn_documents():
    """300 experiments of 64 documents each: standard errors agree with what was drawn."""
    rng, scores, errors = np.random.default_rng(0), [], []
    for _ in range(300):
        documents = np.repeat(np.arange(64), 5)
        scale = rng.gamma(4, size=64)[documents]
        x = torch.from_numpy(rng.normal(size=(320, 3)) * scale[:, None])
        made = x * torch.from_numpy(rng.uniform(0.3, 1, 64)[documents])[:, None]
        parts = measure(x, made, group_rows(make_labels(documents)), 320)
        scores.append(parts.mean())
        errors.append(parts.std(ddof=1) / np.sqrt(len(parts)))
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.15)
