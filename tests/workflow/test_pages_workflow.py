"""Feature pages in the workflow: which dictionaries have them, what runs, and a site that opens."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from running import CONFIG, ROOT, copy_project, make_environment, plan, run_snakemake
from safetensors.numpy import load_file

from dbksvd.activations.shards import ActivationShards
from dbksvd.base.files import read_json
from dbksvd.base.settings import SettingsError
from dbksvd.dictionaries.loading import load_dictionary
from workflow.experiment import Experiment, Fit
from workflow.pages import Pages, choose_typical

TINY = yaml.safe_load((ROOT / CONFIG).read_text())
FIGURES = len(Experiment(copy.deepcopy(TINY)).figures)
BOTH = {"collect_examples": 1, "render_pages": 1}
TYPICAL = ["dbksvd-signed/m64-k4-s0", "dbksvd/m64-k4-s0", "topk-sae/m64-k4-s0"]


def make_fits(*sizes: tuple[int, int, int]) -> list[Fit]:
    return [Fit("layer4", "dbksvd", *each) for each in sizes]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(64, 4, 0)], (64, 4, 0)),
        ([(64, 4, 0), (512, 4, 0), (256, 4, 0)], (512, 4, 0)),
        ([(64, 8, 0), (64, 16, 0), (64, 32, 0)], (64, 16, 0)),
        ([(64, 32, 0), (64, 8, 0)], (64, 8, 0)),  # of two the lower
        ([(64, 4, 0), (64, 8, 0), (64, 16, 0), (64, 32, 0)], (64, 8, 0)),
        ([(64, 8, 2), (64, 8, 1), (64, 8, 3)], (64, 8, 1)),
        # the middle is that of the most atoms, not of all
        ([(512, 32, 0), (64, 4, 0), (64, 8, 0)], (512, 32, 0)),
        # seeds do not weigh on the middle
        ([(64, 8, 0), (64, 8, 1), (64, 8, 2), (64, 16, 0), (64, 32, 5)], (64, 16, 0)),
    ],
)
def test_typical_dictionary_of_a_method(sizes, expected):
    fits = make_fits(*sizes)
    assert choose_typical(fits) == make_fits(expected)[0]
    assert choose_typical(fits[::-1]) == make_fits(expected)[0]


def make_pages(**changes: Any) -> Pages:
    return Pages(Experiment(copy.deepcopy(TINY) | changes))


def test_one_dictionary_of_each_method_has_pages_unless_others_are_named():
    pages = make_pages()
    assert pages.sites == ["layer4"]
    assert [fit.name for fit in pages.list_fits("layer4")] == TYPICAL
    pages = make_pages(pages={"dictionaries": ["dbksvd/m64-k8-s0"]})
    assert [fit.name for fit in pages.list_fits("layer4")] == ["dbksvd/m64-k8-s0"]
    assert pages.list_fits("synthetic") == []
    assert make_pages(pages=None).sites == []
    default = Pages(Experiment(yaml.safe_load((ROOT / "config.yaml").read_text())))
    assert default.sites == ["layer4", "synthetic"]
    names = [fit.name for fit in default.list_fits("layer4")]
    methods = {fit.method for fit in default.experiment.fits if fit.site == "layer4"}
    assert len(names) == len({name.split("/")[0] for name in names}) == len(methods)
    assert "dbksvd/m512-k16-s0" in names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dbksvd/m64-k4-s0", "dbksvd/m64-k9-s0"],
            r"^pages\.dictionaries\[1\]: expected a dictionary of `fits`.*'dbksvd/m64-k9-s0'$",
        ),
        (["topk-sea/m64-k4-s0"], r"did you mean 'topk-sae/m64-k4-s0'.*got 'topk-sea/m64-k4-s0'$"),
        ("dbksvd/m64-k4-s0", r"^pages\.dictionaries: expected array"),
        ([], r"^pages\.dictionaries: "),
        (["dbksvd/m64-k4-s0"] * 2, r"^pages\.dictionaries"),
    ],
)
def test_dictionaries_that_are_not_there_are_refused_by_name(names, message):
    with pytest.raises(SettingsError, match=message):
        make_pages(pages={"dictionaries": names})


@pytest.fixture
def with_pages(project: Path) -> Path:
    """Return a copy of the finished run, which had no pages, whose config now asks for them."""
    (project / CONFIG).write_text(yaml.safe_dump(TINY, sort_keys=False))
    return project


def test_pages_add_two_jobs_and_null_none(finished_run: Path, tmp_path: Path):
    assert plan(finished_run) == {}  # pages: null
    folder = copy_project(tmp_path / "fresh")
    without = plan(folder)
    (folder / "pages.yaml").write_text(yaml.safe_dump(TINY))
    assert plan(folder, "pages.yaml") == without | BOTH
    assert not BOTH.keys() & without.keys()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tips: list[tuple[str, str]] = []

    def handle_starttag(self, _tag, attrs):
        given = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]
        if "data-tip" in given and "href" in given:
            self.tips.append((given["href"], given["data-tip"]))


def check_links(site: Path) -> dict[Path, Page]:
    """Return the pages of a site; every address on them is a file of the site."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        found[path] = page = Page()
        page.feed(path.read_text())
        for address in page.addresses:
            if not address.startswith(("#", "data:,")):
                target = (path.parent / unquote(address.split("#")[0])).resolve()
                assert target.is_file(), address
                assert target.is_relative_to(site), address
    return found


def run_command(project: Path, *arguments: str) -> str:
    return run_python(project, "-m", "dbksvd.command.main", *arguments)


def run_python(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=make_environment() | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_ends_with_a_site_that_opens(with_pages: Path):
    """From the only real run with pages: what is there, what a text shows, what reruns."""
    project = with_pages
    assert plan(project) == BOTH
    done = run_snakemake(project, "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert plan(project) == {}
    site, layer = project / "results/tiny/site", project / "results/tiny/layer4"
    folders = [site / "layer4" / name.replace("/", "-") for name in TYPICAL]
    assert check_links(site.resolve()).keys() == {
        path.resolve() / "index.html" for path in [site, *folders]
    }
    for folder in folders:
        data = {path.name for path in (folder / "data").iterdir()}
        assert {"list.js", "map.js", "search-0.js"} <= data
        assert {"atoms-0.js", "atoms-1.js"} <= data
    assert len(list(site.rglob("*.png"))) == FIGURES
    manifest = read_json(layer / "features/manifest.json")
    assert [entry["name"] for entry in manifest["dictionaries"]] == TYPICAL
    assert manifest["probes"]

    explain_a_text(project, site, layer)
    check_reruns(project)


def read_value(tip: str) -> float:
    """Return the coefficient of a tip such as "atom 7: 0.512; fires most on ␣cat"."""
    return float(tip.split(": ")[1].split(";")[0].replace("\N{MINUS SIGN}", "-"))


def explain_a_text(project: Path, site: Path, layer: Path) -> None:
    text = "The cat sat on the mat."
    run_command(project, "explain", "--config", CONFIG, text)
    page = check_links(site.resolve())[(site / "explain.html").resolve()]
    shown = {address for address, _ in page.tips}
    assert {address.split("/")[1] for address in shown} == {
        name.replace("/", "-") for name in TYPICAL
    }
    # the page of a text from the run's own activations: the first document of the held-out split
    shards = ActivationShards.open(layer / "shards", "heldout")
    labels = shards.read_labels(0, len(shards))
    first = int(labels.document.min())
    with (project / "results/tiny/text/documents.jsonl").open() as stream:
        record = json.loads(list(stream)[first])
    run_command(
        project, "explain", "--config", CONFIG, "--output", str(site / "first.html"),
        "--", record["text"],
    )  # fmt: skip
    page = check_links(site.resolve())[(site / "first.html").resolve()]
    rows = np.flatnonzero(labels.document == first)
    rows = rows[np.argsort(labels.position[rows])]
    for name in TYPICAL:
        codes = load_dictionary(layer / "dictionaries" / name).encode(shards.read(0, len(shards)))
        stored = codes.to_dense().numpy()[rows]
        slug = name.replace("/", "-")
        own = [(a, tip) for a, tip in page.tips if a.split("/")[1] == slug]
        active = sum(int((row != 0).sum()) for row in stored)
        # stored rows may be the first of the document only
        assert len(own) >= active > 0
        for row in stored[:3]:
            for atom in np.flatnonzero(row):
                tips = [tip for address, tip in own if address.endswith(f"#{atom}")]
                values = [read_value(tip) for tip in tips]
                assert any(v == pytest.approx(row[atom], rel=0.01) for v in values), (name, atom)
    (site / "first.html").unlink()
    output = project / "examples.safetensors"
    dictionary = f"results/tiny/layer4/dictionaries/{TYPICAL[0]}"
    run_command(project, "export", dictionary, str(output), "--format", "activations")
    assert len(load_file(output)["activations"]) > 100


def check_reruns(project: Path) -> None:
    def plan_with(change: Callable[[dict[str, Any]], object]) -> dict[str, int]:
        config = copy.deepcopy(TINY)
        change(config)
        (project / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
        return plan(project)

    drawn = {"draw_figure": FIGURES, "render_pages": 1}
    assert plan_with(lambda config: config["figures"].update(dpi=90)) == drawn
    labels = {"dbksvd": "another label"}
    planned = plan_with(lambda config: config["figures"].update(labels=labels))
    assert planned["render_pages"] == 1
    assert "collect_examples" not in planned
    top = {"examples": {"top": 3}}
    assert plan_with(lambda config: config.update(pages=top)) == BOTH
    chosen = {"dictionaries": ["dbksvd/m64-k8-s0"]}
    assert plan_with(lambda config: config.update(pages=chosen)) == BOTH
    assert plan_with(lambda config: config.update(pages=None)) == {}
    (project / CONFIG).write_text(yaml.safe_dump(TINY, sort_keys=False))
    style = project / "dbksvd/report/pages/static/site.css"
    style.write_text(style.read_text() + "/* edited */\n")
    assert plan(project) == {"render_pages": 1}
