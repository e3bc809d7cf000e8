"""All parts, globally shuffled, as training and held-out shards of fixed size."""

PARTS = f"{RESULTS}/{{site}}/parts/part-{{slice}}"


# A checkpoint, as equal shards rerun nothing.
checkpoint shard_activations:
    input:
        seals=list_parts("json"),
        parts=ancient(list_parts("h5")),
    output:
        # Fits read the shards that the manifest names; a cache has to be told of them.
        multiext(
            f"{RESULTS}/{{site}}/shards/",
            manifest="manifest.json",
            norm_limit="norm_limit.json",
            **{name.replace("-", "_"): f"{name}.h5" for name in SHARED_SHARDS},
        ),
    log:
        f"{RESULTS}/logs/{{site}}/shard_activations.log",
    cache: bool(SHARED_SHARDS)
    priority: first_site
    conda:
        "../../envs/activations.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        cfg=EXPERIMENT.section("shards"),
        code=code("scripts/shard_activations.py"),
    shell:
        'python "$DBKSVD/scripts/shard_activations.py" --settings {params.cfg:q} --parts {input.parts:q}'
        ' --output "$(dirname {output.manifest:q})" --threads {threads} > {log:q} 2>&1'
