"""Where activations come from: a layer of the model, ready files, or a generative model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

SiteKind = Literal["layer", "random_layer", "files", "synthetic"]

LAYER_KINDS = ("layer", "random_layer")
RESIDUAL = "residual"  # behind a block
# Two places whose rows stand side by side: what a transcoder reads, and what it reconstructs.
PAIRS = {"mlp_pair": ("mlp_input", "mlp")}
PLACE_NAME = r"[a-z][a-z0-9_]*"
_LAYER = re.compile(rf"(layer|random_layer)(0|[1-9]\d*)(?:_({PLACE_NAME}))?")


@dataclass(frozen=True)
class Site:
    """One source of activations: a folder below the results has its name.

    Parameters
    ----------
    kind : {"layer", "random_layer", "files", "synthetic"}
        The output of a layer, the same of the model with its weights drawn anew, ready activations,
        or samples of a generative model.
    layer : int, optional
        Number of the layer as in ``hidden_states[layer]``; for the first two kinds only.
    place : str
        Where at the layer; the first two kinds only can name another than the residual stream.

    Examples
    --------
    >>> Site.parse("layer4")
    Site(kind='layer', layer=4, place='residual')
    >>> str(Site("layer", 4, "mlp")), str(Site("files"))
    ('layer4_mlp', 'files')
    """

    kind: SiteKind
    layer: int | None = None
    place: str = RESIDUAL

    def __post_init__(self) -> None:
        if self.kind not in get_args(SiteKind):
            known = ", ".join(get_args(SiteKind))
            raise ValueError(f"site: expected one of {known}, got {self.kind!r}")
        if (self.layer is None) == (self.kind in LAYER_KINDS) or (self.layer or 0) < 0:
            raise ValueError(
                "site: expected a number of a layer for the kinds layer and random_layer alone, "
                f"got {self.kind!r} and {self.layer!r}"
            )
        if self.place != RESIDUAL and (
            not self.is_layer or not re.fullmatch(PLACE_NAME, self.place)
        ):
            raise ValueError(
                f"site: expected a place in lower case, at a layer only, got {self.place!r} for "
                f"{self.kind}"
            )

    @classmethod
    def parse(cls, name: str) -> Site:
        """Return the site of a name such as ``layer4``, ``layer4_mlp``, ``files`` or ``synthetic``.

        Raises
        ------
        ValueError
            If no site has the name.
        """
        if (found := _LAYER.fullmatch(name)) and found[3] != RESIDUAL:
            kind: Literal["layer", "random_layer"] = (
                "layer" if found[1] == "layer" else "random_layer"
            )
            return cls(kind, int(found[2]), found[3] or RESIDUAL)
        if name == "files":
            return cls("files")
        if name == "synthetic":
            return cls("synthetic")
        raise ValueError(
            "site: expected layer<number>, random_layer<number>, one of these with _<place>, files "
            f"or synthetic, got {name!r}"
        )

    @property
    def is_layer(self) -> bool:
        """Whether the activations are those of a model."""
        return self.kind in LAYER_KINDS

    @property
    def is_residual(self) -> bool:
        """Whether they are the residual stream behind a block."""
        return self.is_layer and self.place == RESIDUAL

    @property
    def is_pair(self) -> bool:
        """Whether a row is an input and a target side by side, which only transcoders fit."""
        return self.place in PAIRS

    @property
    def is_random(self) -> bool:
        """Whether the weights of the model were drawn anew: what scores give here is a floor."""
        return self.kind == "random_layer"

    def __str__(self) -> str:
        layer = f"{self.kind}{self.layer}" if self.is_layer else self.kind
        return layer if self.place == RESIDUAL else f"{layer}_{self.place}"
