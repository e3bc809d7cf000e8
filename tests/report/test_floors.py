"""The floor of a score is the best of what learns nothing, and is drawn where it is."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dbksvd.report.figures.floors import Floor, draw_floor, find_floor
from dbksvd.report.figures.styles import Styles

STYLES = Styles(
    ["a", "soft", "random"], {"soft": "soft-frozen"}, ["soft", "random"], ["soft", "random"]
)


def make_table(rows: list[tuple[str, str, int, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["site", "method", "seed", "score"])
    table["n_atoms"] = 64
    return STYLES.present(table)


ROWS = [
    ("layer4", "a", 0, 0.9),
    ("layer4", "soft", 0, 0.4),
    ("layer4", "soft", 1, 0.6),
    ("layer4", "random", 0, 0.55),
    ("layer5", "random", 0, 0.99),
]


def test_the_best_control_is_the_floor_and_seeds_are_averaged():
    table = make_table(ROWS)
    assert find_floor(table, "layer4", STYLES, "score") == Floor(0.55, "random")
    lower = find_floor(table, "layer4", STYLES, "score", lower_is_better=True)
    assert lower == Floor(pytest.approx(0.5), "soft-frozen")
    assert find_floor(table[table["method"] == "a"], "layer4", STYLES, "score") is None
    assert find_floor(table, "synthetic", STYLES, "score") is None


def test_methods_on_the_random_model_count_at_the_layer_they_are_the_twin_of():
    table = make_table([*ROWS, ("random_layer4", "a", 0, 0.7), ("random_layer4", "random", 0, 0.8)])
    floor = find_floor(table, "layer4", STYLES, "score")
    assert floor == Floor(0.7, "a, random weights")
    assert floor.short == "floor, random weights"
    assert find_floor(table, "layer5", STYLES, "score") == Floor(0.99, "random")


@pytest.mark.parametrize("which", ["x", "y"])
def test_the_line_is_labelled_and_leaves_the_axis_as_it_is(which: str):
    figure, axes = plt.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    draw_floor(axes, Floor(0.3, "random atoms"), which)
    draw_floor(axes, Floor(1.3, "outside"), which)
    draw_floor(axes, None, which)
    (line,) = [line for line in axes.lines if line.get_gid() == "floor"]
    found = line.get_xdata() if which == "x" else line.get_ydata()
    assert list(found) == [0.3, 0.3]
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    assert [text.get_text() for text in axes.texts] == (
        ["floor"] if which == "x" else ["floor: random atoms"]
    )
    plt.close(figure)
