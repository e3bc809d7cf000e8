from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dbksvd.features.tables import ENTRY_BYTES, PairTable


def draw_codes(seed: int, n: int, k: int = 4, m: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return codes whose first features are frequent, with unused slots at the end of rows."""
    draw = np.random.default_rng(seed)
    ranks = np.minimum(draw.zipf(1.3, (n, 3 * k)), m) - 1
    indices = np.zeros((n, k), np.int64)
    values = np.zeros((n, k), np.float32)
    for row in range(n):
        chosen = np.unique(ranks[row])[: draw.integers(0, k + 1)]
        indices[row, : len(chosen)] = chosen
        values[row, : len(chosen)] = draw.uniform(0.1, 2, len(chosen))
    return indices, values


def count_plainly(indices, values, token):
    counts: Counter = Counter()
    sums: Counter = Counter()
    for row, features in enumerate(indices):
        for slot, feature in enumerate(features):
            if values[row, slot]:
                counts[int(feature), int(token[row])] += 1
                sums[int(feature), int(token[row])] += float(values[row, slot])
    return counts, sums


def test_counts_are_exact_while_the_table_fits():
    indices, values = draw_codes(0, 20_000)
    token = (
        np.random.default_rng(1)
        .integers(0, 2**31 - 1, 300)
        .astype(np.int32)[np.random.default_rng(2).integers(0, 300, 20_000)]
    )
    table = PairTable(2**24)
    for start in range(0, len(indices), 777):
        block = slice(start, start + 777)
        table.add_tokens(indices[block], values[block], token[block])
    counts, sums = count_plainly(indices, values, token)
    feature, other, found, total = table.list_entries()
    keys = list(zip(feature.tolist(), other.tolist(), strict=True))
    assert dict(zip(keys, found.tolist(), strict=True)) == counts
    assert len(set(keys)) == len(keys)
    np.testing.assert_allclose(total, [sums[key] for key in keys], rtol=1e-12)
    assert table.error == 0
    assert table.entries == len(counts)


def test_pairs_are_counted_once():
    indices, values = draw_codes(3, 3000)
    table = PairTable(2**24)
    table.add_pairs(indices, values)
    active = np.zeros((3000, 300), int)
    rows, slots = np.nonzero(values)
    active[rows, indices[rows, slots]] = 1
    expected = np.triu(active.T @ active, 1)
    low, high, counts, _ = table.list_entries()
    np.testing.assert_array_equal(expected[low, high], counts)
    assert counts.sum() == expected.sum()


@pytest.mark.parametrize("slots", [2**12, 2**13])
def test_a_full_table_forgets_rare_pairs_within_its_error(slots):
    indices, values = draw_codes(4, 30_000)
    token = np.random.default_rng(5).integers(0, 2000, 30_000).astype(np.int32)
    table = PairTable(slots * ENTRY_BYTES)
    for start in range(0, len(indices), 1000):
        block = slice(start, start + 1000)
        table.add_tokens(indices[block], values[block], token[block])
    counts, _ = count_plainly(indices, values, token)
    assert len(counts) > slots
    assert table.error > 0
    assert table.slots.keys.size == slots
    feature, other, found, _ = table.list_entries()
    kept = dict(
        zip(zip(feature.tolist(), other.tolist(), strict=True), found.tolist(), strict=True)
    )
    for key, count in counts.items():
        assert 0 <= count - kept.get(key, 0) <= table.error
    # the head is found: what is often enough cannot have been forgotten
    assert all(key in kept for key, count in counts.items() if count > table.error)


def test_a_restored_table_goes_on_as_the_first():
    indices, values = draw_codes(6, 20_000)
    token = np.random.default_rng(7).integers(0, 2000, 20_000).astype(np.int32)
    whole, first, second = (PairTable(2**12 * ENTRY_BYTES) for _ in range(3))
    whole.add_tokens(indices[:9000], values[:9000], token[:9000])
    whole.add_tokens(indices[9000:], values[9000:], token[9000:])
    first.add_tokens(indices[:9000], values[:9000], token[:9000])
    second.restore(first.save())
    second.add_tokens(indices[9000:], values[9000:], token[9000:])
    assert whole.error == second.error > 0
    orders = [np.lexsort(table.list_entries()[1::-1]) for table in (whole, second)]
    for expected, got in zip(whole.list_entries(), second.list_entries(), strict=True):
        np.testing.assert_array_equal(got[orders[1]], expected[orders[0]])
