"""Figures of known ground truth show the numbers they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from dbksvd.report.figures.registry import find_figure
from dbksvd.report.figures.styles import Styles

METHODS = ["one", "two", "control"]
STYLES = Styles(METHODS, {"one": "Method one"}, ["control"])


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    scores, routing = [], []
    for position, method in enumerate(METHODS):
        for seed in (0, 1):
            keys = {"site": "synthetic", "method": method, "n_atoms": 8, "k": 2, "seed": seed}
            metrics = {
                "explained_variance": 0.5 + 0.1 * position + 0.02 * seed,
                "f1": 0.2 + 0.1 * position + 0.04 * seed,
                "mcc": 0.3 + 0.1 * position + 0.06 * seed,
                "rv_modified": 0.1 + 0.2 * position + 0.1 * seed,
            }
            if method == "one":
                metrics["router_ami"] = 0.8 + 0.1 * seed
                counts = [[1, 9, 0], [0, 0, 10], [8, 1, 1]]
                routing += [
                    {**keys, "component": c, "expert": e, "samples": n}
                    for c, row in enumerate(counts)
                    for e, n in enumerate(row)
                ]
            scores += [
                {**keys, "eval": "ground_truth", "metric": metric, "value": value}
                for metric, value in metrics.items()
            ]
    return {"scores": pd.DataFrame(scores), "routing": pd.DataFrame(routing)}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def read_bars(container) -> tuple[list[float], list[np.ndarray]]:
    line, _, bars = container.lines
    middle = [*line.get_xdata(orig=False), *line.get_ydata(orig=False)]
    return middle, [segment for bar in bars for segment in bar.get_segments()]


def test_identification_shows_each_dictionary_and_the_range_over_seeds(tables):
    figure = find_figure("identification").draw(tables, STYLES)
    f1, mcc = figure.axes
    np.testing.assert_allclose(f1.collections[0].get_offsets(), [[0.5, 0.2], [0.52, 0.24]])
    middle, (wide, tall) = read_bars(mcc.containers[0])
    np.testing.assert_allclose(middle, [0.51, 0.33])
    np.testing.assert_allclose(wide[:, 0], [0.5, 0.52])
    np.testing.assert_allclose(tall[:, 1], [0.3, 0.36])
    texts = [text.get_text() for text in mcc.get_legend().get_texts()]
    assert texts == ["Method one", "two", "control"]
    for container, label in zip(f1.containers, texts, strict=True):
        assert to_rgb(container.lines[0].get_color()) == to_rgb(STYLES.palette[label])
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def test_correlation_recovery_has_a_row_for_each_method(tables):
    figure = find_figure("correlation_recovery").draw(tables, STYLES)
    rv = figure.axes[0]
    assert [text.get_text() for text in rv.get_yticklabels()] == ["Method one", "two", "control"]
    middle, (wide,) = read_bars(rv.containers[1])
    np.testing.assert_allclose(middle, [0.35, 1])
    np.testing.assert_allclose(wide[:, 0], [0.3, 0.4])
    assert [len(axes.containers) for axes in figure.axes] == [3, 3, 3]


def test_routing_puts_each_components_expert_on_the_diagonal(tables):
    figure = find_figure("routing").draw(tables, STYLES)
    axes = figure.axes[0]
    shares = axes.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(np.diag(shares), [0.9, 1.0, 0.8])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "0"]
    assert "Method one: adjusted mutual\ninformation 0.85 (0.80 to 0.90)" in axes.get_title()


def test_no_router_is_named(tables):
    tables["routing"] = tables["routing"].iloc[:0]
    with pytest.raises(ValueError, match="routing: expected rows of a dictionary with a router"):
        find_figure("routing").draw(tables, STYLES)


def test_missing_truth_is_named(tables):
    tables["scores"] = tables["scores"][tables["scores"]["metric"] != "f1"]
    with pytest.raises(ValueError, match="scores: expected rows of ground_truth f1, got none"):
        find_figure("identification").draw(tables, STYLES)
