"""A test double of conda that Snakemake accepts. It solves nothing and downloads nothing.

It stands in where no conda channel can be reached. ``env create`` makes a virtual environment that
sees the packages of the Python of the tests, after checking that those are the very versions which
the environment file pins; it hides every distribution that the file does not ask for, directly or
through what it asks for. So a rule finds in its environment what its file says, and no more.

Not shown by it: that conda-forge has a Python 3.11, and that pip would find and install the pins.
"""

from __future__ import annotations

import json
import re
import sys
import venv
from importlib import metadata
from pathlib import Path

import yaml

VERSION = "24.7.1"  # the oldest that Snakemake takes
REQUEST = "request.json"  # what was asked for, in the environment's folder


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--version"]:
            sys.stdout.write(f"conda {VERSION}\n")
        case ["info", "--json"]:
            prefix = str(Path(__file__).parent)
            sys.stdout.write(json.dumps({"conda_prefix": prefix, "platform": "linux-64"}) + "\n")
        case ["config", "--get", "channel_priority", "--json"]:
            sys.stdout.write(json.dumps({"get": {"channel_priority": "strict"}}) + "\n")
        case ["clean", *_]:
            pass  # it keeps no downloads
        case ["env", "create", *options] if "--file" in options and "--prefix" in options:
            values = {name: options[options.index(name) + 1] for name in ("--file", "--prefix")}
            return create_environment(Path(values["--file"]), Path(values["--prefix"]))
        case _:
            sys.stderr.write(f"conda double: not played: {' '.join(arguments)}\n")
            return 2
    return 0


def create_environment(file: Path, prefix: Path) -> int:
    content = yaml.safe_load(file.read_text())
    *_, last = content["dependencies"]
    pins = dict(line.split("==") for line in last["pip"])
    wrong = [
        f"{name}: pinned to {version}, found {found}"
        for name, version in pins.items()
        if (found := find_version(name)) != version
    ]
    if wrong:
        sys.stderr.write(f"conda double: {file.name}: {'; '.join(wrong)}\n")
        return 1
    venv.create(prefix, with_pip=False, symlinks=True)
    packages = next(prefix.glob("lib/python*/site-packages"))
    for name in sorted(close_over(pins)):
        link_distribution(metadata.distribution(name), packages)
    request = {"name": content["name"], "file": str(file), "pins": pins}
    (prefix / REQUEST).write_text(json.dumps(request, indent=2))
    return 0


def find_version(name: str) -> str | None:
    """Return the installed version without a local part such as ``+cpu``."""
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def close_over(names: dict[str, str]) -> set[str]:
    """Return `names` and every installed distribution that they need, whatever the marker."""
    waiting, reached = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in reached or find_version(name) is None:
            continue
        reached.add(name)
        for requirement in metadata.requires(name) or ():
            if "extra ==" not in requirement:
                waiting.append(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
    return reached


def link_distribution(distribution: metadata.Distribution, packages: Path) -> None:
    """Link the top-level files and folders of an installed distribution into `packages`."""
    root = Path(str(distribution.locate_file("")))
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        link = packages / top
        if not link.exists() and (root / top).exists():
            link.symlink_to(root / top)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
