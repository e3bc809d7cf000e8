"""Settings of evals that read text: which data sets, from where. Torch is not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from dbksvd.base.settings import Settings, Text
from dbksvd.evaluation.saebench.data.names import BUNDLED, HELDOUT, HUB, SCORING_SOURCES


def _check_unique(items: list[Any]) -> list[Any]:
    for item in items:
        if items.count(item) > 1:
            raise ValueError(f"expected each item once, got {item!r} {items.count(item)} times")
    return items


UNIQUE = AfterValidator(_check_unique)
Names = Annotated[list[Text], Field(min_length=1, json_schema_extra={"uniqueItems": True}), UNIQUE]
DataSource = Literal["bundled", "hub"]
TextSource = Literal["bundled", "hub", "heldout"]
ContextLength = Annotated[int, Field(ge=3)]  # a token of text between bos and eos


def _allow_heldout(schema: dict[str, Any]) -> None:
    """Let an editor accept the one word beside the list."""
    names = {key: schema.pop(key) for key in ("type", "items", "minItems")}
    schema["anyOf"] = [{**names, "uniqueItems": True}, {"const": HELDOUT, "type": "string"}]


class TextSettings(Settings):
    """Texts without labels: of data sets that sae-probes carries, of the hub, or the run's own."""

    hub_default: ClassVar[tuple[str, ...]] = ()  # what SAEBench itself reads

    data: TextSource = "bundled"
    """Where the data sets are: in the package sae-probes (bundled), on the hub, or in `text`."""
    datasets: Annotated[list[Text], UNIQUE] = Field(
        list(SCORING_SOURCES), min_length=1, json_schema_extra=_allow_heldout
    )
    """Data sets to read, each in turn; `heldout`: the run's own held-out documents."""

    @model_validator(mode="before")
    @classmethod
    def _read_default(cls, values: Any) -> Any:
        return _fill_hub_default(_fill_heldout(values), cls.hub_default)

    @model_validator(mode="after")
    def _check_heldout(self) -> TextSettings:
        is_heldout = self.data == HELDOUT
        if (is_heldout or HELDOUT in self.datasets) and self.datasets != [HELDOUT]:
            raise ValueError(
                f"datasets: expected {HELDOUT} alone, the run's own held-out documents, got "
                f"{', '.join(self.datasets)}"
            )
        if self.datasets == [HELDOUT] and not is_heldout:
            raise ValueError(f"data: expected {HELDOUT}, as datasets has, got {self.data}")
        return self


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


def _fill_heldout(values: Any) -> Any:
    """Say the one word ``heldout`` in both keys, whichever of them has it."""
    if not isinstance(values, Mapping):
        return values
    datasets, data = values.get("datasets"), values.get("data")
    named = datasets in (HELDOUT, [HELDOUT])
    if (named and data in (None, HELDOUT)) or (data == HELDOUT and datasets is None):
        return {**values, "data": HELDOUT, "datasets": [HELDOUT]}
    return {**values, "datasets": [HELDOUT]} if named else values


def _fill_hub_default(values: Any, names: Iterable[str]) -> Any:
    """Add what SAEBench reads where a section says ``data: hub`` and no data sets."""
    if not isinstance(values, Mapping) or values.get("data") != HUB:
        return values
    return values if values.get("datasets") is not None else {**values, "datasets": list(names)}


def reads_heldout(settings: Settings) -> bool:
    """Whether an eval reads the run's own held-out documents."""
    return isinstance(settings, TextSettings) and settings.data == HELDOUT


def list_bundled_texts(settings: TextSettings) -> list[str]:
    """Return the data sets of sae-probes that are read."""
    return list(settings.datasets) if settings.data == BUNDLED else []


def list_hub_data(settings: TextSettings | LabelledSettings) -> list[str]:
    """Return the data sets of the hub that are read, by SAEBench's names."""
    return list(settings.datasets or ()) if settings.data == HUB else []
