"""What an experiment costs before it is run: hours, disk and memory of each stage.

Operations are counted from the config; seconds follow from assumed rates of a device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dbksvd.activations.file_headers import check_ready
from dbksvd.activations.settings import FileActivations
from dbksvd.base.site import Site
from dbksvd.base.work import FLOAT, Work
from dbksvd.estimates.devices import Device
from dbksvd.estimates.pages import count_collection, count_rendering
from dbksvd.estimates.stability import count_comparisons
from dbksvd.evaluation.saebench.checks import scores_place
from dbksvd.evaluation.saebench.entry import EvalTexts
from dbksvd.evaluation.saebench.registry import find_eval
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import find_method
from dbksvd.models.places import find_gguf
from dbksvd.models.sizes import ModelKind, ModelSizes

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LABEL_BYTES = 12  # document, position and token of a stored row
IMAGE_TOKENS = 128  # of an image, roughly


@dataclass(frozen=True)
class Stage:
    """A stage: seconds of all jobs together, bytes of memory of the largest, bytes on disk."""

    name: str
    jobs: int
    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class SiteRows:
    """The rows of a site: their width and numbers, and how many jobs make them."""

    site: Site
    width: int
    n_train: int
    n_heldout: int
    slices: int
    row_bytes: int


def list_sites(config: Any, sizes: ModelSizes | None) -> list[SiteRows]:
    """Return the sites of an experiment with their rows.

    Raises
    ------
    ValueError
        If the width of a site is not known: ``model.expect`` or a file of ready activations tells
        it.
    """
    found = []
    for section in (config.activations, config.ground_truth):
        if section is None:
            continue
        if hasattr(section, "synthetic"):
            width, sites = section.synthetic.hidden_dim, [Site("synthetic")]
        elif hasattr(section, "files"):
            width, sites = _read_width(section), [Site("files")]
        elif sizes is None:
            raise ValueError(
                "model.expect: expected width, layers and parameters of a model that is not on "
                "this machine, got none"
            )
        else:
            width = sizes.width
            sites = section.list_sites()
            if getattr(config, "randomised", None) is not None:
                sites += section.list_sites("random_layer")
        numbers = (section.n_train_tokens, section.n_heldout_tokens, section.slices)
        for site in sites:
            stored = (2 if site.is_pair else 1) * width
            row = stored * _BYTES[section.storage_dtype] + LABEL_BYTES
            found.append(SiteRows(site, width, *numbers, row))
    return found


def _read_width(section: FileActivations) -> int:
    """Return the width of ready activations, which the header of their file tells."""
    shape = check_ready(section)
    if shape is None:
        raise ValueError("activations.files.path: expected h5py to be installed, found none")
    return shape[1]


def estimate_stages(
    config: Any,
    fits: Iterable[Any],
    sizes: ModelSizes | None,
    device: Device,
    kind: ModelKind = "causal",
    paged: Collection[Any] = (),
    unscored: Collection[Any] = (),
) -> list[Stage]:
    """Return the stages with what they cost, in their order.

    Parameters
    ----------
    config : ExperimentConfig
        A checked config.
    fits : iterable
        Its dictionaries, with ``site``, ``method``, ``n_atoms`` and ``k``.
    sizes : ModelSizes or None
        Of its model; None without one.
    device : Device
        Assumed rates.
    kind : {"causal", "encoder"}
        Whether the model has a language-model head, and core so a loss.
    paged : collection
        Those of `fits` that have feature pages.
    unscored : collection
        Further dictionaries, which are made only since others begin from them.

    Raises
    ------
    ValueError
        If sizes are missing.
    """
    sites = {str(rows.site): rows for rows in list_sites(config, sizes)}
    parameters = float(sizes.parameters or 0) if sizes else 0.0
    stages = []
    if config.model is not None and find_gguf(config.model) is not None:
        size = _BYTES[config.model.dtype] * parameters
        stages.append(_make_stage("convert model", [Work(memory=2 * size, disk=size)], device))
    stages.append(_make_stage("extract", _list_extractions(config, sites, sizes), device))
    stages.append(_estimate_shards(sites.values(), device))
    scored_fits = list(fits)
    made = [*scored_fits, *unscored]
    stages_of_fits, coding = _estimate_fits(config, made, sites, sizes, device)
    coding = coding[: len(scored_fits)]
    stages += stages_of_fits
    evals = {
        name: find_eval(name).cost(settings, kind)
        for name, settings in config.evaluation.list_evals().items()
        if sizes is not None
    }
    prepared = [
        _count_preparation(rows, texts, sizes, dtype=config.model.dtype)
        for rows in sites.values()
        for texts in _select_evals(rows, evals).values()
        if sizes is not None
    ]
    if prepared:
        stages.append(_make_stage("prepare evals", prepared, device, is_eval=True))
    scored = [_count_scoring(rows, fit, one, evals, parameters) for rows, fit, one in coding]
    stages.append(_make_stage("evaluate", scored, device, is_eval=True))
    if compared := count_comparisons(config, coding):
        stages.append(_make_stage("compare seeds", compared, device))
    if paged:
        stages += _estimate_pages(config, coding, paged, sizes, device)
    return stages


def _estimate_fits(
    config: Any,
    fits: Iterable[Any],
    sites: Mapping[str, SiteRows],
    sizes: ModelSizes | None,
    device: Device,
) -> tuple[list[Stage], list[tuple[SiteRows, Any, Work]]]:
    """Return the stages of the fits, and for each fit the work of coding one sample."""
    stream = getattr(config.activations, "stream", None)
    by_stage: dict[str, list[Work]] = {}
    coding = []
    for fit in fits:
        settings, rows = config.methods[fit.method], sites[fit.site]
        entry = find_method(settings.algorithm)
        n_train = rows.n_train
        if stream is not None and rows.site.is_layer:
            n_train = stream.n_tokens
        fit_sizes = FitSizes(fit.n_atoms, fit.k, rows.width, n_train, rows.n_heldout)
        if sizes is not None and rows.site.is_layer:
            fit_sizes = replace(
                fit_sizes,
                model_parameters=sizes.parameters or 0,
                depth=(rows.site.layer or 0) / sizes.layers,
            )
        work = entry.plan(settings, fit_sizes)
        if sizes is not None and n_train > rows.n_train:
            work += Work(model=_count_reading(rows, sizes, n_train))  # rows it extracts itself
        by_stage.setdefault(entry.stage, []).append(work)
        coding.append((rows, fit, _count_coding(config, fit.method, fit_sizes)))
    return [_make_stage(name, works, device) for name, works in sorted(by_stage.items())], coding


def _count_coding(config: Any, method: str, sizes: FitSizes) -> Work:
    """Return the work of coding one sample, by the encoder of another method's fit if need be."""
    settings = config.methods[method]
    entry = find_method(settings.algorithm)
    if entry.coding is not None:
        return entry.coding(settings, sizes)
    base = entry.find_base(settings)
    assert base is not None  # as an entry without coding says
    return _count_coding(config, base.method, sizes)


def _estimate_pages(
    config: Any,
    coding: Iterable[tuple[SiteRows, Any, Work]],
    paged: Collection[Any],
    sizes: ModelSizes | None,
    device: Device,
) -> list[Stage]:
    """Return the stages of the feature pages: a job for each site, and one for all."""
    by_site: dict[SiteRows, list[tuple[Any, Work]]] = {}
    for rows, fit, one in coding:
        if fit in paged:
            by_site.setdefault(rows, []).append((fit, one))
    works = []
    for rows, found in by_site.items():
        reading = Work()
        if sizes is not None and rows.site.is_layer:
            weights = (sizes.parameters or 0) * _BYTES[config.model.dtype]
            reading = Work(model=_count_reading(rows, sizes, 1), memory=weights)
        works.append(count_collection(config, rows, found, reading))
    rendering = count_rendering(sum(fit.n_atoms for fit in paged))
    return [
        _make_stage("collect examples", works, device),
        _make_stage("render pages", [rendering], device),
    ]


def _make_stage(name: str, works: list[Work], device: Device, *, is_eval: bool = False) -> Stage:
    start = device.start_eval if is_eval else device.start
    seconds = sum(device.count_seconds(work) + start for work in works)
    memory, disk = max(work.memory for work in works), sum(work.disk for work in works)
    return Stage(name, len(works), seconds, memory, disk)


def _list_extractions(
    config: Any, sites: Mapping[str, SiteRows], sizes: ModelSizes | None
) -> list[Work]:
    """Return a job for each slice, which reads text once for all sites of a model."""
    activations, works = config.activations, []
    jobs: dict[Any, list[SiteRows]] = {}
    for rows in sites.values():
        shares = rows.site.is_layer and activations.source == "model"
        jobs.setdefault(rows.site.kind if shares else rows.site, []).append(rows)
    for job in jobs.values():
        rows = max(job, key=lambda one: one.site.layer or 0)
        tokens = (rows.n_train + rows.n_heldout) / rows.slices
        row_bytes = sum(one.row_bytes for one in job)
        work = Work(disk=tokens * row_bytes, memory=row_bytes * 4096)
        if sizes is not None and rows.site.is_layer:
            batch = activations.batch_size * getattr(activations, "context_length", IMAGE_TOKENS)
            weights = (sizes.parameters or 0) * _BYTES[config.model.dtype]
            held = weights + 16.0 * batch * rows.width * FLOAT
            work += Work(model=_count_reading(rows, sizes, tokens), memory=held)
        works += [work] * rows.slices
    return works


def _count_reading(rows: SiteRows, sizes: ModelSizes, tokens: float) -> float:
    """Return the operations of reading tokens: two for each weight up to the layer, and token."""
    return 2.0 * (sizes.parameters or 0) * (rows.site.layer or 0) / sizes.layers * tokens


def _estimate_shards(sites: Iterable[SiteRows], device: Device) -> Stage:
    sizes = [(rows.n_train + rows.n_heldout) * rows.row_bytes for rows in sites]
    # Read and written, and read again for their hashes.
    seconds = sum(3 * size / device.disk + device.start for size in sizes)
    return Stage("shard", len(sizes), seconds, 1e9, float(sum(sizes)))


def _count_preparation(rows: SiteRows, texts: EvalTexts, sizes: ModelSizes, dtype: str) -> Work:
    return Work(
        model=_count_reading(rows, sizes, texts.prepared),
        host_seconds=texts.prepare_seconds,
        memory=(sizes.parameters or 0) * _BYTES[dtype] + texts.held * rows.width * FLOAT,
        disk=texts.stored * rows.width * FLOAT,
    )


def _select_evals(rows: SiteRows, evals: Mapping[str, EvalTexts]) -> dict[str, EvalTexts]:
    """Return the evals that score the dictionaries of a site."""
    if not rows.site.is_layer:
        return {}
    return {name: texts for name, texts in evals.items() if scores_place(name, rows.site.place)}


def _count_scoring(
    rows: SiteRows, fit: Any, one: Work, evals: Mapping[str, EvalTexts], parameters: float
) -> Work:
    """Return the work of scoring a dictionary; `one` is that of coding one sample."""
    read = list(_select_evals(rows, evals).values())
    coded = rows.n_heldout + sum(texts.coded for texts in read)
    # SAEBench decodes all latents, zeros too.
    decoded = 2.0 * fit.n_atoms * rows.width * sum(texts.coded for texts in read)
    held = max((texts.held for texts in read), default=0) * rows.width * FLOAT
    weights = parameters * FLOAT if any(texts.forward for texts in read) else 0
    return Work(
        model=2 * parameters * sum(texts.forward for texts in read),
        products=one.products * coded + decoded,
        steps=one.steps * coded,
        host_seconds=sum(texts.host_seconds for texts in read),
        memory=held + weights + 3.0 * fit.n_atoms * rows.width * FLOAT,
    )
