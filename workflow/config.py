"""The whole config as one model: its sections are declared beside the code that they configure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, TypeAdapter, create_model, field_validator

from dbksvd.activations.settings import ActivationSettings, GroundTruthSettings
from dbksvd.activations.shard_settings import ShardSettings
from dbksvd.base.settings import Count, Seed, Settings
from dbksvd.evaluation.encoders.settings import EncoderSettings
from dbksvd.evaluation.saebench.registry import EVALS, find_eval
from dbksvd.evaluation.stability.settings import StabilitySettings
from dbksvd.fit.registry import METHODS, find_method
from dbksvd.images.settings import ImageSettings
from dbksvd.models.settings import ModelSettings, RandomiseSettings
from dbksvd.report.pages.settings import PageSettings
from dbksvd.report.settings import FigureSettings
from dbksvd.text.settings import TextSettings

SCHEMA_FILE = "docs/config.schema.json"
NAME = "^[a-z0-9][a-z0-9-]*$"

Name = Annotated[str, Field(pattern=NAME)]


def _describe_eval(name: str) -> Any:
    """Return the field of an eval: none by default, described as its settings are."""
    return Field(None, description=(find_eval(name).settings.__doc__ or "").split("\n")[0])


# Both are made of what the registries hold, which no type checker can know.
if TYPE_CHECKING:
    MethodSettings = Any
    EvalsSettings = Any
else:
    # Every algorithm, told apart by `algorithm`.
    MethodSettings = Annotated[
        Union[tuple(find_method(name).settings for name in METHODS)],  # noqa: UP007
        Field(discriminator="algorithm"),
    ]
    # Every eval; one that is not named is not run.
    EvalsSettings = create_model(
        "EvalsSettings",
        __base__=Settings,
        **{name: (find_eval(name).settings | None, _describe_eval(name)) for name in EVALS},
    )


class Grid(Settings):
    """Every method × n_atoms × k × seed of a grid is one dictionary."""

    methods: Annotated[list[str], Field(min_length=1)]
    """Names from `methods`."""
    n_atoms: Annotated[list[Count], Field(min_length=1)]
    """Atoms of the dictionary."""
    k: Annotated[list[Count], Field(min_length=1)]
    """Non-zeros of a sample: the most, or the mean where the method says so."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]  # noqa: RUF012 - pydantic copies it
    """Seeds of the fits; several give a spread."""

    @field_validator("methods", "n_atoms", "k", "seeds")
    @classmethod
    def _refuse_repeats(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError(f"expected no repeats, got {values}")
        return values


Fits = Annotated[list[Grid], Field(min_length=1)]


class GroundTruth(GroundTruthSettings):
    """Samples with known features, at the site `synthetic` beside the model's layers."""

    fits: Fits
    """Grids of fits at this site."""


class Randomised(RandomiseSettings):
    """The model with its weights drawn anew, at sites such as `random_layer4` beside its layers."""

    fits: Fits
    """Grids of fits at these sites; the evals are those of the layers."""


class EvaluationSettings(Settings):
    """How dictionaries are scored."""

    seed: Seed = 0
    """Seed of all evals."""
    evals: EvalsSettings = EvalsSettings()
    """Settings of each eval; `{}` runs it with its defaults, `null` leaves it out."""
    stability: StabilitySettings | None = StabilitySettings()
    """How far seeds agree, where a method has two or more at one size; null measures none."""

    def list_evals(self) -> dict[str, Settings]:
        """Return the settings of the evals that are asked for, by name."""
        found = {name: getattr(self.evals, name) for name in EVALS}
        return {name: settings for name, settings in found.items() if settings is not None}


class ExperimentConfig(Settings):
    """An experiment: text or images through a model, fits, scores, figures."""

    experiment: Name
    """Name; results go to results/<experiment>/."""
    text: TextSettings | None = None
    """Documents, for `activations.source: model`."""
    images: ImageSettings | None = None
    """Images, for `activations.source: images`."""
    model: ModelSettings | None = None
    """The transformer whose activations are taken."""
    activations: ActivationSettings
    """Where activations come from, how many, how they are stored."""
    shards: ShardSettings = ShardSettings()
    """How activations are shuffled into files."""
    methods: Annotated[dict[Name, MethodSettings], Field(min_length=1)]
    """One entry for each method; `algorithm` says which it is."""
    fits: Fits
    """Grids of fits."""
    ground_truth: GroundTruth | None = None
    """Samples with known features beside the model's activations."""
    randomised: Randomised | None = None
    """The model with its weights drawn anew beside it: a floor of every score; null has none."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Which evals score the dictionaries."""
    encoders: EncoderSettings | None = None
    """Dictionaries coded by other encoders than their own, at equal L0; null leaves it out."""
    figures: FigureSettings = FigureSettings()
    """How figures look."""
    pages: PageSettings | None = PageSettings()
    """Feature pages, in results/<experiment>/site/; null makes none."""
    container: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """Image of all jobs under `--sdm apptainer`: a .sif file, or an address (docker://…)."""


def make_schema() -> str:
    """Return the JSON schema of a config, as `SCHEMA_FILE` holds it."""
    schema = TypeAdapter(ExperimentConfig).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
