"""Dictionaries of any architecture read from disk, for this package and for SAEBench."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from dbksvd.base.files import check_folder
from dbksvd.base.layout import CONFIG_FILE, SEAL_FILE, WEIGHTS_FILE
from dbksvd.dictionaries.dictionary import Dictionary, SparseDictionary
from dbksvd.dictionaries.registration import register
from dbksvd.dictionaries.sae_dictionary import NORMS, SAEDictionary
from dbksvd.dictionaries.saved import ARCHITECTURE, check_config, read_config
from dbksvd.dictionaries.signs import is_signed, split_signs
from dbksvd.dictionaries.transcoder import TRANSCODERS, Transcoder
from dbksvd.ops.inputs import pick_device

if TYPE_CHECKING:
    from sae_lens import SAE

logger = logging.getLogger(__name__)

# float32 rows of a few hundred entries carry norms to about 1e-6; SAEBench itself warns at 1e-5.
# Rows that were unit before they were rounded to half precision are off by less than the others.
NORM_TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 5e-3}
USUAL_NORM_TOLERANCE = 1e-5
# Their reconstructions are of something else than their inputs, or depend on the samples before.
NO_DICTIONARIES = (*TRANSCODERS, "skip_transcoder", "jumprelu_skip_transcoder", "temporal")


def load_dictionary(
    folder: str | Path, device: torch.device | str = "cpu", *, transcoders: bool = False
) -> SparseDictionary:
    """Read a dictionary of any architecture that SAELens or this package knows.

    Parameters
    ----------
    folder : path
        Folder with ``cfg.json`` and ``sae_weights.safetensors``.
    device : torch.device or str
        Where the weights go.
    transcoders : bool
        Whether transcoders are read too, whose reconstructions are of something else than what
        they encode.

    Returns
    -------
    SparseDictionary
        A `Dictionary` for architecture "dbksvd", a `Transcoder`, else an `SAEDictionary`.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, cut short, of an unknown architecture, without unit-norm rows, or
        differs from the hash in the seal of its fit, where there is a seal.
    """
    _check_fit(Path(folder))
    config = read_config(Path(folder))
    architecture = config.get("architecture")
    if architecture == ARCHITECTURE and not config.get("sign_split", False):
        return Dictionary.load(folder, device)
    if transcoders and architecture in TRANSCODERS:
        return Transcoder(_load_unit_norm(Path(folder), device, transcoders=True))
    return SAEDictionary(_load_unit_norm(Path(folder), device))


def load_sae(folder: str | Path, device: torch.device | str = "cpu") -> SAE[Any]:
    """Read a dictionary as an SAE ready for SAEBench: latents ≥ 0, decoder rows of unit norm.

    A signed dictionary of m atoms comes back sign-split, with 2m latents.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_dictionary`.
    """
    _check_fit(Path(folder))
    sae = _load_unit_norm(Path(folder), device)
    if is_signed(sae):
        sae = split_signs(sae)
        logger.info("signed codes: sign-split into %d non-negative latents", sae.cfg.d_sae)
    return sae


def _check_fit(folder: Path) -> None:
    """Check a dictionary against the seal of its fit; only fits of the workflow have one."""
    if (folder / SEAL_FILE).is_file():
        check_folder(folder / SEAL_FILE)


def _load_unit_norm(
    folder: Path, device: torch.device | str, *, transcoders: bool = False
) -> SAE[Any]:
    """Load with SAELens's own call, and fold decoder norms into the encoder where it can."""
    sae = _load_with_saelens(folder, device, transcoders)
    sae.eval().requires_grad_(False)
    if sae.cfg.reshape_activations != "none":
        # samples are flat here, as activations are: (n, heads · width of a head)
        sae.turn_off_forward_pass_hook_z_reshaping()
    if sae.cfg.normalize_activations not in ("none", *NORMS):
        logger.warning(
            "%s: normalize_activations is %r, which SAELens does not do when it encodes: samples "
            "are taken as they are",
            *(folder, sae.cfg.normalize_activations),
        )
    tolerance = NORM_TOLERANCE.get(sae.W_dec.dtype, USUAL_NORM_TOLERANCE)
    if _worst_norm(sae) > tolerance:
        try:
            sae.fold_W_dec_norm()  # the same function x → x̂, written with unit-norm rows
        except NotImplementedError as error:
            raise ValueError(f"{folder}: expected decoder rows of unit norm ({error})") from error
        logger.info("%s: decoder norms folded into the encoder", folder)
    if not _worst_norm(sae) <= tolerance:
        raise ValueError(f"{folder}: expected finite decoder rows of unit norm, got others")
    return sae


def _load_with_saelens(folder: Path, device: torch.device | str, transcoders: bool) -> SAE[Any]:
    from sae_lens import SAE  # takes seconds to load, and not every dictionary needs it
    from sae_lens.loading.pretrained_sae_loaders import read_sae_components_from_disk

    register()
    device = pick_device(device)
    for file in (folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: expected a dictionary folder, no such file")
    config = _check_for_saelens(folder, transcoders)

    def read(*_args: Any, **_kwargs: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        given = {**config, "device": str(device)}
        return read_sae_components_from_disk(given, folder / WEIGHTS_FILE, str(device))

    try:
        return SAE.load_from_disk(folder, device=str(device), converter=read)
    except SafetensorError as error:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: expected a whole safetensors file, got {error}"
        ) from error
    except (RuntimeError, AttributeError) as error:  # load_state_dict: missing or misshapen tensors
        raise ValueError(f"{folder / WEIGHTS_FILE}: {' '.join(str(error).split())}") from error
    except (KeyError, TypeError, ValueError) as error:  # of what the config says
        raise ValueError(
            f"{folder / CONFIG_FILE}: expected a config that SAELens reads, got "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _check_for_saelens(folder: Path, transcoders: bool) -> dict[str, Any]:
    """Return the config of a folder if SAELens has its architecture."""
    from sae_lens.registry import SAE_CLASS_REGISTRY

    config, path = read_config(folder), folder / CONFIG_FILE
    architecture = config.get("architecture")
    if architecture in NO_DICTIONARIES and not transcoders:
        raise ValueError(
            f"{path}: architecture: expected an SAE that reconstructs each sample from itself, got "
            f"{architecture!r}"
        )
    # configs of SAELens before 6 have no architecture where it is the standard one
    if not isinstance(architecture, str | None) or (
        architecture is not None and architecture not in SAE_CLASS_REGISTRY
    ):
        raise ValueError(f"{path}: architecture: SAELens does not know {architecture!r}")
    if architecture == ARCHITECTURE and not config.get("sign_split", False):
        check_config(config, path)
    return config


def _worst_norm(sae: SAE[Any]) -> float:
    return float((torch.linalg.vector_norm(sae.W_dec.double(), dim=1) - 1).abs().max())
