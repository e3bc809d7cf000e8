"""The house: imports only point down its floors, and what is imported is declared."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("dbksvd", "workflow", "benchmarks", "scripts")

# A module may import from its own floor and from those below. The longest prefix counts.
FLOORS = {
    "scripts": 6,
    "dbksvd.command": 6,
    "dbksvd": 7,  # its __init__, which offers names lazily: inside nothing imports it
    "benchmarks": 5,
    "workflow": 5,
    "dbksvd.estimates": 5,
    "dbksvd.report": 5,
    "dbksvd.evaluation": 4,
    "dbksvd.features": 4,
    "dbksvd.fit": 4,
    "dbksvd.activations": 3,
    "dbksvd.dictionaries": 3,
    "dbksvd.images": 2,
    "dbksvd.models": 2,
    "dbksvd.ops": 2,
    "dbksvd.synthetic": 2,
    "dbksvd.text": 2,
    "dbksvd.base": 1,
}
MOST_FLAT = 10
# The packages that offer what is installed for the benchmarks only.
NOT_INSTALLED = {"spams": ["spams-bin"]}


def name_module(path: Path) -> str:
    """Return the dotted name of a file of the project."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_module(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))
}


def find_floor(module: str) -> int:
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(FLOORS[name] for name in names if name in FLOORS)


def find_room(module: str) -> str:
    """Return the folder of a module: the one below dbksvd, or one beside it."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "dbksvd" else parts[:1])


def list_imports(source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (module, names taken from it) of each import that runs, inside functions too."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield str(node.module), tuple(alias.name for alias in node.names)
        waiting += ast.iter_child_nodes(node)


@cache
def find_edges() -> dict[str, frozenset[str]]:
    """Return {module: the modules of the project that it imports}."""
    edges = {}
    for importer, path in MODULES.items():
        found = set()
        for module, names in list_imports(path.read_text()):
            inner = {f"{module}.{name}" for name in names} & MODULES.keys()
            # a module taken from its folder also runs the folder's __init__, which holds nothing
            found |= inner or {module} & MODULES.keys()
        edges[importer] = frozenset(found - {importer})
    return edges


def find_circles(edges: dict[str, frozenset[str]]) -> list[str]:
    """Return each circle among `edges` once, as "a > b > a"."""
    circles: dict[frozenset[str], str] = {}
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            circle = path[path.index(node) :]
            circles.setdefault(frozenset(circle), " > ".join([*circle, node]))
        elif node not in done:
            for other in sorted(edges.get(node, ())):
                visit(other, [*path, node])
            done.add(node)

    for node in sorted(edges):
        visit(node, [])
    return sorted(circles.values())


def test_the_checks_find_what_they_look_for():
    source = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
        "def f():\n    from c.d import e\n"
    )
    found = dict(list_imports(source))
    assert found == {"typing": ("TYPE_CHECKING",), "b": (), "c.d": ("e",)}
    edges = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("bd"), "d": frozenset()}
    assert find_circles(edges) == ["b > c > b"]
    assert find_floor("dbksvd.fit.ksvd.loop") == 4
    assert find_floor("dbksvd") == 7
    assert find_room("dbksvd.fit.ksvd.loop") == "dbksvd.fit"
    assert find_edges()["dbksvd.base.files"] <= MODULES.keys()


def test_every_module_has_a_floor_of_its_own():
    """None has that of the package's __init__, the top, by being forgotten here."""
    below = {name for name in MODULES if name.startswith("dbksvd.")}
    assert not [name for name in sorted(below) if find_floor(name) == FLOORS["dbksvd"]]


def list_offered(module: str) -> set[str]:
    """Return the names that a module binds at its top, and those of the modules below it."""
    found = {name.removeprefix(f"{module}.") for name in MODULES if name.startswith(f"{module}.")}
    for node in ast.walk(ast.parse(MODULES[module].read_text())) if module in MODULES else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("folder", [*FOLDERS, "tests"])
def test_what_is_imported_of_ours_is_there(folder: str):
    """Inside functions too, where the interpreter looks only when they are called."""
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module, names in list_imports(path.read_text()):
            if module.split(".")[0] not in FOLDERS or module == "dbksvd":  # which is lazy
                continue
            missing = set(names) - list_offered(module)
            if missing or not (module in MODULES or (ROOT / module.replace(".", "/")).is_dir()):
                wrong.append(f"{path.relative_to(ROOT)}: {module}: {sorted(missing)}")
    assert not wrong, "\n".join(wrong)


def test_no_import_runs_back_up():
    wrong = [
        f"{importer} (floor {find_floor(importer)}) imports {module} (floor {find_floor(module)})"
        for importer, modules in find_edges().items()
        for module in sorted(modules)
        if find_floor(module) > find_floor(importer)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_modules():
    circles = find_circles(find_edges())
    assert not circles, "\n".join(circles)


def test_no_circle_between_rooms():
    rooms: dict[str, set[str]] = {}
    for importer, modules in find_edges().items():
        room = find_room(importer)
        rooms.setdefault(room, set()).update({find_room(name) for name in modules} - {room})
    circles = find_circles({room: frozenset(others) for room, others in rooms.items()})
    assert not circles, "\n".join(circles)


def test_init_files_hold_a_docstring_only():
    """What they import would be a source of everything in and below their folders."""
    wrong = []
    for path in sorted((ROOT / "dbksvd").rglob("__init__.py")):
        body = ast.parse(path.read_text()).body
        is_docstring = [
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body
        ]
        if path.parent.name != "dbksvd" and is_docstring != [True]:
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong


def test_names_of_test_modules_differ():
    """Pytest imports them by their base names, from whatever folder."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


def test_few_modules_lie_flat():
    flat = sorted(path.name for path in (ROOT / "dbksvd").glob("*.py"))
    assert len(flat) <= MOST_FLAT, flat


def test_the_package_does_not_know_snakemake():
    for module, path in MODULES.items():
        if module.startswith("dbksvd"):
            names = {name.split(".")[0] for name, _ in list_imports(path.read_text())}
            assert not {name for name in names if name.startswith("snakemake")}, module


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(*files: str) -> set[str]:
    """Return the names of the packages that some files list."""
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    matches = [re.match(r"[A-Za-z0-9._-]+", line.strip()) for line in lines]
    return {normalise(match[0]) for match in matches if match}


def list_outside_imports(folder: str) -> dict[str, str]:
    """Return {top-level package: a file that imports it} of what is neither ours nor Python's."""
    ours = {*FOLDERS, *(p.stem for f in ("tests", "scripts") for p in (ROOT / f).rglob("*.py"))}
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module, _ in list_imports(path.read_text()):
            name = module.split(".")[0]
            if name not in ours and name not in sys.stdlib_module_names:
                found[name] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        (
            "dbksvd",
            ("tests/requirements-triton.txt",),
        ),  # a CUDA build of torch brings its own Triton
        ("scripts", ()),
        ("workflow", ("tests/requirements.txt",)),
        ("benchmarks", ("benchmarks/requirements.txt",)),
        ("tests", ("tests/requirements.txt", "tests/requirements-triton.txt")),
    ],
)
def test_what_is_imported_is_declared(folder: str, files: tuple[str, ...]):
    declared = read_requirements("requirements.in", *files)
    distributions = NOT_INSTALLED | dict(packages_distributions())
    wrong = {}
    for name, path in list_outside_imports(folder).items():
        offered_by = {normalise(one) for one in distributions.get(name, [name])}
        if not offered_by & declared:
            wrong[name] = (path, sorted(offered_by))
    assert not wrong
