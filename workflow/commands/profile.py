"""A profile of one's own: a copy of one of this package, to be edited."""

from __future__ import annotations

import re
from pathlib import Path

from dbksvd.base.files import replace_file
from workflow.commands.loading import ROOT

SHIPPED = ROOT / "profiles"
FOLDER = Path("profiles")  # where `dbksvd run --profile NAME` looks first
FILE = "config.yaml"


def copy_profile(name: str, like: str, *, force: bool = False) -> Path:
    """Copy a profile of this package to ``profiles/NAME/config.yaml`` of the current folder.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    ValueError
        If this package has no such profile, or the name is none of a folder.
    FileExistsError
        If there is one of this name, unless `force`.
    """
    known = sorted(path.name for path in SHIPPED.iterdir() if (path / FILE).is_file())
    if like not in known:
        raise ValueError(f"--like: expected {', '.join(known)}, got {like!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name: expected letters, digits, ., _ and -, got {name!r}")
    if name in known:  # a command that names it would mean the copy in this folder alone
        raise ValueError(f"name: expected another than {', '.join(known)}, got {name!r}")
    path = FOLDER / name / FILE
    if path.exists() and not force:
        raise FileExistsError(f"{path}: expected no profile there (or --force), found one")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_text((SHIPPED / like / FILE).read_text())
    return path
