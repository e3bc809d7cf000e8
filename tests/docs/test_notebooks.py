"""The notebooks run as they are, and what is kept of a run is small and whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from doc_blocks import DOCS, ROOT
from nbclient.exceptions import CellExecutionError

from workflow.notebooks import run_notebook

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def list_outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the kinds of output of each cell of code; a saved file has those of one output sorted."""
    return [
        [kind for output in cell.outputs for kind in sorted(output.get("data", {"stream": ""}))]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    shutil.copy(DOCS / "notebooks/rows.py", tmp_path)
    return tmp_path


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["compare", "learn", "probe"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_outputs_are_kept(path: Path, folder: Path):
    kept = nbformat.read(path, as_version=4)
    assert list_outputs(run_notebook(path, folder)) == list_outputs(kept)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_of_one_run(path: Path):
    assert path.stat().st_size < 100_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(outputs) for outputs in list_outputs(notebook)) >= 4
    text = path.read_text()
    assert not re.search(r"/(?:home|root|tmp|work|usr)/", text)  # nothing of the machine
    assert "Traceback" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path: Path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    for link in links:
        assert (path.parent / link).is_file(), link


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_a_cell_that_fails_is_told(folder: Path):
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0", id="one")])
    nbformat.write(broken, folder / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run_notebook(folder / "broken.ipynb", folder)
