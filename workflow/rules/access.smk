"""Hub and keys, asked for once before any long work; nothing to do where all is on this machine."""


# A checkpoint: with ancient inputs of it, Snakemake does not look whether jobs after it have changed
# params, until it is done.
checkpoint check_access:
    output:
        facts=f"{RESULTS}/access.json",
    log:
        f"{RESULTS}/logs/check_access.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_access.jsonl"
    localrule: True
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.access() or "{}",
        code=code("scripts/check_access.py"),
    shell:
        'python "$DBKSVD/scripts/check_access.py" --settings {params.cfg:q}'
        " --output {output.facts:q} > {log:q} 2>&1"
