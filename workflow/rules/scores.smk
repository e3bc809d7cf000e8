"""Tidy tables of all dictionaries: scores, curves of the fits, atom usage; tables for people."""

SEALS = [
    f"{RESULTS}/{fit.site}/dictionaries/{fit.name}/fit.json" for fit in EXPERIMENT.fits
]
METRICS = [
    f"{RESULTS}/{fit.site}/evaluations/{fit.name}/metrics.json"
    for fit in EXPERIMENT.fits
]
TRUTH_SCORES = [
    EXPERIMENT.ground_truth_file(fit)
    for fit in EXPERIMENT.fits
    if fit.site == "synthetic"
]


# Equal scores make no table or figure anew, hence a checkpoint.
checkpoint collect_scores:
    input:
        seals=lambda wildcards: [SEALS[i] for i in list_scored()],
        metrics=lambda wildcards: [METRICS[i] for i in list_scored()],
        ground_truth=lambda wildcards: [
            EXPERIMENT.ground_truth_file(EXPERIMENT.fits[i])
            for i in list_scored()
            if EXPERIMENT.fits[i].site == "synthetic"
        ],
        # Each waits for several fits, so the table of a failed run is without.
        stability=[] if IS_UNFINISHED else STABILITY_SEALS,
    output:
        scores=report(
            f"{RESULTS}/scores.csv",
            caption="../report/scores.rst",
            category="Tables",
            labels={"table": "all scores"},
        ),
    log:
        f"{RESULTS}/logs/collect_scores.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_scores.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.rows(FAILED_FITS, stability=not IS_UNFINISHED),
        code=code("scripts/collect_scores.py"),
    shell:
        'python "$DBKSVD/scripts/collect_scores.py" --rows {params.cfg:q} --output {output.scores:q} > {log:q} 2>&1'


rule collect_routing:
    input:
        ground_truth=TRUTH_SCORES,
    output:
        routing=f"{RESULTS}/routing.csv",
    log:
        f"{RESULTS}/logs/collect_routing.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_routing.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.rows(),
        code=code("scripts/collect_routing.py"),
    shell:
        'python "$DBKSVD/scripts/collect_routing.py" --rows {params.cfg:q} --output {output.routing:q} > {log:q} 2>&1'


rule collect_curves:
    input:
        seals=SEALS,
        metrics=METRICS,
    output:
        curves=f"{RESULTS}/curves.csv",
        usage=f"{RESULTS}/usage.csv",
    log:
        f"{RESULTS}/logs/collect_curves.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_curves.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.rows(),
        code=code("scripts/collect_curves.py"),
    shell:
        'python "$DBKSVD/scripts/collect_curves.py" --rows {params.cfg:q} --curves {output.curves:q}'
        " --usage {output.usage:q} > {log:q} 2>&1"


rule summarise_scores:
    input:
        source=rules.collect_scores.output.scores,
        manifests=MANIFESTS,
    output:
        csv=report(
            f"{RESULTS}/table.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        markdown=f"{RESULTS}/table.md",
    log:
        f"{RESULTS}/logs/summarise_scores.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_scores.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        table="summary",
        cfg=as_param(list(CONFIG.methods)),
        note="",
        code=table_code("summary"),
    shell:
        'python "$DBKSVD/scripts/make_table.py" --table {params.table:q} --source {input.source:q}'
        " --methods {params.cfg:q} --manifests {input.manifests:q} --note={params.note:q} --csv {output.csv:q} --markdown {output.markdown:q} > {log:q} 2>&1"


use rule summarise_scores as compare_methods with:
    output:
        csv=report(
            f"{RESULTS}/differences.csv",
            caption="../report/differences.rst",
            category="Tables",
            labels={"table": "differences"},
        ),
        markdown=f"{RESULTS}/differences.md",
    log:
        f"{RESULTS}/logs/compare_methods.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_methods.jsonl"
    params:
        table="differences",
        cfg=as_param(EXPERIMENT.rivals),
        note="",
        code=table_code("differences"),


use rule summarise_scores as match_l0 with:
    output:
        csv=report(
            f"{RESULTS}/matched.csv",
            caption="../report/matched.rst",
            category="Tables",
            labels={"table": "pairs at equal L0"},
        ),
        markdown=f"{RESULTS}/matched.md",
    log:
        f"{RESULTS}/logs/match_l0.log",
    benchmark:
        f"{RESULTS}/benchmarks/match_l0.jsonl"
    params:
        table="matched",
        cfg=as_param(EXPERIMENT.rivals),
        note="",
        code=table_code("matched"),


use rule summarise_scores as compare_budgets with:
    input:
        source=rules.collect_curves.output.curves,
        manifests=MANIFESTS,
    output:
        csv=report(
            f"{RESULTS}/budgets.csv",
            caption="../report/budgets.rst",
            category="Tables",
            labels={"table": "equal budgets"},
        ),
        markdown=f"{RESULTS}/budgets.md",
    log:
        f"{RESULTS}/logs/compare_budgets.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_budgets.jsonl"
    params:
        table="budgets",
        cfg=as_param(EXPERIMENT.rivals),
        note="",
        code=table_code("budgets"),
