"""Text → activations → shards → dictionaries → SAEBench scores → figures.

Config check, includes and targets; the stages are in workflow/rules/, in the order of the data.
"""

import shlex
import sys

sys.path.insert(0, workflow.basedir)

from workflow.remote_python import quote_python  # noqa: E402

quote_python()
# Jobs find scripts and package by the environment: a path in params would rerun everything when
# the folder moves.
root = shlex.quote(workflow.basedir).replace("{", "{{").replace("}", "}}")
shell.prefix(
    f"export DBKSVD={root};"
    ' export PYTHONPATH="$DBKSVD${{PYTHONPATH:+:$PYTHONPATH}}"; '
    # GPU jobs that run side by side on a workstation take different GPUs
    'on_gpus() {{ python "$DBKSVD/workflow/claim_gpus.py" "$@"; }}; '
)


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/access.smk"
include: "workflow/rules/text.smk"
include: "workflow/rules/language_model.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/synthetic.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/encoders.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/pages.smk"
include: "workflow/rules/ending.smk"


onstart:
    start_run(RESULTS)


onsuccess:
    end_well(RESULTS)


onerror:
    end_badly(RESULTS)


report: "workflow/report/overview.rst"


rule all:
    default_target: True
    input:
        f"{RESULTS}/scores.csv",
        f"{RESULTS}/table.csv",
        f"{RESULTS}/budgets.csv",
        f"{RESULTS}/matched.csv",
        [rules.compare_encoders.output.csv] if ENCODERS.fits else [],
        FIGURE_FILES,
        [rules.render_pages.output.index] if PAGE_SITES else [],
