"""Activations of a vision encoder on a folder of images, where the config asks for them."""

IMAGES = f"{RESULTS}/images"


# A checkpoint, as equal images rerun nothing.
checkpoint prepare_images:
    output:
        manifest=f"{IMAGES}/manifest.json",
        images=f"{IMAGES}/images.jsonl",
    log:
        f"{RESULTS}/logs/prepare_images.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_images.jsonl"
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        cfg=EXPERIMENT.section("images"),
        content=image_content,
        code=code("scripts/prepare_images.py"),
    shell:
        'python "$DBKSVD/scripts/prepare_images.py" --settings {params.cfg:q} --output "$(dirname {output.manifest:q})"'
        " > {log:q} 2>&1"


# Both make the parts of a layer: from images where the config says so, else from text.
ruleorder: extract_image_activations > extract_activations


rule extract_image_activations:
    input:
        manifest=rules.prepare_images.output.manifest,
        images=ancient(rules.prepare_images.output.images),
    output:
        part=f"{RESULTS}/{{site}}/parts/part-{{slice}}.h5",
        seal=f"{RESULTS}/{{site}}/parts/part-{{slice}}.json",
    log:
        f"{RESULTS}/logs/{{site}}/extract_image_activations-{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/extract_image_activations-{{slice}}.jsonl"
    wildcard_constraints:
        site=r"layer\d+(_[a-z0-9_]+)?" if EXPERIMENT.source == "images" else "none",
    conda:
        "../../envs/activations.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: as_param(EXPERIMENT.extraction(wildcards.site)),
        content=activation_content,
        code=code("scripts/extract_image_activations.py"),
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/extract_image_activations.py" --settings {params.cfg:q}'
        ' --images "$(dirname {input.manifest:q})" --slice {wildcards.slice} --output {output.part:q}'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
