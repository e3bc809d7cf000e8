"""Figures, each as PNG and SVG."""

# Numbers that others have published, drawn where model, layer and metric are the same.
PUBLISHED = "results/reference/published.csv"

FIGURE_FILES = expand(
    f"{RESULTS}/figures/{{figure}}.{{ending}}",
    figure=EXPERIMENT.figures,
    ending=["png", "svg"],
)


rule draw_figure:
    input:
        scores=rules.collect_scores.output.scores,
        curves=rules.collect_curves.output.curves,
        usage=rules.collect_curves.output.usage,
        routing=(
            rules.collect_routing.output.routing
            if "routing" in EXPERIMENT.figures
            else []
        ),
        published=PUBLISHED if Path(PUBLISHED).is_file() else [],
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
        cfg=EXPERIMENT.section(
            "figures",
            methods=list(config["methods"]),
            model=(config.get("model") or {}).get("name"),
        ),
        code=code("scripts/draw_figure.py"),
    shell:
        'python "$DBKSVD/scripts/draw_figure.py" --figure {wildcards.figure} --settings {params.cfg:q}'
        " --scores {input.scores:q} --curves {input.curves:q} --usage {input.usage:q}"
        " --routing {input.routing:q} --published {input.published:q}"
        " --output {output.png:q} {output.svg:q} > {log:q} 2>&1"
