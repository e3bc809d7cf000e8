"""Dictionaries of any architecture read from disk, for this package and for SAEBench."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.base.files import check_folder, read_json
from dbksvd.base.layout import CONFIG_FILE, SEAL_FILE, WEIGHTS_FILE
from dbksvd.dictionaries.decoding import decode_in
from dbksvd.dictionaries.dictionary import ARCHITECTURE, Dictionary, SparseDictionary
from dbksvd.dictionaries.registration import register

if TYPE_CHECKING:
    from sae_lens import SAE

logger = logging.getLogger(__name__)

# Dense latents are (rows, m): 512 rows of 16k latents are 32 MiB in float32.
ROWS_PER_BLOCK = 512
# float32 rows of a few hundred entries carry norms to about 1e-6; SAEBench itself warns at 1e-5.
NORM_TOLERANCE = 1e-5


@dataclass
class SAEDictionary:
    """A SAELens SAE as a :class:`~dbksvd.dictionaries.dictionary.SparseDictionary`.

    Parameters
    ----------
    sae : sae_lens.SAE
        The SAE, with decoder rows of unit norm.
    """

    sae: SAE[Any]

    @property
    def atoms(self) -> Tensor:
        """Decoder rows, shape (m, d)."""
        return self.sae.W_dec.detach()

    @property
    def bias(self) -> Tensor:
        """Decoder bias, shape (d,)."""
        return self.sae.b_dec.detach()

    @torch.no_grad()
    def encode(self, x: Tensor) -> SparseCodes:
        """Return the codes of `x` (n, d); dense latents exist for one block of rows at a time."""
        if hasattr(self.sae, "encode_sparse"):
            return self.sae.encode_sparse(x)
        return concatenate_codes(
            [SparseCodes.from_dense(_as_dense(self.sae.encode(rows))) for rows in _blocks(x)]
        )

    @torch.no_grad()
    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Tensor:
        """Return the reconstruction (n, d) by the SAE's own decoder, computed in `dtype`."""
        if hasattr(self.sae, "encode_sparse"):
            return decode_in(dtype, self.sae, codes)
        starts = range(0, max(len(codes), 1), ROWS_PER_BLOCK)
        blocks = [codes[slice(start, start + ROWS_PER_BLOCK)] for start in starts]
        return torch.cat([decode_in(dtype, self.sae, block.to_dense()) for block in blocks])


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    return x.split(ROWS_PER_BLOCK) if len(x) else (x,)


def _as_dense(latents: Tensor) -> Tensor:
    return latents.to_dense() if latents.is_sparse else latents


def load_dictionary(folder: str | Path, device: torch.device | str = "cpu") -> SparseDictionary:
    """Read a dictionary of any architecture that SAELens or this package knows.

    Parameters
    ----------
    folder : path
        Folder with ``cfg.json`` and ``sae_weights.safetensors``.
    device : torch.device or str
        Where the weights go.

    Returns
    -------
    SparseDictionary
        A `Dictionary` for architecture "dbksvd", else an `SAEDictionary`.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, cut short, of an unknown architecture, without unit-norm rows, or
        differs from the hash in the seal of its fit, where there is a seal.
    """
    _check_fit(Path(folder))
    config = read_json(Path(folder) / CONFIG_FILE)
    if config.get("architecture") == ARCHITECTURE and not config.get("sign_split", False):
        return Dictionary.load(folder, device)
    return SAEDictionary(_load_unit_norm(Path(folder), device))


def load_sae(folder: str | Path, device: torch.device | str = "cpu") -> SAE[Any]:
    """Read a dictionary as an SAE ready for SAEBench: latents ≥ 0, decoder rows of unit norm.

    A signed pursuit dictionary of m atoms comes back sign-split, with 2m latents.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_dictionary`.
    """
    _check_fit(Path(folder))
    sae = _load_unit_norm(Path(folder), device)
    if getattr(sae, "is_signed", False):
        sae = sae.split_signs()  # type: ignore[operator]
        logger.info("signed codes: sign-split into %d non-negative latents", sae.cfg.d_sae)
    return sae


def _check_fit(folder: Path) -> None:
    """Check a dictionary against the seal of its fit; only fits of the workflow have one."""
    if (folder / SEAL_FILE).is_file():
        check_folder(folder / SEAL_FILE)


def _load_unit_norm(folder: Path, device: torch.device | str) -> SAE[Any]:
    """Load with SAELens's own call, and fold decoder norms into the encoder where it can."""
    from sae_lens import SAE  # takes seconds to load, and not every dictionary needs it

    register()
    for file in (folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: expected a dictionary folder, no such file")
    architecture = read_json(folder / CONFIG_FILE).get("architecture")
    try:
        sae = SAE.load_from_disk(folder, device=str(device))
    except KeyError as error:
        raise ValueError(
            f"{folder / CONFIG_FILE}: architecture: SAELens does not know {architecture!r}"
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: expected a whole safetensors file, got {error}"
        ) from error
    except RuntimeError as error:  # load_state_dict: missing or misshapen tensors
        raise ValueError(f"{folder / WEIGHTS_FILE}: {error}") from error
    sae.eval().requires_grad_(False)
    if _worst_norm(sae) > NORM_TOLERANCE:
        try:
            sae.fold_W_dec_norm()  # the same function x → x̂, written with unit-norm rows
        except NotImplementedError as error:
            raise ValueError(f"{folder}: expected decoder rows of unit norm ({error})") from error
        logger.info("%s: decoder norms folded into the encoder", folder)
    if not _worst_norm(sae) <= NORM_TOLERANCE:
        raise ValueError(f"{folder}: expected finite decoder rows of unit norm, got others")
    return sae


def _worst_norm(sae: SAE[Any]) -> float:
    return float((torch.linalg.vector_norm(sae.W_dec.double(), dim=1) - 1).abs().max())
