"""Published SAEs: fetched or read, checked against the activations, made unit and measured."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sae_lens.saes.sae import SAE, SAEMetadata
from sae_lens.saes.topk_sae import TopKSAE
from safetensors import SafetensorError

from dbksvd.base.clock import read_clock
from dbksvd.base.local_files import expand_user
from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.decoding import decode_in
from dbksvd.dictionaries.encoder_flops import count_encoder_flops
from dbksvd.fit.baselines.pretrained_releases import PretrainedSettings, check_published, read_layer
from dbksvd.fit.savable import SavableSAE
from dbksvd.fit.task import FitResult, FitTask

HELDOUT_ROWS = 4096
ROWS_PER_BLOCK = 512
# Scoring takes rows that are this near to unit norm as they are.
NORM_TOLERANCE = 1e-5
# Rows that were unit before they were stored in bfloat16 are off by less.
STORAGE_TOLERANCE = 5e-3
# Makes torch refuse whatever a .pt file holds beside tensors and plain containers.
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

_logger = logging.getLogger(__name__)


def take_published(task: FitTask) -> FitResult:
    """Take a published SAE; see :func:`dbksvd.fit.baselines.pretrained.fit`."""
    started = read_clock(task.device)
    name = _name_source(task.settings)
    check_published(task.settings, task.n_atoms)
    sae = _load(task.settings, name).eval().requires_grad_(False)
    compared = _check_match(sae, task, name)
    deviation = _make_rows_unit_(sae, name)
    for weights in sae.parameters():  # some loaders transpose, which safetensors cannot write
        weights.data = weights.data.contiguous()
    published = task.settings.model_dump(exclude={"algorithm", "device"}, exclude_none=True)
    original = sae.cfg.metadata.to_dict()
    present = {key: value for key, value in task.metadata.items() if value is not None}
    sae.cfg.metadata = SAEMetadata(**original | present | {"published": published})
    measured = _measure(sae, task)
    seconds = read_clock(task.device) - started
    summary = {
        "seconds": seconds,
        "samples_seen": 0,
        "iterations": 0,
        "implementation": f"sae_lens {sae.cfg.architecture()}, published",
        "published": published | {"metadata": original},
        "compared": compared,
        "decoder_norm_deviation": deviation,
        **measured,
    }
    _logger.info("%s: L0 %.1f, explains %.3f", name, measured["l0"], measured["fve_heldout"])
    return FitResult(
        SavableSAE(sae), [{"seconds": seconds, "samples_seen": 0}], "published", summary
    )


def _name_source(settings: PretrainedSettings) -> str:
    return settings.path or f"{settings.release} {settings.id}"


def _load(settings: PretrainedSettings, name: str) -> SAE[Any]:
    """Load with SAELens's own calls, in float32."""
    try:
        if settings.path is not None:
            return SAE.load_from_disk(expand_user(settings.path), dtype="float32")
        assert settings.release is not None
        assert settings.id is not None
        with _tensors_only():
            return SAE.from_pretrained(settings.release, settings.id, dtype="float32")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{name}: expected a file of tensors only, got: {error}") from error
    except KeyError as error:
        raise ValueError(f"{name}: SAELens does not know or find {error}") from error
    except (SafetensorError, RuntimeError) as error:  # cut short; missing or misshapen tensors
        raise ValueError(f"{name}: expected whole weights, got: {error}") from error
    except TypeError as error:  # keys of another kind
        raise ValueError(f"{name}: expected the cfg.json of an SAE, got: {error}") from error
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name}: expected an SAE on the hub or in its cache, got {type(error).__name__}: "
            f"{first}"
        ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WEIGHTS_ONLY]
        else:
            os.environ[WEIGHTS_ONLY] = before


def _check_match(sae: SAE[Any], task: FitTask, name: str) -> list[str]:
    """Check an SAE against the activations; return what could be compared."""
    config, metadata = sae.cfg, sae.cfg.metadata
    count_encoder_flops(config.to_dict())  # refuses kinds that scoring does not know
    if config.d_sae != task.n_atoms:
        raise ValueError(
            f"n_atoms: expected {config.d_sae}, the width of {name}, got {task.n_atoms}"
        )
    if config.d_in != task.train.width:
        raise ValueError(
            f"{name}: expected an SAE for activations of width {task.train.width}, got one for "
            f"{config.d_in}"
        )
    if config.normalize_activations != "none":
        raise ValueError(
            f"{name}: expected an SAE whose normalize_activations is none, got "
            f"{config.normalize_activations!r}, which depends on the batch or on a factor that is "
            "not known"
        )
    compared = ["width"]
    for what, ours, theirs, same in (
        ("model", task.metadata.get("model_name"), metadata.model_name, _is_same_model),
        ("place", task.metadata.get("hook_name"), metadata.hook_name, _is_same_place),
    ):
        # Ready activations do not say where they come from, nor do all SAEs.
        if ours is None or theirs is None or task.metadata.get("hook_name") is None:
            _logger.warning("%s: %s not compared, since one of the two is not known", name, what)
            continue
        if not (same(ours, theirs) or (what == "place" and ours == metadata.hf_hook_name)):
            raise ValueError(f"{name}: expected an SAE for the {what} {ours}, got one for {theirs}")
        compared.append(what)
    return compared


def _is_same_place(ours: str, theirs: str) -> bool:
    layer = read_layer(ours)
    return ours == theirs or (layer is not None and layer == read_layer(theirs))


def _is_same_model(ours: str, theirs: str) -> bool:
    return _find_model_name(ours) == _find_model_name(theirs)


def _find_model_name(name: str) -> str:
    """Return one name for all of a model's names: TransformerLens's official one, short.

    ``gpt2-small`` and ``openai-community/gpt2`` are ``gpt2``; of a folder, its last part counts.
    """
    from transformer_lens.loading_from_pretrained import get_official_model_name

    for candidate in (name, name.rstrip("/").rsplit("/", 1)[-1]):
        try:
            return str(get_official_model_name(candidate)).rsplit("/", 1)[-1].lower()
        except ValueError:
            continue
    return candidate.lower()


def _make_rows_unit_(sae: SAE[Any], name: str) -> float:
    """Fold the decoder norms into the encoder; return how far the worst was from 1."""
    norms = torch.linalg.vector_norm(sae.W_dec.double(), dim=1)
    worst = float((norms - 1).abs().max())
    if not worst < float("inf") or float(norms.min()) < NORM_TOLERANCE:
        raise ValueError(
            f"{name}: expected finite decoder rows that are not 0, got norms from "
            f"{float(norms.min()):.3g} to {float(norms.max()):.3g}"
        )
    if worst <= NORM_TOLERANCE:
        return worst
    try:
        sae.fold_W_dec_norm()
    except NotImplementedError as error:
        # Which latents are the top k depends on the norms; of rounding, only ties do.
        if not isinstance(sae, TopKSAE) or worst > STORAGE_TOLERANCE:
            raise ValueError(
                f"{name}: expected decoder rows of unit norm, got one that is {worst:.3g} off "
                f"({error})"
            ) from error
        sae.fold_and_get_W_dec_norm()
    return worst


@torch.no_grad()
def _measure(sae: SAE[Any], task: FitTask) -> dict[str, float]:
    """Return L0 and variance explained on the first held-out samples."""
    rows = task.heldout.read(0, min(HELDOUT_ROWS, len(task.heldout)))
    variance, active = ExplainedVariance(rows.shape[1]), 0
    for block in rows.split(ROWS_PER_BLOCK):
        codes = sae.encode(block)
        codes = codes.to_dense() if codes.is_sparse else codes
        active += int(torch.count_nonzero(codes))
        variance.add(block, decode_in(torch.float64, sae, codes))
    return {"l0": active / len(rows), "fve_heldout": variance.compute()}
