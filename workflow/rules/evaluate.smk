"""SAEBench's evals of every dictionary, and what they share, computed once for each eval.

One job scores a dictionary by all evals, because importing SAEBench takes as long as its light
evals; finished evals of a failed job are kept, and the rerun repeats only the others.
"""

EVALUATION = f"{RESULTS}/{{site}}/evaluations/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}"


rule prepare_evaluation:
    input:
        unpack(model_inputs),
        unpack(heldout_inputs),
        data=ancient(eval_files),  # their content is a param
        # So small that Snakemake compares its content: other shards of the same limit rerun nothing.
        norm_limit=norm_limit_file,
        # Begun earlier, it would hold a core that the shards and first fits are to have.
        after=ancient(FIRST_SHARDS),
    output:
        manifest=f"{RESULTS}/{{site}}/prepared/{{eval}}/manifest.json",
    log:
        f"{RESULTS}/logs/{{site}}/prepare_evaluation-{{eval}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/prepare_evaluation-{{eval}}.jsonl"
    priority: PREPARING
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: EXPERIMENT.preparation(
            wildcards.eval, wildcards.site, layer_of(wildcards)
        ),
        content=eval_content,
        text=text_option,
        code=lambda wildcards: [
            code("scripts/prepare_evaluation.py"),
            eval_code(wildcards.eval),
        ],
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/prepare_evaluation.py" --eval {wildcards.eval} --settings {params.cfg:q} {params.text}'
        " --norm-limit {input.norm_limit:q}"
        ' --output "$(dirname {output.manifest:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule evaluate_dictionary:
    input:
        unpack(model_inputs),
        seal=rules.fit_dictionary.output.seal,
        weights=ancient(rules.fit_dictionary.output.weights),
        shards=rules.shard_activations.output.manifest,
        prepared=prepared_evals,
    output:
        metrics=f"{EVALUATION}/metrics.json",
    log:
        f"{RESULTS}/logs/{{site}}/evaluate_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/evaluate_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.jsonl"
    wildcard_constraints:
        site=r"(random_)?layer\d+(_[a-z0-9_]+)?|files",  # samples with known features have score_ground_truth
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: EXPERIMENT.scoring(wildcards.site),
        code=code("scripts/evaluate_dictionary.py"),
        # An eval that is kept was scored by the same sources, on the same local model.
        eval_code=lambda wildcards: as_param(
            {
                name: "".join(
                    filter(None, [eval_code(name), model_content(wildcards)])
                )
                for name in EXPERIMENT.evals(wildcards.site)
            }
        ),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/evaluate_dictionary.py" --settings {params.cfg:q} --code {params.eval_code:q}'
        ' --dictionary "$(dirname {input.seal:q})" --shards "$(dirname {input.shards:q})"'
        f" --prepared {RESULTS}/{{wildcards.site}}/prepared"
        ' --output "$(dirname {output.metrics:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
