"""Config, paths and the two params that decide what reruns."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from dbksvd.base.files import hash_content, hash_file, recall_hash, remove_leftovers
from dbksvd.fit.registry import find_base, list_sources
from dbksvd.images.prepare import hash_images
from dbksvd.evaluation.saebench.registry import EVALS
from workflow.caching import can_share_activations, list_shards
from workflow.experiment import ConfigError, Experiment, as_param
from workflow.source_hash import hash_sources

try:
    EXPERIMENT = Experiment(config)
except ConfigError as error:
    sys.exit(f"error: config: {error}")

RESULTS = EXPERIMENT.folder

# A GPU is asked for where this machine has one; the slurm profile asks for one everywhere.
GPUS = 1 if shutil.which("nvidia-smi") else 0

# Activations are shared between working copies with --cache only.
SHARED = workflow.workflow_settings.cache is not None
if SHARED and not can_share_activations(config):
    sys.exit(
        "error: --cache: expected all that activations are made from to be fixed by the config:"
        " no local files, a commit as revision (workflow/caching.py)"
    )
SHARED_SHARDS = list_shards(config) if SHARED else []


def share(name):
    """Drop the benchmark of what is shared, which Snakemake does not allow beside a cache."""
    workflow.get_rule(name)._benchmark = None


wildcard_constraints:
    site=r"layer\d+|files|synthetic",
    method=r"[a-z0-9-]+",
    n_atoms=r"\d+",
    k=r"\d+",
    seed=r"\d+",
    slice=r"\d+",
    figure=r"[a-z_]+",
    eval=r"[a-z_]+",


def start_run(folder):
    """Before the first job: see that it can run and write, remove what killed jobs left."""
    if workflow.resource_settings.cores == 0:  # would wait for ever
        sys.exit("error: --cores: expected at least 1, got 0")
    # The plugin would fail in a thread of its own, unheard, and Snakemake wait for ever.
    if workflow.executor_plugin.name == "slurm" and not shutil.which("sbatch"):
        sys.exit(
            "error: --executor slurm: expected sbatch on PATH, as a login node has it"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        remove_leftovers(folder)
    except OSError as error:
        sys.exit(
            f"error: {folder}: expected a folder to write to, got: {error.strerror}"
        )


def code(*entries):
    """Hash of scripts or modules and all they import: changes when results may change."""
    return hash_sources(Path(workflow.basedir), entries)
