"""The site that `make docs` builds: whole, and nothing of it on another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from doc_blocks import DOCS, ROOT

import dbksvd

needs_mkdocs = pytest.mark.skipif(find_spec("mkdocs") is None, reason="no MkDocs yet: make docs")
# What a browser loads by itself; other addresses are links that a reader follows.
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


def build(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_pages(folder: Path) -> Path:
    """Copy what a build reads."""
    shutil.copytree(DOCS, folder / "docs")
    for path in (ROOT / "mkdocs.yml", ROOT / "CITATION.cff", *ROOT.glob("*.md")):
        shutil.copy(path, folder)
    for name in ("dbksvd", "benchmarks", "results/reference"):
        left_out = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pages, built."""
    folder = copy_pages(tmp_path_factory.mktemp("pages"))
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if address := dict(attrs).get(LOADED.get(tag, "")):
            self.addresses.append(address)


def list_pages(project: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((project / "build/docs").rglob("*.html")):
        yield path, path.read_text()


@needs_mkdocs
@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(project: Path):
    checked = 0
    for path, html in list_pages(project):
        parser = Loaded()
        parser.feed(html)
        for address in parser.addresses:
            assert not re.match(r"(https?:)?//", address), f"{path.name}: {address}"
            if path.name != "404.html":  # whose addresses are those of a server's root
                file = (path.parent / unescape(address).split("#")[0].split("?")[0]).resolve()
                assert file.is_file(), f"{path.name}: {address}"
                checked += 1
    assert checked > 100
    for style in (project / "build/docs").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style


@needs_mkdocs
@pytest.mark.slow
def test_every_page_of_docs_is_there_and_can_be_searched(project: Path):
    site = project / "build/docs"
    index = (site / "search/search_index.js").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html")
        assert (site / name).is_file()
        assert f'"{name.as_posix()}"' in index, f"{name}: not in the search"


@needs_mkdocs
@pytest.mark.slow
def test_equations_are_drawn_by_the_browser(project: Path):
    html = (project / "build/docs/equations.html").read_text()
    sources = re.findall(r"\$\$?[^$]+\$\$?", (DOCS / "equations.md").read_text())
    assert html.count("<math ") == len(sources) > 50
    assert "arithmatex" not in html
    assert not re.search(r">\\[a-zA-Z]+<", html)  # a command that the converter does not know


@needs_mkdocs
@pytest.mark.slow
def test_signatures_show_defaults(project: Path):
    html = (project / "build/docs/api.html").read_text()
    assert "DEFAULTS" not in html
    for name in dbksvd.__all__:
        assert name == "__version__" or f".{name}<" in html or f">{name}<" in html, name


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.parametrize(
    ("link", "status"),
    [
        ("[x](methods.md#methods)", 0),
        ("[x](none.md)", 1),
        ("[x](methods.md#none)", 1),
        ("[x](../none.py)", 1),
        ("![x](images/none.png)", 1),
    ],
)
def test_a_broken_link_fails_the_build(link: str, status: int, tmp_path: Path):
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config["plugins"] = ["search", "offline"]
    del config["nav"]
    shutil.copytree(DOCS / "site", tmp_path / "docs/site")
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs/methods.md").write_text("# Methods\n")
    (tmp_path / "docs/index.md").write_text(f"# Home\n\n{link}\n")
    done = build(tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert status == 0 or "none" in done.stdout + done.stderr


def test_the_page_of_python_names_all_that_is_public():
    page = (DOCS / "api.md").read_text()
    shown = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    assert shown == {f"{home}.{name}" for name, home in dbksvd._HOMES.items()}
