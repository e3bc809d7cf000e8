"""Activations of all sites of a model for one slice of the text: slices run side by side."""

# The model reads a slice once for all its sites. Apart are the sites of a cache, which takes the
# outputs of one folder, and those of random weights, which are another model.
EXTRACTED = ["{site}"]
if EXPERIMENT.source == "model" and len(EXPERIMENT.model_sites) > 1 and not SHARED:
    BEFORE = "" if CONFIG.randomised is None else "{random}"
    EXTRACTED = [BEFORE + site for site in EXPERIMENT.model_sites]
EXTRACTION_LOG = "{site}/" if EXTRACTED == ["{site}"] else BEFORE
EXTRACTED_PARTS = [f"{RESULTS}/{name}/parts/part-{{slice}}.h5" for name in EXTRACTED]
EXTRACTED_SEALS = [f"{RESULTS}/{name}/parts/part-{{slice}}.json" for name in EXTRACTED]


rule extract_activations:
    input:
        unpack(text_inputs),
    output:
        # A cache takes no lists.
        part=EXTRACTED_PARTS if len(EXTRACTED) > 1 else EXTRACTED_PARTS[0],
        seal=EXTRACTED_SEALS if len(EXTRACTED) > 1 else EXTRACTED_SEALS[0],
    log:
        f"{RESULTS}/logs/{EXTRACTION_LOG}extract_activations-{{slice}}.log",
    wildcard_constraints:
        site=r"(random_)?layer\d+(_[a-z0-9_]+)?|files",
        random="(random_)?",
    cache: SHARED
    # Too little text is found here, in a fraction of the time in which evals are prepared.
    priority: BEFORE_ALL
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=extractions_of,
        content=activation_content,
        code=code("scripts/extract_activations.py"),
        slice="{slice}",  # in params, because a cache is blind to wildcards
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/extract_activations.py" --settings {params.cfg:q} --text {input:q}'
        " --slice {params.slice} --output {output.part:q}"
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
