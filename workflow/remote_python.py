"""The path of Python, quoted where Snakemake puts it into the command of a job on a cluster.

Snakemake's plugins for clusters put ``sys.executable`` into a line for the shell as it is, where a
virtual environment in a folder with a space would be cut in two. A job of Slurm starts its step by
such a line too, so this is done where jobs are submitted and in the jobs.
"""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

# Module and class of what writes such lines; Slurm's plugin may be missing.
EXECUTORS = (
    ("snakemake_interface_executor_plugins.executors.remote", "RemoteExecutor"),
    ("snakemake_executor_plugin_slurm_jobstep", "Executor"),
)


def quote_python() -> None:
    """Let the executors quote the path; a path that needs no quotes stays as it is."""
    for name, executor in EXECUTORS:
        try:
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        _quote_path_of(getattr(module, executor))


def _quote_path_of(executor: Any) -> None:
    original = executor.get_python_executable
    if getattr(original, "is_quoted", False):
        return

    def get_python_executable(self: Any) -> str:
        return shlex.quote(original(self))

    get_python_executable.is_quoted = True  # type: ignore[attr-defined]
    executor.get_python_executable = get_python_executable
