"""Whether jobs that are given a GPU have one: on the CPU they would take days, unheard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from workflow.claim_gpus import list_gpus

CPU_BUILD = "+cpu"  # how torch's version ends where it was built without CUDA


def names_gpus(overwritten: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether a profile gives rules a GPU, whatever the machine has (``set-resources``)."""
    return any("gpu" in resources for resources in overwritten)


def find_problem(*, is_named: bool, is_local: bool, torch: str | None) -> str | None:
    """Return the line that ends or begins a run whose jobs were given GPUs; None if all is well.

    Parameters
    ----------
    is_named : bool
        Whether the profile gives GPUs to rules; else the rules found ``nvidia-smi``.
    is_local : bool
        Whether the jobs run on this machine. A cluster's nodes cannot be seen from here.
    torch : str or None
        Version of the torch that jobs import; None where it is not known, in environments of rules.

    Returns
    -------
    str or None
        It begins with ``error:`` where a user asked for a GPU on this machine, else with ``note:``.
    """
    is_asked = is_named and is_local
    if is_asked and not list_gpus():
        return (
            "error: --profile: expected a GPU for the jobs that the profile gives one, found none "
            "that nvidia-smi lists (without --profile the CPU is used)"
        )
    if torch is None or not torch.endswith(CPU_BUILD):
        return None
    if is_asked:
        return (
            "error: --profile: expected a CUDA build of torch for the jobs that the profile gives "
            f"a GPU, got torch {torch}"
        )
    return f"note: jobs are given a GPU that torch {torch} cannot use: they compute on the CPU"


def find_torch() -> str | None:
    """Return the version of the installed torch, without importing it; None without one."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
