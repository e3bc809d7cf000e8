"""Known ground truth: a generative model, its samples, and scores against what made them.

The truth goes from the drawing to the scoring and nowhere else: fits read the shards only, but for
the control true_features, whose atoms are the features.
"""

SYNTHETIC = f"{RESULTS}/synthetic"
TRUTH = f"{SYNTHETIC}/truth/truth-{{slice}}"
TRUTH_SLICES = range(EXPERIMENT.count_slices("synthetic"))
GROUND_TRUTH = f"{SYNTHETIC}/ground_truth/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}"


rule make_synthetic_model:
    output:
        manifest=f"{SYNTHETIC}/model/manifest.json",
        weights=f"{SYNTHETIC}/model/synthetic_model.safetensors",
    log:
        f"{RESULTS}/logs/synthetic/make_synthetic_model.log",
    benchmark:
        f"{RESULTS}/benchmarks/synthetic/make_synthetic_model.jsonl"
    # short: something to do while the text is read
    priority: EARLY
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
    params:
        cfg=EXPERIMENT.synthetic_model(),
        code=code("scripts/make_synthetic_model.py"),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/make_synthetic_model.py" --settings {params.cfg:q}'
        ' --output "$(dirname {output.manifest:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule draw_synthetic_activations:
    input:
        manifest=rules.make_synthetic_model.output.manifest,
        weights=ancient(rules.make_synthetic_model.output.weights),
    output:
        part=f"{SYNTHETIC}/parts/part-{{slice}}.h5",
        seal=f"{SYNTHETIC}/parts/part-{{slice}}.json",
        truth=f"{TRUTH}.safetensors",
        truth_seal=f"{TRUTH}.json",
    log:
        f"{RESULTS}/logs/synthetic/draw_synthetic_activations-{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/synthetic/draw_synthetic_activations-{{slice}}.jsonl"
    priority: PREPARING
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
    params:
        cfg=EXPERIMENT.synthetic_samples(),
        code=code("scripts/draw_synthetic_activations.py"),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/draw_synthetic_activations.py" --settings {params.cfg:q}'
        ' --model "$(dirname {input.manifest:q})" --slice {wildcards.slice}'
        " --part {output.part:q} --truth {output.truth:q}"
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule score_ground_truth:
    input:
        seal=f"{SYNTHETIC}/dictionaries/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}/fit.json",
        dictionary=ancient(
            f"{SYNTHETIC}/dictionaries/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}/sae_weights.safetensors"
        ),
        model=rules.make_synthetic_model.output.manifest,
        weights=ancient(rules.make_synthetic_model.output.weights),
        truth_seals=expand(f"{TRUTH}.json", slice=TRUTH_SLICES),
        truth=ancient(expand(f"{TRUTH}.safetensors", slice=TRUTH_SLICES)),
        shards=f"{SYNTHETIC}/shards/manifest.json",
    output:
        scores=f"{GROUND_TRUTH}/scores.json",
        metrics=f"{SYNTHETIC}/evaluations/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}/metrics.json",
    log:
        f"{RESULTS}/logs/synthetic/score_ground_truth/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/synthetic/score_ground_truth/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.jsonl"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        cfg=EXPERIMENT.ground_truth_scoring(),
        code=code("scripts/score_ground_truth.py"),
    shell:
        'python "$DBKSVD/scripts/score_ground_truth.py" --settings {params.cfg:q}'
        ' --dictionary "$(dirname {input.seal:q})" --model "$(dirname {input.model:q})"'
        ' --truth {input.truth:q} --shards "$(dirname {input.shards:q})"'
        " --scores {output.scores:q} --metrics {output.metrics:q} --threads {threads} > {log:q} 2>&1"
