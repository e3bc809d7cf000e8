"""Dictionaries coded by each encoder at equal L0: a job for each dictionary, and their table."""

RECODED = f"{RESULTS}/{{site}}/encoders/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}.json"
RECODED_FILES = [
    f"{RESULTS}/{fit.site}/encoders/{fit.name}.json" for fit in ENCODERS.fits
]


rule score_encoders:
    input:
        unpack(truth_inputs),
        unpack(probe_inputs),
        seal=rules.fit_dictionary.output.seal,
        weights=ancient(rules.fit_dictionary.output.weights),
        shards=rules.shard_activations.output.manifest,
    output:
        scores=RECODED,
    log:
        f"{RESULTS}/logs/{{site}}/score_encoders/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/score_encoders/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.jsonl"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        cfg=lambda wildcards: ENCODERS.scoring(wildcards.method, wildcards.site),
        code=lambda wildcards: [
            code("scripts/score_encoders.py"),
            *(
                [eval_code("sparse_probing_sae_probes")]
                if ENCODERS.probes(wildcards.method, wildcards.site)
                else []
            ),
        ],
        options=encoder_options,
    shell:
        'python "$DBKSVD/scripts/score_encoders.py" --settings {params.cfg:q} {params.options}'
        ' --dictionary "$(dirname {input.seal:q})" --k {wildcards.k}'
        ' --shards "$(dirname {input.shards:q})" --output {output.scores:q}'
        " --threads {threads} > {log:q} 2>&1"


rule collect_encoders:
    input:
        scores=RECODED_FILES,
    output:
        encoders=f"{RESULTS}/encoder_scores.csv",
    log:
        f"{RESULTS}/logs/collect_encoders.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_encoders.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.list_rows(ENCODERS.fits),
        code=code("scripts/collect_encoders.py"),
    shell:
        'python "$DBKSVD/scripts/collect_encoders.py" --rows {params.cfg:q} --output {output.encoders:q} > {log:q} 2>&1'


use rule summarise_scores as compare_encoders with:
    input:
        source=rules.collect_encoders.output.encoders,
        manifests=MANIFESTS,
    output:
        csv=report(
            f"{RESULTS}/encoders.csv",
            caption="../report/encoders.rst",
            category="Tables",
            labels={"table": "dictionaries by encoders"},
        ),
        markdown=f"{RESULTS}/encoders.md",
    log:
        f"{RESULTS}/logs/compare_encoders.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_encoders.jsonl"
    params:
        table="encoders",
        cfg=as_param(list(CONFIG.methods)),
        note="",
        code=table_code("encoders"),
