"""Settings of the figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dbksvd.base.settings import Settings, Text


class FigureSettings(Settings):
    """Section ``figures`` of a config."""

    labels: dict[str, Text] = Field(default={})
    """How methods are called in figures, where not as their own entries say: {method: label}."""
    context: Literal["paper", "notebook", "talk", "poster"] = "notebook"
    """Size of text and lines, as seaborn names it."""
    dpi: Annotated[int, Field(ge=50, le=1200)] = 160
    """Resolution of the PNG files, dots per inch; 160 is sharp on a screen."""


class DrawingSettings(Settings):
    """All that a figure is drawn with, beside its tables: the param of a figure."""

    figures: FigureSettings
    """The config's own settings."""
    methods: list[Text]
    """Methods in the order of the legends."""
    labels: dict[str, Text]
    """How the methods' entries call them: {method: label}."""
    controls: list[Text]
    """Methods drawn in grey."""
    floors: list[Text] = Field(default=[])
    """Those of them whose best score is drawn as the floor of that score."""
    model: Text | None
    """Folder or name of the model, for what others have published of it; null without one."""
