"""Settings of SAE training, one class for each architecture. Needs no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dbksvd.base.settings import Count, Fraction, NonNegative, Positive
from dbksvd.fit.method import MethodSettings


class TrainingSettings(MethodSettings):
    """What all architectures have.

    Defaults were chosen on 300,000 tokens of all-MiniLM-L6-v2's layer 4 (512 atoms, k = 16). Names
    beside lr and groups are SAELens's.
    """

    label: ClassVar[str]
    # The sparsity coefficient that is steered until L0 is k, where the encoder has no k.
    steered: ClassVar[str | None] = None
    # Module of an architecture that is ours: it shapes the fits that use it, and no others.
    source: ClassVar[str | None] = None
    # Adam's two rates, what a falling learning rate ends at as a fraction of the largest, and the
    # norm to which gradients are cut beside SAELens's own, 1.
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    last_rate: ClassVar[float] = 0.0
    clip: ClassVar[float | None] = None
    # Whether it learns from pairs of an input and a target; `source` then has a loop of its own.
    takes_pairs: ClassVar[bool] = False

    algorithm: Literal["sae"] = "sae"
    """The method's name in the registry."""
    architecture: str
    """Kind of SAE."""
    training_samples: Count | None = None
    """Samples to train on, counted each time they are used. Null: as many as DB-KSVD with its
    default settings sees at the same n_atoms and k."""
    batch_size: Count = 1024
    """Samples of a step."""
    centre: bool = True
    """Whether the mean of the samples is subtracted before they are scaled. False divides by the
    mean norm of the samples as they are, as SAELens does."""
    lr: Positive = 4e-3
    """Largest learning rate of Adam. Much wider dictionaries train better at a lower one (Gao et
    al. 2024: in proportion to 1/√n_atoms)."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate between warm-up and decay; cosine falls all the way, without a decay at the
    end."""
    lr_warm_up: Fraction = 0.05
    """Fraction of the steps in which the learning rate rises."""
    lr_decay: Fraction = 0.2
    """Fraction of the steps, at the end, in which the learning rate falls."""
    measure_every: Count | None = None
    """Samples between two measurements on held-out samples. Null: a twelfth of
    training_samples."""
    dead_window: Count | None = None
    """Samples without firing after which a latent counts as dead. Null: a fifth of
    training_samples, at most 10 million (Gao et al. 2024)."""
    max_seconds: Positive | None = None
    """Seconds (on a CPU of processor time) after which the training ends, before its decay; null is
    no limit."""
    tol: NonNegative = 0.0
    """The training ends where held-out variance explained gains less than this between two
    measurements; 0 never ends it."""
    checkpoint_seconds: NonNegative = 60.0
    """Seconds between two checkpoints."""
    autocast: bool = True
    """Products in bfloat16, on CUDA only."""
    decoder: Literal["free", "soft_frozen", "frozen"] = "free"
    """Whether the decoder's rows learn: frozen keeps the random directions of the start,
    soft_frozen keeps each at a cosine of at least .8 to it. Both are controls (Korznikov et al.
    2026)."""
    encoder: Literal["free", "frozen"] = "free"
    """Whether the encoder's weights learn: frozen keeps the random ones of the start, with biases
    and thresholds still learned. A control."""

    @property
    def is_restrained(self) -> bool:
        """Whether encoder or decoder is kept from learning, which makes it a control."""
        return self.decoder != "free" or self.encoder != "free"

    @model_validator(mode="after")
    def _check_schedule(self) -> TrainingSettings:
        if self.lr_warm_up + self.lr_decay >= 1:
            raise ValueError(
                "lr_decay: expected lr_warm_up + lr_decay below 1, "
                f"got {self.lr_warm_up} + {self.lr_decay}"
            )
        return self

    @model_validator(mode="after")
    def _check_free(self) -> TrainingSettings:
        if self.decoder != "free" and self.encoder != "free":
            raise ValueError(
                f"encoder: expected free beside decoder: {self.decoder}, since one of the two has "
                f"to learn, got {self.encoder}"
            )
        return self


class StandardSettings(TrainingSettings):
    """ReLU latents under an L1 penalty."""

    label = "L1 SAE"
    steered = "l1"

    architecture: Literal["standard"]
    """Kind of SAE."""
    lr: Positive = 8e-3
    """Largest learning rate of Adam."""
    l1_coefficient: Positive = 3.5
    """Weight of the L1 penalty at the start; it is steered from there until L0 is k."""


class GatedSettings(TrainingSettings):
    """Gated latents (Rajamanoharan et al. 2024)."""

    label = "gated SAE"
    steered = "l1"

    architecture: Literal["gated"]
    """Kind of SAE."""
    l1_coefficient: Positive = 4.0
    """Weight of the L1 penalty at the start; it is steered from there until L0 is k."""


class JumpReLUSettings(TrainingSettings):
    """A learned threshold for each latent (Rajamanoharan et al. 2024)."""

    label = "JumpReLU SAE"
    steered = "l0"

    architecture: Literal["jumprelu"]
    """Kind of SAE."""
    l0_coefficient: Positive = 1.0
    """Weight of the L0 penalty at the start; it is steered from there until L0 is k."""
    jumprelu_bandwidth: Positive = 0.5
    """Width of the kernel that stands for the gradient of a step, in units of scaled inputs."""
    jumprelu_init_threshold: Positive = 1.0
    """Threshold of every latent at the start, in units of scaled inputs."""
    jumprelu_sparsity_loss_mode: Literal["step", "tanh"] = "step"
    """How the penalty counts latents."""
    jumprelu_ste_to_input: bool = True
    """Whether the gradient of the thresholds reaches the encoder too."""
    decoder_init_norm: Positive = 1.0
    """Norm of the decoder's rows at the start."""


class _WithAuxiliaryLoss(TrainingSettings):
    aux_loss_coefficient: NonNegative = 1.0
    """Weight of the auxiliary loss, which lets dead latents explain what the others leave."""


class TopKSettings(_WithAuxiliaryLoss):
    """The k largest latents of a sample (Gao et al. 2024)."""

    label = "TopK SAE"

    architecture: Literal["topk"]
    """Kind of SAE."""


class _WithThreshold(_WithAuxiliaryLoss):
    topk_threshold_lr: Annotated[float, Field(gt=0, le=1)] | None = None
    """Rate at which the threshold that codes afterwards follows the batches. Null: 10 / steps, from
    0.01 (SAELens's) to 0.5, so that it leaves its start at 0 behind in a short training too."""


class AbsTopKSettings(_WithAuxiliaryLoss):
    """The k latents of a sample that are largest in size, of either sign (Zhu et al. 2026)."""

    label = "AbsTopK SAE"

    architecture: Literal["abstopk"]
    """Kind of SAE."""


class BatchTopKSettings(_WithThreshold):
    """The largest latents of a batch, k a sample on average (Bussmann et al. 2024)."""

    label = "BatchTopK SAE"

    architecture: Literal["batchtopk"]
    """Kind of SAE."""


class TranscoderSettings(_WithThreshold):
    """BatchTopK latents of an MLP's input that reconstruct its output (Dunefsky et al. 2024).

    For the site `mlp_pair` only. It is saved as SAELens's JumpReLU transcoder.
    """

    label = "transcoder"
    source = "dbksvd.fit.sae.transcoder"
    takes_pairs = True

    architecture: Literal["transcoder"]
    """Kind of SAE."""
    lr: Positive = 8e-3
    """Largest learning rate of Adam."""


class MatryoshkaSettings(_WithThreshold):
    """Nested BatchTopK dictionaries (Bussmann et al. 2025)."""

    label = "Matryoshka SAE"

    architecture: Literal["matryoshka_batchtopk"]
    """Kind of SAE."""
    groups: Count | Annotated[list[Count], Field(min_length=1)] | None = None
    """Sizes of the groups in atoms, or the size of the first, which then doubles. Null: the first
    is an eighth of the atoms."""


class MatchingPursuitSettings(TrainingSettings):
    """Matching pursuit over the decoder's rows (Costa et al. 2025)."""

    label = "matching-pursuit SAE"

    architecture: Literal["matching_pursuit"]
    """Kind of SAE."""

    @model_validator(mode="after")
    def _check_untied(self) -> MatchingPursuitSettings:
        for key in ("decoder", "encoder"):
            if (got := getattr(self, key)) != "free":
                raise ValueError(
                    f"{key}: expected free for architecture: matching_pursuit, whose encoder is "
                    f"its decoder, got {got}"
                )
        return self


class SwitchSettings(TrainingSettings):
    """A router and experts (Mudide et al. 2024)."""

    label = "Switch SAE"
    source = "dbksvd.dictionaries.switch"

    architecture: Literal["switch"]
    """Kind of SAE."""
    n_experts: Count = 8
    """Experts; a divisor of n_atoms."""
    # The paper's 3 let an expert die in 400 steps on the default data, for one seed of three.
    load_balance_coefficient: NonNegative = 100.0
    """Weight of the loss that evens out how often experts are chosen; at the paper's 3 an expert
    died in 400 steps."""
    aux_loss_coefficient: NonNegative = 1 / 32
    """Weight of the auxiliary loss, which lets dead latents explain what the others leave."""


class KronSettings(TrainingSettings):
    """Latents of a head as products of two factors (Kurochkin et al. 2025)."""

    label = "KronSAE"
    source = "dbksvd.dictionaries.kron"

    architecture: Literal["kron"]
    """Kind of SAE."""
    lr: Positive = 8e-3
    """Largest learning rate of Adam."""
    base: Count = 2
    """Numbers in the first factor of a head; base x extension divides n_atoms."""
    extension: Count = 4
    """Numbers in the second factor of a head."""
    combine: Literal["mand", "product", "raw"] = "mand"
    """How two numbers make a latent: the paper's mAND, the product of ReLUs, or the product."""
    aux_loss_coefficient: NonNegative = 1 / 32
    """Weight of the auxiliary loss, which lets dead latents explain what the others leave."""


class LlamaScopeSettings(TrainingSettings):
    """Llama Scope's recipe (He et al. 2024): TopK by z |d|, saved with one JumpReLU threshold."""

    label = "Llama Scope SAE"
    source = "dbksvd.dictionaries.llama_scope"
    # arXiv:2410.20526, training details of Llama-3.1-8B's SAEs: Adam (.9, .9999), gradients cut at
    # .001, the last fifth of the steps down to a hundredth of the learning rate.
    betas = (0.9, 0.9999)
    last_rate = 0.01
    clip = 0.001

    architecture: Literal["llama_scope"]
    """Kind of SAE."""
    centre: Literal[False] = False
    """Samples are divided by their mean norm as they are."""
    batch_size: Count = 2048
    """Samples of a step; the authors' is this one."""
    lr: Positive = 8e-4
    """Largest learning rate of Adam; the authors', for 800 million samples."""
    lr_warm_up: Fraction = 0.0128
    """Fraction of the steps in which the learning rate rises: 5,000 of the authors' 390,625."""
    k_anneal: Fraction = 0.1
    """Fraction of the steps in which k falls from half the width to its value."""
    largest_norm: Positive = 0.5
    """Largest norm of a decoder row in training; all start there."""


SAESettings = Annotated[
    StandardSettings
    | GatedSettings
    | JumpReLUSettings
    | TopKSettings
    | AbsTopKSettings
    | BatchTopKSettings
    | TranscoderSettings
    | MatryoshkaSettings
    | MatchingPursuitSettings
    | SwitchSettings
    | KronSettings
    | LlamaScopeSettings,
    Field(discriminator="architecture"),
]
