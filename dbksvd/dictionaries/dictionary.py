"""A dictionary with its encoder: what a fit returns and what scoring reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dbksvd.base.codes import SparseCodes
from dbksvd.base.files import read_json, replace_folder
from dbksvd.base.layout import CONFIG_FILE, WEIGHTS_FILE
from dbksvd.base.shapes import Activations, Atoms, Bias
from dbksvd.ops.pursuit.encode import sparse_encode

ARCHITECTURE = "dbksvd"
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

    def encode(self, x: Activations, *, implementation: str = "auto") -> SparseCodes:
        """Return the codes of `x` (n, d) under the dictionary's own settings."""
        return sparse_encode(
            x - self.bias, self.atoms, **asdict(self.settings), implementation=implementation
        )

    def decode(self, codes: SparseCodes, dtype: torch.dtype | None = None) -> Activations:
        """Return the reconstruction ``Z @ atoms + bias``, shape (n, d).

        It is computed in `dtype`: None is that of the atoms; float64 keeps all digits of what is
        stored, where a large bias hides some of the codes' in float32.
        """
        return codes.decode(self.atoms.to(dtype)) + self.bias.to(dtype)

    def to(self, device: torch.device | str) -> Dictionary:
        """Return the same dictionary on another device."""
        return Dictionary(self.atoms.to(device), self.bias.to(device), self.settings, self.metadata)

    def save(self, path: str | Path) -> None:
        """Write a folder in SAELens's layout (``cfg.json`` and safetensors), atomically."""
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
        weights = {"W_dec": self.atoms, "b_dec": self.bias}
        with replace_folder(path) as folder:
            (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
                folder / WEIGHTS_FILE,
            )

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Dictionary:
        """Read a folder written by :meth:`save`.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing, cut short, or of another architecture; the message names the file.
        """
        path = Path(path)
        config = read_json(path / CONFIG_FILE)
        if config.get("architecture") != ARCHITECTURE:
            raise ValueError(
                f"{path / CONFIG_FILE}: architecture: expected {ARCHITECTURE!r}, "
                f"got {config.get('architecture')!r}"
            )
        weights = read_weights(path / WEIGHTS_FILE, ("W_dec", "b_dec"))
        names = PursuitSettings.__dataclass_fields__
        # a file written before one of these settings existed means its default
        given = {"product_dtype": None, "threshold": 0.0, "penalties": None} | config
        if given["penalties"] is not None:
            given["penalties"] = tuple(given["penalties"])
        settings = PursuitSettings(**{name: given[name] for name in names})
        return cls(weights["W_dec"], weights["b_dec"], settings, config["metadata"]).to(device)


def read_weights(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Read a safetensors file that must hold the tensors `names`."""
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a whole safetensors file, got {error}") from error
    missing = set(names) - set(weights)
    if missing:
        raise ValueError(f"{path}: expected tensors {sorted(names)}, {sorted(missing)} missing")
    return weights
