"""Figures, each as PNG and SVG."""

# Numbers that others have published, drawn where model, layer and metric are the same.
PUBLISHED = Path("results/reference/published.csv")
# Files of the tables, each called as the table it holds; a copy may lack the published numbers.
FIGURE_TABLES = {
    "scores": [rules.collect_scores.output.scores],
    "curves": [rules.collect_curves.output.curves],
    "differences": [rules.compare_methods.output.csv],
    "usage": [rules.collect_curves.output.usage],
    "stability": [rules.collect_stability.output.table],
    "routing": [rules.collect_routing.output.routing],
    "published": [str(PUBLISHED)] if PUBLISHED.is_file() else [],
}

FIGURE_FILES = expand(
    f"{RESULTS}/figures/{{figure}}.{{ending}}",
    figure=EXPERIMENT.figures,
    ending=["png", "svg"],
)


rule draw_figure:
    input:
        tables=figure_tables,
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=f"{RESULTS}/figures/{{figure}}.svg",
    log:
        f"{RESULTS}/logs/draw_figure-{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figure-{{figure}}.jsonl"
    conda:
        "../../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        cfg=EXPERIMENT.drawing_settings(),
        caption=lambda wildcards: find_figure(wildcards.figure).caption,
        code=lambda wildcards: code(
            "scripts/draw_figure.py",
            find_source(FIGURES, wildcards.figure),
            *EXPERIMENT.headline_sources(),
        ),
    shell:
        'python "$DBKSVD/scripts/draw_figure.py" --figure {wildcards.figure} --settings {params.cfg:q}'
        " --tables {input.tables:q} --output {output.png:q} {output.svg:q} > {log:q} 2>&1"
