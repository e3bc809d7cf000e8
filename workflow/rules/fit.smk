"""One dictionary for each method × n_atoms × k × seed."""

DICTIONARY = f"{RESULTS}/{{site}}/dictionaries/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}"


# One process, several on this node, or several on each of some nodes of a Slurm allocation: profiles
# choose by the resources ranks (processes a node) and nodes; results are the same up to rounding.
LAUNCH = (
    'case "{resources.nodes} {resources.ranks}" in'
    ' "1 1") set -- python ;;'
    ' "1 "*) set -- python -m torch.distributed.run --standalone'
    " --nproc-per-node={resources.ranks} ;;"
    " *) set -- srun --nodes={resources.nodes} --ntasks={resources.nodes} --ntasks-per-node=1"
    " --cpus-per-task={threads} python -m torch.distributed.run --nnodes={resources.nodes}"
    " --nproc-per-node={resources.ranks} --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID"
    ' --rdzv-endpoint="$(hostname):$((20000 + SLURM_JOB_ID % 40000))" ;; esac;'
    ' on_gpus {resources.gpu} "$@"'
)


rule fit_dictionary:
    input:
        unpack(base_inputs),
        unpack(stream_inputs),
        unpack(features_inputs),
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
    priority: first_fit
    conda:
        "../../envs/fit.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=GPUS,
        ranks=1,
        nodes=1,
    params:
        cfg=lambda wildcards: as_param(method_settings(wildcards).dump()),
        content=published_content,
        code=lambda wildcards: code(*fit_sources(wildcards)),
        stream=stream_option,
        model=model_option,
        text=text_option,
        bases=base_option,
        truth=features_option,
        checkpoint=f"{RESULTS}/{{site}}/checkpoints/{{method}}/m{{n_atoms}}-k{{k}}-s{{seed}}",
    shell:
        f'{LAUNCH} "$DBKSVD/scripts/fit_dictionary.py" --settings {{params.cfg:q}}'
        " {params.bases} {params.truth} {params.stream} {params.model} {params.text} --n-atoms {wildcards.n_atoms} --k {wildcards.k} --seed {wildcards.seed}"
        ' --shards "$(dirname {input.manifest:q})" --checkpoint {params.checkpoint:q}'
        ' --output "$(dirname {output.seal:q})"'
        " --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
