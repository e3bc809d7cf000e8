"""One dictionary for each method × n_atoms × k × seed."""

DICTIONARY = f"{RESULTS}/{{site}}/dictionaries/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}"


def base_inputs(wildcards):
    """The fit that a method begins from: same site, sizes and seed."""
    base = find_base(method_settings(wildcards))
    if base is None:
        return {}
    folder = DICTIONARY.format(**{**wildcards, "method": base})
    return {
        "base": f"{folder}/fit.json",
        "base_weights": ancient(f"{folder}/sae_weights.safetensors"),
    }


rule fit_dictionary:
    input:
        unpack(base_inputs),
        manifest=rules.shard_activations.output.manifest,
    output:
        config=f"{DICTIONARY}/cfg.json",
        weights=f"{DICTIONARY}/sae_weights.safetensors",
        seal=f"{DICTIONARY}/fit.json",
        log=f"{DICTIONARY}/log.csv",
    log:
        f"{RESULTS}/logs/{{site}}/fit_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{site}}/fit_dictionary/{{method}}-m{{n_atoms}}-k{{k}}-s{{seed}}.jsonl"
    conda:
        "../../envs/fit.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
    params:
        cfg=lambda wildcards: as_param(method_settings(wildcards)),
        # A method is one module: an edit reruns the fits of that method only.
        code=lambda wildcards: code(
            "scripts/fit_dictionary.py", *list_sources(method_settings(wildcards))
        ),
        base=lambda wildcards, input: (
            f"--base {shlex.quote(str(Path(input.base).parent))}" if "base" in input.keys() else ""
        ),
        checkpoint=f"{RESULTS}/{{site}}/checkpoints/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}",
    shell:
        'python "$DBKSVD/scripts/fit_dictionary.py" --settings {params.cfg:q}'
        " {params.base} --n-atoms {wildcards.n_atoms} --k {wildcards.k} --seed {wildcards.seed}"
        ' --shards "$(dirname {input.manifest:q})" --checkpoint {params.checkpoint:q}'
        ' --output "$(dirname {output.seal:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
