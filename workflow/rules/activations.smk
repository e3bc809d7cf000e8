"""Activations of one layer for one slice of the text: slices run side by side on a cluster."""


rule extract_activations:
    input:
        unpack(text_inputs),
    output:
        part=f"{RESULTS}/{{site}}/parts/part-{{slice}}.h5",
        seal=f"{RESULTS}/{{site}}/parts/part-{{slice}}.json",
    log:
        f"{RESULTS}/logs/{{site}}/extract_activations-{{slice}}.log",
    wildcard_constraints:
        site=r"(random_)?layer\d+|files",
    cache: SHARED
    # Too little text is found here, in a fraction of the time in which evals are prepared.
    priority: 1
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=extraction_of,
        content=activation_content,
        code=code("scripts/extract_activations.py"),
        slice="{slice}",  # in params, because a cache is blind to wildcards
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/extract_activations.py" --settings {params.cfg:q} --text {input:q}'
        " --slice {params.slice} --output {output.part:q}"
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
