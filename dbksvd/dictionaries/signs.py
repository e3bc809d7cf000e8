"""Signed SAEs, and their twins with non-negative latents, which SAEBench needs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from dbksvd.dictionaries.dictionary import Dictionary, SparseDictionary
from dbksvd.dictionaries.sae_dictionary import SAEDictionary

if TYPE_CHECKING:
    from sae_lens import SAE

ABSTOPK = "abstopk"


def is_signed(sae: SAE[Any]) -> bool:
    """Return whether latents of an SAE may be negative."""
    if sae.cfg.architecture() == ABSTOPK:
        return True
    return bool(getattr(sae, "is_signed", False))


def has_signed_codes(dictionary: SparseDictionary) -> bool:
    """Return whether a dictionary's codes may be negative."""
    if isinstance(dictionary, Dictionary):
        return not dictionary.settings.nonnegative
    return isinstance(dictionary, SAEDictionary) and is_signed(dictionary.sae)


def split_signs(sae: SAE[Any]) -> SAE[Any]:
    """Return the twin with 2m latents relu(z), relu(−z) over the rows [D; −D].

    Of an AbsTopK SAE it is a TopK SAE with the encoder [E, −E]: of z and −z, at most one is
    positive, so that the k largest of all 2m are the k latents largest in size.

    Parameters
    ----------
    sae : sae_lens.SAE
        A signed one (:func:`is_signed`).

    Raises
    ------
    ValueError
        If latents are non-negative already.
    """
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig  # takes seconds to load

    if not is_signed(sae):
        raise ValueError("split_signs: expected signed latents, got non-negative ones")
    if sae.cfg.architecture() != ABSTOPK:  # a pursuit's
        twin: SAE[Any] = sae.split_signs()  # type: ignore[operator]
        return twin
    given = vars(sae.cfg) | {
        "d_sae": 2 * sae.cfg.d_sae,
        "metadata": copy.deepcopy(sae.cfg.metadata),
    }
    twin = TopKSAE(TopKSAEConfig(**given))
    signs = torch.tensor([1.0, -1.0], device=sae.W_dec.device, dtype=sae.W_dec.dtype)
    twin.load_state_dict(
        {
            "W_enc": torch.kron(signs[None], sae.W_enc.detach()),
            "b_enc": torch.kron(signs, sae.b_enc.detach()),
            "W_dec": torch.kron(signs[:, None], sae.W_dec.detach()),
            "b_dec": sae.b_dec.detach(),
        }
    )
    return twin.eval().requires_grad_(False)
