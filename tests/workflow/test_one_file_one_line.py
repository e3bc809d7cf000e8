"""A stranger adds a method, an eval, a figure and a text source: one file and one line each.

Method and eval are those of the how-to pages in docs/.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from doc_blocks import DOCS, list_blocks
from running import CONFIG, copy_project, make_environment, plan, run_snakemake


def read_block(page: str, language: str = "python", number: int = 0) -> str:
    """Return a block of a page: a stranger copies what the docs show."""
    return [block.text for block in list_blocks(DOCS / page) if block.language == language][number]


def read_line(page: str) -> str:
    """Return the line of a registry that a page shows."""
    return read_block(page, number=1).splitlines()[1]


METHOD = read_block("howto/method.md")
EVAL = read_block("howto/eval.md")
FIGURE = '''"""Held-out variance explained as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbksvd.report.figures.entry import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from dbksvd.report.figures.styles import Styles


def draw(tables: dict[str, pd.DataFrame], styles: Styles) -> Drawing:
    """Draw a bar for each method."""
    import matplotlib.pyplot as plt

    from dbksvd.report.figures.panels import pick_metric

    table = styles.present(pick_metric(tables["scores"], "heldout", "explained_variance"))
    figure, axes = plt.subplots()
    means = table.groupby("label")["explained_variance"].mean()
    axes.bar(means.index, means)
    axes.set_ylabel("Variance explained")
    return figure


FIGURE = Figure(
    draw=draw,
    tables=("scores",),
    caption="Variance explained as bars.",
    applies=lambda facts: "toy" in facts.evals,
)
'''
SOURCE = '''"""Sentences that count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from dbksvd.base.settings import Count
from dbksvd.text.sources.entry import NamedTexts, Source, SourceSettings


class ToySettings(SourceSettings):
    """Sentences that count."""

    kind: Literal["toy"]
    """Kind of source."""
    sentences: Count = 400
    """Number of sentences."""


def read(settings: ToySettings, where: str) -> Iterator[NamedTexts]:
    """Yield the one name and its texts."""
    yield "toy", (f"The number {n} is followed by {n + 1}." for n in range(settings.sentences))


SOURCE = Source(ToySettings, read, is_fixed=lambda settings: True)
'''
# file, its text, registry, its line
ADDITIONS = {
    "method": (
        "dbksvd/fit/baselines/toy.py",
        METHOD,
        "dbksvd/fit/registry.py",
        read_line("howto/method.md"),
    ),
    "eval": (
        "dbksvd/evaluation/saebench/evals/toy.py",
        EVAL,
        "dbksvd/evaluation/saebench/registry.py",
        read_line("howto/eval.md"),
    ),
    "figure": (
        "dbksvd/report/figures/toy.py",
        FIGURE,
        "dbksvd/report/figures/registry.py",
        '    "toy_bars": "dbksvd.report.figures.toy:FIGURE",',
    ),
    "source": (
        "dbksvd/text/sources/toy.py",
        SOURCE,
        "dbksvd/text/sources/registry.py",
        '    "toy": "dbksvd.text.sources.toy:SOURCE",',
    ),
}
MINE = {
    "experiment": "mine",
    "text": {"sources": [{"kind": "toy"}, {"kind": "sae_probes", "datasets": ["94_ai_gen"]}]},
    **yaml.safe_load(read_block("howto/method.md", "yaml")),
    **yaml.safe_load(read_block("howto/eval.md", "yaml")),
}
MINE["evaluation"]["evals"]["sparse_probing_sae_probes"] = None


def add(project: Path, *kinds: str) -> None:
    """Add things to a project: a file and a line of a registry each, and nothing else."""
    for kind in kinds:
        file, text, registry, line = ADDITIONS[kind]
        (project / file).write_text(text)
        content = (project / registry).read_text()
        head, brace, tail = content.rpartition("\n}\n")
        assert brace, f"{registry}: expected a table that ends in a line of its own"
        (project / registry).write_text(f"{head}\n{line}{brace}{tail}")


def run_python(project: Path, *arguments: str) -> str:
    """Run Python in a project, on its own package."""
    environment = make_environment() | {"PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A finished run of the tiny experiment with one more of everything."""
    project = copy_project(tmp_path_factory.mktemp("extended") / "project")
    add(project, *ADDITIONS)
    (project / "mine.yaml").write_text(yaml.safe_dump(MINE))
    done = run_snakemake(project, "mine.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def read_scores(project: Path) -> pd.DataFrame:
    return pd.read_csv(project / "results/mine/scores.csv")


def test_method(extended: Path):
    scores = read_scores(extended)
    assert set(scores["method"]) == {"samples", "dbksvd"}
    folder = extended / "results/mine/layer4/dictionaries/samples/m64-k4-s0"
    assert json.loads((folder / "fit.json").read_text())["samples_seen"] == 64 * 3
    assert "toy of stride 3" in (extended / "results/mine/figures/toy_bars.svg").read_text()
    estimate = run_python(extended, "-m", "dbksvd.command.main", "estimate", CONFIG, "mine.yaml")
    assert "fit toys" in estimate


def test_eval(extended: Path):
    scores = read_scores(extended)
    toys = scores[(scores["eval"] == "toy") & (scores["metric"] == "length")]
    assert set(toys["method"]) == {"samples", "dbksvd"}
    assert toys["value"].between(0, 1).all()
    table = pd.read_csv(extended / "results/mine/table.csv")
    assert table["toy length"].notna().all()


def test_figure(extended: Path):
    assert (extended / "results/mine/figures/toy_bars.png").stat().st_size > 1000
    plain = run_snakemake(extended, "--dry-run")
    assert plain.returncode == 0, plain.stderr
    assert "toy_bars" not in plain.stdout + plain.stderr  # it applies where its eval is run


def test_source(extended: Path):
    manifest = json.loads((extended / "results/mine/text/manifest.json").read_text())
    assert manifest["sources"]["toy"]["read"] == 400
    assert manifest["sources"]["toy"]["kept"] == 400


def test_settings_of_additions_are_documented(extended: Path):
    run_python(extended, "-m", "workflow.reference")
    page = (extended / "docs/settings.md").read_text()
    for text in ("Samples from one atom to the next.", "Coordinates of each atom.", "Number of sentences."):  # fmt: skip
        assert text in page


def test_additions_are_refused_as_all_others_are(extended: Path):
    (extended / "bad.yaml").write_text(yaml.safe_dump({"methods": {"samples": {"strid": 2}}}))
    done = run_snakemake(extended, "mine.yaml", "bad.yaml", "--dry-run")
    assert done.returncode == 1
    assert "methods.samples.strid: unknown key, did you mean 'stride'?" in done.stderr + done.stdout


def test_a_line_of_a_registry_reruns_nothing(project: Path):
    """What is there already does not depend on what is added beside it."""
    add(project, *ADDITIONS)
    assert plan(project) == {}
