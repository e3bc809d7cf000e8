"""The image in which jobs run under ``--sdm apptainer``: one for all rules, named by the config."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

# Where apptainer fetches images from; anything else is a file.
ADDRESSES = ("docker://", "oras://", "library://", "shub://")


def choose_image(image: str | None, methods: set[str]) -> str | None:
    """Return the image of all rules, once it is known to be there where it is used.

    Parameters
    ----------
    image : str, optional
        ``container`` of the config: a file, or an address that apptainer can pull from.
    methods : set of str
        What ``--sdm`` names: "apptainer", "conda".

    Raises
    ------
    ValueError
        If apptainer is asked for and there is no image, or its file is not there.
    """
    if "apptainer" not in methods:
        return image
    if image is None:
        raise ValueError(
            f"container: expected an image for --sdm apptainer, a .sif file or "
            f"{ADDRESSES[0]}…, got null"
        )
    if not image.startswith(ADDRESSES) and not Path(image).is_file():
        raise ValueError(f"container: expected a file or {ADDRESSES[0]}…, found none: {image}")
    return image


def bind_project(settings: Any, root: Path) -> None:
    """Let containers see the scripts, which lie outside of the folder that a run is in.

    Parameters
    ----------
    settings : snakemake's DeploymentSettings
        Its ``apptainer_args`` get the folder, once: jobs on a cluster begin with those of the run.
    root : Path
        The folder that holds ``workflow/`` and ``scripts/``.
    """
    bind = f"--bind {shlex.quote(str(root))}"
    if bind not in settings.apptainer_args:
        settings.apptainer_args = f"{settings.apptainer_args} {bind}".strip()
