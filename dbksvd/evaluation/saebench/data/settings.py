"""Settings of evals that read text: which data sets, from where. Torch is not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from dbksvd.base.settings import Settings, Text
from dbksvd.evaluation.saebench.data.names import BUNDLED, HUB, SCORING_SOURCES


def _check_unique(items: list[Any]) -> list[Any]:
    for item in items:
        if items.count(item) > 1:
            raise ValueError(f"expected each item once, got {item!r} {items.count(item)} times")
    return items


UNIQUE = AfterValidator(_check_unique)
Names = Annotated[list[Text], Field(min_length=1, json_schema_extra={"uniqueItems": True}), UNIQUE]
DataSource = Literal["bundled", "hub"]
ContextLength = Annotated[int, Field(ge=3)]  # a token of text between bos and eos


class TextSettings(Settings):
    """Texts without labels: of data sets that sae-probes carries, or of the hub."""

    hub_default: ClassVar[tuple[str, ...]] = ()  # what SAEBench itself reads

    data: DataSource = "bundled"
    """Where the data sets are: in the package sae-probes (bundled), or on the hub."""
    datasets: Names = Field(list(SCORING_SOURCES))
    """Data sets to read, each in turn; default: a varied eight, or SAEBench's own of the hub."""

    @model_validator(mode="before")
    @classmethod
    def _read_hub_default(cls, values: Any) -> Any:
        return _fill_hub_default(values, cls.hub_default)


class LabelledSettings(Settings):
    """Texts with labels: a fixed choice of bundled ones, or SAEBench's own."""

    hub_default: ClassVar[tuple[str, ...]] = ()  # all that SAEBench knows the labels of

    data: DataSource = "bundled"
    """Where the data sets are: in the package sae-probes (bundled), or on the hub."""
    datasets: Names | None = None
    """Which of SAEBench's data sets of the hub are read (null: all); bundled ones are fixed."""

    @model_validator(mode="before")
    @classmethod
    def _read_hub_default(cls, values: Any) -> Any:
        return _fill_hub_default(values, cls.hub_default)

    @model_validator(mode="after")
    def _check_datasets(self) -> LabelledSettings:
        known = self.hub_default if self.data == HUB else ()
        for name in self.datasets or ():
            if name not in known:
                choice = f"some of {', '.join(known)}" if known else f"none without data: {HUB}"
                raise ValueError(f"datasets: expected {choice}, got {name!r}")
        return self


def _fill_hub_default(values: Any, names: Iterable[str]) -> Any:
    """Add what SAEBench reads where a section says ``data: hub`` and no data sets."""
    if not isinstance(values, Mapping) or values.get("data") != HUB:
        return values
    return values if values.get("datasets") is not None else {**values, "datasets": list(names)}


def list_bundled_texts(settings: TextSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(settings.datasets) if settings.data == BUNDLED else []


def list_hub_data(settings: TextSettings | LabelledSettings) -> list[str]:
    """Return the data sets of the hub that are read, by SAEBench's names."""
    return list(settings.datasets or ()) if settings.data == HUB else []
