"""An early table and figure of a few dictionaries, which are fitted first: nothing waits for them."""

FIRST_LOOK = f"{RESULTS}/first-look"
FIRST_NOTE = describe_missing(EXPERIMENT, FIRST) if FIRST else ""
FIRST_FOLDERS = [f"{RESULTS}/{fit.site}/dictionaries/{fit.name}" for fit in FIRST]


rule measure_first:
    input:
        seals=[f"{folder}/fit.json" for folder in FIRST_FOLDERS],
        weights=ancient(
            [f"{folder}/sae_weights.safetensors" for folder in FIRST_FOLDERS]
        ),
        shards=FIRST_SHARDS,
    output:
        scores=f"{FIRST_LOOK}/scores.csv",
    log:
        f"{RESULTS}/logs/measure_first.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_first.jsonl"
    priority: EARLY
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
        gpu=GPUS,
    params:
        cfg=EXPERIMENT.list_rows(FIRST),
        seed=CONFIG.evaluation.seed,
        code=code("scripts/measure_first.py"),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/measure_first.py" --rows {params.cfg:q}'
        ' --seed {params.seed} --shards "$(dirname {input.shards:q})" --output {output.scores:q}'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


use rule summarise_scores as tabulate_first with:
    input:
        source=rules.measure_first.output.scores,
        manifests=[],
    output:
        csv=f"{FIRST_LOOK}/table.csv",
        markdown=f"{FIRST_LOOK}/table.md",
    log:
        f"{RESULTS}/logs/tabulate_first.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_first.jsonl"
    priority: EARLY
    params:
        table="summary",
        cfg=as_param(list(CONFIG.methods)),
        note=FIRST_NOTE,
        code=table_code("summary"),


rule draw_first:
    input:
        scores=rules.measure_first.output.scores,
        # the line that tells of the first look stands below its table
        markdown=rules.tabulate_first.output.markdown,
    output:
        png=f"{FIRST_LOOK}/variance_explained.png",
    log:
        f"{RESULTS}/logs/draw_first.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_first.jsonl"
    priority: EARLY
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.drawing_settings(),
        note=FIRST_NOTE,
        code=code("scripts/draw_figure.py", find_source(FIGURES, "variance_explained")),
    shell:
        'python "$DBKSVD/scripts/draw_figure.py" --figure variance_explained --settings {params.cfg:q}'
        " --tables {input.scores:q} --note={params.note:q} --output {output.png:q} > {log:q} 2>&1"
        " && echo first look: {input.markdown:q}, {output.png:q} >&2"


# Only for a run that has no table yet: later, the whole table says more.
FIRST_TARGETS = (
    [rules.draw_first.output.png] if FIRST and not Path(TABLE).exists() else []
)
