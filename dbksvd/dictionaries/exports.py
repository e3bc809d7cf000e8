"""DB-KSVD dictionaries written as SAEs that other tools read without changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig
from sae_lens.saes.sae import SAE, SAEMetadata
from torch import Tensor

from dbksvd.base.shapes import Atoms
from dbksvd.dictionaries.dictionary import Dictionary
from dbksvd.dictionaries.pursuit_sae import PursuitSAE, PursuitSAEConfig
from dbksvd.dictionaries.saved import save_sae

# A cosine above minus this counts as not negative: the product that it gives back to an atom
# picked before is numerically zero.
COSINE_TOLERANCE = 1e-6
ROWS_PER_BLOCK = 1024
# The settings that SAELens's matching pursuit has fixed.
MATCHING_PURSUIT = {
    "method": "mp",
    "nonnegative": True,
    "refit": False,
    "rtol": 0.0,
    "product_dtype": None,
    "threshold": 0.0,
    "penalties": None,
}


def export_sign_split(dictionary: Dictionary, path: str | Path) -> None:
    """Write a signed dictionary of m atoms as an SAE of 2m non-negative latents over [D; −D].

    A coefficient z becomes the latents relu(z) and relu(−z), so reconstruction and L0 stay as they
    are. ``SAE.load_from_disk`` reads the folder after ``import dbksvd``.

    Parameters
    ----------
    dictionary : Dictionary
        With signed codes.
    path : path
        Folder to write to, as :meth:`Dictionary.save`: other files there stay.

    Raises
    ------
    ValueError
        If the codes are non-negative already.
    """
    if dictionary.settings.nonnegative:
        raise ValueError("dictionary: expected signed codes, got non-negative ones")
    sae = PursuitSAE(PursuitSAEConfig(**_describe(dictionary), **asdict(dictionary.settings)))
    _load_weights(sae, dictionary)
    sae.split_signs().save_model(path)


def export_matching_pursuit(dictionary: Dictionary, path: str | Path) -> None:
    """Write a dictionary as SAELens's own ``matching_pursuit`` SAE, which needs no dbksvd to load.

    The pursuit of this package ends with the k-th distinct atom and picks an atom again where that
    explains more; SAELens's does ``max_iterations`` steps whichever atoms they pick. The two agree
    only where no atom can be picked twice before the k-th is found. The export is made only in the
    two cases where this is certain:

    - k ≤ 2: right after its pick an atom's product is 0, so that the next pick is another atom;
    - no cosine between two atoms is negative: right after its pick an atom's product is 0 and never
      rises again, since each later pick subtracts a non-negative multiple of a cosine from it.

    Then ``max_iterations = k``, ``residual_threshold = 0`` and ``stop_on_duplicate_support =
    False`` give the same codes, up to rounding: a product below the numerical zero of this package
    (64 eps of the norm of the sample) ends its pursuit, and becomes a latent of that size in
    SAELens's.

    Parameters
    ----------
    dictionary : Dictionary
        Coded by non-negative matching pursuit, without refit, ``rtol`` 0.
    path : path
        Folder to write to, as :meth:`Dictionary.save`: other files there stay.

    Raises
    ------
    ValueError
        If SAELens's architecture would code differently.
    """
    settings = dictionary.settings
    for name, value in MATCHING_PURSUIT.items():
        if getattr(settings, name) != value:
            raise ValueError(
                f"dictionary: expected {name}={value!r} for matching_pursuit, "
                f"got {getattr(settings, name)!r}"
            )
    if settings.k > 2 and (cosine := _find_least_cosine(dictionary.atoms)) < -COSINE_TOLERANCE:
        raise ValueError(
            "dictionary: expected k of at most 2 or no negative cosine between atoms, got "
            f"k={settings.k} and a cosine of {cosine:.3f}: SAELens would count an atom that is "
            "picked again as an iteration and code differently"
        )
    config = MatchingPursuitSAEConfig(
        **_describe(dictionary),
        residual_threshold=0.0,
        max_iterations=settings.k,
        stop_on_duplicate_support=False,
    )
    sae = MatchingPursuitSAE(config)
    _load_weights(sae, dictionary)
    save_sae(sae.save_model, path)


EXPORTS: dict[str, Callable[[Dictionary, str | Path], None]] = {
    "sign-split": export_sign_split,
    "matching-pursuit": export_matching_pursuit,
}


def _describe(dictionary: Dictionary) -> dict[str, Any]:
    n_atoms, width = dictionary.atoms.shape
    return {
        "d_in": width,
        "d_sae": n_atoms,
        "dtype": str(dictionary.atoms.dtype).removeprefix("torch."),
        "metadata": SAEMetadata(**dictionary.metadata),
    }


def _load_weights(sae: SAE[Any], dictionary: Dictionary) -> None:
    sae.load_state_dict({"W_dec": dictionary.atoms.cpu(), "b_dec": dictionary.bias.cpu()})


def _find_least_cosine(atoms: Atoms) -> float:
    """Return the least cosine between two atoms, in blocks of rows."""

    def find_least(rows: Tensor) -> float:
        return float((rows @ atoms.T).min())

    return min(find_least(rows) for rows in torch.split(atoms, ROWS_PER_BLOCK))
