"""What activations are extracted or drawn: one class for each source, and what one job needs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from dbksvd.activations.site_settings import LayerSettings, SiteSettings
from dbksvd.base.settings import Count, Seed, Settings, Text
from dbksvd.base.site import RESIDUAL
from dbksvd.base.splits import SPLITS, Split
from dbksvd.models.settings import AnyCaseSha256, ModelSettings
from dbksvd.synthetic.settings import HeldOutPairs, SyntheticSettings

# Held-out samples that a pair must be expected on, so that their scores mean something.
EXPECTED_UNSEEN = 100


class RowSettings(Settings):
    """How many rows there are, and how they are stored."""

    n_train_tokens: Count = 200_000
    """Training tokens (rows), over all slices."""
    n_heldout_tokens: Count = 20_000
    """Held-out tokens (rows), over all slices; they come from documents of their own."""
    slices: Count = 1
    """Jobs that the work is divided into."""
    storage_dtype: Literal["float32", "float16"] = "float32"
    """Type on disk."""

    @model_validator(mode="after")
    def _check_slices(self) -> RowSettings:
        for split in SPLITS:
            if self.count(split) < 2:
                raise ValueError(
                    f"n_{split}_tokens: expected at least 2, since a single row has no variance, "
                    f"got {self.count(split)}"
                )
            if self.count(split) < self.slices:
                raise ValueError(
                    f"n_{split}_tokens: expected at least slices = {self.slices}, "
                    f"got {self.count(split)}"
                )
        return self

    def count(self, split: Split) -> int:
        """Return the rows of a split over all slices."""
        return self.n_train_tokens if split == "train" else self.n_heldout_tokens


class StreamSettings(Settings):
    """Training rows that a fit extracts itself; `n_train_tokens` rows are stored all the same."""

    n_tokens: Count
    """Rows of one pass, from the first training document on."""
    block_rows: Count
    """Rows that are extracted together and shuffled among themselves."""
    seed: Seed = 0
    """Decides the order inside the blocks."""


class ReadySettings(Settings):
    """A file of ready activations."""

    path: Text
    """.npy, .h5 (.hdf5) or .safetensors file with a floating array of shape (rows, d)."""
    tensor: Text = "activations"
    """Name of the dataset or tensor inside; not used for .npy."""
    sha256: AnyCaseSha256 | None = None
    """Hash that the file must have."""


class ModelRowSettings(RowSettings):
    """Rows that a model gives."""

    hook_module: Text | None = None
    """Submodule whose output is taken, such as ``encoder.layer.3.mlp``, in place of the layer's;
    the number of the layer is then a label only.
    """
    batch_size: Count = 32
    """Documents, or tiles of images, in a forward pass."""
    tokens_per_document: Count | None = None
    """Most tokens kept of a document or tile, drawn at random without replacement; null keeps all.
    """


class TextRowSettings(ModelRowSettings):
    """Rows that a model of text gives."""

    source: Literal["model"] = "model"
    """Extract from text."""
    context_length: Annotated[int, Field(ge=2)] = 128
    """Tokens of a document that the model sees, special ones counted; the rest is not used."""


class ImageRowSettings(ModelRowSettings):
    """Rows that a vision encoder gives."""

    source: Literal["images"]
    """Extract from images."""
    image_tokens: Literal["cls", "patches", "all"]
    """Which tokens of a tile are kept: the class token, the patches, or these and any registers."""


class TextActivations(LayerSettings, TextRowSettings):
    """Activations of a model on text."""

    stream: StreamSettings | None = None
    """How fits extract their training rows themselves; null: they read stored ones."""


class ImageActivations(LayerSettings, ImageRowSettings):
    """Activations of a vision encoder on images."""


class FileActivations(RowSettings):
    """Ready activations in a file."""

    source: Literal["files"]
    """Take ready activations."""
    files: ReadySettings
    """The file."""


class DrawnRowSettings(RowSettings):
    """Rows that a generative model gives."""

    held_out_pairs: HeldOutPairs | None = None
    """Pairs of features that training rows never hold together; null keeps none apart."""

    @model_validator(mode="after")
    def _check_unseen_rows(self) -> DrawnRowSettings:
        if self.held_out_pairs is not None:
            expected = round(self.n_heldout_tokens * self.held_out_pairs.share)
            if expected < EXPECTED_UNSEEN:
                raise ValueError(
                    f"n_heldout_tokens: expected {EXPECTED_UNSEEN} held-out samples or more with a "
                    f"pair, at held_out_pairs.share = {self.held_out_pairs.share}, got about "
                    f"{expected} of {self.n_heldout_tokens}"
                )
        return self


class SyntheticActivations(DrawnRowSettings):
    """Samples of a generative model, whose features are known."""

    source: Literal["synthetic"]
    """Draw from a generative model."""
    synthetic: SyntheticSettings
    """The generative model."""


class GroundTruthSettings(DrawnRowSettings):
    """Samples of a generative model at a site of their own, beside those of the model."""

    synthetic: SyntheticSettings
    """The generative model."""
    n_train_tokens: Count = 50_000
    """Training samples, over all slices."""
    n_heldout_tokens: Count = 5_000
    """Held-out samples, over all slices."""


class TextExtraction(SiteSettings, TextRowSettings):
    """One site of a model on text, for the jobs that extract it."""

    model: ModelSettings
    """The model."""
    stream: StreamSettings | None = None
    """How a fit streams its training rows; null for stored ones."""


class ImageExtraction(SiteSettings, ImageRowSettings):
    """One site of a vision encoder on images, for the jobs that extract it."""

    model: ModelSettings
    """The model."""


class DrawSettings(DrawnRowSettings):
    """Samples to draw from a generative model; they do not depend on the number of slices."""

    sample_seed: Seed = 0
    """Decides the samples."""

    def share(self, split: Split, slice_index: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a split that a slice draws."""
        total = self.count(split)
        return total * slice_index // self.slices, total * (slice_index + 1) // self.slices


# Keys of one source that are refused by name at the others, with the reason.
_REASONS = {
    "stream": "expected none for activations.source: {source}, since only text can be extracted "
    "again",
    "context_length": "a length of text, unknown for {source}",
}


def _prepare_source(values: Any) -> Any:
    """Let `source` default to ``model``, and say why a key of text has no use elsewhere."""
    if not isinstance(values, dict) or "source" not in values:
        return {"source": "model", **values} if isinstance(values, dict) else values
    source = values["source"]
    for key, reason in _REASONS.items():
        if key in values and source in ("files", "images", "synthetic"):
            raise ValueError(f"{key}: {reason.format(source=source)}")
    return values


ActivationSettings = Annotated[
    TextActivations | FileActivations | ImageActivations | SyntheticActivations,
    Discriminator("source"),
    BeforeValidator(_prepare_source),
]
ExtractionSettings = Annotated[
    TextExtraction | FileActivations | ImageExtraction,
    Discriminator("source"),
    BeforeValidator(_prepare_source),
]


def choose_extraction(
    settings: TextActivations | FileActivations | ImageActivations,
    layer: int | None,
    model: ModelSettings | None,
    *,
    place: str = RESIDUAL,
    streamed: bool = False,
) -> TextExtraction | FileActivations | ImageExtraction:
    """Return what the jobs of one site need of the section ``activations``.

    Parameters
    ----------
    settings : settings of a source
        Section ``activations`` of the config.
    layer : int or None
        Layer of the site; None for ready activations.
    model : ModelSettings or None
        As later stages load it: a converted model is a folder by now.
    place : str
        Where at the layer.
    streamed : bool
        Whether a fit asks, which extracts its training rows itself. Stored rows do not depend on
        that.

    Raises
    ------
    ValueError
        If a model is needed and none is given.
    """
    if isinstance(settings, FileActivations):
        return settings
    if model is None:
        raise ValueError(f"model: missing key, needed for activations.source: {settings.source}")
    own = {name: getattr(settings, name) for name in type(settings).model_fields}
    own = {name: own[name] for name in own if name not in (*LayerSettings.model_fields, "stream")}
    own |= {"layer": layer, "place": place, "model": model}
    own["hook_module"] = settings.find_own_module(layer, place) or settings.hook_module
    if isinstance(settings, ImageActivations):
        return ImageExtraction(**own)
    return TextExtraction(**own, stream=settings.stream if streamed else None)


def choose_drawing(settings: SyntheticActivations | GroundTruthSettings) -> DrawSettings:
    """Return what the jobs that draw samples need: not what makes the generative model."""
    own = {name: getattr(settings, name) for name in DrawnRowSettings.model_fields}
    return DrawSettings(**own, sample_seed=settings.synthetic.sample_seed)
