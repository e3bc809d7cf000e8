"""The core's tests at both ends of its ranges, each in an environment of its own: `make ranges`.

    python tests/helpers/ranges.py [oldest middle newest pinned] [--folder build/ranges]

An end whose Python is not on PATH is left out, and said so. torch is what the index has for it: from
PyPI for Linux on x86-64 that is a CUDA build of several GB, which runs on a CPU too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of what the core declares, and of what its tests want beside it.
CORE: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
WITH_TESTS = ("pytest", "hypothesis", "beartype", "scikit-learn", "pandas", "packaging")
# No SAELens, no transformers, no Snakemake: what `pip install dbksvd` has.
TESTS = (
    "tests/base/test_codes.py",
    "tests/base/test_settings.py",
    "tests/base/test_variance.py",
    "tests/activations/test_shards.py",
    "tests/dictionaries/test_dictionary.py",
    "tests/fit/test_batches.py",
    "tests/fit/test_exact.py",
    "tests/fit/test_ksvd.py",
    "tests/fit/test_sklearn.py",
    "tests/ops/test_atom_update.py",
    "tests/ops/test_matching.py",
    "tests/ops/test_ols.py",
    "tests/ops/test_pursuit.py",
)


@dataclass(frozen=True)
class End:
    """A Python, and the versions that are fixed in its environment."""

    python: str
    pins: tuple[str, ...]


ENDS = {
    "oldest": End("3.11", ("torch==2.11.0", "numpy==1.26.4")),
    "middle": End("3.12", ("torch==2.12.1", "numpy>=2")),
    "newest": End("3.13", ("torch==2.13.0", "numpy>=2")),
    "pinned": End("3.11", ("torch==2.13.0", "numpy>=2")),  # the lock's torch beside a new NumPy
}


def find_interpreter(version: str) -> str | None:
    """Return the Python of a version if PATH has one that starts; one of pyenv's may not."""
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    started = subprocess.run([found, "--version"], capture_output=True, check=False)
    return found if started.returncode == 0 else None


def make_environment(end: End, folder: Path) -> Path | None:
    """Return the Python of an environment, made where it is not there; None without its Python."""
    python, stamp = folder / "bin/python", folder / "requirements.txt"
    wanted = "\n".join([*end.pins, *CORE, *WITH_TESTS]) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    interpreter = find_interpreter(end.python)
    if interpreter is None:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", *end.pins, *CORE, *WITH_TESTS]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)
    return python


def run_tests(python: Path) -> tuple[int, str]:
    """Run the core's tests; return status and what the last line says."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(python.parents[1])}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stdout.write(done.stdout[-8000:] + done.stderr[-2000:])
    told = re.findall(r"^=* ?(.*(?:passed|failed|error).*?) ?=*$", done.stdout, re.MULTILINE)
    return done.returncode, told[-1] if told else "no test ran"


def list_versions(python: Path) -> str:
    """Return the versions that matter, of an environment."""
    code = (
        "import platform; from importlib.metadata import version as v;"
        "names = ('torch', 'numpy', 'numba', 'scipy', 'scikit-learn', 'pydantic');"
        "print('Python', platform.python_version(), *(f'{n} {v(n)}' for n in names))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Test the ends that are named, or all; the status is 1 if one failed or none could be tested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ends", nargs="*", choices=[*ENDS, []], metavar="END", default=[])
    parser.add_argument("--folder", type=Path, default=ROOT / "build/ranges")
    arguments = parser.parse_args()
    failed, tested = False, 0
    for name in arguments.ends or ENDS:
        end = ENDS[name]
        python = make_environment(end, arguments.folder.resolve() / name)
        if python is None:
            sys.stdout.write(f"{name}: left out, no python{end.python} that starts on PATH\n")
            continue
        status, told = run_tests(python)
        failed, tested = failed or status != 0, tested + 1
        sys.stdout.write(f"{name}: {told}; {list_versions(python)}")
        sys.stdout.flush()
    return int(failed or not tested)


if __name__ == "__main__":
    sys.exit(main())
