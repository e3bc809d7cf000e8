"""Settings of the fitting corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from dbksvd.base.settings import Count, Seed, Settings, Text, Unique
from dbksvd.text.sources.entry import SourceSettings
from dbksvd.text.sources.registry import SOURCES, find_text_source

if TYPE_CHECKING:
    AnySource = SourceSettings
else:
    AnySource = Annotated[
        Union[tuple(find_text_source(kind).settings for kind in SOURCES)],  # noqa: UP007
        Field(discriminator="kind"),
    ]


class TextSettings(Settings):
    """What the fitting corpus is made of."""

    sources: Annotated[list[AnySource], Field(min_length=1)]
    """Where text is read, in this order; a text that is in several counts for the first."""
    max_documents: Count = 16000
    """Most documents written, both splits together; the default experiment's."""
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the documents that is held out."""
    held_out_datasets: Annotated[list[Text], *Unique] | None = None
    """Data sets of sae-probes of which no text is kept, whichever source it comes from; null holds
    out what the evals of the experiment read."""
    seed: Seed = 0
    """Decides order and split."""
    min_train_documents: Count = 1
    """Fewer training documents are refused."""
    min_heldout_documents: Count = 1
    """Fewer held-out documents are refused."""
