"""Settings of coding dictionaries by other encoders than their own. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dbksvd.base.settings import Settings, Text

Encoder = Literal["own", "mp", "ols", "ols_mean", "lasso", "lasso_refit"]
ENCODERS: tuple[Encoder, ...] = ("own", "mp", "ols", "ols_mean", "lasso", "lasso_refit")
# How figures and tables write them, in their order there.
LABELS: dict[str, str] = {
    "own": "its own",
    "mp": "matching pursuit",
    "ols": "OLS, k atoms",
    "ols_mean": "OLS, one threshold",
    "lasso": "lasso",
    "lasso_refit": "lasso, refitted",
}


class EncoderSettings(Settings):
    """Section ``encoders``: the dictionary of each method, coded by each encoder at equal L0."""

    methods: Annotated[list[Text], Field(min_length=1)] | None = None
    """Names from `methods`, of which one dictionary each is coded: that of the first seed, at the
    k that most fits of its site have. Null takes all methods."""
    encoders: Annotated[list[Encoder], Field(min_length=1)] = Field(list(ENCODERS))
    """Ways of coding. own: as the method codes. mp, ols: pursuits of k atoms a sample. ols_mean:
    ols with one threshold for all samples. lasso: least squares with an L1 penalty, one for all
    samples. lasso_refit: the same atoms, with the penalty left out of their coefficients."""
    rows: Annotated[int, Field(ge=1, le=4096)] = 2000
    """Held-out samples that are coded. Threshold and penalty, one number each, are chosen on these
    same samples, so that L0 is equal there."""
    probing: list[Text] = Field([])
    """Names from `methods` that are probed too with each encoder, by the settings of the eval
    sparse_probing_sae_probes: about three seconds for each data set and encoder."""

    @field_validator("methods", "encoders", "probing")
    @classmethod
    def _refuse_repeats(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError(f"expected no repeats, got {values}")
        return values
