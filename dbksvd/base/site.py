"""Where activations come from: a layer of the model, ready files, or a generative model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

SiteKind = Literal["layer", "files", "synthetic"]

_LAYER = re.compile(r"layer(0|[1-9]\d*)")


@dataclass(frozen=True)
class Site:
    """One source of activations: a folder below the results has its name.

    Parameters
    ----------
    kind : {"layer", "files", "synthetic"}
        The output of a layer, ready activations, or samples of a generative model.
    layer : int, optional
        Number of the layer as in ``hidden_states[layer]``; for the kind ``"layer"`` only.

    Examples
    --------
    >>> Site.parse("layer4")
    Site(kind='layer', layer=4)
    >>> str(Site("files"))
    'files'
    """

    kind: SiteKind
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(SiteKind):
            known = ", ".join(get_args(SiteKind))
            raise ValueError(f"site: expected one of {known}, got {self.kind!r}")
        if (self.layer is None) == (self.kind == "layer") or (self.layer or 0) < 0:
            raise ValueError(
                f"site: expected a number of a layer for the kind layer alone, got {self.kind!r} "
                f"and {self.layer!r}"
            )

    @classmethod
    def parse(cls, name: str) -> Site:
        """Return the site of a name such as ``layer4``, ``files`` or ``synthetic``.

        Raises
        ------
        ValueError
            If no site has the name.
        """
        if found := _LAYER.fullmatch(name):
            return cls("layer", int(found[1]))
        for kind in get_args(SiteKind):
            if name == kind != "layer":
                return cls(kind)
        raise ValueError(f"site: expected layer<number>, files or synthetic, got {name!r}")

    @property
    def is_layer(self) -> bool:
        """Whether the activations are those of a model that evals can run."""
        return self.kind == "layer"

    def __str__(self) -> str:
        return f"layer{self.layer}" if self.is_layer else self.kind
