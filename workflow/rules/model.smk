"""A model in a GGUF file, unpacked once for all later jobs."""


rule convert_model:
    output:
        seal=f"{EXPERIMENT.converted}.json",
        weights=f"{EXPERIMENT.converted}/model.safetensors",
    log:
        f"{RESULTS}/logs/convert_model.log",
    benchmark:
        f"{RESULTS}/benchmarks/convert_model.jsonl"
    priority: BEFORE_ALL
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: converting_memory() * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        cfg=EXPERIMENT.conversion or "{}",
        content=gguf_content(),
        code=code("scripts/convert_model.py"),
    shell:
        'python "$DBKSVD/scripts/convert_model.py" --settings {params.cfg:q}'
        ' --output "$(dirname {output.weights:q})"'
        " --threads {threads} > {log:q} 2>&1"
