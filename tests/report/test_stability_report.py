"""What is known of several seeds reaches scores, table, figure and feature pages."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from page_chunks import read_chunk, unfold
from page_site import make_features, render
from safetensors.numpy import save_file

from dbksvd.base.files import hash_file, write_json
from dbksvd.base.layout import KEYS, expand_rows
from dbksvd.report.collect import collect_scores, collect_stability
from dbksvd.report.figures.registry import find_figure
from dbksvd.report.figures.styles import Styles
from dbksvd.report.summary import summarise

STYLES = Styles(["one", "two", "control"], {"one": "Method one"}, ["control"])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def write_seal(folder: Path, seeds: list[int], n_atoms: int) -> Path:
    """Write a comparison in which atom i of seed s has stability i/m + s/100."""
    folder.mkdir(parents=True)
    values = {seed: np.arange(n_atoms, dtype=np.float32) / n_atoms for seed in seeds}
    arrays = {f"seed{seed}": array + np.float32(seed / 100) for seed, array in values.items()}
    save_file(arrays, folder / "atoms.safetensors")
    counts = {
        str(seed): np.histogram(array, bins=100, range=(0, 1))[0].tolist()
        for seed, array in values.items()
    }
    random = [2 * n_atoms if place == 15 else 0 for place in range(100)]
    content = {
        "scores": {str(seed): {"pw_mcc": 0.5 + seed / 10, "empty": None} for seed in seeds},
        "histograms": {"bins": 100, "seeds": counts, "random": random},
        "run": {},
        "sha256": {"atoms.safetensors": hash_file(folder / "atoms.safetensors")},
    }
    write_json(folder / "stability.json", content)
    return folder / "stability.json"


@pytest.fixture
def rows(tmp_path: Path) -> list[dict]:
    """Return the rows of one method with three seeds, and of one with one."""
    fits = [["files", "one", 20, 4, seed] for seed in (0, 1, 2)] + [["files", "two", 20, 4, 0]]
    for site, method, m, k, seed in fits:
        path = tmp_path / site / f"evaluations/{method}/m{m}-k{k}-s{seed}/metrics.json"
        path.parent.mkdir(parents=True)
        write_json(path, {"explained_variance": 0.5})
    write_seal(tmp_path / "files/stability/one/m20-k4", [0, 1, 2], 20)
    content = {"folder": str(tmp_path), "fits": fits, "stability": True}
    return expand_rows(json.dumps(content))


def test_only_rows_of_several_seeds_name_what_is_known_of_them(rows, tmp_path: Path):
    assert [row.get("stability") for row in rows] == [
        *3 * [f"{tmp_path}/files/stability/one/m20-k4/stability.json"],
        None,
    ]
    content = {"folder": "r", "fits": [["files", "one", 20, 4, seed] for seed in (0, 1)]}
    assert not any("stability" in row for row in expand_rows(json.dumps(content)))


def test_scores_and_table_have_a_value_for_each_seed(rows):
    scores = collect_scores(rows)
    chosen = scores[scores["eval"] == "stability"]
    assert chosen[["method", "seed", "metric", "value"]].to_numpy().tolist() == [
        ["one", seed, "pw_mcc", pytest.approx(0.5 + seed / 10)] for seed in (0, 1, 2)
    ]
    table = summarise(scores, ["one", "two"])
    assert table["stability (PW-MCC)"].tolist() == ["0.600 ± 0.100", ""]


def test_damaged_arrays_of_atoms_are_found(rows, tmp_path: Path):
    path = tmp_path / "files/stability/one/m20-k4/atoms.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"atoms\.safetensors: expected sha256"):
        collect_scores(rows)


def test_table_of_cosines_and_its_figure(rows):
    table = collect_stability(rows)
    assert list(table) == [*KEYS, "cosine", "atoms", "random_atoms"]
    assert len(table) == 3 * 100
    first = table[table["seed"] == 1].set_index("cosine")
    assert first["atoms"].sum() == 20
    assert first.loc[0.15, "random_atoms"] == 40

    other = table.assign(method="two", atoms=table["atoms"].iloc[::-1].to_numpy())
    drawn = pd.concat([table, other], ignore_index=True)
    figure = find_figure("stability").draw({"stability": drawn}, STYLES)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}
    assert list(lines) == ["two (0.52)", "Method one (0.48)", "random atoms (0.15)"]
    line = lines["Method one (0.48)"]
    assert to_rgb(line.get_color()) == to_rgb(STYLES.palette["Method one"])
    heights = dict(zip(np.round(line.get_xdata(), 2), line.get_ydata(), strict=True))
    assert heights[0.0] == 1
    assert heights[0.7] == pytest.approx(6 / 20)  # 14/20, …, 19/20
    assert heights[1.0] == 0
    chance = lines["random atoms (0.15)"]
    assert dict(zip(np.round(chance.get_xdata(), 2), chance.get_ydata(), strict=True))[0.15] == 1
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "0.1",
        "0.3",
        "0.5",
        "0.7",
        "0.9",
    ]


def test_no_seeds_make_an_empty_table():
    assert list(collect_stability([])) == [*KEYS, "cosine", "atoms", "random_atoms"]


def test_pages_show_the_stability_of_each_atom(make_sentences, tmp_path: Path):
    features = make_features(tmp_path, make_sentences(8, seed=3))
    seal = write_seal(tmp_path / "layer2/stability/dbksvd/m50-k6", [0, 3], 50)
    render(tmp_path, features, tmp_path / "site", stability={("layer2", "dbksvd/m50-k6"): seal})
    page = tmp_path / "site/layer2/dbksvd-m50-k6-s0"
    shown = unfold(read_chunk(page, "data/list")["stability"])
    assert shown == pytest.approx(np.arange(50) / 50, abs=0.006)
    assert "more stable over seeds" in (page / "index.html").read_text()
    other = tmp_path / "site/layer2/signed-m50-k6-s0"
    assert "stability" not in read_chunk(other, "data/list")
    assert "more stable over seeds" not in (other / "index.html").read_text()
