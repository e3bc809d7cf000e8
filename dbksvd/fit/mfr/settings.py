"""Settings of mutual feature regularisation. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dbksvd.base.settings import Count, Fraction, NonNegative, Positive
from dbksvd.fit.ksvd.schedule import count_samples
from dbksvd.fit.method import MethodSettings


class MFRSettings(MethodSettings):
    """TopK SAEs side by side; the first is the dictionary.

    Defaults are the authors', but where another number of theirs is named. Each SAE sees all
    samples, so a fit costs as many trainings as there are SAEs.
    """

    # arXiv:2411.01220 and luke-marks0/mutual-feature-regularization, whole recipes:
    # - known features (width 256, 512 features): n_atoms 512, k 32, n_saes 2, batch_size 10000,
    #   lr .01;
    # - GPT-2 small's MLP: n_atoms 3072, k 6, n_saes 10, weight .005, batch_size 500, lr .001;
    # both with match_every 1, lr_warm_up 0, lr_decay 0, centre false. Samples are brought to a mean
    # square of 1 here all the same.
    algorithm: Literal["mfr"] = "mfr"
    """The method's name in the registry."""
    n_saes: Annotated[int, Field(ge=2)] = 2
    """SAEs that are trained side by side."""
    weight: NonNegative = 0.005
    """Weight of the penalty on features that SAEs do not share; 0 trains them apart."""
    ramp_steps: Count = 100
    """Steps in which the penalty rises to its weight, and between two looks at whether an SAE has
    to begin anew."""
    match_every: Count = 10
    """Steps between two matchings of the SAEs' atoms; the authors' is 1."""
    largest_imbalance: Positive = 2.5
    """An SAE begins anew where the cube of the mean of |r - k/n_atoms| / (k/n_atoms) is larger; r
    is the share of the samples of a batch that an atom fires on. The authors have a constant in
    place of k/n_atoms."""
    training_samples: Count | None = None
    """Samples that each SAE is trained on, counted each time they are used. Null: as many as
    DB-KSVD with its default settings sees at the same n_atoms and k."""
    batch_size: Count = 1024
    """Samples of a step; the authors' are 500 and 10,000."""
    lr: Positive = 4e-3
    """Largest learning rate of Adam; the authors' are .001 and .01."""
    lr_warm_up: Fraction = 0.05
    """Fraction of the steps in which the learning rate rises, as for other SAEs here; the authors'
    is 0."""
    lr_decay: Fraction = 0.2
    """Fraction of the steps, at the end, in which the learning rate falls; the authors' is 0."""
    centre: bool = True
    """Whether the mean of the samples is subtracted; the authors do not."""
    checkpoint_seconds: NonNegative = 60.0
    """Seconds between two checkpoints."""


def count_training_samples(settings: MFRSettings, n_atoms: int, k: int, n_train: int) -> int:
    """Return the samples that each SAE is trained on."""
    return settings.training_samples or count_samples(n_atoms, k, n_train)
