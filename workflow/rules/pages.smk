"""Feature pages: examples of all dictionaries of a site in one pass, then HTML that opens from disk."""

PAGES = Pages(EXPERIMENT)
PAGE_SITES = PAGES.sites
FEATURES = f"{RESULTS}/{{site}}/features/manifest.json"


rule collect_examples:
    input:
        unpack(page_inputs),
    output:
        manifest=FEATURES,
    log:
        f"{RESULTS}/logs/{{site}}/collect_examples.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/collect_examples.jsonl"
    priority: LONG
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
    params:
        cfg=PAGES.examples(),
        extraction=lambda wildcards: PAGES.extraction(wildcards.site),
        names=lambda wildcards: [fit.name for fit in PAGES.list_fits(wildcards.site)],
        code=code("scripts/collect_examples.py"),
        folders=page_options,
        checkpoint=f"{RESULTS}/{{site}}/checkpoints/features",
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/collect_examples.py" --settings {params.cfg:q}'
        " --extraction {params.extraction:q} --names {params.names:q} {params.folders}"
        f" --dictionaries {RESULTS}/{{wildcards.site}}/dictionaries"
        ' --shards "$(dirname {input.shards:q})" --checkpoint {params.checkpoint:q}'
        ' --output "$(dirname {output.manifest:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule render_pages:
    input:
        features=expand(FEATURES, site=PAGE_SITES),
        scores=rules.collect_scores.output.scores,
        table=rules.summarise_scores.output.csv,
        figures=FIGURE_FILES,
        stability=page_stability(),
    output:
        index=f"{RESULTS}/site/index.html",
    log:
        f"{RESULTS}/logs/render_pages.log",
    benchmark:
        f"{RESULTS}/benchmarks/render_pages.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        cfg=PAGES.rendering(),
        code=code(
            "scripts/render_pages.py",
            *EXPERIMENT.headline_sources(),
            *list_static_files(),
        ),
    shell:
        'python "$DBKSVD/scripts/render_pages.py" --settings {params.cfg:q} --features {input.features:q}'
        " --scores {input.scores:q} --table {input.table:q} --figures {input.figures:q}"
        " --stability {input.stability:q}"
        ' --output "$(dirname {output.index:q})" > {log:q} 2>&1'
