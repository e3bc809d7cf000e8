"""envs/*.yaml say what requirements.lock says, and hold what the scripts of their rules import."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

from workflow.source_hash import _reach

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
LOCK = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line
)
# Names under which distributions are imported, where they differ.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
    "sae_lens": "sae-lens",
    "sae_bench": "sae-bench",
    "sae_probes": "sae-probes",
    "transformer_lens": "transformer-lens",
}


def read_pins(path: Path) -> dict[str, str]:
    content = yaml.safe_load(path.read_text())
    assert content["dependencies"][0] == "python =3.11"
    return dict(pin.split("==") for pin in content["dependencies"][-1]["pip"])


def list_rules() -> dict[str, set[str]]:
    """Return {environment: scripts of its rules}, read from the rules themselves."""
    scripts: dict[str, set[str]] = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            environment = re.search(r"envs/(\w+\.yaml)", block)
            script = re.search(r"scripts/(\w+\.py)", block)
            assert environment, f"{path.name}: a rule without an environment"
            assert script, f"{path.name}: a rule without a script"
            scripts.setdefault(environment[1], set()).add(f"scripts/{script[1]}")
    return scripts


def test_every_rule_has_an_environment_that_exists():
    assert set(list_rules()) == {path.name for path in ENVIRONMENTS}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_versions_are_those_of_the_lock(path: Path):
    pins = read_pins(path)
    assert pins == {name: LOCK.get(name) for name in pins}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_imports_are_covered(path: Path):
    entries = list_rules()[path.name]
    if path.name == "fit.yaml":
        from dbksvd.fit.registry import ALGORITHMS

        entries |= {module.replace(".", "/") + ".py" for module in ALGORITHMS.values()}
    needed = set()
    for file in _reach(ROOT, sorted(entries)):
        # Imports inside functions are of optional parts, such as another stage's.
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.Import):
                needed |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                needed.add(node.module.split(".")[0])
    # Triton comes with a torch that has CUDA, and is imported nowhere else.
    needed -= set(sys.stdlib_module_names) | {"dbksvd", "triton"}
    missing = {DISTRIBUTIONS.get(name, name) for name in needed} - set(read_pins(path))
    assert not missing
