"""Figures show the numbers they were given, with the same colour for a method everywhere."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb

from dbksvd.report.figures.panels import list_sites
from dbksvd.report.figures.registry import FIGURES, find_figure
from dbksvd.report.figures.styles import CONTROLS, LEARNED, Styles
from workflow.experiment import Experiment

ROOT = Path(__file__).parents[2]
DRAW = {
    name: find_figure(name).draw
    for name in FIGURES
    # test_synthetic_figures, test_stability_report and others have these
    if name
    not in (
        *("identification", "correlation_recovery", "routing", "stability", "encoders", "facts"),
        "depth",
    )
}
METHODS = ["one", "two", "control"]
STYLES = Styles(METHODS, {"one": "Method one"}, ["control"])


def make_differences() -> pd.DataFrame:
    """Return what differs between `one` and `two` on two scores, and on one that is not known."""
    keys = {"site": "layer1", "n_atoms": 16, "k": 8, "reference": "one", "method": "two"}
    rows = [
        ("variance explained", 0.1, 0.05, 0.15, "better"),
        ("probing, 1 atom", -0.1, -0.3, 0.1, "not told apart"),
        ("MCC", 0.2, None, None, "not compared"),
    ]
    names = ["score", "difference", "low", "high", "verdict"]
    return pd.DataFrame([{**keys, **dict(zip(names, row, strict=True))} for row in rows])


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    rows, curves, usage = [], [], []
    for position, method in enumerate(METHODS):
        for k, seed in [(4, 0), (8, 0), (8, 1)]:
            keys = {"site": "layer1", "method": method, "n_atoms": 16, "k": k, "seed": seed}
            scores = {
                ("heldout", "explained_variance"): 0.5 + 0.1 * position + 0.01 * k + 0.02 * seed,
                ("heldout", "l0"): k - 0.5 * position,
                ("heldout", "decoder_projection"): 1 + 0.1 * k,
                ("heldout", "decoder_projection_far"): 0.5 + 0.1 * k,
                ("heldout", "coherence"): 0.1 + 0.01 * k,
                ("heldout", "description_length"): 20 + 8 * k + position,
                ("heldout", "description_variance"): 0.5 + 0.1 * position + 0.01 * k,
                ("fit", "encoder_flops"): 1e6 * (position + 1) + k,
                ("core", "ce_loss_score"): 0.8 + 0.01 * k + 0.02 * seed,
                ("sparse_probing_sae_probes", "sae_top_1_test_accuracy"): 0.6 + 0.1 * position,
                ("sparse_probing_sae_probes", "sae_top_2_test_accuracy"): 0.65 + 0.1 * position,
                ("sparse_probing_sae_probes", "sae_top_5_test_accuracy"): 0.7 + 0.1 * position,
                ("sparse_probing_sae_probes", "llm_test_accuracy"): 0.95,
            }
            rows += [{**keys, "eval": e, "metric": m, "value": v} for (e, m), v in scores.items()]
            for step in (1, 2, 3):
                curves.append(
                    {
                        **keys,
                        "seconds": step * 2.0,
                        "samples_seen": step * 100,
                        "fve_heldout": 1 - 0.5**step,
                    }
                )
            usage += [
                {**keys, "count": count, "tokens": 1000} for count in [0, 0, *range(10, 150, 10)]
            ]
    return {
        "scores": pd.DataFrame(rows),
        "differences": make_differences(),
        "curves": pd.DataFrame(curves),
        "usage": pd.DataFrame(usage),
    }


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", sorted(DRAW.keys() - {"evals", "differences"}))
def test_axes_are_labelled_and_colours_are_the_same(name: str, tables: dict[str, pd.DataFrame]):
    figure = DRAW[name](tables, STYLES)
    for axes in figure.axes:
        assert axes.get_xlabel()
    assert figure.axes[0].get_ylabel()
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    texts = [text.get_text() for text in legend.get_texts()]
    assert any(text.startswith("Method one") for text in texts)
    handles = dict(zip(texts, legend.legend_handles, strict=True))
    for text, handle in handles.items():
        label = next(label for label in STYLES.palette if text.startswith(label))
        colour = handle.get_edgecolor() if name == "atom_usage" else None
        if colour is None:
            colour = handle.get_facecolor() if name == "probing" else _line_colour(handle)
        expected = to_rgb(STYLES.palette[label])
        np.testing.assert_allclose(to_rgb(colour), expected, atol=0.01)


def _line_colour(handle):
    return handle.get_color() if hasattr(handle, "get_color") else handle.lines[0].get_color()


def test_variance_explained_shows_mean_and_range_over_seeds(tables: dict[str, pd.DataFrame]):
    figure = DRAW["variance_explained"](tables, STYLES)
    container = figure.axes[0].containers[0]
    line, _, bars = container.lines
    ends = np.array([segment[:, 1] for segment in bars[0].get_segments()])
    np.testing.assert_allclose(line.get_xdata(orig=False), [4, 8])
    np.testing.assert_allclose(line.get_ydata(orig=False), [0.54, 0.59])
    np.testing.assert_allclose(ends, [[0.54, 0.54], [0.58, 0.60]])


def test_cost_joins_the_k_of_a_method(tables: dict[str, pd.DataFrame]):
    figure = DRAW["cost"](tables, STYLES)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(lines) == 6  # three methods, two seeds
    np.testing.assert_allclose(lines[0].get_xdata(), [1e6 + 4, 1e6 + 8])
    np.testing.assert_allclose(lines[0].get_ydata(), [0.54, 0.58])


def test_convergence_shows_the_k_with_most_seeds(tables: dict[str, pd.DataFrame]):
    figure = DRAW["convergence"](tables, STYLES)
    assert figure.get_suptitle() == "16 atoms, k = 8"
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 4  # two methods, two seeds; the control does not converge
    np.testing.assert_allclose(lines[0].get_ydata(), [0.5, 0.25, 0.125])
    np.testing.assert_allclose(lines[0].get_xdata(), [2, 4, 6])


def test_probing_bars_are_the_scores(tables: dict[str, pd.DataFrame]):
    figure = DRAW["probing"](tables, STYLES)
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers]
    np.testing.assert_allclose(heights[0], [0.6, 0.65, 0.7])
    np.testing.assert_allclose(heights[1], [0.7, 0.75, 0.8])


def test_atom_usage_counts_every_atom(tables: dict[str, pd.DataFrame]):
    figure = DRAW["atom_usage"](tables, STYLES)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["Method one (2 unused)", "two (2 unused)"]


def add_sites(tables: dict[str, pd.DataFrame]) -> None:
    """Copy every table to a second layer, and to synthetic samples that score 0."""
    for name, table in tables.items():
        synthetic = table.assign(site="synthetic")
        if "value" in table:
            synthetic["value"] = 0.0
        if "verdict" in table:
            synthetic["verdict"] = "not compared"
        tables[name] = pd.concat([table.assign(site="layer10"), table, synthetic])


@pytest.mark.parametrize("name", sorted(DRAW))
def test_layers_have_panels_and_synthetic_samples_have_none(
    name: str, tables: dict[str, pd.DataFrame]
):
    panels = len(DRAW[name](tables, STYLES).axes)
    add_sites(tables)
    assert list_sites(tables["scores"]) == ["layer1", "layer10"]
    figure = DRAW[name](tables, STYLES)
    assert len(figure.axes) == 2 * panels
    texts = [axes.get_title().split("\n")[-1] for axes in figure.axes]
    if name == "convergence":
        texts = [axes.get_ylabel().split(", ")[-1] for axes in figure.axes[::2]]
    assert set(texts) == {"layer1", "layer10"}
    if name in ("variance_explained", "cost"):
        lines = [line for axes in figure.axes for line in axes.lines]
        assert not any(0 in line.get_ydata(orig=False) for line in lines)


def test_synthetic_samples_alone_are_drawn(tables: dict[str, pd.DataFrame]):
    tables["scores"]["site"] = "synthetic"
    assert DRAW["variance_explained"](tables, STYLES).axes[0].lines


def test_evals_have_a_panel_each_with_range_and_baseline(tables: dict[str, pd.DataFrame]):
    figure = DRAW["evals"](tables, STYLES)
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert titles == ["variance explained", "probing, 1 atom", "probing, 5 atoms", "CE loss score"]
    explained, probing, *_ = figure.axes
    assert [text.get_text() for text in explained.get_yticklabels()] == [
        "Method one",
        "two",
        "control",
    ]
    line, _, (bar,) = explained.containers[0].lines
    np.testing.assert_allclose(line.get_xdata(orig=False), [0.59])  # k = 8, which has most fits
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [0.58, 0.60])
    assert to_rgb(line.get_color()) == to_rgb(STYLES.palette["Method one"])
    (raw,) = [line for line in probing.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(raw.get_xdata(), 0.95)
    assert not [line for line in explained.lines if line.get_linestyle() == "--"]


def test_differences_are_grey_where_they_are_not_told_apart(tables: dict[str, pd.DataFrame]):
    figure = DRAW["differences"](tables, STYLES)
    explained, probing = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["variance explained", "probing, 1 atom"]
    assert [text.get_text() for text in explained.get_yticklabels()] == ["two"]
    line, _, (bar,) = explained.containers[0].lines
    np.testing.assert_allclose(line.get_xdata(orig=False), [0.1])
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [0.05, 0.15])
    assert to_rgb(line.get_color()) == to_rgb(STYLES.palette["two"])
    same, _, _ = probing.containers[0].lines
    assert len(set(to_rgb(same.get_color()))) == 1
    assert "Method one minus each other method" in figure.get_suptitle()


@pytest.mark.parametrize("left", [["not compared"], []])
def test_without_noise_the_figure_of_differences_says_so(left, tables: dict[str, pd.DataFrame]):
    table = tables["differences"]
    tables["differences"] = table[table["verdict"].isin(left)] if left else pd.DataFrame()
    (axes,) = DRAW["differences"](tables, STYLES).axes
    assert "nothing says how noisy" in axes.texts[0].get_text()


def test_missing_metric_is_named(tables: dict[str, pd.DataFrame]):
    tables["scores"] = tables["scores"][tables["scores"]["metric"] != "l0"]
    with pytest.raises(ValueError, match="scores: expected rows of heldout l0, got none"):
        DRAW["variance_explained"](tables, STYLES)


def read_styles(path: Path) -> Styles:
    """Return how the methods of an experiment look, under their own names."""
    config = yaml.safe_load(path.read_text())
    return Styles(list(config["methods"]), {}, Experiment(config).controls)


def test_methods_look_the_same_in_every_experiment():
    looks: dict[str, tuple] = {}
    for path in [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]:
        styles = read_styles(path)
        own = [
            (styles.palette[name], styles.markers[name], name in styles.controls)
            for name in styles.methods
        ]
        assert len(set(own)) == len(own), path.name
        for name, look in zip(styles.methods, own, strict=True):
            if name in LEARNED + CONTROLS and (name in CONTROLS) == look[2]:
                assert looks.setdefault(name, look) == look, (path.name, name)
    assert len(looks) > 15


def test_methods_of_the_default_experiment_differ_in_colour_alone():
    palette = read_styles(ROOT / "config.yaml").palette
    assert len({str(colour) for colour in palette.values()}) == len(palette)
