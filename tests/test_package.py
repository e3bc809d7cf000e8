"""The package as users install it: from any folder, with what it declares and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ranges import CORE as DECLARED
from ranges import ENDS, TESTS, WITH_TESTS

from dbksvd.base.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Hides what is neither the standard library, this package, nor named on the command line.
FENCE = """
import sys
from importlib import machinery, metadata
allowed = set(sys.argv[1:]) | {"dbksvd"}
homes = metadata.packages_distributions()
class Fence(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        names = {home.lower().replace("_", "-") for home in homes.get(name.partition(".")[0], ())}
        if names and not names & allowed:
            return None
        return super().find_spec(name, path, target)
sys.meta_path[:] = [machinery.BuiltinImporter, machinery.FrozenImporter, Fence]
"""
CORE = """
import tempfile
import numpy, torch
import dbksvd
for name in dbksvd.__all__:
    assert getattr(dbksvd, name) is not None
x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
model = dbksvd.DBKSVD(16, 2, max_iter=2, polish_iter=0).fit(x)
codes = model.transform(x)
with tempfile.TemporaryDirectory() as folder:
    model.dictionary_.save(f"{folder}/dictionary")
    loaded = dbksvd.load_dictionary(f"{folder}/dictionary")
    assert torch.equal(loaded.atoms, model.dictionary_.atoms)
    assert torch.equal(loaded.encode(x).values, codes.values)
assert dbksvd.KSVD(16, 2, max_iter=1).fit(x).dictionary_.atoms.shape == (16, 8)
assert dbksvd.sparse_encode(x.numpy(), loaded.atoms.numpy(), 2).values.shape == (200, 2)
numpy.save("rows.npy", x.numpy())
call("fit", "rows.npy", "small", "--atoms", "16", "--k", "2")
call("encode", "small", "rows.npy", "codes.safetensors")
call("export", "small", "small.safetensors", "--format", "safetensors")
try:
    call("export", "small", "split", "--format", "sign-split")
except AssertionError:
    pass  # SAELens is not there, as one line says
"""
# The command, which ends by SystemExit.
CALL = """
def call(*words):
    from dbksvd.command.main import main
    try:
        main(list(words))
    except SystemExit as ended:
        assert ended.code in (0, None), ended.code
"""
# Every module below some rooms; what runs on CUDA only is left out, since Triton comes with torch.
IMPORT_ALL = """
from importlib import import_module
from pkgutil import walk_packages
def import_all(*rooms):
    count = 0
    for room in rooms:
        place = import_module(room)
        for module in walk_packages(getattr(place, "__path__", []), f"{room}."):
            if not module.name.rpartition(".")[2].startswith(("cuda", "triton")):
                import_module(module.name)
                count += 1
    return count
"""
SYNTHETIC = ("init", "--like", "synthetic", "mine")
EXTRAS = {
    "sae": """
from sae_lens import SAE
import dbksvd.fit.sae.trainer, dbksvd.dictionaries.switch, dbksvd.dictionaries.kron
import tempfile, torch, dbksvd
from dbksvd.dictionaries.loading import load_sae
atoms = torch.nn.functional.normalize(torch.randn(16, 8), dim=1)
from dbksvd.dictionaries.dictionary import PursuitSettings
with tempfile.TemporaryDirectory() as folder:
    dbksvd.Dictionary(atoms, torch.zeros(8), PursuitSettings(2)).save(f"{folder}/d")
    assert load_sae(f"{folder}/d").cfg.d_sae == 32
    assert SAE.load_from_disk(f"{folder}/d").cfg.d_sae == 16
    call("export", f"{folder}/d", f"{folder}/split", "--format", "sign-split")
    assert dbksvd.load_dictionary(f"{folder}/split").atoms.shape == (32, 8)
""",
    "saebench": """
import os
os.environ["JAXTYPING_DISABLE"] = "1"
import dbksvd.evaluation.saebench.runner
from dbksvd.evaluation.saebench.registry import EVALS, find_eval
for name in EVALS:
    assert find_eval(name).settings is not None
import sae_bench.evals.core.main
""",
    "figures": """
import dbksvd.report.collect, dbksvd.report.summary, dbksvd.report.matched, dbksvd.report.budgets
from dbksvd.report.figures.registry import FIGURES, find_figure
import matplotlib.pyplot, seaborn
assert all(find_figure(name).caption for name in FIGURES)
from dbksvd.report.headlines import list_headlines
assert len(list_headlines()) > 10
import dbksvd.features.collect, dbksvd.features.exports
from dbksvd.report.pages import explain, images, render
import torch
from dbksvd.features.geometry import draw_map
assert draw_map(torch.randn(9, 4), signed=False).shape == (9, 2)
""",
    "workflow": """
call("init", "--like", "synthetic", "mine")
call("check", "mine/config.yaml")
call("init", "--text", "notes.txt", "texts")
rooms = ("text", "models", "images", "estimates")  # samples with known features need SAELens too
assert import_all("workflow", *(f"dbksvd.{room}" for room in rooms)) > 70
from dbksvd.activations import from_files, from_images, from_text, sharding
import snakemake, gguf, accelerate, zstandard  # asked for by transformers, pandas and shells
""",
}
EXTRAS["slurm"] = """
call("init", "--like", "synthetic", "planned")
call("profile", "my-cluster")
call("run", "planned/config.yaml", "--profile", "my-cluster", "--", "-n")
"""
# `all` is enough for every module there is.
EXTRAS["all"] = "\n".join([*EXTRAS.values(), 'assert import_all("dbksvd", "workflow") > 300'])


def find_closure(requirements: list[str]) -> set[str]:
    """Return the installed distributions that requirements ask for, with all that those ask for."""
    waiting = [Requirement(text) for text in requirements]
    found: set[str] = set()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), tuple(sorted(wanted.extras))
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "dbksvd":
            own = PROJECT["optional-dependencies"]
            waiting += [Requirement(text) for extra in extras for text in own[extra]]
            continue
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # a choice of another platform, or left out (requirements.overrides)
        found.add(name)
        for text in asked:
            need = Requirement(text)
            contexts = [{"extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(need.marker.evaluate(context) for context in contexts):
                waiting.append(need)
    return found


def run_fenced(code: str, allowed: set[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in `folder` with the distributions `allowed` only."""
    prelude = f"{FENCE}sys.path.insert(0, {str(ROOT)!r})\n{CALL}{IMPORT_ALL}"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prelude + code, *allowed],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_declared_dependencies_are_enough(tmp_path: Path):
    done = run_fenced(CORE, find_closure(PROJECT["dependencies"]), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "error: sae_lens: expected what this command needs" in done.stderr


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"]))
def test_dependencies_of_an_extra_are_enough(extra: str, tmp_path: Path):
    allowed = find_closure([*PROJECT["dependencies"], f"dbksvd[{extra}]"])
    notes = (f"note {i}: some words of mine, and a few more\n" for i in range(400))
    (tmp_path / "notes.txt").write_text("".join(notes))
    done = run_fenced(EXTRAS[extra], allowed, tmp_path)
    assert done.returncode == 0, done.stderr


def test_ends_that_are_tested_are_those_declared():
    """`make ranges` begins where the declared ranges begin, and has every Python that is named."""
    least = {
        canonicalize_name(need.name): str(need.specifier).removeprefix(">=")
        for need in map(Requirement, DECLARED)
        if need.name in ("torch", "numpy")
    }
    pins = dict(pin.split("==") for pin in ENDS["oldest"].pins)
    assert {name: version.startswith(least[name]) for name, version in pins.items()} == {
        "torch": True,
        "numpy": True,
    }
    pythons = {end.python for end in ENDS.values()}
    assert PROJECT["requires-python"] == f">={ENDS['oldest'].python}" == f">={min(pythons)}"
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if " :: 3." in line}
    assert named == pythons
    assert all((ROOT / path).is_file() for path in TESTS)


def test_tests_of_the_ends_want_no_more_than_their_environments_have(tmp_path: Path):
    wanted = [str(ROOT / path) for path in TESTS]
    command = ["--collect-only", "-q", "-p", "no:cacheprovider", *wanted]
    code = (
        "Fence.__name__ = 'PathFinder'\n"  # jaxtyping looks for it by its name
        "import os, pytest\n"
        "os.environ.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD='1', HYPOTHESIS_NO_PLUGINS='1')\n"
        f"sys.exit(pytest.main({command}))\n"
    )
    done = run_fenced(code, find_closure([*DECLARED, *WITH_TESTS]), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]


def test_fence_refuses_what_is_not_declared(tmp_path: Path):
    allowed = find_closure(PROJECT["dependencies"])
    done = run_fenced("import seaborn\n", allowed, tmp_path)
    assert done.returncode == 1
    assert "No module named 'seaborn'" in done.stderr


def test_installed_package_works_from_any_folder(tmp_path: Path):
    target, elsewhere = tmp_path / "site", tmp_path / "else where"
    elsewhere.mkdir()
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "dbksvd"):  # no build folder in the project
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
        capture_output=True,
    )
    code = "import dbksvd; from dbksvd import DBKSVD; print(dbksvd.__file__, dbksvd.__version__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=elsewhere,
        env={"PYTHONPATH": str(target), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    path, version = done.stdout.rsplit(" ", 1)
    assert Path(path).is_relative_to(target)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version)
    assert not list(target.glob("tests"))
    pages = Path("dbksvd/report/pages")
    for folder in ("templates", "static"):  # they are no Python
        names = {file.name for file in (ROOT / pages / folder).iterdir()}
        assert {file.name for file in (target / pages / folder).iterdir()} == names
        assert names


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from it, as `make dist` makes them."""
    folder = tmp_path_factory.mktemp("built")
    left_out = shutil.ignore_patterns(".*", "results", "build", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=left_out)
    for name in ("results/mine/table.csv", "build/lib/dbksvd/old.py"):  # as in a clone after work
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_what_is_published_is_small_and_whole(built: tuple[Path, Path]):
    sdist, wheel = built
    for path in built:
        assert path.name.startswith(f"dbksvd-{__version__}"), path.name
        assert path.stat().st_size < 1_000_000, path.name
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in packed | names}
    assert not tops & {"tests", "results", "docs", "benchmarks", "build", ".test"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dbksvd").rglob("*.py")}
    carried = {"workflow/Snakefile", "config.yaml", "envs/fit.yaml", "profiles/slurm/config.yaml"}
    carried |= {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    assert {"dbksvd/py.typed", *modules} <= packed
    assert carried | {"LICENSE", "CHANGELOG.md", "CITATION.cff", "requirements.lock"} <= packed
    assert {"dbksvd/py.typed", *modules} <= names
    assert {f"dbksvd/_project/{name}" for name in carried} <= names
    assert "dbksvd/old.py" not in names


@pytest.mark.slow
def test_an_index_would_take_it(built: tuple[Path, Path]):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_the_wheel_carries_the_workflow(built: tuple[Path, Path], tmp_path: Path):
    """From a folder that knows nothing of this clone: a config is made, and its run is planned."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    site = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*pip, *install, built[1]], check=True, capture_output=True)

    def run(*arguments: str, folder: Path) -> str:
        program = "from dbksvd.command.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*SYNTHETIC, folder=tmp_path)
    found = json.loads(run("status", "--json", folder=tmp_path / "mine"))
    rules = [job["rule"] for job in found["jobs"]]
    assert rules.count("fit_dictionary") == found["done"]["dictionaries"][1] == 10
    model = "results/mine/synthetic/model/synthetic_model.safetensors"
    run("run", "--", model, folder=tmp_path / "mine")
    assert (tmp_path / "mine" / model).is_file()
