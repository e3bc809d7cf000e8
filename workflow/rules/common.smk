"""Config, paths and the two params that decide what reruns."""

import math
import shutil
from pathlib import Path

from dbksvd.fit.registry import ALGORITHMS
from workflow.experiment import ConfigError, Experiment, as_param
from workflow.source_hash import hash_sources

try:
    EXPERIMENT = Experiment(config)
except ConfigError as error:
    sys.exit(f"error: config: {error}")

RESULTS = EXPERIMENT.folder

# A GPU is asked for where this machine has one; the slurm profile asks for one everywhere.
GPUS = 1 if shutil.which("nvidia-smi") else 0


wildcard_constraints:
    site=r"layer\d+|files",
    method=r"[a-z0-9-]+",
    n_atoms=r"\d+",
    k=r"\d+",
    seed=r"\d+",
    figure=r"[a-z_]+",


def code(*entries):
    """Hash of scripts or modules and all they import: changes when results may change."""
    return hash_sources(Path(workflow.basedir), entries)


def layer_of(wildcards):
    """Number of the layer of a site such as layer4; None for ready files."""
    return (
        None if wildcards.site == "files" else int(wildcards.site.removeprefix("layer"))
    )


def text_inputs(wildcards):
    """The documents, where activations come from text. Only the manifest's content counts."""
    if not EXPERIMENT.needs_text:
        return {}
    return {
        "manifest": rules.prepare_text.output.manifest,
        "documents": ancient(rules.prepare_text.output.documents),
    }


def method_settings(wildcards):
    """The section of a method in the config."""
    return config["methods"][wildcards.method]
