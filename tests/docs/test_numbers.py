"""Numbers on pages are those of README's table."""

import shutil
from pathlib import Path

import pytest
from doc_blocks import DOCS, ROOT

from workflow.numbers import NUMBER, fill, fill_pages, list_pages, read_table, read_tables

TABLE = """| method | variance explained | F1 |
| --- | --- | --- |
| TopK SAE | **.692 ± .003** | |
| PCA | .480 | .1 |"""
TABLES = {"minilm": read_table(TABLE), "other": read_table(TABLE.replace(".480", ".7"))}


def test_pages_have_the_numbers_of_readme():
    tables = read_tables((ROOT / "README.md").read_text())
    assert DOCS / "choose.md" in list_pages()
    for page in list_pages():
        assert fill(page.read_text(), tables) == page.read_text(), "python -m workflow.numbers"


def test_no_number_begins_a_line():
    """A comment at the beginning of a line would end the paragraph."""
    for page in list_pages():
        if page.parent.is_relative_to(DOCS):
            marked = [line for line in page.read_text().splitlines() if line.startswith("<!--")]
            assert not marked, f"{page}: {marked[:1]}"


def test_cells_are_filled_in():
    page = "has <!-- TopK SAE: variance explained -->.1<!-- / -->, <!-- PCA: F1 --><!-- / -->."
    assert fill(page, TABLES) == (
        "has <!-- TopK SAE: variance explained -->.692 ± .003<!-- / -->, "
        "<!-- PCA: F1 -->.1<!-- / -->."
    )


def test_a_cell_may_be_of_another_table():
    page = "<!-- other/PCA: variance explained --><!-- / -->"
    assert fill(page, TABLES) == "<!-- other/PCA: variance explained -->.7<!-- / -->"


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("<!-- TopK: F1 -->.1<!-- / -->", "expected a method of README's table, got 'TopK'"),
        ("<!-- TopK SAE: F1 -->.1<!-- / -->", "expected a number there in README's table"),
        ("<!-- none/PCA: F1 -->.1<!-- / -->", "expected a method of README's table, got 'PCA'"),
        ("<!-- PCA: F2 -->.1<!-- / -->", "expected a number there in README's table"),
    ],
)
def test_what_the_table_lacks_is_refused(mark: str, message: str):
    with pytest.raises(ValueError, match=message):
        fill(mark, TABLES)


def test_the_command_writes_stale_pages_only(tmp_path: Path):
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "choose.md"
    page.write_text(NUMBER.sub(lambda mark: mark[0].replace("-->.", "-->.9"), (DOCS / "choose.md").read_text()))  # fmt: skip
    assert fill_pages(tmp_path) == [page]
    assert page.read_text() == (DOCS / "choose.md").read_text()
    assert fill_pages(tmp_path) == []
