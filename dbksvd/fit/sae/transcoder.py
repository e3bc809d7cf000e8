"""Transcoders in training: latents of an input that reconstruct a target at another place.

SAELens has transcoders that encode and decode, and none that trains. Here its BatchTopK training,
its auxiliary loss and its trainer are used, on rows that hold input and target side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEConfig, TrainingSAE, TrainStepInput, mse_loss
from sae_lens.saes.transcoder import JumpReLUTranscoderConfig, Transcoder
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor
from typing_extensions import override

from dbksvd.base.variance import ExplainedVariance
from dbksvd.dictionaries.decoding import decode_in
from dbksvd.fit.sae.centring import CentredScaler
from dbksvd.fit.sae.measure import ROWS_PER_BLOCK, count_active, make_inference_form
from dbksvd.fit.sae.trainer import INITIAL_ROWS, SAELoop

ARCHITECTURE = "transcoder"


@dataclass
class TranscoderTrainingConfig(BatchTopKTrainingSAEConfig):
    """SAELens's BatchTopK settings, and the width of the target."""

    d_out: int = 768
    apply_b_dec_to_input: bool = False  # the decoder's bias is the target's

    @override
    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        return JumpReLUTranscoderConfig


class TranscoderTraining(BatchTopKTrainingSAE):
    """BatchTopK of an input; what the atoms reconstruct is the target.

    Rows (n, d_in + d_out) hold both. The loss is ‖y − ŷ‖² of the target y alone. It is saved as a
    JumpReLU transcoder with one threshold, as SAELens saves BatchTopK SAEs.
    """

    cfg: TranscoderTrainingConfig  # type: ignore[assignment]
    process_sae_in = Transcoder.process_sae_in  # type: ignore[assignment]

    def __init__(self, cfg: TranscoderTrainingConfig, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        self.mse_loss_fn = lambda made, rows: mse_loss(made, self.take_target(rows))

    def take_target(self, rows: Tensor) -> Tensor:
        """Return the target (n, d_out) of rows."""
        return rows[..., self.cfg.d_in :]

    @override
    @torch.no_grad()
    def initialize_weights(self) -> None:
        Transcoder.initialize_weights(self)  # type: ignore[arg-type]
        # atoms and encoder weights at random, both of unit norm: they live in other spaces
        self.W_dec /= torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_enc /= torch.linalg.vector_norm(self.W_enc, dim=0, keepdim=True)

    def initialise_from_data(self, rows: Tensor) -> None:
        """Let the target's bias start at its mean, which is 0 where samples are centred."""
        self.b_dec.data = self.take_target(rows).mean(dim=0)

    @override
    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode_with_hidden_pre(x[..., : self.cfg.d_in])

    @override
    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Tensor,
        hidden_pre: Tensor,
        sae_out: Tensor,
    ) -> dict[str, Tensor]:
        target = replace(step_input, sae_in=self.take_target(step_input.sae_in))
        return super().calculate_aux_loss(target, feature_acts, hidden_pre, sae_out)


if ARCHITECTURE not in SAE_TRAINING_CLASS_REGISTRY:
    register_sae_training_class(ARCHITECTURE, TranscoderTraining, TranscoderTrainingConfig)


class PairScaler(CentredScaler):
    """Centres rows, and scales input and target each to unit expected norm per coordinate.

    Parameters
    ----------
    centre : tensor of shape (d_in + d_out,)
        What is subtracted.
    width : int
        d_in.
    rows : tensor of shape (n, d_in + d_out)
        Samples that the two factors are taken from.
    """

    def __init__(self, centre: Tensor, width: int, rows: Tensor) -> None:
        super().__init__(centre)
        self.width = width
        ends = (rows - centre.to(rows)).split([width, rows.shape[1] - width], dim=1)
        factors = [
            end.shape[1] ** 0.5 / max(float(torch.linalg.vector_norm(end, dim=1).mean()), 1e-30)
            for end in ends
        ]
        self.factor, self.target_factor = factors
        self.scaling_factor = self.factor

    @override
    def estimate_scaling_factor(self, *_args: Any, **_kwargs: Any) -> None:
        """Keep the factors, which are known."""

    @override
    def scale(self, acts: Tensor) -> Tensor:
        centred = acts - self.centre.to(acts.device)
        inputs, targets = centred[..., : self.width], centred[..., self.width :]
        return torch.cat([inputs * self.factor, targets * self.target_factor], dim=-1)

    @override
    def unscale(self, acts: Tensor) -> Tensor:
        """Return targets in their own unit."""
        return acts / self.target_factor + self.centre[self.width :].to(acts)


@torch.no_grad()
def fold_pair_scaler_(sae: TranscoderTraining, scaler: PairScaler) -> None:
    """Let a transcoder that was trained on scaled pairs take inputs, and give targets, as they are.

    With x' = f (x − c) and y' = g (y − e): ``W_enc ← f W_enc``, ``b_enc ← b_enc − c W_enc``,
    ``W_dec ← W_dec / g``, ``b_dec ← b_dec / g + e``; the threshold is one of latents times the norm
    of their atoms, which g divides.
    """
    inputs, targets = scaler.centre.double().split([scaler.width, sae.cfg.d_out])
    sae.W_enc *= scaler.factor
    shift = inputs.to(sae.device) @ sae.W_enc.double()
    sae.b_enc.copy_(sae.b_enc.double() - shift)
    sae.W_dec /= scaler.target_factor
    sae.b_dec.copy_(sae.b_dec.double() / scaler.target_factor + targets.to(sae.device))
    sae.topk_threshold /= scaler.target_factor


class TranscoderLoop(SAELoop):
    """One training of a transcoder.

    Raises
    ------
    ValueError
        If the samples are of a single place.
    """

    @property
    def input_width(self) -> int:
        """Columns of a row that are the input."""
        found = getattr(self.task.train, "input_width", None)
        if found is None:
            raise ValueError(
                "activations: expected pairs of an input and a target (activations.sites: "
                f"[mlp_pair]) for a transcoder, got rows of one place, {self.task.train.width} wide"
            )
        return int(found)

    @override
    def configure_inputs(self) -> dict[str, Any]:
        width = self.input_width
        return {"d_in": width, "d_out": self.task.train.width - width}

    @override
    def make_scaler(self) -> ActivationScaler:
        train = self.task.train
        centre = train.mean if self.settings.centre else torch.zeros_like(train.mean)
        rows = train.read(0, min(INITIAL_ROWS, len(train)))
        return PairScaler(centre.to(self.task.device), self.input_width, rows)

    @override
    def measure_heldout(self) -> dict[str, float]:
        sae, scaler = make_inference_form(self.trainer.sae), self.trainer.activation_scaler
        width = self.input_width
        variance = ExplainedVariance(self.heldout.shape[1] - width, sae.device)
        active = 0.0
        with torch.no_grad():
            for rows in self.heldout.split(ROWS_PER_BLOCK):
                codes = sae.encode(scaler(rows.to(sae.device))[:, :width])
                active += count_active(codes) * len(rows)
                made = scaler.unscale(decode_in(torch.float64, sae, codes))
                variance.add(rows[:, width:], made)
        return {"fve_heldout": variance.compute(), "l0": active / len(self.heldout)}

    @override
    def finish(self) -> TrainingSAE[Any]:
        sae = self.trainer.sae
        fold_pair_scaler_(sae, self.trainer.activation_scaler)
        sae.fold_W_dec_norm()
        return sae
