"""How far dictionaries agree that differ in their seed only: one job for each kind of them."""

STABILITY = f"{RESULTS}/{{site}}/stability/{{method}}/m{{n_atoms}}-k{{k}}"
STABILITY_SEALS = [
    f"{STABILITY}/{STABILITY_FILE}".format(site=site, method=method, n_atoms=m, k=k)
    for site, method, m, k in EXPERIMENT.seed_groups
]


rule measure_stability:
    input:
        unpack(stability_inputs),
        shards=rules.shard_activations.output.manifest,
    output:
        seal=f"{STABILITY}/{STABILITY_FILE}",
        atoms=f"{STABILITY}/atoms.safetensors",
    log:
        f"{RESULTS}/logs/{{site}}/measure_stability/{{method}}-m{{n_atoms}}-k{{k}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/measure_stability/{{method}}-m{{n_atoms}}-k{{k}}.jsonl"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=EXPERIMENT.stability(),
        seed=CONFIG.evaluation.seed,
        seeds=seeds,
        folders=seed_folders,
        code=code("scripts/measure_stability.py"),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/measure_stability.py" --settings {params.cfg:q}'
        " --seed {params.seed} --seeds {params.seeds} --dictionaries {params.folders:q}"
        ' --shards "$(dirname {input.shards:q})" --output {output.seal:q}'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule collect_stability:
    input:
        seals=STABILITY_SEALS,
    output:
        table=f"{RESULTS}/stability.csv",
    log:
        f"{RESULTS}/logs/collect_stability.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_stability.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.rows(stability=True),
        code=code("scripts/collect_stability.py"),
    shell:
        'python "$DBKSVD/scripts/collect_stability.py" --rows {params.cfg:q} --output {output.table:q} > {log:q} 2>&1'
