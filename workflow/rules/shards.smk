"""All parts, globally shuffled, as training and held-out shards of fixed size."""

PARTS = f"{RESULTS}/{{{{site}}}}/parts/part-{{slice}}"
SLICES = range(config["activations"]["slices"])


rule shard_activations:
    input:
        seals=expand(f"{PARTS}.json", slice=SLICES),
        parts=ancient(expand(f"{PARTS}.h5", slice=SLICES)),
    output:
        manifest=f"{RESULTS}/{{site}}/shards/manifest.json",
    log:
        f"{RESULTS}/logs/{{site}}/shard_activations.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/shard_activations.jsonl"
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        cfg=EXPERIMENT.section("shards"),
        code=code("scripts/shard_activations.py"),
    shell:
        'python "$DBKSVD/scripts/shard_activations.py" --settings {params.cfg:q} --parts {input.parts:q}'
        ' --output "$(dirname {output.manifest:q})" > {log:q} 2>&1'
