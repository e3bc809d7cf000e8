"""The path of Python is quoted in the lines that start jobs on a cluster."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_slurm_jobstep import Executor as JobStep
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from workflow.remote_python import quote_python

SHARED = {SharedFSUsage.SOFTWARE_DEPLOYMENT}
EXECUTOR = SimpleNamespace(
    workflow=SimpleNamespace(storage_settings=SimpleNamespace(shared_fs_usage=SHARED))
)


@pytest.mark.parametrize("python", ["/usr/bin/python", "/a project/.venv/bin/python"])
@pytest.mark.parametrize("executor", [RemoteExecutor, JobStep])
def test_the_shell_sees_one_word(executor: type, python: str, monkeypatch: pytest.MonkeyPatch):
    for one in (RemoteExecutor, JobStep):  # put back afterwards
        monkeypatch.setattr(one, "get_python_executable", one.get_python_executable)
    monkeypatch.setattr("sys.executable", python)
    quote_python()
    quote_python()  # each Snakefile does
    found = executor.get_python_executable(EXECUTOR)
    assert shlex.split(found) == [python]
    assert (found == python) == (" " not in python)
