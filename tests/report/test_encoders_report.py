"""The table and the figure of dictionaries by encoders."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dbksvd.base.files import write_json
from dbksvd.base.layout import expand_rows
from dbksvd.evaluation.encoders.settings import LABELS
from dbksvd.report.encoders import COLUMNS, collect_encoders, tabulate
from dbksvd.report.figures.encoders import FIGURE, LOOKS
from dbksvd.report.figures.styles import Styles

FITS = [
    ["layer4", "topk", 512, 16, 0],
    ["layer4", "dbksvd", 512, 16, 0],
    ["synthetic", *("dbksvd", 128, 7, 0)],
]


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    rows = expand_rows(json.dumps({"folder": str(tmp_path), "fits": FITS}))
    for place, row in enumerate(rows):
        scores = {
            "own": {"explained_variance": 0.5 + place / 10, "l0": 15.94, "seconds": 1.0},
            "lasso": {"explained_variance": 0.4, "l0": 16.0, "penalty": 2.0},
        }
        if row["site"] == "synthetic":
            scores["own"]["f1"] = 0.25
        Path(row["encoders"]).parent.mkdir(parents=True, exist_ok=True)
        write_json(row["encoders"], {"scores": scores, "run": {}})
    return collect_encoders(rows)


def test_every_number_has_a_row(table: pd.DataFrame):
    assert list(table.columns) == COLUMNS
    assert len(table) == 3 * 6 + 1
    one = table[(table["method"] == "topk") & (table["metric"] == "penalty")]
    assert one[["encoder", "value"]].to_numpy().tolist() == [["lasso", 2.0]]


def test_the_table_has_a_column_for_each_encoder(table: pd.DataFrame):
    wide = tabulate(table, ["dbksvd", "topk"])
    assert list(wide.columns) == ["site", "metric", "method", "n_atoms", "k", "its own", "lasso"]
    assert wide.to_numpy().tolist() == [
        ["layer4", "variance explained", "dbksvd", 512, 16, "0.600", "0.400"],
        ["layer4", "variance explained", "topk", 512, 16, "0.500", "0.400"],
        ["layer4", "L0", "dbksvd", 512, 16, "15.9", "16.0"],
        ["layer4", "L0", "topk", 512, 16, "15.9", "16.0"],
        ["synthetic", "variance explained", "dbksvd", 128, 7, "0.700", "0.400"],
        ["synthetic", "F1", "dbksvd", 128, 7, "0.250", ""],
        ["synthetic", "L0", "dbksvd", 128, 7, "15.9", "16.0"],
    ]
    assert tabulate(table[:0], ["dbksvd"]).attrs["reason"].startswith("expected a dictionary")


def test_the_figure_shows_each_encoder_at_its_value(table: pd.DataFrame):
    styles = Styles(["dbksvd", "topk"], {"dbksvd": "DB-KSVD"})
    figure = FIGURE.draw({"encoder_scores": table}, styles)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "variance explained",
        "variance explained",
        "F1",
    ]
    points = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines]
    assert points == [[0.6, 0.0], [0.4, 0.0], [0.5, 1.0], [0.4, 1.0]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["DB-KSVD", "topk"]
    legend = figure.axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["its own", "lasso"]
    assert LOOKS.keys() == LABELS.keys()
    unseen = table[table["metric"] == "f1"].assign(metric="unseen_f1", value=0.125)
    more = FIGURE.draw({"encoder_scores": pd.concat([table, unseen])}, styles)
    assert more.axes[-1].get_xlabel() == "F1, unseen pairs"
    assert more.axes[-1].lines[0].get_xydata()[0].tolist() == [0.125, 0.0]
    plt.close(more)
    plt.close(figure)
    with pytest.raises(ValueError, match="expected scores of at least one dictionary"):
        FIGURE.draw({"encoder_scores": table[:0]}, styles)
