"""How the project is cited, and what people look for in a repository."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from doc_blocks import DOCS, ROOT, list_blocks

from dbksvd.base.version import __version__

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.mark.skipif(find_spec("cffconvert") is None, reason="no cffconvert yet: make docs")
def test_the_citation_file_is_valid():
    code = "from cffconvert.cli.cli import cli; cli()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "--validate", "-i", ROOT / "CITATION.cff"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout


def test_the_citation_is_of_this_version():
    assert CITATION["version"] == __version__


def test_every_paper_has_full_names_and_an_address():
    for paper in CITATION["references"]:
        assert paper.get("url") or paper.get("doi"), paper["title"]
        for author in paper["authors"]:
            assert {"family-names", "given-names"} <= author.keys() or "name" in author, paper[
                "title"
            ]


def test_the_block_to_copy_says_the_same():
    (block,) = (one.text for one in list_blocks(DOCS / "cite.md") if one.language == "bibtex")
    entries = dict(re.findall(r"@\w+\{(\w+),(.*?)^\}", block, re.DOTALL | re.MULTILINE))
    assert f"{{{CITATION['title']}}}" in entries["dbksvd"]
    assert __version__ in entries["dbksvd"]
    titles = {paper["title"] for paper in CITATION["references"]}
    for name, entry in entries.items():
        (title,) = re.findall(r"title = \{\{?(.*?)\}?\},", entry)
        assert name == "dbksvd" or title in titles, title
    assert len(entries) == len(titles) + 1
    (shown,) = (one.text for one in list_blocks(ROOT / "README.md") if one.language == "bibtex")
    assert block.startswith(shown)  # README has the first


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_files_of_the_forge_are_read(path: Path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_pull_requests_are_linted_and_tested():
    checks = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())
    assert "pull_request" in checks[True]  # YAML 1.1 reads the key `on` as true
    steps = [step.get("run") for job in checks["jobs"].values() for step in job["steps"]]
    assert {"make lint", "make docs", "make test"} <= set(steps)
    makefile = (ROOT / "Makefile").read_text()
    for step in filter(None, steps):
        assert re.search(rf"^{step.removeprefix('make ')}:", makefile, re.MULTILINE)
