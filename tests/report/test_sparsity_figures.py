"""The figures over k: a ring at each method's least value, the true L0 where it is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from dbksvd.report.figures import description_length, sparsity
from dbksvd.report.figures.entry import Facts
from dbksvd.report.figures.styles import Styles

STYLES = Styles(["one", "control"], {"one": "Method one"}, ["control"])
KS = (2, 4, 8, 16)


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = []
    for method in STYLES.methods:
        for k in KS:
            keys = {"site": "synthetic", "method": method, "n_atoms": 16, "k": k, "seed": 0}
            metrics = {
                "l0": k,
                "decoder_projection": abs(np.log2(k) - 2) + 1,  # least at 4
                "decoder_projection_far": -np.log2(k),  # least at 16
                "coherence": abs(np.log2(k) - 3),  # least at 8
                "description_length": 9.0 * k,
                "description_variance": 1 - 1 / k,
            }
            rows += [
                {**keys, "eval": "heldout", "metric": m, "value": v} for m, v in metrics.items()
            ]
            rows.append({**keys, "eval": "ground_truth", "metric": "true_l0", "value": 5.5})
    alone = rows[0] | {"site": "layer1"}  # a site with a single k has nothing to show
    names = ("l0", *sparsity.METRICS)
    rows += [alone | {"metric": metric, "value": 1.0} for metric in names]
    return pd.DataFrame(rows)


def test_rings_are_at_the_least_values_and_the_truth_is_marked(scores):
    figure = sparsity.draw({"scores": scores}, STYLES)
    assert len(figure.axes) == len(sparsity.METRICS)
    for axes, least in zip(figure.axes, (4, 16, 8), strict=True):
        rings = [c for c in axes.collections if isinstance(c, PathCollection)]
        assert [float(ring.get_offsets()[0, 0]) for ring in rings] == [least]
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines["Method one"].get_xdata()) == list(KS)
        assert list(lines["true L0"].get_xdata()) == [5.5, 5.5]
        assert axes.get_xlabel() == "L0"


def test_description_length_is_drawn_against_the_variance_it_explains(scores):
    scores = scores[scores["site"] == "synthetic"]
    figure = description_length.draw({"scores": scores}, STYLES)
    (line,) = (x for x in figure.axes[0].get_lines() if x.get_label() == "Method one")
    assert list(line.get_xdata()) == [9.0 * k for k in KS]
    assert list(line.get_ydata()) == [1 - 1 / k for k in KS]


def test_a_single_k_has_no_figure_over_k():
    facts = {"evals": frozenset(), "has_loss": False, "ground_truth": None}
    facts |= {"architectures": frozenset(), "seeds": 1}
    assert not sparsity.FIGURE.applies(Facts(**facts, sparsities=1))
    assert sparsity.FIGURE.applies(Facts(**facts, sparsities=2))
