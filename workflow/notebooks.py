"""Runs the notebooks of docs/ and keeps what they print: `make notebooks`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dbksvd.base.files import replace_file

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/notebooks"
SECONDS = 900  # of one cell, on a busy machine


def run_notebook(path: Path, folder: Path = FOLDER) -> Any:
    """Return a notebook with the outputs of a run in a new kernel.

    Parameters
    ----------
    path : Path
        The notebook; it is not changed.
    folder : Path
        Where its kernel starts, beside ``rows.py``.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress bars and warnings are of one machine
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in kept if output.get("text", "-").strip()]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    """Write every notebook anew."""
    import nbformat

    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = run_notebook(path)
        with replace_file(path) as temporary:
            nbformat.write(notebook, temporary)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
