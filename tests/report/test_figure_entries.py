"""The entries of the figures say all that the workflow needs of them, and are light to import."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from docutils.core import publish_parts

from dbksvd.base.settings import SettingsError, parse
from dbksvd.report.figures.drawing import draw_files
from dbksvd.report.figures.entry import Facts, Figure
from dbksvd.report.figures.registry import FIGURES, find_figure, list_figures
from dbksvd.report.settings import DrawingSettings, FigureSettings

ROOT = Path(__file__).parents[1]
TABLES = {
    *("scores", "differences", "curves", "usage", "stability", "routing", "encoder_scores"),
    "published",
}
NOTHING = Facts(frozenset(), False, None, frozenset(), 1)
FITS = ["variance_explained", "description_length", "cost", "convergence", "atom_usage"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_entries_are_imported_without_what_draws():
    code = (
        "import sys; from dbksvd.report.figures.registry import *; import dbksvd.report.settings\n"
        "[find_figure(name).applies(Facts(frozenset(), False, None, frozenset(), 1))"
        " for name in FIGURES]\n"
        "print(*{'torch', 'matplotlib', 'seaborn', 'pandas', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({}, []),
        ({"evals": frozenset(["core"])}, ["evals"]),
        ({"evals": frozenset(["core"]), "has_loss": True}, ["evals", "loss_recovered"]),
        ({"evals": frozenset(["sparse_probing_sae_probes"])}, ["evals", "probing"]),
        ({"evals": frozenset(["ravel"])}, ["evals", "facts"]),
        ({"evals": frozenset(["factual_knowledge"])}, ["evals", "facts"]),
        ({"ground_truth": "synthsaebench"}, ["identification"]),
        ({"ground_truth": "block_correlated"}, ["identification", "correlation_recovery"]),
        ({"ground_truth": "expert_mixture"}, ["identification"]),
        (
            {"ground_truth": "expert_mixture", "architectures": frozenset(["switch", "topk"])},
            ["identification", "routing"],
        ),
        ({"architectures": frozenset(["switch"])}, []),
        ({"rivals": 1}, []),
        ({"rivals": 2}, ["differences"]),
        ({"seeds": 2}, []),
        ({"seeds": 2, "has_stability": True}, ["stability"]),
        ({"sparsities": 2}, ["sparsity"]),
        ({"layers": 1}, []),
        ({"layers": 2}, ["depth"]),
    ],
)
def test_figures_that_an_experiment_has_the_data_for(change, more):
    names = list_figures(replace(NOTHING, **change))
    assert set(names) == {*FITS, *more}
    assert names == [name for name in FIGURES if name in names]  # in the order of the registry


@pytest.mark.parametrize("name", FIGURES)
def test_entry_is_complete(name: str):
    figure = find_figure(name)
    assert isinstance(figure, Figure)
    assert figure.tables
    assert set(figure.tables) <= TABLES
    assert FIGURES[name] == f"dbksvd.report.figures.{name}:FIGURE"
    page = publish_parts(figure.caption, writer="html", settings_overrides={"halt_level": 2})
    assert page["body"].count("<p>") == 1
    assert figure.caption.endswith(".")


def test_unknown_figure_is_named():
    with pytest.raises(ValueError, match="figure: expected one of atom_usage"):
        find_figure("probes")


def test_figure_settings_have_defaults_and_bounds():
    settings = parse(FigureSettings, {}, "figures")
    assert settings.dump() == {"labels": {}, "context": "notebook", "dpi": 160}
    for values, message in [
        ({"dpi": 49}, "figures.dpi: expected at least 50, got 49"),
        ({"context": "wall"}, "figures.context: expected one of 'paper', .*, got 'wall'"),
        ({"controls": []}, "figures.controls: unknown key"),
    ]:
        with pytest.raises(SettingsError, match=message):
            parse(FigureSettings, values, "figures")


def test_files_are_drawn_with_the_configs_labels_and_are_the_same_again(tmp_path: Path):
    keys = {"site": "files", "n_atoms": 8, "k": 2, "seed": 0}
    rows = [
        {**keys, "method": method, "seconds": step, "samples_seen": step, "fve_heldout": 0.1 * step}
        for method in ("one", "two")
        for step in (1, 2)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "curves.csv", index=False)
    settings = DrawingSettings(
        figures=FigureSettings(labels={"one": "the config's"}, dpi=50),
        methods=["one", "two"],
        labels={"one": "its own", "two": "second"},
        controls=[],
        model=None,
    )
    paths = [tmp_path / "first.svg", tmp_path / "second.svg", tmp_path / "figure.png"]
    for path in paths:
        draw_files(find_figure("convergence"), [tmp_path / "curves.csv"], settings, [path])
    drawn = paths[0].read_text()
    assert "the config's" in drawn
    assert "second" in drawn
    assert "its own" not in drawn
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[2].read_bytes().startswith(b"\x89PNG")
