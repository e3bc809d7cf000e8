"""A dictionary with its encoder: what a fit returns and what scoring reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.base.shapes import Activations, Atoms, Bias
from dbksvd.dictionaries.saved import (
    ARCHITECTURE,
    check_config,
    check_weights,
    read_config,
    read_weights,
    replace_dictionary,
    write_dictionary,
)
from dbksvd.ops.inputs import HALF, as_samples, as_tensor, pick_device, restore_norms
from dbksvd.ops.pursuit.encode import sparse_encode
from dbksvd.ops.pursuit.gram import encode_again

# SAELens drops the metadata of a config that names no version of SAELens, or one before 6.
SAELENS_VERSION = "6.0.0"


class SparseDictionary(Protocol):
    """What every dictionary offers, whichever method made it."""

    @property
    def atoms(self) -> Atoms:
        """Unit-norm atoms, shape (m, d)."""
        ...

    @property
    def bias(self) -> Bias:
        """Subtracted before coding, added after decoding, shape (d,)."""
        ...

    def encode(self, x: Activations) -> SparseCodes:
        """Return the codes of `x`, shape (n, d)."""
        ...

    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Activations:
        """Return the reconstruction of `codes`, shape (n, d), computed in `dtype`."""
        ...


@dataclass(frozen=True)
class PursuitSettings:
    """How a dictionary encodes; see :func:`dbksvd.sparse_encode` for the meaning of each.

    Parameters
    ----------
    k : int
        Most non-zeros a sample may have.
    method : {"mp", "omp", "ols"}
        Matching pursuit, orthogonal matching pursuit or orthogonal least squares.
    nonnegative : bool
        Whether coefficients must be ≥ 0.
    refit : bool
        Whether coefficients are refitted by least squares on the final support.
    rtol : float
        Relative residual norm at which the pursuit of a sample ends.
    product_dtype : {None, "bfloat16"}
        Dtype in which samples are multiplied with atoms; None is their own.
    threshold : float
        Product with the residual, in the unit of the samples, up to which no atom is picked.
    penalties : None or tuple of m floats
        Fraction of the squared norm of the sample that the squared product of each atom with the
        residual must exceed for the atom to be picked.
    """

    k: int
    method: Literal["mp", "omp", "ols"] = "mp"
    nonnegative: bool = False
    refit: bool = True
    rtol: float = 0.0
    product_dtype: Literal["bfloat16"] | None = None
    threshold: float = 0.0
    penalties: tuple[float, ...] | None = None


def encode_with(
    x: Activations, atoms: Atoms, settings: PursuitSettings, *, implementation: str = "auto"
) -> SparseCodes:
    """Return the codes of centred samples (n, d) under `settings`.

    Parameters
    ----------
    x : floating tensor of shape (n, d)
        Centred samples.
    atoms : floating tensor of shape (m, d)
        Unit atoms.
    settings : PursuitSettings
        The pursuit; its k may be above m.
    implementation : str
        As in :func:`dbksvd.sparse_encode`.
    """
    chosen = asdict(settings) | {"k": min(settings.k, len(atoms))}
    return sparse_encode(x, atoms, **chosen, implementation=implementation)


def check_codes(codes: SparseCodes, n_atoms: int) -> None:
    """Check that codes are over as many atoms as a dictionary has.

    Raises
    ------
    ValueError
        Naming both numbers.
    """
    if codes.n_atoms != n_atoms:
        raise ValueError(f"codes: expected codes over {n_atoms} atoms, got {codes.n_atoms}")


@dataclass
class Dictionary:
    """Atoms, a bias and a pursuit encoder: ``x ≈ decode(encode(x)) = Z @ atoms + bias``.

    Parameters
    ----------
    atoms : floating tensor of shape (m, d)
        Unit-norm atoms.
    bias : floating tensor of shape (d,)
        Subtracted before coding, added after decoding.
    settings : PursuitSettings
        How samples are coded.
    metadata : dict
        Where the dictionary comes from (model, layer, seed, …); kept in ``cfg.json``.

    Raises
    ------
    ValueError
        If shapes disagree or an atom is not finite and of unit norm.
    """

    atoms: Atoms
    bias: Bias
    settings: PursuitSettings
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.atoms, self.bias = as_tensor(self.atoms, "atoms"), as_tensor(self.bias, "bias")
        if self.atoms.ndim != 2 or self.bias.shape != self.atoms.shape[1:]:
            raise ValueError(
                f"atoms, bias: expected shapes (m, d) and (d,), got "
                f"{tuple(self.atoms.shape)} and {tuple(self.bias.shape)}"
            )
        norms = torch.linalg.vector_norm(self.atoms.double(), dim=1)
        worst = (norms - 1).abs().max() if len(norms) else norms.sum()
        if not worst <= 1e-3:
            raise ValueError(
                f"atoms: expected finite atoms of unit norm, got one that is {worst:.3g} off"
            )
        if not torch.isfinite(self.bias).all():
            raise ValueError("bias: expected finite values, got NaN or infinity")

    def encode(
        self, x: Tensor | np.ndarray[Any, Any], *, implementation: str = "auto"
    ) -> SparseCodes:
        """Return the codes of samples under the dictionary's own settings.

        Parameters
        ----------
        x : tensor or array of shape (n, d), of any floating dtype
            Samples, of which there may be none; half precision is coded in float32.
        implementation : str
            As in :func:`dbksvd.sparse_encode`.

        Raises
        ------
        ValueError
            If `x` is not that; the message says what was expected and what came.
        """
        x = as_samples(x, self.atoms)
        atoms, bias = self.atoms, self.bias
        if atoms.dtype in HALF:
            atoms, bias = restore_norms(atoms), bias.float()
        return encode_again(x - bias, atoms, **asdict(self.settings), implementation=implementation)

    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Activations:
        """Return the reconstruction ``Z @ atoms + bias``, shape (n, d).

        It is computed in `dtype`: None is that of the atoms; float64 keeps all digits of what is
        stored, where a large bias hides some of the codes' in float32.

        Raises
        ------
        ValueError
            If the codes are over another number of atoms.
        """
        check_codes(codes, len(self.atoms))
        return codes.decode(self.atoms.to(dtype)) + self.bias.to(dtype)

    def to(self, device: torch.device | str) -> Dictionary:
        """Return the same dictionary on another device."""
        device = pick_device(device)
        return Dictionary(self.atoms.to(device), self.bias.to(device), self.settings, self.metadata)

    def save(self, path: str | Path) -> None:
        """Write ``cfg.json`` and ``sae_weights.safetensors`` into a folder, in SAELens's layout.

        Other files there stay. Older files of these names are replaced; a save that is killed
        leaves the old dictionary or the new one.

        Raises
        ------
        ValueError
            If a file of these names is not a dictionary's, or belongs to a fit of the workflow.
        """
        config = {
            "architecture": ARCHITECTURE,
            "d_in": self.atoms.shape[1],
            "d_sae": self.atoms.shape[0],
            "dtype": str(self.atoms.dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": SAELENS_VERSION, **self.metadata},
            **asdict(self.settings),
        }
        with replace_dictionary(path) as folder:
            write_dictionary(folder, config, {"W_dec": self.atoms, "b_dec": self.bias})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Dictionary:
        """Read a folder written by :meth:`save`.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing, cut short, of another architecture (for which there is
            :func:`dbksvd.load_dictionary`) or says something else than is expected; the message
            names file and key.
        """
        folder = Path(path)
        found = check_config(read_config(folder), folder / CONFIG_FILE)
        weights = read_weights(folder / WEIGHTS_FILE, ("W_dec", "b_dec"))
        check_weights(weights, found, folder / WEIGHTS_FILE)
        chosen = found.model_dump(include=set(PursuitSettings.__dataclass_fields__))
        if chosen["penalties"] is not None:
            chosen["penalties"] = tuple(chosen["penalties"])
        settings = PursuitSettings(**chosen)
        atoms, bias = weights["W_dec"], weights["b_dec"]
        if atoms.dtype in HALF:  # rounding has changed the norms a little
            atoms, bias = restore_norms(atoms), bias.float()
        try:
            loaded = cls(atoms, bias, settings, found.metadata)
        except ValueError as error:
            raise ValueError(f"{folder / WEIGHTS_FILE}: {error}") from None
        return loaded.to(device)
