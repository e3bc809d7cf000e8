"""The figure over depth shows the numbers that it was given, in a row for each place."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from dbksvd.report.figures.depth import METRICS, draw
from dbksvd.report.figures.styles import Styles

STYLES = Styles(["one", "two", "control"], {"one": "Method one"}, ["control"])
SITES = ["layer2", "layer10", "layer2_attention", "layer10_attention"]


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = []
    others = ["random_layer2", "synthetic", "random_layer2_attention"]
    for position, site in enumerate([*SITES, *others]):
        for number, method in enumerate(["one", "two", "control"]):
            for seed, n_atoms in ((0, 16), (1, 16), (0, 64)):
                keys = {"site": site, "method": method, "n_atoms": n_atoms, "k": 4, "seed": seed}
                values = (0.1 * position + 0.01 * number, 3 + number, 0.2 * position)
                for metric, value in zip(METRICS, values, strict=True):
                    shown = value + (0.002 if seed else 0) + (5 if n_atoms == 64 else 0)
                    rows.append({**keys, "eval": "heldout", "metric": metric, "value": shown})
    return pd.DataFrame(rows)


def test_a_row_for_each_place_and_a_line_over_layers_for_each_method(scores: pd.DataFrame):
    figure = draw({"scores": scores}, STYLES)
    axes = np.reshape(figure.axes, (2, len(METRICS)))
    assert [row[0].get_title("left") for row in axes] == ["residual stream", "attention output"]
    assert [one.get_ylabel() for one in axes[0]] == list(METRICS.values())
    lines = {line.get_label(): line for line in axes[1, 0].lines}
    assert set(lines) == {"Method one", "two", "control"}
    # the mean over seeds, of the width that has most
    np.testing.assert_array_equal(lines["two"].get_xdata(), [2, 10])
    np.testing.assert_allclose(lines["two"].get_ydata(), [0.211, 0.311])
    dead = {line.get_label(): line for line in axes[0, 2].lines}["Method one"]
    np.testing.assert_allclose(dead.get_ydata(), [0.001, 0.201])
    assert figure.get_suptitle() == "16 atoms, k = 4"
    plt.close(figure)
