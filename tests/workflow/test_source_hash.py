"""The hash of a rule's sources sees exactly what can change its result."""

import os
import shutil
from pathlib import Path

import pytest

from workflow.pages import list_static_files
from workflow.source_hash import SourceRecord, hash_sources

ROOT = Path(__file__).parents[2]
FILES = {
    "scripts/a.py": "import json\nfrom dbksvd.one import f\n",
    "scripts/b.py": "def g():\n    import dbksvd.deep.inner\n",
    "scripts/c.py": "from dbksvd.deep import inner\n",
    "dbksvd/__init__.py": "from importlib import import_module\nfrom dbksvd.base.version import v\n\n\ndef late(): return import_module('dbksvd.two')\n",
    "dbksvd/base/version.py": "v = '0.1.0'\n",
    "dbksvd/one.py": "from dbksvd.three import h\n",
    "dbksvd/two.py": "x = 2\n",
    "dbksvd/three.py": "h = 3\n",
    "dbksvd/deep/__init__.py": "",
    "dbksvd/deep/inner.py": "y = 1\nfrom dbksvd.deep.registry import TABLE\n",
    "dbksvd/deep/registry.py": "TABLE = {'one': 'dbksvd.one:ENTRY'}\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def hashes(root: Path) -> dict[str, str]:
    from workflow.source_hash import _find_imports

    _find_imports.cache_clear()
    return {name: hash_sources(root, [f"scripts/{name}.py"]) for name in "abc"}


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("scripts/a.py", "a"),
        ("dbksvd/one.py", "a"),
        ("dbksvd/three.py", "a"),
        ("dbksvd/two.py", ""),
        ("dbksvd/__init__.py", "abc"),
        ("dbksvd/deep/inner.py", "bc"),
        ("dbksvd/deep/__init__.py", "bc"),
        ("dbksvd/base/version.py", ""),  # a release alone changes no result
        ("dbksvd/deep/registry.py", ""),  # a line more in a table changes nobody's result
    ],
)
def test_an_edit_changes_the_hash_of_those_that_import_it(tree: Path, edited: str, changed: str):
    before = hashes(tree)
    path = tree / edited
    times = path.stat()
    path.write_text(path.read_text() + "# edited\n")
    os.utime(path, (times.st_atime, times.st_mtime))  # an old time must not hide an edit
    after = hashes(tree)
    assert "".join(name for name in "abc" if before[name] != after[name]) == changed


def test_a_template_is_hashed_and_imports_nothing(tree: Path):
    (tree / "page.html").write_text("{{ not python")
    entries = ["scripts/a.py", "page.html"]
    before = hash_sources(tree, entries)
    assert before != hash_sources(tree, ["scripts/a.py"])
    (tree / "page.html").write_text("{{ edited")
    assert hash_sources(tree, entries) != before


def test_templates_of_pages_are_those_that_lie_there():
    listed = list_static_files()
    folder = ROOT / "dbksvd/report/pages"
    lying = [path for name in ("templates", "static") for path in (folder / name).iterdir()]
    assert listed == sorted(str(path.relative_to(ROOT)) for path in lying)


def test_touching_and_moving_change_nothing(tree: Path, tmp_path: Path):
    before = hashes(tree)
    for path in tree.rglob("*.py"):
        path.touch()
    assert hashes(tree) == before
    moved = shutil.copytree(tree, tmp_path / "another place")
    assert hashes(moved) == before


def test_relative_import_is_refused(tree: Path):
    (tree / "dbksvd" / "one.py").write_text("from . import two\n")
    with pytest.raises(ValueError, match="line 1: expected an absolute import"):
        hashes(tree)


def test_every_project_import_is_found():
    """The walker agrees with the interpreter: nothing a script loads of ours is missed."""
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    from workflow.source_hash import VERSION, _reach

    script = "scripts/collect_curves.py"
    listing = (
        "import sys, runpy; sys.argv=['x','--help']\n"
        f"try: runpy.run_path({script!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0]=='dbksvd'], sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        str(Path(line).relative_to(root))
        for line in done.stdout.split("\n")
        if line.endswith(".py")
    }
    assert "dbksvd/base/files.py" in loaded
    assert loaded - {VERSION} <= _reach(root, [script])


def test_record_names_the_files_that_changed_since_the_last_run(tree: Path, tmp_path: Path):
    from workflow.source_hash import _find_imports

    path = tmp_path / "record.json"
    first = SourceRecord(tree, path)
    before = [first.hash("scripts/a.py"), first.hash("scripts/b.py")]
    assert [line for _, line in before] == [None, None]  # nothing to compare with
    assert before[0][0] == hash_sources(tree, ["scripts/a.py"])
    first.save()

    (tree / "dbksvd/three.py").write_text("h = 4\n")
    (tree / "dbksvd/one.py").write_text("from dbksvd.two import x\n")
    _find_imports.cache_clear()
    second = SourceRecord(tree, path)
    digest, line = second.hash("scripts/a.py")
    assert digest != before[0][0]
    assert line == ("code of scripts/a.py changed: dbksvd/one.py, dbksvd/three.py, dbksvd/two.py")
    assert second.hash("scripts/a.py") == (digest, None)  # said once
    assert second.hash("scripts/b.py") == before[1]
    # A run that breaks off saves nothing: the next one says it again.
    assert SourceRecord(tree, path).hash("scripts/a.py")[1] == line
    second.save()
    assert SourceRecord(tree, path).hash("scripts/a.py") == (digest, None)


def test_damaged_record_compares_nothing(tree: Path, tmp_path: Path):
    (tmp_path / "record.json").write_text("{")
    assert SourceRecord(tree, tmp_path / "record.json").hash("scripts/a.py")[1] is None
