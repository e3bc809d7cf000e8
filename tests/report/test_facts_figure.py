"""The figure of facts shows each score beside what is reached without a dictionary."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from test_figures import METHODS, STYLES

from dbksvd.report.figures.facts import draw

FACTS = {
    **{"disentanglement_score": 0.6, "cause_score": 0.4, "isolation_score": 0.8},
    **{"das_disentanglement_score": 0.9, "das_cause_score": 0.85, "das_isolation_score": 0.95},
    **{"neurons_disentanglement_score": 0.7, "full_patch_cause_score": 1.0},
}
RAVEL = {"disentanglement_score": 0.55, "mdas_disentanglement_score": 0.75}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_scores(**evals: dict[str, float]) -> pd.DataFrame:
    rows = [
        {
            **{"site": "layer1", "method": method, "n_atoms": 16, "k": 8, "seed": seed},
            **{"eval": name, "metric": metric, "value": value + 0.02 * seed * ("_" in metric)},
        }
        for method in METHODS
        for seed in (0, 1)
        for name, metrics in evals.items()
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows)


def read_lines(axes) -> dict[str, float]:
    """Return where each named line stands."""
    return {text.get_text(): text.xy[0] for text in axes.texts}


def test_each_score_has_a_panel_with_the_lines_of_its_eval():
    figure = draw({"scores": make_scores(factual_knowledge=FACTS, ravel=RAVEL)}, STYLES)
    titles = [axes.get_xlabel().replace("\n", " ") for axes in figure.axes]
    assert titles == [
        *("facts: mean of cause and isolation", "facts: cause", "facts: isolation"),
        "RAVEL: mean of cause and isolation",
    ]
    assert read_lines(figure.axes[0]) == pytest.approx({"DAS": 0.91, "neurons": 0.71})
    assert read_lines(figure.axes[1]) == pytest.approx({"DAS": 0.86, "full patch": 1.01})
    assert read_lines(figure.axes[3]) == pytest.approx({"MDAS": 0.76})
    line, _, (bar,) = figure.axes[0].containers[1].lines
    assert line.get_xydata()[0] == pytest.approx([0.61, 1])
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.6, 0.62])
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["Method one", "two", "control"]


def test_names_of_lines_that_are_close_stand_side_by_side():
    close = {
        **FACTS,
        "neurons_disentanglement_score": 0.89,
        "full_patch_disentanglement_score": 0.2,
    }
    axes = draw({"scores": make_scores(factual_knowledge=close)}, STYLES).axes[0]
    places = sorted(text.get_position()[0] for text in axes.texts)
    assert places == pytest.approx([0.21, 0.9, 1.0])


def test_one_eval_is_enough_and_none_is_told():
    scores = make_scores(ravel={"disentanglement_score": 0.5})
    (axes,) = draw({"scores": scores}, STYLES).axes
    assert read_lines(axes) == {}
    with pytest.raises(ValueError, match="scores: expected rows of factual_knowledge or ravel"):
        draw({"scores": scores.assign(eval="core")}, STYLES)
