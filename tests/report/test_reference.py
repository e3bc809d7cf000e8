"""Published numbers are found for the same model, layer and metric, and never otherwise."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dbksvd.report.figures.registry import find_figure
from dbksvd.report.figures.styles import Styles
from dbksvd.report.published import COLUMNS, find_published, load_published, mark_published

PATH = Path(__file__).parents[2] / "results" / "reference" / "published.csv"


def test_table_states_source_and_version_of_every_number():
    table = pd.read_csv(PATH)
    assert list(table.columns) == COLUMNS
    assert len(table) == 100
    for column in ("source", "version", "model", "method", "metric", "value"):
        assert table[column].notna().all()
    assert not table.duplicated().any()


@pytest.mark.parametrize(
    ("model", "layer", "method", "width", "k", "value"),
    [
        ("google/gemma-2-2b", 13, "batchtopk", 4096, 40, 0.965),
        ("EleutherAI/pythia-160m-deduped", 9, "matryoshka_batchtopk", 16384, 80, 0.978),
        ("openai-community/gpt2", 9, "topk", 24576, 64, 0.9946),
        ("openai-community/gpt2", 9, "switch-8-experts-flop-matched", 196608, 64, 0.9960),
    ],
)
def test_loss_recovered_is_found(model, layer, method, width, k, value):
    rows = find_published(load_published(PATH, model), layer, "ce_loss_score")
    chosen = rows[(rows["method"] == method) & (rows["width"] == width) & (rows["k"] == k)]
    assert chosen["value"].tolist() == [value]


@pytest.mark.parametrize(
    ("model", "layer", "metric"),
    [
        ("google/gemma-2-2b", 12, "ce_loss_score"),
        ("google/gemma-2-9b", 13, "ce_loss_score"),
        ("google/gemma-2-2b", 13, "explained_variance"),
        ("EleutherAI/pythia-1.4b", 9, "explained_variance"),  # its layer is not known
    ],
)
def test_nothing_is_drawn_for_another_model_layer_or_metric(model, layer, metric):
    table = load_published(PATH, model)
    assert find_published(table, layer, metric).empty
    figure, axes = plt.subplots()
    mark_published(axes, table, f"layer{layer}", metric)
    mark_published(axes, table, "synthetic", metric)
    mark_published(axes, None, f"layer{layer}", metric)
    assert not axes.containers
    plt.close(figure)


def test_marks_stand_at_the_published_values():
    figure, axes = plt.subplots()
    table = load_published(PATH, "google/gemma-2-2b")
    mark_published(axes, table, "layer13", "ce_loss_score")
    drawn = {bars.get_label(): bars[0].get_xydata().tolist() for bars in axes.containers}
    assert len(drawn) == 6
    assert drawn["topk, 4096 atoms (SAEBench)"] == [[20, 0.943], [40, 0.965], [80, 0.978]]
    plt.close(figure)


def test_without_a_file_there_are_no_numbers(tmp_path):
    assert find_published(load_published(None, "gemma-2-2b"), 13, "ce_loss_score").empty
    assert load_published(PATH, None).empty
    (tmp_path / "other.csv").write_text("model,layer,width,k\n")
    with pytest.raises(ValueError, match=r"other\.csv: expected columns"):
        load_published(tmp_path / "other.csv", "gemma-2-2b")


def make_scores(site: str) -> dict[str, pd.DataFrame]:
    rows = [
        {"site": site, "method": "one", "n_atoms": 4096, "k": k, "seed": 0, "eval": name,
         "metric": metric, "value": value}
        for k in (20, 40)
        for name, metric, value in [
            ("core", "ce_loss_score", 0.9), ("heldout", "l0", k), ("heldout", "explained_variance", 0.7)
        ]
    ]  # fmt: skip
    return {"scores": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    ("model", "site", "figure", "marks"),
    [
        ("google/gemma-2-2b", "layer13", "loss_recovered", 6),
        ("google/gemma-2-2b", "layer12", "loss_recovered", 0),
        ("google/gemma-2-9b", "layer13", "loss_recovered", 0),
        ("google/gemma-2-2b", "layer13", "variance_explained", 0),
    ],
)
def test_figures_mark_published_numbers_of_this_model_and_layer_only(model, site, figure, marks):
    tables = {**make_scores(site), "published": load_published(PATH, model)}
    drawn = find_figure(figure).draw(tables, Styles(["one"], {}))
    legend = drawn.axes[0].get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert sum("SAEBench" in label for label in labels) == marks
    assert "one" in labels
    plt.close(drawn)
