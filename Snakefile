"""Text → activations → shards → dictionaries → SAEBench scores → figures.

Config check, includes and targets; the stages are in workflow/rules/, in the order of the data.
"""

import os
import sys

if "fits" not in config:

    configfile: "config.yaml"


sys.path.insert(0, workflow.basedir)
# Rules find scripts, and scripts the package, through the environment: a path in params would
# rerun everything when the folder moves.
os.environ["DBKSVD"] = workflow.basedir
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [workflow.basedir, os.environ.get("PYTHONPATH")])
)


include: "workflow/rules/common.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/figures.smk"


report: "workflow/report/overview.rst"


rule all:
    default_target: True
    input:
        RESULTS + "/scores.csv",
        RESULTS + "/table.csv",
        FIGURE_FILES,
