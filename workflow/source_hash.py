"""A sha256 over a script and every module of this project that it imports.

Snakemake reruns a rule when one of its params changes. Giving each rule this hash as a param makes
an edit rerun exactly the rules whose results it can change, which modification times do not.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dbksvd.base.files import write_json

PACKAGES = ("dbksvd",)
PACKAGE = Path(str(find_spec("dbksvd").origin)).parent  # type: ignore[union-attr]
REGISTRY = "registry.py"
VERSION = "dbksvd/base/version.py"


def hash_sources(root: Path, entries: Iterable[str]) -> str:
    """Hash the files `entries` (relative to `root`) and all they import from this project.

    Parameters
    ----------
    root : Path
        Folder that holds ``scripts/``, and in a clone the package ``dbksvd``.
    entries : iterable of str
        Scripts or modules to start from, such as ``scripts/fit_dictionary.py``.

    Returns
    -------
    str
        64 hexadecimal digits; the same wherever the folder lies and whenever it was touched.
    """
    return _join_hashes(hash_files(root, entries))


def hash_files(root: Path, entries: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of each file that `entries` reach, by path relative to `root`."""
    return {
        path: hashlib.sha256(_locate(root, path).read_bytes()).hexdigest()
        for path in sorted(_reach(root, entries))
    }


def _locate(root: Path, path: str) -> Path:
    """Return a file of the project: where the package is installed, it lies beside its own files.

    The workflow then is a folder inside the package.
    """
    found = root / path
    return found if found.exists() else PACKAGE.parent / path


def _join_hashes(hashes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for path, value in hashes.items():
        digest.update(f"{path}\0{value}\0".encode())
    return digest.hexdigest()


class SourceRecord:
    """Hashes of sources, compared with those of the last run that ended well.

    A rule that runs again because of code would show two hashes only. The record says in a line
    which files differ.

    Parameters
    ----------
    root : Path
        Folder that holds the package ``dbksvd``.
    path : Path
        JSON file of the record; where it is missing or damaged, nothing is compared.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        self._before = self._read()
        self._now: dict[str, dict[str, str]] = {}

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def hash(self, *entries: str) -> tuple[str, str | None]:
        """Return the hash of `entries`, and a line about what changed: once for each difference."""
        name = " ".join(entries)
        if name in self._now:
            return _join_hashes(self._now[name]), None
        self._now[name] = found = hash_files(self.root, entries)
        before = self._before.get(name)
        line = None
        if before is not None and before != found:
            changed = sorted(
                path for path in before.keys() | found.keys() if before.get(path) != found.get(path)
            )
            line = f"code of {name} changed: {', '.join(changed)}"
        return _join_hashes(found), line

    def save(self) -> None:
        """Write the record, with what this run did not ask for as it was."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self._before, **self._now})


def _reach(root: Path, entries: Iterable[str]) -> set[str]:
    waiting, reached = list(entries), set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _find_imports(root, path)
    return reached


@cache
def _find_imports(root: Path, path: str) -> tuple[str, ...]:
    """Return the project files that one file imports, relative to `root`.

    Only import statements count, wherever they stand. A module named in a string is not followed:
    that is how ``dbksvd/__init__.py`` offers names without making every rule depend on every file.
    Nor is a registry: it only says where an entry is, and rules name the entries that they use.
    Nor is the version: a release whose code is the same reruns nothing.
    A file that is no Python, such as a template, imports nothing.
    """
    if not path.endswith(".py"):
        return ()
    found: set[str] = set()
    for module in _list_modules(ast.parse(_locate(root, path).read_text(), filename=path)):
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            base = "/".join(parts[:length])
            found.update(
                name
                for name in (f"{base}.py", f"{base}/__init__.py")
                if _locate(root, name).is_file()
            )
    return tuple(sorted(path for path in found if Path(path).name != REGISTRY and path != VERSION))


def _list_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: expected an absolute import")
            if node.module and _is_ours(node.module):
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES
