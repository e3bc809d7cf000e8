"""A sha256 over a script and every module of this project that it imports.

Snakemake reruns a rule when one of its params changes. Giving each rule this hash as a param makes
an edit rerun exactly the rules whose results it can change, which modification times do not.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("dbksvd",)


def hash_sources(root: Path, entries: Iterable[str]) -> str:
    """Hash the files `entries` (relative to `root`) and all they import from this project.

    Parameters
    ----------
    root : Path
        Folder that holds the package ``dbksvd``.
    entries : iterable of str
        Scripts or modules to start from, such as ``scripts/fit_dictionary.py``.

    Returns
    -------
    str
        64 hexadecimal digits; the same wherever the folder lies and whenever it was touched.
    """
    digest = hashlib.sha256()
    for path in sorted(_reach(root, entries)):
        digest.update(path.encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return digest.hexdigest()


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
    """
    found: set[str] = set()
    for module in _list_modules(ast.parse((root / path).read_text(), filename=path)):
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            base = "/".join(parts[:length])
            found.update(
                name for name in (f"{base}.py", f"{base}/__init__.py") if (root / name).is_file()
            )
    return tuple(sorted(found))


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
