"""What the rules take as input and how scripts are told: functions of the wildcards."""


def layer_of(wildcards):
    """Number of the layer of a site such as layer4; None where there is no model."""
    return Site.parse(wildcards.site).layer


def extractions_of(wildcards):
    """Param of an extraction: a section for each site that the job writes."""
    names = [name.format(**wildcards) for name in EXTRACTED]
    return as_param([EXPERIMENT.extraction(name) for name in names])


def stream_of(wildcards):
    """Param of a fit that extracts its training rows itself; None for the others."""
    return EXPERIMENT.stream(wildcards.site)


def text_content(wildcards):
    """Hash of local text, whose content the config does not fix; None where a file is missing."""
    try:
        return recall_content(
            file
            for source in (CONFIG.text.sources if CONFIG.text else ())
            for file in find_text_source(source.kind).local_files(source)
        )
    except OSError:  # the job will say what is wrong
        return None


def recall_content(paths):
    """Hash of local files, which the config only names; read only where they have changed."""
    digest = hashlib.sha256()
    for path in paths:
        record = f".snakemake/contents/{hash_content(str(path))[:16]}.json"
        try:
            digest.update(recall_hash(path, record).encode())
        except OSError:  # the job will say what is wrong
            return None
    return digest.hexdigest()


# Weights that are not read, since only safetensors are, and what people write about a model.
NOT_READ = (
    ".bin",
    ".ckpt",
    ".gguf",
    ".h5",
    ".md",
    ".msgpack",
    ".onnx",
    ".ot",
    ".pt",
    ".pth",
)


def folder_content(folder):
    """Hash of weights, settings and tokenizer in a local folder; None where there is none."""
    if folder is None or not expand_user(folder).is_dir():
        return None
    files = sorted(expand_user(folder).iterdir())
    return recall_content(
        file
        for file in files
        if file.is_file()
        and not file.name.startswith(".")
        and file.suffix not in NOT_READ
    )


def model_content(wildcards):
    """Hash of a local model folder; None for one that is converted here or pinned by a revision."""
    return folder_content(CONFIG.model and CONFIG.model.name)


def activation_content(wildcards):
    """Hash of what activations are made from and the config only names: a file, or a model."""
    return ready_content() if EXPERIMENT.source == "files" else model_content(wildcards)


@functools.cache  # asked for by each slice
def ready_content():
    """Hash of ready activations, with what lies behind an HDF5 file."""
    # here, since it loads HDF5, which few configs need
    from dbksvd.activations.from_files import list_files

    ready = CONFIG.activations.files
    try:
        return recall_content(list_files(expand_user(ready.path), ready.tensor))
    except (OSError, ValueError):  # the job will say what is wrong
        return None


def published_content(wildcards):
    """Hash of a published SAE in a local folder; None for all other methods."""
    settings = method_settings(wildcards)
    return folder_content(settings.path if settings.algorithm == "pretrained" else None)


def text_inputs(wildcards):
    """The documents, where activations come from text. Only the seal's content counts."""
    if EXPERIMENT.source != "model":
        return {}
    return {
        "seal": rules.prepare_text.output.seal,
        "manifest": ancient(rules.prepare_text.output.manifest),
        "documents": ancient(rules.prepare_text.output.documents),
        **model_inputs(wildcards),
    }


def method_settings(wildcards):
    """The settings of a method."""
    return CONFIG.methods[wildcards.method]


def gguf_content():
    """Hash of the GGUF file that is converted; None without one."""
    file = EXPERIMENT.gguf
    return None if file is None else recall_content([file])


def converting_memory():
    """MB that unpacking a GGUF file takes: its weights twice, of the smallest packing."""
    file = EXPERIMENT.gguf
    return 2000 if file is None else 2000 + 16 * file.stat().st_size // 10**6


def eval_files(wildcards):
    """Local files that an eval reads."""
    return EXPERIMENT.eval_files(wildcards.eval)


def norm_limit_file(wildcards):
    """The largest norm that fits see, where the preparation of an eval needs it."""
    if not EXPERIMENT.needs_norm_limit(wildcards.eval):
        return []
    return f"{RESULTS}/{wildcards.site}/shards/norm_limit.json"


def eval_content(wildcards):
    """Hash of the local files that an eval reads, and of a local model."""
    files = eval_files(wildcards)
    return [model_content(wildcards), recall_content(files) if files else None]


def access_inputs(wildcards):
    """The record of what was found outside; only that it is there counts."""
    if EXPERIMENT.access() is None:
        return {}
    return {"access": ancient(rules.check_access.output.facts)}


def model_inputs(wildcards):
    """The seal and weights of a converted model; for a ready one, that it can be had."""
    if EXPERIMENT.conversion is None:
        return access_inputs(wildcards)
    return {
        "model": rules.convert_model.output.seal,
        "model_weights": ancient(rules.convert_model.output.weights),
    }


def eval_code(name):
    """Hash of one eval's sources and what all evals share."""
    return code("dbksvd/evaluation/saebench/runner.py", find_source(EVALS, name))


def prepared_evals(wildcards):
    """Manifests of all evals at a site."""
    return [
        f"{RESULTS}/{wildcards.site}/prepared/{name}/manifest.json"
        for name in EXPERIMENT.evals(wildcards.site)
    ]


def image_content(wildcards):
    """Hash of the images themselves; None where the job will say what is wrong with them."""
    if CONFIG.images is None:
        return None
    try:
        return hash_images(CONFIG.images.folder, f"{IMAGES}/images.jsonl")
    except OSError:
        return None


def list_parts(ending):
    """All parts of a site's activations."""

    def list_files(wildcards):
        slices = range(EXPERIMENT.count_slices(wildcards.site))
        return expand(f"{PARTS}.{ending}", site=wildcards.site, slice=slices)

    return list_files


def base_folders(wildcards):
    """The dictionaries that a fit begins from: same site and sizes; none for most."""
    fit = Fit(**{**wildcards, "seed": int(wildcards.seed)})
    return [
        DICTIONARY.format(**{**wildcards, "method": base.method, "seed": base.seed})
        for base in EXPERIMENT.bases(fit)
    ]


def base_inputs(wildcards):
    """Seals and weights of the dictionaries that a fit begins from."""
    folders = base_folders(wildcards)
    if not folders:
        return {}
    return {
        "bases": [f"{folder}/fit.json" for folder in folders],
        "base_weights": ancient(
            [f"{folder}/sae_weights.safetensors" for folder in folders]
        ),
    }


def base_option(wildcards):
    """Argument of a fit that begins from others; empty for most."""
    folders = base_folders(wildcards)
    return f"--bases {shlex.join(folders)}" if folders else ""


def features_inputs(wildcards):
    """The generative model, for the control whose atoms are its features; none for all others."""
    if not EXPERIMENT.method(wildcards.method).needs_truth:
        return {}
    return {
        "truth": f"{SYNTHETIC}/model/manifest.json",
        "truth_weights": ancient(f"{SYNTHETIC}/model/synthetic_model.safetensors"),
    }


def features_option(wildcards, input):
    """Argument of that control."""
    if "truth" not in input.keys():
        return ""
    return f"--truth {shlex.quote(str(Path(input.truth).parent))}"


def stream_inputs(wildcards):
    """Text and model, where the fit extracts its training rows itself or runs the model."""
    if stream_of(wildcards) is None and not needs_model(wildcards):
        return {}
    found = text_inputs(wildcards)
    return {"text": found.pop("seal"), **found}


def stream_option(wildcards):
    """Argument of a fit that streams; empty for the others."""
    settings = stream_of(wildcards)
    return "" if settings is None else f"--stream {shlex.quote(settings)}"


def needs_model(wildcards):
    """Whether a fit runs the model over the documents."""
    return EXPERIMENT.method(wildcards.method).needs_model


def model_option(wildcards):
    """Argument of a fit that runs the model; empty for the others."""
    if not needs_model(wildcards):
        return ""
    return f"--model {shlex.quote(as_param(EXPERIMENT.extraction(wildcards.site)))}"


def heldout_inputs(wildcards):
    """The documents, where an eval reads the held-out ones. Only the seal's content counts."""
    if not EXPERIMENT.reads_heldout(wildcards.eval):
        return {}
    return {
        "text": rules.prepare_text.output.seal,
        "manifest": ancient(rules.prepare_text.output.manifest),
        "documents": ancient(rules.prepare_text.output.documents),
    }


def text_option(wildcards, input):
    """Where the text is, for a job that reads it. Apart: a param of inputs is no reason to run again."""
    if "text" not in input.keys():
        return ""
    return f"--text {shlex.quote(str(Path(input.text).parent))}"


def fit_sources(wildcards):
    """Files that a fit begins at. A method is one module: an edit reruns the fits of it only."""
    streamed = stream_of(wildcards) is not None
    return [
        "scripts/fit_dictionary.py",
        *EXPERIMENT.method_sources(wildcards.method),
        *(["dbksvd/activations/stream.py"] if streamed else []),
    ]


def stability_inputs(wildcards):
    """Seals and weights of the dictionaries whose seeds are compared."""
    folders = seed_folders(wildcards)
    return {
        "seals": [f"{folder}/fit.json" for folder in folders],
        "weights": ancient([f"{folder}/sae_weights.safetensors" for folder in folders]),
    }


def seed_folders(wildcards):
    """Folders of the dictionaries of one kind, one for each seed."""
    return [
        DICTIONARY.format(**{**wildcards, "seed": seed}) for seed in seeds(wildcards)
    ]


def seeds(wildcards):
    """Seeds of one kind of dictionary."""
    kind = (
        wildcards.site,
        wildcards.method,
        int(wildcards.n_atoms),
        int(wildcards.k),
    )
    return [fit.seed for fit in EXPERIMENT.seed_groups.get(kind, [])]


def truth_inputs(wildcards):
    """What made the samples, where their features are known."""
    if wildcards.site != "synthetic":
        return {}
    return {
        "model": rules.make_synthetic_model.output.manifest,
        "model_weights": ancient(rules.make_synthetic_model.output.weights),
        "truth_seals": expand(f"{TRUTH}.json", slice=TRUTH_SLICES),
        "truth": ancient(expand(f"{TRUTH}.safetensors", slice=TRUTH_SLICES)),
    }


def probe_inputs(wildcards):
    """The prepared texts of the probes, where a dictionary's encoders are probed."""
    if not ENCODERS.probes(wildcards.method, wildcards.site):
        return {}
    name = "sparse_probing_sae_probes"
    return {"prepared": f"{RESULTS}/{wildcards.site}/prepared/{name}/manifest.json"}


def encoder_options(wildcards, input):
    """Where truth and probes are. Apart: a param of inputs is no reason to run again."""
    found = []
    if "truth" in input.keys():
        model = shlex.quote(str(Path(input.model).parent))
        found += [f"--model {model} --truth", *map(shlex.quote, input.truth)]
    if "prepared" in input.keys():
        found.append(f"--prepared {shlex.quote(str(Path(input.prepared).parents[1]))}")
    return " ".join(found)


def first_fit(wildcards):
    """Priority of a fit: those of the first look come before all others."""
    keys = (*(wildcards[key] for key in ("site", "method", "n_atoms", "k", "seed")),)
    return EARLY if keys in FIRST_KEYS else FITTING


def first_site(wildcards):
    """Priority of what a site's fits read: that of the first look comes first."""
    return EARLY if FIRST and wildcards.site == FIRST[0].site else PREPARING


def list_scored():
    """Positions of the fits whose scores there are: all, but in the table of a failed run."""
    failed = {tuple(keys) for *keys, _ in FAILED_FITS}
    return [
        i
        for i, fit in enumerate(EXPERIMENT.fits)
        if (fit.site, fit.method, fit.n_atoms, fit.k, fit.seed) not in failed
    ]


def table_code(name):
    """Hash of what makes one of the tables for people."""
    return code(
        "scripts/make_table.py",
        find_source(TABLES, name),
        *EXPERIMENT.headline_sources(),
    )


def figure_tables(wildcards):
    """Files of the tables that a figure needs."""
    names = find_figure(wildcards.figure).tables
    return [path for name in names for path in FIGURE_TABLES[name]]


def page_inputs(wildcards):
    """Seals and weights of the dictionaries that have pages, and what their site is read from."""
    folders = [
        f"{RESULTS}/{wildcards.site}/dictionaries/{fit.name}"
        for fit in PAGES.list_fits(wildcards.site)
    ]
    found = {
        "shards": f"{RESULTS}/{wildcards.site}/shards/manifest.json",
        "seals": [f"{folder}/fit.json" for folder in folders],
        "weights": ancient([f"{folder}/sae_weights.safetensors" for folder in folders]),
    }
    if wildcards.site == "synthetic":
        return found | {"synthetic": f"{SYNTHETIC}/model/manifest.json"}
    if EXPERIMENT.source == "images":
        found["images"] = rules.prepare_images.output.manifest
    if EXPERIMENT.source == "model":
        inputs = text_inputs(wildcards)
        found |= {"text": inputs.pop("manifest"), **inputs}
    if "sparse_probing_sae_probes" in EXPERIMENT.evals(wildcards.site):
        found["probes"] = (
            f"{RESULTS}/{wildcards.site}/prepared/sparse_probing_sae_probes/manifest.json"
        )
    return found


def page_stability():
    """What is known of the seeds of the dictionaries that have pages."""
    kinds = {
        (fit.site, fit.method, fit.n_atoms, fit.k)
        for site in PAGE_SITES
        for fit in PAGES.list_fits(site)
    }
    return [
        seal
        for kind, seal in zip(EXPERIMENT.seed_groups, STABILITY_SEALS)
        if kind in kinds
    ]


def page_options(wildcards, input):
    """Folders that the site has. Apart: a param of inputs is no reason to run again."""
    names = [
        name
        for name in ("text", "images", "synthetic", "probes")
        if name in input.keys()
    ]
    return " ".join(
        f"--{name} {shlex.quote(str(Path(input[name]).parent))}" for name in names
    )
