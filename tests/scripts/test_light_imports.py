"""Which heavy packages each job imports before it does anything, and those a fit never needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
# Each takes from half a second to eight seconds of processor time to import.
HEAVY = {
    *("torch", "numba", "sklearn", "pandas", "matplotlib", "seaborn"),
    *("transformers", "datasets", "transformer_lens", "sae_lens", "sae_bench", "sae_probes"),
}


def list_imports(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the modules that statements import when a module is loaded: no function is called."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from list_imports(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            yield from list_imports(node.body)


def find_file(module: str) -> Path | None:
    """Return the file of a module of this project, None for others."""
    path = ROOT / module.replace(".", "/")
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


@cache
def read_imports(file: Path) -> tuple[str, ...]:
    return tuple(list_imports(ast.parse(file.read_text()).body))


def find_heavy(script: str) -> set[str]:
    """Return the heavy packages that a script and all it imports of this project begin with."""
    waiting, seen, heavy = [ROOT / f"scripts/{script}.py"], set(), set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in read_imports(file):
            heavy |= {module.partition(".")[0]} & HEAVY
            parts = module.split(".")
            parents = (".".join(parts[:size]) for size in range(1, len(parts) + 1))
            waiting += [found for name in parents if (found := find_file(name)) is not None]
    return heavy


NEEDED = {
    "check_access": set(),
    "collect_curves": {"pandas"},
    "collect_encoders": {"pandas"},
    "collect_examples": {"numba", "sae_lens", "torch"},
    "collect_routing": {"pandas"},
    "collect_scores": {"pandas"},
    "collect_stability": {"pandas"},
    "convert_model": {"torch"},
    "draw_figure": {"matplotlib", "pandas", "seaborn"},
    "draw_synthetic_activations": {"sae_lens", "torch"},
    "evaluate_dictionary": {"torch"},  # and SAEBench for the process that forks, by warm_up()
    "extract_activations": {"torch"},
    "extract_image_activations": {"torch"},
    "fit_dictionary": {"pandas", "torch"},
    "make_synthetic_model": {"sae_lens", "torch"},
    "make_table": {"pandas"},
    "measure_first": {"pandas", "torch"},
    "measure_stability": {"torch"},
    "prepare_evaluation": {"torch"},
    "prepare_images": set(),
    "prepare_text": set(),
    "render_pages": {"pandas"},
    "score_encoders": {"sae_lens", "sklearn", "torch"},
    "score_ground_truth": {"sae_lens", "sklearn", "torch"},
    "shard_activations": {"torch"},
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_begins_with_what_it_needs(script: str):
    assert find_heavy(script) == NEEDED[script]


def test_a_fit_of_dbksvd_needs_no_sae_and_no_model():
    """Imports inside functions count here, and those of packages."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
import fit_dictionary
import torch
from dbksvd.fit.ksvd.dbksvd import DBKSVD
from dbksvd.evaluation.heldout import measure_dictionary
x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
measure_dictionary(DBKSVD(8, 2, max_iter=1).fit(x).dictionary_, x)
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(done.stdout.split()) <= {"torch", "numba", "pandas"}
