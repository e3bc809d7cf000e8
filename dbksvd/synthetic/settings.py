"""Settings of generative models whose features are known."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, model_validator
from typing_extensions import override

from dbksvd.base.settings import (
    Count,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    Seed,
    Settings,
)

Correlation = Annotated[float, Field(ge=0, lt=1)]


class GenerativeSettings(Settings):
    """What all generative models share; a subclass allows one value of `kind`."""

    kind: str
    """Kind of generative model."""
    sample_seed: Seed = 0
    """Decides the samples that are drawn from the model."""

    @property
    def n_features(self) -> int:
        """Number of the features."""
        return int(self.num_features)  # type: ignore[attr-defined]

    def describe_model(self) -> dict[str, Any]:
        """Return what makes the model, with sorted keys: not the samples, nor absent parts."""
        own = self.model_dump(mode="json", exclude={"sample_seed"}, exclude_none=True)
        described: dict[str, Any] = json.loads(json.dumps(own, sort_keys=True))
        return described


class HeldOutPairs(Settings):
    """Pairs of features that never fire together in training rows, but do in held-out ones."""

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Least share of the samples, as the model draws them, on which a pair fires. Training rows
    with a pair are drawn anew; held-out rows stay, and those with a pair are scored apart."""
    seed: Seed = 0
    """Decides the pairs, drawn from all that fire together on .06 % of the samples or more."""
    in_training: bool = False
    """Whether training rows keep the pairs: the control, scored on the same held-out rows."""


class FiringProbability(Settings):
    """How often features fire: probabilities fall as a power of the feature's number."""

    generator_name: Literal["zipfian"] = "zipfian"
    """SAELens's name of the law."""
    max_prob: Fraction = 0.4
    """Greatest probability."""
    min_prob: Fraction = 5e-4
    """Least probability."""
    exponent: Positive = 0.5
    """Exponent of the power."""


class Hierarchy(Settings):
    """Trees of features: a child fires where its parent fires."""

    total_root_nodes: Count
    """Trees."""
    branching_factor: Annotated[int, Field(ge=2)]
    """Children of a feature."""
    max_depth: Count
    """Levels below the root."""
    mutually_exclusive_portion: Fraction
    """Share of the parents of which one child fires at most."""
    compensate_probabilities: bool
    """Whether children fire more often, to make up for parents that do not fire."""
    scale_children_by_parent: bool
    """Whether a child's magnitude follows its parent's."""


class Orthogonalization(Settings):
    """Gradient steps that push the features apart."""

    num_steps: Count
    """Steps; they take nearly all the time."""
    lr: Positive
    """Learning rate."""


class LowRankCorrelation(Settings):
    """Correlation of the Gaussian that decides which features fire."""

    rank: Count
    """Rank of the correlation."""
    correlation_scale: Positive
    """Scale of the correlation."""


class LinearMagnitudes(Settings):
    """Mean magnitudes of firing features, from the first feature to the last."""

    generator_name: Literal["linear"] = "linear"
    """SAELens's name of the law."""
    start: Positive = 5.0
    """Of the first feature."""
    end: Positive = 4.0
    """Of the last feature."""


class FoldedNormalMagnitudes(Settings):
    """Standard deviations of the magnitudes of firing features, drawn for each feature."""

    generator_name: Literal["folded_normal"] = "folded_normal"
    """SAELens's name of the law."""
    mean: NonNegative = 0.5
    """Mean of the normal law before folding."""
    std: NonNegative = 0.5
    """Its standard deviation."""


class SynthSAEBenchSettings(GenerativeSettings):
    """SAELens's synthetic model (``SyntheticModelConfig``), whose names are kept."""

    kind: Literal["synthsaebench"]
    """Kind of generative model."""
    num_features: Count
    """Features."""
    hidden_dim: Count
    """Coordinates of the activations."""
    firing_probability: FiringProbability
    """How often features fire."""
    hierarchy: Hierarchy | None = None
    """Trees of features; null has none."""
    orthogonalization: Orthogonalization | None = None
    """Steps that push the features apart; null leaves them as they are drawn."""
    correlation: LowRankCorrelation | None = None
    """Correlation of features; null has none."""
    mean_firing_magnitudes: LinearMagnitudes
    """Mean magnitudes of firing features."""
    std_firing_magnitudes: FoldedNormalMagnitudes
    """Standard deviations of the magnitudes."""
    bias: NonNegative
    """Norm of the bias."""
    seed: Seed
    """Decides the model; a fit of the same seed could draw the true features."""


class BlockCorrelatedSettings(GenerativeSettings):
    """Features that fire together in blocks (:mod:`dbksvd.synthetic.block_correlated`)."""

    kind: Literal["block_correlated"]
    """Kind of generative model."""
    num_features: Count
    """Features."""
    hidden_dim: Count
    """Coordinates of the activations."""
    block_size: Count
    """Features in a block; divides `num_features`."""
    k: Count
    """Most features that fire on a sample."""
    correlation: Annotated[list[Correlation], Field(min_length=2, max_length=2)]
    """Least and greatest correlation of a block, between which each block's is uniform."""
    bias: NonNegative = 0.0
    """Norm of the bias."""
    orthogonalization_steps: NonNegativeInt = 0
    """Gradient steps that push the features apart (SAELens's ``orthogonalize_embeddings``)."""
    seed: Seed = 0
    """Decides the features and the correlations."""

    @model_validator(mode="after")
    def _check_sizes(self) -> BlockCorrelatedSettings:
        _check_at_most("k", self.k, "num_features", self.num_features)
        if self.num_features % self.block_size:
            raise ValueError(
                f"block_size: expected a divisor of num_features = {self.num_features}, "
                f"got {self.block_size}"
            )
        low, high = self.correlation
        if low > high:
            raise ValueError(f"correlation: expected 0 <= low <= high < 1, got {self.correlation}")
        return self


class ExpertMixtureSettings(GenerativeSettings):
    """Subspaces with features of their own (:mod:`.expert_mixture`)."""

    kind: Literal["expert_mixture"]
    """Kind of generative model."""
    num_components: Annotated[int, Field(ge=2)]
    """Components, equally likely."""
    features_per_component: Count
    """Features of a component, beside the one that says which component it is."""
    hidden_dim: Count
    """Coordinates of the activations."""
    subspace_dim: Count
    """Dimensions of the subspace that holds a component's features."""
    k: Count
    """Features of the component that fire on a sample, each set equally likely."""
    magnitude: Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
    """Mean and standard deviation of a firing feature's value, folded to be positive."""
    component_magnitude: NonNegative
    """Value of the component's own feature, which fires on all its samples."""
    bias: NonNegative = 0.0
    """Norm of the bias."""
    seed: Seed = 0
    """Decides subspaces and features."""

    @property
    @override
    def n_features(self) -> int:
        return self.num_components * (self.features_per_component + 1)

    @model_validator(mode="after")
    def _check_sizes(self) -> ExpertMixtureSettings:
        _check_at_most("k", self.k, "features_per_component", self.features_per_component)
        _check_at_most("subspace_dim", self.subspace_dim, "hidden_dim", self.hidden_dim)
        return self


def _check_at_most(key: str, value: int, whole: str, size: int) -> None:
    """Raise a ValueError where the value of `key` exceeds that of the key `whole`."""
    if value > size:
        raise ValueError(f"{key}: expected at most {whole} = {size}, got {value}")


SyntheticSettings = Annotated[
    SynthSAEBenchSettings | BlockCorrelatedSettings | ExpertMixtureSettings, Discriminator("kind")
]
