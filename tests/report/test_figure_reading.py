"""What a reader could take wrongly from a figure: labels, colours, ticks, cut axes, widths, one k."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb
from test_figures import DRAW, METHODS, ROOT, STYLES, read_styles, tables  # noqa: F401

from dbksvd.report.figures.panels import keep_shared_size
from dbksvd.report.figures.registry import find_figure
from dbksvd.report.figures.shares import CUT, CUT_ID, ShareFormatter, count_decimals
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import COLUMNS

MAIN = ("dbksvd-signed", "dbksvd", "topk-sae", "matryoshka-sae", "switch-sae", "kron-sae", "grown")
# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def see(colours: list, sight: str) -> np.ndarray:
    """Return CIELAB coordinates of colours as an eye sees them."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1)
    ratio = seen @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def find_least_distance(colours: list, sight: str) -> float:
    lab = see(colours, sight)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    return float(distances[np.triu_indices(len(lab), 1)].min())


@pytest.mark.parametrize(
    ("sight", "least"),
    [("normal", 45), ("deuteranopia", 30), ("protanopia", 30), ("tritanopia", 17)],
)
def test_colours_of_the_main_methods_are_far_apart_to_every_eye(sight, least):
    palette = read_styles(ROOT / "config.yaml").palette
    assert find_least_distance([palette[name] for name in MAIN], sight) > least


@pytest.mark.parametrize("sight", ["normal", "deuteranopia", "protanopia"])
def test_all_methods_of_the_default_run_have_colours_of_their_own(sight):
    styles = read_styles(ROOT / "config.yaml")
    learned = [styles.palette[name] for name in styles.methods if name not in styles.controls]
    assert find_least_distance(learned, sight) > 20
    greys = [styles.palette[name] for name in styles.controls]
    apart = np.linalg.norm(see(learned, sight)[:, None] - see(greys, sight)[None], axis=2)
    assert apart.min() > 15


def test_two_methods_of_one_label_are_refused():
    with pytest.raises(
        ValueError, match=r"labels: expected another label for each .*'x' for a and b"
    ):
        Styles(["a", "b"], {"a": "x", "b": "x"})
    with pytest.raises(ValueError, match="got 'b' for a and b"):
        Styles(["a", "b"], {"a": "b"})


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [
        ([0, 0.2, 0.4], ["0%", "20%", "40%"]),
        ([0.5, 0.525, 0.55], ["50.0%", "52.5%", "55.0%"]),
        ([0.9992, 0.9994, 0.9996], ["99.92%", "99.94%", "99.96%"]),
        ([0.99999, 0.999995, 1.0], ["99.9990%", "99.9995%", "100.0000%"]),
        ([0.0003, 0.0005, 0.0007], ["0.03%", "0.05%", "0.07%"]),
        ([-0.1, -1e-17, 0.1], ["-10%", "0%", "10%"]),
        ([0.3], ["30%"]),
    ],
)
def test_ticks_have_the_decimals_that_tell_them_apart(ticks, texts):
    assert ShareFormatter().format_ticks(ticks) == texts
    assert count_decimals([]) == 0


def read_ticks(axis) -> list[str]:
    axis.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
    ]


def bring_near_one(tables: dict[str, pd.DataFrame], factor: float) -> None:  # noqa: F811
    scores, curves = tables["scores"], tables["curves"]
    shares = scores["metric"].isin(["explained_variance", "ce_loss_score"])
    scores.loc[shares, "value"] = 1 - (1 - scores.loc[shares, "value"]) * factor
    curves["fve_heldout"] = 1 - (1 - curves["fve_heldout"]) * factor


@pytest.mark.parametrize("factor", [1.0, 0.1, 1e-3, 1e-5])
@pytest.mark.parametrize(
    "name", ["variance_explained", "loss_recovered", "cost", "convergence", "evals"]
)
def test_no_two_ticks_of_an_axis_read_alike(name, factor, tables):  # noqa: F811
    bring_near_one(tables, factor)
    axes = DRAW[name](tables, STYLES).axes[0]
    ticks = read_ticks(axes.xaxis if name == "evals" else axes.yaxis)
    ticks = [text for text in ticks if text]
    assert len(set(ticks)) == len(ticks) > 1


def list_cut(axes) -> list:
    return [text for text in axes.texts if text.get_gid() == CUT_ID]


@pytest.mark.parametrize("name", ["variance_explained", "loss_recovered", "cost"])
def test_an_axis_that_does_not_begin_at_0_says_so(name, tables):  # noqa: F811
    bring_near_one(tables, 0.01)
    axes = DRAW[name](tables, STYLES).axes[0]
    assert axes.get_ylim()[0] > 0
    assert CUT in axes.get_ylabel()
    assert len(list_cut(axes)) == 1


def test_an_axis_that_begins_at_0_has_no_mark(tables):  # noqa: F811
    scores = tables["scores"]
    is_control = scores["method"] == "control"
    scores.loc[is_control & (scores["metric"] == "explained_variance"), "value"] *= -0.5
    axes = DRAW["variance_explained"](tables, STYLES).axes[0]
    assert axes.get_ylim()[0] == 0
    assert CUT not in axes.get_ylabel()
    assert not list_cut(axes)


def test_every_cut_panel_of_the_evals_is_marked(tables):  # noqa: F811
    figure = DRAW["evals"](tables, STYLES)
    assert CUT in figure.get_suptitle()
    for axes in figure.axes:
        assert len(list_cut(axes)) == (axes.get_xlim()[0] > 0)


def test_bars_begin_at_0(tables):  # noqa: F811
    axes = DRAW["probing"](tables, STYLES).axes[0]
    assert axes.get_ylim() == (0, 1)
    assert all(bar.get_y() == 0 for bars in axes.containers for bar in bars)


@pytest.mark.parametrize("name", ["variance_explained", "loss_recovered"])
def test_one_seed_has_no_bars(name, tables):  # noqa: F811
    one = {key: t[t["seed"] == 0] if "seed" in t else t for key, t in tables.items()}
    assert not any(c.has_xerr or c.has_yerr for c in DRAW[name](one, STYLES).axes[0].containers)
    several = DRAW[name](tables, STYLES).axes[0].containers
    assert all(container.has_yerr for container in several)


def keep_one_k(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:  # noqa: F811
    return {key: table[table["k"] == 8] if "k" in table else table for key, table in tables.items()}


@pytest.mark.parametrize(
    ("name", "metric", "means"),
    [
        ("variance_explained", "explained_variance", [0.59, 0.69, 0.79]),
        ("loss_recovered", "ce_loss_score", [0.89, 0.89, 0.89]),
    ],
)
def test_one_k_is_a_row_of_dots_for_each_method(name, metric, means, tables):  # noqa: F811
    figure = DRAW[name](keep_one_k(tables), STYLES)
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.get_yticklabels()]
    assert texts == ["Method one", "two (L0 7.5)", "control (L0 7.0)"]
    assert figure.get_suptitle() == "k = 8"
    for height, (container, mean) in enumerate(zip(axes.containers, means, strict=True)):
        line, _, (bar,) = container.lines
        np.testing.assert_allclose(line.get_xydata(), [[mean, height]])
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], [mean - 0.01, mean + 0.01])
        assert to_rgb(line.get_color()) == to_rgb(list(STYLES.palette.values())[height])


def test_one_k_and_two_widths_are_rows_of_their_own(tables):  # noqa: F811
    one = keep_one_k(tables)["scores"]
    wide = one[one["method"] == "one"].assign(n_atoms=32)
    figure = DRAW["variance_explained"]({"scores": pd.concat([one, wide])}, STYLES)
    texts = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert texts[:2] == ["Method one, 16 atoms", "Method one, 32 atoms"]
    assert len(texts) == 4


def test_one_k_beside_published_numbers_keeps_its_axis(tables):  # noqa: F811
    row = ["a, b", "1", "m", 1, "TopK", 16, 40, "explained_variance", 0.7]
    one = keep_one_k(tables) | {"published": pd.DataFrame([row], columns=COLUMNS)}
    axes = DRAW["variance_explained"](one, STYLES).axes[0]
    assert axes.get_xscale() == "log"


def test_cost_of_one_k_draws_no_lines(tables):  # noqa: F811
    axes = DRAW["cost"](keep_one_k(tables), STYLES).axes[0]
    assert all(line.get_linewidth() == 0 for line in axes.lines if len(line.get_xdata()))


def test_widths_of_a_method_are_told_apart_and_not_joined(tables):  # noqa: F811
    scores = tables["scores"]
    both = {"scores": pd.concat([scores, scores.assign(n_atoms=32, value=scores["value"] * 1.01)])}
    axes = DRAW["variance_explained"](both, STYLES).axes[0]
    looks = {(c.lines[0].get_color(), c.lines[0].get_linestyle()) for c in axes.containers}
    assert len(looks) == len(axes.containers) == 6
    lines = [line for line in DRAW["cost"](both, STYLES).axes[0].lines if len(line.get_xdata())]
    assert len(lines) == 12  # methods, widths, seeds


def test_of_a_control_with_several_widths_one_is_shown(tables):  # noqa: F811
    scores = tables["scores"]
    control = scores[scores["method"] == "control"]
    scores = pd.concat([scores, control.assign(n_atoms=12), control.assign(n_atoms=24)])
    kept, _ = keep_shared_size(scores, STYLES)
    assert kept.loc[kept["method"] == "control", "n_atoms"].unique().tolist() == [16]
    kept, _ = keep_shared_size(
        scores[(scores["method"] != "control") | (scores["n_atoms"] != 16)], STYLES
    )
    assert kept.loc[kept["method"] == "control", "n_atoms"].unique().tolist() == [12]


def test_a_long_legend_shrinks_no_panel(tables):  # noqa: F811
    names = [f"a method with a long name, number {number}" for number in range(30)]
    scores, few = tables["scores"], tables["scores"]["method"] == "one"
    many = pd.concat([scores[few].assign(method=name) for name in names])
    boxes = []
    for table, methods in ((scores, METHODS), (many, names)):
        figure = find_figure("variance_explained").draw({"scores": table}, Styles(methods, {}))
        figure.canvas.draw()
        boxes.append(figure.axes[0].get_window_extent())
        legend = figure.axes[0].get_legend().get_window_extent()
        assert legend.y0 >= 0
        assert legend.y1 <= figure.bbox.height
    assert boxes[1].width > 4 * figure.dpi  # of the 5 inches that a panel has beside a short one
    assert boxes[1].height > 0.9 * boxes[0].height


def test_labels_of_experiments_are_all_different():
    for path in [ROOT / "config.yaml", *sorted(Path(ROOT / "experiments").glob("*.yaml"))]:
        config = yaml.safe_load(path.read_text())
        if "methods" in config:
            read_styles(path)
