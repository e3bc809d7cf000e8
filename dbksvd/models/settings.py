"""Settings of the model that activations are taken from, and of what is asked for outside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dbksvd.base.revisions import is_commit
from dbksvd.base.settings import Count, DeviceName, NonNegativeInt, Settings, Sha256, Text

_ORIGINS = ("package", "name", "gguf")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


AnyCaseSha256 = Annotated[Sha256, BeforeValidator(_lower)]


class ExpectedSizes(Settings):
    """What the model must be; a cost estimate counts with it where the model is not here yet."""

    width: Count | None = None
    """Width d of the activations."""
    layers: Count | None = None
    """Number of blocks."""
    parameters: Count | None = None
    """Number of weights; it may differ by 1 %, since some are shared."""

    @model_validator(mode="after")
    def _check_some(self) -> ExpectedSizes:
        if not self.model_fields_set:
            raise ValueError("expected at least 1 entry, got none")
        return self


class ModelSettings(Settings):
    """Which model, and how it is loaded; exactly one of `package`, `name` and `gguf` is given."""

    package: Text | None = None
    """Installed distribution that carries a model folder or a GGUF file; its files are used, its
    code is not.
    """
    name: Text | None = None
    """Local folder, or name on the hub."""
    gguf: Text | None = None
    """Local GGUF file of a causal model; its weights are unpacked once, to `dtype`."""
    revision: Text | None = None
    """Commit or tag on the hub; required for a name on the hub."""
    sha256: AnyCaseSha256 | None = None
    """Hash that model.safetensors, or the GGUF file, must have."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights."""
    device: DeviceName = "auto"
    """Where the model runs; ``auto`` takes a GPU where the job has one."""
    prepend_bos: bool = False
    """Whether every text begins with the tokenizer's bos token, for models whose tokenizer adds
    none (GPT-2, Pythia). Activations of the token itself are not kept.
    """
    expect: ExpectedSizes | None = None
    """What the model must be."""

    @model_validator(mode="after")
    def _check_origin(self) -> ModelSettings:
        given = [name for name in _ORIGINS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of the keys {' or '.join(_ORIGINS)}, "
                f"got {' and '.join(given) or 'none'}"
            )
        return self

    @property
    def shown_name(self) -> str:
        """Name in messages and results."""
        return str(self.package or self.name or self.gguf)

    @property
    def is_fixed(self) -> bool:
        """Whether the settings alone fix every weight: by a hash or a commit."""
        return self.sha256 is not None or is_commit(self.revision)

    def locate_converted(self, folder: str) -> ModelSettings:
        """Return the settings that load the model from `folder`, to which it was converted.

        The hash is that of the GGUF file, which was checked then.
        """
        given = {"package": None, "gguf": None, "sha256": None, "name": folder}
        return self.model_copy(update=given)


class HubDataSet(Settings):
    """A data set of the hub that is asked for before any long work."""

    key: Text
    """Key of the config that names it, for messages."""
    name: Text
    """Name on the hub, or a local folder."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    revision: str | None = None
    """Commit, branch or tag; null is the newest."""
    streaming: bool = False
    """Whether it is read without a copy on disk."""


class ApiKeySettings(Settings):
    """A key that an eval takes from the environment; the key itself stands nowhere."""

    variable: Text
    """Environment variable that holds the key."""
    key: Text
    """Key of the config that names the variable, for messages."""
    url: Text
    """Whom the key is for."""


class AccessSettings(Settings):
    """What an experiment needs from outside this machine."""

    model: ModelSettings | None = None
    """A model of the hub."""
    layers: list[NonNegativeInt] = Field(default=[])
    """Blocks whose outputs are wanted, counted from 1."""
    data_sets: list[HubDataSet] = Field(default=[])
    """Data sets of the hub."""
    keys: list[ApiKeySettings] = Field(default=[])
    """Keys that evals take from the environment."""
    evals: dict[str, Any] = Field(default={})
    """Sections of the evals, whose demands on the model only the model's files can answer."""
