"""A small language model, pretrained on the training documents where the config asks for one."""


rule train_language_model:
    input:
        seal=rules.prepare_text.output.seal,
        manifest=ancient(rules.prepare_text.output.manifest),
        documents=ancient(rules.prepare_text.output.documents),
        facts=ancient(fact_files()),
    output:
        seal=f"{RESULTS}/language_model.json",
    log:
        f"{RESULTS}/logs/train_language_model.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_language_model.jsonl"
    conda:
        "../../envs/activations.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
    params:
        cfg=as_param(EXPERIMENT.model_training),
        content=recall_content(fact_files()),
        code=code("scripts/train_language_model.py"),
        checkpoint=f"{RESULTS}/checkpoints/language_model",
    shell:
        'on_gpus {resources.gpu} python "$DBKSVD/scripts/train_language_model.py" --settings {params.cfg:q}'
        ' --text "$(dirname {input.manifest:q})" --checkpoint {params.checkpoint:q}'
        ' --output "$(dirname {output.seal:q})/language_model"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
