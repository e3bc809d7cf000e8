"""What Switch SAE and KronSAE share: codes as (index, value) pairs, decoder rows of unit norm.

SAELens hands dense latents (n, m) from its encoder to its decoder. These classes code into
:class:`~dbksvd.base.codes.SparseCodes` and decode by gathering rows; dense latents exist only where
SAELens's ``encode`` and ``decode`` are called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import (
    SAE,
    SAEConfig,
    TrainCoefficientConfig,
    TrainingSAE,
    TrainStepInput,
    TrainStepOutput,
)
from torch import Tensor
from typing_extensions import override

from dbksvd.base.codes import SparseCodes, concatenate_codes
from dbksvd.dictionaries.saved import save_sae
from dbksvd.ops.ranks import ALONE, Ranks

# Samples coded at once: bounds the memory of one call; results do not depend on it.
ROWS_PER_BLOCK = 8192
# The auxiliary loss compares reconstructions with inputs, so that single samples must not be
# normalised in between.
NORMALIZATIONS = ("none", "expected_average_only_in")


def check_config(cfg: SAEConfig, sizes: dict[str, int], most_active: int) -> None:
    """Check the settings that the configs of Switch SAE and KronSAE share.

    Parameters
    ----------
    cfg : SAEConfig
        A config with a field ``k``.
    sizes : dict
        Names and values that must be at least 1.
    most_active : int
        Largest k allowed.

    Raises
    ------
    ValueError
        If a size is below 1, k is above `most_active` or the normalisation is not supported.
    """
    k = cfg.k  # type: ignore[attr-defined]
    for name, value in {**sizes, "k": k}.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if k > most_active:
        raise ValueError(f"k: expected at most {most_active} latents to choose from, got {k}")
    if cfg.normalize_activations not in NORMALIZATIONS:
        raise ValueError(
            f"normalize_activations: expected one of {', '.join(NORMALIZATIONS)}, "
            f"got {cfg.normalize_activations!r}"
        )
    if getattr(cfg, "decoder_init_norm", 1.0) != 1.0:
        raise ValueError("decoder_init_norm: expected 1.0 (decoder rows have unit norm), got other")


class SparseSAE(SAE[Any]):
    """An SAE that codes into (index, value) pairs."""

    def encode_with_state(self, inputs: Tensor) -> tuple[SparseCodes, Tensor]:
        """Return the codes of processed inputs (n, d), and what the auxiliary losses need."""
        raise NotImplementedError

    def encode_sparse(self, x: Tensor) -> SparseCodes:
        """Return the codes of `x` (n, d), k slots a sample, without dense latents."""
        return self._encode_blocks(self.process_sae_in(x))

    @override
    def save_model(self, path: str | Path) -> tuple[Path, Path]:
        """Write both files into a folder, as :meth:`dbksvd.Dictionary.save`."""
        return save_sae(super().save_model, path)

    @override
    def encode(self, x: Tensor) -> Tensor:
        """Return dense latents of shape (…, m) of `x` (…, d)."""
        inputs = self.process_sae_in(x)
        codes = self._encode_blocks(inputs.reshape(-1, self.cfg.d_in))
        latents = codes.to_dense().reshape(*inputs.shape[:-1], self.cfg.d_sae)
        return self.hook_sae_acts_post(latents)

    def _encode_blocks(self, inputs: Tensor) -> SparseCodes:
        return concatenate_codes(
            [self.encode_with_state(rows)[0] for rows in inputs.split(ROWS_PER_BLOCK)]
        )

    @override
    def decode(self, feature_acts: Tensor) -> Tensor:
        """Return the reconstruction (…, d) of dense latents (…, m)."""
        return self._finish(feature_acts @ self.W_dec)

    def decode_sparse(self, codes: SparseCodes) -> Tensor:
        """Return the reconstruction (n, d) of codes by a weighted sum of gathered rows."""
        return self._finish(codes.decode(self.W_dec))

    def _finish(self, weighted_rows: Tensor) -> Tensor:
        out = self.hook_sae_recons(weighted_rows + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    @override
    def fold_W_dec_norm(self) -> None:
        raise NotImplementedError("decoder rows have unit norm; folding could change the TopK")

    @override
    def fold_activation_whitening(self, *_args: Tensor, **_kwargs: Tensor) -> None:
        raise NotImplementedError("whitening cannot be folded: decoder rows have unit norm")


class SparseTrainingSAE(SparseSAE, TrainingSAE[Any]):
    """Training with decoder rows held at unit norm, under SAELens's ``SAETrainer``.

    SAELens calls nothing after a step. Rows are therefore divided by their norms at the start of
    each forward pass. The decoder divides by the norms, which are then 1, once more inside the
    graph: differentiating through them takes the radial part out of the gradient.
    """

    # The processes that hold the other rows of a batch: a loss may not be a mean over rows.
    ranks: Ranks = ALONE

    @torch.no_grad()
    def normalise_decoder_(self) -> None:
        """Divide the decoder rows by their norms."""
        self.W_dec.div_(self.get_W_dec_norm().unsqueeze(1))

    @override
    def fold_W_dec_norm(self) -> None:
        """Make the decoder rows exactly unit; reconstructions do not change."""
        self.normalise_decoder_()

    @override
    def decode(self, feature_acts: Tensor) -> Tensor:
        return super().decode(feature_acts / self._row_norms())

    @override
    def decode_sparse(self, codes: SparseCodes) -> Tensor:
        return super().decode_sparse(self._divide_by_norms(codes))

    def _row_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.W_dec, dim=1)

    def _divide_by_norms(self, codes: SparseCodes) -> SparseCodes:
        values = codes.values / self._row_norms()[codes.indices]
        return SparseCodes(codes.indices, values, codes.n_atoms)

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        return {}  # the coefficients are constant: they stay in the config

    @override
    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return dense latents (n, m) and what the auxiliary losses need."""
        codes, state = self.encode_with_state(self.process_sae_in(x))
        return codes.to_dense(), state

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return losses of a batch (n, d); its feature_acts are a sparse COO tensor (n, m)."""
        self.normalise_decoder_()
        codes, state = self.encode_with_state(self.process_sae_in(step_input.sae_in))
        sae_out = self.decode_sparse(codes)
        squared_error = self.mse_loss_fn(sae_out, step_input.sae_in).sum(dim=-1)
        feature_acts = _to_sparse_tensor(codes)
        losses = {
            "mse_loss": squared_error.mean(),
            **self.calculate_aux_loss(step_input, feature_acts, state, sae_out),
        }
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=state,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
        )

    def measure_revival_loss(
        self, codes: SparseCodes, step_input: TrainStepInput, sae_out: Tensor, scale: Tensor | float
    ) -> Tensor:
        """Return the error of dead latents in explaining the residual of the live ones.

        The loss is ``coefficient · mean_n scale_n ‖x − x̂ − Z_dead D‖²``, without a gradient into
        x̂.

        Parameters
        ----------
        codes : SparseCodes
            Codes on dead latents, shape (n, k_aux).
        step_input : TrainStepInput
            Holds the inputs x, shape (n, d).
        sae_out : tensor of shape (n, d)
            Reconstructions x̂ by the live latents.
        scale : tensor of shape (n,), or float
            Weight of each sample: 1, or less where few latents are dead.
        """
        residual = (step_input.sae_in - sae_out).detach()
        recovered = self._divide_by_norms(codes).decode(self.W_dec)
        error = (recovered - residual).pow(2).sum(dim=-1)
        return self.cfg.aux_loss_coefficient * (scale * error).mean()

    @override
    def save_inference_model(self, path: str | Path) -> tuple[Path, Path]:
        """Write the form for inference into a folder, as :meth:`dbksvd.Dictionary.save`."""
        return save_sae(super().save_inference_model, path)

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        super().process_state_dict_for_saving_inference(state_dict)
        state_dict["W_dec"] = self.W_dec.detach() / self.get_W_dec_norm().unsqueeze(1)


def make_codes(indices: Tensor, values: Tensor, n_atoms: int, dtype: torch.dtype) -> SparseCodes:
    """Return codes from (index, value) pairs; values are in `dtype`, also under autocast.

    Parameters
    ----------
    indices : int64 tensor of shape (n, k)
        Latents of each sample.
    values : floating tensor of shape (n, k)
        Their values, ≥ 0 and falling; a slot of value 0 is unused and gets index 0.
    n_atoms : int
        Latents in all.
    dtype : torch.dtype
        Of the values that are returned.
    """
    values = values.to(dtype)
    return SparseCodes(indices.masked_fill(values == 0, 0), values, n_atoms)


def _to_sparse_tensor(codes: SparseCodes) -> Tensor:
    """Return the COO tensor (n, m) in which ``SAETrainer`` counts the latents that fired."""
    n, k = codes.indices.shape
    rows = torch.arange(n, device=codes.indices.device).repeat_interleave(k)
    pairs = torch.stack([rows, codes.indices.flatten()])
    values = codes.values.detach().flatten()
    return torch.sparse_coo_tensor(pairs, values, (n, codes.n_atoms), check_invariants=False)
