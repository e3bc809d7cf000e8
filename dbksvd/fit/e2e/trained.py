"""Dictionaries with weights that learn, by what codes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from dbksvd.base.files import read_json
from dbksvd.base.layout import CONFIG_FILE
from dbksvd.base.shapes import Activations
from dbksvd.dictionaries.dictionary import Dictionary, SparseDictionary, encode_with
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.dictionaries.sae_dictionary import SAEDictionary
from dbksvd.fit.e2e.held_support import decode_support
from dbksvd.fit.e2e.settings import PENALISED
from dbksvd.fit.ksvd.calibration import Calibration
from dbksvd.fit.savable import SavableSAE
from dbksvd.fit.task import Savable

# Most times that thresholds are moved, and by how much at most each way.
THRESHOLD_STEPS, LARGEST_FACTOR = 24, 4.0


class Trained(Protocol):
    """A dictionary in training; its atoms have unit norm behind each step."""

    weights: dict[str, nn.Parameter]

    def reconstruct(self, x: Activations) -> tuple[Tensor, float]:
        """Return reconstructions (n, d) with gradients, and the mean number of non-zeros."""
        ...

    def settle_(self) -> None:
        """Bring atoms back to unit norm, behind a step."""
        ...

    def finish(self, x: Activations, l0: float) -> Savable:
        """Return what is saved; thresholds are set so that `x` has a mean of `l0` non-zeros."""
        ...

    def freeze(self) -> SparseDictionary:
        """Return the dictionary as it is now, to be measured."""
        ...


def load_trained(folder: Path, width: int, metadata: dict[str, Any], device: Any) -> Trained:
    """Return the dictionary of another fit, to be trained on.

    Parameters
    ----------
    folder : Path
        The fit.
    width : int
        Width d of the activations.
    metadata : dict
        Where the activations come from.
    device : torch.device
        Where to compute.

    Raises
    ------
    ValueError
        If the dictionary is of another place, or cannot be trained on.
    """
    config = read_json(folder / CONFIG_FILE)
    found = config.get("metadata") or {}
    place = {"hook_name": metadata.get("hook_name"), "model_sha256": metadata.get("model_sha256")}
    # a published SAE names its place by other conventions and has no hash of a model
    is_ours = found.get("model_sha256") is not None
    if config.get("d_in") != width or (is_ours and any(found[key] != place[key] for key in place)):
        raise ValueError(
            f"{folder}: expected a dictionary of {place['hook_name']} of this model, of width "
            f"{width}, got one of {found.get('hook_name')}, of width {config.get('d_in')}"
        )
    if config.get("architecture") in PENALISED:
        raise ValueError(
            f"{folder}: expected a dictionary that keeps its number of non-zeros, got an SAE of "
            f"architecture {config['architecture']}, which a penalty holds"
        )
    dictionary = load_dictionary(folder, device)
    if isinstance(dictionary, Dictionary):
        return TrainedPursuit(dictionary)
    assert isinstance(dictionary, SAEDictionary)
    return TrainedSAE(dictionary)


class TrainedPursuit:
    """Atoms and bias under a pursuit, whose choices are held while the gradient is taken.

    Parameters
    ----------
    dictionary : Dictionary
        Where it begins.

    Raises
    ------
    ValueError
        If its coefficients are not those of least squares.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        if not dictionary.settings.refit:
            raise ValueError("of: expected a pursuit with refit: true, got refit: false")
        self.settings, self.metadata = dictionary.settings, dictionary.metadata
        self.weights = {
            "atoms": nn.Parameter(dictionary.atoms.clone()),
            "bias": nn.Parameter(dictionary.bias.clone()),
        }

    def reconstruct(self, x: Activations) -> tuple[Tensor, float]:
        """Code by the pursuit, then fit on what it picked; see `Trained`."""
        atoms, bias = self.weights["atoms"], self.weights["bias"]
        centred = x - bias
        codes = encode_with(centred.detach(), atoms.detach(), self.settings)
        return decode_support(centred, atoms, codes) + bias, float(codes.l0.double().mean())

    @torch.no_grad()
    def settle_(self) -> None:
        """See `Trained`."""
        atoms = self.weights["atoms"]
        atoms.copy_(normalize(atoms, dim=1))

    def finish(self, x: Activations, l0: float) -> Dictionary:
        """See `Trained`."""
        if self.settings.threshold > 0:
            found = self.freeze()
            rows = x.to(found.bias) - found.bias
            self.settings = Calibration(rows).set_threshold(found.atoms, l0, self.settings)
        return self.freeze().to("cpu")

    def freeze(self) -> Dictionary:
        """See `Trained`."""
        atoms, bias = (weight.detach().clone() for weight in self.weights.values())
        return Dictionary(atoms, bias, replace(self.settings), dict(self.metadata))


class TrainedSAE:
    """An SAE under its own encoder and decoder.

    Parameters
    ----------
    dictionary : SAEDictionary
        Where it begins.
    """

    def __init__(self, dictionary: SAEDictionary) -> None:
        self.sae = dictionary.sae.requires_grad_(True)
        self.weights = dict(self.sae.named_parameters())

    def reconstruct(self, x: Activations) -> tuple[Tensor, float]:
        """See `Trained`."""
        if hasattr(self.sae, "encode_sparse"):
            codes = self.sae.encode_sparse(x)
            return self.sae.decode_sparse(codes), float(codes.l0.double().mean())
        latents = self.sae.encode(x)
        return self.sae.decode(latents), float(torch.count_nonzero(latents)) / len(x)

    @torch.no_grad()
    def settle_(self) -> None:
        """See `Trained`."""
        self.sae.W_dec.copy_(normalize(self.sae.W_dec, dim=1))

    @torch.no_grad()
    def finish(self, x: Activations, l0: float) -> Savable:
        """See `Trained`; one factor moves all thresholds."""
        if "threshold" in self.weights:
            start = self.sae.threshold.detach().clone()
            low, high = 1 / LARGEST_FACTOR, LARGEST_FACTOR
            for _ in range(THRESHOLD_STEPS):
                middle = (low * high) ** 0.5
                self.sae.threshold.copy_(start * middle)
                is_over = float(self.freeze().encode(x.to(start)).l0.double().mean()) > l0
                low, high = (middle, high) if is_over else (low, middle)
            self.sae.threshold.copy_(start * high)
        return SavableSAE(self.sae)

    def freeze(self) -> SAEDictionary:
        """See `Trained`."""
        return SAEDictionary(self.sae)
