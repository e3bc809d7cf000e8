"""envs/*.yaml say what requirements.lock says, and hold what the scripts of their rules import."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from running import CONFIG, ROOT, copy_project, make_environment, run_snakemake

from dbksvd.base.registry import find_source
from dbksvd.evaluation.saebench.registry import EVALS
from dbksvd.fit.registry import METHODS
from dbksvd.report.figures.registry import FIGURES
from dbksvd.report.registry import TABLES
from dbksvd.text.sources.registry import SOURCES
from workflow.source_hash import _reach

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
LOCK = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line
)
# Names under which distributions are imported, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
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


def map_rules() -> dict[str, str]:
    """Return {rule: name of its environment}, read from the rules themselves."""
    texts = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    rules = {}
    for text in texts:
        for block in re.split(r"^(?:rule|checkpoint) ", text, flags=re.MULTILINE)[1:]:
            rules[block.split(":")[0]] = "dbksvd-" + re.findall(r"envs/(\w+)\.yaml", block)[0]
    for text in texts:
        for base, name in re.findall(r"^use rule (\w+) as (\w+) with:", text, re.M):
            rules[name] = rules[base]
    return rules


def list_rules() -> dict[str, set[str]]:
    """Return {environment: scripts of its rules}, read from the rules themselves."""
    scripts: dict[str, set[str]] = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^(?:rule|checkpoint) ", path.read_text(), flags=re.MULTILINE)[1:]:
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


def list_entries(path: Path) -> list[str]:
    """Return the files that the rules of an environment begin at, those found by name too."""
    tables = {
        "fit.yaml": [METHODS],
        "evaluation.yaml": [EVALS],
        "figures.yaml": [FIGURES, TABLES],
        "activations.yaml": [SOURCES],
    }
    named = {find_source(table, name) for table in tables[path.name] for name in table}
    return sorted(list_rules()[path.name] | named)


def find_imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the distributions that import statements want, but ours and Python's."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    # Triton comes with a torch that has CUDA, and is imported nowhere else.
    found -= set(sys.stdlib_module_names) | {"dbksvd", "triton"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in found}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_imports_are_covered(path: Path):
    trees = [ast.parse((ROOT / file).read_text()) for file in _reach(ROOT, list_entries(path))]
    assert not set().union(*(find_imports(tree.body) for tree in trees)) - set(read_pins(path))
    # imports inside functions may be of what a pin brings with it
    brought = {canonicalize_name(name) for name, _ in list_requirements(path)}
    assert not set().union(*(find_imports(ast.walk(tree)) for tree in trees)) - brought


def read_overrides() -> set[str]:
    """Return the distributions whose versions requirements.lock sets against what others ask."""
    lines = (ROOT / "requirements.overrides").read_text().splitlines()
    return {
        canonicalize_name(Requirement(line.split("#")[0]).name)
        for line in lines
        if line.split("#")[0].strip()
    }


def list_requirements(path: Path) -> list[tuple[str, list[Requirement]]]:
    """Return each distribution of an environment, down to the last, with what it needs."""
    lock, overrides = {canonicalize_name(name) for name in LOCK}, read_overrides()
    waiting, found = [canonicalize_name(name) for name in read_pins(path)], {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        needs = [Requirement(line) for line in metadata.requires(name) or ()]
        found[name] = [
            need
            for need in needs
            if canonicalize_name(need.name) not in overrides
            # torch brings its CUDA libraries by itself.
            and not (name == "torch" and canonicalize_name(need.name) not in lock)
            and (need.marker is None or need.marker.evaluate({"extra": ""}))
        ]
        waiting += [canonicalize_name(need.name) for need in found[name]]
    return list(found.items())


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
def test_pins_and_all_they_need_agree_with_the_lock(path: Path):
    """The lock is a solution of every environment: each requirement holds, down to the last."""
    lock = {canonicalize_name(name): version for name, version in LOCK.items()}
    found = list_requirements(path)
    for name, needs in found:
        for need in needs:
            version = lock[canonicalize_name(need.name)]
            assert need.specifier.contains(version, prereleases=True), f"{name}: {need}"
    assert len(found) > 20


@pytest.mark.slow
def test_pip_resolves_the_smallest_environment(tmp_path: Path):
    """The same against a package index; the others resolve too, but take pip minutes."""
    requirements = tmp_path / "requirements.txt"
    pins = read_pins(ROOT / "envs/figures.yaml")
    requirements.write_text("\n".join(f"{name}=={version}" for name, version in pins.items()))
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*pip, "--retries", "1", "--report", report, "--requirement", requirements],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if re.search(r"NewConnectionError|ConnectTimeout|Name or service not known", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"].split("+")[0]
        for item in json.loads(report.read_text())["install"]
    }
    assert {canonicalize_name(name): version for name, version in pins.items()}.items() <= found.items()  # fmt: skip


@pytest.fixture(scope="module")
def separate_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of a run with --sdm conda, with the double of tests/conda_double."""
    folder = copy_project(tmp_path_factory.mktemp("conda") / "project")
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["activations"]["slices"] = 1
    config["fits"] = [{"methods": ["dbksvd"], "n_atoms": [16], "k": [2], "seeds": [0]}]
    del config["evaluation"]["evals"]["sparse_probing_sae_probes"]
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "CONDA_DOUBLE_PYTHON": sys.executable,
        "PATH": f"{ROOT}/tests/conda_double/bin:{make_environment()['PATH']}",
    }
    conda = ("--sdm", "conda", "--conda-prefix", "environments")
    done = run_snakemake(
        folder, "--cores", "1", *conda, config="small.yaml", environment=environment
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return folder, output


@pytest.mark.slow
def test_every_rule_runs_in_its_own_environment(separate_run: tuple[Path, str]):
    folder, output = separate_run
    names = {
        path.parent.name: json.loads(path.read_text())["name"]
        for path in (folder / "environments").glob("*/request.json")
    }
    assert set(names.values()) == {f"dbksvd-{path.stem}" for path in ENVIRONMENTS}
    jobs = re.findall(
        r"^(?:local)?(?:rule|checkpoint) (\w+):$|^Activating conda environment: environments/(\w+)$",
        output,
        re.MULTILINE,
    )
    ran, rule = {}, ""
    for name, prefix in jobs:
        if prefix:
            ran[rule] = names[prefix]
        rule = name or rule
    rules = map_rules()
    assert ran == {rule: rules[rule] for rule in ran}
    assert len(ran) > 8


@pytest.mark.slow
def test_environment_holds_what_its_file_names_and_nothing_else(separate_run: tuple[Path, str]):
    folder, _ = separate_run
    for path in (folder / "environments").glob("*/request.json"):
        request = json.loads(path.read_text())
        python = path.parent / "bin/python"
        probe = "import importlib.util as u; print(*[n for n in ('torch', 'h5py', 'sae_lens', 'sae_bench', 'seaborn', 'snakemake') if u.find_spec(n)])"  # fmt: skip
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
        found = set(done.stdout.split())
        expected = {
            "dbksvd-figures": {"torch", "seaborn"},
            "dbksvd-activations": {"torch", "h5py"},
            "dbksvd-fit": {"torch", "h5py", "sae_lens"},
            "dbksvd-evaluation": {"torch", "h5py", "sae_lens", "sae_bench"},
        }
        assert found >= expected[request["name"]], request["name"]
        assert "snakemake" not in found, request["name"]
