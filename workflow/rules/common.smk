"""Config, paths and the two params that decide what reruns."""

import math
import os
import shutil
import tempfile
from pathlib import Path

from dbksvd.files import remove_leftovers
from dbksvd.fit.registry import find_base, list_sources
from dbksvd.images import hash_images
from dbksvd.saebench.registry import EVALS
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
    """Prepare a rule for sharing: Snakemake allows no benchmark beside a cache."""
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


def layer_of(wildcards):
    """Number of the layer of a site such as layer4; None where there is no model."""
    if not wildcards.site.startswith("layer"):
        return None
    return int(wildcards.site.removeprefix("layer"))


def text_inputs(wildcards):
    """The documents, where activations come from text. Only the manifest's content counts."""
    if not EXPERIMENT.needs_text:
        return {}
    return {
        "manifest": rules.prepare_text.output.manifest,
        "documents": ancient(rules.prepare_text.output.documents),
        **model_inputs(wildcards),
    }


def method_settings(wildcards):
    """The section of a method in the config."""
    return config["methods"][wildcards.method]


def fact_files():
    """Files of facts that the language model reads beside the text."""
    facts = (EXPERIMENT.model_training or {}).get("facts")
    return sorted(map(str, Path(facts["data"]).glob("base/*.json"))) if facts else []


def ravel_files(wildcards):
    """Files of RAVEL, where the eval is ravel."""
    if wildcards.eval != "ravel":
        return []
    data = config["evaluation"]["evals"]["ravel"]["data"]
    return sorted(map(str, Path(data).glob("base/*.json")))


def access_inputs(wildcards):
    """The record of what was found outside; only that it is there counts."""
    if EXPERIMENT.access() is None:
        return {}
    return {"access": ancient(rules.check_access.output.facts)}


def model_inputs(wildcards):
    """The seal of the trained language model; for a ready one, that it can be had."""
    if EXPERIMENT.model_training is None:
        return access_inputs(wildcards)
    return {"model": rules.train_language_model.output.seal}


def eval_code(name):
    """Hash of one eval's sources and what all evals share."""
    return code(
        "dbksvd/saebench/runner.py", EVALS[name].module.replace(".", os.sep) + ".py"
    )


def prepared_evals(wildcards):
    """Manifests of all evals at a site."""
    return [
        f"{RESULTS}/{wildcards.site}/prepared/{name}/manifest.json"
        for name in EXPERIMENT.evals(wildcards.site)
    ]
