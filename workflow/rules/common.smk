"""Config, paths and the two params that decide what reruns."""

import functools
import hashlib
import shutil
import tempfile
from dataclasses import astuple
from pathlib import Path

from dbksvd.base.files import (
    hash_content,
    hash_file,
    recall_hash,
    remove_leftovers,
)
from dbksvd.base.layout import STABILITY_FILE
from dbksvd.base.local_files import expand_user
from dbksvd.base.registry import find_source
from dbksvd.base.settings import SettingsError
from dbksvd.base.site import Site
from dbksvd.evaluation.saebench.registry import EVALS
from dbksvd.images.prepare import hash_images
from dbksvd.report.figures.registry import FIGURES, find_figure
from dbksvd.report.norm_notes import list_norm_notes
from dbksvd.report.notes import read_notes
from dbksvd.report.registry import TABLES
from dbksvd.text.sources.registry import find_text_source
from workflow.caching import can_share_activations, list_shards
from workflow.containers import bind_project, choose_image
from workflow.encoders import Encoders
from workflow.ending import list_single, say_last, tell_failures, tell_table
from workflow.experiment import Experiment, Fit, as_param
from workflow.first_look import choose_first, describe_missing
from workflow.gpus import find_problem, find_torch, names_gpus
from workflow.last_good import LastGood
from workflow.layers import read_layers
from workflow.local_checks import check_local
from workflow.pages import Pages, list_static_files
from workflow.source_hash import SourceRecord
from workflow.unfinished import find_failed, make_table, read_failed
from workflow.warm.benchmark import count_forks
from workflow.warm.scripts import WarmScripts, can_be_warm

try:
    # Another workflow that uses this one as a module gives the config itself.
    LAYERS = (
        read_layers([], config)
        if workflow.modifier.namespace is not None
        else read_layers(
            workflow.overwrite_configfiles or [ROOT / "config.yaml"],
            workflow.config_settings.config or {},
        )
    )
    EXPERIMENT = Experiment(LAYERS)
    ENCODERS = Encoders(EXPERIMENT)
    if workflow.is_main_process:  # jobs on a cluster read the config again
        check_local(EXPERIMENT)
except SettingsError as error:
    sys.exit(error.tell("error: config"))

if workflow.is_main_process and EXPERIMENT.idle_methods:
    print(
        f"note: config: no fit uses the methods {', '.join(EXPERIMENT.idle_methods)}",
        file=sys.stderr,
    )

# Dictionaries that a run has just failed to make: this one makes the table of the others.
FAILED_FITS = read_failed()
IS_UNFINISHED = bool(FAILED_FITS)

# The dictionaries that a run makes first (first_look.smk), and their wildcards.
FIRST = choose_first(EXPERIMENT)
FIRST_KEYS = {tuple(map(str, astuple(fit))) for fit in FIRST}

CONFIG = EXPERIMENT.config
SDM = {method.name.lower() for method in workflow.deployment_settings.deployment_method}
try:
    IMAGE = choose_image(CONFIG.container, SDM)
except ValueError as error:
    sys.exit(f"error: config: {error}")
if "apptainer" in SDM:
    bind_project(workflow.deployment_settings, ROOT)
RESULTS = EXPERIMENT.folder
FIRST_SHARDS = [f"{RESULTS}/{fit.site}/shards/manifest.json" for fit in FIRST[:1]]
MANIFESTS = [
    f"{RESULTS}/{site}/shards/manifest.json"
    for site in sorted({fit.site for fit in EXPERIMENT.fits})
]

# Of the jobs that could start, these come first: what the first look needs, then what many jobs
# wait for, so that bad settings are found early. All fits come before all scores: the process that
# a job of a script is a fork of ends where there is none in a while (workflow/warm/server.py).
BEFORE_ALL, EARLY, PREPARING, FITTING, LONG = 5, 4, 3, 2, 1

# Captions know the config alone; they are made when all results are there.
try:
    config["norm_notes"] = list_norm_notes(MANIFESTS)
except (
    OSError,
    ValueError,
    KeyError,
):  # the job that reads the shards will say what is wrong
    config["norm_notes"] = []
config["table_notes"] = {
    name: read_notes(Path(f"{RESULTS}/{name}.md"))
    for name in ("table", "differences", "matched", "budgets")
}

# A GPU is asked for where this machine has one; the slurm profile asks for one everywhere.
GPUS = 1 if shutil.which("nvidia-smi") else 0

# Activations are shared between working copies with --cache only.
SHARED = workflow.workflow_settings.cache is not None
if SHARED and not can_share_activations(CONFIG):
    sys.exit(
        "error: --cache: expected all that activations are made from to be fixed by the config:"
        " no local files, a commit as revision (workflow/caching.py)"
    )
SHARED_SHARDS = list_shards(CONFIG) if SHARED else []
if (
    "shard_activations" in (workflow.workflow_settings.cache or ())
    and not SHARED_SHARDS
):
    sys.exit(
        "error: --cache: expected extract_activations alone, since the names of the shards"
        " are not known before they are made (workflow/caching.py), got shard_activations"
    )


wildcard_constraints:
    site=r"(random_)?layer\d+(_[a-z0-9_]+)?|files|synthetic",
    method=r"[a-z0-9-]+",
    n_atoms=r"\d+",
    k=r"\d+",
    seed=r"\d+",
    slice=r"\d+",
    figure=r"[a-z_]+",
    eval=r"[a-z_]+",


def tell_gpus():
    """Say that jobs which are given a GPU would compute on the CPU; end if one was asked for."""
    if not any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs()):
        return
    problem = find_problem(
        is_named=names_gpus(workflow.resource_settings.overwrite_resources.values()),
        is_local=workflow.local_exec,
        torch=None if SDM else find_torch(),
    )
    if problem is not None and problem.startswith("error:"):
        sys.exit(problem)
    if problem is not None:
        print(problem, file=sys.stderr)


def start_run(folder):
    """Before the first job: see that it can run and write; keep what is there, as it may fail."""
    if workflow.resource_settings.cores == 0:  # would wait for ever
        sys.exit("error: --cores: expected at least 1, got 0")
    # The plugin would fail in a thread of its own, unheard, and Snakemake wait for ever.
    if workflow.executor_plugin.name == "slurm" and not shutil.which("sbatch"):
        sys.exit(
            "error: --executor slurm: expected sbatch on PATH, as a login node has it"
        )
    tell_gpus()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        remove_leftovers(folder)
        if not IS_UNFINISHED:
            LastGood(folder, workflow.persistence).keep(workflow.dag.needrun_jobs())
    except OSError as error:
        sys.exit(
            f"error: {folder}: expected a folder to write to, got: {error.strerror}"
        )
    # Environments of their own have another Python each.
    if (
        workflow.local_exec
        and not workflow.deployment_settings.deployment_method
        and can_be_warm()
    ):
        warm = WarmScripts(sorted((ROOT / "scripts").glob("*.py")), ROOT)
        warm.start()
        count_forks(warm)


SOURCES = SourceRecord(ROOT, Path(".snakemake/sources.json"))


def code(*entries):
    """Hash of scripts or modules and all they import: changes when results may change."""
    digest, line = SOURCES.hash(*entries)
    if line is not None and workflow.is_main_process:
        print(line, file=sys.stderr)
    return digest
