"""Documents, deduplicated, split into training and held-out ones."""


# A checkpoint: what comes after is planned again when the documents are there, and equal ones rerun
# nothing, however they came about.
checkpoint prepare_text:
    input:
        unpack(access_inputs),
    output:
        manifest=f"{RESULTS}/text/manifest.json",
        documents=f"{RESULTS}/text/documents.jsonl",
        seal=f"{RESULTS}/text/seal.json",
    log:
        f"{RESULTS}/logs/prepare_text.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_text.jsonl"
    priority: BEFORE_ALL
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        cfg=EXPERIMENT.text(),
        content=text_content,
        code=code("scripts/prepare_text.py", *EXPERIMENT.text_sources()),
    shell:
        'python "$DBKSVD/scripts/prepare_text.py" --settings {params.cfg:q} --output "$(dirname {output.manifest:q})"'
        " > {log:q} 2>&1"
