"""Which layers of a model are read, and where at each of them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dbksvd.base.settings import NonNegativeInt, Settings, Text, Unique
from dbksvd.base.site import PAIRS, PLACE_NAME, RESIDUAL, Site
from dbksvd.models.families import BLOCK, HOOK_NAMES, list_close_places

Layers = Annotated[list[NonNegativeInt], Field(min_length=1), *Unique]
Place = Annotated[str, Field(pattern=f"^{PLACE_NAME}$")]
Places = Annotated[list[Place], Field(min_length=1), *Unique]


class LayerSettings(Settings):
    """The sites of an experiment: every place at every layer."""

    layers: Layers
    """Layers as in ``hidden_states``: 0 is the embeddings, L the output of block L counted from 1,
    which TransformerLens calls ``blocks.{L-1}.hook_resid_post``.
    """
    sites: Places = [RESIDUAL]  # noqa: RUF012 - pydantic copies it
    """Places at each layer, all read in one forward pass: ``residual`` (behind the block),
    ``residual_before``, ``attention`` and ``mlp`` (what they add to the residual stream),
    ``mlp_input`` (its norm applied), ``mlp_pair`` (that input and the MLP's output side by side,
    for transcoders), or names of `modules`.
    """
    modules: dict[Place, Text] = {}  # noqa: RUF012 - pydantic copies it
    """Modules whose outputs are places, such as ``{mlp: "model.layers.{block}.mlp"}``; the block is
    counted from 0. For models that the tables do not know, and for places of your own.
    """

    @field_validator("modules")
    @classmethod
    def _check_paths(cls, modules: dict[str, str]) -> dict[str, str]:
        for name, path in modules.items():
            if name == RESIDUAL:
                raise ValueError(f"{name}: expected no entry, since it is the output of a block")
            if name in PAIRS:
                raise ValueError(f"{name}: expected no entry, since it is a pair of modules")
            if BLOCK not in path or re.search(r"[{}]", path.replace(BLOCK, "")):
                raise ValueError(f"{name}: expected a path with {BLOCK} in it, got {path!r}")
        return modules

    @model_validator(mode="after")
    def _check_sites(self) -> LayerSettings:
        given = [*HOOK_NAMES, *PAIRS]
        known = [*given, *(name for name in self.modules if name not in given)]
        for position, place in enumerate(self.sites):
            if place not in known:
                raise ValueError(
                    f"sites[{position}]: expected one of {', '.join(known)}, or a name of modules, "
                    f"got {place!r}{list_close_places(place, known)}"
                )
        for name in self.modules:
            if name not in self.sites:
                raise ValueError(
                    f"modules.{name}: no effect without {name} in sites, got sites: {self.sites}"
                )
        others = [place for place in self.sites if place != RESIDUAL]
        if others and 0 in self.layers:
            raise ValueError(
                f"layers: expected layers from 1 for {others[0]}, since the embeddings have no "
                f"such place, got {self.layers}"
            )
        return self

    def list_sites(self, kind: Literal["layer", "random_layer"] = "layer") -> list[Site]:
        """Return the sites, layer by layer."""
        return [Site(kind, layer, place) for layer in self.layers for place in self.sites]

    def find_own_module(self, layer: int | None, place: str) -> str | None:
        """Return the module that `modules` says a place at a layer is; None where it says none."""
        path = self.modules.get(place)
        return None if path is None or layer is None else path.replace(BLOCK, str(layer - 1))


class SiteSettings(Settings):
    """One site of a model."""

    layer: NonNegativeInt | None = None
    """Layer as in ``hidden_states``; null where `hook_module` names the site."""
    place: Place = RESIDUAL
    """Where at the layer."""
