"""SAEBench's evals of every dictionary, and what they share, computed once."""

EVALUATION = f"{RESULTS}/{{site}}/evaluations/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}"


rule prepare_evaluation:
    output:
        manifest=f"{RESULTS}/{{site}}/prepared/manifest.json",
    log:
        f"{RESULTS}/logs/{{site}}/prepare_evaluation.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/prepare_evaluation.jsonl"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: EXPERIMENT.section(
            "model", "evaluation", layer=layer_of(wildcards)
        ),
        code=code("scripts/prepare_evaluation.py"),
    shell:
        'python "$DBKSVD/scripts/prepare_evaluation.py" --settings {params.cfg:q}'
        ' --output "$(dirname {output.manifest:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule evaluate_dictionary:
    input:
        seal=rules.fit_dictionary.output.seal,
        weights=ancient(rules.fit_dictionary.output.weights),
        shards=rules.shard_activations.output.manifest,
        prepared=rules.prepare_evaluation.output.manifest,
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{RESULTS}/logs/{{site}}/evaluate_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/evaluate_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.jsonl"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: EXPERIMENT.section(
            "model", "evaluation", layer=layer_of(wildcards)
        ),
        code=code("scripts/evaluate_dictionary.py"),
    shell:
        'python "$DBKSVD/scripts/evaluate_dictionary.py" --settings {params.cfg:q}'
        ' --dictionary "$(dirname {input.seal:q})" --shards "$(dirname {input.shards:q})"'
        ' --prepared "$(dirname {input.prepared:q})" --output "$(dirname {output.metrics:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
