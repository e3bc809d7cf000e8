"""Settings of training a dictionary on inside its model. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dbksvd.base.settings import Count, Fraction, NonNegative, Positive, Text
from dbksvd.fit.method import MethodSettings

# SAEs whose number of non-zeros a penalty holds: without it, it drifts.
PENALISED = ("standard", "gated")


class SplicedSettings(MethodSettings):
    """What both losses have. The optimizer is that of Braun et al. (2024), but for the rate."""

    of: Text
    """Name of the method whose dictionary is trained on: any that reconstructs by a pursuit with
    refit or by an SAE with a fixed number of non-zeros or thresholds. Its fits are made whether or
    not a grid names them."""
    training_tokens: Count = 30_000
    """Tokens of the training documents, from the first on; the model reads each once an epoch. Per
    token and epoch, gradients take about as long as three passes of the whole model."""
    epochs: Count = 1
    """Times that the tokens are read."""
    batch_tokens: Count = 512
    """Tokens of a step, padding included; it has as many documents of about the same length as go
    in, one at least."""
    lr: Positive = 1e-3
    """Largest learning rate of Adam; it falls to a tenth as a cosine."""
    lr_warm_up: Fraction = 0.05
    """Fraction of the steps in which the learning rate rises."""
    clip: Positive = 10.0
    """Norm to which gradients are cut."""
    heldout_tokens: Annotated[int, Field(ge=2)] = 4096
    """Tokens of held-out documents on which the loss of the model is measured before and after."""
    checkpoint_seconds: NonNegative = 60.0
    """Seconds between two checkpoints."""


class E2ESettings(SplicedSettings):
    """A dictionary of the experiment, trained on by the KL of the model with and without it."""

    algorithm: Literal["e2e"] = "e2e"
    """The method's name in the registry."""
    kl_weight: Positive = 1.0
    """Weight of KL(original || spliced), in nats a token."""


class E2EDownstreamSettings(SplicedSettings):
    """A dictionary of the experiment, trained on by that KL and by later residual streams."""

    algorithm: Literal["e2e_downstream"] = "e2e_downstream"
    """The method's name in the registry."""
    kl_weight: Positive = 0.5
    """Weight of KL(original || spliced), in nats a token."""
    downstream_weight: Positive = 2.5
    """Weight of the error of the residual stream behind each later block, as a fraction of its
    variance, averaged over blocks. Braun et al. (2024) do not divide by the variance."""
